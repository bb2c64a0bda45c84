/**
 * The bytes of a proof of identity (docs/protocol.md, section "Proof of identity"): what is hashed
 * and signed, and how signatures stand in welcome and proof. Version 3.
 *
 * @module
 */

import { HandshakeError } from "../errors.ts";
import { encodeBase64 } from "./base64.ts";
import { type Fields, readFields } from "./fields.ts";

/** Whose proof it is. The one can't be used as the other. */
export type ProofRole = "dialer" | "listener";

/** What stands before everything else that is hashed. */
const LABEL = "hawser/1 proof";
const PUBLIC_KEY_BYTES = 32;
const SIGNATURE_BYTES = 64;
/** Base64 of 32 bytes, padded, with the unused bits of the last digit 0. */
const PUBLIC_KEY = /^[A-Za-z0-9+/]{42}[AEIMQUYcgkosw048]=$/;
/** The same of 64 bytes. */
const SIGNATURE = /^[A-Za-z0-9+/]{85}[AQgw]==$/;
/** What `signature` adds to a welcome: its name and punctuation, and 88 digits. */
export const SIGNATURE_MEMBER_BYTES: number = ',"signature":""'.length + 88;
const CLOSE_OBJECT = 0x7d;

/**
 * The bytes of which the SHA-256 is signed: `hawser/1 proof`, the role, then hello and welcome, each
 * after its length as u32.
 *
 * @param hello The body of the hello's frame.
 * @param welcome The body of the welcome's frame; for the listener's own proof without `signature`.
 */
export function proofInput(role: ProofRole, hello: Uint8Array, welcome: Uint8Array): Uint8Array {
  const head = new TextEncoder().encode(LABEL + role);
  const bytes = new Uint8Array(head.length + 4 + hello.length + 4 + welcome.length);
  const view = new DataView(bytes.buffer);
  bytes.set(head);
  let at = head.length;
  for (const part of [hello, welcome]) {
    view.setUint32(at, part.length);
    bytes.set(part, at + 4);
    at += 4 + part.length;
  }
  return bytes;
}

/** The welcome with the listener's signature as its last member. */
export function appendSignature(welcome: Uint8Array, signature: Uint8Array): Uint8Array {
  const tail = signatureTail(encodeSignature(signature));
  const signed = new Uint8Array(welcome.length - 1 + tail.length);
  signed.set(welcome.subarray(0, -1));
  signed.set(tail, welcome.length - 1);
  return signed;
}

/**
 * The welcome without the listener's signature: what `appendSignature` was given.
 *
 * @param signature The member as it was read from this welcome.
 * @throws {HandshakeError} With `rejectCode` "MALFORMED" if it is not the last member, written
 * without white space.
 */
export function withoutSignature(welcome: Uint8Array, signature: string): Uint8Array {
  const tail = signatureTail(signature);
  const start = welcome.length - tail.length;
  if (start < 1 || tail.some((byte, index) => byte !== welcome[start + index])) {
    throw new HandshakeError(
      "Cannot read the listener's answer: signature must be its last member, without white space",
      "MALFORMED",
    );
  }
  const unsigned = welcome.slice(0, start + 1);
  unsigned[start] = CLOSE_OBJECT;
  return unsigned;
}

/** The body of the frame in which a dialer proves its key. */
export function encodeProof(signature: Uint8Array): Uint8Array {
  return new TextEncoder().encode(`{"type":"proof","signature":"${encodeSignature(signature)}"}`);
}

/**
 * Reads the body of the frame behind a welcome that asks for a proof. Returns the signature in
 * base64.
 *
 * @throws {HandshakeError} With `rejectCode` "MALFORMED" if it is anything else.
 */
export function parseProof(body: Uint8Array): string {
  const fields = readFields("the proof", body);
  if (fields.text("type") !== "proof") throw fields.wrong("type", '"proof"');
  return fields.required("signature", readSignature(fields));
}

/** Reads an optional `public_key`. */
export function readPublicKey(fields: Fields): string | undefined {
  return fields.match("public_key", PUBLIC_KEY, "base64 of 32 bytes");
}

/** Reads an optional `signature`. */
export function readSignature(fields: Fields): string | undefined {
  return fields.match("signature", SIGNATURE, "base64 of 64 bytes");
}

/**
 * A public key as messages carry it.
 *
 * @throws {RangeError} If it is not 32 bytes.
 */
export function encodePublicKey(key: Uint8Array): string {
  return encodeExactly(PUBLIC_KEY_BYTES, "public key", key);
}

function encodeSignature(signature: Uint8Array): string {
  return encodeExactly(SIGNATURE_BYTES, "signature", signature);
}

function encodeExactly(length: number, what: string, bytes: Uint8Array): string {
  if (bytes.length === length) return encodeBase64(bytes);
  throw new RangeError(`Cannot write a ${what}: it must be ${length} bytes, got ${bytes.length}`);
}

function signatureTail(signature: string): Uint8Array {
  return new TextEncoder().encode(`,"signature":"${signature}"}`);
}
