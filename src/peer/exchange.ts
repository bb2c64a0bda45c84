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
import {
  type Handlers,
  request,
  type RequestOptions,
  RequestServer,
  type ServerHost,
} from "./requests.ts";
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
  // Most peers never ask: a table is made when it is first needed.
  #calls: Calls | undefined;
  #served: Served | undefined;
  #streams: StreamTable | undefined;
  /** The session that has begun. */
  #session: Session | undefined;
  #maxMessageSize: number;
  #peerMaxStreams: number;
  #streamsAgreed = false;

  /** Without anything under way. */
  constructor(nodeId: string, backlog: Backlog, host: ExchangeHost, link: ExchangeLink) {
    this.#nodeId = nodeId;
    this.#backlog = backlog;
    this.#host = host;
    this.#link = link;
    this.#maxMessageSize = host.maxMessageSize;
    this.#peerMaxStreams = host.maxStreams;
  }

  /** Requests of ours that are under way. */
  get openRequests(): number {
    return this.#calls?.open ?? 0;
  }

  /** Requests of the peer that run here. */
  get runningRequests(): number {
    return this.#served?.running ?? 0;
  }

  /** Streams that are open, either way. */
  get openStreams(): number {
    const streams = this.#streams;
    return streams === undefined ? 0 : streams.ours + streams.theirs;
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
    return this.#calls ??= this.#newCalls();
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
    const core = this.#streamTable.open(lane, topic, bytes, new Uint8Array(payload));
    return new TransportStream(this.#nodeId, core);
  }

  // --- what the session tells ---

  /** A session begins. */
  begin(session: Session, negotiated: Negotiated): void {
    this.#session = session;
    this.#maxMessageSize = session.maxPayload;
    this.#peerMaxStreams = negotiated.maxStreams;
    this.#streamsAgreed = negotiated.capabilities.has("streams");
    this.#calls?.begin(this);
    this.#served?.begin(this);
    if (this.#streams === undefined) return;
    this.#beginStreams(this.#streams, session);
    if (!this.#streamsAgreed) this.#streams.refuseOpening(this.#noStreams());
  }

  #beginStreams(streams: StreamTable, session: Session): void {
    session.streams = streams;
    streams.begin(this, this.#peerMaxStreams, session.maxPayload);
  }

  /** The session has ended. */
  end(error: TransportError): void {
    this.#session = undefined;
    this.#calls?.end(error);
    this.#served?.end();
    this.#streams?.end(error);
  }

  /** The peer is given up. */
  fail(error: TransportError): void {
    this.#calls?.fail(error);
    this.#served?.end();
    this.#streams?.end(error);
  }

  /** Throws where a request or a stream must not be taken: the peer does not take our answers. */
  checkLoad(kind: number): void {
    const peer = this.#nodeId;
    if (kind === KIND.streamOpen && !this.#streamsAgreed) {
      const text = "Cannot read a frame: streams were not negotiated";
      throw new TransportError("InvalidFrame", text, { peer });
    }
    const overloaded = kind === KIND.request ? this.#served?.overloaded : this.#streams?.overloaded;
    if (overloaded !== true) return;
    const text = `Cannot go on with the connection: ${peer} asks and takes no answers`;
    throw new TransportError("Backpressure", text, { peer });
  }

  /** A request, a response or a frame of a stream. */
  handle(received: Received, now: number): void {
    const { lane, id, topic, payload, refHigh, refLow } = received;
    switch (received.kind) {
      case KIND.request:
        this.#server.handleRequest(lane, id, topic, payload, received.msLeft, now);
        return this.#link.onTimer();
      case KIND.response:
        return this.calls.handleResponse(lane, toId(refHigh, refLow), payload);
      case KIND.error: {
        const { code, message } = readCodeMessage(payload);
        return this.calls.handleError(lane, toId(refHigh, refLow), code, message);
      }
      case KIND.cancel:
        return this.#server.handleCancel(lane, toId(refHigh, refLow));
      case KIND.streamOpen:
        return this.#streamTable.handleOpen(lane, id, topic, payload);
      case KIND.streamData:
        return this.#streamTable.handleData(lane, refHigh, refLow, payload);
      case KIND.streamEnd:
        return this.#streamTable.handleEnd(lane, refHigh, refLow);
      case KIND.streamReset: {
        const { code, message } = readCodeMessage(payload);
        return this.#streamTable.handleReset(lane, refHigh, refLow, code, message);
      }
      case KIND.streamWindow:
        return this.#streamTable.handleWindow(lane, refHigh, refLow, readU32(payload, 0));
    }
  }

  /** The earliest time at which `handleTimeout` has something to do. */
  nextTimeout(): number {
    const calls = this.#calls?.nextTimeout() ?? Infinity;
    return Math.min(calls, this.#served?.nextTimeout() ?? Infinity);
  }

  /** Time has passed. */
  handleTimeout(now: number): void {
    this.#calls?.handleTimeout(now);
    this.#served?.handleTimeout(now);
  }

  get #server(): Served {
    return this.#served ??= this.#newServed();
  }

  get #streamTable(): StreamTable {
    return this.#streams ??= this.#newStreams();
  }

  #newCalls(): Calls {
    const link = this.#link;
    return new Calls(this, {
      peer: this.#nodeId,
      onSooner: () => link.onTimer(),
      unconnected: () => link.unconnected(),
    });
  }

  #newServed(): Served {
    const { handlers, maxRequests } = this.#host;
    const server = new RequestServer(handlers, new Serving(this, this.#host, this.#link));
    const limitOf = (topic: string | undefined) => handlers.limitOf(topic);
    return new Served(this, { peer: this.#nodeId, maxRequests, limitOf }, server);
  }

  #newStreams(): StreamTable {
    const host = this.#host;
    const nodeId = this.#nodeId;
    const { maxStreams } = host;
    const onHandlerError = (error: unknown, what: string) =>
      host.onHandlerError(nodeId, error, what);
    const streams = new StreamTable(this, this.#peerMaxStreams, { peer: nodeId, maxStreams }, {
      onStream: (core) => host.streamHandlers.dispatch(core, { nodeId, onHandlerError }),
      onRefused: () => host.onRefused(nodeId),
    });
    if (this.#session !== undefined) this.#beginStreams(streams, this.#session);
    return streams;
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

/** What serving the requests of one peer needs of everything around it. */
class Serving implements ServerHost {
  readonly nodeId: string;
  readonly #exchange: Exchange;
  readonly #host: ExchangeHost;
  readonly #link: ExchangeLink;

  constructor(exchange: Exchange, host: ExchangeHost, link: ExchangeLink) {
    this.nodeId = exchange.nodeId;
    this.#exchange = exchange;
    this.#host = host;
    this.#link = link;
  }

  get maxMessageSize(): number {
    return this.#exchange.maxMessageSize;
  }

  now(): number {
    return this.#link.now();
  }

  epochNow(): number {
    return this.#host.wallClock();
  }

  onHandlerError(error: unknown, what: string): void {
    this.#host.onHandlerError(this.nodeId, error, what);
  }

  onRefused(): void {
    this.#host.onRefused(this.nodeId);
  }

  onRelieved(): void {}
}
