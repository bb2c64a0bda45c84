/**
 * The deadlines of everything that belongs to one endpoint, with one timer of the runtime for all of
 * them. A timer of its own and the functions around it are a sizeable part of what an idle connection
 * takes, and there may be thousands.
 *
 * @module
 */

import type { Environment } from "../runtime/environment.ts";

/** One that waits for a time. Its fields belong to its {@linkcode Timers}. */
export interface Timed {
  /** When it is called, on the monotonic clock; Infinity: it does not wait. */
  timerAt: number;
  /** Its place among those that wait. */
  timerPlace: number;
  /** The time has come. It waits no more, until it is set again. */
  onDue(): void;
}

/** Those that wait, as a binary heap: none is due before the one at half its place. */
export class Timers {
  readonly #environment: Pick<Environment, "now" | "setTimer">;
  /** The first place is never used. */
  readonly #heap: Timed[] = [NOBODY];
  #armedAt = Infinity;
  #cancel: (() => void) | undefined;
  #running = false;

  /** Without anybody who waits. */
  constructor(environment: Pick<Environment, "now" | "setTimer">) {
    this.#environment = environment;
  }

  /** Calls it at a time, and not at the one that was set before. Infinity: never. */
  set(timed: Timed, at: number): void {
    if (at === timed.timerAt) return;
    if (at === Infinity) return this.clear(timed);
    const earlier = at < timed.timerAt;
    if (timed.timerAt === Infinity) timed.timerPlace = this.#heap.push(timed) - 1;
    timed.timerAt = at;
    if (earlier) this.#rise(timed);
    else this.#sink(timed);
    if (!this.#running) this.#arm();
  }

  /** It waits no more. */
  clear(timed: Timed): void {
    if (timed.timerAt === Infinity) return;
    this.#remove(timed);
    // An earlier timer finds out by itself that nothing is due; but none must be left behind.
    if (this.#heap.length === 1 && !this.#running) this.#arm();
  }

  #remove(timed: Timed): void {
    const at = timed.timerAt;
    const last = this.#heap.pop()!;
    timed.timerAt = Infinity;
    if (last === timed) return;
    this.#put(last, timed.timerPlace);
    if (last.timerAt < at) this.#rise(last);
    else this.#sink(last);
  }

  /** Sets the timer of the runtime where it would come too late, or for nobody. */
  #arm(): void {
    const first = this.#heap[1];
    const at = first === undefined ? Infinity : first.timerAt;
    if (first !== undefined && at >= this.#armedAt) return;
    this.#cancel?.();
    this.#cancel = undefined;
    this.#armedAt = at;
    if (first === undefined) return;
    const delay = Math.ceil(at - this.#environment.now());
    this.#cancel = this.#environment.setTimer(delay, this.#run);
  }

  readonly #run = (): void => {
    this.#cancel = undefined;
    this.#armedAt = Infinity;
    this.#running = true;
    try {
      const now = this.#environment.now();
      // Who is due again at once must not keep the process from everything else.
      for (let left = this.#heap.length - 1; left > 0; left--) {
        const next = this.#heap[1];
        if (next === undefined || next.timerAt > now) break;
        this.#remove(next);
        next.onDue();
      }
    } finally {
      // Where one of them throws, the others have their turn all the same.
      this.#running = false;
      this.#arm();
    }
  };

  #put(timed: Timed, place: number): void {
    this.#heap[place] = timed;
    timed.timerPlace = place;
  }

  #rise(timed: Timed): void {
    let place = timed.timerPlace;
    while (place > 1) {
      const parent = this.#heap[place >> 1]!;
      if (parent.timerAt <= timed.timerAt) break;
      this.#put(parent, place);
      place >>= 1;
    }
    this.#put(timed, place);
  }

  #sink(timed: Timed): void {
    let place = timed.timerPlace;
    for (let next = 2 * place; next < this.#heap.length; next = 2 * place) {
      const [left, right] = [this.#heap[next]!, this.#heap[next + 1]];
      const sooner = right !== undefined && right.timerAt < left.timerAt ? right : left;
      if (sooner.timerAt >= timed.timerAt) break;
      this.#put(sooner, place);
      place = sooner === left ? next : next + 1;
    }
    this.#put(timed, place);
  }
}

const NOBODY: Timed = { timerAt: -Infinity, timerPlace: 0, onDue: () => {} };
