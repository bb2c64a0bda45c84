/**
 * CRC-32 as Ethernet, gzip and PNG have it (IEEE 802.3, reflected, polynomial 0xEDB88320).
 *
 * @module
 */

import * as zlib from "node:zlib";
import { crc32ByTable } from "../protocol/v3/crc32_table.ts";

export { crc32ByTable } from "../protocol/v3/crc32_table.ts";

/**
 * The CRC-32 of bytes.
 *
 * @param bytes Any number of bytes.
 * @param seed The CRC-32 of what stands before them; 0 by default.
 * @returns An unsigned 32-bit integer.
 */
export type Crc32 = (bytes: Uint8Array, seed?: number) => number;

const native: Crc32 | undefined = typeof zlib.crc32 === "function" ? zlib.crc32 : undefined;
/**
 * Below so many bytes plain code is faster than a call into the runtime: one takes 120 ns on Node,
 * where plain code reads 130 bytes, and 40 ns on Deno and Bun. Above, Node's zlib reads 3 GB/s, the
 * others' 48.
 */
const MIN_NATIVE_BYTES = native === undefined
  ? Infinity
  : "Deno" in globalThis
  ? 40
  : "Bun" in globalThis
  ? 64
  : 160;

/** CRC-32, from the runtime's zlib where that is there, and worth a call. */
export const crc32: Crc32 = (bytes, seed) =>
  bytes.length < MIN_NATIVE_BYTES
    ? crc32ByTable(bytes, 0, bytes.length, seed)
    : native!(bytes, seed);
