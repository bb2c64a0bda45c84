/** When a receiver acknowledges: soon, or at once after much. Seen by what the sender keeps. */

import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { Endpoint } from "../../mod.ts";
import { bytes, type Cluster, inCluster } from "../support/cluster.ts";

const LATENCY_MS = 3;
const ROUND_TRIP_MS = 2 * LATENCY_MS;
/** What docs/protocol.md says of acknowledgements. */
const ACK_DELAY_MS = 25;
const ACK_FRAMES = 256;
const ACK_BYTES = 131_072;
const PIECE_BYTES = 16_384;
const network = { latencyMs: LATENCY_MS, highWater: 10_000_000 };

/**
 * `a` and `b`, connected and quiet: no ping is due for long, and nothing that a test sends comes
 * near half of what may wait, where a sender asks for acknowledgements by itself.
 */
async function pair(cluster: Cluster): Promise<[Endpoint, Endpoint]> {
  const options = {
    poolSize: 1,
    rateLimit: "disabled",
    compression: { enabled: false },
    keepaliveIntervalSecs: 3_600,
    pool: { healthCheckIntervalMs: 3_600_000, idleTimeoutMs: 0 },
    maxPendingMessages: 10_000,
    maxPendingBytes: 100_000_000,
    recvBufferSize: 10_000,
  } as const;
  const b = await cluster.start("b", options);
  const a = await cluster.start("a", options);
  await cluster.connect(a, "b");
  await cluster.environment.advance(1_000);
  return [a, b];
}

/** Sends so many messages in one turn. */
async function burst(a: Endpoint, count: number, size: number): Promise<void> {
  await Promise.all(Array.from({ length: count }, () => a.send("b", new Uint8Array(size))));
}

/** Advances to so many milliseconds after `start`. */
async function at(cluster: Cluster, start: number, ms: number): Promise<void> {
  await cluster.environment.advance(start + ms - cluster.environment.now());
}

describe("an acknowledgement", () => {
  it(
    "leaves 25 ms after the first message that it is for",
    inCluster(async (cluster) => {
      const [a] = await pair(cluster);
      const start = cluster.environment.now();
      await a.send("b", bytes("x"));
      await at(cluster, start, 10);
      await a.send("b", bytes("y"));
      await at(cluster, start, ROUND_TRIP_MS + ACK_DELAY_MS - 1);
      assert.equal(a.peer("b")!.pendingMessages, 2);
      await at(cluster, start, ROUND_TRIP_MS + ACK_DELAY_MS);
      assert.equal(a.peer("b")!.pendingMessages, 0);
    }, network),
  );

  for (
    const [what, count, size] of [
      [`${ACK_FRAMES} frames`, ACK_FRAMES, 1],
      ["128 KiB", ACK_BYTES / PIECE_BYTES, PIECE_BYTES],
    ] as const
  ) {
    it(
      `leaves at once after ${what}`,
      inCluster(async (cluster) => {
        const [a, b] = await pair(cluster);
        const start = cluster.environment.now();
        await burst(a, count, size);
        await at(cluster, start, ROUND_TRIP_MS - 1);
        assert.equal(a.peer("b")!.pendingMessages, count);
        assert.equal(b.stats().messagesReceived, count);
        await at(cluster, start, ROUND_TRIP_MS);
        assert.equal(a.peer("b")!.pendingMessages, 0);
      }, network),
    );

    it(
      `waits as long as it is less than ${what}`,
      inCluster(async (cluster) => {
        const [a] = await pair(cluster);
        const start = cluster.environment.now();
        await burst(a, count - 1, size);
        await at(cluster, start, ROUND_TRIP_MS + ACK_DELAY_MS - 1);
        assert.equal(a.peer("b")!.pendingMessages, count - 1);
        await at(cluster, start, ROUND_TRIP_MS + ACK_DELAY_MS);
        assert.equal(a.peer("b")!.pendingMessages, 0);
      }, network),
    );
  }

  it(
    "begins to count anew after each",
    inCluster(async (cluster) => {
      const [a] = await pair(cluster);
      const start = cluster.environment.now();
      await burst(a, ACK_FRAMES + 1, 1);
      await at(cluster, start, ROUND_TRIP_MS);
      assert.equal(a.peer("b")!.pendingMessages, 1);
      await at(cluster, start, ROUND_TRIP_MS + ACK_DELAY_MS - 1);
      assert.equal(a.peer("b")!.pendingMessages, 1);
      await at(cluster, start, ROUND_TRIP_MS + ACK_DELAY_MS);
      assert.equal(a.peer("b")!.pendingMessages, 0);
    }, network),
  );

  it(
    "leaves at once where the sender asks: flush, and acknowledged",
    inCluster(async (cluster) => {
      const [a] = await pair(cluster);
      for (
        const send of [
          () => a.send("b", bytes("x"), { acknowledged: true }),
          () => a.send("b", bytes("x")).then(() => a.flush("b")),
        ]
      ) {
        const start = cluster.environment.now();
        const sent = send();
        await at(cluster, start, ROUND_TRIP_MS);
        assert.equal(a.peer("b")!.pendingMessages, 0);
        await sent;
      }
    }, network),
  );
});
