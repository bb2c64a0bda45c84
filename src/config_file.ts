/**
 * Options of an endpoint from a TOML file.
 *
 * @module
 */

import { readFile } from "node:fs/promises";
import { dirname, isAbsolute, join } from "node:path";
import { ConfigError } from "./errors.ts";
import type { EndpointOptions } from "./options.ts";
import { showValue } from "./show_value.ts";
import { loadConfigFrom, MAX_PATH_CHARS } from "./toml.ts";

const TLS_PATHS = ["certPath", "keyPath", "caCertPath"] as const;
const KEY_PATHS = ["privateKeyPath"] as const;

/**
 * Reads the options of an endpoint from a TOML file, as `loadConfig` does from a text. Relative
 * paths of certificates and keys count from the file's own folder. Deno needs `--allow-read` for the file.
 *
 * @throws {ConfigError} Where the file can't be read or its content is wrong; names the file.
 *
 * @example
 * ```ts
 * import { loadConfigFile, TransportError } from "@hawser/hawser";
 *
 * try {
 *   const options = await loadConfigFile("no_such_file.toml");
 *   console.log(options.nodeId);
 * } catch (error) {
 *   if (error instanceof TransportError) console.log(error.message);
 * }
 * ```
 */
export async function loadConfigFile(path: string): Promise<EndpointOptions> {
  const options = loadConfigFrom(decode(await readBytes(path), path), path);
  const { tls, identity, signing } = options;
  const folder = dirname(path);
  if (tls !== undefined) options.tls = withPathsFrom(folder, tls, TLS_PATHS);
  if (identity !== undefined) options.identity = withPathsFrom(folder, identity, KEY_PATHS);
  if (signing !== undefined) options.signing = withPathsFrom(folder, signing, KEY_PATHS);
  return options;
}

async function readBytes(path: string): Promise<Uint8Array> {
  try {
    return await readFile(path);
  } catch (cause) {
    throw cannotRead(path, reasonOf(cause), cause);
  }
}

function decode(bytes: Uint8Array, path: string): string {
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch (cause) {
    throw cannotRead(path, "it is not UTF-8 text", cause);
  }
}

function withPathsFrom<K extends string, T extends { [_ in K]?: string }>(
  folder: string,
  table: T,
  keys: readonly K[],
): T {
  const moved = { ...table };
  for (const key of keys) {
    const path = moved[key];
    if (path !== undefined && !isAbsolute(path)) {
      Object.assign(moved, { [key]: join(folder, path) });
    }
  }
  return moved;
}

function cannotRead(path: string, reason: string, cause: unknown): ConfigError {
  const problem = `Cannot read the configuration file ${
    showValue(path, MAX_PATH_CHARS)
  }: ${reason}`;
  return new ConfigError("", problem, { cause });
}

function reasonOf(error: unknown): string {
  if (!(error instanceof Error)) return "it can't be read";
  // Deno's own class, thrown where the permission was not given.
  if (error.name === "NotCapable") return "no permission to read it (Deno needs --allow-read)";
  switch ("code" in error ? error.code : undefined) {
    case "ENOENT":
      return "there is no such file";
    case "EACCES":
    case "EPERM":
      return "no permission to read it";
    case "EISDIR":
      return "it is a folder";
    default:
      return "it can't be read";
  }
}
