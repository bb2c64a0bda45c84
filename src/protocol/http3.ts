/**
 * What of HTTP/3 (RFC 9114) a WebTransport session needs: frames, settings, and the first bytes of
 * streams and datagrams, without sockets.
 *
 * @module
 */

import { TransportError } from "../errors.ts";

/** The application protocol of HTTP/3. */
export const HTTP3_ALPN = "h3";
/** The code of a connection or a stream that ends without an error. */
export const HTTP3_NO_ERROR = 0x100;

/** The first number of a unidirectional stream that carries settings. */
export const CONTROL_STREAM = 0x00;
/** Those that would fill a dynamic table, if there were one. */
export const QPACK_STREAMS: ReadonlySet<number> = new Set([0x02, 0x03]);

/** A frame with the fields of a request or a response. */
export const HEADERS_FRAME = 0x01;
/** The frame that a control stream begins with. */
export const SETTINGS_FRAME = 0x04;
/** The longest frame that is looked at. */
export const MAX_FRAME_BYTES = 16_384;

/** A bidirectional stream of a session begins with this number and the session's. */
const SESSION_STREAM = 0x41;

const ENABLE_CONNECT_PROTOCOL = 0x08;
const H3_DATAGRAM = 0x33;
/** Of drafts that browsers still speak. */
const H3_DATAGRAM_DRAFT = 0xffd277;
const ENABLE_WEBTRANSPORT = 0x2b603742;
const WEBTRANSPORT_MAX_SESSIONS = 0xc671706a;

/** What the other side says it can do. */
export interface Http3Settings {
  /** Takes CONNECT requests for protocols (RFC 9220). */
  readonly connectProtocol: boolean;
  /** Has WebTransport. */
  readonly webTransport: boolean;
  /** Has datagrams (RFC 9297). */
  readonly datagrams: boolean;
}

/** A number of up to 62 bits (RFC 9000, section 16). */
export interface Varint {
  /** Its value; beyond 2^53 not exact, which nothing here is equal to. */
  readonly value: number;
  /** Where it ends. */
  readonly end: number;
}

/** The number at a place; undefined where it is not whole. */
export function readNumber(bytes: Uint8Array, at: number): Varint | undefined {
  const first = bytes[at];
  if (first === undefined) return undefined;
  const end = at + (1 << (first >>> 6));
  if (end > bytes.length) return undefined;
  let value = first & 0x3f;
  for (let index = at + 1; index < end; index++) value = value * 256 + bytes[index]!;
  return { value, end };
}

/** Appends a number below 2^53. */
function putNumber(bytes: number[], value: number): void {
  const length = value < 64 ? 1 : value < 16_384 ? 2 : value < 2 ** 30 ? 4 : 8;
  const start = bytes.length;
  for (let index = length - 1; index >= 0; index--) {
    bytes.push(Math.floor(value / 256 ** index) % 256);
  }
  bytes[start]! |= Math.log2(length) << 6;
}

/** What we begin our control stream with. */
export function encodeControl(): Uint8Array {
  const settings: number[] = [];
  const all = [
    [ENABLE_CONNECT_PROTOCOL, 1],
    [H3_DATAGRAM, 1],
    [H3_DATAGRAM_DRAFT, 1],
    [ENABLE_WEBTRANSPORT, 1],
    [WEBTRANSPORT_MAX_SESSIONS, 1],
  ] as const;
  for (const [id, value] of all) {
    putNumber(settings, id);
    putNumber(settings, value);
  }
  return Uint8Array.from([CONTROL_STREAM, SETTINGS_FRAME, settings.length, ...settings]);
}

/**
 * Reads a SETTINGS frame.
 *
 * @throws {TransportError} `InvalidFrame`: it ends within a setting
 */
export function readSettings(payload: Uint8Array): Http3Settings {
  const settings = new Map<number, number>();
  for (let at = 0; at < payload.length;) {
    const id = readNumber(payload, at);
    const value = id && readNumber(payload, id.end);
    if (value === undefined) throw new TransportError("InvalidFrame", "the settings end early");
    settings.set(id!.value, value.value);
    at = value.end;
  }
  const has = (id: number) => (settings.get(id) ?? 0) > 0;
  return {
    connectProtocol: has(ENABLE_CONNECT_PROTOCOL),
    webTransport: has(ENABLE_WEBTRANSPORT) || has(WEBTRANSPORT_MAX_SESSIONS),
    datagrams: has(H3_DATAGRAM) || has(H3_DATAGRAM_DRAFT),
  };
}

/** A HEADERS frame with such fields. */
export function encodeHeaders(fields: Uint8Array): Uint8Array {
  const head: number[] = [];
  putNumber(head, HEADERS_FRAME);
  putNumber(head, fields.length);
  const frame = new Uint8Array(head.length + fields.length);
  frame.set(head);
  frame.set(fields, head.length);
  return frame;
}

/** The first bytes of a bidirectional stream of a session, which is named by its CONNECT stream. */
export function encodeStreamHead(session: number): Uint8Array {
  const head: number[] = [];
  putNumber(head, SESSION_STREAM);
  putNumber(head, session);
  return Uint8Array.from(head);
}

/** What a bidirectional stream turned out to be. */
export interface StreamHead {
  /** The session that it belongs to; undefined: it is a request. */
  readonly session: number | undefined;
  /** Where what is read next begins. */
  readonly end: number;
}

/** Reads the first bytes of a bidirectional stream; undefined where they are not all there. */
export function readStreamHead(bytes: Uint8Array): StreamHead | undefined {
  const type = readNumber(bytes, 0);
  if (type === undefined) return undefined;
  if (type.value !== SESSION_STREAM) return { session: undefined, end: 0 };
  const session = readNumber(bytes, type.end);
  return session && { session: session.value, end: session.end };
}

/** A datagram of a session: before it stands a quarter of the session's number. */
export function encodeSessionDatagram(session: number, bytes: Uint8Array): Uint8Array {
  const head: number[] = [];
  putNumber(head, session / 4);
  const all = new Uint8Array(head.length + bytes.length);
  all.set(head);
  all.set(bytes, head.length);
  return all;
}

/** What stands before a datagram of a session, in bytes. */
export function sessionDatagramHead(session: number): number {
  return encodeSessionDatagram(session, new Uint8Array(0)).length;
}

/** The datagram of a session; undefined where it belongs to another one. */
export function readSessionDatagram(session: number, bytes: Uint8Array): Uint8Array | undefined {
  const quarter = readNumber(bytes, 0);
  return quarter?.value === session / 4 ? bytes.subarray(quarter.end) : undefined;
}

/** Finds frames of one type in the bytes of a stream, and passes over all others. */
export class FrameReader {
  readonly #type: number;
  #bytes: Uint8Array = new Uint8Array(0);
  /** Bytes of a frame of no interest that are still to come. */
  #passing = 0;
  #count = 0;

  /** Looks for frames of this type. */
  constructor(type: number) {
    this.#type = type;
  }

  /** How many frames have begun. */
  get count(): number {
    return this.#count;
  }

  /**
   * Takes the next bytes. Returns the payload of a frame once one is whole; what follows it is
   * dropped.
   *
   * @throws {TransportError} `InvalidFrame`: it is too long
   */
  take(chunk: Uint8Array): Uint8Array | undefined {
    while (true) {
      const passed = Math.min(this.#passing, chunk.length);
      this.#passing -= passed;
      this.#bytes = joined(this.#bytes, chunk.subarray(passed));
      chunk = new Uint8Array(0);
      const type = readNumber(this.#bytes, 0);
      const length = type && readNumber(this.#bytes, type.end);
      if (length === undefined) return undefined;
      if (type!.value === this.#type) return this.#wanted(length);
      this.#count++;
      this.#passing = length.value;
      chunk = this.#bytes.subarray(length.end);
      this.#bytes = new Uint8Array(0);
    }
  }

  #wanted({ value, end }: Varint): Uint8Array | undefined {
    if (value > MAX_FRAME_BYTES) {
      throw new TransportError("InvalidFrame", `a frame is longer than ${MAX_FRAME_BYTES} bytes`);
    }
    if (this.#bytes.length < end + value) return undefined;
    this.#count++;
    return this.#bytes.subarray(end, end + value);
  }
}

function joined(before: Uint8Array, chunk: Uint8Array): Uint8Array {
  if (before.length === 0) return chunk;
  const all = new Uint8Array(before.length + chunk.length);
  all.set(before);
  all.set(chunk, before.length);
  return all;
}
