/**
 * Counters and gauges in the text format that Prometheus reads.
 *
 * @module
 */

import type { ConnectionInfo, PeerInfo } from "./peer_info.ts";
import { showValue } from "./show_value.ts";
import type {
  DatagramStats,
  ProtocolMetrics,
  RefusedStats,
  TrafficStats,
  TransportStats,
} from "./stats.ts";

/** Options of {@linkcode metricsText}. */
export interface MetricsTextOptions {
  /**
   * What the name of every metric begins with, before an underscore: letters, digits and
   * underscores, not a digit first.
   *
   * @default "hawser"
   */
  prefix?: string;
}

type Labels = Readonly<Record<string, string>>;
type Sample = readonly [labels: Labels, value: number];
type Type = "counter" | "gauge";

const NO_LABELS: Labels = {};
const PREFIX = /^[A-Za-z_][A-Za-z0-9_]*$/;
const MS_PER_SECOND = 1000;

/** Counter -> its name without prefix and `_total`, and its help. */
const TRAFFIC: Readonly<Record<keyof TrafficStats, readonly [name: string, help: string]>> = {
  messagesSent: ["messages_sent", "Messages given to a connection."],
  messagesReceived: ["messages_received", "Messages delivered to the inbox or the handler."],
  bytesSent: ["sent_bytes", "Bytes given to connections, after compression."],
  bytesReceived: ["received_bytes", "Bytes that came from connections, before decompression."],
  payloadBytesSent: ["payload_sent_bytes", "Bytes of the messages sent, before compression."],
  payloadBytesReceived: [
    "payload_received_bytes",
    "Bytes of the messages received, after decompression.",
  ],
  sendFailures: ["send_failures", "Accepted messages that were dropped or reported undelivered."],
  messagesDropped: ["messages_dropped", "Messages dropped because a queue was full."],
  messagesLost: ["messages_lost", "Messages sent at most once that were lost."],
  duplicates: ["duplicate_frames", "Frames that came a second time and were dropped."],
  backpressureEvents: ["backpressure_events", "Sends that found the queue full."],
  rateLimited: ["rate_limited", "Times an empty token bucket refused a send or stopped reading."],
  reconnections: ["reconnections", "Times a peer was connected again."],
};

/** Reason -> its label. */
const REFUSED: Readonly<Record<keyof RefusedStats, string>> = {
  maxConnections: "max_connections",
  maxConnectionsPerHost: "max_connections_per_host",
  pendingHandshakes: "pending_handshakes",
  requestsAndStreams: "requests_and_streams",
};

/** What is counted of datagrams -> its label. */
const DATAGRAMS: Readonly<Record<keyof DatagramStats, string>> = {
  packetsSent: "packets_sent",
  packetsReceived: "packets_received",
  invalid: "invalid",
  unknown: "unknown",
  replayed: "replayed",
  forged: "forged",
  refused: "refused",
  dropped: "dropped",
  unsent: "unsent",
  sendErrors: "send_errors",
  repeatedRequests: "repeated_requests",
  repeatedAnswers: "repeated_answers",
  migrations: "migrations",
};

/** Values of which one holds; a record, so that the compiler misses one that is forgotten. */
const PEER_STATES: Readonly<Record<PeerInfo["state"], true>> = {
  connecting: true,
  active: true,
  reconnecting: true,
  failed: true,
  closed: true,
};
const PEER_HEALTH: Readonly<Record<PeerInfo["health"], true>> = {
  up: true,
  suspect: true,
  down: true,
};
const CONNECTION_STATES: Readonly<Record<ConnectionInfo["state"], true>> = {
  active: true,
  idle: true,
  draining: true,
};

/** Gauges of a peer: name, help, and the value; undefined where there is none. */
const PEER_GAUGES: readonly (readonly [string, string, (peer: PeerInfo) => number | undefined])[] =
  [
    ["peer_pending_messages", "Messages that wait to be sent.", (peer) => peer.pendingMessages],
    ["peer_pending_bytes", "Bytes of the messages that wait.", (peer) => peer.pendingBytes],
    ["peer_open_requests", "Our requests that it has not answered.", (peer) => peer.openRequests],
    ["peer_running_requests", "Its requests that run here.", (peer) => peer.runningRequests],
    ["peer_open_streams", "Streams that are open, either way.", (peer) => peer.openStreams],
    [
      "peer_uptime_seconds",
      "Age of its oldest connection.",
      (peer) => seconds(extreme(Math.max, peer.connections.map((one) => one.establishedMs))),
    ],
    [
      "peer_idle_seconds",
      "Time since a connection last carried more than pings and acknowledgements.",
      (peer) => seconds(extreme(Math.min, peer.connections.map((one) => one.idleMs))),
    ],
    [
      "peer_round_trip_smoothed_seconds",
      "Round trip of its fastest connection, smoothed.",
      (peer) => seconds(peer.roundTrip?.smoothed),
    ],
    [
      "peer_round_trip_min_seconds",
      "Least round trip of its fastest connection.",
      (peer) => seconds(peer.roundTrip?.min),
    ],
    [
      "peer_round_trip_p50_seconds",
      "Median of the last 128 round trips of its fastest connection.",
      (peer) => seconds(peer.roundTrip?.p50),
    ],
    [
      "peer_round_trip_p99_seconds",
      "99th percentile of the last 128 round trips of its fastest connection.",
      (peer) => seconds(peer.roundTrip?.p99),
    ],
  ];

/** Metrics of a protocol: name, type, help, and the value; undefined where there is none. */
const PROTOCOL_METRICS: readonly (readonly [
  name: string,
  type: Type,
  help: string,
  valueOf: (metrics: ProtocolMetrics) => number | undefined,
])[] = [
  [
    "connections_established_total",
    "counter",
    "Handshakes completed, by protocol.",
    ({ established }) => established,
  ],
  [
    "connections_failed_total",
    "counter",
    "Attempts to connect and handshakes that came to nothing, by protocol.",
    ({ failed }) => failed,
  ],
  [
    "connections_active",
    "gauge",
    "Connections in use, by protocol.",
    ({ active }) => active,
  ],
  ["connections_idle", "gauge", "Idle connections, by protocol.", ({ idle }) => idle],
  [
    "connection_sent_bytes_total",
    "counter",
    "Bytes given to connections, by protocol.",
    ({ bytesSent }) => bytesSent,
  ],
  [
    "connection_received_bytes_total",
    "counter",
    "Bytes that came from connections, by protocol.",
    ({ bytesReceived }) => bytesReceived,
  ],
  [
    "connection_round_trip_p50_seconds",
    "gauge",
    "Median of the last 128 round trips, by protocol.",
    ({ roundTrip }) => seconds(roundTrip?.p50),
  ],
  [
    "connection_round_trip_p99_seconds",
    "gauge",
    "99th percentile of the last 128 round trips, by protocol.",
    ({ roundTrip }) => seconds(roundTrip?.p99),
  ],
];

/**
 * Writes what `stats()` and `peers()` gave in the text format of Prometheus, version 0.0.4, to be
 * served as `text/plain; version=0.0.4`. The names are listed in docs/metrics.md.
 *
 * The only labels are the peer's node id, protocols, codes of errors, reasons, states and health. A peer costs
 * a fixed number of series, so that their number is that of the peers; give fewer peers, or none,
 * to have less.
 *
 * @example
 * ```ts
 * import { createServer } from "node:http";
 * import { Endpoint, metricsText } from "@hawser/hawser";
 *
 * await using endpoint = new Endpoint({ nodeId: "a", security: "development" });
 * await endpoint.start();
 * const server = createServer((_, response) => {
 *   response.setHeader("content-type", "text/plain; version=0.0.4; charset=utf-8");
 *   response.end(metricsText(endpoint.stats(), endpoint.peers()));
 * });
 * server.listen(0, "127.0.0.1");
 * server.close();
 * ```
 *
 * @throws {TypeError} the prefix can't begin the name of a metric
 */
export function metricsText(
  stats: TransportStats,
  peers: readonly PeerInfo[],
  options: MetricsTextOptions = {},
): string {
  const { prefix = "hawser" } = options;
  if (!PREFIX.test(prefix)) {
    const rule = "must be letters, digits and underscores, not a digit first";
    throw new TypeError(`Cannot write metrics: prefix ${rule}, it is ${showValue(prefix)}`);
  }
  const text = new MetricsText(`${prefix}_`);
  writeEndpoint(text, stats);
  if (peers.length > 0) writePeers(text, peers);
  return text.whole;
}

function writeEndpoint(text: MetricsText, stats: TransportStats): void {
  for (const [key, [name, help]] of entries(TRAFFIC)) {
    text.add(`${name}_total`, "counter", help, [[NO_LABELS, stats[key]]]);
  }
  const refused = entries(REFUSED).map(([key, reason]): Sample => [{ reason }, stats.refused[key]]);
  text.add("refused_total", "counter", "Connections, requests and streams turned away.", refused);
  const datagrams = entries(DATAGRAMS).map(([key, event]): Sample => {
    return [{ event }, stats.datagrams[key]];
  });
  text.add("datagrams_total", "counter", "What happened to datagrams.", datagrams);
  const errors = entries(stats.errors).map(([code, count]): Sample => [{ code }, count ?? 0]);
  text.add("errors_total", "counter", "Failures of connections and handlers by code.", errors);
  const one = (name: string, type: Type, help: string, value: number) =>
    text.add(name, type, help, [[NO_LABELS, value]]);
  one("handler_errors_total", "counter", "Callbacks that threw or rejected.", stats.handlerErrors);
  for (const [name, type, help, valueOf] of PROTOCOL_METRICS) {
    const samples = entries(stats.connections.byProtocol).flatMap(
      ([protocol, metrics]): Sample[] => {
        const value = valueOf(metrics);
        return value === undefined ? [] : [[{ protocol }, value]];
      },
    );
    text.add(name, type, help, samples);
  }
  one("connected_peers", "gauge", "Connected peers.", stats.peerCount);
  one("connections", "gauge", "Usable connections.", stats.connectionCount);
  one(
    "receive_queue_messages",
    "gauge",
    "Received messages that wait for the application.",
    stats.receiveQueueLength,
  );
  one(
    "pending_messages",
    "gauge",
    "Messages that wait to be sent, over all peers.",
    stats.pendingMessages,
  );
}

function writePeers(text: MetricsText, peers: readonly PeerInfo[]): void {
  for (const [key, [name, help]] of entries(TRAFFIC)) {
    const samples = peers.map(({ nodeId, stats }): Sample => [{ peer: nodeId }, stats[key]]);
    text.add(`peer_${name}_total`, "counter", help, samples);
  }
  const states = peers.flatMap((peer) => stateSet(peer, "state", PEER_STATES));
  text.add("peer_state", "gauge", "1 for where the peer stands, 0 for the others.", states);
  const health = peers.flatMap((peer) => stateSet(peer, "health", PEER_HEALTH));
  text.add("peer_health", "gauge", "1 for whether the peer answers, 0 for the others.", health);
  const connections = peers.flatMap(({ nodeId, connections }) =>
    keys(CONNECTION_STATES).map((state): Sample => [
      { peer: nodeId, state },
      connections.filter((connection) => connection.state === state).length,
    ])
  );
  text.add("peer_connections", "gauge", "Connections by state.", connections);
  for (const [name, help, valueOf] of PEER_GAUGES) {
    const samples = peers.flatMap((peer): Sample[] => {
      const value = valueOf(peer);
      return value === undefined ? [] : [[{ peer: peer.nodeId }, value]];
    });
    text.add(name, "gauge", help, samples);
  }
}

/** One sample for each value that there may be: 1 for the one that there is. */
function stateSet<K extends "state" | "health">(
  peer: PeerInfo,
  label: K,
  values: Readonly<Record<PeerInfo[K], true>>,
): Sample[] {
  return keys(values).map((value) => [
    { peer: peer.nodeId, [label]: value },
    peer[label] === value ? 1 : 0,
  ]);
}

/** Lines, family by family. */
class MetricsText {
  readonly #prefix: string;
  #text = "";

  constructor(prefix: string) {
    this.#prefix = prefix;
  }

  /** What was added, with a line feed at the end. */
  get whole(): string {
    return this.#text;
  }

  /** A family without samples is left out. */
  add(suffix: string, type: Type, help: string, samples: readonly Sample[]): void {
    if (samples.length === 0) return;
    const name = this.#prefix + suffix;
    this.#text += `# HELP ${name} ${help}\n# TYPE ${name} ${type}\n`;
    for (const [labels, value] of samples) {
      this.#text += `${name}${labelsText(labels)} ${value}\n`;
    }
  }
}

function labelsText(labels: Labels): string {
  const pairs = entries(labels).map(([name, value]) => `${name}="${escaped(value)}"`);
  return pairs.length === 0 ? "" : `{${pairs.join(",")}}`;
}

/** A label's value: quotes, backslashes and line feeds would end it. */
function escaped(value: string): string {
  return value.replaceAll("\\", "\\\\").replaceAll('"', '\\"').replaceAll("\n", "\\n");
}

function seconds(ms: number | undefined): number | undefined {
  return ms === undefined ? undefined : ms / MS_PER_SECOND;
}

/** The greatest or the least; undefined of none. */
function extreme(choose: (...values: number[]) => number, values: number[]): number | undefined {
  return values.length === 0 ? undefined : choose(...values);
}

function entries<K extends string, V>(record: Readonly<Partial<Record<K, V>>>): [K, V][] {
  return Object.entries(record) as [K, V][];
}

function keys<K extends string>(record: Readonly<Record<K, unknown>>): K[] {
  return Object.keys(record) as K[];
}
