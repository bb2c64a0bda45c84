/** What we compress with Zstandard is one frame, as a receiver demands, whatever its length. */

import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { checkZstdFrame } from "../../src/protocol/v3/zstd_frame.ts";
import { loadZstd } from "../../src/runtime/zstd.ts";
import { inCluster } from "../support/cluster.ts";
import { seededRandom } from "../support/memory_network.ts";

/** zlib gives its output in chunks of so many bytes, where it is told nothing else. */
const CHUNK_BYTES = 16_384;
const SIZE_BYTES = 4;
const FRAGMENT_BYTES = 65_536;

const zstd = loadZstd()!;

/** Content of which one byte in `every` is new. */
function content(bytes: number, every: number): Uint8Array {
  const random = seededRandom(bytes);
  const made = new Uint8Array(bytes);
  for (let i = 0; i < bytes; i += every) made[i] = random() * 256;
  return made;
}

function assertOneFrame(bytes: Uint8Array): void {
  const packed = zstd.compress(bytes);
  checkZstdFrame(packed.subarray(SIZE_BYTES), bytes.length);
  assert.deepEqual(zstd.decompress(packed), bytes);
}

describe("compression with Zstandard", { skip: zstd === undefined }, () => {
  it("makes one frame where the result is about as long as a chunk of zlib's, or several", () => {
    for (const chunks of [1, 2, 4]) {
      for (let less = 0; less <= 24; less++) {
        assertOneFrame(content(chunks * CHUNK_BYTES - less, 1));
      }
    }
  });

  it("makes one frame of what compresses well, or badly, or not at all", () => {
    for (const bytes of [1, 300, 33_000, FRAGMENT_BYTES, 1_000_000]) {
      for (const every of [1, 2, 3, 8, 1_000]) assertOneFrame(content(bytes, every));
    }
  });

  it(
    "carries fragments that are long although compressed, with no error",
    inCluster(async (cluster) => {
      const options = {
        compression: { method: "zstd" },
        rateLimit: "disabled",
        poolSize: 1,
      } as const;
      const b = await cluster.start("b", options);
      const a = await cluster.start("a", options);
      await cluster.connect(a, "b");
      const message = content(4 * FRAGMENT_BYTES, 2);
      await cluster.environment.run(a.send("b", message, { acknowledged: true }));
      assert.deepEqual(b.tryReceive()!.payload, message);
      assert.ok(a.stats().bytesSent < 0.8 * message.length, `${a.stats().bytesSent} bytes sent`);
      for (const stats of [a.stats(), b.stats()]) {
        assert.deepEqual(stats.errors, {});
        assert.equal(stats.reconnections, 0);
      }
    }),
  );
});
