import { before, describe, it } from "node:test";
import assert from "node:assert/strict";
import fc from "fast-check";
import { type ErrorCode, TransportError } from "../../src/errors.ts";
import { encodeFrame, FrameDecoder } from "../../src/protocol/frame.ts";
import { compressMessage, decodeBodyV2, type Lz4 } from "../../src/protocol/message.ts";
import { loadLz4 } from "../../src/runtime/lz4.ts";
import { concat, cut, hex } from "./wire_bytes.ts";

const LIMIT = 16 * 1024 * 1024;
const text = (ascii: string): Uint8Array => new TextEncoder().encode(ascii);

/** Frames and their payloads, by hand from docs/protocol.md, sections 1 and 3. */
const FIXTURES: readonly { name: string; wire: Uint8Array; payload: Uint8Array }[] = [
  { name: "an empty payload", wire: hex("00000001 00"), payload: hex("") },
  { name: "a plain payload", wire: hex("00000004 00 010203"), payload: hex("010203") },
  {
    name: "a payload that looks like flags and a size",
    wire: hex("00000006 00 01 ffffffff"),
    payload: hex("01 ffffffff"),
  },
  {
    name: "LZ4 of literals alone",
    wire: hex("0000000b 01 05000000 50 68656c6c6f"),
    payload: text("hello"),
  },
  {
    name: "LZ4 with a match",
    wire: hex("0000000f 01 14000000 1a 61 0100 50 6161616161"),
    payload: text("a".repeat(20)),
  },
  {
    name: "LZ4 with a size in two bytes, the least significant first",
    wire: hex("00000011 01 2c010000 1f 00 0100 ff14 50 0000000000"),
    payload: new Uint8Array(300),
  },
];

/** Bodies that must be refused, also by hand. */
const BAD: readonly { name: string; body: Uint8Array; code: ErrorCode }[] = [
  { name: "an empty body", body: hex(""), code: "InvalidFrame" },
  ...[1, 2, 3, 4, 5, 6, 7].flatMap((bit) => [
    {
      name: `reserved flag bit ${bit}`,
      body: Uint8Array.of(1 << bit, 7),
      code: "InvalidFrame" as const,
    },
    {
      name: `reserved flag bit ${bit} beside bit 0`,
      body: concat(Uint8Array.of(1 << bit | 1), hex("05000000 50 68656c6c6f")),
      code: "InvalidFrame" as const,
    },
  ]),
  { name: "compression of nothing at all", body: hex("01"), code: "Compression" },
  { name: "a size cut short", body: hex("01 050000"), code: "Compression" },
  { name: "a size without a block", body: hex("01 05000000"), code: "Compression" },
  { name: "a size of 0 without a block", body: hex("01 00000000"), code: "Compression" },
  { name: "a size of 0 with an empty block", body: hex("01 00000000 00"), code: "Compression" },
  {
    name: "a size of 0 with a full block",
    body: hex("01 00000000 50 68656c6c6f"),
    code: "Compression",
  },
  { name: "a size below the output", body: hex("01 04000000 50 68656c6c6f"), code: "Compression" },
  { name: "a size above the output", body: hex("01 06000000 50 68656c6c6f"), code: "Compression" },
  { name: "a big-endian size", body: hex("01 00000005 50 68656c6c6f"), code: "Compression" },
  {
    name: "a claim of 4 GiB less one",
    body: hex("01 ffffffff 50 68656c6c6f"),
    code: "Compression",
  },
  { name: "a claim of 2 GiB", body: hex("01 00000080 50 68656c6c6f"), code: "Compression" },
  {
    name: "a few bytes that claim 32 MiB",
    body: hex("01 00000002 1f 61 0100 ffffffffffffff00 50 6161"),
    code: "Compression",
  },
  {
    name: "a claim one above the limit",
    body: hex("01 01000001 50 68656c6c6f"),
    code: "Compression",
  },
  { name: "a truncated block", body: hex("01 05000000 50 68656c"), code: "Compression" },
  {
    name: "a match offset of 0",
    body: hex("01 14000000 1a 61 0000 50 6161616161"),
    code: "Compression",
  },
  {
    name: "a match offset before the start",
    body: hex("01 14000000 1a 61 ff00 50 6161616161"),
    code: "Compression",
  },
  {
    name: "rubbish after the block",
    body: hex("01 05000000 50 68656c6c6f 00"),
    code: "Compression",
  },
];

function failureOf(run: () => unknown): TransportError {
  try {
    run();
  } catch (error) {
    assert.ok(error instanceof TransportError);
    return error;
  }
  return assert.fail("nothing was thrown");
}

/** Stands in for LZ4 where it must not be reached, or must answer something of our choice. */
function fakeLz4(answer: () => Uint8Array): Lz4 & { calls: number } {
  const call = (): Uint8Array => {
    fake.calls++;
    return answer();
  };
  const fake = { calls: 0, compress: call, decompress: call };
  return fake;
}

describe("decodeBodyV2", () => {
  let lz4: Lz4;
  before(async () => {
    lz4 = await loadLz4();
  });

  function decodeStream(pieces: readonly Uint8Array[]): Uint8Array[] {
    const decoder = new FrameDecoder({ maxFrameBytes: LIMIT + 1 });
    return pieces.flatMap((piece) => {
      decoder.push(piece);
      const body = decoder.next();
      return body === undefined ? [] : [decodeBodyV2(body, lz4, LIMIT)];
    });
  }

  for (const { name, wire, payload } of FIXTURES) {
    it(`decodes ${name}: whole, byte by byte and in every chunking`, () => {
      assert.deepEqual(decodeStream([wire]), [payload]);
      assert.deepEqual(decodeStream(cut(wire, [1])), [payload]);
      const sizes = fc.array(fc.integer({ min: 1, max: wire.length }), { minLength: 1 });
      fc.assert(fc.property(sizes, (sizes) => {
        assert.deepEqual(decodeStream(cut(wire, sizes)), [payload]);
      }));
    });
  }

  for (const { name, body, code } of BAD) {
    it(`rejects ${name} before the decompressor sees it, which works on`, () => {
      const guarded = fakeLz4(() => assert.fail("the decompressor was called"));
      assert.equal(failureOf(() => decodeBodyV2(body, guarded, LIMIT)).code, code);
      assert.equal(guarded.calls, 0);
      assert.equal(failureOf(() => decodeBodyV2(body, lz4, LIMIT)).code, code);
      assert.deepEqual(decodeStream([FIXTURES[4]!.wire]), [FIXTURES[4]!.payload]);
    });
  }

  it("never answers with an earlier message's bytes", () => {
    const secret = text("attack at dawn! ".repeat(64));
    const sealed = lz4.compress(secret);
    for (let offset = 0; offset < 2048; offset += 7) {
      assert.deepEqual(lz4.decompress(sealed), secret);
      const block = concat(
        hex("1f 00"),
        Uint8Array.of(offset, offset >>> 8),
        hex("40 50 0000000000"),
      );
      const body = concat(hex("01 59000000"), block); // 1 + 83 + 5 = 89 bytes
      assert.equal(failureOf(() => decodeBodyV2(body, lz4, LIMIT)).code, "Compression");
    }
  });

  it("rejects compression that was not negotiated", () => {
    const body = FIXTURES[4]!.wire.subarray(4);
    assert.equal(failureOf(() => decodeBodyV2(body, undefined, LIMIT)).code, "InvalidFrame");
    assert.deepEqual(decodeBodyV2(hex("00 07"), undefined, LIMIT), hex("07"));
  });

  it("holds plain payloads against the limit", () => {
    assert.deepEqual(decodeBodyV2(hex("00 010203"), lz4, 3), hex("010203"));
    assert.equal(failureOf(() => decodeBodyV2(hex("00 01020304"), lz4, 3)).code, "InvalidFrame");
  });

  it("holds compressed payloads against the limit, by what they claim", () => {
    const body = FIXTURES[4]!.wire.subarray(4);
    assert.equal(decodeBodyV2(body, lz4, 20).length, 20);
    const guarded = fakeLz4(() => assert.fail("the decompressor was called"));
    assert.match(failureOf(() => decodeBodyV2(body, guarded, 19)).message, /20 .*19/);
  });

  it("reads a claim as unsigned", () => {
    const { message } = failureOf(() => decodeBodyV2(hex("01 000000ff 10 61"), lz4, LIMIT));
    assert.match(message, /4278190080 .*16777216/);
  });

  it("does not copy a plain payload", () => {
    const body = hex("00 0708");
    const payload = decodeBodyV2(body, undefined, LIMIT);
    assert.equal(payload.buffer, body.buffer);
    assert.equal(payload.byteOffset, 1);
  });

  it("turns whatever the decompressor throws into a Compression error", () => {
    const body = FIXTURES[3]!.wire.subarray(4);
    for (const thrown of ["a plain string", new WebAssembly.RuntimeError("unreachable"), null]) {
      const failing = fakeLz4(() => {
        throw thrown;
      });
      const error = failureOf(() => decodeBodyV2(body, failing, LIMIT));
      assert.equal(error.code, "Compression");
      assert.equal(error.cause, thrown);
    }
  });

  it("rejects an output of another size than was claimed", () => {
    const body = FIXTURES[3]!.wire.subarray(4);
    for (const size of [0, 4, 6]) {
      const wrong = fakeLz4(() => new Uint8Array(size));
      assert.equal(failureOf(() => decodeBodyV2(body, wrong, LIMIT)).code, "Compression");
    }
  });

  it("throws nothing but typed errors for any bytes at all", () => {
    const flags = fc.oneof(fc.constantFrom(0, 1), fc.integer({ min: 0, max: 255 }));
    const size = fc.oneof(fc.constantFrom(0, 1, 16, 255), fc.integer({ min: 0, max: 255 }));
    fc.assert(
      fc.property(flags, size, fc.uint8Array({ maxLength: 40 }), (flags, size, rest) => {
        const body = concat(Uint8Array.of(flags, size, 0, 0, 0), rest);
        try {
          const payload = decodeBodyV2(body, lz4, 1000);
          assert.equal(payload.length, flags === 1 ? size : body.length - 1);
        } catch (error) {
          assert.ok(error instanceof TransportError, String(error));
        }
      }),
      { numRuns: 2000 },
    );
  });

  it("gives back what compressMessage made", () => {
    const part = fc.uint8Array({ minLength: 1, maxLength: 30 });
    fc.assert(fc.property(part, fc.integer({ min: 20, max: 200 }), (part, times) => {
      const payload = concat(...Array<Uint8Array>(times).fill(part));
      const packed = compressMessage(payload, lz4);
      assert.ok(packed !== undefined || payload.length < 64);
      if (packed === undefined) return;
      assert.ok(packed.length < payload.length);
      const decoder = new FrameDecoder({ maxFrameBytes: LIMIT + 1 });
      decoder.push(encodeFrame(concat(hex("01"), packed)));
      assert.deepEqual(decodeBodyV2(decoder.next()!, lz4, LIMIT), payload);
    }));
  });
});

describe("compressMessage", () => {
  let lz4: Lz4;
  before(async () => {
    lz4 = await loadLz4();
  });

  it("prepends the size, the least significant byte first", () => {
    assert.deepEqual(compressMessage(new Uint8Array(300), lz4)!.subarray(0, 4), hex("2c010000"));
  });

  it("declines where the result is not smaller", () => {
    assert.equal(compressMessage(new Uint8Array(0), lz4), undefined);
    assert.equal(compressMessage(Uint8Array.from({ length: 256 }, (_, i) => i), lz4), undefined);
    for (const [size, smaller] of [[9, true], [10, false], [11, false]] as const) {
      const result = compressMessage(new Uint8Array(10), fakeLz4(() => new Uint8Array(size)));
      assert.equal(result !== undefined, smaller);
    }
  });

  it("declines where the compressor throws", () => {
    const failing = fakeLz4(() => {
      throw "out of memory";
    });
    assert.equal(compressMessage(new Uint8Array(1000), failing), undefined);
  });
});

describe("loadLz4", () => {
  it("gives the same instance to everyone", async () => {
    const [one, other] = await Promise.all([loadLz4(), loadLz4()]);
    assert.equal(one, other);
    assert.equal(await loadLz4(), one);
  });

  it("answers with memory of its own each time", async () => {
    const lz4 = await loadLz4();
    const sealed = lz4.compress(text("b".repeat(100)));
    const opened = lz4.decompress(sealed);
    sealed.fill(0);
    lz4.decompress(lz4.compress(text("c".repeat(100))));
    assert.deepEqual(opened, text("b".repeat(100)));
  });
});
