/**
 * A strict reader of DER (X.690, section 10), as much of it as certificates need: single-byte tags,
 * definite lengths in their shortest form. Nothing is copied, and no length is believed before it
 * was held against the bytes that are there.
 *
 * @module
 */

import { TransportError } from "../errors.ts";

/** One element: its tag byte and its contents, a view into the bytes it was read from. */
export interface DerElement {
  /** The identifier octet: class, "constructed" bit and number. */
  readonly tag: number;
  /** The contents without tag and length. */
  readonly contents: Uint8Array;
}

/** Identifier octets of the types in a certificate. */
export const TAG = {
  boolean: 0x01,
  integer: 0x02,
  bitString: 0x03,
  octetString: 0x04,
  oid: 0x06,
  utf8String: 0x0c,
  printableString: 0x13,
  teletexString: 0x14,
  ia5String: 0x16,
  utcTime: 0x17,
  generalizedTime: 0x18,
  bmpString: 0x1e,
  sequence: 0x30,
  set: 0x31,
} as const;

/** An OID of this many bytes is longer than any that is in use; longer ones cost time to print. */
const MAX_OID_BYTES = 64;
/** Seven bits more still make a number that is held exactly. */
const MAX_SMALL_ARC = 2 ** 46 - 1;

/**
 * Walks the elements of one level, front to back; a caller descends by making a reader of an
 * element's contents, so the depth is that of the caller's own code.
 */
export class DerReader {
  readonly #bytes: Uint8Array;
  #position = 0;

  /** Reads the elements of `bytes`, which are not copied. */
  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
  }

  /** Whether every byte was read. */
  get done(): boolean {
    return this.#position === this.#bytes.length;
  }

  /** The next element, whatever its tag. */
  next(): DerElement {
    const tag = this.#byte();
    if ((tag & 0x1f) === 0x1f) throw malformed("a tag takes more than one byte");
    const length = this.#length();
    if (length > this.#bytes.length - this.#position) {
      throw malformed("an element is longer than what holds it");
    }
    const start = this.#position;
    this.#position += length;
    return { tag, contents: this.#bytes.subarray(start, this.#position) };
  }

  /** The contents of the next element, which must have this tag; `what` names it in the error. */
  expect(tag: number, what: string): Uint8Array {
    const element = this.next();
    if (element.tag !== tag) throw malformed(`${what} has the wrong type`);
    return element.contents;
  }

  /** The contents of the next element if it is there and has this tag, else undefined. */
  optional(tag: number): Uint8Array | undefined {
    return this.#bytes[this.#position] === tag ? this.next().contents : undefined;
  }

  /** A reader of the next element's contents; `what` names it in the error. */
  enter(tag: number, what: string): DerReader {
    return new DerReader(this.expect(tag, what));
  }

  /** Checks that nothing is left; `what` names the level in the error. */
  finish(what: string): void {
    if (!this.done) throw malformed(`there is more after the end of ${what}`);
  }

  #byte(): number {
    const byte = this.#bytes[this.#position];
    if (byte === undefined) throw malformed("it ends inside an element");
    this.#position++;
    return byte;
  }

  #length(): number {
    const first = this.#byte();
    if (first < 0x80) return first;
    const count = first & 0x7f;
    if (count === 0 || count > 4) throw malformed("a length is indefinite or too long");
    let length = 0;
    for (let i = 0; i < count; i++) length = length * 256 + this.#byte();
    if (length < 0x80 || length < 256 ** (count - 1)) {
      throw malformed("a length is not in its shortest form");
    }
    return length;
  }
}

/** A boolean. False may be written out, as old certificates do, though it is the default. */
export function readBoolean(contents: Uint8Array): boolean {
  const byte = contents[0];
  if (contents.length !== 1 || (byte !== 0x00 && byte !== 0xff)) {
    throw malformed("a boolean is neither true nor false");
  }
  return byte === 0xff;
}

/** An object identifier in dotted form, "1.3.6.1.5.5.7.3.1". */
export function readOid(contents: Uint8Array): string {
  const last = contents.at(-1);
  if (last === undefined || last >= 0x80 || contents.length > MAX_OID_BYTES) {
    throw malformed("an object identifier is empty, cut off or too long");
  }
  let text = "";
  let arc = 0;
  let first = true;
  for (const byte of contents) {
    if (first && byte === 0x80) throw paddedOid();
    if (arc > MAX_SMALL_ARC) return longOid(contents);
    arc = arc * 128 + (byte & 0x7f);
    first = byte < 0x80;
    if (!first) continue;
    text = text === "" ? headOf(arc) : `${text}.${arc}`;
    arc = 0;
  }
  return text;
}

/** The first number holds two: 40 * root + second, with root 2 taking all from 80 on. */
function headOf(arc: number): string {
  const root = arc < 80 ? Math.trunc(arc / 40) : 2;
  return `${root}.${arc - root * 40}`;
}

/** The same for numbers beyond what a number holds exactly. */
function longOid(contents: Uint8Array): string {
  const arcs: bigint[] = [];
  let arc = 0n;
  let first = true;
  for (const byte of contents) {
    if (first && byte === 0x80) throw paddedOid();
    arc = arc << 7n | BigInt(byte & 0x7f);
    first = byte < 0x80;
    if (first) {
      arcs.push(arc);
      arc = 0n;
    }
  }
  const head = arcs[0]!;
  const root = head < 80n ? head / 40n : 2n;
  return [root, head - root * 40n, ...arcs.slice(1)].join(".");
}

function paddedOid(): TransportError {
  return malformed("an object identifier has a padded number");
}

/** A UTCTime or GeneralizedTime in milliseconds since the epoch, in the forms of RFC 5280, 4.1.2.5. */
export function readTime({ tag, contents }: DerElement): number {
  // One more than the longer form has, so that what is too long does not match.
  const text = String.fromCharCode(...contents.subarray(0, 16));
  const form = tag === TAG.utcTime
    ? /^(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)Z$/
    : tag === TAG.generalizedTime
    ? /^(\d{4})(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)Z$/
    : undefined;
  const match = form?.exec(text);
  if (match === undefined || match === null) throw malformed("a time is not in its one form");
  const [, digits = "", month, day, hours, minutes, seconds] = match;
  // Two digits mean 1950 to 2049.
  const year = digits.length === 4 ? digits : `${Number(digits) < 50 ? 20 : 19}${digits}`;
  const iso = `${year}-${month}-${day}T${hours}:${minutes}:${seconds}.000Z`;
  const time = new Date(iso);
  // A 31st of February is not an error to Date everywhere, but comes back as another day.
  if (Number.isNaN(time.getTime()) || time.toISOString() !== iso) {
    throw malformed("a time does not exist");
  }
  return time.getTime();
}

/** The error for bytes that are not a certificate; `problem` never quotes them. */
export function malformed(problem: string): TransportError {
  return new TransportError("IdentityMismatch", `Cannot read the certificate: ${problem}`);
}
