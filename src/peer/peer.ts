/**
 * Everything an endpoint keeps of one peer: its pool, what waits to be sent, its rate limits,
 * its counters.
 *
 * @module
 */

import { TransportError } from "../errors.ts";
import type { ResolvedOptions, WhenFull } from "../options.ts";
import type { Rejection } from "../protocol/connection.ts";
import { TokenBucket } from "../protocol/token_bucket.ts";
import type { Environment } from "../runtime/environment.ts";
import { addTraffic, noTraffic, type PoolStats, type TrafficStats } from "../stats.ts";
import type { Driver, DriverOwner } from "./driver.ts";
import type { PeerIdentity } from "./identity.ts";
import type { Lifecycle } from "./lifecycle.ts";
import { Pool, type PoolOwner, type PoolSettings } from "./pool.ts";
import { type Fate, Outgoing } from "./outgoing.ts";
import type { DialAttempt } from "./slot.ts";
import { DONE, WaiterSet } from "./waiters.ts";

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

/** A peer. */
export class Peer implements DriverOwner, PoolOwner {
  readonly nodeId: string;
  readonly ownNodeId: string;
  readonly settings: PoolSettings;
  /** Where to dial it; undefined for a peer that only ever dialed us. */
  address: string | undefined;
  /** What its certificate proved. */
  identity: PeerIdentity | undefined;
  /** Counters of what is not in a live driver. */
  readonly traffic: TrafficStats = noTraffic();
  readonly #host: PeerHost;
  readonly #pool: Pool;
  readonly #outgoing: Outgoing;
  readonly #bucketIn: TokenBucket | undefined;
  readonly #connects = new WaiterSet();
  #state: PeerState = "connecting";
  #wasUp = false;
  /** Closed connections whose last messages still wait, oldest first; newer ones wait for them. */
  readonly #remains = new Set<Driver>();
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
    const newBucket = () =>
      options.rateLimit.enabled ? new TokenBucket(options.rateLimit, environment.now()) : undefined;
    this.#bucketIn = newBucket();
    this.#outgoing = new Outgoing({
      nodeId,
      traffic: this.traffic,
      now: () => environment.now(),
      sender: () => this.#pool.sender,
      drivers: () => this.#pool.drivers,
      onUndelivered: (payload, error, fate) => host.onUndelivered(this, payload, error, fate),
    }, {
      maxPendingMessages: options.maxPendingMessages,
      maxPendingBytes: options.maxPendingBytes,
      bucket: newBucket(),
    });
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
    return this.#outgoing.pendingMessages;
  }

  /** Bytes of the messages that wait in the queue. */
  get pendingBytes(): number {
    return this.#outgoing.pendingBytes;
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
    return this.#outgoing.offer(payload);
  }

  /** Takes a message as `whenFull` says; throws why the peer was given up. */
  send(payload: Uint8Array, whenFull: WhenFull, signal: AbortSignal | undefined): Promise<void> {
    if (this.#failure !== undefined) throw this.#failure;
    return this.#outgoing.send(payload, whenFull, signal);
  }

  /** Resolves when all that was accepted so far has been given to the network. */
  flush(signal?: AbortSignal): Promise<void> {
    if (this.#failure !== undefined && !this.#outgoing.idle) return Promise.reject(this.#failure);
    return this.#outgoing.flush(signal);
  }

  // --- connecting ---

  /** Dials and resolves when there is a connection; rejects with the first failure. */
  connect(address: string, signal: AbortSignal | undefined): Promise<void> {
    if (signal?.aborted) return Promise.reject(signal.reason);
    this.address = address;
    this.#failure = undefined;
    if (this.#state === "failed") this.#state = "connecting";
    const established = this.#pool.size > 0 ? DONE : this.#connects.wait(signal);
    this.#cancelAbsence?.();
    this.#cancelAbsence = undefined;
    this.#pool.start("connect was called");
    return established;
  }

  /** It has shown that it lives: its silent connections are given more time. */
  noteLife(): void {
    const now = this.now();
    for (const driver of this.#pool.drivers) driver.noteLife(now);
  }

  /** Whether a `connect` waits for it. */
  get awaited(): boolean {
    return this.#connects.size > 0;
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
    this.#connects.resolveAll();
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
    this.#connects.rejectAll(error);
    if (!final) {
      if (this.#state === "connecting") this.#state = "reconnecting";
      return;
    }
    if (this.#state === "closed") return;
    this.#finish("failed", error);
  }

  /** @ignore */
  onSenderChanged(): void {
    this.#outgoing.pump();
  }

  /** @ignore */
  onHandedOver(): void {
    this.releaseAll();
    this.#outgoing.pump();
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
      // What it sent and nobody has taken yet is not thrown away with it.
      if (this.#remains.size > 0) this.#awaitReturn(reason);
      else this.#finish("closed", reason);
    });
  }

  #finish(state: "failed" | "closed", error: TransportError): void {
    const wasActive = this.#state === "active";
    this.#state = state;
    this.#failure = error;
    this.#cancelAbsence?.();
    this.#cancelAbsence = undefined;
    // What a peer that was given up had sent is still delivered, at its rate.
    if (state === "closed") this.#cancelRateTimer?.();
    this.#connects.rejectAll(error);
    this.#outgoing.fail(error);
    if (wasActive) this.#host.onDown(this, error);
    if (state === "closed") this.#host.onGone(this);
  }

  // --- what the connections tell ---

  /** @ignore */
  onIdentity(): Rejection | undefined {
    return undefined;
  }

  /** @ignore */
  onHello(): Rejection | undefined {
    return undefined;
  }

  /** @ignore */
  onEstablished(): void {}

  /** @ignore */
  wantsMessage(driver: Driver): boolean {
    if (this.#pendingHandlers > 0 || this.#rateHeld || this.#host.inboxFull) return false;
    if (this.#remains.size > 0 && !this.#remains.has(driver)) return false;
    return this.#pool.mayDeliver(driver) && this.#hasToken();
  }

  /** @ignore */
  onMessage(_: Driver, payload: Uint8Array): void {
    this.#bucketIn?.tryTake(this.now());
    this.#host.deliver(this, payload);
  }

  /** @ignore */
  onWritable(driver: Driver): void {
    if (driver === this.#pool.sender) this.#outgoing.pump();
  }

  /** @ignore */
  onFlushed(): void {
    this.#outgoing.checkFlushed();
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
    this.#moveCounters(driver);
    if (driver.hasRemains) this.#remains.add(driver);
    const why = error?.message ?? "the connection was closed";
    const { unsent, unknown } = driver.takeUndelivered(error === undefined);
    for (const payload of unknown) this.#outgoing.undelivered(payload, why, "unknown", error);
    for (const payload of unsent) this.#outgoing.undelivered(payload, why, "unsent", error);
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
    for (const driver of [...this.#remains]) {
      driver.release();
      this.#moveCounters(driver);
      if (driver.hasRemains) return;
      this.#remains.delete(driver);
    }
    for (const driver of this.#pool.drivers) driver.release();
  }

  #moveCounters(driver: Driver): void {
    addTraffic(this.traffic, driverTraffic(driver));
    driver.clearCounters();
  }

  #hasToken(): boolean {
    if (this.#bucketIn === undefined || this.#state === "closed") return true;
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
