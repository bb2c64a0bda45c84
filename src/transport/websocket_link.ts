/**
 * A link of WebSocket frames over another link.
 *
 * @module
 */

import { TransportError } from "../errors.ts";
import { CLOSE_CODE, WebSocketDecoder } from "../protocol/websocket.ts";
import { systemEnvironment } from "../runtime/environment.ts";
import { linkLost } from "../runtime/socket_errors.ts";
import { HIGH_WATER_BYTES } from "../runtime/sockets.ts";
import type { Link, LinkEvents, LinkInfo } from "./transport.ts";
import { WebSocketSender } from "./websocket_sender.ts";

/** While more than this waits to be sent, only the last ping is answered, and only after it. */
const MAX_UNSENT_BYTES = 65_536;
/** How long the Close frame after a breach of the rules may take to leave. */
const LINGER_MS = 500;

/** Carries bytes in the binary messages of a WebSocket. */
export class WebSocketLink implements Link {
  readonly info: LinkInfo;
  /** What the inner link's events are to be told to. */
  readonly innerEvents: LinkEvents = {
    onData: (chunk) => this.#onInnerData(chunk),
    onDrain: () => this.#onInnerDrain(),
    onEnd: () => this.#onInnerEnd(),
    onClose: (error) => this.#onInnerClose(error),
  };
  readonly #inner: Link;
  readonly #sender: WebSocketSender;
  readonly #decoder: WebSocketDecoder;
  #events: LinkEvents | undefined;
  #error: TransportError | undefined;
  #closing = false;
  #closed = false;

  #paused = false;
  /** What arrived before the link was opened, or although it is paused. */
  #held: Uint8Array[] = [];
  #peerEnded = false;
  #peerEndTold = false;

  #ended = false;
  #closeSent = false;
  #closeReceived = false;
  #cancelLinger: (() => void) | undefined;
  /** What is to answer the last ping when there is room. */
  #pong: Uint8Array | undefined;
  #owesDrain = false;
  /** Written too late: they count as buffered, and never leave. */
  #refusedBytes = 0;

  /** Owns `inner` from now on, which is open. `dialer`: we mask, the other side does not. */
  constructor(inner: Link, info: LinkInfo, dialer: boolean) {
    this.#inner = inner;
    this.info = info;
    this.#sender = new WebSocketSender(inner, dialer);
    this.#decoder = new WebSocketDecoder(!dialer, {
      onData: (chunk) => this.#take(chunk),
      onEnd: () => this.#onPeerEnd(),
      onPing: (payload) => this.#onPing(payload),
      onClose: (code) => this.#onCloseFrame(code),
    });
    inner.pause();
  }

  get bufferedBytes(): number {
    return this.#sender.unsentBytes + this.#refusedBytes;
  }

  open(events: LinkEvents): void {
    this.#events = events;
    queueMicrotask(() => this.#flow());
  }

  write(chunk: Uint8Array): boolean {
    if (chunk.length === 0) return this.bufferedBytes <= HIGH_WATER_BYTES;
    if (this.#ended || this.#closeSent || this.#closing || this.#closed) {
      this.#refusedBytes += chunk.length;
      return false;
    }
    const more = this.#sender.write(chunk);
    if (this.#sender.unsentBytes > 0) this.#owesDrain = true;
    return more;
  }

  pause(): void {
    if (this.#paused) return;
    this.#paused = true;
    this.#inner.pause();
  }

  resume(): void {
    if (!this.#paused) return;
    this.#paused = false;
    queueMicrotask(() => this.#flow());
  }

  end(): void {
    if (this.#ended || this.#closeSent || this.#closing || this.#closed) return;
    this.#ended = true;
    this.#sender.end();
    if (this.#peerEnded) this.#sendClose(CLOSE_CODE.normal);
  }

  close(): void {
    if (this.#closing) return;
    this.#closing = true;
    this.#decoder.stop();
    this.#inner.close();
  }

  // --- what the inner link tells ---

  #onInnerData(chunk: Uint8Array): boolean {
    if (this.#closing || this.#closeReceived || this.#error !== undefined) return true;
    try {
      return this.#decoder.decode(chunk);
    } catch (error) {
      this.#refuse(error as TransportError);
      return false;
    }
  }

  #onInnerDrain(): void {
    if (this.#cancelLinger !== undefined) return this.#inner.close();
    const pong = this.#pong;
    this.#pong = undefined;
    if (pong !== undefined) this.#onPing(pong);
    this.#tellDrain();
  }

  #onInnerEnd(): void {
    if (this.#closeReceived || this.#closing) return;
    this.#error ??= linkLost(this.info.remoteAddress);
    this.#inner.close();
  }

  #onInnerClose(error: TransportError | undefined): void {
    this.#cancelLinger?.();
    this.#closed = true;
    const inOrder = this.#closing || (this.#ended && this.#closeReceived);
    if (!inOrder) this.#error ??= error ?? linkLost(this.info.remoteAddress);
    this.#tellClose();
  }

  // --- what the frames say ---

  #take(chunk: Uint8Array): boolean {
    if (this.#events !== undefined && !this.#paused && this.#held.length === 0) {
      return this.#events.onData(chunk) === true;
    }
    this.#held.push(chunk);
    return false;
  }

  #onPeerEnd(): void {
    this.#peerEnded = true;
    this.#tellEnd();
    if (this.#ended) this.#sendClose(CLOSE_CODE.normal);
  }

  #onPing(payload: Uint8Array): void {
    if (this.#closeSent) return;
    if (this.#inner.bufferedBytes <= MAX_UNSENT_BYTES) this.#sender.pong(payload);
    else this.#pong = payload.slice();
  }

  /** In order after both ends; otherwise whoever speaks WebSocket but not our ends goes this way. */
  #onCloseFrame(code: number): void {
    this.#closeReceived = true;
    if (!this.#peerEnded && code !== CLOSE_CODE.normal) {
      const why = `the other side closed it with WebSocket code ${code}`;
      this.#error ??= new TransportError(
        "ConnectionClosed",
        `Cannot keep the connection with ${this.info.remoteAddress}: ${why}`,
      );
    }
    this.#peerEnded = true;
    this.#sendClose(CLOSE_CODE.normal);
    this.#inner.end();
    this.#tellEnd();
  }

  /** After it nothing is sent. The connection ends when the other side's Close frame is here, too. */
  #sendClose(code: number): void {
    if (this.#closeSent || this.#closing) return;
    this.#closeSent = true;
    this.#sender.close(code);
    // Only that frame is to come, for which nobody resumes.
    if (this.#peerEnded && this.#held.length === 0) this.#inner.resume();
  }

  /** The other side has broken the rules. */
  #refuse(error: TransportError): void {
    this.#error ??= error;
    this.#held = [];
    this.#sendClose(this.#decoder.closeCode);
    this.#inner.end();
    if (this.#inner.bufferedBytes === 0) return this.#inner.close();
    this.#cancelLinger = systemEnvironment.setTimer(LINGER_MS, () => this.#inner.close());
  }

  // --- what the owner is told ---

  /** Delivers what is held, then goes on reading. */
  #flow(): void {
    const events = this.#events;
    while (events !== undefined && !this.#paused && !this.#closing) {
      const chunk = this.#held.shift();
      if (chunk === undefined) {
        this.#inner.resume();
        break;
      }
      events.onData(chunk);
    }
    this.#tellDrain();
    this.#tellEnd();
    this.#tellClose();
  }

  #tellDrain(): void {
    if (!this.#owesDrain || this.#closing || this.#closed || this.#events === undefined) return;
    if (this.bufferedBytes > 0) return;
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
    const lost = this.#closing || this.#error !== undefined;
    if (!lost && this.#held.length > 0) return;
    this.#tellEnd();
    this.#events = undefined;
    events.onClose(this.#error);
  }
}
