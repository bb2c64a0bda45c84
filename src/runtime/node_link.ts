/**
 * A link over a socket of `node:net` or `node:tls`.
 *
 * @module
 */

import type { Buffer } from "node:buffer";
import type { Socket } from "node:net";
import type { TransportError } from "../errors.ts";
import type { Link, LinkEvents, LinkInfo } from "../transport/transport.ts";
import { linkFailed, linkLost } from "./socket_errors.ts";
import { HIGH_WATER_BYTES } from "./sockets.ts";

/** Wraps a connected socket that was made with `allowHalfOpen`, and from then on owns it. */
export class NodeLink implements Link {
  readonly info: LinkInfo;
  readonly #socket: Socket;
  #events: LinkEvents | undefined;
  #error: TransportError | undefined;
  #paused = false;
  /** Chunks that a socket delivered although it was paused. */
  #held: Uint8Array[] = [];
  #ended = false;
  #peerEnded = false;
  #peerEndTold = false;
  #closing = false;
  #closed = false;
  #owesDrain = false;
  #writtenBytes = 0;
  #leftBytes = 0;

  /** `info` is what was learnt of the socket while it was surely open. */
  constructor(socket: Socket, info: LinkInfo) {
    this.#socket = socket;
    this.info = info;
    socket.on("error", (error) => {
      if (!this.#closing) this.#error ??= linkFailed(info.remoteAddress, error);
    });
    socket.on("end", () => {
      this.#peerEnded = true;
      this.#tellEnd();
    });
    socket.on("close", () => {
      this.#closed = true;
      this.#tellClose();
    });
  }

  get bufferedBytes(): number {
    const socket = this.#socket;
    // A destroyed socket forgets what it had not sent; the owner must be able to ask for it.
    return socket.destroyed ? this.#writtenBytes - this.#leftBytes : socket.writableLength;
  }

  open(events: LinkEvents): void {
    this.#events = events;
    this.#socket.on("data", (chunk: Buffer) => this.#onData(chunk));
    if (!this.#paused) this.#socket.resume();
    queueMicrotask(() => {
      this.#tellDrain();
      this.#tellEnd();
      this.#tellClose();
    });
  }

  write(chunk: Uint8Array): boolean {
    const socket = this.#socket;
    const length = chunk.length;
    if (length === 0) return this.bufferedBytes <= HIGH_WATER_BYTES;
    this.#writtenBytes += length;
    if (this.#ended || socket.destroyed) return false;
    socket.write(chunk, (error) => {
      if (error || socket.destroyed) return;
      this.#leftBytes += length;
      this.#tellDrain();
    });
    const buffered = socket.writableLength;
    if (buffered > 0) this.#owesDrain = true;
    return buffered <= HIGH_WATER_BYTES;
  }

  pause(): void {
    this.#paused = true;
    this.#socket.pause();
  }

  resume(): void {
    if (!this.#paused) return;
    this.#paused = false;
    if (this.#held.length > 0) queueMicrotask(() => this.#deliverHeld());
    else if (this.#events !== undefined) this.#socket.resume();
  }

  end(): void {
    if (this.#ended || this.#socket.destroyed) return;
    this.#ended = true;
    this.#socket.end();
  }

  close(): void {
    if (this.#closing) return;
    this.#closing = true;
    if (!this.#socket.destroyed) this.#leftBytes = this.#writtenBytes - this.#socket.writableLength;
    this.#socket.destroy();
  }

  #onData(buffer: Buffer): void {
    if (this.#closing || buffer.length === 0) return;
    // A plain view: `slice` of a Buffer does not copy, which would surprise whoever gets the chunk.
    const chunk = new Uint8Array(buffer.buffer, buffer.byteOffset, buffer.byteLength);
    if (this.#paused || this.#held.length > 0) this.#held.push(chunk);
    else this.#events?.onData(chunk);
  }

  #deliverHeld(): void {
    while (!this.#paused && !this.#closing && this.#held.length > 0) {
      this.#events?.onData(this.#held.shift()!);
    }
    if (this.#paused || this.#closing) return;
    this.#socket.resume();
    this.#tellEnd();
    this.#tellClose();
  }

  #tellDrain(): void {
    const socket = this.#socket;
    if (!this.#owesDrain || this.#closing || socket.destroyed || socket.writableLength > 0) return;
    if (this.#events === undefined) return;
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
    if (!this.#closed || events === undefined) return;
    const inOrder = this.#closing || (this.#ended && this.#peerEnded);
    if (inOrder && !this.#closing && this.#held.length > 0) return;
    this.#tellEnd();
    this.#events = undefined;
    events.onClose(this.#error ?? (inOrder ? undefined : linkLost(this.info.remoteAddress)));
  }
}
