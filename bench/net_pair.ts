/** Starts the two processes of one measurement and brings their findings together. */

import { type ChildProcessWithoutNullStreams, spawn } from "node:child_process";
import process from "node:process";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { runCommand, type RuntimeName } from "../tools/runtimes.ts";
import type { Findings, Task } from "./net_case.ts";
import type { Answer } from "./net_worker.ts";

const WORKER = fileURLToPath(new URL("./net_worker.ts", import.meta.url));
/** A measurement that is not over this long after its time has failed. */
const GRACE_MS = 20_000;

/** One measurement. */
export interface PairResult {
  /** Messages per second, or the median round trip in microseconds. */
  readonly value: number;
  /** The 99th percentile of the round trips, microseconds. */
  readonly p99: number | undefined;
  readonly bulkBytesPerSecond: number | undefined;
  readonly bulkSendMs: number | undefined;
  readonly sender: ProcessCost;
  readonly receiver: ProcessCost;
}

/** How the processes are started. */
export interface PairOptions {
  /** One core for each, by `taskset` of Linux; round trips depend on where the two run. */
  readonly pin: boolean;
  /** Where each process leaves a CPU profile. */
  readonly profileFolder: string | undefined;
}

/** What one of the processes needed. */
export interface ProcessCost {
  readonly peakBytes: number;
  /** Processor time per message, nanoseconds; not of round trips. */
  readonly cpuNs: number | undefined;
}

/** Runs a receiver and a sender to their end. */
export async function measurePair(
  runtime: RuntimeName,
  receiverTask: Task,
  senderTask: Task,
  options: PairOptions,
): Promise<PairResult> {
  const workers: Worker[] = [];
  const begin = (task: Task) => {
    const worker = new Worker(runtime, task, options);
    workers.push(worker);
    return worker;
  };
  const deadline = setTimeout(
    () => workers.forEach((worker) => worker.kill()),
    senderTask.warmUpMs + senderTask.measureMs + GRACE_MS,
  );
  try {
    const receiver = begin(receiverTask);
    const { address } = await receiver.answer();
    const sender = begin(senderTask);
    sender.tell(address!);
    const [received, sent] = await Promise.all([receiver.answer(), sender.answer()]);
    await Promise.all([sender.end(), receiver.end()]);
    return combine(received.findings!, sent.findings!);
  } finally {
    clearTimeout(deadline);
    for (const worker of workers) worker.kill();
  }
}

function combine(received: Findings, sent: Findings): PairResult {
  const value = received.messagesPerSecond ?? sent.p50;
  if (value === undefined) throw new Error("the workers have measured nothing");
  return {
    value,
    p99: sent.p99,
    bulkBytesPerSecond: sent.bulkBytesPerSecond,
    bulkSendMs: sent.bulkSendMs,
    sender: { peakBytes: sent.peakBytes, cpuNs: sent.cpuNs },
    receiver: { peakBytes: received.peakBytes, cpuNs: received.cpuNs },
  };
}

class Worker {
  readonly #name: string;
  readonly #child: ChildProcessWithoutNullStreams;
  readonly #lines: AsyncIterator<string>;
  readonly #exited: Promise<void>;
  #stderr = "";

  constructor(runtime: RuntimeName, task: Task, options: PairOptions) {
    this.#name = `${runtime} ${task.library} ${task.role}`;
    const [path, ...args] = commandOf(runtime, task, options);
    this.#child = spawn(path!, args, {
      stdio: ["pipe", "pipe", "pipe"],
      env: { ...process.env, NO_COLOR: "1" },
    });
    this.#exited = new Promise((resolve) => this.#child.on("close", () => resolve()));
    this.#lines = createInterface({ input: this.#child.stdout })[Symbol.asyncIterator]();
    this.#child.stderr.on("data", (chunk) => this.#stderr += String(chunk));
    this.#child.on("error", (error) => this.#stderr += error.message);
    // A worker that has died says so by ending its output.
    this.#child.stdin.on("error", () => {});
    this.tell(JSON.stringify(task));
  }

  tell(line: string): void {
    this.#child.stdin.write(`${line}\n`);
  }

  async answer(): Promise<Answer> {
    const { value, done } = await this.#lines.next();
    if (done === true) throw new Error(`${this.#name}: it ended or was too late${this.#lament()}`);
    const answer = JSON.parse(value) as Answer;
    if (answer.error !== undefined) throw new Error(`${this.#name}: ${answer.error}`);
    return answer;
  }

  /** The line of standard error that says most. */
  #lament(): string {
    const lines = this.#stderr.split("\n").map((line) => line.trim());
    const line = lines.find((line) => /error/i.test(line)) ?? lines[0] ?? "";
    return line === "" ? "" : `: ${line}`;
  }

  async end(): Promise<void> {
    this.#child.stdin.end();
    await this.#exited;
  }

  kill(): void {
    this.#child.kill("SIGKILL");
  }
}

function commandOf(runtime: RuntimeName, task: Task, options: PairOptions): string[] {
  const { pin, profileFolder } = options;
  const command = runCommand(runtime, WORKER);
  if (profileFolder !== undefined) {
    const at = runtime === "node" ? 1 : 2;
    command.splice(at, 0, ...profileFlags(runtime, task, profileFolder));
  }
  return pin ? ["taskset", "-c", task.role === "sender" ? "0" : "1", ...command] : command;
}

/** All three take the same flags for a CPU profile, which they write at their end. */
function profileFlags(runtime: RuntimeName, task: Task, folder: string): string[] {
  const tls = task.tls === null ? "plain" : "tls";
  const style = task.style.replaceAll(" ", "-");
  const name = [runtime, task.library, tls, style, task.bytes, task.role].join("_");
  return ["--cpu-prof", `--cpu-prof-dir=${folder}`, `--cpu-prof-name=${name}.cpuprofile`];
}
