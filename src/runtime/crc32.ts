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

/** CRC-32, from the runtime's zlib where it has it. */
export const crc32: Crc32 = native ?? ((bytes, seed) => crc32ByTable(bytes, 0, bytes.length, seed));
