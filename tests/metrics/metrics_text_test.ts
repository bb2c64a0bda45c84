/** The text format of Prometheus, against lines written by hand. */

import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { Endpoint, metricsText, type PeerInfo, type TransportStats } from "../../mod.ts";
import { bytes, inCluster } from "../support/cluster.ts";

const TRAFFIC = {
  messagesSent: 1,
  messagesReceived: 2,
  bytesSent: 3,
  bytesReceived: 4,
  payloadBytesSent: 5,
  payloadBytesReceived: 6,
  sendFailures: 7,
  messagesDropped: 8,
  messagesLost: 9,
  duplicates: 10,
  backpressureEvents: 11,
  rateLimited: 12,
  reconnections: 13,
};

const STATS: TransportStats = {
  ...TRAFFIC,
  peerCount: 14,
  connectionCount: 15,
  receiveQueueLength: 16,
  pendingMessages: 17,
  refused: {
    maxConnections: 18,
    maxConnectionsPerHost: 19,
    pendingHandshakes: 20,
    requestsAndStreams: 21,
  },
  datagrams: {
    packetsSent: 100,
    packetsReceived: 101,
    invalid: 102,
    unknown: 103,
    replayed: 104,
    forged: 105,
    refused: 106,
    dropped: 107,
    unsent: 108,
    sendErrors: 109,
    repeatedRequests: 110,
    repeatedAnswers: 111,
    migrations: 112,
  },
  errors: { Timeout: 22, HandshakeFailed: 23 },
  handlerErrors: 24,
  connections: {
    established: 3,
    failed: 1,
    bytesSent: 9,
    bytesReceived: 8,
    roundTrip: undefined,
    byProtocol: {
      tcp: {
        established: 2,
        failed: 1,
        active: 1,
        idle: 0,
        bytesSent: 4,
        bytesReceived: 3,
        roundTrip: { last: 1, smoothed: 2, min: 3, p50: 4000, p99: 5000, count: 6 },
      },
      quic: {
        established: 1,
        failed: 0,
        active: 0,
        idle: 1,
        bytesSent: 5,
        bytesReceived: 5,
        roundTrip: undefined,
      },
    },
  },
};

const CONNECTION = {
  protocol: "tcp",
  localAddress: "tcp://127.0.0.1:1",
  remoteAddress: "tcp://127.0.0.1:2",
  dialed: true,
  encrypted: true,
  version: 3,
  capabilities: [],
  state: "active",
  draining: false,
  establishedAt: 0,
  establishedMs: 90_000,
  idleMs: 1_250,
  roundTrip: undefined,
  bandwidth: undefined,
  bytesSent: 0,
  bytesReceived: 0,
} as const;

const PEER: PeerInfo = {
  nodeId: "b",
  state: "active",
  health: "suspect",
  address: undefined,
  addresses: [],
  advertised: [],
  identity: undefined,
  publicKey: undefined,
  version: 3,
  capabilities: [],
  maxMessageSize: 1,
  features: [],
  maxStreams: 1,
  openRequests: 31,
  runningRequests: 32,
  openStreams: 33,
  roundTrip: { last: 9, smoothed: 12.5, min: 1, p50: 2, p99: 2500, count: 7 },
  connections: [
    CONNECTION,
    { ...CONNECTION, state: "idle", establishedMs: 60_500, idleMs: 500 },
    { ...CONNECTION, state: "idle", establishedMs: 1, idleMs: 700 },
  ],
  pendingMessages: 34,
  unackedMessages: 4,
  pendingBytes: 35,
  stats: TRAFFIC,
};

/** A peer that was never connected. */
const ABSENT: PeerInfo = {
  ...PEER,
  nodeId: "c",
  state: "reconnecting",
  health: "down",
  roundTrip: undefined,
  connections: [],
};

const ENDPOINT_TEXT = `# HELP hawser_messages_sent_total Messages given to a connection.
# TYPE hawser_messages_sent_total counter
hawser_messages_sent_total 1
# HELP hawser_messages_received_total Messages delivered to the inbox or the handler.
# TYPE hawser_messages_received_total counter
hawser_messages_received_total 2
# HELP hawser_sent_bytes_total Bytes given to connections, after compression.
# TYPE hawser_sent_bytes_total counter
hawser_sent_bytes_total 3
# HELP hawser_received_bytes_total Bytes that came from connections, before decompression.
# TYPE hawser_received_bytes_total counter
hawser_received_bytes_total 4
# HELP hawser_payload_sent_bytes_total Bytes of the messages sent, before compression.
# TYPE hawser_payload_sent_bytes_total counter
hawser_payload_sent_bytes_total 5
# HELP hawser_payload_received_bytes_total Bytes of the messages received, after decompression.
# TYPE hawser_payload_received_bytes_total counter
hawser_payload_received_bytes_total 6
# HELP hawser_send_failures_total Accepted messages that were dropped or reported undelivered.
# TYPE hawser_send_failures_total counter
hawser_send_failures_total 7
# HELP hawser_messages_dropped_total Messages dropped because a queue was full.
# TYPE hawser_messages_dropped_total counter
hawser_messages_dropped_total 8
# HELP hawser_messages_lost_total Messages sent at most once that were lost.
# TYPE hawser_messages_lost_total counter
hawser_messages_lost_total 9
# HELP hawser_duplicate_frames_total Frames that came a second time and were dropped.
# TYPE hawser_duplicate_frames_total counter
hawser_duplicate_frames_total 10
# HELP hawser_backpressure_events_total Sends that found the queue full.
# TYPE hawser_backpressure_events_total counter
hawser_backpressure_events_total 11
# HELP hawser_rate_limited_total Times an empty token bucket refused a send or stopped reading.
# TYPE hawser_rate_limited_total counter
hawser_rate_limited_total 12
# HELP hawser_reconnections_total Times a peer was connected again.
# TYPE hawser_reconnections_total counter
hawser_reconnections_total 13
# HELP hawser_refused_total Connections, requests and streams turned away.
# TYPE hawser_refused_total counter
hawser_refused_total{reason="max_connections"} 18
hawser_refused_total{reason="max_connections_per_host"} 19
hawser_refused_total{reason="pending_handshakes"} 20
hawser_refused_total{reason="requests_and_streams"} 21
# HELP hawser_datagrams_total What happened to datagrams.
# TYPE hawser_datagrams_total counter
hawser_datagrams_total{event="packets_sent"} 100
hawser_datagrams_total{event="packets_received"} 101
hawser_datagrams_total{event="invalid"} 102
hawser_datagrams_total{event="unknown"} 103
hawser_datagrams_total{event="replayed"} 104
hawser_datagrams_total{event="forged"} 105
hawser_datagrams_total{event="refused"} 106
hawser_datagrams_total{event="dropped"} 107
hawser_datagrams_total{event="unsent"} 108
hawser_datagrams_total{event="send_errors"} 109
hawser_datagrams_total{event="repeated_requests"} 110
hawser_datagrams_total{event="repeated_answers"} 111
hawser_datagrams_total{event="migrations"} 112
# HELP hawser_errors_total Failures of connections and handlers by code.
# TYPE hawser_errors_total counter
hawser_errors_total{code="Timeout"} 22
hawser_errors_total{code="HandshakeFailed"} 23
# HELP hawser_handler_errors_total Callbacks that threw or rejected.
# TYPE hawser_handler_errors_total counter
hawser_handler_errors_total 24
# HELP hawser_connections_established_total Handshakes completed, by protocol.
# TYPE hawser_connections_established_total counter
hawser_connections_established_total{protocol="tcp"} 2
hawser_connections_established_total{protocol="quic"} 1
# HELP hawser_connections_failed_total Attempts to connect and handshakes that came to nothing, by protocol.
# TYPE hawser_connections_failed_total counter
hawser_connections_failed_total{protocol="tcp"} 1
hawser_connections_failed_total{protocol="quic"} 0
# HELP hawser_connections_active Connections in use, by protocol.
# TYPE hawser_connections_active gauge
hawser_connections_active{protocol="tcp"} 1
hawser_connections_active{protocol="quic"} 0
# HELP hawser_connections_idle Idle connections, by protocol.
# TYPE hawser_connections_idle gauge
hawser_connections_idle{protocol="tcp"} 0
hawser_connections_idle{protocol="quic"} 1
# HELP hawser_connection_sent_bytes_total Bytes given to connections, by protocol.
# TYPE hawser_connection_sent_bytes_total counter
hawser_connection_sent_bytes_total{protocol="tcp"} 4
hawser_connection_sent_bytes_total{protocol="quic"} 5
# HELP hawser_connection_received_bytes_total Bytes that came from connections, by protocol.
# TYPE hawser_connection_received_bytes_total counter
hawser_connection_received_bytes_total{protocol="tcp"} 3
hawser_connection_received_bytes_total{protocol="quic"} 5
# HELP hawser_connection_round_trip_p50_seconds Median of the last 128 round trips, by protocol.
# TYPE hawser_connection_round_trip_p50_seconds gauge
hawser_connection_round_trip_p50_seconds{protocol="tcp"} 4
# HELP hawser_connection_round_trip_p99_seconds 99th percentile of the last 128 round trips, by protocol.
# TYPE hawser_connection_round_trip_p99_seconds gauge
hawser_connection_round_trip_p99_seconds{protocol="tcp"} 5
# HELP hawser_connected_peers Connected peers.
# TYPE hawser_connected_peers gauge
hawser_connected_peers 14
# HELP hawser_connections Usable connections.
# TYPE hawser_connections gauge
hawser_connections 15
# HELP hawser_receive_queue_messages Received messages that wait for the application.
# TYPE hawser_receive_queue_messages gauge
hawser_receive_queue_messages 16
# HELP hawser_pending_messages Messages that wait to be sent, over all peers.
# TYPE hawser_pending_messages gauge
hawser_pending_messages 17
`;

/** Of the peers `b` and `c`, without what is the same as above but for its name and its label. */
const PEER_TEXT = `# HELP hawser_peer_state 1 for where the peer stands, 0 for the others.
# TYPE hawser_peer_state gauge
hawser_peer_state{peer="b",state="connecting"} 0
hawser_peer_state{peer="b",state="active"} 1
hawser_peer_state{peer="b",state="reconnecting"} 0
hawser_peer_state{peer="b",state="failed"} 0
hawser_peer_state{peer="b",state="closed"} 0
hawser_peer_state{peer="c",state="connecting"} 0
hawser_peer_state{peer="c",state="active"} 0
hawser_peer_state{peer="c",state="reconnecting"} 1
hawser_peer_state{peer="c",state="failed"} 0
hawser_peer_state{peer="c",state="closed"} 0
# HELP hawser_peer_health 1 for whether the peer answers, 0 for the others.
# TYPE hawser_peer_health gauge
hawser_peer_health{peer="b",health="up"} 0
hawser_peer_health{peer="b",health="suspect"} 1
hawser_peer_health{peer="b",health="down"} 0
hawser_peer_health{peer="c",health="up"} 0
hawser_peer_health{peer="c",health="suspect"} 0
hawser_peer_health{peer="c",health="down"} 1
# HELP hawser_peer_connections Connections by state.
# TYPE hawser_peer_connections gauge
hawser_peer_connections{peer="b",state="active"} 1
hawser_peer_connections{peer="b",state="idle"} 2
hawser_peer_connections{peer="b",state="draining"} 0
hawser_peer_connections{peer="c",state="active"} 0
hawser_peer_connections{peer="c",state="idle"} 0
hawser_peer_connections{peer="c",state="draining"} 0
# HELP hawser_peer_pending_messages Messages that wait to be sent.
# TYPE hawser_peer_pending_messages gauge
hawser_peer_pending_messages{peer="b"} 34
hawser_peer_pending_messages{peer="c"} 34
# HELP hawser_peer_pending_bytes Bytes of the messages that wait.
# TYPE hawser_peer_pending_bytes gauge
hawser_peer_pending_bytes{peer="b"} 35
hawser_peer_pending_bytes{peer="c"} 35
# HELP hawser_peer_open_requests Our requests that it has not answered.
# TYPE hawser_peer_open_requests gauge
hawser_peer_open_requests{peer="b"} 31
hawser_peer_open_requests{peer="c"} 31
# HELP hawser_peer_running_requests Its requests that run here.
# TYPE hawser_peer_running_requests gauge
hawser_peer_running_requests{peer="b"} 32
hawser_peer_running_requests{peer="c"} 32
# HELP hawser_peer_open_streams Streams that are open, either way.
# TYPE hawser_peer_open_streams gauge
hawser_peer_open_streams{peer="b"} 33
hawser_peer_open_streams{peer="c"} 33
# HELP hawser_peer_uptime_seconds Age of its oldest connection.
# TYPE hawser_peer_uptime_seconds gauge
hawser_peer_uptime_seconds{peer="b"} 90
# HELP hawser_peer_idle_seconds Time since a connection last carried more than pings and acknowledgements.
# TYPE hawser_peer_idle_seconds gauge
hawser_peer_idle_seconds{peer="b"} 0.5
# HELP hawser_peer_round_trip_smoothed_seconds Round trip of its fastest connection, smoothed.
# TYPE hawser_peer_round_trip_smoothed_seconds gauge
hawser_peer_round_trip_smoothed_seconds{peer="b"} 0.0125
# HELP hawser_peer_round_trip_min_seconds Least round trip of its fastest connection.
# TYPE hawser_peer_round_trip_min_seconds gauge
hawser_peer_round_trip_min_seconds{peer="b"} 0.001
# HELP hawser_peer_round_trip_p50_seconds Median of the last 128 round trips of its fastest connection.
# TYPE hawser_peer_round_trip_p50_seconds gauge
hawser_peer_round_trip_p50_seconds{peer="b"} 0.002
# HELP hawser_peer_round_trip_p99_seconds 99th percentile of the last 128 round trips of its fastest connection.
# TYPE hawser_peer_round_trip_p99_seconds gauge
hawser_peer_round_trip_p99_seconds{peer="b"} 2.5
`;

/** The counters of the endpoint above, as those of the two peers: 13 of three lines each. */
const PEER_COUNTERS = ENDPOINT_TEXT.split("\n").slice(0, 3 * 13).map((line) => {
  const renamed = line.replace("hawser_", "hawser_peer_");
  if (line.startsWith("#")) return renamed;
  const [name, value] = renamed.split(" ");
  return `${name}{peer="b"} ${value}\n${name}{peer="c"} ${value}`;
}).join("\n") + "\n";

/** One line of the format: a comment, or a name with labels and a number. */
const LINE =
  /^(# HELP [a-z_0-9]+ .+|# TYPE [a-z_0-9]+ (counter|gauge)|[a-z_0-9]+(\{([a-z]+="([^"\\\n]|\\["\\n])*",?)+\})? [0-9.e+-]+)$/;

function assertWellFormed(text: string): void {
  assert.ok(text.endsWith("\n"));
  const families = new Set<string>();
  for (const line of text.slice(0, -1).split("\n")) {
    assert.match(line, LINE);
    if (!line.startsWith("# TYPE")) continue;
    const name = line.split(" ")[2]!;
    assert.ok(!families.has(name), `${name} once`);
    families.add(name);
    assert.equal(line.endsWith(" counter"), name.endsWith("_total"), name);
  }
}

describe("metricsText", () => {
  it("writes the counters and gauges of an endpoint", () => {
    assert.equal(metricsText(STATS, []), ENDPOINT_TEXT);
    assertWellFormed(ENDPOINT_TEXT);
  });

  it("writes what is known of each peer", () => {
    const text = metricsText(STATS, [PEER, ABSENT]);
    assert.equal(text, ENDPOINT_TEXT + PEER_COUNTERS + PEER_TEXT);
    assertWellFormed(text);
  });

  it("leaves out a family without samples", () => {
    const text = metricsText({ ...STATS, errors: {} }, [ABSENT]);
    for (const name of ["hawser_errors_total", "uptime", "idle_seconds", "peer_round_trip"]) {
      assert.ok(!text.includes(name), name);
    }
  });

  it("takes another prefix, and refuses one that can't begin a name", () => {
    const text = metricsText(STATS, [PEER], { prefix: "my_app2" });
    assert.equal(text, metricsText(STATS, [PEER]).replaceAll("hawser_", "my_app2_"));
    for (const prefix of ["", "2a", "a-b", "a b", "a\n", "ä", "a{"]) {
      assert.throws(() => metricsText(STATS, [], { prefix }), {
        name: "TypeError",
        message: /^Cannot write metrics: prefix must be letters/,
      });
    }
  });

  it("escapes what would end a label or its line", () => {
    const nodeId = 'a"b\\c\nd"} 1\n# EOF\\n';
    const text = metricsText(STATS, [{ ...PEER, nodeId }]);
    assert.ok(
      text.includes('hawser_peer_pending_bytes{peer="a\\"b\\\\c\\nd\\"} 1\\n# EOF\\\\n"} 35\n'),
    );
    const plain = metricsText(STATS, [PEER]);
    assert.equal(text.split("\n").length, plain.split("\n").length);
    assertWellFormed(text);
  });

  it("costs the same number of lines for each peer, whatever happens", () => {
    const lines = (peers: PeerInfo[]) => metricsText(STATS, peers).split("\n").length;
    const worn = { ...PEER, connections: Array.from({ length: 64 }, () => CONNECTION) };
    assert.equal(lines([worn]), lines([PEER]));
    const one = lines([PEER, PEER]) - lines([PEER]);
    assert.equal(lines([PEER, PEER, worn]) - lines([PEER, PEER]), one);
  });

  it("takes what an endpoint gives before it starts", () => {
    const endpoint = new Endpoint({ nodeId: "a", security: "development" });
    const text = metricsText(endpoint.stats(), endpoint.peers());
    assertWellFormed(text);
    assert.match(text, /^hawser_messages_sent_total 0$/m);
  });

  it(
    "takes what an endpoint gives that is connected",
    inCluster(async (cluster) => {
      await cluster.start("b", { poolSize: 1 });
      const a = await cluster.start("a", { poolSize: 1 });
      await cluster.connect(a, "b");
      await cluster.environment.run(a.send("b", bytes("ahoy"), { acknowledged: true }));
      await cluster.environment.advance(2_000);
      const text = metricsText(a.stats(), a.peers());
      assertWellFormed(text);
      for (
        const line of [
          "hawser_messages_sent_total 1",
          'hawser_peer_messages_sent_total{peer="b"} 1',
          'hawser_peer_payload_sent_bytes_total{peer="b"} 4',
          'hawser_peer_health{peer="b",health="up"} 1',
          'hawser_peer_connections{peer="b",state="active"} 1',
          'hawser_peer_round_trip_min_seconds{peer="b"} 0.002',
        ]
      ) assert.ok(text.split("\n").includes(line), `${line}\nin\n${text}`);
    }),
  );
});
