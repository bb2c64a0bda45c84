/**
 * How much one connection may have in flight beside its control lane. What waits in the buffers of
 * two kernels delays a heartbeat, so no more is sent ahead than keeps the connection busy: twice
 * what it delivers in a round trip, as BBR (Cardwell et al., 2016) estimates it.
 *
 * @module
 */

import { URGENT_ACK_BYTES } from "./types.ts";

/** Never less than this: what two busy processes need to work at the same time. */
const MIN_BYTES = 1_048_576;
/** Nor less than it delivers in this time: a process that is not woken at once has work all the same. */
const BUSY_MS = 4;
/** The control lane counts as in use for so long after a message. */
const URGENT_MS = 100;
/** Twice the product of rate and delay: room for the rate to grow. */
const GAIN = 2;
/** While the control lane is in use the rate grows more slowly. */
const URGENT_GAIN = 1.25;
/** The rate is taken over at least so many milliseconds. */
const MIN_INTERVAL_MS = 4;
/** What an interval leaves of the best rate before it. */
const DECAY = 0.95;

/** The budget of one connection. */
export class FlightBudget {
  #since: number;
  #delivered = 0;
  #bestRate = 0;
  /** Rate times delay: what fills the connection. */
  #product = 0;
  #urgentUntil = -Infinity;

  /** `now` in milliseconds, as below. */
  constructor(now: number) {
    this.#since = now;
  }

  /**
   * Whether so many bytes more may be in flight. While the control lane is in use, for which every
   * byte ahead is delay, one frame always goes beside what the receiver may leave unacknowledged.
   */
  allows(inFlight: number, more: number, now: number): boolean {
    if (!this.urgent(now)) {
      return inFlight === 0 || inFlight + more <= this.#most;
    }
    return inFlight <= URGENT_ACK_BYTES || inFlight + more <= URGENT_GAIN * this.#product;
  }

  /** So many bytes more may be in flight; 0 while the control lane is in use. */
  room(inFlight: number, now: number): number {
    if (this.urgent(now)) return 0;
    return Math.max(0, this.#most - inFlight);
  }

  /** What it was seen to deliver lately, bytes per millisecond; 0 while nothing is known. */
  get rate(): number {
    return this.#bestRate;
  }

  get #most(): number {
    return Math.max(MIN_BYTES, GAIN * this.#product, BUSY_MS * this.#bestRate);
  }

  /** Whether the control lane is in use. */
  urgent(now: number): boolean {
    return now < this.#urgentUntil;
  }

  /** The control lane is in use. */
  noteUrgent(now: number): void {
    this.#urgentUntil = now + URGENT_MS;
  }

  /** So many bytes were acknowledged. */
  delivered(bytes: number, minRoundTripMs: number, now: number): void {
    this.#delivered += bytes;
    const elapsed = now - this.#since;
    const roundTrip = Number.isFinite(minRoundTripMs) ? minRoundTripMs : MIN_INTERVAL_MS;
    if (elapsed < Math.max(MIN_INTERVAL_MS, roundTrip)) return;
    const rate = this.#delivered / elapsed;
    this.#bestRate = Math.max(rate, this.#bestRate * DECAY);
    this.#product = this.#bestRate * roundTrip;
    this.#since = now;
    this.#delivered = 0;
  }
}
