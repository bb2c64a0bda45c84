/** Several processes at one address under one node id, as with `reusePort`: each dial finds any. */

import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { Endpoint } from "../../mod.ts";
import { bytes, type Cluster, inbox, inCluster, text } from "../support/cluster.ts";
import { undelivered } from "../support/watch.ts";

const ADDRESS = "memory://w:1";

/** Two workers with the node id "w", and a dialer whose dials go to the next in `order`. */
async function workers(cluster: Cluster, order: (number | undefined)[]) {
  const [first, second] = [
    await cluster.start("w1", { nodeId: "w" }),
    await cluster.start("w2", { nodeId: "w" }),
  ];
  const base = cluster.network.transport("d");
  let last = 0;
  const dialer = new Endpoint({
    nodeId: "d",
    security: "legacy",
    environment: cluster.environment,
    transports: [{
      ...base,
      dial: (_, options) => base.dial(cluster.address(`w${last = order.shift() ?? last}`), options),
    }],
    useAdvertised: "never",
    reconnect: { initialBackoffMs: 10, maxBackoffMs: 20 },
  });
  await dialer.start();
  cluster.endpoints.set("d", dialer);
  await cluster.environment.run(dialer.connect({ nodeId: "w", address: ADDRESS }));
  const cut = (worker: 1 | 2) => cluster.network.reset(cluster.address(`w${worker}`));
  const connected = (endpoint: Endpoint, count = 1) =>
    cluster.environment.until(() => endpoint.peer("d")?.connections.length === count);
  return { first, second, dialer, cut, connected };
}

describe("workers that share a node id", () => {
  it(
    "get a session each: a pool keeps to the one it found first",
    inCluster(async (cluster) => {
      const { first, second, dialer } = await workers(cluster, [1, 2, 2]);
      const lost = undelivered(dialer);
      const seen: string[] = [];
      second.addEventListener("peerdown", ({ detail }) => seen.push(detail.nodeId));
      for (let i = 0; i < 200; i++) {
        await dialer.send("w", bytes(`${i}`));
        await cluster.environment.advance(100);
      }
      await cluster.environment.run(dialer.flush("w"));
      assert.deepEqual(inbox(first).length, 200);
      assert.deepEqual(inbox(second), []);
      assert.deepEqual(lost, []);
      assert.equal(dialer.poolStats("w").active, 1);
      assert.deepEqual(seen, ["d"]);
      assert.deepEqual(second.peer("d")?.connections, []);
    }),
  );

  it(
    "are changed when the connection is lost, and what may not have arrived is reported",
    inCluster(async (cluster) => {
      const { first, second, dialer, cut, connected } = await workers(cluster, [1, 1, 2]);
      await connected(first, 2);
      const lost = undelivered(dialer);
      await dialer.send("w", bytes("one"));
      await cluster.environment.run(dialer.flush("w"));
      await dialer.send("w", bytes("two"));
      cut(1);
      await connected(second, 2);
      await dialer.send("w", bytes("three"));
      await cluster.environment.run(dialer.flush("w"));
      assert.deepEqual(inbox(first), ["one"]);
      assert.deepEqual(lost, ["unknown two"]);
      assert.deepEqual(inbox(second), ["three"]);
    }),
  );

  it(
    "take a dialer back that had a session with the other one meanwhile",
    inCluster(async (cluster) => {
      const { first, second, dialer, cut, connected } = await workers(cluster, [1, 1, 2, 2, 1]);
      await connected(first, 2);
      const [back, lost] = [undelivered(first), undelivered(dialer)];
      const received: string[] = [];
      first.onMessage(({ payload }) => void received.push(text(payload)));
      await dialer.send("w", bytes("one"));
      await cluster.environment.run(dialer.flush("w"));
      cut(1);
      // The first worker still keeps its session, and has something for the dialer.
      await cluster.environment.until(() => first.peer("d")?.connections.length === 0);
      await first.send("d", bytes("late"));
      await connected(second, 2);
      await dialer.send("w", bytes("two"));
      await cluster.environment.run(dialer.flush("w"));
      assert.deepEqual(inbox(second), ["two"]);
      cut(2);
      const before = cluster.environment.now();
      await connected(first, 2);
      assert.ok(cluster.environment.now() - before < 1_000);
      await dialer.send("w", bytes("three"));
      await cluster.environment.run(dialer.flush("w"));
      assert.deepEqual(received, ["one", "three"]);
      assert.deepEqual([lost, back], [[], ["unknown late"]]);
    }),
  );
});
