/**
 * The variable-length integers of QUIC (RFC 9000, section 16), up to 2^30 - 1: before a datagram
 * stands the number of the stream that it belongs to.
 *
 * @module
 */

/** What four bytes hold: streams of a connection that lives for years. */
const MAX_VALUE = 2 ** 30 - 1;

/** Bytes of a number; Infinity where it has no such form. */
export function varintBytes(value: number): number {
  if (value < 0 || value > MAX_VALUE) return Infinity;
  return value < 64 ? 1 : value < 16_384 ? 2 : 4;
}

/** The bytes behind a number. */
export function withVarint(value: number, bytes: Uint8Array): Uint8Array {
  const length = varintBytes(value);
  const all = new Uint8Array(length + bytes.length);
  for (let index = length - 1, rest = value; index >= 0; index--, rest = Math.floor(rest / 256)) {
    all[index] = rest % 256;
  }
  all[0]! |= Math.log2(length) << 6;
  all.set(bytes, length);
  return all;
}

/** The number at the start and what follows it; undefined where there is no such number. */
export function readVarint(bytes: Uint8Array): { value: number; rest: Uint8Array } | undefined {
  const first = bytes[0];
  if (first === undefined) return undefined;
  const length = 1 << (first >>> 6);
  if (length > 4 || length > bytes.length) return undefined;
  let value = first & 0x3f;
  for (let index = 1; index < length; index++) value = value * 256 + bytes[index]!;
  return { value, rest: bytes.subarray(length) };
}
