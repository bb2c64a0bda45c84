/**
 * Frames of version 3 (docs/protocol.md, section "Version 3"): everything that can be judged by
 * looking at one frame alone. What must fit the frames before it is the session's.
 *
 * @module
 */

import { TransportError } from "../../errors.ts";
import { compressMessage } from "../message.ts";
import { crc32ByTable } from "./crc32_table.ts";
import type { Outbox } from "../outbox.ts";
import { type CompressionMethod, type Compressor, decompressPayload } from "./compression.ts";
import {
  ACK_ENTRY_BYTES,
  encodeGoawayPayload,
  GOAWAY_CODE_BYTES,
  highWord,
  PREFIX_BYTES,
  readTopic,
  readU32,
  toId,
} from "./payloads.ts";
import { CONTROL, KIND, type Kind, type Lane } from "./types.ts";

export type { CompressionMethod, Compressor } from "./compression.ts";
export {
  type CodeMessage,
  encodeCodeMessage,
  type Goaway,
  readAcks,
  readCodeMessage,
  readGoaway,
  readId,
  readTopic,
  readU32,
  type TopicAndRest,
} from "./payloads.ts";

const VERSION = 3;
const VERSION_MASK = 0b1111;
const COMPRESSION_SHIFT = 4;
const COMPRESSION_MASK = 0b111;
const CHECKSUM = 1 << 7;
const KIND_SHIFT = 8;
const KIND_MASK = 0b1111;
const MORE = 1 << 12;
const LANE_SHIFT = 13;
const LANE_MASK = 0b11;
const TOPIC = 1 << 15;

const LZ4 = 1;
const ZSTD = 2;

const LENGTH_BYTES = 4;
/** Flags and message id. */
const HEAD_BYTES = 10;
const CHECKSUM_BYTES = 4;
/** What the header, a prefix and a topic may have beside the application's bytes. */
const MAX_EXTRA_BYTES = 512;
/** Up to so many bytes, a loop is faster than `set`. */
const LOOP_BYTES = 16;
/** Up to so many bytes, plain code finds a checksum faster than the runtime, which wants a view. */
const SHORT_SUM_BYTES = 128;
/** A bit for each kind that may have a topic. */
const TOPIC_KINDS = 1 << KIND.data | 1 << KIND.request | 1 << KIND.streamOpen;
/** A bit for each kind whose message id is no number in a lane. */
const UNSEQUENCED_KINDS = 1 << KIND.ping | 1 << KIND.pong | 1 << KIND.ack | 1 << KIND.goaway;
const MAX_LANE = 2;
const NO_BYTES: Uint8Array = new Uint8Array(0);

/** What a connection has negotiated that its frames depend on. */
export interface FrameCodecConfig {
  /** Whether every frame carries a checksum ("checksum" was negotiated). */
  readonly checksum: boolean;
  /** CRC-32 (IEEE); `seed` is the CRC-32 of what stands before the bytes. */
  readonly crc32: (bytes: Uint8Array, seed?: number) => number;
  /** LZ4, where it was negotiated; undefined: frames compressed with it are refused. */
  readonly lz4: Compressor | undefined;
  /** Zstandard, where it was negotiated; undefined: frames compressed with it are refused. */
  readonly zstd: Compressor | undefined;
  /** What payloads are compressed with; undefined: they are not. */
  readonly method: CompressionMethod | undefined;
  /** The shortest payload that is worth compressing, in bytes. */
  readonly compressMinSize: number;
  /** The largest message, in application bytes. */
  readonly maxMessageSize: number;
}

/** A frame, decoded. */
export class Frame {
  /** What it is. */
  kind: Kind = KIND.data;
  /** Its lane; control where the kind has none. */
  lane: Lane = CONTROL;
  /** Whether its message goes on in the next frame of the lane. */
  more: boolean = false;
  /** Whether its payload begins with a topic. */
  topic: boolean = false;
  /** The first four bytes of the message id, as a u32. */
  idHigh: number = 0;
  /** The last four bytes of the message id, as a u32. */
  idLow: number = 0;
  /** The message id as a number; Infinity above 2^53 - 1. */
  id: number = 0;
  /** The payload, decompressed: a view of the body, or memory of its own. */
  payload: Uint8Array = NO_BYTES;
  /** Bytes of the payload as it was sent, without a checksum. */
  wireBytes: number = 0;
}

/** An acknowledgement: everything in the lane up to this number. */
export interface Ack {
  /** The lane. */
  readonly lane: Lane;
  /** The highest number received in order, 0 to 2^53 - 1. */
  readonly id: number;
}

/** Decodes and encodes the frames of one connection. */
export class FrameCodec {
  /** Frames of lanes that were written. */
  written = 0;
  readonly #config: FrameCodecConfig;
  readonly #frame: Frame = new Frame();
  /** The flags of every frame sent: version and checksum. */
  readonly #flags: number;
  readonly #checksumFlag: number;
  /** Bytes of a checksum, where there is one. */
  readonly #tailBytes: number;
  readonly #compressor: Compressor | undefined;
  readonly #compressionFlags: number;
  /** The shortest payload that is compressed. */
  readonly #minPacked: number;

  /**
   * Makes a codec.
   *
   * @throws {RangeError} If `method` names a compressor that is not given.
   */
  constructor(config: FrameCodecConfig) {
    const { checksum, method } = config;
    const compressor = method === undefined ? undefined : config[method];
    if (method !== undefined && compressor === undefined) {
      throw new RangeError(`Cannot make a frame codec: ${method} was not given`);
    }
    this.#config = config;
    this.#checksumFlag = checksum ? CHECKSUM : 0;
    this.#flags = VERSION | this.#checksumFlag;
    this.#tailBytes = checksum ? CHECKSUM_BYTES : 0;
    this.#compressor = compressor;
    this.#compressionFlags = (method === "zstd" ? ZSTD : LZ4) << COMPRESSION_SHIFT;
    this.#minPacked = compressor === undefined ? Infinity : config.compressMinSize;
  }

  /**
   * Takes the body of one frame apart.
   *
   * @param body The body of one frame, as `FrameDecoder.next` returns it.
   * @param into What is filled; by default one object that the codec uses again for every frame. It
   * keeps the payload until the next call: see {@linkcode release}.
   * @throws {TransportError} `InvalidFrame` for what breaks a rule of the header or of the kind, a
   * wrong checksum, or compression that was not negotiated; `Compression` for a compressed payload
   * that is malformed, claims 0 bytes or too many, or is not what it claims.
   */
  decode(body: Uint8Array, into: Frame = this.#frame): Frame {
    return this.decodeAt(body, 0, body.length, into);
  }

  /** The same, with the body in the bytes from `start` to `stop`. */
  decodeAt(bytes: Uint8Array, start: number, stop: number, into: Frame = this.#frame): Frame {
    const end = stop - this.#tailBytes;
    const payloadAt = start + HEAD_BYTES;
    if (end < payloadAt) throw tooShort(stop - start, HEAD_BYTES + this.#tailBytes);
    const flags = bytes[start]! << 8 | bytes[start + 1]!;
    if ((flags & (VERSION_MASK | CHECKSUM)) !== this.#flags) throw this.#wrongFlags(flags);
    // Not subarray(): on a Buffer it makes another Buffer, whose slice() does not copy.
    const payload = new Uint8Array(bytes.buffer, bytes.byteOffset + payloadAt, end - payloadAt);
    if (this.#tailBytes > 0) {
      // There is a view of the payload, which is all that the runtime needs of the bytes.
      const sum = this.#config.crc32(payload, crc32ByTable(bytes, start, payloadAt));
      if (sum !== word(bytes, end)) throw invalid("its checksum is wrong");
    }
    const kind = flags >>> KIND_SHIFT & KIND_MASK;
    const idHigh = word(bytes, start + 2);
    const idLow = word(bytes, start + 6);
    if ((UNSEQUENCED_KINDS >>> kind & 1) === 0) checkSequenced(flags, kind, idHigh, idLow);
    else checkUnsequenced(flags, kind, idHigh, idLow);
    into.kind = kind as Kind;
    into.lane = (flags >>> LANE_SHIFT & LANE_MASK) as Lane;
    into.more = (flags & MORE) !== 0;
    into.topic = (flags & TOPIC) !== 0;
    into.idHigh = idHigh;
    into.idLow = idLow;
    into.id = toId(idHigh, idLow);
    into.wireBytes = end - payloadAt;
    const method = flags >>> COMPRESSION_SHIFT & COMPRESSION_MASK;
    into.payload = method === 0 ? payload : this.#decompress(payload, method);
    if ((UNSEQUENCED_KINDS >>> kind & 1) !== 0) checkUnsequencedPayload(kind, into.payload);
    return into;
  }

  /** Lets go of the last payload, which may keep a large buffer alive. */
  release(): void {
    this.#frame.payload = NO_BYTES;
  }

  /**
   * The topic and the application's bytes of a sequenced frame that is a whole message, or the
   * first of one.
   *
   * @throws {TransportError} `InvalidFrame` if topic or prefix are cut off.
   */
  application(frame: Frame): { topic: string | undefined; payload: Uint8Array } {
    let { payload } = frame;
    let topic: string | undefined;
    if (frame.topic) ({ topic, rest: payload } = readTopic(payload));
    const prefix = PREFIX_BYTES[frame.kind]!;
    if (payload.length < prefix) throw invalid("its payload is too short for its kind");
    return { topic, payload: prefix === 0 ? payload : payload.subarray(prefix) };
  }

  /**
   * Whether frames that `other` encoded may go out as they are where this codec is in use: with or
   * without checksums alike, and not compressed with what was not negotiated here.
   */
  sameCoding(other: FrameCodec): boolean {
    if (other === this) return true;
    const method = other.#config.method;
    return other.#checksumFlag === this.#checksumFlag &&
      (method === undefined || this.#config[method] !== undefined);
  }

  /**
   * Adds a sequenced frame to the outbox. Everything is copied.
   *
   * @param id Its number in the lane, 1 to 2^53 - 1.
   * @param more Whether its message goes on in the next frame.
   * @param topic 1 to 255 bytes, in the first frame of a message whose kind may have one.
   * @param prefix What the kind wants before the application's bytes, in the first frame.
   * @param payload The application's bytes, of which those from `from` to `to` are sent.
   */
  encode(
    outbox: Outbox,
    kind: Kind,
    lane: Lane,
    id: number,
    more: boolean,
    topic: Uint8Array | undefined,
    prefix: Uint8Array | undefined,
    payload: Uint8Array,
    from: number,
    to: number,
  ): void {
    this.written++;
    let flags = this.#flags | kind << KIND_SHIFT | lane << LANE_SHIFT;
    if (more) flags |= MORE;
    let bytes = to - from;
    if (prefix !== undefined) bytes += prefix.length;
    if (topic !== undefined) {
      flags |= TOPIC;
      bytes += 1 + topic.length;
    }
    const start = outbox.beginV3(flags, highWord(id), id >>> 0, bytes + this.#tailBytes);
    const { buffer } = outbox;
    let at = start;
    if (topic !== undefined) {
      buffer[at++] = topic.length;
      at = copy(topic, 0, topic.length, buffer, at);
    }
    if (prefix !== undefined) at = copy(prefix, 0, prefix.length, buffer, at);
    copy(payload, from, to, buffer, at);
    this.#finish(outbox, start, bytes);
  }

  /** The same for a whole message of kind data without a topic. */
  encodePlain(outbox: Outbox, lane: Lane, id: number, payload: Uint8Array): void {
    this.written++;
    const { length } = payload;
    const flags = this.#flags | lane << LANE_SHIFT;
    const start = outbox.beginV3(flags, highWord(id), id >>> 0, length + this.#tailBytes);
    outbox.buffer.set(payload, start);
    this.#finish(outbox, start, length);
  }

  /** Adds a sequenced frame that was decoded, perhaps by another codec, with its payload as it is. */
  encodeFrame(outbox: Outbox, frame: Frame): void {
    this.written++;
    const { payload, idHigh, idLow } = frame;
    let flags = this.#flags | frame.kind << KIND_SHIFT | frame.lane << LANE_SHIFT;
    if (frame.more) flags |= MORE;
    if (frame.topic) flags |= TOPIC;
    const start = this.#encodeWhole(outbox, flags, idHigh, idLow, payload);
    this.#finish(outbox, start, payload.length);
  }

  /** Adds a ping with a token of two u32. */
  encodePing(outbox: Outbox, high: number, low: number): void {
    this.#encodeUnsequenced(outbox, KIND.ping, high, low, NO_BYTES);
  }

  /** Adds the answer to a ping, with its token. */
  encodePong(outbox: Outbox, high: number, low: number): void {
    this.#encodeUnsequenced(outbox, KIND.pong, high, low, NO_BYTES);
  }

  /** Adds an ack with these entries; nothing where there are none. */
  encodeAck(outbox: Outbox, acks: readonly Ack[]): void {
    if (acks.length === 0) return;
    const payload = new Uint8Array(acks.length * ACK_ENTRY_BYTES);
    let at = 0;
    for (const { lane, id } of acks) {
      payload[at] = lane;
      writeWord(payload, at + 1, highWord(id));
      writeWord(payload, at + 5, id);
      at += ACK_ENTRY_BYTES;
    }
    this.#encodeUnsequenced(outbox, KIND.ack, 0, 0, payload);
  }

  /** Adds a goaway; the reason is cut to 200 UTF-16 units. */
  encodeGoaway(outbox: Outbox, code: number, reason: string): void {
    this.#encodeUnsequenced(outbox, KIND.goaway, 0, 0, encodeGoawayPayload(code, reason));
  }

  #encodeUnsequenced(
    outbox: Outbox,
    kind: Kind,
    idHigh: number,
    idLow: number,
    payload: Uint8Array,
  ): void {
    const flags = this.#flags | kind << KIND_SHIFT;
    const start = this.#encodeWhole(outbox, flags, idHigh, idLow, payload);
    if (this.#tailBytes > 0) this.#sign(outbox.buffer, start, start + payload.length);
  }

  /** Adds all of a frame but the checksum; returns where the payload begins. */
  #encodeWhole(
    outbox: Outbox,
    flags: number,
    idHigh: number,
    idLow: number,
    payload: Uint8Array,
  ): number {
    const start = outbox.beginV3(flags, idHigh, idLow, payload.length + this.#tailBytes);
    copy(payload, 0, payload.length, outbox.buffer, start);
    return start;
  }

  /** Compresses the payload in its place, where that is worth it, and adds the checksum. */
  #finish(outbox: Outbox, start: number, bytes: number): void {
    let end = start + bytes;
    if (bytes >= this.#minPacked) end = this.#compress(outbox, start, end);
    if (this.#tailBytes > 0) this.#sign(outbox.buffer, start, end);
  }

  /** Returns where the payload ends after it. */
  #compress(outbox: Outbox, start: number, end: number): number {
    const { buffer } = outbox;
    const packed = compressMessage(buffer.subarray(start, end), this.#compressor!);
    if (packed === undefined) return end;
    buffer.set(packed, start);
    const bodyAt = start - HEAD_BYTES;
    buffer[bodyAt + 1]! |= this.#compressionFlags;
    outbox.shorten(bodyAt, HEAD_BYTES + packed.length + this.#tailBytes);
    return start + packed.length;
  }

  /**
   * Writes the checksum behind a payload: that of the copy, for what was given may be changed by
   * another thread meanwhile.
   */
  #sign(buffer: Uint8Array, start: number, end: number): void {
    const headAt = start - HEAD_BYTES;
    const sum = end - headAt <= SHORT_SUM_BYTES
      ? crc32ByTable(buffer, headAt, end)
      : this.#config.crc32(buffer.subarray(headAt, end));
    writeWord(buffer, end, sum);
  }

  #decompress(packed: Uint8Array, method: number): Uint8Array {
    if (method > ZSTD) throw invalid(`compression ${method} is unknown`);
    const name = method === LZ4 ? "lz4" : "zstd";
    const compressor = this.#config[name];
    if (compressor === undefined) {
      throw invalid(`it is compressed with ${name}, which was not negotiated`);
    }
    const maxBytes = this.#config.maxMessageSize + MAX_EXTRA_BYTES;
    return decompressPayload(packed, name, compressor, maxBytes);
  }

  #wrongFlags(flags: number): TransportError {
    const version = flags & VERSION_MASK;
    if (version !== VERSION) return invalid(`its version is ${version}`);
    const problem = this.#checksumFlag === 0 ? "a checksum, which was not negotiated" : "none";
    return invalid(
      `checksums are ${this.#checksumFlag === 0 ? "off" : "on"} and it has ${problem}`,
    );
  }
}

/**
 * Walks through whole frames, lengths included, one after the other.
 *
 * @param bytes Frames as `codec` encoded them.
 * @param onFrame Called with each frame, the offset of its length and the offset behind it. The
 * frame is the same object every time, and not the one that `codec.decode` returns.
 * @throws {TransportError} As {@linkcode FrameCodec.decode}, and `InvalidFrame` if the last frame
 * is cut off.
 */
export function decodeRun(
  bytes: Uint8Array,
  codec: FrameCodec,
  onFrame: (frame: Frame, start: number, end: number) => void,
): void {
  const frame = new Frame();
  let start = 0;
  while (start < bytes.length) {
    const bodyAt = start + LENGTH_BYTES;
    const end = bodyAt + readU32(bytes, start);
    if (end > bytes.length) throw invalid("the last of several is cut off");
    codec.decodeAt(bytes, bodyAt, end, frame);
    onFrame(frame, start, end);
    start = end;
  }
}

function checkSequenced(flags: number, kind: number, idHigh: number, idLow: number): void {
  if ((flags >>> LANE_SHIFT & LANE_MASK) > MAX_LANE) throw invalid("its lane is 3");
  if ((flags & TOPIC) !== 0 && (TOPIC_KINDS >>> kind & 1) === 0) {
    throw invalid(`kind ${kind} has no topic`);
  }
  if (idHigh === 0 && idLow === 0) throw invalid("its number is 0");
}

function checkUnsequenced(flags: number, kind: number, idHigh: number, idLow: number): void {
  if ((flags & (TOPIC | MORE | LANE_MASK << LANE_SHIFT)) !== 0) {
    throw invalid(`kind ${kind} has a topic, a lane or more to come`);
  }
  const hasToken = kind === KIND.ping || kind === KIND.pong;
  if (!hasToken && (idHigh !== 0 || idLow !== 0)) throw invalid(`kind ${kind} has an id`);
}

function checkUnsequencedPayload(kind: number, payload: Uint8Array): void {
  const { length } = payload;
  if (kind === KIND.ack) return checkAcks(payload);
  if (kind === KIND.goaway) {
    if (length < GOAWAY_CODE_BYTES) throw invalid("a goaway has no code");
  } else if (length > 0) {
    throw invalid("a ping or pong has a payload");
  }
}

function checkAcks(payload: Uint8Array): void {
  const { length } = payload;
  if (length === 0 || length % ACK_ENTRY_BYTES !== 0) throw invalid(`an ack has ${length} bytes`);
  for (let at = 0; at < length; at += ACK_ENTRY_BYTES) {
    if (payload[at]! > MAX_LANE) throw invalid(`an ack names lane ${payload[at]}`);
  }
}

/** Copies a range; returns where it ends. */
function copy(
  bytes: Uint8Array,
  from: number,
  to: number,
  buffer: Uint8Array,
  at: number,
): number {
  const length = to - from;
  if (length <= LOOP_BYTES) {
    for (let i = 0; i < length; i++) buffer[at + i] = bytes[from + i]!;
  } else {
    buffer.set(length === bytes.length ? bytes : bytes.subarray(from, to), at);
  }
  return at + length;
}

function word(bytes: Uint8Array, at: number): number {
  return (bytes[at]! << 24 | bytes[at + 1]! << 16 | bytes[at + 2]! << 8 | bytes[at + 3]!) >>> 0;
}

function writeWord(bytes: Uint8Array, at: number, value: number): void {
  bytes[at] = value >>> 24;
  bytes[at + 1] = value >>> 16;
  bytes[at + 2] = value >>> 8;
  bytes[at + 3] = value;
}

function tooShort(length: number, least: number): TransportError {
  return invalid(`it has ${length} bytes, the least is ${least}`);
}

function invalid(problem: string): TransportError {
  return new TransportError("InvalidFrame", `Cannot read a frame: ${problem}`);
}
