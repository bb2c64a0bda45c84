/**
 * A token bucket without a clock of its own.
 *
 * @module
 */

/** The size and speed of a {@linkcode TokenBucket}. */
export interface TokenBucketOptions {
  /** How many tokens fit: what may be done in one burst. Finite, at least 1. */
  bucketSize: number;
  /** Tokens per second that are added. Finite, above 0. */
  refillRate: number;
}

/**
 * Lets through `bucketSize` actions at once and `refillRate` per second in the long run.
 *
 * `now` is in milliseconds from any fixed start, fractions allowed, and should come from a
 * monotonic clock such as `performance.now()`. Where it goes backwards, time stands still until it
 * has caught up. What was added is computed from one starting point, so nothing is lost or won by
 * asking often.
 *
 * @example
 * ```ts
 * import { TokenBucket } from "@hawser/hawser";
 *
 * const bucket = new TokenBucket({ bucketSize: 2, refillRate: 50 }, 0);
 * bucket.tryTake(0); // true
 * bucket.tryTake(0); // true
 * bucket.tryTake(0); // false: empty
 * bucket.retryAfterMs(0); // 20: one token takes 1000 / 50 ms
 * bucket.tryTake(20); // true
 * ```
 */
export class TokenBucket {
  readonly #bucketSize: number;
  readonly #refillRate: number;
  /** When the bucket was last full. */
  #since: number;
  /** Tokens taken since then. */
  #taken = 0;
  /** The latest time that a token was asked for. */
  #latest: number;

  /**
   * Makes a full bucket.
   *
   * @throws {RangeError} If an option is out of range or `now` is not finite.
   */
  constructor({ bucketSize, refillRate }: TokenBucketOptions, now: number) {
    if (!(Number.isFinite(bucketSize) && bucketSize >= 1)) {
      throw outOfRange("bucketSize", "finite and at least 1", bucketSize);
    }
    if (!(Number.isFinite(refillRate) && refillRate > 0)) {
      throw outOfRange("refillRate", "finite and above 0", refillRate);
    }
    this.#bucketSize = bucketSize;
    this.#refillRate = refillRate;
    this.#since = checkTime(now);
    this.#latest = now;
  }

  /**
   * Takes one token if there is one.
   *
   * @returns Whether there was one.
   * @throws {RangeError} If `now` is not finite.
   */
  tryTake(now: number): boolean {
    checkTime(now);
    if (now > this.#latest) this.#latest = now;
    const tokens = this.tokens(now);
    if (tokens < 1) return false;
    if (tokens === this.#bucketSize) {
      this.#since = this.#latest;
      this.#taken = 0;
    }
    this.#taken++;
    return true;
  }

  /**
   * Milliseconds to wait from `now` until {@linkcode tryTake} succeeds, rounded up to whole ones;
   * 0 where it would at once.
   *
   * @throws {RangeError} If `now` is not finite.
   */
  retryAfterMs(now: number): number {
    const tokens = this.tokens(now);
    if (tokens >= 1) return 0;
    // A clock that has gone backwards has to catch up first.
    const behind = Math.max(this.#latest - now, 0);
    const wait = Math.ceil(behind + (1 - tokens) * 1000 / this.#refillRate);
    // Where the token is due on a whole millisecond, rounding may have put it just behind that.
    return this.tokens(now + wait) < 1 ? wait + 1 : wait;
  }

  /**
   * Tokens in the bucket, with the fraction of the one being added. Changes nothing.
   *
   * @throws {RangeError} If `now` is not finite.
   */
  tokens(now: number): number {
    const elapsedMs = Math.max(checkTime(now), this.#latest) - this.#since;
    const tokens = this.#bucketSize - this.#taken + elapsedMs * this.#refillRate / 1000;
    return Math.min(tokens, this.#bucketSize);
  }
}

function checkTime(now: number): number {
  if (Number.isFinite(now)) return now;
  throw outOfRange("now", "finite", now);
}

function outOfRange(name: string, demand: string, value: number): RangeError {
  return new RangeError(`Cannot use a token bucket: ${name} must be ${demand}, got ${value}`);
}
