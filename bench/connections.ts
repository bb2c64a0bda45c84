/**
 * Many idle connections in one process, and the memory that each of them costs:
 *
 *     deno run -A bench/connections.ts [--runtime deno|bun|node]... [--count N] [--hold SECONDS]
 *                                      [--security plain|tls]... [--ping SECONDS]
 *
 * One process listens, a second one of the same runtime holds one endpoint for each connection.
 * After they have been idle, every connection has to carry a message.
 *
 * @module
 */

import { type ChildProcess, spawn } from "node:child_process";
import process from "node:process";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import type { EndpointConfig } from "../mod.ts";
import { TestCa } from "../tests/support/certs.ts";
import { runCommand, type RuntimeName, RUNTIMES } from "../tools/runtimes.ts";
import type { Report, Task } from "./connections_worker.ts";

const WORKER = fileURLToPath(new URL("./connections_worker.ts", import.meta.url));
/** How often the listener is asked for how many messages have come, at the most. */
const MAX_ASKS = 2_000;
const KIB = 1024;

type Security = "plain" | "tls";

/** A process of the bench. */
class Worker {
  readonly #child: ChildProcess;
  readonly #lines: AsyncIterator<string>;

  constructor(runtime: RuntimeName, task: Task) {
    const [command, ...args] = runCommand(runtime, WORKER);
    // So that what is measured is held, and not what the collector has not looked at.
    const flags = runtime === "deno"
      ? ["--v8-flags=--expose-gc"]
      : runtime === "node"
      ? ["--expose-gc"]
      : [];
    const at = runtime === "deno" ? 1 : 0;
    this.#child = spawn(command!, [...args.slice(0, at), ...flags, ...args.slice(at)], {
      stdio: ["pipe", "pipe", "inherit"],
      env: { ...process.env, NO_COLOR: "1" },
    });
    this.#lines = createInterface({ input: this.#child.stdout! })[Symbol.asyncIterator]();
    this.#child.stdin!.write(`${JSON.stringify(task)}\n`);
  }

  async report(): Promise<Report> {
    // What the endpoint itself prints starts otherwise.
    for (;;) {
      const { value, done } = await this.#lines.next();
      if (done) throw new Error("a process of the bench has ended");
      if (value.startsWith("{")) return JSON.parse(value);
    }
  }

  ask(line: string): Promise<Report> {
    this.#child.stdin!.write(`${line}\n`);
    return this.report();
  }

  end(): void {
    this.#child.kill("SIGKILL");
  }
}

const { values } = parseArgs({
  options: {
    runtime: { type: "string", multiple: true, default: ["deno", "bun"] },
    security: { type: "string", multiple: true, default: ["plain"] },
    count: { type: "string", default: "15000" },
    hold: { type: "string", default: "5" },
    ping: { type: "string", default: "10" },
  },
});
const count = Number(values.count);
if (!Number.isInteger(count) || count < 1) throw new RangeError("--count must be a whole number");

console.log("runtime security connections seconds listener dialers carried");
for (const runtime of RUNTIMES.filter((name) => values.runtime.includes(name))) {
  for (const security of values.security as Security[]) await measure(runtime, security);
}
process.exit(0);

async function measure(runtime: RuntimeName, security: Security): Promise<void> {
  const shared = await optionsOf(security);
  const many = count + 100;
  const limits = { maxConnections: many, maxConnectionsPerHost: many };
  const listen: Task = {
    role: "listener",
    count,
    address: "",
    options: { ...shared, ...limits, listen: "tcp://127.0.0.1:0" },
  };
  const listener = new Worker(runtime, listen);
  let dialer: Worker | undefined;
  try {
    const before = await listener.report();
    dialer = new Worker(runtime, {
      ...listen,
      role: "dialer",
      options: shared,
      address: before.address,
    });
    const alone = await dialer.report();
    const start = performance.now();
    const dialed = await dialer.ask("dial");
    const seconds = (performance.now() - start) / 1000;
    await new Promise((resolve) => setTimeout(resolve, Number(values.hold) * 1000));
    const held = await listener.ask("");
    await listener.ask("broadcast");
    let carried = dialed;
    for (let asks = 0; carried.received < count && asks < MAX_ASKS; asks++) {
      carried = await dialer.ask("");
    }
    const each = (after: Report, base: Report) =>
      `${((after.bytes - base.bytes) / count / KIB).toFixed(1)} KiB`;
    console.log(
      [runtime, security, held.connections, seconds.toFixed(1), each(held, before)].join(" "),
      each(dialed, alone),
      carried.received,
    );
    if (held.connections !== count || carried.received !== count) process.exitCode = 1;
  } finally {
    listener.end();
    dialer?.end();
  }
}

async function optionsOf(security: Security): Promise<Omit<EndpointConfig, "nodeId">> {
  const pool = { healthCheckIntervalMs: Number(values.ping) * 1000 };
  const shared = { poolSize: 1, connectTimeoutMs: 30_000, pool } as const;
  if (security === "plain") return { ...shared, security: "legacy" };
  const ca = await TestCa.create();
  const tls = { ...await ca.issue("node"), ca: ca.ca, requireClientAuth: true } as const;
  return { ...shared, security: "permissive", tls };
}
