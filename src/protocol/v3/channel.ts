/**
 * One connection of a session: frames of version 3, pings, and how the connection ends.
 *
 * @module
 */

import { TransportError } from "../../errors.ts";
import type { Outbox } from "../outbox.ts";
import { quote } from "../text.ts";
import { FlightBudget } from "./flight_budget.ts";
import { type Frame, type FrameCodec, readAcks, readGoaway } from "./frame_codec.ts";
import { RoundTrips } from "./round_trips.ts";
import { type Batch, type LaneChannel, type Run, sealRuns } from "./send_lane.ts";
import {
  MAX_EARLY_SUBSTREAMS,
  MAX_PEER_SUBSTREAMS,
  MAX_SUBSTREAMS,
  Substream,
} from "./substream.ts";
import { GOAWAY, type GoawayCode, KIND, type Lane } from "./types.ts";

/** Share of the keepalive interval that an answer to a ping may take. */
const PATIENCE_SHARE = 0.9;
/** Share of that patience after which the peer is suspect. */
const SUSPECT_SHARE = 1 / 3;
/** An ack of 64 entries: there are three lanes. */
const MAX_ACK_BYTES = 64 * 9;

/** The connection under a channel. */
export interface ChannelLink {
  readonly outbox: Outbox;
  /** Whether more may be written now. */
  readonly writable: boolean;
  /** Writes what is in the outbox. */
  flush(): void;
  /** Writes it at the end of this turn. */
  flushSoon(): void;
  /** Nobody looks any more at a chunk that `seal` kept. */
  recycle?(chunk: Uint8Array): void;
  /** Whether sub-streams that are writable may be written to now. */
  readonly mayWrite?: boolean;
  /** Opens a sub-stream under ours; false: there is none to be had now. */
  openSubstream?(sub: Substream): boolean;
  /** Writes what is in the outbox of a sub-stream, and then its end where it is finishing. */
  flushSubstream?(sub: Substream): void;
  /** Does so at the end of this turn. */
  flushSubstreamSoon?(sub: Substream): void;
}

/** The session as its channels see it. */
export interface ChannelSession {
  /** A sequenced frame came. What it says is only valid until this returns. */
  handleFrame(channel: Channel, frame: Frame, now: number, sub?: Substream): void;
  /** An acknowledgement came. */
  handleAck(lane: Lane, id: number, now: number): void;
  /** All acknowledgements of a frame have been told. */
  acksHandled(now: number): void;
  /** Nothing of what came is looked at any more. */
  letGo(): void;
  /** The peer asks for what can be acknowledged. */
  ackNow(channel: Channel): void;
  /** Nothing new may be begun on a channel any more. */
  drain(channel: Channel, now: number): void;
  /** Nothing more can be taken before the application takes something. */
  readonly blocked: boolean;
}

/** What a channel needs to know. Times are milliseconds. */
export interface ChannelConfig {
  readonly codec: FrameCodec;
  /** Whether what is lost with the connection is sent again. */
  readonly resume: boolean;
  /** Silence after which the connection is suspected; undefined: it never is. */
  readonly keepaliveMs: number | undefined;
  /** Interval of pings; undefined: only after silence. */
  readonly healthCheckMs: number | undefined;
  /** The longest body of a frame; undefined: streams have no sub-streams ("multistream"). */
  readonly substreamFrameBytes?: number | undefined;
}

/** What a channel tells beside its session. */
export interface ChannelSink {
  /** The peer does not answer, or it does again. */
  onSuspect(suspect: boolean): void;
  /** The peer starts nothing new here. */
  onGoaway(code: number): void;
  /** Nothing is under way here any more, and nothing new is begun. */
  onDrained(): void;
}

/** Most connections never have any. */
const NO_SUBSTREAMS = new Set<Substream>();
/** Nothing is put here. */
const NO_RUNS: Run[] = [];

/** A connection in version 3. */
export class Channel implements LaneChannel {
  readonly codec: FrameCodec;
  readonly link: ChannelLink;
  readonly roundTrips: RoundTrips = new RoundTrips();
  readonly budget: FlightBudget;
  openRun: Run | undefined;
  /** Whether we start nothing new here. */
  draining = false;
  /** Whether the peer asked us not to; its code. */
  goaway: number | undefined;
  /** Whether we have finished sending here: nothing can be written any more. */
  ended = false;
  /** Whether frames of streams travel on sub-streams, so that they overtake others. */
  readonly multistream: boolean;
  /** Pings that were not answered because nothing could be written. */
  pingsIgnored = 0;
  /** Whether what is lost with it is sent again on another. */
  readonly resume: boolean;
  readonly #keepaliveMs: number | undefined;
  readonly #healthCheckMs: number | undefined;
  readonly #substreamFrameBytes: number | undefined;
  readonly #sink: ChannelSink;
  #session: ChannelSession | undefined;
  #batchRuns = NO_RUNS;
  #newBatch: ((chunk: Uint8Array, runs: number) => Batch | undefined) | undefined;
  #token = 0;
  #pingSentAt: number | undefined;
  #lastPingAt: number;
  /** When the ping that only measures was written, until it is answered. */
  #measuredFrom: number | undefined;
  /** When the ping under way was written. */
  #askedAt = 0;
  #patience: number;
  #receivedAt: number;
  #suspect = false;
  #pingAgain = false;
  #framesRead = 0;
  #substreams = NO_SUBSTREAMS;
  #ourSubstreams = 0;
  /** A frame has come: the handshake is complete on the other side, too. */
  #heard = false;

  /** `now` is the monotonic clock, as in every method. */
  constructor(config: ChannelConfig, link: ChannelLink, sink: ChannelSink, now: number) {
    this.codec = config.codec;
    this.link = link;
    this.budget = new FlightBudget(now);
    this.resume = config.resume;
    this.#keepaliveMs = config.keepaliveMs;
    this.#healthCheckMs = config.healthCheckMs;
    this.#substreamFrameBytes = config.substreamFrameBytes;
    this.multistream = config.substreamFrameBytes !== undefined;
    this.#sink = sink;
    this.#lastPingAt = now;
    this.#receivedAt = now;
    this.#patience = this.#usualPatience;
  }

  /** Frames to be written. */
  get outbox(): Outbox {
    return this.link.outbox;
  }

  /** Frames of lanes that were written and read here. */
  get work(): number {
    return this.codec.written + this.#framesRead;
  }

  /** Whether new messages may be begun here. */
  get open(): boolean {
    return !this.draining && this.goaway === undefined;
  }

  /** The session it belongs to. */
  get session(): ChannelSession | undefined {
    return this.#session;
  }

  /** Whether reading must wait. */
  get blocked(): boolean {
    return this.#session?.blocked ?? false;
  }

  /** Joins it to its session, or takes it out. */
  bind(session: ChannelSession | undefined): void {
    this.#session = session;
    if (session === undefined) this.leaveSubstreams(undefined);
  }

  // --- sub-streams ---

  /** Those that are not over. */
  get substreams(): ReadonlySet<Substream> {
    return this.#substreams;
  }

  /** Opens a sub-stream; undefined where there are enough, or none to be had. */
  openSubstream(): Substream | undefined {
    const most = this.#heard ? MAX_SUBSTREAMS : MAX_EARLY_SUBSTREAMS;
    if (!this.multistream || this.ended || this.#ourSubstreams >= most) return undefined;
    const sub = this.#newSubstream(true);
    if (this.link.openSubstream?.(sub) !== true) return undefined;
    this.#addSubstream(sub);
    this.#ourSubstreams++;
    return sub;
  }

  /**
   * The peer has opened a sub-stream.
   *
   * @throws {TransportError} "InvalidFrame": it must not, or it has opened too many.
   */
  acceptSubstream(now: number): Substream {
    if (!this.multistream) throw invalid("sub-streams were not negotiated");
    if (this.#substreams.size - this.#ourSubstreams >= MAX_PEER_SUBSTREAMS) {
      throw invalid(`more than ${MAX_PEER_SUBSTREAMS} sub-streams are open`);
    }
    const sub = this.#newSubstream(false);
    sub.owedSince = sub.receivedAt = now;
    this.#addSubstream(sub);
    return sub;
  }

  #addSubstream(sub: Substream): void {
    if (this.#substreams === NO_SUBSTREAMS) this.#substreams = new Set();
    this.#substreams.add(sub);
  }

  /** Takes a frame's body that came on a sub-stream. */
  handleSubstreamBody(
    sub: Substream,
    bytes: Uint8Array,
    start: number,
    end: number,
    now: number,
  ): void {
    const frame = this.codec.decodeAt(bytes, start, end);
    this.#framesRead++;
    this.#session?.handleFrame(this, frame, now, sub);
  }

  /** A sub-stream may be over. */
  checkSubstream(sub: Substream): void {
    if (!sub.over || !this.#substreams.delete(sub)) return;
    if (sub.ours) this.#ourSubstreams--;
  }

  /** A lane is written elsewhere from now on; undefined: all of them are. */
  leaveSubstreams(lane: Lane | undefined): void {
    if (this.#substreams.size === 0) return;
    for (const sub of [...this.#substreams]) {
      if (lane === undefined || sub.name?.lane === lane) sub.leave();
    }
  }

  #newSubstream(ours: boolean): Substream {
    const finishSoon = (sub: Substream) => this.link.flushSubstreamSoon?.(sub);
    return new Substream(this.codec, this.#substreamFrameBytes!, ours, finishSoon);
  }

  /**
   * Takes a frame's body, the bytes from `start` to `end`. True: nobody looks at it any more, and
   * another like it follows. `release` is owed after the last of several.
   */
  handleBody(bytes: Uint8Array, start: number, end: number, now: number): boolean {
    const frame = this.codec.decodeAt(bytes, start, end);
    this.#heard = true;
    // Fragments are copied as they come; pings and acknowledgements are read.
    const { more, kind } = frame;
    this.#handle(frame, now);
    return more || kind >= KIND.ping;
  }

  /** What is not kept by anybody must not be kept by this connection. */
  release(): void {
    this.codec.release();
    this.#session?.letGo();
  }

  #handle(frame: Frame, now: number): void {
    switch (frame.kind) {
      case KIND.ping:
        return this.#answer(frame);
      case KIND.pong:
        return this.#handlePong(frame, now);
      case KIND.ack:
        if (frame.payload.length > MAX_ACK_BYTES) throw invalid("an ack has too many entries");
        readAcks(frame.payload, (lane, id) => this.#session?.handleAck(lane, id, now));
        return this.#session?.acksHandled(now);
      case KIND.goaway:
        return this.#handleGoaway(frame, now);
      case KIND.routed:
      case KIND.control:
        throw invalid(`kind ${frame.kind} is not in use`);
      default:
        this.#framesRead++;
        this.#session?.handleFrame(this, frame, now);
    }
  }

  /** Bytes arrived, of whatever kind. */
  noteReceived(now: number): void {
    this.#receivedAt = now;
    if (!this.#suspect) return;
    this.#suspect = false;
    this.#sink.onSuspect(false);
  }

  /** A run was begun in the batch under way. */
  addRun(run: Run): void {
    if (this.#batchRuns === NO_RUNS) this.#batchRuns = [run];
    else this.#batchRuns.push(run);
  }

  /** The batch was taken out of the outbox: its runs are kept in it. False: they are kept elsewhere. */
  seal(chunk: Uint8Array): boolean {
    this.openRun = undefined;
    const runs = this.#batchRuns;
    if (runs.length === 0) return false;
    this.#batchRuns = NO_RUNS;
    this.#newBatch ??= (chunk, runs) => {
      // Without acknowledgements, nobody says when it has arrived.
      return this.resume ? { runs, free: () => this.link.recycle?.(chunk) } : undefined;
    };
    return sealRuns(runs, chunk, this.#newBatch);
  }

  /**
   * Asks the peer for a sign of life, and for its acknowledgements; `again` asks once more after
   * the answer where a ping is under way already.
   */
  ping(now: number, again: boolean = false): void {
    if (this.ended) return;
    if (this.#pingSentAt !== undefined) {
      this.#pingAgain = this.#pingAgain || again;
      return;
    }
    this.#pingSentAt = this.#lastPingAt = this.#askedAt = now;
    this.#patience = this.#usualPatience;
    this.codec.encodePing(this.outbox, 0, ++this.#token);
    this.link.flushSoon();
  }

  /** Measures the round trip, whether or not the peer answers: a ping with the token 0. */
  measure(now: number): void {
    this.#measuredFrom = now;
    this.codec.encodePing(this.outbox, 0, 0);
    this.link.flushSoon();
  }

  /** Expects a sign of life within so many milliseconds. */
  probe(withinMs: number, now: number): void {
    this.ping(now);
    // A probe under way is not put off by the next one.
    if (this.#patience <= withinMs) return;
    this.#pingSentAt = now;
    this.#patience = withinMs;
  }

  /** Starts nothing new here; the peer is told. */
  drain(code: GoawayCode, reason: string): void {
    if (this.draining || this.ended) return;
    this.draining = true;
    // Who was told to start nothing new need not be told the same.
    if (this.goaway !== undefined) return;
    this.codec.encodeGoaway(this.outbox, code, reason);
    this.link.flushSoon();
  }

  /** Nothing is under way here any more. */
  drained(): void {
    this.#sink.onDrained();
  }

  /** The earliest time at which `handleTimeout` has something to do. */
  nextTimeout(): number | undefined {
    // The owner waits for its end only so long.
    if (this.ended) return undefined;
    const keepaliveMs = this.#keepaliveMs;
    const healthCheckMs = this.#healthCheckMs;
    let at = healthCheckMs === undefined ? Infinity : this.#lastPingAt + healthCheckMs;
    if (this.#pingSentAt !== undefined) {
      const from = Math.max(this.#pingSentAt, this.#receivedAt);
      const share = this.#suspect ? 1 : SUSPECT_SHARE;
      at = Math.min(at, from + this.#patience * share);
    } else if (keepaliveMs !== undefined) {
      at = Math.min(at, this.#receivedAt + keepaliveMs);
    }
    return at === Infinity ? undefined : at;
  }

  /** Time has passed. Returns why the connection can't go on, or undefined. */
  handleTimeout(now: number): TransportError | undefined {
    if (this.ended) return undefined;
    const keepaliveMs = this.#keepaliveMs;
    const healthCheckMs = this.#healthCheckMs;
    // While we don't read, silence says nothing of the peer.
    if (this.blocked) this.#receivedAt = now;
    if (this.#pingSentAt !== undefined) {
      const from = Math.max(this.#pingSentAt, this.#receivedAt);
      if (now >= from + this.#patience) {
        if (now < from + 2 * this.#patience) return silent();
        // The timer is far too late: it was this process that stood still.
        this.#pingSentAt = undefined;
        this.#receivedAt = now;
        this.ping(now);
      } else if (now >= from + this.#patience * SUSPECT_SHARE && !this.#suspect) {
        this.#suspect = true;
        this.#sink.onSuspect(true);
      }
    } else if (keepaliveMs !== undefined && now >= this.#receivedAt + keepaliveMs) {
      this.ping(now);
    }
    if (healthCheckMs !== undefined && now >= this.#lastPingAt + healthCheckMs) {
      this.#lastPingAt = now;
      this.ping(now);
    }
    return undefined;
  }

  get #usualPatience(): number {
    const keepaliveMs = this.#keepaliveMs;
    return keepaliveMs === undefined ? Infinity : keepaliveMs * PATIENCE_SHARE;
  }

  #answer(frame: Frame): void {
    this.#session?.ackNow(this);
    // A peer that asks and does not read must not fill our memory with answers.
    if (!this.link.writable || this.ended) {
      this.pingsIgnored++;
      return;
    }
    this.codec.encodePong(this.outbox, frame.idHigh, frame.idLow);
    this.link.flushSoon();
  }

  #handlePong(frame: Frame, now: number): void {
    if (frame.idLow === 0 && frame.idHigh === 0 && this.#measuredFrom !== undefined) {
      this.roundTrips.add(now - this.#measuredFrom);
      this.#measuredFrom = undefined;
      return;
    }
    if (this.#pingSentAt === undefined || frame.idHigh !== 0 || frame.idLow !== this.#token) return;
    this.roundTrips.add(now - this.#askedAt);
    this.#pingSentAt = undefined;
    if (!this.#pingAgain) return;
    this.#pingAgain = false;
    this.ping(now);
  }

  #handleGoaway(frame: Frame, now: number): void {
    const { code, reason } = readGoaway(frame.payload);
    if (code > GOAWAY.overloaded) {
      throw invalid(`goaway with the unknown code ${code}: ${quote(reason)}`);
    }
    if (this.goaway !== undefined) return;
    this.goaway = code;
    this.#sink.onGoaway(code);
    this.#session?.drain(this, now);
  }
}

function invalid(problem: string): TransportError {
  return new TransportError("InvalidFrame", `Cannot read a frame: ${problem}`);
}

function silent(): TransportError {
  return new TransportError(
    "ConnectionClosed",
    "Cannot go on with the connection: the peer does not answer",
  );
}
