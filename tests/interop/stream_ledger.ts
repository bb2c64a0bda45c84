/** What processes wrote down of streams of numbered messages, and whether it fits together. */

import type { LaneName } from "../simulation/api.ts";

/** What a sender notes of one message, as bits of a byte. */
export const NOTE = { accepted: 1, acked: 2, undelivered: 4, unsent: 8, refused: 16 } as const;

/** Per lane the notes of a sender, one byte a message, in base64. */
export type Outcomes = Partial<Record<LaneName, string>>;

/** Per lane the numbers that arrived, in the order of arrival, as first and last of each run. */
export type Arrivals = Partial<Record<LaneName, [number, number][]>>;

/** Adds a number to runs. */
export function addArrival(runs: [number, number][], number: number): void {
  const last = runs.at(-1);
  if (last !== undefined && last[1] + 1 === number) last[1] = number;
  else runs.push([number, number]);
}

/** How the streams went. */
export interface Summary {
  violations: string[];
  accepted: number;
  acked: number;
  received: number;
  undelivered: number;
  /** Accepted, and neither received nor reported. */
  lost: number;
}

/** Holds what a sender noted against what the receivers got, one after the other. */
export function compare(outcomes: Outcomes, receivers: Arrivals[]): Summary {
  const sum: Summary = {
    violations: [],
    accepted: 0,
    acked: 0,
    received: 0,
    undelivered: 0,
    lost: 0,
  };
  for (const [lane, notes] of Object.entries(outcomes) as [LaneName, string][]) {
    const bytes = Uint8Array.from(atob(notes), (char) => char.charCodeAt(0));
    compareLane(lane, bytes, receivers.map((receiver) => receiver[lane] ?? []), sum);
  }
  return sum;
}

function compareLane(
  lane: string,
  notes: Uint8Array,
  receivers: [number, number][][],
  sum: Summary,
): void {
  const violate = (text: string) => {
    if (sum.violations.length < 20) sum.violations.push(`${lane} ${text}`);
  };
  const received = new Uint8Array(notes.length);
  receivers.forEach((runs, receiver) => {
    let last = -1;
    for (const [from, to] of runs) {
      if (from <= last) violate(`${from} came to receiver ${receiver} after ${last}`);
      last = Math.max(last, to);
      for (let number = from; number <= to; number++) {
        if (received[number] !== 0) violate(`${number} was received twice or never sent`);
        received[number] = 1;
        sum.received++;
      }
    }
  });
  notes.forEach((note, number) => {
    const has = (bit: number) => (note & bit) !== 0;
    if (has(NOTE.accepted)) sum.accepted++;
    if (has(NOTE.acked)) sum.acked++;
    if (has(NOTE.undelivered)) sum.undelivered++;
    if (has(NOTE.acked) && received[number] === 0) violate(`${number} was acked, not received`);
    if (has(NOTE.acked) && has(NOTE.undelivered)) violate(`${number} was acked and reported`);
    if (has(NOTE.unsent) && received[number] === 1) violate(`${number} was "unsent" and received`);
    if (note === 0) violate(`${number} was never settled`);
    if (has(NOTE.accepted) && received[number] === 0 && !has(NOTE.undelivered)) sum.lost++;
  });
}
