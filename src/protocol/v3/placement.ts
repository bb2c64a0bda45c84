/**
 * Which connection each lane of a session takes.
 *
 * @module
 */

import type { Channel } from "./channel.ts";
import type { LaneChannel, SendLane } from "./send_lane.ts";
import { BULK, CONTROL, type Lane } from "./types.ts";

/** Which connection a lane takes, where it may take several. */
export type PoolStrategy = "first-available" | "round-robin" | "least-loaded";

/** The lanes outwards: control, normal, bulk. */
export type OutLanes = readonly [SendLane, SendLane, SendLane];

/**
 * The connection of bulk, which has one to itself where there are two.
 *
 * @param settled Whether it keeps one that it shares with nobody.
 */
export function bulkChannel(
  out: OutLanes,
  open: readonly Channel[],
  settled: boolean,
): Channel | undefined {
  const bulk = out[BULK];
  const present = bulk.channel as Channel | undefined;
  const taken = takenByOthers(out);
  const keeps = present !== undefined && (!bulk.idle || settled && !taken.includes(present));
  if (present?.open && keeps) return present;
  return open.findLast((channel) => !taken.includes(channel)) ?? open.at(-1);
}

/** Whether bulk shares a connection and could have one to itself, which it takes when it is idle. */
export function bulkShares(out: OutLanes, open: readonly Channel[]): boolean {
  const bulk = out[BULK];
  const taken = takenByOthers(out);
  return !bulk.idle && taken.includes(bulk.channel) &&
    open.some((channel) => !taken.includes(channel));
}

/**
 * The connection of a lane other than bulk.
 *
 * @param nextTurn Counts, where they take turns.
 */
export function chooseChannel(
  out: OutLanes,
  lane: Lane,
  others: readonly Channel[],
  strategy: PoolStrategy,
  nextTurn: () => number,
): Channel | undefined {
  if (others.length < 2) return others[0];
  switch (strategy) {
    case "first-available":
      // With three, what is urgent has one to itself, too.
      return others[lane === CONTROL ? 1 : 0];
    case "round-robin":
      return others[nextTurn() % others.length];
    case "least-loaded":
      return others.reduce((best, channel) =>
        loadOf(out, channel) < loadOf(out, best) ? channel : best
      );
  }
}

/** Connections on which something of the lanes other than bulk is under way. */
function takenByOthers([control, normal]: OutLanes): readonly (LaneChannel | undefined)[] {
  return [control, normal].filter((lane) => !lane.idle).map(({ channel }) => channel);
}

/** What a connection has under way or is about to write. */
function loadOf(out: OutLanes, channel: Channel): number {
  return out.reduce((sum, lane) => lane.channel === channel ? sum + lane.flight : sum, 0) +
    channel.outbox.bytes;
}
