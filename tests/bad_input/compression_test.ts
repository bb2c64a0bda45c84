/** Rows 11 to 15: LZ4 blocks made by hand. */

import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { ErrorCode } from "../../mod.ts";
import { inScene, residentMiB, type Scene } from "./harness.ts";
import { bytes, compressed, join, littleEndian, messageV2 } from "./wire.ts";

/** A sequence of literals and a match; without a match, the last sequence of a block. */
function sequence(literals: string, match?: { offset: number; length: number }): Uint8Array {
  assert.ok(literals.length < 15 && (match?.length ?? 4) < 19, "longer lengths need more bytes");
  const token = literals.length << 4 | (match === undefined ? 0 : match.length - 4);
  const offset = match === undefined ? [] : [match.offset & 0xff, match.offset >> 8];
  return join(Uint8Array.of(token), bytes(literals), bytes(offset));
}

/** "abcdabcdabcdabcdend" */
const GOOD = join(sequence("abcd", { offset: 4, length: 12 }), sequence("end"));
const GOOD_TEXT = "abcdabcdabcdabcdend";

async function isRefused(scene: Scene, content: Uint8Array, code: ErrorCode = "Compression") {
  await scene.refuses({ code }, async () => {
    const peer = await scene.insider();
    await peer.write(compressed(GOOD_TEXT.length, GOOD), content, messageV2("after"));
    return peer;
  });
  assert.deepEqual(scene.delivered, [{ from: "mallory", text: GOOD_TEXT }]);
}

function refusals(
  cases: readonly (readonly [name: string, content: Uint8Array, code?: ErrorCode])[],
): void {
  for (const [name, content, code] of cases) {
    it(name, inScene({}, (scene) => isRefused(scene, content, code)));
  }
}

/** A block that honestly holds `size` bytes, in less than a 250th of them. */
function bomb(size: number): Uint8Array {
  // One literal, one match and "end" as the last sequence; 4 and 15 are in the token.
  const rest = size - 1 - 3 - 4 - 15;
  const lengths = new Uint8Array(Math.floor(rest / 255)).fill(255);
  const last = Uint8Array.of(rest % 255);
  return join(Uint8Array.of(0x1f, 0x61, 1, 0), lengths, last, sequence("end"));
}

describe("11. a small frame that claims much", () => {
  const block = join(sequence("abcd", { offset: 4, length: 16 }), sequence("a")).slice(0, 13);
  refusals([
    ["11. 22 bytes that claim 32 MiB", compressed(32 * 2 ** 20, join(block, new Uint8Array(4)))],
    ["11. one byte above the limit", compressed(2 ** 24 + 1, GOOD)],
    ["11. 4 GiB", compressed(0xffff_ffff, GOOD)],
    ["11. 2 GiB, negative as a signed number", compressed(0x8000_0000, GOOD)],
    ["11. one byte above the limit, and holds it", compressed(2 ** 24 + 1, bomb(2 ** 24 + 1))],
    ["11. the limit itself, and does not hold it", compressed(2 ** 24, GOOD)],
  ]);

  it(
    "11. the limit itself, and holds it: it is a message",
    inScene({}, async (scene) => {
      const peer = await scene.insider();
      await peer.write(compressed(2 ** 24, bomb(2 ** 24)));
      await scene.when(() => scene.delivered.length === 1, 5_000, () => "nothing delivered");
      assert.equal(scene.delivered[0]!.text.length, 2 ** 24);
    }),
  );

  it(
    "11. twenty claims of the limit take no memory ahead of the bytes",
    inScene({}, async (scene) => {
      const claims = async () => {
        for (let i = 0; i < 20; i++) {
          await scene.refuses({ code: "Compression" }, async () => {
            const peer = await scene.insider();
            await peer.write(compressed(2 ** 24, GOOD));
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

describe("12. an output of another size than claimed", () => {
  const endless = join(sequence("a", { offset: 1, length: 18 }), sequence("abc"));
  const length255 = join(
    Uint8Array.of(0x1f, 0x61, 1, 0),
    new Uint8Array(60_000).fill(255),
    Uint8Array.of(0),
    sequence("abc"),
  );
  refusals([
    ["12. smaller by one", compressed(GOOD_TEXT.length + 1, GOOD)],
    ["12. larger by one", compressed(GOOD_TEXT.length - 1, GOOD)],
    ["12. larger by a match", compressed(4, endless)],
    ["12. 15 MiB from 60 KiB that claim 1,000 bytes", compressed(1_000, length255)],
    ["12. cut in its literals", compressed(GOOD_TEXT.length, GOOD.subarray(0, 3))],
    ["12. cut in an offset", compressed(GOOD_TEXT.length, GOOD.subarray(0, 6))],
    ["12. cut in a length", compressed(300, Uint8Array.of(0xf0, 255))],
    ["12. without its last sequence", compressed(16, GOOD.subarray(0, 7))],
    ["12. followed by rubbish", compressed(GOOD_TEXT.length, join(GOOD, bytes("rubbish")))],
  ]);
});

describe("13. a match from outside the output: an error, never another message's bytes", () => {
  const secret = "the canary's neighbour wrote this ".repeat(20);
  const cases: [string, number, string][] = [
    ["offset 0", 0, "abcd"],
    ["an offset one byte before the start", 5, "abcd"],
    ["the largest offset", 0xffff, "abcd"],
    ["an offset without any output", 1, ""],
  ];
  for (const [name, offset, literals] of cases) {
    it(
      `13. ${name}`,
      inScene({}, async (scene) => {
        const neighbour = await scene.join("neighbour");
        try {
          await neighbour.send("victim", bytes(secret));
          await scene.when(() => scene.delivered.length === 1, 1_000, () => "no secret");
          const block = join(sequence(literals, { offset, length: 12 }), sequence("end"));
          await scene.refuses({ code: "Compression" }, async () => {
            const peer = await scene.insider();
            await peer.write(compressed(literals.length + 15, block));
            return peer;
          });
          assert.deepEqual(scene.delivered, [{ from: "neighbour", text: secret }]);
        } finally {
          await neighbour.close({ drainMs: 0 });
        }
      }),
    );
  }

  it(
    "13. a match may reach into itself",
    inScene({}, async (scene) => {
      const peer = await scene.insider();
      const block = join(sequence("ab", { offset: 1, length: 18 }), sequence("c"));
      await peer.write(compressed(21, block));
      await scene.when(() => scene.delivered.length === 1, 1_000, () => "nothing delivered");
      assert.equal(scene.delivered[0]!.text, `a${"b".repeat(19)}c`);
    }),
  );
});

describe("14. compression that was not negotiated", () => {
  const cases = [
    ["14. the dialer did not offer it", { capabilities: [] }, {}],
    ["14. the dialer offered something else", { capabilities: ["zstd", "LZ4"] }, {}],
    ["14. the victim has it switched off", {}, { compression: { enabled: false } }],
  ] as const;
  for (const [name, fields, victim] of cases) {
    it(
      name,
      inScene({ victim }, async (scene) => {
        await scene.refuses({ code: "InvalidFrame" }, async () => {
          const peer = await scene.insider(fields);
          await peer.write(messageV2("plain"), compressed(GOOD_TEXT.length, GOOD));
          return peer;
        });
        assert.deepEqual(scene.delivered, [{ from: "mallory", text: "plain" }]);
      }),
    );
  }

  it(
    "14. in version 1 there is none: the bytes are the message",
    inScene({}, async (scene) => {
      const peer = await scene.insider({ protocol_version: 1 });
      await peer.write(compressed(GOOD_TEXT.length, GOOD));
      await scene.when(() => scene.delivered.length === 1, 1_000, () => "nothing delivered");
      assert.ok(scene.delivered[0]!.text.startsWith("\x01\x13\0\0\0"));
    }),
  );
});

describe("15. compressed data that holds nothing", () => {
  refusals([
    ["15. no size", messageV2("", 1)],
    ["15. half a size", messageV2(Uint8Array.of(1, 0), 1)],
    ["15. a size and no block", messageV2(littleEndian(19), 1)],
    ["15. size 0 and no block", messageV2(littleEndian(0), 1)],
    ["15. size 0 and an empty sequence", compressed(0, [0])],
    ["15. size 0 and a block that is not empty", compressed(0, GOOD)],
    ["15. an empty body", join(Uint8Array.of(0, 0, 0, 0)), "InvalidFrame"],
  ]);

  it(
    "15. an empty message that is not compressed arrives",
    inScene({}, async (scene) => {
      const peer = await scene.insider();
      await peer.write(messageV2(""));
      await scene.when(() => scene.delivered.length === 1, 1_000, () => "nothing delivered");
      assert.equal(scene.delivered[0]!.text, "");
    }),
  );
});
