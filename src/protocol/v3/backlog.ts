/**
 * Messages that wait for a peer, lane by lane. They outlive connections and sessions: what has
 * never been written can still go to whoever the peer is next.
 *
 * @module
 */

import { Fifo } from "../fifo.ts";
import type { OutMessage } from "./out_message.ts";
import { KIND, type Lane } from "./types.ts";

/**
 * A place in a lane: `reached` is called once everything before it has been acknowledged (true), or
 * has ended otherwise (false).
 */
export interface Marker {
  readonly reached: (acknowledged: boolean) => void;
}

/** Messages that were taken out of the middle and still have their places, before all is tidied up. */
const MAX_WITHDRAWN = 256;

/** What waits in a lane. */
export type Waiting = OutMessage | Marker;

/** Whether it is a place and no message. */
export function isMarker(waiting: Waiting): waiting is Marker {
  return "reached" in waiting;
}

/** Three queues. The owner keeps their bounds. */
export class Backlog {
  /** Made when something waits in them. */
  #lanes = NO_QUEUES;
  /** Messages that somebody follows, and may take out of the middle. */
  #followed: Set<OutMessage> | undefined;
  /** Those that were taken out. */
  #withdrawn: Set<OutMessage> | undefined;
  #messages = 0;
  #bytes = 0;

  /** Messages that wait. */
  get messages(): number {
    return this.#messages;
  }

  /** Their payload bytes. */
  get bytes(): number {
    return this.#bytes;
  }

  /** Whether anything waits in a lane, markers included. */
  has(lane: Lane): boolean {
    const queue = this.#lanes[lane];
    return queue !== undefined && queue.waiting.length > 0;
  }

  /** Messages that wait in a lane. */
  count(lane: Lane): number {
    return this.#lanes[lane]?.messages ?? 0;
  }

  /** Bytes of the messages that wait in a lane. */
  bytesOf(lane: Lane): number {
    return this.#lanes[lane]?.bytes ?? 0;
  }

  /** Whether a message that has a tracker waits here. */
  holds(message: OutMessage): boolean {
    return this.#followed?.has(message) === true;
  }

  /** Puts a message at the end of its lane. */
  push(message: OutMessage): void {
    const queue = this.#queueOf(message.lane);
    queue.waiting.push(message);
    if (message.tracker !== undefined) (this.#followed ??= new Set()).add(message);
    this.#count(queue, message, 1);
  }

  /** Puts a marker at the end of a lane. */
  mark(lane: Lane, marker: Marker): void {
    this.#queueOf(lane).waiting.push(marker);
  }

  /** What is at the front of a lane, which stays. */
  peek(lane: Lane): Waiting | undefined {
    const queue = this.#lanes[lane]?.waiting;
    if (queue === undefined) return undefined;
    let waiting = queue.peek();
    const withdrawn = this.#withdrawn;
    if (withdrawn === undefined) return waiting;
    while (waiting !== undefined && withdrawn.size > 0) {
      if (isMarker(waiting) || !withdrawn.delete(waiting)) return waiting;
      queue.shift();
      waiting = queue.peek();
    }
    return waiting;
  }

  /** Takes what is at the front of a lane. */
  shift(lane: Lane): Waiting | undefined {
    const queue = this.#lanes[lane];
    const waiting = this.peek(lane);
    if (queue === undefined || waiting === undefined) return undefined;
    queue.waiting.shift();
    if (!isMarker(waiting)) {
      this.#count(queue, waiting, -1);
      if (waiting.tracker !== undefined) this.#followed?.delete(waiting);
    }
    return waiting;
  }

  /** Takes the oldest plain message of a lane out; others and markers keep their places. */
  dropOldest(lane: Lane): OutMessage | undefined {
    const first = this.peek(lane);
    if (first === undefined) return undefined;
    if (!isMarker(first) && first.kind === KIND.data) return this.shift(lane) as OutMessage;
    let found = false;
    const [oldest] = this.filter((message) => {
      if (found || message.lane !== lane || message.kind !== KIND.data) return false;
      found = true;
      return true;
    });
    return oldest;
  }

  /** Takes a message out, wherever it stands. The caller has asked `holds`. */
  withdraw(message: OutMessage): void {
    this.#followed?.delete(message);
    const withdrawn = this.#withdrawn ??= new Set();
    withdrawn.add(message);
    this.#count(this.#queueOf(message.lane), message, -1);
    // They must not pile up behind what can't leave.
    const { size } = withdrawn;
    if (size > MAX_WITHDRAWN && size > this.#messages) this.filter(() => false);
  }

  /** Takes out every message that `leaves` says; the others keep their places. */
  filter(leaves: (message: OutMessage) => boolean): OutMessage[] {
    const taken: OutMessage[] = [];
    for (const lane of [0, 1, 2] as const) {
      const kept: Waiting[] = [];
      for (let next = this.shift(lane); next !== undefined; next = this.shift(lane)) {
        if (!isMarker(next) && leaves(next)) taken.push(next);
        else kept.push(next);
      }
      for (const waiting of kept) {
        if (isMarker(waiting)) this.mark(lane, waiting);
        else this.push(waiting);
      }
    }
    return taken;
  }

  #queueOf(lane: Lane): LaneQueue {
    if (this.#lanes === NO_QUEUES) this.#lanes = [undefined, undefined, undefined];
    return this.#lanes[lane] ??= new LaneQueue();
  }

  #count(queue: LaneQueue, message: OutMessage, sign: 1 | -1): void {
    const bytes = sign * message.payload.length;
    this.#messages += sign;
    this.#bytes += bytes;
    queue.messages += sign;
    queue.bytes += bytes;
  }
}

/** What waits in one lane. */
class LaneQueue {
  readonly waiting = new Fifo<Waiting>();
  messages = 0;
  bytes = 0;
}

type LaneQueues = [LaneQueue | undefined, LaneQueue | undefined, LaneQueue | undefined];

/** Most backlogs never hold anything. Nothing is put here. */
const NO_QUEUES: LaneQueues = [undefined, undefined, undefined];
