/**
 * What an idle peer costs in memory, beside an idle raw socket:
 *
 *     deno run -A bench/idle.ts [--runtime deno|bun|node]... [--count N] [--seconds N]
 *                               [--security plain|tls]... [--repeat N]
 *
 * One process listens with one endpoint, another one of the same runtime dials, with an endpoint for
 * each connection; both with raw sockets first, then with Hawser. What is shown is the resident
 * memory of each process after a garbage collection, when the connections have been idle for so many
 * seconds, less that with the first 200, divided by their number. Then every connection has to carry
 * a message. The target is for the listener, which has all peers at one endpoint.
 *
 * @module
 */

import process from "node:process";
import { parseArgs } from "node:util";
import type { RuntimeName } from "../tools/runtimes.ts";
import { positive, runtimesOf, securityOf, whole } from "./arguments.ts";
import { type ConnectionsResult, measureConnections } from "./connections_case.ts";
import { line, machineOf, median } from "./net_table.ts";

const KIB = 1024;
/** What a peer may cost at the listener beside its socket. */
const TARGET_KIB = 8;
/** With fewer connections the growth of the heap says more than what they take. */
const JUDGED_COUNT = 1_000;
const PING_MS = 10_000;
const WIDTHS = [8, 8, 12, 12, 12, 18, 12, 12, 12, 16] as const;

type Library = "raw" | "hawser";

const { values } = parseArgs({
  options: {
    runtime: { type: "string", multiple: true },
    security: { type: "string", multiple: true, default: ["plain", "tls"] },
    count: { type: "string", default: "5000" },
    seconds: { type: "string", default: "15" },
    repeat: { type: "string", default: "1" },
  },
});
const runtimes = runtimesOf(values.runtime);
const count = whole("--count", values.count);
const seconds = positive("--seconds", values.seconds);
const repeat = whole("--repeat", values.repeat);

const command = `deno run -A bench/idle.ts ${process.argv.slice(2).join(" ")}`.trim();
for (const text of machineOf(command, runtimes)) console.log(text);
console.log(
  `${count} connections, idle for ${seconds} s, medians of ${repeat}; KiB per connection: ` +
    "at the listener, one endpoint; at the dialer, as many endpoints",
);
console.log();
const titles = ["raw", "Hawser", "more", `target: +${TARGET_KIB}`];
console.log(line(["", "", ...titles, "dialer: raw", "Hawser", "more", "made in"], WIDTHS));
let failed = false;
for (const runtime of runtimes) {
  for (const security of values.security) await compare(runtime, securityOf(security));
}
process.exit(failed ? 1 : 0);

async function compare(runtime: RuntimeName, security: "plain" | "tls"): Promise<void> {
  const results: Record<Library, ConnectionsResult[]> = { raw: [], hawser: [] };
  try {
    for (let time = 0; time < repeat; time++) {
      for (const library of ["raw", "hawser"] as const) {
        results[library].push(await measure(runtime, library, security));
      }
    }
    show(runtime, security, results);
  } catch (error) {
    failed = true;
    const text = error instanceof Error ? error.message : String(error);
    console.log(line([runtime, security, `failed: ${text}`], WIDTHS));
  }
}

async function measure(
  runtime: RuntimeName,
  library: Library,
  security: "plain" | "tls",
): Promise<ConnectionsResult> {
  const holdMs = seconds * 1000;
  const one = { runtime, library, security, count, holdMs, pingMs: PING_MS };
  const result = await measureConnections(one);
  const { connections, carried } = result;
  if (connections !== count || carried !== count) {
    throw new Error(`${library}: of ${count} connections ${connections} lived, ${carried} carried`);
  }
  return result;
}

function show(
  runtime: RuntimeName,
  security: string,
  results: Readonly<Record<Library, readonly ConnectionsResult[]>>,
): void {
  const kib = (library: Library, key: "listenerBytes" | "dialerBytes") => {
    return median(results[library].map((result) => result[key])) / KIB;
  };
  const [raw, hawser] = [kib("raw", "listenerBytes"), kib("hawser", "listenerBytes")];
  const [rawDialer, hawserDialer] = [kib("raw", "dialerBytes"), kib("hawser", "dialerBytes")];
  console.log(line([
    runtime,
    security,
    raw.toFixed(1),
    hawser.toFixed(1),
    `+${(hawser - raw).toFixed(1)}`,
    count < JUDGED_COUNT ? "" : hawser - raw <= TARGET_KIB ? "met" : "not met",
    rawDialer.toFixed(1),
    hawserDialer.toFixed(1),
    `+${(hawserDialer - rawDialer).toFixed(1)}`,
    (["raw", "hawser"] as const).map((library) => {
      return `${median(results[library].map((result) => result.seconds)).toFixed(1)} s`;
    }).join(", "),
  ], WIDTHS));
}
