/**
 * Everything an endpoint keeps of one peer: its pool, what waits to be sent, its rate limits,
 * its counters.
 *
 * @module
 */

import { TransportError } from "../errors.ts";
import type { ResolvedOptions, WhenFull } from "../options.ts";
import type { Rejection } from "../protocol/connection.ts";
import type { Negotiated } from "../protocol/handshake.ts";
import { TokenBucket } from "../protocol/token_bucket.ts";
import { datagramBytes, decodeDatagram, encodeDatagram } from "../protocol/v3/datagram.ts";
import type { Backlog } from "../protocol/v3/backlog.ts";
import type { Unconnected } from "../protocol/v3/calls.ts";
import type { Received } from "../protocol/v3/receive_lane.ts";
import type { Ended, MessageSeal, Session } from "../protocol/v3/session.ts";
import {
  GOAWAY,
  type GoawayCode,
  KIND,
  type Lane,
  LANE_NAMES,
  type LaneName,
} from "../protocol/v3/types.ts";
import type { Environment } from "../runtime/environment.ts";
import { addTraffic, noTraffic, type PoolStats, type TrafficStats } from "../stats.ts";
import type { Driver, DriverOwner } from "./driver.ts";
import type { PeerIdentity } from "./identity.ts";
import type { Lifecycle } from "./lifecycle.ts";
import type { Bandwidth, PeerPace } from "./bandwidth.ts";
import { Pool, type PoolOwner, type PoolSettings } from "./pool.ts";
import { Exchange, type ExchangeHost, type ExchangeLink } from "./exchange.ts";
import { HeldDatagrams } from "./held_datagrams.ts";
import { Outgoing, type OutgoingHost, type Undelivered } from "./outgoing.ts";
import { PeerSession, type PeerSessionHost, PROBE_MS } from "./peer_session.ts";
import type { SendPlan } from "./send_queue.ts";
import type { DialAttempt } from "./slot.ts";
import type { Timed, Timers } from "./timers.ts";
import { DONE, WaiterSet } from "./waiters.ts";

/** Where a peer stands. */
export type PeerState = "connecting" | "active" | "reconnecting" | "failed" | "closed";

/** Whether a peer answers: "suspect" is late with its answer, "down" has no connection. */
export type PeerHealth = "up" | "suspect" | "down";

/** What a peer needs of the manager around it. */
export interface PeerHost {
  readonly options: ResolvedOptions;
  readonly environment: Environment;
  readonly timers: Timers;
  readonly bandwidth: Bandwidth;
  newLifecycle(nodeId: string, state: "connecting" | "handshaking"): Lifecycle;
  dial(peer: Peer, attempt: DialAttempt): Promise<void>;
  /** Whether the application's inbox has room. */
  readonly inboxFull: boolean;
  /** What messages to and from a node are signed and verified with. */
  sealFor(nodeId: string): MessageSeal | undefined;
  /** A number that is higher than every generation of sessions before it. */
  nextGeneration(): number;
  deliver(peer: Peer, payload: Uint8Array, lane: LaneName, topic: string | undefined): void;
  /** What requests and streams of peers go to. */
  readonly exchange: ExchangeHost;
  onUp(peer: Peer): void;
  onDown(peer: Peer, error: TransportError | undefined): void;
  onHealth(peer: Peer, health: PeerHealth, previous: PeerHealth): void;
  onUndelivered(peer: Peer, message: Undelivered): void;
  /** All its connections are idle. */
  onIdle(peer: Peer): void;
  /** The addresses of a peer that are preferred to one. */
  betterAddresses(peer: Peer, than: string | undefined): readonly string[];
  /** One of its connections is gone; its counters are about to be cleared. */
  onConnectionGone(driver: Driver): void;
  /** One of its connections is gone, and what it leaves undelivered was told. */
  onConnectionEnded(peer: Peer, driver: Driver, error: TransportError | undefined): void;
  /** After that, the peer has taken note of it. */
  onQuiet(peer: Peer): void;
  /** Nothing is left to wait for: the manager forgets the peer. */
  onGone(peer: Peer): void;
}

const NO_ADDRESSES: readonly string[] = [];

/** A peer. */
export class Peer
  implements DriverOwner, PoolOwner, PeerSessionHost, ExchangeLink, OutgoingHost, Timed {
  readonly nodeId: string;
  readonly ownNodeId: string;
  readonly settings: PoolSettings;
  /** Where it may be dialed; empty for a peer that only ever dialed us. */
  addresses: readonly string[] = NO_ADDRESSES;
  /** Where it says that it can be reached. */
  advertised: readonly string[] = NO_ADDRESSES;
  /** Those of them that may be dialed, in our own words. */
  #trusted: readonly string[] = NO_ADDRESSES;
  /** The address that worked last. */
  dialedAddress: string | undefined;
  /** Whether it was dialed for a message only, and is left when it is idle for long. */
  passing = false;
  /** Whether it has signed its messages: then it always must. */
  signs = false;
  /** Counters of what is not in a live driver. */
  readonly traffic: TrafficStats = noTraffic();
  readonly #host: PeerHost;
  readonly #pool: Pool;
  readonly #outgoing: Outgoing;
  /** @ignore */
  readonly pace: PeerPace | undefined;
  /** @ignore */
  readonly seal: MessageSeal | undefined;
  readonly #session: PeerSession;
  /** Requests and streams. */
  readonly exchange: Exchange;
  readonly #bucketIn: TokenBucket | undefined;
  /** Who waits for a connection. */
  #connects: WaiterSet | undefined;
  #state: PeerState = "connecting";
  #wasUp = false;
  /** Closed connections whose last messages still wait, oldest first; newer ones wait for them. */
  #remains: Set<Driver> | undefined;
  #pendingHandlers = 0;
  #datagrams: HeldDatagrams | undefined;
  #rateHeld = false;
  #cancelRateTimer: (() => void) | undefined;
  #cancelAbsence: (() => void) | undefined;
  #failure: TransportError | undefined;
  /** Why there is no connection, as far as is known. */
  #lastFailure: TransportError | undefined;
  /** @ignore */
  timerAt = Infinity;
  /** @ignore */
  timerPlace = 0;
  #cancelResume: (() => void) | undefined;
  /** Whether the peer said that it is closing. */
  #closing = false;
  #suspects: Set<Driver> | undefined;
  #health: PeerHealth = "down";

  /** Makes a peer without connections. */
  constructor(nodeId: string, host: PeerHost, generation: number) {
    const { options } = host;
    this.nodeId = nodeId;
    this.ownNodeId = options.nodeId;
    this.#host = host;
    this.settings = settingsOf(options);
    this.#pool = new Pool(this);
    this.#bucketIn = newBucket(host);
    this.pace = paceOf(this, host);
    this.seal = host.sealFor(nodeId);
    this.#outgoing = new Outgoing(this, options, newBucket(host));
    this.#session = new PeerSession(this, generation);
    this.exchange = new Exchange(this.nodeId, this.#outgoing.backlog, host.exchange, this);
  }

  /** Where it is dialed: what worked last, or else the first; undefined where it only dialed us. */
  get address(): string | undefined {
    return this.dialedAddress ?? this.addresses[0];
  }

  /** Where it stands. */
  get state(): PeerState {
    return this.#state;
  }

  /** The protocol version spoken; undefined without a connection. */
  get version(): number | undefined {
    return this.#pool.drivers[0]?.negotiated?.version;
  }

  /** What its certificate proved; undefined while it has a connection that proved nothing. */
  get identity(): PeerIdentity | undefined {
    const { drivers } = this.#pool;
    return drivers.every(({ identity }) => identity !== undefined)
      ? drivers.at(-1)?.identity
      : undefined;
  }

  /** Usable connections. */
  get connectionCount(): number {
    return this.#pool.size;
  }

  /** Messages accepted and not yet given to the network. */
  get pendingMessages(): number {
    return this.#outgoing.pendingMessages;
  }

  /** Those of them that were written, and that the peer has not acknowledged. */
  get unackedMessages(): number {
    return this.#session.current?.unackedMessages ?? 0;
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
    const session = this.#session.current;
    sum.messagesLost += session?.lost ?? 0;
    sum.duplicates += session?.duplicates ?? 0;
    return sum;
  }

  /** How the pool stands. */
  poolStats(): PoolStats {
    const drivers = this.#pool.drivers.length;
    return {
      active: this.#pool.size,
      draining: drivers - this.#pool.size,
      connecting: this.#pool.slots.filter((slot) => slot.driver === undefined).length,
      idle: this.#pool.members.filter(({ driver }) => driver.idle).length,
      size: this.settings.poolSize,
    };
  }

  // --- sending ---

  /** Takes a message if that needs no waiting. `"full"` and `"limited"` refuse it. */
  offer(payload: Uint8Array, plan: SendPlan): "taken" | "full" | "limited" {
    return this.#outgoing.offer(payload, plan);
  }

  /** Takes a message as `whenFull` says; throws why the peer was given up. */
  send(
    payload: Uint8Array,
    plan: SendPlan,
    whenFull: WhenFull,
    signal: AbortSignal | undefined,
  ): Promise<void> {
    if (this.#failure !== undefined) throw this.#failure;
    return this.#outgoing.send(payload, plan, whenFull, signal);
  }

  /** Why it was given up; undefined where it was not. */
  get failure(): TransportError | undefined {
    return this.#failure;
  }

  /** Resolves when all that was accepted so far is acknowledged or, before version 3, written. */
  flush(signal?: AbortSignal): Promise<void> {
    if (this.#failure !== undefined && !this.#outgoing.idle) return Promise.reject(this.#failure);
    return this.#outgoing.flush(signal);
  }

  // --- connecting ---

  /** Dials and resolves when there is a connection; rejects with the first failure. */
  connect(addresses: readonly string[], signal: AbortSignal | undefined): Promise<void> {
    if (signal?.aborted) return Promise.reject(signal.reason);
    this.#setAddresses(addresses);
    this.#failure = undefined;
    if (this.#state === "failed") this.#state = "connecting";
    const established = this.#pool.size > 0
      ? DONE
      : (this.#connects ??= new WaiterSet()).wait(signal);
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
    return this.#connects !== undefined && this.#connects.size > 0;
  }

  /** Dials from now on without anybody waiting for it. */
  keepConnected(addresses: readonly string[]): void {
    this.#setAddresses(addresses);
    this.#pool.start("a configured peer");
  }

  /** All addresses at which it may be dialed; empty for a peer that only ever dialed us. */
  get candidates(): readonly string[] {
    const { addresses } = this;
    if (addresses.length === 0 || this.#trusted.length === 0) return addresses;
    return [...addresses, ...this.#trusted.filter((address) => !addresses.includes(address))];
  }

  /** Where it says that it is, and which of that may be dialed. */
  setAdvertised(said: readonly string[], trusted: readonly string[] | undefined): void {
    this.advertised = said;
    // Who proves nothing takes nothing away either.
    if (trusted !== undefined) this.#trusted = trusted;
  }

  #setAddresses(addresses: readonly string[]): void {
    this.addresses = addresses;
    const last = this.dialedAddress;
    if (last !== undefined && !this.candidates.includes(last)) this.dialedAddress = undefined;
  }

  /** Takes in a connection the peer dialed, at the moment its handshake is complete. */
  accept(driver: Driver, lifecycle: Lifecycle): void {
    driver.owner = this;
    lifecycle.change("active", "handshake complete");
    this.#pool.accept(driver, lifecycle);
  }

  /** When a connection of ours was last used, the one that gives way first; see `endSpare`. */
  get spareSince(): number | undefined {
    return this.#pool.spare?.driver.usedAt;
  }

  /** Ends the connection that was not used for the longest time, where there are enough. */
  endSpare(): void {
    this.#pool.endSpare();
  }

  /** Since when nothing was sent or received; undefined where something is under way. */
  get quietSince(): number | undefined {
    const { drivers } = this.#pool;
    const busy = this.#state !== "active" || this.#outgoing.pendingMessages > 0 ||
      this.#session.holds || this.exchange.openRequests > 0 || this.exchange.runningRequests > 0 ||
      this.exchange.openStreams > 0;
    if (busy || !drivers.every((driver) => driver.quiet)) return undefined;
    return drivers.reduce((latest, driver) => Math.max(latest, driver.usedAt), -Infinity);
  }

  /** Ends everything: what waits is reported, connections end in order. */
  leave(error: TransportError, code: GoawayCode = GOAWAY.closing): void {
    if (this.#state === "closed") return;
    this.#pool.retireAll(error.message, code);
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

  // --- sessions ---

  /** Whether it answers. */
  get health(): PeerHealth {
    return this.#health;
  }

  /** What our hello says of the session. */
  claimSession(): ReturnType<PeerSession["claim"]> {
    return this.#session.claim();
  }

  /** What our welcome says of it. */
  offerSession(negotiated: Negotiated): ReturnType<PeerSession["offer"]> {
    return this.#session.offer(negotiated);
  }

  /** Whether a hello fits the session. */
  judgeSession(negotiated: Negotiated, verified: boolean): Rejection | undefined {
    return this.#session.judge(negotiated, verified);
  }

  /** Whether a hello would end the session that there is. */
  replacesSession(negotiated: Negotiated): boolean {
    return this.#session.replacedBy(negotiated);
  }

  /** Asks every connection for a sign of life: somebody says that they are gone. */
  probe(): void {
    const now = this.now();
    for (const { channel } of this.#pool.drivers) channel?.probe(PROBE_MS, now);
  }

  #joinSession(driver: Driver): boolean {
    this.#cancelResume?.();
    this.#cancelResume = undefined;
    if (driver.channel === undefined) {
      this.#session.endByPeer(
        new TransportError(
          "ConnectionClosed",
          `Cannot go on with the session with ${this.nodeId}: it speaks an older version now`,
          { peer: this.nodeId },
        ),
      );
      return true;
    }
    try {
      this.#session.join(driver);
      this.#closeOrphans();
      return true;
    } catch (error) {
      driver.close(error as TransportError);
      return false;
    }
  }

  /** Connections of a session that has ended would swallow what comes on them. */
  #closeOrphans(): void {
    for (const driver of this.#pool.drivers) {
      const { channel, retiring } = driver;
      if (channel?.resume && channel.session === undefined && !retiring) {
        const text = `Cannot go on with the connection to ${this.nodeId}: its session has ended`;
        driver.close(new TransportError("ConnectionClosed", text, { peer: this.nodeId }));
      }
    }
  }

  /** The last connection is gone: what is not acknowledged is kept for a while. */
  #awaitResume(): void {
    const session = this.#session.current;
    if (session === undefined || this.#pool.drivers.length > 0) return;
    if (this.#closing) return this.#session.endByPeer(this.#sessionOver("the peer has closed it"));
    const late = "the peer did not come back in time";
    if (this.#state === "closed" || this.#state === "failed") {
      return this.#session.end(this.#failure ?? this.#sessionOver(late));
    }
    this.#cancelResume?.();
    this.#cancelResume = this.setTimer(this.#host.options.resumeWindowMs, () => {
      this.#cancelResume = undefined;
      this.#session.end(this.#sessionOver(late));
    });
  }

  #sessionOver(why: string): TransportError {
    const text = `Cannot go on with the session with ${this.nodeId}: ${why}`;
    return new TransportError("ConnectionClosed", text, { peer: this.nodeId });
  }

  #arm(): void {
    const at = Math.min(this.#session.nextTimeout(), this.exchange.nextTimeout());
    if (at < this.timerAt) this.timers.set(this, at);
  }

  /** @ignore */
  onDue(): void {
    const now = this.now();
    this.#session.handleTimeout(now);
    this.exchange.handleTimeout(now);
    this.#arm();
  }

  #setHealth(): void {
    const { drivers } = this.#pool;
    const usable = drivers.filter((driver) => driver.active);
    const health = usable.length === 0
      ? "down"
      : usable.every((driver) => this.#suspects?.has(driver))
      ? "suspect"
      : "up";
    const previous = this.#health;
    if (health === previous) return;
    this.#health = health;
    this.#host.onHealth(this, health, previous);
  }

  // --- what the session and the exchange tell ---

  /** @ignore */
  get options(): ResolvedOptions {
    return this.#host.options;
  }

  /** @ignore */
  get timers(): Timers {
    return this.#host.timers;
  }

  /** @ignore */
  get environment(): Environment {
    return this.#host.environment;
  }

  /** @ignore */
  get backlog(): Backlog {
    return this.#outgoing.backlog;
  }

  /** @ignore */
  session(): Session | undefined {
    return this.#session.current;
  }

  /** @ignore */
  nextGeneration(): number {
    return this.#host.nextGeneration();
  }

  /** @ignore */
  takesMessage(): boolean {
    return this.#wantsNow() && !this.#hasRemains && this.#hasToken();
  }

  /** @ignore */
  receive(lane: Lane, topic: string | undefined, payload: Uint8Array): void {
    this.#bucketIn?.tryTake(this.now());
    this.traffic.messagesReceived++;
    this.traffic.payloadBytesReceived += payload.length;
    this.#host.deliver(this, payload, LANE_NAMES[lane], topic);
  }

  /** @ignore */
  onOther(received: Received, now: number): void {
    this.exchange.handle(received, now);
  }

  /** @ignore */
  checkLoad(kind: number): void {
    this.exchange.checkLoad(kind);
  }

  /** @ignore */
  onSent(payloadBytes: number): void {
    this.traffic.messagesSent++;
    this.traffic.payloadBytesSent += payloadBytes;
  }

  /** @ignore */
  onPayloadFree(payload: Uint8Array): void {
    this.#outgoing.copies.release(payload);
  }

  /** @ignore */
  onRoom(): void {
    this.#outgoing.admit();
  }

  /** @ignore */
  onFreed(): void {
    this.#outgoing.admit();
  }

  /** @ignore */
  onBegin(session: Session, negotiated: Negotiated): void {
    this.signs ||= negotiated.capabilities.has("signed");
    this.exchange.begin(session, negotiated);
    this.#outgoing.refuseUnfit(session);
  }

  /** @ignore */
  onEnd(session: Session, ended: readonly Ended[], error: TransportError): void {
    this.#cancelResume?.();
    this.#cancelResume = undefined;
    this.traffic.messagesLost += session.lost;
    this.traffic.duplicates += session.duplicates;
    for (const message of ended) {
      if (message.kind !== KIND.data) continue;
      const { payload, lane, topic } = message;
      const reported = { payload, lane: LANE_NAMES[lane], topic };
      this.#outgoing.undelivered(reported, error.message, "unknown", error);
    }
    this.exchange.end(error);
    this.#outgoing.admit();
  }

  /** @ignore */
  onTimer(): void {
    this.#arm();
  }

  /** @ignore */
  unconnected(): Unconnected | undefined {
    return this.connectionCount > 0 ? undefined : { error: this.#lastFailure };
  }

  // --- what the way out asks ---

  /** @ignore */
  pump(): void {
    this.#outgoing.pump();
  }

  /** @ignore */
  sender(): Driver | undefined {
    return this.#pool.sender;
  }

  /** @ignore */
  loose(): Driver | undefined {
    return this.#pool.loose();
  }

  /** @ignore */
  sendDatagram(payload: Uint8Array, { lane, topic }: SendPlan): boolean {
    const bytes = datagramBytes(payload.length, topic);
    const driver = this.#pool.drivers.find((driver) => driver.maxDatagramBytes >= bytes);
    if (driver?.sendDatagram(encodeDatagram(lane, topic, payload)) !== true) return false;
    this.pace?.spend(lane, bytes);
    this.traffic.messagesSent++;
    this.traffic.payloadBytesSent += payload.length;
    return true;
  }

  /** @ignore */
  onUndelivered(message: Undelivered): void {
    this.#host.onUndelivered(this, message);
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
    if (this.#state === "closed" || !this.#joinSession(driver)) return;
    this.#cancelAbsence?.();
    this.#cancelAbsence = undefined;
    this.#closing = false;
    if (this.#pool.size > 1) return this.#setHealth();
    if (this.#wasUp) this.traffic.reconnections++;
    this.#wasUp = true;
    this.#state = "active";
    this.#failure = this.#lastFailure = undefined;
    this.#connects?.resolveAll();
    this.#host.onUp(this);
    this.#setHealth();
  }

  /** @ignore */
  onDown(error: TransportError | undefined, returning: boolean): void {
    this.#lastFailure = error;
    this.#setHealth();
    if (this.#state !== "active") return;
    this.#state = "reconnecting";
    this.#host.onDown(this, error);
    if (!returning && this.#state === "reconnecting") this.#awaitReturn(error);
  }

  /** @ignore */
  onAttemptFailed(error: TransportError, final: boolean): void {
    this.#lastFailure = error;
    this.#connects?.rejectAll(error);
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

  /** @ignore */
  onIdle(): void {
    this.#host.onIdle(this);
  }

  /** @ignore */
  improvable(driver: Driver): boolean {
    return this.#host.betterAddresses(this, driver.dialedAddress).length > 0;
  }

  /** A peer we can't dial may come back for a while; what waits for it waits that long. */
  #awaitReturn(error: TransportError | undefined): void {
    // Made when it is needed: a stack trace takes longer than all else that is done here.
    const reason = () =>
      error ?? new TransportError("ConnectionClosed", `Cannot reach ${this.nodeId}: it has gone`, {
        peer: this.nodeId,
      });
    if (this.address !== undefined && !this.#host.options.reconnect.enabled) {
      return this.#finish("failed", reason());
    }
    this.#cancelAbsence = this.setTimer(this.#host.options.resumeWindowMs, () => {
      // What it sent and nobody has taken yet is not thrown away with it.
      if (this.#hasRemains || this.#session.holds) this.#awaitReturn(error);
      else this.#finish("closed", reason());
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
    this.#connects?.rejectAll(error);
    // What connections that end in order still bring to an end is waited for.
    this.#session.retire();
    if (this.#pool.drivers.every((driver) => driver.channel === undefined)) {
      this.#session.end(error);
    }
    this.#outgoing.fail(error);
    this.exchange.fail(error);
    if (this.#session.current === undefined) this.timers.clear(this);
    this.#forgetPast();
    if (wasActive) this.#host.onDown(this, error);
    if (state === "closed") {
      if (this.#pool.drivers.length === 0) this.pace?.end();
      this.#host.onGone(this);
    }
  }

  /** Whoever comes next under its name must not be overtaken by what it left. */
  #forgetPast(): void {
    if (this.#state === "closed" && this.#pool.drivers.length === 0) this.#session.forgetPast();
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
    if (!this.#wantsNow() || this.#session.hasPast) return false;
    if (this.#hasRemains && !this.#remains?.has(driver)) return false;
    return this.#pool.mayDeliver(driver) && this.#hasToken();
  }

  /** @ignore */
  onMessage(_: Driver, payload: Uint8Array): void {
    this.#bucketIn?.tryTake(this.now());
    this.#host.deliver(this, payload, "normal", undefined);
  }

  /** @ignore */
  onDatagram(driver: Driver, bytes: Uint8Array): void {
    const message = decodeDatagram(bytes, driver.negotiated!.maxMessageSize);
    if (message === undefined) return;
    this.#datagrams ??= new HeldDatagrams();
    if (!this.#datagrams.push(message)) this.traffic.messagesLost++;
    this.#deliverDatagrams(this.#datagrams);
  }

  #deliverDatagrams(datagrams: HeldDatagrams): void {
    while (datagrams.length > 0 && this.#wantsNow() && this.#hasToken()) {
      const { lane, topic, payload } = datagrams.shift()!;
      this.receive(lane, topic, payload);
    }
  }

  get #hasRemains(): boolean {
    return this.#remains !== undefined && this.#remains.size > 0;
  }

  #wantsNow(): boolean {
    return this.#pendingHandlers === 0 && !this.#rateHeld && !this.#host.inboxFull;
  }

  /** @ignore */
  onWritable(driver: Driver): void {
    if (driver === this.#pool.sender || driver.channel !== undefined) this.#outgoing.pump();
  }

  /** @ignore */
  onFlushed(driver: Driver): void {
    if (driver.channel !== undefined) this.#session.settle(driver);
    this.#outgoing.checkFlushed();
  }

  /** @ignore */
  onSuspect(driver: Driver, suspect: boolean): void {
    if (suspect) (this.#suspects ??= new Set()).add(driver);
    else this.#suspects?.delete(driver);
    this.#setHealth();
  }

  /** @ignore */
  onGoaway(driver: Driver, code: number): void {
    if (code === GOAWAY.closing) this.#closing = true;
    this.#pool.peerEnded(driver);
  }

  /** @ignore */
  onSilent(driver: Driver): void {
    this.#pool.silent(driver);
  }

  /** @ignore */
  onUsed(driver: Driver): void {
    this.#pool.used(driver);
  }

  /** @ignore */
  onBusy(): void {
    this.#pool.busy();
  }

  /** @ignore */
  onPeerEnd(driver: Driver): void {
    this.#pool.peerEnded(driver, this.#unannounced(driver));
  }

  /** @ignore */
  onClosed(driver: Driver, failure: TransportError | undefined): void {
    const error = failure ?? (driver.retiring ? undefined : this.#unannounced(driver));
    this.#host.onConnectionGone(driver);
    this.#moveCounters(driver);
    this.#suspects?.delete(driver);
    this.#session.leave(driver);
    this.#closeOrphans();
    if (driver.hasRemains) (this.#remains ??= new Set()).add(driver);
    const why = error?.message ?? "the connection was closed";
    const { unsent, unknown } = driver.takeUndelivered(error === undefined);
    const report = (payload: Uint8Array, fate: "unknown" | "unsent") =>
      this.#outgoing.undelivered(
        { payload, lane: "normal", topic: undefined },
        why,
        fate,
        error,
      );
    for (const payload of unknown) report(payload, "unknown");
    for (const payload of unsent) report(payload, "unsent");
    this.#host.onConnectionEnded(this, driver, error);
    this.#pool.closed(driver, error);
    this.#awaitResume();
    if (this.#session.current === undefined && this.#state === "closed") this.timers.clear(this);
    this.#forgetPast();
    this.#setHealth();
    this.#outgoing.checkFlushed();
    if (this.#state === "closed" && this.#pool.drivers.length === 0) this.pace?.end();
    this.#host.onQuiet(this);
  }

  /** Who ends a connection of version 3 in order says so before: otherwise its process has died. */
  #unannounced({ channel }: Driver): TransportError | undefined {
    if (channel === undefined || channel.draining || channel.goaway !== undefined) return undefined;
    const { nodeId: peer } = this;
    const text = `Cannot go on with the connection: ${peer} ended it without a word`;
    return new TransportError("ConnectionClosed", text, { peer });
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
    for (const driver of [...this.#remains ?? []]) {
      driver.release();
      this.#moveCounters(driver);
      if (driver.hasRemains) return;
      this.#remains?.delete(driver);
    }
    if (this.#datagrams !== undefined) this.#deliverDatagrams(this.#datagrams);
    this.#session.release();
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

const poolSettings = new WeakMap<ResolvedOptions, PoolSettings>();

/** The settings that all pools of an endpoint share. */
function settingsOf(options: ResolvedOptions): PoolSettings {
  let settings = poolSettings.get(options);
  if (settings === undefined) {
    settings = {
      poolSize: options.poolSize,
      strategy: options.pool.strategy,
      minConnections: options.pool.minConnections,
      idleTimeoutMs: options.pool.idleTimeoutMs,
      maxLifetimeMs: options.pool.maxLifetimeMs,
      upgradeIntervalMs: options.pool.upgradeIntervalMs,
      retireMs: options.connectTimeoutMs,
      keepaliveMs: options.keepalive ? options.keepaliveIntervalSecs * 1000 : undefined,
      connectTimeoutMs: options.connectTimeoutMs,
      reconnect: options.reconnect,
    };
    poolSettings.set(options, settings);
  }
  return settings;
}

function newBucket({ options, environment }: PeerHost): TokenBucket | undefined {
  if (!options.rateLimit.enabled) return undefined;
  return new TokenBucket(options.rateLimit, environment.now());
}

/** Not within the constructor, where each peer would keep its variables. */
function paceOf(peer: Peer, { bandwidth }: PeerHost): PeerPace | undefined {
  return bandwidth.pace(() => peer.pump());
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
