/**
 * Hawser beside other libraries, between two processes over loopback, on each runtime:
 *
 *     deno run -A bench/peers/main.ts [--runtime deno,bun,node] [--only nats,ws,...]
 *                                     [--case 64B,1KiB,64KiB,p50,64-in-flight]
 *                                     [--seconds N] [--repeat N] [--json FILE] [--try]
 *
 * The packages are those of the lock file beside this file; they are installed there if they are
 * missing. Every repetition starts two new processes and warms them up; the libraries take turns.
 * Receivers check the length and the number of every message. A library that can't be installed
 * or started is said so; --try also tries those that are known not to work on a runtime. README.md
 * tells how each is used.
 *
 * @module
 */

import { writeFileSync } from "node:fs";
import os from "node:os";
import process from "node:process";
import { parseArgs } from "node:util";
import { TestCa } from "../../tests/support/certs.ts";
import { type RuntimeName, RUNTIMES, VERSIONS } from "../../tools/runtimes.ts";
import { type Pem, RECEIVER, SENDER } from "../net_case.ts";
import { median } from "../net_table.ts";
import { type Case, CASES, type PeerTask } from "./case.ts";
import { Broker, installPackages, versionOf } from "./install.ts";
import { LIBRARIES, type Library } from "./libraries.ts";
import { measurePair } from "./pair.ts";
import { cpuText, ratioToBest, type Row, showHead, showRuntime } from "./table.ts";

/** Time for a new process to compile what it runs; less if it is measured for less. */
const WARM_UP_MS = 1000;

interface Options {
  readonly runtimes: readonly RuntimeName[];
  readonly libraries: readonly Library[];
  readonly cases: readonly Case[];
  readonly seconds: number;
  readonly repeat: number;
  readonly json: string | undefined;
  readonly tryAll: boolean;
}

const options = readOptions();
const command = `deno run -A bench/peers/main.ts ${process.argv.slice(2).join(" ")}`.trim();
showHead(command, options);
const certificates = options.libraries.some(({ tls }) => tls === true) ? await issue() : undefined;
const missing = options.libraries.some((library) => library.package !== undefined)
  ? installPackages()
  : undefined;
const broker = await startBroker();
showVersions();
const rows: Row[] = [];
try {
  for (const runtime of options.runtimes) {
    const measured = await measureRuntime(runtime);
    rows.push(...measured);
    showRuntime(runtime, measured);
  }
} finally {
  if (broker instanceof Broker) broker.stop();
}
if (options.json !== undefined) writeFileSync(options.json, `${toJson()}\n`);
// A library that does not work is a finding; Hawser and the raw socket must.
const failed = rows.filter(({ library, error }) => !library.rival && error !== undefined);
process.exit(failed.length > 0 ? 1 : 0);

/** All libraries again and again, so that a slow minute of the machine does not fall on one. */
async function measureRuntime(runtime: RuntimeName): Promise<Row[]> {
  const results = options.libraries.flatMap((library) =>
    options.cases.map((one): Row => ({
      runtime,
      library,
      case: one,
      values: [],
      error: whyUnavailable(library, runtime),
    }))
  );
  for (let repetition = 0; repetition < options.repeat; repetition++) {
    for (const one of options.cases) {
      for (const row of results) {
        if (row.case !== one || row.error !== undefined) continue;
        try {
          row.values.push(await measure(row));
        } catch (error) {
          row.error = textOf(error);
        }
      }
    }
  }
  return results;
}

function measure({ runtime, library, case: one }: Row): Promise<number> {
  const task = (role: PeerTask["role"]): PeerTask => ({
    role,
    library: library.name,
    packages: library.package !== undefined,
    kind: one.kind,
    bytes: one.bytes,
    inFlight: one.inFlight,
    tls: library.tls === true ? certificates![role] : null,
    broker: library.broker === true && broker instanceof Broker ? broker.address : null,
    warmUpMs: Math.min(WARM_UP_MS, options.seconds * 1000),
    measureMs: options.seconds * 1000,
  });
  return measurePair(runtime, task("receiver"), task("sender"), one);
}

function whyUnavailable(library: Library, runtime: RuntimeName): string | undefined {
  if (library.package !== undefined && missing !== undefined) return missing;
  if (library.broker === true && !(broker instanceof Broker)) return broker;
  return options.tryAll ? undefined : library.unsuitable?.[runtime];
}

/** The broker, or why there is none. */
async function startBroker(): Promise<Broker | string> {
  if (!options.libraries.some((library) => library.broker === true)) return "";
  try {
    return await Broker.start();
  } catch (error) {
    return textOf(error);
  }
}

async function issue(): Promise<Record<PeerTask["role"], Pem>> {
  const authority = await TestCa.create();
  const { ca } = authority;
  return {
    receiver: { ...await authority.issue(RECEIVER), ca },
    sender: { ...await authority.issue(SENDER), ca },
  };
}

function versions(): Record<string, string> {
  const known = Object.fromEntries(
    options.libraries.flatMap(({ package: name }) =>
      name === undefined ? [] : [[name, versionOf(name)]]
    ),
  );
  const runtimes = Object.fromEntries(options.runtimes.map((name) => [name, VERSIONS[name]]));
  const server = broker instanceof Broker ? { "nats-server": broker.version } : {};
  return { ...runtimes, ...known, ...server };
}

function showVersions(): void {
  const known = Object.entries(versions()).map(([name, version]) => `${name} ${version}`);
  console.log(known.join(", "));
}

function toJson(): string {
  const ratios = options.runtimes.flatMap((runtime) =>
    options.cases.flatMap((one) => {
      const own = rows.filter((row) => row.runtime === runtime && row.case === one);
      const ratio = ratioToBest(own);
      return ratio === undefined ? [] : [{ runtime, case: one.name, ...ratio }];
    })
  );
  const measured = rows.map(({ runtime, library, case: one, values, error }) => ({
    runtime,
    library: library.name,
    case: one.name,
    unit: one.lessIsBetter ? "microseconds" : one.kind === "one-way" ? "messages/s" : "answers/s",
    bytes: one.bytes,
    values,
    ...(values.length === 0 ? {} : { median: median(values) }),
    ...(error === undefined ? {} : { error }),
  }));
  const date = new Date().toISOString();
  const machine = { system: `${os.platform()} ${os.release()} ${os.arch()}`, cpus: cpuText() };
  return JSON.stringify(
    { command, date, machine, versions: versions(), ratios, rows: measured },
    null,
    2,
  );
}

function readOptions(): Options {
  const { values } = parseArgs({
    options: {
      runtime: { type: "string", multiple: true },
      only: { type: "string", multiple: true },
      case: { type: "string", multiple: true },
      seconds: { type: "string", default: "1" },
      repeat: { type: "string", default: "3" },
      json: { type: "string" },
      try: { type: "boolean", default: false },
    },
  });
  const named = RUNTIMES.map((name) => ({ name }));
  return {
    runtimes: choose("--runtime", named, values.runtime).map(({ name }) => name),
    libraries: choose("--only", LIBRARIES, values.only),
    cases: choose("--case", CASES, values.case),
    seconds: positive("--seconds", values.seconds),
    repeat: positive("--repeat", values.repeat),
    json: values.json,
    tryAll: values.try,
  };
}

/** What the names choose, in the order of what there is; everything without names. */
function choose<T extends { name: string }>(
  option: string,
  all: readonly T[],
  lists: readonly string[] | undefined,
): readonly T[] {
  if (lists === undefined) return all;
  const names = lists.flatMap((list) => list.split(","));
  const unknown = names.find((name) => all.every((one) => one.name !== name));
  if (unknown === undefined) {
    return all.filter(({ name }) => names.includes(name));
  }
  throw new TypeError(`${option}: ${unknown} is none of ${all.map(({ name }) => name).join(", ")}`);
}

function positive(name: string, text: string): number {
  const value = Number(text);
  if (!(value > 0 && Number.isFinite(value))) {
    throw new RangeError(`${name}: a number above 0`);
  }
  return value;
}

function textOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
