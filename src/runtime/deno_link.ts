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

/** The read that waits on a connection on which nothing comes: that memory is taken all the time. */
const IDLE_READ_BYTES = 512;
const MIN_READ_BYTES = 8 * 1024;
const MAX_READ_BYTES = 256 * 1024;
/** What one read brings should be handled in this time, … */
const SLOW_MS = 2;
/** Where nothing came for so long, no more is expected. */
const IDLE_MS = 1_000;
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
  #readBytes = IDLE_READ_BYTES;
  /** When the read under way began. */
  #readSince = 0;
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

  #read(): void {
    if (this.#reading) return;
    this.#reading = true;
    this.#goOn();
  }

  // Functions that wait would keep more for each idle connection than those that are called back.

  /** Delivers what is held, and asks for more. */
  #goOn(): void {
    const held = this.#held;
    if (held !== undefined && !this.#paused && !this.#closed) {
      this.#held = undefined;
      this.#deliver(held);
    }
    if (this.#paused || this.#closed || this.#peerEnded) {
      this.#reading = false;
      return;
    }
    const now = performance.now();
    if (now - this.#turnSince > TURN_MS) {
      // A read that finds something is over within the same turn of the loop: a sender that is never
      // slower than our handler would keep timers and all other connections from theirs.
      setImmediate(() => {
        this.#turnSince = performance.now();
        this.#goOn();
      });
      return;
    }
    if (this.#buffer.length !== this.#readBytes) this.#buffer = new Uint8Array(this.#readBytes);
    this.#readSince = now;
    this.#conn.read(this.#buffer).then(this.#onRead, this.#onReadFailed);
  }

  readonly #onRead = (count: number | null): void => {
    if (count === null) this.#onEnd();
    else if (count > 0) {
      const chunk = this.#takeRead(count);
      if (this.#paused) this.#held = chunk;
      else if (!this.#closed) this.#deliver(chunk);
    }
    this.#goOn();
  };

  readonly #onReadFailed = (cause: unknown): void => {
    this.#shut(linkFailed(this.info.remoteAddress, cause));
    this.#goOn();
  };

  #deliver(chunk: Uint8Array): void {
    const began = performance.now();
    if (this.#events?.onData(chunk)) this.#reuse(chunk);
    // Handlers that take their time get less at once: other connections have their turns, too.
    this.#slow = performance.now() - began > SLOW_MS;
    if (this.#slow) this.#readLess();
  }

  /** Nobody looks at a chunk any more: the next read may fill its memory. */
  #reuse({ buffer }: Uint8Array): void {
    if (this.#buffer === NO_BUFFER && buffer.byteLength === this.#readBytes) {
      this.#buffer = new Uint8Array(buffer as ArrayBuffer);
    }
  }

  /** The bytes that the last read has brought; the next one asks for as many as they suggest. */
  #takeRead(count: number): Uint8Array {
    const buffer = this.#buffer;
    if (count === buffer.length) {
      if (!this.#slow) {
        this.#readBytes = Math.min(Math.max(count * 2, MIN_READ_BYTES), MAX_READ_BYTES);
      }
    } else if (performance.now() - this.#readSince > IDLE_MS) {
      this.#readBytes = IDLE_READ_BYTES;
    }
    // A small read is copied out: its chunk must not hold the large buffer alive.
    if (count < buffer.length / 4) {
      this.#readLess();
      return buffer.slice(0, count);
    }
    this.#buffer = NO_BUFFER;
    return buffer.subarray(0, count);
  }

  #readLess(): void {
    if (this.#readBytes > MIN_READ_BYTES) this.#readBytes /= 2;
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
