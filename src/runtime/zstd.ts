/**
 * Zstandard from the runtime's zlib, in the size-prepended form: the uncompressed size as u32
 * little-endian, then one Zstandard frame.
 *
 * @module
 */

import * as zlib from "node:zlib";
import type { Lz4 as Compressor } from "../protocol/message.ts";

const SIZE_BYTES = 4;
/** The fastest level of the usual ones: it is half as fast again as the default, 3, and packs no worse. */
const LEVEL = 1;
/** zlib takes no smaller output chunk. */
const MIN_CHUNK_BYTES = 64;
/** What Zstandard may add to bytes that do not compress: 1 in 256, and less than this. */
const MAX_GROWTH_BYTES = 256;
/** Memory that may be left over behind a result. Above it, the result is copied into its own. */
const MAX_SLACK_BYTES = 64;

/**
 * Zstandard, or undefined where the runtime has none.
 *
 * `decompress` makes no more than the claimed size, for which it takes memory at once: whether the
 * frame can hold that much, and is one frame and nothing else, must have been checked before.
 */
export function loadZstd(): Compressor | undefined {
  if (typeof zlib.zstdCompressSync !== "function") return undefined;
  return typeof zlib.zstdDecompressSync === "function" ? { compress, decompress } : undefined;
}

function compress(bytes: Uint8Array): Uint8Array {
  const size = bytes.length;
  const options: zlib.ZstdOptions & { pledgedSrcSize: number } = {
    pledgedSrcSize: size,
    // Never full: after a full chunk, zlib adds an empty frame, on Deno after every one.
    chunkSize: size + (size >>> 8) + MAX_GROWTH_BYTES,
    params: { [zlib.constants.ZSTD_c_compressionLevel]: LEVEL },
  };
  const packed = zlib.zstdCompressSync(bytes, options);
  const result = new Uint8Array(SIZE_BYTES + packed.length);
  result[0] = size;
  result[1] = size >>> 8;
  result[2] = size >>> 16;
  result[3] = size >>> 24;
  result.set(packed, SIZE_BYTES);
  return result;
}

function decompress(bytes: Uint8Array): Uint8Array {
  const size = (bytes[0]! | bytes[1]! << 8 | bytes[2]! << 16 | bytes[3]! << 24) >>> 0;
  const { buffer, byteOffset, length } = zlib.zstdDecompressSync(bytes.subarray(SIZE_BYTES), {
    maxOutputLength: size,
    // One more than needed: with a full chunk, zlib would ask for another one.
    chunkSize: Math.max(MIN_CHUNK_BYTES, size + 1),
  });
  if (length !== size) throw new RangeError(`Cannot decompress: ${length} bytes, not ${size}`);
  // Small results are parts of a pool that all Buffers share; and a Buffer's slice() does not copy.
  const result = new Uint8Array(buffer, byteOffset, length);
  return buffer.byteLength <= size + MAX_SLACK_BYTES ? result : result.slice();
}
