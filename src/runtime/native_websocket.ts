/**
 * What a link asks of a WebSocket of the runtime's own server, and the queue before it.
 *
 * @module
 */

/** A WebSocket that is open. */
export interface NativeSocket {
  /** Bytes given to `send` that have not left; it may count frame headers, too. */
  readonly bufferedBytes: number;
  /** Whether it tells when what is buffered has left; otherwise it is asked from time to time. */
  readonly tellsDrain: boolean;
  /** Sends a binary message, and copies what does not leave at once. */
  send(message: Uint8Array): void;
  /** Sends a Close frame behind everything else, and ends when the other side has answered. */
  close(code: number): void;
  /** Ends at once, as far as the runtime can. */
  terminate(): void;
  /** Stops reading, where the runtime can. */
  pause(): void;
  /** Reads on. */
  resume(): void;
}

/** As much is given to the runtime at a time: the rest waits here, uncopied. */
const MAX_NATIVE_BYTES = 262_144;
/** The longest message that is sent. */
const MAX_MESSAGE_BYTES = 65_536;
/** How soon it is looked whether the runtime has sent something, and how late where it has not. */
const MIN_POLL_MS = 1;
const MAX_POLL_MS = 16;
const NO_BYTES = new Uint8Array(0);

/** Gives bytes to a WebSocket as fast as it sends them. */
export class NativeSendQueue {
  readonly #socket: NativeSocket;
  readonly #onProgress: () => void;
  #queue: Uint8Array[] = [];
  #first = 0;
  #queuedBytes = 0;
  /** Bytes given to the WebSocket since it had nothing left to send. */
  #givenBytes = 0;
  #ended = false;
  #endSent = false;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #pollMs = MIN_POLL_MS;
  #lastBuffered = 0;

  /** `onProgress` is called after the WebSocket may have sent something, never from inside a call. */
  constructor(socket: NativeSocket, onProgress: () => void) {
    this.#socket = socket;
    this.#onProgress = onProgress;
  }

  /** Bytes that have not left this process. */
  get bytes(): number {
    const native = this.#socket.bufferedBytes;
    if (native === 0) this.#givenBytes = 0;
    return this.#queuedBytes + Math.min(native, this.#givenBytes);
  }

  /** Whether everything and the end after it are given to the WebSocket. */
  get endSent(): boolean {
    return this.#endSent;
  }

  /** Sends bytes. */
  push(chunk: Uint8Array): void {
    for (let at = 0; at < chunk.length; at += MAX_MESSAGE_BYTES) {
      this.#queue.push(chunk.subarray(at, at + MAX_MESSAGE_BYTES));
    }
    this.#queuedBytes += chunk.length;
    this.#pump();
  }

  /** Sends an empty message behind all bytes. */
  end(): void {
    this.#ended = true;
    this.#pump();
  }

  /** The WebSocket may have sent something. */
  onDrain(): void {
    this.#pump();
    this.#onProgress();
  }

  /** Gives up: nothing more is sent. */
  stop(): void {
    if (this.#timer !== undefined) clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#queue = [];
    this.#first = 0;
  }

  #pump(): void {
    while (this.#first < this.#queue.length) {
      if (this.#socket.bufferedBytes >= MAX_NATIVE_BYTES) break;
      const message = this.#queue[this.#first++]!;
      this.#queuedBytes -= message.length;
      this.#givenBytes += message.length;
      this.#socket.send(message);
    }
    if (this.#first === this.#queue.length) {
      this.#queue = [];
      this.#first = 0;
      if (this.#ended && !this.#endSent) {
        this.#endSent = true;
        this.#socket.send(NO_BYTES);
      }
    }
    this.#watch();
  }

  #watch(): void {
    if (this.#socket.tellsDrain || this.#timer !== undefined) return;
    const buffered = this.bytes;
    if (buffered === 0) return;
    this.#pollMs = buffered === this.#lastBuffered
      ? Math.min(this.#pollMs * 2, MAX_POLL_MS)
      : MIN_POLL_MS;
    this.#lastBuffered = buffered;
    this.#timer = setTimeout(() => {
      this.#timer = undefined;
      this.onDrain();
    }, this.#pollMs);
  }
}
