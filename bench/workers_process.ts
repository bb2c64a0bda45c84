/**
 * One process of the workers bench: a worker that receives, or a sender. Standard input brings its
 * task as one JSON line; it answers each further line with one JSON line.
 *
 * @module
 */

import { createHash } from "node:crypto";
import process from "node:process";
import { createInterface } from "node:readline";
import { Endpoint } from "../mod.ts";

/** What the process is to be. */
export interface Task {
  readonly role: "worker" | "sender";
  readonly name: string;
  readonly address: string;
  readonly messageBytes: number;
  /** How often a worker hashes each message: what an application does with it. */
  readonly work: number;
  /** Endpoints of a sender, of one connection each. */
  readonly endpoints: number;
}

/** What a process says of itself. */
export interface Report {
  readonly address: string;
  readonly peers: number;
  readonly received: number;
}

if (import.meta.main) {
  const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
  const task = JSON.parse((await lines.next()).value ?? "{}") as Task;
  const report = task.role === "worker" ? await receive(task) : await send(task);
  const say = () => process.stdout.write(`${JSON.stringify(report())}\n`);
  say();
  for await (const _ of lines) say();
  process.exit(0);
}

async function receive({ address, work }: Task): Promise<() => Report> {
  const endpoint = new Endpoint({
    nodeId: "service",
    listen: address,
    reusePort: true,
    security: "legacy",
  });
  let received = 0;
  endpoint.onMessage(({ payload }) => {
    for (let time = 0; time < work; time++) createHash("sha256").update(payload).digest();
    received++;
  });
  await endpoint.start();
  return () => ({ address: endpoint.addresses[0]!, peers: endpoint.peers().length, received });
}

async function send({ name, address, messageBytes, endpoints }: Task): Promise<() => Report> {
  const message = new Uint8Array(messageBytes).fill(7);
  for (let number = 0; number < endpoints; number++) {
    const nodeId = `${name}-${number}`;
    // Workers that are busy to the brim take their time with newcomers.
    const connectTimeoutMs = 30_000;
    const endpoint = new Endpoint({ nodeId, poolSize: 1, security: "legacy", connectTimeoutMs });
    await endpoint.start();
    await endpoint.connect({ nodeId: "service", address });
    keepSending(endpoint, message);
  }
  return () => ({ address: "", peers: endpoints, received: 0 });
}

async function keepSending(endpoint: Endpoint, message: Uint8Array): Promise<void> {
  for (;;) {
    while (endpoint.trySend("service", message));
    await endpoint.send("service", message);
  }
}
