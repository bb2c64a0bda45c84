import { before, describe, it } from "node:test";
import assert from "node:assert/strict";
import fc from "fast-check";
import { type ErrorCode, TransportError } from "../../src/errors.ts";
import { FrameDecoder } from "../../src/protocol/frame.ts";
import { Outbox } from "../../src/protocol/outbox.ts";
import {
  type Compressor,
  decodeRun,
  Frame,
  FrameCodec,
  type FrameCodecConfig,
  readTopic,
} from "../../src/protocol/v3/frame_codec.ts";
import { KIND, type Kind, type Lane } from "../../src/protocol/v3/types.ts";
import { crc32 } from "../../src/runtime/crc32.ts";
import { loadLz4 } from "../../src/runtime/lz4.ts";
import { loadZstd } from "../../src/runtime/zstd.ts";
import { concat, cut, hex } from "./wire_bytes.ts";

const LIMIT = 16 * 1024 * 1024;
const NO_BYTES = new Uint8Array(0);
const text = (ascii: string): Uint8Array => new TextEncoder().encode(ascii);

let lz4: Compressor;
let zstd: Compressor;

function codec(options: Partial<FrameCodecConfig> = {}): FrameCodec {
  return new FrameCodec({
    ...{ checksum: false, crc32, lz4: undefined, zstd: undefined, method: undefined },
    ...{ compressMinSize: 256, maxMessageSize: LIMIT },
    ...options,
  });
}

/** What a frame says, apart from how its payload was sent. */
type Plain = Omit<Frame, "wireBytes">;

function plain(frame: Frame): Plain {
  const { kind, lane, more, topic, idHigh, idLow, id, payload } = frame;
  return { kind, lane, more, topic, idHigh, idLow, id, payload: payload.slice() };
}

function frameOf(parts: Partial<Plain>): Plain {
  return { ...plain(new Frame()), ...parts };
}

/** The body of the one frame in these bytes. */
function bodyOf(wire: Uint8Array): Uint8Array {
  const decoder = new FrameDecoder({ maxFrameBytes: LIMIT });
  decoder.push(wire);
  const body = decoder.next();
  assert.ok(body !== undefined && !decoder.midFrame, "one whole frame");
  return body;
}

function failureOf(run: () => unknown): TransportError {
  try {
    run();
  } catch (error) {
    assert.ok(error instanceof TransportError, String(error));
    return error;
  }
  return assert.fail("nothing was thrown");
}

function encoded(encode: (outbox: Outbox) => void): Uint8Array {
  const outbox = new Outbox();
  encode(outbox);
  return outbox.take() ?? NO_BYTES;
}

/** Stands in for a compressor that must not be reached, or must answer something of our choice. */
function fakeCompressor(answer: () => Uint8Array): Compressor & { calls: number } {
  const call = (): Uint8Array => {
    fake.calls++;
    return answer();
  };
  const fake = { calls: 0, compress: call, decompress: call };
  return fake;
}

/** Frames by hand, what they say, and how `encode` is called for them. */
const SEQUENCED: readonly {
  readonly name: string;
  readonly wire: Uint8Array;
  readonly frame: Plain;
  readonly topic?: Uint8Array;
  readonly prefix?: Uint8Array;
  readonly payload: Uint8Array;
}[] = [
  {
    name: "data in the normal lane",
    wire: hex("0000000e 2003 0000000000000001 61686f79"),
    frame: frameOf({ lane: 1, idLow: 1, id: 1, payload: text("ahoy") }),
    payload: text("ahoy"),
  },
  {
    name: "empty data in the control lane",
    wire: hex("0000000a 0003 0000000000000001"),
    frame: frameOf({ lane: 0, idLow: 1, id: 1 }),
    payload: NO_BYTES,
  },
  {
    name: "data in the bulk lane that goes on, with the largest exact number",
    wire: hex("0000000c 5003 001fffffffffffff 0102"),
    frame: frameOf({
      ...{ lane: 2, more: true, idHigh: 0x1f_ffff, idLow: 0xffff_ffff, id: 2 ** 53 - 1 },
      payload: hex("0102"),
    }),
    payload: hex("0102"),
  },
  {
    name: "data with a topic",
    wire: hex("00000013 a003 0000000000000102 04 72616674 61686f79"),
    frame: frameOf({
      ...{ lane: 1, topic: true, idLow: 0x102, id: 0x102 },
      payload: hex("04 72616674 61686f79"),
    }),
    topic: text("raft"),
    payload: text("ahoy"),
  },
  {
    name: "a request with a topic and 1000 ms left",
    wire: hex("00000012 a103 0000000000000007 02 6462 000003e8 6b"),
    frame: frameOf({
      ...{ kind: 1, lane: 1, topic: true, idLow: 7, id: 7 },
      payload: hex("02 6462 000003e8 6b"),
    }),
    topic: text("db"),
    prefix: hex("000003e8"),
    payload: text("k"),
  },
  {
    name: "a response to request 7, numbered 2^32",
    wire: hex("00000013 2203 0000000100000000 0000000000000007 76"),
    frame: frameOf({
      ...{ kind: 2, lane: 1, idHigh: 1, idLow: 0, id: 2 ** 32 },
      payload: hex("0000000000000007 76"),
    }),
    prefix: hex("0000000000000007"),
    payload: text("v"),
  },
  {
    name: "an error in answer to request 7",
    wire: hex("00000014 2303 0000000000000001 0000000000000007 7b7d"),
    frame: frameOf({
      ...{ kind: 3, lane: 1, idLow: 1, id: 1 },
      payload: hex("0000000000000007 7b7d"),
    }),
    prefix: hex("0000000000000007"),
    payload: text("{}"),
  },
  {
    name: "a stream-open with a topic and nothing else",
    wire: hex("0000000e c503 0000000000000009 03 6c6f67"),
    frame: frameOf({ kind: 5, lane: 2, topic: true, idLow: 9, id: 9, payload: hex("03 6c6f67") }),
    topic: text("log"),
    payload: NO_BYTES,
  },
  {
    name: "a stream-window of a stream that the other side opened",
    wire: hex("00000016 2903 0000000000000003 8000000000000009 00020000"),
    frame: frameOf({
      ...{ kind: 9, lane: 1, idLow: 3, id: 3 },
      payload: hex("8000000000000009 00020000"),
    }),
    prefix: hex("8000000000000009 00020000"),
    payload: NO_BYTES,
  },
];

/** Unsequenced frames by hand. */
const UNSEQUENCED: readonly {
  readonly name: string;
  readonly wire: Uint8Array;
  readonly frame: Plain;
  readonly encode: (codec: FrameCodec, outbox: Outbox) => void;
}[] = [
  {
    name: "a ping",
    wire: hex("0000000a 0a03 ffeeddcc80000001"),
    frame: frameOf({ kind: 10, idHigh: 0xffee_ddcc, idLow: 0x8000_0001, id: Infinity }),
    encode: (codec, outbox) => codec.encodePing(outbox, 0xffee_ddcc, 0x8000_0001),
  },
  {
    name: "a ping with token 0",
    wire: hex("0000000a 0a03 0000000000000000"),
    frame: frameOf({ kind: 10 }),
    encode: (codec, outbox) => codec.encodePing(outbox, 0, 0),
  },
  {
    name: "a pong",
    wire: hex("0000000a 0b03 0000000000000005"),
    frame: frameOf({ kind: 11, idLow: 5, id: 5 }),
    encode: (codec, outbox) => codec.encodePong(outbox, 0, 5),
  },
  {
    name: "an ack of two lanes",
    wire: hex("0000001c 0c03 0000000000000000 01 0000000000000100 02 0000000200000003"),
    frame: frameOf({ kind: 12, payload: hex("01 0000000000000100 02 0000000200000003") }),
    encode: (codec, outbox) =>
      codec.encodeAck(outbox, [{ lane: 1, id: 256 }, { lane: 2, id: 2 * 2 ** 32 + 3 }]),
  },
  {
    name: "a goaway",
    wire: hex("00000010 0d03 0000000000000000 0001 69646c65"),
    frame: frameOf({ kind: 13, payload: hex("0001 69646c65") }),
    encode: (codec, outbox) => codec.encodeGoaway(outbox, 1, "idle"),
  },
  {
    name: "a goaway without a reason",
    wire: hex("0000000c 0d03 0000000000000000 0000"),
    frame: frameOf({ kind: 13, payload: hex("0000") }),
    encode: (codec, outbox) => codec.encodeGoaway(outbox, 0, ""),
  },
];

/** Bodies by hand that break a rule of the header or of their kind. */
const BAD: readonly (readonly [name: string, body: string])[] = [
  ["one byte", "20"],
  ["a header cut short", "2003 00000000000000"],
  ["version 0", "2000 0000000000000001"],
  ["version 2", "2002 0000000000000001"],
  ["version 4", "2004 0000000000000001"],
  ["version 15", "200f 0000000000000001"],
  ["a checksum that was not negotiated", "2083 0000000000000001 61686f79 32fdd578"],
  ["compression 3", "2033 0000000000000001 05000000 50 68656c6c6f"],
  ["compression 4", "2043 0000000000000001 05000000 50 68656c6c6f"],
  ["compression 7", "2073 0000000000000001 05000000 50 68656c6c6f"],
  ["compression 7 of nothing", "2073 0000000000000001"],
  ["LZ4 that was not negotiated", "2013 0000000000000001 05000000 50 68656c6c6f"],
  ["Zstandard that was not negotiated", "2023 0000000000000001 05000000 28b52ffd2005290000"],
  ["lane 3", "6003 0000000000000001"],
  ["number 0", "2003 0000000000000000 61"],
  ["number 0 in a response", "2203 0000000000000000 0000000000000001"],
  ["a topic in a response", "a203 0000000000000001 01 61 0000000000000001"],
  ["a topic in an error", "a303 0000000000000001 01 61 0000000000000001 7b7d"],
  ["a topic in a cancel", "a403 0000000000000001 01 61 0000000000000001"],
  ["a topic in a stream-data", "a603 0000000000000001 01 61 0000000000000001"],
  ["a topic in a stream-end", "a703 0000000000000001 01 61 0000000000000001"],
  ["a topic in a stream-reset", "a803 0000000000000001 01 61 0000000000000001 7b7d"],
  ["a topic in a stream-window", "a903 0000000000000001 01 61 0000000000000001 00000001"],
  ["a topic in a routed frame", "ae03 0000000000000001 01 61"],
  ["a topic in a control frame", "af03 0000000000000001 01 61"],
  ["a topic in a ping", "8a03 0000000000000001"],
  ["a topic in an ack", "8c03 0000000000000000 00 0000000000000001"],
  ["a ping in the normal lane", "2a03 0000000000000001"],
  ["a pong in the bulk lane", "4b03 0000000000000001"],
  ["an ack in the normal lane", "2c03 0000000000000000 00 0000000000000001"],
  ["a goaway in lane 3", "6d03 0000000000000000 0000"],
  ["a ping that goes on", "1a03 0000000000000001"],
  ["an ack that goes on", "1c03 0000000000000000 00 0000000000000001"],
  ["a goaway that goes on", "1d03 0000000000000000 0000"],
  ["a ping with a payload", "0a03 0000000000000001 00"],
  ["a pong with a payload", "0b03 0000000000000001 00"],
  ["an ack with an id", "0c03 0000000000000001 00 0000000000000001"],
  ["an ack with a high id", "0c03 8000000000000000 00 0000000000000001"],
  ["a goaway with an id", "0d03 0000000000000001 0000"],
  ["an empty ack", "0c03 0000000000000000"],
  ["an ack of eight bytes", "0c03 0000000000000000 00 00000000000001"],
  ["an ack of ten bytes", "0c03 0000000000000000 00 0000000000000001 00"],
  ["an ack of lane 3", "0c03 0000000000000000 03 0000000000000001"],
  ["a second entry of lane 255", "0c03 0000000000000000 00 0000000000000001 ff 0000000000000001"],
  ["an empty goaway", "0d03 0000000000000000"],
  ["a goaway with half a code", "0d03 0000000000000000 00"],
];

before(async () => {
  lz4 = await loadLz4();
  const loaded = loadZstd();
  assert.ok(loaded !== undefined, "every supported runtime has Zstandard");
  zstd = loaded;
});

describe("FrameCodec.decode", () => {
  for (const { name, wire, frame } of [...SEQUENCED, ...UNSEQUENCED]) {
    it(`reads ${name}`, () => {
      const read = codec().decode(bodyOf(wire));
      assert.deepEqual(plain(read), frame);
      assert.equal(read.wireBytes, frame.payload.length);
    });
  }

  for (const [name, body] of BAD) {
    it(`refuses ${name}`, () => {
      assert.equal(failureOf(() => codec().decode(hex(body))).code, "InvalidFrame");
    });
  }

  it("knows every sequenced kind", () => {
    const kinds = "0123456789ef".split("").map((digit) => Number(`0x${digit}`));
    for (const kind of kinds) {
      const digit = kind.toString(16);
      assert.equal(codec().decode(hex(`2${digit}03 0000000000000001 61`)).kind, kind);
      const zero = hex(`2${digit}03 0000000000000000 61`);
      assert.equal(failureOf(() => codec().decode(zero)).code, "InvalidFrame");
    }
  });

  it("says Infinity where a number is not exact", () => {
    const frame = codec().decode(hex("2003 0020000000000000"));
    assert.deepEqual([frame.id, frame.idHigh, frame.idLow], [Infinity, 0x20_0000, 0]);
    assert.equal(codec().decode(hex("2003 ffffffffffffffff")).id, Infinity);
  });

  it("returns one object, and lets go of its payload when told", () => {
    const one = codec();
    const frame = one.decode(hex("2003 0000000000000001 61"));
    assert.equal(one.decode(hex("2003 0000000000000002 62")), frame);
    assert.deepEqual(frame.payload, text("b"));
    one.release();
    assert.equal(frame.payload.length, 0);
  });

  it("fills the frame it is given instead", () => {
    const one = codec();
    const own = one.decode(hex("2003 0000000000000001 61"));
    const other = new Frame();
    assert.equal(one.decode(hex("2003 0000000000000002 62"), other), other);
    assert.deepEqual([own.id, other.id], [1, 2]);
  });

  it("returns a view of the body, which is no Buffer", () => {
    const body = hex("2003 0000000000000001 61686f79");
    const { payload } = codec().decode(body);
    assert.equal(payload.buffer, body.buffer);
    assert.equal(Object.getPrototypeOf(payload), Uint8Array.prototype);
  });
});

describe("FrameCodec.encode", () => {
  for (const { name, wire, frame, topic, prefix, payload } of SEQUENCED) {
    it(`writes ${name}`, () => {
      const { kind, lane, id, more } = frame;
      const size = payload.length;
      const write = (bytes: Uint8Array, from: number): Uint8Array =>
        encoded((outbox) =>
          codec().encode(
            ...[outbox, kind, lane, id, more] as const,
            ...[topic, prefix, bytes, from, from + size] as const,
          )
        );
      assert.deepEqual(write(payload, 0), wire);
      assert.deepEqual(write(concat(hex("ffff"), payload, hex("ff")), 2), wire);
    });
  }

  for (const { name, wire, encode } of UNSEQUENCED) {
    it(`writes ${name}`, () => {
      assert.deepEqual(encoded((outbox) => encode(codec(), outbox)), wire);
    });
  }

  it("adds nothing for an ack without entries", () => {
    assert.equal(encoded((outbox) => codec().encodeAck(outbox, [])).length, 0);
  });

  it("cuts the reason of a goaway between characters", () => {
    const wire = encoded((outbox) =>
      codec().encodeGoaway(outbox, 2, `${"a".repeat(199)}\u{1f6a2}`)
    );
    assert.deepEqual(bodyOf(wire).subarray(10), concat(hex("0002"), text("a".repeat(199))));
  });

  it("adds frames behind those that are there, also where the buffer grows", () => {
    const payloads = [7, 16, 17, 1000, 5000, 70_000].map((size) => new Uint8Array(size).fill(size));
    const chunk = encoded((outbox) => {
      outbox.addFrame(text("handshake"));
      payloads.forEach((payload, index) =>
        codec().encode(
          ...[outbox, KIND.data, 1, index + 1, false, undefined, undefined] as const,
          ...[payload, 0, payload.length] as const,
        )
      );
    });
    const start = 4 + "handshake".length;
    const read: Uint8Array[] = [];
    decodeRun(chunk.subarray(start), codec(), (frame) => read.push(frame.payload));
    assert.deepEqual(read, payloads);
  });

  it("does not keep the payload", () => {
    const payload = text("x".repeat(100));
    const chunk = encoded((outbox) => {
      codec().encode(outbox, KIND.data, 1, 1, false, undefined, undefined, payload, 0, 100);
      payload.fill(0);
    });
    assert.deepEqual(codec().decode(bodyOf(chunk)).payload, text("x".repeat(100)));
  });
});

describe("checksums", () => {
  /** The CRC-32 of `2083 0000000000000001 61686f79` is 32fdd578. */
  const AHOY = hex("00000012 2083 0000000000000001 61686f79 32fdd578");
  const PING = hex("0000000e 0a83 0102030405060708 f1989399");
  const TOPIC = hex("00000017 a083 0000000000000002 04 72616674 61686f79 64c01203");

  it("are read and cut off", () => {
    const checked = codec({ checksum: true });
    const ahoy = checked.decode(bodyOf(AHOY));
    assert.deepEqual(
      plain(ahoy),
      frameOf({ lane: 1, idLow: 1, id: 1, payload: text("ahoy") }),
    );
    assert.equal(ahoy.wireBytes, 4);
    assert.equal(checked.decode(bodyOf(PING)).kind, KIND.ping);
    assert.deepEqual(checked.decode(bodyOf(TOPIC)).payload, hex("04 72616674 61686f79"));
  });

  it("are written", () => {
    const checked = codec({ checksum: true });
    assert.deepEqual(
      encoded((outbox) => {
        const ahoy = text("ahoy");
        checked.encode(outbox, KIND.data, 1, 1, false, undefined, undefined, ahoy, 0, 4);
        checked.encodePing(outbox, 0x0102_0304, 0x0506_0708);
        checked.encode(outbox, KIND.data, 1, 2, false, text("raft"), undefined, ahoy, 0, 4);
      }),
      concat(AHOY, PING, TOPIC),
    );
  });

  it("must be there where they were negotiated", () => {
    const body = hex("2003 0000000000000001 61686f79 32fdd578");
    assert.equal(
      failureOf(() => codec({ checksum: true }).decode(body)).code,
      "InvalidFrame",
    );
  });

  it("need four bytes more than the header", () => {
    const error = failureOf(() =>
      codec({ checksum: true }).decode(hex("2083 0000000000000001 00"))
    );
    assert.match(error.message, /it has 11 bytes, the least is 14$/);
  });

  it("notice every flipped bit", () => {
    const checked = codec({ checksum: true });
    const body = bodyOf(TOPIC);
    for (let bit = 0; bit < body.length * 8; bit++) {
      const flipped = body.slice();
      flipped[bit >>> 3]! ^= 1 << (bit & 7);
      assert.equal(failureOf(() => checked.decode(flipped)).code, "InvalidFrame", `bit ${bit}`);
    }
  });

  it("are judged before anything is decompressed", () => {
    const fake = fakeCompressor(() => text("hello"));
    const body = hex("2093 0000000000000001 05000000 50 68656c6c6f 00000000");
    const error = failureOf(() => codec({ checksum: true, lz4: fake }).decode(body));
    assert.deepEqual([error.code, fake.calls], ["InvalidFrame", 0]);
  });
});

describe("compressed frames", () => {
  const HELLO = text("hello");
  const ZEROS = new Uint8Array(300);

  /** Bodies by hand from the formats' documents. */
  const GOOD: readonly (readonly [name: string, body: string, payload: Uint8Array])[] = [
    ["LZ4 literals", "2013 0000000000000001 05000000 50 68656c6c6f", HELLO],
    ["LZ4 with a match", "2013 0000000000000001 2c010000 1f 00 0100 ff14 50 0000000000", ZEROS],
    [
      "a raw Zstandard block",
      "2023 0000000000000001 05000000 28b52ffd 20 05 290000 68656c6c6f",
      HELLO,
    ],
    [
      "a run-length Zstandard block",
      "2023 0000000000000001 2c010000 28b52ffd 60 2c00 630900 00",
      ZEROS,
    ],
  ];

  const BAD_COMPRESSION: readonly (readonly [name: string, body: string])[] = [
    ["LZ4 of nothing at all", "2013 0000000000000001"],
    ["a size cut short", "2013 0000000000000001 050000"],
    ["a size without a block", "2013 0000000000000001 05000000"],
    ["a size of 0", "2013 0000000000000001 00000000 00"],
    ["a size below the output", "2013 0000000000000001 04000000 50 68656c6c6f"],
    ["a size above the output", "2013 0000000000000001 06000000 50 68656c6c6f"],
    ["a match at offset 0", "2013 0000000000000001 14000000 1a 61 0000 50 6161616161"],
    ["a match before the start", "2013 0000000000000001 14000000 1a 61 ff00 50 6161616161"],
    ["a claim of 4 GiB less one", "2013 0000000000000001 ffffffff 50 68656c6c6f"],
    [
      "22 bytes that claim 32 MiB",
      "2013 0000000000000001 00000002 1f 61 0100 ffff 50 6161",
    ],
    ["Zstandard of nothing at all", "2023 0000000000000001"],
    ["Zstandard of size 0", "2023 0000000000000001 00000000 28b52ffd 20 00 010000"],
    [
      "a Zstandard frame of another size",
      "2023 0000000000000001 04000000 28b52ffd 20 05 290000 68656c6c6f",
    ],
    ["a ping that is compressed nothing", "0a13 0000000000000001"],
  ];

  for (const [name, body, payload] of GOOD) {
    it(`reads ${name}`, () => {
      const frame = codec({ lz4, zstd }).decode(hex(body));
      assert.deepEqual(frame.payload, payload);
      assert.equal(frame.wireBytes, hex(body).length - 10);
    });
  }

  for (const [name, body] of BAD_COMPRESSION) {
    it(`refuses ${name}`, () => {
      assert.equal(failureOf(() => codec({ lz4, zstd }).decode(hex(body))).code, "Compression");
    });
  }

  it("are refused where the method is unknown, whatever was negotiated", () => {
    for (const digit of "34567") {
      const body = hex(`20${digit}3 0000000000000001 05000000 50 68656c6c6f`);
      assert.equal(failureOf(() => codec({ lz4, zstd }).decode(body)).code, "InvalidFrame");
    }
  });

  it("hold topic and prefix too", () => {
    const frame = codec({ lz4 }).decode(hex("a013 0000000000000001 05000000 50 0272616869"));
    assert.deepEqual({ ...readTopic(frame.payload) }, { topic: "ra", rest: text("hi") });
  });

  it("follow the rules of unsequenced kinds when decompressed", () => {
    const both = codec({ lz4 });
    const ack = both.decode(hex("0c13 0000000000000000 09000000 90 01 0000000000000001"));
    assert.deepEqual(ack.payload, hex("01 0000000000000001"));
    for (const body of ["0a13 0000000000000001", "0c13 0000000000000000"]) {
      const error = failureOf(() => both.decode(hex(`${body} 05000000 50 68656c6c6f`)));
      assert.equal(error.code, "InvalidFrame");
    }
  });

  it("may claim the largest message and 512 bytes, and are not looked at above that", () => {
    const refused = fakeCompressor(() => NO_BYTES);
    const limited = codec({ lz4: refused, maxMessageSize: 100 });
    const error = failureOf(() => limited.decode(hex("2013 0000000000000001 65020000 10 61")));
    assert.match(error.message, /it claims 613 bytes, the limit is 612$/);
    const size = 612;
    const literals = concat(hex("2013 0000000000000001 64020000 f0 ffff57"), new Uint8Array(size));
    const accepted = codec({ lz4, maxMessageSize: 100 });
    assert.equal(accepted.decode(literals).payload.length, size);
    assert.equal(refused.calls, 0);
  });

  it("are refused where the compressor throws or answers with another size", () => {
    const body = hex("2013 0000000000000001 05000000 50 68656c6c6f");
    const cause = new WebAssembly.RuntimeError("unreachable");
    const throwing = fakeCompressor(() => {
      throw cause;
    });
    const error = failureOf(() => codec({ lz4: throwing }).decode(body));
    assert.deepEqual([error.code, error.cause], ["Compression", cause]);
    for (const size of [0, 4, 6]) {
      const wrong = fakeCompressor(() => new Uint8Array(size));
      assert.equal(failureOf(() => codec({ lz4: wrong }).decode(body)).code, "Compression");
    }
  });

  it("are written from the minimum size up", () => {
    for (const method of ["lz4", "zstd"] as const) {
      const packing = codec({ lz4, zstd, method });
      for (const [size, expected] of [[255, false], [256, true]] as const) {
        const body = bodyOf(encoded((outbox) => {
          const payload = new Uint8Array(size);
          packing.encode(outbox, KIND.data, 1, 1, false, undefined, undefined, payload, 0, size);
        }));
        assert.equal(body.length < 10 + size, expected, `${method} ${size}`);
        assert.equal(body[1]! >>> 4 & 7, expected ? { lz4: 1, zstd: 2 }[method] : 0);
      }
    }
  });

  it("are written plain where the result is no smaller or the compressor throws", () => {
    const payload = new Uint8Array(300).fill(7);
    const expected = concat(hex("00000136 2003 0000000000000001"), payload);
    const same = fakeCompressor(() => new Uint8Array(300));
    const throwing = fakeCompressor(() => {
      throw "out of memory";
    });
    for (const fake of [same, throwing]) {
      const packing = codec({ lz4: fake, method: "lz4" });
      const wire = encoded((outbox) =>
        packing.encode(outbox, KIND.data, 1, 1, false, undefined, undefined, payload, 0, 300)
      );
      assert.deepEqual([wire, fake.calls], [expected, 1]);
    }
  });

  it("leave no trace of the longer payload behind them", () => {
    const packing = codec({ lz4, method: "lz4", checksum: true });
    const chunk = encoded((outbox) => {
      const zeros = new Uint8Array(1000);
      packing.encode(outbox, KIND.data, 1, 1, false, undefined, undefined, zeros, 0, 1000);
      packing.encode(outbox, KIND.data, 1, 2, false, undefined, undefined, text("next"), 0, 4);
    });
    const read: number[] = [];
    decodeRun(chunk, packing, (frame) => read.push(frame.payload.length));
    assert.deepEqual(read, [1000, 4]);
    assert.ok(chunk.length < 100);
  });

  it("need the compressor that the method names", () => {
    assert.throws(() => codec({ method: "zstd" }), RangeError);
  });
});

describe("decodeRun", () => {
  const RUN = hex(
    "0000000b 2003 0000000000000005 61 0000000c 2003 0000000000000006 6262 0000000a 2003 0000000000000007",
  );

  it("gives each frame with its place", () => {
    const seen: [number, number, number][] = [];
    decodeRun(RUN, codec(), (frame, start, end) => seen.push([frame.id, start, end]));
    assert.deepEqual(seen, [[5, 0, 15], [6, 15, 31], [7, 31, 45]]);
    decodeRun(NO_BYTES, codec(), () => assert.fail("there is none"));
  });

  it("leaves the frame alone that decode returned", () => {
    const one = codec();
    const frame = one.decode(hex("2003 0000000000000001 61"));
    decodeRun(RUN, one, () => {});
    assert.equal(frame.id, 1);
  });

  it("refuses a run that is cut off", () => {
    for (let length = 1; length < RUN.length; length++) {
      if (length === 15 || length === 31) continue;
      const error = failureOf(() => decodeRun(RUN.subarray(0, length), codec(), () => {}));
      assert.equal(error.code, "InvalidFrame", `${length} bytes`);
    }
    assert.equal(
      failureOf(() => decodeRun(hex("00000000"), codec(), () => {})).code,
      "InvalidFrame",
    );
  });
});

describe("frames that are written again", () => {
  const PAYLOAD = text("ahoy ".repeat(100));

  function coders(): FrameCodec[] {
    return [false, true].flatMap((checksum) => [
      codec({ checksum }),
      codec({ checksum, lz4, method: "lz4" }),
      codec({ checksum, lz4, zstd, method: "zstd" }),
    ]);
  }

  it("say the same in every coding", () => {
    const topic = text("raft");
    for (const from of coders()) {
      const run = encoded((outbox) => {
        from.encode(outbox, KIND.request, 2, 9, true, topic, hex("00000001"), PAYLOAD, 0, 500);
        from.encode(outbox, KIND.request, 2, 10, false, undefined, undefined, PAYLOAD, 5, 500);
      });
      for (const to of coders()) {
        const again = encoded((outbox) =>
          decodeRun(run, from, (frame) => to.encodeFrame(outbox, frame))
        );
        const read = (bytes: Uint8Array, codec: FrameCodec): Plain[] => {
          const frames: Plain[] = [];
          decodeRun(bytes, codec, (frame) => frames.push(plain(frame)));
          return frames;
        };
        assert.deepEqual(read(again, to), read(run, from));
        if (from.sameCoding(to)) assert.deepEqual(read(again, from), read(run, from));
      }
    }
  });

  it("may go out as they are only where they would be accepted", () => {
    const bare = codec();
    const checked = codec({ checksum: true });
    const packing = codec({ lz4, zstd, method: "zstd" });
    const able = codec({ lz4, zstd });
    assert.ok(bare.sameCoding(bare) && bare.sameCoding(codec()));
    assert.ok(!bare.sameCoding(checked) && !checked.sameCoding(bare));
    assert.ok(!bare.sameCoding(packing) && able.sameCoding(packing) && packing.sameCoding(bare));
  });

  it("are taken apart as messages", () => {
    const one = codec();
    const taken = (body: string) => ({ ...one.application(one.decode(hex(body))) });
    const id = "0000000000000001";
    assert.deepEqual(taken(`a003 ${id} 02 6462 6b`), { topic: "db", payload: text("k") });
    assert.deepEqual(taken(`a103 ${id} 02 6462 000003e8 6b`), { topic: "db", payload: text("k") });
    assert.deepEqual(taken(`2203 ${id} ${id} 76`), { topic: undefined, payload: text("v") });
    assert.deepEqual(taken(`2e03 ${id} 76`), { topic: undefined, payload: text("v") });
    assert.equal(failureOf(() => taken(`2203 ${id} 00000000000000`)).code, "InvalidFrame");
    assert.equal(failureOf(() => taken(`a103 ${id} 02 6462 0003e8`)).code, "InvalidFrame");
  });
});

describe("properties of the frame codec", () => {
  const kinds = fc.constantFrom<Kind>(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 14, 15);
  const lanes = fc.constantFrom<Lane>(0, 1, 2);
  const ids = fc.oneof(
    fc.integer({ min: 1, max: 300 }),
    fc.integer({ min: 1, max: Number.MAX_SAFE_INTEGER }),
    fc.constantFrom(2 ** 31, 2 ** 32 - 1, 2 ** 32, Number.MAX_SAFE_INTEGER),
  );
  const payloads = fc.oneof(
    fc.uint8Array({ maxLength: 40 }),
    fc.tuple(fc.uint8Array({ minLength: 1, maxLength: 9 }), fc.integer({ min: 1, max: 200 }))
      .map(([part, times]) => concat(...Array<Uint8Array>(times).fill(part))),
  );
  const codings = fc.record({
    checksum: fc.boolean(),
    method: fc.constantFrom("lz4", "zstd", undefined),
    compressMinSize: fc.constantFrom(0, 1, 64, 256),
  });

  it("gives back what was encoded, whatever was negotiated", () => {
    const messages = fc.array(
      fc.record({
        kind: kinds,
        lane: lanes,
        id: ids,
        more: fc.boolean(),
        topic: fc.option(fc.uint8Array({ minLength: 1, maxLength: 255 }), { nil: undefined }),
        prefix: fc.option(fc.uint8Array({ maxLength: 12 }), { nil: undefined }),
        payload: payloads,
        range: fc.tuple(fc.nat(100), fc.nat(100)),
      }),
      { minLength: 1, maxLength: 5 },
    );
    fc.assert(
      fc.property(codings, messages, (coding, messages) => {
        const one = codec({ lz4, zstd, ...coding });
        const expected: Plain[] = [];
        const chunk = encoded((outbox) => {
          for (const { kind, lane, id, more, topic: any, prefix, payload, range } of messages) {
            const topic = kind === 0 || kind === 1 || kind === 5 ? any : undefined;
            const [from, to] = range.map((share) => Math.round(share * payload.length / 100))
              .toSorted((a, b) => a - b) as [number, number];
            one.encode(outbox, kind, lane, id, more, topic, prefix, payload, from, to);
            expected.push({
              ...{ kind, lane, more, id, topic: topic !== undefined },
              ...{ idHigh: Math.floor(id / 2 ** 32), idLow: id % 2 ** 32 },
              payload: concat(
                ...topic === undefined ? [] : [Uint8Array.of(topic.length), topic],
                ...[prefix ?? NO_BYTES, payload.subarray(from, to)],
              ),
            });
          }
        });
        const decoder = new FrameDecoder({ maxFrameBytes: LIMIT });
        for (const piece of cut(chunk, [7, 1, 1000])) decoder.push(piece);
        const read: Plain[] = [];
        for (let body = decoder.next(); body !== undefined; body = decoder.next()) {
          read.push(plain(one.decode(body)));
        }
        assert.deepEqual(read, expected);
      }),
    );
  });

  it("throws nothing but typed errors for any bytes at all", () => {
    const flags = fc.oneof(
      fc.integer({ min: 0, max: 0xffff }),
      fc.integer({ min: 0, max: 0xfff }).map((high) => high << 4 | 3),
    );
    const claim = fc.constantFrom(0, 1, 9, 16, 255);
    const rest = fc.oneof(
      fc.uint8Array({ maxLength: 40 }),
      fc.tuple(claim, fc.uint8Array({ maxLength: 40 })).map(([size, bytes]) =>
        concat(Uint8Array.of(size, 0, 0, 0), bytes)
      ),
      fc.tuple(claim, fc.uint8Array({ maxLength: 40 })).map(([size, bytes]) =>
        concat(Uint8Array.of(size, 0, 0, 0), hex("28b52ffd"), bytes)
      ),
    );
    const codes: readonly ErrorCode[] = ["InvalidFrame", "Compression"];
    const loose = [codec({ lz4, zstd }), codec({ lz4, zstd, maxMessageSize: 100 })];
    const checked = codec({ lz4, zstd, checksum: true });
    fc.assert(
      fc.property(flags, fc.uint8Array({ maxLength: 8 }), rest, (flags, id, rest) => {
        const body = concat(Uint8Array.of(flags >>> 8, flags), id, rest);
        const sum = crc32(body);
        const signed = concat(body, Uint8Array.of(sum >>> 24, sum >>> 16, sum >>> 8, sum));
        for (
          const [one, bytes] of [
            ...loose.map((one) => [one, body] as const),
            [checked, signed] as const,
          ]
        ) {
          try {
            const frame = one.decode(bytes);
            assert.ok(frame.payload.length <= Math.max(bytes.length, 255));
          } catch (error) {
            assert.ok(error instanceof TransportError, String(error));
            assert.ok(codes.includes(error.code), error.code);
          }
        }
      }),
      { numRuns: 3000 },
    );
  });
});
