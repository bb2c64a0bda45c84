/**
 * Two workers behind one address: threads of this process that share a port and a node id, and
 * clients that take them for one node. The system gives each connection to one of the workers.
 *
 * Run it with `deno run -A examples/workers.ts`, `bun examples/workers.ts` or
 * `node examples/workers.ts`. In a program of your own the import is `@hawser/hawser`.
 *
 * @module
 */

import { isMainThread, parentPort, Worker, workerData } from "node:worker_threads";
import { Endpoint } from "../mod.ts";

const WORKERS = 2;
const MAX_CLIENTS = 50;
const encode = (text: string) => new TextEncoder().encode(text);
const decode = (bytes: Uint8Array) => new TextDecoder().decode(bytes);

/** What each worker is told. */
interface Task {
  readonly name: string;
  readonly listen: string;
}

if (isMainThread) await main();
else await work(workerData as Task);

async function work({ name, listen }: Task): Promise<void> {
  // The same node id and, in a secure mode, the same certificate in every worker. A worker only
  // accepts: of two that dial the same node, the second would be turned away as a double.
  const endpoint = new Endpoint({
    nodeId: "service",
    listen,
    reusePort: true,
    security: "development",
  });
  endpoint.handle("who", () => encode(name));
  await endpoint.start();
  parentPort!.on("message", async () => {
    await endpoint.close();
    parentPort!.postMessage("closed");
  });
  parentPort!.postMessage(endpoint.addresses[0]);
}

async function main(): Promise<void> {
  const workers: Worker[] = [];
  let address = "tcp://127.0.0.1:0";
  for (let number = 1; number <= WORKERS; number++) {
    const task: Task = { name: `worker ${number}`, listen: address };
    const worker = new Worker(new URL(import.meta.url), { workerData: task });
    workers.push(worker);
    // The first worker finds a free port, the others share it.
    address = await nextMessage(worker);
  }
  console.log(`${WORKERS} workers listen on ${address}`);

  const served = new Map<string, number>();
  for (let number = 1; served.size < WORKERS && number <= MAX_CLIENTS; number++) {
    // One connection each: a session is with one process, so that a second connection, which might
    // find another worker, would be given up again.
    const client = new Endpoint({
      nodeId: `client-${number}`,
      poolSize: 1,
      security: "development",
    });
    await client.start();
    await client.connect({ nodeId: "service", address });
    const name = decode(await client.request("service", new Uint8Array(0), { topic: "who" }));
    served.set(name, (served.get(name) ?? 0) + 1);
    console.log(`client-${number} was served by ${name}`);
    await client.close();
  }
  for (const worker of workers) {
    const closed = nextMessage(worker);
    worker.postMessage("close");
    await closed;
    await worker.terminate();
  }
  if (served.size < WORKERS) throw new Error("one worker got every connection");
}

function nextMessage(worker: Worker): Promise<string> {
  return new Promise((resolve, reject) => {
    worker.once("message", resolve);
    worker.once("error", reject);
  });
}
