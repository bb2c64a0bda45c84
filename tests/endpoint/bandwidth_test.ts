/** Limits in bytes per second: of the endpoint, of each peer, of each lane; and fair turns. */

import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { Endpoint, EndpointConfig } from "../../mod.ts";
import { type Cluster, inCluster } from "../support/cluster.ts";

const SECOND = 1_000;
/** What a bucket holds at least, and may be overdrawn by. */
const SLACK = 2 * 65_536 + 10_000;
const QUIET: Partial<EndpointConfig> = {
  compression: { enabled: false },
  rateLimit: "disabled",
  maxPendingMessages: 100_000,
  maxPendingBytes: 256 * 1024 * 1024,
  pool: { healthCheckIntervalMs: 0 },
};

/** `a`, with these limits, and peers that it is connected to. */
async function star(cluster: Cluster, peers: string[], options: Partial<EndpointConfig>) {
  const others: Endpoint[] = [];
  for (const name of peers) {
    const other = await cluster.start(name, { ...QUIET, ...options, bandwidth: {} });
    other.onMessage(() => {});
    others.push(other);
  }
  const a = await cluster.start("a", { ...QUIET, ...options });
  for (const name of peers) await cluster.connect(a, name);
  const received = () => others.map((other) => other.stats().payloadBytesReceived);
  return { a, received };
}

for (const maxProtocolVersion of [2, 3]) {
  describe(`bandwidth, in version ${maxProtocolVersion}`, () => {
    it(
      "of the endpoint is shared by all peers, and fairly, whatever the size of their messages",
      inCluster(async (cluster) => {
        const bandwidth = { total: 1_000_000 };
        const { a, received } = await star(cluster, ["b", "c"], { bandwidth, maxProtocolVersion });
        for (let i = 0; i < 100; i++) assert.ok(a.trySend("b", new Uint8Array(60_000)));
        for (let i = 0; i < 6_000; i++) assert.ok(a.trySend("c", new Uint8Array(1_000)));
        await cluster.environment.advance(4 * SECOND);
        const [b, c] = received() as [number, number];
        assert.ok(b + c <= 4_000_000 + SLACK, `${b + c} bytes in 4 s`);
        assert.ok(b + c >= 3_500_000, `${b + c} bytes in 4 s`);
        assert.ok(Math.abs(b - c) < 300_000, `${b} to one, ${c} to the other`);
        await cluster.environment.advance(12 * SECOND);
        assert.deepEqual(received(), [6_000_000, 6_000_000]);
      }),
    );

    it(
      "of each peer leaves the others alone",
      inCluster(async (cluster) => {
        const bandwidth = { perPeer: 200_000 };
        const { a, received } = await star(cluster, ["b", "c"], { bandwidth, maxProtocolVersion });
        for (let i = 0; i < 40; i++) assert.ok(a.trySend("b", new Uint8Array(50_000)));
        assert.ok(a.trySend("c", new Uint8Array(50_000)));
        await cluster.environment.advance(2 * SECOND);
        const [b, c] = received() as [number, number];
        assert.equal(c, 50_000);
        assert.ok(b >= 350_000 && b <= 400_000 + SLACK, `${b} bytes in 2 s`);
        await cluster.environment.advance(10 * SECOND);
        assert.equal(received()[0], 2_000_000);
      }),
    );

    it(
      "has room again after a pause, but not for all that was not sent meanwhile",
      inCluster(async (cluster) => {
        const bandwidth = { total: 100_000 };
        const { a, received } = await star(cluster, ["b"], { bandwidth, maxProtocolVersion });
        await cluster.environment.advance(100 * SECOND);
        for (let i = 0; i < 100; i++) assert.ok(a.trySend("b", new Uint8Array(10_000)));
        await cluster.environment.advance(SECOND);
        assert.ok(received()[0]! <= 100_000 + SLACK, `${received()[0]} bytes in 1 s`);
        await cluster.environment.advance(10 * SECOND);
        assert.equal(received()[0], 1_000_000);
      }),
    );
  });
}

describe("bandwidth of a lane", () => {
  it(
    "holds up that lane alone",
    inCluster(async (cluster) => {
      const { a, received } = await star(cluster, ["b"], { bandwidth: { bulk: 100_000 } });
      for (let i = 0; i < 10; i++) {
        assert.ok(a.trySend("b", new Uint8Array(100_000), { lane: "bulk" }));
      }
      await cluster.environment.advance(10);
      assert.ok(received()[0]! <= SLACK);
      const before = a.stats().messagesSent;
      for (let i = 0; i < 10; i++) assert.ok(a.trySend("b", new Uint8Array(100_000)));
      await cluster.environment.advance(SECOND);
      assert.ok(a.stats().messagesSent >= before + 10, "the normal lane waits for bulk");
      await cluster.environment.advance(12 * SECOND);
      assert.equal(received()[0], 2_000_000);
    }),
  );

  it(
    "of control does not wait for what the others have used up",
    inCluster(async (cluster) => {
      const bandwidth = { total: 50_000, perPeer: 50_000 };
      const { a } = await star(cluster, ["b"], { bandwidth });
      const b = cluster.endpoints.get("b")!;
      let heard = 0;
      b.onMessage(({ lane }) => {
        if (lane === "control") heard++;
      });
      for (let i = 0; i < 20; i++) a.trySend("b", new Uint8Array(60_000), { lane: "bulk" });
      await cluster.environment.advance(100);
      for (let i = 0; i < 10; i++) a.trySend("b", new Uint8Array(100), { lane: "control" });
      await cluster.environment.advance(20);
      assert.equal(heard, 10);
    }),
  );

  it(
    "of control is kept where there is one",
    inCluster(async (cluster) => {
      const { a, received } = await star(cluster, ["b"], { bandwidth: { control: 100_000 } });
      for (let i = 0; i < 100; i++) a.trySend("b", new Uint8Array(10_000), { lane: "control" });
      await cluster.environment.advance(2 * SECOND);
      assert.ok(received()[0]! <= 200_000 + SLACK, `${received()[0]} bytes in 2 s`);
    }),
  );
});
