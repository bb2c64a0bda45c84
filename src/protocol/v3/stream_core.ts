/**
 * One stream, without promises: what its application and its peer have told it.
 *
 * @module
 */

import { TransportError } from "../../errors.ts";
import { quote } from "../text.ts";
import {
  encodeFailure,
  encodeId,
  NO_BYTES,
  ReadyMessage,
  remoteError,
  writeU32,
} from "./call_messages.ts";
import type { OutMessage, StreamPath, StreamRoute } from "./out_message.ts";
import { ReceiveHalf, SendHalf } from "./stream_halves.ts";
import { Turn } from "./stream_turns.ts";
import { KIND, type Lane, PEER_BIT } from "./types.ts";

const ID_BYTES = 8;
const GRANT_BYTES = 4;

/** The application's side of a stream. Called while the stream handles something: do not throw. */
export interface StreamSink {
  /** There are bytes to read, or the end has come. Not told again before everything was read. */
  onReadable(): void;
  /** `write` takes more, after it did not take everything. */
  onWritable(): void;
  /** The end has been sent, and everything before it. */
  onEndSent(): void;
  /** Both directions are over: a reset by either side, or the end of the session. Comes last. */
  onFailed(error: TransportError): void;
}

/** What a stream needs of the table around it. */
export interface StreamHost {
  /** The peer's node id, for errors. */
  readonly peer: string;
  /** What it has to send may have changed. */
  changed(stream: StreamCore): void;
  /** Nothing will come or go any more. */
  closed(stream: StreamCore): void;
  /** The application is done with it. */
  released(stream: StreamCore): void;
  /** Takes the open of a stream of ours back. False: it is on its way. */
  withdraw(stream: StreamCore): boolean;
}

/** How a stream came to be. */
export interface StreamOrigin {
  readonly lane: Lane;
  readonly topic: string | undefined;
  /** The bytes that came with the open. */
  readonly payload: Uint8Array;
  /** Whether we opened it. */
  readonly ours: boolean;
}

/** A stream. */
export class StreamCore implements StreamPath {
  /** Its lane. */
  readonly lane: Lane;
  /** Its topic. */
  readonly topic: string | undefined;
  /** The bytes that came with the open. */
  readonly payload: Uint8Array;
  /** Whether we opened it. */
  readonly ours: boolean;
  /** Its place among those that have bytes to send. Only the table uses it, as the three below. */
  readonly dataTurn: Turn<StreamCore> = new Turn<StreamCore>(this);
  /** Its place among those that have something short to send. */
  readonly urgentTurn: Turn<StreamCore> = new Turn<StreamCore>(this);
  /** Whether it was refused when it was opened. */
  refused = false;
  /** The session it belongs to. */
  session = 0;
  /** The number of its last frame. Only the session that writes it uses this, as the two below. */
  lastId = 0;
  /** Where that went. */
  lastRoute: StreamRoute | undefined;
  readonly #host: StreamHost;
  readonly #in = new ReceiveHalf();
  readonly #out = new SendHalf();
  readonly #tellReadable = (): void => this.#sink?.onReadable();
  #sink: StreamSink | undefined;
  #id: number | undefined;
  #prefix: Uint8Array = NO_BYTES;
  #error: TransportError | undefined;
  /** The payload of a reset that has not been sent. */
  #reset: Uint8Array | undefined;
  #closed = false;
  #released = false;
  #routes: StreamRoute[] = [];

  /** Makes a stream; only the table does. `id` is undefined until the open has been written. */
  constructor(host: StreamHost, origin: StreamOrigin, id: number | undefined) {
    this.#host = host;
    this.lane = origin.lane;
    this.topic = origin.topic;
    this.payload = origin.payload;
    this.ours = origin.ours;
    if (id !== undefined) this.#setId(id);
  }

  // --- the application ---

  /** Who is told. What has come before is not told again: read at once. */
  attach(sink: StreamSink): void {
    this.#sink = sink;
  }

  /** Why it failed; undefined if it did not. */
  get error(): TransportError | undefined {
    return this.#error;
  }

  /** Whether the end has come and everything before it was read. */
  get drained(): boolean {
    return this.#in.drained;
  }

  /** Bytes that wait to be read. */
  get unread(): number {
    return this.#in.unread;
  }

  /** The next bytes; none if nothing waits. They may be a view of what was received. */
  read(): Uint8Array {
    const bytes = this.#in.read();
    if (this.#in.owesGrant && this.#error === undefined) this.#host.changed(this);
    return bytes;
  }

  /**
   * Takes as many bytes as the window has room for, and copies them; `onWritable` tells when it
   * takes more.
   *
   * @returns How many were taken; 0 after `end` and after a failure.
   */
  write(bytes: Uint8Array): number {
    const taken = this.#out.write(bytes);
    if (taken > 0) this.#host.changed(this);
    return taken;
  }

  /** Nothing more is written: the peer reads its end after everything before it. */
  end(): void {
    if (this.#out.closed) return;
    this.#out.close();
    this.#host.changed(this);
  }

  /** Gives both directions up and tells the peer why. Nothing happens if it is over already. */
  reset(code: string, message: string): void {
    const text = `Cannot use the stream: it was reset here, ${quote(code)}`;
    this.resetWith(code, message, this.#fault("ConnectionClosed", text));
  }

  /** The application is done with it: its place is free once it is closed, too. */
  release(): void {
    if (this.#released) return;
    this.#released = true;
    this.#host.released(this);
  }

  // --- the session ---

  /** The sub-stream that its frames may go on: that of the last one, where it still may. */
  get route(): StreamRoute | undefined {
    if (this.lastRoute?.usable) return this.lastRoute;
    return this.#routes.find(({ usable }) => usable);
  }

  /** It has one more sub-stream. */
  addRoute(route: StreamRoute): void {
    if (this.#closed) return route.finish();
    this.#routes = this.#routes.filter(({ usable }) => usable);
    this.#routes.push(route);
    route.onChange = () => this.#host.changed(this);
  }

  // --- the table ---

  /** Whether its next frame goes on a sub-stream for certain. */
  get routed(): boolean {
    return this.lastRoute !== undefined && this.lastRoute.usable;
  }

  /** Whether its next frame must wait for its sub-stream. */
  get stalled(): boolean {
    return this.routed && !this.lastRoute!.writable;
  }

  /** Its number; undefined until the open has been written. */
  get id(): number | undefined {
    return this.#id;
  }

  /** Whether nothing will come or go any more. */
  get closed(): boolean {
    return this.#closed;
  }

  /** Whether the application is done with it. */
  get isReleased(): boolean {
    return this.#released;
  }

  /** Whether there is something short to send that goes before bytes. */
  get urgent(): boolean {
    if (this.#closed || this.#id === undefined) return false;
    return this.#error === undefined ? this.#in.owesGrant : this.#reset !== undefined;
  }

  /** Whether there are bytes or an end to send. */
  get sendable(): boolean {
    return !this.#closed && this.#id !== undefined && this.#error === undefined && this.#out.ready;
  }

  /** The open of a stream of ours has been written. */
  numbered(id: number): void {
    this.#setId(id);
    this.#host.changed(this);
  }

  /** The short frame it owes: `urgent` is true. */
  nextUrgent(): OutMessage {
    const reset = this.#reset;
    if (reset !== undefined) {
      this.#reset = undefined;
      this.#close();
      return this.#message(KIND.streamReset, reset);
    }
    const prefix = new Uint8Array(ID_BYTES + GRANT_BYTES);
    prefix.set(this.#prefix);
    writeU32(prefix, ID_BYTES, this.#in.takeGrant());
    return new ReadyMessage(KIND.streamWindow, this.lane, prefix, NO_BYTES, undefined, this);
  }

  /** The next frame with `most` bytes at most, or the end: `sendable` is true. */
  nextData(most: number): OutMessage {
    if (!this.#out.hasBytes) return this.#nextEnd();
    const message = this.#message(KIND.streamData, this.#out.take(most));
    if (this.#out.takeRelief()) this.#sink?.onWritable();
    return message;
  }

  /**
   * Bytes have come.
   *
   * @throws {TransportError} "InvalidFrame" if the end has come before.
   */
  handleData(bytes: Uint8Array): void {
    if (this.#error !== undefined) return;
    if (this.#in.ended) throw this.#afterEnd();
    if (this.#in.accept(bytes, this.#tellReadable)) return;
    const text = `Cannot read the stream: ${this.#host.peer} sent more than its window`;
    this.resetWith(
      "FLOW_CONTROL",
      "more than the window was sent",
      this.#fault("InvalidFrame", text),
    );
  }

  /**
   * The peer sends nothing more.
   *
   * @throws {TransportError} "InvalidFrame" if the end has come before.
   */
  handleEnd(): void {
    if (this.#error !== undefined) return;
    if (this.#in.ended) throw this.#afterEnd();
    this.#in.end();
    this.#host.changed(this);
    if (this.#in.unread === 0) this.#sink?.onReadable();
    this.#closeIfDone();
  }

  /** The peer gives both directions up. */
  handleReset(code: string, message: string): void {
    this.#reset = undefined;
    if (this.#error !== undefined) return this.#close();
    this.fail(remoteError("use the stream", this.#host.peer, code, message));
  }

  /** The peer allows further bytes. */
  handleWindow(bytes: number): void {
    if (this.#error !== undefined) return;
    this.#out.grant(bytes);
    if (this.#out.takeRelief()) this.#sink?.onWritable();
  }

  /** Both directions are over, and the peer need not be told. */
  fail(error: TransportError): void {
    this.#reset = undefined;
    const tell = this.#error === undefined;
    if (tell) this.#abandon(error);
    this.#close();
    if (tell) this.#sink?.onFailed(error);
  }

  /** As `reset`, with the error that our side gets. */
  resetWith(code: string, message: string, error: TransportError): void {
    if (this.#closed || this.#error !== undefined) return;
    this.#abandon(error);
    if (this.#id === undefined && this.#host.withdraw(this)) {
      this.#close();
    } else {
      this.#reset = encodeFailure(code, message);
      this.#host.changed(this);
    }
    this.#sink?.onFailed(error);
  }

  #abandon(error: TransportError): void {
    this.#error = error;
    this.#in.clear();
    this.#out.clear();
    this.#host.changed(this);
  }

  #nextEnd(): OutMessage {
    this.#out.end();
    const message = this.#message(KIND.streamEnd, NO_BYTES);
    this.#sink?.onEndSent();
    this.#closeIfDone();
    return message;
  }

  #closeIfDone(): void {
    if (this.#error === undefined && this.#in.ended && this.#out.ended) this.#close();
  }

  #close(): void {
    if (this.#closed) return;
    this.#closed = true;
    for (const route of this.#routes) route.finish();
    this.#routes = [];
    this.#host.closed(this);
  }

  #message(kind: typeof KIND[keyof typeof KIND], payload: Uint8Array): OutMessage {
    return new ReadyMessage(kind, this.lane, this.#prefix, payload, undefined, this);
  }

  /** Whoever did not open a stream marks its id. */
  #setId(id: number): void {
    this.#id = id;
    this.#prefix = encodeId(id, this.ours ? 0 : PEER_BIT);
  }

  #fault(code: "ConnectionClosed" | "InvalidFrame", text: string): TransportError {
    return new TransportError(code, text, { peer: this.#host.peer, retryable: false });
  }

  #afterEnd(): TransportError {
    return this.#fault("InvalidFrame", "Cannot read a frame: its stream has ended before");
  }
}
