/**
 * A sequenced message on its way out, and what its sender learns of it.
 *
 * @module
 */

import type { TransportError } from "../../errors.ts";
import type { Kind, Lane } from "./types.ts";

/** What became of a message that will not be acknowledged any more. */
export type Fate = "unsent" | "unknown";

/** A message that waits for its turn in a lane. The session numbers it when its first byte goes out. */
export interface OutMessage {
  readonly kind: Kind;
  readonly lane: Lane;
  /** 1 to 255 bytes of UTF-8; kinds data, request and stream-open only. */
  readonly topic: Uint8Array | undefined;
  /**
   * The bytes between topic and payload: the u32 of a request, the u64 of a response and so on.
   * Called when the message is written, and again if it must be written again. They are only valid
   * until the next call of any message's.
   */
  readonly prefix: ((now: number) => Uint8Array) | undefined;
  /** Application bytes. They belong to the message: nobody changes them any more. */
  readonly payload: Uint8Array;
  /** Written once and not kept: lost with its connection, and then counted only. */
  readonly atMostOnce: boolean;
  /** Told what becomes of the message. */
  readonly tracker: Tracker | undefined;
  /** The stream that it is a frame of. */
  readonly path?: StreamPath | undefined;
}

/** What tells a stream apart from all others of a session. */
export interface StreamName {
  readonly lane: Lane;
  /** Whether we opened it. */
  readonly ours: boolean;
  readonly id: number;
}

/** A way for the frames of one stream, beside the connection's main stream. */
export interface StreamRoute {
  /** Whether more may be written now. */
  readonly writable: boolean;
  /** Whether it may be written to at all, now or later. */
  readonly usable: boolean;
  /** Set by the stream: one of the two above has changed. */
  onChange: (() => void) | undefined;
  /** Nothing more is written, apart from what is being written in the same call. */
  finish(): void;
}

/** Where the frames of a stream go. A session writes them so that they can't overtake each other. */
export interface StreamPath {
  /** Whether we opened it. */
  readonly ours: boolean;
  /** Its number; undefined until its open has been written. */
  readonly id: number | undefined;
  /** The number of the last frame that was written. */
  lastId: number;
  /** Where that went; undefined: to the main stream of a connection. */
  lastRoute: StreamRoute | undefined;
  /** A route of its own that may be written to; that of the last frame, where it still can be. */
  readonly route: StreamRoute | undefined;
  /** There is one more. */
  addRoute(route: StreamRoute): void;
}

/** Told what becomes of a message. Every call is optional and comes at most once, in this order. */
export interface Tracker {
  /** Its first fragment has been written under this number. */
  onNumbered?(id: number): void;
  /** The peer has admitted all of it. */
  onAcked?(): void;
  /** Its session ended before that; with an error: the peer is one that has no such messages. */
  onEnded?(fate: Fate, error?: TransportError): void;
}

/** The session as those see it who send through it: requests, streams. */
export interface SessionPort {
  /** Puts a message at the end of its lane. Never refuses: the caller keeps the bounds. */
  enqueue(message: OutMessage): void;
  /** Takes a message out again. False: it has been written, at least in part. */
  withdraw(message: OutMessage): boolean;
  /** Something that `StreamSource` has may be written now. */
  wake(): void;
  /** The monotonic clock at the input that is being handled, milliseconds. */
  readonly now: number;
}

/** Frames of streams, which take turns with each other and with the messages of their lane. */
export interface StreamSource {
  /** Whether `next` has a frame for this lane; `routed`: one that goes on a route of its own. */
  ready(lane: Lane, routed?: boolean): boolean;
  /**
   * The next frame of this lane, of whichever stream's turn it is; a stream-data frame has at most
   * FRAGMENT_BYTES of application bytes, and `most` where it may go on a route of its own.
   */
  next(lane: Lane, routed?: boolean, most?: number): OutMessage | undefined;
  /** The peer has opened a route for a stream. It is finished where the stream is closed. */
  addRoute?(name: StreamName, route: StreamRoute): void;
}
