/**
 * What a link asks of a WebSocket of the runtime's own server, and the queue before it.
 *
 * @module
 */

import { clearImmediate, setImmediate } from "node:timers";

/** A WebSocket that is open. */
export interface NativeSocket {
  /** Bytes given to `send` that have not left; it may count frame headers, too. */
  readonly bufferedBytes: number;
  /** Whether it tells when what is buffered has left; otherwise it is asked from time to time. */
  readonly tellsDrain: boolean;
  /**
   * Sends a binary message, and copies what does not leave at once. False: the server has dropped it,
   * because it lets less wait than we give it.
   */
  send(message: Uint8Array): boolean;
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
/** So many times in a row it is looked at once whether the runtime has sent something. */
const POLLS_AT_ONCE = 4;
/** How long it then waits at most, twice as long each time. A timer of Deno's takes 2 ms at least. */
const MAX_POLL_MS = 16;
const NO_BYTES = new Uint8Array(0);

/** Gives bytes to a WebSocket as fast as it sends them. */
export class NativeSendQueue {
  readonly #socket: NativeSocket;
  readonly #onProgress: () => void;
  readonly #onDropped: () => void;
  #queue: Uint8Array[] = [];
  #first = 0;
  #queuedBytes = 0;
  /** Bytes given to the WebSocket since it had nothing left to send. */
  #givenBytes = 0;
  #ended = false;
  #endSent = false;
  #cancelPoll: (() => void) | undefined;
  /** Polls since something was sent. */
  #vainPolls = 0;
  #pushedBytes = 0;
  #lastSent = 0;

  /**
   * `onProgress` is called after the WebSocket may have sent something, never from inside a call.
   * `onDropped` is called, also from inside a call, when the WebSocket can't go on: something was
   * dropped. It must `stop`.
   */
  constructor(socket: NativeSocket, onProgress: () => void, onDropped: () => void) {
    this.#socket = socket;
    this.#onProgress = onProgress;
    this.#onDropped = onDropped;
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
    this.#pushedBytes += chunk.length;
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
    this.#cancelPoll?.();
    this.#cancelPoll = undefined;
    this.#queue = [];
    this.#first = 0;
  }

  #pump(): void {
    while (this.#first < this.#queue.length) {
      if (this.#socket.bufferedBytes >= MAX_NATIVE_BYTES) break;
      const message = this.#queue[this.#first++]!;
      this.#queuedBytes -= message.length;
      this.#givenBytes += message.length;
      if (!this.#socket.send(message)) {
        this.#queuedBytes += message.length;
        this.#givenBytes -= message.length;
        return this.#onDropped();
      }
    }
    if (this.#first === this.#queue.length) {
      this.#queue = [];
      this.#first = 0;
      if (this.#ended && !this.#endSent) {
        this.#endSent = true;
        if (!this.#socket.send(NO_BYTES)) return this.#onDropped();
      }
    }
    this.#watch();
  }

  #watch(): void {
    if (this.#socket.tellsDrain || this.#cancelPoll !== undefined) return;
    const unsent = this.bytes;
    if (unsent === 0) return;
    const sent = this.#pushedBytes - unsent;
    this.#vainPolls = sent === this.#lastSent ? this.#vainPolls + 1 : 0;
    this.#lastSent = sent;
    this.#cancelPoll = pollLater(this.#vainPolls, () => {
      this.#cancelPoll = undefined;
      this.onDrain();
    });
  }
}

/** Calls back, the later the more often that was in vain. Returns what cancels it. */
function pollLater(vainPolls: number, callback: () => void): () => void {
  if (vainPolls < POLLS_AT_ONCE) {
    const immediate = setImmediate(callback);
    return () => clearImmediate(immediate);
  }
  const timer = setTimeout(callback, Math.min(2 ** (vainPolls - POLLS_AT_ONCE), MAX_POLL_MS));
  return () => clearTimeout(timer);
}
