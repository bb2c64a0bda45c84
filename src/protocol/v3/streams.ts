/**
 * All streams with one peer: who opened how many, and whose turn it is to send.
 *
 * @module
 */

import { BackpressureError, TransportError } from "../../errors.ts";
import { neverUsed, NO_BYTES } from "./call_messages.ts";
import type {
  OutMessage,
  SessionPort,
  StreamName,
  StreamRoute,
  StreamSource,
  Tracker,
} from "./out_message.ts";
import { toId } from "./payloads.ts";
import { StreamCore, type StreamHost } from "./stream_core.ts";
import { type Turn, Turns } from "./stream_turns.ts";
import { FRAGMENT_BYTES, KIND, type Lane, PEER_BIT } from "./types.ts";

/** The most streams of one peer at once, where the configuration says nothing else. */
export const DEFAULT_MAX_STREAMS = 256;
/** The most refused streams whose reset has not been written, likewise. */
export const DEFAULT_MAX_REFUSALS = 1024;
/** The most bytes that the opens of one peer's streams bring, as of its requests. One always goes. */
const MAX_OPEN_BYTES = 67_108_864;
/** More, where a peer may open so many that keeping its bound can earn it more refusals. */
const REFUSALS_PER_STREAM = 4;

/** Told what the peer opens. */
export interface StreamTableSink {
  /** The peer has opened a stream. Its place is taken until it is closed and `release` was called. */
  onStream(stream: StreamCore): void;
  /** A stream was refused: there are too many. */
  onRefused?(lane: Lane, topic: string | undefined): void;
  /** `overloaded` was true and is not any more. */
  onRelieved?(): void;
}

/** Bounds of what a peer may open. */
export interface StreamTableConfig {
  /** The peer's node id, for errors. */
  readonly peer: string;
  /** The most streams the peer may have open; one runs until our application is done with it. */
  readonly maxStreams?: number;
  /** The most refused streams whose reset waits to be written. */
  readonly maxRefusals?: number;
}

/**
 * Streams with one peer. The table outlives the peer's sessions, because applications do: a peer
 * that comes back finds the places taken that its earlier streams still occupy.
 */
export class StreamTable implements StreamSource {
  readonly #config: StreamTableConfig;
  readonly #sink: StreamTableSink;
  readonly #maxStreams: number;
  readonly #maxRefusals: number;
  readonly #lanes = [new LaneStreams(), new LaneStreams(), new LaneStreams()] as const;
  /** Streams of ours whose open has not been written, and their opens. */
  readonly #opening = new Map<StreamCore, OutMessage>();
  readonly #host: StreamHost;
  #port: SessionPort;
  #session = 0;
  #peerMaxStreams: number;
  /** The largest payload of a frame. */
  #maxPayload = Infinity;
  #ours = 0;
  #theirs = 0;
  /** The bytes that came with the opens of their streams. */
  #theirBytes = 0;
  #refusals = 0;
  #wasOverloaded = false;

  /** Makes an empty table. `peerMaxStreams` is what the peer lets us have open at once. */
  constructor(
    port: SessionPort,
    peerMaxStreams: number,
    config: StreamTableConfig,
    sink: StreamTableSink,
  ) {
    this.#port = port;
    this.#peerMaxStreams = peerMaxStreams;
    this.#config = config;
    this.#sink = sink;
    this.#maxStreams = config.maxStreams ?? DEFAULT_MAX_STREAMS;
    this.#maxRefusals = config.maxRefusals ??
      Math.max(DEFAULT_MAX_REFUSALS, REFUSALS_PER_STREAM * this.#maxStreams);
    this.#host = {
      peer: config.peer,
      changed: (stream) => this.#changed(stream),
      closed: (stream) => this.#closed(stream),
      released: (stream) => this.#released(stream),
      withdraw: (stream) => this.#withdraw(stream),
    };
  }

  /** Streams that we opened and that are not closed. */
  get ours(): number {
    return this.#ours;
  }

  /** Places that the peer's streams take, those of earlier sessions included. */
  get theirs(): number {
    return this.#theirs;
  }

  /**
   * Whether the peer opens streams without taking our refusals: nothing further may be given to
   * `handleOpen` until `onRelieved`.
   */
  get overloaded(): boolean {
    const over = this.#refusals >= this.#maxRefusals;
    if (over) this.#wasOverloaded = true;
    return over;
  }

  /**
   * Opens a stream. The payload belongs to it from here on.
   *
   * @param topicBytes The topic as it stands on the wire.
   * @throws {BackpressureError} If as many are open as the peer takes.
   */
  open(
    lane: Lane,
    topic: string | undefined,
    topicBytes: Uint8Array | undefined,
    payload: Uint8Array,
  ): StreamCore {
    const { peer } = this.#config;
    if (this.#ours >= this.#peerMaxStreams) {
      const text = `Cannot open a stream to ${peer}: ${this.#ours} are open`;
      throw new BackpressureError(text, this.#ours, { peer });
    }
    const stream = new StreamCore(this.#host, { lane, topic, payload, ours: true }, undefined);
    stream.session = this.#session;
    this.#ours++;
    const open: OutMessage = {
      kind: KIND.streamOpen,
      lane,
      topic: topicBytes,
      prefix: undefined,
      payload,
      atMostOnce: false,
      tracker: this.#openTracker(stream),
      path: stream,
    };
    this.#opening.set(stream, open);
    this.#port.enqueue(open);
    return stream;
  }

  /**
   * The peer opens a stream.
   *
   * @throws {TransportError} "InvalidFrame" if it is open already. Ids need not come in order: opens
   * may overtake each other, and the numbers of a lane see to it that none comes twice.
   */
  handleOpen(lane: Lane, id: number, topic: string | undefined, payload: Uint8Array): void {
    const streams = this.#lanes[lane];
    if (streams.theirs.has(id)) throw neverUsed("new stream", this.#config.peer);
    if (id > streams.theirHighest) streams.theirHighest = id;
    const bytes = this.#theirBytes;
    const refused = this.#theirs >= this.#maxStreams ||
      bytes > 0 && bytes + payload.length > MAX_OPEN_BYTES;
    // What is refused must not keep anything until its reset is written.
    const kept = refused ? NO_BYTES : payload;
    const stream = new StreamCore(this.#host, { lane, topic, payload: kept, ours: false }, id);
    stream.session = this.#session;
    streams.theirs.set(id, stream);
    if (refused) return this.#refuse(stream);
    this.#theirs++;
    this.#theirBytes += payload.length;
    this.#sink.onStream(stream);
  }

  /**
   * Bytes of a stream. The id comes as its two words, unsigned; what is late is ignored, as below.
   *
   * @throws {TransportError} "InvalidFrame" if there never was such a stream, or the peer has ended
   * it before; as below.
   */
  handleData(lane: Lane, high: number, low: number, bytes: Uint8Array): void {
    this.#find(lane, high, low)?.handleData(bytes);
  }

  /** The peer sends nothing more on a stream. */
  handleEnd(lane: Lane, high: number, low: number): void {
    this.#find(lane, high, low)?.handleEnd();
  }

  /** The peer gives a stream up. */
  handleReset(lane: Lane, high: number, low: number, code: string, message: string): void {
    this.#find(lane, high, low)?.handleReset(code, message);
  }

  /** The peer allows further bytes on a stream. */
  handleWindow(lane: Lane, high: number, low: number, bytes: number): void {
    this.#find(lane, high, low)?.handleWindow(bytes);
  }

  /** Whether a stream has a frame for this lane; `routed`: one that goes on its sub-stream. */
  ready(lane: Lane, routed: boolean = false): boolean {
    const { main, subs } = this.#lanes[lane];
    return !subs.empty || !routed && !main.empty;
  }

  /**
   * The next frame: short ones first, then bytes, one frame of each stream in turn; those with a
   * sub-stream and those without take turns, too.
   */
  next(
    lane: Lane,
    routed: boolean = false,
    most: number = FRAGMENT_BYTES,
  ): OutMessage | undefined {
    const lines = this.#lanes[lane];
    const { main, subs } = lines;
    const first = routed ? subs.urgent.next() : main.urgent.next() ?? subs.urgent.next();
    const stream = first ?? lines.nextData(routed);
    if (stream === undefined) return undefined;
    const message = first === undefined
      ? stream.nextData(Math.min(most, this.#maxPayload))
      : stream.nextUrgent();
    this.#place(stream);
    return message;
  }

  /** The peer has opened a sub-stream for a stream; it is of no use if that is closed. */
  addRoute({ lane, ours, id }: StreamName, route: StreamRoute): void {
    const streams = this.#lanes[lane];
    const stream = (ours ? streams.ours : streams.theirs).get(id);
    if (stream === undefined) route.finish();
    else stream.addRoute(route);
  }

  /** The session has ended: all streams fail with "ConnectionClosed". */
  end(reason: TransportError): void {
    const { peer } = this.#config;
    const open = [...this.#opening.keys()];
    for (const { ours, theirs } of this.#lanes) open.push(...ours.values(), ...theirs.values());
    for (const message of this.#opening.values()) this.#port.withdraw(message);
    this.#opening.clear();
    for (const streams of this.#lanes) streams.clear();
    this.#session++;
    this.#ours = 0;
    if (open.length === 0) return;
    const text = `Cannot use the stream: the session with ${peer} ended`;
    const error = new TransportError("ConnectionClosed", text, { peer, cause: reason });
    for (const stream of open) stream.fail(error);
  }

  /** The peer has no streams: those that were opened before it was known fail. */
  refuseOpening(error: TransportError): void {
    for (const [stream, open] of [...this.#opening]) {
      this.#port.withdraw(open);
      this.#opening.delete(stream);
      stream.fail(error);
    }
  }

  /** There is a new session. */
  begin(port: SessionPort, peerMaxStreams: number, maxPayload: number): void {
    this.#port = port;
    this.#peerMaxStreams = peerMaxStreams;
    this.#maxPayload = maxPayload;
  }

  #refuse(stream: StreamCore): void {
    stream.refused = true;
    this.#refusals++;
    stream.reset("TOO_MANY_STREAMS", "too many streams are open");
    stream.release();
    this.#sink.onRefused?.(stream.lane, stream.topic);
  }

  #openTracker(stream: StreamCore): Tracker {
    return {
      onNumbered: (id) => {
        if (!this.#opening.delete(stream)) return;
        const streams = this.#lanes[stream.lane];
        streams.ourHighest = id;
        streams.ours.set(id, stream);
        stream.numbered(id);
      },
      onEnded: (_, error) => {
        if (error !== undefined && this.#opening.delete(stream)) stream.fail(error);
      },
    };
  }

  /** The stream that a frame of the peer names; undefined if it is closed. */
  #find(lane: Lane, high: number, low: number): StreamCore | undefined {
    const streams = this.#lanes[lane];
    const ours = (high & PEER_BIT) !== 0;
    const id = toId(high & ~PEER_BIT, low);
    const highest = ours ? streams.ourHighest : streams.theirHighest;
    if (id < 1 || id > highest) throw neverUsed("stream", this.#config.peer);
    return (ours ? streams.ours : streams.theirs).get(id);
  }

  #withdraw(stream: StreamCore): boolean {
    const open = this.#opening.get(stream);
    if (open === undefined || !this.#port.withdraw(open)) return false;
    this.#opening.delete(stream);
    return true;
  }

  #changed(stream: StreamCore): void {
    if (this.#place(stream)) this.#port.wake();
  }

  /** Lets a stream stand where it belongs. True: it has something to send that it had not. */
  #place(stream: StreamCore): boolean {
    const lane = this.#lanes[stream.lane];
    const lines = stream.routed ? lane.ownSubs : lane.main;
    const { urgentTurn, dataTurn, stalled } = stream;
    const urgent = !stalled && stream.urgent ? lines.urgent : undefined;
    const data = !stalled && stream.sendable ? lines.data : undefined;
    // Both: the one that is moved must not keep the other where it was.
    const moved = move(urgentTurn, urgent);
    return move(dataTurn, data) || moved;
  }

  #closed(stream: StreamCore): void {
    this.#changed(stream);
    if (stream.session === this.#session) {
      const { ours, theirs } = this.#lanes[stream.lane];
      if (stream.id !== undefined) (stream.ours ? ours : theirs).delete(stream.id);
      if (stream.ours) this.#ours--;
    }
    if (!stream.refused) return this.#free(stream);
    this.#refusals--;
    if (!this.#wasOverloaded || this.overloaded) return;
    this.#wasOverloaded = false;
    this.#sink.onRelieved?.();
  }

  #released(stream: StreamCore): void {
    this.#free(stream);
  }

  /** A place is free when the stream is closed and the application is done, whichever is later. */
  #free(stream: StreamCore): void {
    if (stream.ours || stream.refused || !stream.closed || !stream.isReleased) return;
    this.#theirs--;
    this.#theirBytes -= stream.payload.length;
  }
}

/** Moves a place to another line. True: it stands in one where it did not stand. */
function move(turn: Turn<StreamCore>, line: Turns<StreamCore> | undefined): boolean {
  if (turn.line === line) return false;
  turn.line?.leave(turn);
  return line?.join(turn) ?? false;
}

/** Streams that have something to send. */
class Lines {
  /** Something short. */
  readonly urgent = new Turns<StreamCore>();
  /** Bytes or an end. */
  readonly data = new Turns<StreamCore>();

  get empty(): boolean {
    return this.urgent.empty && this.data.empty;
  }
}

/** Most peers have no sub-streams. */
const NO_LINES = new Lines();

/** The streams of one lane. */
class LaneStreams {
  readonly ours = new Map<number, StreamCore>();
  readonly theirs = new Map<number, StreamCore>();
  /** Those that send on the main stream of a connection. */
  readonly main = new Lines();
  /** Those that send on a sub-stream. */
  subs = NO_LINES;
  ourHighest = 0;
  theirHighest = 0;
  #mainTurn = false;

  /** The same, for who joins them. */
  get ownSubs(): Lines {
    if (this.subs === NO_LINES) this.subs = new Lines();
    return this.subs;
  }

  /** Whose turn it is to send bytes. */
  nextData(routed: boolean): StreamCore | undefined {
    this.#mainTurn = !routed && !this.#mainTurn;
    if (this.#mainTurn) return this.main.data.next() ?? this.subs.data.next();
    return this.subs.data.next() ?? (routed ? undefined : this.main.data.next());
  }

  clear(): void {
    this.ours.clear();
    this.theirs.clear();
    this.ourHighest = this.theirHighest = 0;
  }
}
