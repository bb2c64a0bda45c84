/**
 * SHA-1, which the WebSocket handshake needs to show that a server speaks WebSocket at all. Nothing
 * rests on its strength.
 *
 * @module
 */

import { createHash } from "node:crypto";

/** The SHA-1 of a few bytes. */
export function sha1(bytes: Uint8Array): Uint8Array {
  return new Uint8Array(createHash("sha1").update(bytes).digest());
}
