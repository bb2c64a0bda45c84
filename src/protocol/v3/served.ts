/**
 * The requests that one peer makes to us, until they are answered.
 *
 * @module
 */

import { Deadlines, type Due } from "./call_deadlines.ts";
import { encodeFailure, neverUsed, NO_BYTES, writeId } from "./call_messages.ts";
import type { OutMessage, SessionPort, Tracker } from "./out_message.ts";
import { KIND, type Kind, type Lane, type ProtocolCode } from "./types.ts";

/** The most requests of one peer that run at once, where the configuration says nothing else. */
export const DEFAULT_MAX_REQUESTS = 256;
/** The most bytes of requests of one peer that run at once, likewise. */
export const DEFAULT_MAX_REQUEST_BYTES = 67_108_864;
/**
 * The most answers that a peer has not acknowledged. Far more than `DEFAULT_MAX_CALLS`, so that two
 * peers that keep their bounds can't hold each other back.
 */
export const DEFAULT_MAX_ANSWERS = 8192;
/** The most bytes of answers that a peer has not acknowledged. */
export const DEFAULT_MAX_ANSWER_BYTES = 67_108_864;

/** The prefix of the answer that is written last. */
const PREFIX = new Uint8Array(8);
const TOO_MANY = encodeFailure("TOO_MANY_REQUESTS", "too many requests are running");

/** Why a running request is not answered any more. */
export type CancelReason = "cancelled" | "deadline" | "ended";

/** A request of the peer. */
export interface ServedRequest {
  /** The lane that it came in and its answer goes out in. */
  readonly lane: Lane;
  /** The number of its first fragment. */
  readonly id: number;
  /** Its topic. */
  readonly topic: string | undefined;
  /** Its bytes; they may be a view of what was received. */
  readonly payload: Uint8Array;
  /** When the peer stops waiting, on the monotonic clock in milliseconds; undefined: never. */
  readonly deadline: number | undefined;
  /** Whatever whoever serves it wants to find again. */
  context: unknown;
  /**
   * The handler is done: frees its place, and answers unless the request was cancelled, its
   * deadline has passed, or its session has ended. The bytes belong to the answer from here on.
   *
   * @returns Whether the answer was sent. Only the first of all calls does anything.
   */
  respond(payload: Uint8Array): boolean;
  /** As `respond`, with an error. */
  fail(code: string, message: string): boolean;
}

/** Told what the peer asks. */
export interface ServedSink {
  /** A request was admitted. Its place is taken until `respond` or `fail`. */
  onRequest(request: ServedRequest): void;
  /** An answer is not wanted any more. The place stays taken until `respond` or `fail`. */
  onCancelled(request: ServedRequest, reason: CancelReason): void;
  /** A request was refused: too many are running. */
  onRefused?(lane: Lane, topic: string | undefined): void;
  /** `overloaded` was true and is not any more. */
  onRelieved?(): void;
}

/** Bounds of what a peer may ask. */
export interface ServedConfig {
  /** The peer's node id, for errors. */
  readonly peer: string;
  /** The most requests that run at once; a cancelled one runs until its handler is done. */
  readonly maxRequests?: number;
  /** The most payload bytes of requests that run at once. One always goes. */
  readonly maxRequestBytes?: number;
  /** The most requests of this peer with this topic that run at once; undefined: no bound. */
  limitOf?(topic: string | undefined): number | undefined;
  /** The most answers that the peer has not acknowledged. */
  readonly maxAnswers?: number;
  /** The most bytes of such answers. */
  readonly maxAnswerBytes?: number;
}

/**
 * Requests of one peer. It outlives the peer's sessions, because handlers do: a peer that comes
 * back finds the places taken that its earlier requests still occupy.
 */
export class Served {
  readonly #config: ServedConfig;
  readonly #sink: ServedSink;
  readonly #maxRequests: number;
  readonly #maxRequestBytes: number;
  readonly #maxAnswers: number;
  readonly #maxAnswerBytes: number;
  readonly #byTopic = new Map<string | undefined, number>();
  /** To be answered: lane, id. */
  readonly #waiting = [newTable(), newTable(), newTable()] as const;
  readonly #deadlines = new Deadlines<RunningRequest>();
  #port: SessionPort;
  #session = 0;
  #highest: [number, number, number] = [0, 0, 0];
  #running = 0;
  #runningBytes = 0;
  #answers = 0;
  #answerBytes = 0;
  #wasOverloaded = false;

  /** Serves requests that come over a session. */
  constructor(port: SessionPort, config: ServedConfig, sink: ServedSink) {
    this.#port = port;
    this.#config = config;
    this.#sink = sink;
    this.#maxRequests = config.maxRequests ?? DEFAULT_MAX_REQUESTS;
    this.#maxRequestBytes = config.maxRequestBytes ?? DEFAULT_MAX_REQUEST_BYTES;
    this.#maxAnswers = config.maxAnswers ?? DEFAULT_MAX_ANSWERS;
    this.#maxAnswerBytes = config.maxAnswerBytes ?? DEFAULT_MAX_ANSWER_BYTES;
  }

  /** Requests whose handler is not done, cancelled ones and those of earlier sessions included. */
  get running(): number {
    return this.#running;
  }

  /** Answers that the peer has not acknowledged. */
  get unacknowledged(): number {
    return this.#answers;
  }

  /**
   * Whether the peer asks without taking the answers: no further request may be given to
   * `handleRequest` until `onRelieved`. Cancels and everything else may.
   */
  get overloaded(): boolean {
    const over = this.#answers >= this.#maxAnswers || this.#answerBytes >= this.#maxAnswerBytes;
    if (over) this.#wasOverloaded = true;
    return over;
  }

  /**
   * The peer asks.
   *
   * @param msLeft As it stands on the wire; 0: no deadline.
   */
  handleRequest(
    lane: Lane,
    id: number,
    topic: string | undefined,
    payload: Uint8Array,
    msLeft: number,
    now: number,
  ): void {
    this.#highest[lane] = id;
    if (!this.#hasPlace(topic, payload.length)) {
      this.#answer(KIND.error, lane, id, TOO_MANY);
      this.#sink.onRefused?.(lane, topic);
      return;
    }
    const deadline = msLeft > 0 ? now + msLeft : undefined;
    const request = new RunningRequest(this.#owner, lane, id, topic, payload, deadline);
    request.session = this.#session;
    this.#take(request);
    this.#waiting[lane].set(id, request);
    this.#deadlines.add(request);
    this.#sink.onRequest(request);
  }

  /**
   * The peer does not want request `id` answered. Late cancels are ignored, and so is id 0, which
   * stands for nothing.
   *
   * @throws {TransportError} "InvalidFrame" if there never was such a request.
   */
  handleCancel(lane: Lane, id: number): void {
    if (!(id <= this.#highest[lane])) throw neverUsed("request", this.#config.peer);
    const request = this.#waiting[lane].get(id);
    if (request !== undefined) this.#cancel(request, "cancelled");
  }

  /** The earliest time at which `handleTimeout` has something to do. */
  nextTimeout(): number | undefined {
    return this.#deadlines.next;
  }

  /** Time has passed: requests that are due are not answered any more. */
  handleTimeout(now: number): void {
    for (let due = this.#deadlines.takeDue(now); due; due = this.#deadlines.takeDue(now)) {
      this.#cancel(due, "deadline");
    }
  }

  /** The session has ended: nothing that came over it is answered any more. */
  end(): void {
    const open = this.#waiting.flatMap((table) => [...table.values()]);
    this.#session++;
    this.#answers = this.#answerBytes = 0;
    this.#highest = [0, 0, 0];
    for (const request of open) this.#cancel(request, "ended");
    this.#tellRelief();
  }

  /** There is a new session. */
  begin(port: SessionPort): void {
    this.#port = port;
  }

  readonly #owner: RequestOwner = {
    settle: (request, kind, payload) => this.#settle(request, kind, payload),
  };

  #hasPlace(topic: string | undefined, size: number): boolean {
    if (this.#running >= this.#maxRequests) return false;
    const bytes = this.#runningBytes;
    if (bytes > 0 && bytes + size > this.#maxRequestBytes) return false;
    const limit = this.#config.limitOf?.(topic);
    return limit === undefined || (this.#byTopic.get(topic) ?? 0) < limit;
  }

  #take({ topic, payload }: RunningRequest): void {
    this.#running++;
    this.#runningBytes += payload.length;
    this.#byTopic.set(topic, (this.#byTopic.get(topic) ?? 0) + 1);
  }

  #free({ topic, payload }: RunningRequest): void {
    this.#running--;
    this.#runningBytes -= payload.length;
    const left = (this.#byTopic.get(topic) ?? 1) - 1;
    if (left > 0) this.#byTopic.set(topic, left);
    else this.#byTopic.delete(topic);
  }

  #cancel(request: RunningRequest, reason: CancelReason): void {
    this.#forget(request);
    this.#sink.onCancelled(request, reason);
  }

  #forget(request: RunningRequest): void {
    this.#waiting[request.lane].delete(request.id);
    this.#deadlines.remove(request);
    request.session = -1;
  }

  #settle(request: RunningRequest, kind: Kind, payload: Uint8Array): boolean {
    this.#free(request);
    if (request.session === -1) return false;
    this.#forget(request);
    // The timer may be late: a deadline that has passed has passed.
    if (request.deadline !== undefined && this.#port.now >= request.deadline) return false;
    this.#answer(kind, request.lane, request.id, payload);
    return true;
  }

  #answer(kind: Kind, lane: Lane, id: number, payload: Uint8Array): void {
    this.#answers++;
    this.#answerBytes += payload.length;
    this.#port.enqueue(new Answer(this.#session, this.#answered, kind, lane, id, payload));
  }

  readonly #answered = (answer: Answer): void => {
    if (answer.session !== this.#session) return;
    this.#answers--;
    this.#answerBytes -= answer.payload.length;
    this.#tellRelief();
  };

  #tellRelief(): void {
    if (!this.#wasOverloaded || this.overloaded) return;
    this.#wasOverloaded = false;
    this.#sink.onRelieved?.();
  }
}

interface RequestOwner {
  settle(request: RunningRequest, kind: Kind, payload: Uint8Array): boolean;
}

class RunningRequest implements ServedRequest, Due {
  readonly lane: Lane;
  readonly id: number;
  readonly topic: string | undefined;
  readonly payload: Uint8Array;
  readonly deadline: number | undefined;
  context: unknown = undefined;
  place = -1;
  /** The session it is answered in; -1: it is not answered any more. */
  session = -1;
  readonly #owner: RequestOwner;
  #settled = false;

  constructor(
    owner: RequestOwner,
    lane: Lane,
    id: number,
    topic: string | undefined,
    payload: Uint8Array,
    deadline: number | undefined,
  ) {
    this.#owner = owner;
    this.lane = lane;
    this.id = id;
    this.topic = topic;
    this.payload = payload;
    this.deadline = deadline;
  }

  respond(payload: Uint8Array): boolean {
    return this.#settle(KIND.response, payload);
  }

  fail(code: ProtocolCode | string, message: string): boolean {
    return this.#settle(KIND.error, this.session === -1 ? NO_BYTES : encodeFailure(code, message));
  }

  #settle(kind: Kind, payload: Uint8Array): boolean {
    if (this.#settled) return false;
    this.#settled = true;
    return this.#owner.settle(this, kind, payload);
  }
}

class Answer implements OutMessage, Tracker {
  readonly kind: Kind;
  readonly lane: Lane;
  readonly topic: undefined = undefined;
  readonly payload: Uint8Array;
  readonly atMostOnce = false;
  readonly tracker: Tracker;
  readonly session: number;
  readonly #id: number;
  readonly #settled: (answer: Answer) => void;

  constructor(
    session: number,
    settled: (answer: Answer) => void,
    kind: Kind,
    lane: Lane,
    id: number,
    payload: Uint8Array,
  ) {
    this.session = session;
    this.#settled = settled;
    this.kind = kind;
    this.lane = lane;
    this.#id = id;
    this.payload = payload;
    this.tracker = this;
  }

  prefix(): Uint8Array {
    writeId(PREFIX, this.#id);
    return PREFIX;
  }

  onAcked(): void {
    this.#settled(this);
  }

  onEnded(): void {
    this.#settled(this);
  }
}

function newTable(): Map<number, RunningRequest> {
  return new Map();
}
