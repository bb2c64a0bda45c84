import { strict as assert } from "node:assert";
import { describe, it } from "node:test";
import fc from "fast-check";
import { PayloadCopies } from "../../src/peer/payload_copies.ts";

const SLAB_BYTES = 131_072;

/** A payload that is told from others by each of its bytes. */
function marked(length: number, mark: number): Uint8Array {
  return new Uint8Array(length).fill(mark & 0xff);
}

describe("copies of payloads", () => {
  it("never share bytes while both are in use, whatever is released when", () => {
    const length = fc.oneof(
      fc.integer({ min: 0, max: 300 }),
      fc.integer({ min: 16_000, max: 17_000 }),
      fc.constantFrom(16_384, 16_385, SLAB_BYTES - 1, SLAB_BYTES, SLAB_BYTES + 1, 262_144),
    );
    const step = fc.oneof(
      fc.record({ copy: length }),
      fc.record({ release: fc.nat(1_000) }),
    );
    fc.assert(
      fc.property(fc.array(step, { maxLength: 120 }), (steps) => {
        const copies = new PayloadCopies();
        const live: { copy: Uint8Array; mark: number; length: number }[] = [];
        let mark = 0;
        for (const step of steps) {
          if ("copy" in step) {
            const payload = marked(step.copy, ++mark);
            const copy = copies.copy(payload);
            payload.fill(0);
            live.push({ copy, mark: mark & 0xff, length: step.copy });
          } else if (live.length > 0) {
            copies.release(live.splice(step.release % live.length, 1)[0]!.copy);
          }
          for (const { copy, mark, length } of live) {
            assert.equal(copy.length, length);
            assert.ok(copy.every((byte) => byte === mark), "a copy in use was written over");
          }
        }
      }),
      { numRuns: 60 },
    );
  });

  it("give a slab to a long payload and take it back without counting it as one", () => {
    const copies = new PayloadCopies();
    const small = Array.from({ length: 200 }, (_, i) => copies.copy(marked(4_096, i)));
    assert.ok(small.some(({ buffer }) => buffer.byteLength === SLAB_BYTES));
    for (const copy of small) copies.release(copy);
    const long = [1, 2, 3].map((mark) => copies.copy(marked(SLAB_BYTES, mark)));
    for (const copy of long) copies.release(copy);
    const again = Array.from({ length: 200 }, (_, i) => copies.copy(marked(4_096, i)));
    again.forEach((copy, i) => assert.ok(copy.every((byte) => byte === (i & 0xff))));
    for (const copy of again.splice(0, 100)) copies.release(copy);
    const more = Array.from({ length: 100 }, () => copies.copy(marked(4_096, 255)));
    assert.equal(more.length, 100);
    again.forEach((copy, i) => assert.ok(copy.every((byte) => byte === (i + 100 & 0xff))));
  });
});
