/** Two nodes with requests and streams over sessions in memory, which number and deliver. */

import type { TransportError } from "../../src/errors.ts";
import { type CallHandle, Calls, type CallsConfig } from "../../src/protocol/v3/calls.ts";
import type { OutMessage, SessionPort, Tracker } from "../../src/protocol/v3/out_message.ts";
import { toId } from "../../src/protocol/v3/payloads.ts";
import {
  type CancelReason,
  Served,
  type ServedConfig,
  type ServedRequest,
} from "../../src/protocol/v3/served.ts";
import type { StreamCore } from "../../src/protocol/v3/stream_core.ts";
import { StreamTable, type StreamTableConfig } from "../../src/protocol/v3/streams.ts";
import { KIND, type Kind, type Lane } from "../../src/protocol/v3/types.ts";

const LANES = [0, 1, 2] as const;
const NO_BYTES = new Uint8Array(0);

/** A message as the other side gets it. */
export interface Frame {
  readonly kind: Kind;
  readonly lane: Lane;
  readonly id: number;
  readonly topic: string | undefined;
  /** Prefix and application bytes. */
  readonly body: Uint8Array;
}

/** One side's session: queues, numbers, acknowledgements. */
export class FakeSession implements SessionPort {
  now = 0;
  /** Everything that was written. */
  readonly written: Frame[] = [];
  /** How often something was woken. */
  wakes = 0;
  streams: StreamTable | undefined;
  readonly queues: readonly OutMessage[][] = [[], [], []];
  readonly #lastId = [0, 0, 0];
  readonly #unacked: Tracker[] = [];

  enqueue(message: OutMessage): void {
    this.queues[message.lane]!.push(message);
  }

  withdraw(message: OutMessage): boolean {
    const queue = this.queues[message.lane]!;
    const at = queue.indexOf(message);
    if (at >= 0) queue.splice(at, 1);
    return at >= 0;
  }

  wake(): void {
    this.wakes++;
  }

  /** Whether a lane has something to write. */
  ready(lane: Lane): boolean {
    return this.queues[lane]!.length > 0 || (this.streams?.ready(lane) ?? false);
  }

  /** Writes one message of a lane; `streamFirst` says whose turn it is. */
  write(lane: Lane, streamFirst: boolean = false): Frame | undefined {
    const source = this.streams?.ready(lane) ? this.streams : undefined;
    const queue = this.queues[lane]!;
    const message = source !== undefined && (streamFirst || queue.length === 0)
      ? source.next(lane)
      : queue.shift();
    if (message === undefined) return undefined;
    const id = ++this.#lastId[lane]!;
    const prefix = message.prefix?.(this.now) ?? NO_BYTES;
    const frame: Frame = {
      kind: message.kind,
      lane,
      id,
      topic: message.topic === undefined ? undefined : new TextDecoder().decode(message.topic),
      body: concat(prefix, message.payload),
    };
    this.written.push(frame);
    message.tracker?.onNumbered?.(id);
    if (message.tracker !== undefined) this.#unacked.push(message.tracker);
    return frame;
  }

  /** The other side has admitted everything. */
  ack(): void {
    for (const tracker of this.#unacked.splice(0)) tracker.onAcked?.();
  }

  /** Ends it; what waits is told that it will never go. */
  end(kept: readonly OutMessage[] = []): void {
    for (const tracker of this.#unacked.splice(0)) tracker.onEnded?.("unknown");
    for (const queue of this.queues) {
      for (const message of queue.splice(0)) {
        if (!kept.includes(message)) message.tracker?.onEnded?.("unsent");
      }
    }
  }
}

/** What a node is made with. */
export interface NodeConfig {
  readonly calls?: Partial<CallsConfig>;
  readonly served?: Partial<ServedConfig>;
  readonly streams?: Partial<StreamTableConfig>;
  readonly peerMaxStreams?: number;
  readonly session?: FakeSession;
}

/** One side with everything on it, and a record of what it was told. */
export class Node {
  session: FakeSession;
  readonly calls: Calls;
  readonly served: Served;
  readonly streams: StreamTable;
  readonly requests: ServedRequest[] = [];
  readonly cancelled: [ServedRequest, CancelReason][] = [];
  readonly opened: StreamCore[] = [];
  refusals = 0;
  relieved = 0;
  onStream: (stream: StreamCore) => void = () => {};

  constructor(peer: string, config: NodeConfig = {}) {
    const session = this.session = config.session ?? new FakeSession();
    this.calls = new Calls(session, { peer, ...config.calls });
    this.served = new Served(session, { peer, ...config.served }, {
      onRequest: (request) => this.requests.push(request),
      onCancelled: (request, reason) => this.cancelled.push([request, reason]),
      onRefused: () => this.refusals++,
      onRelieved: () => this.relieved++,
    });
    const max = config.peerMaxStreams ?? 256;
    this.streams = new StreamTable(session, max, { peer, ...config.streams }, {
      onStream: (stream) => {
        this.opened.push(stream);
        this.onStream(stream);
      },
      onRefused: () => this.refusals++,
      onRelieved: () => this.relieved++,
    });
    session.streams = this.streams;
  }

  /** The session ends and the next one begins. */
  restart(reason: TransportError): void {
    const kept = this.calls.end(reason);
    this.served.end();
    this.streams.end(reason);
    this.session.end(kept);
    const { now } = this.session;
    this.session = new FakeSession();
    this.session.now = now;
    this.session.streams = this.streams;
    this.calls.begin(this.session);
    this.served.begin(this.session);
    this.streams.begin(this.session, 256, Infinity);
    for (const message of kept) this.session.enqueue(message);
  }

  receive({ kind, lane, id, topic, body }: Frame): void {
    const now = this.session.now;
    if (kind === KIND.request) {
      const msLeft = u32(body, 0);
      return this.served.handleRequest(lane, id, topic, body.subarray(4), msLeft, now);
    }
    if (kind === KIND.streamOpen) return this.streams.handleOpen(lane, id, topic, body);
    this.#receiveNamed(kind, lane, u32(body, 0), u32(body, 4), body.subarray(8));
  }

  #receiveNamed(kind: Kind, lane: Lane, high: number, low: number, rest: Uint8Array): void {
    const id = toId(high, low);
    switch (kind) {
      case KIND.response:
        return this.calls.handleResponse(lane, id, rest);
      case KIND.error: {
        const { code, message } = parse(rest);
        return this.calls.handleError(lane, id, code, message);
      }
      case KIND.cancel:
        return this.served.handleCancel(lane, id);
      case KIND.streamData:
        return this.streams.handleData(lane, high, low, rest);
      case KIND.streamEnd:
        return this.streams.handleEnd(lane, high, low);
      case KIND.streamReset: {
        const { code, message } = parse(rest);
        return this.streams.handleReset(lane, high, low, code, message);
      }
      case KIND.streamWindow:
        return this.streams.handleWindow(lane, high, low, u32(rest, 0));
      default:
        throw new Error(`a frame of kind ${kind}`);
    }
  }
}

/** Writes everything that `from` has, lane by lane, and delivers it to `to`. Returns how many. */
export function carry(from: Node, to: Node): number {
  let frames = 0;
  for (const lane of LANES) {
    while (from.session.ready(lane)) {
      to.receive(from.session.write(lane)!);
      frames++;
    }
  }
  return frames;
}

/** Lets both sides write until neither has anything. */
export function settle(a: Node, b: Node): void {
  while (carry(a, b) + carry(b, a) > 0);
}

/** A handle that records. */
export class Outcome implements CallHandle {
  readonly responses: string[] = [];
  readonly errors: TransportError[] = [];

  onResponse(payload: Uint8Array): void {
    this.responses.push(new TextDecoder().decode(payload));
  }

  onFailure(error: TransportError): void {
    this.errors.push(error);
  }
}

/** UTF-8. */
export function bytes(text: string): Uint8Array {
  return new TextEncoder().encode(text);
}

/** Two digits a byte. */
export function hex(of: Uint8Array): string {
  return Array.from(of, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

function u32(from: Uint8Array, at: number): number {
  return new DataView(from.buffer, from.byteOffset).getUint32(at);
}

function parse(json: Uint8Array): { code: string; message: string } {
  return JSON.parse(new TextDecoder().decode(json));
}

function concat(a: Uint8Array, b: Uint8Array): Uint8Array {
  const whole = new Uint8Array(a.length + b.length);
  whole.set(a);
  whole.set(b, a.length);
  return whole;
}
