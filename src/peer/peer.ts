/**
 * Everything an endpoint keeps of one peer: its pool, what waits to be sent, its rate limits,
 * its counters.
 *
 * @module
 */

import { BackpressureError, MessageTooLargeError, RateLimitedError, TransportError } from "../errors.ts";
import type { ResolvedOptions, WhenFull } from "../options.ts";
import type { Rejection } from "../protocol/connection.ts";
import { TokenBucket } from "../protocol/token_bucket.ts";
import type { Environment } from "../runtime/environment.ts";
import { addTraffic, noTraffic, type PoolStats, type TrafficStats } from "../stats.ts";
import type { Driver, DriverOwner } from "./driver.ts";
import type { PeerIdentity } from "./identity.ts";
import type { Lifecycle } from "./lifecycle.ts";
import { Pool, type PoolOwner, type PoolSettings } from "./pool.ts";
import { SendQueue } from "./send_queue.ts";
import type { DialAttempt } from "./slot.ts";

/** What became of a message that was reported undelivered. */
export type Fate = "unsent" | "unknown";

/** Where a peer stands. */
export type PeerState = "connecting" | "active" | "reconnecting" | "failed" | "closed";

/** What a peer needs of the manager around it. */
export interface PeerHost {
  readonly options: ResolvedOptions;
  readonly environment: Environment;
  newLifecycle(nodeId: string, state: "connecting" | "handshaking"): Lifecycle;
  dial(peer: Peer, attempt: DialAttempt): Promise<void>;
  /** Whether the application's inbox has room. */
  readonly inboxFull: boolean;
  deliver(peer: Peer, payload: Uint8Array): void;
  onUp(peer: Peer): void;
  onDown(peer: Peer, error: TransportError | undefined): void;
  onUndelivered(peer: Peer, payload: Uint8Array, error: TransportError, fate: Fate): void;
  /** One of its connections is gone. */
  onConnectionEnded(peer: Peer, driver: Driver, error: TransportError | undefined): void;
  /** After that, the peer has taken note of it. */
  onQuiet(peer: Peer): void;
  /** Nothing is left to wait for: the manager forgets the peer. */
  onGone(peer: Peer): void;
}

interface ConnectWaiter {
  readonly resolve: () => void;
  readonly reject: (reason: unknown) => void;
}

/** A peer. */
export class Peer implements DriverOwner, PoolOwner {
  readonly nodeId: string;
  readonly ownNodeId: string;
  readonly settings: PoolSettings;
  /** Where to dial it; undefined for a peer that only ever dialed us. */
  address: string | undefined;
  /** Random per process start of the peer; undefined where it did not say. */
  incarnation: string | undefined;
  /** What its certificate proved. */
  identity: PeerIdentity | undefined;
  /** Counters of what is not in a live driver. */
  readonly traffic: TrafficStats = noTraffic();
  readonly #host: PeerHost;
  readonly #pool: Pool;
  readonly #queue: SendQueue;
  readonly #bucketOut: TokenBucket | undefined;
  readonly #bucketIn: TokenBucket | undefined;
  readonly #connectWaiters = new Set<ConnectWaiter>();
  readonly #flushWaiters = new Set<ConnectWaiter>();
  #state: PeerState = "connecting";
  #wasUp = false;
  #pendingHandlers = 0;
  #rateHeld = false;
  #cancelRateTimer: (() => void) | undefined;
  #cancelAbsence: (() => void) | undefined;
  #failure: TransportError | undefined;

  /** Makes a peer without connections. */
  constructor(nodeId: string, host: PeerHost) {
    const { options, environment } = host;
    this.nodeId = nodeId;
    this.ownNodeId = options.nodeId;
    this.#host = host;
    this.settings = {
      poolSize: options.poolSize,
      retireMs: options.connectTimeoutMs,
      keepaliveMs: options.keepalive ? options.keepaliveIntervalSecs * 1000 : undefined,
      connectTimeoutMs: options.connectTimeoutMs,
      reconnect: options.reconnect,
    };
    this.#pool = new Pool(this);
    this.#queue = new SendQueue(options.maxPendingMessages, options.maxPendingBytes);
    if (options.rateLimit.enabled) {
      this.#bucketOut = new TokenBucket(options.rateLimit, environment.now());
      this.#bucketIn = new TokenBucket(options.rateLimit, environment.now());
    }
  }

  /** Where it stands. */
  get state(): PeerState {
    return this.#state;
  }

  /** Usable connections. */
  get connectionCount(): number {
    return this.#pool.size;
  }

  /** Messages accepted and not yet given to the network. */
  get pendingMessages(): number {
    return this.#queue.length + (this.#pool.sender?.pendingMessages ?? 0);
  }

  /** Bytes of the messages that wait in the queue. */
  get pendingBytes(): number {
    return this.#queue.bytes;
  }

  /** Live connections, usable or ending. */
  get drivers(): readonly Driver[] {
    return this.#pool.drivers;
  }

  /** The counters, live connections included. */
  stats(): TrafficStats {
    const sum = { ...this.traffic };
    for (const driver of this.#pool.drivers) addTraffic(sum, driverTraffic(driver));
    return sum;
  }

  /** How the pool stands. */
  poolStats(): PoolStats {
    const drivers = this.#pool.drivers.length;
    return {
      active: this.#pool.size,
      draining: drivers - this.#pool.size,
      connecting: this.#pool.slots.filter((slot) => slot.driver === undefined).length,
      size: this.settings.poolSize,
    };
  }

  // --- sending ---

  /** Takes a message if that needs no waiting. `"full"` and `"limited"` refuse it. */
  offer(payload: Uint8Array): "taken" | "full" | "limited" {
    this.#checkSize(payload);
    if (this.#bucketOut !== undefined && !this.#bucketOut.tryTake(this.#host.environment.now())) {
      this.traffic.rateLimited++;
      return "limited";
    }
    if (this.#queue.waiting === 0 && this.#take(payload)) return "taken";
    this.traffic.backpressureEvents++;
    return "full";
  }

  /** Takes a message as `whenFull` says. */
  send(payload: Uint8Array, whenFull: WhenFull, signal: AbortSignal | undefined): Promise<void> {
    if (this.#failure !== undefined) throw this.#failure;
    const outcome = this.offer(payload);
    if (outcome === "taken") return TAKEN;
    if (outcome === "limited") return Promise.reject(this.#rateLimitedError());
    switch (whenFull) {
      case "wait":
        return this.#queue.wait(payload, this.nodeId, signal);
      case "reject":
        return Promise.reject(this.#backpressureError());
      case "drop-newest":
        this.#drop(payload.slice());
        return TAKEN;
      case "drop-oldest":
        this.#makeRoom(payload);
        return TAKEN;
    }
  }

  /** What the peer is known not to take is refused before it is accepted. */
  #checkSize(payload: Uint8Array): void {
    const negotiated = this.#pool.sender?.negotiated;
    if (negotiated === undefined) return;
    const { maxMessageSize, version } = negotiated;
    const size = payload.length;
    if (size > maxMessageSize) {
      const text = `Cannot send: the message has ${size} bytes, the peer takes ${maxMessageSize}`;
      throw new MessageTooLargeError(text, size, maxMessageSize, { peer: this.nodeId });
    }
    if (size === 0 && version === 1) {
      const text = "Cannot send: a version 1 message cannot be empty";
      throw new TransportError("InvalidFrame", text, { peer: this.nodeId });
    }
  }

  /** Why `offer` said "limited". */
  #rateLimitedError(): RateLimitedError {
    const retryAfterMs = this.#bucketOut!.retryAfterMs(this.#host.environment.now());
    return new RateLimitedError(
      `Cannot send to ${this.nodeId}: the rate limit is reached, retry after ${retryAfterMs} ms`,
      retryAfterMs,
      { peer: this.nodeId },
    );
  }

  /** Resolves when all that was accepted so far has been given to the network. */
  flush(): Promise<void> {
    if (this.#idle) return TAKEN;
    if (this.#failure !== undefined) return Promise.reject(this.#failure);
    this.#pool.sender?.flush();
    if (this.#idle) return TAKEN;
    return new Promise((resolve, reject) => this.#flushWaiters.add({ resolve, reject }));
  }

  /** Forgets a flush or connect that nobody waits for any more. */
  get #idle(): boolean {
    return this.#queue.length === 0 && this.#queue.waiting === 0 &&
      this.#pool.drivers.every((driver) => driver.pendingBytes === 0);
  }

  #take(payload: Uint8Array): boolean {
    const sender = this.#pool.sender;
    if (sender === undefined) {
      if (!this.#queue.fits(payload.length, 0, 0)) return false;
      this.#queue.push(payload);
      return true;
    }
    if (!this.#fits(payload, sender)) {
      // A caller that sends much in one turn fills the batch: write it and look again.
      sender.flush();
      if (!this.#fits(payload, sender)) return false;
    }
    if (this.#queue.length === 0 && sender.writable) this.#sendNow(sender, payload);
    else this.#queue.push(payload);
    return true;
  }

  #fits(payload: Uint8Array, sender: Driver): boolean {
    return this.#queue.fits(payload.length, sender.pendingMessages, sender.pendingBytes);
  }

  #sendNow(sender: Driver, payload: Uint8Array): void {
    const { version, maxMessageSize } = sender.negotiated!;
    if (version === 1 && payload.length === 0) {
      this.#undelivered(payload, "a version 1 message cannot be empty", "unsent");
    } else if (payload.length > maxMessageSize) {
      this.#undelivered(payload, `the peer takes at most ${maxMessageSize} bytes`, "unsent");
    } else {
      sender.send(payload);
    }
  }

  #pump(): void {
    const sender = this.#pool.sender;
    if (sender === undefined) return;
    while (sender.writable) {
      const payload = this.#queue.shift();
      if (payload === undefined) break;
      this.#sendNow(sender, payload);
    }
    this.#queue.admit((payload) => this.#take(payload));
    if (this.#flushWaiters.size > 0 && this.#idle) settle(this.#flushWaiters);
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
    this.traffic.messagesDropped++;
    this.traffic.sendFailures++;
    this.#host.onUndelivered(this, payload, this.#backpressureError(), "unsent");
  }

  #backpressureError(): BackpressureError {
    const queued = this.pendingMessages;
    return new BackpressureError(
      `Cannot send to ${this.nodeId}: ${queued} messages wait already`,
      queued,
      { peer: this.nodeId },
    );
  }

  #undelivered(payload: Uint8Array, why: string, fate: Fate, cause?: TransportError): void {
    this.traffic.sendFailures++;
    const code = cause?.code ?? "ConnectionClosed";
    const message = `Cannot deliver a message to ${this.nodeId}: ${why}`;
    const error = new TransportError(code, message, { peer: this.nodeId, cause });
    this.#host.onUndelivered(this, payload, error, fate);
  }

  #dropQueue(error: TransportError): void {
    for (let p = this.#queue.shift(); p !== undefined; p = this.#queue.shift()) {
      this.#undelivered(p, error.message, "unsent", error);
    }
    this.#queue.failWaiting(error);
    settle(this.#flushWaiters, error);
  }

  // --- connecting ---

  /** Dials and resolves when there is a connection; rejects with the first failure. */
  connect(address: string, signal: AbortSignal | undefined): Promise<void> {
    if (signal?.aborted) return Promise.reject(signal.reason);
    this.address = address;
    this.#failure = undefined;
    if (this.#state === "failed") this.#state = "connecting";
    const established = this.#pool.size > 0 ? TAKEN : this.#whenUp(signal);
    this.#cancelAbsence?.();
    this.#cancelAbsence = undefined;
    this.#pool.start("connect was called");
    return established;
  }

  /** Dials from now on without anybody waiting for it. */
  keepConnected(address: string): void {
    this.address = address;
    this.#pool.start("a configured peer");
  }

  /** Takes in a connection the peer dialed, at the moment its handshake is complete. */
  accept(driver: Driver, lifecycle: Lifecycle): void {
    driver.owner = this;
    lifecycle.change("active", "handshake complete");
    this.#pool.accept(driver, lifecycle);
  }

  /** Ends everything: what waits is reported, connections end in order. */
  leave(error: TransportError): void {
    if (this.#state === "closed") return;
    this.#pool.retireAll(error.message);
    this.#finish("closed", error);
  }

  /** Closes everything at once. */
  abort(error: TransportError): void {
    this.#pool.closeAll(error);
    this.#finish("closed", error);
  }

  /** No longer dials; connections stay as they are. */
  stopDialing(reason: string): void {
    this.#pool.stop(reason);
  }

  #whenUp(signal: AbortSignal | undefined): Promise<void> {
    return new Promise((resolve, reject) => {
      const finish = (settle: () => void) => {
        this.#connectWaiters.delete(waiter);
        signal?.removeEventListener("abort", onAbort);
        settle();
      };
      const onAbort = () => finish(() => reject(signal?.reason));
      const waiter: ConnectWaiter = {
        resolve: () => finish(resolve),
        reject: (reason) => finish(() => reject(reason)),
      };
      signal?.addEventListener("abort", onAbort, { once: true });
      this.#connectWaiters.add(waiter);
    });
  }

  // --- what the pool tells ---

  /** @ignore */
  now(): number {
    return this.#host.environment.now();
  }

  /** @ignore */
  setTimer(delayMs: number, callback: () => void): () => void {
    return this.#host.environment.setTimer(delayMs, callback);
  }

  /** @ignore */
  random(): number {
    return this.#host.environment.random();
  }

  /** @ignore */
  newLifecycle(state: "connecting" | "handshaking"): Lifecycle {
    return this.#host.newLifecycle(this.nodeId, state);
  }

  /** @ignore */
  dial(attempt: DialAttempt): Promise<void> {
    return this.#host.dial(this, attempt);
  }

  /** @ignore */
  onUp(driver: Driver): void {
    driver.owner = this;
    this.#cancelAbsence?.();
    this.#cancelAbsence = undefined;
    if (this.#pool.size > 1 || this.#state === "closed") return;
    if (this.#wasUp) this.traffic.reconnections++;
    this.#wasUp = true;
    this.#state = "active";
    this.#failure = undefined;
    settle(this.#connectWaiters);
    this.#host.onUp(this);
  }

  /** @ignore */
  onDown(error: TransportError | undefined, returning: boolean): void {
    if (this.#state !== "active") return;
    this.#state = "reconnecting";
    this.#host.onDown(this, error);
    if (!returning && this.#state === "reconnecting") this.#awaitReturn(error);
  }

  /** @ignore */
  onAttemptFailed(error: TransportError, final: boolean): void {
    settle(this.#connectWaiters, error);
    if (!final) {
      if (this.#state === "connecting") this.#state = "reconnecting";
      return;
    }
    if (this.#state === "closed") return;
    this.#finish("failed", error);
  }

  /** @ignore */
  onSenderChanged(): void {
    this.#pump();
  }

  /** @ignore */
  onHandedOver(): void {
    this.releaseAll();
    this.#pump();
  }

  /** A peer we can't dial may come back for a while; what waits for it waits that long. */
  #awaitReturn(error: TransportError | undefined): void {
    const reason = error ??
      new TransportError("ConnectionClosed", `Cannot reach ${this.nodeId}: it has gone`, {
        peer: this.nodeId,
      });
    if (this.address !== undefined && !this.#host.options.reconnect.enabled) {
      return this.#finish("failed", reason);
    }
    this.#cancelAbsence = this.setTimer(this.#host.options.resumeWindowMs, () => {
      this.#finish("closed", reason);
    });
  }

  #finish(state: "failed" | "closed", error: TransportError): void {
    const wasActive = this.#state === "active";
    this.#state = state;
    this.#failure = error;
    this.#cancelAbsence?.();
    this.#cancelAbsence = undefined;
    this.#cancelRateTimer?.();
    this.#cancelRateTimer = undefined;
    settle(this.#connectWaiters, error);
    if (wasActive) this.#host.onDown(this, error);
    this.#dropQueue(error);
    if (state === "closed") this.#host.onGone(this);
  }

  // --- what the connections tell ---

  /** @ignore */
  onHello(): Rejection | undefined {
    return undefined;
  }

  /** @ignore */
  onEstablished(): void {}

  /** @ignore */
  wantsMessage(driver: Driver): boolean {
    return this.#pendingHandlers === 0 && !this.#rateHeld && !this.#host.inboxFull &&
      this.#pool.mayDeliver(driver) && this.#hasToken();
  }

  /** @ignore */
  onMessage(_: Driver, payload: Uint8Array): void {
    this.#bucketIn?.tryTake(this.now());
    this.#host.deliver(this, payload);
  }

  /** @ignore */
  onWritable(driver: Driver): void {
    if (driver === this.#pool.sender) this.#pump();
  }

  /** @ignore */
  onFlushed(): void {
    if (this.#flushWaiters.size > 0 && this.#idle) settle(this.#flushWaiters);
  }

  /** @ignore */
  onSilent(driver: Driver): void {
    this.#pool.silent(driver);
  }

  /** @ignore */
  onPeerEnd(driver: Driver): void {
    this.#pool.peerEnded(driver);
  }

  /** @ignore */
  onClosed(driver: Driver, error: TransportError | undefined): void {
    addTraffic(this.traffic, driverTraffic(driver));
    driver.clearCounters();
    const why = error?.message ?? "the connection was closed";
    for (const payload of driver.unsent()) this.#undelivered(payload, why, "unknown", error);
    this.#host.onConnectionEnded(this, driver, error);
    this.#pool.closed(driver, error);
    this.onFlushed();
    this.#host.onQuiet(this);
  }

  /** The handler works on a message of this peer: the next one waits. */
  holdFor(settled: Promise<void>): void {
    this.#pendingHandlers++;
    const done = () => {
      this.#pendingHandlers--;
      if (this.#pendingHandlers === 0) this.releaseAll();
    };
    settled.then(done, done);
  }

  /** Lets the connections look again whether messages are wanted, the oldest first. */
  releaseAll(): void {
    for (const driver of this.#pool.drivers) driver.release();
  }

  #hasToken(): boolean {
    if (this.#bucketIn === undefined) return true;
    const retryAfterMs = this.#bucketIn.retryAfterMs(this.now());
    if (retryAfterMs <= 0) return true;
    this.#rateHeld = true;
    this.traffic.rateLimited++;
    this.#cancelRateTimer = this.setTimer(retryAfterMs, () => {
      this.#rateHeld = false;
      this.releaseAll();
    });
    return false;
  }
}

/** What `send` returns when there was nothing to wait for. */
const TAKEN: Promise<void> = Promise.resolve();

function settle(waiters: Set<ConnectWaiter>, error?: TransportError): void {
  for (const waiter of [...waiters]) {
    waiters.delete(waiter);
    if (error === undefined) waiter.resolve();
    else waiter.reject(error);
  }
}

function driverTraffic(driver: Driver): TrafficStats {
  return {
    ...noTraffic(),
    messagesSent: driver.messagesSent,
    messagesReceived: driver.messagesReceived,
    bytesSent: driver.bytesSent,
    bytesReceived: driver.bytesReceived,
    payloadBytesSent: driver.payloadBytesSent,
    payloadBytesReceived: driver.payloadBytesReceived,
  };
}
