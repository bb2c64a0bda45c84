/**
 * Handshakes per second beside those of the raw socket, and how soon a peer that was restarted has
 * its first message:
 *
 *     deno run -A bench/handshakes.ts [--runtime deno|bun|node]... [--seconds N] [--repeat N]
 *                                     [--security plain|tls]... [--restarts N]
 *
 * A dialer connects to a listener again and again, one connection after the other and 8 at a time;
 * with "tls" that is mutual TLS, of Hawser in strict mode. A connection counts when both sides can
 * use it: of Hawser when `connect` has resolved, of the raw socket when the listener's first bytes
 * are there. The end of a connection is not waited for. Neither of the two resumes TLS sessions.
 *
 * Then the listener is killed and started again at its port, in strict mode: what is shown is the
 * time from when it listens until it has the first message of a dialer that knew it before, which
 * dials with growing delays; and the time that a new dialer takes from its constructor to the
 * acknowledgement of its first message.
 *
 * @module
 */

import process from "node:process";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import type { RuntimeName } from "../tools/runtimes.ts";
import { positive, runtimesOf, securityOf, whole } from "./arguments.ts";
import { issueFor } from "./certificates.ts";
import { sleep } from "./flow.ts";
import {
  dialerName,
  type DialReport,
  type HandshakeReport,
  type HandshakeTask,
  LISTENER,
  MAX_LANES,
  TURNS,
} from "./handshakes_worker.ts";
import type { Pem } from "./net_case.ts";
import { line, machineOf, median } from "./net_table.ts";
import { ProcessGroup } from "./process.ts";

const WORKER = fileURLToPath(new URL("./handshakes_worker.ts", import.meta.url));
const WARM_UP_MS = 1_000;
const GRACE_MS = 60_000;
/** How often the restarted listener is asked whether the message is there. */
const ASK_MS = 10;
const WIDTHS = [8, 7, 11, 26, 26, 8, 20, 20, 18] as const;

type Library = HandshakeTask["library"];

const { values } = parseArgs({
  options: {
    runtime: { type: "string", multiple: true },
    security: { type: "string", multiple: true, default: ["tls", "plain"] },
    seconds: { type: "string", default: "2" },
    repeat: { type: "string", default: "3" },
    restarts: { type: "string", default: "5" },
  },
});
const runtimes = runtimesOf(values.runtime);
const seconds = positive("--seconds", values.seconds);
const repeat = whole("--repeat", values.repeat);
const restarts = Number(values.restarts);
const pems = await certificates();

const command = `deno run -A bench/handshakes.ts ${process.argv.slice(2).join(" ")}`.trim();
for (const text of machineOf(command, runtimes)) console.log(text);
console.log(
  `medians (least - most) of ${repeat} x ${seconds} s; ` +
    "CPU: the dialer's processor time per connection",
);
let failed = false;
for (const runtime of runtimes) {
  console.log();
  const titles = ["at a time", "raw socket", "Hawser", "ratio", "raw p50, p99", "Hawser p50, p99"];
  console.log(line([runtime, "", ...titles, "CPU raw, Hawser"], WIDTHS));
  for (const security of values.security) await attempt(() => showRates(runtime, security));
  if (restarts > 0) await attempt(() => showRestarts(runtime));
}
process.exit(failed ? 1 : 0);

async function attempt(run: () => Promise<void>): Promise<void> {
  try {
    await run();
  } catch (error) {
    failed = true;
    console.log(`failed: ${error instanceof Error ? error.message : String(error)}`);
  }
}

async function showRates(runtime: RuntimeName, security: string): Promise<void> {
  const lanes = [1, MAX_LANES];
  const results = { raw: lanes.map(noReports), hawser: lanes.map(noReports) };
  for (let time = 0; time < repeat; time++) {
    for (const library of ["raw", "hawser"] as const) {
      const reports = await measure(
        runtime,
        library,
        securityOf(security) === "tls" ? pems : null,
        lanes,
      );
      reports.forEach((report, index) => results[library][index]!.push(report));
    }
  }
  for (const [index, count] of lanes.entries()) {
    const [raw, hawser] = [results.raw[index]!, results.hawser[index]!];
    console.log(line([
      "",
      security,
      String(count),
      showRate(raw),
      showRate(hawser),
      (median(hawser.map(rateOf)) / median(raw.map(rateOf))).toFixed(2),
      showTimes(raw),
      showTimes(hawser),
      [raw, hawser].map((all) => median(all.map(({ cpuMs }) => cpuMs)).toFixed(2)).join(", ") +
      " ms",
    ], WIDTHS));
  }
}

async function measure(
  runtime: RuntimeName,
  library: Library,
  tls: readonly Pem[] | null,
  lanes: readonly number[],
): Promise<DialReport[]> {
  const ms = seconds * 1000;
  const warmUpMs = Math.min(WARM_UP_MS, ms);
  const group = new ProcessGroup(warmUpMs + lanes.length * ms + GRACE_MS);
  const start = (role: HandshakeTask["role"]) => {
    const task: HandshakeTask = { role, library, tls, port: 0 };
    return group.start({ runtime, file: WORKER, name: `${runtime} ${library} ${role}` }, task);
  };
  try {
    const [listener, dialer] = [start("listener"), start("dialer")];
    const { address } = await listener.answer<HandshakeReport>();
    await dialer.answer();
    const dial = (forMs: number, count: number) => {
      return dialer.ask<DialReport>(`dial ${address} ${forMs} ${count}`);
    };
    const all = [await dial(warmUpMs, MAX_LANES)];
    for (const count of lanes) all.push(await dial(ms, count));
    const { connections } = await listener.ask<HandshakeReport>("report");
    const dialed = all.reduce((sum, report) => sum + report.connections, 0);
    if (connections !== dialed) throw new Error(`${dialed} were dialed, ${connections} accepted`);
    return all.slice(1);
  } finally {
    await group.kill();
  }
}

/** Kills and starts the listener, again and again, below a dialer that knows it. */
async function showRestarts(runtime: RuntimeName): Promise<void> {
  const group = new ProcessGroup(restarts * GRACE_MS);
  const start = (role: HandshakeTask["role"], port: number) => {
    const task: HandshakeTask = { role, library: "hawser", tls: pems, port };
    return group.start({ runtime, file: WORKER, name: `${runtime} restarted ${role}` }, task);
  };
  try {
    let listener = start("listener", 0);
    const dialer = start("dialer", 0);
    const { address } = await listener.answer<HandshakeReport>();
    await dialer.answer();
    const [downs, waits, firsts]: number[][] = [[], [], []];
    for (let number = 1; number <= restarts; number++) {
      await dialer.ask(`peer ${address}`);
      await dialer.ask("send 0");
      const killedAt = performance.now();
      await listener.kill();
      listener = start("listener", Number(new URL(address).port));
      const asked = listener.answer<HandshakeReport>();
      // Accepted while there is nobody: it goes to whom the peer is when it is back.
      const sent = dialer.ask(`send ${number}`);
      await asked;
      downs!.push(performance.now() - killedAt);
      await sent;
      let report = await listener.ask<HandshakeReport>("report");
      while (report.numbers.length === 0) {
        await sleep(ASK_MS);
        report = await listener.ask<HandshakeReport>("report");
      }
      if (report.numbers.join() !== String(number)) {
        throw new Error(`message ${number} was sent, ${report.numbers.join()} came`);
      }
      waits!.push(report.firstMs!);
      const newcomer = start("dialer", 0);
      await newcomer.answer();
      firsts!.push((await newcomer.ask<DialReport>(`first ${address}`)).firstMs);
      await newcomer.kill();
    }
    console.log(
      `        restarted peer: down for ${showRange(downs!)}, ` +
        `its first message after ${showRange(waits!)}`,
    );
    console.log(`        new dialer: its first message acknowledged after ${showRange(firsts!)}`);
  } finally {
    await group.kill();
  }
}

async function certificates(): Promise<readonly Pem[]> {
  const dialers = Array.from({ length: MAX_LANES * TURNS }, (_, index) => dialerName(index));
  const names = [LISTENER, ...dialers];
  const issued = await issueFor(Object.fromEntries(names.map((name) => [name, name])));
  return names.map((name) => issued[name]!);
}

function noReports(): DialReport[] {
  return [];
}

function rateOf({ connections, ms }: DialReport): number {
  return connections / ms * 1000;
}

function showRate(reports: readonly DialReport[]): string {
  const rates = reports.map(rateOf);
  const [least, most] = [Math.min(...rates), Math.max(...rates)].map((rate) => rate.toFixed(0));
  return `${median(rates).toFixed(0)} /s (${least} - ${most})`;
}

function showTimes(reports: readonly DialReport[]): string {
  const [p50, p99] = (["p50", "p99"] as const).map((key) => {
    return median(reports.map((report) => report[key])).toFixed(2);
  });
  return `${p50}, ${p99} ms`;
}

function showRange(times: readonly number[]): string {
  const [least, most] = [Math.min(...times), Math.max(...times)].map((time) => time.toFixed(0));
  return `${median(times).toFixed(0)} ms (${least} - ${most})`;
}
