/** `hawser transports` on the runtime that runs the tests. */

import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { main } from "../../cli.ts";
import { Endpoint } from "../../mod.ts";
import { MemoryFiles } from "../certs/memory_files.ts";

async function run(...args: string[]) {
  let [stdout, stderr] = ["", ""];
  const code = await main(args, {
    stdout: (text) => void (stdout += text),
    stderr: (text) => void (stderr += text),
    now: () => 0,
    files: new MemoryFiles(),
  });
  return { code, stdout, stderr };
}

describe("hawser transports", () => {
  it("says of every transport that an endpoint has what it can, or why it can't be used", async () => {
    const { code, stdout } = await run("transports", "--json");
    assert.equal(code, 0);
    const { runtime, version, transports } = JSON.parse(stdout);
    assert.ok(["deno", "bun", "node"].includes(runtime) && /^\d/.test(version));
    const endpoint = new Endpoint({ nodeId: "a", security: "development" });
    assert.deepEqual(
      transports.map((row: { scheme: string }) => row.scheme).sort(),
      endpoint.transports.map(({ scheme }) => scheme).sort(),
    );
    for (const row of transports) {
      assert.equal(row.available, row.reason === undefined, row.scheme);
      const made = endpoint.transports.find(({ scheme }) => scheme === row.scheme)!;
      assert.equal(row.reason, made.unavailable);
      assert.equal(row.encrypted, made.capabilities.encrypted);
      assert.equal(row.peerAuthenticated, made.capabilities.peerAuthenticated);
    }
    const priorities = transports.map((row: { priority: number }) => row.priority);
    assert.deepEqual(priorities, priorities.toSorted((a: number, b: number) => b - a));
    await endpoint.close();
  });

  it("prints a table", async () => {
    const { code, stdout } = await run("transports");
    assert.equal(code, 0);
    assert.match(stdout, /^scheme +available +priority +reliable/m);
    assert.match(stdout, /^tcp +yes +\d+ +yes +yes +no +yes +yes +any$/m);
  });

  it("takes nothing else", async () => {
    for (const args of [["tcp"], ["--force"], ["--out", "x"]]) {
      assert.equal((await run("transports", ...args)).code, 2, args.join(" "));
    }
    assert.equal((await run("keys", "--json", "a")).code, 2);
  });
});
