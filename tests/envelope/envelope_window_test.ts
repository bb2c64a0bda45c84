import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import { type EnvelopeRefusal, EnvelopeWindow } from "../../src/protocol/envelope_window.ts";

const NOW = 1786752000000;

/** Admits numbers of one sender, all just signed. */
function admit(window: EnvelopeWindow, ...sequences: number[]): (EnvelopeRefusal | undefined)[] {
  return sequences.map((sequence) => window.admit("a", sequence, NOW, NOW));
}

describe("the numbers in an EnvelopeWindow", () => {
  it("are taken once each, in order or not, with gaps or not", () => {
    const window = new EnvelopeWindow();
    assert.deepEqual(admit(window, 5, 6, 9, 8, 7), Array(5).fill(undefined));
    assert.deepEqual(admit(window, 5, 6, 7, 8, 9), Array(5).fill("replayed"));
    assert.deepEqual(admit(window, 0, 0), [undefined, "replayed"]);
  });

  it("are taken up to the width behind the highest, and not further", () => {
    const window = new EnvelopeWindow();
    assert.deepEqual(admit(window, 5000, 3977, 3976), [undefined, undefined, "too-far-behind"]);
    const narrow = new EnvelopeWindow({ width: 32 });
    assert.deepEqual(admit(narrow, 100, 69, 68), [undefined, undefined, "too-far-behind"]);
  });

  it("stay known when the window moves, by one or by far", () => {
    const window = new EnvelopeWindow({ width: 64 });
    const all = Array.from({ length: 200 }, (_, index) => index);
    assert.deepEqual(admit(window, ...all), Array(200).fill(undefined));
    assert.deepEqual(admit(window, ...all.slice(136)), Array(64).fill("replayed"));
    assert.deepEqual(admit(window, 220, 199, 219), [undefined, "replayed", undefined]);
    assert.deepEqual(admit(window, 222, 221), [undefined, undefined]);
    // Exactly one width on: the same bit, and a new number.
    assert.deepEqual(admit(window, 286, 285, 286), [undefined, undefined, "replayed"]);
    assert.deepEqual(admit(window, 1e15, 1e15 - 1, 1e15), [undefined, undefined, "replayed"]);
  });

  it("reach up to 2^53-1", () => {
    const window = new EnvelopeWindow();
    const most = Number.MAX_SAFE_INTEGER;
    assert.deepEqual(
      admit(window, most - 1, most, most, most - 1023, most - 1024),
      [undefined, undefined, "replayed", undefined, "too-far-behind"],
    );
  });

  it("are those of each sender", () => {
    const window = new EnvelopeWindow();
    assert.equal(window.admit("a", 7, NOW, NOW), undefined);
    assert.equal(window.admit("b", 7, NOW, NOW), undefined);
    assert.equal(window.admit("b", 7, NOW, NOW), "replayed");
    assert.equal(window.senders, 2);
  });

  it("do what a set of all that were taken would do", () => {
    const width = 64;
    // A walk: mostly near the highest, now and then far ahead.
    const step = fc.oneof(
      { weight: 20, arbitrary: fc.integer({ min: -6, max: 3 }) },
      { weight: 3, arbitrary: fc.integer({ min: -80, max: 0 }) },
      { weight: 1, arbitrary: fc.integer({ min: 0, max: 150 }) },
    );
    fc.assert(
      fc.property(fc.array(step, { maxLength: 300 }), (steps) => {
        const window = new EnvelopeWindow({ width });
        const taken = new Set<number>();
        let highest = 100;
        assert.equal(window.admit("a", highest, NOW, NOW), undefined);
        taken.add(highest);
        for (const step of steps) {
          const sequence = Math.max(0, highest + step);
          const expected = highest - sequence >= width
            ? "too-far-behind"
            : taken.has(sequence)
            ? "replayed"
            : undefined;
          assert.equal(window.check("a", sequence, NOW, NOW), expected);
          assert.equal(window.admit("a", sequence, NOW, NOW), expected);
          if (expected !== undefined) continue;
          taken.add(sequence);
          highest = Math.max(highest, sequence);
        }
      }),
      { numRuns: 300 },
    );
  });
});

describe("the age in an EnvelopeWindow", () => {
  it("may be as large as said, in both directions", () => {
    const window = new EnvelopeWindow({ maxAgeMs: 1000 });
    assert.equal(window.admit("a", 1, NOW - 1000, NOW), undefined);
    assert.equal(window.admit("a", 2, NOW + 1000, NOW), undefined);
    assert.equal(window.admit("a", 3, NOW - 1001, NOW), "too-old");
    assert.equal(window.admit("a", 4, NOW + 1001, NOW), "too-new");
    assert.equal(window.admit("a", 5, NaN, NOW), "too-old");
    // What was refused is not remembered.
    assert.equal(window.admit("a", 3, NOW, NOW), undefined);
  });

  it("is five minutes where nothing is said", () => {
    const window = new EnvelopeWindow();
    assert.equal(window.check("a", 1, NOW - 300_000, NOW), undefined);
    assert.equal(window.check("a", 1, NOW - 300_001, NOW), "too-old");
  });
});

describe("the senders of an EnvelopeWindow", () => {
  it("are bounded; one that was silent gives way, one that was not does not", () => {
    const window = new EnvelopeWindow({ maxAgeMs: 1000, maxSenders: 2 });
    assert.equal(window.admit("a", 1, NOW, NOW), undefined);
    assert.equal(window.admit("b", 1, NOW + 500, NOW + 500), undefined);
    assert.equal(window.admit("c", 1, NOW + 900, NOW + 900), "too-many-senders");
    assert.equal(window.admit("c", 1, NOW + 1001, NOW + 1001), undefined);
    assert.equal(window.senders, 2);
    assert.equal(window.admit("b", 1, NOW + 500, NOW + 1001), "replayed");
  });

  it("can't have their messages replayed after they were forgotten, even if the clock goes back", () => {
    const window = new EnvelopeWindow({ maxAgeMs: 1000, maxSenders: 1 });
    assert.equal(window.admit("a", 1, NOW, NOW), undefined);
    assert.equal(window.admit("b", 1, NOW + 5000, NOW + 5000), undefined);
    assert.equal(window.admit("a", 1, NOW, NOW), "too-old");
    assert.equal(window.admit("a", 2, NOW + 1, NOW), "too-many-senders");
  });

  it("are remembered for as long as their newest timestamp may be taken again", () => {
    const window = new EnvelopeWindow({ maxAgeMs: 1000, maxSenders: 1 });
    // From the future: at NOW + 2000 it would still be taken.
    assert.equal(window.admit("a", 1, NOW + 1000, NOW), undefined);
    assert.equal(window.admit("b", 1, NOW + 2000, NOW + 2000), "too-many-senders");
    assert.equal(window.admit("a", 1, NOW + 1000, NOW + 2000), "replayed");
    assert.equal(window.admit("b", 1, NOW + 2001, NOW + 2001), undefined);
  });
});

describe("a sender whose clock goes back", () => {
  it("is remembered for its newest timestamp, not for its last", () => {
    const window = new EnvelopeWindow({ maxAgeMs: 1000, maxSenders: 1 });
    assert.equal(window.admit("a", 1, NOW, NOW), undefined);
    assert.equal(window.admit("a", 2, NOW - 900, NOW), undefined);
    assert.equal(window.admit("b", 1, NOW + 500, NOW + 500), "too-many-senders");
    assert.equal(window.admit("a", 1, NOW, NOW + 500), "replayed");
  });
});

describe("EnvelopeWindow", () => {
  it("refuses options that make no window", () => {
    for (const maxAgeMs of [-1, NaN, Infinity]) {
      assert.throws(() => new EnvelopeWindow({ maxAgeMs }), RangeError);
    }
    for (const width of [0, 31, 33, 65568, NaN]) {
      assert.throws(() => new EnvelopeWindow({ width }), RangeError);
    }
    for (const maxSenders of [0, 1.5, NaN]) {
      assert.throws(() => new EnvelopeWindow({ maxSenders }), RangeError);
    }
  });
});
