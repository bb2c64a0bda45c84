import { describe, it } from "node:test";
import assert from "node:assert/strict";
import fc from "fast-check";
import { ReplayWindow } from "../../src/protocol/replay.ts";

const NOW = 1_700_000_000_000;
const SKEW = 300_000;

describe("ReplayWindow", () => {
  it("admits a hello once", () => {
    const window = new ReplayWindow({ maxSkewMs: SKEW });
    assert.equal(window.admit("a", NOW, "n1", NOW), true);
    assert.equal(window.admit("a", NOW, "n1", NOW), false);
    assert.equal(window.admit("a", NOW, "n1", NOW + SKEW), false);
    assert.equal(window.size, 1);
  });

  it("refuses a nonce that comes back with another timestamp", () => {
    const window = new ReplayWindow({ maxSkewMs: SKEW });
    assert.equal(window.admit("a", NOW, "n1", NOW), true);
    assert.equal(window.admit("a", NOW + 1, "n1", NOW), false);
    assert.equal(window.admit("a", NOW + SKEW, "n1", NOW + SKEW), false);
  });

  it("keeps nodes and nonces apart, wherever one name ends and the next begins", () => {
    const window = new ReplayWindow({ maxSkewMs: SKEW });
    const pairs = [["a", "n"], ["a", "m"], ["b", "n"], ["an", ""], ["", "an"], [
      "1:a",
      "n",
    ]] as const;
    for (const [node, nonce] of pairs) assert.equal(window.admit(node, NOW, nonce, NOW), true);
    for (const [node, nonce] of pairs) assert.equal(window.admit(node, NOW, nonce, NOW), false);
  });

  it("admits to the very ends of the skew window and nothing beyond", () => {
    const window = new ReplayWindow({ maxSkewMs: SKEW });
    assert.equal(window.admit("a", NOW - SKEW, "n1", NOW), true);
    assert.equal(window.admit("a", NOW + SKEW, "n2", NOW), true);
    assert.equal(window.admit("a", NOW - SKEW - 1, "n3", NOW), false);
    assert.equal(window.admit("a", NOW + SKEW + 1, "n4", NOW), false);
    assert.equal(window.admit("a", NaN, "n5", NOW), false);
    assert.equal(window.admit("a", NOW, "n6", NaN), false);
    assert.equal(window.size, 2);
  });

  it("takes a nonce again once its timestamp has left the window", () => {
    const window = new ReplayWindow({ maxSkewMs: SKEW });
    window.admit("a", NOW, "n1", NOW);
    const later = NOW + SKEW + 1;
    assert.equal(window.admit("a", later, "n1", later), true);
    assert.equal(window.admit("a", later, "n1", later), false);
    assert.equal(window.admit("a", NOW, "n1", NOW), false, "nor the first one, the clock set back");
    assert.equal(window.size, 1);
  });

  it("forgets what is too old, but for a sixteenth of its capacity", () => {
    const window = new ReplayWindow({ maxSkewMs: SKEW, capacity: 64 });
    for (let i = 0; i < 50; i++) window.admit("a", NOW + i, `n${i}`, NOW);
    assert.equal(window.size, 50);
    const later = NOW + SKEW + 1000;
    assert.equal(window.admit("a", later, "new", later), true);
    assert.equal(window.size, 5);
  });

  it("forgets the oldest timestamps when full, and refuses what is no younger from then on", () => {
    const window = new ReplayWindow({ maxSkewMs: SKEW, capacity: 3 });
    for (const offset of [30, 10, 40, 20]) {
      assert.equal(window.admit("a", NOW + offset, `n${offset}`, NOW), true);
    }
    assert.equal(window.size, 3);
    assert.equal(window.admit("a", NOW + 10, "n10", NOW), false, "the one that was forgotten");
    assert.equal(window.admit("a", NOW + 10, "fresh", NOW), false, "as old as it");
    assert.equal(window.admit("a", NOW + 11, "fresh", NOW), true, "younger");
    for (const offset of [20, 30, 40]) {
      assert.equal(window.admit("a", NOW + offset, `n${offset}`, NOW), false, `n${offset}`);
    }
  });

  it("stays shut to replays and open to others when timestamps ahead of ours fill it", () => {
    const window = new ReplayWindow({ maxSkewMs: SKEW, capacity: 100 });
    for (let i = 0; i < 1000; i++) window.admit("flood", NOW + SKEW, `f${i}`, NOW);
    for (let i = 1; i <= 50; i++) {
      assert.equal(window.admit("a", NOW + i, `n${i}`, NOW), false, "below the flood: refused");
    }
    const later = NOW + SKEW + 1;
    assert.equal(window.admit("a", later, "n", later), true, "until our clock has passed it");
    assert.equal(window.size, 100);
  });

  it("serves fresh hellos when the clock was a year ahead and is set right", () => {
    const window = new ReplayWindow({ maxSkewMs: SKEW });
    const year = 365 * 86_400_000;
    assert.equal(window.admit("a", NOW, "n1", NOW), true);
    for (let i = 0; i < 1000; i++) {
      const wrong = NOW + year + i * 1000;
      assert.equal(window.admit("a", wrong, `w${i}`, wrong), true);
    }
    assert.equal(window.admit("a", NOW, "n1", NOW), false);
    assert.equal(window.admit("a", NOW + 5, "n2", NOW + 5), true);
    assert.equal(window.admit("a", NOW + year, "w0", NOW + year), false);
  });

  it("holds its capacity through 150,000 hellos, in any order of timestamps", () => {
    const window = new ReplayWindow({ maxSkewMs: SKEW });
    for (let i = 0; i < 150_000; i++) {
      // 7919 is prime to 599,999: a fixed shuffle of the whole window.
      window.admit("a", NOW - SKEW + (i * 7919) % 599_999, `n${i}`, NOW);
    }
    assert.equal(window.size, 65_536);
  });

  it("refuses senseless options", () => {
    for (const maxSkewMs of [-1, NaN, Infinity]) {
      assert.throws(() => new ReplayWindow({ maxSkewMs }), RangeError);
    }
    for (const capacity of [0, -1, 1.5, NaN, Infinity]) {
      assert.throws(() => new ReplayWindow({ maxSkewMs: 1, capacity }), RangeError);
    }
  });
});

describe("ReplayWindow against a model that forgets nothing", () => {
  const skew = 20;
  /** A clock that runs on, jumps and goes back; timestamps around it; few names, so they recur. */
  const steps = fc.array(
    fc.record({
      clock: fc.oneof(fc.integer({ min: 0, max: 10 }), fc.integer({ min: -150, max: 150 })),
      offset: fc.integer({ min: -skew - 3, max: skew + 3 }),
      node: fc.constantFrom("a", "b"),
      nonce: fc.integer({ min: 0, max: 5 }).map(String),
    }),
    { maxLength: 200 },
  );

  it("never admits the same hello twice, whatever the clock does and however small it is", () => {
    fc.assert(fc.property(steps, fc.integer({ min: 1, max: 40 }), (steps, capacity) => {
      const window = new ReplayWindow({ maxSkewMs: skew, capacity });
      const admitted: { node: string; nonce: string; timestamp: number }[] = [];
      let now = 1000;
      const offer = (node: string, nonce: string, timestamp: number) => {
        const passes = timestamp >= now - skew && timestamp <= now + skew;
        const seen = admitted.some((hello) =>
          hello.node === node && hello.nonce === nonce && hello.timestamp === timestamp
        );
        const answer = window.admit(node, timestamp, nonce, now);
        assert.ok(!answer || (passes && !seen), `${node} ${nonce} ${timestamp} at ${now}`);
        assert.ok(window.size <= capacity);
        if (answer) admitted.push({ node, nonce, timestamp });
      };
      for (const { clock, offset, node, nonce } of steps) {
        now += clock;
        offer(node, nonce, now + offset);
        // An attacker sends everything it ever overheard.
        for (const hello of [...admitted]) offer(hello.node, hello.nonce, hello.timestamp);
      }
    }));
  });

  it("where all fit, never admits a nonce again while its timestamp is in the window", () => {
    fc.assert(fc.property(steps, (steps) => {
      const window = new ReplayWindow({ maxSkewMs: skew });
      const admitted: { name: string; timestamp: number }[] = [];
      let now = 1000;
      for (const { clock, offset, node, nonce } of steps) {
        now += clock;
        const name = `${node} ${nonce}`;
        const held = admitted.some((hello) =>
          hello.name === name && Math.abs(hello.timestamp - now) <= skew
        );
        const answer = window.admit(node, now + offset, nonce, now);
        assert.ok(!(held && answer));
        if (answer) admitted.push({ name, timestamp: now + offset });
      }
    }));
  });

  it("forgets exactly the oldest when it is full", () => {
    const timestamps = fc.array(fc.integer({ min: 0, max: 1000 }), {
      minLength: 60,
      maxLength: 200,
    });
    fc.assert(fc.property(timestamps, fc.integer({ min: 1, max: 24 }), (timestamps, capacity) => {
      const window = new ReplayWindow({ maxSkewMs: 1000, capacity });
      const kept: number[] = [];
      let forgotten = -Infinity;
      timestamps.forEach((timestamp, i) => {
        assert.equal(window.admit("a", timestamp, `n${i}`, 500), timestamp > forgotten);
        if (timestamp <= forgotten) return;
        kept.push(timestamp);
        kept.sort((a, b) => a - b);
        if (kept.length > capacity) forgotten = kept.shift()!;
      });
      assert.equal(window.size, kept.length);
    }));
  });

  it("while the clock runs forward and all fit, admits every hello that is new and in time", () => {
    fc.assert(fc.property(steps, (steps) => {
      const window = new ReplayWindow({ maxSkewMs: skew, capacity: 200 });
      let now = 1000;
      steps.forEach(({ clock, offset, node }, i) => {
        now += Math.abs(clock);
        const inTime = Math.abs(offset) <= skew;
        assert.equal(window.admit(node, now + offset, `new ${i}`, now), inTime);
      });
    }));
  });
});

describe("a node that says hello too often", () => {
  it("is refused itself, and pushes nobody else out", () => {
    const window = new ReplayWindow({ maxSkewMs: 300_000, capacity: 1_000, maxPerNode: 100 });
    const now = 1_700_000_000_000;
    for (let i = 0; i < 100; i++) {
      assert.equal(window.admit("noisy", now + 299_999, `${i}`, now), true);
    }
    assert.equal(window.admit("noisy", now + 299_999, "one more", now), false);
    assert.equal(window.admit("quiet", now, "first", now), true);
    // When its hellos are too old to be replayed, there is room for it again.
    assert.equal(window.admit("noisy", now + 700_000, "later", now + 700_000), true);
  });
});
