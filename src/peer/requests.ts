/**
 * Requests as the application makes and serves them, with promises.
 *
 * @module
 */

import { MessageTooLargeError, RemoteError, TransportError } from "../errors.ts";
import type { Call, CallHandle, Calls } from "../protocol/v3/calls.ts";
import { isCode } from "../protocol/v3/call_messages.ts";
import type { CancelReason, ServedRequest, ServedSink } from "../protocol/v3/served.ts";
import { quote } from "../protocol/text.ts";
import { encodeTopic } from "../protocol/v3/topic.ts";
import { type Lane, LANE_NAMES, type LaneName } from "../protocol/v3/types.ts";

// --- making requests ---

/** How a request is made. */
export interface RequestOptions {
  /** What it is about: the other side's handler of this topic gets it. 1 to 255 bytes. */
  topic?: string | undefined;
  /**
   * The lane that it and its answer travel in.
   *
   * @default "normal"
   */
  lane?: LaneName | undefined;
  /**
   * Milliseconds until it fails with "Timeout"; the handler learns the deadline, too. Above 0;
   * `Infinity`: it waits for as long as it takes.
   *
   * @default requestTimeoutMs of the endpoint
   */
  timeoutMs?: number | undefined;
  /** Gives the request up, wherever it is: the promise rejects with the signal's reason. */
  signal?: AbortSignal | undefined;
}

/** What starts requests and gives them up. */
export type CallMaker = Pick<Calls, "start" | "cancel">;

/** What making requests needs of a peer. */
export interface RequestHost {
  readonly nodeId: string;
  readonly calls: CallMaker;
  /** The largest payload the peer takes, bytes. */
  readonly maxMessageSize: number;
  readonly requestTimeoutMs: number;
  /** The monotonic clock, milliseconds. */
  readonly now: number;
}

/**
 * Makes a request; the payload is copied. Rejects with a `RemoteError`, a `RequestLostError`
 * (whose code is "Timeout" at the deadline), "Backpressure", the signal's reason, or a `TypeError`
 * or `RangeError` where an argument is wrong.
 */
export function request(
  host: RequestHost,
  payload: Uint8Array,
  options: RequestOptions = {},
): Promise<Uint8Array> {
  return new Promise((resolve, reject) => {
    const { signal } = options;
    if (signal?.aborted) return reject(signal.reason);
    checkPayload(host, payload);
    const lane = laneOf(options.lane);
    const topic = options.topic === undefined ? undefined : encodeTopic(options.topic);
    const timeoutMs = checkTimeout(options.timeoutMs ?? host.requestTimeoutMs);
    const handle = new Waiting(host.calls, signal, resolve, reject);
    // Not slice(): that of a Buffer is a view.
    const copy = new Uint8Array(payload);
    handle.call = host.calls.start(lane, topic, copy, host.now + timeoutMs, handle);
    if (signal !== undefined) handle.listen(signal);
  });
}

/** Whoever waits for an answer. */
class Waiting implements CallHandle {
  call: Call | undefined;
  readonly #calls: CallMaker;
  readonly #signal: AbortSignal | undefined;
  readonly #resolve: (payload: Uint8Array) => void;
  readonly #reject: (reason: unknown) => void;
  #settled = false;
  #onAbort: (() => void) | undefined;

  constructor(
    calls: CallMaker,
    signal: AbortSignal | undefined,
    resolve: (payload: Uint8Array) => void,
    reject: (reason: unknown) => void,
  ) {
    this.#calls = calls;
    this.#signal = signal;
    this.#resolve = resolve;
    this.#reject = reject;
  }

  listen(signal: AbortSignal): void {
    if (this.#settled) return;
    this.#onAbort = () => {
      this.#leave();
      if (this.call !== undefined) this.#calls.cancel(this.call);
      this.#reject(signal.reason);
    };
    signal.addEventListener("abort", this.#onAbort);
  }

  onResponse(payload: Uint8Array): void {
    this.#leave();
    this.#resolve(payload);
  }

  onFailure(error: TransportError): void {
    this.#leave();
    this.#reject(error);
  }

  #leave(): void {
    this.#settled = true;
    if (this.#onAbort !== undefined) this.#signal?.removeEventListener("abort", this.#onAbort);
  }
}

function checkPayload({ nodeId, maxMessageSize }: RequestHost, payload: unknown): void {
  if (!(payload instanceof Uint8Array)) {
    throw new TypeError("Cannot make a request: the payload is not a Uint8Array");
  }
  const size = payload.length;
  if (size <= maxMessageSize) return;
  const text = `Cannot make a request: it has ${size} bytes, ${nodeId} takes ${maxMessageSize}`;
  throw new MessageTooLargeError(text, size, maxMessageSize, { peer: nodeId });
}

function laneOf(name: LaneName = "normal"): Lane {
  const lane = LANE_NAMES.indexOf(name);
  if (lane === 0 || lane === 1 || lane === 2) return lane;
  throw new TypeError(`Cannot make a request: lane must be one of ${LANE_NAMES.join(", ")}`);
}

function checkTimeout(timeoutMs: number): number {
  if (typeof timeoutMs === "number" && timeoutMs > 0) return timeoutMs;
  throw new RangeError(`Cannot make a request: timeoutMs must be above 0, got ${timeoutMs}`);
}

// --- serving requests ---

/** A request of another node. */
export interface TransportRequest<T = Uint8Array> {
  /** The node id of the requester, as verified by the security mode. */
  readonly from: string;
  /** What was sent. Bytes may share a larger buffer: copy them if you keep few of many. */
  readonly payload: T;
  /** Its topic. */
  readonly topic: string | undefined;
  /** The lane that it came in and its answer goes out in. */
  readonly lane: LaneName;
  /**
   * Fires when an answer is not wanted any more. Its reason is a `TransportError`: "RemoteError" if
   * the requester gave up, "Timeout" at the deadline, "ConnectionClosed" at the session's end.
   */
  readonly signal: AbortSignal;
  /** When the requester stops waiting, milliseconds since the epoch; undefined: never. */
  readonly deadline: number | undefined;
}

/**
 * Answers a request. Bytes that are returned must not be changed any more. What is thrown is told
 * to the requester as "HANDLER_FAILED" without its text, but for a {@linkcode HandlerError}.
 */
export type RequestHandler<T = Uint8Array> = (request: TransportRequest<T>) => T | Promise<T>;

/** How a handler is run. */
export interface HandleOptions {
  /**
   * How many of its requests run at once, of all nodes together; more are refused with
   * "TOO_MANY_REQUESTS". One runs until its handler has settled, even if it was cancelled.
   *
   * @default Infinity
   */
  concurrency?: number;
  /**
   * How many of them run at once of one node. The endpoint's own bound of a node's requests holds
   * besides.
   *
   * @default Infinity
   */
  concurrencyPerPeer?: number;
}

/** Thrown by a handler to choose what the other side is told: code and message of its `RemoteError`. */
export class HandlerError extends Error {
  /** The class, for logs. */
  override readonly name: string = "HandlerError";
  /** What the other side gets as `remoteCode`. */
  readonly code: string;

  /**
   * Makes the error.
   *
   * @param code 1 to 64 characters of printable ASCII without spaces.
   * @param message For people; the other side gets it, cut to 1024 characters.
   * @throws {RangeError} If `code` is anything else.
   */
  constructor(code: string, message: string, options?: ErrorOptions) {
    super(message, options);
    if (!isCode(code)) {
      throw new RangeError("Cannot make a HandlerError: a code is 1 to 64 printable ASCII");
    }
    this.code = code;
  }
}

/** What the other side is told of something thrown: nothing of our insides. */
export function failureOf(error: unknown): { readonly code: string; readonly message: string } {
  if (error instanceof HandlerError) return { code: error.code, message: error.message };
  return { code: "HANDLER_FAILED", message: "the handler failed" };
}

/** How a warning names a handler: `the request handler of "get"`. */
export function handlerName(kind: "request" | "stream", topic: string | undefined): string {
  return `the ${kind} handler ${topic === undefined ? "without a topic" : `of ${quote(topic)}`}`;
}

interface Registration {
  readonly handler: RequestHandler;
  readonly concurrency: number;
  readonly concurrencyPerPeer: number;
  running: number;
}

/** The handlers of an endpoint, by topic. */
export class Handlers {
  readonly #byTopic = new Map<string | undefined, Registration>();

  /**
   * Serves a topic, in the place of who did so before; undefined serves requests without a topic.
   * Returns a function that ends it.
   *
   * @throws {TypeError} If `handler` is no function or the topic is no string.
   * @throws {RangeError} If the topic does not have 1 to 255 bytes or is not well-formed, or a bound
   * is not at least 1.
   */
  handle(
    topic: string | undefined,
    handler: RequestHandler,
    { concurrency = Infinity, concurrencyPerPeer = Infinity }: HandleOptions = {},
  ): () => void {
    if (topic !== undefined) encodeTopic(topic);
    if (typeof handler !== "function") {
      throw new TypeError("Cannot handle requests: the handler is not a function");
    }
    checkBound("concurrency", concurrency);
    checkBound("concurrencyPerPeer", concurrencyPerPeer);
    const registration = { handler, concurrency, concurrencyPerPeer, running: 0 };
    this.#byTopic.set(topic, registration);
    return () => {
      if (this.#byTopic.get(topic) === registration) this.#byTopic.delete(topic);
    };
  }

  /** The bound of one node's requests with this topic; undefined: none. */
  limitOf(topic: string | undefined): number | undefined {
    return this.#byTopic.get(topic)?.concurrencyPerPeer;
  }

  /** Who serves a topic. */
  get(topic: string | undefined): Registration | undefined {
    return this.#byTopic.get(topic);
  }
}

/** What serving requests needs of a peer. */
export interface ServerHost {
  readonly nodeId: string;
  /** The largest answer the peer takes, bytes. */
  readonly maxMessageSize: number;
  /** The monotonic clock, milliseconds. */
  now(): number;
  /** The wall clock, milliseconds since the epoch. */
  epochNow(): number;
  /** A handler threw, rejected, or gave what can't be sent; `what` names it. */
  onHandlerError(error: unknown, what: string): void;
  /** A request was refused: too many are running. */
  onRefused(): void;
  /** The peer may be given requests again. */
  onRelieved(): void;
}

/** Runs handlers for the requests of one peer. */
export class RequestServer implements ServedSink {
  readonly #handlers: Handlers;
  readonly #host: ServerHost;

  /** Serves a peer. */
  constructor(handlers: Handlers, host: ServerHost) {
    this.#handlers = handlers;
    this.#host = host;
  }

  /** @ignore */
  onRequest(served: ServedRequest): void {
    const registration = this.#handlers.get(served.topic);
    if (registration === undefined) {
      served.fail("NO_HANDLER", "nobody handles requests of this topic");
    } else if (registration.running >= registration.concurrency) {
      served.fail("TOO_MANY_REQUESTS", "too many requests of this topic are running");
      this.#host.onRefused();
    } else {
      this.#run(served, registration);
    }
  }

  /** @ignore */
  onCancelled(served: ServedRequest, reason: CancelReason): void {
    const { nodeId } = this.#host;
    (served.context as Handled | undefined)?.abort(() => cancelError(nodeId, reason));
  }

  /** @ignore */
  onRefused(): void {
    this.#host.onRefused();
  }

  /** @ignore */
  onRelieved(): void {
    this.#host.onRelieved();
  }

  #run(served: ServedRequest, registration: Registration): void {
    const { nodeId } = this.#host;
    const handled = new Handled(nodeId, served, this.#epochDeadline(served), registration);
    served.context = handled;
    registration.running++;
    let value: unknown;
    try {
      value = registration.handler(handled.request);
    } catch (error) {
      return this.#failed(handled, error);
    }
    // Who answers at once needs no promise, and nothing for its outcomes.
    if (value instanceof Uint8Array) return this.#answered(handled, value);
    const later = value instanceof Promise ? value : Promise.resolve(value);
    later.then(
      (value) => this.#answered(handled, value),
      (error) => this.#failed(handled, error),
    );
  }

  #answered(handled: Handled, value: unknown): void {
    this.#settle(handled);
    this.#respond(handled.served, value);
  }

  #failed(handled: Handled, error: unknown): void {
    this.#settle(handled);
    this.#fail(handled.served, error);
  }

  #settle({ served, registration }: Handled): void {
    served.context = undefined;
    registration.running--;
  }

  #epochDeadline({ deadline }: ServedRequest): number | undefined {
    if (deadline === undefined) return undefined;
    return this.#host.epochNow() + deadline - this.#host.now();
  }

  #respond(served: ServedRequest, value: unknown): void {
    if (!(value instanceof Uint8Array)) {
      const error = new TypeError("Cannot answer: the handler did not return a Uint8Array");
      return this.#fail(served, error);
    }
    const { nodeId: peer, maxMessageSize } = this.#host;
    if (value.length > maxMessageSize) {
      const { length } = value;
      const text =
        `Cannot answer: the response has ${length} bytes, ${peer} takes ${maxMessageSize}`;
      return this.#fail(served, new MessageTooLargeError(text, length, maxMessageSize, { peer }));
    }
    served.respond(value);
  }

  #fail(served: ServedRequest, error: unknown): void {
    const { code, message } = failureOf(error);
    const told = served.fail(code, message);
    // Whoever was told to stop may stop by throwing; a HandlerError is an answer.
    if (!told || error instanceof HandlerError) return;
    this.#host.onHandlerError(error, handlerName("request", served.topic));
  }
}

/** Where the request that a handler sees has what belongs to it. */
const HANDLED: unique symbol = Symbol("handled");

/** A request that a handler has. The signal is made when somebody asks for it. */
class Handled {
  /** What the handler sees; a plain object, so that it can be copied with another payload. */
  readonly request: TransportRequest;
  readonly served: ServedRequest;
  readonly registration: Registration;
  #controller: AbortController | undefined;
  #reason: (() => TransportError) | undefined;

  constructor(
    from: string,
    served: ServedRequest,
    deadline: number | undefined,
    registration: Registration,
  ) {
    this.served = served;
    this.registration = registration;
    const request = {
      from,
      payload: served.payload,
      topic: served.topic,
      lane: LANE_NAMES[served.lane]!,
      deadline,
      [HANDLED]: this,
    };
    this.request = Object.defineProperty(request, "signal", SIGNAL) as
      & typeof request
      & Pick<TransportRequest, "signal">;
  }

  get signal(): AbortSignal {
    if (this.#controller === undefined) {
      this.#controller = new AbortController();
      if (this.#reason !== undefined) this.#controller.abort(this.#reason());
    }
    return this.#controller.signal;
  }

  abort(reason: () => TransportError): void {
    this.#reason = reason;
    this.#controller?.abort(reason());
  }
}

/**
 * One getter for all requests, as a property of each: an object literal with a getter makes a
 * function and a shape for every request, 0.6 us more on Deno and Node.
 */
const SIGNAL: PropertyDescriptor = {
  get(this: { readonly [HANDLED]: Handled }): AbortSignal {
    return this[HANDLED].signal;
  },
  enumerable: true,
  configurable: true,
};

function cancelError(peer: string, reason: CancelReason): TransportError {
  switch (reason) {
    case "cancelled": {
      const text = `Cannot answer the request: ${peer} gave it up`;
      return new RemoteError(text, "CANCELLED", "", { peer });
    }
    case "deadline": {
      const text = "Cannot answer the request: its deadline has passed";
      return new TransportError("Timeout", text, { peer, retryable: false });
    }
    case "ended": {
      const text = `Cannot answer the request: the session with ${peer} ended`;
      return new TransportError("ConnectionClosed", text, { peer, retryable: false });
    }
  }
}

function checkBound(name: string, value: number): void {
  if (value === Infinity || (Number.isSafeInteger(value) && value >= 1)) return;
  throw new RangeError(`Cannot handle requests: ${name} must be an integer of at least 1`);
}
