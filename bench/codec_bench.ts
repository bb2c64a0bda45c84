/**
 * Framing against the codec one writes first: concatenate what came, slice off what is whole.
 * Each iteration moves 256 KiB of bodies, so time per frame is time per iteration by 4096, 256,
 * 16 or 4.
 */

import { encodeFrame, FrameDecoder } from "../src/protocol/frame.ts";

const BYTES_PER_ITERATION = 256 * 1024;
/** What one read of a socket brings. */
const CHUNK_BYTES = 64 * 1024;

const SIZES: readonly (readonly [name: string, bytes: number])[] = [
  ["64 B", 64],
  ["1 KiB", 1024],
  ["16 KiB", 16 * 1024],
  ["64 KiB", 64 * 1024],
];

/** Keeps results alive, so that no work can be left out. */
let sink = 0;

function naiveEncode(body: Uint8Array): Uint8Array {
  const header = new Uint8Array(4);
  new DataView(header.buffer).setUint32(0, body.length);
  return concat(header, body);
}

function naiveDecode(chunks: readonly Uint8Array[]): number {
  let buffer: Uint8Array = new Uint8Array(0);
  let frames = 0;
  for (const chunk of chunks) {
    buffer = concat(buffer, chunk);
    while (buffer.length >= 4) {
      const end = 4 + new DataView(buffer.buffer, buffer.byteOffset).getUint32(0);
      if (buffer.length < end) break;
      sink += buffer.slice(4, end).length;
      buffer = buffer.slice(end);
      frames++;
    }
  }
  return frames;
}

function decode(chunks: readonly Uint8Array[]): number {
  const decoder = new FrameDecoder({ maxFrameBytes: CHUNK_BYTES });
  let frames = 0;
  for (const chunk of chunks) {
    decoder.push(chunk);
    for (let body = decoder.next(); body !== undefined; body = decoder.next()) {
      sink += body.length;
      frames++;
    }
  }
  return frames;
}

function concat(first: Uint8Array, second: Uint8Array): Uint8Array {
  const whole = new Uint8Array(first.length + second.length);
  whole.set(first);
  whole.set(second, first.length);
  return whole;
}

/** A stream of `count` frames as a socket delivers it. */
function chunksOf(frame: Uint8Array, count: number): Uint8Array[] {
  const wire = new Uint8Array(count * frame.length);
  for (let i = 0; i < count; i++) wire.set(frame, i * frame.length);
  const chunks: Uint8Array[] = [];
  for (let at = 0; at < wire.length; at += CHUNK_BYTES) {
    chunks.push(wire.slice(at, at + CHUNK_BYTES));
  }
  return chunks;
}

function benchFrames(group: string, name: string, baseline: boolean, run: () => number): void {
  const expected = run();
  Deno.bench({
    name: `${name}, ${expected} frames`,
    group,
    baseline,
    fn: () => {
      if (run() !== expected) throw new Error(`Cannot bench ${group}: frames were lost`);
    },
  });
}

for (const [name, size] of SIZES) {
  const count = BYTES_PER_ITERATION / size;
  const body = new Uint8Array(size).fill(7);
  const encodeWith = (encode: (body: Uint8Array) => Uint8Array) => (): number => {
    for (let i = 0; i < count; i++) sink += encode(body).length;
    return count;
  };
  benchFrames(`encode ${name}`, "naive", true, encodeWith(naiveEncode));
  benchFrames(`encode ${name}`, "encodeFrame", false, encodeWith(encodeFrame));

  const chunks = chunksOf(encodeFrame(body), count);
  benchFrames(`decode ${name}`, "naive", true, () => naiveDecode(chunks));
  benchFrames(`decode ${name}`, "FrameDecoder", false, () => decode(chunks));
}
