/**
 * Starts the processes of the demo, talks to them and ends them.
 *
 * @module
 */

import { type ChildProcess, spawn } from "node:child_process";
import process from "node:process";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { runCommand, type RuntimeName } from "../../tools/runtimes.ts";
import type { Command, Report } from "./control.ts";

const PROGRAM = fileURLToPath(new URL("./node.ts", import.meta.url));
const PROJECT = fileURLToPath(new URL("../../", import.meta.url));
/** What a process wrote to its standard error is kept to this many characters. */
const STDERR_CHARS = 2000;

/** What its owner is told of a process. */
export interface NodeEvents {
  onReport(report: Report): void;
  /** It has failed, or ended without being told to. */
  onFailure(error: Error): void;
}

/** A node in a process of its own. */
export class NodeProcess {
  readonly name: string;
  readonly #events: NodeEvents;
  readonly #child: ChildProcess;
  readonly #exited: Promise<void>;
  readonly #answers: { resolve(addresses: readonly string[]): void; reject(e: Error): void }[] = [];
  #mayEnd = false;
  #stderr = "";

  /** Starts the process. */
  constructor(name: string, runtime: RuntimeName, events: NodeEvents) {
    this.name = name;
    this.#events = events;
    const [program, ...args] = runCommand(runtime, PROGRAM);
    this.#child = spawn(program!, args, {
      cwd: PROJECT,
      stdio: ["pipe", "pipe", "pipe"],
      env: { ...process.env, NO_COLOR: "1" },
    });
    this.#exited = new Promise((resolve) => {
      this.#child.on("exit", (code, signal) => {
        this.#ended(`ended with ${signal ?? code}`);
        resolve();
      });
      this.#child.on("error", (error) => {
        this.#ended(error.message);
        resolve();
      });
    });
    this.#child.stdin!.on("error", () => {}); // told by "exit"
    this.#child.stderr!.on("data", (chunk) => {
      this.#stderr = (this.#stderr + String(chunk)).slice(-STDERR_CHARS);
    });
    createInterface({ input: this.#child.stdout! }).on("line", (line) => this.#heard(line));
  }

  /** Gives a command; resolves, with the addresses the node listens on, when it is done. */
  tell(command: Command): Promise<readonly string[]> {
    return new Promise((resolve, reject) => {
      this.#answers.push({ resolve, reject });
      this.#child.stdin!.write(`${JSON.stringify(command)}\n`);
    });
  }

  /** Ends the process the hard way, as a crash would; resolves when it is gone. */
  kill(): Promise<void> {
    this.#mayEnd = true;
    this.#child.kill("SIGKILL");
    return this.#exited;
  }

  /** Lets the process end in order. */
  async close(): Promise<void> {
    await this.tell({ do: "close" });
    this.#mayEnd = true;
    this.#child.stdin!.end();
    await this.#exited;
  }

  #heard(line: string): void {
    let report: Report;
    try {
      report = JSON.parse(line) as Report;
    } catch {
      this.#events.onFailure(new Error(`${this.name} said something that is not a report`));
      return;
    }
    if (report.event === "ok") this.#answers.shift()?.resolve(report.addresses);
    else if (report.event === "failed") this.#failed(new Error(`${this.name}: ${report.message}`));
    else this.#events.onReport(report);
  }

  #failed(error: Error): void {
    const answer = this.#answers.shift();
    if (answer === undefined) this.#events.onFailure(error);
    else answer.reject(error);
  }

  #ended(how: string): void {
    if (this.#mayEnd) return;
    this.#mayEnd = true;
    const said = this.#stderr.trim();
    const error = new Error(`${this.name} ${how}${said === "" ? "" : `:\n${said}`}`);
    for (const { reject } of this.#answers.splice(0)) reject(error);
    this.#events.onFailure(error);
  }
}
