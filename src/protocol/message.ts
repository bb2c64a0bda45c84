/**
 * Message bodies of versions 1 and 2 (docs/protocol.md, section 3). A version 1 body is its
 * payload; what follows is version 2's flags byte and LZ4.
 *
 * @module
 */

import { TransportError } from "../errors.ts";
import { checkLz4Block } from "./lz4_block.ts";

const FLAG_LZ4 = 0b0000_0001;
const SIZE_BYTES = 4;

/**
 * LZ4 in the `lz4_flex` size-prepended form: the uncompressed size as u32 little-endian, then one
 * LZ4 block. Either function may throw anything at all.
 */
export interface Lz4 {
  /** Compresses bytes; the result may be longer than they are. */
  compress(bytes: Uint8Array): Uint8Array;
  /** Decompresses what `compress` made. The result is not a view of memory that is used again. */
  decompress(bytes: Uint8Array): Uint8Array;
}

/**
 * Compresses a payload if that is worth it.
 *
 * @returns What follows a flags byte with bit 0 set; undefined where the payload should go out as
 * it is, because compressed it is no smaller or the compressor failed.
 */
export function compressMessage(payload: Uint8Array, lz4: Lz4): Uint8Array | undefined {
  let packed: Uint8Array;
  try {
    packed = lz4.compress(payload);
  } catch {
    // Out of memory, most likely. The message needs no compressor to be sent.
    return undefined;
  }
  return packed.length < payload.length ? packed : undefined;
}

/**
 * Takes a version 2 body apart.
 *
 * @param body The body of one frame.
 * @param lz4 Undefined where `lz4` was not negotiated.
 * @param maxMessageSize The longest payload accepted, in bytes.
 * @returns The payload: a view of `body`, possibly empty, or new memory where it was compressed.
 * @throws {TransportError} `InvalidFrame` for an empty body, a reserved flag, compression that was
 * not negotiated, or an uncompressed payload above the limit; `Compression` for a compressed one
 * that is malformed, claims 0 bytes or more than the limit, or is not what it claims.
 */
export function decodeBodyV2(
  body: Uint8Array,
  lz4: Lz4 | undefined,
  maxMessageSize: number,
): Uint8Array {
  const flags = body[0];
  if (flags === undefined) throw invalid("its body is empty");
  if ((flags & ~FLAG_LZ4) !== 0) {
    throw invalid(`flags 0x${flags.toString(16).padStart(2, "0")} have reserved bits`);
  }
  if (flags === FLAG_LZ4) {
    if (lz4 === undefined) throw invalid("it is compressed, which was not negotiated");
    return decompressMessage(body.subarray(1), lz4, maxMessageSize);
  }
  if (body.length - 1 > maxMessageSize) {
    throw invalid(`its payload has ${body.length - 1} bytes, the limit is ${maxMessageSize}`);
  }
  return body.subarray(1);
}

function decompressMessage(packed: Uint8Array, lz4: Lz4, maxMessageSize: number): Uint8Array {
  if (packed.length <= SIZE_BYTES) throw undecodable("it holds nothing");
  const size = (packed[0]! | packed[1]! << 8 | packed[2]! << 16 | packed[3]! << 24) >>> 0;
  if (size === 0) throw undecodable("it holds nothing");
  if (size > maxMessageSize) {
    throw undecodable(`it claims ${size} bytes, the limit is ${maxMessageSize}`);
  }
  checkLz4Block(packed.subarray(SIZE_BYTES), size);
  let payload: Uint8Array;
  try {
    payload = lz4.decompress(packed);
  } catch (cause) {
    throw undecodable("the decompressor refused it", cause);
  }
  if (payload.length !== size) {
    throw undecodable(`it claims ${size} bytes and holds ${payload.length}`);
  }
  return payload;
}

function invalid(problem: string): TransportError {
  return new TransportError("InvalidFrame", `Cannot read a message: ${problem}`);
}

function undecodable(problem: string, cause?: unknown): TransportError {
  return new TransportError("Compression", `Cannot decompress a message: ${problem}`, { cause });
}
