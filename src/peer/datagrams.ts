/**
 * The peers of an endpoint that are reached by datagrams: sockets, links, the table.
 *
 * @module
 */

import { TransportError } from "../errors.ts";
import type { ResolvedOptions } from "../options.ts";
import { Backoff } from "../protocol/backoff.ts";
import type { Sha256 } from "../protocol/datagram/cookie.ts";
import type { Greeter } from "../protocol/datagram/greeting.ts";
import { DatagramLink } from "../protocol/datagram/link.ts";
import { readPrefix } from "../protocol/datagram/packet.ts";
import type { PacketSeal } from "../protocol/datagram/seal.ts";
import { DATA_OVERHEAD, PACKET, type PacketKind } from "../protocol/datagram/types.ts";
import type { LocalIdentity } from "../protocol/negotiate.ts";
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
import { DatagramAcceptor, type DatagramAcceptorHost } from "./datagram_acceptor.ts";
import { hostOf, keyOf, schemeOf } from "./datagram_addresses.ts";
import { DatagramDialer, type DatagramDialerHost, gaveUp } from "./datagram_dialer.ts";
import type { DatagramLinkParts } from "./datagram_link_parts.ts";
import { DatagramPeer, type DatagramPeerHost } from "./datagram_peer.ts";
import type { PeerHealth } from "./peer.ts";
import type { Handlers } from "./requests.ts";

/** What datagrams need of the endpoint around them. */
export interface DatagramsHost {
  readonly options: ResolvedOptions;
  readonly environment: Environment;
  readonly handlers: Handlers;
  readonly sha256: Sha256;
  /** Signs, verifies and encrypts packets; undefined where messages are not signed. */
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

const NO_CAPABILITIES: readonly [] = [];

/** Refuses addresses of datagrams where the security mode asks for more than there is. */
export function checkDatagrams(options: ResolvedOptions, address: string): void {
  const { security, signing } = options;
  if (security === "development" || security === "legacy" || signing !== undefined) return;
  const code = security === "strict" ? "MtlsRequired" : "TlsRequired";
  const text = `Cannot use ${address}: security is "${security}", and without keys to sign with ` +
    "datagrams are in clear";
  throw new TransportError(code, text, {
    recovery: "give signing.privateKey and signing.trustedKeys, or use another transport",
  });
}

/** All peers that are reached by datagrams. */
export class Datagrams {
  readonly #host: DatagramsHost;
  readonly #peerHost: DatagramPeerHost;
  readonly #greeter: Greeter;
  readonly #acceptor: DatagramAcceptor;
  readonly #dialer: DatagramDialer;
  readonly #peers = new Map<string, DatagramPeer>();
  /** By our tag. */
  readonly #links = new Map<string, DatagramLink>();
  readonly #sockets = new Map<DatagramLink, DatagramSocket>();
  /** Where the last packet came in that was from another address than the link's. */
  readonly #elsewhere = new WeakMap<DatagramLink, DatagramSocket>();
  readonly #listening: DatagramSocket[] = [];
  /** Sockets that only dial, by what they are bound to. */
  readonly #dialing = new Map<string, Promise<DatagramSocket>>();
  readonly #counters = noDatagrams();
  readonly #tally = new ConnectionTally();
  readonly #past = noTraffic();
  #repeatedBefore = 0;
  #generation = 0;
  #closing = false;

  /** No socket is opened yet. */
  constructor(host: DatagramsHost) {
    this.#host = host;
    const { options, seal, sha256 } = host;
    this.#greeter = {
      local: localIdentity(host),
      authToken: options.authToken,
      seal,
      sha256,
    };
    this.#peerHost = this.#makePeerHost();
    const shared = this.#makeHandshakeHost();
    this.#acceptor = new DatagramAcceptor(shared);
    this.#dialer = new DatagramDialer(shared);
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
    this.#dialer.dialSoon(peer, 0);
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
    if (!same && peer.links.length === 0) this.#dialer.dialSoon(peer, 0);
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
    this.#dialer.stop();
  }

  /** Ends all links and closes the sockets. */
  async end(error: TransportError): Promise<void> {
    this.stop();
    for (const peer of [...this.#peers.values()]) this.#forget(peer, error);
    this.#acceptor.end();
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
      if (kind === PACKET.hello) this.#acceptor.onHello(socket, tag, packet, from);
      else if (kind < PACKET.data) this.#dialer.onAnswer(kind, tag, packet);
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
    const pending = this.#acceptor.pendingLink(key);
    const link = this.#links.get(key) ?? pending;
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
    if (pending !== undefined && !this.#acceptor.confirm(key)) return;
    const { address } = link;
    if (from !== address) {
      this.#elsewhere.set(link, socket);
      link.cameFrom(from, packet.length, wallClock, now);
    }
    this.#peers.get(link.nodeId)?.handlePacket(link, kind, body, from);
    // Only where it has shown that it is there: anybody may have copied the packet.
    if (link.address !== address && this.#sockets.has(link)) this.#sockets.set(link, socket);
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
    this.#dialer.forget(peer, error);
    this.#acceptor.forget(peer);
    peer.leave(error);
    if (this.#peers.get(peer.nodeId) === peer) this.#peers.delete(peer.nodeId);
    addTraffic(this.#past, peer.stats());
    this.#repeatedBefore += peer.repeatedRequests;
  }

  #newLink({ socket, ...parts }: DatagramLinkParts): DatagramLink {
    const { environment, options, seal } = this.#host;
    const link: DatagramLink = new DatagramLink({
      ...parts,
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

  /** What the handshakes need, those that come and those that we begin. */
  #makeHandshakeHost(): DatagramAcceptorHost & DatagramDialerHost {
    const host = this.#host;
    const isClosing = () => this.#closing;
    return {
      options: host.options,
      environment: host.environment,
      greeter: this.#greeter,
      counters: this.#counters,
      get closing() {
        return isClosing();
      },
      links: { [Symbol.iterator]: () => this.#links.values() },
      listensOn: (socket) => this.#listening.includes(socket),
      peer: (nodeId) => this.#peers.get(nodeId),
      knows: (peer) => this.#peers.get(peer.nodeId) === peer,
      nextGeneration: () => ++this.#generation,
      check: (address) => checkDatagrams(host.options, address),
      transport: (address) => host.transport(address),
      socketFor: (local, remote) => this.#socketFor(local, remote),
      newLink: (parts) => this.#newLink(parts),
      dropLink: (link) => void this.#sockets.delete(link),
      admit: (link, generation) => {
        this.#attach(this.#peers.get(link.nodeId) ?? this.#newPeer(link.nodeId, generation), link);
      },
      attach: (peer, link) => this.#attach(peer, link),
      send: (socket, packet, to) => this.#send(socket, packet, to),
      onFailed: (error, peer) => {
        this.#tally.failed(schemeOf(peer.address ?? ""));
        if (!this.#closing) host.onFailure(error, peer.nodeId, peer.address);
      },
      onRefused: (error, from) => {
        this.#tally.failed(schemeOf(from));
        host.onFailure(error, undefined, from);
      },
    };
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
      onWorn: (peer) => this.#dialer.renew(peer),
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
    this.#dialer.dialSoon(peer, backoff.next() ?? 0, backoff);
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
