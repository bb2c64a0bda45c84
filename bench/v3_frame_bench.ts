/**
 * Frames of version 3 against those of version 2: what the longer header, a topic, a checksum and
 * compression cost. Each iteration handles 1000 frames, so time per frame is time per iteration by
 * 1000.
 */

import { decodeBodyV2 } from "../src/protocol/message.ts";
import { Outbox } from "../src/protocol/outbox.ts";
import { FrameCodec, type FrameCodecConfig, readTopic } from "../src/protocol/v3/frame_codec.ts";
import { KIND, NORMAL } from "../src/protocol/v3/types.ts";
import { crc32 } from "../src/runtime/crc32.ts";
import { loadLz4 } from "../src/runtime/lz4.ts";
import { loadZstd } from "../src/runtime/zstd.ts";

const FRAMES = 1000;
const BATCH_BYTES = 131_072;
const MAX_MESSAGE_SIZE = 16 * 1024 * 1024;
const TOPIC = new TextEncoder().encode("metrics/cpu");

const SIZES: readonly (readonly [name: string, bytes: number])[] = [
  ["16 B", 16],
  ["64 B", 64],
  ["1 KiB", 1024],
  ["16 KiB", 16 * 1024],
];

const lz4 = await loadLz4();
const zstd = loadZstd();
const plain = codec({});
const checked = codec({ checksum: true });

/** Keeps results alive, so that no work can be left out. */
let sink = 0;

function codec(options: Partial<FrameCodecConfig>): FrameCodec {
  return new FrameCodec({
    ...{ checksum: false, crc32, lz4, zstd, method: undefined },
    ...{ compressMinSize: 256, maxMessageSize: MAX_MESSAGE_SIZE },
    ...options,
  });
}

/** Text as programs send it: the same keys over and over, values that differ. */
function jsonLines(bytes: number): Uint8Array {
  let text = "";
  for (let i = 0; text.length < bytes; i++) {
    text += `{"term":${i >> 4},"index":${i},"command":"set","key":"user:${i * 7919 % 10_007}"}\n`;
  }
  return new TextEncoder().encode(text.slice(0, bytes));
}

function encoding(add: (outbox: Outbox, id: number) => void): () => void {
  const outbox = new Outbox();
  const flush = (): void => {
    const chunk = outbox.take();
    if (chunk === undefined) return;
    sink += chunk.length;
    outbox.recycle(chunk);
  };
  return () => {
    for (let id = 1; id <= FRAMES; id++) {
      add(outbox, id);
      if (outbox.bytes >= BATCH_BYTES) flush();
    }
    flush();
  };
}

/** Bodies as a decoder cuts them out of one chunk. */
function bodiesOf(add: (outbox: Outbox, id: number) => void): Uint8Array[] {
  const outbox = new Outbox();
  for (let id = 1; id <= FRAMES; id++) add(outbox, id);
  const chunk = outbox.take()!;
  const bodies: Uint8Array[] = [];
  for (let at = 0; at < chunk.length;) {
    const end = at + 4 + new DataView(chunk.buffer, chunk.byteOffset + at).getUint32(0);
    bodies.push(new Uint8Array(chunk.buffer, chunk.byteOffset + at + 4, end - at - 4));
    at = end;
  }
  return bodies;
}

function data(
  codec: FrameCodec,
  payload: Uint8Array,
  topic: Uint8Array | undefined,
): (outbox: Outbox, id: number) => void {
  const { length } = payload;
  return (outbox, id) =>
    codec.encode(outbox, KIND.data, NORMAL, id, false, topic, undefined, payload, 0, length);
}

function decoding(codec: FrameCodec, bodies: readonly Uint8Array[]): () => void {
  return () => {
    for (const body of bodies) sink += codec.decode(body).payload.length;
  };
}

for (const [name, size] of SIZES) {
  const payload = jsonLines(size);
  const v2 = (outbox: Outbox): void => outbox.addV2(0, payload);
  const v2Bodies = bodiesOf(v2);
  const variants = [
    ["version 3", plain, undefined],
    ["version 3, topic", plain, TOPIC],
    ["version 3, checksum", checked, undefined],
  ] as const;

  Deno.bench({ name: "version 2", group: `encode ${name}`, baseline: true, fn: encoding(v2) });
  for (const [variant, codec, topic] of variants) {
    const fn = encoding(data(codec, payload, topic));
    Deno.bench({ name: variant, group: `encode ${name}`, fn });
  }
  Deno.bench({
    name: "version 2",
    group: `decode ${name}`,
    baseline: true,
    fn: () => {
      for (const body of v2Bodies) sink += decodeBodyV2(body, lz4, MAX_MESSAGE_SIZE).length;
    },
  });
  for (const [variant, codec, topic] of variants) {
    const bodies = bodiesOf(data(codec, payload, topic));
    const fn = topic === undefined ? decoding(codec, bodies) : () => {
      for (const body of bodies) sink += readTopic(codec.decode(body).payload).rest.length;
    };
    Deno.bench({ name: variant, group: `decode ${name}`, fn });
  }
}

for (const [name, size] of [["1 KiB", 1024], ["64 KiB", 65_536]] as const) {
  const payload = jsonLines(size);
  for (const method of ["lz4", "zstd"] as const) {
    if (method === "zstd" && zstd === undefined) continue;
    const packing = codec({ method });
    const bodies = bodiesOf(data(packing, payload, undefined));
    const group = `${name} compressed`;
    const packed = `${method} to ${bodies[0]!.length} B`;
    const fn = encoding(data(packing, payload, undefined));
    Deno.bench({ name: `encode, ${packed}`, group, fn });
    Deno.bench({ name: `decode, ${packed}`, group, fn: decoding(packing, bodies) });
  }
}
