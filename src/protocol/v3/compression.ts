/**
 * Compressed payloads of version 3 (docs/protocol.md, section "Version 3").
 *
 * @module
 */

import { TransportError } from "../../errors.ts";
import { checkLz4Block } from "../lz4_block.ts";
import type { Lz4 } from "../message.ts";
import { checkZstdFrame } from "./zstd_frame.ts";

/**
 * A compressor whose output is the uncompressed size as u32 little-endian, then the compressed
 * bytes. Either function may throw anything at all.
 */
export type Compressor = Lz4;

/** How a payload is compressed. */
export type CompressionMethod = "lz4" | "zstd";

const SIZE_BYTES = 4;

/**
 * Decompresses a payload, after a check that it can hold what it claims.
 *
 * @param packed The size, then an LZ4 block or a Zstandard frame.
 * @param maxBytes The largest claim accepted.
 * @returns New memory of the claimed size, which is at least 1.
 * @throws {TransportError} `Compression` if the payload is malformed, claims 0 bytes or more than
 * the limit, or is not what it claims.
 */
export function decompressPayload(
  packed: Uint8Array,
  method: CompressionMethod,
  compressor: Compressor,
  maxBytes: number,
): Uint8Array {
  if (packed.length <= SIZE_BYTES) throw undecodable("it holds nothing");
  const size = (packed[0]! | packed[1]! << 8 | packed[2]! << 16 | packed[3]! << 24) >>> 0;
  if (size === 0) throw undecodable("it holds nothing");
  if (size > maxBytes) throw undecodable(`it claims ${size} bytes, the limit is ${maxBytes}`);
  const inner = packed.subarray(SIZE_BYTES);
  if (method === "lz4") checkLz4Block(inner, size);
  else checkZstdFrame(inner, size);
  const payload = run(compressor, packed);
  if (payload.length !== size) {
    throw undecodable(`it claims ${size} bytes and holds ${payload.length}`);
  }
  return payload;
}

function run(compressor: Compressor, packed: Uint8Array): Uint8Array {
  try {
    return compressor.decompress(packed);
  } catch (cause) {
    throw undecodable("the decompressor refused it", cause);
  }
}

function undecodable(problem: string, cause?: unknown): TransportError {
  return new TransportError("Compression", `Cannot decompress a frame: ${problem}`, { cause });
}
