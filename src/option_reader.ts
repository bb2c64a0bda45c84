/**
 * Reads values of unknown type out of an options object and words what is wrong with them.
 *
 * @module
 */

import { ConfigError } from "./errors.ts";
import { showValue } from "./show_value.ts";

/** How the source of the options calls them; a configuration file has other names and has lines. */
export interface OptionSource {
  /** The name under which the user knows an option: `reconnect.maxAttempts`, `peers[2].nodeId`. */
  nameOf(path: string): string;
  /** Makes the error about the option that `nameOf` named so. */
  error(name: string, problem: string): ConfigError;
}

/** Options given as an object: they are called what they are called. */
export const OBJECT_SOURCE: OptionSource = {
  nameOf: (path) => path,
  error: (name, problem) => new ConfigError(name, problem),
};

/** What {@linkcode isName} demands, in words. */
export const NAME_DEMAND: string = "must be 1 to 255 characters of printable ASCII without spaces";
const MAX_NAME_CHARS = 255;

/** What bounds a number; both ends are allowed values. */
export interface NumberRange {
  readonly min: number;
  readonly max: number;
  /** Excludes `min` itself. */
  readonly above?: boolean;
}

/** One object of the options, or of an options object within. */
export class OptionReader {
  readonly #values: Readonly<Record<string, unknown>>;
  readonly #path: string;
  readonly #source: OptionSource;

  /**
   * Takes an object of which only the given keys are known.
   *
   * @param path Where it stands; empty for the whole.
   * @throws {ConfigError} Where the value isn't a plain object or has another key.
   */
  constructor(value: unknown, path: string, keys: readonly string[], source: OptionSource) {
    if (!isPlainObject(value)) {
      const problem = `must be a plain object, got ${showValue(value)}`;
      throw path === ""
        ? source.error("", `Cannot read the options: the value ${problem}`)
        : source.error(source.nameOf(path), problem);
    }
    const unknown = Object.keys(value).find((key) => !keys.includes(key));
    if (unknown !== undefined) {
      throw source.error(joinPath(source.nameOf(path), unknown), unknownOption(unknown, keys));
    }
    this.#values = value;
    this.#path = path;
    this.#source = source;
  }

  /** The error about one of the keys. */
  error(key: string, problem: string): ConfigError {
    return this.#source.error(this.nameOf(key), problem);
  }

  /** The error about a value that has the wrong type or is out of range. */
  wrongValue(key: string, demand: string, value: unknown): ConfigError {
    return this.error(key, `${demand}, got ${showValue(value)}`);
  }

  /** The name under which the user knows one of the keys. */
  nameOf(key: string): string {
    return this.#source.nameOf(joinPath(this.#path, key));
  }

  /** The value as it stands; only own properties count. */
  raw(key: string): unknown {
    return Object.hasOwn(this.#values, key) ? this.#values[key] : undefined;
  }

  /**
   * The entries of a table whose keys are names that the user chose.
   *
   * @throws {ConfigError} Where the value is no plain object, has too many entries or a key that is
   * no name.
   */
  entries(key: string, maxEntries: number): readonly [name: string, value: unknown][] | undefined {
    const value = this.raw(key);
    if (value === undefined) return undefined;
    if (!isPlainObject(value)) throw this.wrongValue(key, "must be a plain object", value);
    const entries = Object.entries(value).filter(([, entry]) => entry !== undefined);
    if (entries.length > maxEntries) {
      throw this.error(key, `must have at most ${maxEntries} entries, got ${entries.length}`);
    }
    const odd = entries.find(([name]) => !isName(name));
    if (odd !== undefined) {
      throw this.error(key, `each key ${NAME_DEMAND}, got ${showValue(odd[0])}`);
    }
    return entries;
  }

  /** An integer within the range. */
  integer(key: string, min: number, max: number): number | undefined {
    const value = this.raw(key);
    if (value === undefined) return undefined;
    if (typeof value !== "number" || !Number.isInteger(value)) {
      throw this.wrongValue(key, `must be an integer ${rangeText({ min, max })}`, value);
    }
    return this.#inRange(key, value, { min, max });
  }

  /** A number within the range. */
  number(key: string, range: NumberRange): number | undefined {
    const value = this.raw(key);
    if (value === undefined) return undefined;
    if (typeof value !== "number" || !Number.isFinite(value)) {
      throw this.wrongValue(key, `must be a finite number ${rangeText(range)}`, value);
    }
    return this.#inRange(key, value, range);
  }

  /** True or false. */
  boolean(key: string): boolean | undefined {
    const value = this.raw(key);
    if (value === undefined || typeof value === "boolean") return value;
    throw this.wrongValue(key, "must be true or false", value);
  }

  /** One of the given texts. */
  oneOf<const T extends string>(key: string, choices: readonly T[]): T | undefined {
    const value = this.raw(key);
    if (value === undefined) return undefined;
    const choice = choices.find((candidate) => candidate === value);
    if (choice !== undefined) return choice;
    throw this.wrongValue(key, `must be ${listChoices(choices)}`, value);
  }

  /** A text that isn't secret: an error may quote it. Without lone surrogates, which UTF-8 can't carry. */
  text(key: string, minBytes: number, maxBytes: number): string | undefined {
    const value = this.raw(key);
    if (value === undefined) return undefined;
    const problem = problemOfText(value, minBytes, maxBytes);
    if (problem === undefined && typeof value === "string") return value;
    throw this.wrongValue(key, problem ?? "must be a text", value);
  }

  /** A text that no error may quote. */
  secret(key: string, minBytes: number, maxBytes: number): string | undefined {
    const value = this.raw(key);
    if (value === undefined) return undefined;
    const problem = problemOfText(value, minBytes, maxBytes);
    if (problem === undefined && typeof value === "string") return value;
    throw this.error(key, problem ?? "must be a text");
  }

  #inRange(key: string, value: number, range: NumberRange): number {
    const { min, max, above = false } = range;
    const valid = value >= min && value <= max && !(above && value === min);
    if (!valid) throw this.wrongValue(key, `must be ${rangeText(range)}`, value);
    // Turns -0, which no text form keeps, into 0.
    return value + 0;
  }
}

/** Puts a key behind the path of what holds it; an odd key is quoted and cut. */
export function joinPath(path: string, key: string): string {
  if (!/^[A-Za-z_][A-Za-z0-9_]{0,63}(\[\d+\])?$/.test(key)) return `${path}[${showValue(key)}]`;
  return path === "" ? key : `${path}.${key}`;
}

/**
 * Puts a key that the user chose behind the path of the table that holds it, always quoted. A name
 * is shown whole, anything else is cut.
 */
export function joinEntry(path: string, key: string): string {
  return `${path}[${showValue(key, isName(key) ? MAX_NAME_CHARS : undefined)}]`;
}

/** Whether a value can name a node or a recipient: 1 to 255 characters of printable ASCII, no spaces. */
export function isName(value: unknown): value is string {
  return typeof value === "string" && /^[!-~]{1,255}$/.test(value);
}

/** What to say of a key that isn't known, with the nearest of the keys that are. */
export function unknownOption(key: string, keys: readonly string[]): string {
  const nearest = nearestKey(key, keys);
  return nearest === undefined
    ? "unknown option"
    : `unknown option, did you mean ${showValue(nearest)}?`;
}

/** Whether a value is an object made by a literal, by JSON or by a parser, and not of some class. */
export function isPlainObject(value: unknown): value is Record<string, unknown> {
  if (typeof value !== "object" || value === null || Array.isArray(value)) return false;
  const prototype: unknown = Object.getPrototypeOf(value);
  // By shape, not by identity: objects of another realm are as good as ours.
  return prototype === null || Object.getPrototypeOf(prototype) === null;
}

function problemOfText(value: unknown, minBytes: number, maxBytes: number): string | undefined {
  if (typeof value !== "string") return "must be a text";
  if (!value.isWellFormed()) return "must be well-formed Unicode text";
  const bytes = new TextEncoder().encode(value).length;
  if (bytes >= minBytes && bytes <= maxBytes) return undefined;
  return minBytes === 0
    ? `must have at most ${maxBytes} bytes`
    : `must have ${minBytes} to ${maxBytes} bytes`;
}

function rangeText({ min, max, above = false }: NumberRange): string {
  if (above) return max === Infinity ? `above ${min}` : `above ${min} and at most ${max}`;
  return max === Infinity ? `at least ${min}` : `between ${min} and ${max}`;
}

function listChoices(choices: readonly string[]): string {
  const quoted = choices.map((choice) => showValue(choice));
  const last = quoted.pop() ?? "";
  return quoted.length === 0 ? last : `${quoted.join(", ")} or ${last}`;
}

function nearestKey(key: string, keys: readonly string[]): string | undefined {
  if (key.length > 64) return undefined;
  const plain = plainSpelling(key);
  let nearest: string | undefined;
  // Up to two slips, one in a short word: "tsl" may be "tls", "a" is nothing.
  let limit = Math.min(2, Math.floor(plain.length / 3));
  for (const candidate of keys) {
    const distance = editDistance(plain, plainSpelling(candidate));
    if (distance > limit) continue;
    nearest = candidate;
    limit = distance - 1;
  }
  return nearest;
}

/** `pool_size`, `PoolSize` and `poolSize` are the same word. */
export function plainSpelling(key: string): string {
  return key.replaceAll(/[_-]/g, "").toLowerCase();
}

/** Insertions, deletions, replacements and swaps of neighbours between two words. */
function editDistance(a: string, b: string): number {
  let older: number[] = [];
  let previous = Array.from({ length: b.length + 1 }, (_, index) => index);
  for (let row = 1; row <= a.length; row++) {
    const current = [row];
    for (let column = 1; column <= b.length; column++) {
      const same = a[row - 1] === b[column - 1];
      let cost = Math.min(
        at(previous, column) + 1,
        at(current, column - 1) + 1,
        at(previous, column - 1) + (same ? 0 : 1),
      );
      if (row > 1 && column > 1 && a[row - 1] === b[column - 2] && a[row - 2] === b[column - 1]) {
        cost = Math.min(cost, at(older, column - 2) + 1);
      }
      current.push(cost);
    }
    older = previous;
    previous = current;
  }
  return at(previous, b.length);
}

function at(row: readonly number[], index: number): number {
  return row[index] ?? Infinity;
}
