/**
 * Messages in datagrams of a connection (docs/protocol.md, section "Datagrams"): a data frame
 * without its length, whose number is 0 because it has no place in a lane.
 *
 * @module
 */

import { readTopic } from "./payloads.ts";
import { KIND, type Lane } from "./types.ts";

/** Flags and message id. */
const HEAD_BYTES = 10;
const VERSION = 3;
/** Version, compression, checksum, kind, more. */
const FIXED_FLAGS = 0x1fff;
const LANE_SHIFT = 13;
const LANE_MASK = 0b11;
const MAX_LANE = 2;
const TOPIC = 1 << 15;

/** A message that came in a datagram. */
export interface DatagramMessage {
  /** The lane it was sent in. */
  readonly lane: Lane;
  /** What it is about. */
  readonly topic: string | undefined;
  /** A view of the datagram. */
  readonly payload: Uint8Array;
}

/** Bytes of the datagram that a message needs. */
export function datagramBytes(payloadBytes: number, topic: Uint8Array | undefined): number {
  return HEAD_BYTES + (topic === undefined ? 0 : 1 + topic.length) + payloadBytes;
}

/** Makes the datagram of a message; the payload is copied. `topic` is encoded. */
export function encodeDatagram(
  lane: Lane,
  topic: Uint8Array | undefined,
  payload: Uint8Array,
): Uint8Array {
  const bytes = new Uint8Array(datagramBytes(payload.length, topic));
  const flags = VERSION | KIND.data << 8 | lane << LANE_SHIFT | (topic === undefined ? 0 : TOPIC);
  bytes[0] = flags >>> 8;
  bytes[1] = flags & 0xff;
  if (topic !== undefined) {
    bytes[HEAD_BYTES] = topic.length;
    bytes.set(topic, HEAD_BYTES + 1);
  }
  bytes.set(payload, bytes.length - payload.length);
  return bytes;
}

/** The message in a datagram; undefined where it holds none that is valid. */
export function decodeDatagram(
  bytes: Uint8Array,
  maxMessageSize: number,
): DatagramMessage | undefined {
  if (bytes.length < HEAD_BYTES) return undefined;
  const flags = bytes[0]! << 8 | bytes[1]!;
  const lane = flags >>> LANE_SHIFT & LANE_MASK;
  if ((flags & FIXED_FLAGS) !== VERSION || lane > MAX_LANE) return undefined;
  for (let index = 2; index < HEAD_BYTES; index++) if (bytes[index] !== 0) return undefined;
  const rest = bytes.subarray(HEAD_BYTES);
  const message = (flags & TOPIC) === 0 ? { topic: undefined, rest } : topicOf(rest);
  if (message === undefined || message.rest.length > maxMessageSize) return undefined;
  return { lane: lane as Lane, topic: message.topic, payload: message.rest };
}

function topicOf(rest: Uint8Array): { topic: string; rest: Uint8Array } | undefined {
  try {
    return readTopic(rest);
  } catch {
    return undefined;
  }
}
