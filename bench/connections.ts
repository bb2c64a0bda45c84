/**
 * Many idle connections in one process, and the memory that each of them costs:
 *
 *     deno run -A bench/connections.ts [--runtime deno|bun|node]... [--count N] [--hold SECONDS]
 *                                      [--security plain|tls]... [--ping SECONDS]
 *
 * One process listens, a second one of the same runtime holds one endpoint for each connection.
 * After they have been idle, every connection has to carry a message. bench/idle.ts holds the same
 * against raw sockets.
 *
 * @module
 */

import process from "node:process";
import { parseArgs } from "node:util";
import type { RuntimeName } from "../tools/runtimes.ts";
import { runtimesOf, securityOf, whole } from "./arguments.ts";
import { measureConnections } from "./connections_case.ts";

const KIB = 1024;

const { values } = parseArgs({
  options: {
    runtime: { type: "string", multiple: true, default: ["deno", "bun"] },
    security: { type: "string", multiple: true, default: ["plain"] },
    count: { type: "string", default: "15000" },
    hold: { type: "string", default: "5" },
    ping: { type: "string", default: "10" },
  },
});
const count = whole("--count", values.count);

console.log("runtime security connections seconds listener dialers carried");
for (const runtime of runtimesOf(values.runtime)) {
  for (const security of values.security) await measure(runtime, security);
}
process.exit();

async function measure(runtime: RuntimeName, security: string): Promise<void> {
  const { connections, carried, seconds, listenerBytes, dialerBytes } = await measureConnections({
    runtime,
    library: "hawser",
    security: securityOf(security),
    count,
    holdMs: Number(values.hold) * 1000,
    pingMs: Number(values.ping) * 1000,
  });
  console.log(
    [runtime, security, connections, seconds.toFixed(1)].join(" "),
    [listenerBytes, dialerBytes].map((bytes) => `${(bytes / KIB).toFixed(1)} KiB`).join(" "),
    carried,
  );
  if (connections !== count || carried !== count) process.exitCode = 1;
}
