/**
 * Header fields of HTTP/3 (QPACK, RFC 9204) without a dynamic table: we announce none, so others may
 * not use one.
 *
 * @module
 */

import { TransportError } from "../errors.ts";
import { decodeHuffman } from "./qpack_huffman.ts";

/** Fields of one request or response. */
const MAX_FIELDS = 100;
/** Entries of the static table; those that say nothing here have no text. */
const STATIC_ENTRIES = 99;
/** The longest number: what is longer than a section of fields is wrong anyway. */
const MAX_NUMBER = 2 ** 21;

/** Entries of the static table (RFC 9204, appendix A) that are of use here, by their number. */
const STATIC: ReadonlyMap<number, readonly [name: string, value: string]> = new Map([
  [0, [":authority", ""]],
  [1, [":path", "/"]],
  ...words(15, ":method", ["CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "POST", "PUT"]),
  ...words(22, ":scheme", ["http", "https"]),
  ...words(24, ":status", ["103", "200", "304", "404", "503"]),
  ...words(63, ":status", ["100", "204", "206", "302", "400", "403", "421", "425", "500"]),
  [90, ["origin", ""]],
]);

function words(
  first: number,
  name: string,
  values: readonly string[],
): [number, readonly [string, string]][] {
  return values.map((value, index) => [first + index, [name, value]]);
}

/** Fields by their names, which are in lower case. */
export type Fields = ReadonlyMap<string, string>;

/** Encodes fields, all of them as literals. Names and values are ASCII. */
export function encodeFields(
  fields: readonly (readonly [name: string, value: string])[],
): Uint8Array {
  // No insert count and no base: there is no dynamic table.
  const bytes: number[] = [0, 0];
  for (const [name, value] of fields) {
    putNumber(bytes, 0x20, 3, name.length);
    putText(bytes, name);
    putNumber(bytes, 0, 7, value.length);
    putText(bytes, value);
  }
  return Uint8Array.from(bytes);
}

function putNumber(bytes: number[], high: number, prefixBits: number, value: number): void {
  const most = 2 ** prefixBits - 1;
  if (value < most) return void bytes.push(high | value);
  bytes.push(high | most);
  for (value -= most; value >= 128; value = Math.floor(value / 128)) bytes.push(value % 128 | 128);
  bytes.push(value);
}

function putText(bytes: number[], text: string): void {
  for (let index = 0; index < text.length; index++) bytes.push(text.charCodeAt(index) & 0x7f);
}

/**
 * Decodes a section of fields. Values of a name that came several times are joined by commas; what
 * the static table names and is of no use here is left out.
 *
 * @throws {TransportError} `InvalidFrame`: it is no such section, or uses a dynamic table
 */
export function decodeFields(section: Uint8Array): Fields {
  const reader = new SectionReader(section);
  if (reader.number(8) !== 0) throw invalid("the fields need a dynamic table");
  reader.number(7);
  const fields = new Map<string, string>();
  for (let count = 0; !reader.atEnd; count++) {
    if (count === MAX_FIELDS) throw invalid(`there are more than ${MAX_FIELDS} fields`);
    const [name, value] = reader.field();
    if (name === "") continue;
    const before = fields.get(name);
    if (before !== undefined && name.startsWith(":")) {
      throw invalid("a pseudo-header is there twice");
    }
    fields.set(name, before === undefined ? value : `${before}, ${value}`);
  }
  return fields;
}

class SectionReader {
  readonly #bytes: Uint8Array;
  #at = 0;

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
  }

  get atEnd(): boolean {
    return this.#at >= this.#bytes.length;
  }

  field(): readonly [name: string, value: string] {
    const first = this.#peek();
    if ((first & 0xc0) === 0xc0) return staticEntry(this.number(6));
    if ((first & 0xd0) === 0x50) {
      const [name] = staticEntry(this.number(4));
      return [name, this.#text(7)];
    }
    if ((first & 0xe0) === 0x20) return [this.#text(3).toLowerCase(), this.#text(7)];
    throw invalid("a field is in a dynamic table");
  }

  /** RFC 7541, section 5.1: in the last bits of a byte, and in more of them where it is larger. */
  number(prefixBits: number): number {
    const most = 2 ** prefixBits - 1;
    let value = this.#next() & most;
    if (value < most) return value;
    for (let factor = 1; value <= MAX_NUMBER; factor *= 128) {
      const byte = this.#next();
      value += (byte & 127) * factor;
      if (byte < 128) return value;
    }
    throw invalid("a number is too large");
  }

  /** The bit before its length says whether it is Huffman-coded. */
  #text(prefixBits: number): string {
    const huffman = (this.#peek() & 2 ** prefixBits) !== 0;
    const length = this.number(prefixBits);
    const end = this.#at + length;
    if (end > this.#bytes.length) throw invalid("a text goes beyond the fields");
    const bytes = this.#bytes.subarray(this.#at, end);
    this.#at = end;
    if (huffman) return decodeHuffman(bytes);
    let text = "";
    for (const byte of bytes) text += String.fromCharCode(byte);
    return text;
  }

  #peek(): number {
    const byte = this.#bytes[this.#at];
    if (byte === undefined) throw invalid("the fields end early");
    return byte;
  }

  #next(): number {
    const byte = this.#peek();
    this.#at++;
    return byte;
  }
}

function staticEntry(index: number): readonly [name: string, value: string] {
  if (index >= STATIC_ENTRIES) throw invalid("a field is not in the static table");
  return STATIC.get(index) ?? ["", ""];
}

function invalid(why: string): TransportError {
  return new TransportError("InvalidFrame", why);
}
