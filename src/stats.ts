/**
 * Counters of an endpoint and of its peers. They only ever grow; gauges say so.
 *
 * @module
 */

import type { ErrorCode } from "./errors.ts";
import type { RoundTrip } from "./protocol/v3/round_trips.ts";

/** What is counted per peer, and in sum per endpoint. */
export interface TrafficStats {
  /** Messages given to a connection. */
  messagesSent: number;
  /** Messages received and delivered to the inbox or the handler. */
  messagesReceived: number;
  /** Bytes given to connections, handshakes and framing included, after compression. */
  bytesSent: number;
  /** Bytes that came from connections, handshakes and framing included, before decompression. */
  bytesReceived: number;
  /** Bytes of the messages sent, before compression and framing. */
  payloadBytesSent: number;
  /** Bytes of the messages received, after decompression. */
  payloadBytesReceived: number;
  /** Accepted messages that were dropped or reported undelivered. */
  sendFailures: number;
  /** Messages dropped by `whenFull: "drop-oldest"` or `"drop-newest"`; part of `sendFailures`. */
  messagesDropped: number;
  /**
   * Messages sent at most once that found no connection, or whose connection broke; and such that
   * came by datagram and found no room. No event tells of them.
   */
  messagesLost: number;
  /** Frames that came a second time after a connection broke, and were dropped. */
  duplicates: number;
  /** Sends that found the queue full. */
  backpressureEvents: number;
  /** Sends refused, and times reading stopped, because a token bucket was empty. */
  rateLimited: number;
  /** Times the peer was connected again after its last connection was lost. */
  reconnections: number;
}

/** What was turned away: connections before a byte of them was read, requests and streams. */
export interface RefusedStats {
  /** Over `maxConnections`. */
  maxConnections: number;
  /** Over `maxConnectionsPerHost`. */
  maxConnectionsPerHost: number;
  /** Too many that had not completed their handshake. */
  pendingHandshakes: number;
  /** Requests and streams of peers over their bounds. */
  requestsAndStreams: number;
}

/** The connections of one protocol. */
export interface ProtocolMetrics {
  /** Handshakes that were completed, by us or by peers. */
  readonly established: number;
  /** Attempts to connect, and handshakes of peers, that came to nothing. */
  readonly failed: number;
  /** Connections in use now (a gauge). */
  readonly active: number;
  /** Connections now that carried nothing for `pool.idleTimeoutMs` (a gauge). */
  readonly idle: number;
  /** Bytes given to them. */
  readonly bytesSent: number;
  /** Bytes that came from them. */
  readonly bytesReceived: number;
  /** Their round trips, from version 3 on; undefined while nothing was measured. */
  readonly roundTrip: RoundTrip | undefined;
}

/** The connections of an endpoint that are and were. */
export interface ConnectionMetrics {
  /** Handshakes that were completed, by us or by peers. */
  readonly established: number;
  /** Attempts to connect, and handshakes of peers, that came to nothing. */
  readonly failed: number;
  /** Bytes given to them. */
  readonly bytesSent: number;
  /** Bytes that came from them. */
  readonly bytesReceived: number;
  /** Their round trips, from version 3 on; undefined while nothing was measured. */
  readonly roundTrip: RoundTrip | undefined;
  /** The same by the scheme of the address: "tcp", "quic", … */
  readonly byProtocol: Readonly<Record<string, ProtocolMetrics>>;
}

/** Counters and gauges of a whole endpoint. */
export interface TransportStats extends TrafficStats {
  /** Connected peers now (a gauge). */
  peerCount: number;
  /** Usable connections now (a gauge). */
  connectionCount: number;
  /** The connections that are and were, by protocol. */
  connections: ConnectionMetrics;
  /** Received messages that wait for the application now (a gauge). */
  receiveQueueLength: number;
  /** Messages that wait to be sent now, over all peers (a gauge). */
  pendingMessages: number;
  /** What is counted of datagrams. */
  datagrams: DatagramStats;
  /** Connections, requests and streams that were turned away. */
  refused: RefusedStats;
  /** Failures of connections and handlers by error code. */
  errors: Partial<Record<ErrorCode, number>>;
  /** Application callbacks (message handlers, event listeners) that threw or rejected. */
  handlerErrors: number;
}

/** What is counted of datagrams. */
export interface DatagramStats {
  /** Packets sent, those of handshakes included. */
  packetsSent: number;
  /** Packets that came, whatever they were. */
  packetsReceived: number;
  /** Packets that are none of the protocol, or malformed. Never answered. */
  invalid: number;
  /** Packets for a link or a handshake that there is not. Never answered. */
  unknown: number;
  /** Packets that came a second time, or too late to know. */
  replayed: number;
  /** Packets whose signature is missing or wrong. */
  forged: number;
  /** Handshakes begun by a peer that were refused. */
  refused: number;
  /** Received messages that found the receive queue full, or a rate limit reached. */
  dropped: number;
  /** Packets that found the send queue full. */
  unsent: number;
  /** Packets that the operating system did not send. */
  sendErrors: number;
  /** Requests of ours that were sent again. */
  repeatedRequests: number;
  /** Answers of ours that were sent again, to requests that came again. */
  repeatedAnswers: number;
  /** Times a peer was found at another address. */
  migrations: number;
}

/** The connections of one peer. */
export interface PoolStats {
  /** Usable connections. */
  active: number;
  /** Of these, connections that carried nothing for `pool.idleTimeoutMs`. */
  idle: number;
  /** Connections that end in order. */
  draining: number;
  /** Attempts to connect under way or waiting for their backoff. */
  connecting: number;
  /** `poolSize`. */
  size: number;
}

/** Counters of datagrams at zero. */
export function noDatagrams(): DatagramStats {
  return {
    packetsSent: 0,
    packetsReceived: 0,
    invalid: 0,
    unknown: 0,
    replayed: 0,
    forged: 0,
    refused: 0,
    dropped: 0,
    unsent: 0,
    sendErrors: 0,
    repeatedRequests: 0,
    repeatedAnswers: 0,
    migrations: 0,
  };
}

/** Counters at zero. */
export function noTraffic(): TrafficStats {
  return {
    messagesSent: 0,
    messagesReceived: 0,
    bytesSent: 0,
    bytesReceived: 0,
    payloadBytesSent: 0,
    payloadBytesReceived: 0,
    sendFailures: 0,
    messagesDropped: 0,
    messagesLost: 0,
    duplicates: 0,
    backpressureEvents: 0,
    rateLimited: 0,
    reconnections: 0,
  };
}

/** Adds the counters of `more` to `sum`, in place. */
export function addTraffic(sum: TrafficStats, more: TrafficStats): void {
  for (const key of Object.keys(sum) as (keyof TrafficStats)[]) sum[key] += more[key];
}
