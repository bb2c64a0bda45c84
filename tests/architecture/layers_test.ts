import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { findBreaches } from "./layers_check.ts";

/** Breaches of these files, beside two that everybody may import. */
function breaches(files: Record<string, string>): string[] {
  const basis = { "errors.ts": "export {};", "protocol/frame.ts": 'import "../errors.ts";' };
  return findBreaches(new Map(Object.entries({ ...basis, ...files })));
}

describe("the check of the layers", () => {
  it("finds nothing where every import goes down", () => {
    const files = {
      "peer/driver.ts": 'import {\n  encodeFrame,\n} from "../protocol/frame.ts";',
      "toml.ts": 'import { parse } from "smol-toml";',
    };
    assert.deepEqual(breaches(files), []);
  });

  it("names file and line of an import against the table", () => {
    const text = '// one\nimport {\n  type Driver,\n} from "../peer/driver.ts";';
    const [breach, ...more] = breaches({ "peer/driver.ts": "", "protocol/hello.ts": text });
    assert.match(breach ?? "", /^src\/protocol\/hello\.ts:4: may not import src\/peer\/driver\.ts/);
    assert.deepEqual(more, []);
  });

  for (
    const text of [
      'import type { A } from "../peer/driver.ts";',
      'export { a } from "../peer/driver.ts";',
      'export * from "../peer/driver.ts";',
      'import "../peer/driver.ts";',
      'type A = import("../peer/driver.ts").A;',
    ]
  ) {
    it(`sees ${text}`, () => {
      const found = breaches({ "peer/driver.ts": "", "protocol/hello.ts": text });
      assert.ok(found.some((breach) => breach.includes("may not import src/peer/driver.ts")));
    });
  }

  it("does not take an example in a comment for an import", () => {
    const text = '/**\n * import { a } from "../peer/driver.ts";\n */\nexport {};';
    assert.deepEqual(breaches({ "protocol/hello.ts": text }), []);
  });

  it("finds a cycle of type imports", () => {
    const found = breaches({
      "peer/a.ts": 'import type { B } from "./b.ts";',
      "peer/b.ts": '\nimport type { A } from "./a.ts";',
    });
    assert.deepEqual(found, [
      "src/peer/b.ts:2: closes a cycle: peer/a.ts -> peer/b.ts -> peer/a.ts",
    ]);
  });

  for (
    const [name, text] of [
      ["the clock", "const now = Date.now();"],
      ["a timer", "setTimeout(() => {}, 1);"],
      ["randomness", "const r = Math.random();"],
      ["a runtime", 'if ("x" in Deno.env) {}'],
      ["the clock in a template", "const text = `at ${Date.now()}`;"],
      ["a promise", "export async function a() {}"],
      ["a module of the runtime", 'import fs from "node:fs";'],
    ] as const
  ) {
    it(`finds ${name} in the core`, () => {
      const found = breaches({ "protocol/hello.ts": text });
      assert.ok(found.some((breach) => breach.startsWith("src/protocol/hello.ts:1: ")), `${found}`);
    });
  }

  it("lets the core speak of what it does not use", () => {
    const text = '/* Date.now() */\nthrow new Error("Deno and setTimeout"); // Math.random()';
    assert.deepEqual(breaches({ "protocol/hello.ts": text }), []);
  });

  it("keeps each package to its one file", () => {
    const text = 'import { parse } from "smol-toml";';
    assert.match(
      breaches({ "security.ts": text })[0] ?? "",
      /^src\/security\.ts:1: .*src\/toml\.ts/,
    );
    const unknown = 'import left from "left-pad";';
    assert.match(breaches({ "security.ts": unknown })[0] ?? "", /unknown package "left-pad"/);
  });

  it("does not let src/ import what lies outside it", () => {
    const found = breaches({ "peer/a.ts": 'import "../../mod.ts";' });
    assert.match(found[0] ?? "", /^src\/peer\/a\.ts:1: imports \.\.\/mod\.ts, which is not in src/);
  });
});
