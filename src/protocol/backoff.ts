/**
 * Exponential backoff with jitter. No timer and no randomness of its own.
 *
 * @module
 */

/** How delays grow. */
export interface BackoffOptions {
  /** Delay before the first attempt, in milliseconds: finite, at least 0. */
  initialBackoffMs: number;
  /** The longest delay before jitter, in milliseconds: finite, at least 0. */
  maxBackoffMs: number;
  /** Growth from one attempt to the next: finite, at least 1. */
  multiplier: number;
  /** The share of the delay that is random: 0 to 1. */
  jitter: number;
  /**
   * Attempts until `next` gives up: an integer of at least 0; undefined never gives up.
   * @default {undefined}
   */
  maxAttempts?: number | undefined;
}

/**
 * Counts attempts and says how long to wait before each.
 *
 * @example
 * ```ts
 * import { Backoff } from "@hawser/hawser";
 *
 * const backoff = new Backoff(
 *   { initialBackoffMs: 100, maxBackoffMs: 30_000, multiplier: 2, jitter: 0.1, maxAttempts: 3 },
 *   Math.random,
 * );
 * backoff.next(); // 90 to 110
 * backoff.next(); // 180 to 220
 * backoff.next(); // 360 to 440
 * backoff.next(); // undefined: three attempts were granted
 * backoff.reset(); // after a success
 * ```
 */
export class Backoff {
  readonly #options: BackoffOptions;
  readonly #random: () => number;
  #attempt = 0;

  /**
   * Makes a backoff that has made no attempt. The options are copied.
   *
   * @param options How delays grow.
   * @param random Gives numbers from 0 to 1, as `Math.random` does.
   * @throws {RangeError} If an option is out of range.
   */
  constructor(options: BackoffOptions, random: () => number) {
    this.#options = checked(options);
    this.#random = random;
  }

  /** Attempts that `next` has granted since the start or the last `reset`. */
  get attempt(): number {
    return this.#attempt;
  }

  /**
   * Grants an attempt.
   *
   * @returns Milliseconds to wait before it, with a fraction; undefined once `maxAttempts` are used up.
   */
  next(): number | undefined {
    const { maxAttempts } = this.#options;
    if (maxAttempts !== undefined && this.#attempt >= maxAttempts) return undefined;
    return backoffDelay(this.#attempt++, this.#options, this.#random());
  }

  /** Starts over with the first attempt and its short delay. */
  reset(): void {
    this.#attempt = 0;
  }
}

/**
 * The delay before one attempt:
 * `min(initialBackoffMs * multiplier ** attempt, maxBackoffMs)`, plus or minus up to `jitter` of it.
 *
 * @param attempt How many attempts came before this one: an integer of at least 0.
 * @param options How delays grow; taken as valid.
 * @param random01 Where in the jitter's range the delay lies: 0 the shortest, 1 the longest.
 * @returns Milliseconds, with a fraction; never negative, finite however large `attempt` is.
 * @throws {RangeError} If `attempt` is not an integer of at least 0.
 */
export function backoffDelay(attempt: number, options: BackoffOptions, random01: number): number {
  if (!isCount(attempt)) throw outOfRange("attempt", "an integer of at least 0", attempt);
  const { initialBackoffMs, maxBackoffMs, multiplier, jitter } = options;
  // 0 times the infinity that a huge attempt grows to would be NaN.
  const grown = initialBackoffMs === 0 ? 0 : initialBackoffMs * multiplier ** attempt;
  const backoff = Math.min(grown, maxBackoffMs);
  return Math.max(backoff + backoff * jitter * (2 * random01 - 1), 0);
}

function checked(options: BackoffOptions): BackoffOptions {
  const { initialBackoffMs, maxBackoffMs, multiplier, jitter, maxAttempts } = options;
  checkRange("initialBackoffMs", initialBackoffMs, 0, Number.MAX_SAFE_INTEGER);
  checkRange("maxBackoffMs", maxBackoffMs, 0, Number.MAX_SAFE_INTEGER);
  checkRange("multiplier", multiplier, 1, Number.MAX_VALUE);
  checkRange("jitter", jitter, 0, 1);
  if (maxAttempts !== undefined && !isCount(maxAttempts)) {
    throw outOfRange("maxAttempts", "undefined or an integer of at least 0", maxAttempts);
  }
  return { initialBackoffMs, maxBackoffMs, multiplier, jitter, maxAttempts };
}

function checkRange(name: string, value: number, least: number, most: number): void {
  if (value >= least && value <= most) return;
  throw outOfRange(name, `from ${least} to ${most}`, value);
}

function isCount(value: number): boolean {
  return Number.isInteger(value) && value >= 0;
}

function outOfRange(name: string, demand: string, value: number): RangeError {
  return new RangeError(`Cannot back off: ${name} must be ${demand}, got ${value}`);
}
