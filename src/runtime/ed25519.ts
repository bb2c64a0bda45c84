/**
 * Ed25519 (RFC 8032) and SHA-256, synchronous, the same on every runtime. Needs no permission.
 *
 * @module
 */

import {
  createHash,
  createPrivateKey,
  createPublicKey,
  generateKeyPairSync,
  type KeyObject,
  sign,
  verify,
} from "node:crypto";
import { Buffer } from "node:buffer";

/** A private key and what is done with it. The key itself can't be read from it. */
export interface SigningKey {
  /** The public key that belongs to it, 32 bytes. */
  readonly publicKey: Uint8Array;
  /** The signature of the message, 64 bytes. */
  sign(message: Uint8Array): Uint8Array;
}

/** A public key that has been read. */
export interface VerifyingKey {
  /** Whether the signature over the message is of this key. */
  verify(message: Uint8Array, signature: Uint8Array): boolean;
}

/** A new key, in the two forms in which it is kept. */
export interface GeneratedKey {
  /** PKCS #8 as PEM text: the secret. */
  readonly privateKeyPem: string;
  /** 32 bytes. */
  readonly publicKey: Uint8Array;
}

/** Bytes of a public key. */
export const PUBLIC_KEY_BYTES = 32;
/** Bytes of a signature. */
export const SIGNATURE_BYTES = 64;
/** SubjectPublicKeyInfo of an Ed25519 key up to the key itself (RFC 8410, section 4). */
const SPKI_PREFIX = Buffer.from("302a300506032b6570032100", "hex");
const PEM = /^\s*-----BEGIN PRIVATE KEY-----([A-Za-z0-9+/=\s]*)-----END PRIVATE KEY-----\s*$/;
const BASE64_KEY = /^[A-Za-z0-9+/]{42}[AEIMQUYcgkosw048]=$/;

/** Makes a new key. */
export function generateSigningKey(): GeneratedKey {
  const { privateKey, publicKey } = generateKeyPairSync("ed25519");
  return {
    privateKeyPem: String(privateKey.export({ format: "pem", type: "pkcs8" })),
    publicKey: rawPublicKey(publicKey),
  };
}

/**
 * Reads a private key.
 *
 * @param pem PKCS #8 as PEM text, not encrypted.
 * @throws {RangeError} If it is anything else. The message quotes nothing of it.
 */
export function readSigningKey(pem: string): SigningKey {
  const key = privateKeyOf(pem);
  return {
    publicKey: rawPublicKey(createPublicKey(key)),
    sign: (message) => new Uint8Array(sign(null, message, key)),
  };
}

/**
 * Reads a public key.
 *
 * @throws {RangeError} If it is not 32 bytes.
 */
export function readVerifyingKey(publicKey: Uint8Array): VerifyingKey {
  if (publicKey.length !== PUBLIC_KEY_BYTES) {
    throw new RangeError(
      `Cannot read the public key: it must be ${PUBLIC_KEY_BYTES} bytes, got ${publicKey.length}`,
    );
  }
  const der = Buffer.concat([SPKI_PREFIX, publicKey]);
  const key = createPublicKey({ key: der, format: "der", type: "spki" });
  return {
    verify: (message, signature) =>
      signature.length === SIGNATURE_BYTES && verify(null, message, key, signature),
  };
}

/**
 * Whether the signature over the message is of that key.
 *
 * @throws {RangeError} If the key is not 32 bytes.
 */
export function verifySignature(
  publicKey: Uint8Array,
  message: Uint8Array,
  signature: Uint8Array,
): boolean {
  return readVerifyingKey(publicKey).verify(message, signature);
}

/** The SHA-256 of the bytes, 32 bytes. */
export function sha256(bytes: Uint8Array): Uint8Array {
  return new Uint8Array(createHash("sha256").update(bytes).digest());
}

/** A public key as configurations name it: base64 with padding. */
export function formatPublicKey(publicKey: Uint8Array): string {
  return Buffer.from(publicKey).toString("base64");
}

/** Reads what {@linkcode formatPublicKey} writes; undefined where the text is anything else. */
export function parsePublicKey(text: string): Uint8Array | undefined {
  return BASE64_KEY.test(text) ? new Uint8Array(Buffer.from(text, "base64")) : undefined;
}

function privateKeyOf(pem: string): KeyObject {
  // Taken apart here: some runtimes ask on the terminal for the pass phrase of an encrypted key.
  const base64 = PEM.exec(pem)?.[1];
  if (base64 === undefined) {
    throw new RangeError("Cannot read the private key: it must be one PKCS #8 key as PEM text");
  }
  const key = importKey(Buffer.from(base64, "base64"));
  if (key?.asymmetricKeyType === "ed25519") return key;
  throw new RangeError("Cannot read the private key: it is not an Ed25519 key");
}

function importKey(der: Buffer): KeyObject | undefined {
  try {
    return createPrivateKey({ key: der, format: "der", type: "pkcs8" });
  } catch {
    // What the runtime says may quote the key.
    return undefined;
  }
}

function rawPublicKey(key: KeyObject): Uint8Array {
  const der = key.export({ format: "der", type: "spki" });
  return new Uint8Array(der.subarray(SPKI_PREFIX.length));
}
