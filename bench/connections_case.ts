/** One measurement of many idle connections between two processes. */

import { fileURLToPath } from "node:url";
import type { EndpointConfig } from "../mod.ts";
import { TestCa } from "../tests/support/certs.ts";
import type { RuntimeName } from "../tools/runtimes.ts";
import type { Report, Task } from "./connections_worker.ts";
import { sleep } from "./flow.ts";
import type { Pem } from "./net_case.ts";
import { type BenchProcess, collectorFlags, ProcessGroup } from "./process.ts";

const WORKER = fileURLToPath(new URL("./connections_worker.ts", import.meta.url));
/** How often the dialers are asked how many messages have come, at the most. */
const MAX_ASKS = 2_000;
const ASK_AGAIN_MS = 50;
/** Time for each connection before the measurement has failed, and beside them. */
const LIMIT_MS_EACH = 100;
const LIMIT_MS = 120_000;
/** Connections before memory is first looked at: what the process compiles for them, it has once. */
const FIRST = 200;
/** How often memory is looked at: the collector does not give back everything at once. */
const LOOKS = 3;
const LOOK_MS = 200;

/** What is measured. */
export interface ConnectionsCase {
  readonly runtime: RuntimeName;
  readonly library: Task["library"];
  readonly security: "plain" | "tls";
  readonly count: number;
  /** How long the connections are idle. */
  readonly holdMs: number;
  /** How often the round trip is measured meanwhile, by Hawser. */
  readonly pingMs: number;
}

/** What was measured. */
export interface ConnectionsResult {
  /** Connections that the listener had after the idle time. */
  readonly connections: number;
  /** Messages that came through them then. */
  readonly carried: number;
  /** What the connections took to be made, but for the first. */
  readonly seconds: number;
  /** Resident memory per connection, bytes, in each of the two processes. */
  readonly listenerBytes: number;
  readonly dialerBytes: number;
}

/** Makes the connections, leaves them alone, sends a message through each. */
export async function measureConnections(one: ConnectionsCase): Promise<ConnectionsResult> {
  const { runtime, library, count } = one;
  const pem = one.security === "tls" ? await certificate() : null;
  const shared = optionsOf(one, pem);
  const many = count + 100;
  const limits = { maxConnections: many, maxConnectionsPerHost: many };
  const group = new ProcessGroup(LIMIT_MS + count * LIMIT_MS_EACH + one.holdMs);
  const start = (task: Task): BenchProcess => {
    const name = `${runtime} ${library} ${task.role}`;
    return group.start({ runtime, file: WORKER, name, flags: collectorFlags(runtime) }, task);
  };
  const listen: Task = {
    role: "listener",
    library,
    address: "",
    tls: pem,
    options: { ...shared, ...limits, listen: "tcp://127.0.0.1:0" },
  };
  try {
    const listener = start(listen);
    const { address } = await listener.answer<Report>();
    const dialer = start({ ...listen, role: "dialer", options: shared, address });
    await dialer.answer();
    const first = Math.min(FIRST, count >> 1);
    await dialer.ask(`dial ${first}`);
    const [before, alone] = await Promise.all([least(listener, one), least(dialer, one)]);
    const begun = performance.now();
    await dialer.ask(`dial ${count}`);
    const seconds = (performance.now() - begun) / 1000;
    await sleep(one.holdMs);
    const [held, holding] = await Promise.all([least(listener, one), least(dialer, one)]);
    await listener.ask("broadcast");
    let carried = 0;
    for (let asks = 0; carried < count && asks < MAX_ASKS; asks++) {
      await sleep(ASK_AGAIN_MS);
      ({ received: carried } = await dialer.ask<Report>("count"));
    }
    const each = (after: Report, base: Report) => (after.bytes - base.bytes) / (count - first);
    return {
      connections: held.connections,
      carried,
      seconds,
      listenerBytes: each(held, before),
      dialerBytes: each(holding, alone),
    };
  } finally {
    await group.kill();
  }
}

/** The report with the least memory of several. */
async function least(worker: BenchProcess, { holdMs }: ConnectionsCase): Promise<Report> {
  let best = await worker.ask<Report>("report");
  for (let look = 1; look < LOOKS; look++) {
    await sleep(Math.min(LOOK_MS, holdMs / LOOKS));
    const report = await worker.ask<Report>("report");
    if (report.bytes < best.bytes) best = report;
  }
  return best;
}

function optionsOf(
  { pingMs }: ConnectionsCase,
  pem: Pem | null,
): Omit<EndpointConfig, "nodeId"> {
  const pool = { healthCheckIntervalMs: pingMs };
  const shared = { poolSize: 1, connectTimeoutMs: 30_000, pool } as const;
  if (pem === null) return { ...shared, security: "legacy" };
  return { ...shared, security: "permissive", tls: { ...pem, requireClientAuth: true } };
}

async function certificate(): Promise<Pem> {
  const authority = await TestCa.create();
  return { ...await authority.issue("node"), ca: authority.ca };
}
