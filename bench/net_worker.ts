/**
 * One of the two processes of the network bench. Standard input brings its task as one JSON line,
 * a sender's second line the address; it answers with JSON lines and ends when the input ends.
 */

import { readFileSync } from "node:fs";
import process from "node:process";
import { createInterface } from "node:readline";
import type { Findings, Result, Task } from "./net_case.ts";
import { receiveHawser, sendHawser } from "./net_hawser.ts";
import { receiveRaw, sendRaw } from "./net_raw.ts";

/** What a worker says: where it listens, what it found out, or why it can't. */
export interface Answer {
  address?: string;
  findings?: Findings;
  error?: string;
}

if (import.meta.main) {
  const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
  const task = JSON.parse(await nextLine(lines)) as Task;
  try {
    const result = task.role === "receiver"
      ? await receive(task)
      : await send(task, await nextLine(lines));
    say({ findings: { ...result, peakBytes: peakBytes() } });
  } catch (error) {
    say({ error: error instanceof Error ? error.message : String(error) });
  }
  // What was written last may still be on its way: the other process must have it first.
  await lines.next();
  process.exit(0);
}

function receive(task: Task): Promise<Result> {
  const onListening = (address: string) => say({ address });
  return task.library === "raw" ? receiveRaw(task, onListening) : receiveHawser(task, onListening);
}

function send(task: Task, address: string): Promise<Result> {
  return task.library === "raw" ? sendRaw(task, address) : sendHawser(task, address);
}

async function nextLine(lines: AsyncIterator<string>): Promise<string> {
  const { value, done } = await lines.next();
  if (done === true) throw new Error("the input ended");
  return value;
}

function say(answer: Answer): void {
  process.stdout.write(`${JSON.stringify(answer)}\n`);
}

/** Linux keeps the peak; elsewhere it is what the process has at the end. */
function peakBytes(): number {
  try {
    const kib = /^VmHWM:\s*(\d+) kB/m.exec(readFileSync("/proc/self/status", "utf8"))?.[1];
    if (kib !== undefined) return Number(kib) * 1024;
  } catch {
    // Not Linux.
  }
  return process.memoryUsage().rss;
}
