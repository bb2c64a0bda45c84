/**
 * Throughput and round trips between two processes over loopback, on each runtime, with the raw
 * socket in the same run:
 *
 *     deno run -A bench/net.ts [--runtime deno|bun|node]... [--seconds N] [--repeat N]
 *                              [--filter TEXT] [--json FILE] [--pin] [--cpu-prof FOLDER]
 *
 * Every repetition starts two new processes and warms them up. Raw and Hawser take turns, so that
 * what else the machine does falls on both. The receiver checks the length and the number of every
 * message.
 *
 * @module
 */

import { writeFileSync } from "node:fs";
import process from "node:process";
import { parseArgs } from "node:util";
import { TestCa } from "../tests/support/certs.ts";
import { type RuntimeName, RUNTIMES } from "../tools/runtimes.ts";
import { type Pem, RECEIVER, SENDER, type Style, type Task } from "./net_case.ts";
import { measurePair, type PairOptions, type PairResult } from "./net_pair.ts";
import { type Row, showMachine, showRow, showTitles } from "./net_table.ts";

/** Time for a new process to compile what it runs. */
const WARM_UP_MS = 500;

/** A row of the table: one way to use Hawser, and the raw measurement it is held against. */
interface Case {
  readonly name: string;
  readonly style: Style;
  readonly bytes: number;
  readonly secure: boolean;
  readonly compress: boolean;
}

interface Options extends PairOptions {
  readonly runtimes: readonly RuntimeName[];
  readonly seconds: number;
  readonly repeat: number;
  readonly filter: string;
  readonly json: string | undefined;
}

const KIB = 1024;

const CASES: readonly Case[] = [false, true].flatMap((secure) => {
  const one = (name: string, style: Style, bytes: number, compress = false): Case => ({
    name: `${secure ? "mutual TLS" : "plain"}, ${name}`,
    style,
    bytes,
    secure,
    compress,
  });
  return [
    one("64 B, trySend/onMessage", "push", 64),
    one("64 B, await send/for await", "await", 64),
    one("1 KiB, trySend/onMessage", "push", KIB),
    one("64 KiB, trySend/onMessage", "push", 64 * KIB),
    one("64 KiB, with LZ4 in vain", "push", 64 * KIB, true),
    one("64 B, round trip", "round trip", 64),
  ];
});

const options = readOptions();
const cases = CASES.filter(({ name }) => name.includes(options.filter));
const certificates = await issue();
const rows: Row[] = [];
const command = `deno run -A bench/net.ts ${process.argv.slice(2).join(" ")}`.trim();
showMachine(command, options);
for (const runtime of options.runtimes) {
  showTitles(runtime);
  for (const row of await measureRuntime(runtime)) {
    rows.push(row);
    showRow(row);
  }
}
if (options.json !== undefined) writeFileSync(options.json, `${JSON.stringify(rows, null, 2)}\n`);
process.exit(rows.some((row) => row.errors.length > 0) ? 1 : 0);

/** All cases again and again, so that a slow minute of the machine does not fall on one of them. */
async function measureRuntime(runtime: RuntimeName): Promise<Row[]> {
  const results = cases.map((one): Row => ({
    runtime,
    name: one.name,
    style: one.style,
    bytes: one.bytes,
    raw: [],
    hawser: [],
    errors: [],
  }));
  for (let repetition = 0; repetition < options.repeat; repetition++) {
    /** A raw measurement serves every row that is held against the same. */
    const known = new Map<string, PairResult>();
    for (const [index, one] of cases.entries()) {
      const row = results[index]!;
      const key = `${one.secure} ${one.style === "round trip"} ${one.bytes}`;
      try {
        const raw = known.get(key) ?? await measure(runtime, one, "raw");
        known.set(key, raw);
        row.raw.push(raw);
        row.hawser.push(await measure(runtime, one, "hawser"));
      } catch (error) {
        row.errors.push(error instanceof Error ? error.message : String(error));
      }
    }
  }
  return results;
}

function measure(runtime: RuntimeName, one: Case, library: Task["library"]): Promise<PairResult> {
  const task = (role: Task["role"]): Task => ({
    role,
    library,
    style: one.style,
    bytes: one.bytes,
    compress: one.compress,
    tls: one.secure ? certificates[role] : null,
    warmUpMs: WARM_UP_MS,
    measureMs: options.seconds * 1000,
  });
  return measurePair(runtime, task("receiver"), task("sender"), options);
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
      seconds: { type: "string", default: "2" },
      repeat: { type: "string", default: "5" },
      filter: { type: "string", default: "" },
      json: { type: "string" },
      pin: { type: "boolean", default: false },
      "cpu-prof": { type: "string" },
    },
  });
  const runtimes = values.runtime?.map((name) => {
    const runtime = RUNTIMES.find((known) => known === name);
    if (runtime === undefined) throw new TypeError(`--runtime: one of ${RUNTIMES.join(", ")}`);
    return runtime;
  });
  return {
    runtimes: runtimes ?? RUNTIMES,
    seconds: positive("--seconds", values.seconds),
    repeat: positive("--repeat", values.repeat),
    filter: values.filter,
    json: values.json,
    pin: values.pin,
    profileFolder: values["cpu-prof"],
  };
}

function positive(name: string, text: string): number {
  const value = Number(text);
  if (!(value > 0 && Number.isFinite(value))) throw new RangeError(`${name}: a number above 0`);
  return value;
}
