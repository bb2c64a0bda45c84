/**
 * Options of an endpoint as TOML text. The only file that knows the TOML library.
 *
 * @module
 */

import { parse, stringify, TomlError } from "smol-toml";
import {
  CHECKSUM_MODES,
  COMPRESSION_METHODS,
  DELIVERIES,
  NODE_ID_VERIFICATIONS,
  POOL_STRATEGIES,
  RATE_LIMIT_PRESET_NAMES,
  RATE_LIMIT_PRESETS,
  SECURITY_MODES,
} from "./default_options.ts";
import { ConfigError } from "./errors.ts";
import {
  isPlainObject,
  joinEntry,
  joinPath,
  OptionReader,
  type OptionSource,
  plainSpelling,
  unknownOption,
} from "./option_reader.ts";
import type { EndpointOptions } from "./options.ts";
import { resolveOptions, resolveOptionsFrom } from "./resolve_options.ts";
import { showValue } from "./show_value.ts";
import { ANY_KEY, isTomlValue, keysOfTable, optionWordOf, tomlNameOf } from "./toml_names.ts";

/** Options nest three deep; what nests deeper is wrong, and might nest a million deep. */
const MAX_DEPTH = 16;
/** Finding the line of a wrong value parses the text once per line. */
const MAX_LINES_SEARCHED = 500;

/** The longest path that an error quotes whole: PATH_MAX of Linux. */
export const MAX_PATH_CHARS: number = 4096;

/** A part of an option's name: `node_id`, `.node_id`, `[2]`, `["db"]`. */
const NAME_PART = /\.?(\w+)|\[(\d+|"(?:[^"\\]|\\.)*")\]/g;

/** The choices that TOML may spell in any case, with or without underscores, by TOML name. */
const SPELLED_CHOICES: ReadonlyMap<string, readonly string[]> = new Map<string, readonly string[]>([
  ["security", SECURITY_MODES],
  ["security.mode", SECURITY_MODES],
  ["rate_limit", RATE_LIMIT_PRESET_NAMES],
  ["rate_limit.preset", RATE_LIMIT_PRESET_NAMES],
  ["compression.method", COMPRESSION_METHODS],
  ["tls.node_id_verification", NODE_ID_VERIFICATIONS],
  ["delivery", DELIVERIES],
  ["checksum", CHECKSUM_MODES],
  ["pool.strategy", POOL_STRATEGIES],
]);

/**
 * Reads the options of an endpoint from TOML text. All of them are checked; what the text doesn't
 * give is not filled in. docs/configuration.md lists the names.
 *
 * @throws {ConfigError} Where the text isn't TOML, or an option is unknown, has a wrong type or is
 * out of range. `path` is the name in TOML, and the message gives the line where it is known.
 *
 * @example
 * ```ts
 * import { loadConfig } from "@hawser/hawser";
 *
 * const options = loadConfig(`
 *   node_id = "node1"
 *   security = "development"
 *   listen = "tcp://127.0.0.1:9100"
 * `);
 * console.log(options.nodeId); // node1
 * ```
 */
export function loadConfig(text: string): EndpointOptions {
  return loadConfigFrom(text, "");
}

/**
 * Does what {@linkcode loadConfig} does, for text of the named file, which errors then name.
 *
 * @throws {ConfigError} As {@linkcode loadConfig} does.
 */
export function loadConfigFrom(text: string, file: string): EndpointOptions {
  if (typeof text !== "string") throw new TypeError("Cannot read options: the TOML is not a text");
  const table = parseToml(text, file);
  const error = (name: string, problem: string) =>
    new ConfigError(name, problem + placeText(lineOf(text, name), undefined, file));
  const inTable = isPlainObject(table["security"]);
  const source: OptionSource = {
    nameOf: (path) => inTable && path === "security" ? "security.mode" : tomlNameOf(path),
    error,
  };
  const options: unknown = readTable(table, { name: "", pattern: "" }, source);
  assertOptions(options, source);
  return options;
}

/**
 * Writes options as TOML text, with the defaults filled in. `loadConfig` of the text resolves to the
 * same options. `environment` has no place in a text and is left out.
 *
 * The text holds `authToken`, `tls.key`, `identity.privateKey` and `signing.privateKey` where they
 * were given: treat it as a secret then.
 *
 * @throws {ConfigError} Where an option is unknown, has a wrong type or is out of range.
 *
 * @example
 * ```ts
 * import { dumpConfig } from "@hawser/hawser";
 *
 * console.log(dumpConfig({ nodeId: "node1", security: "development" }));
 * ```
 */
export function dumpConfig(options: EndpointOptions): string {
  return stringify(toTable(resolveOptions(options), ""));
}

function parseToml(text: string, file: string): Record<string, unknown> {
  try {
    return parse(text, { integersAsBigInt: "asNeeded", maxDepth: MAX_DEPTH });
  } catch (error) {
    if (!(error instanceof TomlError)) throw error;
    // Neither the rest of its message nor the error itself goes on: both quote lines of the text,
    // and one of those may be a secret.
    const problem = error.message.split("\n", 1)[0]?.replace("Invalid TOML document: ", "");
    const place = placeText(error.line, error.column, file);
    throw new ConfigError("", `Cannot read the configuration: ${problem}${place}`);
  }
}

/** Where a value stands in the text. */
interface Place {
  /** As errors name it: `routes["db"].node_id`, `peers[2].address`. */
  readonly name: string;
  /** The same as in the table of names: `routes.*.node_id`, `peers[].address`. */
  readonly pattern: string;
}

function readTable(
  table: Readonly<Record<string, unknown>>,
  place: Place,
  source: OptionSource,
): Record<string, unknown> {
  const keys = keysOfTable(place.pattern);
  if (keys.includes(ANY_KEY)) return readEntries(table, place, source);
  const options: Record<string, unknown> = {};
  for (const [key, value] of Object.entries(table)) {
    const name = joinPath(place.name, key);
    if (!keys.includes(key)) throw source.error(name, unknownOption(key, keys));
    const option = readValue(value, { name, pattern: joinPath(place.pattern, key) }, source);
    if (option !== undefined) options[optionWordOf(key)] = option;
  }
  return options;
}

/** Reads a table whose keys the user chose; they stay as they are. */
function readEntries(
  table: Readonly<Record<string, unknown>>,
  place: Place,
  source: OptionSource,
): Record<string, unknown> {
  const pattern = `${place.pattern}.${ANY_KEY}`;
  // Not by assignment: a key may be "__proto__".
  return Object.fromEntries(
    Object.entries(table).map(([key, value]) => {
      return [key, readValue(value, { name: joinEntry(place.name, key), pattern }, source)];
    }),
  );
}

function readValue(value: unknown, place: Place, source: OptionSource): unknown {
  const { name, pattern } = place;
  if (keysOfTable(`${pattern}[]`).length > 0) {
    if (Array.isArray(value)) {
      return value.map((item, index) =>
        readValue(item, { name: `${name}[${index}]`, pattern: `${pattern}[]` }, source)
      );
    }
    throw source.error(name, `must be a list of tables, got ${showValue(value)}`);
  }
  if (keysOfTable(pattern).length === 0) return respell(value, pattern);
  if (isPlainObject(value)) return readNamedTable(readTable(value, place, source), pattern, source);
  // Two options are either a word or a table.
  if (isTomlValue(pattern) && typeof value === "string") return respell(value, pattern);
  const demand = isTomlValue(pattern) ? "must be a text or a table" : "must be a table";
  throw source.error(name, `${demand}, got ${showValue(value)}`);
}

/** Turns the two tables that aren't options as they stand into what they stand for. */
function readNamedTable(
  options: Record<string, unknown>,
  pattern: string,
  source: OptionSource,
): unknown {
  if (pattern === "security") return options["mode"];
  if (pattern !== "rate_limit") return options;
  const { preset, ...rest } = options;
  const reader = new OptionReader({ preset }, "rateLimit", ["preset"], source);
  const name = reader.oneOf("preset", RATE_LIMIT_PRESET_NAMES);
  if (name === undefined) return rest;
  return Object.keys(rest).length === 0 ? name : { ...RATE_LIMIT_PRESETS[name], ...rest };
}

/** Gives a choice the spelling of the options; anything else goes on to the check as it is. */
function respell(value: unknown, pattern: string): unknown {
  if (typeof value !== "string") return value;
  const plain = plainSpelling(value);
  return SPELLED_CHOICES.get(pattern)?.find((choice) => plainSpelling(choice) === plain) ?? value;
}

function assertOptions(
  options: unknown,
  source: OptionSource,
): asserts options is EndpointOptions {
  resolveOptionsFrom(options, source);
}

function toTable(options: object, pattern: string): Record<string, unknown> {
  const table: Record<string, unknown> = {};
  for (const key of keysOfTable(pattern)) {
    if (key === ANY_KEY) return toEntries(options, `${pattern}.${ANY_KEY}`);
    const value: unknown = Reflect.get(options, optionWordOf(key));
    if (value === undefined) continue;
    table[key] = toTomlValue(value, pattern === "" ? key : `${pattern}.${key}`);
  }
  return table;
}

function toEntries(options: object, pattern: string): Record<string, unknown> {
  return Object.fromEntries(
    Object.entries(options).map(([key, value]) => [key, toTomlValue(value, pattern)]),
  );
}

function toTomlValue(value: unknown, pattern: string): unknown {
  if (isPlainObject(value)) return toTable(value, pattern);
  return Array.isArray(value) ? value.map((item) => toTomlValue(item, `${pattern}[]`)) : value;
}

function placeText(line: number | undefined, column: number | undefined, file: string): string {
  const places: string[] = [];
  if (line !== undefined) places.push(`line ${line}`);
  if (column !== undefined) places.push(`column ${column}`);
  const place = places.join(", ");
  if (file === "") return place === "" ? "" : ` (${place})`;
  const quoted = showValue(file, MAX_PATH_CHARS);
  return place === "" ? ` (in ${quoted})` : ` (${place} of ${quoted})`;
}

/**
 * The line on which the statement begins that gives this name. Texts are cut after each line in
 * turn: the first that parses and has the name ends with that statement, and the statement before
 * ended with the last that parsed. So it needs no second reader of TOML.
 */
function lineOf(text: string, name: string): number | undefined {
  const words = wordsOf(name);
  if (words === undefined) return undefined;
  const lines = text.split("\n");
  if (lines.length > MAX_LINES_SEARCHED) return undefined;
  let begin = 0;
  for (let end = 1; end <= lines.length; end++) {
    const table = parsePart(`${lines.slice(0, end).join("\n")}\n`);
    if (table === undefined) continue;
    if (hasName(table, words)) return begin + 1;
    begin = end;
  }
  return undefined;
}

/** The keys and indexes on the way to a name; undefined where one isn't a plain key. */
function wordsOf(name: string): string[] | undefined {
  const words: string[] = [];
  let end = 0;
  for (const match of name.matchAll(NAME_PART)) {
    if (match.index !== end) return undefined;
    end += match[0].length;
    const [, word, inner = ""] = match;
    // A quotation in a name has the escapes of JSON.
    words.push(word ?? (inner.startsWith('"') ? String(JSON.parse(inner)) : inner));
  }
  return words.length > 0 && end === name.length ? words : undefined;
}

function parsePart(text: string): Record<string, unknown> | undefined {
  try {
    return parse(text, { integersAsBigInt: "asNeeded", maxDepth: MAX_DEPTH });
  } catch {
    // It ends in the middle of a statement.
    return undefined;
  }
}

function hasName(table: Readonly<Record<string, unknown>>, words: readonly string[]): boolean {
  let value: unknown = table;
  for (const word of words) {
    if (typeof value !== "object" || value === null || !Object.hasOwn(value, word)) return false;
    value = Reflect.get(value, word);
  }
  return true;
}
