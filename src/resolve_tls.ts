/**
 * Checks the certificates in the options of an endpoint, without reading files.
 *
 * @module
 */

import type { ConfigError } from "./errors.ts";
import { DEFAULT_OPTIONS, NODE_ID_VERIFICATIONS } from "./default_options.ts";
import { OptionReader, type OptionSource } from "./option_reader.ts";
import type { ResolvedTls, TlsOptions } from "./options.ts";

/** Each certificate or key, and the option that names a file with it. */
const MATERIAL = [["cert", "certPath"], ["key", "keyPath"], ["ca", "caCertPath"]] as const;
const KEYS = [...MATERIAL.flat(), "requireClientAuth", "nodeIdVerification"];
/** Hundreds of certificates; what is larger is no PEM file. */
const MAX_PEM_BYTES = 2 ** 20;
/** PATH_MAX of Linux. */
const MAX_PATH_BYTES = 4096;

/**
 * Checks `tls` and fills in its defaults. Undefined where no certificate, key or authority is given.
 *
 * @throws {ConfigError} As `source` makes it. No message quotes a certificate or a key.
 */
export function resolveTls(
  value: unknown,
  source: OptionSource,
): ResolvedTls | undefined {
  if (value === undefined) return undefined;
  const reader = new OptionReader(value, "tls", KEYS, source);
  const material: TlsOptions = {};
  for (const [textKey, pathKey] of MATERIAL) {
    const text = resolvePem(reader, textKey, pathKey);
    const path = resolvePath(reader, textKey, pathKey);
    if (text !== undefined && path !== undefined) {
      throw reader.error(pathKey, `must not be given together with ${reader.nameOf(textKey)}`);
    }
    if (text !== undefined) material[textKey] = text;
    if (path !== undefined) material[pathKey] = path;
  }
  checkPair(reader, material);
  const defaults = DEFAULT_OPTIONS.tls;
  const switches = {
    requireClientAuth: reader.boolean("requireClientAuth") ?? defaults.requireClientAuth,
    nodeIdVerification: reader.oneOf("nodeIdVerification", NODE_ID_VERIFICATIONS) ??
      defaults.nodeIdVerification,
  };
  if (Object.keys(material).length === 0) return undefined;
  return Object.freeze({ ...material, ...switches });
}

type TextKey = (typeof MATERIAL)[number][0];
type PathKey = (typeof MATERIAL)[number][1];

function resolvePem(reader: OptionReader, key: TextKey, pathKey: PathKey): string | undefined {
  const value = reader.secret(key, 0, MAX_PEM_BYTES);
  if (value === undefined || /^-----BEGIN /m.test(value)) return value;
  const advice = looksLikePath(value) ? `; use ${reader.nameOf(pathKey)} for a path` : "";
  throw reader.error(key, `is not PEM text${advice}`);
}

function resolvePath(reader: OptionReader, key: TextKey, pathKey: PathKey): string | undefined {
  const value = reader.raw(pathKey);
  if (typeof value === "string" && value.includes("-----BEGIN ")) {
    throw reader.error(pathKey, `is PEM text, not a path; use ${reader.nameOf(key)} for PEM text`);
  }
  const path = reader.text(pathKey, 1, MAX_PATH_BYTES);
  if (path?.includes("\0")) throw reader.wrongValue(pathKey, "must not contain a NUL", path);
  return path;
}

function looksLikePath(text: string): boolean {
  return !/[\r\n]/.test(text) && (/[/\\]/.test(text) || /\.(pem|crt|cer|key|cert)$/i.test(text));
}

function checkPair(reader: OptionReader, material: TlsOptions): void {
  const { cert, certPath, key, keyPath } = material;
  const certGiven = cert !== undefined || certPath !== undefined;
  const keyGiven = key !== undefined || keyPath !== undefined;
  if (certGiven && !keyGiven) throw missingHalf(reader, "key", cert === undefined);
  if (keyGiven && !certGiven) throw missingHalf(reader, "cert", key === undefined);
}

function missingHalf(reader: OptionReader, missing: "cert" | "key", asPath: boolean): ConfigError {
  const other = missing === "cert" ? "key" : "cert";
  const given = asPath ? `${other}Path` : other;
  return reader.error(missing, `is required together with ${reader.nameOf(given)}`);
}
