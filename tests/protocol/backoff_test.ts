import { describe, it } from "node:test";
import assert from "node:assert/strict";
import fc from "fast-check";
import { Backoff, backoffDelay, type BackoffOptions } from "../../src/protocol/backoff.ts";

/** The seed's defaults ("Reconnection" in its page on the TCP transport). */
const SEED: BackoffOptions = {
  initialBackoffMs: 100,
  maxBackoffMs: 30_000,
  multiplier: 2,
  jitter: 0.1,
};

/**
 * The seed's table: attempt, base delay, least and greatest with 10 % of jitter. Its last row says
 * "8+: 30000 ms", which disagrees with the formula above it: 100 * 2^8 is 25,600, and 30,000 rules
 * from attempt 9. The formula is followed.
 */
const TABLE: readonly (readonly [attempt: number, base: number, least: number, most: number])[] = [
  [0, 100, 90, 110],
  [1, 200, 180, 220],
  [2, 400, 360, 440],
  [3, 800, 720, 880],
  [7, 12_800, 11_520, 14_080],
  [8, 25_600, 23_040, 28_160],
  [9, 30_000, 27_000, 33_000],
  [10, 30_000, 27_000, 33_000],
];

function delays(random01: number, options: Partial<BackoffOptions>, count: number) {
  const backoff = new Backoff({ ...SEED, ...options }, () => random01);
  return Array.from({ length: count }, () => backoff.next());
}

describe("backoffDelay", () => {
  for (const [attempt, base, least, most] of TABLE) {
    it(`waits ${least} to ${most} ms before attempt ${attempt}`, () => {
      assert.equal(backoffDelay(attempt, SEED, 0), least);
      assert.equal(backoffDelay(attempt, SEED, 0.5), base);
      assert.equal(backoffDelay(attempt, SEED, 1), most);
      assert.equal(backoffDelay(attempt, { ...SEED, jitter: 0 }, 0.9), base);
    });
  }

  it("stays at the longest delay however large the attempt is", () => {
    for (const attempt of [1023, 1024, 1e6, Number.MAX_SAFE_INTEGER, Number.MAX_VALUE]) {
      assert.equal(backoffDelay(attempt, SEED, 0.5), 30_000);
      assert.equal(backoffDelay(attempt, { ...SEED, multiplier: 1 }, 0.5), 100);
      assert.equal(backoffDelay(attempt, { ...SEED, initialBackoffMs: 0 }, 0.5), 0);
    }
  });

  it("is never negative, never NaN, and never above the longest delay plus its jitter", () => {
    const ms = fc.double({ min: 0, max: Number.MAX_SAFE_INTEGER, noNaN: true });
    const options = fc.record({
      initialBackoffMs: ms,
      maxBackoffMs: ms,
      multiplier: fc.double({ min: 1, max: Number.MAX_VALUE, noNaN: true }),
      jitter: fc.double({ min: 0, max: 1, noNaN: true }),
    });
    const random = fc.double({ min: 0, max: 1, noNaN: true });
    const attempt = fc.oneof(fc.nat(20), fc.maxSafeNat());
    fc.assert(fc.property(attempt, options, random, (attempt, options, random01) => {
      const delay = backoffDelay(attempt, options, random01);
      assert.ok(delay >= 0 && delay <= options.maxBackoffMs * 2, `${delay}`);
    }));
  });

  it("refuses an attempt that is no count", () => {
    for (const attempt of [-1, 0.5, NaN, Infinity]) {
      assert.throws(() => backoffDelay(attempt, SEED, 0.5), RangeError);
    }
  });
});

describe("Backoff", () => {
  it("grows from attempt to attempt, with the randomness it was given", () => {
    assert.deepEqual(delays(0, {}, 4), [90, 180, 360, 720]);
    assert.deepEqual(delays(0.5, {}, 4), [100, 200, 400, 800]);
    assert.deepEqual(delays(1, {}, 4), [110, 220, 440, 880]);
    assert.deepEqual(delays(0.5, { multiplier: 1.5 }, 3), [100, 150, 225]);
  });

  it("draws a new number for each attempt", () => {
    const numbers = [0, 1, 0.5];
    const backoff = new Backoff(SEED, () => numbers.shift()!);
    assert.deepEqual([backoff.next(), backoff.next(), backoff.next()], [90, 220, 400]);
  });

  it("gives up after maxAttempts, and for good", () => {
    assert.deepEqual(delays(0.5, { maxAttempts: 2 }, 4), [100, 200, undefined, undefined]);
    assert.deepEqual(delays(0.5, { maxAttempts: 0 }, 1), [undefined]);
  });

  it("never gives up without maxAttempts", () => {
    assert.equal(delays(0.5, { maxAttempts: undefined }, 5000).at(-1), 30_000);
  });

  it("starts over after a reset", () => {
    const backoff = new Backoff({ ...SEED, maxAttempts: 2 }, () => 0.5);
    assert.equal(backoff.attempt, 0);
    while (backoff.next() !== undefined);
    assert.equal(backoff.attempt, 2);
    backoff.reset();
    assert.equal(backoff.attempt, 0);
    assert.equal(backoff.next(), 100);
    assert.equal(backoff.attempt, 1);
  });

  it("does not follow later changes of the options object", () => {
    const options = { ...SEED };
    const backoff = new Backoff(options, () => 0.5);
    options.initialBackoffMs = 5;
    assert.equal(backoff.next(), 100);
  });

  it("refuses options out of range", () => {
    const bad: Partial<BackoffOptions>[] = [
      ...[-1, NaN, Infinity].map((initialBackoffMs) => ({ initialBackoffMs })),
      ...[-1, NaN, Infinity].map((maxBackoffMs) => ({ maxBackoffMs })),
      ...[0.99, NaN, Infinity].map((multiplier) => ({ multiplier })),
      ...[-0.1, 1.1, NaN].map((jitter) => ({ jitter })),
      ...[-1, 1.5, NaN, Infinity].map((maxAttempts) => ({ maxAttempts })),
    ];
    for (const options of bad) {
      assert.throws(() => new Backoff({ ...SEED, ...options }, () => 0.5), RangeError);
    }
  });
});
