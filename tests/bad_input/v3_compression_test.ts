/** Rows 11 to 15 in version 3: LZ4 blocks and Zstandard frames made by hand. */

import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { ErrorCode } from "../../mod.ts";
import { inScene, residentMiB, type Scene } from "./harness.ts";
import { bytes, join, littleEndian } from "./wire.ts";
import { type FrameV3, frameV3, helloFieldsV3, topicOf } from "./wire_v3.ts";

const LZ4 = 1;
const ZSTD = 2;
const LIMIT = 2 ** 24;
/** What prefix and topic may add. */
const EXTRA = 512;
const CAPABILITIES = ["resume", "streams", "lz4", "zstd"];
const MAGIC = Uint8Array.of(0x28, 0xb5, 0x2f, 0xfd);

/** A compressed message: the claimed size, then the block or frame. */
function packed(
  method: number,
  size: number,
  content: readonly number[] | Uint8Array,
  parts: FrameV3 = {},
): Uint8Array {
  const payload = join(littleEndian(size), bytes(content));
  return frameV3({ id: 2, compression: method, payload, ...parts });
}

/** An LZ4 sequence of literals and a match; without a match, the last one of a block. */
function sequence(literals: string, match?: { offset: number; length: number }): Uint8Array {
  assert.ok(literals.length < 15 && (match?.length ?? 4) < 19, "longer lengths need more bytes");
  const token = literals.length << 4 | (match === undefined ? 0 : match.length - 4);
  const offset = match === undefined ? [] : [match.offset & 0xff, match.offset >> 8];
  return join(Uint8Array.of(token), bytes(literals), bytes(offset));
}

/** A block of Zstandard: type 0 raw, 1 one byte repeated, 2 compressed, 3 reserved. */
function block(type: number, size: number, content: string | Uint8Array, last = true): Uint8Array {
  const header = size << 3 | type << 1 | (last ? 1 : 0);
  return join(Uint8Array.of(header, header >>> 8, header >>> 16), bytes(content));
}

/** A Zstandard frame with a window of 2^(10 + log) bytes and without its size. */
function windowed(log: number, ...blocks: readonly Uint8Array[]): Uint8Array {
  return join(MAGIC, Uint8Array.of(0, log << 3), ...blocks);
}

/** One of a single segment that states its size in one byte. */
function single(size: number, ...blocks: readonly Uint8Array[]): Uint8Array {
  return join(MAGIC, Uint8Array.of(0x20, size), ...blocks);
}

/** "abcdabcdabcdabcdend" */
const GOOD = join(sequence("abcd", { offset: 4, length: 12 }), sequence("end"));
const GOOD_TEXT = "abcdabcdabcdabcdend";
const RAW = single(5, block(0, 5, "hello"));

async function isRefused(scene: Scene, content: Uint8Array, code: ErrorCode): Promise<void> {
  await scene.refuses({ code }, async () => {
    const peer = await scene.insider(helloFieldsV3({ capabilities: CAPABILITIES }));
    await peer.write(
      packed(LZ4, GOOD_TEXT.length, GOOD, { id: 1 }),
      content,
      frameV3({ id: 3, payload: "after" }),
    );
    return peer;
  });
  assert.deepEqual(scene.delivered, [{ from: "mallory", text: GOOD_TEXT }]);
}

function refusals(
  cases: readonly (readonly [name: string, content: Uint8Array, code?: ErrorCode])[],
): void {
  for (const [name, content, code = "Compression"] of cases) {
    it(name, inScene({}, (scene) => isRefused(scene, content, code)));
  }
}

/** A Zstandard frame that honestly holds `size` bytes "a": a block of 4 bytes for each 128 KiB. */
function bomb(size: number): Uint8Array {
  const blocks: Uint8Array[] = [];
  for (let left = size; left > 0; left -= 131_072) {
    blocks.push(block(1, Math.min(left, 131_072), "a", left <= 131_072));
  }
  return windowed(10, ...blocks);
}

async function delivers(scene: Scene, content: Uint8Array, expected: string): Promise<void> {
  const peer = await scene.insider(helloFieldsV3({ capabilities: CAPABILITIES }));
  await peer.write(frameV3({ payload: "before" }), content);
  await scene.when(() => scene.delivered.length === 2, 5_000, () => "not delivered");
  assert.ok(scene.delivered[1]!.text === expected, "another text");
}

describe("11. a small frame that claims much, in version 3", () => {
  const literals = join(sequence("abcd", { offset: 4, length: 16 }), new Uint8Array(4));
  refusals([
    ["11. LZ4: 32 MiB", packed(LZ4, 2 ** 25, literals)],
    ["11. LZ4: one byte above what any message can have", packed(LZ4, LIMIT + EXTRA + 1, GOOD)],
    ["11. LZ4: 4 GiB", packed(LZ4, 0xffff_ffff, GOOD)],
    ["11. LZ4: 2 GiB, negative as a signed number", packed(LZ4, 0x8000_0000, GOOD)],
    ["11. Zstandard: 32 MiB", packed(ZSTD, 2 ** 25, bomb(2 ** 25))],
    ["11. Zstandard: 4 GiB", packed(ZSTD, 0xffff_ffff, RAW)],
    ["11. Zstandard: the limit, and does not hold it", packed(ZSTD, LIMIT, RAW)],
    [
      "11. Zstandard: one byte more than a message may have, and holds it",
      packed(ZSTD, LIMIT + 1, bomb(LIMIT + 1)),
      "InvalidFrame",
    ],
    [
      "11. Zstandard: a window of 16 MiB",
      packed(ZSTD, 5, windowed(14, block(0, 5, "hello"))),
    ],
    [
      "11. Zstandard: the largest window",
      packed(ZSTD, 5, windowed(31, block(0, 5, "hello"))),
    ],
  ]);

  it(
    "11. the limit itself, and holds it: it is a message",
    inScene({}, (scene) => delivers(scene, packed(ZSTD, LIMIT, bomb(LIMIT)), "a".repeat(LIMIT))),
  );

  it(
    "11. twenty claims of the limit take no memory ahead of the bytes",
    inScene({}, async (scene) => {
      const claims = async () => {
        for (let i = 0; i < 20; i++) {
          await scene.refuses({ code: "Compression" }, async () => {
            const peer = await scene.insider(helloFieldsV3({ capabilities: CAPABILITIES }));
            await peer.write(packed(i % 2 === 0 ? LZ4 : ZSTD, LIMIT, i % 2 === 0 ? GOOD : RAW));
            return peer;
          });
        }
      };
      await claims();
      const before = residentMiB();
      await claims();
      const grown = residentMiB() - before;
      assert.ok(grown < 8, `${grown.toFixed(1)} MiB`);
    }),
  );
});

describe("12. an output of another size than claimed, in version 3", () => {
  refusals([
    ["12. LZ4: smaller by one", packed(LZ4, GOOD_TEXT.length + 1, GOOD)],
    ["12. LZ4: larger by one", packed(LZ4, GOOD_TEXT.length - 1, GOOD)],
    ["12. LZ4: cut in its literals", packed(LZ4, GOOD_TEXT.length, GOOD.subarray(0, 3))],
    ["12. LZ4: cut in an offset", packed(LZ4, GOOD_TEXT.length, GOOD.subarray(0, 6))],
    ["12. LZ4: followed by rubbish", packed(LZ4, GOOD_TEXT.length, join(GOOD, bytes("rubbish")))],
    ["12. LZ4: a Zstandard frame", packed(LZ4, 5, RAW)],
    ["12. Zstandard: smaller by one", packed(ZSTD, 6, windowed(0, block(0, 5, "hello")))],
    ["12. Zstandard: larger by one", packed(ZSTD, 4, windowed(0, block(0, 5, "hello")))],
    ["12. Zstandard: states another size", packed(ZSTD, 5, single(6, block(0, 5, "hello")))],
    ["12. Zstandard: an LZ4 block", packed(ZSTD, GOOD_TEXT.length, GOOD)],
    ["12. Zstandard: cut in its header", packed(ZSTD, 5, RAW.subarray(0, 5))],
    ["12. Zstandard: cut in a block", packed(ZSTD, 5, RAW.subarray(0, -1))],
    [
      "12. Zstandard: without a last block",
      packed(ZSTD, 5, single(5, block(0, 5, "hello", false))),
    ],
    ["12. Zstandard: followed by rubbish", packed(ZSTD, 5, join(RAW, bytes("x")))],
    ["12. Zstandard: followed by another frame", packed(ZSTD, 10, join(RAW, RAW))],
    [
      "12. Zstandard: a frame to be skipped before it",
      packed(ZSTD, 5, join(Uint8Array.of(0x50, 0x2a, 0x4d, 0x18, 1, 0, 0, 0, 0), RAW)),
    ],
    ["12. Zstandard: a reserved block", packed(ZSTD, 5, single(5, block(3, 5, "hello")))],
    [
      "12. Zstandard: a compressed block of rubbish",
      packed(ZSTD, 50, windowed(0, block(2, 5, "\xff\xff\xff\xff"))),
    ],
    [
      "12. Zstandard: a dictionary",
      packed(ZSTD, 5, join(MAGIC, Uint8Array.of(0x21, 7, 5), block(0, 5, "hello"))),
    ],
    [
      "12. Zstandard: a reserved bit",
      packed(ZSTD, 5, join(MAGIC, Uint8Array.of(0x28, 5), block(0, 5, "hello"))),
    ],
    [
      "12. Zstandard: a wrong checksum of its own",
      packed(
        ZSTD,
        5,
        join(MAGIC, Uint8Array.of(0x24, 5), block(0, 5, "hello"), Uint8Array.of(1, 2, 3, 4)),
      ),
    ],
    [
      "12. Zstandard: a frame of version 0.1",
      packed(ZSTD, 5, join(Uint8Array.of(0x1e, 0xb5, 0x2f, 0xfd), RAW.subarray(4))),
    ],
  ]);

  it(
    "12. Zstandard: what is right is a message",
    inScene({}, (scene) => delivers(scene, packed(ZSTD, 5, RAW), "hello")),
  );
});

describe("13. a match from outside the output, in version 3: an error, never others' bytes", () => {
  const secret = "the canary's neighbour wrote this ".repeat(20);
  const cases: [string, number, number, Uint8Array][] = [
    ["LZ4: offset 0", LZ4, 19, join(sequence("abcd", { offset: 0, length: 12 }), sequence("end"))],
    [
      "LZ4: one byte before the start",
      LZ4,
      19,
      join(sequence("abcd", { offset: 5, length: 12 }), sequence("end")),
    ],
    [
      "LZ4: the largest offset",
      LZ4,
      19,
      join(sequence("abcd", { offset: 0xffff, length: 12 }), sequence("end")),
    ],
    [
      "Zstandard: literals of an earlier block",
      ZSTD,
      19,
      // Raw literals "abcd", then one sequence with an offset far before the start.
      windowed(0, block(2, 10, Uint8Array.of(0x20, 97, 98, 99, 100, 1, 0x54, 0x1f, 0xff, 0x81))),
    ],
  ];
  for (const [name, method, size, content] of cases) {
    it(
      `13. ${name}`,
      inScene({}, async (scene) => {
        const neighbour = await scene.join("neighbour");
        try {
          await neighbour.send("victim", bytes(secret));
          await scene.when(() => scene.delivered.length === 1, 1_000, () => "no secret");
          await scene.refuses({ code: "Compression" }, async () => {
            const peer = await scene.insider(helloFieldsV3({ capabilities: CAPABILITIES }));
            await peer.write(packed(method, size, content, { id: 1 }));
            return peer;
          });
          assert.deepEqual(scene.delivered, [{ from: "neighbour", text: secret }]);
        } finally {
          await neighbour.close({ drainMs: 0 });
        }
      }),
    );
  }
});

describe("14. compression that was not negotiated, in version 3", () => {
  const cases: [string, string[], object, Uint8Array][] = [
    ["LZ4, only Zstandard offered", ["zstd"], {}, packed(LZ4, 19, GOOD)],
    ["Zstandard, only LZ4 offered", ["lz4"], {}, packed(ZSTD, 5, RAW)],
    ["LZ4, nothing offered", [], {}, packed(LZ4, 19, GOOD)],
    [
      "LZ4, the victim has it switched off",
      CAPABILITIES,
      { compression: { enabled: false } },
      packed(LZ4, 19, GOOD),
    ],
    [
      "Zstandard, the victim has it switched off",
      CAPABILITIES,
      { compression: { enabled: false } },
      packed(ZSTD, 5, RAW),
    ],
  ];
  for (const [name, capabilities, victim, content] of cases) {
    it(
      `14. ${name}`,
      inScene({ victim }, async (scene) => {
        await scene.refuses({ code: "InvalidFrame" }, async () => {
          const peer = await scene.insider(helloFieldsV3({ capabilities }));
          await peer.write(frameV3({ payload: "plain" }), content);
          return peer;
        });
        assert.deepEqual(scene.delivered, [{ from: "mallory", text: "plain" }]);
      }),
    );
  }
});

describe("15. compressed data that holds nothing, in version 3", () => {
  const empty = windowed(0, block(0, 0, ""));
  refusals([
    ["15. LZ4: no size", frameV3({ id: 2, compression: LZ4 })],
    ["15. LZ4: half a size", frameV3({ id: 2, compression: LZ4, payload: [1, 0] })],
    ["15. LZ4: a size and no block", packed(LZ4, 19, [])],
    ["15. LZ4: size 0 and no block", packed(LZ4, 0, [])],
    ["15. LZ4: size 0 and an empty sequence", packed(LZ4, 0, [0])],
    ["15. LZ4: size 0 and a block that is not empty", packed(LZ4, 0, GOOD)],
    ["15. Zstandard: no size", frameV3({ id: 2, compression: ZSTD })],
    ["15. Zstandard: a size and no frame", packed(ZSTD, 5, [])],
    ["15. Zstandard: size 0 and an empty frame", packed(ZSTD, 0, empty)],
    ["15. Zstandard: size 1 and an empty frame", packed(ZSTD, 1, empty)],
    ["15. a compressed ping", frameV3({ kind: "ping", id: 1, compression: LZ4 })],
    [
      "15. a compressed topic that is cut off",
      packed(LZ4, 4, sequence("\x04abc"), { topic: true }),
      "InvalidFrame",
    ],
  ]);

  it(
    "15. a compressed topic and no message: an empty message",
    inScene({}, (scene) =>
      delivers(
        scene,
        packed(ZSTD, 5, single(5, block(0, 5, topicOf("raft"))), { topic: true }),
        "",
      )),
  );
});
