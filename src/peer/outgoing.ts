/**
 * The way out to one peer: what waits, what may wait, and how it reaches a connection.
 *
 * @module
 */

import {
  BackpressureError,
  MessageTooLargeError,
  RateLimitedError,
  TransportError,
} from "../errors.ts";
import type { WhenFull } from "../options.ts";
import type { TokenBucket } from "../protocol/token_bucket.ts";
import { Backlog, isMarker, type Marker } from "../protocol/v3/backlog.ts";
import type { Fate, OutMessage } from "../protocol/v3/out_message.ts";
import { ACK_BYTES, ACK_FRAMES, type Pace, type Session } from "../protocol/v3/session.ts";
import {
  BULK,
  CONTROL,
  KIND,
  type Lane,
  LANE_NAMES,
  type LaneName,
  NORMAL,
} from "../protocol/v3/types.ts";
import type { TrafficStats } from "../stats.ts";
import type { Driver } from "./driver.ts";
import { PayloadCopies } from "./payload_copies.ts";
import { type Refusal, type SendPlan, WaitingSends } from "./send_queue.ts";
import { DONE, WaiterSet } from "./waiters.ts";

export type { Fate } from "../protocol/v3/out_message.ts";

const LANES = [CONTROL, NORMAL, BULK] as const;
/** Length and flags of a version 2 message. */
const V2_OVERHEAD_BYTES = 5;
const NO_ACKS = "it offers no acknowledgements";
/** What was written waits for the peer alone: so many count as one that waits here. */
const WRITTEN_AS_ONE = 16;
/** Who waits for room is let in when no more than this share of it is taken, … */
const RELIEVED_SHARE = 3 / 4;
/** … where there is room for many: at least so many messages, … */
const MANY_MESSAGES = 256;
/** … and so many bytes. */
const MANY_BYTES = 1_048_576;
/** Share of what may wait that bulk may fill: the rest is for what must not wait behind it. */
const BULK_SHARE = 3 / 4;
/** What is urgent may wait beyond the limits of all, by this share of them. */
const CONTROL_EXTRA = 1 / 8;

/** A message that was accepted and will not be delivered, or nobody knows. */
export interface Undelivered {
  readonly payload: Uint8Array;
  readonly lane: LaneName;
  readonly topic: string | undefined;
  readonly error: TransportError;
  readonly fate: Fate;
}

/** What the way out needs of its peer. */
export interface OutgoingHost {
  readonly nodeId: string;
  readonly traffic: TrafficStats;
  now(): number;
  /** The session, where the peer speaks version 3. */
  session(): Session | undefined;
  /** The connection that messages go out on in versions 1 and 2. */
  sender(): Driver | undefined;
  /** The connection for what needs no order in versions 1 and 2. */
  loose(): Driver | undefined;
  /** Sends a message in a datagram; false: there is none that it fits into. */
  sendDatagram(payload: Uint8Array, plan: SendPlan): boolean;
  /** Every connection there is. */
  readonly drivers: readonly Driver[];
  onUndelivered(message: Undelivered): void;
  /** Limits of what is sent; a session knows them itself. */
  readonly pace: Pace | undefined;
}

/** Limits of what may wait. */
export interface OutgoingLimits {
  readonly maxPendingMessages: number;
  readonly maxPendingBytes: number;
}

/** A message as it is reported. */
interface Reported {
  readonly payload: Uint8Array;
  readonly lane: LaneName;
  readonly topic: string | undefined;
}

/** Everything on its way to one peer. */
export class Outgoing {
  /** What waits for a connection, or for room on one. */
  readonly backlog: Backlog = new Backlog();
  #copies: PayloadCopies | undefined;
  readonly #host: OutgoingHost;
  readonly #limits: OutgoingLimits;
  readonly #bucket: TokenBucket | undefined;
  /**
   * A peer that has got little takes its time with its acknowledgement: who has room for no more
   * than that asks early. Everybody else would only get many small acknowledgements.
   */
  readonly #asksEarly: boolean;
  readonly #waiting = new WaitingSends();
  readonly #flushes = new WaiterSet();

  /** Makes an empty way out. */
  constructor(host: OutgoingHost, limits: OutgoingLimits, bucket: TokenBucket | undefined) {
    this.#host = host;
    this.#limits = limits;
    this.#bucket = bucket;
    this.#asksEarly = limits.maxPendingMessages * WRITTEN_AS_ONE < 2 * ACK_FRAMES ||
      limits.maxPendingBytes < 2 * ACK_BYTES;
  }

  /** Where payloads are copied. */
  get copies(): PayloadCopies {
    return this.#copies ??= new PayloadCopies();
  }

  /** Messages accepted and not yet given to the network or, in version 3, not acknowledged. */
  get pendingMessages(): number {
    return this.backlog.messages + this.#heldMessages;
  }

  /** Bytes of the messages that wait for a connection or, in version 3, for an acknowledgement. */
  get pendingBytes(): number {
    return this.backlog.bytes + (this.#host.session()?.unackedBytes ?? 0);
  }

  /** Whether nothing is on its way. */
  get idle(): boolean {
    return this.backlog.messages === 0 && this.#waiting.size === 0 &&
      (this.#host.session()?.idle ?? true) &&
      this.#host.drivers.every((driver) => driver.pendingBytes === 0);
  }

  /** Takes a message if that needs no waiting. `"full"` and `"limited"` refuse it. */
  offer(payload: Uint8Array, plan: SendPlan): "taken" | "full" | "limited" {
    const session = this.#host.session();
    this.#check(payload, plan, session);
    if (this.#mustQueue(plan.lane) || this.#noRoom(payload, plan.lane, session) !== undefined) {
      this.#host.traffic.backpressureEvents++;
      if (this.#asksEarly) session?.prompt(this.#host.now());
      return "full";
    }
    if (this.#bucket !== undefined && !this.#takeToken()) return "limited";
    this.#put(payload, plan, session);
    return "taken";
  }

  /** Takes a message as `whenFull` says. */
  send(
    payload: Uint8Array,
    plan: SendPlan,
    whenFull: WhenFull,
    signal: AbortSignal | undefined,
  ): Promise<void> {
    const outcome = this.offer(payload, plan);
    if (outcome === "taken") return DONE;
    // What does not fit costs a token only where it is going to be sent all the same.
    const later = outcome === "full" && (whenFull === "wait" || whenFull === "drop-oldest");
    if (outcome === "limited" || later && !this.#takeToken()) {
      return Promise.reject(this.#rateLimitedError());
    }
    switch (whenFull) {
      case "wait":
        return this.#waiting.wait(payload, plan, this.#host.nodeId, signal);
      case "reject":
        return Promise.reject(this.#backpressureError());
      case "drop-newest":
        this.#drop(reportOf(toMessage(payload, plan)));
        plan.tracker?.onEnded?.("unsent");
        return DONE;
      case "drop-oldest":
        this.#makeRoom(payload, plan);
        return DONE;
    }
  }

  /** Resolves when all that was accepted so far is acknowledged or, before version 3, written. */
  flush(signal: AbortSignal | undefined): Promise<void> {
    const session = this.#host.session();
    this.#host.sender()?.flush();
    if (this.idle) return DONE;
    // Before version 3 all must be written, and without `resume`: then everything is idle.
    if (this.#host.sender() !== undefined || session?.config.resume === false) {
      return this.#flushes.wait(signal);
    }
    // Whoever waits for room was here before.
    return this.#flushes.wait(signal, (waiter) => {
      this.#waiting.whenPassed(() => {
        if (this.#host.session() !== session) return waiter.reject(this.#notFlushed());
        const reached = (acknowledged: boolean) => {
          if (!acknowledged) waiter.reject(this.#notFlushed());
          else if (this.#host.session()?.config.resume) waiter.resolve();
        };
        if (session === undefined) return this.#markBacklog(reached);
        session.whenAcked(reached);
        session.prompt(this.#host.now());
      });
    });
  }

  /** `reached` is told when all that waits has been acknowledged, or has ended. */
  #markBacklog(reached: (acknowledged: boolean) => void): void {
    const lanes = LANES.filter((lane) => this.backlog.has(lane));
    let missing = lanes.length;
    let all = true;
    for (const lane of lanes) {
      this.backlog.mark(lane, {
        reached: (acknowledged) => {
          all &&= acknowledged;
          if (--missing === 0) reached(all);
        },
      });
    }
  }

  /** Moves what waits to the connection, as far as it takes it. */
  pump(): void {
    const session = this.#host.session();
    if (session !== undefined) session.pump(this.#host.now());
    else this.#pumpSender(this.#host.sender());
    this.#waiting.admit((payload, plan) => this.#take(payload, plan));
    this.checkFlushed();
  }

  /** Something is acknowledged: there may be room. */
  admit(): void {
    if (this.#waiting.size > 0 && this.#relieved) {
      this.#waiting.admit((payload, plan) => this.#take(payload, plan));
    }
    this.checkFlushed();
  }

  /**
   * Whether there is room for many: who is let in one by one sends one by one, which costs a write
   * and a turn of the loop each. Everything under way comes to its end, so this becomes true.
   */
  get #relieved(): boolean {
    if (this.#waiting.nextOf(CONTROL) !== undefined) return true;
    const session = this.#host.session();
    if (session === undefined) return true;
    const { maxPendingMessages, maxPendingBytes } = this.#limits;
    if (maxPendingMessages < MANY_MESSAGES || maxPendingBytes < MANY_BYTES) return true;
    const messages = this.backlog.messages + written(session.unackedMessages);
    const bytes = this.backlog.bytes + session.unackedBytes;
    return messages <= RELIEVED_SHARE * maxPendingMessages &&
      bytes <= RELIEVED_SHARE * maxPendingBytes;
  }

  /** Something has left, or never will. */
  checkFlushed(): void {
    if (this.#flushes.size > 0 && this.idle) this.#flushes.resolveAll();
  }

  /** Reports all that waits as undelivered and turns waiting senders away. */
  fail(error: TransportError): void {
    for (const message of this.backlog.filter(() => true)) this.#failOne(message, error);
    const markers: Marker[] = [];
    for (const lane of LANES) {
      for (let m = this.backlog.shift(lane); m !== undefined; m = this.backlog.shift(lane)) {
        if (isMarker(m)) markers.push(m);
      }
    }
    this.#waiting.fail(error);
    this.#flushes.rejectAll(error);
    for (const marker of markers) marker.reached(false);
  }

  /** A session begins: what waited for it and can't go into it is reported. */
  refuseUnfit(session: Session): void {
    const { maxPayload: most, config: { resume } } = session;
    const peer = this.#host.nodeId;
    const unfit = this.backlog.filter((message) =>
      message.payload.length > most ||
      !resume && message.kind === KIND.data && message.tracker !== undefined
    );
    for (const message of unfit) {
      const { length } = message.payload;
      const why = length > most ? `the peer takes at most ${most} bytes` : NO_ACKS;
      const text = `Cannot reach ${peer}: ${why}`;
      const error = length > most
        ? new MessageTooLargeError(text, length, most, { peer })
        : new TransportError("UnsupportedProtocol", text, { peer });
      if (message.kind === KIND.data) this.undelivered(reportOf(message), why, "unsent", error);
      message.tracker?.onEnded?.("unsent", error);
    }
  }

  /** Reports one message as undelivered. */
  undelivered(message: Reported, why: string, fate: Fate, cause?: TransportError): void {
    const { nodeId, traffic } = this.#host;
    traffic.sendFailures++;
    const code = cause?.code ?? "ConnectionClosed";
    const text = `Cannot deliver a message to ${nodeId}: ${why}`;
    const error = new TransportError(code, text, { peer: nodeId, cause });
    const { payload, lane, topic } = message;
    this.#host.onUndelivered({ payload, lane, topic, error, fate });
  }

  #failOne(message: OutMessage, error: TransportError): void {
    if (message.kind === KIND.data) {
      this.undelivered(reportOf(message), error.message, "unsent", error);
    }
    message.tracker?.onEnded?.("unsent");
  }

  /** What the peer is known not to take is refused before it is accepted. */
  #check(
    payload: Uint8Array,
    { topic, tracker }: SendPlan,
    session: Session | undefined,
  ): void {
    if (session !== undefined && payload.length <= session.maxPayload && tracker === undefined) {
      return;
    }
    const negotiated = session === undefined ? this.#host.sender()?.negotiated : undefined;
    const peer = this.#host.nodeId;
    const maxMessageSize = session === undefined ? negotiated?.maxMessageSize : session.maxPayload;
    const size = payload.length;
    if (maxMessageSize !== undefined && size > maxMessageSize) {
      const text = `Cannot send: the message has ${size} bytes, the peer takes ${maxMessageSize}`;
      throw new MessageTooLargeError(text, size, maxMessageSize, { peer });
    }
    if (session?.config.resume === false && tracker !== undefined) {
      throw new TransportError("UnsupportedProtocol", `Cannot send to ${peer}: ${NO_ACKS}`, {
        peer,
      });
    }
    if (negotiated === undefined) return;
    const { version } = negotiated;
    if (size === 0 && version === 1) {
      const text = "Cannot send: a version 1 message cannot be empty";
      throw new TransportError("InvalidFrame", text, { peer });
    }
    if (version < 3 && (topic !== undefined || tracker !== undefined)) {
      const what = topic !== undefined ? "no topics" : "no acknowledgements";
      const text = `Cannot send: ${peer} speaks version ${version}, which has ${what}`;
      throw new TransportError("UnsupportedProtocol", text, {
        peer,
        recovery: "upgrade the peer to protocol version 3",
      });
    }
  }

  #notFlushed(): TransportError {
    const { nodeId } = this.#host;
    const text = `Cannot flush to ${nodeId}: the session ended before all was acknowledged`;
    return new TransportError("ConnectionClosed", text, { peer: nodeId });
  }

  #takeToken(): boolean {
    if (this.#bucket === undefined || this.#bucket.tryTake(this.#host.now())) return true;
    this.#host.traffic.rateLimited++;
    return false;
  }

  #take(payload: Uint8Array, plan: SendPlan): Refusal | undefined {
    const session = this.#host.session();
    this.#check(payload, plan, session);
    const refusal = this.#noRoom(payload, plan.lane, session);
    if (refusal === undefined) this.#put(payload, plan, session);
    return refusal;
  }

  /** Whether others were here before. Nobody waits behind what is less urgent and has its share. */
  #mustQueue(lane: Lane): boolean {
    const waiting = this.#waiting;
    if (waiting.size === 0) return false;
    if (waiting.nextOf(lane) !== undefined) return true;
    if (lane === CONTROL) return false;
    if (lane === BULK) return waiting.nextOf(NORMAL) !== undefined;
    const bulk = waiting.nextOf(BULK);
    return bulk !== undefined && this.#refusal(bulk, BULK, this.#host.session()) !== "lane";
  }

  #noRoom(
    { length }: Uint8Array,
    lane: Lane,
    session: Session | undefined = this.#host.session(),
  ): Refusal | undefined {
    const refusal = this.#refusal(length, lane, session);
    if (refusal === undefined || session !== undefined) return refusal;
    // A caller that sends much in one turn fills the batch: write it and look again.
    this.#host.sender()?.flush();
    return this.#refusal(length, lane, session);
  }

  #refusal(length: number, lane: Lane, session: Session | undefined): Refusal | undefined {
    const { maxPendingMessages, maxPendingBytes } = this.#limits;
    const { backlog } = this;
    if (lane === BULK) {
      const unacked = session?.unackedOf(BULK);
      const messages = backlog.count(BULK) + written(unacked?.messages ?? 0);
      const bytes = backlog.bytesOf(BULK) + (unacked?.bytes ?? 0);
      const full = messages >= Math.ceil(maxPendingMessages * BULK_SHARE) ||
        bytes > 0 && bytes + length > maxPendingBytes * BULK_SHARE;
      if (full) return "lane";
    }
    const share = lane === CONTROL ? 1 + CONTROL_EXTRA : 1;
    const sender = session === undefined ? this.#host.sender() : undefined;
    const messages = session !== undefined
      ? written(session.unackedMessages)
      : sender?.pendingMessages ?? 0;
    const bytes = session !== undefined ? session.unackedBytes : sender?.pendingBytes ?? 0;
    const fits = backlog.messages + messages < Math.ceil(maxPendingMessages * share) &&
      backlog.bytes + bytes + length <= maxPendingBytes * share;
    return fits ? undefined : "total";
  }

  get #heldMessages(): number {
    const session = this.#host.session();
    if (session !== undefined) return session.unackedMessages;
    return this.#host.sender()?.pendingMessages ?? 0;
  }

  #put(payload: Uint8Array, plan: SendPlan, session: Session | undefined): void {
    if (session !== undefined) return this.#putInSession(session, payload, plan);
    const sender = this.#host.sender();
    const loose = plan.atMostOnce ? this.#host.loose() : undefined;
    if (loose !== undefined && this.#paced(plan.lane)) {
      this.#sendNow(loose, toMessage(payload, plan));
    } else if (
      sender !== undefined && this.backlog.messages === 0 && sender.writable &&
      this.#paced(plan.lane)
    ) {
      this.#sendNow(sender, toMessage(payload, plan));
    } else if (plan.atMostOnce && sender === undefined) {
      this.#host.traffic.messagesLost++;
      plan.tracker?.onEnded?.("unsent");
    } else {
      this.backlog.push(toMessage(this.copies.copy(payload), plan));
    }
  }

  #putInSession(session: Session, payload: Uint8Array, plan: SendPlan): void {
    const { lane, topic, atMostOnce, tracker } = plan;
    // Who wants to know that it arrived needs an acknowledgement, which datagrams have none of.
    if (atMostOnce && tracker === undefined && this.#paced(lane)) {
      if (this.#host.sendDatagram(payload, plan)) return;
    }
    if (
      this.backlog.peek(lane) !== undefined && tracker === undefined && !this.#asksEarly &&
      !atMostOnce
    ) {
      // Where others wait in its lane, whatever lets them go on pumps.
      return this.backlog.push(toMessage(this.copies.copy(payload), plan));
    }
    // What is gathered into one batch counts as sent at one time.
    const now = session.gathers(lane) ? session.now : this.#host.now();
    if (!session.sendData(lane, topic, payload, atMostOnce, tracker, now)) {
      if (atMostOnce && session.channels.length === 0) {
        this.#host.traffic.messagesLost++;
        return tracker?.onEnded?.("unsent");
      }
      const stuck = this.backlog.peek(lane) !== undefined;
      this.backlog.push(toMessage(this.copies.copy(payload), plan));
      if (!stuck) session.pump(now);
    }
    if (tracker !== undefined) session.prompt(now);
    else if (this.#asksEarly && this.#halfFull(session)) session.prompt(now, false);
  }

  #halfFull(session: Session): boolean {
    const { maxPendingMessages, maxPendingBytes } = this.#limits;
    return 2 * session.unackedMessages >= maxPendingMessages * WRITTEN_AS_ONE ||
      2 * session.unackedBytes >= maxPendingBytes;
  }

  #paced(lane: Lane): boolean {
    return this.#host.pace?.allows(lane) !== false;
  }

  #pumpSender(sender: Driver | undefined): void {
    if (sender === undefined) return;
    for (const lane of LANES) {
      while (sender.writable && (this.backlog.count(lane) === 0 || this.#paced(lane))) {
        const message = this.backlog.shift(lane);
        if (message === undefined) break;
        if (isMarker(message)) message.reached(true);
        else this.#sendNow(sender, message);
      }
    }
  }

  /** What waited for a connection meets what that connection's peer takes only now. */
  #sendNow(sender: Driver, message: OutMessage): void {
    const { version, maxMessageSize } = sender.negotiated!;
    const { payload } = message;
    const plain = message.kind === KIND.data && message.topic === undefined &&
      message.tracker === undefined;
    const refusal = !plain
      ? `it speaks version ${version}, which has only plain messages`
      : version === 1 && payload.length === 0
      ? "a version 1 message cannot be empty"
      : payload.length > maxMessageSize
      ? `the peer takes at most ${maxMessageSize} bytes`
      : undefined;
    if (refusal === undefined) {
      this.#host.pace?.spend(message.lane, payload.length + V2_OVERHEAD_BYTES);
      return sender.send(payload);
    }
    const { nodeId } = this.#host;
    const error = plain ? undefined : new TransportError(
      "UnsupportedProtocol",
      `Cannot reach ${nodeId}: ${refusal}`,
      { peer: nodeId, recovery: "upgrade the peer to protocol version 3" },
    );
    if (message.kind === KIND.data) this.undelivered(reportOf(message), refusal, "unsent", error);
    message.tracker?.onEnded?.("unsent", error);
  }

  #makeRoom(payload: Uint8Array, plan: SendPlan): void {
    const dropped: OutMessage[] = [];
    let room = this.#noRoom(payload, plan.lane) === undefined;
    while (!room) {
      // Undefined: everything that waits is in the connection already, and can't be taken back.
      const oldest = this.#dropOldest(plan);
      dropped.push(oldest ?? toMessage(payload, plan));
      if (oldest === undefined) break;
      room = this.#noRoom(payload, plan.lane) === undefined;
    }
    if (room) this.#put(payload, plan, this.#host.session());
    // Whoever is told may send at once: it must not take the room that was just made.
    for (const message of dropped) {
      this.#drop(reportOf(message));
      message.tracker?.onEnded?.("unsent");
    }
  }

  /** The oldest of its own lane, or of the least urgent one, but never one that is more urgent than the new one. */
  #dropOldest({ lane }: SendPlan): OutMessage | undefined {
    for (const other of [lane, ...LANES.toReversed()]) {
      const oldest = other < lane ? undefined : this.backlog.dropOldest(other);
      if (oldest !== undefined) return oldest;
    }
    return undefined;
  }

  #drop(message: Reported): void {
    const { traffic } = this.#host;
    traffic.messagesDropped++;
    traffic.sendFailures++;
    const { payload, lane, topic } = message;
    this.#host.onUndelivered({
      payload: new Uint8Array(payload),
      lane,
      topic,
      error: this.#backpressureError(),
      fate: "unsent",
    });
  }

  #backpressureError(): BackpressureError {
    const { nodeId } = this.#host;
    const queued = this.pendingMessages;
    const text = `Cannot send to ${nodeId}: ${queued} messages wait already`;
    return new BackpressureError(text, queued, { peer: nodeId });
  }

  #rateLimitedError(): RateLimitedError {
    const { nodeId } = this.#host;
    const retryAfterMs = this.#bucket!.retryAfterMs(this.#host.now());
    const text = `Cannot send to ${nodeId}: the rate limit is reached, retry in ${retryAfterMs} ms`;
    return new RateLimitedError(text, retryAfterMs, { peer: nodeId });
  }
}

/** What messages that were written count. */
function written(messages: number): number {
  return Math.floor(messages / WRITTEN_AS_ONE);
}

function toMessage(payload: Uint8Array, plan: SendPlan): OutMessage {
  const { lane, topic, atMostOnce, tracker } = plan;
  return { kind: KIND.data, lane, topic, prefix: undefined, payload, atMostOnce, tracker };
}

const decoder = new TextDecoder();

function reportOf({ payload, lane, topic }: OutMessage): Reported {
  return {
    payload,
    lane: LANE_NAMES[lane],
    topic: topic === undefined ? undefined : decoder.decode(topic),
  };
}
