/**
 * All tests on Deno, Bun and Node: `deno task test [deno|bun|node|interop …]`. Ends with
 * `N passed, N failed`, summed over the runtimes.
 *
 * @module
 */

import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { run, type RuntimeName, runtimePath } from "./runtimes.ts";

interface Sum {
  passed: number;
  failed: number;
}

interface Finished {
  readonly sum: Sum;
  readonly output: string;
}

/** `quiet`: the output is not shown while it comes. */
const SUITES: Record<string, (quiet: boolean) => Promise<Finished>> = {
  // Types are checked by themselves: `deno check`.
  deno: (quiet) => suite("deno", ["test", "--no-check", "--allow-net"], countDeno, quiet),
  bun: (quiet) => suite("bun", ["test", "--timeout", "60000", ...testFiles()], countBun, quiet),
  node: (quiet) =>
    withNodeCache((env) => {
      const flags = [
        "--test",
        "--test-concurrency=2",
        "--test-reporter=tap",
        "--disable-warning=ExperimentalWarning",
      ];
      return suite("node", [...flags, ...testFiles()], countNode, quiet, env);
    }),
  interop: (quiet) =>
    withNodeCache((env) =>
      suite(
        "deno",
        ["test", "--no-check", "-A", "--parallel", ...INTEROP_FILES],
        countDeno,
        quiet,
        {
          ...env,
          // They wait for each other's processes more than they work.
          DENO_JOBS: "3",
        },
      )
    ),
};

/**
 * Suites that run one after the other, beside those of the other list: Deno's and Bun's are one
 * process each. Node's begins when Bun's is over, and is alone for most of its time. The tests between
 * runtimes want both cores.
 */
const BESIDE_EACH_OTHER = [["deno"], ["bun", "node"]];

/** A suite takes a minute or two; one that hangs has failed. */
const LIMIT_MS = 600_000;

const INTEROP_FILES = ["tests/interop/"];

const wanted = process.argv.slice(2);
const names = wanted.length > 0 ? wanted : Object.keys(SUITES);
const unknown = names.find((name) => SUITES[name] === undefined);
if (unknown !== undefined) {
  console.error(`unknown suite ${unknown}: one of ${Object.keys(SUITES).join(", ")}`);
  process.exit(2);
}
const total: Sum = { passed: 0, failed: 0 };
const lines: string[] = [];
const lanes = BESIDE_EACH_OTHER.map((lane) => lane.filter((name) => names.includes(name)))
  .filter((lane) => lane.length > 0);
await Promise.all(lanes.map((lane, i) => runInTurn(lane, i > 0)));
const beside = BESIDE_EACH_OTHER.flat();
await runInTurn(names.filter((name) => !beside.includes(name)), false);
console.log(`\n${lines.join("\n")}`);
console.log(`${total.passed} passed, ${total.failed} failed`);
process.exit(total.failed === 0 && total.passed > 0 ? 0 : 1);

/** `quiet`: what runs beside something else is shown when it is over. */
async function runInTurn(suites: readonly string[], quiet: boolean): Promise<void> {
  for (const name of suites) {
    if (!quiet) console.log(`\n=== ${name}`);
    const began = performance.now();
    const { sum, output } = await SUITES[name]!(quiet);
    if (quiet) console.log(`\n=== ${name}\n${output}`);
    const seconds = Math.round((performance.now() - began) / 1000);
    lines.push(`${name}: ${sum.passed} passed, ${sum.failed} failed in ${seconds} s`);
    total.passed += sum.passed;
    total.failed += sum.failed;
  }
}

/** Node runs hundreds of processes, of which each would compile all of the project. */
async function withNodeCache(
  start: (env: Record<string, string>) => Promise<Finished>,
): Promise<Finished> {
  const cache = mkdtempSync(join(tmpdir(), "hawser-node-"));
  try {
    return await start({ NODE_COMPILE_CACHE: cache });
  } finally {
    rmSync(cache, { recursive: true, force: true });
  }
}

async function suite(
  runtime: RuntimeName,
  args: string[],
  count: (output: string) => Sum,
  quiet: boolean,
  env: Record<string, string> = {},
): Promise<Finished> {
  const command = [runtimePath(runtime), ...args];
  const { code, output } = await run(command, { limitMs: LIMIT_MS, quiet, env });
  const sum = count(output);
  // A runner that failed without a failed test (a crash, a type error) is a failure all the same.
  if (code !== 0 && sum.failed === 0) sum.failed = 1;
  return { sum, output };
}

/** All but the tests that start processes of every runtime: those run once, as "interop". */
function testFiles(): string[] {
  return readdirSync("tests", { recursive: true })
    .map(String)
    .filter((file) => file.endsWith("_test.ts") && !file.startsWith("interop"))
    .map((file) => `./tests/${file}`)
    .toSorted();
}

/** "ok | 3 passed (12 steps) | 0 failed (1s)": a `describe` is a test, its `it`s are the steps. */
function countDeno(output: string): Sum {
  const match = /\| \d+ passed(?: \((\d+) steps?\))? \| (\d+) failed(?: \((\d+) steps?\))?/.exec(
    output,
  );
  if (match === null) return { passed: 0, failed: 0 };
  const [, steps, failed, failedSteps] = match.map((text) => Number(text ?? 0));
  return { passed: steps!, failed: Math.max(failed!, failedSteps!) };
}

function countBun(output: string): Sum {
  return {
    passed: lastNumber(output, /^ *(\d+) pass$/gm),
    failed: lastNumber(output, /^ *(\d+) fail$/gm),
  };
}

function countNode(output: string): Sum {
  return {
    passed: lastNumber(output, /^# pass (\d+)$/gm),
    failed: lastNumber(output, /^# fail (\d+)$/gm),
  };
}

function lastNumber(text: string, pattern: RegExp): number {
  return Number([...text.matchAll(pattern)].at(-1)?.[1] ?? 0);
}
