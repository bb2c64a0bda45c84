/**
 * Whether the memory of two endpoints stays flat at full rate:
 *
 *     deno run -A bench/soak.ts [--runtime deno|bun|node]... [--seconds N] [--bytes N]...
 *                               [--security plain|tls]... [--json FILE]
 *
 * Once a second both processes run their garbage collectors and say what is in use then: of the heap
 * and by arrays outside of it. The slope is the median of those between any two samples of the second
 * half; memory is flat where it makes no more of that half than twice what the samples scatter, or a
 * twentieth of what is in use. Every message is checked: its length and its number.
 *
 * @module
 */

import { writeFileSync } from "node:fs";
import process from "node:process";
import { parseArgs } from "node:util";
import type { RuntimeName } from "../tools/runtimes.ts";
import { positive, runtimesOf, securityOf, whole } from "./arguments.ts";
import { issueFor } from "./certificates.ts";
import { Flow, type FlowReports, rateOf, sleep } from "./flow.ts";
import { line, machineOf, median } from "./net_table.ts";

const WARM_UP_MS = 1_000;
const SAMPLE_MS = 1_000;
/** Samples that there are at least, however short it is. */
const MIN_SAMPLES = 4;
/** What memory may rise over the second half and still be flat. */
const FLAT_SHARE = 0.05;
/** Times the scatter that it may rise, too. */
const FLAT_SCATTERS = 2;
const WIDTHS = [8, 7, 8, 24, 10, 34, 16, 9] as const;
const MIB = 1024 * 1024;
const KIB = 1024;

type Role = keyof FlowReports;

/** A straight line through samples and what it leaves of them. */
interface Line {
  /** Bytes per second. */
  readonly slope: number;
  /** How far the samples are from the line: the median. */
  readonly scatter: number;
}

const { values } = parseArgs({
  options: {
    runtime: { type: "string", multiple: true },
    seconds: { type: "string", default: "60" },
    bytes: { type: "string", multiple: true, default: ["64"] },
    security: { type: "string", multiple: true, default: ["plain"] },
    json: { type: "string" },
  },
});
const runtimes = runtimesOf(values.runtime);
const seconds = positive("--seconds", values.seconds);
const sampleMs = Math.min(SAMPLE_MS, seconds * 1000 / MIN_SAMPLES);
const certificates = await issueFor({ sender: "sender-0", receiver: "receiver-0" });
const all: Record<string, readonly FlowReports[]> = {};

const command = `deno run -A bench/soak.ts ${process.argv.slice(2).join(" ")}`.trim();
for (const text of machineOf(command, runtimes)) console.log(text);
console.log(
  `${seconds} s at full rate; in use after a collection, the first, the middle, the last`,
);
console.log();
const titles = ["rate, least - most", "process", "in use", "slope", "resident"];
console.log(line(["", "bytes", "", ...titles], WIDTHS));
let failed = false;
for (const runtime of runtimes) {
  for (const security of values.security) {
    for (const bytes of values.bytes) await soak(runtime, security, whole("--bytes", bytes));
  }
}
if (values.json !== undefined) writeFileSync(values.json, `${JSON.stringify(all)}\n`);
process.exit(failed ? 1 : 0);

async function soak(runtime: RuntimeName, security: string, bytes: number): Promise<void> {
  try {
    const samples = await sample(runtime, security, bytes);
    all[[runtime, security, bytes].join(" ")] = samples;
    show([runtime, String(bytes), security], samples);
  } catch (error) {
    failed = true;
    const text = error instanceof Error ? error.message : String(error);
    console.log(line([runtime, String(bytes), security, `failed: ${text}`], WIDTHS));
  }
}

async function sample(
  runtime: RuntimeName,
  security: string,
  bytes: number,
): Promise<readonly FlowReports[]> {
  const flow = await Flow.start({
    runtime,
    senders: 1,
    receivers: 1,
    bytes,
    payload: "random",
    compression: "none",
    tls: securityOf(security) === "tls" ? certificates : undefined,
    limitMs: WARM_UP_MS + seconds * 1000,
  });
  try {
    await sleep(Math.min(WARM_UP_MS, seconds * 1000));
    const samples = [await flow.report("collect")];
    const end = performance.now() + seconds * 1000;
    while (performance.now() < end) {
      await sleep(sampleMs);
      samples.push(await flow.report("collect"));
    }
    await flow.stop();
    return samples;
  } finally {
    await flow.kill();
  }
}

function show(names: readonly string[], samples: readonly FlowReports[]): void {
  const rates = samples.slice(1).map((after, index) => {
    return rateOf(samples[index]!, after).messagesPerSecond / 1000;
  });
  const [least, most] = [Math.min(...rates), Math.max(...rates)].map((rate) => rate.toFixed(0));
  const rate = `${median(rates).toFixed(0)} k/s (${least} - ${most})`;
  for (const role of ["sender", "receiver"] as const) {
    const cells = role === "sender" ? [...names, rate] : ["", "", "", ""];
    console.log(line([...cells, role, ...memoryOf(role, samples)], WIDTHS));
  }
}

/** What is in use, how it grows, what is resident, and whether that is flat. */
function memoryOf(role: Role, samples: readonly FlowReports[]): string[] {
  const reports = samples.map((reports) => reports[role]);
  const half = reports.slice(reports.length >> 1);
  const { slope, scatter } = lineThrough(half.map(({ now, heapBytes }) => [now / 1000, heapBytes]));
  const span = (half.at(-1)!.now - half[0]!.now) / 1000;
  const inUse = median(half.map(({ heapBytes }) => heapBytes));
  const allowed = Math.max(FLAT_SCATTERS * scatter, FLAT_SHARE * inUse);
  const [first, middle, last] = [reports[0]!, half[0]!, reports.at(-1)!].map(({ heapBytes }) => {
    return (heapBytes / MIB).toFixed(1);
  });
  return [
    `${first}, ${middle}, ${last} MiB (+- ${(scatter / MIB).toFixed(1)})`,
    `${(slope / KIB).toFixed(1)} KiB/s`,
    `${Math.round(reports.at(-1)!.residentBytes / MIB)} MiB`,
    slope * span <= allowed ? "flat" : "grows",
  ];
}

/** The median of the slopes between any two points: one that lies far off does not move it. */
function lineThrough(points: readonly (readonly [x: number, y: number])[]): Line {
  const slopes = points.flatMap(([x, y], index) => {
    return points.slice(index + 1).map(([otherX, otherY]) => (otherY - y) / (otherX - x));
  });
  const slope = slopes.length === 0 ? 0 : median(slopes);
  const heights = points.map(([x, y]) => y - slope * x);
  const height = median(heights);
  return { slope, scatter: median(heights.map((one) => Math.abs(one - height))) };
}
