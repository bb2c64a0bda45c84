/**
 * Whether every benchmark starts: `deno run -A tools/bench_smoke.ts`, from the project's root. Each
 * bench/*_bench.ts is type-checked and run until its first result; a run is cut off then, for the
 * figures of a busy machine are of no use. Exits with 1 if one gives no result.
 *
 * @module
 */

import { spawn } from "node:child_process";
import { readdir } from "node:fs/promises";
import process from "node:process";
import { stripVTControlCharacters } from "node:util";
import { run, runtimePath } from "./runtimes.ts";

const FOLDER = "bench";
const DEADLINE_MS = 30_000;
/** A row of results: "| encodeFrame, 4096 frames | 21.4 µs | …". */
const RESULT = /^\|.*\|\s+[\d.,]+ (?:ns|µs|ms|s)\b/m;

process.chdir(new URL("..", import.meta.url).pathname);
const deno = runtimePath("deno");
const files = (await readdir(FOLDER))
  .filter((name) => name.endsWith("_bench.ts")).toSorted().map((name) => `${FOLDER}/${name}`);
const failures: string[] = files.length === 0 ? [`${FOLDER}: there are no benchmarks`] : [];

const { code, output } = await run([deno, "check", "--quiet", FOLDER], { quiet: true });
if (code !== 0) failures.push(stripVTControlCharacters(output).trim());
for (const file of files) {
  const problem = await firstResult(file);
  if (problem === undefined) console.log(`${file}: starts`);
  else failures.push(`${file}: ${problem}`);
}
for (const failure of failures) console.error(failure);
process.exit(failures.length > 0 ? 1 : 0);

/** Runs a file until it shows a result; says what went wrong otherwise. */
function firstResult(file: string): Promise<string | undefined> {
  return new Promise((resolve) => {
    const child = spawn(deno, ["bench", "-A", "--quiet", file], {
      stdio: ["ignore", "pipe", "pipe"],
      env: { ...process.env, NO_COLOR: "1" },
    });
    let text = "";
    let seen = false;
    let late = false;
    const timer = setTimeout(() => {
      late = true;
      child.kill("SIGKILL");
    }, DEADLINE_MS);
    const take = (chunk: unknown) => {
      text += String(chunk);
      if (seen || !RESULT.test(stripVTControlCharacters(text))) return;
      seen = true;
      child.kill("SIGKILL");
    };
    child.stdout.on("data", take);
    child.stderr.on("data", take);
    child.on("error", (error) => {
      text += error.message;
    });
    child.on("close", () => {
      clearTimeout(timer);
      if (seen) return resolve(undefined);
      const reason = late ? `no result within ${DEADLINE_MS} ms` : "it ended without a result";
      resolve(`${reason}\n${text.trim()}`);
    });
  });
}
