/**
 * Signed envelopes: a message with its sender, recipient, number and time under one Ed25519
 * signature. docs/envelopes.md has the binary form.
 *
 * @module
 */

import { TransportError } from "../errors.ts";
import { quote } from "./text.ts";

/** What is signed: a message, who sends it to whom, its number and its time. */
export interface Envelope {
  /** Who signs it: 1 to 255 bytes of printable ASCII without spaces, a node id or a DID. */
  readonly sender: string;
  /** Whom it is for; the same form. */
  readonly recipient: string;
  /** Its number, 0 to 2^53-1; a sender never uses one twice. */
  readonly sequence: number;
  /** When it was signed, in whole milliseconds since the epoch, 0 to 2^53-1. */
  readonly timestamp: number;
  /** The application's bytes. */
  readonly payload: Uint8Array;
}

/** An envelope together with its signature, which is not checked yet. */
export interface SignedEnvelope extends Envelope {
  /** The Ed25519 signature, 64 bytes. */
  readonly signature: Uint8Array;
}

/** Ed25519 from outside; both functions are synchronous. */
export interface EnvelopeCrypto {
  /** Signs bytes with our private key; returns 64 bytes. */
  sign(bytes: Uint8Array): Uint8Array;
  /** Whether a signature of 64 bytes over `bytes` was made with the key of these 32 bytes. */
  verify(publicKey: Uint8Array, bytes: Uint8Array, signature: Uint8Array): boolean;
}

/** The first byte of an envelope. */
export const ENVELOPE_VERSION = 1;
/** The length of an Ed25519 signature (RFC 8032, section 5.1.6). */
export const SIGNATURE_BYTES = 64;
/** The most that an envelope is longer than its payload. */
export const MAX_ENVELOPE_OVERHEAD: number = overheadBytes(255, 255);

/**
 * Goes before what is signed, and is not sent: a signature made for anything else is none of an
 * envelope, and the other way round.
 */
const CONTEXT = new TextEncoder().encode("hawser envelope 1\0");
/** The payload's length is a u32. */
const MAX_PAYLOAD_BYTES = 2 ** 32 - 1;
const NAME = /^[!-~]{1,255}$/;
const NO_BYTES: Uint8Array = new Uint8Array(0);

/** By how many bytes an envelope between these two is longer than its payload. */
export function envelopeOverhead(sender: string, recipient: string): number {
  return overheadBytes(sender.length, recipient.length);
}

/**
 * Writes and signs an envelope. The payload is copied once.
 *
 * @param sign Signs with the sender's private key.
 * @param around What is signed along and not sent: who verifies knows it otherwise.
 * @throws {TypeError} Where a name is not 1 to 255 characters of printable ASCII without spaces.
 * @throws {RangeError} Where a number is not an integer from 0 to 2^53-1, or the payload has 4 GiB.
 */
export function encodeEnvelope(
  envelope: Envelope,
  sign: EnvelopeCrypto["sign"],
  around: Uint8Array = NO_BYTES,
): Uint8Array {
  const { sender, recipient, payload } = envelope;
  checkEnvelope(envelope);
  const end = CONTEXT.length + envelopeOverhead(sender, recipient) - SIGNATURE_BYTES +
    payload.length;
  // With the context before it and the signature's place after it, so that what is signed lies in
  // one piece without a copy.
  const bytes = new Uint8Array(end + Math.max(SIGNATURE_BYTES, around.length));
  const view = new DataView(bytes.buffer);
  bytes.set(CONTEXT);
  let at = CONTEXT.length;
  bytes[at++] = ENVELOPE_VERSION;
  at = writeName(bytes, at, sender);
  at = writeName(bytes, at, recipient);
  at = writeU64(view, at, envelope.sequence);
  at = writeU64(view, at, envelope.timestamp);
  view.setUint32(at, payload.length);
  bytes.set(payload, at + 4);
  bytes.set(around, end);
  const signature = sign(bytes.subarray(0, end + around.length));
  if (signature.length !== SIGNATURE_BYTES) {
    throw new TypeError(
      `Cannot sign an envelope: the signature must have 64 bytes, got ${signature.length}`,
    );
  }
  bytes.set(signature, end);
  return bytes.subarray(CONTEXT.length, end + SIGNATURE_BYTES);
}

/**
 * Reads an envelope; its signature is not checked. `payload` and `signature` are views into `bytes`.
 *
 * @throws {TransportError} `InvalidFrame` for anything that {@linkcode encodeEnvelope} doesn't write.
 */
export function decodeEnvelope(bytes: Uint8Array): SignedEnvelope {
  return new EnvelopeReader(bytes).read();
}

/**
 * What the signature of an envelope covers: the context, everything before the signature, and what
 * is signed along.
 */
export function signedBytesOf(envelope: Uint8Array, around: Uint8Array = NO_BYTES): Uint8Array {
  const length = envelope.length - SIGNATURE_BYTES;
  const bytes = new Uint8Array(CONTEXT.length + length + around.length);
  bytes.set(CONTEXT);
  bytes.set(envelope.subarray(0, length), CONTEXT.length);
  bytes.set(around, CONTEXT.length + length);
  return bytes;
}

/** Whether one of the keys made the signature of an envelope. */
export function isSignedBy(
  envelope: Uint8Array,
  keys: readonly Uint8Array[],
  verify: EnvelopeCrypto["verify"],
  around: Uint8Array = NO_BYTES,
): boolean {
  const bytes = signedBytesOf(envelope, around);
  const signature = envelope.subarray(envelope.length - SIGNATURE_BYTES);
  return keys.some((key) => verify(key, bytes, signature));
}

function overheadBytes(senderBytes: number, recipientBytes: number): number {
  return 1 + (1 + senderBytes) + (1 + recipientBytes) + 8 + 8 + 4 + SIGNATURE_BYTES;
}

function checkEnvelope({ sender, recipient, sequence, timestamp, payload }: Envelope): void {
  for (const [what, name] of [["sender", sender], ["recipient", recipient]] as const) {
    if (typeof name === "string" && NAME.test(name)) continue;
    const demand = "must be 1 to 255 characters of printable ASCII without spaces";
    throw new TypeError(`Cannot sign an envelope: ${what} ${demand}`);
  }
  for (const [what, value] of [["sequence", sequence], ["timestamp", timestamp]] as const) {
    if (Number.isSafeInteger(value) && value >= 0) continue;
    const demand = `must be an integer from 0 to 2^53-1, got ${String(value)}`;
    throw new RangeError(`Cannot sign an envelope: ${what} ${demand}`);
  }
  if (!(payload instanceof Uint8Array)) {
    throw new TypeError("Cannot sign an envelope: payload must be a Uint8Array");
  }
  if (payload.length > MAX_PAYLOAD_BYTES) {
    throw new RangeError("Cannot sign an envelope: the payload has 4 GiB or more");
  }
}

/** Writes a name of ASCII behind its length; returns where it ends. */
function writeName(bytes: Uint8Array, at: number, name: string): number {
  bytes[at++] = name.length;
  for (let i = 0; i < name.length; i++) bytes[at++] = name.charCodeAt(i);
  return at;
}

function writeU64(view: DataView, at: number, value: number): number {
  view.setUint32(at, Math.floor(value / 2 ** 32));
  view.setUint32(at + 4, value >>> 0);
  return at + 8;
}

/** Reads one envelope, front to back. */
class EnvelopeReader {
  readonly #bytes: Uint8Array;
  readonly #view: DataView;
  #at = 0;

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  read(): SignedEnvelope {
    const version = this.#u8();
    if (version !== ENVELOPE_VERSION) throw invalid(`version ${version} is unknown`);
    const sender = this.#name("sender");
    const recipient = this.#name("recipient");
    const sequence = this.#u64("sequence");
    const timestamp = this.#u64("timestamp");
    this.#need(4);
    const length = this.#view.getUint32(this.#at);
    this.#at += 4;
    const left = this.#bytes.length - this.#at - SIGNATURE_BYTES;
    if (length !== left) {
      throw invalid(`the payload should have ${length} bytes, and there are ${Math.max(left, 0)}`);
    }
    const end = this.#at + length;
    const payload = this.#bytes.subarray(this.#at, end);
    return {
      sender,
      recipient,
      sequence,
      timestamp,
      payload,
      signature: this.#bytes.subarray(end),
    };
  }

  #need(count: number): void {
    if (this.#bytes.length - this.#at < count) throw invalid("it is cut short");
  }

  #u8(): number {
    this.#need(1);
    return this.#bytes[this.#at++]!;
  }

  #name(what: string): string {
    const length = this.#u8();
    this.#need(length);
    const end = this.#at + length;
    const name = String.fromCharCode(...this.#bytes.subarray(this.#at, end));
    this.#at = end;
    if (NAME.test(name)) return name;
    throw invalid(`${what} ${quote(name)} is not 1 to 255 bytes of printable ASCII without spaces`);
  }

  #u64(what: string): number {
    this.#need(8);
    const value = this.#view.getUint32(this.#at) * 2 ** 32 + this.#view.getUint32(this.#at + 4);
    this.#at += 8;
    if (Number.isSafeInteger(value)) return value;
    throw invalid(`${what} is above 2^53-1`);
  }
}

function invalid(reason: string): TransportError {
  return new TransportError("InvalidFrame", `Cannot read an envelope: ${reason}`);
}
