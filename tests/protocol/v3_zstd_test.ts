import { before, describe, it } from "node:test";
import assert from "node:assert/strict";
import fc from "fast-check";
import { TransportError } from "../../src/errors.ts";
import { type Compressor, decompressPayload } from "../../src/protocol/v3/compression.ts";
import { checkZstdFrame } from "../../src/protocol/v3/zstd_frame.ts";
import { loadZstd } from "../../src/runtime/zstd.ts";
import { concat, hex } from "./wire_bytes.ts";

const text = (ascii: string): Uint8Array => new TextEncoder().encode(ascii);
const MAX_SIZE = 16 * 1024 * 1024;

let zstd: Compressor;
before(() => {
  const loaded = loadZstd();
  assert.ok(loaded !== undefined, "every supported runtime has Zstandard");
  zstd = loaded;
});

/** Frames by hand from RFC 8878, and what they hold. */
const GOOD: readonly { name: string; frame: Uint8Array; output: Uint8Array }[] = [
  {
    name: "a raw block in one segment",
    frame: hex("28b52ffd 20 05 290000 68656c6c6f"),
    output: text("hello"),
  },
  {
    name: "a raw block in a window of 1 KiB, without a statement of its size",
    frame: hex("28b52ffd 00 00 290000 68656c6c6f"),
    output: text("hello"),
  },
  {
    name: "a run-length block with a size of two bytes, counted from 256",
    frame: hex("28b52ffd 60 2c00 630900 00"),
    output: new Uint8Array(300),
  },
  {
    name: "a size of four bytes and a window of 8 MiB",
    frame: hex("28b52ffd 80 68 05000000 290000 68656c6c6f"),
    output: text("hello"),
  },
  {
    name: "a size of eight bytes",
    frame: hex("28b52ffd e0 0500000000000000 290000 68656c6c6f"),
    output: text("hello"),
  },
  {
    name: "two blocks and an empty last one",
    frame: hex("28b52ffd 20 05 100000 6865 180000 6c6c6f 010000"),
    output: text("hello"),
  },
  {
    name: "a compressed block, as libzstd makes it",
    frame: hex("28b52ffd 60 2c00 4d0000 10000001 00272ac002"),
    output: new Uint8Array(300),
  },
  {
    name: "a checksum of the content, as libzstd makes it",
    frame: hex("28b52ffd 24 05 290000 68656c6c6f a36d9f88"),
    output: text("hello"),
  },
  {
    name: "a descriptor with the bit that has no meaning",
    frame: hex("28b52ffd 30 05 290000 68656c6c6f"),
    output: text("hello"),
  },
];

/** What the walk refuses; the claim is 5 bytes where none stands here. */
const BAD: readonly (readonly [name: string, frame: string, size?: number])[] = [
  ["nothing", ""],
  ["half a magic number", "28b5"],
  ["another magic number", "28b52ffe 20 05 290000 68656c6c6f"],
  ["the magic number of an old version", "27b52ffd 20 05 290000 68656c6c6f"],
  ["a skippable frame", "502a4d18 05000000 68656c6c6f"],
  ["a skippable frame before a frame", "502a4d18 01000000 00 28b52ffd 20 05 290000 68656c6c6f"],
  ["a skippable frame behind a frame", "28b52ffd 20 05 290000 68656c6c6f 502a4d18 00000000"],
  ["two frames", "28b52ffd 20 05 290000 68656c6c6f 28b52ffd 20 05 290000 68656c6c6f"],
  ["an empty frame behind a frame", "28b52ffd 20 05 290000 68656c6c6f 28b52ffd 20 00 010000"],
  ["a byte too many", "28b52ffd 20 05 290000 68656c6c6f 00"],
  ["the reserved bit", "28b52ffd 28 05 290000 68656c6c6f"],
  ["a dictionary", "28b52ffd 21 01 05 290000 68656c6c6f"],
  ["a dictionary whose number looks like a size", "28b52ffd 21 05 290000 68656c6c6f"],
  ["a dictionary of four bytes, number 0", "28b52ffd 23 00000000 05 290000 68656c6c6f"],
  ["a window of 9 MiB", "28b52ffd 00 69 290000 68656c6c6f"],
  ["the largest window", "28b52ffd 00 ff 290000 68656c6c6f"],
  ["a smaller statement of its size", "28b52ffd 20 04 290000 68656c6c6f"],
  ["a larger statement of its size", "28b52ffd 20 06 290000 68656c6c6f"],
  ["a statement of 2^32 + 5", "28b52ffd e0 0500000001000000 290000 68656c6c6f"],
  ["no block", "28b52ffd 20 05"],
  ["no last block", "28b52ffd 20 05 280000 68656c6c6f"],
  ["a block of the reserved type", "28b52ffd 20 05 2f0000 68656c6c6f"],
  ["a checksum cut short", "28b52ffd 24 05 290000 68656c6c6f a36d9f"],
  ["a checksum that is missing", "28b52ffd 24 05 290000 68656c6c6f"],
  ["a raw block above the claim", "28b52ffd 00 00 310000 68656c6c6f21"],
  ["a run-length block below the claim", "28b52ffd 00 00 230000 61"],
  ["a run-length block above its window", "28b52ffd 00 00 0b2000 61", 1025],
  ["a block above 128 KiB", "28b52ffd 00 68 0b0010 61", 131_073],
  ["an empty last block alone", "28b52ffd 00 00 010000"],
  ["a compressed block that can't hold the claim", "28b52ffd 00 68 150000 0000", 131_073],
  ["16 MiB in a compressed block of two bytes", "28b52ffd a0 00000001 150000 0000", MAX_SIZE],
];

function withSize(size: number, frame: Uint8Array): Uint8Array {
  return concat(Uint8Array.of(size, size >>> 8, size >>> 16, size >>> 24), frame);
}

function decompress(size: number, frame: Uint8Array): Uint8Array {
  return decompressPayload(withSize(size, frame), "zstd", zstd, MAX_SIZE);
}

function assertRefused(run: () => unknown): void {
  assert.throws(run, (error) => error instanceof TransportError && error.code === "Compression");
}

describe("checkZstdFrame", () => {
  for (const { name, frame, output } of GOOD) {
    it(`accepts ${name}`, () => {
      checkZstdFrame(frame, output.length);
      assert.deepEqual(decompress(output.length, frame), output);
    });

    it(`refuses ${name} when it is cut off anywhere`, () => {
      for (let length = 0; length < frame.length; length++) {
        assertRefused(() => checkZstdFrame(frame.subarray(0, length), output.length));
      }
    });
  }

  for (const [name, frame, size = 5] of BAD) {
    it(`refuses ${name}`, () => {
      assertRefused(() => checkZstdFrame(hex(frame), size));
      assertRefused(() => decompress(size, hex(frame)));
    });
  }

  it("does not judge what is in a compressed block", () => {
    const frame = hex("28b52ffd 00 00 350000 000000000000");
    checkZstdFrame(frame, 5);
    assertRefused(() => decompress(5, frame));
  });

  it("accepts whatever zlib makes, and nothing behind it", () => {
    const bytes = fc.tuple(fc.uint8Array({ minLength: 1 }), fc.integer({ min: 1, max: 30_000 }))
      .map(([part, times]) => concat(...Array<Uint8Array>(times).fill(part)));
    fc.assert(
      fc.property(bytes, (bytes) => {
        const packed = zstd.compress(bytes);
        checkZstdFrame(packed.subarray(4), bytes.length);
        assert.deepEqual(
          decompressPayload(packed, "zstd", zstd, bytes.length),
          bytes,
        );
        assertRefused(() => checkZstdFrame(concat(packed.subarray(4), hex("00")), bytes.length));
      }),
      { numRuns: 40 },
    );
  });

  it("throws nothing but typed errors, and lets nothing else out of the decompressor", () => {
    const frames = fc.oneof(
      fc.uint8Array({ maxLength: 40 }),
      fc.uint8Array({ maxLength: 40 }).map((rest) => concat(hex("28b52ffd"), rest)),
      fc.uint8Array({ maxLength: 20 }).map((rest) =>
        concat(hex("28b52ffd 20 10"), Uint8Array.of(rest.length << 3 | 5, 0, 0), rest)
      ),
    );
    fc.assert(
      fc.property(frames, (frame) => {
        try {
          assert.equal(decompress(16, frame).length, 16);
        } catch (error) {
          assert.ok(error instanceof TransportError, String(error));
          assert.equal(error.code, "Compression");
        }
      }),
      { numRuns: 2000 },
    );
  });
});

describe("loadZstd", () => {
  it("prepends the size, the least significant byte first", () => {
    assert.deepEqual(zstd.compress(new Uint8Array(300)).subarray(0, 4), hex("2c010000"));
    assert.deepEqual(zstd.compress(new Uint8Array(0x10203)).subarray(0, 4), hex("03020100"));
  });

  it("makes no more than was claimed, and no less", () => {
    const hello = hex("28b52ffd 20 05 290000 68656c6c6f");
    for (const size of [0, 1, 4, 6, 100]) {
      assert.throws(() => zstd.decompress(withSize(size, hello)), `${size} bytes`);
    }
    const bomb = zstd.compress(new Uint8Array(1024 * 1024));
    assert.throws(() => zstd.decompress(withSize(1000, bomb.subarray(4))), {
      code: "ERR_BUFFER_TOO_LARGE",
    });
  });

  it("refuses a compressed block that is broken, and a wrong checksum of the content", () => {
    assertRefused(() => decompress(300, hex("28b52ffd 60 2c00 4d0000 ffffffff 00272ac002")));
    assertRefused(() => decompress(5, hex("28b52ffd 24 05 290000 68656c6c6f a36d9f89")));
  });

  it("answers with plain arrays in memory of their own", () => {
    for (const size of [1, 63, 64, 300, 10_000, 200_000]) {
      const bytes = new Uint8Array(size).fill(7);
      const packed = zstd.compress(bytes);
      const opened = zstd.decompress(packed);
      packed.fill(0);
      zstd.decompress(zstd.compress(new Uint8Array(size).fill(8)));
      assert.deepEqual(opened, bytes);
      assert.equal(Object.getPrototypeOf(opened), Uint8Array.prototype);
      assert.ok(opened.buffer.byteLength <= size + 64, `${opened.buffer.byteLength} for ${size}`);
    }
  });
});
