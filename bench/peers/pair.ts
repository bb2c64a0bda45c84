/** Starts the two processes of one measurement and brings back what they have measured. */

import { type ChildProcessWithoutNullStreams, spawn, spawnSync } from "node:child_process";
import process from "node:process";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { runCommand, type RuntimeName } from "../../tools/runtimes.ts";
import type { PeerTask } from "./case.ts";
import type { Answer } from "./worker.ts";

const WORKER = fileURLToPath(new URL("./worker.ts", import.meta.url));
/** The core for both processes, where they share one. */
const CORE = "0";
/** A measurement that is not over this long after its time has failed. */
const GRACE_MS = 15_000;

/** Messages or answers per second, or the median of the requests in microseconds. */
export async function measurePair(
  runtime: RuntimeName,
  receiverTask: PeerTask,
  senderTask: PeerTask,
  options: { oneCore: boolean },
): Promise<number> {
  const workers: Worker[] = [];
  const begin = (task: PeerTask) => {
    const worker = new Worker(runtime, task, options.oneCore);
    workers.push(worker);
    return worker;
  };
  const limitMs = senderTask.warmUpMs + senderTask.measureMs + GRACE_MS;
  const deadline = setTimeout(() => workers.forEach((worker) => worker.tooLate()), limitMs);
  try {
    const receiver = begin(receiverTask);
    const { address } = await receiver.answer();
    const sender = begin(senderTask);
    sender.tell(address!);
    return await measured(senderTask, receiver, sender);
  } finally {
    clearTimeout(deadline);
    // What is still at work would disturb the next measurement.
    await Promise.all(workers.map((worker) => worker.end()));
  }
}

async function measured(task: PeerTask, receiver: Worker, sender: Worker): Promise<number> {
  const received = receiver.answer();
  if (task.kind === "one-way") {
    const [{ result }] = await Promise.all([received, sender.answer()]);
    return result!.messagesPerSecond!;
  }
  // Who answers requests says nothing more but that it can't.
  const { result } = await Promise.race([sender.answer(), received]);
  const value = task.inFlight === 1 ? result?.p50 : result?.answersPerSecond;
  if (value === undefined) throw new Error("nothing was measured");
  return value;
}

class Worker {
  readonly #name: string;
  readonly #child: ChildProcessWithoutNullStreams;
  readonly #lines: AsyncIterator<string>;
  readonly #exited: Promise<void>;
  #late = false;
  #noise = "";

  constructor(runtime: RuntimeName, task: PeerTask, oneCore: boolean) {
    this.#name = task.role;
    const [path, ...args] = commandOf(runtime, task, oneCore);
    this.#child = spawn(path!, args, {
      stdio: ["pipe", "pipe", "pipe"],
      env: { ...process.env, NO_COLOR: "1" },
    });
    this.#exited = new Promise((resolve) => this.#child.on("close", () => resolve()));
    this.#lines = createInterface({ input: this.#child.stdout })[Symbol.asyncIterator]();
    this.#child.stderr.on("data", (chunk) => this.#noise += String(chunk));
    this.#child.on("error", (error) => this.#noise += error.message);
    // A worker that has died says so by ending its output.
    this.#child.stdin.on("error", () => {});
    this.tell(JSON.stringify(task));
  }

  tell(line: string): void {
    this.#child.stdin.write(`${line}\n`);
  }

  async answer(): Promise<Answer> {
    for (;;) {
      const { value, done } = await this.#lines.next();
      if (done === true) throw new Error(await this.#obituary());
      if (value.startsWith("{")) {
        const answer = JSON.parse(value) as Answer;
        if (answer.error !== undefined) throw new Error(`${this.#name}: ${answer.error}`);
        return answer;
      }
      // A library that writes there, too.
      this.#noise += `${value}\n`;
    }
  }

  /** It hangs. */
  tooLate(): void {
    this.#late = true;
    this.#child.kill("SIGKILL");
  }

  async end(): Promise<void> {
    this.#child.kill("SIGKILL");
    await this.#exited;
  }

  /** How it ended, and the line of its output that says most. */
  async #obituary(): Promise<string> {
    await this.#exited;
    const { exitCode, signalCode } = this.#child;
    const end = this.#late ? "no end in time" : `it ended with ${signalCode ?? exitCode}`;
    const lines = this.#noise.split("\n").map((line) => line.trim()).filter((line) => line !== "");
    const line = lines.find((line) => /error|panic/i.test(line)) ?? lines[0];
    return `${this.#name}: ${end}${line === undefined ? "" : `: ${line}`}`;
  }
}

function commandOf(runtime: RuntimeName, { packages }: PeerTask, oneCore: boolean): string[] {
  const command = runCommand(runtime, WORKER);
  // Deno looks into the folder of the packages only if it does not keep node_modules itself.
  if (runtime === "deno" && packages) command.splice(2, 0, "--node-modules-dir=manual");
  return oneCore && canPin() ? ["taskset", "-c", CORE, ...command] : command;
}

/** Whether processes can be held to one core, which is so where there is `taskset`. */
export function canPin(): boolean {
  pinnable ??= spawnSync("taskset", ["-c", CORE, "true"]).status === 0;
  return pinnable;
}

let pinnable: boolean | undefined;
