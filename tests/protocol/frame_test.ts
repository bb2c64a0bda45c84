import { describe, it } from "node:test";
import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import fc from "fast-check";
import { TransportError } from "../../src/errors.ts";
import { encodeFrame, FrameDecoder } from "../../src/protocol/frame.ts";
import { concat, countWork, cut, hex } from "./wire_bytes.ts";

/** Streams and their bodies, by hand from docs/protocol.md, section 1. */
const FIXTURES: readonly { name: string; wire: Uint8Array; bodies: Uint8Array[] }[] = [
  { name: "one byte", wire: hex("00000001 2a"), bodies: [hex("2a")] },
  {
    name: "three frames, one of them all zeros",
    wire: hex("00000003 616263 00000004 00000000 00000001 ff"),
    bodies: [hex("616263"), hex("00000000"), hex("ff")],
  },
  {
    name: "a body that looks like a header",
    wire: hex("00000008 ffffffff00000001 00000002 0001"),
    bodies: [hex("ffffffff00000001"), hex("0001")],
  },
  {
    name: "a length in two bytes",
    wire: concat(hex("00000102"), new Uint8Array(258).fill(0x5a), hex("00000001 07")),
    bodies: [new Uint8Array(258).fill(0x5a), hex("07")],
  },
  {
    name: "a length in three bytes",
    wire: concat(hex("00010203"), new Uint8Array(66_051).fill(0xa5)),
    bodies: [new Uint8Array(66_051).fill(0xa5)],
  },
];

const MIB = 1024 * 1024;

function decoderOf(...chunks: Uint8Array[]): FrameDecoder {
  const decoder = new FrameDecoder({ maxFrameBytes: MIB });
  for (const chunk of chunks) decoder.push(chunk);
  return decoder;
}

function drain(decoder: FrameDecoder): Uint8Array[] {
  const bodies: Uint8Array[] = [];
  for (let body = decoder.next(); body !== undefined; body = decoder.next()) bodies.push(body);
  return bodies;
}

function decodeInPieces(pieces: readonly Uint8Array[]): Uint8Array[] {
  const decoder = decoderOf();
  const bodies = pieces.flatMap((piece) => {
    decoder.push(piece);
    return drain(decoder);
  });
  assert.equal(decoder.midFrame, false);
  assert.equal(decoder.bufferedBytes, 0);
  return bodies;
}

function failureOf(decoder: FrameDecoder): TransportError {
  try {
    decoder.next();
  } catch (error) {
    assert.ok(error instanceof TransportError);
    assert.equal(error.code, "InvalidFrame");
    return error;
  }
  return assert.fail("next() did not throw");
}

describe("encodeFrame", () => {
  it("puts the length before the body, most significant byte first", () => {
    assert.deepEqual(encodeFrame(hex("0708")), hex("00000002 0708"));
    assert.deepEqual(encodeFrame(new Uint8Array(66_051)).subarray(0, 5), hex("00010203 00"));
  });

  it("copies the body, also when it is part of a larger buffer", () => {
    const whole = hex("010203");
    const frame = encodeFrame(whole.subarray(1, 2));
    whole.fill(9);
    assert.deepEqual(frame, hex("00000001 02"));
  });

  it("refuses an empty body", () => {
    assert.throws(() => encodeFrame(new Uint8Array(0)), RangeError);
  });

  it("refuses a body whose length does not fit in 32 bits", () => {
    // Only the length is looked at before the refusal; 4 GiB are not to be had everywhere.
    const huge = Object.defineProperty(new Uint8Array(1), "length", { value: 2 ** 32 });
    assert.throws(() => encodeFrame(huge), {
      name: "RangeError",
      message: /4294967295.*4294967296/,
    });
  });
});

describe("FrameDecoder", () => {
  for (const { name, wire, bodies } of FIXTURES) {
    it(`decodes ${name}: whole, byte by byte and in every chunking`, () => {
      assert.deepEqual(decodeInPieces([wire]), bodies);
      assert.deepEqual(decodeInPieces(cut(wire, [1])), bodies);
      const sizes = fc.array(fc.integer({ min: 1, max: wire.length }), {
        minLength: 1,
        maxLength: 8,
      });
      fc.assert(
        fc.property(sizes, (sizes) => {
          assert.deepEqual(decodeInPieces(cut(wire, sizes)), bodies);
        }),
        { numRuns: wire.length > 1000 ? 15 : 100 },
      );
    });
  }

  it("gives back what was encoded, however it was chunked and whenever it is pulled", () => {
    const body = fc.uint8Array({ minLength: 1, maxLength: 300 });
    const sizes = fc.array(fc.integer({ min: 1, max: 400 }), { minLength: 1, maxLength: 8 });
    const pulls = fc.array(fc.integer({ min: 0, max: 3 }), { minLength: 1, maxLength: 8 });
    fc.assert(
      fc.property(fc.array(body, { maxLength: 30 }), sizes, pulls, (bodies, sizes, pulls) => {
        const decoder = decoderOf();
        const decoded: Uint8Array[] = [];
        let unread = 0;
        const pull = (): boolean => {
          const next = decoder.next();
          if (next === undefined) return false;
          decoded.push(next);
          unread -= 4 + next.length;
          return true;
        };
        cut(concat(...bodies.map(encodeFrame)), sizes).forEach((piece, i) => {
          decoder.push(piece);
          unread += piece.length;
          for (let left = pulls[i % pulls.length]!; left > 0 && pull(); left--);
          assert.equal(decoder.bufferedBytes, unread);
        });
        while (pull());
        assert.deepEqual(decoded, bodies);
        assert.equal(decoder.bufferedBytes, 0);
      }),
    );
  });

  it("ignores empty chunks", () => {
    const empty = new Uint8Array(0);
    const decoder = decoderOf(empty, hex("000000"), empty, hex("02 07"), empty, hex("08"), empty);
    assert.deepEqual(drain(decoder), [hex("0708")]);
    assert.equal(decoder.midFrame, false);
  });

  it("does not copy a body that lies in one chunk", () => {
    const chunk = hex("00000002 0708 00000001 09");
    const bodies = drain(decoderOf(chunk));
    assert.ok(bodies.every((body) => body.buffer === chunk.buffer));
    assert.deepEqual(bodies.map((body) => body.byteOffset), [4, 10]);
  });

  it("does not copy a body that lies in one chunk though its header does not", () => {
    const chunk = hex("02 0708");
    const [body] = drain(decoderOf(hex("000000"), chunk));
    assert.deepEqual(body, hex("0708"));
    assert.equal(body!.buffer, chunk.buffer);
  });

  it("honours where a chunk stands in its buffer, and makes plain arrays from a Buffer", () => {
    const first = Buffer.from("ffff0000000207080000000309", "hex").subarray(2);
    const second = Buffer.from("ffffff0a0b00", "hex").subarray(3, 5);
    const bodies = drain(decoderOf(first, second));
    assert.deepEqual(bodies, [hex("0708"), hex("090a0b")]);
    assert.ok(bodies.every((body) => Object.getPrototypeOf(body) === Uint8Array.prototype));
  });

  it("owns the bytes of a body that spans chunks", () => {
    const first = hex("00000003 07");
    const second = hex("0809");
    const decoder = decoderOf(first);
    assert.equal(decoder.next(), undefined);
    first.fill(0xff); // read already
    decoder.push(second);
    const body = decoder.next()!;
    second.fill(0xff);
    assert.deepEqual(body, hex("070809"));
    assert.equal(body.buffer.byteLength, 3);
  });

  it("says whether it stands in the middle of a frame", () => {
    const decoder = decoderOf();
    const states = cut(hex("00000002 0708"), [1]).map((piece) => {
      decoder.push(piece);
      return [decoder.next(), decoder.midFrame, decoder.bufferedBytes];
    });
    assert.deepEqual(states.slice(0, 5), [1, 2, 3, 4, 5].map((n) => [undefined, true, n]));
    assert.deepEqual(states[5], [hex("0708"), false, 0]);
  });

  it("stops in the middle of a chunk and goes on there", () => {
    const decoder = decoderOf(hex("00000001 07 00000001 08"), hex("00000001 09"));
    assert.deepEqual(decoder.next(), hex("07"));
    assert.equal(decoder.bufferedBytes, 10);
    decoder.push(hex("00000001 0a"));
    assert.deepEqual(drain(decoder), [hex("08"), hex("09"), hex("0a")]);
  });

  it("counts a new limit from the next frame, also inside a chunk", () => {
    const decoder = new FrameDecoder({ maxFrameBytes: 1 });
    decoder.push(hex("00000001 07 00000002 0809 00000003 0a0b0c"));
    assert.deepEqual(decoder.next(), hex("07"));
    decoder.maxFrameBytes = 2;
    assert.equal(decoder.maxFrameBytes, 2);
    assert.deepEqual(decoder.next(), hex("0809"));
    failureOf(decoder);
  });

  it("finishes a frame whose length was read before the limit was lowered", () => {
    const decoder = new FrameDecoder({ maxFrameBytes: 2 });
    decoder.push(hex("00000002"));
    assert.equal(decoder.next(), undefined);
    decoder.maxFrameBytes = 1;
    decoder.push(hex("0708"));
    assert.deepEqual(decoder.next(), hex("0708"));
  });

  it("accepts a length at the limit and rejects one above it", () => {
    const decoder = new FrameDecoder({ maxFrameBytes: 4096 });
    decoder.push(concat(hex("00001000"), new Uint8Array(4096), hex("00001001")));
    assert.equal(decoder.next()?.length, 4096);
    assert.match(failureOf(decoder).message, /4097 .*4096/);
  });

  for (const length of ["00000000", "00100001", "7fffffff", "80000000", "ffffffff"]) {
    it(`rejects the length 0x${length} from the header alone, before buffering the payload`, () => {
      for (const sizes of [[4], [1], [3, 1]]) {
        const decoder = decoderOf();
        const work = countWork(() => {
          const pieces = cut(hex(length), sizes);
          for (const piece of pieces.slice(0, -1)) {
            decoder.push(piece);
            assert.equal(decoder.next(), undefined);
          }
          decoder.push(pieces.at(-1)!);
          failureOf(decoder);
        });
        assert.ok(work.largest <= 4, `${work.largest} bytes were allocated`);
      }
    });
  }

  it("rejects a bad length with its frame complete as well", () => {
    failureOf(decoderOf(hex("00000000 07 00000001 07")));
    const decoder = new FrameDecoder({ maxFrameBytes: 1 });
    decoder.push(hex("00000002 0708"));
    failureOf(decoder);
  });

  it("hands out the frames before a bad one, then throws the same error for ever", () => {
    const decoder = decoderOf(hex("00000001 07 00000000 00000001 08"));
    assert.deepEqual(decoder.next(), hex("07"));
    const error = failureOf(decoder);
    assert.equal(failureOf(decoder), error);
    decoder.push(hex("00000001 08"));
    assert.equal(failureOf(decoder), error);
    decoder.maxFrameBytes = 0xffff_ffff;
    assert.equal(failureOf(decoder), error);
  });

  it("keeps nothing after an error", () => {
    const decoder = decoderOf(hex("00000000"), new Uint8Array(1000));
    failureOf(decoder);
    decoder.push(new Uint8Array(1000));
    assert.equal(decoder.bufferedBytes, 0);
    assert.equal(decoder.midFrame, false);
  });

  it("refuses a limit that is no length", () => {
    for (const maxFrameBytes of [0, -1, 1.5, NaN, Infinity, 2 ** 32]) {
      assert.throws(() => new FrameDecoder({ maxFrameBytes }), RangeError);
      const decoder = decoderOf();
      assert.throws(() => decoder.maxFrameBytes = maxFrameBytes, RangeError);
      assert.equal(decoder.maxFrameBytes, MIB);
    }
    assert.equal(new FrameDecoder({ maxFrameBytes: 0xffff_ffff }).maxFrameBytes, 0xffff_ffff);
  });
});

describe("FrameDecoder's memory and work", () => {
  it("allocates for the bytes that came, not for those that were announced", () => {
    for (const announced of ["01000000", "ffffffff"]) {
      for (const size of [1, 100, 1460, 65_536]) {
        const decoder = new FrameDecoder({ maxFrameBytes: 0xffff_ffff });
        decoder.push(hex(announced));
        assert.equal(decoder.next(), undefined);
        let received = 4;
        const chunk = new Uint8Array(size);
        const work = countWork(() => {
          for (let i = 0; i < 50; i++, received += size) {
            decoder.push(chunk);
            assert.equal(decoder.next(), undefined);
          }
        });
        assert.ok(work.largest <= 2 * received + 64, `${work.largest} for ${received} bytes`);
        assert.ok(work.allocated <= 4 * received + 128, `${work.allocated} for ${received} bytes`);
      }
    }
  });

  it("allocates nothing for frames that lie in their chunk, and copies nothing", () => {
    const wire = concat(...Array.from({ length: 1000 }, () => hex("00000003 010203")));
    const decoder = decoderOf(wire);
    let frames = 0;
    const work = countWork(() => {
      while (decoder.next() !== undefined) frames++;
    });
    assert.equal(frames, 1000);
    assert.deepEqual(work, { allocated: 0, largest: 0, copied: 0, moved: 0 });
  });

  it("does work in proportion to the bytes when a large frame comes one byte at a time", () => {
    const length = 200_000;
    const decoder = decoderOf(hex("00030d40"));
    const byte = hex("07");
    let body: Uint8Array | undefined;
    const work = countWork(() => {
      for (let i = 0; i < length; i++) {
        decoder.push(byte);
        body = decoder.next();
      }
    });
    assert.deepEqual(body, new Uint8Array(length).fill(7));
    assert.ok(work.copied <= 3 * length, `${work.copied} bytes were copied`);
    assert.ok(work.allocated <= 4 * length, `${work.allocated} bytes were allocated`);
  });

  it("decodes 10,000 frames fed one byte at a time with work in proportion", () => {
    const count = 10_000;
    const wire = concat(...Array.from({ length: count }, (_, i) => {
      return concat(hex("00000003"), Uint8Array.of(i >>> 16, i >>> 8, i));
    }));
    const pieces = cut(wire, [1]);
    const decoder = decoderOf();
    const seen: number[] = [];
    const work = countWork(() => {
      for (const piece of pieces) {
        decoder.push(piece);
        const body = decoder.next();
        if (body !== undefined) seen.push(body[0]! << 16 | body[1]! << 8 | body[2]!);
      }
    });
    assert.deepEqual(seen, Array.from({ length: count }, (_, i) => i));
    assert.ok(work.copied <= wire.length, `${work.copied} bytes were copied`);
    assert.ok(work.allocated <= wire.length, `${work.allocated} bytes were allocated`);
  });

  it("does work in proportion to the chunks when many wait before the first is read", () => {
    const count = 40_000;
    const decoder = decoderOf(hex("0001d4c0")); // 120,000
    for (let i = 0; i < count; i++) decoder.push(hex("010203"));
    const work = countWork(() => assert.equal(decoder.next()?.length, 3 * count));
    assert.ok(work.moved <= 2 * count, `${work.moved} slots were moved`);
    assert.ok(work.copied <= 9 * count, `${work.copied} bytes were copied`);
  });
});

describe("the first bytes of TLS", () => {
  // Two alerts and the head of a ClientHello (RFC 8446, section 5.1).
  for (const start of ["15030300 02020a", "15030100 02020a", "16030100 c8010000c40303"]) {
    it(`are named: ${start}`, () => {
      for (const size of [1, 3, 100]) {
        const decoder = decoderOf(...cut(hex(start), [size]));
        const error = failureOf(decoder);
        assert.match(error.message, /^Cannot read a frame: the other side speaks TLS/);
        assert.match(error.recovery, /on both sides or on neither/);
      }
    });
  }

  it("are a wrong length where a frame came before them", () => {
    const decoder = decoderOf(hex("00000001 07 15030300 02020a"));
    assert.deepEqual(decoder.next(), hex("07"));
    assert.match(failureOf(decoder).message, /its length is 352518912 bytes/);
  });

  it("are a length where a frame may be so long", () => {
    const decoder = new FrameDecoder({ maxFrameBytes: 0xffff_ffff });
    decoder.push(hex("15030300 02020a"));
    assert.equal(decoder.next(), undefined);
  });
});

describe("a chunk is free", () => {
  /** What the decoder says after a chunk with two bodies, of which each was released so. */
  const after = (...released: (boolean | undefined)[]): boolean => {
    const decoder = decoderOf(hex("00000002 0708 00000002 0a0b"));
    for (const again of released) {
      decoder.next();
      if (again !== undefined) decoder.release(again);
    }
    return decoder.chunksFree;
  };

  it("when all of it was read and every body released for good", () => {
    assert.equal(after(true, true), true);
    assert.equal(after(true), false);
    assert.equal(after(true, false), true, "a small body among such others is copied");
    assert.equal(after(false, true), false);
    assert.equal(after(undefined, undefined), false);
  });

  it("not while a large body of it may be looked at", () => {
    const body = new Uint8Array(1025).fill(7);
    const decoder = decoderOf(encodeFrame(hex("01")), encodeFrame(body));
    decoder.next();
    decoder.release(true);
    assert.deepEqual(decoder.next(), body);
    decoder.release(false);
    assert.equal(decoder.chunksFree, false);
  });

  it("when what is left of a frame was put aside, and again after a later chunk", () => {
    const decoder = decoderOf(hex("00000003 0708"));
    assert.equal(decoder.next(), undefined);
    assert.equal(decoder.chunksFree, true);
    decoder.push(hex("09 00000001 0a"));
    assert.deepEqual(decoder.next(), hex("070809"));
    decoder.release(false);
    assert.deepEqual(decoder.next(), hex("0a"));
    decoder.release(true);
    assert.equal(decoder.chunksFree, true);
  });

  it("a body that was copied is not changed with it", () => {
    const chunk = hex("00000001 07 00000001 08");
    const decoder = new FrameDecoder({ maxFrameBytes: 100 });
    decoder.push(chunk);
    decoder.next();
    decoder.release(true);
    const body = decoder.next();
    decoder.release(false);
    assert.equal(decoder.chunksFree, true);
    chunk.fill(0);
    assert.deepEqual(body, hex("08"));
  });
});
