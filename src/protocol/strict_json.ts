/**
 * JSON from strangers: one object, of limited depth, in valid UTF-8, without duplicate keys.
 *
 * @module
 */

import { HandshakeError } from "../errors.ts";

const QUOTE = 0x22;
const COMMA = 0x2c;
const COLON = 0x3a;
const BACKSLASH = 0x5c;
const OPEN_ARRAY = 0x5b;
const CLOSE_ARRAY = 0x5d;
const OPEN_OBJECT = 0x7b;
const CLOSE_OBJECT = 0x7d;
const BYTE_ORDER_MARK = 0xfeff;

/** `ignoreBOM` keeps the mark in the text, so that it can be refused. */
const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/**
 * Parses one JSON object in time linear in its length.
 *
 * Keys such as `__proto__` become plain properties of the object itself: look names up with
 * `Object.hasOwn`, for what an object inherits was not sent by anybody.
 *
 * @param bytes UTF-8 without a byte order mark.
 * @param maxDepth How deep objects and arrays may be nested; the root is depth 1.
 * @throws {HandshakeError} With `rejectCode` "MALFORMED" if the bytes are anything else, nested
 * deeper, or name a key twice in one object. The message quotes nothing of the text.
 */
export function parseStrictJson(bytes: Uint8Array, maxDepth: number): Record<string, unknown> {
  const text = decode(bytes);
  if (text.charCodeAt(0) === BYTE_ORDER_MARK) throw malformed("it starts with a byte order mark");
  scan(text, maxDepth);
  const root = parse(text);
  if (!isObject(root)) throw malformed("it is not an object");
  return root;
}

/** Whether a parsed JSON value is an object, and neither an array nor null. */
export function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/**
 * Refuses depth and duplicate keys in text that may be no JSON at all. Up to the first error of
 * grammar the scan and `JSON.parse` agree on what is a string and what is nested, and `JSON.parse`
 * goes no further than that: so it never recurses deeper than was looked at here.
 */
function scan(text: string, maxDepth: number): void {
  // One entry per open container: the keys seen in an object, undefined for an array, which has none.
  const open: (Set<string> | undefined)[] = [];
  let keyMayCome = false;
  for (let at = 0; at < text.length; at++) {
    switch (text.charCodeAt(at)) {
      case OPEN_OBJECT:
      case OPEN_ARRAY:
        if (open.length >= maxDepth) throw malformed(`it is nested deeper than ${maxDepth}`);
        open.push(text.charCodeAt(at) === OPEN_OBJECT ? new Set() : undefined);
        keyMayCome = true;
        break;
      case CLOSE_OBJECT:
      case CLOSE_ARRAY:
        open.pop();
        break;
      case COMMA:
        keyMayCome = true;
        break;
      case COLON:
        keyMayCome = false;
        break;
      case QUOTE: {
        const end = stringEnd(text, at);
        if (keyMayCome) addKey(open.at(-1), text.slice(at, end + 1));
        at = end;
        break;
      }
    }
  }
}

/** Index of the quote that ends the string which begins at `start`. */
function stringEnd(text: string, start: number): number {
  for (let at = start + 1; at < text.length; at++) {
    const code = text.charCodeAt(at);
    if (code === QUOTE) return at;
    if (code === BACKSLASH) at++;
  }
  throw malformed("a string does not end");
}

function addKey(keys: Set<string> | undefined, literal: string): void {
  if (keys === undefined) return;
  const key = literal.includes("\\") ? String(parse(literal)) : literal.slice(1, -1);
  if (keys.has(key)) throw malformed("a key stands twice in one object");
  keys.add(key);
}

function decode(bytes: Uint8Array): string {
  try {
    return decoder.decode(bytes);
  } catch {
    throw malformed("it is not valid UTF-8");
  }
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    // The engine's message quotes the text, and that may hold an auth token: not even as a cause.
    throw malformed("it is not valid JSON");
  }
}

function malformed(problem: string): HandshakeError {
  return new HandshakeError(`Cannot read JSON: ${problem}`, "MALFORMED");
}
