/**
 * What all connection attempts of an endpoint share, so that a hundred peers that come back at
 * once are not a storm.
 *
 * @module
 */

import { TokenBucket } from "../protocol/token_bucket.ts";
import type { Environment } from "../runtime/environment.ts";
import { Fifo } from "./fifo.ts";

/** Attempts under way at one time. */
const MAX_CONCURRENT_DIALS = 32;
/** Attempts that may start in one burst. */
const DIAL_BURST = 32;
/** Attempts per second in the long run. */
const DIALS_PER_SECOND = 100;

interface Waiter {
  readonly start: () => void;
  gone: boolean;
}

/** Hands out the right to dial, in the order of asking. */
export class DialBudget {
  readonly #environment: Environment;
  readonly #bucket: TokenBucket;
  readonly #waiters = new Fifo<Waiter>();
  #running = 0;
  #cancelTimer: (() => void) | undefined;

  /** Starts with a full burst. */
  constructor(environment: Environment) {
    this.#environment = environment;
    this.#bucket = new TokenBucket(
      { bucketSize: DIAL_BURST, refillRate: DIALS_PER_SECOND },
      environment.now(),
    );
  }

  /** Attempts under way. */
  get running(): number {
    return this.#running;
  }

  /** Resolves when it is this caller's turn, with a function to call when the attempt is over. */
  acquire(signal: AbortSignal): Promise<() => void> {
    if (signal.aborted) return Promise.reject(signal.reason);
    return new Promise((resolve, reject) => {
      const onAbort = () => {
        waiter.gone = true;
        reject(signal.reason);
        this.#next();
      };
      const start = () => {
        signal.removeEventListener("abort", onAbort);
        this.#running++;
        resolve(this.#releaser());
      };
      const waiter: Waiter = { start, gone: false };
      signal.addEventListener("abort", onAbort, { once: true });
      this.#waiters.push(waiter);
      this.#next();
    });
  }

  #releaser(): () => void {
    let released = false;
    return () => {
      if (released) return;
      released = true;
      this.#running--;
      this.#next();
    };
  }

  #next(): void {
    while (this.#running < MAX_CONCURRENT_DIALS) {
      const waiter = this.#waiters.peek();
      if (waiter === undefined) break;
      if (!waiter.gone) {
        const now = this.#environment.now();
        if (!this.#bucket.tryTake(now)) {
          return this.#wake(this.#bucket.retryAfterMs(now));
        }
        waiter.start();
      }
      this.#waiters.shift();
    }
    if (this.#waiters.length === 0) {
      this.#cancelTimer?.();
      this.#cancelTimer = undefined;
    }
  }

  #wake(delayMs: number): void {
    this.#cancelTimer ??= this.#environment.setTimer(delayMs, () => {
      this.#cancelTimer = undefined;
      this.#next();
    });
  }
}
