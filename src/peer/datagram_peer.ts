/**
 * A peer that is reached by datagrams: its links, what is sent to it, what it asks.
 *
 * @module
 */

import { MessageTooLargeError, RateLimitedError, TransportError } from "../errors.ts";
import type { ResolvedOptions } from "../options.ts";
import type { AnswerBudget } from "../protocol/datagram/answers.ts";
import type { DatagramLink } from "../protocol/datagram/link.ts";
import {
  encodeAnswer,
  encodeData,
  readAnswer,
  readData,
  readRequest,
  type RequestBody,
} from "../protocol/datagram/packet.ts";
import { Repeats, type SendResult } from "../protocol/datagram/repeats.ts";
import {
  DATA_OVERHEAD,
  HEADER_BYTES,
  PACKET,
  type PacketKind,
  REQUEST_OVERHEAD,
  RESPONSE_OVERHEAD,
} from "../protocol/datagram/types.ts";
import { quote } from "../protocol/text.ts";
import { TokenBucket } from "../protocol/token_bucket.ts";
import { encodeGoawayPayload, readGoaway } from "../protocol/v3/payloads.ts";
import { encodeTopic } from "../protocol/v3/topic.ts";
import { LANE_NAMES, type LaneName, NORMAL } from "../protocol/v3/types.ts";
import type { Environment } from "../runtime/environment.ts";
import { type DatagramStats, noTraffic, type TrafficStats } from "../stats.ts";
import type { PeerPace } from "./bandwidth.ts";
import type { PeerHealth, PeerState } from "./peer.ts";
import { DatagramInbox } from "./datagram_inbox.ts";
import { DatagramServer } from "./datagram_server.ts";
import { type Offered, WaitingAnswers, WaitingMessages } from "./datagram_waiting.ts";
import { type Handlers, request, type RequestOptions } from "./requests.ts";
import type { SendPlan } from "./send_queue.ts";
import { DONE, WaiterSet } from "./waiters.ts";

/** What a datagram peer needs of what is around it. */
export interface DatagramPeerHost {
  readonly options: ResolvedOptions;
  readonly environment: Environment;
  readonly handlers: Handlers;
  readonly counters: DatagramStats;
  /** What the answers to all peers may have. */
  readonly answerBudget: AnswerBudget;
  readonly inboxFull: boolean;
  /** The limits of bandwidth for one more peer; `onTurn` sends what waits. */
  pace(onTurn: () => void): PeerPace | undefined;
  /** By how many bytes a body for this node is longer when it is signed and encrypted. */
  sealOverhead(nodeId: string): number;
  deliver(from: string, payload: Uint8Array, lane: LaneName, topic: string | undefined): void;
  onUp(peer: DatagramPeer): void;
  onDown(peer: DatagramPeer, error: TransportError | undefined): void;
  onHealth(peer: DatagramPeer, health: PeerHealth, previous: PeerHealth): void;
  onHandlerError(nodeId: string, error: unknown, what: string): void;
  onRefused(): void;
  warn(nodeId: string, message: string): void;
  /** So many packets went over the link that we dialed that another one is wanted. */
  onWorn(peer: DatagramPeer): void;
  /** A link is no more. */
  onLinkGone(link: DatagramLink): void;
  /** It was silent for so long that it may be forgotten. */
  onAbsent(peer: DatagramPeer): void;
}

/** Why a link ends, in a bye. */
export const BYE = { closing: 0, duplicate: 3, spent: 4 } as const;

/** Requests to one peer under way. */
const MAX_CALLS = 1024;
/** The first repetition of a request comes after so many round trips, within these bounds. */
const ROUND_TRIPS = 3;
const MIN_REPEAT_MS = 50;
const FIRST_REPEAT_MS = 250;
const MAX_REPEAT_MS = 1000;
/** A peer whose request was repeated without a sign of life is asked for one. */
const SUSPECT_AFTER_MS = 2000;

/** One peer. */
export class DatagramPeer {
  readonly nodeId: string;
  /** Where we dial it; undefined: we don't. */
  address: string | undefined;
  /** Which table of answers this is: a peer that meets another one knows that its requests are forgotten. */
  readonly generation: number;
  readonly traffic: TrafficStats = noTraffic();
  /** Those who wait for it to be connected. */
  readonly connects: WaiterSet = new WaiterSet();
  /** Another process has its name, and waits for what becomes of this one. */
  contention: { readonly incarnation: string | undefined; readonly at: number } | undefined;
  readonly #host: DatagramPeerHost;
  readonly #calls: Repeats;
  readonly #server: DatagramServer;
  readonly #inbox: DatagramInbox;
  readonly #answers = new WaitingAnswers();
  readonly #waiting = new WaitingMessages();
  /** Undefined where there is no limit of bandwidth. */
  readonly #pace: PeerPace | undefined;
  readonly #bucketOut: TokenBucket | undefined;
  #links: DatagramLink[] = [];
  #incarnation: string | undefined;
  #state: PeerState = "connecting";
  #health: PeerHealth = "down";
  #failure: TransportError | undefined;
  #wasUp = false;
  #warned = false;
  #cancelTimer: (() => void) | undefined;
  #timerAt = Infinity;
  #absentAt = Infinity;
  /** When a link in the place of the one in use may be asked for again. */
  #renewAt = -Infinity;

  /** A peer without a link. */
  constructor(host: DatagramPeerHost, nodeId: string, generation: number) {
    this.#host = host;
    this.nodeId = nodeId;
    this.generation = generation;
    this.#pace = host.pace(() => this.pump());
    const { rateLimit, maxPendingBytes } = host.options;
    const bucket = () =>
      rateLimit.enabled ? new TokenBucket(rateLimit, host.environment.now()) : undefined;
    this.#bucketOut = bucket();
    this.#inbox = this.#newInbox(bucket());
    this.#calls = new Repeats({
      peer: nodeId,
      maxCalls: MAX_CALLS,
      maxBytes: maxPendingBytes,
      random: () => host.environment.random(),
      send: (body, last) => this.#sendRequest(body, last),
      cancel: (id) => {
        this.#send(PACKET.cancel, encodeAnswer(id, new Uint8Array(0)));
      },
      firstDelayMs: () => this.#firstDelayMs(),
    });
    this.#server = this.#newServer();
  }

  /** Its links; the first ones are older. */
  get links(): readonly DatagramLink[] {
    return this.#links;
  }

  /** Where it stands. */
  get state(): PeerState {
    return this.#state;
  }

  /** Why it was given up; undefined where it wasn't. */
  get failure(): TransportError | undefined {
    return this.#failure;
  }

  /** Whether it answers. */
  get health(): PeerHealth {
    return this.#health;
  }

  /** The process that it is. */
  get incarnation(): string | undefined {
    return this.#incarnation;
  }

  /** Requests of ours that it has not answered. */
  get openRequests(): number {
    return this.#calls.open;
  }

  /** Requests of its that run here. */
  get runningRequests(): number {
    return this.#server.running;
  }

  /** How often requests were sent again. */
  get repeatedRequests(): number {
    return this.#calls.repeated;
  }

  /** The link that is used: that which the node with the lower id dialed, of those the newest. */
  get link(): DatagramLink | undefined {
    const links = this.#links;
    if (links.length <= 1) return links[0];
    const low = this.#host.options.nodeId < this.nodeId;
    return links.findLast((link) => link.dialed === low) ?? links.at(-1);
  }

  /** The longest message without a topic that fits into a packet; undefined without a link. */
  get maxMessageSize(): number | undefined {
    return this.#links.length === 0 ? undefined : this.#limit(DATA_OVERHEAD, undefined);
  }

  /** Its counters. */
  stats(): TrafficStats {
    const stats = { ...this.traffic };
    for (const link of this.#links) {
      stats.bytesSent += link.bytesSent;
      stats.bytesReceived += link.bytesReceived;
    }
    return stats;
  }

  // --- messages ---

  /**
   * Whether a message fits into a packet for this peer.
   *
   * @param topic Encoded.
   */
  fits(bytes: number, topic: Uint8Array | undefined): boolean {
    return bytes <= this.#limit(DATA_OVERHEAD, topic);
  }

  /**
   * Sends a message as a packet.
   *
   * @throws {TransportError} `MessageTooLarge`, `RateLimited`
   */
  offer(payload: Uint8Array, plan: SendPlan): Offered {
    const offered = this.#offer(payload, plan);
    if (offered !== "full") return offered;
    this.traffic.backpressureEvents++;
    this.#host.counters.unsent++;
    return "full";
  }

  /** Sends a message as a packet, waiting for room where there is none. */
  send(payload: Uint8Array, plan: SendPlan, signal: AbortSignal | undefined): Promise<void> {
    try {
      if (this.offer(payload, plan) !== "full") return DONE;
    } catch (error) {
      return Promise.reject(error);
    }
    return this.#waiting.add(payload, plan, signal);
  }

  /** There is room again, or it is our turn: what waits is sent. */
  pump(): void {
    this.#answers.pump(
      () => this.#pace?.allows(NORMAL) !== false,
      ({ kind, body }) => this.#send(kind, body),
    );
    this.#waiting.pump((payload, plan) => this.#offer(payload, plan));
    if (this.#calls.pump(this.#now())) this.#arm();
  }

  #offer(payload: Uint8Array, { lane, topic }: SendPlan): Offered {
    this.#checkSize(payload.length, this.#limit(DATA_OVERHEAD, topic), "send");
    const link = this.link;
    if (link === undefined) {
      this.traffic.messagesLost++;
      return "lost";
    }
    if (this.#pace?.allows(lane) === false) return "full";
    const now = this.#now();
    if (this.#bucketOut !== undefined && this.#bucketOut.tokens(now) < 1) {
      this.traffic.rateLimited++;
      const { nodeId } = this;
      const after = this.#bucketOut.retryAfterMs(now);
      throw new RateLimitedError(`Cannot send to ${nodeId}: its rate limit is reached`, after, {
        peer: nodeId,
      });
    }
    const body = encodeData(lane, topic, payload);
    if (!link.send(PACKET.data, body, this.#wallClock())) return "full";
    this.#bucketOut?.tryTake(now);
    this.#pace?.spend(lane, body.length + link.overhead);
    link.usedAt = now;
    this.#checkNumbers(link);
    this.#checkLength(body.length + link.overhead);
    this.traffic.messagesSent++;
    this.traffic.payloadBytesSent += payload.length;
    return "sent";
  }

  /** A message found no room and was dropped, as the caller wished. */
  countDropped(): void {
    this.traffic.messagesDropped++;
    this.traffic.sendFailures++;
  }

  /** Makes a request, and repeats it until it is answered. */
  request(payload: Uint8Array, options: RequestOptions): Promise<Uint8Array> {
    const topic = options.topic === undefined ? undefined : encodeTopic(options.topic);
    return request(
      {
        nodeId: this.nodeId,
        maxMessageSize: this.#limit(REQUEST_OVERHEAD, topic),
        requestTimeoutMs: this.#host.options.requestTimeoutMs,
        now: this.#now(),
        calls: {
          start: (lane, topic, bytes, deadline, handle) => {
            this.#checkLength(this.#overhead() + REQUEST_OVERHEAD + bytes.length);
            const call = this.#calls.start(lane, topic, bytes, deadline, handle, this.#now());
            this.#arm();
            return call;
          },
          cancel: (call) => this.#calls.cancel(call),
        },
      },
      payload,
      options,
    );
  }

  /** The handler works on a message of this peer: the next one waits. */
  holdFor(settled: Promise<void>): void {
    this.#inbox.holdFor(settled);
  }

  // --- links ---

  /** A handshake is complete. */
  attach(link: DatagramLink): void {
    const now = this.#now();
    const { incarnation } = link.negotiated;
    if (this.#incarnation !== incarnation || incarnation === undefined) this.#renew(incarnation);
    this.contention = undefined;
    this.#links.push(link);
    this.#absentAt = Infinity;
    this.#renewAt = -Infinity;
    const first = this.#state !== "active";
    this.#state = "active";
    this.#failure = undefined;
    if (link.dialed) {
      link.probe(this.#host.options.connectTimeoutMs, now);
      link.handleTimeout(this.#wallClock(), now);
    }
    this.connects.resolveAll();
    if (first) {
      if (this.#wasUp) this.traffic.reconnections++;
      this.#wasUp = true;
      this.#host.onUp(this);
    }
    this.#setHealth();
    this.#calls.linked(now);
    this.#arm();
  }

  /** Takes a packet of one of its links, opened. May throw `InvalidFrame`. */
  handlePacket(link: DatagramLink, kind: PacketKind, body: Uint8Array, from: string): void {
    const now = this.#now();
    switch (kind) {
      case PACKET.data:
        link.usedAt = now;
        this.#received(body);
        break;
      case PACKET.request:
        link.usedAt = now;
        this.#asked(readRequest(body));
        break;
      case PACKET.response:
      case PACKET.error:
        link.usedAt = now;
        this.#answered(kind, body);
        break;
      case PACKET.cancel:
        this.#server.handleCancel(readAnswer(body).id);
        break;
      case PACKET.ping:
        link.handlePing(body, from, this.#wallClock());
        break;
      case PACKET.pong:
        if (link.handlePong(body, from, now)) this.#host.counters.migrations++;
        break;
      case PACKET.bye:
        this.#left(link, body);
        break;
    }
    this.#checkNumbers(link);
    this.#endSurplus();
    this.#setHealth();
  }

  /** Ends all links in order. */
  leave(error: TransportError): void {
    if (this.#state === "closed") return;
    const wasActive = this.#links.length > 0;
    const reason = encodeGoawayPayload(BYE.closing, "");
    for (const link of this.#links) {
      link.send(PACKET.bye, reason, this.#wallClock());
      this.#detach(link);
    }
    this.#links = [];
    this.#state = "closed";
    this.#stopTimer();
    this.#server.end();
    this.connects.rejectAll(error);
    this.#waiting.fail(error);
    this.#answers.clear();
    this.#pace?.end();
    this.#calls.fail(error);
    this.#setHealth();
    if (wasActive) this.#host.onDown(this, error);
  }

  /** It is not dialed any more, or the first attempt failed. */
  fail(error: TransportError): void {
    if (this.#links.length > 0 || this.#state === "closed") return;
    this.#state = "failed";
    this.#failure = error;
    this.connects.rejectAll(error);
    this.#waiting.fail(error);
    this.#calls.fail(error);
  }

  /** Asks all links for a sign of life. */
  probe(withinMs: number): void {
    const now = this.#now();
    for (const link of this.#links) link.probe(withinMs, now);
    this.#tick();
  }

  /** Whether anything came since. */
  heardSince(at: number): boolean {
    return this.#links.some((link) => link.receivedAt > at);
  }

  // --- what comes ---

  #received(body: Uint8Array): void {
    const { lane, topic, payload } = readData(body);
    this.#checkReceived(payload);
    this.#inbox.take({ payload, lane: LANE_NAMES[lane], topic });
  }

  #asked(body: RequestBody): void {
    this.#checkReceived(body.payload);
    this.#server.handleRequest(body);
  }

  #answered(kind: PacketKind, body: Uint8Array): void {
    const { id, rest } = readAnswer(body);
    this.#checkReceived(rest);
    if (kind === PACKET.response) this.#calls.handleResponse(id, rest);
    else this.#calls.handleError(id, rest);
  }

  #left(link: DatagramLink, body: Uint8Array): void {
    const { code, reason } = readGoaway(body);
    const why = reason === "" ? "" : `: ${quote(reason, 200)}`;
    const text = `Cannot go on with ${this.nodeId}: it has ended the link${why}`;
    const inOrder = code === BYE.closing || code === BYE.duplicate || code === BYE.spent;
    const error = inOrder
      ? undefined
      : new TransportError("ConnectionClosed", text, { peer: this.nodeId });
    // Who closes has given up its requests.
    if (code === BYE.closing && this.#links.length === 1) this.#server.cancelAll();
    this.#drop(link, error);
  }

  // --- links that end ---

  #drop(link: DatagramLink, error: TransportError | undefined): void {
    if (!this.#links.includes(link)) return;
    this.#links = this.#links.filter((other) => other !== link);
    this.#detach(link);
    if (this.#links.length > 0) return;
    this.#state = "reconnecting";
    this.#setHealth();
    if (this.address === undefined) {
      this.#absentAt = this.#now() + this.#host.options.resumeWindowMs;
    }
    this.#host.onDown(this, error);
    this.#arm();
  }

  /** A link whose numbers go to their end gets a successor in time, or is ended. */
  #checkNumbers(link: DatagramLink): void {
    if (!link.worn || !this.#links.includes(link)) return;
    const now = this.#now();
    if (link.spent) {
      link.send(PACKET.bye, encodeGoawayPayload(BYE.spent, ""), this.#wallClock());
      this.#drop(link, undefined);
    } else if (link.dialed && link === this.link && now >= this.#renewAt) {
      this.#renewAt = now + this.#host.options.connectTimeoutMs;
      this.#host.onWorn(this);
    }
  }

  #detach(link: DatagramLink): void {
    this.traffic.bytesSent += link.bytesSent;
    this.traffic.bytesReceived += link.bytesReceived;
    this.#host.onLinkGone(link);
  }

  /** Both sides have dialed: the node with the lower id ends the link that isn't used. */
  #endSurplus(): void {
    if (this.#links.length < 2 || this.#host.options.nodeId > this.nodeId) return;
    const used = this.link;
    if (used === undefined || used.packetsReceived === 0) return;
    const reason = encodeGoawayPayload(BYE.duplicate, "");
    for (const link of this.#links) {
      if (link === used) continue;
      link.send(PACKET.bye, reason, this.#wallClock());
      this.#drop(link, undefined);
    }
  }

  /** Another process has come under its name: what was of the former one ends. */
  #renew(incarnation: string | undefined): void {
    const hadLinks = this.#links.length > 0;
    for (const link of this.#links) this.#detach(link);
    this.#links = [];
    if (this.#incarnation !== undefined) this.#server.renew();
    this.#answers.clear();
    this.#incarnation = incarnation;
    if (!hadLinks) return;
    this.#state = "reconnecting";
    this.#setHealth();
    this.#host.onDown(this, undefined);
  }

  // --- time ---

  #tick(): void {
    this.#stopTimer();
    const now = this.#now();
    for (const link of [...this.#links]) {
      this.#checkNumbers(link);
      if (link.handleTimeout(this.#wallClock(), now) === "dead") {
        const text = `Cannot go on with ${this.nodeId}: it does not answer`;
        this.#drop(link, new TransportError("ConnectionClosed", text, { peer: this.nodeId }));
      }
    }
    this.#calls.handleTimeout(now);
    this.#server.handleTimeout(now);
    if (now >= this.#absentAt) {
      this.#absentAt = Infinity;
      this.#host.onAbsent(this);
    }
    this.#suspectSilent(now);
    this.#setHealth();
    this.#arm();
  }

  /** Requests that are repeated in vain are a reason to look earlier whether the peer is there. */
  #suspectSilent(now: number): void {
    const { link } = this;
    if (link === undefined || !this.#host.options.keepalive || this.#calls.open === 0) return;
    const silent = now - link.receivedAt;
    if (silent < SUSPECT_AFTER_MS || link.suspect) return;
    link.probe(this.#host.options.connectTimeoutMs, now);
  }

  #arm(): void {
    if (this.#state === "closed") return;
    let at = Math.min(this.#calls.nextTimeout, this.#absentAt, this.#server.nextTimeout);
    for (const link of this.#links) at = Math.min(at, link.nextTimeout);
    if (at >= this.#timerAt) return;
    this.#stopTimer();
    if (at === Infinity) return;
    this.#timerAt = at;
    const delay = Math.max(0, Math.ceil(at - this.#now()));
    this.#cancelTimer = this.#host.environment.setTimer(delay, () => {
      this.#cancelTimer = undefined;
      this.#timerAt = Infinity;
      this.#tick();
    });
  }

  #stopTimer(): void {
    this.#cancelTimer?.();
    this.#cancelTimer = undefined;
    this.#timerAt = Infinity;
  }

  #setHealth(): void {
    const { link } = this;
    const health = link === undefined ? "down" : link.suspect ? "suspect" : "up";
    const previous = this.#health;
    if (health === previous) return;
    this.#health = health;
    this.#host.onHealth(this, health, previous);
  }

  // --- helpers ---

  #newInbox(bucket: TokenBucket | undefined): DatagramInbox {
    const host = this.#host;
    return new DatagramInbox({
      traffic: this.traffic,
      counters: host.counters,
      bucket,
      get inboxFull() {
        return host.inboxFull;
      },
      now: () => this.#now(),
      deliver: ({ payload, lane, topic }) => host.deliver(this.nodeId, payload, lane, topic),
    });
  }

  #newServer(): DatagramServer {
    const host = this.#host;
    const maxAnswerBytes = () => this.#limit(RESPONSE_OVERHEAD, undefined);
    return new DatagramServer({
      nodeId: this.nodeId,
      handlers: host.handlers,
      maxRequests: host.options.maxRequests,
      counters: host.counters,
      answerBudget: host.answerBudget,
      get maxAnswerBytes() {
        return maxAnswerBytes();
      },
      now: () => this.#now(),
      epochNow: () => this.#wallClock(),
      reply: (kind, body) => {
        this.#checkLength(this.#overhead() + HEADER_BYTES + body.length);
        this.#reply(kind, body);
      },
      onHandlerError: (error, what) => host.onHandlerError(this.nodeId, error, what),
      onRefused: () => host.onRefused(),
      onSooner: () => this.#arm(),
    });
  }

  #now(): number {
    return this.#host.environment.now();
  }

  #wallClock(): number {
    return this.#host.environment.wallClock();
  }

  #send(kind: PacketKind, body: Uint8Array): void {
    const { link } = this;
    if (link === undefined) return;
    link.send(kind, body, this.#wallClock());
    this.#pace?.spend(NORMAL, body.length + link.overhead);
    this.#checkNumbers(link);
  }

  #reply(kind: PacketKind, body: Uint8Array): void {
    if (this.#answers.size === 0 && this.#pace?.allows(NORMAL) !== false) {
      return this.#send(kind, body);
    }
    if (!this.#answers.add(kind, body)) this.#host.counters.unsent++;
  }

  #sendRequest(body: Uint8Array, last: string | undefined): SendResult {
    const { link } = this;
    if (link === undefined) return "no-link";
    const { incarnation, sessionGeneration } = link.negotiated;
    const sentTo = `${incarnation}/${sessionGeneration}`;
    if (last !== undefined && last !== sentTo) return "forgotten";
    if (this.#pace?.allows(NORMAL) === false) return "no-room";
    link.usedAt = this.#now();
    link.send(PACKET.request, body, this.#wallClock());
    this.#pace?.spend(NORMAL, body.length + link.overhead);
    this.#checkNumbers(link);
    return { sentTo };
  }

  #firstDelayMs(): number {
    const smoothed = this.link?.roundTrips.summary()?.smoothed;
    if (smoothed === undefined) return FIRST_REPEAT_MS;
    return Math.min(MAX_REPEAT_MS, Math.max(MIN_REPEAT_MS, ROUND_TRIPS * smoothed));
  }

  /** What a signature and encryption add to a packet. */
  #overhead(): number {
    return this.#host.sealOverhead(this.nodeId);
  }

  /** The longest payload behind so many bytes and this topic. */
  #limit(before: number, topic: Uint8Array | undefined): number {
    const topicBytes = topic === undefined ? 0 : 1 + topic.length;
    const room = this.#host.options.datagrams.maxBytes - before - topicBytes - this.#overhead();
    const agreed = this.link?.negotiated.maxMessageSize ?? this.#host.options.maxMessageSize;
    return Math.max(0, Math.min(room, agreed));
  }

  #checkSize(size: number, limit: number, action: string): void {
    if (size <= limit) return;
    const { nodeId: peer } = this;
    const text =
      `Cannot ${action}: the message has ${size} bytes, a packet to ${peer} takes ${limit}`;
    throw new MessageTooLargeError(text, size, limit, { peer });
  }

  /** A peer that sends more than we have told it we take is at fault. */
  #checkReceived({ length }: Uint8Array): void {
    const { maxMessageSize } = this.#host.options;
    if (length <= maxMessageSize) return;
    const text = `Cannot read a packet: it has ${length} bytes, the limit is ${maxMessageSize}`;
    throw new TransportError("InvalidFrame", text, { peer: this.nodeId });
  }

  /** Says once that packets may be too long for the way. */
  #checkLength(bytes: number): void {
    const { warnAbove } = this.#host.options.datagrams;
    if (this.#warned || warnAbove === 0 || bytes <= warnAbove) return;
    this.#warned = true;
    const text = `A packet to ${this.nodeId} has ${bytes} bytes: above ${warnAbove} it may be ` +
      "sent in fragments, of which none may get lost";
    this.#host.warn(this.nodeId, text);
  }
}
