/**
 * Random input for everything that reads bytes of strangers:
 * `deno task fuzz [seconds] [seed] [target …]`, or the same with `bun tools/fuzz.ts` and
 * `node tools/fuzz.ts`. Prints executions per second; where a rule is broken, the input in hex,
 * and exits with 1. The same seed makes the same inputs.
 *
 * The targets run in a worker: one that never comes back can be told.
 *
 * @module
 */

import process from "node:process";
import { isMainThread, parentPort, Worker, workerData } from "node:worker_threads";
import { type Finding, findingOf, inputOf, shrink, toHex } from "../tests/fuzz/fuzz.ts";
import { type Target, TARGETS } from "../tests/fuzz/targets.ts";

const DEFAULT_SECONDS = 60;
/** How long one input may take before it counts as one that never ends. */
const HANG_MS = 10_000;
const LOOK_MS = 500;
/** Inputs between two looks at the clock and at what the runtime has to say. */
const ROUND = 32;
/** Errors are cut: that of a comparison can be as long as what was compared. */
const MAX_ERROR_CHARS = 3_000;

interface Plan {
  readonly seconds: number;
  readonly seed: number;
  readonly names: readonly string[];
  /** Where the worker is: number of the target, number of the input. */
  readonly place: SharedArrayBuffer;
}

/** What the worker tells. */
type News =
  | { readonly type: "done"; readonly line: string }
  | { readonly type: "found"; readonly text: string }
  | { readonly type: "end" };

if (isMainThread) main(process.argv.slice(2));
else await work(workerData as Plan);

function main([seconds = `${DEFAULT_SECONDS}`, seed, ...names]: string[]): void {
  const plan: Plan = {
    seconds: Number(seconds),
    seed: Number(seed ?? Date.now() % 1_000_000_000),
    names: names.length > 0 ? names : TARGETS.map(({ name }) => name),
    place: new SharedArrayBuffer(8),
  };
  const unknown = plan.names.find((name) => TARGETS.every((target) => target.name !== name));
  if (!(plan.seconds > 0) || !Number.isInteger(plan.seed) || unknown !== undefined) {
    console.error("usage: fuzz.ts [seconds] [seed] [target …]; targets:");
    for (const { name } of TARGETS) console.error(`  ${name}`);
    process.exit(2);
  }
  console.log(`seed ${plan.seed}, ${plan.names.length} targets, ${plan.seconds} s`);
  const worker = new Worker(new URL(import.meta.url), { workerData: plan });
  worker.on("message", (news: News) => {
    if (news.type === "end") process.exit(0);
    if (news.type === "done") return console.log(news.line);
    fail(news.text);
  });
  worker.on("error", (error) => fail(`${placeOf(plan)}: ${error.stack ?? error}`));
  worker.on("exit", () => fail(`${placeOf(plan)}: the worker came to an end`));
  watch(plan);
}

/** Looks whether the worker goes on. */
function watch(plan: Plan): void {
  const place = new Int32Array(plan.place);
  let seen = "";
  let since = performance.now();
  setInterval(() => {
    const now = `${Atomics.load(place, 0)} ${Atomics.load(place, 1)}`;
    if (now !== seen) {
      seen = now;
      since = performance.now();
    } else if (performance.now() - since > HANG_MS) {
      fail(`${placeOf(plan)}: no end after ${HANG_MS} ms`);
    }
  }, LOOK_MS);
}

function fail(text: string): never {
  console.error(text);
  process.exit(1);
}

/** The input under way: it is made again, for the worker can't be asked. */
function placeOf({ names, seed, place }: Plan): string {
  const [at = 0, index = 0] = new Int32Array(place);
  const target = TARGETS.find(({ name }) => name === names[at])!;
  return `${target.name}, input ${index} of seed ${seed}\n${toHex(inputOf(target, seed, index))}\n`;
}

async function work(plan: Plan): Promise<void> {
  const port = parentPort!;
  process.on("unhandledRejection", (reason) => {
    throw reason;
  });
  const tell = (news: News) => port.postMessage(news);
  const targets = plan.names.map((name) => TARGETS.find((each) => each.name === name)!);
  const shares = targets.reduce((sum, { share = 1 }) => sum + share, 0);
  const place = new Int32Array(plan.place);
  for (const [at, target] of targets.entries()) {
    Atomics.store(place, 0, at);
    const { name, share = 1 } = target;
    const ms = plan.seconds * 1_000 * share / shares;
    const { executions, finding } = await fuzz(target, plan.seed, ms, place);
    const perSecond = Math.round(executions * 1_000 / ms);
    tell({ type: "done", line: `${name}: ${executions} executions, ${perSecond} per second` });
    if (finding === undefined) continue;
    const { input, error } = shrink(target, finding);
    const said = (error.stack ?? error.message).slice(0, MAX_ERROR_CHARS);
    tell({ type: "found", text: `${name}, seed ${plan.seed}\n${toHex(input)}\n${said}` });
    return;
  }
  tell({ type: "end" });
}

/** Runs a target until its time is over or a rule is broken. */
async function fuzz(
  target: Target,
  seed: number,
  ms: number,
  place: Int32Array,
): Promise<{ executions: number; finding: Finding | undefined }> {
  const end = performance.now() + ms;
  let index = 0;
  while (performance.now() < end) {
    for (let left = ROUND; left > 0; left--) {
      Atomics.store(place, 1, index);
      const finding = findingOf(target, inputOf(target, seed, index++));
      if (finding !== undefined) return { executions: index, finding };
    }
    await new Promise<void>((resolve) => setImmediate(resolve));
  }
  return { executions: index, finding: undefined };
}
