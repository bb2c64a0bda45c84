/**
 * One lane of a session, outwards: numbers what goes out, keeps it until it is acknowledged, and
 * writes it again on the next connection.
 *
 * @module
 */

import { TransportError } from "../../errors.ts";
import { Fifo } from "../fifo.ts";
import type { FrameCodec } from "./frame_codec.ts";
import { decodeRun } from "./frame_codec.ts";
import type { Fate, OutMessage, Tracker } from "./out_message.ts";
import { KIND, type Lane, MIN_CHARGE_BYTES } from "./types.ts";
import type { Outbox } from "../outbox.ts";

/** Stands where a message stood that is not kept: it cancels request 0, which there never is. */
const FILLER_PREFIX = new Uint8Array(8);
const NO_BYTES: Uint8Array = new Uint8Array(0);
/** A small batch in a buffer of more than this is copied before it is kept. */
const SMALL_BUFFER_BYTES = 16_384;

/** What a lane writes to: one connection, or one sub-stream of it. */
export interface LaneChannel {
  readonly codec: FrameCodec;
  readonly outbox: Outbox;
  /** The run at the end of the batch under way, which frames of the same lane are added to. */
  openRun: Run | undefined;
  /** A run was begun in the batch: it must be told its chunk when the batch is taken. */
  addRun(run: Run): void;
}

/** What all lanes of a session have written and the peer has not acknowledged. */
export interface Unacked {
  /** As the receive window counts. */
  charge: number;
  /** Messages. */
  messages: number;
  /** Bytes of their payloads. */
  bytes: number;
}

/** A batch that was written: its memory is used again when all runs in it are acknowledged. */
export interface Batch {
  /** Runs that still need it. */
  runs: number;
  /** Nobody needs it any more. */
  free(): void;
}

/** Frames with numbers in a row that were written together, or the fragments of one message. */
export interface Run {
  readonly lane: SendLane;
  readonly firstId: number;
  lastId: number;
  /** Frames below this number are acknowledged. */
  ackedId: number;
  charge: number;
  messages: number;
  bytes: number;
  /** The batch that its frames stand in, from `start` to `end`; undefined until it is taken. */
  chunk: Uint8Array | undefined;
  /** Who is told when nobody needs that batch any more; undefined where nobody is. */
  batch: Batch | undefined;
  start: number;
  end: number;
  readonly codec: FrameCodec;
  /** The message whose fragments it is: they are made again from it. */
  readonly message: OutMessage | undefined;
  /** Bytes of its fragments but the last. */
  readonly fragmentBytes: number;
  /** Nothing is kept of it: at most once. */
  readonly dropped: boolean;
  writtenAt: number;
  next: Run | undefined;
}

/** What a message of one frame says beside its payload. */
export type SmallMessage = Pick<
  OutMessage,
  "kind" | "topic" | "prefix" | "atMostOnce" | "tracker"
>;

/** A message that was written and will not be acknowledged any more. */
export interface EndedMessage {
  readonly kind: number;
  readonly lane: Lane;
  readonly topic: string | undefined;
  readonly payload: Uint8Array;
}

interface Tracked {
  readonly id: number;
  /** Nobody hears of it any more when its connection is gone. */
  readonly atMostOnce: boolean;
  readonly tracker: Tracker;
}

/** What a lane tells. */
export interface LaneOwner {
  /** A plain message of several fragments is acknowledged as a whole. */
  onPayloadFree(payload: Uint8Array): void;
}

/** A lane, outwards. It counts itself what it alone has written and the peer has not acknowledged. */
export class SendLane implements Unacked {
  readonly lane: Lane;
  /** The connection it is written to. */
  channel: LaneChannel | undefined;
  /** Charge that was written to `channel` and not acknowledged: what that connection has in flight. */
  flight = 0;
  /** At-most-once messages whose connection broke before they were acknowledged. */
  lost = 0;
  charge = 0;
  messages = 0;
  bytes = 0;
  readonly #unacked: Unacked;
  readonly #owner: LaneOwner | undefined;
  #nextId = 1;
  #acked = 0;
  /** The highest number that was written to `channel`, or that the peer has. */
  #sentTo = 0;
  #head: Run | undefined;
  #tail: Run | undefined;
  #resend: Run | undefined;
  #current: { message: OutMessage; run: Run; at: number } | undefined;
  /** Made when somebody wants to know what becomes of a message. */
  #tracked: Fifo<Tracked> | undefined;

  /**
   * `unacked` is shared by the lanes of a session.
   */
  constructor(lane: Lane, unacked: Unacked, owner?: LaneOwner) {
    this.lane = lane;
    this.#owner = owner;
    this.#unacked = unacked;
  }

  /** The highest number that the peer has acknowledged. */
  get ackedId(): number {
    return this.#acked;
  }

  /** The highest number given out. */
  get lastId(): number {
    return this.#nextId - 1;
  }

  /** Whether everything written is acknowledged and no message is half written. */
  get idle(): boolean {
    return this.#acked === this.#nextId - 1 && this.#current === undefined;
  }

  /** Whether frames wait to be written again. */
  get resending(): boolean {
    return this.#resend !== undefined;
  }

  /** Whether a message is half written. */
  get midMessage(): boolean {
    return this.#current !== undefined;
  }

  /** The charge of what `writeNext` would write. */
  get nextCharge(): number {
    const current = this.#current;
    if (current === undefined) return 0;
    const { message, run, at } = current;
    return chargeOf(Math.min(message.payload.length - at, run.fragmentBytes));
  }

  /** Writes a message of one frame. */
  writeSmall(
    channel: LaneChannel,
    message: SmallMessage,
    payload: Uint8Array,
    now: number,
  ): void {
    const { outbox, codec } = channel;
    const id = this.#nextId++;
    const start = outbox.bytes;
    const prefix = message.prefix === undefined ? undefined : message.prefix(now);
    codec.encode(
      outbox,
      message.kind,
      this.lane,
      id,
      false,
      message.topic,
      prefix,
      payload,
      0,
      payload.length,
    );
    let run = channel.openRun;
    if (
      run === undefined || run.lane !== this || run.end !== start || run.lastId !== id - 1 ||
      run.dropped !== message.atMostOnce || run.message !== undefined
    ) {
      run = this.#newRun(channel, id, undefined, message.atMostOnce, now);
      run.start = start;
      channel.openRun = run;
      channel.addRun(run);
    }
    run.lastId = id;
    run.end = outbox.bytes;
    this.#sentTo = id;
    this.#charge(run, chargeOf(payload.length), 1, payload.length);
    const { tracker } = message;
    if (tracker !== undefined) {
      tracker.onNumbered?.(id);
      this.#track({ id, atMostOnce: message.atMostOnce, tracker });
    }
  }

  /**
   * Adds a plain message to the batch under way, where the last frame in it is of this lane. False:
   * it is not, or the message is better put into the next batch.
   */
  append(channel: LaneChannel, payload: Uint8Array, charge: number): boolean {
    const { outbox, openRun: run } = channel;
    if (
      run === undefined || run.lane !== this || run.end !== outbox.bytes || run.dropped ||
      outbox.overflows(payload.length)
    ) return false;
    const id = this.#nextId++;
    channel.codec.encodePlain(outbox, this.lane, id, payload);
    run.lastId = id;
    run.end = outbox.bytes;
    this.#sentTo = id;
    this.#charge(run, charge, 1, payload.length);
    return true;
  }

  /** Writes the first fragment of a message of several; `writeNext` writes the others. */
  begin(channel: LaneChannel, message: OutMessage, fragmentBytes: number, now: number): void {
    const run = this.#newRun(channel, this.#nextId, message, false, now, fragmentBytes);
    run.lastId = run.firstId - 1;
    this.#charge(run, 0, 1, message.payload.length);
    this.#current = { message, run, at: 0 };
    this.writeNext(channel, now);
  }

  /**
   * Writes the next fragment, or what must be written again. The caller has asked whether there is
   * any. True: that was the end of a message whose acknowledgement somebody waits for.
   */
  writeNext(channel: LaneChannel, now: number): boolean {
    if (this.#resend !== undefined) {
      this.#writeAgain(channel, this.#resend, now);
      return false;
    }
    const { message, run, at } = this.#current!;
    const end = Math.min(at + run.fragmentBytes, message.payload.length);
    const id = this.#nextId++;
    if (at === 0) message.tracker?.onNumbered?.(id);
    this.#encodeFragment(channel, message, id, at, end, now);
    run.lastId = id;
    this.#sentTo = id;
    this.#charge(run, chargeOf(end - at), 0, 0);
    if (end < message.payload.length) {
      this.#current!.at = end;
      return false;
    }
    this.#current = undefined;
    const { tracker } = message;
    if (tracker !== undefined) this.#track({ id, atMostOnce: false, tracker });
    return tracker !== undefined;
  }

  /** Calls `reached` when everything written so far is acknowledged (true) or ended (false). */
  mark(reached: (acknowledged: boolean) => void): void {
    if (this.idle) return reached(true);
    const current = this.#current;
    // A message that is half written counts as a whole: the number of its last fragment is known.
    const id = current === undefined ? this.lastId : current.run.firstId +
      Math.ceil(current.message.payload.length / current.run.fragmentBytes) - 1;
    this.#track({
      id,
      atMostOnce: false,
      tracker: { onAcked: () => reached(true), onEnded: () => reached(false) },
    });
  }

  /**
   * The peer has admitted everything up to `id`.
   *
   * @throws {TransportError} "InvalidFrame" if that was never sent.
   */
  acknowledge(id: number): void {
    if (!(id <= this.#nextId - 1)) throw neverSent(id);
    if (id <= this.#acked) return;
    this.#acked = id;
    if (id > this.#sentTo) this.#sentTo = id;
    for (let run = this.#head; run !== undefined; run = this.#head) {
      if (run.ackedId <= id) this.#release(run, Math.min(id, run.lastId));
      if (run.lastId > id) break;
      // Of a message that is half written nothing is written again, though its run goes on.
      if (this.#resend === run) this.#resend = run.next;
      if (this.#current?.run === run) break;
      this.#head = run.next;
      if (this.#head === undefined) this.#tail = undefined;
      if (run.message?.kind === KIND.data) this.#owner?.onPayloadFree(run.message.payload);
      letGo(run);
    }
    // The charges of a run's frames are taken for equal, which those of fragments are not.
    if (id >= this.#sentTo) this.flight = 0;
    this.#tellTracked(id);
  }

  /**
   * Without acknowledgements: everything written has left the process. It counts no more, and what
   * was written before `before` is forgotten.
   */
  settle(before: number): void {
    for (let run = this.#head; run !== undefined; run = run.next) {
      if (run === this.#current?.run) break;
      const { ackedId } = run;
      this.#release(run, run.lastId);
      run.ackedId = ackedId;
    }
    while (this.#head !== undefined && this.#head.writtenAt < before) {
      if (this.#head === this.#current?.run) return;
      this.acknowledge(this.#head.lastId);
    }
  }

  /**
   * Takes a connection; the peer has everything up to `received`.
   *
   * @throws {TransportError} "InvalidFrame" if that was never sent.
   */
  attach(channel: LaneChannel, received: number): void {
    if (!(received <= this.#nextId - 1)) throw neverSent(received);
    this.channel = channel;
    this.flight = 0;
    this.#sentTo = Math.max(this.#acked, received);
    this.#resend = this.#head;
    while (this.#resend !== undefined && this.#resend.lastId <= this.#sentTo) {
      if (this.#resend === this.#current?.run) {
        this.#resend = undefined;
        break;
      }
      this.#resend = this.#resend.next;
    }
  }

  /** The connection is gone. */
  detach(): void {
    this.channel = undefined;
    this.flight = 0;
    this.#resend = undefined;
    for (let run = this.#head; run !== undefined; run = run.next) {
      if (!run.dropped) continue;
      this.lost += run.messages;
      add(this.#unacked, 0, -run.messages, -run.bytes);
      add(this, 0, -run.messages, -run.bytes);
      run.messages = run.bytes = 0;
    }
    for (let left = this.#tracked?.length ?? 0; left > 0; left--) {
      const tracked = this.#tracked!.shift()!;
      if (tracked.atMostOnce) tracked.tracker.onEnded?.("unknown");
      else this.#track(tracked);
    }
  }

  /** Everything that was not acknowledged, oldest first. Nothing is written any more after it. */
  end(): EndedMessage[] {
    const ended: EndedMessage[] = [];
    for (let run = this.#head; run !== undefined; run = run.next) this.#takeOut(run, ended);
    for (let next = this.#tracked?.shift(); next !== undefined; next = this.#tracked?.shift()) {
      next.tracker.onEnded?.("unknown");
    }
    this.#current?.message.tracker?.onEnded?.("unknown");
    for (let run = this.#head; run !== undefined; run = run.next) this.#release(run, run.lastId);
    this.#head =
      this.#tail =
      this.#resend =
      this.#current =
        undefined;
    this.#acked = this.#sentTo = this.#nextId - 1;
    return ended;
  }

  #writeAgain(channel: LaneChannel, run: Run, now: number): void {
    const from = this.#sentTo + 1;
    const first = Math.max(from, run.firstId);
    if (run.message !== undefined) {
      const at = (first - run.firstId) * run.fragmentBytes;
      const end = Math.min(at + run.fragmentBytes, run.message.payload.length);
      this.#encodeFragment(channel, run.message, first, at, end, now);
      this.flight += chargeOf(end - at);
      this.#sentTo = first;
      // The rest of a message that was cut in the middle is written as if for the first time.
      if (first === run.lastId) this.#resend = run.next;
      return;
    }
    if (run.dropped) {
      for (let id = first; id <= run.lastId; id++) {
        channel.codec.encode(
          channel.outbox,
          KIND.cancel,
          this.lane,
          id,
          false,
          undefined,
          FILLER_PREFIX,
          NO_BYTES,
          0,
          0,
        );
      }
    } else {
      this.#copyRun(channel, run, first);
    }
    this.flight += run.charge;
    this.#sentTo = run.lastId;
    this.#resend = run.next;
  }

  #copyRun(channel: LaneChannel, run: Run, first: number): void {
    const { outbox, codec } = channel;
    const bytes = run.chunk!.subarray(run.start, run.end);
    if (first === run.firstId && codec.sameCoding(run.codec)) return outbox.addRaw(bytes);
    decodeRun(bytes, run.codec, (frame, start, end) => {
      if (frame.id < first) return;
      if (codec.sameCoding(run.codec)) outbox.addRaw(bytes.subarray(start, end));
      else codec.encodeFrame(outbox, frame);
    });
  }

  #encodeFragment(
    channel: LaneChannel,
    message: OutMessage,
    id: number,
    from: number,
    to: number,
    now: number,
  ): void {
    const first = from === 0;
    channel.codec.encode(
      channel.outbox,
      message.kind,
      this.lane,
      id,
      to < message.payload.length,
      first ? message.topic : undefined,
      first ? message.prefix?.(now) : undefined,
      message.payload,
      from,
      to,
    );
  }

  #newRun(
    channel: LaneChannel,
    firstId: number,
    message: OutMessage | undefined,
    dropped: boolean,
    now: number,
    fragmentBytes: number = 0,
  ): Run {
    const run: Run = {
      lane: this,
      firstId,
      lastId: firstId,
      ackedId: firstId,
      charge: 0,
      messages: 0,
      bytes: 0,
      chunk: undefined,
      batch: undefined,
      start: 0,
      end: 0,
      codec: channel.codec,
      message,
      fragmentBytes,
      dropped,
      writtenAt: now,
      next: undefined,
    };
    if (this.#tail === undefined) this.#head = run;
    else this.#tail.next = run;
    this.#tail = run;
    return run;
  }

  #charge(run: Run, charge: number, messages: number, bytes: number): void {
    run.charge += charge;
    run.messages += messages;
    run.bytes += bytes;
    this.flight += charge;
    add(this.#unacked, charge, messages, bytes);
    add(this, charge, messages, bytes);
  }

  /** Frames up to `id` of a run are acknowledged. Shares of the middle are estimates, the end is exact. */
  #release(run: Run, id: number): void {
    const left = run.lastId - run.ackedId + 1;
    const frames = id - run.ackedId + 1;
    if (frames <= 0 && !(left <= 0 && run.messages > 0)) return;
    const whole = id >= run.lastId && this.#current?.run !== run;
    const share = (of: number) => whole ? of : Math.min(of, Math.floor(of * (frames / left)));
    const charge = share(run.charge);
    const several = run.message === undefined;
    const messages = whole ? run.messages : several ? Math.min(run.messages, frames) : 0;
    const bytes = whole ? run.bytes : several ? share(run.bytes) : 0;
    run.ackedId = id + 1;
    run.charge -= charge;
    run.messages -= messages;
    run.bytes -= bytes;
    this.flight = Math.max(0, this.flight - charge);
    add(this.#unacked, -charge, -messages, -bytes);
    add(this, -charge, -messages, -bytes);
  }

  #track(tracked: Tracked): void {
    (this.#tracked ??= new Fifo()).push(tracked);
  }

  #tellTracked(id: number): void {
    const queue = this.#tracked;
    if (queue === undefined) return;
    for (let next = queue.peek(); next !== undefined; next = queue.peek()) {
      if (next.id > id) return;
      queue.shift();
      next.tracker.onAcked?.();
    }
  }

  #takeOut(run: Run, ended: EndedMessage[]): void {
    if (run.dropped) return;
    const { message } = run;
    if (message !== undefined) {
      const { kind, lane, payload } = message;
      ended.push({ kind, lane, topic: topicOf(message), payload });
      return;
    }
    decodeRun(run.chunk!.subarray(run.start, run.end), run.codec, (frame) => {
      if (frame.id < run.ackedId) return;
      const { topic, payload } = run.codec.application(frame);
      ended.push({ kind: frame.kind, lane: this.lane, topic, payload: payload.slice() });
    });
  }
}

/**
 * Keeps runs in the batch that was taken out of the outbox; `newBatch` makes who is told when nobody
 * needs it any more. False: they are kept elsewhere.
 */
export function sealRuns(
  runs: readonly Run[],
  chunk: Uint8Array,
  newBatch: ((chunk: Uint8Array, runs: number) => Batch | undefined) | undefined,
): boolean {
  if (runs.length === 0) return false;
  let bytes = 0;
  for (const run of runs) bytes += run.end - run.start;
  // Beside fragments, which are made again from their message, the runs may be the least of it.
  const roomy = chunk.buffer.byteLength > SMALL_BUFFER_BYTES &&
    bytes * 2 < chunk.buffer.byteLength;
  const kept = roomy ? new Uint8Array(bytes) : chunk;
  const batch = roomy ? undefined : newBatch?.(chunk, runs.length);
  let at = 0;
  for (const run of runs) {
    run.chunk = kept;
    run.batch = batch;
    if (!roomy) continue;
    kept.set(chunk.subarray(run.start, run.end), at);
    run.end = at + run.end - run.start;
    run.start = at;
    at = run.end;
  }
  return !roomy;
}

/** Nobody looks at a run any more. */
function letGo(run: Run): void {
  const { batch } = run;
  if (batch === undefined) return;
  run.chunk = run.batch = undefined;
  if (--batch.runs === 0) batch.free();
}

function add(unacked: Unacked, charge: number, messages: number, bytes: number): void {
  unacked.charge += charge;
  unacked.messages += messages;
  unacked.bytes += bytes;
}

/** What a frame of so many application bytes counts against the receive window. */
export function chargeOf(bytes: number): number {
  return bytes < MIN_CHARGE_BYTES ? MIN_CHARGE_BYTES : bytes;
}

/** The topic of a message as text. */
export function topicOf({ topic }: OutMessage): string | undefined {
  return topic === undefined ? undefined : new TextDecoder().decode(topic);
}

/** How a message ends that was never written. */
export const UNSENT: Fate = "unsent";

function neverSent(id: number): TransportError {
  return new TransportError(
    "InvalidFrame",
    `Cannot go on with the session: the peer acknowledges number ${id}, which was never sent`,
  );
}
