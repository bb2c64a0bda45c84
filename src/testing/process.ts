/**
 * A process in a simulated network: what goes with it when it dies.
 *
 * @module
 */

import type { Environment } from "../runtime/environment.ts";
import type { LinkOwner, SimulatedLink } from "./link.ts";
import type { Random } from "./random.ts";
import type { VirtualTime } from "./virtual_time.ts";

/** What the wall clock shows when a simulation begins. */
const START_OF_TIME = 1_700_000_000_000;

/** One start of a host. */
export class SimulatedProcess implements LinkOwner {
  readonly host: string;
  readonly links: Set<SimulatedLink> = new Set();
  /** Its clocks, timers and randomness. */
  readonly environment: Environment;
  readonly #time: VirtualTime;
  /** Cancels a timer; all that are set. */
  readonly #timers = new Set<() => void>();
  /** What happened to it while it stood still. */
  #held: (() => void)[] = [];
  #alive = true;
  #paused = false;

  /** `clockOffsetMs` is asked for each time the wall clock is. */
  constructor(host: string, time: VirtualTime, random: Random, clockOffsetMs: () => number) {
    this.host = host;
    this.#time = time;
    this.environment = {
      wallClock: () => START_OF_TIME + time.now() + clockOffsetMs(),
      now: () => time.now(),
      setTimer: (delayMs, callback) => this.#setTimer(delayMs, callback),
      random: () => random.next(),
      randomBytes: (length) => random.bytes(length),
    };
  }

  get alive(): boolean {
    return this.#alive;
  }

  get paused(): boolean {
    return this.#paused;
  }

  /** Timers it has set. */
  get pendingTimers(): number {
    return this.#timers.size;
  }

  /** Calls at once, or when it runs again, or never if it is dead. */
  turn(callback: () => void): void {
    if (!this.#alive) return;
    if (this.#paused) this.#held.push(callback);
    else callback();
  }

  /** Stands still. */
  pause(): void {
    this.#paused = true;
  }

  /** Goes on; all that it has missed comes now. */
  resume(): void {
    if (!this.#paused) return;
    this.#paused = false;
    const held = this.#held;
    this.#held = [];
    for (const callback of held) this.#time.setTimer(0, () => this.turn(callback));
    for (const link of this.links) link.wake();
  }

  /** Dies; `silent`: so does its host, which tells nobody. */
  kill(silent: boolean): void {
    this.#alive = false;
    this.#held.length = 0;
    for (const cancel of [...this.#timers]) cancel();
    for (const link of this.links) link.abandon(silent);
    this.links.clear();
  }

  #setTimer(delayMs: number, callback: () => void): () => void {
    // What a dead process sets in its last turn never fires.
    if (!this.#alive) return () => {};
    const cancelShared = this.#time.setTimer(delayMs, () => {
      this.turn(() => {
        if (this.#timers.delete(cancel)) callback();
      });
    });
    const cancel = () => {
      if (this.#timers.delete(cancel)) cancelShared();
    };
    this.#timers.add(cancel);
    return cancel;
  }
}
