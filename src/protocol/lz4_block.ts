/**
 * A check of LZ4 blocks that does not decompress them.
 *
 * The decompressors in use accept a match at offset 0 and answer with what their memory held from
 * an earlier message (compare CVE-2025-66566). So no block reaches them before every offset and
 * length in it has been followed. The format:
 * https://github.com/lz4/lz4/blob/dev/doc/lz4_Block_format.md
 *
 * @module
 */

import { TransportError } from "../errors.ts";

/** A match is never shorter; the token counts what goes beyond. */
const MIN_MATCH = 4;
/** A nibble of the token with this value, or a length byte of 255, is followed by a length byte. */
const NIBBLE_GOES_ON = 15;
const BYTE_GOES_ON = 255;

/**
 * Walks an LZ4 block and returns if it decompresses to exactly `uncompressedSize` bytes without
 * reading anything but its own output. Linear in the block's length; allocates nothing.
 *
 * @param block One LZ4 block, without the size that stands before it on the wire.
 * @param uncompressedSize The size in bytes that the sender claims.
 * @throws {TransportError} `Compression` if the block is truncated, a match offset is 0 or reaches
 * before the start of the output, or the output has another size than was claimed.
 */
export function checkLz4Block(block: Uint8Array, uncompressedSize: number): void {
  const end = block.length;
  let at = 0;
  let output = 0;
  while (at < end) {
    const token = block[at++]!;
    let literals = token >>> 4;
    if (literals === NIBBLE_GOES_ON) {
      let byte: number;
      do {
        if (at >= end) throw broken("it ends in a length");
        byte = block[at++]!;
        literals += byte;
      } while (byte === BYTE_GOES_ON);
    }
    at += literals;
    output += literals;
    if (at > end) throw broken("it ends in literals");
    // Only the last sequence has no match, and nothing but the end of the block says so.
    if (at === end) return checkSize(output, uncompressedSize);

    if (at + 2 > end) throw broken("it ends in an offset");
    const offset = block[at]! | block[at + 1]! << 8;
    at += 2;
    if (offset === 0) throw broken("a match has offset 0");
    if (offset > output) throw broken("a match starts before the output");
    let match = (token & 15) + MIN_MATCH;
    if ((token & 15) === NIBBLE_GOES_ON) {
      let byte: number;
      do {
        if (at >= end) throw broken("it ends in a length");
        byte = block[at++]!;
        match += byte;
      } while (byte === BYTE_GOES_ON);
    }
    output += match;
    if (output > uncompressedSize) {
      throw broken(`it holds more than ${uncompressedSize} bytes`);
    }
  }
  throw broken("its last sequence is missing");
}

function checkSize(output: number, uncompressedSize: number): void {
  if (output === uncompressedSize) return;
  throw broken(`it holds ${output} bytes instead of ${uncompressedSize}`);
}

function broken(problem: string): TransportError {
  return new TransportError("Compression", `Cannot decompress an LZ4 block: ${problem}`);
}
