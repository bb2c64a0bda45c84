/** Tests that Deno runs with `--unstable-net` only, started from a suite that may start processes. */

import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { fileURLToPath } from "node:url";
import { run, runtimePath } from "../../tools/runtimes.ts";
import { mayRun } from "../support/may_run.ts";

/** Files, as this one names them, each with the name of the describes in it where not all are meant. */
export function unstableTests(
  name: string,
  files: Readonly<Record<string, string | undefined>>,
): void {
  describe(name, { skip: !mayRun() }, () => {
    for (const [file, only] of Object.entries(files)) {
      it(`deno --unstable-net: ${file.slice(3)}`, async () => {
        const path = fileURLToPath(new URL(file, import.meta.url));
        const filter = only === undefined ? [] : [`--filter=${only}`];
        // Types are checked by themselves: `deno check`.
        const flags = ["--no-check", "--allow-net", "--unstable-net", ...filter];
        const command = [runtimePath("deno"), "test", ...flags];
        const { code, output } = await run([...command, path], { quiet: true, limitMs: 120_000 });
        assert.equal(code, 0, output);
        assert.match(output, /ok \| [1-9]\d* passed/);
      });
    }
  });
}
