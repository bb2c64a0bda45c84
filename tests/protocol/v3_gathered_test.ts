import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import { Gathered } from "../../src/protocol/v3/gathered.ts";
import { concat, countWork } from "./wire_bytes.ts";

describe("Gathered", () => {
  it("puts fragments together where the second is longer than the first", () => {
    const gathered = new Gathered(Uint8Array.of(1));
    gathered.append(Uint8Array.of(2, 3));
    assert.equal(gathered.bytes, 3);
    assert.deepEqual(gathered.take(), Uint8Array.of(1, 2, 3));
  });

  it("gives what was put in, whatever the lengths of the fragments", () => {
    const parts = fc.array(fc.uint8Array({ minLength: 1, maxLength: 300 }), {
      minLength: 1,
      maxLength: 40,
    });
    fc.assert(fc.property(parts, (parts) => {
      const [first, ...rest] = parts;
      const given = first!.slice();
      const gathered = new Gathered(given);
      given.fill(0xee);
      for (const part of rest) {
        const copy = part.slice();
        gathered.append(copy);
        copy.fill(0xee);
      }
      assert.deepEqual(gathered.take(), concat(...parts));
    }));
  });

  it("shows nothing of what its memory held before", () => {
    const parts = fc.array(fc.uint8Array({ minLength: 1, maxLength: 300 }), {
      minLength: 1,
      maxLength: 20,
    });
    fc.assert(fc.property(parts, fc.integer({ min: 0, max: 3000 }), (parts, expected) => {
      const used = (bytes: number) => new Uint8Array(bytes).fill(0xee);
      const [first, ...rest] = parts.map((part) => part.map((byte) => byte === 0xee ? 0 : byte));
      const gathered = new Gathered(first!, expected, used);
      for (const part of rest) gathered.append(part);
      const whole = gathered.take();
      assert.deepEqual(whole, concat(first!, ...rest));
      assert.ok(!new Uint8Array(whole.buffer).includes(0xee));
    }));
  });

  it("takes memory for at most four times the bytes that came, and moves each a few times", () => {
    const parts = fc.array(fc.integer({ min: 1, max: 70_000 }), { minLength: 1, maxLength: 60 });
    fc.assert(fc.property(parts, (lengths) => {
      const fragments = lengths.map((length) => new Uint8Array(length));
      const bytes = lengths.reduce((sum, length) => sum + length, 0);
      let taken = 0;
      const { allocated, copied } = countWork(() => {
        const gathered = new Gathered(fragments[0]!);
        for (const fragment of fragments.slice(1)) gathered.append(fragment);
        taken = gathered.take().buffer.byteLength;
      });
      assert.ok(taken <= 2 * bytes, `${taken} bytes for ${bytes}`);
      assert.ok(allocated <= 4 * bytes, `${allocated} bytes were allocated for ${bytes}`);
      assert.ok(copied <= 3 * bytes, `${copied} bytes were copied for ${bytes}`);
    }));
  });
});
