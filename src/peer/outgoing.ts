/**
 * The way out to one peer: what waits, what may wait, and how it reaches a connection.
 *
 * @module
 */

import {
  BackpressureError,
  MessageTooLargeError,
  RateLimitedError,
  TransportError,
} from "../errors.ts";
import type { WhenFull } from "../options.ts";
import type { TokenBucket } from "../protocol/token_bucket.ts";
import type { TrafficStats } from "../stats.ts";
import type { Driver } from "./driver.ts";
import { SendQueue } from "./send_queue.ts";
import { DONE, WaiterSet } from "./waiters.ts";

/** What became of a message that was reported undelivered. */
export type Fate = "unsent" | "unknown";

/** What the way out needs of its peer. */
export interface OutgoingHost {
  readonly nodeId: string;
  readonly traffic: TrafficStats;
  now(): number;
  /** The connection that messages go out on. */
  sender(): Driver | undefined;
  /** Every connection there is. */
  drivers(): readonly Driver[];
  onUndelivered(payload: Uint8Array, error: TransportError, fate: Fate): void;
}

/** Limits of what may wait. */
export interface OutgoingLimits {
  readonly maxPendingMessages: number;
  readonly maxPendingBytes: number;
  readonly bucket: TokenBucket | undefined;
}

/** Everything on its way to one peer. */
export class Outgoing {
  readonly #host: OutgoingHost;
  readonly #bucket: TokenBucket | undefined;
  readonly #queue: SendQueue;
  readonly #flushes = new WaiterSet();

  /** Makes an empty way out. */
  constructor(host: OutgoingHost, limits: OutgoingLimits) {
    this.#host = host;
    this.#bucket = limits.bucket;
    this.#queue = new SendQueue(limits.maxPendingMessages, limits.maxPendingBytes);
  }

  /** Messages accepted and not yet given to the network. */
  get pendingMessages(): number {
    return this.#queue.length + (this.#host.sender()?.pendingMessages ?? 0);
  }

  /** Bytes of the messages that wait for a connection. */
  get pendingBytes(): number {
    return this.#queue.bytes;
  }

  /** Whether nothing is on its way. */
  get idle(): boolean {
    return this.#queue.length === 0 && this.#queue.waiting === 0 &&
      this.#host.drivers().every((driver) => driver.pendingBytes === 0);
  }

  /** Takes a message if that needs no waiting. `"full"` and `"limited"` refuse it. */
  offer(payload: Uint8Array): "taken" | "full" | "limited" {
    this.#check(payload);
    if (this.#queue.waiting > 0 || !this.#hasRoom(payload)) {
      this.#host.traffic.backpressureEvents++;
      return "full";
    }
    if (!this.#takeToken()) return "limited";
    this.#put(payload);
    return "taken";
  }

  /** Takes a message as `whenFull` says. */
  send(payload: Uint8Array, whenFull: WhenFull, signal: AbortSignal | undefined): Promise<void> {
    const outcome = this.offer(payload);
    if (outcome === "taken") return DONE;
    // What does not fit costs a token only where it is going to be sent all the same.
    const later = outcome === "full" && (whenFull === "wait" || whenFull === "drop-oldest");
    if (outcome === "limited" || later && !this.#takeToken()) {
      return Promise.reject(this.#rateLimitedError());
    }
    switch (whenFull) {
      case "wait":
        return this.#queue.wait(payload, this.#host.nodeId, signal);
      case "reject":
        return Promise.reject(this.#backpressureError());
      case "drop-newest":
        this.#drop(payload.slice());
        return DONE;
      case "drop-oldest":
        this.#makeRoom(payload);
        return DONE;
    }
  }

  /** Resolves when all that was accepted so far has been given to the network. */
  flush(signal: AbortSignal | undefined): Promise<void> {
    this.#host.sender()?.flush();
    return this.idle ? DONE : this.#flushes.wait(signal);
  }

  /** Moves what waits to the connection, as far as it takes it. */
  pump(): void {
    const sender = this.#host.sender();
    if (sender === undefined) return;
    while (sender.writable) {
      const payload = this.#queue.shift();
      if (payload === undefined) break;
      this.#sendNow(sender, payload);
    }
    this.#queue.admit((payload) => this.#take(payload));
    this.checkFlushed();
  }

  /** Something has left, or never will. */
  checkFlushed(): void {
    if (this.#flushes.size > 0 && this.idle) this.#flushes.resolveAll();
  }

  /** Reports all that waits as undelivered and turns waiting senders away. */
  fail(error: TransportError): void {
    for (let p = this.#queue.shift(); p !== undefined; p = this.#queue.shift()) {
      this.undelivered(p, error.message, "unsent", error);
    }
    this.#queue.failWaiting(error);
    this.#flushes.rejectAll(error);
  }

  /** Reports one message as undelivered. */
  undelivered(payload: Uint8Array, why: string, fate: Fate, cause?: TransportError): void {
    const { nodeId, traffic } = this.#host;
    traffic.sendFailures++;
    const code = cause?.code ?? "ConnectionClosed";
    const message = `Cannot deliver a message to ${nodeId}: ${why}`;
    const error = new TransportError(code, message, { peer: nodeId, cause });
    this.#host.onUndelivered(payload, error, fate);
  }

  /** What the peer is known not to take is refused before it is accepted. */
  #check(payload: Uint8Array): void {
    const negotiated = this.#host.sender()?.negotiated;
    if (negotiated === undefined) return;
    const { maxMessageSize, version } = negotiated;
    const size = payload.length;
    const peer = this.#host.nodeId;
    if (size > maxMessageSize) {
      const text = `Cannot send: the message has ${size} bytes, the peer takes ${maxMessageSize}`;
      throw new MessageTooLargeError(text, size, maxMessageSize, { peer });
    }
    if (size === 0 && version === 1) {
      const text = "Cannot send: a version 1 message cannot be empty";
      throw new TransportError("InvalidFrame", text, { peer });
    }
  }

  #takeToken(): boolean {
    if (this.#bucket === undefined || this.#bucket.tryTake(this.#host.now())) return true;
    this.#host.traffic.rateLimited++;
    return false;
  }

  #take(payload: Uint8Array): boolean {
    if (!this.#hasRoom(payload)) return false;
    this.#put(payload);
    return true;
  }

  #hasRoom(payload: Uint8Array): boolean {
    const sender = this.#host.sender();
    if (sender === undefined) return this.#queue.fits(payload.length, 0, 0);
    if (this.#fits(payload, sender)) return true;
    // A caller that sends much in one turn fills the batch: write it and look again.
    sender.flush();
    return this.#fits(payload, sender);
  }

  #put(payload: Uint8Array): void {
    const sender = this.#host.sender();
    if (sender !== undefined && this.#queue.length === 0 && sender.writable) {
      this.#sendNow(sender, payload);
    } else {
      this.#queue.push(payload);
    }
  }

  #fits(payload: Uint8Array, sender: Driver): boolean {
    return this.#queue.fits(payload.length, sender.pendingMessages, sender.pendingBytes);
  }

  /** What waited for a connection meets what that connection's peer takes only now. */
  #sendNow(sender: Driver, payload: Uint8Array): void {
    const { version, maxMessageSize } = sender.negotiated!;
    if (version === 1 && payload.length === 0) {
      this.undelivered(payload, "a version 1 message cannot be empty", "unsent");
    } else if (payload.length > maxMessageSize) {
      this.undelivered(payload, `the peer takes at most ${maxMessageSize} bytes`, "unsent");
    } else {
      sender.send(payload);
    }
  }

  #makeRoom(payload: Uint8Array): void {
    while (!this.#take(payload)) {
      const oldest = this.#queue.shift();
      // What the connection holds can't be taken back: then it is the new one that goes.
      if (oldest === undefined) return this.#drop(payload.slice());
      this.#drop(oldest);
    }
  }

  #drop(payload: Uint8Array): void {
    const { traffic } = this.#host;
    traffic.messagesDropped++;
    traffic.sendFailures++;
    this.#host.onUndelivered(payload, this.#backpressureError(), "unsent");
  }

  #backpressureError(): BackpressureError {
    const { nodeId } = this.#host;
    const queued = this.pendingMessages;
    const text = `Cannot send to ${nodeId}: ${queued} messages wait already`;
    return new BackpressureError(text, queued, { peer: nodeId });
  }

  #rateLimitedError(): RateLimitedError {
    const { nodeId } = this.#host;
    const retryAfterMs = this.#bucket!.retryAfterMs(this.#host.now());
    const text = `Cannot send to ${nodeId}: the rate limit is reached, retry in ${retryAfterMs} ms`;
    return new RateLimitedError(text, retryAfterMs, { peer: nodeId });
  }
}
