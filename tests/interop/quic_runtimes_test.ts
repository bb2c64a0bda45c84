/**
 * The tests of QUIC on one runtime, which Deno runs with `--unstable-net` only. Needs `--allow-run`;
 * `deno test --allow-net` leaves it out.
 */

import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { fileURLToPath } from "node:url";
import { run, runtimePath } from "../../tools/runtimes.ts";
import { mayRun } from "../support/may_run.ts";

const skip = !mayRun();

/** Files with tests of QUIC, and the describes in them where not all are. */
const ON_DENO: Record<string, string | undefined> = {
  "../transport/quic_test.ts": undefined,
  "../transport/quic_path_test.ts": undefined,
  "../endpoint/quic_test.ts": undefined,
  "../endpoint/quic_substreams_test.ts": undefined,
  "../endpoint/transports_ledger_test.ts": "over QUIC",
  "../deno_leaks_test.ts": "quic",
};

describe("the tests of QUIC on each runtime", { skip }, () => {
  for (const [file, only] of Object.entries(ON_DENO)) {
    it(`deno --unstable-net: ${file.slice(3)}`, async () => {
      const path = fileURLToPath(new URL(file, import.meta.url));
      const filter = only === undefined ? [] : [`--filter=${only}`];
      const command = [runtimePath("deno"), "test", "--allow-net", "--unstable-net", ...filter];
      const { code, output } = await run([...command, path], { quiet: true, limitMs: 120_000 });
      assert.equal(code, 0, output);
      assert.match(output, /ok \| [1-9]\d* passed/);
    });
  }
});
