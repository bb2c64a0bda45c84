/**
 * All peers of an endpoint: the table, who is let in, and the attempts to connect.
 *
 * @module
 */

import { HandshakeError, TransportError } from "../errors.ts";
import type { ResolvedOptions } from "../options.ts";
import type { Rejection } from "../protocol/connection.ts";
import type { Capability, LocalIdentity, Negotiated } from "../protocol/handshake.ts";
import { decodeEnvelope, envelopeOverhead } from "../protocol/envelope.ts";
import type { EnvelopeSigner, EnvelopeVerifier } from "../protocol/envelope_seal.ts";
import type { KeyIdentity, OfferedSession } from "../protocol/handshaker.ts";
import type { MessageSeal } from "../protocol/v3/session.ts";
import type { Lz4 } from "../protocol/message.ts";
import { ReplayWindow } from "../protocol/replay.ts";
import type { Environment } from "../runtime/environment.ts";
import { addTraffic, type ConnectionMetrics, noTraffic, type TrafficStats } from "../stats.ts";
import type { DialOptions, Link, LinkInfo, LinkTls } from "../transport/transport.ts";
import { Accepted, type AcceptedHost, REFUSED } from "./accepted.ts";
import { Bandwidth } from "./bandwidth.ts";
import { ConnectionTally } from "./connection_tally.ts";
import type { ConnectionLimits } from "./connection_limits.ts";
import { dial } from "./dial.ts";
import { DIAL_LIMITS, DialBudget, RENEWAL_LIMITS } from "./dial_budget.ts";
import { Driver, type DriverConfig, type DriverSettings } from "./driver.ts";
import { type PeerIdentity, verifyIdentity } from "./identity.ts";
import { Lifecycle, type StateChange } from "./lifecycle.ts";
import type { ExchangeHost } from "./exchange.ts";
import type { Undelivered } from "./outgoing.ts";
import { Peer, type PeerHealth, type PeerHost } from "./peer.ts";
import { newSessionId, NOTHING } from "./peer_session.ts";
import type { DialAttempt } from "./slot.ts";
import { Timers } from "./timers.ts";
import { GOAWAY, LANE_NAMES, type LaneName } from "../protocol/v3/types.ts";

/** Peers without a connection that are remembered at one time, beyond those we dial ourselves. */
const MAX_ABSENT_PEERS = 1024;
/** The rank of an address that can't be used here: it is tried last. */
const UNUSABLE = -Number.MAX_SAFE_INTEGER;
/** A peer may hold this many connections above poolSize while one is being replaced. */
const SPARE_CONNECTIONS = 1;
/** Hellos that are remembered of one node, so that it can't use up the memory for all. */
const MAX_HELLOS_PER_NODE = 8_192;
/** Share of the keepalive interval by which a silent connection may be renewed early. */
const RENEWAL_JITTER = 0.2;
/** A connection that was not used for so long may give way to another when there are too many. */
const GIVE_WAY_MS = 1_000;
/** How long ending connections may take before they are cut when the endpoint closes. */
const END_MS = 1_000;

/** What the manager needs of the endpoint around it. */
export interface ManagerHost {
  readonly options: ResolvedOptions;
  readonly environment: Environment;
  readonly limits: ConnectionLimits;
  readonly inboxFull: boolean;
  openLink(address: string, options: DialOptions): Promise<Link>;
  /** How much an address is preferred; undefined where its transport can't be used here. */
  priority(address: string): number | undefined;
  /** Where we can be reached, as the peer at the other end of a link sees it. */
  advertised(info: LinkInfo): readonly string[];
  /**
   * An address that a peer has told over a link, as it is dialed; undefined where it can't be dialed
   * here, or would not lead to the peer.
   */
  dialable(address: string, info: LinkInfo): string | undefined;
  readonly exchange: ExchangeHost;
  deliver(peer: Peer, payload: Uint8Array, lane: LaneName, topic: string | undefined): void;
  onHealth(peer: Peer, health: PeerHealth, previous: PeerHealth): void;
  onPeerUp(peer: Peer): void;
  onPeerDown(peer: Peer, error: TransportError | undefined): void;
  onStateChange(nodeId: string | undefined, change: StateChange): void;
  onUndelivered(peer: Peer, message: Undelivered): void;
  /** A connection failed in a way that somebody should look at, or (quiet) merely ended. */
  onFailure(error: TransportError, nodeId: string | undefined, address: string | undefined): void;
}

/** What start() found out: certificates read, compression loaded. */
export interface Credentials {
  readonly dialTls: LinkTls | undefined;
  readonly lz4: Lz4 | undefined;
  readonly zstd: Lz4 | undefined;
  readonly crc32: (bytes: Uint8Array, seed?: number) => number;
  /** The key that proves who we are, and the keys of others. */
  readonly identity: KeyIdentity | undefined;
  /** What messages are signed and verified with. */
  readonly seals:
    | { readonly signer: EnvelopeSigner; readonly verifier: EnvelopeVerifier }
    | undefined;
}

/** The table of peers. */
export class PeerManager implements PeerHost, AcceptedHost {
  readonly options: ResolvedOptions;
  readonly environment: Environment;
  readonly timers: Timers;
  readonly bandwidth: Bandwidth;
  readonly #host: ManagerHost;
  readonly #credentials: Credentials;
  readonly #peers = new Map<string, Peer>();
  /** Peers that were left and whose connections are still ending. */
  readonly #leaving = new Set<Peer>();
  readonly #past: TrafficStats = noTraffic();
  readonly #tally = new ConnectionTally();
  readonly #budget: DialBudget;
  readonly #renewals: DialBudget;
  readonly #replay: ReplayWindow;
  readonly #identity: Omit<LocalIdentity, "capabilities">;
  readonly #settings: DriverSettings;
  #lastLocal: LocalIdentity | undefined;
  readonly #accepting = new Map<Driver, Accepted>();
  readonly #quietWaiters = new Set<() => void>();
  #lastConnection = 0;
  #closing = false;
  /** Attempts to connect under way, renewals aside. */
  #dialing = 0;
  /** Sessions with any peer that we have ended by our own decision. */
  #generation = 0;

  /** Makes an empty table. */
  constructor(host: ManagerHost, credentials: Credentials) {
    const { options, environment } = host;
    this.options = options;
    this.environment = environment;
    this.timers = new Timers(environment);
    this.bandwidth = new Bandwidth(options.bandwidth, environment);
    this.#host = host;
    this.#credentials = credentials;
    this.#budget = new DialBudget(environment, DIAL_LIMITS);
    this.#renewals = new DialBudget(environment, RENEWAL_LIMITS);
    this.#replay = new ReplayWindow({
      maxSkewMs: options.maxClockSkewMs,
      maxPerNode: MAX_HELLOS_PER_NODE,
    });
    this.#settings = {
      environment,
      timers: this.timers,
      batchDelayMs: options.batchDelayMs,
      ioTimeoutMs: options.ioTimeoutMs,
      lz4: credentials.lz4,
    };
    this.#identity = {
      nodeId: options.nodeId,
      clusterName: options.clusterName,
      authToken: options.authToken,
      incarnation: hex(environment.randomBytes(8)),
      minVersion: options.minProtocolVersion,
      maxVersion: options.maxProtocolVersion,
      receiveWindow: options.receiveWindow,
      features: options.features,
      maxStreams: options.maxStreams,
      maxMessageSize: options.maxMessageSize,
      maxClockSkewMs: options.maxClockSkewMs,
      keepaliveMs: options.keepalive ? Math.ceil(options.keepaliveIntervalSecs * 1000) : undefined,
    };
  }

  /** Every peer known. */
  get peers(): Iterable<Peer> {
    return this.#peers.values();
  }

  /** A peer by its node id. */
  get(nodeId: string): Peer | undefined {
    return this.#peers.get(nodeId);
  }

  /** The counters of all peers there are and were. */
  traffic(): TrafficStats {
    const sum = { ...this.#past };
    for (const peer of this.#peers.values()) addTraffic(sum, peer.stats());
    for (const peer of this.#leaving) addTraffic(sum, peer.stats());
    return sum;
  }

  /** The connections that are and were. */
  connectionMetrics(): ConnectionMetrics {
    const live = [...this.#peers.values(), ...this.#leaving].flatMap(({ drivers }) => drivers);
    return this.#tally.metrics(live);
  }

  /** Usable connections of all peers. */
  get connectionCount(): number {
    let count = 0;
    for (const peer of this.#peers.values()) count += peer.connectionCount;
    return count;
  }

  /** Connects to a peer; a peer that was unknown is forgotten again if that fails. */
  async connect(
    nodeId: string,
    addresses: readonly string[],
    signal: AbortSignal | undefined,
  ): Promise<void> {
    const before = this.#ending(nodeId);
    if (before !== undefined) {
      await this.#quiet(before, this.options.connectTimeoutMs);
      signal?.throwIfAborted();
      if (this.#closing) {
        throw new TransportError("Shutdown", `Cannot connect to ${nodeId}: the endpoint is closed`);
      }
    }
    const known = this.#peers.has(nodeId);
    const peer = this.#getOrMake(nodeId);
    peer.passing = false;
    try {
      await peer.connect(addresses, signal);
    } catch (error) {
      const wanted = known || peer.awaited || peer.state === "active";
      if (!wanted && this.#peers.get(nodeId) === peer) {
        peer.leave(
          error instanceof TransportError
            ? error
            : new TransportError("ConnectionFailed", `Cannot connect to ${nodeId}: given up`),
        );
      }
      throw error;
    }
  }

  /** Dials a configured peer from now on. */
  keepConnected(nodeId: string, addresses: readonly string[]): Peer {
    const peer = this.#getOrMake(nodeId);
    peer.passing = false;
    peer.keepConnected(addresses);
    return peer;
  }

  /** Dials a peer that there is something for, and that may be left again when it is idle. */
  reach(nodeId: string, addresses: readonly string[]): Peer {
    const peer = this.keepConnected(nodeId, addresses);
    peer.passing = true;
    return peer;
  }

  /** Takes an accepted link through its handshake. */
  accept(link: Link): void {
    if (this.#closing) {
      return void new Driver(link, this.#config("listener", link), REFUSED).close();
    }
    const lifecycle = this.newLifecycle(undefined, "connecting");
    lifecycle.change("handshaking", `accepted from ${link.info.remoteAddress}`);
    const accepted = new Accepted(this, lifecycle);
    const driver = new Driver(link, {
      ...this.#config("listener", link),
      demandProof: () => this.#demandsProof(accepted.identity),
    }, accepted);
    this.#accepting.set(driver, accepted);
  }

  /** Ends a peer's connections in order; resolves when they are gone. */
  async leave(peer: Peer, error: TransportError): Promise<void> {
    peer.leave(error);
    await this.#quiet(peer, this.options.connectTimeoutMs);
  }

  /** Stops new work: nothing is dialed, nobody is let in. */
  stop(reason: string): void {
    this.#closing = true;
    for (const peer of this.#peers.values()) peer.stopDialing(reason);
  }

  /** Ends all connections, in order where that is quick, and reports what was not delivered. */
  async end(error: TransportError): Promise<void> {
    const peers = [...this.#peers.values()];
    for (const driver of this.#accepting.keys()) driver.close(error);
    for (const peer of peers) peer.leave(error);
    await this.#quiet(undefined, END_MS);
    for (const peer of [...this.#leaving]) peer.abort(error);
    await this.#quiet(undefined, END_MS);
  }

  // --- what peers ask ---

  /** @ignore */
  get inboxFull(): boolean {
    return this.#host.inboxFull;
  }

  /** @ignore */
  newLifecycle(nodeId: string | undefined, state: "connecting" | "handshaking"): Lifecycle {
    const id = ++this.#lastConnection;
    return new Lifecycle(id, state, nodeId, this.#host);
  }

  /** @ignore */
  async dial(peer: Peer, attempt: DialAttempt): Promise<void> {
    const renewal = attempt.renewWithinMs !== undefined;
    const release = await (renewal ? this.#renewals : this.#budget).acquire(attempt.signal);
    const { options, environment } = this;
    const addresses = attempt.betterThan === undefined
      ? this.#inOrder(peer)
      : this.betterAddresses(peer, attempt.betterThan);
    let address = addresses[0] ?? attempt.betterThan!;
    let identity: PeerIdentity | undefined;
    let counted = false;
    try {
      if (!renewal) this.#makeRoom(peer);
      counted = !renewal;
      if (counted) this.#dialing++;
      peer.dialedAddress = await dial({
        nodeId: peer.nodeId,
        addresses,
        timeoutMs: attempt.renewWithinMs ?? options.connectTimeoutMs,
        signal: attempt.signal,
        setTimer: (delayMs, callback) => environment.setTimer(delayMs, callback),
        openLink: (address, signal) =>
          this.#host.openLink(address, {
            tls: this.#credentials.dialTls,
            keepaliveSecs: options.keepalive ? options.keepaliveIntervalSecs : undefined,
            signal,
          }),
        onFailed: (address) => this.#tally.failed(schemeOf(address)),
        onLink: (link, dialed) => {
          address = dialed;
          identity = this.#identify(link, peer.nodeId, "server");
          attempt.lifecycle.change("handshaking", `connected to ${link.info.remoteAddress}`);
        },
        newConfig: (link) => ({
          ...this.#config("dialer", link, peer.nodeId),
          claimSession: () => peer.claimSession(),
          demandProof: () => this.#demandsProof(identity),
        }),
        attach: (driver) => {
          if (this.#unsigned(driver.negotiated!)) return this.#refuseUnsigned(driver);
          driver.identity = identity;
          if (isOtherThan(peer, driver)) return this.#refuseOther(peer, driver);
          driver.dialedAddress = address;
          this.#noteAdvertised(peer, driver);
          this.#tally.established(driver);
          attempt.attach(driver);
        },
      });
    } catch (error) {
      // A pool that has no room for one more connection has failed nobody.
      // Nor has a better address at which nobody is yet.
      const spare = peer.connectionCount > 0 && !counted &&
        (!renewal || attempt.betterThan !== undefined);
      if (error instanceof TransportError && !attempt.signal.aborted && !spare) {
        this.#host.onFailure(error, peer.nodeId, address);
      }
      throw error;
    } finally {
      if (counted) this.#dialing--;
      release();
    }
  }

  /** @ignore */
  onIdle(peer: Peer): void {
    if (!peer.passing) return;
    const idle = this.#passing(this.options.pool.idleTimeoutMs);
    for (const other of idle.slice(0, Math.max(0, idle.length - this.options.pool.maxIdle))) {
      this.#leaveIdle(other);
    }
  }

  /** @ignore */
  betterAddresses(peer: Peer, than: string | undefined): readonly string[] {
    if (than === undefined) return [];
    const least = this.#rank(peer, than);
    return this.#ranked(peer).filter((address) => this.#rank(peer, address) > least);
  }

  /** @ignore */
  get exchange(): ExchangeHost {
    return this.#host.exchange;
  }

  /** @ignore */
  sealFor(nodeId: string): MessageSeal | undefined {
    const { seals } = this.#credentials;
    if (seals === undefined) return undefined;
    const own = this.options.nodeId;
    const { environment } = this;
    return {
      overhead: envelopeOverhead(own, nodeId),
      seal: (lane, payload, around) =>
        seals.signer.seal(nodeId, payload, environment.wallClock(), lane, around),
      open: (payload, around) =>
        seals.verifier.open(payload, nodeId, own, environment.wallClock(), around),
      unseal: (payload) => decodeEnvelope(payload).payload,
    };
  }

  /** @ignore */
  nextGeneration(): number {
    return ++this.#generation;
  }

  /** @ignore */
  deliver(peer: Peer, payload: Uint8Array, lane: LaneName, topic: string | undefined): void {
    this.#host.deliver(peer, payload, lane, topic);
  }

  /** @ignore */
  onHealth(peer: Peer, health: PeerHealth, previous: PeerHealth): void {
    this.#host.onHealth(peer, health, previous);
  }

  /** @ignore */
  onUp(peer: Peer): void {
    this.#host.onPeerUp(peer);
  }

  /** @ignore */
  onDown(peer: Peer, error: TransportError | undefined): void {
    this.#host.onPeerDown(peer, error);
  }

  /** @ignore */
  onUndelivered(peer: Peer, message: Undelivered): void {
    this.#host.onUndelivered(peer, message);
  }

  /** @ignore */
  onConnectionGone(driver: Driver): void {
    this.#tally.ended(driver);
  }

  /** @ignore */
  onConnectionEnded(peer: Peer, driver: Driver, error: TransportError | undefined): void {
    if (!driver.dialed) this.#host.limits.countEstablished(-1);
    if (error !== undefined) {
      this.#host.onFailure(error, peer.nodeId, driver.link.info.remoteAddress);
    }
  }

  /** @ignore */
  onQuiet(peer: Peer): void {
    const gone = peer.state === "closed" && peer.drivers.length === 0;
    if (gone && this.#leaving.delete(peer)) addTraffic(this.#past, peer.traffic);
    for (const check of [...this.#quietWaiters]) check();
  }

  /** @ignore */
  onGone(peer: Peer): void {
    if (this.#peers.get(peer.nodeId) === peer) this.#peers.delete(peer.nodeId);
    if (peer.drivers.length > 0) this.#leaving.add(peer);
    else addTraffic(this.#past, peer.traffic);
  }

  // --- who is let in ---

  /** @ignore */
  identify(driver: Driver, nodeId: string): PeerIdentity | undefined {
    return this.#identify(driver.link, nodeId, "client");
  }

  /** @ignore */
  judge(negotiated: Negotiated, identity: PeerIdentity | undefined): Rejection | undefined {
    const { nodeId, incarnation, publicKey } = negotiated;
    if (this.#closing) return { code: "SHUTTING_DOWN", reason: "the endpoint is closing" };
    // Asked again when the proof is there: until then a stranger may ask.
    if (this.#demandsProof(identity) && publicKey === undefined) return undefined;
    const verified = identity !== undefined || publicKey !== undefined;
    if (this.#unsigned(negotiated)) {
      return { code: "IDENTITY_REQUIRED", reason: "messages of this node must be signed" };
    }
    if (this.#ending(nodeId) !== undefined) {
      const reason = "the connections of a session that has ended are not gone yet";
      return { code: "TOO_MANY_CONNECTIONS", reason };
    }
    const peer = this.#peers.get(nodeId);
    if (peer === undefined) return undefined;
    const unfit = peer.judgeSession(negotiated, verified);
    if (unfit !== undefined) return unfit;
    if (peer.connectionCount === 0) return undefined;
    // Only a live connection tells which process has the name now.
    const other = peer.drivers.some((driver) =>
      driver.active && isOther(driver.negotiated?.incarnation, incarnation)
    );
    if (other) {
      // It may be gone without a word, and this be the one that took its place.
      peer.probe();
      const reason = "another process with this node id is connected";
      return { code: "DUPLICATE_NODE_ID", reason };
    }
    // Who ends a session ends its connections first. An incarnation alone proves nothing.
    if (!verified && peer.replacesSession(negotiated)) {
      peer.probe();
      const reason = "a process with this node id is connected, in another session";
      return { code: "DUPLICATE_NODE_ID", reason };
    }
    peer.noteLife();
    const accepted = peer.drivers.filter((other) => !other.dialed && !other.retiring).length;
    const multiplexed = peer.drivers.some(({ link }) => link.info.multiplexed);
    const most = multiplexed
      ? Math.max(this.options.poolSize, LANE_NAMES.length)
      : this.options.poolSize;
    if (accepted < most + SPARE_CONNECTIONS) return undefined;
    peer.probe();
    return {
      code: "TOO_MANY_CONNECTIONS",
      reason: `a peer may have ${most}`,
    };
  }

  /** @ignore */
  offerSession(negotiated: Negotiated): OfferedSession {
    const peer = this.#peers.get(negotiated.nodeId);
    if (peer !== undefined) return peer.offerSession(negotiated);
    const id = newSessionId(this.environment);
    return { offer: { id, resumed: false, received: NOTHING }, generation: this.#generation };
  }

  /** @ignore */
  established(driver: Driver, lifecycle: Lifecycle, identity: PeerIdentity | undefined): void {
    this.#accepting.delete(driver);
    this.#host.limits.countEstablished(1);
    this.#tally.established(driver);
    const { nodeId } = driver.negotiated!;
    lifecycle.nodeId = nodeId;
    const peer = this.#getOrMake(nodeId, driver.generation);
    driver.identity = identity;
    this.#noteAdvertised(peer, driver);
    peer.accept(driver, lifecycle);
  }

  /** @ignore */
  notEstablished(driver: Driver, lifecycle: Lifecycle, error: TransportError | undefined): void {
    this.#accepting.delete(driver);
    const failure = error ??
      new HandshakeError("Cannot accept the connection: it was closed during the handshake");
    lifecycle.change("failed", failure.message);
    this.#tally.failed(driver.link.info.protocol);
    if (!this.#closing) {
      this.#host.onFailure(failure, failure.peer, driver.link.info.remoteAddress);
    }
    for (const check of [...this.#quietWaiters]) check();
  }

  // --- helpers ---

  /** The addresses of a peer: what worked last, then the best; those that can't be used go last. */
  #inOrder(peer: Peer): readonly string[] {
    const ranked = this.#ranked(peer);
    const last = peer.dialedAddress;
    if (last === undefined || !ranked.includes(last)) return ranked;
    return [last, ...ranked.filter((address) => address !== last)];
  }

  /** The addresses of a peer, the best first. */
  #ranked(peer: Peer): readonly string[] {
    const { candidates } = peer;
    if (candidates.length < 2) return candidates;
    const ranks = new Map(candidates.map((address) => [address, this.#rank(peer, address)]));
    return candidates.toSorted((a, b) => ranks.get(b)! - ranks.get(a)!);
  }

  /** Of equals the address that was given goes before one that the peer has told. */
  #rank(peer: Peer, address: string): number {
    const priority = this.#host.priority(address) ?? UNUSABLE;
    return priority + (peer.addresses.includes(address) ? 0.5 : 0);
  }

  /** Where a peer says that it is: dialed only where nobody else can have said so, unless told. */
  #noteAdvertised(peer: Peer, { negotiated, link, identity }: Driver): void {
    const { useAdvertised } = this.options;
    const { addresses, publicKey } = negotiated!;
    const verified = identity !== undefined || publicKey !== undefined;
    const used = useAdvertised === "always" || useAdvertised === "verified" && verified;
    const dialable = addresses.map((address) => this.#host.dialable(address, link.info))
      .filter((address) => address !== undefined);
    peer.setAdvertised(addresses, used ? dialable : undefined);
  }

  /** There is a limit of connections that we dial: who does not need theirs gives way. */
  #makeRoom(peer: Peer): void {
    const { maxConns } = this.options.pool;
    let dialed = this.#dialing;
    for (const { drivers } of this.#peers.values()) {
      for (const driver of drivers) if (driver.dialed && !driver.retiring) dialed++;
    }
    if (dialed < maxConns) return;
    const { nodeId } = peer;
    if (peer.connectionCount === 0 && this.#giveWay(peer)) return;
    const text = `Cannot connect to ${nodeId}: ${maxConns} connections are dialed, and all in use`;
    throw new TransportError("PoolExhausted", text, { peer: nodeId });
  }

  /** Ends the connection that was idle longest of those that nobody asked to be kept. */
  #giveWay(peer: Peer): boolean {
    const latest = this.environment.now() - GIVE_WAY_MS;
    let spare: Peer | undefined;
    for (const other of this.#peers.values()) {
      const since = other === peer ? undefined : other.spareSince;
      if (since !== undefined && since <= (spare?.spareSince ?? latest)) spare = other;
    }
    if (spare !== undefined) {
      spare.endSpare();
      return true;
    }
    const passing = this.#passing(GIVE_WAY_MS).find((other) => other !== peer);
    if (passing !== undefined) this.#leaveIdle(passing);
    return passing !== undefined;
  }

  /** Peers that were dialed for a message and are idle since then, the longest idle one first. */
  #passing(idleMs: number): Peer[] {
    const latest = this.environment.now() - idleMs;
    const idle: { readonly peer: Peer; readonly since: number }[] = [];
    for (const peer of this.#peers.values()) {
      if (!peer.passing || !peer.drivers.every(({ dialed }) => dialed)) continue;
      const since = peer.quietSince;
      if (since !== undefined && since <= latest) idle.push({ peer, since });
    }
    return idle.sort((a, b) => a.since - b.since).map(({ peer }) => peer);
  }

  #leaveIdle(peer: Peer): void {
    const { nodeId } = peer;
    const text = `Cannot go on with the connection to ${nodeId}: it was idle`;
    peer.leave(new TransportError("ConnectionClosed", text, { peer: nodeId }), GOAWAY.idle);
  }

  /** A peer that was left while its last messages are still coming in: those of the next one wait. */
  #ending(nodeId: string): Peer | undefined {
    for (const peer of this.#leaving) {
      if (peer.nodeId === nodeId && (peer.version ?? 0) >= 3) return peer;
    }
    return undefined;
  }

  #getOrMake(nodeId: string, generation: number = this.#generation): Peer {
    let peer = this.#peers.get(nodeId);
    if (peer === undefined) {
      this.#forgetOldestAbsent();
      peer = new Peer(nodeId, this, generation);
      this.#peers.set(nodeId, peer);
    }
    return peer;
  }

  /** How many peers may come before those that are absent can be too many. */
  #absentCheckIn = MAX_ABSENT_PEERS;

  /** Node ids cost their owner nothing where no certificate is asked for: remember few of them. */
  #forgetOldestAbsent(): void {
    // Counting looks at every peer, of which there may be many thousands.
    if (--this.#absentCheckIn > 0) return;
    const absent = [...this.#peers.values()].filter((peer) =>
      peer.connectionCount === 0 && peer.address === undefined
    );
    this.#absentCheckIn = Math.max(1, MAX_ABSENT_PEERS - absent.length);
    if (absent.length < MAX_ABSENT_PEERS) return;
    absent[0]!.leave(
      new TransportError("ConnectionClosed", "Cannot keep the peer: too many peers are absent", {
        peer: absent[0]!.nodeId,
      }),
    );
  }

  #identify(link: Link, nodeId: string, role: "client" | "server"): PeerIdentity | undefined {
    const { tls } = this.options;
    if (tls === undefined) return undefined;
    // Who can't show a certificate here proves its key instead.
    const { proofNeeded, peerCertificate } = link.info;
    if (proofNeeded && peerCertificate === undefined && this.#demandsProof(undefined)) {
      return undefined;
    }
    if (
      role === "client" && proofNeeded && peerCertificate === undefined && tls.requireClientAuth
    ) {
      const text =
        `Cannot let ${nodeId} in: it can't show a certificate here, and there are no keys`;
      throw new TransportError("ClientCertificateRequired", text, { peer: nodeId });
    }
    // A listener that asks for no certificate has none to look at.
    if (role === "client" && !tls.requireClientAuth) return undefined;
    const wallClock = this.environment.wallClock();
    return verifyIdentity(link.info, nodeId, tls.nodeIdVerification, role, wallClock);
  }

  /** Where both sides show certificates, nobody needs another proof. */
  #proves({ proofNeeded }: LinkInfo): boolean {
    const { tls } = this.options;
    return this.#credentials.identity?.publicKey !== undefined &&
      (proofNeeded === true ||
        !(tls !== undefined && tls.requireClientAuth && tls.nodeIdVerification !== "None"));
  }

  /** Whether a peer must prove its key, where its certificate has not proved who it is. */
  #demandsProof(identity: PeerIdentity | undefined): boolean {
    const keys = this.#credentials.identity;
    return keys !== undefined && keys.trustedKeys.size > 0 && identity === undefined;
  }

  /** Who can sign must: an unsigned connection would be a way around it. */
  #unsigned({ nodeId, capabilities }: Negotiated): boolean {
    const { signing } = this.options;
    if (signing === undefined || capabilities.has("signed")) return false;
    return Object.hasOwn(signing.trustedKeys, nodeId) || this.#peers.get(nodeId)?.signs === true;
  }

  /** What we can do over a link. */
  #capabilities({ info: { encrypted }, maxDatagramBytes, openSubstream }: Link): Capability[] {
    const { options } = this;
    const { lz4, zstd } = this.#credentials;
    const capabilities: Capability[] = [];
    if (lz4 !== undefined) capabilities.push("lz4");
    if (zstd !== undefined) capabilities.push("zstd");
    // TLS has an integrity of its own.
    if (options.checksum === "always" || options.checksum === "auto" && !encrypted) {
      capabilities.push("checksum");
    }
    capabilities.push("resume", "streams");
    if (this.#credentials.seals !== undefined) capabilities.push("signed");
    if (maxDatagramBytes !== undefined) capabilities.push("datagrams");
    if (openSubstream !== undefined) capabilities.push("multistream");
    return capabilities;
  }

  /** Connections that say the same of us share it. */
  #localFor(link: Link): LocalIdentity {
    const capabilities = this.#capabilities(link);
    const addresses = this.#host.advertised(link.info);
    const last = this.#lastLocal;
    const same = last !== undefined && isSame(last.capabilities, capabilities) &&
      isSame(last.addresses ?? [], addresses);
    if (same) return last;
    return this.#lastLocal = { ...this.#identity, capabilities, addresses };
  }

  #config(role: "dialer" | "listener", link: Link, expectNodeId?: string): DriverConfig {
    const { options, environment } = this;
    const { keepaliveMs } = this.#identity;
    const now = environment.now();
    return {
      role,
      settings: this.#settings,
      local: this.#localFor(link),
      expectNodeId,
      nonce: environment.randomBytes(16),
      wallClockOffset: environment.wallClock() - now,
      replay: this.#replay,
      handshakeDeadline: now + options.connectTimeoutMs,
      ioTimeoutMs: options.ioTimeoutMs,
      // Connections made together must not all be renewed together.
      keepaliveMs: keepaliveMs && keepaliveMs * (1 - RENEWAL_JITTER * environment.random()),
      lz4: this.#credentials.lz4,
      zstd: this.#credentials.zstd,
      crc32: this.#credentials.crc32,
      identity: this.#credentials.identity,
      prove: this.#proves(link.info),
      compressMethod: options.compression.method,
      compressMinSize: options.compression.minSize,
      healthCheckMs: options.pool.healthCheckIntervalMs || undefined,
    };
  }

  #refuseUnsigned(driver: Driver): void {
    const { nodeId } = driver.negotiated!;
    const text = `Cannot connect to ${nodeId}: its messages must be signed, and it does not sign`;
    const error = new TransportError("IdentityMismatch", text, { peer: nodeId });
    driver.close(error);
    throw error;
  }

  /**
   * Several processes may listen at one address under one node id (docs/unix.md): a session is with
   * one of them. If that one is gone without a word, the probe finds out.
   */
  #refuseOther(peer: Peer, driver: Driver): void {
    const { nodeId } = peer;
    peer.probe();
    const text = `Cannot use another connection to ${nodeId}: another process answers there`;
    const error = new HandshakeError(text, "TOO_MANY_CONNECTIONS", { peer: nodeId });
    driver.channel?.drain(GOAWAY.closing, "the session is with another process");
    driver.flush();
    driver.close(error);
    throw error;
  }

  /** Resolves when no connection of the peer (or of any) is left, at the latest after `withinMs`. */
  #quiet(peer: Peer | undefined, withinMs: number): Promise<void> {
    const isQuiet = () =>
      peer !== undefined
        ? peer.drivers.length === 0
        : this.#leaving.size === 0 && this.#accepting.size === 0;
    if (isQuiet()) return Promise.resolve();
    return new Promise((resolve) => {
      const done = () => {
        this.#quietWaiters.delete(check);
        cancel();
        resolve();
      };
      const check = () => {
        if (isQuiet()) done();
      };
      const cancel = this.environment.setTimer(withinMs, done);
      this.#quietWaiters.add(check);
    });
  }
}

/**
 * Whether a connection that we dialed leads to another process than those that there are. Who has
 * proved nothing does not count against who has.
 */
function isOtherThan(peer: Peer, dialed: Driver): boolean {
  const incarnation = dialed.negotiated?.incarnation;
  // Versions 1 and 2 don't say.
  if (incarnation === undefined) return false;
  return peer.drivers.some((driver) =>
    driver.active && !driver.retiring && isOther(driver.negotiated?.incarnation, incarnation) &&
    (isProven(driver) || !isProven(dialed))
  );
}

function isProven({ identity, negotiated }: Driver): boolean {
  return identity !== undefined || negotiated?.publicKey !== undefined;
}

/** Whether a hello is of another process; one that does not say which is none that we know. */
function isOther(known: string | undefined, said: string | undefined): boolean {
  return known !== undefined && known !== said;
}

function schemeOf(address: string): string {
  return address.slice(0, address.indexOf(":"));
}

function hex(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

function isSame(some: readonly string[], others: readonly string[]): boolean {
  return some.length === others.length && some.every((one, index) => one === others[index]);
}
