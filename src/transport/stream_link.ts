/**
 * Links over pairs of Web Streams, for transports of one's own.
 *
 * @module
 */

import { TransportError } from "../errors.ts";
import type { Link, LinkEvents, LinkInfo } from "./transport.ts";

/** Bytes that may wait in front of the stream before `write` says stop. */
const HIGH_WATER_BYTES = 262_144;

/** What {@linkcode streamLink} makes a link of. */
export interface StreamPair {
  /** What the other side writes; its end is the end of that direction. */
  readonly readable: ReadableStream<Uint8Array>;
  /** What the other side reads. A write must be done when its chunk has left. */
  readonly writable: WritableStream<Uint8Array>;
}

/**
 * Makes a link of two streams of bytes: of a child process, of a worker, of WebTransport. Their
 * backpressure is that of the link.
 *
 * @param streams Both directions; they are locked from now on.
 * @param info What endpoints are told of the link.
 * @param release Called once when the link is gone: what {@linkcode ListenOptions.admit} gave.
 */
export function streamLink(streams: StreamPair, info: LinkInfo, release?: () => void): Link {
  return new StreamLink(streams, info, release ?? (() => {}));
}

class StreamLink implements Link {
  readonly info: LinkInfo;
  bufferedBytes = 0;
  readonly #reader: ReadableStreamDefaultReader<Uint8Array>;
  readonly #writer: WritableStreamDefaultWriter<Uint8Array>;
  readonly #release: () => void;
  #events: LinkEvents | undefined;
  /** Lets the reading go on. */
  #resumed: (() => void) | undefined;
  #paused = false;
  #ended = false;
  #peerEnded = false;
  #closed = false;
  #error: TransportError | undefined;

  constructor({ readable, writable }: StreamPair, info: LinkInfo, release: () => void) {
    this.info = info;
    this.#release = release;
    this.#reader = readable.getReader();
    this.#writer = writable.getWriter();
    this.#writer.closed.catch((cause) => this.#fail(cause));
  }

  open(events: LinkEvents): void {
    this.#events = events;
    if (this.#closed) this.#tellClose();
    else this.#read(events).catch((cause) => this.#fail(cause));
  }

  write(chunk: Uint8Array): boolean {
    this.bufferedBytes += chunk.length;
    if (this.#closed || this.#ended) return false;
    // A copy: the stream's own reader may keep it, while the writer changes what has left.
    const sent = chunk.length > 0 ? this.#writer.write(chunk.slice()) : undefined;
    sent?.then(() => this.#left(chunk.length), (cause) => this.#fail(cause));
    return this.bufferedBytes < HIGH_WATER_BYTES;
  }

  pause(): void {
    this.#paused = true;
  }

  resume(): void {
    this.#paused = false;
    this.#resumed?.();
  }

  end(): void {
    if (this.#ended || this.#closed) return;
    this.#ended = true;
    this.#writer.close().then(() => this.#finish(), (cause) => this.#fail(cause));
  }

  close(): void {
    if (this.#closed) return;
    this.#shut(undefined);
    this.#writer.abort().catch(() => {});
    this.#reader.cancel().catch(() => {});
  }

  async #read(events: LinkEvents): Promise<void> {
    while (true) {
      const { value } = await this.#reader.read();
      while (this.#paused) await new Promise<void>((resolve) => this.#resumed = resolve);
      if (this.#closed) return;
      if (value === undefined) break;
      if (value.length > 0) events.onData(plainBytes(value));
    }
    this.#peerEnded = true;
    events.onEnd();
    this.#finish();
  }

  #left(bytes: number): void {
    if (this.#closed) return;
    this.bufferedBytes -= bytes;
    if (this.bufferedBytes > 0) return;
    this.#events?.onDrain();
    this.#finish();
  }

  /** Closes by itself when both sides have ended and nothing is left. */
  #finish(): void {
    if (this.#ended && this.#peerEnded && this.bufferedBytes === 0) this.#shut(undefined);
  }

  #fail(cause: unknown): void {
    const text = cause instanceof Error ? cause.message : String(cause);
    this.#shut(new TransportError("ConnectionClosed", `Cannot read: ${text}`, { cause }));
    this.#writer.abort().catch(() => {});
    this.#reader.cancel().catch(() => {});
  }

  #shut(error: TransportError | undefined): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#error = error;
    this.#release();
    if (this.#events !== undefined) this.#tellClose();
  }

  #tellClose(): void {
    queueMicrotask(() => this.#events!.onClose(this.#error));
  }
}

/** Without the class of another library: a `Buffer` is a `Uint8Array`, but not the other way round. */
function plainBytes(bytes: Uint8Array): Uint8Array {
  if (bytes.constructor === Uint8Array) return bytes;
  return new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.length);
}
