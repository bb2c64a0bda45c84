/**
 * Checks the Ed25519 keys in the options of an endpoint, without reading files. No message quotes a
 * key: what was given for a public one may be a private one.
 *
 * @module
 */

import { DEFAULT_OPTIONS } from "./default_options.ts";
import { joinEntry, OptionReader, type OptionSource } from "./option_reader.ts";
import type { ResolvedIdentity, ResolvedKeys, ResolvedSigning } from "./options.ts";
import { MAX_MS } from "./resolve_tables.ts";

const IDENTITY_KEYS = ["privateKey", "privateKeyPath", "trustedKeys"];
const SIGNING_KEYS = [...IDENTITY_KEYS, "maxAgeMs"];
/** An Ed25519 key has 119 bytes as PEM. */
const MAX_PEM_BYTES = 4096;
const PRIVATE_KEY = /^\s*-----BEGIN PRIVATE KEY-----[A-Za-z0-9+/=\s]*-----END PRIVATE KEY-----\s*$/;
/** PATH_MAX of Linux. */
const MAX_PATH_BYTES = 4096;
const MAX_TRUSTED_NODES = 65_536;
/** Each is tried in turn where a signature is wrong, so there must be few. */
const MAX_KEYS_PER_NODE = 16;
/** Base64 of 32 bytes; the last digit has two bits that don't count and must be 0. */
const PUBLIC_KEY = /^[A-Za-z0-9+/]{42}[AEIMQUYcgkosw048]=$/;
const NO_KEYS: ResolvedKeys = Object.freeze({});

/** Checks `identity`. Undefined where it holds nothing. */
export function resolveIdentity(
  value: unknown,
  source: OptionSource,
): ResolvedIdentity | undefined {
  if (value === undefined) return undefined;
  const reader = new OptionReader(value, "identity", IDENTITY_KEYS, source);
  const privateKey = resolvePrivateKey(reader);
  const trustedKeys = resolveTrustedKeys(reader, "identity", source);
  if (Object.keys(privateKey).length === 0 && trustedKeys === undefined) return undefined;
  return Object.freeze({ ...privateKey, trustedKeys: trustedKeys ?? NO_KEYS });
}

/**
 * Checks `signing`, of which half would be worth nothing. Undefined where it isn't given.
 *
 * What is sent again within `resumeWindowMs` goes out in its first envelope, which must not be too
 * old by then.
 */
export function resolveSigning(
  value: unknown,
  source: OptionSource,
  resumeWindowMs: number,
): ResolvedSigning | undefined {
  if (value === undefined) return undefined;
  const reader = new OptionReader(value, "signing", SIGNING_KEYS, source);
  const privateKey = resolvePrivateKey(reader);
  if (Object.keys(privateKey).length === 0) {
    throw reader.error("privateKey", `is required, or ${reader.nameOf("privateKeyPath")}`);
  }
  const trustedKeys = resolveTrustedKeys(reader, "signing", source);
  if (trustedKeys === undefined) throw reader.error("trustedKeys", "is required");
  const maxAgeMs = reader.integer("maxAgeMs", 1, MAX_MS) ?? DEFAULT_OPTIONS.signing.maxAgeMs;
  if (maxAgeMs < resumeWindowMs) {
    const least = `${source.nameOf("resumeWindowMs")} (${resumeWindowMs})`;
    throw reader.wrongValue("maxAgeMs", `must be at least ${least}`, maxAgeMs);
  }
  return Object.freeze({ ...privateKey, trustedKeys, maxAgeMs });
}

/** The bytes of trusted keys, by node id. */
export function keyBytesOf(keys: ResolvedKeys): ReadonlyMap<string, readonly Uint8Array[]> {
  return new Map(
    Object.entries(keys).map(([nodeId, texts]) => [nodeId, texts.map(decodePublicKey)]),
  );
}

type PrivateKey = Pick<ResolvedIdentity, "privateKey" | "privateKeyPath">;

function resolvePrivateKey(reader: OptionReader): PrivateKey {
  const text = reader.secret("privateKey", 0, MAX_PEM_BYTES);
  if (text !== undefined && !PRIVATE_KEY.test(text)) {
    const advice = `; use ${reader.nameOf("privateKeyPath")} for a path`;
    throw reader.error("privateKey", `is not a private key in PEM (PKCS #8)${advice}`);
  }
  const path = resolveKeyPath(reader);
  if (text !== undefined && path !== undefined) {
    const other = reader.nameOf("privateKey");
    throw reader.error("privateKeyPath", `must not be given together with ${other}`);
  }
  if (text !== undefined) return { privateKey: text };
  return path === undefined ? {} : { privateKeyPath: path };
}

function resolveKeyPath(reader: OptionReader): string | undefined {
  const value = reader.raw("privateKeyPath");
  if (typeof value === "string" && value.includes("-----BEGIN ")) {
    const advice = `use ${reader.nameOf("privateKey")} for PEM text`;
    throw reader.error("privateKeyPath", `is PEM text, not a path; ${advice}`);
  }
  const path = reader.text("privateKeyPath", 1, MAX_PATH_BYTES);
  if (path?.includes("\0")) {
    throw reader.wrongValue("privateKeyPath", "must not contain a NUL", path);
  }
  return path;
}

function resolveTrustedKeys(
  reader: OptionReader,
  table: string,
  source: OptionSource,
): ResolvedKeys | undefined {
  const entries = reader.entries("trustedKeys", MAX_TRUSTED_NODES);
  // Not by assignment: a node may be called "__proto__".
  return entries && Object.freeze(Object.fromEntries(
    entries.map(([nodeId, value]) => {
      const path = joinEntry(`${table}.trustedKeys`, nodeId);
      return [nodeId, resolveKeysOf(value, path, source)];
    }),
  ));
}

function resolveKeysOf(value: unknown, path: string, source: OptionSource): readonly string[] {
  if (!Array.isArray(value)) return Object.freeze([resolvePublicKey(value, path, source)]);
  if (value.length < 1 || value.length > MAX_KEYS_PER_NODE) {
    const problem = `must have 1 to ${MAX_KEYS_PER_NODE} keys, got ${value.length}`;
    throw source.error(source.nameOf(path), problem);
  }
  return Object.freeze(
    Array.from(value, (item, index) => resolvePublicKey(item, `${path}[${index}]`, source)),
  );
}

function resolvePublicKey(value: unknown, path: string, source: OptionSource): string {
  if (typeof value === "string" && PUBLIC_KEY.test(value)) return value;
  const problem = "must be an Ed25519 public key: 32 bytes as base64";
  throw source.error(source.nameOf(path), problem);
}

function decodePublicKey(text: string): Uint8Array {
  return Uint8Array.from(atob(text), (char) => char.charCodeAt(0));
}
