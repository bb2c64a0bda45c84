/**
 * What an endpoint knows of its peers, whatever they are reached by, and what it counts of them.
 *
 * @module
 */

import { ConnectionTally } from "./peer/connection_tally.ts";
import { datagramPeerInfo, type PeerInfo, peerInfo } from "./peer_info.ts";
import type { Recipients } from "./recipients.ts";
import {
  addTraffic,
  type ConnectionMetrics,
  noDatagrams,
  noTraffic,
  type TransportStats,
} from "./stats.ts";

/** What is counted of peers. */
export type RecipientStats = Omit<
  TransportStats,
  "receiveQueueLength" | "refused" | "errors" | "handlerErrors"
>;

/** A snapshot of one peer; undefined where there is none of that name. */
export function recipientInfo(
  { manager, datagrams }: Recipients,
  nodeId: string,
  now: number,
  wallClock: number,
): PeerInfo | undefined {
  const peer = manager.get(nodeId);
  const other = datagrams.get(nodeId);
  const linked = peer === undefined ? undefined : peerInfo(peer, now, wallClock);
  if (other === undefined) return linked;
  const info = datagramPeerInfo(other, (link) => datagrams.localAddress(link), now, wallClock);
  if (linked === undefined) return info;
  return { ...linked, connections: [...linked.connections, ...info.connections] };
}

/** The counters of all peers; zeros before the start. */
export function recipientStats(recipients: Recipients | undefined): RecipientStats {
  if (recipients === undefined) return nothing();
  const { manager, datagrams } = recipients;
  const peers = [...manager.peers];
  const traffic = manager.traffic();
  addTraffic(traffic, datagrams.traffic());
  return {
    ...traffic,
    peerCount: peers.filter((peer) => peer.connectionCount > 0).length +
      recipients.onlyDatagrams().filter((peer) => peer.links.length > 0).length,
    connectionCount: manager.connectionCount + datagrams.linkCount,
    connections: joinMetrics(manager.connectionMetrics(), datagrams.connectionMetrics()),
    pendingMessages: peers.reduce((sum, peer) => sum + peer.pendingMessages, 0),
    datagrams: datagrams.counters(),
  };
}

function nothing(): RecipientStats {
  return {
    ...noTraffic(),
    peerCount: 0,
    connectionCount: 0,
    connections: new ConnectionTally().metrics([]),
    pendingMessages: 0,
    datagrams: noDatagrams(),
  };
}

/** The connections of links and those of datagrams, which have no protocol in common. */
function joinMetrics(links: ConnectionMetrics, datagrams: ConnectionMetrics): ConnectionMetrics {
  return {
    established: links.established + datagrams.established,
    failed: links.failed + datagrams.failed,
    bytesSent: links.bytesSent + datagrams.bytesSent,
    bytesReceived: links.bytesReceived + datagrams.bytesReceived,
    roundTrip: links.roundTrip ?? datagrams.roundTrip,
    byProtocol: Object.assign(links.byProtocol, datagrams.byProtocol),
  };
}
