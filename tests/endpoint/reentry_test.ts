/** Applications that call the endpoint from within what it calls. */

import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { Endpoint } from "../../mod.ts";
import { bytes, type Cluster, inbox, inCluster, text } from "../support/cluster.ts";
import { watch } from "../support/watch.ts";

const MOST = 3;

async function pair(cluster: Cluster): Promise<[Endpoint, Endpoint]> {
  const a = await cluster.start("a", { poolSize: 1, maxPendingMessages: MOST });
  const b = await cluster.start("b", { poolSize: 1 });
  await cluster.connect(a, "b");
  await cluster.pooled(a, b, 1);
  return [a, b];
}

/** The connections to "b" break, and there are no new ones. */
async function cutOff({ network, address, environment }: Cluster): Promise<void> {
  network.blackHoles.add(address("b"));
  network.reset(address("b"));
  await environment.advance(1);
}

describe("a listener for what drop-oldest drops", () => {
  const plan = { whenFull: "drop-oldest" } as const;

  it(
    "may send it again: the queue holds no more than it may",
    inCluster(async (cluster) => {
      const [a] = await pair(cluster);
      await cutOff(cluster);
      let again = 0;
      a.addEventListener("undelivered", ({ detail: { payload } }) => {
        if (again++ < 100) watch(a.send("b", payload, plan));
      });
      for (let i = 0; i < 2 * MOST; i++) await a.send("b", bytes(`${i}`), plan);
      await cluster.environment.advance(10);
      assert.ok(again >= 100, `${again}`);
      assert.equal(a.peer("b")!.pendingMessages, MOST);
      assert.equal(a.stats().handlerErrors, 0);
    }),
  );

  it(
    "may send as much as there is room for: the queue holds no more than it may",
    inCluster(async (cluster) => {
      const [a] = await pair(cluster);
      await cutOff(cluster);
      a.addEventListener("undelivered", () => {
        while (a.trySend("b", bytes("more")));
      });
      for (let i = 0; i < 2 * MOST; i++) await a.send("b", bytes(`${i}`), plan);
      assert.equal(a.peer("b")!.pendingMessages, MOST);
      assert.equal(a.stats().handlerErrors, 0);
    }),
  );
});

describe("a message handler", () => {
  it(
    "may send, and disconnect from the sender: what it was given is not given again",
    inCluster(async (cluster) => {
      const [a, b] = await pair(cluster);
      const got: string[] = [];
      const left: Promise<void>[] = [];
      b.onMessage(({ payload }) => {
        got.push(text(payload));
        watch(b.send("a", bytes(`re ${text(payload)}`)));
        if (got.length === 2) left.push(b.disconnect("a"));
      });
      for (const number of ["1", "2", "3"]) watch(a.send("b", bytes(number)));
      await cluster.environment.advance(20_000);
      await cluster.environment.run(Promise.all(left));
      assert.deepEqual(got, [...new Set(got)]);
      assert.deepEqual(got.slice(0, 2), ["1", "2"]);
      assert.deepEqual(inbox(a).slice(0, 2), ["re 1", "re 2"]);
      assert.equal(b.stats().handlerErrors, 0);
    }),
  );
});
