/**
 * One of the two processes of the connections bench. Standard input brings its task as one JSON
 * line, and then a line for each further step; it answers each with one JSON line.
 *
 * @module
 */

import { readFileSync } from "node:fs";
import process from "node:process";
import { createInterface } from "node:readline";
import { Endpoint, type EndpointConfig } from "../mod.ts";

/** What the process is to be. */
export interface Task {
  readonly role: "listener" | "dialer";
  readonly options: Omit<EndpointConfig, "nodeId">;
  readonly count: number;
  /** The dialer's: where to. */
  readonly address: string;
}

/** What a process says of itself. */
export interface Report {
  readonly address: string;
  readonly connections: number;
  readonly received: number;
  readonly bytes: number;
}

/** Dials that are under way at one time. */
const AT_ONCE = 32;
const MAX_ATTEMPTS = 20;
const NODE_ID = "listener";

if (import.meta.main) {
  const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
  const task = JSON.parse((await lines.next()).value ?? "{}") as Task;
  const endpoints: Endpoint[] = [];
  let received = 0;
  const say = () => {
    const connections = endpoints.reduce((sum, each) => sum + each.stats().connectionCount, 0);
    const address = endpoints[0]?.addresses[0] ?? "";
    const report: Report = { address, connections, received, bytes: residentBytes() };
    process.stdout.write(`${JSON.stringify(report)}\n`);
  };
  const start = async (nodeId: string) => {
    const endpoint = new Endpoint({ ...task.options, nodeId });
    endpoint.onMessage(() => void received++);
    await endpoint.start();
    endpoints.push(endpoint);
    return endpoint;
  };
  if (task.role === "listener") await start(NODE_ID);
  say();
  for await (const line of lines) {
    if (line === "dial") await dialAll(task, start);
    if (line === "broadcast") await endpoints[0]!.broadcast(new Uint8Array(16));
    if (line === "end") break;
    say();
  }
  process.exit(0);
}

async function dialAll(
  { count, address }: Task,
  start: (nodeId: string) => Promise<Endpoint>,
): Promise<void> {
  let next = 0;
  const run = async () => {
    while (next < count) {
      const endpoint = await start(`dialer-${next++}`);
      for (let attempt = 1;; attempt++) {
        try {
          await endpoint.connect({ nodeId: NODE_ID, address });
          break;
        } catch (error) {
          // The other process may have had no time for it.
          if (attempt === MAX_ATTEMPTS) throw error;
        }
      }
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, run));
}

/** What the process has of memory, after the collector has run where it can be called. */
function residentBytes(): number {
  const { gc, Bun } = globalThis as { gc?: () => void; Bun?: { gc(force: boolean): void } };
  gc?.();
  Bun?.gc(true);
  try {
    const kib = /^VmRSS:\s*(\d+) kB/m.exec(readFileSync("/proc/self/status", "utf8"))?.[1];
    if (kib !== undefined) return Number(kib) * 1024;
  } catch {
    // Another system than Linux.
  }
  return process.memoryUsage().rss;
}
