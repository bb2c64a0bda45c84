import { describe, it } from "node:test";
import assert from "node:assert/strict";
import fc from "fast-check";
import { type Crc32, crc32, crc32ByTable } from "../../src/runtime/crc32.ts";
import { hex } from "./wire_bytes.ts";

const text = (ascii: string): Uint8Array => new TextEncoder().encode(ascii);

/** Known values of CRC-32/ISO-HDLC. */
const KNOWN: readonly (readonly [bytes: Uint8Array, crc: number])[] = [
  [hex(""), 0],
  [hex("00"), 0xd202_ef8d],
  [text("a"), 0xe8b7_be43],
  [text("123456789"), 0xcbf4_3926],
  [text("The quick brown fox jumps over the lazy dog"), 0x414f_a339],
  [new Uint8Array(32), 0x190a_55ad],
  [new Uint8Array(32).fill(0xff), 0xff6c_ab0b],
];

const byTable: Crc32 = (bytes, seed) => crc32ByTable(bytes, 0, bytes.length, seed);

for (const [name, sum] of [["crc32", crc32], ["crc32ByTable", byTable]] as const) {
  describe(name, () => {
    it("gives the known values", () => {
      for (const [bytes, crc] of KNOWN) assert.equal(sum(bytes), crc);
    });

    it("goes on from a seed, wherever the bytes are cut", () => {
      fc.assert(fc.property(fc.uint8Array({ maxLength: 300 }), fc.nat(300), (bytes, cut) => {
        const at = Math.min(cut, bytes.length);
        assert.equal(sum(bytes.subarray(at), sum(bytes.subarray(0, at))), sum(bytes));
        assert.equal(sum(bytes), crc32ByTable(bytes));
      }));
    });
  });
}

describe("crc32ByTable of a range", () => {
  it("is that of the bytes in it alone", () => {
    const range = fc.tuple(fc.nat(300), fc.nat(300));
    fc.assert(fc.property(fc.uint8Array({ maxLength: 300 }), range, (bytes, [a, b]) => {
      const from = Math.min(a, b, bytes.length);
      const to = Math.min(Math.max(a, b), bytes.length);
      assert.equal(crc32ByTable(bytes, from, to), crc32(bytes.subarray(from, to)));
    }));
  });
});
