/**
 * A link over a `Deno.TcpConn`.
 *
 * @module
 */

import { setImmediate } from "node:timers";
import type { TransportError } from "../errors.ts";
import type { Link, LinkEvents, LinkInfo } from "../transport/transport.ts";
import { linkFailed } from "./socket_errors.ts";
import { HIGH_WATER_BYTES } from "./sockets.ts";

const MIN_READ_BYTES = 8 * 1024;
const MAX_READ_BYTES = 256 * 1024;
/** What one read brings should be handled in this time, … */
const SLOW_MS = 2;
/** … and so long one read may follow the other before other work of the process has its turn. */
const TURN_MS = 4;
const NO_BUFFER: Uint8Array<ArrayBuffer> = new Uint8Array(0);

/** Wraps a connection, and from then on owns it. */
export class DenoLink implements Link {
  readonly info: LinkInfo;
  readonly #conn: Deno.TcpConn;
  readonly #onGone: (() => void) | undefined;
  #events: LinkEvents | undefined;
  #error: TransportError | undefined;

  #queue: Uint8Array[] = [];
  #bufferedBytes = 0;
  #writing = false;
  #ended = false;
  #finished = false;

  #buffer = NO_BUFFER;
  #readBytes = MIN_READ_BYTES;
  #turnSince = -Infinity;
  /** Whether what the last chunk brought took long to handle. */
  #slow = false;
  #reading = false;
  #paused = false;
  #held: Uint8Array | undefined;
  #peerEnded = false;
  #closed = false;

  /** `onGone` is called once, when the connection is gone. */
  constructor(conn: Deno.TcpConn, info: LinkInfo, onGone?: () => void) {
    this.#conn = conn;
    this.info = info;
    this.#onGone = onGone;
  }

  get bufferedBytes(): number {
    return this.#bufferedBytes;
  }

  open(events: LinkEvents): void {
    this.#events = events;
    queueMicrotask(() => {
      if (this.#closed) this.#tellClose();
      else this.#read();
    });
  }

  write(chunk: Uint8Array): boolean {
    if (chunk.length > 0) {
      this.#bufferedBytes += chunk.length;
      if (this.#ended || this.#closed) return false;
      this.#queue.push(chunk);
      if (!this.#writing) this.#writeQueue();
    }
    return this.#bufferedBytes <= HIGH_WATER_BYTES;
  }

  pause(): void {
    this.#paused = true;
  }

  resume(): void {
    if (!this.#paused) return;
    this.#paused = false;
    if (this.#events !== undefined) queueMicrotask(() => this.#read());
  }

  end(): void {
    if (this.#ended || this.#closed) return;
    this.#ended = true;
    if (!this.#writing) this.#finish();
  }

  close(): void {
    this.#shut(undefined);
  }

  async #writeQueue(): Promise<void> {
    this.#writing = true;
    while (this.#queue.length > 0) {
      const chunks = this.#queue;
      this.#queue = [];
      for (const chunk of chunks) await this.#writeAll(chunk);
      if (this.#queue.length === 0 && !this.#closed) this.#events?.onDrain();
    }
    this.#writing = false;
    if (this.#ended) await this.#finish();
  }

  /** A connection takes as much at a time as the kernel has room for. */
  async #writeAll(chunk: Uint8Array): Promise<void> {
    for (let rest = chunk; rest.length > 0 && !this.#closed;) {
      try {
        const count = await this.#conn.write(rest);
        this.#bufferedBytes -= count;
        rest = rest.subarray(count);
      } catch (cause) {
        this.#shut(linkFailed(this.info.remoteAddress, cause));
      }
    }
  }

  /** Sends FIN. */
  async #finish(): Promise<void> {
    if (this.#closed) return;
    try {
      await this.#conn.closeWrite();
      this.#finished = true;
      if (this.#peerEnded) this.#shut(undefined);
    } catch (cause) {
      this.#shut(linkFailed(this.info.remoteAddress, cause));
    }
  }

  async #read(): Promise<void> {
    if (this.#reading) return;
    this.#reading = true;
    while (!this.#paused && !this.#closed && !this.#peerEnded) {
      if (performance.now() - this.#turnSince > TURN_MS) await this.#nextTurn();
      const chunk = this.#held ?? await this.#readChunk();
      this.#held = undefined;
      if (chunk === undefined || this.#closed) continue;
      if (this.#paused) this.#held = chunk;
      else this.#deliver(chunk);
    }
    this.#reading = false;
  }

  #deliver(chunk: Uint8Array): void {
    const began = performance.now();
    if (this.#events?.onData(chunk)) this.#reuse(chunk);
    // Handlers that take their time get less at once: other connections have their turns, too.
    this.#slow = performance.now() - began > SLOW_MS;
    if (this.#slow) this.#readBytes = Math.max(this.#readBytes / 2, MIN_READ_BYTES);
  }

  /**
   * A read that finds something is over within the same turn of the loop: a sender that is never
   * slower than our handler would keep timers and all other connections from theirs.
   */
  async #nextTurn(): Promise<void> {
    await new Promise<void>((resolve) => setImmediate(resolve));
    this.#turnSince = performance.now();
  }

  /** Nobody looks at a chunk any more: the next read may fill its memory. */
  #reuse({ buffer }: Uint8Array): void {
    if (this.#buffer === NO_BUFFER && buffer.byteLength === this.#readBytes) {
      this.#buffer = new Uint8Array(buffer as ArrayBuffer);
    }
  }

  /** The next bytes; undefined where there were none, because of the end or of an error. */
  async #readChunk(): Promise<Uint8Array | undefined> {
    if (this.#buffer.length !== this.#readBytes) this.#buffer = new Uint8Array(this.#readBytes);
    const buffer = this.#buffer;
    let count: number | null;
    try {
      count = await this.#conn.read(buffer);
    } catch (cause) {
      this.#shut(linkFailed(this.info.remoteAddress, cause));
      return undefined;
    }
    if (count === null) this.#onEnd();
    if (count === null || count === 0) return undefined;
    if (count === buffer.length && !this.#slow) {
      this.#readBytes = Math.min(count * 2, MAX_READ_BYTES);
    }
    // A small read is copied out: its chunk must not hold the large buffer alive.
    if (count < buffer.length / 4) {
      this.#readBytes = Math.max(this.#readBytes / 2, MIN_READ_BYTES);
      return buffer.slice(0, count);
    }
    this.#buffer = NO_BUFFER;
    return buffer.subarray(0, count);
  }

  #onEnd(): void {
    if (this.#closed) return;
    this.#peerEnded = true;
    this.#events?.onEnd();
    if (this.#finished) this.#shut(undefined);
  }

  #shut(error: TransportError | undefined): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#error = error;
    this.#queue = [];
    this.#conn.close();
    this.#onGone?.();
    queueMicrotask(() => this.#tellClose());
  }

  #tellClose(): void {
    const events = this.#events;
    this.#events = undefined;
    events?.onClose(this.#error);
  }
}
