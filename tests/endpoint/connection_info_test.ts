/** What `peer()` says of the age and the use of each connection. */

import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { ConnectionInfo, Endpoint, EndpointConfig } from "../../mod.ts";
import { bytes, type Cluster, inCluster } from "../support/cluster.ts";

const IDLE_MS = 1_000;
const LATENCY_MS = 10;

/** `a` dials `b`; both have one connection, established just now on `a`'s side. */
async function pair(
  cluster: Cluster,
  options: Partial<EndpointConfig> = {},
): Promise<[Endpoint, Endpoint]> {
  const common = { poolSize: 1, pool: { idleTimeoutMs: IDLE_MS }, ...options };
  const b = await cluster.start("b", common);
  const a = await cluster.start("a", common);
  await cluster.connect(a, "b");
  return [a, b];
}

function only(endpoint: Endpoint, nodeId: string): ConnectionInfo {
  const connections = endpoint.peer(nodeId)!.connections;
  assert.equal(connections.length, 1);
  // All of an endpoint's peers are told of as one is.
  assert.deepEqual(endpoint.peers()[0]!.connections, connections);
  return connections[0]!;
}

for (const maxProtocolVersion of [2, 3]) {
  describe(`a connection of version ${maxProtocolVersion}`, () => {
    it(
      "says how long it has been established, and how long it was not used",
      inCluster(async (cluster) => {
        const [a, b] = await pair(cluster, { maxProtocolVersion });
        const fresh = only(a, "b");
        assert.deepEqual([fresh.establishedMs, fresh.idleMs, fresh.state], [0, 0, "active"]);
        await cluster.environment.advance(700);
        assert.deepEqual([only(a, "b").establishedMs, only(a, "b").idleMs], [700, 700]);
        await cluster.environment.run(a.send("b", bytes("x")));
        await cluster.environment.advance(300);
        assert.deepEqual([only(a, "b").establishedMs, only(a, "b").idleMs], [1_000, 300]);
        // It came so much later there.
        assert.equal(only(b, "a").idleMs, 300 - LATENCY_MS);
        await cluster.environment.run(b.send("a", bytes("y")));
        await cluster.environment.advance(LATENCY_MS);
        assert.deepEqual([only(a, "b").idleMs, only(b, "a").idleMs], [0, LATENCY_MS]);
      }, { latencyMs: LATENCY_MS }),
    );

    it(
      "is idle after pool.idleTimeoutMs, and active again with the next message",
      inCluster(async (cluster) => {
        const [a, b] = await pair(cluster, { maxProtocolVersion });
        await cluster.environment.advance(IDLE_MS - 1);
        assert.equal(only(a, "b").state, "active");
        await cluster.environment.advance(1);
        assert.equal(only(a, "b").state, "idle");
        await cluster.environment.advance(LATENCY_MS);
        assert.equal(only(b, "a").state, "idle");
        await cluster.environment.run(a.send("b", bytes("x")));
        await cluster.environment.advance(LATENCY_MS);
        assert.deepEqual([only(a, "b").state, only(b, "a").state], ["active", "active"]);
      }, { latencyMs: LATENCY_MS }),
    );
  });
}

describe("the idle time of a connection", () => {
  it(
    "goes on through pings and acknowledgements",
    inCluster(async (cluster) => {
      const [a, b] = await pair(cluster, {
        pool: { healthCheckIntervalMs: 100, idleTimeoutMs: 0 },
      });
      await cluster.environment.run(a.send("b", bytes("x"), { acknowledged: true }));
      const { idleMs } = only(a, "b");
      assert.ok(idleMs >= 2 * LATENCY_MS, `${idleMs} ms after the message was written`);
      const pinged = a.peer("b")!.roundTrip?.count ?? 0;
      await cluster.environment.advance(1_000);
      assert.ok(a.peer("b")!.roundTrip!.count > pinged, "pings were answered");
      assert.equal(only(a, "b").idleMs, idleMs + 1_000);
      assert.equal(only(b, "a").idleMs, idleMs + 1_000 - LATENCY_MS);
      assert.equal(only(a, "b").state, "active");
    }, { latencyMs: LATENCY_MS }),
  );

  it(
    "begins anew with requests and streams",
    inCluster(async (cluster) => {
      const [a, b] = await pair(cluster);
      b.handle("echo", ({ payload }) => payload);
      b.onStream("log", () => new Promise(() => {}));
      await cluster.environment.advance(500);
      await cluster.environment.run(a.request("b", bytes("?"), { topic: "echo" }));
      assert.equal(only(a, "b").idleMs, 0);
      await cluster.environment.advance(500);
      const stream = await cluster.environment.run(a.openStream("b", { topic: "log" }));
      stream.closed.catch(() => {});
      await cluster.environment.advance(50);
      assert.equal(only(a, "b").idleMs, 50);
      await stream.reset("enough");
    }, { latencyMs: LATENCY_MS }),
  );
});

describe("a connection that hands over to a new one", () => {
  it(
    "is draining; the new one counts from its own beginning",
    inCluster(async (cluster) => {
      const [a] = await pair(cluster, { pool: { maxLifetimeMs: 1_000 } });
      await cluster.environment.run(a.send("b", bytes("x")));
      await cluster.environment.until(() => a.peer("b")!.connections.length === 2);
      const [fresh, old] = a.peer("b")!.connections as [ConnectionInfo, ConnectionInfo];
      assert.deepEqual([fresh.state, old.state], ["active", "draining"]);
      assert.equal(old.draining, true);
      assert.ok(old.establishedMs >= 900, `${old.establishedMs} ms`);
      assert.ok(fresh.establishedMs <= 2 * LATENCY_MS, `${fresh.establishedMs} ms`);
      await cluster.environment.advance(100);
      assert.equal(only(a, "b").state, "active");
    }, { latencyMs: LATENCY_MS }),
  );
});
