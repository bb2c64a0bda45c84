/** The plain table that the network bench prints. */

import { spawnSync } from "node:child_process";
import os from "node:os";
import { type RuntimeName, runtimePath } from "../tools/runtimes.ts";
import { isMet, median, ratioOf, type Row, type Target } from "./net_cases.ts";
import type { PairResult } from "./net_pair.ts";

export { median, type Row } from "./net_cases.ts";

const WIDTHS = [48, 27, 27, 9, 17, 17, 17, 11] as const;
const MIB = 1024 * 1024;

/** Says what the figures were taken with, one line each. */
export function machineOf(command: string, runtimes: readonly RuntimeName[]): string[] {
  const cpus = os.cpus();
  return [
    command,
    `${new Date().toISOString()}, ${os.platform()} ${os.release()} ${os.arch()}`,
    `${cpus.length} cores of ${cpus[0]?.model.trim() ?? "an unknown CPU"}`,
    runtimes.map((name) => `${name} ${versionOf(name)}`).join(", "),
  ];
}

/** Prints what the figures were taken with and how to read them. */
export function showMachine(
  command: string,
  options: { runtimes: readonly RuntimeName[]; seconds: number; repeat: number },
): void {
  for (const line of machineOf(command, options.runtimes)) console.log(line);
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
export function showTitles(runtime: string): void {
  const titles = [
    "raw socket",
    "Hawser",
    "ratio",
    "target",
    "raw CPU",
    "Hawser CPU",
    "peak MiB",
  ];
  console.log();
  console.log(line([runtime, ...titles]));
  console.log(line(WIDTHS.map((width) => "-".repeat(width - 1))));
}

/** One row; the ratio of a rate is good when large, that of a time ("x") when small. */
export function showRow(row: Row): void {
  if (row.raw.length > 0 && row.hawser.length > 0) {
    const isTime = row.unit === "latency" || row.unit === "cost";
    console.log(line([
      row.name,
      showValues(row, row.raw),
      showValues(row, row.hawser),
      `${ratioText(row)}${isTime ? " x" : ""}`,
      showTarget(row),
      showCpu(row.raw),
      showCpu(row.hawser),
      showPeaks(row.hawser),
    ]));
  }
  for (const error of new Set(row.errors)) console.log(line([row.name, `failed: ${error}`]));
}

/** How many targets were met, and which were not. */
export function showVerdict(rows: readonly Row[]): void {
  const judged = rows.filter((row) => isMet(row) !== undefined);
  if (judged.length === 0) return;
  const missed = judged.filter((row) => isMet(row) === false);
  console.log();
  console.log(`${judged.length - missed.length} of ${judged.length} targets met`);
  for (const row of missed) {
    const { runtime, name, target } = row;
    console.log(`not met: ${runtime}, ${name}: ${ratioText(row)}, ${targetText(target!)}`);
  }
}

function ratioText(row: Row): string {
  const ratio = ratioOf(row);
  return ratio.toFixed(ratio < 0.1 ? 3 : 2);
}

function showTarget(row: Row): string {
  const met = isMet(row);
  if (met === undefined) return "";
  return `${targetText(row.target!)} ${met ? "met" : "not met"}`;
}

function targetText({ least, most }: Target): string {
  return least !== undefined ? `>= ${least}` : `<= ${most}`;
}

function showValues({ unit, bytes }: Row, results: readonly PairResult[]): string {
  const values = results.map(({ value }) => value);
  switch (unit) {
    case "latency": {
      const p99 = median(results.map((result) => result.p99 ?? NaN));
      return `${showRange(values, 1, 0, "us")}, ${p99.toFixed(0)}`;
    }
    case "cost":
      return showRange(values, 1, 1, "us");
    case "messages": {
      const few = Math.max(...values) < 1e6;
      return few ? showRange(values, 1e3, 0, "k/s") : showRange(values, 1e6, 2, "M/s");
    }
    case "bytes":
      return showRange(values.map((value) => value * bytes), 1e9, 2, "GB/s");
  }
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

/** Cells side by side. */
export function line(cells: readonly string[], widths: readonly number[] = WIDTHS): string {
  return cells.map((cell, index) => `${cell} `.padEnd(widths[index]!)).join("").trimEnd();
}

/** The version that a runtime says it has. */
export function versionOf(name: RuntimeName): string {
  const { stdout } = spawnSync(runtimePath(name), ["--version"], { encoding: "utf8" });
  return /\d+\.\d+\.\d+/.exec(stdout)?.[0] ?? "of unknown version";
}
