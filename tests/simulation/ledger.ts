/**
 * The record the simulation keeps by itself: what was handed to `send`, what came of that, what
 * arrived. It knows nothing of the library but what its public face promises.
 */

import type { LaneName } from "./api.ts";
import { seededRandom } from "../../src/testing/random.ts";

/** A message says who sent it, in which lane, as which number; a smaller one is known by its place. */
export const HEADER_BYTES = 12;
const LANE_BYTES: readonly LaneName[] = ["control", "normal", "bulk"];
const MARK = 0xa7;
const POOL_BYTES = 1_048_576;

/** Bytes without a pattern that parts of messages are taken from. */
const POOL: Uint8Array = (() => {
  const random = seededRandom(0x5eed);
  return Uint8Array.from({ length: POOL_BYTES }, () => Math.floor(random() * 256));
})();

/** One process: the same node started again is another one. */
export interface ProcessId {
  readonly node: number;
  readonly start: number;
}

/** Messages of one process to one node in one lane. */
export interface Stream {
  readonly from: ProcessId;
  readonly to: number;
  readonly lane: LaneName;
}

/** What became of a message at its sender. */
export type Outcome = "open" | "accepted" | "refused";

/** One message. */
export interface Entry {
  readonly size: number;
  readonly topic: string | undefined;
  /** Lost with its connection, without a word: what "at-most-once" asks for. */
  readonly mayVanish: boolean;
  /** Resolves with the acknowledgement instead of the acceptance. */
  readonly acknowledged: boolean;
  outcome: Outcome;
  acked: boolean;
  reported: "unsent" | "unknown" | undefined;
  /** Given up because the queue was full, as its sender had asked for. */
  dropped: boolean;
  /** A flush said that it was acknowledged. */
  flushed: boolean;
  /** The start of the process that received it. */
  receivedBy: number | undefined;
}

interface Row {
  readonly stream: Stream;
  readonly entries: Entry[];
  /** The highest number received. */
  last: number;
}

/** What a run promises; where a promise can't be given it is not checked. */
export interface Promises {
  /** Every accepted message is received or reported. */
  readonly nothingLost: boolean;
  /** No message is reported, but for those dropped by wish. */
  readonly nothingReported: boolean;
  /** What arrives of one process in one lane arrives in the order of sending. */
  readonly inOrder: boolean;
}

/** What arrived, as the application sees it. */
export interface Arrival {
  readonly payload: Uint8Array;
  readonly lane: LaneName;
  readonly topic: string | undefined;
}

/** A violation more makes no difference to who reads them. */
const MAX_VIOLATIONS = 20;

/** The record of one run. */
export class Ledger {
  readonly violations: string[] = [];
  received = 0;
  reported = 0;
  accepted = 0;
  acked = 0;
  readonly #promises: Promises;
  readonly #rows = new Map<string, Row>();
  /** The latest start of each node that was seen to send: what tiny messages are attributed to. */
  readonly #latest = new Map<number, number>();

  constructor(promises: Promises) {
    this.#promises = promises;
  }

  /** Takes note of a message that is about to be sent; returns its bytes and its entry. */
  open(
    stream: Stream,
    size: number,
    topic: string | undefined,
    how: { mayVanish?: boolean; acknowledged?: boolean } = {},
  ): { entry: Entry; number: number; payload: Uint8Array } {
    const row = this.#row(stream);
    const entry: Entry = {
      size,
      topic,
      mayVanish: how.mayVanish ?? false,
      acknowledged: how.acknowledged ?? false,
      outcome: "open",
      acked: false,
      reported: undefined,
      dropped: false,
      flushed: false,
      receivedBy: undefined,
    };
    const number = row.entries.push(entry) - 1;
    this.#latest.set(stream.from.node, stream.from.start);
    return { entry, number, payload: makePayload(stream, number, size) };
  }

  /** The endpoint took the message. */
  accept(entry: Entry): void {
    entry.outcome = "accepted";
    this.accepted++;
  }

  /** The endpoint did not take the message. */
  refuse(entry: Entry): void {
    entry.outcome = "refused";
  }

  /** The receiver's acknowledgement was told to the sender. */
  ack(entry: Entry): void {
    entry.outcome = "accepted";
    entry.acked = true;
    this.accepted++;
    this.acked++;
  }

  /** What a flush that begins now must wait for. */
  pending(from: ProcessId, to: number): Entry[] {
    return LANE_BYTES.flatMap((lane) => this.#rows.get(key({ from, to, lane }))?.entries ?? [])
      .filter((entry) => entry.outcome === "accepted" && entry.reported === undefined);
  }

  /** A flush ended well. `taken`: the receiving application takes before the endpoint acknowledges. */
  flush(entries: readonly Entry[], taken: boolean): void {
    for (const entry of entries) {
      if (entry.reported !== undefined || entry.mayVanish) continue;
      entry.flushed = true;
      if (taken && entry.receivedBy === undefined) {
        this.#violate(`a flush ended before a message of ${entry.size} bytes was received`);
      }
    }
  }

  /** An `undelivered` event of one process. */
  report(
    from: ProcessId,
    to: number,
    { payload, lane, topic }: Arrival,
    fate: "unsent" | "unknown",
    dropped: boolean,
  ): void {
    const found = this.#find(payload, from.node, to, lane, "reported undelivered");
    if (found === undefined) return;
    const { row, entry, name } = found;
    if (row.stream.from.start !== from.start) {
      this.#violate(`${name} was reported by another process, start ${from.start}`);
    }
    if (entry.topic !== topic) this.#violate(`${name} was reported with topic ${show(topic)}`);
    if (entry.reported !== undefined) this.#violate(`${name} was reported twice`);
    entry.reported = fate;
    entry.dropped = dropped;
    this.reported++;
  }

  /** A message was handed to the application of a process. Returns what is known of it. */
  receive(from: number, to: ProcessId, arrival: Arrival): { number: number } | undefined {
    const { payload, lane, topic } = arrival;
    const found = this.#find(payload, from, to.node, lane, "received");
    if (found === undefined) return undefined;
    const { row, entry, number, name } = found;
    this.received++;
    if (entry.topic !== topic) {
      this.#violate(`${name} has topic ${show(topic)} instead of ${show(entry.topic)}`);
    }
    if (entry.receivedBy === to.start) {
      this.#violate(`${name} was received twice by start ${to.start}`);
    } else if (entry.receivedBy !== undefined) {
      this.#violate(`${name} was received by start ${entry.receivedBy} and by start ${to.start}`);
    } else if (number < row.last && this.#promises.inOrder) {
      this.#violate(`${name} was received after number ${row.last}`);
    }
    entry.receivedBy = to.start;
    row.last = Math.max(row.last, number);
    return { number };
  }

  /** After the end: `survived` tells the processes that did not die on the way. */
  check(survived: (process: ProcessId) => boolean): string[] {
    for (const row of this.#rows.values()) {
      const alive = survived(row.stream.from);
      row.entries.forEach((entry, number) => {
        const complaint = judge(entry, alive, this.#promises);
        if (complaint !== undefined) this.#violate(`${nameOf(row, number)} ${complaint}`);
      });
    }
    return this.violations;
  }

  /** Accepted messages of one process that were neither received nor reported so far. */
  missing(survived: (process: ProcessId) => boolean): number {
    let count = 0;
    for (const row of this.#rows.values()) {
      if (!survived(row.stream.from)) continue;
      for (const entry of row.entries) {
        if (
          entry.outcome !== "refused" && entry.receivedBy === undefined &&
          entry.reported === undefined && !entry.mayVanish
        ) count++;
      }
    }
    return count;
  }

  #find(payload: Uint8Array, from: number, to: number, lane: LaneName, what: string) {
    const header = readHeader(payload);
    let row: Row | undefined;
    let number: number;
    if (header === undefined) {
      row = this.#rows.get(key({ from: { node: from, start: this.#start(from) }, to, lane }));
      number = row === undefined ? -1 : nextTiny(row, payload.length, what);
    } else {
      row = this.#rows.get(key({ from: { node: header.node, start: header.start }, to, lane }));
      number = header.number;
      if (header.node !== from || header.lane !== lane) {
        this.#violate(
          `a message of node ${header.node} in lane ${header.lane} was ${what} ` +
            `as one of node ${from} in lane ${lane}`,
        );
      }
    }
    const entry = row?.entries[number];
    if (row === undefined || entry === undefined) {
      this.#violate(`${payload.length} bytes from ${from} to ${to} were ${what}, never sent`);
      return undefined;
    }
    const name = nameOf(row, number);
    if (!isPayload(payload, row.stream, number, entry.size)) {
      this.#violate(`${name} was ${what} with other bytes (${payload.length})`);
    }
    return { row, entry, number, name };
  }

  #start(node: number): number {
    return this.#latest.get(node) ?? 0;
  }

  #row(stream: Stream): Row {
    const name = key(stream);
    let row = this.#rows.get(name);
    if (row === undefined) {
      row = { stream, entries: [], last: -1 };
      this.#rows.set(name, row);
    }
    return row;
  }

  #violate(text: string): void {
    if (this.violations.length < MAX_VIOLATIONS) this.violations.push(text);
  }
}

/** What is wrong with one message after the end. */
function judge(entry: Entry, alive: boolean, promises: Promises): string | undefined {
  const { outcome, receivedBy, reported } = entry;
  const received = receivedBy !== undefined;
  if (entry.acked && !received) return "was acknowledged, and not received";
  if (entry.flushed && !received) return "was flushed, and not received";
  if (entry.flushed && reported !== undefined) return "was flushed, and reported undelivered";
  if (entry.acked && reported !== undefined) return "was acknowledged, and reported undelivered";
  if (reported === "unsent" && received) return "was reported unsent, and received";
  if (outcome === "refused" && reported === undefined) {
    return received ? "was refused, and received" : undefined;
  }
  if (outcome === "refused" && !entry.acknowledged) return "was refused, and reported undelivered";
  if (promises.nothingReported && reported !== undefined && !entry.dropped && !entry.mayVanish) {
    return `was reported undelivered (${reported})`;
  }
  if (!alive) return undefined;
  if (outcome === "open" && reported === undefined) return "was never settled";
  const lost = !received && reported === undefined && !entry.mayVanish;
  return promises.nothingLost && lost ? "was lost in silence" : undefined;
}

/** The content of a message, a function of who it is. */
export function makePayload(stream: Stream, number: number, size: number): Uint8Array {
  const payload = new Uint8Array(size);
  if (size < HEADER_BYTES) {
    payload.set(POOL.subarray(0, size));
    return payload;
  }
  payload[0] = MARK;
  payload[1] = stream.from.node;
  payload[2] = stream.from.start;
  payload[3] = LANE_BYTES.indexOf(stream.lane);
  const view = new DataView(payload.buffer);
  view.setUint32(4, number);
  view.setUint32(8, size);
  const at = poolOffset(stream, number, size);
  payload.set(POOL.subarray(at, at + size - HEADER_BYTES), HEADER_BYTES);
  return payload;
}

function isPayload(payload: Uint8Array, stream: Stream, number: number, size: number): boolean {
  if (payload.length !== size) return false;
  const tiny = size < HEADER_BYTES;
  const at = tiny ? 0 : poolOffset(stream, number, size) - HEADER_BYTES;
  for (let i = tiny ? 0 : HEADER_BYTES; i < size; i++) {
    if (payload[i] !== POOL[at + i]) return false;
  }
  return true;
}

function poolOffset({ from, lane }: Stream, number: number, size: number): number {
  const hash = Math.imul(number + 1, 0x9e3779b1) ^ Math.imul(from.node * 31 + from.start, 0x85eb) ^
    LANE_BYTES.indexOf(lane) * 0xc2b2;
  return HEADER_BYTES + (hash >>> 0) % (POOL_BYTES - size);
}

function readHeader(payload: Uint8Array) {
  if (payload.length < HEADER_BYTES || payload[0] !== MARK) return undefined;
  const view = new DataView(payload.buffer, payload.byteOffset, payload.byteLength);
  return {
    node: payload[1]!,
    start: payload[2]!,
    lane: LANE_BYTES[payload[3]!] ?? "normal",
    number: view.getUint32(4),
  };
}

/** A tiny message is the next one of its size in its lane of which nothing is known yet. */
function nextTiny(row: Row, size: number, what: string): number {
  const first = what === "received" ? row.last + 1 : 0;
  for (let i = first; i < row.entries.length; i++) {
    const { outcome, reported, receivedBy, ...entry } = row.entries[i]!;
    const known = outcome === "refused" || reported !== undefined || receivedBy !== undefined;
    if (entry.size === size && !known) return i;
  }
  return -1;
}

function key({ from, to, lane }: Stream): string {
  return `${from.node}.${from.start}>${to} ${lane}`;
}

function nameOf(row: Row, number: number): string {
  const { from, to, lane } = row.stream;
  const size = row.entries[number]?.size;
  return `message ${number} of ${from.node}.${from.start} to ${to} in ${lane} (${size} bytes)`;
}

function show(topic: string | undefined): string {
  return topic === undefined ? "none" : JSON.stringify(topic.slice(0, 20));
}
