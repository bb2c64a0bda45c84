/**
 * The requests that a peer makes by datagrams: each runs once, however often it comes.
 *
 * @module
 */

import { MessageTooLargeError } from "../errors.ts";
import { type AnswerBudget, Answers } from "../protocol/datagram/answers.ts";
import { encodeAnswer, type RequestBody } from "../protocol/datagram/packet.ts";
import {
  FORGOTTEN,
  PACKET,
  type PacketKind,
  RESPONSE_TOO_LARGE,
} from "../protocol/datagram/types.ts";
import { encodeCodeMessage } from "../protocol/v3/payloads.ts";
import type { CancelReason, ServedRequest } from "../protocol/v3/served.ts";
import type { Lane } from "../protocol/v3/types.ts";
import type { DatagramStats } from "../stats.ts";
import { handlerName, type Handlers, RequestServer } from "./requests.ts";

/** What serving needs of the peer around it. */
export interface DatagramServerHost {
  readonly nodeId: string;
  readonly handlers: Handlers;
  /** Requests of the peer that run at once. */
  readonly maxRequests: number;
  readonly counters: DatagramStats;
  /** What the answers to all peers may have. */
  readonly answerBudget: AnswerBudget;
  /** The longest answer that fits into a packet, bytes. */
  readonly maxAnswerBytes: number;
  /** The monotonic clock, milliseconds. */
  now(): number;
  /** The wall clock, milliseconds since the epoch. */
  epochNow(): number;
  /** Sends an answer. */
  reply(kind: PacketKind, body: Uint8Array): void;
  onHandlerError(error: unknown, what: string): void;
  onRefused(): void;
  /** `nextTimeout` may be earlier now. */
  onSooner(): void;
}

/** Answers that are remembered of one peer, their bytes, and for how long. */
const ANSWERS = { maxAnswers: 1024, maxBytes: 4_194_304, maxAgeMs: 60_000 } as const;

/** Serves one peer. */
export class DatagramServer {
  readonly #host: DatagramServerHost;
  readonly #server: RequestServer;
  readonly #running = new Map<number, ServedDatagram>();
  #answers: Answers;
  #ended = false;

  /** Serves nothing yet. */
  constructor(host: DatagramServerHost) {
    this.#host = host;
    this.#answers = new Answers({ ...ANSWERS, budget: host.answerBudget });
    this.#server = new RequestServer(host.handlers, {
      nodeId: host.nodeId,
      // What is too long for a packet has a code of its own.
      maxMessageSize: Infinity,
      now: () => host.now(),
      epochNow: () => host.epochNow(),
      onHandlerError: (error, what) => host.onHandlerError(error, what),
      onRefused: () => host.onRefused(),
      onRelieved: () => {},
    });
  }

  /** Requests whose handler is not done. */
  get running(): number {
    return this.#running.size;
  }

  /** When `handleTimeout` is to be called; Infinity: never. */
  get nextTimeout(): number {
    let next = this.#answers.nextTimeout;
    for (const { dueAt } of this.#running.values()) next = Math.min(next, dueAt);
    return next;
  }

  /** The peer asks, for the first time or again. */
  handleRequest(body: RequestBody): void {
    const admission = this.#answers.admit(body.id, this.#host.now());
    if (admission === "ignore") return;
    if (admission === "run") return this.#run(body);
    if (admission === "forgotten") {
      const json = encodeCodeMessage(FORGOTTEN, "the answer is forgotten; it may have run");
      return this.#host.reply(PACKET.error, encodeAnswer(body.id, json));
    }
    this.#host.counters.repeatedAnswers++;
    this.#host.reply(admission.kind, admission.body);
  }

  /** The peer gives a request up. */
  handleCancel(id: number): void {
    this.#running.get(id)?.cancel("cancelled");
  }

  /** Ends what is past its deadline, forgets what is old. */
  handleTimeout(now: number): void {
    for (const served of [...this.#running.values()]) {
      if (now >= served.dueAt) served.cancel("deadline");
    }
    this.#answers.handleTimeout(now);
  }

  /** The peer has given up all it asked; what it asked stays known. */
  cancelAll(): void {
    for (const served of [...this.#running.values()]) served.cancel("ended");
  }

  /** Another process has come under the peer's name, which counts from one again. */
  renew(): void {
    this.cancelAll();
    this.#answers.clear();
    this.#answers = new Answers({ ...ANSWERS, budget: this.#host.answerBudget });
  }

  /** The peer is forgotten. */
  end(): void {
    this.cancelAll();
    this.#ended = true;
    this.#answers.clear();
  }

  #run(body: RequestBody): void {
    const { id, topic, msLeft } = body;
    const { handlers, maxRequests } = this.#host;
    const deadline = msLeft === 0 ? undefined : this.#host.now() + msLeft;
    const served = new ServedDatagram(this.#servedHost, body, deadline);
    const limit = handlers.limitOf(topic) ?? Infinity;
    const ofTopic = this.#countRunning(topic, limit);
    this.#running.set(id, served);
    if (this.#running.size > maxRequests || ofTopic >= limit) {
      this.#host.onRefused();
      served.fail("TOO_MANY_REQUESTS", "too many requests are running");
      return;
    }
    this.#server.onRequest(served);
    if (deadline !== undefined) this.#host.onSooner();
  }

  #countRunning(topic: string | undefined, limit: number): number {
    if (limit === Infinity) return 0;
    let count = 0;
    for (const served of this.#running.values()) if (served.topic === topic) count++;
    return count;
  }

  /** What the requests that run here need. */
  readonly #servedHost: ServedHost = {
    settle: (served, kind, payload) => this.#settle(served, kind, payload),
    cancelled: (served, reason) => this.#server.onCancelled(served, reason),
    done: (served) => {
      if (this.#running.get(served.id) === served) this.#running.delete(served.id);
    },
  };

  /** A request is answered, or given up where there is no payload. */
  #settle(served: ServedDatagram, kind: PacketKind, payload: Uint8Array | undefined): void {
    if (this.#ended) return;
    const { id } = served;
    const now = this.#host.now();
    if (payload === undefined) return this.#answers.settle(id, undefined, now);
    const answer = this.#fits(served, payload)
      ? { kind, body: encodeAnswer(id, payload) }
      : { kind: PACKET.error, body: encodeAnswer(id, TOO_LARGE) };
    this.#host.reply(answer.kind, answer.body);
    this.#answers.settle(id, answer, now);
    this.#host.onSooner();
  }

  #fits({ topic }: ServedDatagram, { length }: Uint8Array): boolean {
    const { nodeId: peer, maxAnswerBytes } = this.#host;
    if (length <= maxAnswerBytes) return true;
    const text =
      `Cannot answer: the response has ${length} bytes, a packet takes ${maxAnswerBytes}`;
    const error = new MessageTooLargeError(text, length, maxAnswerBytes, { peer });
    this.#host.onHandlerError(error, handlerName("request", topic));
    return false;
  }
}

const TOO_LARGE = encodeCodeMessage(RESPONSE_TOO_LARGE, "the answer does not fit into a packet");

interface ServedHost {
  settle(served: ServedDatagram, kind: PacketKind, payload: Uint8Array | undefined): void;
  cancelled(served: ServedDatagram, reason: CancelReason): void;
  done(served: ServedDatagram): void;
}

/** A request that runs here. */
class ServedDatagram implements ServedRequest {
  context: unknown = undefined;
  readonly id: number;
  readonly lane: Lane;
  readonly topic: string | undefined;
  readonly payload: Uint8Array;
  readonly deadline: number | undefined;
  readonly #host: ServedHost;
  #cancelled = false;
  #done = false;

  constructor(host: ServedHost, body: RequestBody, deadline: number | undefined) {
    this.#host = host;
    this.id = body.id;
    this.lane = body.lane;
    this.topic = body.topic;
    this.payload = body.payload;
    this.deadline = deadline;
  }

  /** When it is given up; Infinity where it has been already. */
  get dueAt(): number {
    return this.#cancelled ? Infinity : this.deadline ?? Infinity;
  }

  respond(payload: Uint8Array): boolean {
    return this.#finish(PACKET.response, payload);
  }

  fail(code: string, message: string): boolean {
    return this.#finish(PACKET.error, encodeCodeMessage(code, message));
  }

  /** No answer is wanted any more; the handler's place stays taken until it is done. */
  cancel(reason: CancelReason): void {
    if (this.#cancelled || this.#done) return;
    this.#cancelled = true;
    this.#host.settle(this, PACKET.response, undefined);
    this.#host.cancelled(this, reason);
  }

  #finish(kind: PacketKind, payload: Uint8Array): boolean {
    if (this.#done) return false;
    this.#done = true;
    this.#host.done(this);
    if (this.#cancelled) return false;
    this.#host.settle(this, kind, payload);
    return true;
  }
}
