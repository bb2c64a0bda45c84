/**
 * A stream as the application holds it: a pair of Web Streams.
 *
 * @module
 */

import type { TransportError } from "../errors.ts";
import { isCode } from "../protocol/v3/call_messages.ts";
import type { StreamCore, StreamSink } from "../protocol/v3/stream_core.ts";
import { LANE_NAMES, type LaneName } from "../protocol/v3/types.ts";

const NO_BYTES: Uint8Array = new Uint8Array(0);

/**
 * A duplex stream of bytes to another node. Both directions have windows of their own: reading
 * slowly slows the writer at the other end, and nobody else.
 */
export class TransportStream {
  /** The other node. */
  readonly nodeId: string;
  /** Named by the opener. */
  readonly topic: string | undefined;
  /** The lane that its bytes travel in. */
  readonly lane: LaneName;
  /** The bytes that came with the opening; they may be a view of a larger buffer. */
  readonly payload: Uint8Array;
  /**
   * What the other side writes. Cancelling it resets the stream, with code "CANCELLED"; only read
   * it to its end, or leave it, to keep the other direction.
   */
  readonly readable: ReadableStream<Uint8Array>;
  /**
   * What the other side reads. Takes `Uint8Array`s and copies them; a write resolves when all of
   * the chunk fits in the window. Closing ends this direction only and resolves when the end has
   * gone out; aborting resets the stream, with code "CANCELLED".
   */
  readonly writable: WritableStream<Uint8Array>;
  /**
   * Resolves when both directions have ended and all was read. Rejects with why the stream failed:
   * a `RemoteError` if the other side reset it, else a `TransportError`.
   */
  readonly closed: Promise<void>;
  readonly #core: StreamCore;
  readonly #reading: Reading;

  /** Wraps a stream; only the endpoint does. */
  constructor(nodeId: string, core: StreamCore) {
    this.nodeId = nodeId;
    this.topic = core.topic;
    this.lane = LANE_NAMES[core.lane];
    this.payload = core.payload;
    this.#core = core;
    const life = new Life();
    const reading = new Reading(core, life);
    this.#reading = reading;
    const writing = new Writing(core, life);
    this.readable = reading.stream;
    this.writable = writing.stream;
    this.closed = life.closed;
    core.attach(new Ears(reading, writing, life));
    if (core.error === undefined) reading.advance();
    else life.fail(core.error);
  }

  /**
   * Its handler is done: what nobody reads is thrown away.
   *
   * @ignore
   */
  leave(): void {
    this.#reading.leave();
  }

  /**
   * Gives both directions up. The other side's reads and writes fail with a `RemoteError` that
   * carries code and message. Nothing happens if the stream is over already.
   *
   * @param code 1 to 64 characters of printable ASCII without spaces. "CANCELLED" by default.
   * @param message For people; cut to 1024 characters. Empty by default.
   * @throws {RangeError} If `code` is anything else.
   */
  reset(code: string = "CANCELLED", message: string = ""): void {
    if (!isCode(code)) {
      throw new RangeError("Cannot reset the stream: a code is 1 to 64 printable ASCII characters");
    }
    this.#core.reset(code, message);
  }
}

/** When a stream is over. */
class Life {
  readonly closed: Promise<void>;
  #resolve!: () => void;
  #reject!: (error: TransportError) => void;
  #open = 2;

  constructor() {
    this.closed = new Promise((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    });
    // Nobody has to listen.
    this.closed.catch(() => {});
  }

  /** One of the two directions has ended in order. */
  ended(): void {
    if (--this.#open === 0) this.#resolve();
  }

  fail(error: TransportError): void {
    this.#reject(error);
  }
}

/** Passes on what the core says. */
class Ears implements StreamSink {
  readonly #reading: Reading;
  readonly #writing: Writing;
  readonly #life: Life;

  constructor(reading: Reading, writing: Writing, life: Life) {
    this.#reading = reading;
    this.#writing = writing;
    this.#life = life;
  }

  onReadable(): void {
    this.#reading.advance();
  }

  onWritable(): void {
    this.#writing.advance();
  }

  onEndSent(): void {
    this.#writing.ended();
  }

  onFailed(error: TransportError): void {
    this.#life.fail(error);
    this.#reading.fail(error);
    this.#writing.fail(error);
  }
}

/** The readable half. Nothing is queued outside of the core: it gives what is asked for. */
class Reading {
  readonly stream: ReadableStream<Uint8Array>;
  readonly #core: StreamCore;
  readonly #life: Life;
  #controller!: ReadableStreamDefaultController<Uint8Array>;
  /** Somebody waits for bytes. */
  #asked: (() => void) | undefined;
  #over = false;
  #left = false;

  constructor(core: StreamCore, life: Life) {
    this.#core = core;
    this.#life = life;
    this.stream = new ReadableStream<Uint8Array>({
      start: (controller) => {
        this.#controller = controller;
      },
      pull: () => this.#pull(),
      cancel: () => this.#cancel(),
    }, { highWaterMark: 0 });
    if (core.error !== undefined) this.fail(core.error);
  }

  #pull(): Promise<void> | undefined {
    if (this.#over || this.#give()) return undefined;
    return new Promise((resolve) => {
      this.#asked = resolve;
    });
  }

  #cancel(): void {
    this.#over = true;
    this.#core.reset("CANCELLED", "the reader cancelled");
  }

  /** Nobody is going to read, unless somebody does already. */
  leave(): void {
    this.#left = !this.stream.locked;
    this.advance();
  }

  /** There may be bytes, or the end. */
  advance(): void {
    if (this.#over) return;
    if (this.#left) { while (this.#core.read().length > 0); }
    if (this.#asked === undefined) return this.#endIfDrained();
    if (this.#give()) this.#answer();
  }

  fail(error: TransportError): void {
    if (this.#over) return;
    this.#over = true;
    this.#controller.error(error);
    this.#answer();
  }

  #answer(): void {
    const asked = this.#asked;
    this.#asked = undefined;
    asked?.();
  }

  /** Gives the next bytes, or the end; false if there is neither. */
  #give(): boolean {
    const bytes = this.#core.read();
    if (bytes.length > 0) this.#controller.enqueue(bytes);
    this.#endIfDrained();
    return this.#over || bytes.length > 0;
  }

  #endIfDrained(): void {
    if (this.#over || !this.#core.drained) return;
    this.#over = true;
    this.#controller.close();
    this.#answer();
    this.#life.ended();
  }
}

interface Settle {
  readonly resolve: () => void;
  readonly reject: (error: unknown) => void;
}

/** The writable half. At most one chunk waits for the window. */
class Writing {
  readonly stream: WritableStream<Uint8Array>;
  readonly #core: StreamCore;
  readonly #life: Life;
  #controller!: WritableStreamDefaultController;
  #chunk: Uint8Array = NO_BYTES;
  /** The write or the close that waits. */
  #waiting: Settle | undefined;
  #advancing = false;
  #again = false;
  #over = false;

  constructor(core: StreamCore, life: Life) {
    this.#core = core;
    this.#life = life;
    this.stream = new WritableStream<Uint8Array>({
      start: (controller) => {
        this.#controller = controller;
        // An abort is announced here before the write under way has settled, and waits for it.
        controller.signal.addEventListener("abort", () => this.#abort(), { once: true });
      },
      write: (chunk) => this.#write(chunk),
      close: () => this.#close(),
      abort: () => this.#abort(),
    });
    if (core.error !== undefined) this.fail(core.error);
  }

  #write(chunk: unknown): Promise<void> | undefined {
    if (!(chunk instanceof Uint8Array)) {
      this.#over = true;
      this.#core.reset("CANCELLED", "the writer failed");
      throw new TypeError("Cannot write to the stream: a chunk is not a Uint8Array");
    }
    this.#chunk = chunk;
    this.advance();
    return this.#chunk.length === 0 ? undefined : this.#wait();
  }

  #close(): Promise<void> {
    const sent = this.#wait();
    this.#core.end();
    return sent;
  }

  #abort(): void {
    this.#over = true;
    this.#core.reset("CANCELLED", "the writer aborted");
  }

  #wait(): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#waiting = { resolve, reject };
    });
  }

  /** There may be room. Writing can make room, so that this is called while it is at work. */
  advance(): void {
    this.#again = true;
    if (this.#advancing || this.#chunk.length === 0) return;
    this.#advancing = true;
    while (this.#again && this.#chunk.length > 0) {
      this.#again = false;
      const taken = this.#core.write(this.#chunk);
      this.#chunk = this.#chunk.subarray(taken);
    }
    this.#advancing = false;
    if (this.#chunk.length === 0) this.#settle();
  }

  /** The end has gone out. */
  ended(): void {
    if (this.#over) return;
    this.#over = true;
    this.#settle();
    this.#life.ended();
  }

  fail(error: TransportError): void {
    this.#chunk = NO_BYTES;
    if (!this.#over) {
      this.#over = true;
      this.#controller.error(error);
    }
    this.#waiting?.reject(error);
    this.#waiting = undefined;
  }

  #settle(): void {
    this.#waiting?.resolve();
    this.#waiting = undefined;
  }
}
