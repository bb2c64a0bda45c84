/**
 * What a control message waits for while a 16 MiB bulk message is on its way on the same connection:
 *
 *     deno run -A bench/lanes.ts [--runtime deno|bun|node]... [--seconds N] [--repeat N] [--mib N]
 *
 * Two processes over loopback with one connection between them. One sends a control message of
 * 64 bytes, the other sends it back, and so on; first with nothing else, then while the first always
 * has one bulk message that is not acknowledged. Both take turns, in processes of their own. Beside
 * bulk those round trips count that begin when `send` with the bulk message has returned: `send`
 * copies it, and what that takes is the caller's own time, shown as such.
 *
 * @module
 */

import process from "node:process";
import { parseArgs } from "node:util";
import { type RuntimeName, RUNTIMES } from "../tools/runtimes.ts";
import type { Task } from "./net_case.ts";
import { measurePair, type PairResult } from "./net_pair.ts";
import { line, median, showMachine } from "./net_table.ts";

const WARM_UP_MS = 1_000;
const MIB = 1024 * 1024;
const WIDTHS = [8, 22, 22, 22, 12, 12] as const;

const { values } = parseArgs({
  options: {
    runtime: { type: "string", multiple: true },
    seconds: { type: "string", default: "3" },
    repeat: { type: "string", default: "5" },
    mib: { type: "string", default: "16" },
  },
});
const runtimes = RUNTIMES.filter((name) => values.runtime?.includes(name) ?? true);
const [seconds, repeat, mib] = [values.seconds, values.repeat, values.mib].map(Number) as [
  number,
  number,
  number,
];

showMachine(`deno run -A bench/lanes.ts ${process.argv.slice(2).join(" ")}`.trim(), {
  runtimes,
  seconds,
  repeat,
});
console.log();
const show = (...cells: string[]) => console.log(line(cells, WIDTHS));
show("", "idle: p50, p99", `beside ${mib} MiB bulk`, "ratios: p50, p99", "bulk", "send()");
for (const runtime of runtimes) {
  const idle: PairResult[] = [];
  const beside: PairResult[] = [];
  for (let i = 0; i < repeat; i++) {
    idle.push(await measure(runtime, 0));
    beside.push(await measure(runtime, mib * MIB));
  }
  const [idle50, idle99] = percentiles(idle);
  const [beside50, beside99] = percentiles(beside);
  const rate = median(beside.map(({ bulkBytesPerSecond }) => bulkBytesPerSecond!));
  const sendMs = median(beside.map(({ bulkSendMs }) => bulkSendMs!));
  show(
    runtime,
    `${idle50.toFixed(0)}, ${idle99.toFixed(0)} us`,
    `${beside50.toFixed(0)}, ${beside99.toFixed(0)} us`,
    `${(beside50 / idle50).toFixed(2)}, ${(beside99 / idle99).toFixed(2)}`,
    `${(rate / 1e6).toFixed(0)} MB/s`,
    `${sendMs.toFixed(1)} ms`,
  );
}

function percentiles(results: readonly PairResult[]): [p50: number, p99: number] {
  return [median(results.map(({ value }) => value)), median(results.map(({ p99 }) => p99!))];
}

function measure(runtime: RuntimeName, bulkBytes: number): Promise<PairResult> {
  const task = (role: Task["role"]): Task => ({
    role,
    library: "hawser",
    style: "round trip",
    bytes: 64,
    bulkBytes,
    compress: false,
    tls: null,
    warmUpMs: WARM_UP_MS,
    measureMs: seconds * 1000,
  });
  const options = { pin: false, profileFolder: undefined };
  return measurePair(runtime, task("receiver"), task("sender"), options);
}
