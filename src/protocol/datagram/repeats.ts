/**
 * Requests over datagrams, repeated until they are answered.
 *
 * @module
 */

import { BackpressureError, RequestLostError, TransportError } from "../../errors.ts";
import type { Call, CallHandle } from "../v3/calls.ts";
import { remoteError } from "../v3/call_messages.ts";
import { readCodeMessage } from "../v3/payloads.ts";
import type { Lane } from "../v3/types.ts";
import { encodeRequest, setMsLeft } from "./packet.ts";

/** What repeating needs. */
export interface RepeatsOptions {
  /** The peer's node id, for errors. */
  readonly peer: string;
  /** The most requests under way. */
  readonly maxCalls: number;
  /** The most bytes of requests under way. One always goes. */
  readonly maxBytes: number;
  /** A number in [0, 1), for jitter. */
  random(): number;
  /**
   * Sends a request. The answer: which process and table of answers it went to, as a text; undefined
   * where there is no link. Where that is another than `last`, it must not have been sent.
   */
  send(body: Uint8Array, last: string | undefined): SendResult;
  /** Says that a request is given up. */
  cancel(id: number): void;
  /** How long to wait before a request is sent for the second time, milliseconds. */
  firstDelayMs(): number;
}

/** What became of a request that was to be sent. */
export type SendResult =
  /** It left; the text names who remembers it. */
  | { readonly sentTo: string }
  /** There is no link now. */
  | "no-link"
  /** Its turn has not come: `pump` is called then. */
  | "no-room"
  /** Who knew of it has forgotten it: it must not be sent again. */
  | "forgotten";

interface OpenCall extends Call {
  readonly id: number;
  readonly body: Uint8Array;
  readonly deadline: number;
  readonly handle: CallHandle;
  sentTo: string | undefined;
  delayMs: number;
  nextAt: number;
  /** It waits for its turn. */
  held: boolean;
  /** How often it was sent. */
  sent: number;
}

const MAX_DELAY_MS = 2000;
const JITTER = 0.2;
const MAX_U32 = 0xffff_ffff;

/** The requests to one peer. */
export class Repeats {
  readonly #options: RepeatsOptions;
  readonly #calls = new Map<number, OpenCall>();
  #bytes = 0;
  #lastId = 0;
  /** Requests that were sent more than once, and how often in sum. */
  repeated = 0;

  /** Makes no request yet. */
  constructor(options: RepeatsOptions) {
    this.#options = options;
  }

  /** Requests that are not answered. */
  get open(): number {
    return this.#calls.size;
  }

  /** When `handleTimeout` is to be called. */
  get nextTimeout(): number {
    let next = Infinity;
    for (const { nextAt, deadline } of this.#calls.values()) {
      next = Math.min(next, nextAt, deadline);
    }
    return next;
  }

  /**
   * Makes a request and sends it.
   *
   * @throws {BackpressureError} If too many are under way.
   */
  start(
    lane: Lane,
    topic: Uint8Array | undefined,
    payload: Uint8Array,
    deadline: number | undefined,
    handle: CallHandle,
    now: number,
  ): Call {
    const { maxCalls, maxBytes, peer } = this.#options;
    const open = this.#calls.size;
    if (open >= maxCalls || open > 0 && this.#bytes + payload.length > maxBytes) {
      const text = `Cannot make a request to ${peer}: ${open} requests are under way`;
      throw new BackpressureError(text, open, { peer });
    }
    const id = ++this.#lastId;
    const call: OpenCall = {
      lane,
      id,
      body: encodeRequest(lane, topic, payload, id),
      deadline: deadline ?? Infinity,
      handle,
      sentTo: undefined,
      delayMs: this.#options.firstDelayMs(),
      nextAt: now,
      held: false,
      sent: 0,
    };
    this.#calls.set(id, call);
    this.#bytes += call.body.length;
    this.#send(call, now);
    return call;
  }

  /** Gives a request up: its handle hears nothing more. */
  cancel(call: Call): void {
    const { id, sent } = call as OpenCall;
    if (!this.#remove(id)) return;
    if (sent > 0) this.#options.cancel(id);
  }

  /** The peer answered; false: nobody waits for that. */
  handleResponse(id: number, payload: Uint8Array): boolean {
    const call = this.#remove(id);
    call?.handle.onResponse(payload);
    return call !== undefined;
  }

  /**
   * The peer answered with an error; false: nobody waits for that.
   *
   * @throws {TransportError} `InvalidFrame`
   */
  handleError(id: number, json: Uint8Array): boolean {
    if (!this.#calls.has(id)) return false;
    const { code, message } = readCodeMessage(json);
    const { peer } = this.#options;
    this.#remove(id)?.handle.onFailure(remoteError("complete the request", peer, code, message));
    return true;
  }

  /** Ends what is past its deadline, and sends again what is due. */
  handleTimeout(now: number): void {
    for (const call of [...this.#calls.values()]) {
      if (now >= call.deadline) this.#expire(call);
      else if (now >= call.nextAt) this.#send(call, now);
    }
  }

  /** A link has come: what waits is sent at once. */
  linked(now: number): void {
    for (const call of [...this.#calls.values()]) this.#send(call, now);
  }

  /**
   * There may be room: what waits for it is sent, as far as there is. Whether anything was:
   * `nextTimeout` may be earlier then.
   */
  pump(now: number): boolean {
    let any = false;
    for (const call of [...this.#calls.values()]) {
      if (!call.held) continue;
      this.#send(call, now);
      if (call.held) break;
      any = true;
    }
    return any;
  }

  /** Ends all requests. */
  fail(error: TransportError): void {
    for (const call of [...this.#calls.values()]) this.#lose(call, error);
  }

  #send(call: OpenCall, now: number): void {
    const left = Math.ceil(call.deadline - now);
    setMsLeft(call.body, left > MAX_U32 ? 0 : Math.max(1, left));
    const result = this.#options.send(call.body, call.sentTo);
    if (result === "forgotten") {
      const text = `the process that had it is gone`;
      return this.#lose(call, new TransportError("ConnectionClosed", text));
    }
    call.held = result === "no-room";
    if (result === "no-room") {
      call.nextAt = Infinity;
      return;
    }
    const jitter = 1 + JITTER * (2 * this.#options.random() - 1);
    call.nextAt = now + call.delayMs * jitter;
    if (result === "no-link") return;
    if (call.sent++ > 0) this.repeated++;
    call.sentTo = result.sentTo;
    call.delayMs = Math.min(call.delayMs * 2, MAX_DELAY_MS);
  }

  #expire(call: OpenCall): void {
    const { peer } = this.#options;
    this.#remove(call.id);
    const outcome = call.sent === 0 ? "not-run" : "may-have-run";
    const text = `Cannot complete the request: ${peer} did not answer in time`;
    call.handle.onFailure(new RequestLostError(text, outcome, { peer }, "Timeout"));
  }

  #lose(call: OpenCall, cause: TransportError): void {
    const { peer } = this.#options;
    this.#remove(call.id);
    const outcome = call.sent === 0 ? "not-run" : "may-have-run";
    const text = `Cannot complete the request to ${peer}: ${cause.message}`;
    call.handle.onFailure(new RequestLostError(text, outcome, { peer, cause }));
  }

  #remove(id: number): OpenCall | undefined {
    const call = this.#calls.get(id);
    if (call === undefined) return undefined;
    this.#calls.delete(id);
    this.#bytes -= call.body.length;
    return call;
  }
}
