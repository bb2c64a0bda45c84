/**
 * Runs seeds of the simulation: `deno run -A tests/simulation/replay.ts SEED` shows every event of
 * one; `--from N --count M` runs many and stops at the first that fails. `--version 2` holds both
 * to that version of the protocol, `--all` goes on after a failure, `--quiet` shows no events.
 *
 * @module
 */

import process from "node:process";
import { parseArgs } from "node:util";
import { NEWEST, type ProtocolVersion } from "./api.ts";
import { simulate } from "./simulate.ts";

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    from: { type: "string", default: "1" },
    count: { type: "string", default: "1000" },
    version: { type: "string", default: String(NEWEST) },
    all: { type: "boolean", default: false },
    quiet: { type: "boolean", default: false },
  },
});
const version = Number(values.version) as ProtocolVersion;

if (positionals.length > 0) await replay(Number(positionals[0]));
else await runMany(Number(values.from), Number(values.count));

async function replay(seed: number): Promise<void> {
  const write = values.quiet ? {} : { write: (line: string) => console.log(line) };
  try {
    console.log(await simulate(seed, { version, ...write }));
  } catch (error) {
    console.log((error as Error).message);
    process.exitCode = 1;
  }
}

async function runMany(from: number, count: number): Promise<void> {
  const sum = { accepted: 0, acked: 0, received: 0, reported: 0, connections: 0, faults: 0 };
  const slowest = { seed: 0, ms: 0 };
  const started = performance.now();
  let failed = 0;
  let last = from;
  for (let seed = from; seed < from + count && (failed === 0 || values.all); seed++) {
    const seedStarted = performance.now();
    last = seed;
    try {
      const result = await simulate(seed, { version });
      for (const name of Object.keys(sum) as (keyof typeof sum)[]) sum[name] += result[name];
    } catch (error) {
      failed++;
      console.log((error as Error).message);
      process.exitCode = 1;
    }
    const ms = performance.now() - seedStarted;
    if (ms > slowest.ms) Object.assign(slowest, { seed, ms });
  }
  const seeds = last - from + 1;
  const totalMs = performance.now() - started;
  console.log(
    `seeds ${from} to ${last}: ${failed} failed, ${(totalMs / seeds).toFixed(1)} ms each, ` +
      `seed ${slowest.seed} took ${slowest.ms.toFixed(0)} ms`,
  );
  console.log(sum);
}
