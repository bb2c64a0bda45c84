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
  readonly #lanes = [new Fifo<Waiting>(), new Fifo<Waiting>(), new Fifo<Waiting>()] as const;
  /** Messages that somebody follows, and may take out of the middle. */
  readonly #followed = new Set<OutMessage>();
  /** Those that were taken out. */
  readonly #withdrawn = new Set<OutMessage>();
  readonly #counts: [number, number, number] = [0, 0, 0];
  readonly #laneBytes: [number, number, number] = [0, 0, 0];
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
    return this.#lanes[lane].length > 0;
  }

  /** Messages that wait in a lane. */
  count(lane: Lane): number {
    return this.#counts[lane];
  }

  /** Bytes of the messages that wait in a lane. */
  bytesOf(lane: Lane): number {
    return this.#laneBytes[lane];
  }

  /** Whether a message that has a tracker waits here. */
  holds(message: OutMessage): boolean {
    return this.#followed.has(message);
  }

  /** Puts a message at the end of its lane. */
  push(message: OutMessage): void {
    this.#lanes[message.lane].push(message);
    if (message.tracker !== undefined) this.#followed.add(message);
    this.#count(message, 1);
  }

  /** Puts a marker at the end of a lane. */
  mark(lane: Lane, marker: Marker): void {
    this.#lanes[lane].push(marker);
  }

  /** What is at the front of a lane, which stays. */
  peek(lane: Lane): Waiting | undefined {
    const queue = this.#lanes[lane];
    let waiting = queue.peek();
    while (waiting !== undefined && this.#withdrawn.size > 0) {
      if (isMarker(waiting) || !this.#withdrawn.delete(waiting)) return waiting;
      queue.shift();
      waiting = queue.peek();
    }
    return waiting;
  }

  /** Takes what is at the front of a lane. */
  shift(lane: Lane): Waiting | undefined {
    const waiting = this.peek(lane);
    if (waiting === undefined) return undefined;
    this.#lanes[lane].shift();
    if (!isMarker(waiting)) {
      this.#count(waiting, -1);
      if (waiting.tracker !== undefined) this.#followed.delete(waiting);
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
    this.#followed.delete(message);
    this.#withdrawn.add(message);
    this.#count(message, -1);
    // They must not pile up behind what can't leave.
    const { size } = this.#withdrawn;
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

  #count(message: OutMessage, sign: 1 | -1): void {
    this.#messages += sign;
    this.#counts[message.lane] += sign;
    this.#bytes += sign * message.payload.length;
    this.#laneBytes[message.lane] += sign * message.payload.length;
  }
}
