/**
 * Throughput, round trips and requests between two processes over loopback, on each runtime, with
 * the raw socket in the same run:
 *
 *     deno run -A bench/net.ts [--runtime deno|bun|node]... [--seconds N] [--repeat N]
 *                              [--filter TEXT]... [--json FILE] [--svg FILE]
 *                              [--pairs SENDER:RECEIVER]... [--pin] [--cpu-prof FOLDER]
 *
 * Every repetition starts two new processes and warms them up. Raw and Hawser take turns, so that
 * what else the machine does falls on both. Every message is checked: its length and its number. The
 * exit code is 1 where one was wrong, however fast or slow they were.
 *
 * `--filter` takes rows whose name has the text in it, all the texts where there are several,
 * `--pairs` measures between two runtimes instead of on each, `--svg` draws the ratios.
 *
 * @module
 */

import { writeFileSync } from "node:fs";
import process from "node:process";
import { parseArgs } from "node:util";
import { TestCa } from "../tests/support/certs.ts";
import type { RuntimeName } from "../tools/runtimes.ts";
import { positive, runtimeOf, runtimesOf, whole } from "./arguments.ts";
import { type Pem, RECEIVER, SENDER, type Task } from "./net_case.ts";
import { type Case, CASES, isMet, ratioOf, type Row } from "./net_cases.ts";
import { chartOf } from "./net_chart.ts";
import { measurePair, type PairOptions, type PairResult } from "./net_pair.ts";
import { machineOf, showMachine, showRow, showTitles, showVerdict } from "./net_table.ts";
import { canPin } from "./process.ts";

/** Time for a new process to compile what it runs; no more than is measured. */
const WARM_UP_MS = 2_000;

/** Who sends to whom. */
interface Pair {
  readonly sender: RuntimeName;
  readonly receiver: RuntimeName;
}

interface Options extends PairOptions {
  readonly pairs: readonly Pair[];
  readonly runtimes: readonly RuntimeName[];
  readonly seconds: number;
  readonly repeat: number;
  readonly filters: readonly string[];
  readonly json: string | undefined;
  readonly svg: string | undefined;
}

const options = readOptions();
const cases = CASES.filter(({ name }) => options.filters.every((text) => name.includes(text)));
if (cases.length === 0) {
  const names = CASES.map(({ name }) => `  ${name}`).join("\n");
  throw new RangeError(`--filter: no row has all the texts in its name; the rows are:\n${names}`);
}
const certificates = await issue();
const rows: Row[] = [];
const command = `deno run -A bench/net.ts ${process.argv.slice(2).join(" ")}`.trim();
showMachine(command, options);
if (!canPin()) console.log("there is no taskset: what should run on one core runs on any");
for (const pair of options.pairs) {
  showTitles(nameOf(pair));
  for (const row of await measureRows(pair)) {
    rows.push(row);
    showRow(row);
  }
}
showVerdict(rows);
const machine = machineOf(command, options.runtimes);
if (options.json !== undefined) {
  const judged = rows.map((row) => ({ ...row, ratio: ratioOf(row), met: isMet(row) }));
  writeFileSync(options.json, `${JSON.stringify({ machine, rows: judged }, null, 2)}\n`);
}
if (options.svg !== undefined) writeFileSync(options.svg, chartOf(rows, machine));
process.exit(rows.some((row) => row.errors.length > 0) ? 1 : 0);

/** All cases again and again, so that a slow minute of the machine does not fall on one of them. */
async function measureRows(pair: Pair): Promise<Row[]> {
  const results = cases.map((one): Row => ({
    runtime: nameOf(pair),
    name: one.name,
    unit: one.unit,
    bytes: one.bytes,
    target: pair.sender === pair.receiver ? one.target[pair.sender] : undefined,
    raw: [],
    hawser: [],
    errors: [],
  }));
  for (let repetition = 0; repetition < options.repeat; repetition++) {
    /** A raw measurement serves every row that is held against the same. */
    const known = new Map<string, PairResult>();
    for (const [index, one] of cases.entries()) {
      const row = results[index]!;
      const key = baseOf(one);
      try {
        const raw = known.get(key) ?? await measureBase(pair, one);
        known.set(key, raw);
        const hawser = await measure(pair, one, { library: "hawser" });
        row.raw.push(raw);
        row.hawser.push(hawser);
      } catch (error) {
        row.errors.push(error instanceof Error ? error.message : String(error));
      }
    }
  }
  return results;
}

/** Equal for rows that are held against the same. */
function baseOf({ base, style, secure, bytes, oneCore }: Case): string {
  const oneWay = style === "push" || style === "await";
  const what = base === undefined ? oneWay ? "one way" : style : JSON.stringify(base);
  return [what, secure, bytes, oneCore].join();
}

async function measureBase(pair: Pair, one: Case): Promise<PairResult> {
  const { base } = one;
  if (base === undefined) return await measure(pair, one, { library: "raw" });
  const { style, peers, times } = base;
  const result = await measure(pair, one, { library: "hawser", style, peers });
  return { ...result, value: result.value * times };
}

function measure(
  { sender, receiver }: Pair,
  one: Case,
  changes: Pick<Task, "library"> & Partial<Task>,
): Promise<PairResult> {
  const measureMs = options.seconds * 1000;
  const task = (role: Task["role"]): Task => ({
    role,
    style: one.style,
    bytes: one.bytes,
    ...(one.peers === undefined ? {} : { peers: one.peers }),
    compress: one.compress,
    tls: one.secure ? certificates[role] : null,
    warmUpMs: Math.min(WARM_UP_MS, measureMs),
    measureMs,
    ...changes,
  });
  const how = { ...options, oneCore: one.oneCore, senderRuntime: sender };
  return measurePair(receiver, task("receiver"), task("sender"), how);
}

function nameOf({ sender, receiver }: Pair): string {
  return sender === receiver ? sender : `${sender} to ${receiver}`;
}

async function issue(): Promise<Record<Task["role"], Pem>> {
  const authority = await TestCa.create();
  const { ca } = authority;
  return {
    receiver: { ...await authority.issue(RECEIVER), ca },
    sender: { ...await authority.issue(SENDER), ca },
  };
}

function readOptions(): Options {
  const { values } = parseArgs({
    options: {
      runtime: { type: "string", multiple: true },
      pairs: { type: "string", multiple: true },
      seconds: { type: "string", default: "2" },
      repeat: { type: "string", default: "5" },
      filter: { type: "string", multiple: true, default: [] },
      json: { type: "string" },
      svg: { type: "string" },
      pin: { type: "boolean", default: false },
      "cpu-prof": { type: "string" },
    },
  });
  const pairs = values.pairs?.map(pairOf) ??
    runtimesOf(values.runtime).map((runtime) => ({ sender: runtime, receiver: runtime }));
  return {
    pairs,
    runtimes: [...new Set(pairs.flatMap(({ sender, receiver }) => [sender, receiver]))],
    seconds: positive("--seconds", values.seconds),
    repeat: whole("--repeat", values.repeat),
    filters: values.filter,
    json: values.json,
    svg: values.svg,
    pin: values.pin,
    profileFolder: values["cpu-prof"],
  };
}

function pairOf(text: string): Pair {
  const [sender, receiver, ...more] = text.split(":").map(runtimeOf);
  if (sender === undefined || receiver === undefined || more.length > 0) {
    throw new TypeError("--pairs: two runtimes with a colon between them");
  }
  return { sender, receiver };
}
