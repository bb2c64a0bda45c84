/** The plain table that the network bench prints. */

import { spawnSync } from "node:child_process";
import os from "node:os";
import { type RuntimeName, runtimePath } from "../tools/runtimes.ts";
import type { Style } from "./net_case.ts";
import type { PairResult } from "./net_pair.ts";

/** All measurements of one row. */
export interface Row {
  readonly runtime: RuntimeName;
  readonly name: string;
  readonly style: Style;
  readonly bytes: number;
  readonly raw: PairResult[];
  readonly hawser: PairResult[];
  readonly errors: string[];
}

const WIDTHS = [40, 27, 27, 7, 17, 17, 11] as const;
const MIB = 1024 * 1024;
/** Below this size a rate in messages says more than one in bytes. */
const SMALL_BYTES = 1024;

/** Says what the figures were taken with. */
export function showMachine(
  command: string,
  options: { runtimes: readonly RuntimeName[]; seconds: number; repeat: number },
): void {
  const cpus = os.cpus();
  console.log(`${command}`);
  console.log(`${new Date().toISOString()}, ${os.platform()} ${os.release()} ${os.arch()}`);
  console.log(`${cpus.length} cores of ${cpus[0]?.model.trim() ?? "an unknown CPU"}`);
  console.log(options.runtimes.map((name) => `${name} ${versionOf(name)}`).join(", "));
  console.log(
    `medians (least - most) of ${options.repeat} x ${options.seconds} s; ` +
      "round trips: median of the medians, p99 behind",
  );
  console.log(
    "CPU: processor time per message, sender / receiver; " +
      "peak: most resident memory of Hawser's processes, sender / receiver",
  );
}

/** The line above a runtime's rows. */
export function showTitles(runtime: RuntimeName): void {
  console.log();
  console.log(
    line([runtime, "raw socket", "Hawser", "ratio", "raw CPU", "Hawser CPU", "peak MiB"]),
  );
  console.log(line(WIDTHS.map((width) => "-".repeat(width - 1))));
}

/** One row; a ratio below 1 is what Hawser costs, also for round trips. */
export function showRow(row: Row): void {
  if (row.raw.length > 0 && row.hawser.length > 0) {
    const raw = median(row.raw.map(({ value }) => value));
    const hawser = median(row.hawser.map(({ value }) => value));
    const ratio = row.style === "round trip" ? raw / hawser : hawser / raw;
    console.log(line([
      row.name,
      showValues(row, row.raw),
      showValues(row, row.hawser),
      ratio.toFixed(2),
      showCpu(row.raw),
      showCpu(row.hawser),
      showPeaks(row.hawser),
    ]));
  }
  for (const error of new Set(row.errors)) console.log(line([row.name, `failed: ${error}`]));
}

function showValues({ style, bytes }: Row, results: readonly PairResult[]): string {
  const values = results.map(({ value }) => value);
  if (style === "round trip") {
    const p99 = median(results.map((result) => result.p99 ?? NaN));
    return `${showRange(values, 1, 0, "us")}, ${p99.toFixed(0)}`;
  }
  if (bytes < SMALL_BYTES) return showRange(values, 1e6, 2, "M/s");
  return showRange(values.map((value) => value * bytes), 1e9, 2, "GB/s");
}

function showRange(values: readonly number[], unit: number, digits: number, name: string): string {
  const [middle, least, most] = [median(values), Math.min(...values), Math.max(...values)]
    .map((value) => (value / unit).toFixed(digits));
  return `${middle} ${name} (${least} - ${most})`;
}

function showCpu(results: readonly PairResult[]): string {
  const [sender, receiver] = (["sender", "receiver"] as const).map((side) =>
    median(results.map((result) => result[side].cpuNs ?? NaN))
  );
  if (Number.isNaN(sender) || Number.isNaN(receiver)) return "";
  return `${sender!.toFixed(0)} / ${receiver!.toFixed(0)} ns`;
}

function showPeaks(results: readonly PairResult[]): string {
  const [sender, receiver] = (["sender", "receiver"] as const).map((side) =>
    Math.round(Math.max(...results.map((result) => result[side].peakBytes)) / MIB)
  );
  return `${sender} / ${receiver}`;
}

/** The middle one, or the mean of the two in the middle. */
export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
}

/** Cells side by side. */
export function line(cells: readonly string[], widths: readonly number[] = WIDTHS): string {
  return cells.map((cell, index) => `${cell} `.padEnd(widths[index]!)).join("").trimEnd();
}

function versionOf(name: RuntimeName): string {
  const { stdout } = spawnSync(runtimePath(name), ["--version"], { encoding: "utf8" });
  return /\d+\.\d+\.\d+/.exec(stdout)?.[0] ?? "of unknown version";
}
