/**
 * Messages per second of one endpoint with more and more peers, all together:
 *
 *     deno run -A bench/fan.ts [--runtime deno|bun|node]... [--peers N]... [--seconds N]
 *                              [--repeat N] [--bytes N] [--direction in|out]...
 *
 * One process has the endpoint, another one the peers, each of which is an endpoint of its own with
 * one connection. In the direction "out" the one sends to all of them at once, as fast as their
 * queues take it; in the direction "in" all of them send to it. What is shown is the sum of all
 * peers, its ratio to that of one peer, and the processor time that a message costs the endpoint
 * with the peers; the other process has as many endpoints as there are peers, and slows down, too.
 * Every message is checked: its length and its number.
 *
 * @module
 */

import process from "node:process";
import { parseArgs } from "node:util";
import type { RuntimeName } from "../tools/runtimes.ts";
import { positive, runtimesOf, whole } from "./arguments.ts";
import { Flow, type FlowRate } from "./flow.ts";
import { line, machineOf, median } from "./net_table.ts";

const WARM_UP_MS = 2_000;
const WIDTHS = [8, 5, 7, 28, 8, 17, 22, 10] as const;
/** What of the rate with one peer must be left. */
const TARGET = 0.7;
const MIB = 1024 * 1024;

type Direction = "in" | "out";

/** One measurement. */
interface Result extends FlowRate {
  /** The most memory of the endpoint's process. */
  readonly peakBytes: number;
}

const { values } = parseArgs({
  options: {
    runtime: { type: "string", multiple: true },
    peers: { type: "string", multiple: true, default: ["1", "10", "100", "1000"] },
    direction: { type: "string", multiple: true, default: ["out", "in"] },
    seconds: { type: "string", default: "2" },
    repeat: { type: "string", default: "3" },
    bytes: { type: "string", default: "64" },
  },
});
const runtimes = runtimesOf(values.runtime);
const counts = values.peers.map((text) => whole("--peers", text));
const seconds = positive("--seconds", values.seconds);
const repeat = whole("--repeat", values.repeat);
const bytes = whole("--bytes", values.bytes);

const command = `deno run -A bench/fan.ts ${process.argv.slice(2).join(" ")}`.trim();
for (const text of machineOf(command, runtimes)) console.log(text);
console.log(`medians (least - most) of ${repeat} x ${seconds} s, messages of ${bytes} B`);
let failed = false;
for (const runtime of runtimes) {
  for (const direction of values.direction) await measureAll(runtime, directionOf(direction));
}
process.exit(failed ? 1 : 0);

async function measureAll(runtime: RuntimeName, direction: Direction): Promise<void> {
  const results = counts.map((): Result[] => []);
  const errors = new Set<string>();
  for (let time = 0; time < repeat; time++) {
    for (const [index, count] of counts.entries()) {
      try {
        results[index]!.push(await measure(runtime, direction, count));
      } catch (error) {
        errors.add(`${count} peers: ${error instanceof Error ? error.message : String(error)}`);
      }
    }
  }
  console.log();
  const titles = ["peers", "all together", "ratio", "target", "CPU of a message", "peak"];
  console.log(line([runtime, direction, ...titles], WIDTHS));
  for (const [index, count] of counts.entries()) {
    show(count, results[index]!, results[0]!, direction);
  }
  for (const error of errors) console.log(`failed: ${error}`);
  failed ||= errors.size > 0;
}

function show(
  count: number,
  results: readonly Result[],
  base: readonly Result[],
  direction: Direction,
): void {
  if (results.length === 0) return;
  const costOf = (all: readonly Result[]) => {
    return median(all.map((one) => direction === "out" ? one.senderNs : one.receiverNs));
  };
  const rates = results.map(({ messagesPerSecond }) => messagesPerSecond);
  const ratio = median(rates) / median(base.map(({ messagesPerSecond }) => messagesPerSecond));
  const [middle, least, most] = [median(rates), Math.min(...rates), Math.max(...rates)]
    .map((rate) => (rate / 1000).toFixed(0));
  const isBase = results === base;
  console.log(line([
    "",
    "",
    String(count),
    `${middle} k/s (${least} - ${most})`,
    isBase ? "" : ratio.toFixed(2),
    isBase ? "" : `>= ${TARGET} ${ratio >= TARGET ? "met" : "not met"}`,
    `${costOf(results).toFixed(0)} ns (${(costOf(results) / costOf(base)).toFixed(2)} x)`,
    `${Math.round(Math.max(...results.map(({ peakBytes }) => peakBytes)) / MIB)} MiB`,
  ], WIDTHS));
}

async function measure(
  runtime: RuntimeName,
  direction: Direction,
  count: number,
): Promise<Result> {
  const warmUpMs = Math.min(WARM_UP_MS, seconds * 1000);
  const flow = await Flow.start({
    runtime,
    senders: direction === "in" ? count : 1,
    receivers: direction === "in" ? 1 : count,
    bytes,
    payload: "random",
    compression: "none",
    limitMs: warmUpMs + seconds * 1000,
  });
  try {
    await flow.measure(warmUpMs);
    const rate = await flow.measure(seconds * 1000);
    const { sender, receiver } = await flow.stop();
    return { ...rate, peakBytes: (direction === "out" ? sender : receiver).peakBytes };
  } finally {
    await flow.kill();
  }
}

function directionOf(text: string): Direction {
  if (text !== "in" && text !== "out") throw new TypeError("--direction: in or out");
  return text;
}
