/** When a session ends by distrust, all of its connections end: none is left without a session. */

import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { Endpoint } from "../../mod.ts";
import { bytes, type Cluster, inbox, inCluster, watchStates } from "../support/cluster.ts";
import { undelivered, watch } from "../support/watch.ts";
import { changing, indexOf, newKeys } from "./on_the_line.ts";

const [A, B] = [newKeys(), newKeys()];
const trustedKeys = { a: A.publicKey, b: B.publicKey };
const POOL_SIZE = 2;
const WINDOW_MS = 5_000;

/** Two that sign; the first "evil" that "a" sends is changed on its way. */
async function pair(cluster: Cluster): Promise<[Endpoint, Endpoint]> {
  // So that the changed byte is found by the signature, and not before it.
  const plain = { checksum: "never", compression: { enabled: false } } as const;
  const common = { ...plain, poolSize: POOL_SIZE, resumeWindowMs: WINDOW_MS };
  let changed = false;
  const line = changing(cluster.network.transport("a"), (body) => {
    const at = indexOf(body, bytes("evil"));
    if (changed || at < 0) return body;
    changed = true;
    body[at]! ^= 1;
    return body;
  });
  const signing = { trustedKeys };
  const a = await cluster.start("a", {
    ...common,
    transports: [line],
    signing: { ...signing, privateKey: A.privateKey },
  });
  const b = await cluster.start("b", {
    ...common,
    signing: { ...signing, privateKey: B.privateKey },
  });
  await cluster.connect(a, "b");
  await cluster.pooled(a, b, POOL_SIZE);
  return [a, b];
}

/** "b" distrusts the session, and the two have another one. */
async function distrusted(cluster: Cluster, a: Endpoint, b: Endpoint): Promise<void> {
  const changes = watchStates(b);
  const sent = watch(a.send("b", bytes("evil"), { acknowledged: true }));
  await cluster.environment.until(() => sent.outcome === "rejected");
  await cluster.environment.until(() => changes.some(({ to }) => to === "active"));
  await cluster.environment.advance(10_000);
  assert.deepEqual(inbox(b), []);
}

describe("a session that ends by distrust", () => {
  it(
    "takes all of its connections with it, and the next one has as many",
    inCluster(async (cluster) => {
      const [a, b] = await pair(cluster);
      const changes = watchStates(b);
      await distrusted(cluster, a, b);
      const sent = watch(a.send("b", bytes("good"), { acknowledged: true }));
      await cluster.environment.advance(1_000);
      assert.equal(sent.outcome, "resolved");
      assert.deepEqual(inbox(b), ["good"]);
      const over = changes.filter(({ to }) => to === "closed" || to === "failed");
      assert.equal(new Set(over.map(({ connection }) => connection)).size, POOL_SIZE);
      assert.deepEqual([a.poolStats("b").active, b.poolStats("a").active], [POOL_SIZE, POOL_SIZE]);
    }),
  );

  it(
    "leaves no connection that would keep the next session from ending",
    inCluster(async (cluster) => {
      const [a, b] = await pair(cluster);
      const old = new Set(cluster.network.links);
      await distrusted(cluster, a, b);
      const events = undelivered(b);
      // Those of the new session break, and "a" can't come back.
      cluster.network.refusing.add(cluster.address("b"));
      for (const link of [...cluster.network.links]) if (!old.has(link)) link.reset();
      await cluster.environment.advance(1);
      const sent = watch(b.send("a", bytes("x")));
      await cluster.environment.advance(2 * WINDOW_MS);
      assert.equal(sent.outcome, "resolved");
      assert.deepEqual(events, ["unsent x"]);
    }),
  );
});
