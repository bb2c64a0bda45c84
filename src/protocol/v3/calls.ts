/**
 * The requests that we make to one peer, until they are answered.
 *
 * @module
 */

import {
  BackpressureError,
  RequestLostError,
  type RequestOutcome,
  type TransportError,
} from "../../errors.ts";
import { Deadlines, type Due } from "./call_deadlines.ts";
import {
  encodeId,
  neverUsed,
  NO_BYTES,
  ReadyMessage,
  remoteError,
  writeU32,
} from "./call_messages.ts";
import type { Fate, OutMessage, SessionPort, Tracker } from "./out_message.ts";
import { quote } from "../text.ts";
import { KIND, type Lane } from "./types.ts";

/** The most requests under way to one peer, where the configuration says nothing else. */
export const DEFAULT_MAX_CALLS = 1024;
/** The most bytes of requests that one peer has not acknowledged, likewise. */
export const DEFAULT_MAX_CALL_BYTES = 67_108_864;

const MAX_U32 = 0xffff_ffff;
/** The prefix of the request that is written last. */
const PREFIX = new Uint8Array(4);

/** Told how a call ends: one of these, once. Not called after `cancel`. */
export interface CallHandle {
  /** The peer answered. The bytes may be a view of what was received. */
  onResponse(payload: Uint8Array): void;
  /** `RemoteError`, or `RequestLostError`, whose code is "Timeout" at the deadline. */
  onFailure(error: TransportError): void;
}

/** A request under way. */
export interface Call {
  /** The lane that it and its answer travel in. */
  readonly lane: Lane;
  /** When it is given up, on the monotonic clock in milliseconds. */
  readonly deadline: number | undefined;
}

/** What calls need to know. */
export interface CallsConfig {
  /** The peer's node id, for errors. */
  readonly peer: string;
  /** The most requests under way, those included whose cancel the peer has not acknowledged. */
  readonly maxCalls?: number;
  /** The most payload bytes of requests that the peer has not acknowledged. One always goes. */
  readonly maxBytes?: number;
  /** A call has made `nextTimeout()` earlier. */
  onSooner?(): void;
  /** Why the peer has no connection, where it has none; undefined where it has. */
  unconnected?(): Unconnected | undefined;
}

/** That there is no connection to a peer. */
export interface Unconnected {
  /** What went wrong last. */
  readonly error: TransportError | undefined;
}

const decoder = new TextDecoder();

/**
 * Requests to one peer. They outlive its sessions: what was not written when a session ended goes
 * to the next one.
 */
export class Calls {
  readonly #config: CallsConfig;
  readonly #maxCalls: number;
  readonly #maxBytes: number;
  /** Not written yet, oldest first. */
  readonly #waiting = new Set<OpenCall>();
  /** Written and not answered: lane, id. */
  readonly #written = [newTable(), newTable(), newTable()] as const;
  readonly #deadlines = new Deadlines<OpenCall>();
  readonly #owner: CallOwner;
  #port: SessionPort;
  /** Tells what belongs to a session that has ended. */
  #session = 0;
  /** The highest id of a request, by lane. */
  #highest: [number, number, number] = [0, 0, 0];
  #open = 0;
  #bytes = 0;
  /** Cancels that the peer has not acknowledged. */
  #cancels = 0;

  /** Makes calls over a session. */
  constructor(port: SessionPort, config: CallsConfig) {
    this.#port = port;
    this.#config = config;
    this.#maxCalls = config.maxCalls ?? DEFAULT_MAX_CALLS;
    this.#maxBytes = config.maxBytes ?? DEFAULT_MAX_CALL_BYTES;
    this.#owner = {
      numbered: (call, id) => this.#numbered(call, id),
      acked: (call) => this.#release(call),
      unsent: (call, error) => this.#unsent(call, error),
    };
  }

  /** Requests that are neither answered nor given up. */
  get open(): number {
    return this.#open;
  }

  /**
   * Makes a request. The payload belongs to the call from here on.
   *
   * @param deadline When it is given up, on the monotonic clock in milliseconds; undefined: never.
   * @throws {BackpressureError} If too many are under way.
   */
  start(
    lane: Lane,
    topic: Uint8Array | undefined,
    payload: Uint8Array,
    deadline: number | undefined,
    handle: CallHandle,
  ): Call {
    this.#checkRoom(payload.length);
    const call = new OpenCall(this.#owner, lane, topic, payload, deadline, handle);
    call.startedAt = this.#port.now;
    call.heldIn = this.#session;
    this.#bytes += payload.length;
    this.#open++;
    this.#waiting.add(call);
    this.#deadlines.add(call);
    this.#port.enqueue(call);
    if (call.place === 0) this.#config.onSooner?.();
    return call;
  }

  /** Gives a call up: its handle hears nothing more. */
  cancel(call: Call): void {
    if (call instanceof OpenCall && call.state !== "done") this.#giveUp(call);
  }

  /**
   * The peer answered request `id`. Late answers are ignored.
   *
   * @throws {TransportError} "InvalidFrame" if there never was such a request.
   */
  handleResponse(lane: Lane, id: number, payload: Uint8Array): void {
    this.#answered(lane, id)?.handle.onResponse(payload);
  }

  /**
   * The peer answered request `id` with an error. Late answers are ignored.
   *
   * @throws {TransportError} "InvalidFrame" if there never was such a request.
   */
  handleError(lane: Lane, id: number, code: string, message: string): void {
    const { peer } = this.#config;
    const call = this.#answered(lane, id);
    call?.handle.onFailure(remoteError("complete the request", peer, code, message));
  }

  /** The earliest time at which `handleTimeout` has something to do. */
  nextTimeout(): number | undefined {
    return this.#deadlines.next;
  }

  /** Time has passed: what is due fails with "Timeout", and the peer is told to stop. */
  handleTimeout(now: number): void {
    for (let due = this.#deadlines.takeDue(now); due; due = this.#deadlines.takeDue(now)) {
      const outcome = this.#giveUp(due) ? "not-run" : "may-have-run";
      due.handle.onFailure(this.#late(due, outcome));
    }
  }

  /**
   * The session has ended. What was written fails with `RequestLostError`, "may-have-run"; what was
   * not stays under way and is returned, oldest first: put it into the next session, or call `fail`.
   */
  end(reason: TransportError): readonly OutMessage[] {
    const lost = this.#written.flatMap((table) => [...table.values()]);
    this.#session++;
    this.#cancels = 0;
    this.#highest = [0, 0, 0];
    this.#bytes = 0;
    for (const call of this.#waiting) {
      call.heldIn = this.#session;
      this.#bytes += call.payload.length;
    }
    for (const call of lost) this.#finish(call);
    for (const call of lost) call.handle.onFailure(this.#lost("may-have-run", reason));
    return [...this.#waiting];
  }

  /** There is a new session. */
  begin(port: SessionPort): void {
    this.#port = port;
  }

  /** The peer is given up: everything fails, what was not written with "not-run". */
  fail(reason: TransportError): void {
    this.end(reason);
    for (const call of [...this.#waiting]) {
      if (call.state !== "waiting") continue;
      this.#port.withdraw(call);
      this.#finish(call);
      this.#release(call);
      call.handle.onFailure(this.#lost("not-run", reason));
    }
  }

  #checkRoom(size: number): void {
    const under = this.#open + this.#cancels;
    const tooMany = under >= this.#maxCalls;
    if (!tooMany && (this.#bytes === 0 || this.#bytes + size <= this.#maxBytes)) return;
    const { peer } = this.#config;
    const what = tooMany ? `${under} requests are` : `requests of ${this.#bytes} bytes are`;
    throw new BackpressureError(`Cannot ask ${peer}: ${what} under way`, under, { peer });
  }

  /** True: the peer will never hear of it. */
  #giveUp(call: OpenCall): boolean {
    const { id } = call;
    const waiting = call.state === "waiting";
    this.#finish(call);
    if (id !== undefined) this.#sendCancel(call.lane, id);
    const withdrawn = id === undefined && waiting && this.#port.withdraw(call);
    if (withdrawn) this.#release(call);
    return withdrawn;
  }

  #sendCancel(lane: Lane, id: number): void {
    const session = this.#session;
    const settled = () => {
      if (session === this.#session) this.#cancels--;
    };
    this.#cancels++;
    const tracker: Tracker = { onAcked: settled, onEnded: settled };
    this.#port.enqueue(new ReadyMessage(KIND.cancel, lane, encodeId(id), NO_BYTES, tracker));
  }

  #numbered(call: OpenCall, id: number): void {
    this.#highest[call.lane] = id;
    call.id = id;
    // It was given up while it was on its way out.
    if (call.state === "done") return this.#sendCancel(call.lane, id);
    call.state = "written";
    this.#waiting.delete(call);
    this.#written[call.lane].set(id, call);
  }

  /** It was taken out of its queue and will never be written. */
  #unsent(call: OpenCall, error: TransportError | undefined): void {
    this.#release(call);
    if (call.state !== "waiting") return;
    this.#finish(call);
    call.handle.onFailure(this.#lost("not-run", error));
  }

  #answered(lane: Lane, id: number): OpenCall | undefined {
    if (!(id >= 1 && id <= this.#highest[lane])) throw neverUsed("request", this.#config.peer);
    const call = this.#written[lane].get(id);
    if (call !== undefined) this.#finish(call);
    return call;
  }

  #finish(call: OpenCall): void {
    if (call.state === "waiting") this.#waiting.delete(call);
    if (call.id !== undefined) this.#written[call.lane].delete(call.id);
    this.#deadlines.remove(call);
    call.state = "done";
    this.#open--;
  }

  #release(call: OpenCall): void {
    if (call.heldIn !== this.#session) return;
    call.heldIn = -1;
    this.#bytes -= call.payload.length;
  }

  #late(call: OpenCall, outcome: RequestOutcome): RequestLostError {
    const { peer } = this.#config;
    const unconnected = this.#config.unconnected?.();
    const notRun = outcome === "not-run";
    const what = !notRun
      ? `${peer} did not answer`
      : unconnected === undefined
      ? `it was not sent to ${peer}`
      : `${peer} was not connected`;
    const topic = call.topic === undefined ? "" : ` ${quote(decoder.decode(call.topic))}`;
    const text = `Cannot complete the request${topic}: ${what} within ${call.timeoutMs} ms`;
    const recovery = !notRun
      ? "raise the timeout, or retry with backoff if it may run twice"
      : unconnected === undefined
      ? undefined
      : "check the address and that the peer is up; retry with backoff";
    const options = { peer, cause: unconnected?.error, recovery, retryable: true };
    return new RequestLostError(text, outcome, options, "Timeout");
  }

  #lost(outcome: RequestOutcome, reason: TransportError | undefined): RequestLostError {
    const { peer } = this.#config;
    const what = outcome === "not-run" ? "it was not sent" : "it may have run";
    const text = `Cannot complete the request: the session with ${peer} ended, ${what}`;
    return new RequestLostError(text, outcome, { peer, cause: reason });
  }
}

interface CallOwner {
  numbered(call: OpenCall, id: number): void;
  acked(call: OpenCall): void;
  unsent(call: OpenCall, error: TransportError | undefined): void;
}

/** One object for all that a call is: the message, its tracker, its deadline. */
class OpenCall implements Call, OutMessage, Tracker, Due {
  readonly kind = KIND.request;
  readonly lane: Lane;
  readonly topic: Uint8Array | undefined;
  readonly payload: Uint8Array;
  readonly atMostOnce = false;
  readonly tracker: Tracker;
  readonly deadline: number | undefined;
  readonly handle: CallHandle;
  place = -1;
  state: "waiting" | "written" | "done" = "waiting";
  id: number | undefined;
  startedAt = 0;
  /** The session in which its bytes are counted. */
  heldIn = -1;
  readonly #owner: CallOwner;

  constructor(
    owner: CallOwner,
    lane: Lane,
    topic: Uint8Array | undefined,
    payload: Uint8Array,
    deadline: number | undefined,
    handle: CallHandle,
  ) {
    this.#owner = owner;
    this.lane = lane;
    this.topic = topic;
    this.payload = payload;
    this.deadline = deadline === Infinity ? undefined : deadline;
    this.handle = handle;
    this.tracker = this;
  }

  /** The time it was given. */
  get timeoutMs(): number {
    return Math.round((this.deadline ?? Infinity) - this.startedAt);
  }

  /** The time left, as it is when the request leaves. 0 would mean that there is no deadline. */
  prefix(now: number): Uint8Array {
    const { deadline } = this;
    const left = deadline === undefined ? 0 : Math.max(Math.ceil(deadline - now), 1);
    writeU32(PREFIX, 0, Math.min(left, MAX_U32));
    return PREFIX;
  }

  onNumbered(id: number): void {
    this.#owner.numbered(this, id);
  }

  onAcked(): void {
    this.#owner.acked(this);
  }

  onEnded(fate: Fate, error?: TransportError): void {
    if (this.id === undefined && fate === "unsent") this.#owner.unsent(this, error);
    else this.#owner.acked(this);
  }
}

function newTable(): Map<number, OpenCall> {
  return new Map();
}
