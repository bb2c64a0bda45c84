import { describe, it } from "node:test";
import assert from "node:assert/strict";
import fc from "fast-check";
import { TokenBucket } from "../../src/protocol/token_bucket.ts";

/** Tokens that can be taken at one moment. */
function takeAll(bucket: TokenBucket, now: number): number {
  let taken = 0;
  while (bucket.tryTake(now)) taken++;
  return taken;
}

const size = fc.integer({ min: 1, max: 50 });
const rate = fc.oneof(
  fc.integer({ min: 1, max: 5000 }),
  fc.double({ min: 0.01, max: 5000, noNaN: true }),
);
const start = fc.oneof(
  fc.integer({ min: -1000, max: 2 ** 41 }),
  fc.double({ min: 0, max: 1e9, noNaN: true }),
);

describe("TokenBucket", () => {
  it("starts full, whatever the clock says", () => {
    for (const now of [-5, 0, 0.25, 1_700_000_000_000]) {
      const bucket = new TokenBucket({ bucketSize: 100, refillRate: 50 }, now);
      assert.equal(bucket.tokens(now), 100);
      assert.equal(takeAll(bucket, now), 100);
      assert.equal(bucket.tokens(now), 0);
    }
  });

  it("refills at the rate and no further than its size", () => {
    const bucket = new TokenBucket({ bucketSize: 100, refillRate: 50 }, 0);
    takeAll(bucket, 0);
    assert.equal(bucket.tryTake(19), false);
    assert.equal(bucket.tryTake(20), true);
    assert.equal(takeAll(bucket, 1020), 50);
    assert.equal(bucket.tokens(1030), 0.5);
    assert.equal(bucket.tokens(3_600_000), 100);
    assert.equal(takeAll(bucket, 3_600_000), 100);
    assert.equal(takeAll(bucket, 3_600_020), 1);
  });

  it("does not save up while it is full", () => {
    const bucket = new TokenBucket({ bucketSize: 2, refillRate: 1000 }, 0);
    assert.equal(bucket.tryTake(1_000_000), true);
    assert.equal(takeAll(bucket, 1_000_000), 1);
  });

  it("neither loses nor wins by being asked often", () => {
    // 3 per second, asked every 7 ms for an hour: additions of 0.021 would drift.
    const bucket = new TokenBucket({ bucketSize: 5, refillRate: 3 }, 0);
    let taken = takeAll(bucket, 0);
    for (let now = 7; now <= 3_600_000; now += 7) if (bucket.tryTake(now)) taken++;
    assert.equal(taken, 5 + Math.floor(3 * Math.floor(3_600_000 / 7) * 7 / 1000));
  });

  it("grants the same to one that is asked often as to one that is asked once", () => {
    const steps = fc.array(fc.integer({ min: 0, max: 40 }), { maxLength: 60 });
    fc.assert(fc.property(size, rate, start, steps, (bucketSize, refillRate, start, steps) => {
      const often = new TokenBucket({ bucketSize, refillRate }, start);
      const once = new TokenBucket({ bucketSize, refillRate }, start);
      takeAll(often, start);
      takeAll(once, start);
      let now = start;
      for (const step of steps) {
        now += step;
        often.tokens(now);
        often.retryAfterMs(now);
      }
      assert.equal(often.tokens(now), once.tokens(now));
    }));
  });

  it("never grants more than its size and the rate times the time that passed", () => {
    const steps = fc.array(fc.double({ min: 0, max: 500, noNaN: true }), { maxLength: 60 });
    fc.assert(fc.property(size, rate, start, steps, (bucketSize, refillRate, start, steps) => {
      const bucket = new TokenBucket({ bucketSize, refillRate }, start);
      let now = start;
      let taken = takeAll(bucket, now);
      for (const step of steps) {
        now += step;
        taken += takeAll(bucket, now);
        assert.ok(taken <= bucketSize + (now - start) * refillRate / 1000 + 1e-6);
      }
    }));
  });

  it("has a token after the time it named, and has none a millisecond and more before", () => {
    const steps = fc.array(fc.double({ min: 0, max: 500, noNaN: true }), { maxLength: 10 });
    fc.assert(fc.property(size, rate, start, steps, (bucketSize, refillRate, start, steps) => {
      const bucket = new TokenBucket({ bucketSize, refillRate }, start);
      let now = start;
      for (const step of steps) {
        now += step;
        takeAll(bucket, now);
        const wait = bucket.retryAfterMs(now);
        assert.ok(Number.isInteger(wait) && wait > 0);
        if (wait > 2) assert.ok(bucket.tokens(now + wait - 2) < 1);
        assert.equal(bucket.tryTake(now + wait), true);
        now += wait;
      }
    }));
  });

  it("names a time that is enough though fractions are rounded", () => {
    // 0.1 + 4 ms at 250 per second and 0.3 + 2 ms at 500 come to 0.9999999999999999 tokens.
    for (const [refillRate, now] of [[250, 0.1], [500, 0.3]] as const) {
      const bucket = new TokenBucket({ bucketSize: 1, refillRate }, now);
      bucket.tryTake(now);
      assert.equal(bucket.tryTake(now + bucket.retryAfterMs(now)), true);
    }
  });

  it("names 0 as the time to wait while it has a token", () => {
    const bucket = new TokenBucket({ bucketSize: 1, refillRate: 4 }, 0);
    assert.equal(bucket.retryAfterMs(0), 0);
    bucket.tryTake(0);
    assert.equal(bucket.retryAfterMs(0), 250);
    assert.equal(bucket.retryAfterMs(249.5), 1);
    assert.equal(bucket.retryAfterMs(250), 0);
  });

  it("changes nothing when it is only asked", () => {
    const bucket = new TokenBucket({ bucketSize: 2, refillRate: 10 }, 0);
    takeAll(bucket, 0);
    assert.equal(bucket.tokens(10_000), 2);
    assert.equal(bucket.retryAfterMs(10_000), 0);
    assert.equal(bucket.tokens(50), 0.5);
  });

  it("adds nothing while the clock is behind where it was, and goes on after that", () => {
    const bucket = new TokenBucket({ bucketSize: 10, refillRate: 10 }, 1000);
    takeAll(bucket, 1000);
    assert.equal(bucket.tryTake(-1_000_000), false);
    assert.equal(bucket.tokens(500), 0);
    assert.equal(bucket.tryTake(999), false);
    assert.equal(bucket.retryAfterMs(900), 200);
    assert.equal(bucket.tryTake(1099), false);
    assert.equal(bucket.tryTake(1100), true);
    assert.equal(takeAll(bucket, 1_000_000), 10);
  });

  it("still grants what it holds while the clock is behind", () => {
    const bucket = new TokenBucket({ bucketSize: 3, refillRate: 10 }, 1000);
    assert.equal(bucket.tokens(0), 3);
    assert.equal(takeAll(bucket, 0), 3);
    assert.equal(bucket.tryTake(1000), false);
  });

  it("never grants more for a clock that jumps about than for the latest time it showed", () => {
    const clock = fc.array(fc.integer({ min: -5000, max: 5000 }), { minLength: 1, maxLength: 60 });
    fc.assert(fc.property(size, rate, clock, (bucketSize, refillRate, clock) => {
      const bucket = new TokenBucket({ bucketSize, refillRate }, 0);
      let latest = 0;
      let taken = 0;
      for (const now of clock) {
        latest = Math.max(latest, now);
        const tokens = bucket.tokens(now);
        assert.ok(tokens >= -1e-6 && tokens <= bucketSize);
        taken += takeAll(bucket, now);
        assert.ok(taken <= bucketSize + latest * refillRate / 1000 + 1e-6);
      }
    }));
  });

  it("refuses options and times it can't count with", () => {
    for (const bucketSize of [0, 0.5, -1, NaN, Infinity]) {
      assert.throws(() => new TokenBucket({ bucketSize, refillRate: 1 }, 0), RangeError);
    }
    for (const refillRate of [0, -1, NaN, Infinity]) {
      assert.throws(() => new TokenBucket({ bucketSize: 1, refillRate }, 0), RangeError);
    }
    const bucket = new TokenBucket({ bucketSize: 1, refillRate: 1 }, 0);
    for (const now of [NaN, Infinity, -Infinity]) {
      assert.throws(() => new TokenBucket({ bucketSize: 1, refillRate: 1 }, now), RangeError);
      assert.throws(() => bucket.tryTake(now), RangeError);
      assert.throws(() => bucket.tokens(now), RangeError);
      assert.throws(() => bucket.retryAfterMs(now), RangeError);
    }
    assert.equal(bucket.tokens(0), 1);
  });
});
