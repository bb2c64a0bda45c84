/**
 * What only version 3 has, between processes of different runtimes, in strict mode: lanes, topics,
 * acknowledgements, requests, streams, both compressions, checksums.
 */

import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import type { EndpointOptions, LaneName } from "../../mod.ts";
import type { RuntimeName } from "../../tools/runtimes.ts";
import { TestCa } from "../support/certs.ts";
import { mayRun } from "../support/may_run.ts";
import { Actor } from "./process.ts";
import type { Asking, Exchanged, Outcome } from "./services.ts";
import type { Arrivals } from "./stream_ledger.ts";

const skip = !mayRun();
const PAIRS: readonly [RuntimeName, RuntimeName][] = [
  ["deno", "bun"],
  ["bun", "node"],
  ["node", "deno"],
];
const LANES: readonly LaneName[] = ["control", "normal", "bulk"];
const MIB = 1_048_576;
const COUNT = 300;
const SIZE = 2_000;

interface PeerSeen {
  version: number;
  capabilities: string[];
  encrypted: boolean;
  connections: number;
}
interface Traffic {
  bytesSent: number;
  payloadBytesSent: number;
}

for (const [dialer, listener] of PAIRS) {
  describe(`${dialer} and ${listener}`, { skip }, () => {
    let a: Actor;
    let b: Actor;

    /** Both actors, each with the name of the other one's node. */
    const both = () => [[a, "b"], [b, "a"]] as const;

    before(async () => {
      const ca = await TestCa.create();
      const options = async (nodeId: string, method: "lz4" | "zstd"): Promise<EndpointOptions> => ({
        nodeId,
        tls: {
          ...await ca.issue(nodeId),
          ca: ca.ca,
          requireClientAuth: true,
          nodeIdVerification: "CommonName",
        },
        compression: { method },
        checksum: "always",
      });
      [a, b] = [new Actor(dialer), new Actor(listener)];
      const listening = { ...await options("b", "lz4"), listen: "tcp://127.0.0.1:0" };
      const [address] = await b.tell({ do: "start", options: listening });
      await a.tell({ do: "start", options: await options("a", "zstd") });
      for (const [actor] of both()) await actor.tell({ do: "serve" });
      await a.tell({ do: "connect", nodeId: "b", address });
      for (const [actor, nodeId] of both()) {
        await actor.until<PeerSeen | null>(
          { do: "peer", nodeId },
          (peer) => peer?.connections === 2,
        );
      }
    });

    after(async () => {
      await Promise.all([a?.close(), b?.close()]);
    });

    it("agree on everything that there is", async () => {
      for (const [actor, nodeId] of both()) {
        const peer: PeerSeen = await actor.tell({ do: "peer", nodeId });
        assert.deepEqual([peer.version, peer.encrypted], [3, true]);
        assert.deepEqual(
          peer.capabilities.toSorted(),
          ["checksum", "lz4", "resume", "streams", "zstd"],
        );
      }
    });

    it("send in lanes, with topics, acknowledged; one side with zstd, the other with lz4", async () => {
      await Promise.all(
        both().map(async ([actor, nodeId]) => {
          const before: Traffic = await actor.tell({ do: "stats" });
          for (const lane of LANES) {
            const count = COUNT;
            const topic = `${lane}/é`;
            const acknowledged = lane !== "bulk";
            await actor.tell({
              do: "sendWith",
              nodeId,
              count,
              size: SIZE,
              lane,
              topic,
              acknowledged,
            });
          }
          await actor.tell({ do: "flush", nodeId });
          const stats: Traffic = await actor.tell({ do: "stats" });
          const payload = stats.payloadBytesSent - before.payloadBytesSent;
          const wire = stats.bytesSent - before.bytesSent;
          assert.equal(payload, LANES.length * COUNT * SIZE);
          assert.ok(wire < payload * 0.7, `${wire} bytes for ${payload}`);
        }),
      );
      for (const [actor, from] of both()) {
        // What is acknowledged waits in the queue; the handler follows at once.
        const arrivals = await actor.until<Arrivals>(
          { do: "arrivals", nodeId: from },
          (seen) => LANES.every((lane) => seen[lane]?.at(-1)?.[1] === COUNT - 1),
        );
        for (const lane of LANES) assert.deepEqual(arrivals[lane], [[0, COUNT - 1]], lane);
        const topics: Record<string, number> = await actor.tell({ do: "topics" });
        assert.deepEqual(
          topics,
          Object.fromEntries(LANES.map((lane) => [`${from} ${lane} ${lane}/é`, COUNT])),
        );
      }
    });

    it("send messages in fragments in every lane at once", async () => {
      await Promise.all(
        both().flatMap(([actor, nodeId]) => // One command at a time: the actor answers in order.
        [actor.tell({
          do: "sendWith",
          nodeId,
          count: 4,
          size: 3 * MIB,
          lane: "bulk",
          topic: "large",
          acknowledged: true,
        })]),
      );
      for (const [actor, from] of both()) {
        const topics = await actor.until<Record<string, number>>(
          { do: "topics" },
          (seen) => seen[`${from} bulk large`] === 4,
        );
        assert.equal(topics[`${from} bulk large`], 4);
      }
    });

    it("ask each other: answers, errors, refusals, deadlines, cancellation", async () => {
      for (const [actor, nodeId] of both()) {
        const other = actor === a ? b : a;
        const ask = async (asking: Asking, size = 10, count = 1): Promise<Outcome[]> =>
          await actor.tell({ do: "ask", nodeId, size, count, ...asking });
        assert.deepEqual(await ask({ topic: "echo", lane: "control" }), [{ length: 10 }]);
        assert.deepEqual(await ask({ topic: "echo", lane: "bulk" }, 2 * MIB), [{
          length: 2 * MIB,
        }]);
        assert.deepEqual(
          await ask({ topic: "echo" }, 100, 200),
          Array(200).fill({ length: 100 }),
        );
        const remote = (remoteCode: string) => [{ code: "RemoteError", remoteCode }];
        assert.deepEqual(await ask({ topic: "nobody" }), remote("NO_HANDLER"));
        assert.deepEqual(await ask({ topic: "refuses" }), remote("NO_SUCH_ROW"));
        assert.deepEqual(await ask({ topic: "throws" }), remote("HANDLER_FAILED"));
        const timeoutMs = 400;
        assert.deepEqual(await ask({ topic: "hangs", timeoutMs }), [{ code: "Timeout" }]);
        const cancelled = await ask({ topic: "hangs", timeoutMs: Infinity, cancelAfterMs: 100 });
        assert.deepEqual(cancelled, [{ code: "TimeoutError" }]);
        const two = await ask({ topic: "one", timeoutMs }, 10, 2);
        assert.deepEqual(two.map(({ code, remoteCode }) => remoteCode ?? code).toSorted(), [
          "TOO_MANY_REQUESTS",
          "Timeout",
        ]);
        const served = await other.until<string[]>({ do: "served" }, ({ length }) => length === 3);
        const [late, given, second] = served.map((line) => line.split(" "));
        for (const [reason, left] of [late!, second!]) {
          // Both sides know the deadline, and the requester cancels: whichever is first.
          assert.match(reason!, /^(Timeout|RemoteError)$/);
          assert.ok(Number(left) > 0 && Number(left) <= timeoutMs + 50, `${left} ms left`);
        }
        // Infinity is no number of JSON: it came as null, and the endpoint's own timeout holds.
        assert.equal(given![0], "RemoteError");
      }
    });

    it("stream to each other: both ways, half closed, reset by either side", async () => {
      for (const [actor, nodeId] of both()) {
        const other = actor === a ? b : a;
        const exchange = async (
          topic: string,
          bytes: number,
          more: { lane?: LaneName; reset?: true } = {},
        ): Promise<Exchanged> =>
          await actor.tell({ do: "exchange", nodeId, topic, lane: "normal", bytes, ...more });
        for (
          const [bytes, lane] of [[0, "control"], [100_000, "normal"], [4 * MIB, "bulk"]] as const
        ) {
          const { received, same, end } = await exchange("echo", bytes, { lane });
          assert.deepEqual({ received, same, end }, { received: bytes, same: true, end: "closed" });
        }
        const counted = await exchange("count", 3 * MIB);
        assert.deepEqual([counted.text, counted.end], [`${3 * MIB}`, "closed"]);
        assert.equal((await exchange("resets", MIB)).end, "ENOUGH");
        assert.equal((await exchange("nobody", 10)).end, "NO_HANDLER");
        await exchange("watches", 100_000, { reset: true });
        const served = await other.until<string[]>(
          { do: "served" },
          (lines) => lines.some((line) => line.startsWith("stream")),
        );
        assert.equal(served.at(-1), "stream OVER");
      }
    });

    it("lose no connection over all that", async () => {
      for (const [actor] of both()) {
        const events: { type: string }[] = await actor.tell({ do: "events" });
        assert.deepEqual(events.filter(({ type }) => type === "peerdown"), []);
      }
    });
  });
}
