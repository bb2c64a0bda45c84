/** Pools over time: idle connections, lifetimes, limits of the endpoint, strategies. */

import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { type Endpoint, type EndpointConfig, TransportError } from "../../mod.ts";
import { bytes, type Cluster, inbox, inCluster, text, watchStates } from "../support/cluster.ts";

const IDLE_MS = 1_000;
const pool = { idleTimeoutMs: IDLE_MS };

/** `a` dials `b`, with this many connections. */
async function pair(
  cluster: Cluster,
  poolSize: number,
  options: Partial<EndpointConfig> = {},
  listener: Partial<EndpointConfig> = {},
): Promise<[Endpoint, Endpoint]> {
  const b = await cluster.start("b", { poolSize, rateLimit: "disabled", ...listener });
  const a = await cluster.start("a", { poolSize, rateLimit: "disabled", ...options });
  await cluster.connect(a, "b");
  await cluster.pooled(a, b, poolSize);
  return [a, b];
}

const activeOf = (from: Endpoint, to: string) => from.poolStats(to).active;

for (const version of [2, 3]) {
  describe(`idle connections of version ${version}`, () => {
    const maxProtocolVersion = version;

    it(
      "end, but for as many as must stay",
      inCluster(async (cluster) => {
        const [a, b] = await pair(cluster, 4, {
          maxProtocolVersion,
          pool: { ...pool, minConnections: 2 },
        });
        await cluster.environment.advance(IDLE_MS - 200);
        assert.equal(activeOf(a, "b"), 4);
        await cluster.environment.advance(400);
        await cluster.pooled(a, b, 2);
        await cluster.environment.advance(10 * IDLE_MS);
        assert.equal(activeOf(a, "b"), 2);
        assert.equal(a.poolStats("b").idle, 2);
        await cluster.environment.run(a.send("b", bytes("x")));
        await cluster.environment.until(() => b.stats().messagesReceived === 1);
        assert.deepEqual(inbox(b), ["x"]);
        assert.equal(a.poolStats("b").idle, 1);
      }),
    );

    it(
      "stay where idleTimeoutMs is 0",
      inCluster(async (cluster) => {
        const [a] = await pair(cluster, 3, { maxProtocolVersion, pool: { idleTimeoutMs: 0 } });
        await cluster.environment.advance(1_000_000);
        assert.equal(activeOf(a, "b"), 3);
        assert.equal(a.poolStats("b").idle, 0);
      }),
    );

    it(
      "come back when there is more to send than one takes",
      inCluster(async (cluster) => {
        const compression = { enabled: false };
        const [a, b] = await pair(cluster, 2, { maxProtocolVersion, pool, compression });
        await cluster.environment.advance(2 * IDLE_MS);
        await cluster.pooled(a, b, 1);
        await cluster.environment.run(a.send("b", new Uint8Array(500_000)));
        await cluster.pooled(a, b, 2);
        await cluster.environment.until(() => b.stats().messagesReceived === 1);
        assert.equal(b.tryReceive()!.payload.length, 500_000);
      }, { highWater: 10_000 }),
    );

    it(
      "are told: active, idle, active again",
      inCluster(async (cluster) => {
        const [a] = await pair(cluster, 1, { maxProtocolVersion, pool });
        const changes = watchStates(a);
        await cluster.environment.advance(IDLE_MS + 1);
        await cluster.environment.run(a.send("b", bytes("x")));
        await cluster.environment.advance(1);
        const seen = changes.map(({ from, to }) => `${from} to ${to}`);
        assert.deepEqual(seen, ["active to idle", "idle to active"]);
      }),
    );
  });
}

describe("what keeps a connection from being idle", () => {
  for (const [name, from] of [["what it sends", 0], ["what it receives", 1]] as const) {
    it(
      name,
      inCluster(async (cluster) => {
        const ends = await pair(cluster, 1, { pool });
        const changes = watchStates(ends[0]);
        for (let i = 0; i < 20; i++) {
          await cluster.environment.run(ends[from].send(from === 0 ? "b" : "a", bytes("x")));
          await cluster.environment.advance(IDLE_MS / 2);
        }
        assert.deepEqual(changes, []);
      }),
    );
  }

  it(
    "but not pings",
    inCluster(async (cluster) => {
      const [a] = await pair(cluster, 1, { pool: { ...pool, healthCheckIntervalMs: 100 } });
      await cluster.environment.advance(IDLE_MS + 100);
      assert.equal(a.poolStats("b").idle, 1);
    }),
  );
});

for (const version of [2, 3]) {
  describe(`the lifetime of a connection of version ${version}`, () => {
    it(
      "ends with a hand-over: nothing is lost, doubled or out of order",
      inCluster(async (cluster) => {
        const options = {
          maxProtocolVersion: version,
          pool: { maxLifetimeMs: 500, idleTimeoutMs: 0 },
        };
        const [a, b] = await pair(cluster, 2, options);
        const addresses = () => a.peer("b")!.connections.map(({ localAddress }) => localAddress);
        const first = addresses();
        const undelivered: unknown[] = [];
        a.addEventListener("undelivered", (event) => undelivered.push(event.detail));
        const received: string[] = [];
        let least = 2;
        for (let i = 0; i < 200; i++) {
          await cluster.environment.run(a.send("b", bytes(`${i}`)));
          await cluster.environment.advance(25);
          least = Math.min(least, activeOf(a, "b"));
          received.push(...inbox(b));
        }
        await cluster.environment.until(() => b.stats().messagesReceived === 200);
        received.push(...inbox(b));
        assert.deepEqual(received, Array.from({ length: 200 }, (_, i) => `${i}`));
        assert.deepEqual(undelivered, []);
        assert.ok(least > 0, "never without a connection");
        for (const address of addresses()) assert.ok(!first.includes(address), address);
      }),
    );
  });
}

describe("the lifetime of a connection", () => {
  it(
    "hands over in the middle of a long message",
    inCluster(async (cluster) => {
      const [a, b] = await pair(cluster, 1, { pool: { maxLifetimeMs: 100 } });
      const before = a.peer("b")!.connections[0]!.localAddress;
      const sent = a.send("b", new Uint8Array(4_000_000).fill(7), { acknowledged: true });
      await cluster.environment.run(sent);
      assert.deepEqual(b.tryReceive()!.payload, new Uint8Array(4_000_000).fill(7));
      await cluster.environment.advance(200);
      assert.notEqual(a.peer("b")!.connections[0]!.localAddress, before);
      assert.equal(b.stats().duplicates, 0);
    }, { latencyMs: 30, highWater: 20_000 }),
  );

  it(
    "is no reason to give up a connection when no other can be had",
    inCluster(async (cluster) => {
      const [a] = await pair(cluster, 1, { pool: { maxLifetimeMs: 1_000 } });
      cluster.network.refusing.add(cluster.address("b"));
      await cluster.environment.advance(5_000);
      assert.equal(activeOf(a, "b"), 1);
      const before = a.peer("b")!.connections[0]!.localAddress;
      cluster.network.refusing.clear();
      await cluster.environment.advance(15_000);
      assert.equal(activeOf(a, "b"), 1);
      assert.notEqual(a.peer("b")!.connections[0]!.localAddress, before);
    }),
  );
});

describe("the connections of an endpoint", () => {
  /** `hub`, and so many nodes to be reached through its routes. */
  async function routed(
    cluster: Cluster,
    count: number,
    options: Partial<EndpointConfig>,
  ): Promise<[Endpoint, Endpoint[]]> {
    const names = Array.from({ length: count }, (_, i) => `n${i}`);
    const nodes: Endpoint[] = [];
    for (const name of names) nodes.push(await cluster.start(name));
    const routes = Object.fromEntries(
      names.map((name) => [name, { nodeId: name, address: cluster.address(name) }]),
    );
    return [await cluster.start("hub", { poolSize: 1, routes, ...options }), nodes];
  }

  const send = (cluster: Cluster, hub: Endpoint, name: string) =>
    cluster.environment.run(hub.send(name, bytes(`to ${name}`), { acknowledged: true }));

  const connected = (hub: Endpoint) =>
    hub.peers().filter(({ state }) => state === "active").map(({ nodeId }) => nodeId);

  it(
    "maxIdle: peers that were dialed for a message give way, the longest idle one first",
    inCluster(async (cluster) => {
      const [hub, nodes] = await routed(cluster, 4, { pool: { ...pool, maxIdle: 2 } });
      for (let i = 0; i < 4; i++) {
        await send(cluster, hub, `n${i}`);
        await cluster.environment.advance(10);
      }
      assert.deepEqual(connected(hub), ["n0", "n1", "n2", "n3"]);
      await cluster.environment.advance(2 * IDLE_MS);
      assert.deepEqual(connected(hub), ["n2", "n3"]);
      // They are back when there is something for them.
      await send(cluster, hub, "n0");
      assert.deepEqual(inbox(nodes[0]!), ["to n0", "to n0"]);
      assert.deepEqual(connected(hub).sort(), ["n0", "n2", "n3"]);
      await hub.flush("n1");
    }),
  );

  it(
    "maxIdle: a peer that the application connected to stays",
    inCluster(async (cluster) => {
      const [hub] = await routed(cluster, 3, { pool: { ...pool, maxIdle: 0 } });
      await cluster.connect(hub, "n0");
      await send(cluster, hub, "n1");
      await send(cluster, hub, "n2");
      await cluster.connect(hub, "n2");
      await cluster.environment.advance(3 * IDLE_MS);
      assert.deepEqual(connected(hub), ["n0", "n2"]);
    }),
  );

  it(
    "maxIdle: a request under way and an open stream are no idleness",
    inCluster(async (cluster) => {
      const [hub, nodes] = await routed(cluster, 3, { pool: { ...pool, maxIdle: 0 } });
      let answer = () => {};
      nodes[0]!.handle("slow", () => new Promise((done) => answer = () => done(bytes("late"))));
      const request = hub.request("n0", bytes(""), { topic: "slow", timeoutMs: 60_000 });
      nodes[1]!.onStream("log", () => new Promise(() => {}));
      const stream = await cluster.environment.run(hub.openStream("n1", { topic: "log" }));
      await send(cluster, hub, "n2");
      await cluster.environment.advance(5 * IDLE_MS);
      assert.deepEqual(connected(hub), ["n0", "n1"]);
      answer();
      assert.equal(text(await cluster.environment.run(request)), "late");
      stream.closed.catch(() => {});
      await stream.reset("enough");
      await cluster.environment.advance(3 * IDLE_MS);
      assert.deepEqual(connected(hub), []);
    }),
  );

  it(
    "maxConns: the peer that was idle longest gives way to a new one",
    inCluster(async (cluster) => {
      const [hub, nodes] = await routed(cluster, 4, { pool: { maxConns: 2 } });
      for (const name of ["n0", "n1", "n0", "n2", "n3", "n0"]) {
        await send(cluster, hub, name);
        await cluster.environment.advance(2_000);
        assert.ok(hub.stats().connectionCount <= 2);
      }
      assert.deepEqual(connected(hub), ["n3", "n0"]);
      assert.deepEqual(inbox(nodes[0]!), ["to n0", "to n0", "to n0"]);
    }),
  );

  it(
    "maxConns: the second connection of a pool gives way to a peer that has none",
    inCluster(async (cluster) => {
      const [hub] = await routed(cluster, 3, { poolSize: 2, pool: { maxConns: 3 } });
      await cluster.connect(hub, "n0");
      await cluster.environment.until(() => activeOf(hub, "n0") === 2);
      await cluster.connect(hub, "n1");
      await cluster.environment.advance(2_000);
      assert.equal(activeOf(hub, "n0") + activeOf(hub, "n1"), 3);
      await cluster.connect(hub, "n2");
      await cluster.environment.advance(2_000);
      assert.deepEqual(["n0", "n1", "n2"].map((name) => activeOf(hub, name)), [1, 1, 1]);
    }),
  );

  it(
    "maxConns: where all are in use, PoolExhausted says so",
    inCluster(async (cluster) => {
      const [hub] = await routed(cluster, 2, { pool: { maxConns: 1 } });
      await cluster.connect(hub, "n0");
      await cluster.environment.advance(5_000);
      const failure = await cluster.connect(hub, "n1").then(() => undefined, (error) => error);
      assert.ok(failure instanceof TransportError);
      assert.equal(failure.code, "PoolExhausted");
      assert.equal(failure.peer, "n1");
      assert.match(failure.message, /1 connections are dialed, and all in use/);
      assert.deepEqual(hub.stats().errors, { PoolExhausted: 1 });
      assert.deepEqual(connected(hub), ["n0"]);
      // What waits for a route is sent when there is room.
      const sent = hub.send("n1", bytes("patience"), { acknowledged: true });
      await cluster.environment.run(hub.disconnect("n0"));
      await cluster.environment.run(sent);
    }),
  );
});

describe("the strategy, in version 2, for what is sent at most once", () => {
  const spread = async (cluster: Cluster, strategy: "first-available" | "round-robin") => {
    const [a, b] = await pair(cluster, 3, {
      maxProtocolVersion: 2,
      pool: { strategy, idleTimeoutMs: 0 },
    });
    for (let i = 0; i < 30; i++) {
      await cluster.environment.run(a.send("b", new Uint8Array(100), { delivery: "at-most-once" }));
      await cluster.environment.advance(1);
    }
    await cluster.environment.advance(100);
    assert.equal(b.stats().messagesReceived, 30);
    return a.peer("b")!.connections.map(({ bytesSent }) => Math.round(bytesSent / 1_000));
  };

  it(
    "round-robin: every connection takes its share",
    inCluster(async (cluster) => {
      assert.deepEqual(await spread(cluster, "round-robin"), [1, 1, 1]);
    }),
  );

  it(
    "first-available: the first takes all",
    inCluster(async (cluster) => {
      assert.deepEqual(await spread(cluster, "first-available"), [3, 0, 0]);
    }),
  );
});
