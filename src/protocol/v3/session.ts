/**
 * A session: what two processes have sent each other, numbered, acknowledged and kept over
 * connections that come and go (docs/protocol.md, section "Sessions").
 *
 * @module
 */

import { TransportError } from "../../errors.ts";
import type { Backlog } from "./backlog.ts";
import { isMarker } from "./backlog.ts";
import type { Channel, ChannelSession } from "./channel.ts";
import { fitFailure } from "./call_messages.ts";
import type { Frame } from "./frame_codec.ts";
import type { Allocate } from "./gathered.ts";
import type { OutMessage, StreamPath, StreamSource, Tracker } from "./out_message.ts";
import { bulkChannel, bulkShares, chooseChannel, type OutLanes } from "./placement.ts";
import type { PoolStrategy } from "./placement.ts";
import { Received, ReceiveLane, WAY } from "./receive_lane.ts";
import { aroundSealed, isSealed, refPrefix } from "./sealed.ts";
import {
  chargeOf,
  type EndedMessage,
  SendLane,
  type SmallMessage,
  type Unacked,
} from "./send_lane.ts";
import type { Substream } from "./substream.ts";
import { encodeTopic } from "./topic.ts";
import {
  BULK,
  CONTROL,
  FRAGMENT_BYTES,
  KIND,
  type Kind,
  type Lane,
  MIN_CHARGE_BYTES,
  NORMAL,
  URGENT_ACK_BYTES,
  URGENT_FRAGMENT_BYTES,
} from "./types.ts";

/** Acknowledgements are sent within this time, … */
const ACK_DELAY_MS = 25;
/** … or after so many frames, … */
export const ACK_FRAMES = 256;
/** … or after so many bytes. */
export const ACK_BYTES = 131_072;
/** A batch is written as soon as it is this large. */
const BATCH_BYTES = 131_072;
/** Bytes of the normal lane that go out before the bulk lane has its turn. */
const NORMAL_SHARE_BYTES = 4 * FRAGMENT_BYTES;
/** Shares of the peer's window that a lane may fill: what is more urgent still finds room. */
const WINDOW_SHARES = [1, 7 / 8, 3 / 4] as const;
/** Without acknowledgements: how long what has left is remembered, to be reported if it may be lost. */
const TAIL_MS = 5_000;
const LANES = [CONTROL, NORMAL, BULK] as const;

/** Signs what is sent and verifies what is received ("signed" was negotiated). */
export interface MessageSeal {
  /** What a seal adds to a payload, bytes. */
  readonly overhead: number;
  /** A payload as it goes out; `around` is signed along. */
  seal(lane: Lane, payload: Uint8Array, around: Uint8Array): Uint8Array;
  /** What the peer sealed. Throws a TransportError where it is not to be trusted. */
  open(payload: Uint8Array, around: Uint8Array): Uint8Array;
  /** What we sealed ourselves. */
  unseal(payload: Uint8Array): Uint8Array;
}

/** Limits of what is written. */
export interface Pace {
  /** Whether a frame of the lane may be written now. Where not, its owner says when. */
  allows(lane: Lane): boolean;
  /** So many bytes were written. */
  spend(lane: Lane, bytes: number): void;
}

/** What a session needs to know. */
export interface SessionConfig {
  /** Undefined: messages are not signed. */
  readonly seal: MessageSeal | undefined;
  /** Whether what breaks with a connection is sent again. */
  readonly resume: boolean;
  /** The largest message, bytes. */
  readonly maxMessageSize: number;
  /** What the peer takes unacknowledged, bytes. */
  readonly peerWindow: number;
  /** What we take unacknowledged, bytes. */
  readonly receiveWindow: number;
  readonly strategy: PoolStrategy;
  /** What waits to be sent; it outlives the session. */
  readonly backlog: Backlog;
  /** Undefined: nothing is limited. */
  readonly pace?: Pace | undefined;
  /** So many requests and answers are written at once; undefined: only when the turn has ended. */
  readonly requestBatch?: number | undefined;
  /** Where messages in fragments are put together; undefined: in memory full of zeros. */
  readonly allocate?: Allocate | undefined;
}

/** What a session tells its peer. */
export interface SessionSink {
  /** Whether a message of the peer can be taken now. */
  wantsMessage(): boolean;
  /** A message of the peer. */
  onMessage(lane: Lane, topic: string | undefined, payload: Uint8Array): void;
  /** Anything that is not a plain message: requests, responses, streams. */
  onOther(received: Received, now: number): void;
  /** Throws where a request or a stream must not be taken: the peer does not take our answers. */
  checkLoad(kind: Kind): void;
  /** Less is unacknowledged than before. */
  onRoom(): void;
  /** A plain message was written for the first time. */
  onSent(payloadBytes: number): void;
  /** There is more to write than one connection should have under way. */
  onBusy(): void;
  /**
   * Nobody looks any more at the payload of a plain message that came from the backlog: it was
   * written in one frame, or in several that are acknowledged.
   */
  onPayloadFree(payload: Uint8Array): void;
  /** `nextTimeout` may have come nearer. */
  onTimer(): void;
}

/** Something of each lane. */
type ByLane<T> = readonly [T, T, T];

/** A message that ended with the session, and what is known of it. */
export type Ended = EndedMessage;

const PLAIN: SmallMessage = {
  kind: KIND.data,
  topic: undefined,
  prefix: undefined,
  atMostOnce: false,
  tracker: undefined,
};
const NO_BYTES: Uint8Array = new Uint8Array(0);
const NO_NUMBERS: ByLane<number> = [0, 0, 0];
/** Stand for lanes of which nothing has come, in every session. */
const NO_LANES: ByLane<ReceiveLane> = [
  new ReceiveLane(CONTROL, 0),
  new ReceiveLane(NORMAL, 0),
  new ReceiveLane(BULK, 0),
];
const NO_STREAMS: StreamSource = { ready: () => false, next: () => undefined };

/** A session. */
export class Session implements ChannelSession {
  readonly config: SessionConfig;
  /** The monotonic clock at the input that is being handled. */
  now: number;
  /** The largest payload of a message: the seal needs room, too. */
  readonly maxPayload: number;
  /** Frames of streams, which take turns with the messages. */
  streams: StreamSource = NO_STREAMS;
  readonly #sink: SessionSink;
  readonly #unacked: Unacked = { charge: 0, messages: 0, bytes: 0 };
  readonly #out: OutLanes;
  #in = NO_LANES;
  #channels: readonly Channel[] = [];
  /** Made when something comes. */
  #received: Received | undefined;
  /** What the peer said it had, when it last said so. */
  #peerReceived = NO_NUMBERS;
  /** A peer must not wait for its window to open: it hears of each quarter of it. */
  readonly #ackFramesAt: number;
  readonly #ackBytesAt: number;
  #ackFrames = 0;
  #ackBytes = 0;
  #ackDeadline: number | undefined;
  #normalBytes = 0;
  /**
   * What may be added to the batch under way in lane normal without another look at all that could
   * forbid it. Whatever might forbid it sets it to 0.
   */
  #credit = 0;
  /** Requests and answers since the last write that took them. */
  #gathered = 0;
  #normalTaken = 0;
  #streamTurn = false;
  #nextPlace = 0;
  /** Whether bulk begins nothing new until it is idle, to move to a connection of its own. */
  #bulkMoves = false;
  /** Whether a message of the peer was refused: the session is about to end. */
  #distrusted = false;
  #pumping = false;
  #pumpAgain = false;
  #ended = false;

  /** Makes a session without connections. */
  constructor(config: SessionConfig, sink: SessionSink, now: number) {
    this.config = config;
    this.maxPayload = config.maxMessageSize - (config.seal?.overhead ?? 0);
    this.#sink = sink;
    this.now = now;
    const unacked = this.#unacked;
    this.#out = [
      new SendLane(CONTROL, unacked, sink),
      new SendLane(NORMAL, unacked, sink),
      new SendLane(BULK, unacked, sink),
    ];
    const quarter = config.receiveWindow / 4;
    this.#ackFramesAt = Math.min(ACK_FRAMES, quarter / MIN_CHARGE_BYTES);
    this.#ackBytesAt = Math.min(ACK_BYTES, quarter);
  }

  /** The highest numbers received in order: control, normal, bulk. */
  get received(): readonly [number, number, number] {
    return [this.#in[0].received, this.#in[1].received, this.#in[2].received];
  }

  /** Its connections, oldest first. */
  get channels(): readonly Channel[] {
    return this.#channels;
  }

  /** Whether it is over. */
  get ended(): boolean {
    return this.#ended;
  }

  /** Messages written and not acknowledged. */
  get unackedMessages(): number {
    return this.#unacked.messages;
  }

  /** Their payload bytes. */
  get unackedBytes(): number {
    return this.#unacked.bytes;
  }

  /** What a lane alone has written and the peer has not acknowledged. */
  unackedOf(lane: Lane): Readonly<Unacked> {
    return this.#out[lane];
  }

  /** Messages received that the application has not taken. */
  get heldMessages(): number {
    return this.#in.reduce((sum, lane) => sum + lane.heldMessages, 0);
  }

  /** Frames that were received twice. */
  get duplicates(): number {
    return this.#in.reduce((sum, lane) => sum + lane.duplicates, 0);
  }

  /** At-most-once messages whose connection broke. */
  get lost(): number {
    return this.#out.reduce((sum, lane) => sum + lane.lost, 0);
  }

  /** Whether the peer has sent more than its window, so that nothing more is read. */
  get blocked(): boolean {
    const [control, normal, bulk] = this.#in;
    const held = control.heldBytes + normal.heldBytes + bulk.heldBytes;
    // A message that is all but admitted is acknowledged all but its last fragment: one per lane.
    return held > this.config.receiveWindow + LANES.length * this.config.maxMessageSize;
  }

  /** Whether everything written has been acknowledged; without `resume`, whether all is written. */
  get idle(): boolean {
    return this.#out.every((lane) => this.config.resume ? lane.idle : !lane.midMessage);
  }

  // --- connections ---

  /**
   * Takes a connection in. `received` is what the peer says it has.
   *
   * @throws {TransportError} "InvalidFrame" if that was never sent.
   */
  attach(channel: Channel, received: readonly number[], now: number): void {
    this.now = now;
    for (const lane of LANES) {
      const number = received[lane] ?? 0;
      if (!(number <= this.#out[lane].lastId)) {
        throw new TransportError(
          "InvalidFrame",
          "Cannot resume the session: the peer has what was never sent",
        );
      }
      if (number > this.#peerReceived[lane]) {
        this.#peerReceived = changed(this.#peerReceived, lane, number);
      }
    }
    channel.bind(this);
    this.#channels = this.#channels.length === 0 ? [channel] : [...this.#channels, channel];
    // How long a round trip takes is only to be seen while nothing is under way.
    channel.measure(now);
    this.#tellAgain(now);
    this.#place(true);
    this.pump(now);
  }

  /** A connection is gone. */
  detach(channel: Channel, now: number): void {
    if (!this.#channels.includes(channel)) return;
    this.now = now;
    this.#channels = this.#channels.filter((other) => other !== channel);
    this.#withoutPump(() => channel.bind(undefined));
    for (const lane of this.#out) if (lane.channel === channel) lane.detach();
    if (this.#ended) return;
    this.#tellAgain(now);
    this.#place(false);
    this.pump(now);
  }

  /** A connection takes nothing new: lanes leave it, and it ends when all on it is acknowledged. */
  drain(channel: Channel, now: number): void {
    this.now = now;
    this.#place(false);
    this.pump(now);
    this.#checkDrained(channel);
  }

  // --- sending ---

  /** Whether a lane has begun a batch that was not written. */
  gathers(lane: Lane): boolean {
    return this.#out[lane].channel?.openRun !== undefined;
  }

  /**
   * Sends a plain message at once where nothing waits before it; false: it must be queued. The
   * payload is copied.
   */
  sendData(
    lane: Lane,
    topic: Uint8Array | undefined,
    payload: Uint8Array,
    atMostOnce: boolean,
    tracker: Tracker | undefined,
    now: number,
  ): boolean {
    const plain = topic === undefined && !atMostOnce && tracker === undefined;
    if (plain && lane === NORMAL && this.#addToBatch(payload)) return true;
    const channel = this.#free(lane, payload.length);
    if (channel === undefined) return false;
    const message = plain
      ? PLAIN
      : { kind: KIND.data, topic, prefix: undefined, atMostOnce, tracker };
    this.#writeFree(channel, lane, message, payload, now);
    this.#sink.onSent(payload.length);
    if (plain && lane === NORMAL) this.#grantCredit(channel, now);
    return true;
  }

  /** A plain message goes behind others of lane normal, in a batch that is about to be written. */
  #addToBatch(payload: Uint8Array): boolean {
    const charge = chargeOf(payload.length);
    if (charge > this.#credit) return false;
    const out = this.#out[NORMAL];
    const channel = out.channel as Channel;
    if (!out.append(channel, payload, charge)) return false;
    this.#credit -= charge;
    this.#normalBytes += charge;
    this.#sink.onSent(payload.length);
    if (channel.outbox.bytes >= BATCH_BYTES) {
      this.#credit = 0;
      channel.link.flush();
    }
    return true;
  }

  #grantCredit(channel: Channel, now: number): void {
    // With limits of what is written, or bulk that wants its turn, every message is looked at.
    if (this.config.pace !== undefined || !this.config.resume || this.#bulkWaits) return;
    const window = this.config.peerWindow * WINDOW_SHARES[NORMAL] - this.#unacked.charge;
    this.#credit = Math.min(window, channel.budget.room(this.#flight(channel), now));
  }

  /** The same with a request or an answer. */
  sendMessage(message: OutMessage, now: number): boolean {
    const { kind, lane, payload } = message;
    // A stream may have a way of its own, which is found where messages wait: its bytes must not
    // overtake its open. What tells of an error may have to be made shorter.
    const waits = kind === KIND.streamOpen || payload.length > this.maxPayload;
    const channel = waits ? undefined : this.#free(lane, payload.length);
    if (channel === undefined) return false;
    if (channel.outbox.bytes === 0) this.#gathered = 0;
    this.#writeFree(channel, lane, message, payload, now);
    // Those of one turn in one write would have each side sleep while the other one works.
    if (++this.#gathered >= (this.config.requestBatch ?? Infinity)) channel.link.flush();
    return true;
  }

  /** The connection of a lane in which nothing waits, and that takes so many bytes now. */
  #free(lane: Lane, bytes: number): Channel | undefined {
    this.#credit = 0;
    const out = this.#out[lane];
    const channel = out.channel as Channel | undefined;
    if (
      channel === undefined || bytes > FRAGMENT_BYTES || !channel.link.writable ||
      !channel.open || out.resending || out.midMessage || lane === BULK && this.#bulkMoves ||
      this.config.backlog.has(lane) && this.config.backlog.peek(lane) !== undefined ||
      !this.#allows(out, channel, chargeOf(bytes)) || !this.#paced(lane)
    ) return undefined;
    // Signing takes a way of its own: what is signed may need fragments.
    return this.config.seal === undefined ? channel : undefined;
  }

  #writeFree(
    channel: Channel,
    lane: Lane,
    message: SmallMessage,
    payload: Uint8Array,
    now: number,
  ): void {
    this.now = now;
    if (channel.outbox.overflows(payload.length)) channel.link.flush();
    if (lane === NORMAL) this.#normalBytes += chargeOf(payload.length);
    else if (lane === CONTROL) channel.budget.noteUrgent(now);
    const before = channel.outbox.bytes;
    this.#out[lane].writeSmall(channel, message, payload, now);
    this.config.pace?.spend(lane, channel.outbox.bytes - before);
    if (channel.outbox.bytes >= BATCH_BYTES) channel.link.flush();
    else channel.link.flushSoon();
  }

  /** Asks the peer to acknowledge now what it has; `again`: and once more where it is asked already. */
  prompt(now: number, again: boolean = true): void {
    for (const lane of this.#out) {
      if (!lane.idle && lane.channel !== undefined) (lane.channel as Channel).ping(now, again);
    }
  }

  /** Writes what waits, as far as the connections and the peer take it. */
  pump(now: number): void {
    this.#credit = 0;
    if (this.#ended) return;
    if (this.#pumping) {
      this.#pumpAgain = true;
      return;
    }
    this.now = now;
    this.#pumping = true;
    try {
      do {
        this.#pumpAgain = false;
        this.#pumpChannels(now);
      } while (this.#pumpAgain);
    } finally {
      this.#pumping = false;
    }
  }

  // --- what the connections tell ---

  /** @ignore */
  handleFrame(channel: Channel, frame: Frame, now: number, sub?: Substream): void {
    this.now = now;
    let lane = this.#in[frame.lane];
    if (lane === NO_LANES[frame.lane]) lane = this.#newLane(frame.lane);
    const first = sub?.check(frame);
    // What answers it must not wait either.
    if (frame.lane === CONTROL) {
      channel.budget.noteUrgent(now);
      this.#credit = 0;
    }
    if (frame.kind === KIND.request || frame.kind === KIND.streamOpen) {
      this.#sink.checkLoad(frame.kind);
    }
    this.#ackFrames++;
    this.#ackBytes += frame.payload.length;
    if (first) {
      this.#handleFirst(channel, lane, frame, sub!, now);
    } else {
      const way = sub !== undefined ? WAY.substream : channel.multistream ? WAY.main : WAY.inOrder;
      const received = this.#received!;
      if (lane.accept(frame, received, way)) this.#dispatch(lane, received, now);
    }
    if (!this.config.resume) return;
    const { budget } = channel;
    const ackBytesAt = budget.urgent(now)
      ? Math.min(URGENT_ACK_BYTES, this.#ackBytesAt)
      : this.#ackBytesAt;
    if (this.#ackFrames >= this.#ackFramesAt || this.#ackBytes >= ackBytesAt) {
      this.ackNow(channel);
    } else this.#ackSoon(now);
  }

  /** @ignore */
  letGo(): void {
    // A connection that is quiet must not keep its last message alive.
    if (this.#received !== undefined) this.#received.payload = NO_BYTES;
  }

  /** @ignore */
  handleAck(lane: Lane, id: number, now: number): void {
    const out = this.#out[lane];
    const before = out.flight;
    out.acknowledge(id);
    const channel = out.channel as Channel | undefined;
    channel?.budget.delivered(before - out.flight, channel.roundTrips.min, now);
  }

  /** @ignore */
  acksHandled(now: number): void {
    this.now = now;
    this.#place(false);
    this.#sink.onRoom();
    this.pump(now);
    for (const channel of [...this.#channels]) this.#checkDrained(channel);
  }

  /** @ignore */
  ackNow(asked: Channel): void {
    const channel = asked.ended ? this.#channels.find((other) => !other.ended) : asked;
    if (channel === undefined) return;
    this.#ackFrames = this.#ackBytes = 0;
    this.#ackDeadline = undefined;
    if (!this.config.resume || this.#distrusted) return;
    const acks: { lane: Lane; id: number }[] = [];
    for (const lane of this.#in) {
      const id = lane.admitted;
      if (id <= lane.told) continue;
      lane.told = id;
      acks.push({ lane: lane.lane, id });
    }
    if (acks.length === 0) return;
    channel.codec.encodeAck(channel.outbox, acks);
    channel.link.flushSoon();
  }

  // --- time and the application ---

  /** The application takes messages again. */
  release(now: number): void {
    this.now = now;
    let taken = 0;
    for (let lane = this.#held; lane !== undefined; lane = this.#held) {
      if (!this.#sink.wantsMessage()) break;
      const held = lane.admit()!;
      const charge = chargeOf(held.payload.length);
      taken += charge;
      this.#normalTaken = lane.lane === BULK ? 0 : this.#normalTaken + charge;
      this.#sink.onMessage(lane.lane, held.topic, held.payload);
    }
    if (taken === 0 || this.#ended) return;
    this.#ackBytes += taken;
    const [channel] = this.#channels;
    if (channel !== undefined && this.#ackBytes >= this.#ackBytesAt) this.ackNow(channel);
    else this.#ackSoon(now);
    for (const other of [...this.#channels]) this.#checkDrained(other);
  }

  /** The earliest time at which `handleTimeout` has something to do. */
  nextTimeout(): number | undefined {
    return this.#channels.length === 0 ? undefined : this.#ackDeadline;
  }

  /** Time has passed. */
  handleTimeout(now: number): void {
    this.now = now;
    if (this.#ackDeadline === undefined || now < this.#ackDeadline) return;
    this.#ackDeadline = undefined;
    const [channel] = this.#channels;
    if (channel !== undefined) this.ackNow(channel);
  }

  /** Calls `reached` when everything accepted so far has been acknowledged (true) or ended (false). */
  whenAcked(reached: (acknowledged: boolean) => void): void {
    let missing = LANES.length;
    let all = true;
    const one = (acknowledged: boolean) => {
      all = all && acknowledged;
      if (--missing === 0) reached(all);
    };
    for (const lane of LANES) {
      if (this.config.backlog.peek(lane) !== undefined) {
        this.config.backlog.mark(lane, { reached: one });
      } else this.#out[lane].mark(one);
    }
    this.prompt(this.now);
  }

  /**
   * Ends it. What was written and not acknowledged comes back; what was never written stays in the
   * backlog, but for answers and streams, which mean nothing to whoever comes next.
   */
  end(): Ended[] {
    if (this.#ended) return [];
    this.#ended = true;
    for (const channel of this.#channels) {
      // The batch under way has not been taken: what stands in it is read from there.
      channel.seal(channel.outbox.buffer);
      for (const sub of channel.substreams) sub.seal(sub.outbox.buffer);
      channel.bind(undefined);
    }
    this.#channels = [];
    const { backlog } = this.config;
    const strays = backlog.filter(({ kind }) => kind !== KIND.data && kind !== KIND.request);
    for (const { tracker } of strays) tracker?.onEnded?.("unsent");
    const ended = this.#out.flatMap((lane) => lane.end());
    const { seal } = this.config;
    if (seal === undefined) return ended;
    return ended.map((message) =>
      message.kind === KIND.data ? { ...message, payload: seal.unseal(message.payload) } : message
    );
  }

  /** Without `resume`: everything written has left the process. */
  settle(now: number): void {
    if (this.config.resume) return;
    for (const lane of this.#out) lane.settle(now - TAIL_MS);
    this.#sink.onRoom();
  }

  // --- helpers ---

  #newLane(lane: Lane): ReceiveLane {
    const { maxMessageSize, receiveWindow, allocate } = this.config;
    this.#received ??= new Received();
    const made = new ReceiveLane(lane, maxMessageSize, receiveWindow, allocate);
    this.#in = changed(this.#in, lane, made);
    return made;
  }

  /** The lane whose held message the application gets next: bulk has its turn here, too. */
  get #held(): ReceiveLane | undefined {
    const [control, normal, bulk] = this.#in;
    if (control.heldMessages > 0) return control;
    if (bulk.heldMessages === 0) return normal.heldMessages > 0 ? normal : undefined;
    const first = normal.heldMessages > 0 && this.#normalTaken < NORMAL_SHARE_BYTES;
    return first ? normal : bulk;
  }

  /** The first frame of a sub-stream of the peer, which then is its stream's, both ways. */
  #handleFirst(
    channel: Channel,
    lane: ReceiveLane,
    frame: Frame,
    sub: Substream,
    now: number,
  ): void {
    // What the application answers at once is to go there, too.
    this.#withoutPump(() => {
      const received = this.#received!;
      if (lane.accept(frame, received, WAY.substream)) {
        this.#dispatch(lane, received, now);
      }
    });
    // A lane that is written elsewhere would have two ways to overtake itself.
    if (this.#out[lane.lane].channel !== channel || this.streams.addRoute === undefined) {
      sub.leave();
    } else this.streams.addRoute(sub.name!, sub);
    this.pump(now);
  }

  /** Whoever is told something in it must not write while only a part of it has happened. */
  #withoutPump(change: () => void): void {
    const pumping = this.#pumping;
    this.#pumping = true;
    try {
      change();
    } finally {
      this.#pumping = pumping;
    }
  }

  #dispatch(lane: ReceiveLane, received: Received, now: number): void {
    const { seal } = this.config;
    if (seal !== undefined && isSealed(received.kind)) {
      const { kind, topic, refHigh, refLow } = received;
      const bytes = topic === undefined ? undefined : encodeTopic(topic);
      const around = aroundSealed(kind, received.lane, bytes, refPrefix(refHigh, refLow));
      // What is refused was received, but must never be acknowledged, on no connection.
      this.#distrusted = true;
      received.payload = seal.open(received.payload, around);
      this.#distrusted = false;
    }
    if (received.kind !== KIND.data) return this.#sink.onOther(received, now);
    if (lane.heldMessages === 0 && this.#sink.wantsMessage()) {
      this.#sink.onMessage(received.lane, received.topic, received.payload);
    } else {
      lane.hold(received);
    }
  }

  /** Acknowledgements that went out on a connection that broke may not have arrived. */
  #tellAgain(now: number): void {
    for (const lane of this.#in) lane.told = 0;
    if (this.#in.some((lane) => lane.admitted > 0)) this.#ackSoon(now);
  }

  #ackSoon(now: number): void {
    if (this.#ackDeadline !== undefined || !this.config.resume) return;
    this.#ackDeadline = now + ACK_DELAY_MS;
    this.#sink.onTimer();
  }

  #pumpChannels(now: number): void {
    // Most sessions have one, and a copy of the list for each message costs more than the rest.
    if (this.#channels.length === 1) return this.#pumpChannel(this.#channels[0]!, now);
    for (const channel of [...this.#channels]) this.#pumpChannel(channel, now);
  }

  #pumpChannel(channel: Channel, now: number): void {
    const { link, outbox } = channel;
    while (link.writable) {
      const lane = this.#next(channel);
      if (lane === undefined) break;
      if (outbox.overflows(FRAGMENT_BYTES)) link.flush();
      if (!link.writable) break;
      this.#write(lane, channel, now);
      if (outbox.bytes >= BATCH_BYTES) link.flush();
    }
    if (outbox.bytes > 0) link.flushSoon();
    if (channel.multistream && !link.writable) this.#pumpRouted(channel, now);
  }

  /** The main stream is full, which streams with sub-streams need not wait for. */
  #pumpRouted(channel: Channel, now: number): void {
    while (channel.link.mayWrite) {
      const [control, normal, bulk] = this.#out.map((out) => this.#readyRouted(out, channel));
      if (!control && !normal && !bulk) return;
      const bulkFirst = bulk && (!normal || this.#normalBytes >= NORMAL_SHARE_BYTES);
      this.#write(this.#out[control ? CONTROL : bulkFirst ? BULK : NORMAL], channel, now, true);
    }
  }

  #readyRouted(out: SendLane, channel: Channel): boolean {
    return out.channel === channel && channel.open && !out.resending && !out.midMessage &&
      !(out.lane === BULK && this.#bulkMoves) && this.streams.ready(out.lane, true) &&
      this.#allows(out, channel, FRAGMENT_BYTES) && this.#paced(out.lane);
  }

  /** The lane whose turn it is on a connection. */
  #next(channel: Channel): SendLane | undefined {
    const [control, normal, bulk] = this.#out;
    if (this.#ready(control, channel)) return control;
    const normalReady = this.#ready(normal, channel);
    const bulkReady = this.#ready(bulk, channel);
    if (normalReady && bulkReady) {
      return this.#normalBytes < NORMAL_SHARE_BYTES ? normal : bulk;
    }
    return normalReady ? normal : bulkReady ? bulk : undefined;
  }

  #ready(out: SendLane, channel: Channel): boolean {
    if (out.channel !== channel) return false;
    if (out.resending) return this.#flies(out, channel, FRAGMENT_BYTES) && this.#paced(out.lane);
    const charge = this.#nextCharge(out, channel);
    return charge > 0 && this.#allows(out, channel, charge) && this.#paced(out.lane);
  }

  #paced(lane: Lane): boolean {
    return this.config.pace?.allows(lane) !== false;
  }

  /** The charge of what a lane would write next; 0 where there is nothing. */
  #nextCharge(out: SendLane, channel: Channel): number {
    if (out.midMessage) return out.nextCharge;
    if (!channel.open || out.lane === BULK && this.#bulkMoves) return 0;
    const waiting = this.#firstMessage(out);
    if (waiting !== undefined) {
      return chargeOf(Math.min(waiting.payload.length, this.#fragmentBytes(channel, waiting)));
    }
    return this.streams.ready(out.lane) ? FRAGMENT_BYTES : 0;
  }

  /** Control frames go between the fragments of others: so these are short while there are any. */
  #fragmentBytes(channel: Channel, { payload }: OutMessage): number {
    const urgent = payload.length > FRAGMENT_BYTES && channel.budget.urgent(this.now);
    return urgent ? URGENT_FRAGMENT_BYTES : FRAGMENT_BYTES;
  }

  /** The first message that waits in a lane; markers before it are passed on. */
  #firstMessage(out: SendLane): OutMessage | undefined {
    const { backlog } = this.config;
    for (let next = backlog.peek(out.lane); next !== undefined; next = backlog.peek(out.lane)) {
      if (!isMarker(next)) return next;
      backlog.shift(out.lane);
      out.mark(next.reached);
    }
    return undefined;
  }

  /** Whether the peer's window and the connection have room. */
  #allows(out: SendLane, channel: Channel, charge: number): boolean {
    if (!this.config.resume) return true;
    if (out.lane === NORMAL && this.#owesBulk(channel, charge)) return false;
    return this.#inWindow(out.lane, charge) && this.#flies(out, channel, charge);
  }

  #inWindow(lane: Lane, charge: number): boolean {
    const { charge: unacked } = this.#unacked;
    return unacked === 0 || unacked + charge <= this.config.peerWindow * WINDOW_SHARES[lane];
  }

  /** Whether it is bulk's turn and only room is missing: normal must not take what gets free. */
  #owesBulk(channel: Channel, wanted: number): boolean {
    const [, normal, bulk] = this.#out;
    const at = bulk.channel as Channel | undefined;
    if (this.#normalBytes < NORMAL_SHARE_BYTES || at === undefined) return false;
    if (!this.#bulkWaits) return false;
    const charge = bulk.resending ? FRAGMENT_BYTES : this.#nextCharge(bulk, at);
    if (charge === 0) return false;
    if (at === channel && !this.#flies(bulk, channel, charge)) return true;
    // Where bulk itself fills the window, normal has the room that is kept for it.
    return !bulk.resending && bulk.flight < normal.flight &&
      !this.#inWindow(BULK, charge + wanted);
  }

  /** Whether bulk has anything to write. */
  get #bulkWaits(): boolean {
    const bulk = this.#out[BULK];
    return bulk.resending || bulk.midMessage || this.config.backlog.has(BULK) ||
      this.streams.ready(BULK);
  }

  /** What is urgent never waits for the connection's budget. */
  #flies(out: SendLane, channel: Channel, charge: number): boolean {
    if (out.lane === CONTROL || !this.config.resume) return true;
    if (channel.budget.allows(this.#flight(channel), charge, this.now)) return true;
    this.#sink.onBusy();
    return false;
  }

  /** What is in flight on a connection. */
  #flight(channel: Channel): number {
    let flight = 0;
    for (const lane of this.#out) if (lane.channel === channel) flight += lane.flight;
    return flight;
  }

  #write(out: SendLane, channel: Channel, now: number, routed: boolean = false): void {
    const before = out.flight;
    const start = channel.outbox.bytes;
    this.#writeOne(out, channel, now, routed);
    this.config.pace?.spend(out.lane, channel.outbox.bytes - start);
    if (out.lane === CONTROL) channel.budget.noteUrgent(now);
    else if (out.lane === NORMAL) this.#normalBytes += out.flight - before;
    // A turn is over when it was used: a link that was full at the time took nothing.
    else if (out.lane === BULK && out.flight > before) this.#normalBytes = 0;
  }

  #writeOne(out: SendLane, channel: Channel, now: number, routed: boolean): void {
    if (out.resending || out.midMessage) {
      // The peer is asked at once: its acknowledgement of the last fragment would take its time.
      if (out.writeNext(channel, now)) channel.ping(now, true);
      return;
    }
    const taken = this.#take(out, channel, routed);
    if (taken === undefined) return;
    const message = prepared(taken, this.config, this.now);
    const { path } = message;
    const whole = message.payload.length <= FRAGMENT_BYTES;
    if (path !== undefined && whole && channel.multistream) {
      const sub = this.#routeOf(path, out, channel);
      if (sub !== undefined) return this.#writeRouted(out, sub, path, message, channel, now);
    }
    if (message.kind === KIND.data) this.#sink.onSent(message.payload.length);
    if (whole) {
      out.writeSmall(channel, message, message.payload, now);
      if (taken.kind === KIND.data) this.#sink.onPayloadFree(taken.payload);
    } else {
      out.begin(channel, message, this.#fragmentBytes(channel, message), now);
    }
    if (path === undefined) return;
    path.lastRoute = undefined;
    // The last number of fragments is not known yet: what follows them goes where they went.
    path.lastId = whole ? out.lastId : Infinity;
  }

  /**
   * The sub-stream of a stream; undefined: its frame goes on the main stream. It changes from one to
   * the other only where nothing is under way that could be overtaken.
   */
  #routeOf(path: StreamPath, out: SendLane, channel: Channel): Substream | undefined {
    const { route } = path;
    if (route !== undefined && route === path.lastRoute) return route as Substream;
    if (path.lastId > out.ackedId) return undefined;
    if (route !== undefined) return route as Substream;
    const sub = channel.openSubstream();
    if (sub === undefined) return undefined;
    sub.bind({ lane: out.lane, ours: path.ours, id: path.id ?? out.lastId + 1 });
    path.addRoute(sub);
    return sub;
  }

  #writeRouted(
    out: SendLane,
    sub: Substream,
    path: StreamPath,
    message: OutMessage,
    channel: Channel,
    now: number,
  ): void {
    const { link } = channel;
    const before = sub.outbox.bytes;
    out.writeSmall(sub, message, message.payload, now);
    const { bytes } = sub.outbox;
    this.config.pace?.spend(out.lane, bytes - before);
    path.lastId = out.lastId;
    if (path.lastRoute !== sub) {
      path.lastRoute = sub;
      sub.onChange?.();
    }
    // Not before the frame: it may be the last, behind which the end of the sub-stream follows.
    if (bytes >= FRAGMENT_BYTES) link.flushSubstream?.(sub);
    else link.flushSubstreamSoon?.(sub);
  }

  /** Messages and streams of a lane take turns. */
  #take(out: SendLane, channel: Channel, routed: boolean): OutMessage | undefined {
    // No fragments on a sub-stream: what is signed needs room beside its bytes.
    const most = channel.multistream
      ? FRAGMENT_BYTES - (this.config.seal?.overhead ?? 0)
      : FRAGMENT_BYTES;
    if (routed) return this.streams.next(out.lane, true, most);
    const waiting = this.#firstMessage(out);
    const stream = this.streams.ready(out.lane);
    this.#streamTurn = !this.#streamTurn;
    if (waiting !== undefined && !(stream && this.#streamTurn)) {
      this.config.backlog.shift(out.lane);
      return waiting;
    }
    return this.streams.next(out.lane, false, most);
  }

  /** Gives every lane its connection. A lane moves only when nothing of it is under way. */
  #place(anew: boolean): void {
    const { strategy } = this.config;
    const open = this.#channels.filter((channel) => channel.open);
    const stays = !anew && strategy === "first-available";
    const bulkAt = bulkChannel(this.#out, open, stays);
    const others = open.length > 1 ? open.filter((channel) => channel !== bulkAt) : open;
    for (const out of this.#out) {
      const { lane } = out;
      const present = out.channel as Channel | undefined;
      if (present !== undefined && !out.idle) continue;
      if (lane !== BULK && stays && present !== undefined && others.includes(present)) continue;
      const chosen = lane === BULK
        ? bulkAt
        : chooseChannel(this.#out, lane, others, strategy, () => this.#nextPlace++);
      if (chosen === present) continue;
      if (present !== undefined) this.#withoutPump(() => present.leaveSubstreams(lane));
      if (chosen === undefined) out.detach();
      else out.attach(chosen, this.#peerReceived[lane]);
    }
    // Lanes that are never idle would share one connection for ever.
    this.#bulkMoves = bulkShares(this.#out, open);
  }

  #checkDrained(channel: Channel): void {
    if (channel.open || !this.#channels.includes(channel)) return;
    const busy = (lane: SendLane) => this.config.resume ? !lane.idle : lane.midMessage;
    if (this.#out.some((lane) => lane.channel === channel && busy(lane))) return;
    if (this.#owesAcks(channel)) return;
    this.ackNow(channel);
    channel.drained();
  }

  /** Whether the peer, which is leaving, would never learn that a message was taken. */
  #owesAcks(channel: Channel): boolean {
    return this.config.resume && channel.goaway !== undefined &&
      this.#in.some((lane) => lane.heldMessages > 0) &&
      !this.#channels.some((other) => other.open);
  }
}

/** A message as it goes out for the first time: signed. What goes out again is the same bytes. */
function prepared(message: OutMessage, config: SessionConfig, now: number): OutMessage {
  const { seal, maxMessageSize } = config;
  const { kind, lane, topic, payload } = message;
  const tells = kind === KIND.error || kind === KIND.streamReset;
  // The text of an error may be longer than the peer takes.
  if (tells && payload.length > maxMessageSize) {
    return withPayload(message, fitFailure(payload, maxMessageSize));
  }
  if (seal === undefined || !isSealed(kind)) return message;
  const around = aroundSealed(kind, lane, topic, message.prefix?.(now));
  return withPayload(message, seal.seal(lane, payload, around));
}

function withPayload(message: OutMessage, payload: Uint8Array): OutMessage {
  const { kind, lane, topic, atMostOnce, tracker, path } = message;
  const prefix = message.prefix && ((now: number) => message.prefix!(now));
  return { kind, lane, topic, prefix, payload, atMostOnce, tracker, path };
}

function changed<T>(from: ByLane<T>, lane: Lane, to: T): ByLane<T> {
  return [lane === 0 ? to : from[0], lane === 1 ? to : from[1], lane === 2 ? to : from[2]];
}
