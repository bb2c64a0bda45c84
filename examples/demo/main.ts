/**
 * The demo: three nodes in three processes, in strict mode. node1 (Deno) replicates a folder to
 * node2 (Deno) and node3 (Bun); in the middle node2 is killed and started again.
 *
 *     deno task demo [folder]
 *
 * Without a folder it replicates the project's own sources. Exits 0 only if every file is intact
 * on every node.
 *
 * @module
 */

import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { Demo } from "./demo.ts";
import { FolderError, readFolder, readSources } from "./files.ts";
import type { Screen } from "./progress.ts";

const PROJECT = fileURLToPath(new URL("../../", import.meta.url));
/** The whole demo, from the first process to the last check. */
const DEADLINE_MS = 120_000;

const screen: Screen = {
  write: (text) => void process.stdout.write(text),
  interactive: process.stdout.isTTY === true && !process.env.CI && !process.env.NO_COLOR &&
    process.env.TERM !== "dumb",
  columns: process.stdout.columns ?? 80,
};

process.exit(await main(process.argv.slice(2)));

async function main(args: string[]): Promise<number> {
  if (args.length > 1 || args[0]?.startsWith("-")) {
    console.error("usage: deno task demo [folder]");
    return 2;
  }
  const source = args[0] === undefined ? PROJECT : resolve(args[0]);
  try {
    const files = await (args[0] === undefined ? readSources(source) : readFolder(source));
    const place = mkdtempSync(join(tmpdir(), "hawser-demo-"));
    return await runIn(place, new Demo({ source, files, place, screen }));
  } catch (error) {
    const expected = error instanceof FolderError;
    console.error(expected ? error.message : `The demo failed: ${(error as Error).message}`);
    return 1;
  }
}

/** Whatever happens, no process and no file stays behind. */
async function runIn(place: string, demo: Demo): Promise<number> {
  const late = setTimeout(() => {
    demo.fail(new Error(`it was not done after ${DEADLINE_MS / 1000} s`));
  }, DEADLINE_MS);
  const stop = () => demo.fail(new Error("it was interrupted"));
  for (const signal of ["SIGINT", "SIGTERM"] as const) process.on(signal, stop);
  try {
    const problems = await demo.run();
    for (const problem of problems.slice(0, 10)) console.error(problem);
    if (problems.length > 10) console.error(`… and ${problems.length - 10} more`);
    return problems.length === 0 ? 0 : 1;
  } finally {
    clearTimeout(late);
    await demo.killAll();
    rmSync(place, { recursive: true, force: true });
  }
}
