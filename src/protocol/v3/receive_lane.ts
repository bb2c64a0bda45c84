/**
 * One lane of a session, inwards: numbers without gaps, fragments put together, messages held while
 * the application does not take them.
 *
 * @module
 */

import { TransportError } from "../../errors.ts";
import { Fifo } from "../fifo.ts";
import type { Frame } from "./frame_codec.ts";
import { type Allocate, Gathered } from "./gathered.ts";
import { NumbersAhead } from "./numbers_ahead.ts";
import { PREFIX_BYTES, readTopicText, readU32, viewFrom } from "./payloads.ts";
import { KIND, type Kind, type Lane, MIN_CHARGE_BYTES } from "./types.ts";
import { chargeOf } from "./send_lane.ts";

/** Fragments of a message: this many, and one for each 1024 bytes of the largest message. */
const MIN_FRAGMENTS = 64;
const BYTES_PER_FRAGMENT = 1024;
/** A first fragment of less than this says nothing of the length of its message. */
const MIN_LONG_BYTES = 32_768;
/** A view that is smaller than this share of its buffer is copied where it is kept. */
const MIN_SHARE = 4;
/** Copies of short messages that wait one behind the other share memory: they leave in their order. */
const SHELF_BYTES = 16_384;
/** A longer one gets memory of its own. */
const MAX_SHELVED_BYTES = 1_024;
/** Numbers beyond what fits in the receive window that are taken behind a gap. */
const MIN_AHEAD = 64;

/** How a frame came, and so what may stand before it. */
export const WAY = {
  /** On a connection where nothing overtakes anything. */
  inOrder: 0,
  /** On the main stream of a connection that has sub-streams: frames of those may be missing. */
  main: 1,
  /** On a sub-stream. */
  substream: 2,
} as const;

/** One of the ways. */
export type Way = (typeof WAY)[keyof typeof WAY];

/** A received message, as a whole. One object, used again for each. */
export class Received {
  kind: Kind = KIND.data;
  lane: Lane = 1;
  /** The number of its first fragment: what names a request or a stream. */
  id = 0;
  topic: string | undefined;
  /** A request's milliseconds left. */
  msLeft = 0;
  /** The id that a response, a cancel or a frame of a stream names, in two words. */
  refHigh = 0;
  refLow = 0;
  payload: Uint8Array = new Uint8Array(0);
}

/** A message of the application that it has not taken. */
interface Held {
  /** The number of its last fragment: until it is admitted, it is not acknowledged. */
  readonly lastId: number;
  readonly topic: string | undefined;
  readonly payload: Uint8Array;
}

interface Assembly {
  readonly kind: Kind;
  readonly id: number;
  readonly topic: string | undefined;
  readonly msLeft: number;
  readonly refHigh: number;
  readonly refLow: number;
  readonly gathered: Gathered;
  fragments: number;
  /** The number of the last fragment. */
  lastId: number;
}

/** A lane, inwards. */
export class ReceiveLane {
  readonly lane: Lane;
  /** The highest number received in order. */
  received = 0;
  /** The highest number the peer was told. */
  told = 0;
  /** Frames that had been received before. */
  duplicates = 0;
  /** What the messages held count, as the receive window does. */
  heldCharge = 0;
  readonly #maxMessageSize: number;
  readonly #allocate: Allocate | undefined;
  /** Made when the application does not take a message at once. */
  #held: Fifo<Held> | undefined;
  #shelf: ArrayBuffer | undefined;
  #shelfAt = 0;
  readonly #maxAhead: number;
  /** What was received beyond a gap. */
  #ahead: NumbersAhead | undefined;
  /** The number of the last message or fragment that was taken while there was a gap. */
  #orderedId = 0;
  /** The number of the last frame that was taken. */
  #takenId = 0;
  #assembly: Assembly | undefined;
  /** Bytes of the last message in fragments: the next one may be as long. */
  #lastBytes = 0;

  /** `maxMessageSize` in bytes; `receiveWindow` is what the peer may have unacknowledged. */
  constructor(
    lane: Lane,
    maxMessageSize: number,
    receiveWindow: number = 0,
    allocate: Allocate | undefined = undefined,
  ) {
    this.lane = lane;
    this.#allocate = allocate;
    this.#maxMessageSize = maxMessageSize;
    // Each frame counts so much at least: a peer that keeps to the window has no more under way.
    this.#maxAhead = MIN_AHEAD + Math.ceil(receiveWindow / MIN_CHARGE_BYTES);
  }

  /** The highest number that may be acknowledged. */
  get admitted(): number {
    const first = this.#held?.peek();
    return first === undefined ? this.received : Math.min(this.received, first.lastId - 1);
  }

  /** Whether frames are missing before some that were received. */
  get hasGap(): boolean {
    return this.#ahead !== undefined;
  }

  /** Messages that wait for the application. */
  get heldMessages(): number {
    return this.#held?.length ?? 0;
  }

  /** What is kept: messages that wait for the application, and one that is not whole. */
  get heldBytes(): number {
    return this.#assembly === undefined
      ? this.heldCharge
      : this.heldCharge + this.#assembly.gathered.bytes;
  }

  /**
   * Takes a sequenced frame. True: `into` holds a whole message. False: there is none, or the
   * frame had been received before.
   *
   * @throws {TransportError} "InvalidFrame": a gap, or what can't stand here.
   */
  accept(frame: Frame, into: Received, way: Way = WAY.inOrder): boolean {
    const { id } = frame;
    if (id !== this.received + 1 || this.#ahead !== undefined || way === WAY.substream) {
      return this.#acceptAnywhere(frame, into, way);
    }
    const whole = this.#assembly === undefined
      ? this.#first(frame, into)
      : this.#goOn(this.#assembly, frame, into);
    this.received = this.#takenId = id;
    return whole;
  }

  /** Where there is a gap, or may be one after this frame. */
  #acceptAnywhere(frame: Frame, into: Received, way: Way): boolean {
    const { id } = frame;
    const { received } = this;
    if (id <= received || this.#ahead?.has(id, received)) {
      this.duplicates++;
      return false;
    }
    if (id !== received + 1) {
      if (way === WAY.inOrder) throw invalid(`number ${id} follows ${received} in its lane`);
      if (!(id <= received + this.#maxAhead)) {
        throw invalid(`number ${id} is too far beyond ${received} in its lane`);
      }
    }
    const whole = this.#takeAnywhere(frame, into, way);
    this.#takenId = id;
    this.#note(id);
    return whole;
  }

  #takeAnywhere(frame: Frame, into: Received, way: Way): boolean {
    const { id, kind, more } = frame;
    const assembly = this.#assembly;
    if (way !== WAY.substream && assembly !== undefined && id > assembly.lastId) {
      this.#orderedId = id;
      return this.#goOn(assembly, frame, into);
    }
    // Messages and fragments keep their order: what is late was on a sub-stream, as none of them is.
    const ordered = more || kind < KIND.streamOpen || kind > KIND.streamWindow;
    if (ordered && (way === WAY.substream || id < this.#orderedId)) {
      throw invalid("a message is not in the order of its lane");
    }
    const whole = this.#first(frame, into);
    if (ordered) this.#orderedId = id;
    return whole;
  }

  /** A number was received that was not known. */
  #note(id: number): void {
    if (id === this.received + 1) {
      this.received = this.#ahead === undefined ? id : this.#ahead.goOn(id);
      if (this.#ahead?.empty) this.#ahead = undefined;
    } else {
      this.#ahead ??= new NumbersAhead();
      this.#ahead.add(id, this.received);
    }
  }

  /** Keeps a message of the application until `admit`. */
  hold({ topic, payload }: Received): void {
    (this.#held ??= new Fifo()).push({ lastId: this.#takenId, topic, payload: this.#own(payload) });
    this.heldCharge += chargeOf(payload.length);
  }

  /** The next held message. */
  admit(): { readonly topic: string | undefined; readonly payload: Uint8Array } | undefined {
    const queue = this.#held;
    const held = queue?.shift();
    if (queue === undefined || held === undefined) return undefined;
    this.heldCharge -= chargeOf(held.payload.length);
    if (queue.length === 0) this.#shelf = undefined;
    return held;
  }

  /** Bytes that may be kept: a small view must not keep a large buffer alive. */
  #own(bytes: Uint8Array): Uint8Array {
    const { length } = bytes;
    if (length * MIN_SHARE >= bytes.buffer.byteLength) return bytes;
    if (length > MAX_SHELVED_BYTES || length === 0) return bytes.slice();
    if (this.#shelf === undefined || this.#shelfAt + length > SHELF_BYTES) {
      this.#shelf = new ArrayBuffer(SHELF_BYTES);
      this.#shelfAt = 0;
    }
    const copy = new Uint8Array(this.#shelf, this.#shelfAt, length);
    this.#shelfAt += length;
    copy.set(bytes);
    return copy;
  }

  #first(frame: Frame, into: Received): boolean {
    let { payload } = frame;
    let topic: string | undefined;
    let at = 0;
    if (frame.topic) {
      topic = readTopicText(payload);
      at = 1 + payload[0]!;
    }
    into.kind = frame.kind;
    into.lane = this.lane;
    into.id = frame.id;
    into.topic = topic;
    into.msLeft = into.refHigh = into.refLow = 0;
    const prefix = PREFIX_BYTES[frame.kind]!;
    if (prefix > 0) {
      if (payload.length < at + prefix) throw invalid("its payload is too short for its kind");
      if (prefix === 4) {
        into.msLeft = readU32(payload, at);
      } else {
        into.refHigh = readU32(payload, at);
        into.refLow = readU32(payload, at + 4);
      }
      at += prefix;
    }
    if (at > 0) payload = viewFrom(payload, at);
    into.payload = payload;
    if (!frame.more) return this.#checkWhole(into);
    if (!MAY_BE_FRAGMENTED[frame.kind]) throw invalid("a frame of its kind is never fragmented");
    if (payload.length === 0) throw invalid("a fragment that is not the last is empty");
    this.#checkSize(payload.length);
    const { kind, id, msLeft, refHigh, refLow } = into;
    const expected = payload.length >= MIN_LONG_BYTES ? this.#lastBytes : 0;
    const gathered = new Gathered(payload, expected, this.#allocate);
    const fragments = 1;
    this.#assembly = { kind, id, topic, msLeft, refHigh, refLow, gathered, fragments, lastId: id };
    return false;
  }

  #goOn(assembly: Assembly, frame: Frame, into: Received): boolean {
    const { payload } = frame;
    if (frame.kind !== assembly.kind || frame.topic || frame.id !== assembly.lastId + 1) {
      throw invalid("a message begins before the one in fragments is whole");
    }
    if (payload.length === 0 && frame.more) {
      throw invalid("a fragment that is not the last is empty");
    }
    if (assembly.fragments >= MIN_FRAGMENTS + this.#maxMessageSize / BYTES_PER_FRAGMENT) {
      throw invalid(`a message has more than ${assembly.fragments} fragments`);
    }
    this.#checkSize(assembly.gathered.bytes + payload.length);
    assembly.fragments++;
    assembly.lastId = frame.id;
    assembly.gathered.append(payload);
    if (frame.more) return false;
    this.#assembly = undefined;
    into.kind = assembly.kind;
    into.lane = this.lane;
    into.id = assembly.id;
    into.topic = assembly.topic;
    into.msLeft = assembly.msLeft;
    into.refHigh = assembly.refHigh;
    into.refLow = assembly.refLow;
    into.payload = assembly.gathered.take();
    this.#lastBytes = into.payload.length;
    return true;
  }

  #checkWhole({ kind, payload }: Received): true {
    this.#checkSize(payload.length);
    const exact = EXACT_BYTES[kind];
    if (exact !== undefined && payload.length !== exact) {
      throw invalid("its payload has not the length of its kind");
    }
    return true;
  }

  #checkSize(bytes: number): void {
    if (bytes <= this.#maxMessageSize) return;
    throw invalid(`a message has more than ${this.#maxMessageSize} bytes`);
  }
}

/** Bytes after the prefix where their number is fixed: cancel 0, stream-end 0, stream-window 4. */
const EXACT_BYTES: readonly (number | undefined)[] = [
  ...[undefined, undefined, undefined, undefined, 0, undefined],
  ...[undefined, 0, undefined, 4],
];
const MAY_BE_FRAGMENTED: readonly boolean[] = [
  ...[true, true, true, true, false, true],
  ...[true, false, true, false, false, false, false, false, false, false],
];

function invalid(problem: string): TransportError {
  return new TransportError("InvalidFrame", `Cannot read a frame: ${problem}`);
}
