/**
 * The two directions of a stream: bytes, windows, ends.
 *
 * @module
 */

import { ByteQueue } from "./stream_bytes.ts";
import { FRAGMENT_BYTES, STREAM_WINDOW_BYTES } from "./types.ts";

/** Further bytes are allowed once the reader has taken this many. */
const GRANT_BYTES = STREAM_WINDOW_BYTES / 2;

/** What comes in. At most one window waits to be read. */
export class ReceiveHalf {
  readonly #waiting = new ByteQueue();
  /** What has just come, while the reader is told: it is kept only if nobody takes it at once. */
  #fresh: Uint8Array | undefined;
  /** What the peer may still send. */
  #window = STREAM_WINDOW_BYTES;
  /** What was read, and the peer does not know. */
  #read = 0;
  #ended = false;

  /** Whether the peer has sent its end. */
  get ended(): boolean {
    return this.#ended;
  }

  /** Whether the end has come and everything before it was read. */
  get drained(): boolean {
    return this.#ended && this.unread === 0;
  }

  /** Bytes that wait for the reader. */
  get unread(): number {
    return this.#waiting.length + (this.#fresh?.length ?? 0);
  }

  /** Whether the peer should be allowed more. */
  get owesGrant(): boolean {
    return this.#read >= GRANT_BYTES && !this.#ended;
  }

  /** Bytes come in; `tell` is called where nothing waited before. False: more than the window. */
  accept(bytes: Uint8Array, tell: () => void): boolean {
    if (bytes.length > this.#window) return false;
    if (bytes.length === 0) return true;
    this.#window -= bytes.length;
    if (this.unread > 0) {
      this.#waiting.add(bytes, false);
      return true;
    }
    this.#fresh = bytes;
    tell();
    if (this.#fresh !== undefined) this.#waiting.add(this.#fresh, false);
    this.#fresh = undefined;
    return true;
  }

  /** The peer sends nothing more. */
  end(): void {
    this.#ended = true;
  }

  /** The next bytes; none if nothing waits. */
  read(): Uint8Array {
    const bytes = this.#fresh ?? this.#waiting.take(STREAM_WINDOW_BYTES);
    this.#fresh = undefined;
    this.#read += bytes.length;
    return bytes;
  }

  /** How many further bytes the peer is allowed now. */
  takeGrant(): number {
    const grant = this.#read;
    this.#read = 0;
    this.#window += grant;
    return grant;
  }

  /** Nothing is read any more. */
  clear(): void {
    this.#fresh = undefined;
    this.#waiting.clear();
  }
}

/** What goes out. What waits always fits in the peer's window, and is at most one window of ours. */
export class SendHalf {
  readonly #waiting = new ByteQueue();
  /** What the peer allows, what waits included. */
  #window = STREAM_WINDOW_BYTES;
  #closed = false;
  #ended = false;
  #refused = false;

  /** Whether the writer is done. */
  get closed(): boolean {
    return this.#closed;
  }

  /** Whether the end has been sent. */
  get ended(): boolean {
    return this.#ended;
  }

  /** Whether there are bytes or an end to send. */
  get ready(): boolean {
    return this.#waiting.length > 0 || (this.#closed && !this.#ended);
  }

  /** Whether bytes are to be sent, and not the end. */
  get hasBytes(): boolean {
    return this.#waiting.length > 0;
  }

  /** Takes as many bytes as there is room for, and copies them. */
  write(bytes: Uint8Array): number {
    const taken = this.#closed ? 0 : Math.min(bytes.length, this.#room());
    if (taken > 0) this.#waiting.add(taken < bytes.length ? bytes.subarray(0, taken) : bytes, true);
    this.#refused = !this.#closed && taken < bytes.length;
    return taken;
  }

  /** Whether `write` takes more, after it did not take everything. True once. */
  takeRelief(): boolean {
    if (!this.#refused || this.#room() <= 0) return false;
    this.#refused = false;
    return true;
  }

  /** Nothing more is written. */
  close(): void {
    this.#closed = true;
  }

  /** The bytes of the next frame, `most` of them at most. */
  take(most: number): Uint8Array {
    const bytes = this.#waiting.take(Math.min(most, FRAGMENT_BYTES));
    this.#window -= bytes.length;
    return bytes;
  }

  /** The end is being sent. */
  end(): void {
    this.#ended = true;
  }

  /** The peer allows more. A sum that nobody can use is cut, so that it stays exact. */
  grant(bytes: number): void {
    this.#window = Math.min(this.#window + bytes, Number.MAX_SAFE_INTEGER);
  }

  /** Nothing is sent any more. */
  clear(): void {
    this.#closed = true;
    this.#refused = false;
    this.#waiting.clear();
  }

  #room(): number {
    return Math.min(this.#window, STREAM_WINDOW_BYTES) - this.#waiting.length;
  }
}
