/**
 * Typed reading of the fields of a handshake message, and what a well-formed value of each is.
 *
 * @module
 */

import { HandshakeError } from "../errors.ts";
import { isObject, parseStrictJson } from "./strict_json.ts";

/** The most nesting a handshake message may have; the root object is depth 1. */
const MAX_DEPTH = 8;
/** The most capabilities a handshake message may name. */
const MAX_CAPABILITIES = 64;
const NODE_ID = /^[!-~]{1,255}$/;
const INCARNATION = /^[0-9a-fA-F]{16}$/;
/** Base64 of 16 bytes, padded, with the unused bits of the last digit 0. */
const NONCE = /^[A-Za-z0-9+/]{21}[AQgw]==$/;

/**
 * Parses a handshake message; `what` names it in errors, as in "the hello".
 *
 * @throws {HandshakeError} With `rejectCode` "MALFORMED", as every method of {@linkcode Fields}.
 */
export function readFields(what: string, body: Uint8Array): Fields {
  return new Fields(what, parseStrictJson(body, MAX_DEPTH));
}

/**
 * The fields of one handshake message, or of an object in it. Unknown ones are ignored. A field that is absent reads as
 * undefined; null is a wrong type. Errors name the field and never quote its value.
 */
export class Fields {
  readonly #what: string;
  readonly #values: Record<string, unknown>;
  readonly #path: string;

  /** `what` names the message in errors, `path` the object in it, as in "session.". */
  constructor(what: string, values: Record<string, unknown>, path: string = "") {
    this.#what = what;
    this.#values = values;
    this.#path = path;
  }

  /** An optional string. */
  text(name: string): string | undefined {
    const value = this.#get(name);
    if (value === undefined || typeof value === "string") return value;
    throw this.wrong(name, "a string");
  }

  /** An optional string of the form `pattern`, which `form` describes. */
  match(name: string, pattern: RegExp, form: string): string | undefined {
    const value = this.text(name);
    if (value === undefined || pattern.test(value)) return value;
    throw this.wrong(name, form);
  }

  /** An optional integer from `min` to `max` (by default, to the largest safe one). */
  integer(name: string, min: number, max: number = Number.MAX_SAFE_INTEGER): number | undefined {
    const value = this.#get(name);
    if (value === undefined) return undefined;
    if (Number.isSafeInteger(value) && (value as number) >= min && (value as number) <= max) {
      return value as number;
    }
    throw this.wrong(name, `an integer from ${min} to ${max}`);
  }

  /** An optional truth value. */
  boolean(name: string): boolean | undefined {
    const value = this.#get(name);
    if (value === undefined || typeof value === "boolean") return value;
    throw this.wrong(name, "true or false");
  }

  /** An optional list of exactly `count` integers of at least `min`. */
  integers(name: string, count: number, min: number): number[] | undefined {
    const value = this.#get(name);
    if (value === undefined) return undefined;
    const right = Array.isArray(value) && value.length === count &&
      value.every((entry) => Number.isSafeInteger(entry) && entry >= min);
    if (right) return value;
    throw this.wrong(name, `a list of ${count} integers from ${min} to ${Number.MAX_SAFE_INTEGER}`);
  }

  /** An optional list of at most `max` strings of the form `pattern`, which `form` describes. */
  list(name: string, max: number, pattern: RegExp, form: string): string[] | undefined {
    const value = this.#get(name);
    if (value === undefined) return undefined;
    const right = Array.isArray(value) && value.length <= max &&
      value.every((entry) => typeof entry === "string" && pattern.test(entry));
    if (right) return value;
    throw this.wrong(name, `a list of at most ${max} strings of ${form}`);
  }

  /** An optional object. */
  object(name: string): Fields | undefined {
    const value = this.#get(name);
    if (value === undefined) return undefined;
    if (isObject(value)) return new Fields(this.#what, value, `${this.#path}${name}.`);
    throw this.wrong(name, "an object");
  }

  /** The node id, which must be there. */
  nodeId(): string {
    const form = "1 to 255 bytes of printable ASCII without spaces";
    return this.required("node_id", this.match("node_id", NODE_ID, form));
  }

  /** The capabilities, which must be there; known and unknown ones. */
  capabilities(): string[] {
    const value = this.required("capabilities", this.#get("capabilities"));
    if (!Array.isArray(value) || !value.every((entry) => typeof entry === "string")) {
      throw this.wrong("capabilities", "a list of strings");
    }
    if (value.length > MAX_CAPABILITIES) {
      throw this.wrong("capabilities", `a list of at most ${MAX_CAPABILITIES} strings`);
    }
    return value;
  }

  /** The incarnation: digits of another case are the same one, not a restarted node. */
  incarnation(): string | undefined {
    return this.match("incarnation", INCARNATION, "16 hex digits")?.toLowerCase();
  }

  /** The nonce. */
  nonce(): string | undefined {
    return this.match("nonce", NONCE, "base64 of 16 bytes");
  }

  /** The value, unless it is absent. */
  required<T>(name: string, value: T | undefined): T {
    if (value === undefined) throw this.malformed(`${this.#path}${name} is missing`);
    return value;
  }

  /** The error for a field that is not what it must be. */
  wrong(name: string, demand: string): HandshakeError {
    return this.malformed(`${this.#path}${name} must be ${demand}`);
  }

  /** The error for a message that can't be understood. */
  malformed(problem: string): HandshakeError {
    return new HandshakeError(`Cannot read ${this.#what}: ${problem}`, "MALFORMED");
  }

  #get(name: string): unknown {
    return Object.hasOwn(this.#values, name) ? this.#values[name] : undefined;
  }
}
