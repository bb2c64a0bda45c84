/**
 * What all connection attempts of an endpoint share, so that a hundred peers that come back at
 * once are not a storm.
 *
 * @module
 */

import { TokenBucket } from "../protocol/token_bucket.ts";
import type { Environment } from "../runtime/environment.ts";
import { Fifo } from "../protocol/fifo.ts";

/** How many attempts may be made. */
export interface DialLimits {
  /** Attempts under way at one time. */
  readonly concurrent: number;
  /** Attempts that may start in one burst. */
  readonly burst: number;
  /** Attempts per second in the long run. */
  readonly perSecond: number;
}

/** For peers that were lost or are wanted for the first time. */
export const DIAL_LIMITS: DialLimits = { concurrent: 32, burst: 32, perSecond: 100 };
/**
 * For the renewal of silent connections, which must come in time and are spread by jitter: a budget
 * of their own, so that dead peers can't use it up.
 */
export const RENEWAL_LIMITS: DialLimits = { concurrent: 256, burst: 1000, perSecond: 1000 };

interface Waiter {
  readonly start: () => void;
  gone: boolean;
}

/** Hands out the right to dial, in the order of asking. */
export class DialBudget {
  readonly #environment: Environment;
  readonly #bucket: TokenBucket;
  readonly #concurrent: number;
  readonly #waiters = new Fifo<Waiter>();
  #running = 0;
  #cancelTimer: (() => void) | undefined;

  /** Starts with a full burst. */
  constructor(environment: Environment, { concurrent, burst, perSecond }: DialLimits) {
    this.#environment = environment;
    this.#concurrent = concurrent;
    const bucket = { bucketSize: burst, refillRate: perSecond };
    this.#bucket = new TokenBucket(bucket, environment.now());
  }

  /** Resolves when it is this caller's turn, with a function to call when the attempt is over. */
  acquire(signal: AbortSignal): Promise<() => void> {
    if (signal.aborted) return Promise.reject(signal.reason);
    // Nobody waits and there is room: the usual case.
    if (this.#waiters.length === 0 && this.#take()) return Promise.resolve(this.#releaser());
    return new Promise((resolve, reject) => {
      const onAbort = () => {
        waiter.gone = true;
        reject(signal.reason);
        this.#next();
      };
      const start = () => {
        signal.removeEventListener("abort", onAbort);
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

  #take(): boolean {
    if (this.#running >= this.#concurrent) return false;
    if (!this.#bucket.tryTake(this.#environment.now())) return false;
    this.#running++;
    return true;
  }

  #next(): void {
    while (this.#running < this.#concurrent) {
      const waiter = this.#waiters.peek();
      if (waiter === undefined) break;
      if (!waiter.gone) {
        if (!this.#take()) {
          return this.#wake(this.#bucket.retryAfterMs(this.#environment.now()));
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
