/**
 * One of the two processes of a measurement. Standard input brings its task as one JSON line, a
 * sender's second line the address; it answers with JSON lines and ends when the input ends.
 */

import process from "node:process";
import { createInterface } from "node:readline";
import type { PeerResult, PeerTask } from "./case.ts";
import { LIBRARIES } from "./libraries.ts";

/** What a worker says: where it listens, what it found out, or why it can't. */
export interface Answer {
  address?: string;
  result?: PeerResult;
  error?: string;
}

if (import.meta.main) {
  const lines = createInterface({ input: process.stdin })
    [Symbol.asyncIterator]();
  process.on("uncaughtException", (error) => say({ error: textOf(error) }));
  process.on("unhandledRejection", (error) => say({ error: textOf(error) }));
  try {
    const task = JSON.parse(await nextLine(lines)) as PeerTask;
    const library = LIBRARIES.find(({ name }) => name === task.library);
    const adapter = await library!.load();
    const result = task.role === "receiver"
      ? await adapter.receive(task, (address) => say({ address }))
      : await adapter.send(task, await nextLine(lines));
    say({ result });
  } catch (error) {
    say({ error: textOf(error) });
  }
  // What was written last may still be on its way: the other process must have it first.
  await lines.next();
}

async function nextLine(lines: AsyncIterator<string>): Promise<string> {
  const { value, done } = await lines.next();
  if (done === true) throw new Error("the input ended");
  return value;
}

function say(answer: Answer): void {
  process.stdout.write(`${JSON.stringify(answer)}\n`);
}

function textOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
