/** Row 31 in version 3: streams that bring much with their opening. */

import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { TransportStream } from "../../mod.ts";
import { inScene, residentMiB, within } from "./harness.ts";
import { Talker } from "./talker.ts";
import { bytes, join, littleEndian } from "./wire.ts";

const PAYLOAD_MIB = 16;
const ZSTD = 2;
const ZSTD_MAGIC = Uint8Array.of(0x28, 0xb5, 0x2f, 0xfd);
const ZSTD_BLOCK_BYTES = 131_072;
const OPENS = 60;
/** 64 MiB of payloads are kept for the streams of one peer. */
const KEPT = 4;
/** Of 960 that are brought: what is kept, and what the collector has not taken yet. */
const MAX_MIB = 400;

/** 16 MiB in 500 bytes: blocks of one repeated byte. */
function bomb(): Uint8Array {
  const blocks: Uint8Array[] = [];
  const count = PAYLOAD_MIB * 2 ** 20 / ZSTD_BLOCK_BYTES;
  for (let i = 1; i <= count; i++) {
    const header = ZSTD_BLOCK_BYTES << 3 | 1 << 1 | (i === count ? 1 : 0);
    blocks.push(Uint8Array.of(header, header >>> 8, header >>> 16), bytes("a"));
  }
  const size = littleEndian(PAYLOAD_MIB * 2 ** 20);
  return join(size, ZSTD_MAGIC, Uint8Array.of(0, 10 << 3), ...blocks);
}

describe("31. streams that bring 16 MiB each with their opening", () => {
  const capabilities = ["resume", "streams", "zstd"];
  const payload = bomb();

  it(
    "31. and stay open: those beyond 64 MiB are refused, and their bytes are not kept",
    inScene({}, async (scene) => {
      const streams: TransportStream[] = [];
      scene.victim.onStream(undefined, (stream) => void streams.push(stream));
      const before = residentMiB();
      const talker = await Talker.join(scene, { hello: { capabilities }, acks: true });
      for (let i = 0; i < OPENS; i++) {
        await talker.say(talker.frame({ kind: "open", compression: ZSTD, payload }));
        assert.ok(await within(10_000, talker.settled(), "not read"), "the connection ended");
      }
      assert.equal(streams.length, KEPT);
      assert.deepEqual(talker.codes, { TOO_MANY_STREAMS: OPENS - KEPT });
      assert.equal(scene.victim.peer("mallory")!.openStreams, KEPT);
      const grown = residentMiB() - before;
      assert.ok(grown < MAX_MIB, `${grown.toFixed(0)} MiB`);
    }),
  );

  it(
    "31. and that nobody takes: the resets that wait keep none of their bytes",
    inScene({}, async (scene) => {
      const before = residentMiB();
      // A window that is full with the first reset.
      const talker = await Talker.join(scene, { hello: { capabilities, receive_window: 1 } });
      for (let i = 0; i < OPENS; i++) {
        await talker.say(talker.frame({ kind: "open", compression: ZSTD, payload }));
        assert.ok(await within(10_000, talker.settled(), "not read"), "the connection ended");
      }
      assert.equal(talker.heard.reset, 1);
      const grown = residentMiB() - before;
      assert.ok(grown < MAX_MIB, `${grown.toFixed(0)} MiB`);
    }),
  );
});
