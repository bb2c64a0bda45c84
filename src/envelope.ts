/**
 * Signed envelopes for an application's own use, and what an endpoint signs and verifies with.
 * docs/envelopes.md has the binary form.
 *
 * @module
 */

import { ConfigError } from "./errors.ts";
import type { ResolvedSigning, TrustedKeys } from "./options.ts";
import { PacketSeal } from "./protocol/datagram/seal.ts";
import {
  decodeEnvelope,
  encodeEnvelope,
  type Envelope,
  isSignedBy,
  type SignedEnvelope,
} from "./protocol/envelope.ts";
import {
  EnvelopeSigner,
  EnvelopeVerifier,
  refusedAs,
  refusedEnvelope,
} from "./protocol/envelope_seal.ts";
import type { EnvelopeRefusal, EnvelopeWindow } from "./protocol/envelope_window.ts";
import { keyBytesOf } from "./resolve_keys.ts";
import {
  parsePublicKey,
  readSigningKey,
  readVerifyingKey,
  type SigningKey,
  type VerifyingKey,
} from "./runtime/ed25519.ts";
import { systemEnvironment } from "./runtime/environment.ts";
import { packetCrypto } from "./runtime/packet_crypto.ts";
import { showValue } from "./show_value.ts";

/** What {@linkcode signEnvelope} signs. */
export interface EnvelopeToSign extends Omit<Envelope, "timestamp"> {
  /**
   * When it is signed, in whole milliseconds since the epoch.
   * @default {Date.now()}
   */
  readonly timestamp?: number;
}

/** What {@linkcode verifyEnvelope} holds an envelope against. */
export interface VerifyEnvelopeOptions {
  /** The public keys of senders: 32 bytes as base64, one or a list of them. */
  trustedKeys: TrustedKeys;
  /** Whom the envelope must be for; left out, anyone. */
  recipient?: string;
  /**
   * Our clock, milliseconds since the epoch.
   * @default {Date.now()}
   */
  now?: number;
  /**
   * The largest difference in milliseconds between its timestamp and `now`; Infinity for what was
   * stored. Not used together with a window, which has its own.
   * @default {300000}
   */
  maxAgeMs?: number;
  /** Remembers what was taken, so that nothing is taken twice. Left out, replays are not noticed. */
  window?: EnvelopeWindow;
}

const DEFAULT_MAX_AGE_MS = 300_000;

/**
 * Signs a message. {@linkcode verifyEnvelope} takes the result apart.
 *
 * @param privateKey An Ed25519 key as PEM text (PKCS #8), or one that `readSigningKey` has read,
 * which is quicker where it signs many.
 * @throws {TypeError} Where a name is not 1 to 255 characters of printable ASCII without spaces.
 * @throws {RangeError} Where a number is out of range, or the text is no Ed25519 key.
 *
 * @example
 * ```ts ignore
 * const bytes = signEnvelope(
 *   { sender: "did:key:z6MkhaXg", recipient: "did:key:z6MkpTHR", sequence: 1, payload },
 *   privateKeyPem,
 * );
 * ```
 */
export function signEnvelope(
  envelope: EnvelopeToSign,
  privateKey: string | SigningKey,
): Uint8Array {
  const key = typeof privateKey === "string" ? readSigningKey(privateKey) : privateKey;
  const timestamp = envelope.timestamp ?? systemEnvironment.wallClock();
  return encodeEnvelope({ ...envelope, timestamp }, (bytes) => key.sign(bytes));
}

/**
 * Reads an envelope and checks all of it: form, recipient, age, signature, and that it wasn't taken
 * before. `payload` and `signature` are views into `bytes`.
 *
 * @throws {TransportError} `InvalidFrame` where the bytes are no envelope; `IdentityMismatch` where
 * it is not to be believed.
 * @throws {TypeError} Where a trusted key is not base64 of 32 bytes.
 *
 * @example
 * ```ts ignore
 * const window = new EnvelopeWindow();
 * const { sender, payload } = verifyEnvelope(bytes, {
 *   trustedKeys: { "did:key:z6MkhaXg": "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=" },
 *   window,
 * });
 * ```
 */
export function verifyEnvelope(bytes: Uint8Array, options: VerifyEnvelopeOptions): SignedEnvelope {
  const { trustedKeys, recipient, now = systemEnvironment.wallClock(), window } = options;
  const envelope = decodeEnvelope(bytes);
  const { sender, sequence, timestamp } = envelope;
  if (recipient !== undefined && envelope.recipient !== recipient) {
    throw refusedEnvelope(sender, `it is for ${showValue(envelope.recipient)}`);
  }
  const keys = keysOf(trustedKeys, sender);
  if (keys.length === 0) throw refusedEnvelope(sender, "no key is trusted for it");
  const refusal = window === undefined
    ? checkAge(timestamp, now, options.maxAgeMs ?? DEFAULT_MAX_AGE_MS)
    : window.check(sender, sequence, timestamp, now);
  if (refusal !== undefined) throw refusedAs(refusal, sender);
  if (!isSignedBy(bytes, keys, verifyWithCache)) {
    throw refusedEnvelope(sender, "the signature is wrong");
  }
  const late = window?.admit(sender, sequence, timestamp, now);
  if (late !== undefined) throw refusedAs(late, sender);
  return envelope;
}

/** What {@linkcode envelopeSeals} is made from. */
export interface EnvelopeSealsOptions {
  /** Our node id. */
  readonly nodeId: string;
  /** The private key, PEM; read from `signing.privateKeyPath` where that is given. */
  readonly privateKeyPem: string;
  /** The option `signing`. */
  readonly signing: ResolvedSigning;
  /** Our wall clock now, milliseconds since the epoch. */
  readonly wallClockMs: number;
}

/**
 * What an endpoint seals its messages with, and opens those of others with.
 *
 * @throws {ConfigError} Where the private key isn't an Ed25519 key. It quotes nothing of it.
 */
export function envelopeSeals(
  { nodeId, privateKeyPem, signing, wallClockMs }: EnvelopeSealsOptions,
): { signer: EnvelopeSigner; verifier: EnvelopeVerifier; packets: PacketSeal } {
  const key = readConfiguredKey(privateKeyPem, signing);
  const trustedKeys = keyBytesOf(signing.trustedKeys);
  const { maxAgeMs } = signing;
  return {
    packets: new PacketSeal({
      nodeId,
      sign: (bytes) => key.sign(bytes),
      verify: verifyWithCache,
      trustedKeys,
      maxAgeMs,
      encryption: packetCrypto,
    }),
    signer: new EnvelopeSigner({ nodeId, sign: (bytes) => key.sign(bytes), wallClockMs }),
    verifier: new EnvelopeVerifier({
      trustedKeys,
      verify: verifyWithCache,
      maxAgeMs,
    }),
  };
}

function readConfiguredKey(pem: string, signing: ResolvedSigning): SigningKey {
  try {
    return readSigningKey(pem);
  } catch {
    const key = signing.privateKeyPath === undefined ? "privateKey" : "privateKeyPath";
    throw new ConfigError(`signing.${key}`, "is not an Ed25519 private key in PEM (PKCS #8)");
  }
}

function checkAge(timestamp: number, now: number, maxAgeMs: number): EnvelopeRefusal | undefined {
  if (timestamp < now - maxAgeMs) return "too-old";
  return timestamp > now + maxAgeMs ? "too-new" : undefined;
}

function keysOf(trustedKeys: TrustedKeys, sender: string): readonly Uint8Array[] {
  const given = Object.hasOwn(trustedKeys, sender) ? trustedKeys[sender] : undefined;
  if (given === undefined) return [];
  return [given].flat().map((text) => {
    const key = typeof text === "string" ? parsePublicKey(text) : undefined;
    if (key !== undefined) return key;
    const problem = `a trusted key of ${showValue(sender)} is not base64 of 32 bytes`;
    throw new TypeError(`Cannot verify an envelope: ${problem}`);
  });
}

/** Public keys that have been read, which takes up to a third of the time of using one. */
const readKeys = new WeakMap<Uint8Array, VerifyingKey>();

function verifyWithCache(publicKey: Uint8Array, bytes: Uint8Array, signature: Uint8Array): boolean {
  let key = readKeys.get(publicKey);
  if (key === undefined) {
    key = readVerifyingKey(publicKey);
    readKeys.set(publicKey, key);
  }
  return key.verify(bytes, signature);
}
