/**
 * The Ed25519 keys of an endpoint: read, and made into what proves who we are and what signs
 * messages.
 *
 * @module
 */

import { envelopeSeals } from "./envelope.ts";
import { ConfigError } from "./errors.ts";
import type { ResolvedIdentity, ResolvedOptions } from "./options.ts";
import type { PacketSeal } from "./protocol/datagram/seal.ts";
import type { EnvelopeSigner, EnvelopeVerifier } from "./protocol/envelope_seal.ts";
import type { KeyIdentity } from "./protocol/handshaker.ts";
import { keyBytesOf } from "./resolve_keys.ts";
import { readSigningKey, sha256, type SigningKey, verifySignature } from "./runtime/ed25519.ts";

/** What an endpoint seals messages with, and opens those of others. */
export interface Seals {
  /** Seals ours. */
  readonly signer: EnvelopeSigner;
  /** Opens theirs. */
  readonly verifier: EnvelopeVerifier;
  /** Signs and verifies packets. */
  readonly packets: PacketSeal;
}

/** Keys that are ready for use. */
export interface OwnKeys {
  /** Undefined without the option `identity`. */
  readonly identity: KeyIdentity | undefined;
  /** Undefined without the option `signing`. */
  readonly seals: Seals | undefined;
}

/**
 * Reads the keys.
 *
 * @param wallClockMs Milliseconds since the epoch.
 * @throws {ConfigError} A file can't be read, or is no Ed25519 key. It quotes nothing of it.
 */
export async function readOwnKeys(
  { nodeId, identity, signing }: ResolvedOptions,
  readFile: (path: string) => Promise<string>,
  wallClockMs: number,
): Promise<OwnKeys> {
  const pem = identity && await readPem(identity, "identity", readFile);
  const signingPem = signing && await readPem(signing, "signing", readFile);
  return {
    identity: identity && keyIdentity(identity, pem),
    seals: signing && signingPem !== undefined
      ? envelopeSeals({ nodeId, privateKeyPem: signingPem, signing, wallClockMs })
      : undefined,
  };
}

function keyIdentity(identity: ResolvedIdentity, pem: string | undefined): KeyIdentity {
  const key = pem === undefined ? undefined : parseKey(pem, identity);
  return {
    publicKey: key?.publicKey,
    trustedKeys: keyBytesOf(identity.trustedKeys),
    sign: (digest) => {
      if (key === undefined) throw new TypeError("Cannot sign: there is no key");
      return key.sign(digest);
    },
    verify: verifySignature,
    sha256,
  };
}

function parseKey(pem: string, identity: ResolvedIdentity): SigningKey {
  try {
    return readSigningKey(pem);
  } catch {
    const key = identity.privateKeyPath === undefined ? "privateKey" : "privateKeyPath";
    throw new ConfigError(`identity.${key}`, "is not an Ed25519 private key in PEM (PKCS #8)");
  }
}

async function readPem(
  { privateKey, privateKeyPath }: ResolvedIdentity,
  table: "identity" | "signing",
  readFile: (path: string) => Promise<string>,
): Promise<string | undefined> {
  if (privateKeyPath === undefined) return privateKey;
  try {
    return await readFile(privateKeyPath);
  } catch (cause) {
    const problem = `cannot be read: ${(cause as Error).message}`;
    throw new ConfigError(`${table}.privateKeyPath`, problem, { cause });
  }
}
