/** The processes that a bench starts, and the lines of JSON that they answer with. */

import { type ChildProcessWithoutNullStreams, spawn, spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import process from "node:process";
import { createInterface } from "node:readline";
import { runCommand, type RuntimeName } from "../tools/runtimes.ts";

/** How a process is started. */
export interface ProcessOptions {
  readonly runtime: RuntimeName;
  /** The path of the module it runs. */
  readonly file: string;
  /** Who it is, in errors. */
  readonly name: string;
  /** Further flags of the runtime. */
  readonly flags?: readonly string[] | undefined;
  /** The core it may run on; undefined: any. */
  readonly core?: number | undefined;
}

/** A process of a bench: it takes lines on standard input and answers with lines of JSON. */
export class BenchProcess {
  readonly #name: string;
  readonly #child: ChildProcessWithoutNullStreams;
  readonly #lines: AsyncIterator<string>;
  readonly #exited: Promise<void>;
  #stderr = "";

  /** Starts it; `task` is the first line it gets. */
  constructor(options: ProcessOptions, task: unknown) {
    this.#name = options.name;
    const [path, ...args] = commandOf(options);
    this.#child = spawn(path!, args, {
      stdio: ["pipe", "pipe", "pipe"],
      env: { ...process.env, NO_COLOR: "1" },
    });
    this.#exited = new Promise((resolve) => this.#child.on("close", () => resolve()));
    this.#lines = createInterface({ input: this.#child.stdout })[Symbol.asyncIterator]();
    this.#child.stderr.on("data", (chunk) => this.#stderr += String(chunk));
    this.#child.on("error", (error) => this.#stderr += error.message);
    // A process that has died says so by ending its output.
    this.#child.stdin.on("error", () => {});
    this.tell(JSON.stringify(task));
  }

  /** Writes a line to its standard input. */
  tell(line: string): void {
    this.#child.stdin.write(`${line}\n`);
  }

  /**
   * Its next answer.
   *
   * @throws {Error} Where it answers with an error, or has ended.
   */
  async answer<T>(): Promise<T> {
    for (;;) {
      const { value, done } = await this.#lines.next();
      if (done === true) {
        throw new Error(`${this.#name}: it ended or was too late${this.#lament()}`);
      }
      // What a runtime or an endpoint prints by itself starts otherwise.
      if (!value.startsWith("{")) continue;
      const answer = JSON.parse(value);
      if (answer.error !== undefined) throw new Error(`${this.#name}: ${answer.error}`);
      return answer as T;
    }
  }

  /** Tells it a line and waits for the answer. */
  ask<T>(line: string): Promise<T> {
    this.tell(line);
    return this.answer<T>();
  }

  /** Ends its input and waits until it is gone. */
  async end(): Promise<void> {
    this.#child.stdin.end();
    await this.#exited;
  }

  /** Ends it the hard way; resolves when it is gone. */
  kill(): Promise<void> {
    this.#child.kill("SIGKILL");
    return this.#exited;
  }

  /** The line of standard error that says most. */
  #lament(): string {
    const lines = this.#stderr.split("\n").map((line) => line.trim());
    const line = lines.find((line) => /error/i.test(line)) ?? lines[0] ?? "";
    return line === "" ? "" : `: ${line}`;
  }
}

/** Processes that must be gone when the measurement is over, however it ends. */
export class ProcessGroup {
  readonly #processes: BenchProcess[] = [];
  readonly #deadline: ReturnType<typeof setTimeout>;

  /** What runs longer than this many milliseconds has failed and is ended. */
  constructor(deadlineMs: number) {
    this.#deadline = setTimeout(() => void this.kill(), deadlineMs);
  }

  /** Starts one more. */
  start(options: ProcessOptions, task: unknown): BenchProcess {
    const started = new BenchProcess(options, task);
    this.#processes.push(started);
    return started;
  }

  /** Ends all of them; resolves when they are gone. */
  async kill(): Promise<void> {
    clearTimeout(this.#deadline);
    await Promise.all(this.#processes.map((one) => one.kill()));
  }
}

/** The flags with which a process can call the collector; Bun needs none. */
export function collectorFlags(runtime: RuntimeName): string[] {
  if (runtime === "bun") return [];
  return [runtime === "deno" ? "--v8-flags=--expose-gc" : "--expose-gc"];
}

/** Whether processes can be held to one core, which is so where there is `taskset`. */
export function canPin(): boolean {
  pinnable ??= spawnSync("taskset", ["-c", String(cores()[0]), "true"]).status === 0;
  return pinnable;
}

let pinnable: boolean | undefined;

/** The cores that this process may use, on Linux; elsewhere 0 and 1. */
export function cores(): readonly number[] {
  try {
    const list = /^Cpus_allowed_list:\s*(.+)$/m.exec(
      readFileSync("/proc/self/status", "utf8"),
    )![1]!;
    return list.split(",").flatMap((range) => {
      const [first, last] = range.split("-").map(Number);
      return Array.from({ length: (last ?? first!) - first! + 1 }, (_, index) => first! + index);
    });
  } catch {
    return [0, 1];
  }
}

function commandOf({ runtime, file, flags, core }: ProcessOptions): string[] {
  const command = runCommand(runtime, file);
  command.splice(runtime === "node" ? 1 : 2, 0, ...flags ?? []);
  return core === undefined ? command : ["taskset", "-c", String(core), ...command];
}
