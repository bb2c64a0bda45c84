/**
 * Writing handshake messages.
 *
 * @module
 */

import { HandshakeError } from "../errors.ts";
import { encodeBase64 } from "./base64.ts";

/** The largest body of a frame before the handshake is complete. */
const MAX_BODY_BYTES = 4096;
const NONCE_BYTES = 16;

/**
 * The body of a handshake frame. Members that are undefined are left out.
 *
 * @param what Names the message in errors, as in "a hello".
 * @param reserve Bytes that something else will add.
 * @throws {HandshakeError} If it is too long for a handshake frame (4096 bytes).
 */
export function encodeMessage(
  what: string,
  members: Record<string, unknown>,
  reserve: number = 0,
): Uint8Array {
  const body = new TextEncoder().encode(JSON.stringify(members));
  const size = body.length + reserve;
  if (size <= MAX_BODY_BYTES) return body;
  throw new HandshakeError(
    `Cannot write ${what}: it has ${size} bytes and may have ${MAX_BODY_BYTES}; ` +
      "shorten the auth token, the cluster name or the features",
  );
}

/**
 * A nonce as messages carry it.
 *
 * @throws {RangeError} If it is not 16 bytes.
 */
export function encodeNonce(what: string, nonce: Uint8Array): string {
  if (nonce.length === NONCE_BYTES) return encodeBase64(nonce);
  throw new RangeError(
    `Cannot write ${what}: the nonce must be ${NONCE_BYTES} bytes, got ${nonce.length}`,
  );
}
