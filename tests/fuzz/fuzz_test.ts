import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { REGRESSIONS } from "./corpus/regressions.ts";
import { findingOf, inputOf, shrink, toHex } from "./fuzz.ts";
import { check, pieces, type Target } from "./target.ts";
import { TARGETS } from "./targets.ts";
import { join } from "../bad_input/wire.ts";

/** Mutations of each target that every test run tries; `deno task fuzz` tries millions. */
const INPUTS = 150;
const SEED = 20_261_121;

describe("the corpus", () => {
  for (const target of TARGETS) {
    it(`breaks no rule: ${target.name}`, () => {
      assert.ok(target.corpus.length > 0);
      for (const input of target.corpus) check(target, input);
    });
  }

  for (const { target: name, why, input } of REGRESSIONS) {
    it(`breaks no rule any more: ${name}: ${why}`, () => {
      const target = TARGETS.find((each) => each.name === name);
      assert.ok(target !== undefined, "there is no such target");
      check(target, input);
    });
  }
});

describe("mutations of the corpus", () => {
  for (const target of TARGETS) {
    it(`break no rule: ${target.name}`, () => {
      for (let i = 0; i < INPUTS; i++) {
        const input = inputOf(target, SEED, i);
        const finding = findingOf(target, input);
        assert.equal(finding, undefined, `${toHex(input)}\n${finding?.error.stack}`);
      }
    });
  }

  it("are the same for the same seed, and others for another", () => {
    for (const target of TARGETS) {
      const index = target.corpus.length + 5;
      const input = inputOf(target, 1, index);
      assert.deepEqual(inputOf(target, 1, index), input);
      const others = [2, 3, 4, 5].map((seed) => toHex(inputOf(target, seed, index)));
      assert.ok(others.some((other) => other !== toHex(input)));
    }
  });
});

describe("the fuzzer itself", () => {
  const seeded = { dictionary: [], corpus: [Uint8Array.from([..."hello, world"], toCode)] };

  it("finds an error of another type, and makes its input small", () => {
    const target: Target = {
      ...seeded,
      name: "throws at two bytes in a row",
      run(input) {
        const at = input.indexOf(0xff);
        if (at >= 0 && input[at + 1] === 0) throw new TypeError("a bug");
      },
    };
    const finding = search(target, 20_000);
    assert.equal(finding?.error.message, "a bug");
    assert.equal(toHex(shrink(target, finding).input), "ff00");
  });

  it("finds memory that is taken for what is only claimed", () => {
    const target: Target = {
      ...seeded,
      name: "allocates what it is told",
      run(input) {
        if (input.length >= 4) return void new Uint8Array(input[0]! * 65_536);
      },
    };
    assert.match(search(target, 100)?.error.message ?? "", /bytes allocated for \d+/);
  });

  it("finds work that is not linear", () => {
    const target: Target = {
      ...seeded,
      corpus: [new Uint8Array(3_000)],
      name: "takes a time that grows with the square of the length",
      run(input) {
        const end = performance.now() + input.length ** 2 / 45_000;
        while (performance.now() < end);
      },
    };
    assert.match(search(target, 1)?.error.message ?? "", /ms for 3000 bytes/);
  });

  it("finds an input that is written over", () => {
    const target: Target = { ...seeded, name: "sorts it", run: (input) => void input.sort() };
    assert.match(search(target, 1)?.error.message ?? "", /the input was changed/);
  });

  it("cuts an input into pieces that are all of it", () => {
    const input = Uint8Array.from({ length: 1_000 }, (_, i) => i);
    assert.deepEqual(join(...pieces(input)), input);
    assert.ok(pieces(input).some(({ length }) => length === 1));
    assert.deepEqual(pieces(new Uint8Array(0)), []);
  });
});

function search(target: Target, inputs: number) {
  for (let i = 0; i < inputs; i++) {
    const finding = findingOf(target, inputOf(target, SEED, i));
    if (finding !== undefined) return finding;
  }
}

function toCode(char: string): number {
  return char.charCodeAt(0);
}
