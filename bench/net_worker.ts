/**
 * One of the two processes of the network bench. Standard input brings its task as one JSON line,
 * a sender's second line the address; it answers with JSON lines and ends when the input ends.
 */

import process from "node:process";
import { Orders, peakBytes, say, sayError } from "./child.ts";
import type { Findings, Result, Task } from "./net_case.ts";
import { receiveHawser, sendHawser } from "./net_hawser.ts";
import { receiveRaw, sendRaw } from "./net_raw.ts";

/** What a worker says: where it listens, or what it found out. */
export interface Answer {
  address?: string;
  findings?: Findings;
}

if (import.meta.main) {
  const orders = new Orders();
  const task = await orders.task<Task>();
  try {
    const result = task.role === "receiver"
      ? await receive(task)
      : await send(task, await orders.next() ?? "");
    const answer: Answer = { findings: { ...result, peakBytes: peakBytes() } };
    say(answer);
  } catch (error) {
    sayError(error);
  }
  // What was written last may still be on its way: the other process must have it first.
  await orders.next();
  process.exit(0);
}

function receive(task: Task): Promise<Result> {
  const onListening = (address: string) => say({ address });
  return task.library === "raw" ? receiveRaw(task, onListening) : receiveHawser(task, onListening);
}

function send(task: Task, address: string): Promise<Result> {
  return task.library === "raw" ? sendRaw(task, address) : sendHawser(task, address);
}
