/**
 * What stands in the payloads of version 3 frames before the application's bytes, or instead of
 * them (docs/protocol.md, section "Version 3").
 *
 * @module
 */

import { TransportError } from "../../errors.ts";
import { isObject, parseStrictJson } from "../strict_json.ts";
import { quote } from "../text.ts";
import { TopicCache } from "./topic_cache.ts";
import type { Lane } from "./types.ts";

/** Bytes between topic and application bytes, by kind: the u32 of a request, the u64 of a response. */
export const PREFIX_BYTES: readonly number[] = [0, 4, 8, 8, 8, 0, 8, 8, 8, 8, 0, 0, 0, 0, 0, 0];
/** An entry of an ack: u8 lane, u64 id. */
export const ACK_ENTRY_BYTES = 9;
/** The u16 code of a goaway, which its reason may follow. */
export const GOAWAY_CODE_BYTES = 2;

/** The JSON of error and stream-reset has at most this many bytes: one fragment. */
const MAX_JSON_BYTES = 65_536;
const MAX_JSON_DEPTH = 8;
const MAX_CODE_CHARS = 64;
const MAX_MESSAGE_CHARS = 1024;
const MAX_REASON_CHARS = 200;
/** A UTF-16 unit is at most three bytes of UTF-8. */
const BYTES_PER_CHAR = 3;
const TWO_32 = 0x1_0000_0000;
/** The high word of the first number that is not exact. */
const HIGH_LIMIT = 0x20_0000;

const encoder = new TextEncoder();
const lenientDecoder = new TextDecoder();
const topics = new TopicCache();

/** A payload that begins with a topic, taken apart. */
export interface TopicAndRest {
  /** The topic, of 1 to 255 bytes. Any text at all: escape it before it reaches a log. */
  readonly topic: string;
  /** A view of what follows it. */
  readonly rest: Uint8Array;
}

/** What an error or a stream-reset says. */
export interface CodeMessage {
  /** 1 to 64 characters of printable ASCII; a code that is anything else is quoted, escaped and cut. */
  readonly code: string;
  /** At most 1024 UTF-16 units of any text at all: escape it before it reaches a log. */
  readonly message: string;
}

/** What a goaway says. */
export interface Goaway {
  /** A u16: one of the codes of `GOAWAY`, or one that is not known. */
  readonly code: number;
  /** At most 200 UTF-16 units of any text at all: escape it before it reaches a log. */
  readonly reason: string;
}

/**
 * Reads the topic at the start of a payload: u8 n, then n bytes of UTF-8.
 *
 * @throws {TransportError} `InvalidFrame` if it is empty, cut off or not UTF-8.
 */
export function readTopic(payload: Uint8Array): TopicAndRest {
  const topic = readTopicText(payload);
  return { topic, rest: viewFrom(payload, 1 + payload[0]!) };
}

/** The same without what follows, which begins after as many bytes as the first one says. */
export function readTopicText(payload: Uint8Array): string {
  const length = payload[0];
  if (length === undefined || length === 0) throw invalid("its topic is empty");
  const end = 1 + length;
  if (end > payload.length) throw invalid("its topic is cut off");
  const topic = topics.read(payload, 1, end);
  if (topic === undefined) throw invalid("its topic is not valid UTF-8");
  return topic;
}

/** What stands behind so many bytes, which must be there; on V8 quicker than `subarray`. */
export function viewFrom({ buffer, byteOffset, length }: Uint8Array, at: number): Uint8Array {
  return new Uint8Array(buffer, byteOffset + at, length - at);
}

/**
 * Reads a big-endian u32 at an offset.
 *
 * @throws {TransportError} `InvalidFrame` if the payload ends before it does.
 */
export function readU32(payload: Uint8Array, at: number): number {
  if (at + 4 > payload.length) throw invalid("its payload is too short");
  return (payload[at]! << 24 | payload[at + 1]! << 16 | payload[at + 2]! << 8 |
    payload[at + 3]!) >>> 0;
}

/**
 * Reads a big-endian u64 at an offset; Infinity above 2^53 - 1. Read it as two u32 where it may be
 * the id of a stream, whose top bit is no part of the number.
 *
 * @throws {TransportError} `InvalidFrame` if the payload ends before it does.
 */
export function readId(payload: Uint8Array, at: number): number {
  return toId(readU32(payload, at), readU32(payload, at + 4));
}

/** The number that two words make; Infinity above 2^53 - 1. */
export function toId(high: number, low: number): number {
  if (high === 0) return low;
  return high < HIGH_LIMIT ? high * TWO_32 + low : Infinity;
}

/** The high word of a number from 0 to 2^53 - 1; its low word is `id >>> 0`. */
export function highWord(id: number): number {
  return id < TWO_32 ? 0 : Math.floor(id / TWO_32);
}

/**
 * Calls `onAck` with each entry of an ack that `FrameCodec.decode` accepted; the id is Infinity
 * above 2^53 - 1.
 *
 * @throws {TransportError} `InvalidFrame` if the last entry is cut off.
 */
export function readAcks(payload: Uint8Array, onAck: (lane: Lane, id: number) => void): void {
  for (let at = 0; at < payload.length; at += ACK_ENTRY_BYTES) {
    onAck(payload[at]! as Lane, readId(payload, at + 1));
  }
}

/**
 * Reads a goaway. Bytes of its reason that are not UTF-8 are replaced.
 *
 * @throws {TransportError} `InvalidFrame` if it has no code.
 */
export function readGoaway(payload: Uint8Array): Goaway {
  if (payload.length < GOAWAY_CODE_BYTES) throw invalid("its payload is too short");
  const end = GOAWAY_CODE_BYTES + MAX_REASON_CHARS * BYTES_PER_CHAR;
  const reason = lenientDecoder.decode(payload.subarray(GOAWAY_CODE_BYTES, end));
  return { code: payload[0]! << 8 | payload[1]!, reason: cut(reason, MAX_REASON_CHARS) };
}

/** The payload of a goaway; the reason is cut to 200 UTF-16 units. */
export function encodeGoawayPayload(code: number, reason: string): Uint8Array {
  const text = encoder.encode(cut(reason, MAX_REASON_CHARS));
  const payload = new Uint8Array(GOAWAY_CODE_BYTES + text.length);
  payload[0] = code >>> 8;
  payload[1] = code;
  payload.set(text, GOAWAY_CODE_BYTES);
  return payload;
}

/**
 * Reads the JSON of an error or a stream-reset, which stands after the u64 id.
 *
 * @throws {TransportError} `InvalidFrame` if it is longer than 65,536 bytes, malformed, or not an
 * object with a `code` and a `message` that are strings.
 */
export function readCodeMessage(json: Uint8Array): CodeMessage {
  if (json.length > MAX_JSON_BYTES) throw invalid(`its JSON has ${json.length} bytes`);
  const root = parseObject(json);
  const code = ownString(root, "code");
  const message = ownString(root, "message");
  return {
    code: /^[ -~]{1,64}$/.test(code) ? code : quote(code, MAX_CODE_CHARS),
    message: cut(message, MAX_MESSAGE_CHARS),
  };
}

/** The JSON of an error or a stream-reset; the code is cut to 64 UTF-16 units, the message to 1024. */
export function encodeCodeMessage(code: string, message: string): Uint8Array {
  return encoder.encode(JSON.stringify({
    code: cut(code, MAX_CODE_CHARS),
    message: cut(message, MAX_MESSAGE_CHARS),
  }));
}

function parseObject(json: Uint8Array): Record<string, unknown> {
  try {
    const root: unknown = parseStrictJson(json, MAX_JSON_DEPTH);
    if (isObject(root)) return root;
  } catch (error) {
    if (!(error instanceof TransportError)) throw error;
  }
  throw invalid("its JSON is malformed");
}

function ownString(root: Record<string, unknown>, name: string): string {
  const value = Object.hasOwn(root, name) ? root[name] : undefined;
  if (typeof value === "string") return value;
  throw invalid(`its JSON has no string "${name}"`);
}

/** The first `max` UTF-16 units; no character is cut in two. */
function cut(text: string, max: number): string {
  if (text.length <= max) return text;
  const last = text.charCodeAt(max - 1);
  const splits = last >= 0xd800 && last <= 0xdbff;
  return text.slice(0, splits ? max - 1 : max);
}

function invalid(problem: string): TransportError {
  return new TransportError("InvalidFrame", `Cannot read a frame: ${problem}`);
}
