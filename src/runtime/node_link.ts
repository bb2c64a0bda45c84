/**
 * A link over a socket of `node:net` or `node:tls`.
 *
 * @module
 */

import type { Buffer } from "node:buffer";
import type { Socket } from "node:net";
import { TransportError } from "../errors.ts";
import type { Link, LinkEvents, LinkInfo } from "../transport/transport.ts";
import { startReading, stopReading } from "./read_control.ts";
import { linkFailed, linkLost } from "./socket_errors.ts";
import { HIGH_WATER_BYTES } from "./sockets.ts";

/** A socket that is stopped may deliver what it had read already, but no more than this. */
const MAX_HELD_BYTES = 16 * 1024 * 1024;
/** Node's own shared buffers are smaller. */
const MIN_FREED_BYTES = 16 * 1024;

/** Most links never hold anything. Nothing is put here. */
const NOTHING_HELD: Uint8Array[] = [];

/** Where a socket has its link. */
const LINK: unique symbol = Symbol("link");

interface LinkedSocket extends Socket {
  [LINK]?: NodeLink;
}

/** Wraps a connected socket that was made with `allowHalfOpen`, and from then on owns it. */
export class NodeLink implements Link {
  readonly info: LinkInfo;
  readonly #socket: Socket;
  #events: LinkEvents | undefined;
  #error: TransportError | undefined;
  #closing = false;
  #closed = false;

  #paused = false;
  /** What arrived before the link was opened, or although it is paused. */
  #held = NOTHING_HELD;
  #heldBytes = 0;
  #peerEnded = false;
  #peerEndTold = false;

  #ended = false;
  #owesDrain = false;
  #writtenBytes = 0;
  #leftBytes = 0;
  /** Written too late: they count as buffered, and never leave. */
  #refusedBytes = 0;

  /** `info` is what was learnt of the socket while it was surely open. */
  constructor(socket: Socket, info: LinkInfo) {
    this.#socket = socket;
    this.info = info;
    const linked: LinkedSocket = socket;
    linked[LINK] = this;
    linked.on("error", NodeLink.#onSocketError);
    linked.on("data", NodeLink.#onSocketData);
    linked.on("end", NodeLink.#onSocketEnd);
    linked.on("close", NodeLink.#onSocketClose);
    stopReading(this.#socket);
  }

  // All sockets have the same listeners, which find their link: functions of its own for each one
  // would be a sizeable part of what an idle connection takes.

  static #onSocketError(this: LinkedSocket, error: unknown): void {
    const link = this[LINK]!;
    if (!link.#closing) link.#error ??= linkFailed(link.info.remoteAddress, error);
    // Deno leaves a TLS socket open after an alert.
    this.destroy();
  }

  static #onSocketData(this: LinkedSocket, chunk: Buffer): void {
    this[LINK]!.#onData(chunk);
  }

  static #onSocketEnd(this: LinkedSocket): void {
    const link = this[LINK]!;
    link.#peerEnded = true;
    link.#tellEnd();
  }

  static #onSocketClose(this: LinkedSocket): void {
    const link = this[LINK]!;
    link.#closed = true;
    link.#tellClose();
  }

  get bufferedBytes(): number {
    const socket = this.#socket;
    // A destroyed socket forgets what it had not sent; the owner must be able to ask for it.
    const buffered = socket.destroyed
      ? this.#writtenBytes - this.#leftBytes
      : socket.writableLength;
    return buffered + this.#refusedBytes;
  }

  open(events: LinkEvents): void {
    this.#events = events;
    queueMicrotask(() => {
      this.#tellDrain();
      this.#flow();
    });
  }

  write(chunk: Uint8Array): boolean {
    const socket = this.#socket;
    const length = chunk.length;
    if (length === 0) return this.bufferedBytes <= HIGH_WATER_BYTES;
    if (this.#ended || socket.destroyed) {
      this.#refusedBytes += length;
      return false;
    }
    this.#writtenBytes += length;
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
    if (this.#paused) return;
    this.#paused = true;
    stopReading(this.#socket);
  }

  resume(): void {
    if (!this.#paused) return;
    this.#paused = false;
    queueMicrotask(() => this.#flow());
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
    if (this.#events !== undefined && !this.#paused && this.#held.length === 0) {
      if (this.#events.onData(chunk)) free(chunk);
      return;
    }
    if (this.#held === NOTHING_HELD) this.#held = [];
    this.#held.push(chunk);
    this.#heldBytes += chunk.length;
    if (this.#heldBytes > MAX_HELD_BYTES) this.#fail("the runtime does not stop reading");
  }

  /** Delivers what is held, then goes on reading. */
  #flow(): void {
    const events = this.#events;
    while (events !== undefined && !this.#paused && !this.#closing) {
      const chunk = this.#held.shift();
      if (chunk === undefined) {
        if (!this.#socket.destroyed) startReading(this.#socket);
        break;
      }
      this.#heldBytes -= chunk.length;
      events.onData(chunk);
    }
    this.#tellEnd();
    this.#tellClose();
  }

  #fail(why: string): void {
    const message = `Cannot keep the connection with ${this.info.remoteAddress}: ${why}`;
    this.#error ??= new TransportError("Backpressure", message);
    this.#socket.destroy();
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

/**
 * Gives the memory of a chunk back at once. What waits for the collector brings the next collection
 * nearer: beside messages of 16 MiB, Node collects 37 times instead of 50 in 3 s. Smaller chunks
 * may share their memory with others, and are not worth it.
 */
function free({ buffer, length }: Uint8Array): void {
  if (length < MIN_FREED_BYTES || length !== buffer.byteLength) return;
  if (buffer instanceof ArrayBuffer) buffer.transfer?.(0);
}
