/**
 * What an application may see of a peer.
 *
 * @module
 */

import type { DatagramPeer } from "./peer/datagram_peer.ts";
import type { Driver } from "./peer/driver.ts";
import type { PeerIdentity } from "./peer/identity.ts";
import type { Peer, PeerHealth, PeerState } from "./peer/peer.ts";
import type { DatagramLink } from "./protocol/datagram/link.ts";
import type { RoundTrip } from "./protocol/v3/round_trips.ts";
import type { TrafficStats } from "./stats.ts";

/** One connection of a peer. */
export interface ConnectionInfo {
  /** The transport's scheme. */
  readonly protocol: string;
  /** Our side of it. */
  readonly localAddress: string;
  /** The peer's side of it. */
  readonly remoteAddress: string;
  /** Whether we dialed it. */
  readonly dialed: boolean;
  /** Whether the bytes are encrypted on their way. */
  readonly encrypted: boolean;
  /** The protocol version in use. */
  readonly version: number;
  /** What both sides have, as "lz4" or "resume". */
  readonly capabilities: readonly string[];
  /** Whether it is in use, carried nothing for `pool.idleTimeoutMs`, or ends in order. */
  readonly state: "active" | "idle" | "draining";
  /** Whether it is ending in order. */
  readonly draining: boolean;
  /** When its handshake was complete, milliseconds since the epoch. */
  readonly establishedAt: number;
  /** Milliseconds since its handshake was complete. */
  readonly establishedMs: number;
  /** Milliseconds since something other than pings and acknowledgements last went through it. */
  readonly idleMs: number;
  /** Its round trips, from pings; undefined before version 3 and before the first answer. */
  readonly roundTrip: RoundTrip | undefined;
  /**
   * What it was seen to deliver lately, bytes per second; undefined before version 3, and while
   * nothing is known. No more than what was sent: a line that is not used up shows less than it has.
   */
  readonly bandwidth: number | undefined;
  /** Bytes given to it. */
  readonly bytesSent: number;
  /** Bytes that came from it. */
  readonly bytesReceived: number;
}

/** A snapshot of a peer. */
export interface PeerInfo {
  /** Its node id. */
  readonly nodeId: string;
  /** Where it stands. */
  readonly state: PeerState;
  /** Whether it answers; from version 3 on, a process that hangs is "suspect". */
  readonly health: PeerHealth;
  /** Where we dial it; undefined for a peer that only dialed us. */
  readonly address: string | undefined;
  /** All the addresses that we know of, in the order in which they were given. */
  readonly addresses: readonly string[];
  /** Where it says that it can be reached, in its own words: escape them before they are shown. */
  readonly advertised: readonly string[];
  /** What its certificate proved; undefined where the security mode verifies no name. */
  readonly identity: PeerIdentity | undefined;
  /** The Ed25519 key that it has proved, base64; undefined where none was asked for. */
  readonly publicKey: string | undefined;
  /** The negotiated protocol version; undefined without a connection. */
  readonly version: number | undefined;
  /** The negotiated capabilities. */
  readonly capabilities: readonly string[];
  /** The largest message in bytes that both sides take; undefined without a connection. */
  readonly maxMessageSize: number | undefined;
  /** What its application offers: its option `features`. */
  readonly features: readonly string[];
  /** Streams that it lets us hold open at one time. */
  readonly maxStreams: number;
  /** Requests of ours that it has not answered. */
  readonly openRequests: number;
  /** Its requests that run here. */
  readonly runningRequests: number;
  /** Streams that are open, either way. */
  readonly openStreams: number;
  /** The round trips of its fastest connection. */
  readonly roundTrip: RoundTrip | undefined;
  /** Its connections. */
  readonly connections: readonly ConnectionInfo[];
  /** Messages that wait to be sent to it or, in version 3, for its acknowledgement. */
  readonly pendingMessages: number;
  /** Those of them that were written and wait for its acknowledgement: each counts a sixteenth. */
  readonly unackedMessages: number;
  /** Bytes of the messages that wait in its queue. */
  readonly pendingBytes: number;
  /** Its counters. */
  readonly stats: Readonly<TrafficStats>;
}

/** Takes the snapshot; `now` is the monotonic clock, `wallClock` that of the world, milliseconds. */
export function peerInfo(peer: Peer, now: number, wallClock: number): PeerInfo {
  const connections = peer.drivers.map((driver) => connectionInfo(driver, now, wallClock));
  const negotiated = peer.drivers[0]?.negotiated;
  return {
    nodeId: peer.nodeId,
    state: peer.state,
    address: peer.address,
    addresses: [...peer.addresses],
    advertised: [...peer.advertised],
    identity: peer.connectionCount > 0 ? peer.identity : undefined,
    version: negotiated?.version,
    health: peer.health,
    publicKey: negotiated?.publicKey,
    features: negotiated?.features ?? [],
    maxStreams: negotiated?.maxStreams ?? 0,
    openRequests: peer.exchange.openRequests,
    runningRequests: peer.exchange.runningRequests,
    openStreams: peer.exchange.openStreams,
    roundTrip: fastest(connections),
    capabilities: [...negotiated?.capabilities ?? []],
    maxMessageSize: negotiated?.maxMessageSize,
    connections,
    pendingMessages: peer.pendingMessages,
    unackedMessages: peer.unackedMessages,
    pendingBytes: peer.pendingBytes,
    stats: peer.stats(),
  };
}

function fastest(connections: readonly ConnectionInfo[]): RoundTrip | undefined {
  let best: RoundTrip | undefined;
  for (const { roundTrip } of connections) {
    if (roundTrip !== undefined && !(best !== undefined && best.smoothed <= roundTrip.smoothed)) {
      best = roundTrip;
    }
  }
  return best;
}

function connectionInfo(driver: Driver, now: number, wallClock: number): ConnectionInfo {
  const { protocol, localAddress, remoteAddress, encrypted } = driver.link.info;
  return {
    protocol,
    localAddress,
    remoteAddress,
    dialed: driver.dialed,
    encrypted,
    version: driver.negotiated?.version ?? 0,
    capabilities: [...driver.negotiated?.capabilities ?? []],
    state: driver.retiring ? "draining" : driver.idle ? "idle" : "active",
    draining: driver.retiring,
    establishedAt: wallClock - (now - driver.establishedAt),
    establishedMs: now - driver.establishedAt,
    idleMs: now - driver.usedAt,
    roundTrip: driver.channel?.roundTrips.summary(),
    bandwidth: (driver.channel?.budget.rate ?? 0) * 1000 || undefined,
    bytesSent: driver.bytesSent,
    bytesReceived: driver.bytesReceived,
  };
}

/** The same of a peer that is reached by datagrams; `localAddress` tells where a link's packets come from. */
export function datagramPeerInfo(
  peer: DatagramPeer,
  localAddress: (link: DatagramLink) => string,
  now: number,
  wallClock: number,
): PeerInfo {
  const connections = peer.links.map((link) =>
    datagramConnection(link, localAddress, now, wallClock)
  );
  const negotiated = peer.link?.negotiated;
  return {
    nodeId: peer.nodeId,
    state: peer.state,
    health: peer.health,
    address: peer.address,
    addresses: peer.address === undefined ? [] : [peer.address],
    advertised: [],
    identity: undefined,
    publicKey: undefined,
    version: negotiated?.version,
    capabilities: [...negotiated?.capabilities ?? []],
    maxMessageSize: peer.maxMessageSize,
    features: negotiated?.features ?? [],
    maxStreams: 0,
    openRequests: peer.openRequests,
    runningRequests: peer.runningRequests,
    openStreams: 0,
    roundTrip: fastest(connections),
    connections,
    pendingMessages: 0,
    unackedMessages: 0,
    pendingBytes: 0,
    stats: peer.stats(),
  };
}

function datagramConnection(
  link: DatagramLink,
  localAddress: (link: DatagramLink) => string,
  now: number,
  wallClock: number,
): ConnectionInfo {
  const { address } = link;
  return {
    protocol: address.slice(0, address.indexOf(":")),
    localAddress: localAddress(link),
    remoteAddress: address,
    dialed: link.dialed,
    encrypted: link.encrypted,
    version: link.negotiated.version,
    capabilities: [...link.negotiated.capabilities],
    state: "active",
    draining: false,
    establishedAt: wallClock - (now - link.establishedAt),
    establishedMs: now - link.establishedAt,
    idleMs: now - link.usedAt,
    roundTrip: link.roundTrips.summary(),
    bandwidth: undefined,
    bytesSent: link.bytesSent,
    bytesReceived: link.bytesReceived,
  };
}
