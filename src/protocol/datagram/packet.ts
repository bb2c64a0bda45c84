/**
 * Packets to bytes and back (docs/datagrams.md). Nothing here looks into signatures: what is signed
 * is opened before its body is read.
 *
 * @module
 */

import { TransportError } from "../../errors.ts";
import { readTopic } from "../v3/payloads.ts";
import type { Lane } from "../v3/types.ts";
import {
  AUTH_BYTES,
  HEADER_BYTES,
  MAGIC,
  MAX_COOKIE_BYTES,
  MAX_HANDSHAKE_BYTES,
  MIN_HELLO_BYTES,
  PACKET,
  PACKET_VERSION,
  type PacketKind,
  PREFIX_BYTES,
  TAG_BYTES,
  TOKEN_BYTES,
} from "./types.ts";

/** What stands in front of every packet. */
export interface Prefix {
  /** What it is. */
  readonly kind: PacketKind;
  /** The receiver's tag; a view. */
  readonly tag: Uint8Array;
}

/** A hello; its parts are views. */
export interface HelloPacket {
  /** Empty in the first hello of a dialer: all else is missing then. */
  readonly cookie: Uint8Array;
  /** The proof of the auth token; empty where none is given. */
  readonly auth: Uint8Array;
  /** The hello of the handshake as JSON, or an envelope around it. */
  readonly content: Uint8Array;
}

/** The body of a message or of a request. */
export interface MessageBody {
  /** The lane, which says nothing of the order here. */
  readonly lane: Lane;
  /** What it is about. */
  readonly topic: string | undefined;
  /** The application's bytes; a view. */
  readonly payload: Uint8Array;
}

/** The body of a request. */
export interface RequestBody extends MessageBody {
  /** The requester's number for it, the same in every repetition. */
  readonly id: number;
  /** Milliseconds that the requester still waits; 0: it has no deadline. */
  readonly msLeft: number;
}

/** The body of what answers a request, or gives it up. */
export interface AnswerBody {
  /** The number of the request. */
  readonly id: number;
  /** What follows it; a view. */
  readonly rest: Uint8Array;
}

const FLAG_TOPIC = 0b100;
const LANE_MASK = 0b011;
const NO_BYTES: Uint8Array = new Uint8Array(0);
const TWO_32 = 0x1_0000_0000;

// --- reading ---

/** The kind and tag of a packet; undefined where it is none of this version. Never throws. */
export function readPrefix(packet: Uint8Array): Prefix | undefined {
  if (packet.length < PREFIX_BYTES || packet[0] !== MAGIC) return undefined;
  const second = packet[1]!;
  const kind = second & 0x0f;
  if (second >>> 4 !== PACKET_VERSION || kind > PACKET.bye) return undefined;
  return { kind: kind as PacketKind, tag: packet.subarray(2, PREFIX_BYTES) };
}

/** The number of a packet of an established link; undefined where it has none that is in range. */
export function readNumber(packet: Uint8Array): number | undefined {
  if (packet.length < HEADER_BYTES) return undefined;
  const number = readU64(packet, PREFIX_BYTES);
  return number > 0 ? number : undefined;
}

/**
 * Reads a hello.
 *
 * @throws {TransportError} `InvalidFrame` if it is too short or too long for one, or its parts
 * aren't what their lengths say.
 */
export function readHello(packet: Uint8Array): HelloPacket {
  if (packet.length < MIN_HELLO_BYTES) throw invalid(`a hello has ${packet.length} bytes`);
  if (packet.length > MAX_HANDSHAKE_BYTES) throw invalid(`a hello has ${packet.length} bytes`);
  let at = PREFIX_BYTES;
  const take = (length: number): Uint8Array => {
    if (at + length > packet.length) throw invalid("its hello is cut short");
    at += length;
    return packet.subarray(at - length, at);
  };
  const cookie = take(take(1)[0]!);
  if (cookie.length === 0) return { cookie, auth: NO_BYTES, content: NO_BYTES };
  const authLength = take(1)[0]!;
  if (authLength !== 0 && authLength !== AUTH_BYTES) throw invalid("its proof has another length");
  const auth = take(authLength);
  const size = take(2);
  const content = take(size[0]! << 8 | size[1]!);
  return { cookie, auth, content };
}

/**
 * The cookie of a retry; a view.
 *
 * @throws {TransportError} `InvalidFrame` if there is none, or something behind it.
 */
export function readRetry(packet: Uint8Array): Uint8Array {
  const length = packet[PREFIX_BYTES] ?? 0;
  const cookie = packet.subarray(PREFIX_BYTES + 1);
  if (length === 0 || cookie.length !== length) throw invalid("its cookie has another length");
  return cookie;
}

/** What stands behind the prefix of a welcome or reject; a view. */
export function readContent(packet: Uint8Array): Uint8Array {
  return packet.subarray(PREFIX_BYTES);
}

/**
 * Reads the body of a data packet.
 *
 * @throws {TransportError} `InvalidFrame`
 */
export function readData(body: Uint8Array): MessageBody {
  return readMessage(body, 0);
}

/**
 * Reads the body of a request.
 *
 * @throws {TransportError} `InvalidFrame`
 */
export function readRequest(body: Uint8Array): RequestBody {
  const message = readMessage(body, 12);
  const id = readU64(body, 1);
  if (id === 0) throw invalid("its request has no number");
  return { ...message, id, msLeft: readU32(body, 9) };
}

/**
 * Reads the body of a response, an error or a cancel.
 *
 * @throws {TransportError} `InvalidFrame`
 */
export function readAnswer(body: Uint8Array): AnswerBody {
  if (body.length < 8) throw invalid("it is cut short");
  const id = readU64(body, 0);
  if (id === 0) throw invalid("its request has no number");
  return { id, rest: body.subarray(8) };
}

/**
 * The token of a ping or pong, as text; undefined where it has another length.
 *
 * @throws {TransportError} `InvalidFrame`
 */
export function readToken(body: Uint8Array): Uint8Array {
  if (body.length !== TOKEN_BYTES) throw invalid("its token has another length");
  return body;
}

function readMessage(body: Uint8Array, fixedBytes: number): MessageBody {
  const flags = body[0];
  if (flags === undefined || body.length < 1 + fixedBytes) throw invalid("it is cut short");
  const lane = flags & LANE_MASK;
  if ((flags & ~(FLAG_TOPIC | LANE_MASK)) !== 0 || lane === 3) {
    throw invalid(`flags 0x${flags.toString(16).padStart(2, "0")} are unknown`);
  }
  const rest = body.subarray(1 + fixedBytes);
  if ((flags & FLAG_TOPIC) === 0) return { lane: lane as Lane, topic: undefined, payload: rest };
  const { topic, rest: payload } = readTopic(rest);
  return { lane: lane as Lane, topic, payload };
}

// --- writing ---

/** A hello, padded with zeros to at least 1200 bytes. */
export function encodeHelloPacket(tag: Uint8Array, hello: HelloPacket): Uint8Array {
  const { cookie, auth, content } = hello;
  if (cookie.length > MAX_COOKIE_BYTES) throw new RangeError("Cannot say hello: a long cookie");
  const parts = cookie.length === 0 ? [Uint8Array.of(0)] : [
    Uint8Array.of(cookie.length),
    cookie,
    Uint8Array.of(auth.length),
    auth,
    Uint8Array.of(content.length >>> 8, content.length),
    content,
  ];
  return encode(PACKET.hello, tag, parts, MIN_HELLO_BYTES);
}

/** A retry: a cookie for the dialer that has this tag. */
export function encodeRetry(tag: Uint8Array, cookie: Uint8Array): Uint8Array {
  return encode(PACKET.retry, tag, [Uint8Array.of(cookie.length), cookie]);
}

/** A welcome or reject: content behind the prefix. */
export function encodeContent(
  kind: typeof PACKET.welcome | typeof PACKET.reject,
  tag: Uint8Array,
  content: Uint8Array,
): Uint8Array {
  return encode(kind, tag, [content]);
}

/** The header of a packet of an established link. */
export function encodeHeader(kind: PacketKind, tag: Uint8Array, number: number): Uint8Array {
  const header = new Uint8Array(HEADER_BYTES);
  writePrefix(header, kind, tag);
  writeU64(header, PREFIX_BYTES, number);
  return header;
}

/** A packet of an established link: its header, and its body or the envelope around that. */
export function joinPacket(header: Uint8Array, body: Uint8Array): Uint8Array {
  const packet = new Uint8Array(header.length + body.length);
  packet.set(header);
  packet.set(body, header.length);
  return packet;
}

/** The body of a data packet; the topic is encoded. */
export function encodeData(
  lane: Lane,
  topic: Uint8Array | undefined,
  payload: Uint8Array,
): Uint8Array {
  return encodeMessage(lane, topic, payload, 0);
}

/** The body of a request; the topic is encoded. */
export function encodeRequest(
  lane: Lane,
  topic: Uint8Array | undefined,
  payload: Uint8Array,
  id: number,
): Uint8Array {
  const body = encodeMessage(lane, topic, payload, 12);
  writeU64(body, 1, id);
  return body;
}

/** Writes how long the requester still waits into the body of a request; 0: for ever. */
export function setMsLeft(body: Uint8Array, msLeft: number): void {
  writeU32(body, 9, msLeft);
}

/** The body of a response, an error or a cancel. */
export function encodeAnswer(id: number, rest: Uint8Array): Uint8Array {
  const body = new Uint8Array(8 + rest.length);
  writeU64(body, 0, id);
  body.set(rest, 8);
  return body;
}

/** Whether two tags, cookies or tokens are equal, in a time that doesn't tell where they differ. */
export function equalBytes(a: Uint8Array, b: Uint8Array): boolean {
  if (a.length !== b.length) return false;
  let difference = 0;
  for (let i = 0; i < a.length; i++) difference |= a[i]! ^ b[i]!;
  return difference === 0;
}

function encodeMessage(
  lane: Lane,
  topic: Uint8Array | undefined,
  payload: Uint8Array,
  fixedBytes: number,
): Uint8Array {
  const topicBytes = topic === undefined ? 0 : 1 + topic.length;
  const body = new Uint8Array(1 + fixedBytes + topicBytes + payload.length);
  body[0] = lane;
  if (topic !== undefined) {
    body[0] = lane | FLAG_TOPIC;
    body[1 + fixedBytes] = topic.length;
    body.set(topic, 2 + fixedBytes);
  }
  body.set(payload, 1 + fixedBytes + topicBytes);
  return body;
}

function encode(
  kind: PacketKind,
  tag: Uint8Array,
  parts: readonly Uint8Array[],
  minBytes = 0,
): Uint8Array {
  const length = parts.reduce((sum, part) => sum + part.length, PREFIX_BYTES);
  const packet = new Uint8Array(Math.max(length, minBytes));
  writePrefix(packet, kind, tag);
  let at = PREFIX_BYTES;
  for (const part of parts) {
    packet.set(part, at);
    at += part.length;
  }
  return packet;
}

function writePrefix(packet: Uint8Array, kind: PacketKind, tag: Uint8Array): void {
  if (tag.length !== TAG_BYTES) throw new RangeError("Cannot write a packet: the tag is too short");
  packet[0] = MAGIC;
  packet[1] = PACKET_VERSION << 4 | kind;
  packet.set(tag, 2);
}

/** A u64; 0 where it is above 2^53 - 1, which no number is. */
function readU64(bytes: Uint8Array, at: number): number {
  const value = readU32(bytes, at) * TWO_32 + readU32(bytes, at + 4);
  return Number.isSafeInteger(value) ? value : 0;
}

function readU32(bytes: Uint8Array, at: number): number {
  return (bytes[at]! << 24 | bytes[at + 1]! << 16 | bytes[at + 2]! << 8 | bytes[at + 3]!) >>> 0;
}

function writeU64(bytes: Uint8Array, at: number, value: number): void {
  writeU32(bytes, at, Math.floor(value / TWO_32));
  writeU32(bytes, at + 4, value >>> 0);
}

function writeU32(bytes: Uint8Array, at: number, value: number): void {
  bytes[at] = value >>> 24;
  bytes[at + 1] = value >>> 16;
  bytes[at + 2] = value >>> 8;
  bytes[at + 3] = value;
}

function invalid(problem: string): TransportError {
  return new TransportError("InvalidFrame", `Cannot read a packet: ${problem}`);
}
