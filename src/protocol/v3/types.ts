/**
 * What the parts of protocol version 3 call things (docs/protocol.md, section "Version 3").
 *
 * @module
 */

/** A lane as it stands on the wire. */
export type Lane = 0 | 1 | 2;

/** A lane as an application names it. */
export type LaneName = "control" | "normal" | "bulk";

/** The names of the lanes, by their numbers. */
export const LANE_NAMES: readonly [LaneName, LaneName, LaneName] = ["control", "normal", "bulk"];

/** The lane of heartbeats and the like: it goes before all others. */
export const CONTROL = 0;
/** The lane of everything that names none. */
export const NORMAL = 1;
/** The lane of what is large and not urgent. */
export const BULK = 2;

/** The kinds of frames. */
export const KIND = {
  data: 0,
  request: 1,
  response: 2,
  error: 3,
  cancel: 4,
  streamOpen: 5,
  streamData: 6,
  streamEnd: 7,
  streamReset: 8,
  streamWindow: 9,
  ping: 10,
  pong: 11,
  ack: 12,
  goaway: 13,
  routed: 14,
  control: 15,
} as const;

/** A kind of frame as it stands on the wire. */
export type Kind = (typeof KIND)[keyof typeof KIND];

/** Application bytes in one frame: what is longer goes out in fragments of this size. */
export const FRAGMENT_BYTES = 65_536;
/** Bytes of a fragment of a message that begins while the control lane is in use. */
export const URGENT_FRAGMENT_BYTES = 16_384;
/**
 * What a receiver leaves unacknowledged while the control lane is in use, for 25 ms at most. Less
 * than a fragment has then: each is acknowledged at once, and the sender has one under way.
 */
export const URGENT_ACK_BYTES = 8_192;

/** The first window of a stream, in each direction, in bytes. */
export const STREAM_WINDOW_BYTES = 262_144;

/** What a sequenced frame counts at least against the receive window, however small its payload. */
export const MIN_CHARGE_BYTES = 256;

/** The side of a stream that did not open it sets this bit of the stream id, here of its high word. */
export const PEER_BIT = 0x8000_0000;

/** Codes of error, stream-reset and cancel that the protocol itself uses. */
export type ProtocolCode =
  | "NO_HANDLER"
  | "HANDLER_FAILED"
  | "TOO_MANY_REQUESTS"
  | "TOO_MANY_STREAMS"
  | "CANCELLED"
  | "DEADLINE_EXCEEDED"
  | "FLOW_CONTROL";

/** Why a connection or an endpoint takes no new work (goaway). */
export const GOAWAY = { closing: 0, idle: 1, overloaded: 2 } as const;

/** One of the codes of a goaway. */
export type GoawayCode = (typeof GOAWAY)[keyof typeof GOAWAY];
