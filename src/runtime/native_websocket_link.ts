/**
 * A link over a WebSocket that the runtime's own server has accepted.
 *
 * @module
 */

import { TransportError } from "../errors.ts";
import type { Link, LinkEvents, LinkInfo } from "../transport/transport.ts";
import { NativeSendQueue, type NativeSocket } from "./native_websocket.ts";
import { linkLost } from "./socket_errors.ts";
import { HIGH_WATER_BYTES } from "./sockets.ts";

/** A runtime that can't stop reading delivers no more than this to a link that is paused. */
const MAX_HELD_BYTES = 16 * 1024 * 1024;
/** Codes of Close frames (RFC 6455, section 7.4.1). */
const NORMAL = 1000;
const GOING_AWAY = 1001;
const PROTOCOL_ERROR = 1002;
const UNSUPPORTED_DATA = 1003;

/**
 * Carries bytes in the binary messages of a WebSocket, with the ends of src/protocol/websocket.ts:
 * an empty message is the end of a side's bytes.
 */
export class NativeWebSocketLink implements Link {
  readonly info: LinkInfo;
  readonly #socket: NativeSocket;
  readonly #queue: NativeSendQueue;
  #events: LinkEvents | undefined;
  #error: TransportError | undefined;
  #closing = false;
  #closed = false;

  #paused = false;
  /** What arrived before the link was opened, or although it is paused. */
  #held: Uint8Array[] = [];
  #heldBytes = 0;
  #peerEnded = false;
  #peerEndTold = false;

  #ended = false;
  #closeSent = false;
  #owesDrain = false;
  /** What had not left when the link closed. */
  #lostBytes: number | undefined;
  /** Written too late: they count as buffered, and never leave. */
  #refusedBytes = 0;

  /** Owns the socket from now on, which is open; its events are told by the methods `on…`. */
  constructor(socket: NativeSocket, info: LinkInfo) {
    this.#socket = socket;
    this.info = info;
    this.#queue = new NativeSendQueue(socket, () => this.#onProgress(), () => this.#onDropped());
    socket.pause();
  }

  get bufferedBytes(): number {
    return (this.#lostBytes ?? this.#queue.bytes) + this.#refusedBytes;
  }

  open(events: LinkEvents): void {
    this.#events = events;
    queueMicrotask(() => this.#flow());
  }

  write(chunk: Uint8Array): boolean {
    if (chunk.length === 0) return this.bufferedBytes <= HIGH_WATER_BYTES;
    if (this.#ended || this.#lostBytes !== undefined) {
      this.#refusedBytes += chunk.length;
      return false;
    }
    this.#queue.push(chunk);
    const buffered = this.#queue.bytes;
    if (buffered > 0) this.#owesDrain = true;
    return buffered <= HIGH_WATER_BYTES;
  }

  pause(): void {
    if (this.#paused) return;
    this.#paused = true;
    if (!this.#closed) this.#socket.pause();
  }

  resume(): void {
    if (!this.#paused) return;
    this.#paused = false;
    queueMicrotask(() => this.#flow());
  }

  end(): void {
    if (this.#ended || this.#lostBytes !== undefined) return;
    this.#ended = true;
    this.#queue.end();
    this.#closeWhenDone();
  }

  close(): void {
    if (this.#closing) return;
    this.#closing = true;
    this.#drop();
    if (!this.#closed) this.#socket.terminate();
    queueMicrotask(() => this.#tellClose());
  }

  // --- what the socket tells ---

  /** A binary message, which belongs to the link. */
  onMessage(message: Uint8Array): void {
    if (this.#closing || this.#error !== undefined) return;
    if (this.#peerEnded) return this.#refuse(PROTOCOL_ERROR, "data after the end of the data");
    if (message.length === 0) return this.#onPeerEnd();
    if (this.#events !== undefined && !this.#paused && this.#held.length === 0) {
      this.#events.onData(message);
      return;
    }
    this.#held.push(message);
    this.#heldBytes += message.length;
    if (this.#heldBytes > MAX_HELD_BYTES) {
      this.#fail("Backpressure", "the runtime does not stop reading", GOING_AWAY);
    }
  }

  /** A text message. */
  onText(): void {
    if (!this.#closing && this.#error === undefined) {
      this.#refuse(UNSUPPORTED_DATA, "a text message");
    }
  }

  /** The socket may have sent something. */
  onDrain(): void {
    if (this.#lostBytes === undefined) this.#queue.onDrain();
  }

  /** The socket is gone; `code` is that of the other side's Close frame. */
  onSocketClose(code: number): void {
    if (this.#closed) return;
    this.#closed = true;
    const normal = code === NORMAL;
    // The answer to our own Close frame may come before its end is told.
    const inOrder = this.#ended && normal && this.#queue.bytes === 0;
    this.#drop();
    if (!inOrder && !this.#closing) this.#error ??= linkLost(this.info.remoteAddress);
    if (normal) this.#peerEnded = true;
    // Bun says it from inside `close` and `terminate`.
    queueMicrotask(() => this.#tellClose());
  }

  #onPeerEnd(): void {
    this.#peerEnded = true;
    this.#tellEnd();
    this.#closeWhenDone();
  }

  #onProgress(): void {
    this.#tellDrain();
    this.#closeWhenDone();
  }

  #onDropped(): void {
    const why = "the server drops what is sent: its limit of backpressure is too small";
    this.#fail("Backpressure", why, GOING_AWAY);
  }

  /** Both sides have ended, and ours is on its way. */
  #closeWhenDone(): void {
    if (!this.#ended || !this.#peerEnded || !this.#queue.endSent) return;
    if (this.#closeSent || this.#closing || this.#closed) return;
    this.#closeSent = true;
    this.#socket.close(NORMAL);
    this.#socket.resume();
  }

  #refuse(code: number, what: string): void {
    this.#fail("InvalidFrame", what, code);
  }

  #fail(code: "Backpressure" | "InvalidFrame", why: string, closeCode: number): void {
    const message = `Cannot keep the connection with ${this.info.remoteAddress}: ${why}`;
    this.#error ??= new TransportError(code, message);
    this.#held = [];
    this.#drop();
    this.#closed = true;
    this.#socket.close(closeCode);
    queueMicrotask(() => this.#tellClose());
  }

  /** Nothing more is sent; what is left is counted for good. */
  #drop(): void {
    this.#lostBytes ??= this.#queue.bytes;
    this.#queue.stop();
  }

  // --- what the owner is told ---

  /** Delivers what is held, then goes on reading. */
  #flow(): void {
    const events = this.#events;
    while (events !== undefined && !this.#paused && !this.#closing) {
      const message = this.#held.shift();
      if (message === undefined) {
        if (!this.#closed) this.#socket.resume();
        break;
      }
      this.#heldBytes -= message.length;
      events.onData(message);
    }
    this.#tellDrain();
    this.#tellEnd();
    if (this.#closed) this.#tellClose();
  }

  #tellDrain(): void {
    if (!this.#owesDrain || this.#lostBytes !== undefined || this.#events === undefined) return;
    if (this.#queue.bytes > 0) return;
    this.#owesDrain = false;
    this.#events.onDrain();
  }

  #tellEnd(): void {
    if (!this.#peerEnded || this.#peerEndTold || this.#closing || this.#held.length > 0) return;
    if (this.#events === undefined) return;
    this.#peerEndTold = true;
    this.#events.onEnd();
  }

  #tellClose(): void {
    const events = this.#events;
    if (events === undefined) return;
    const lost = this.#closing || this.#error !== undefined;
    if (!lost && this.#held.length > 0) return;
    this.#tellEnd();
    this.#events = undefined;
    events.onClose(this.#error);
  }
}
