/** A bench's process seen from inside: its task, its answers, its memory. */

import { readFileSync } from "node:fs";
import process from "node:process";
import { createInterface } from "node:readline";

/** The lines of standard input; the first is the task. */
export class Orders {
  readonly #lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();

  /** The task. */
  async task<T>(): Promise<T> {
    const line = await this.next();
    if (line === undefined) throw new Error("there is no task");
    return JSON.parse(line) as T;
  }

  /** The next line; undefined when the input has ended. */
  async next(): Promise<string | undefined> {
    const { value, done } = await this.#lines.next();
    return done === true ? undefined : value;
  }
}

/** Answers with a line of JSON. */
export function say(answer: object): void {
  process.stdout.write(`${JSON.stringify(answer)}\n`);
}

/** Tells the bench what went wrong. */
export function sayError(error: unknown): void {
  say({ error: error instanceof Error ? error.message : String(error) });
}

/** Runs the collector where it can be called. */
export function collect(): void {
  const { gc, Bun } = globalThis as {
    gc?: (options: object) => void;
    Bun?: { gc(force: boolean): void };
  };
  gc?.({ type: "major", execution: "sync", flavor: "last-resort" });
  Bun?.gc(true);
}

/** What the process has resident, bytes. */
export function residentBytes(): number {
  return statusBytes("VmRSS") ?? process.memoryUsage().rss;
}

/** The most it ever had; Linux keeps it, elsewhere it is what the process has now. */
export function peakBytes(): number {
  return statusBytes("VmHWM") ?? process.memoryUsage().rss;
}

function statusBytes(field: string): number | undefined {
  try {
    const status = readFileSync("/proc/self/status", "utf8");
    const kib = new RegExp(`^${field}:\\s*(\\d+) kB`, "m").exec(status)?.[1];
    return kib === undefined ? undefined : Number(kib) * 1024;
  } catch {
    // Another system than Linux.
    return undefined;
  }
}
