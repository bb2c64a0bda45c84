/**
 * A sub-stream: a part of a connection whose bytes wait for no others, and which carries the
 * frames of one stream (docs/protocol.md, section "Streams of their own").
 *
 * @module
 */

import { TransportError } from "../../errors.ts";
import { FrameDecoder } from "../frame.ts";
import { Outbox } from "../outbox.ts";
import type { Frame, FrameCodec } from "./frame_codec.ts";
import { readU32 } from "./frame_codec.ts";
import type { StreamName, StreamRoute } from "./out_message.ts";
import { toId } from "./payloads.ts";
import { type LaneChannel, type Run, sealRuns } from "./send_lane.ts";
import { FRAGMENT_BYTES, KIND, type Lane, PEER_BIT } from "./types.ts";

/** The most sub-streams of one connection that one side has opened and that are not over. */
export const MAX_SUBSTREAMS = 128;
/** What the other side takes: it may learn later of an end than of the next beginning. */
export const MAX_PEER_SUBSTREAMS = 2 * MAX_SUBSTREAMS;
/**
 * So many of them at most before anything has come from the other side on the connection: they may
 * overtake the end of the handshake, and wait there for it.
 */
export const MAX_EARLY_SUBSTREAMS = 8;
/** The longest body of a frame here: one fragment, and what header, topic and signature need. */
const MAX_BODY_BYTES = FRAGMENT_BYTES + 1024;
const REF_BYTES = 8;

/** One sub-stream, both ways. */
export class Substream implements LaneChannel, StreamRoute {
  readonly codec: FrameCodec;
  /** Frames to be written here. */
  readonly outbox: Outbox = new Outbox();
  openRun: Run | undefined;
  /** Cuts what arrives into frames. */
  readonly decoder: FrameDecoder;
  /** Whether we opened it. */
  readonly ours: boolean;
  /** Since when the peer owes the rest of a frame, or the first one. */
  owedSince: number | undefined;
  /** When bytes came last. */
  receivedAt = 0;
  onChange: (() => void) | undefined;
  /** What it is for; known from the first frame on. */
  #name: StreamName | undefined;
  #runs: Run[] = [];
  #writable = true;
  #usable = true;
  #finishing = false;
  #outEnded = false;
  #inEnded = false;
  readonly #finishSoon: (sub: Substream) => void;

  /** `finishSoon` is called when nothing more is written: our end must follow what waits. */
  constructor(
    codec: FrameCodec,
    maxFrameBytes: number,
    ours: boolean,
    finishSoon: (sub: Substream) => void,
  ) {
    this.codec = codec;
    this.decoder = new FrameDecoder({ maxFrameBytes: Math.min(maxFrameBytes, MAX_BODY_BYTES) });
    this.ours = ours;
    this.#finishSoon = finishSoon;
  }

  /** The stream that it is for. */
  get name(): StreamName | undefined {
    return this.#name;
  }

  /** Whether more may be written here now. The owner of the link says so. */
  get writable(): boolean {
    return this.#writable;
  }

  set writable(writable: boolean) {
    if (writable === this.#writable) return;
    this.#writable = writable;
    this.onChange?.();
  }

  get usable(): boolean {
    return this.#usable;
  }

  /** Whether our end is to follow what waits. */
  get finishing(): boolean {
    return this.#finishing && !this.#outEnded;
  }

  /** Whether both directions have ended. */
  get over(): boolean {
    return this.#outEnded && this.#inEnded;
  }

  /** Says what it is for. */
  bind(name: StreamName): void {
    this.#name = name;
  }

  /** A run was begun in the batch under way. */
  addRun(run: Run): void {
    this.#runs.push(run);
  }

  /** The batch was taken out of the outbox: its runs are kept in it. */
  seal(chunk: Uint8Array): void {
    this.openRun = undefined;
    sealRuns(this.#runs, chunk, undefined);
    this.#runs = [];
  }

  /** Nothing more is written here. What was begun in this call still goes out. */
  finish(): void {
    if (this.#finishing) return;
    this.#finishing = true;
    this.#finishSoon(this);
  }

  /** The lane, or the connection, is no longer ours to write to: its stream goes on elsewhere. */
  leave(): void {
    if (!this.#usable) return;
    this.#usable = false;
    this.finish();
    this.onChange?.();
  }

  /** Our end has been sent. */
  outEnd(): void {
    this.#finishing = this.#outEnded = true;
    const used = this.#usable;
    this.#usable = false;
    // A stream that waited for it to drain goes on elsewhere.
    if (used) this.onChange?.();
  }

  /** The peer's end has come. */
  inEnd(): void {
    this.#inEnded = true;
  }

  /**
   * Whether a frame of the peer may stand here.
   *
   * @returns Whether it was the first that said what the sub-stream is for.
   * @throws {TransportError} "InvalidFrame": it may not.
   */
  check(frame: Frame): boolean {
    const { kind, lane, payload } = frame;
    if (kind < KIND.streamOpen || kind > KIND.streamWindow || frame.more) {
      throw invalid(`kind ${kind}${frame.more ? " in fragments" : ""} has no sub-stream`);
    }
    const name = nameOf(kind, lane, frame.id, payload);
    const own = this.#name;
    if (own === undefined) {
      this.#name = name;
      return true;
    }
    if (lane !== own.lane || name.id !== own.id || name.ours !== own.ours) {
      throw invalid("it is on the sub-stream of another stream");
    }
    return false;
  }
}

/** The stream that a frame of the peer is about. */
function nameOf(kind: number, lane: Lane, id: number, payload: Uint8Array): StreamName {
  if (kind === KIND.streamOpen) return { lane, ours: false, id };
  if (payload.length < REF_BYTES) throw invalid("its payload is too short for its kind");
  const high = readU32(payload, 0);
  return { lane, ours: (high & PEER_BIT) !== 0, id: toId(high & ~PEER_BIT, readU32(payload, 4)) };
}

function invalid(problem: string): TransportError {
  return new TransportError("InvalidFrame", `Cannot read a frame: ${problem}`);
}
