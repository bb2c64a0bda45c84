/**
 * All tests on Deno, Bun and Node: `deno task test [deno|bun|node|interop …]`. Ends with
 * `N passed, N failed`, summed over the runtimes.
 *
 * @module
 */

import { readdirSync } from "node:fs";
import process from "node:process";
import { run, type RuntimeName, runtimePath } from "./runtimes.ts";

interface Sum {
  passed: number;
  failed: number;
}

const SUITES: Record<string, () => Promise<Sum>> = {
  deno: () => suite("deno", ["test", "--allow-net"], countDeno),
  bun: () => suite("bun", ["test", "--timeout", "30000", ...testFiles()], countBun),
  node: () =>
    suite(
      "node",
      [
        "--test",
        // Every file is a process of its own.
        "--test-concurrency=2",
        "--test-reporter=tap",
        "--disable-warning=ExperimentalWarning",
        ...testFiles(),
      ],
      countNode,
    ),
  interop: () => suite("deno", ["test", "-A", ...INTEROP_FILES], countDeno),
};

/** A suite takes a minute or two; one that hangs has failed. */
const LIMIT_MS = 600_000;

const INTEROP_FILES = ["tests/interop/"];

const wanted = process.argv.slice(2);
const names = wanted.length > 0 ? wanted : Object.keys(SUITES);
const total: Sum = { passed: 0, failed: 0 };
const lines: string[] = [];
for (const name of names) {
  const runSuite = SUITES[name];
  if (runSuite === undefined) {
    console.error(`unknown suite ${name}: one of ${Object.keys(SUITES).join(", ")}`);
    process.exit(2);
  }
  console.log(`\n=== ${name}`);
  const sum = await runSuite();
  lines.push(`${name}: ${sum.passed} passed, ${sum.failed} failed`);
  total.passed += sum.passed;
  total.failed += sum.failed;
}
console.log(`\n${lines.join("\n")}`);
console.log(`${total.passed} passed, ${total.failed} failed`);
process.exit(total.failed === 0 && total.passed > 0 ? 0 : 1);

async function suite(
  runtime: RuntimeName,
  args: string[],
  count: (output: string) => Sum,
): Promise<Sum> {
  const { code, output } = await run([runtimePath(runtime), ...args], { limitMs: LIMIT_MS });
  const sum = count(output);
  // A runner that failed without a failed test (a crash, a type error) is a failure all the same.
  if (code !== 0 && sum.failed === 0) sum.failed = 1;
  return sum;
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
