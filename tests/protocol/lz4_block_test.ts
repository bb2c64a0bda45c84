import { before, describe, it } from "node:test";
import assert from "node:assert/strict";
import fc from "fast-check";
import { TransportError } from "../../src/errors.ts";
import { checkLz4Block } from "../../src/protocol/lz4_block.ts";
import type { Lz4 } from "../../src/protocol/message.ts";
import { loadLz4 } from "../../src/runtime/lz4.ts";
import { concat, hex } from "./wire_bytes.ts";

const text = (ascii: string): Uint8Array => new TextEncoder().encode(ascii);

/** Blocks by hand from the LZ4 block format, and what they hold. */
const GOOD: readonly { name: string; block: Uint8Array; output: Uint8Array }[] = [
  { name: "literals alone", block: hex("50 68656c6c6f"), output: text("hello") },
  {
    name: "a match that overlaps its own output",
    block: hex("1a 61 0100 50 6161616161"),
    output: text("a".repeat(20)),
  },
  {
    name: "a match at a distance of 3",
    block: hex("36 616263 0300 50 6263616263"),
    output: text("abcabcabcabcabcabc"),
  },
  {
    name: "a match that reaches back to the first byte",
    block: hex("80 6162636465666768 0800 50 6566676869"),
    output: text("abcdefghabcdefghi"),
  },
  {
    name: "a match length with two more bytes (15 + 255 + 20 + 4 = 294)",
    block: hex("1f 00 0100 ff14 50 0000000000"),
    output: new Uint8Array(300),
  },
  {
    name: "a match length with a further byte of 0 (15 + 0 + 4 = 19)",
    block: hex("1f 78 0100 00 50 7878787878"),
    output: text("x".repeat(25)),
  },
  {
    name: "a literal length with further bytes (15 + 255 + 0 = 270)",
    block: concat(hex("f0 ff00"), new Uint8Array(270).fill(0x79)),
    output: text("y".repeat(270)),
  },
  {
    name: "a match without literals before it",
    block: hex("40 61626364 0400 00 0800 50 6162636465"),
    output: text("abcdabcdabcdabcde"),
  },
];

const BAD: readonly { name: string; block: Uint8Array; size: number }[] = [
  { name: "an empty block", block: hex(""), size: 5 },
  { name: "an empty block that claims 0 bytes", block: hex(""), size: 0 },
  { name: "literals cut short", block: hex("50 68656c6c"), size: 5 },
  { name: "a literal length cut short", block: hex("f0"), size: 15 },
  { name: "a literal length cut short after 255", block: hex("f0 ffff"), size: 525 },
  { name: "an offset cut short", block: hex("10 61 01"), size: 20 },
  { name: "a match length cut short", block: hex("1f 61 0100"), size: 20 },
  { name: "a match length cut short after 255", block: hex("1f 61 0100 ff"), size: 275 },
  { name: "no sequence after a match", block: hex("1a 61 0100"), size: 15 },
  { name: "an offset of 0", block: hex("1a 61 0000 50 6161616161"), size: 20 },
  { name: "an offset one before the start", block: hex("1a 61 0200 50 6161616161"), size: 20 },
  { name: "an offset of 65535", block: hex("1a 61 ffff 50 6161616161"), size: 20 },
  { name: "an offset of 256 read as 1", block: hex("1a 61 0001 50 6161616161"), size: 20 },
  { name: "a match before any output", block: hex("0a 0100 60 616161616161"), size: 20 },
  {
    name: "an offset before the start in a later sequence",
    block: hex("10 61 0100 00 0a00 50 6161616161"),
    size: 14,
  },
  { name: "one byte too many", block: hex("50 68656c6c6f"), size: 4 },
  { name: "one byte too few", block: hex("50 68656c6c6f"), size: 6 },
  { name: "a match beyond the claimed size", block: hex("1a 61 0100 50 6161616161"), size: 14 },
  { name: "a claim of 4 GiB less one", block: hex("50 68656c6c6f"), size: 0xffff_ffff },
  { name: "a byte after the end", block: hex("50 68656c6c6f 00"), size: 5 },
  { name: "two bytes after the end", block: hex("50 68656c6c6f 0100"), size: 5 },
  { name: "a sequence after the end", block: hex("50 68656c6c6f 0100 00"), size: 5 },
  {
    name: "a literal length that runs on",
    block: concat(hex("f0"), new Uint8Array(100_000).fill(0xff)),
    size: 100,
  },
];

function accepts(block: Uint8Array, size: number): boolean {
  try {
    checkLz4Block(block, size);
    return true;
  } catch (error) {
    assert.ok(error instanceof TransportError);
    assert.equal(error.code, "Compression");
    return false;
  }
}

/** Decompresses byte by byte and knows nothing of claims: the model. Undefined for a bad block. */
function model(block: Uint8Array): Uint8Array | undefined {
  const input = [...block];
  const output: number[] = [];
  const length = (nibble: number): number => {
    let sum = nibble;
    for (let byte = nibble === 15 ? 255 : 0; byte === 255;) {
      byte = input.shift() ?? NaN;
      sum += byte;
    }
    return sum;
  };
  while (input.length > 0) {
    const token = input.shift()!;
    const literals = length(token >> 4);
    if (!(literals <= input.length)) return undefined;
    output.push(...input.splice(0, literals));
    if (input.length === 0) return Uint8Array.from(output);
    const [low, high] = input.splice(0, 2);
    if (high === undefined) return undefined;
    const offset = low! + 256 * high;
    if (offset === 0 || offset > output.length) return undefined;
    const match = length(token & 15) + 4;
    if (Number.isNaN(match)) return undefined;
    for (let i = 0; i < match; i++) output.push(output[output.length - offset]!);
  }
  return undefined;
}

function sizePrepended(block: Uint8Array, size: number): Uint8Array {
  return concat(Uint8Array.of(size, size >>> 8, size >>> 16, size >>> 24), block);
}

/** Bytes with repetitions in them. */
const repetitive = fc.array(
  fc.tuple(fc.uint8Array({ minLength: 1, maxLength: 12 }), fc.integer({ min: 1, max: 40 })),
  { minLength: 1, maxLength: 12 },
).map((runs) => concat(...runs.flatMap(([part, times]) => Array<Uint8Array>(times).fill(part))));

/** Tokens, lengths and offsets at random, small enough to be valid now and then. */
const nearlyBlock = fc.array(
  fc.tuple(fc.integer({ min: 0, max: 255 }), fc.integer({ min: 0, max: 20 })),
  { maxLength: 8 },
).map((sequences) =>
  concat(
    ...sequences.map(([token, offset]) => {
      const literals = token >> 4;
      const extended = literals === 15 ? hex("01") : hex("");
      const count = literals === 15 ? 16 : literals;
      const match = (token & 15) === 15 ? hex("02") : hex("");
      return concat(
        Uint8Array.of(token),
        extended,
        new Uint8Array(count).fill(token),
        Uint8Array.of(offset, 0),
        match,
      );
    }),
    hex("30 0a0b0c"),
  )
);

describe("checkLz4Block", () => {
  let lz4: Lz4;
  before(async () => {
    lz4 = await loadLz4();
  });

  /** Both must agree on every block, and the real decompressor with them. */
  function holdAgainstModel(block: Uint8Array, claim: number): boolean {
    const output = model(block);
    const accepted = accepts(block, claim);
    assert.equal(accepted, output?.length === claim);
    if (accepted && claim > 0) {
      assert.deepEqual(lz4.decompress(sizePrepended(block, claim)), output);
    }
    return accepted;
  }

  for (const { name, block, output } of GOOD) {
    it(`accepts ${name}, with its own size only`, () => {
      assert.deepEqual(model(block), output);
      assert.ok(holdAgainstModel(block, output.length));
      assert.equal(accepts(block, output.length - 1), false);
      assert.equal(accepts(block, output.length + 1), false);
      assert.equal(accepts(block, 0), false);
    });

    it(`rejects ${name} cut short anywhere`, () => {
      for (let length = 0; length < block.length; length++) {
        assert.equal(accepts(block.subarray(0, length), output.length), false);
      }
    });
  }

  for (const { name, block, size } of BAD) {
    it(`rejects ${name}`, () => {
      assert.equal(accepts(block, size), false);
      const compressed = lz4.compress(text("still working ".repeat(9)));
      assert.deepEqual(lz4.decompress(compressed), text("still working ".repeat(9)));
    });
  }

  it("accepts a block of nothing where nothing is claimed", () => {
    assert.ok(accepts(hex("00"), 0));
  });

  it("accepts a last token with match bits, which mean nothing there", () => {
    assert.ok(holdAgainstModel(hex("5f 68656c6c6f"), 5));
  });

  it("accepts a last sequence without literals", () => {
    assert.ok(holdAgainstModel(hex("1a 61 0100 00"), 15));
  });

  it("never says yes for a size that is no number", () => {
    for (const size of [NaN, -1, 5.5, Infinity]) {
      assert.equal(accepts(hex("50 68656c6c6f"), size), false);
    }
  });

  it("accepts whatever was really compressed", () => {
    const payload = fc.oneof(repetitive, fc.uint8Array({ minLength: 1, maxLength: 2000 }));
    fc.assert(fc.property(payload, (payload) => {
      const packed = lz4.compress(payload);
      assert.deepEqual(packed.subarray(0, 4), sizePrepended(hex(""), payload.length));
      checkLz4Block(packed.subarray(4), payload.length);
      assert.deepEqual(lz4.decompress(packed), payload);
    }));
  });

  it("accepts large payloads that were really compressed", () => {
    for (const size of [65_535, 65_536, 70_000, 1 << 20]) {
      const payload = Uint8Array.from({ length: size }, (_, i) => i * i >>> 7);
      checkLz4Block(lz4.compress(payload).subarray(4), size);
    }
  });

  it("agrees with the model on blocks that are nearly valid", () => {
    let accepted = 0;
    fc.assert(
      fc.property(nearlyBlock, fc.integer({ min: 0, max: 200 }), (block, claim) => {
        if (holdAgainstModel(block, model(block)?.length ?? claim)) accepted++;
        holdAgainstModel(block, claim);
      }),
      { numRuns: 1000 },
    );
    assert.ok(accepted >= 20, `only ${accepted} blocks were valid`);
  });

  it("agrees with the model on compressed blocks with a byte changed, cut out or put in", () => {
    const change = fc.record({
      at: fc.nat(),
      byte: fc.oneof(fc.constantFrom(0, 1, 15, 16, 240, 255), fc.integer({ min: 0, max: 255 })),
      removed: fc.integer({ min: 0, max: 2 }),
      inserted: fc.boolean(),
    });
    fc.assert(
      fc.property(repetitive, change, (payload, { at, byte, removed, inserted }) => {
        const block = lz4.compress(payload).subarray(4);
        const from = at % block.length;
        const middle = inserted ? Uint8Array.of(byte) : hex("");
        const mutant = concat(block.subarray(0, from), middle, block.subarray(from + removed));
        holdAgainstModel(mutant, payload.length);
        const output = model(mutant);
        if (output !== undefined) holdAgainstModel(mutant, output.length);
      }),
      { numRuns: 1000 },
    );
  });
});
