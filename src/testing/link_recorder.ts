/**
 * The owner of a link in tests: writes down what the link tells, and lets tests wait for it.
 *
 * @module
 */

import type { TransportError } from "../errors.ts";
import type { Link } from "../transport/transport.ts";
import { check } from "./assertions.ts";

/** How long a test waits for an event before it fails; never a pause that a test relies on. */
const LIMIT_MS = 15_000;

/** Opens a link and records its events. */
export class LinkRecorder {
  readonly link: Link;
  /** The names of the events in their order, with "data" only once in a row. */
  readonly events: string[] = [];
  receivedBytes = 0;
  /** Runs with each chunk, after it was counted. */
  onChunk: (chunk: Uint8Array) => void = () => {};
  onDrain: () => void = () => {};
  /** While a test calls the link: an event now would be one from inside the call. */
  inside = false;
  closeError: TransportError | undefined;
  #chunks: Uint8Array[] = [];
  #watchers = new Set<() => void>();

  constructor(link: Link, options: { keep?: boolean } = {}) {
    this.link = link;
    this.call(() =>
      link.open({
        onData: (chunk) => {
          check(chunk.length > 0, "an empty chunk");
          check(chunk.constructor === Uint8Array, `a ${chunk.constructor.name}`);
          this.receivedBytes += chunk.length;
          if (options.keep !== false) this.#chunks.push(chunk);
          this.onChunk(chunk);
          this.#note("data");
        },
        onDrain: () => {
          this.onDrain();
          this.#note("drain");
        },
        onEnd: () => this.#note("end"),
        onClose: (error) => {
          this.closeError = error;
          this.#note("close");
        },
      })
    );
  }

  /** Calls the link, and fails on an event from inside the call. */
  call<T>(body: () => T): T {
    this.inside = true;
    try {
      return body();
    } finally {
      this.inside = false;
    }
  }

  /** Whether the link told this. */
  told(name: string): boolean {
    return this.events.includes(name);
  }

  /** Everything received, in one piece. */
  get bytes(): Uint8Array {
    const all = new Uint8Array(this.receivedBytes);
    let offset = 0;
    for (const chunk of this.#chunks) {
      all.set(chunk, offset);
      offset += chunk.length;
    }
    return all;
  }

  /** Resolves when `done` holds, which is looked at after each event. */
  until(done: () => boolean, what = "what the test waits for"): Promise<void> {
    if (done()) return Promise.resolve();
    return new Promise((resolve, reject) => {
      const settle = (finish: () => void) => {
        clearTimeout(timer);
        this.#watchers.delete(look);
        finish();
      };
      const look = () => done() && settle(resolve);
      const timer = setTimeout(() => {
        const seen = `${this.events.join(" ")}; ${this.receivedBytes} bytes`;
        settle(() => reject(new Error(`${what} did not happen; events: ${seen}`)));
      }, LIMIT_MS);
      this.#watchers.add(look);
    });
  }

  /** Resolves when the link has received this many bytes. */
  received(bytes: number): Promise<void> {
    return this.until(() => this.receivedBytes >= bytes, `receiving ${bytes} bytes`);
  }

  /** Resolves when the link has closed. */
  async closed(): Promise<TransportError | undefined> {
    await this.until(() => this.told("close"), "the close");
    return this.closeError;
  }

  #note(name: string): void {
    check(!this.inside, `${name} came from inside a call of the link`);
    check(!this.told("close"), `${name} came after the close`);
    if (name !== "data" || this.events.at(-1) !== "data") this.events.push(name);
    for (const look of [...this.#watchers]) look();
  }
}

/** Resolves when `done` holds, looking once per turn of the event loop. */
export async function until(done: () => boolean, what: string): Promise<void> {
  const end = performance.now() + LIMIT_MS;
  while (!done()) {
    check(performance.now() < end, `${what} did not happen`);
    await turn();
  }
}

/** Lets the event loop go round once. */
export function turn(): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, 0));
}

/** Bytes that tell their position: the 32-bit counter of each aligned word. */
export function countedBytes(length: number, start = 0): Uint8Array {
  const words = new Uint32Array(length / 4);
  for (let i = 0; i < words.length; i++) words[i] = start / 4 + i;
  return new Uint8Array(words.buffer);
}

/** Checks a stream of {@linkcode countedBytes} as it comes, however it is cut. */
export class CountedBytesCheck {
  #position = 0;

  take(chunk: Uint8Array): void {
    let index = 0;
    for (; index < chunk.length && this.#position % 4 !== 0; index++) this.#byte(chunk[index]!);
    const words = Math.floor((chunk.length - index) / 4);
    const view = new DataView(chunk.buffer, chunk.byteOffset + index);
    for (let word = 0; word < words; word++) {
      if (view.getUint32(word * 4, true) !== this.#position / 4 + word) {
        throw new Error(`a wrong word at ${this.#position + word * 4}`);
      }
    }
    this.#position += words * 4;
    for (index += words * 4; index < chunk.length; index++) this.#byte(chunk[index]!);
  }

  #byte(value: number): void {
    const word = Math.floor(this.#position / 4);
    if (value !== ((word >>> (8 * (this.#position % 4))) & 255)) {
      throw new Error(`a wrong byte at ${this.#position}`);
    }
    this.#position++;
  }
}
