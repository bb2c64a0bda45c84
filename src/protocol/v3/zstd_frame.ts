/**
 * A check of Zstandard frames that does not decompress them.
 *
 * The decompressors of the runtimes disagree on what follows a frame, on skippable frames and on
 * frames that are cut off; and they take memory for the window that a frame asks for. So a frame
 * reaches them only if it is one whole frame, asks for little, and can hold what it claims. The
 * format: https://www.rfc-editor.org/rfc/rfc8878
 *
 * @module
 */

import { TransportError } from "../../errors.ts";

const MAGIC = 0xfd2f_b528;
const MAGIC_BYTES = 4;
const CHECKSUM_BYTES = 4;
const BLOCK_HEADER_BYTES = 3;
const MAX_BLOCK_BYTES = 131_072;
/** What RFC 8878 asks of every decoder. A window of one segment is as large as the content instead. */
const MAX_WINDOW_BYTES = 8_388_608;
const MIN_WINDOW_LOG = 10;
const TWO_32 = 0x1_0000_0000;

const SINGLE_SEGMENT = 0b0010_0000;
const RESERVED = 0b0000_1000;
const CHECKSUM = 0b0000_0100;
const DICTIONARY = 0b0000_0011;

const RUN_LENGTH = 1;
const COMPRESSED = 2;

/**
 * Walks the headers of a Zstandard frame and returns if it is one whole frame that may decompress
 * to exactly `uncompressedSize` bytes; only decompressing it shows whether it does. Linear in the
 * frame's length; allocates nothing.
 *
 * @param frame One Zstandard frame, without the size that stands before it on the wire.
 * @param uncompressedSize The size in bytes that the sender claims, above 0.
 * @throws {TransportError} `Compression` if the bytes are not one whole frame, it needs a dictionary
 * or a window above 8 MiB, states another size than was claimed, or can't hold that much or little.
 */
export function checkZstdFrame(frame: Uint8Array, uncompressedSize: number): void {
  if (readLittle(frame, 0, MAGIC_BYTES) !== MAGIC) throw broken("it is none");
  const descriptor = readLittle(frame, MAGIC_BYTES, 1);
  if ((descriptor & RESERVED) !== 0) throw broken("a reserved bit is set");
  if ((descriptor & DICTIONARY) !== 0) throw broken("it needs a dictionary");
  const single = (descriptor & SINGLE_SEGMENT) !== 0;
  let at = MAGIC_BYTES + 1;
  let windowBytes = uncompressedSize;
  if (!single) windowBytes = readWindow(readLittle(frame, at++, 1));
  const sizeBytes = contentSizeBytes(descriptor);
  if (sizeBytes > 0) checkSize(frame, at, sizeBytes, uncompressedSize);
  at += sizeBytes;
  const checksumBytes = (descriptor & CHECKSUM) === 0 ? 0 : CHECKSUM_BYTES;
  at = walkBlocks(frame, at, Math.min(windowBytes, MAX_BLOCK_BYTES), uncompressedSize);
  if (at + checksumBytes === frame.length) return;
  throw broken(at + checksumBytes > frame.length ? "it is cut off" : "something follows it");
}

/** Returns where the blocks end. Judges the content by what its blocks hold at least and at most. */
function walkBlocks(
  frame: Uint8Array,
  start: number,
  maxBlockBytes: number,
  uncompressedSize: number,
): number {
  let at = start;
  let atLeast = 0;
  let atMost = 0;
  for (let last = false; !last;) {
    const header = readLittle(frame, at, BLOCK_HEADER_BYTES);
    const type = header >>> 1 & 3;
    const size = header >>> 3;
    if (size > maxBlockBytes) throw broken("a block is too large");
    if (type > COMPRESSED) throw broken("a block has the reserved type");
    atMost += type === COMPRESSED ? maxBlockBytes : size;
    if (type !== COMPRESSED) atLeast += size;
    if (atLeast > uncompressedSize) throw broken(`it holds more than ${uncompressedSize} bytes`);
    at += BLOCK_HEADER_BYTES + (type === RUN_LENGTH ? 1 : size);
    last = (header & 1) === 1;
  }
  if (atMost < uncompressedSize) throw broken(`it holds less than ${uncompressedSize} bytes`);
  return at;
}

function readWindow(descriptor: number): number {
  const base = 2 ** (MIN_WINDOW_LOG + (descriptor >>> 3));
  const bytes = base + base / 8 * (descriptor & 7);
  if (bytes > MAX_WINDOW_BYTES) throw broken(`it needs a window of ${bytes} bytes`);
  return bytes;
}

/** Bytes of the frame's own statement of the uncompressed size; it is optional in some frames. */
function contentSizeBytes(descriptor: number): number {
  const flag = descriptor >>> 6;
  if (flag === 0) return (descriptor & SINGLE_SEGMENT) === 0 ? 0 : 1;
  return 1 << flag;
}

function checkSize(frame: Uint8Array, at: number, bytes: number, uncompressedSize: number): void {
  let size = readLittle(frame, at, Math.min(bytes, 4));
  if (bytes === 2) size += 256;
  if (bytes === 8) size += readLittle(frame, at + 4, 4) * TWO_32;
  if (size !== uncompressedSize) {
    throw broken(`it states ${size} bytes instead of ${uncompressedSize}`);
  }
}

/** 1 to 4 bytes, the least significant first. */
function readLittle(frame: Uint8Array, at: number, bytes: number): number {
  if (at + bytes > frame.length) throw broken("it is cut off");
  let value = 0;
  for (let i = bytes - 1; i >= 0; i--) value = value << 8 | frame[at + i]!;
  return value >>> 0;
}

function broken(problem: string): TransportError {
  return new TransportError("Compression", `Cannot decompress a Zstandard frame: ${problem}`);
}
