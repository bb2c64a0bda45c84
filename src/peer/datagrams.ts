/**
 * The peers of an endpoint that are reached by datagrams: sockets, handshakes, the table.
 *
 * @module
 */

import { type RejectCode, TransportError } from "../errors.ts";
import { HandshakeError } from "../errors.ts";
import type { ResolvedOptions } from "../options.ts";
import { Backoff } from "../protocol/backoff.ts";
import { CookieJar, type Sha256 } from "../protocol/datagram/cookie.ts";
import { Dialing } from "../protocol/datagram/dialing.ts";
import {
  type Greeter,
  judgeHelloPacket,
  rejectPacket,
  welcomePacket,
} from "../protocol/datagram/greeting.ts";
import { DatagramLink } from "../protocol/datagram/link.ts";
import {
  encodeRetry,
  type HelloPacket,
  readHello,
  readPrefix,
} from "../protocol/datagram/packet.ts";
import type { PacketSeal } from "../protocol/datagram/seal.ts";
import { DATA_OVERHEAD, PACKET, type PacketKind, TAG_BYTES } from "../protocol/datagram/types.ts";
import { encodeGoawayPayload } from "../protocol/v3/payloads.ts";
import type { Hello } from "../protocol/hello.ts";
import type { LocalIdentity, Negotiated } from "../protocol/negotiate.ts";
import type { Rejection } from "../protocol/rejection.ts";
import { ReplayWindow } from "../protocol/replay.ts";
import { quote } from "../protocol/text.ts";
import type { Environment } from "../runtime/environment.ts";
import {
  addTraffic,
  type ConnectionMetrics,
  type DatagramStats,
  noDatagrams,
  noTraffic,
  type TrafficStats,
} from "../stats.ts";
import type { LaneName } from "../protocol/v3/types.ts";
import type { DatagramSocket, Transport } from "../transport/transport.ts";
import type { Bandwidth } from "./bandwidth.ts";
import { ConnectionTally, type Tallied } from "./connection_tally.ts";
import { hostOf, networkOf, schemeOf } from "./datagram_addresses.ts";
import { BYE, DatagramPeer, type DatagramPeerHost } from "./datagram_peer.ts";
import type { PeerHealth } from "./peer.ts";
import type { Handlers } from "./requests.ts";

/** What datagrams need of the endpoint around them. */
export interface DatagramsHost {
  readonly options: ResolvedOptions;
  readonly environment: Environment;
  readonly handlers: Handlers;
  readonly sha256: Sha256;
  /** Signs and verifies packets; undefined where messages are not signed. */
  readonly seal: PacketSeal | undefined;
  readonly inboxFull: boolean;
  /** What limits how much is sent, that over links included. */
  readonly bandwidth: Bandwidth;
  /** The transport of an address; it has `bind`. */
  transport(address: string): Transport;
  deliver(from: string, payload: Uint8Array, lane: LaneName, topic: string | undefined): void;
  onPeerUp(nodeId: string): void;
  onPeerDown(nodeId: string, error: TransportError | undefined): void;
  onHealth(nodeId: string, health: PeerHealth, previous: PeerHealth): void;
  onFailure(error: TransportError, nodeId: string | undefined, address: string | undefined): void;
  onHandlerError(nodeId: string, error: unknown, what: string): void;
  onRefused(): void;
  warn(nodeId: string, message: string): void;
}

/** A hello was accepted; its dialer has not been heard of since. */
interface Pending {
  readonly link: DatagramLink;
  readonly welcome: Uint8Array;
  readonly dialer: string;
  readonly generation: number;
  readonly host: string;
  readonly network: string;
  readonly cancel: () => void;
}

/** An attempt to connect. */
interface Attempt {
  readonly dialing: Dialing;
  readonly peer: DatagramPeer;
  readonly tag: Uint8Array;
  readonly socket: DatagramSocket;
  readonly remote: string;
  settle(error?: unknown): void;
  cancelTimer: () => void;
}

/** Accepted hellos whose dialers have not been heard of, in all and from one network. */
const MAX_PENDING = 1024;
const MAX_PENDING_PER_NETWORK = 64;
/** Hellos of one network that are looked at in a second; more are ignored, and come again. */
const MAX_JUDGED_PER_NETWORK = 100;
/** Hellos that are remembered of one node. */
const MAX_HELLOS_PER_NODE = 8_192;
/** The time after which a hello is sent again. */
const HELLO_DELAY_MS = 200;
/** A peer whose name another process claims has so long to answer. */
const CONTENTION_MS = 1_000;
const NO_CAPABILITIES: readonly [] = [];

/** Refuses addresses of datagrams where the security mode asks for more than there is. */
export function checkDatagrams(options: ResolvedOptions, address: string): void {
  const { security, signing } = options;
  if (security === "development" || security === "legacy" || signing !== undefined) return;
  const code = security === "strict" ? "MtlsRequired" : "TlsRequired";
  const text = `Cannot use ${address}: datagrams are not encrypted, and security is "${security}"`;
  throw new TransportError(code, text, {
    recovery: "give signing.privateKey and signing.trustedKeys, or use another transport",
  });
}

/** All peers that are reached by datagrams. */
export class Datagrams {
  readonly #host: DatagramsHost;
  readonly #peerHost: DatagramPeerHost;
  readonly #greeter: Greeter;
  readonly #cookies: CookieJar;
  readonly #replay: ReplayWindow;
  readonly #peers = new Map<string, DatagramPeer>();
  /** By our tag. */
  readonly #links = new Map<string, DatagramLink>();
  readonly #pending = new Map<string, Pending>();
  /** Tags of what is pending, by address and tag of the dialer. */
  readonly #dialers = new Map<string, string>();
  readonly #attempts = new Map<string, Attempt>();
  /** Peers that are to be dialed later, with what cancels that. */
  readonly #redials = new Map<DatagramPeer, () => void>();
  /** Peers that are being dialed. */
  readonly #dialed = new Set<DatagramPeer>();
  readonly #sockets = new Map<DatagramLink, DatagramSocket>();
  /** Where the last packet came in that was from another address than the link's. */
  readonly #elsewhere = new WeakMap<DatagramLink, DatagramSocket>();
  readonly #listening: DatagramSocket[] = [];
  /** Sockets that only dial, by what they are bound to. */
  readonly #dialing = new Map<string, Promise<DatagramSocket>>();
  readonly #counters = noDatagrams();
  readonly #tally = new ConnectionTally();
  /** Hellos that were judged in this second, by network. */
  readonly #judged = new Map<string, number>();
  #judgedSince = -Infinity;
  readonly #past = noTraffic();
  #repeatedBefore = 0;
  #generation = 0;
  #closing = false;

  /** No socket is opened yet. */
  constructor(host: DatagramsHost) {
    this.#host = host;
    const { options, environment, seal, sha256 } = host;
    this.#greeter = {
      local: localIdentity(host),
      authToken: options.authToken,
      seal,
      sha256,
    };
    this.#cookies = new CookieJar(sha256, environment.randomBytes(32));
    this.#replay = new ReplayWindow({
      maxSkewMs: options.maxClockSkewMs,
      maxPerNode: MAX_HELLOS_PER_NODE,
    });
    this.#peerHost = this.#makePeerHost();
  }

  /** Where packets are taken, with real ports. */
  get addresses(): string[] {
    return this.#listening.map((socket) => socket.address);
  }

  /** Every peer known. */
  get peers(): Iterable<DatagramPeer> {
    return this.#peers.values();
  }

  /** How many peers are known. */
  get size(): number {
    return this.#peers.size;
  }

  /** A peer by its node id. */
  get(nodeId: string): DatagramPeer | undefined {
    return this.#peers.get(nodeId);
  }

  /** Where packets of a link come from. */
  localAddress(link: DatagramLink): string {
    return this.#sockets.get(link)?.address ?? "";
  }

  /** Usable links of all peers. */
  get linkCount(): number {
    return this.#links.size;
  }

  /** What is counted of packets. */
  counters(): DatagramStats {
    let repeatedRequests = this.#repeatedBefore;
    for (const peer of this.#peers.values()) repeatedRequests += peer.repeatedRequests;
    return { ...this.#counters, repeatedRequests };
  }

  /** The links there are and were, by protocol. */
  connectionMetrics(): ConnectionMetrics {
    return this.#tally.metrics(Array.from(this.#links.values(), tallied));
  }

  /** The counters of all peers there are and were. */
  traffic(): TrafficStats {
    const sum = { ...this.#past };
    for (const peer of this.#peers.values()) addTraffic(sum, peer.stats());
    return sum;
  }

  /** Binds an address and takes packets there. */
  async listen(address: string): Promise<void> {
    this.#listening.push(await this.#bind(address));
  }

  /** Connects to a peer; a peer that was unknown is forgotten again if that fails. */
  async connect(nodeId: string, address: string, signal: AbortSignal | undefined): Promise<void> {
    signal?.throwIfAborted();
    const known = this.#peers.get(nodeId);
    const peer = known ?? this.#newPeer(nodeId);
    peer.address = address;
    if (peer.links.length > 0) return;
    const connected = peer.connects.wait(signal);
    this.#dialSoon(peer, 0);
    try {
      await connected;
    } catch (error) {
      const given = error instanceof TransportError ? error : gaveUp(nodeId);
      if (known === undefined && peer.links.length === 0 && peer.connects.size === 0) {
        this.#forget(peer, given);
      }
      throw error;
    }
  }

  /** Dials a configured peer from now on. */
  keepConnected(nodeId: string, address: string): DatagramPeer {
    const peer = this.#peers.get(nodeId) ?? this.#newPeer(nodeId);
    const same = peer.address === address;
    peer.address = address;
    if (!same && peer.links.length === 0) this.#dialSoon(peer, 0);
    return peer;
  }

  /** Ends the links to a peer and forgets it. */
  leave(nodeId: string, error: TransportError): void {
    const peer = this.#peers.get(nodeId);
    if (peer !== undefined) this.#forget(peer, error);
  }

  /** No new peers, nothing is dialed. */
  stop(): void {
    this.#closing = true;
    for (const cancel of this.#redials.values()) cancel();
    this.#redials.clear();
    for (const attempt of [...this.#attempts.values()]) attempt.settle(closed());
  }

  /** Ends all links and closes the sockets. */
  async end(error: TransportError): Promise<void> {
    this.stop();
    for (const peer of [...this.#peers.values()]) this.#forget(peer, error);
    for (const { cancel } of this.#pending.values()) cancel();
    this.#pending.clear();
    this.#dialers.clear();
    const dialing = await Promise.allSettled(this.#dialing.values());
    const sockets = dialing.flatMap((made) => made.status === "fulfilled" ? [made.value] : []);
    this.#dialing.clear();
    await Promise.all([...this.#listening.splice(0), ...sockets].map((socket) => socket.close()));
  }

  // --- sockets ---

  async #bind(address: string): Promise<DatagramSocket> {
    const transport = this.#host.transport(address);
    const { maxPendingMessages, maxPendingBytes } = this.#host.options;
    const socket: DatagramSocket = await transport.bind!(address, {
      maxQueued: maxPendingMessages,
      maxQueuedBytes: maxPendingBytes,
      onPacket: (packet, from) => this.#onPacket(socket, packet, from),
      onDrain: () => {
        for (const peer of [...this.#peers.values()]) peer.pump();
      },
      onError: () => {
        this.#counters.sendErrors++;
      },
    });
    return socket;
  }

  /** The socket for packets to an address: one that listens where it can reach it. */
  async #socketFor(local: string, remote: string): Promise<DatagramSocket> {
    const fits = this.#listening.find(({ address }) =>
      hostOf(address) === hostOf(local) || hostOf(address) === hostOf(remote)
    );
    if (fits !== undefined) return fits;
    let made = this.#dialing.get(local);
    if (made === undefined) {
      made = this.#bind(local);
      this.#dialing.set(local, made);
      made.catch(() => this.#dialing.delete(local));
    }
    return await made;
  }

  #send(socket: DatagramSocket, packet: Uint8Array, to: string): boolean {
    const sent = socket.send(packet, to);
    if (sent) this.#counters.packetsSent++;
    return sent;
  }

  // --- packets ---

  #onPacket(socket: DatagramSocket, packet: Uint8Array, from: string): void {
    this.#counters.packetsReceived++;
    const prefix = readPrefix(packet);
    if (prefix === undefined) {
      this.#counters.invalid++;
      return;
    }
    const { kind, tag } = prefix;
    try {
      if (kind === PACKET.hello) this.#onHello(socket, tag, packet, from);
      else if (kind < PACKET.data) this.#onAnswer(kind, tag, packet);
      else this.#onLinkPacket(socket, kind, tag, packet, from);
    } catch (error) {
      if (!(error instanceof TransportError)) throw error;
      this.#counters.invalid++;
    }
  }

  #onLinkPacket(
    socket: DatagramSocket,
    kind: PacketKind,
    tag: Uint8Array,
    packet: Uint8Array,
    from: string,
  ): void {
    const key = keyOf(tag);
    const pending = this.#pending.get(key);
    const link = this.#links.get(key) ?? pending?.link;
    if (link === undefined) {
      this.#counters.unknown++;
      return;
    }
    const { environment } = this.#host;
    const [now, wallClock] = [environment.now(), environment.wallClock()];
    const body = link.open(packet, wallClock, now);
    if (typeof body === "string") {
      this.#counters[body === "malformed" ? "invalid" : body]++;
      return;
    }
    if (pending !== undefined && !this.#confirm(key, pending)) return;
    const { address } = link;
    if (from !== address) {
      this.#elsewhere.set(link, socket);
      link.cameFrom(from, packet.length, wallClock, now);
    }
    this.#peers.get(link.nodeId)?.handlePacket(link, kind, body, from);
    // Only where it has shown that it is there: anybody may have copied the packet.
    if (link.address !== address && this.#sockets.has(link)) this.#sockets.set(link, socket);
  }

  // --- accepting ---

  #onHello(socket: DatagramSocket, tag: Uint8Array, packet: Uint8Array, from: string): void {
    const hello = readHello(packet);
    if (this.#closing || !this.#listening.includes(socket)) {
      this.#counters.unknown++;
      return;
    }
    const now = this.#host.environment.now();
    if (!this.#cookies.check(hello.cookie, from, tag, now)) {
      const cookie = this.#cookies.make(from, tag, now);
      this.#send(socket, encodeRetry(tag, cookie), from);
      return;
    }
    const welcome = this.#pending.get(this.#dialers.get(dialerKey(from, tag)) ?? "")?.welcome;
    if (welcome !== undefined) this.#send(socket, welcome, from);
    else if (this.#mayJudge(networkOf(from), now)) this.#judge(socket, tag, hello, from);
    else this.#counters.refused++;
  }

  /** Judging may take a signature: a network can't have it done as often as it likes. */
  #mayJudge(network: string, now: number): boolean {
    if (now - this.#judgedSince >= 1000 || this.#judged.size >= MAX_PENDING) {
      this.#judgedSince = now;
      this.#judged.clear();
    }
    const count = (this.#judged.get(network) ?? 0) + 1;
    this.#judged.set(network, count);
    return count <= MAX_JUDGED_PER_NETWORK;
  }

  #judge(socket: DatagramSocket, tag: Uint8Array, packet: HelloPacket, from: string): void {
    const wallClockMs = this.#host.environment.wallClock();
    const verdict = judgeHelloPacket(this.#greeter, tag, packet, wallClockMs);
    if ("reject" in verdict) return this.#reject(socket, tag, verdict.reject, verdict.nodeId, from);
    const { accept, hello } = verdict;
    const contention = this.#contend(accept);
    // The dialer asks again; by then it is known whether there are two of the same name.
    if (contention === "wait") return;
    const refusal = contention ?? this.#refusal(hello, from);
    if (refusal !== undefined) return this.#reject(socket, tag, refusal, accept.nodeId, from);
    this.#accept(socket, tag, accept, from);
  }

  #accept(socket: DatagramSocket, tag: Uint8Array, negotiated: Negotiated, from: string): void {
    const { environment, options } = this.#host;
    const ownTag = this.#newTag();
    const generation = this.#generationFor(negotiated);
    const link = this.#newLink(socket, negotiated, ownTag, tag.slice(), false, from);
    const key = keyOf(ownTag);
    const welcome = welcomePacket(this.#greeter, tag, ownTag, negotiated, {
      wallClockMs: environment.wallClock(),
      nonce: environment.randomBytes(16),
      generation,
    });
    const dialer = dialerKey(from, tag);
    const cancel = environment.setTimer(options.connectTimeoutMs, () => {
      this.#unpend(key);
      this.#sockets.delete(link);
    });
    const [host, network] = [hostOf(from), networkOf(from)];
    this.#pending.set(key, { link, welcome, dialer, generation, host, network, cancel });
    this.#dialers.set(dialer, key);
    this.#send(socket, welcome, from);
  }

  /** The dialer of what is pending was heard of. False: there is no place for it any more. */
  #confirm(key: string, pending: Pending): boolean {
    const { link, generation } = pending;
    const { nodeId, negotiated: { incarnation } } = link;
    const peer = this.#peers.get(nodeId);
    const same = peer?.incarnation === incarnation && incarnation !== undefined;
    // Another process of that name was quicker; the dialer asks again, and is told so.
    const taken = peer !== undefined && peer.links.length > 0 && !same;
    if (this.#closing || taken) {
      this.#abandon(key, pending);
      return false;
    }
    pending.cancel();
    this.#unpend(key);
    this.#attach(peer ?? this.#newPeer(nodeId, generation), link);
    return true;
  }

  /** Takes back that a hello was accepted. */
  #abandon(key: string, { link, cancel }: Pending): void {
    cancel();
    this.#unpend(key);
    const reason = encodeGoawayPayload(BYE.closing, "");
    link.send(PACKET.bye, reason, this.#host.environment.wallClock());
    this.#sockets.delete(link);
  }

  #unpend(key: string): void {
    const pending = this.#pending.get(key);
    if (pending === undefined) return;
    this.#pending.delete(key);
    this.#dialers.delete(pending.dialer);
  }

  /** What a node is told of its table of answers: there is one for each process. */
  #generationFor({ nodeId, incarnation }: Negotiated): number {
    const peer = this.#peers.get(nodeId);
    if (peer !== undefined) return peer.generation;
    for (const { link, generation } of this.#pending.values()) {
      const same = link.nodeId === nodeId && link.negotiated.incarnation === incarnation;
      if (same) return generation;
    }
    return ++this.#generation;
  }

  /** Whether the name that a hello has is that of a peer which lives. */
  #contend({ nodeId, incarnation }: Negotiated): "wait" | Rejection | undefined {
    const peer = this.#peers.get(nodeId);
    if (peer === undefined || peer.links.length === 0) return undefined;
    if (peer.incarnation === incarnation && incarnation !== undefined) return undefined;
    const { contention } = peer;
    if (contention === undefined || contention.incarnation !== incarnation) {
      peer.contention = { incarnation, at: this.#host.environment.now() };
      peer.probe(CONTENTION_MS);
      return "wait";
    }
    if (!peer.heardSince(contention.at)) return "wait";
    peer.contention = undefined;
    return { code: "DUPLICATE_NODE_ID", reason: "a node with this id is connected" };
  }

  #refusal({ nodeId, timestamp, nonce }: Hello, from: string): Rejection | undefined {
    const { options, environment } = this.#host;
    const accepted = [...this.#links.values()].filter((link) => !link.dialed);
    const host = hostOf(from);
    const ofHost = accepted.filter((link) => hostOf(link.address) === host).length;
    const network = networkOf(from);
    let [pendingOfHost, pendingOfNetwork] = [0, 0];
    for (const pending of this.#pending.values()) {
      if (pending.host === host) pendingOfHost++;
      if (pending.network === network) pendingOfNetwork++;
    }
    const pending = this.#pending.size;
    const tooMany = pending >= MAX_PENDING || pendingOfNetwork >= MAX_PENDING_PER_NETWORK ||
      accepted.length + pending >= options.maxConnections ||
      ofHost + pendingOfHost >= options.maxConnectionsPerHost;
    if (tooMany) return { code: "TOO_MANY_CONNECTIONS", reason: "too many nodes are connected" };
    if (timestamp === undefined || nonce === undefined) return undefined;
    if (this.#replay.admit(nodeId, timestamp, nonce, environment.wallClock())) return undefined;
    return { code: "REPLAYED", reason: "this hello, or one as old as it, was seen before" };
  }

  #reject(
    socket: DatagramSocket,
    tag: Uint8Array,
    rejection: Rejection,
    nodeId: string | undefined,
    from: string,
  ): void {
    this.#counters.refused++;
    this.#tally.failed(schemeOf(from));
    this.#send(socket, rejectPacket(tag, rejection), from);
    const { code, reason, error } = rejection;
    const who = nodeId === undefined ? from : quote(nodeId);
    const refused = error ?? refusedError(who, code, reason);
    this.#host.onFailure(refused, undefined, from);
  }

  // --- dialing ---

  #dialSoon(peer: DatagramPeer, delayMs: number, backoff?: Backoff): void {
    if (this.#closing || this.#dialed.has(peer)) return;
    const waiting = this.#redials.get(peer);
    if (waiting !== undefined && delayMs > 0) return;
    waiting?.();
    const { environment, options } = this.#host;
    const { reconnect } = options;
    const growing = backoff ?? new Backoff(reconnect, () => environment.random());
    const start = () => {
      this.#redials.delete(peer);
      this.#dialed.add(peer);
      this.#dial(peer).then(() => this.#dialed.delete(peer), (error) => {
        this.#dialed.delete(peer);
        this.#attemptFailed(peer, error, growing);
      });
    };
    if (delayMs <= 0) return start();
    this.#redials.set(peer, environment.setTimer(delayMs, start));
  }

  #attemptFailed(peer: DatagramPeer, error: unknown, backoff: Backoff): void {
    if (this.#peers.get(peer.nodeId) !== peer || peer.links.length > 0) return;
    const failure = error instanceof TransportError ? error : gaveUp(peer.nodeId, error);
    this.#tally.failed(schemeOf(peer.address ?? ""));
    if (!this.#closing) this.#host.onFailure(failure, peer.nodeId, peer.address);
    const delay = this.#host.options.reconnect.enabled ? backoff.next() : undefined;
    peer.connects.rejectAll(failure);
    if (delay === undefined) return peer.fail(failure);
    this.#dialSoon(peer, delay, backoff);
  }

  /** One attempt. */
  async #dial(peer: DatagramPeer): Promise<void> {
    const { options, environment } = this.#host;
    const { address, nodeId } = peer;
    if (address === undefined) throw gaveUp(nodeId);
    checkDatagrams(options, address);
    const transport = this.#host.transport(address);
    const route = await transport.resolve?.(address) ?? { remote: address, local: address };
    // A socket that is opened now would be nobody's to close.
    if (this.#closing) throw closed();
    const socket = await this.#socketFor(route.local, route.remote);
    if (this.#closing) throw closed();
    if (this.#peers.get(nodeId) !== peer || peer.links.length > 0) return;
    await new Promise<void>((resolve, reject) => {
      const tag = this.#newTag();
      const key = keyOf(tag);
      const { remote } = route;
      const startedAt = environment.now();
      const dialing = new Dialing({
        greeter: this.#greeter,
        nodeId,
        tag,
        nonce: environment.randomBytes(16),
        generation: peer.generation,
        firstDelayMs: HELLO_DELAY_MS,
        send: (packet) => this.#send(socket, packet, remote),
      }, startedAt);
      const settle = (error?: unknown) => {
        attempt.cancelTimer();
        if (!this.#attempts.delete(key)) return;
        if (error === undefined) resolve();
        else reject(error);
      };
      const attempt: Attempt = { dialing, peer, tag, socket, remote, settle, cancelTimer: noTimer };
      this.#attempts.set(key, attempt);
      const arm = () => {
        // What was sent just now may have been answered within the call.
        if (this.#attempts.get(key) !== attempt) return;
        const now = environment.now();
        const left = startedAt + options.connectTimeoutMs - now;
        if (left <= 0) return settle(timedOut(nodeId, address, options.connectTimeoutMs));
        const delay = Math.max(0, Math.ceil(Math.min(left, dialing.nextTimeout - now)));
        attempt.cancelTimer = environment.setTimer(delay, () => {
          dialing.handleTimeout(environment.now());
          arm();
        });
      };
      arm();
    });
  }

  #onAnswer(kind: PacketKind, tag: Uint8Array, packet: Uint8Array): void {
    const attempt = this.#attempts.get(keyOf(tag));
    if (attempt === undefined) {
      this.#counters.unknown++;
      return;
    }
    const { environment } = this.#host;
    const [wallClock, now] = [environment.wallClock(), environment.now()];
    const { dialing, peer, socket, remote } = attempt;
    try {
      const dialed = dialing.handlePacket(kind, packet, wallClock, now);
      if (dialed === undefined) return;
      const { negotiated, peerTag } = dialed;
      const link = this.#newLink(socket, negotiated, attempt.tag, peerTag, true, remote);
      attempt.settle();
      this.#attach(peer, link);
    } catch (error) {
      attempt.settle(error);
    }
  }

  // --- peers ---

  #attach(peer: DatagramPeer, link: DatagramLink): void {
    this.#links.set(keyOf(link.ownTag), link);
    this.#tally.established(tallied(link));
    peer.attach(link);
  }

  #newPeer(nodeId: string, generation: number = ++this.#generation): DatagramPeer {
    const peer = new DatagramPeer(this.#peerHost, nodeId, generation);
    this.#peers.set(nodeId, peer);
    return peer;
  }

  #forget(peer: DatagramPeer, error: TransportError): void {
    this.#redials.get(peer)?.();
    this.#redials.delete(peer);
    for (const attempt of [...this.#attempts.values()]) {
      if (attempt.peer === peer) attempt.settle(error);
    }
    // They were told of its table of answers, which goes with it.
    for (const [key, pending] of [...this.#pending]) {
      const told = pending.link.nodeId === peer.nodeId && peer.incarnation !== undefined;
      if (told) this.#abandon(key, pending);
    }
    peer.leave(error);
    if (this.#peers.get(peer.nodeId) === peer) this.#peers.delete(peer.nodeId);
    addTraffic(this.#past, peer.stats());
    this.#repeatedBefore += peer.repeatedRequests;
  }

  #newLink(
    socket: DatagramSocket,
    negotiated: Negotiated,
    ownTag: Uint8Array,
    peerTag: Uint8Array,
    dialed: boolean,
    address: string,
  ): DatagramLink {
    const { environment, options, seal } = this.#host;
    const link: DatagramLink = new DatagramLink({
      negotiated,
      ownTag,
      peerTag,
      dialed,
      address,
      seal,
      keepaliveMs: options.keepalive ? options.keepaliveIntervalSecs * 1000 : undefined,
      randomBytes: (length) => environment.randomBytes(length),
      send: (packet, to) => {
        const own = this.#sockets.get(link) ?? socket;
        const through = to === link.address ? own : this.#elsewhere.get(link) ?? own;
        return this.#send(through, packet, to);
      },
    }, environment.now());
    this.#sockets.set(link, socket);
    return link;
  }

  #newTag(): Uint8Array {
    return this.#host.environment.randomBytes(TAG_BYTES);
  }

  #makePeerHost(): DatagramPeerHost {
    const host = this.#host;
    return {
      options: host.options,
      environment: host.environment,
      handlers: host.handlers,
      counters: this.#counters,
      answerBudget: { bytes: 0, maxBytes: host.options.maxPendingBytes },
      get inboxFull() {
        return host.inboxFull;
      },
      pace: (onTurn) => host.bandwidth.pace(onTurn),
      sealOverhead: (nodeId) => host.seal?.overhead(nodeId) ?? 0,
      deliver: (from, payload, lane, topic) => host.deliver(from, payload, lane, topic),
      onUp: ({ nodeId }) => host.onPeerUp(nodeId),
      onDown: (peer, error) => this.#down(peer, error),
      onHealth: ({ nodeId }, health, previous) => host.onHealth(nodeId, health, previous),
      onHandlerError: (nodeId, error, what) => host.onHandlerError(nodeId, error, what),
      onRefused: () => host.onRefused(),
      warn: (nodeId, message) => host.warn(nodeId, message),
      onLinkGone: (link) => {
        if (this.#links.delete(keyOf(link.ownTag))) this.#tally.ended(tallied(link));
        this.#sockets.delete(link);
      },
      onAbsent: (peer) => this.#forget(peer, gaveUp(peer.nodeId)),
    };
  }

  #down(peer: DatagramPeer, error: TransportError | undefined): void {
    this.#host.onPeerDown(peer.nodeId, error);
    if (error !== undefined && !this.#closing) {
      this.#host.onFailure(error, peer.nodeId, peer.address);
    }
    if (peer.address === undefined || peer.state === "closed") return;
    const { reconnect } = this.#host.options;
    if (!reconnect.enabled) {
      return peer.fail(error ?? gaveUp(peer.nodeId));
    }
    const backoff = new Backoff(reconnect, () => this.#host.environment.random());
    this.#dialSoon(peer, backoff.next() ?? 0, backoff);
  }
}

function localIdentity({ options, environment, seal }: DatagramsHost): LocalIdentity {
  const keepaliveMs = Math.ceil(options.keepaliveIntervalSecs * 1000);
  return {
    nodeId: options.nodeId,
    clusterName: options.clusterName,
    authToken: undefined,
    incarnation: Array.from(environment.randomBytes(8), (byte) => {
      return byte.toString(16).padStart(2, "0");
    }).join(""),
    minVersion: 3,
    maxVersion: 3,
    capabilities: seal === undefined ? NO_CAPABILITIES : ["signed"],
    maxMessageSize: Math.min(options.maxMessageSize, options.datagrams.maxBytes - DATA_OVERHEAD),
    maxClockSkewMs: options.maxClockSkewMs,
    keepaliveMs: options.keepalive ? keepaliveMs : undefined,
    maxStreams: 0,
  };
}

/** The tag as the key of a map. */
function keyOf(tag: Uint8Array): string {
  return String.fromCharCode(...tag);
}

function dialerKey(from: string, tag: Uint8Array): string {
  return `${from} ${keyOf(tag)}`;
}

/** What is counted of a link. */
function tallied(link: DatagramLink): Tallied {
  const { bytesSent, bytesReceived, roundTrips } = link;
  return {
    link: { info: { protocol: schemeOf(link.address) } },
    bytesSent,
    bytesReceived,
    channel: { roundTrips },
    idle: false,
    retiring: false,
  };
}

function noTimer(): void {}

function gaveUp(nodeId: string, cause?: unknown): TransportError {
  const text = `Cannot connect to ${nodeId}: given up`;
  return new TransportError("ConnectionFailed", text, { peer: nodeId, cause });
}

function closed(): TransportError {
  return new TransportError("Shutdown", "Cannot connect: the endpoint is closed");
}

function timedOut(nodeId: string, address: string, timeoutMs: number): TransportError {
  const text = `Cannot connect to ${nodeId} at ${address}: no answer within ${timeoutMs} ms`;
  return new TransportError("Timeout", text, { peer: nodeId });
}

function refusedError(who: string, code: RejectCode, reason: string): HandshakeError {
  return new HandshakeError(`Cannot accept ${who}: ${reason}`, code);
}
