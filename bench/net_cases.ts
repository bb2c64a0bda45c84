/** The rows of the network bench: what is measured, against what, and what is to be reached. */

import type { RuntimeName } from "../tools/runtimes.ts";
import { IN_FLIGHT, type Style } from "./net_case.ts";
import type { PairResult } from "./net_pair.ts";

/** How a row's figures are read. */
export type Unit = "messages" | "bytes" | "latency" | "cost";

/** What the ratio of a row has to be. */
export interface Target {
  readonly least?: number;
  readonly most?: number;
}

/** A row of the table: one way to use Hawser, and the measurement it is held against. */
export interface Case {
  readonly name: string;
  readonly style: Style;
  readonly bytes: number;
  readonly secure: boolean;
  readonly compress: boolean;
  readonly unit: Unit;
  /** Receivers; undefined: one, and none that a broadcast could reach. */
  readonly peers: number | undefined;
  /** What Hawser is held against where that is not the raw socket. */
  readonly base: Base | undefined;
  /** Whether both processes run on one core. */
  readonly oneCore: boolean;
  readonly target: Partial<Record<RuntimeName, Target>>;
}

/** Hawser itself, used in another way. */
export interface Base {
  readonly style: Style;
  readonly peers: number;
  /** How often it has to be done for the same effect. */
  readonly times: number;
}

/** All measurements of one row. */
export interface Row {
  /** The runtime, or both of them. */
  readonly runtime: string;
  readonly name: string;
  readonly unit: Unit;
  readonly bytes: number;
  readonly target: Target | undefined;
  /** What Hawser is held against. */
  readonly raw: PairResult[];
  readonly hawser: PairResult[];
  readonly errors: string[];
}

const KIB = 1024;
const MANY_PEERS = 16;

/** All of them, in the order in which they are shown. */
export const CASES: readonly Case[] = [...casesOf(false), ...casesOf(true), ...broadcasts()];

function casesOf(secure: boolean): Case[] {
  const one = (name: string, style: Style, bytes: number, more: Partial<Case> = {}): Case => ({
    name: `${secure ? "mutual TLS" : "plain"}, ${name}`,
    style,
    bytes,
    secure,
    compress: false,
    unit: bytes < KIB ? "messages" : "bytes",
    peers: undefined,
    base: undefined,
    oneCore: false,
    target: {},
    ...more,
  });
  return [
    one("64 B, trySend/onMessage", "push", 64, { target: least(0.25) }),
    one("64 B, await send/for await", "await", 64, { target: least(0.08) }),
    one("1 KiB, trySend/onMessage", "push", KIB, {
      target: { ...least(0.6), bun: { least: 0.7 } },
    }),
    one("64 KiB, trySend/onMessage", "push", 64 * KIB, { target: least(0.85) }),
    one("64 KiB, with LZ4 in vain", "push", 64 * KIB, { compress: true }),
    one("64 B, round trip", "round trip", 64, { unit: "latency" }),
    one("64 B, request, one core", "request", 64, {
      unit: "latency",
      oneCore: true,
      target: all({ most: 1.4 }),
    }),
    one(`64 B, ${IN_FLIGHT} requests in flight`, "in flight", 64, { target: least(0.4) }),
  ];
}

function broadcasts(): Case[] {
  const peers = MANY_PEERS;
  const one = (name: string, base: Base, target: Case["target"]): Case => ({
    name: `plain, 1 KiB, broadcast to ${peers}, ${name}`,
    style: "broadcast",
    bytes: KIB,
    secure: false,
    compress: false,
    unit: "cost",
    peers,
    base,
    oneCore: false,
    target,
  });
  const most = all({ most: 0.6 });
  return [
    one(`${peers} to one`, { style: "broadcast", peers: 1, times: peers }, most),
    one(`${peers} x trySend`, { style: "each", peers, times: 1 }, {}),
  ];
}

function least(ratio: number): Case["target"] {
  return all({ least: ratio });
}

function all(target: Target): Case["target"] {
  return { deno: target, bun: target, node: target };
}

/** Hawser's median to that of what it is held against; of a time, too, which should be small. */
export function ratioOf(row: Row): number {
  return median(row.hawser.map(({ value }) => value)) / median(row.raw.map(({ value }) => value));
}

/** Whether the row has come to where it should; undefined where nothing is demanded or known. */
export function isMet(row: Row): boolean | undefined {
  if (row.target === undefined || row.hawser.length === 0) return undefined;
  const { least = -Infinity, most = Infinity } = row.target;
  const ratio = ratioOf(row);
  return ratio >= least && ratio <= most;
}

/** The middle one, or the mean of the two in the middle. */
export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
}
