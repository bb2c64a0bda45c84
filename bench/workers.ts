/**
 * Messages per second that one worker takes, and that several take which share its port:
 *
 *     deno run -A bench/workers.ts [--runtime deno|bun|node]... [--workers N] [--seconds N]
 *                                  [--work HASHES] [--senders N] [--repeat N]
 *
 * Every worker and the sender are processes of their own. A worker hashes each message of 1 KiB,
 * `--work` times, as an application would do something with it. One worker and several take turns;
 * the median of the repetitions is shown, and the ratio of the two.
 *
 * @module
 */

import { type ChildProcess, spawn } from "node:child_process";
import { availableParallelism } from "node:os";
import process from "node:process";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { runCommand, type RuntimeName, RUNTIMES } from "../tools/runtimes.ts";
import type { Report, Task } from "./workers_process.ts";

const PROCESS = fileURLToPath(new URL("./workers_process.ts", import.meta.url));
const WARM_UP_MS = 1_000;
/** Connections that the system spreads over the workers, by chance. */
const CONNECTIONS = 16;

/** A process of the bench. */
class Worker {
  readonly #child: ChildProcess;
  readonly #lines: AsyncIterator<string>;

  constructor(runtime: RuntimeName, task: Task) {
    const [command, ...args] = runCommand(runtime, PROCESS);
    this.#child = spawn(command!, args, {
      stdio: ["pipe", "pipe", "inherit"],
      env: { ...process.env, NO_COLOR: "1" },
    });
    this.#lines = createInterface({ input: this.#child.stdout! })[Symbol.asyncIterator]();
    this.#child.stdin!.write(`${JSON.stringify(task)}\n`);
  }

  async report(): Promise<Report> {
    const { value, done } = await this.#lines.next();
    if (done) throw new Error("a process of the bench has ended");
    return JSON.parse(value);
  }

  ask(): Promise<Report> {
    this.#child.stdin!.write("\n");
    return this.report();
  }

  end(): void {
    this.#child.kill("SIGKILL");
  }
}

const { values } = parseArgs({
  options: {
    runtime: { type: "string", multiple: true, default: [...RUNTIMES] },
    workers: { type: "string", default: "2" },
    seconds: { type: "string", default: "3" },
    work: { type: "string", default: "8" },
    senders: { type: "string", default: "1" },
    repeat: { type: "string", default: "3" },
  },
});
const several = Number(values.workers);

console.log(`${availableParallelism()} cores; the senders need one of them or more`);
console.log("runtime messages/s with 1 worker, with several, ratio (connections of each worker)");
for (const runtime of RUNTIMES.filter((name) => values.runtime.includes(name))) {
  const rates: Record<number, number[]> = { 1: [], [several]: [] };
  let shares = "";
  for (let time = 0; time < Number(values.repeat); time++) {
    for (const count of [1, several]) {
      const result = await measure(runtime, count);
      rates[count]!.push(result.rate);
      if (count === several) shares += ` ${result.peers.join("+")}`;
    }
  }
  const [one, more] = [median(rates[1]!), median(rates[several]!)];
  console.log(
    `${runtime} ${Math.round(one)} ${Math.round(more)} ${
      (more / one).toFixed(2)
    } (${shares.trim()})`,
  );
}
process.exit(0);

async function measure(
  runtime: RuntimeName,
  count: number,
): Promise<{ rate: number; peers: number[] }> {
  const senders = Number(values.senders);
  const task: Task = {
    role: "worker",
    name: "",
    address: "tcp://127.0.0.1:0",
    messageBytes: 1024,
    work: Number(values.work),
    endpoints: CONNECTIONS / senders,
  };
  const workers: Worker[] = [];
  const all: Worker[] = [];
  try {
    let { address } = task;
    for (let number = 0; number < count; number++) {
      const worker = new Worker(runtime, { ...task, address });
      workers.push(worker);
      all.push(worker);
      ({ address } = await worker.report());
    }
    for (let number = 0; number < senders; number++) {
      const sender = new Worker(runtime, { ...task, role: "sender", name: `s${number}`, address });
      all.push(sender);
      await sender.report();
    }
    await sleep(WARM_UP_MS);
    const before = await received(workers);
    const start = performance.now();
    await sleep(Number(values.seconds) * 1000);
    const after = await received(workers);
    const rate = (after.sum - before.sum) / ((performance.now() - start) / 1000);
    return { rate, peers: after.peers };
  } finally {
    for (const worker of all) worker.end();
  }
}

async function received(workers: Worker[]): Promise<{ sum: number; peers: number[] }> {
  const reports = await Promise.all(workers.map((worker) => worker.ask()));
  const sum = reports.reduce((total, report) => total + report.received, 0);
  return { sum, peers: reports.map(({ peers }) => peers) };
}

function median(numbers: number[]): number {
  const sorted = numbers.toSorted((a, b) => a - b);
  return sorted[Math.floor(sorted.length / 2)] ?? 0;
}

function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
