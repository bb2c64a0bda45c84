/** What compression costs a message, and the walk over the block that comes before decompressing. */

import { checkLz4Block } from "../src/protocol/lz4_block.ts";
import { compressMessage, decodeBodyV2 } from "../src/protocol/message.ts";
import { loadLz4 } from "../src/runtime/lz4.ts";

const lz4 = await loadLz4();

const SIZES: readonly (readonly [name: string, bytes: number])[] = [
  ["256 B", 256],
  ["1 KiB", 1024],
  ["16 KiB", 16 * 1024],
  ["1 MiB", 1024 * 1024],
];

/** Text as programs send it: the same keys over and over, values that differ. */
function jsonLines(bytes: number): Uint8Array {
  let text = "";
  for (let i = 0; text.length < bytes; i++) {
    text += `{"term":${i >> 4},"index":${i},"command":"set","key":"user:${i * 7919 % 10_007}"}\n`;
  }
  return new TextEncoder().encode(text.slice(0, bytes));
}

for (const [name, size] of SIZES) {
  const payload = jsonLines(size);
  const packed = compressMessage(payload, lz4);
  if (packed === undefined) throw new Error(`Cannot bench ${name}: the payload does not shrink`);
  const body = new Uint8Array(1 + packed.length);
  body[0] = 1;
  body.set(packed, 1);
  const block = packed.subarray(4);
  const group = `LZ4 ${name} (${packed.length} B compressed)`;

  Deno.bench({
    name: "decompress alone",
    group,
    baseline: true,
    fn: () => void lz4.decompress(packed),
  });
  Deno.bench({ name: "checkLz4Block alone", group, fn: () => checkLz4Block(block, size) });
  Deno.bench({ name: "decodeBodyV2", group, fn: () => void decodeBodyV2(body, lz4, size) });
  Deno.bench({ name: "compressMessage", group, fn: () => void compressMessage(payload, lz4) });
}
