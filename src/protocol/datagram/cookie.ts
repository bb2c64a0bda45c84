/**
 * Cookies: a listener learns that a dialer can be reached at its address, and keeps nothing for it
 * until then.
 *
 * @module
 */

import { equalBytes } from "./packet.ts";

/** Makes the SHA-256 of bytes. */
export type Sha256 = (bytes: Uint8Array) => Uint8Array;

const BLOCK_BYTES = 64;
const HASH_BYTES = 32;
const TIME_BYTES = 8;
/** The bytes of a cookie: when it was made, and the HMAC. */
export const COOKIE_BYTES: number = TIME_BYTES + HASH_BYTES;
/** How long a cookie is good. */
export const COOKIE_MS = 10_000;
const INNER = 0x36;
const OUTER = 0x5c;

const encoder = new TextEncoder();

/** HMAC-SHA-256 (RFC 2104). */
export function hmacSha256(sha256: Sha256, key: Uint8Array, bytes: Uint8Array): Uint8Array {
  const block = new Uint8Array(BLOCK_BYTES);
  block.set(key.length > BLOCK_BYTES ? sha256(key) : key);
  const inner = sha256(padded(block, INNER, bytes));
  return sha256(padded(block, OUTER, inner));
}

/** Makes cookies and knows its own again. */
export class CookieJar {
  readonly #sha256: Sha256;
  readonly #secret: Uint8Array;

  /** `secret`: 32 random bytes. */
  constructor(sha256: Sha256, secret: Uint8Array) {
    this.#sha256 = sha256;
    this.#secret = secret;
  }

  /** The cookie for a dialer: where it is, and the tag that it chose. */
  make(address: string, tag: Uint8Array, now: number): Uint8Array {
    const cookie = new Uint8Array(COOKIE_BYTES);
    new DataView(cookie.buffer).setFloat64(0, now);
    cookie.set(this.#mac(cookie.subarray(0, TIME_BYTES), address, tag), TIME_BYTES);
    return cookie;
  }

  /** Whether a cookie is ours, was made for this dialer, and is not too old. */
  check(cookie: Uint8Array, address: string, tag: Uint8Array, now: number): boolean {
    if (cookie.length !== COOKIE_BYTES) return false;
    const mac = this.#mac(cookie.subarray(0, TIME_BYTES), address, tag);
    if (!equalBytes(cookie.subarray(TIME_BYTES), mac)) return false;
    const age = now - new DataView(cookie.buffer, cookie.byteOffset).getFloat64(0);
    return age >= 0 && age <= COOKIE_MS;
  }

  #mac(time: Uint8Array, address: string, tag: Uint8Array): Uint8Array {
    const text = encoder.encode(address);
    const bytes = new Uint8Array(TIME_BYTES + tag.length + text.length);
    bytes.set(time);
    bytes.set(tag, TIME_BYTES);
    bytes.set(text, TIME_BYTES + tag.length);
    return hmacSha256(this.#sha256, this.#secret, bytes);
  }
}

function padded(block: Uint8Array, pad: number, bytes: Uint8Array): Uint8Array {
  const joined = new Uint8Array(BLOCK_BYTES + bytes.length);
  for (let i = 0; i < BLOCK_BYTES; i++) joined[i] = block[i]! ^ pad;
  joined.set(bytes, BLOCK_BYTES);
  return joined;
}
