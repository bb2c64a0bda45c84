/** Who waits for the fate of a message, or of all before it, learns it whatever happens. */

import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { Endpoint, EndpointConfig } from "../../mod.ts";
import { bytes, type Cluster, inbox, inCluster } from "../support/cluster.ts";
import { undelivered, watch } from "../support/watch.ts";

const LATENCY = { latencyMs: 10 };
const WINDOW_MS = 1_000;
/** So little may be under way that the second message waits for the first. */
const ROOM_FOR_ONE = { maxMessageSize: 8, maxPendingBytes: 8 };
const [FIRST, SECOND] = ["message1", "message2"] as const;

type Options = Partial<EndpointConfig>;

async function pair(
  cluster: Cluster,
  options: { a?: Options; b?: Options } = {},
): Promise<[Endpoint, Endpoint]> {
  const a = await cluster.start("a", { poolSize: 1, ...options.a });
  const b = await cluster.start("b", { poolSize: 1, ...options.b });
  await cluster.connect(a, "b");
  await cluster.pooled(a, b, options.a?.poolSize ?? 1);
  return [a, b];
}

/** Packets to and from "b" are lost without a word. */
function vanish({ network, address }: Cluster): void {
  network.blackHoles.add(address("b"));
}

/** The connections to "b" break. */
async function cut({ network, address, environment }: Cluster): Promise<void> {
  network.reset(address("b"));
  await environment.advance(1);
}

describe("an acknowledged send that goes at most once", () => {
  const plan = { delivery: "at-most-once", acknowledged: true } as const;

  it(
    "rejects when what was written is lost with its connection, though the session goes on",
    inCluster(async (cluster) => {
      const [a, b] = await pair(cluster);
      vanish(cluster);
      const sent = watch(a.send("b", bytes("1"), plan));
      await cluster.environment.advance(1);
      await cut(cluster);
      cluster.network.blackHoles.clear();
      await cluster.pooled(a, b, 1);
      await cluster.environment.advance(100);
      assert.equal(sent.outcome, "rejected");
      assert.equal(a.stats().messagesLost, 1);
      assert.deepEqual(inbox(b), []);
    }, LATENCY),
  );
});

describe("flush while sends wait for room", () => {
  it(
    "rejects when the session ends, also where those that waited have given up",
    inCluster(async (cluster) => {
      const [a] = await pair(cluster, { a: { ...ROOM_FOR_ONE, resumeWindowMs: WINDOW_MS } });
      const events = undelivered(a);
      vanish(cluster);
      const first = watch(a.send("b", bytes(FIRST)));
      const stop = new AbortController();
      const second = watch(a.send("b", bytes(SECOND), { signal: stop.signal }));
      const flushed = watch(a.flush("b"));
      await cluster.environment.advance(1);
      assert.deepEqual([first.outcome, second.outcome], ["resolved", "pending"]);
      stop.abort();
      await cut(cluster);
      assert.deepEqual([second.outcome, flushed.outcome], ["rejected", "pending"]);
      await cluster.environment.advance(3 * WINDOW_MS);
      assert.deepEqual(events, [`unknown ${FIRST}`]);
      assert.equal(flushed.outcome, "rejected");
    }, LATENCY),
  );

  it(
    "waits for them, too",
    inCluster(async (cluster) => {
      const [a, b] = await pair(cluster, { a: ROOM_FOR_ONE });
      const first = watch(a.send("b", bytes(FIRST)));
      const second = watch(a.send("b", bytes(SECOND)));
      const flushed = watch(a.flush("b"));
      await cluster.environment.until(() => second.outcome === "resolved");
      assert.deepEqual([first.outcome, flushed.outcome], ["resolved", "pending"]);
      await cluster.environment.until(() => flushed.outcome !== "pending");
      assert.equal(flushed.outcome, "resolved");
      assert.deepEqual(inbox(b), [FIRST, SECOND]);
    }, LATENCY),
  );

  it(
    "ends though others go on sending, so that somebody always waits",
    inCluster(async (cluster) => {
      const [a, b] = await pair(cluster, { a: ROOM_FOR_ONE });
      b.onMessage(() => {});
      let stopped = false;
      let sent = 0;
      const sender = async () => {
        for (; !stopped; sent++) await a.send("b", bytes(FIRST));
      };
      const senders = Promise.all(Array.from({ length: 12 }, sender));
      await cluster.environment.advance(100);
      const before = sent;
      const flushed = watch(a.flush("b"));
      await cluster.environment.advance(5_000);
      const { outcome } = flushed;
      stopped = true;
      await cluster.environment.run(senders);
      assert.ok(sent - before > 100, `${sent - before} were sent beside it`);
      assert.equal(outcome, "resolved");
    }, LATENCY),
  );
});

describe("flush before there is a connection", () => {
  it(
    "rejects when the session that takes the messages ends without an acknowledgement",
    inCluster(async (cluster) => {
      const a = await cluster.start("a", { poolSize: 1, resumeWindowMs: WINDOW_MS });
      const b = await cluster.start("b", { poolSize: 1 });
      const events = undelivered(a);
      a.addEventListener("peerup", () => vanish(cluster));
      const connected = watch(a.connect({ nodeId: "b", address: cluster.address("b") }));
      const sent = watch(a.send("b", bytes("1")));
      const flushed = watch(a.flush("b"));
      await cluster.environment.until(() => connected.outcome === "resolved");
      await cut(cluster);
      assert.deepEqual([sent.outcome, flushed.outcome], ["resolved", "pending"]);
      await cluster.environment.advance(3 * WINDOW_MS);
      assert.deepEqual(inbox(b), []);
      assert.deepEqual(events, ["unknown 1"]);
      assert.equal(flushed.outcome, "rejected");
    }, LATENCY),
  );

  it(
    "resolves when what waited is acknowledged, in every lane",
    inCluster(async (cluster) => {
      const a = await cluster.start("a", { poolSize: 1 });
      const b = await cluster.start("b", { poolSize: 1 });
      const connected = watch(a.connect({ nodeId: "b", address: cluster.address("b") }));
      const lanes = ["control", "normal", "bulk"] as const;
      for (const lane of lanes) await a.send("b", bytes(lane), { lane });
      const flushed = watch(a.flush("b"));
      await cluster.environment.until(() => b.stats().receiveQueueLength === 3);
      assert.deepEqual([connected.outcome, flushed.outcome], ["resolved", "pending"]);
      await cluster.environment.advance(100);
      assert.equal(flushed.outcome, "resolved");
    }, LATENCY),
  );
});

describe("close", () => {
  it(
    "settles all that waits: sends, flushes, requests, streams, dials",
    inCluster(async (cluster) => {
      const { environment } = cluster;
      // The stream alone has more under way.
      const limits = { maxMessageSize: 100_000, maxPendingBytes: 100_000 };
      const [a, b] = await pair(cluster, { a: limits });
      b.handle(undefined, () => new Promise<never>(() => {}));
      b.onStream(undefined, () => {});
      const stream = await a.openStream("b");
      const writer = stream.writable.getWriter();
      const waiting = [
        watch(a.request("b", bytes("q"), { timeoutMs: Infinity })),
        watch(writer.closed),
        watch(writer.write(new Uint8Array(2_000_000))),
        watch(stream.readable.getReader().read()),
        watch(stream.closed),
      ];
      await environment.advance(50);
      vanish(cluster);
      cluster.network.blackHoles.add(cluster.address("c"));
      waiting.push(
        watch(a.send("b", new Uint8Array(100_000), { acknowledged: true })),
        watch(a.send("b", new Uint8Array(100_000))),
        watch(a.flush("b")),
        watch(a.request("b", bytes("q"))),
        watch(a.openStream("b").then(({ closed }) => closed)),
        watch(writer.close()),
        watch(a.connect({ nodeId: "c", address: cluster.address("c") })),
      );
      await environment.advance(1);
      assert.deepEqual(new Set(waiting.map(({ outcome }) => outcome)), new Set(["pending"]));
      const closed = watch(a.close({ drainMs: 100 }));
      await environment.until(() => closed.outcome !== "pending");
      assert.equal(closed.outcome, "resolved");
      assert.deepEqual(new Set(waiting.map(({ outcome }) => outcome)), new Set(["rejected"]));
    }),
  );
});
