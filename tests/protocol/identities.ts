/** What the handshake tests share: text as bytes, and an identity to change one thing of. */

import { HandshakeError } from "../../src/errors.ts";
import type { LocalIdentity } from "../../src/protocol/handshake.ts";

/** The UTF-8 bytes of a text. */
export function utf8(text: string): Uint8Array {
  return new TextEncoder().encode(text);
}

/** The bytes of a message, parsed: for what we encode, where the order of fields says nothing. */
export function fieldsOf(body: Uint8Array): unknown {
  return JSON.parse(new TextDecoder().decode(body));
}

/** An endpoint with nothing configured, but for what is given. */
export function identity(changes: Partial<LocalIdentity> = {}): LocalIdentity {
  return {
    nodeId: "b",
    clusterName: "",
    authToken: undefined,
    incarnation: "0123456789abcdef",
    minVersion: 1,
    maxVersion: 2,
    capabilities: ["lz4"],
    maxMessageSize: 16_777_216,
    maxClockSkewMs: 300_000,
    keepaliveMs: undefined,
    ...changes,
  };
}

/** For assert.throws: a HandshakeError MALFORMED whose message has `part` and nothing unprintable. */
export function malformed(part: string | RegExp): (error: unknown) => boolean {
  return (error) =>
    error instanceof HandshakeError && error.rejectCode === "MALFORMED" &&
    /^Cannot [ -~]*[^.]$/.test(error.message) &&
    (typeof part === "string" ? error.message.includes(part) : part.test(error.message));
}
