/**
 * What requests and streams send beside application bytes: ids, codes, errors.
 *
 * @module
 */

import { RemoteError, TransportError } from "../../errors.ts";
import { quote } from "../text.ts";
import type { OutMessage, StreamPath, Tracker } from "./out_message.ts";
import type { Kind, Lane } from "./types.ts";

/** The longest text of an error or a reset that is sent, in UTF-16 units. */
export const MAX_MESSAGE_CHARS = 1024;
const CODE = /^[!-~]{1,64}$/;
const WORD = 0x1_0000_0000;
const ID_BYTES = 8;

/** No bytes. */
export const NO_BYTES: Uint8Array = new Uint8Array(0);

const encoder = new TextEncoder();
const decoder = new TextDecoder();

/** Whether a text may be the code of an error or a reset: 1 to 64 printable ASCII, no spaces. */
export function isCode(code: string): boolean {
  return CODE.test(code);
}

/** The payload of an error or a stream-reset. A text that is too long is cut. */
export function encodeFailure(code: string, message: string): Uint8Array {
  return encoder.encode(
    JSON.stringify({ code, message: message.slice(0, MAX_MESSAGE_CHARS) }),
  );
}

/** The payload of an error or a stream-reset, with less of its text where it is too long for a peer. */
export function fitFailure(payload: Uint8Array, maxBytes: number): Uint8Array {
  let fitting = payload;
  while (fitting.length > maxBytes) {
    const { code, message } = JSON.parse(decoder.decode(fitting));
    if (message.length === 0) return fitting;
    fitting = encodeFailure(code, message.slice(0, message.length >> 1).toWellFormed());
  }
  return fitting;
}

/** An id as it stands on the wire, with `highBits` set in its high word and room for more bytes. */
export function encodeId(id: number, highBits: number = 0, moreBytes: number = 0): Uint8Array {
  const bytes = new Uint8Array(ID_BYTES + moreBytes);
  writeId(bytes, id, highBits);
  return bytes;
}

/** Writes an id as it stands on the wire. */
export function writeId(into: Uint8Array, id: number, highBits: number = 0): void {
  writeU32(into, 0, Math.floor(id / WORD) | highBits);
  writeU32(into, 4, id);
}

/** Writes the low 32 bits of a number, the highest byte first. */
export function writeU32(into: Uint8Array, at: number, value: number): void {
  into[at] = value >>> 24;
  into[at + 1] = value >>> 16;
  into[at + 2] = value >>> 8;
  into[at + 3] = value;
}

/** The error for what the peer answered; `what` is what failed, as in "complete the request". */
export function remoteError(
  what: string,
  peer: string,
  code: string,
  message: string,
): RemoteError {
  const words = message === "" ? "" : `, ${quote(message, 256)}`;
  const text = `Cannot ${what}: ${peer} says ${quote(code)}${words}`;
  return new RemoteError(text, code, message, { peer });
}

/** The error for an id that the side which is answered has never given out. */
export function neverUsed(what: string, peer: string): TransportError {
  const text = `Cannot read a frame: it names a ${what} that there never was`;
  return new TransportError("InvalidFrame", text, { peer });
}

/** A message that is all there when it is made. */
export class ReadyMessage implements OutMessage {
  /** Its kind. */
  readonly kind: Kind;
  /** Its lane. */
  readonly lane: Lane;
  /** It has none. */
  readonly topic: undefined = undefined;
  /** What follows its prefix. */
  readonly payload: Uint8Array;
  /** It is kept until it is acknowledged. */
  readonly atMostOnce: false = false;
  /** Told what becomes of it. */
  readonly tracker: Tracker | undefined;
  /** The stream that it is a frame of. */
  readonly path: StreamPath | undefined;
  readonly #prefix: Uint8Array;

  /** Makes a message; nobody changes `prefix` and `payload` any more. */
  constructor(
    kind: Kind,
    lane: Lane,
    prefix: Uint8Array,
    payload: Uint8Array,
    tracker?: Tracker,
    path?: StreamPath,
  ) {
    this.kind = kind;
    this.lane = lane;
    this.#prefix = prefix;
    this.payload = payload;
    this.tracker = tracker;
    this.path = path;
  }

  /** The bytes before the payload. */
  prefix(): Uint8Array {
    return this.#prefix;
  }
}
