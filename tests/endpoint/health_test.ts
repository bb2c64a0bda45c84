/** Whether a peer answers, how quickly, and what it says of itself. */

import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { Endpoint, EndpointConfig } from "../../mod.ts";
import { bytes, type Cluster, inCluster } from "../support/cluster.ts";

const INTERVAL_MS = 1_000;
const LATENCY_MS = 10;

async function pair(
  cluster: Cluster,
  options: Partial<EndpointConfig> = {},
): Promise<[Endpoint, Endpoint]> {
  const common = { keepaliveIntervalSecs: INTERVAL_MS / 1000, poolSize: 1, ...options };
  const b = await cluster.start("b", common);
  const a = await cluster.start("a", common);
  await cluster.connect(a, "b");
  await cluster.pooled(a, b, 1);
  return [a, b];
}

/** The changes of health that an endpoint tells of, with their times. */
function watchHealth(cluster: Cluster, endpoint: Endpoint): [number, string][] {
  const changes: [number, string][] = [];
  endpoint.addEventListener("healthchange", ({ detail }) => {
    const { nodeId, previous, health } = detail;
    assert.equal(endpoint.peer(nodeId)!.health, health);
    changes.push([cluster.environment.now(), `${nodeId}: ${previous} to ${health}`]);
  });
  return changes;
}

describe("the health of a peer", () => {
  it(
    "is up as long as it answers pings, however little is said",
    inCluster(async (cluster) => {
      const [a, b] = await pair(cluster);
      const changes = [watchHealth(cluster, a), watchHealth(cluster, b)];
      await cluster.environment.advance(100 * INTERVAL_MS);
      assert.deepEqual(changes, [[], []]);
      assert.equal(a.peer("b")!.health, "up");
    }, { latencyMs: LATENCY_MS }),
  );

  for (const dialer of [true, false]) {
    it(
      `is suspect and then down, within twice the interval, when its process hangs (seen by the ${
        dialer ? "dialer" : "listener"
      })`,
      inCluster(async (cluster) => {
        const [a, b] = await pair(cluster, { reconnect: { enabled: false } });
        const seen = dialer ? a : b;
        const other = dialer ? "b" : "a";
        const changes = watchHealth(cluster, seen);
        const hungAt = cluster.environment.now();
        // Its kernel takes the packets, as far as one can see from here, and nobody answers.
        for (const link of cluster.network.links) {
          cluster.network.blackHoles.add(link.info.localAddress);
        }
        await cluster.environment.advance(2 * INTERVAL_MS + 2 * LATENCY_MS);
        assert.deepEqual(changes.map(([, change]) => change), [
          `${other}: up to suspect`,
          `${other}: suspect to down`,
        ]);
        assert.ok(changes[0]![0] - hungAt <= 1.4 * INTERVAL_MS, "suspect in time");
      }, { latencyMs: LATENCY_MS }),
    );
  }

  it(
    "is up again when it answers after all",
    inCluster(async (cluster) => {
      const [a] = await pair(cluster);
      const changes = watchHealth(cluster, a);
      for (const link of cluster.network.links) {
        cluster.network.blackHoles.add(link.info.localAddress);
      }
      await cluster.environment.until(() => a.peer("b")!.health === "suspect");
      cluster.network.blackHoles.clear();
      await cluster.environment.run(a.send("b", bytes("x")));
      await cluster.environment.advance(100);
      assert.deepEqual(changes.map(([, change]) => change), [
        "b: up to suspect",
        "b: suspect to up",
      ]);
      assert.equal(a.peer("b")!.stats.reconnections, 0);
    }, { latencyMs: LATENCY_MS }),
  );
});

describe("round trips", () => {
  it(
    "are measured by pings: last, smoothed, least, median and 99th percentile",
    inCluster(async (cluster) => {
      const [a] = await pair(cluster, { pool: { healthCheckIntervalMs: 100 } });
      assert.equal(a.peer("b")!.roundTrip, undefined);
      await cluster.environment.advance(10_050);
      const { last, smoothed, min, p50, p99, count } = a.peer("b")!.roundTrip!;
      assert.deepEqual({ last, smoothed, min, p50, p99 }, {
        last: 20,
        smoothed: 20,
        min: 20,
        p50: 20,
        p99: 20,
      });
      assert.ok(count >= 95 && count <= 101, `${count} pings`);
      assert.deepEqual(a.peer("b")!.connections[0]!.roundTrip, a.peer("b")!.roundTrip);
    }, { latencyMs: LATENCY_MS }),
  );

  it(
    "of the peer are those of its fastest connection",
    inCluster(async (cluster) => {
      const pool = { healthCheckIntervalMs: 100, idleTimeoutMs: 0 };
      const b = await cluster.start("b", { poolSize: 4, pool });
      const a = await cluster.start("a", { poolSize: 4, pool });
      await cluster.connect(a, "b");
      await cluster.pooled(a, b, 4);
      await cluster.environment.advance(1_000);
      const { roundTrip, connections } = a.peer("b")!;
      const smoothed = connections.map((connection) => connection.roundTrip!.smoothed);
      assert.equal(roundTrip!.smoothed, Math.min(...smoothed));
      assert.ok(Math.max(...smoothed) > roundTrip!.smoothed, "the connections differ");
    }, { latencyMs: LATENCY_MS, spreadMs: 50, seed: 3 }),
  );

  it(
    "are not there in version 2, which has no pings",
    inCluster(async (cluster) => {
      const [a] = await pair(cluster, { maxProtocolVersion: 2 });
      await cluster.environment.advance(30_000);
      assert.equal(a.peer("b")!.roundTrip, undefined);
      assert.equal(a.peer("b")!.health, "up");
    }),
  );
});

describe("what a node says of itself", () => {
  it(
    "is seen at the other side: features, streams, version",
    inCluster(async (cluster) => {
      const b = await cluster.start("b", { features: ["query", "replication"], maxStreams: 7 });
      const a = await cluster.start("a", { features: [], maxStreams: 500 });
      await cluster.connect(a, "b");
      const told = ({ features, maxStreams, version }: ReturnType<Endpoint["peer"]> & object) => ({
        features,
        maxStreams,
        version,
      });
      const seenByA = { features: ["query", "replication"], maxStreams: 7, version: 3 };
      assert.deepEqual(told(a.peer("b")!), seenByA);
      assert.deepEqual(told(b.peer("a")!), { features: [], maxStreams: 500, version: 3 });
    }),
  );
});
