/** Starts actors and talks to them. */

import { type ChildProcessWithoutNullStreams, spawn } from "node:child_process";
import process from "node:process";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { runCommand, type RuntimeName } from "../../tools/runtimes.ts";
import type { Command } from "./actor.ts";

const ACTOR = fileURLToPath(new URL("./actor.ts", import.meta.url));

/** What an actor answered instead of a result. */
export class ActorError extends Error {
  readonly code: string | undefined;
  readonly rejectCode: string | undefined;

  constructor(error: { code?: string; message: string; rejectCode?: string }) {
    super(error.message);
    this.code = error.code;
    this.rejectCode = error.rejectCode;
  }
}

/** A process with an endpoint in it. */
export class Actor {
  readonly runtime: RuntimeName;
  readonly #child: ChildProcessWithoutNullStreams;
  readonly #lines: AsyncIterator<string>;
  readonly exited: Promise<number | null>;
  stderr = "";

  constructor(
    runtime: RuntimeName,
    options: { prefix?: string[]; env?: Record<string, string> } = {},
  ) {
    this.runtime = runtime;
    const command = [...(options.prefix ?? []), ...runCommand(runtime, ACTOR)];
    this.#child = spawn(command[0]!, command.slice(1), {
      stdio: ["pipe", "pipe", "pipe"],
      env: { ...process.env, NO_COLOR: "1", ...options.env },
    });
    this.#lines = createInterface({ input: this.#child.stdout })[Symbol.asyncIterator]();
    this.#child.stderr.on("data", (chunk) => {
      this.stderr += String(chunk);
    });
    this.exited = new Promise((resolve) => this.#child.on("exit", (code) => resolve(code)));
  }

  // deno-lint-ignore no-explicit-any -- the answers are JSON of many shapes
  async tell(command: Command): Promise<any> {
    this.#child.stdin.write(`${JSON.stringify(command)}\n`);
    const { value, done } = await this.#lines.next();
    if (done) throw new Error(`the ${this.runtime} actor is gone: ${this.stderr}`);
    const answer = JSON.parse(value);
    if (answer.error !== undefined) throw new ActorError(answer.error);
    return answer.ok;
  }

  /** Asks again and again until the answer is as wished; each round trip is the wait. */
  async until<A>(command: Command, done: (answer: A) => boolean, limitMs = 20_000): Promise<A> {
    const end = performance.now() + limitMs;
    while (true) {
      const answer = await this.tell(command);
      if (done(answer)) return answer;
      if (performance.now() > end) {
        throw new Error(
          `${this.runtime}: ${JSON.stringify(command)} stays ${JSON.stringify(answer)}`,
        );
      }
    }
  }

  kill(signal: "SIGKILL" | "SIGSTOP" | "SIGCONT" = "SIGKILL"): void {
    // ChildProcess.kill works only once on Deno; a stopped process must be continued.
    if (this.#child.pid !== undefined) process.kill(this.#child.pid, signal);
  }

  async close(): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return;
    await this.tell({ do: "close" });
    await this.exited;
  }
}
