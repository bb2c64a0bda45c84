/** A process that is killed five times, and started again, while it sends a stream of messages. */

import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { EndpointOptions } from "../../mod.ts";
import { type RuntimeName, RUNTIMES } from "../../tools/runtimes.ts";
import { type LaneName, LANES } from "../simulation/api.ts";
import { Random } from "../simulation/random.ts";
import { mayRun } from "../support/may_run.ts";
import { Actor } from "./process.ts";
import { type Arrivals, NOTE, type Outcomes } from "./stream_ledger.ts";

const KILLS = 5;
/** What each sender has sent at least when it is killed, and at most. */
const MESSAGES = [2_000, 12_000] as const;
/** More than a sender gets to. */
const ENDLESS = 10_000_000;
/** What the last one sends, in each lane. */
const LAST_MESSAGES = 2_000;
const MAX_SIZE = 5_000;

const options = (nodeId: string): EndpointOptions => ({
  nodeId,
  security: "development",
  reconnect: { initialBackoffMs: 5, maxBackoffMs: 50 },
});

/** How many messages of each lane had been acknowledged up to the last one that was. */
function acknowledged(outcomes: Outcomes, lane: LaneName): number {
  return atob(outcomes[lane] ?? "").split("").findLastIndex((note) =>
    (note.charCodeAt(0) & NOTE.acked) !== 0
  ) + 1;
}

describe("kill -9 of the sender, five times", { skip: !mayRun() }, () => {
  it("leaves what arrived without a gap, nothing twice, and the next process goes on", async () => {
    const random = new Random(10, 1);
    const receiver = new Actor("deno");
    const nodeId = "receiver";
    const arrivals = { do: "arrivals", nodeId: "sender" } as const;
    let sender: Actor | undefined;
    try {
      const [address] = await receiver.tell({
        do: "start",
        options: { ...options(nodeId), listen: "tcp://127.0.0.1:0" },
      });
      const peers = [{ nodeId, address }];
      const acked: Record<LaneName, number>[] = [];
      for (let incarnation = 0; incarnation <= KILLS; incarnation++) {
        sender = new Actor(RUNTIMES[incarnation % RUNTIMES.length] as RuntimeName);
        await sender.tell({ do: "start", options: { ...options("sender"), peers } });
        const count = incarnation === KILLS ? LAST_MESSAGES : ENDLESS;
        await sender.tell({ do: "stream", nodeId, lanes: [...LANES], count, maxSize: MAX_SIZE });
        if (incarnation === KILLS) break;
        const [least, most] = MESSAGES;
        const at = least + Math.floor(random.next() * (most - least));
        await sender.until<number>({ do: "streamed" }, (streamed) => streamed >= at);
        // Each process begins at 0, and so a run of its own; every lane is to have one.
        await receiver.until<Arrivals>(
          arrivals,
          (runs) => LANES.every((lane) => (runs[lane]?.length ?? 0) > incarnation),
        );
        const outcomes: Outcomes = await sender.tell({ do: "outcomes" });
        sender.kill("SIGKILL");
        await sender.exited;
        acked.push({
          control: acknowledged(outcomes, "control"),
          normal: acknowledged(outcomes, "normal"),
          bulk: acknowledged(outcomes, "bulk"),
        });
      }
      const all = LAST_MESSAGES * LANES.length;
      await sender!.until<number>({ do: "streamed" }, (streamed) => streamed === all);
      await sender!.tell({ do: "stopStream" });
      await sender!.tell({ do: "flush", nodeId });
      const runs: Arrivals = await receiver.tell(arrivals);
      for (const lane of LANES) {
        const found = runs[lane]!;
        // What is missing, or came twice or too late, begins a run elsewhere than at 0.
        assert.deepEqual(found.map(([first]) => first), Array(KILLS + 1).fill(0), lane);
        assert.deepEqual(found.at(-1), [0, LAST_MESSAGES - 1], lane);
        acked.forEach((counts, incarnation) => {
          const [, last] = found[incarnation]!;
          assert.ok(last + 1 >= counts[lane], `${lane}: ${counts[lane]} acked, ${last + 1} came`);
        });
      }
      assert.ok(acked.every((counts) => LANES.some((lane) => counts[lane] > 0)), "some were acked");
    } finally {
      await Promise.all([receiver.close(), sender?.close()]);
    }
  });
});
