/** Every pair of protocol versions, and peers that are started again with another one. */

import assert from "node:assert/strict";
import { describe, it } from "node:test";
import {
  type Endpoint,
  type EndpointConfig,
  HandshakeError,
  type UndeliveredDetail,
} from "../../mod.ts";
import { bytes, type Cluster, inbox, inCluster, text } from "../support/cluster.ts";

const VERSIONS = [1, 2, 3] as const;
const OLD_VERSIONS = [1, 2] as const;
const DIALERS = ["a", "b", "both"] as const;
const COUNT = 50;
const FOLLOW_UPS = 5;

const numbers = (from: number, count: number) =>
  Array.from({ length: count }, (_, i) => `${from + i}`);

const pinned = (version: number, more: Partial<EndpointConfig> = {}) => ({
  maxProtocolVersion: version,
  ...more,
});

/** Starts "a" and "b" with a version each and connects them. */
async function connected(
  cluster: Cluster,
  versions: readonly [number, number],
  dialer: typeof DIALERS[number],
): Promise<[Endpoint, Endpoint]> {
  const a = await cluster.start("a", pinned(versions[0]));
  const b = await cluster.start("b", pinned(versions[1]));
  const dials: Promise<void>[] = [];
  if (dialer !== "b") dials.push(a.connect({ nodeId: "b", address: cluster.address("b") }));
  if (dialer !== "a") dials.push(b.connect({ nodeId: "a", address: cluster.address("a") }));
  await cluster.environment.run(Promise.all(dials));
  await cluster.pooled(a, b, 2);
  return [a, b];
}

function undelivered(endpoint: Endpoint): UndeliveredDetail[] {
  const details: UndeliveredDetail[] = [];
  endpoint.addEventListener("undelivered", ({ detail }) => details.push(detail));
  return details;
}

describe("two endpoints of versions of their own", () => {
  for (const own of VERSIONS) {
    for (const other of VERSIONS) {
      for (const dialer of DIALERS) {
        it(
          `${own} and ${other}, dialed by ${dialer}: agree on the lower and talk in order`,
          inCluster(async (cluster) => {
            const [a, b] = await connected(cluster, [own, other], dialer);
            const agreed = Math.min(own, other);
            for (const [x, y] of [[a, "b"], [b, "a"]] as const) {
              const peer = x.peer(y)!;
              assert.equal(peer.version, agreed);
              assert.deepEqual(peer.connections.map(({ version }) => version), [agreed, agreed]);
            }
            for (const number of numbers(0, COUNT)) {
              await a.send("b", bytes(number));
              await b.send("a", bytes(number));
            }
            const flushes = Promise.all([a.flush("b"), b.flush("a")]);
            await cluster.environment.run(flushes);
            await cluster.environment.advance(50);
            assert.deepEqual([inbox(a), inbox(b)], [numbers(0, COUNT), numbers(0, COUNT)]);
          }),
        );
      }
    }
  }
});

describe("towards a peer of an older version", () => {
  const refused = { code: "UnsupportedProtocol", peer: "b", retryable: false };

  for (const version of OLD_VERSIONS) {
    it(
      `${version}, what only version 3 has is refused at once`,
      inCluster(async (cluster) => {
        const [a, b] = await connected(cluster, [3, version], "a");
        const events = undelivered(a);
        const payload = bytes("x");
        await assert.rejects(async () => await a.send("b", payload, { topic: "t" }), refused);
        await assert.rejects(
          async () => await a.send("b", payload, { acknowledged: true }),
          refused,
        );
        assert.throws(() => a.trySend("b", payload, { topic: "t" }), refused);
        await assert.rejects(a.request("b", payload), refused);
        await assert.rejects(a.openStream("b"), refused);
        const sent = await a.broadcast(payload, { topic: "t" });
        assert.deepEqual(sent.failed.map(({ nodeId }) => nodeId), ["b"]);
        await cluster.environment.advance(50);
        assert.deepEqual([inbox(b), events], [[], []]);
        assert.equal(a.stats().messagesSent, 0);
      }),
    );

    it(
      `${version}, lanes are taken for what they are: one connection has one order`,
      inCluster(async (cluster) => {
        const [a, b] = await connected(cluster, [3, version], "a");
        for (const lane of ["bulk", "normal", "control"] as const) {
          await a.send("b", bytes(lane), { lane });
        }
        await cluster.environment.advance(50);
        assert.deepEqual(inbox(b), ["bulk", "normal", "control"]);
      }),
    );

    it(
      `${version}, what was queued before the version was known is reported, and the rest arrives`,
      inCluster(async (cluster) => {
        const peers = [{ nodeId: "b", address: cluster.address("b") }];
        const a = await cluster.start("a", { peers });
        const events = undelivered(a);
        const failures: string[] = [];
        const fails = (name: string) => (error: { code: string; outcome?: string }) =>
          failures.push(`${name}: ${error.code} ${error.outcome ?? ""}`.trim());
        assert.equal(a.peer("b")!.version, undefined);
        await a.send("b", bytes("before"));
        await a.send("b", bytes("with a topic"), { topic: "t", lane: "control" });
        a.send("b", bytes("acknowledged"), { acknowledged: true }).catch(fails("send"));
        a.request("b", bytes("request")).catch(fails("request"));
        await a.send("b", bytes("after"));
        const b = await cluster.start("b", pinned(version));
        await cluster.environment.until(() => a.peer("b")!.state === "active");
        await cluster.environment.advance(100);
        assert.deepEqual(inbox(b), ["before", "after"]);
        assert.deepEqual(
          events.map(({ nodeId, payload, lane, topic, fate, error }) => [
            nodeId,
            text(payload),
            lane,
            topic,
            fate,
            error.code,
          ]),
          [
            ["b", "with a topic", "control", "t", "unsent", "UnsupportedProtocol"],
            ["b", "acknowledged", "normal", undefined, "unsent", "UnsupportedProtocol"],
          ],
        );
        const [asked, acknowledged] = failures.toSorted();
        assert.match(asked!, /^request: .* not-run$/);
        assert.equal(acknowledged, "send: UnsupportedProtocol");
        assert.equal(a.peer("b")!.pendingMessages, 0);
        assert.equal(a.stats().sendFailures, 2);
      }),
    );

    it(
      `${version}, a stream that was opened before the version was known fails and frees its place`,
      inCluster(async (cluster) => {
        const peers = [{ nodeId: "b", address: cluster.address("b") }];
        const a = await cluster.start("a", { peers });
        const [first, second] = [await a.openStream("b"), await a.openStream("b")];
        const write = first.writable.getWriter().write(new Uint8Array(300_000));
        const read = second.readable.getReader().read();
        const ends = [first.closed, second.closed, write, read].map(async (promise) =>
          await promise.then(() => "done", ({ code, peer }) => `${code} ${peer}`)
        );
        assert.equal(a.peer("b")!.openStreams, 2);
        const b = await cluster.start("b", pinned(version));
        const outcome = cluster.environment.run(Promise.all(ends), 10_000);
        assert.deepEqual(await outcome, Array(4).fill("UnsupportedProtocol b"));
        await cluster.environment.until(() => a.peer("b")!.state === "active");
        assert.deepEqual([a.peer("b")!.openStreams, a.peer("b")!.pendingMessages], [0, 0]);
        // Nobody takes it for a fault of the connection.
        await a.send("b", bytes("after"));
        await cluster.environment.advance(100);
        assert.deepEqual(inbox(b), ["after"]);
      }),
    );
  }
});

describe("minProtocolVersion", () => {
  for (const version of OLD_VERSIONS) {
    const mismatch = (error: unknown) => {
      assert.ok(error instanceof HandshakeError);
      assert.equal(error.code, "HandshakeFailed");
      assert.equal(error.rejectCode, "VERSION_MISMATCH");
      assert.equal(error.retryable, false);
      return true;
    };

    it(
      `of the listener refuses a dialer of version ${version}, typed on both sides`,
      inCluster(async (cluster) => {
        const a = await cluster.start("a", pinned(version));
        const b = await cluster.start("b", { minProtocolVersion: 3 });
        await assert.rejects(cluster.connect(a, "b"), mismatch);
        await cluster.environment.advance(50);
        assert.equal(b.stats().errors.HandshakeFailed, 1);
        assert.deepEqual([a.peers(), b.peers()], [[], []]);
      }),
    );

    it(
      `of the dialer refuses a listener of version ${version}, typed on both sides`,
      inCluster(async (cluster) => {
        const a = await cluster.start("a", { minProtocolVersion: 3 });
        const b = await cluster.start("b", pinned(version));
        await assert.rejects(cluster.connect(a, "b"), mismatch);
        await cluster.environment.advance(50);
        assert.equal(b.stats().errors.HandshakeFailed, 1);
        assert.deepEqual([a.peers(), b.peers()], [[], []]);
      }),
    );
  }

  it(
    "that both sides meet is no obstacle",
    inCluster(async (cluster) => {
      const a = await cluster.start("a", { minProtocolVersion: 2, maxProtocolVersion: 2 });
      await cluster.start("b", { minProtocolVersion: 2 });
      await cluster.connect(a, "b");
      assert.equal(a.peer("b")!.version, 2);
    }),
  );
});

describe("an endpoint that is started again with another version", () => {
  for (const [before, after] of [[2, 3], [3, 2], [1, 3], [3, 1]] as const) {
    for (const restarted of ["the listener", "the dialer"] as const) {
      it(
        `${before} -> ${after} goes on, where it is ${restarted}`,
        inCluster(async (cluster) => {
          const { environment } = cluster;
          const stays = await cluster.start("stays");
          const peers = [{ nodeId: "stays", address: cluster.address("stays") }];
          const more = restarted === "the dialer" ? { peers } : {};
          const first = await cluster.start("moves", pinned(before, more));
          if (restarted === "the listener") await cluster.connect(stays, "moves");
          await cluster.pooled(stays, first, 2);
          const events = undelivered(stays);
          for (const n of numbers(0, FOLLOW_UPS)) await stays.send("moves", bytes(n));
          await first.send("stays", bytes("first"));
          await environment.run(Promise.all([stays.flush("moves"), first.flush("stays")]));
          await environment.run(first.close());
          assert.deepEqual(inbox(first), numbers(0, FOLLOW_UPS));
          // While it is away, messages are taken for it.
          for (const n of numbers(5, FOLLOW_UPS)) await stays.send("moves", bytes(n));
          const again = await cluster.start("moves", pinned(after, more));
          await cluster.pooled(stays, again, 2);
          assert.equal(stays.peer("moves")!.version, after);
          assert.equal(again.peer("stays")!.version, after);
          for (const n of numbers(10, FOLLOW_UPS)) await stays.send("moves", bytes(n));
          await again.send("stays", bytes("again"));
          await environment.run(Promise.all([stays.flush("moves"), again.flush("stays")]));
          await environment.advance(50);
          assert.deepEqual(inbox(again), numbers(5, 2 * FOLLOW_UPS));
          assert.deepEqual(inbox(stays), ["first", "again"]);
          assert.deepEqual(events, []);
        }),
      );
    }
  }

  it(
    "3 -> 2 while messages are under way reports what nobody knows of, and nothing else",
    inCluster(async (cluster) => {
      const { environment, network } = cluster;
      const a = await cluster.start("a");
      const first = await cluster.start("b");
      await cluster.connect(a, "b");
      await cluster.pooled(a, first, 2);
      const events = undelivered(a);
      network.blackHoles.add(cluster.address("b"));
      for (const n of numbers(0, FOLLOW_UPS)) await a.send("b", bytes(n));
      await environment.advance(5);
      network.reset(cluster.address("b"));
      await environment.run(first.close({ drainMs: 0 }));
      for (const n of numbers(5, FOLLOW_UPS)) await a.send("b", bytes(n));
      network.blackHoles.clear();
      const again = await cluster.start("b", pinned(2));
      await cluster.pooled(a, again, 2);
      await environment.advance(50);
      assert.deepEqual(events.map(({ payload }) => text(payload)), numbers(0, FOLLOW_UPS));
      assert.ok(events.every(({ fate }) => fate === "unknown"));
      assert.deepEqual(inbox(again), numbers(5, FOLLOW_UPS));
    }),
  );
});
