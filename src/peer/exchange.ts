/**
 * Requests and streams with one peer: joins their tables to the session, and to the handlers of
 * the endpoint.
 *
 * @module
 */

import { MessageTooLargeError, TransportError } from "../errors.ts";
import type { Negotiated } from "../protocol/handshake.ts";
import type { Backlog } from "../protocol/v3/backlog.ts";
import { Calls, type Unconnected } from "../protocol/v3/calls.ts";
import type { OutMessage, SessionPort } from "../protocol/v3/out_message.ts";
import { readCodeMessage, readU32, toId } from "../protocol/v3/payloads.ts";
import type { Received } from "../protocol/v3/receive_lane.ts";
import { Served } from "../protocol/v3/served.ts";
import type { Session } from "../protocol/v3/session.ts";
import { StreamTable } from "../protocol/v3/streams.ts";
import { KIND, type Lane } from "../protocol/v3/types.ts";
import { encodeTopic } from "../protocol/v3/topic.ts";
import { type Handlers, request, type RequestOptions, RequestServer } from "./requests.ts";
import type { StreamHandlers } from "./stream_handlers.ts";
import { TransportStream } from "./web_stream.ts";

/** What requests and streams need of the endpoint. */
export interface ExchangeHost {
  readonly handlers: Handlers;
  readonly streamHandlers: StreamHandlers;
  readonly maxMessageSize: number;
  readonly maxRequests: number;
  readonly maxStreams: number;
  readonly requestTimeoutMs: number;
  /** The wall clock, milliseconds since the epoch. */
  wallClock(): number;
  /** A callback of the application failed; `what` names it. */
  onHandlerError(nodeId: string, error: unknown, what: string): void;
  /** A request or a stream of a peer was refused: too many. */
  onRefused(nodeId: string): void;
}

/** What they need of the peer. */
export interface ExchangeLink {
  now(): number;
  session(): Session | undefined;
  /** Why there is no connection; undefined where there is one. */
  unconnected(): Unconnected | undefined;
  /** Deadlines may have come nearer. */
  onTimer(): void;
  /** There is room among what waits to be sent. */
  onFreed(): void;
}

/** Requests and streams with one peer. */
export class Exchange implements SessionPort {
  readonly #nodeId: string;
  readonly #backlog: Backlog;
  readonly #host: ExchangeHost;
  readonly #link: ExchangeLink;
  readonly #calls: Calls;
  readonly #served: Served;
  readonly #streams: StreamTable;
  #maxMessageSize: number;
  #streamsAgreed = false;

  /** Makes empty tables. */
  constructor(nodeId: string, backlog: Backlog, host: ExchangeHost, link: ExchangeLink) {
    this.#nodeId = nodeId;
    this.#backlog = backlog;
    this.#host = host;
    this.#link = link;
    this.#maxMessageSize = host.maxMessageSize;
    const agreedSize = () => this.#maxMessageSize;
    const onHandlerError = (error: unknown, what: string) =>
      host.onHandlerError(nodeId, error, what);
    this.#calls = new Calls(this, {
      peer: nodeId,
      onSooner: () => link.onTimer(),
      unconnected: () => link.unconnected(),
    });
    const server = new RequestServer(host.handlers, {
      nodeId,
      get maxMessageSize() {
        return agreedSize();
      },
      now: () => link.now(),
      epochNow: () => host.wallClock(),
      onHandlerError,
      onRefused: () => host.onRefused(nodeId),
      onRelieved() {},
    });
    this.#served = new Served(this, {
      peer: nodeId,
      maxRequests: host.maxRequests,
      limitOf: (topic) => host.handlers.limitOf(topic),
    }, server);
    this.#streams = new StreamTable(
      this,
      host.maxStreams,
      { peer: nodeId, maxStreams: host.maxStreams },
      {
        onStream: (core) => host.streamHandlers.dispatch(core, { nodeId, onHandlerError }),
        onRefused: () => host.onRefused(nodeId),
      },
    );
  }

  /** Requests of ours that are under way. */
  get openRequests(): number {
    return this.#calls.open;
  }

  /** Requests of the peer that run here. */
  get runningRequests(): number {
    return this.#served.running;
  }

  /** Streams that are open, either way. */
  get openStreams(): number {
    return this.#streams.ours + this.#streams.theirs;
  }

  // --- what the application asks ---

  /** Makes a request. */
  request(payload: Uint8Array, options: RequestOptions): Promise<Uint8Array> {
    return request(this, payload, options);
  }

  /** @ignore */
  get nodeId(): string {
    return this.#nodeId;
  }

  /** @ignore */
  get calls(): Calls {
    return this.#calls;
  }

  /** @ignore */
  get maxMessageSize(): number {
    return this.#maxMessageSize;
  }

  /** @ignore */
  get requestTimeoutMs(): number {
    return this.#host.requestTimeoutMs;
  }

  /** Opens a stream. */
  openStream(lane: Lane, topic: string | undefined, payload: Uint8Array): TransportStream {
    if (this.#link.session() !== undefined && !this.#streamsAgreed) throw this.#noStreams();
    const { length } = payload;
    if (length > this.#maxMessageSize) {
      const most = this.#maxMessageSize;
      const peer = this.#nodeId;
      const text = `Cannot open a stream: it begins with ${length} bytes, ${peer} takes ${most}`;
      throw new MessageTooLargeError(text, length, most, { peer });
    }
    const bytes = topic === undefined ? undefined : encodeTopic(topic);
    const core = this.#streams.open(lane, topic, bytes, new Uint8Array(payload));
    return new TransportStream(this.#nodeId, core);
  }

  // --- what the session tells ---

  /** A session begins. */
  begin(session: Session, negotiated: Negotiated): void {
    this.#maxMessageSize = session.maxPayload;
    this.#streamsAgreed = negotiated.capabilities.has("streams");
    session.streams = this.#streams;
    this.#calls.begin(this);
    this.#served.begin(this);
    this.#streams.begin(this, negotiated.maxStreams, session.maxPayload);
    if (!this.#streamsAgreed) this.#streams.refuseOpening(this.#noStreams());
  }

  /** The session has ended. */
  end(error: TransportError): void {
    this.#calls.end(error);
    this.#served.end();
    this.#streams.end(error);
  }

  /** The peer is given up. */
  fail(error: TransportError): void {
    this.#calls.fail(error);
    this.#served.end();
    this.#streams.end(error);
  }

  /** Throws where a request or a stream must not be taken: the peer does not take our answers. */
  checkLoad(kind: number): void {
    const peer = this.#nodeId;
    if (kind === KIND.streamOpen && !this.#streamsAgreed) {
      const text = "Cannot read a frame: streams were not negotiated";
      throw new TransportError("InvalidFrame", text, { peer });
    }
    const table = kind === KIND.request ? this.#served : this.#streams;
    if (!table.overloaded) return;
    const text = `Cannot go on with the connection: ${peer} asks and takes no answers`;
    throw new TransportError("Backpressure", text, { peer });
  }

  /** A request, a response or a frame of a stream. */
  handle(received: Received, now: number): void {
    const { lane, id, topic, payload, refHigh, refLow } = received;
    switch (received.kind) {
      case KIND.request:
        this.#served.handleRequest(lane, id, topic, payload, received.msLeft, now);
        return this.#link.onTimer();
      case KIND.response:
        return this.#calls.handleResponse(lane, toId(refHigh, refLow), payload);
      case KIND.error: {
        const { code, message } = readCodeMessage(payload);
        return this.#calls.handleError(lane, toId(refHigh, refLow), code, message);
      }
      case KIND.cancel:
        return this.#served.handleCancel(lane, toId(refHigh, refLow));
      case KIND.streamOpen:
        return this.#streams.handleOpen(lane, id, topic, payload);
      case KIND.streamData:
        return this.#streams.handleData(lane, refHigh, refLow, payload);
      case KIND.streamEnd:
        return this.#streams.handleEnd(lane, refHigh, refLow);
      case KIND.streamReset: {
        const { code, message } = readCodeMessage(payload);
        return this.#streams.handleReset(lane, refHigh, refLow, code, message);
      }
      case KIND.streamWindow:
        return this.#streams.handleWindow(lane, refHigh, refLow, readU32(payload, 0));
    }
  }

  /** The earliest time at which `handleTimeout` has something to do. */
  nextTimeout(): number {
    return Math.min(this.#calls.nextTimeout() ?? Infinity, this.#served.nextTimeout() ?? Infinity);
  }

  /** Time has passed. */
  handleTimeout(now: number): void {
    this.#calls.handleTimeout(now);
    this.#served.handleTimeout(now);
  }

  #noStreams(): TransportError {
    const peer = this.#nodeId;
    const text = `Cannot open a stream to ${peer}: it has none`;
    return new TransportError("UnsupportedProtocol", text, { peer });
  }

  // --- what the tables ask ---

  /** @ignore */
  get now(): number {
    return this.#link.now();
  }

  /** @ignore */
  enqueue(message: OutMessage): void {
    const session = this.#link.session();
    const now = this.#link.now();
    if (session?.sendMessage(message, now)) return;
    this.#backlog.push(message);
    session?.pump(now);
  }

  /** @ignore */
  withdraw(message: OutMessage): boolean {
    if (!this.#backlog.holds(message)) return false;
    this.#backlog.withdraw(message);
    this.#link.onFreed();
    return true;
  }

  /** @ignore */
  wake(): void {
    this.#link.session()?.pump(this.#link.now());
  }
}
