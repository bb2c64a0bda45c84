/** Bytes of protocol version 3, written by hand from docs/protocol.md. */

import type { RawPeer } from "./raw_peer.ts";
import { bytes, frame, hello, join } from "./wire.ts";

/** The kinds of frames by name. */
export const KINDS = {
  data: 0,
  request: 1,
  response: 2,
  error: 3,
  cancel: 4,
  open: 5,
  streamData: 6,
  end: 7,
  reset: 8,
  window: 9,
  ping: 10,
  pong: 11,
  ack: 12,
  goaway: 13,
  routed: 14,
  control: 15,
} as const;

/** The process that an attacker says it is. */
export const INCARNATION = "00000000000000aa";

/** A frame of version 3; by default data in the normal lane, numbered 1. */
export interface FrameV3 {
  kind?: keyof typeof KINDS;
  lane?: number;
  id?: number | bigint;
  more?: boolean;
  /** Bit 15; the payload begins with the topic. */
  topic?: boolean;
  version?: number;
  compression?: number;
  checksum?: boolean;
  payload?: string | readonly number[] | Uint8Array;
}

/** A frame, with its length before it. */
export function frameV3(parts: FrameV3 = {}): Uint8Array {
  return frame(bodyV3(parts));
}

/** The body of a frame. */
export function bodyV3(parts: FrameV3): Uint8Array {
  const { kind = "data", lane = isSequenced(kind) ? 1 : 0, id = isSequenced(kind) ? 1 : 0 } = parts;
  const flags = (parts.version ?? 3) | (parts.compression ?? 0) << 4 |
    (parts.checksum ? 1 << 7 : 0) | KINDS[kind] << 8 | (parts.more ? 1 << 12 : 0) | lane << 13 |
    (parts.topic ? 1 << 15 : 0);
  const content = join(
    Uint8Array.of(flags >>> 8, flags),
    u64(id),
    bytes(parts.payload ?? ""),
  );
  return parts.checksum ? join(content, u32(crc32(content))) : content;
}

/** A topic at the start of a payload. */
export function topicOf(text: string | Uint8Array): Uint8Array {
  const content = bytes(text);
  return join(Uint8Array.of(content.length), content);
}

/** The id that many payloads begin with, then the rest of the payload. */
export function ref(id: number | bigint, rest: string | Uint8Array = ""): Uint8Array {
  return join(u64(id), bytes(rest));
}

/** The id of a stream as the side names it that did not open it. */
export function theirs(id: number): bigint {
  return BigInt(id) | 1n << 63n;
}

/** An entry of an ack. */
export function ackEntry(lane: number, id: number | bigint): Uint8Array {
  return join(Uint8Array.of(lane), u64(id));
}

/** The JSON of error and stream-reset. */
export function failure(code: unknown, message: unknown = ""): Uint8Array {
  return bytes(JSON.stringify({ code, message }));
}

/** A u32, big-endian. */
export function u32(value: number): Uint8Array {
  return Uint8Array.of(value >>> 24, value >>> 16, value >>> 8, value);
}

/** A u64, big-endian. */
export function u64(value: number | bigint): Uint8Array {
  const wire = new Uint8Array(8);
  new DataView(wire.buffer).setBigUint64(0, BigInt(value));
  return wire;
}

/** CRC-32 (IEEE), bit by bit. */
export function crc32(content: Uint8Array): number {
  let sum = 0xffff_ffff;
  for (const byte of content) {
    sum ^= byte;
    for (let bit = 0; bit < 8; bit++) sum = sum >>> 1 ^ (sum & 1 ? 0xedb8_8320 : 0);
  }
  return ~sum >>> 0;
}

/** Members of a hello of version 3. */
export function helloFieldsV3(fields: Record<string, unknown> = {}): Record<string, unknown> {
  return {
    protocol_version: 3,
    min_protocol_version: 3,
    capabilities: ["resume", "streams"],
    incarnation: INCARNATION,
    session_generation: 0,
    ...fields,
  };
}

/** {@linkcode helloFieldsV3} in a hello, in its frame. */
export function helloV3(fields: Record<string, unknown> = {}): Uint8Array {
  return hello(helloFieldsV3(fields));
}

/** A frame that came, taken apart. */
export interface ReadFrame {
  kind: number;
  lane: number;
  more: boolean;
  id: bigint;
  payload: Uint8Array;
}

/** Takes a frame's body apart; one without checksum and compression. */
export function readV3(body: Uint8Array): ReadFrame {
  const view = new DataView(body.buffer, body.byteOffset, body.length);
  const flags = view.getUint16(0);
  return {
    kind: flags >>> 8 & 15,
    lane: flags >>> 13 & 3,
    more: (flags >>> 12 & 1) === 1,
    id: view.getBigUint64(2),
    payload: body.subarray(10),
  };
}

/** The next frame of this kind; others before it are dropped. Undefined: the other side has gone. */
export async function nextOfKind(
  peer: RawPeer,
  kind: keyof typeof KINDS,
): Promise<ReadFrame | undefined> {
  for (;;) {
    const body = await peer.nextFrame();
    if (body === undefined) return undefined;
    const read = readV3(body);
    if (read.kind === KINDS[kind]) return read;
  }
}

/** Text of bytes. */
export function textOf(content: Uint8Array): string {
  return new TextDecoder().decode(content);
}

function isSequenced(kind: keyof typeof KINDS): boolean {
  return KINDS[kind] < KINDS.ping || KINDS[kind] > KINDS.goaway;
}
