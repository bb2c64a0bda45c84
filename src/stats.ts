/**
 * Counters of an endpoint and of its peers. They only ever grow; gauges say so.
 *
 * @module
 */

import type { ErrorCode } from "./errors.ts";

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
  /** Messages sent at most once that found no connection, or whose connection broke. No event tells of them. */
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

/** Counters and gauges of a whole endpoint. */
export interface TransportStats extends TrafficStats {
  /** Connected peers now (a gauge). */
  peerCount: number;
  /** Usable connections now (a gauge). */
  connectionCount: number;
  /** Received messages that wait for the application now (a gauge). */
  receiveQueueLength: number;
  /** Messages that wait to be sent now, over all peers (a gauge). */
  pendingMessages: number;
  /** Connections, requests and streams that were turned away. */
  refused: RefusedStats;
  /** Failures of connections and handlers by error code. */
  errors: Partial<Record<ErrorCode, number>>;
  /** Application callbacks (message handlers, event listeners) that threw or rejected. */
  handlerErrors: number;
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
