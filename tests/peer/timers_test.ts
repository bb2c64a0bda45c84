import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import { type Timed, Timers } from "../../src/peer/timers.ts";

/** A clock and timers that stand still until `run`. */
class Clock {
  time = 0;
  /** Every timer that is set and not cancelled, by the time it fires at. */
  readonly set = new Map<object, { readonly at: number; readonly callback: () => void }>();

  now(): number {
    return this.time;
  }

  setTimer(delayMs: number, callback: () => void): () => void {
    const key = {};
    this.set.set(key, { at: this.time + Math.max(0, delayMs), callback });
    return () => void this.set.delete(key);
  }

  /** Goes to the next timer and fires it; false where there is none. */
  fire(): boolean {
    const [next] = [...this.set].sort(([, a], [, b]) => a.at - b.at);
    if (next === undefined) return false;
    const [key, { at, callback }] = next;
    this.set.delete(key);
    this.time = Math.max(this.time, at);
    callback();
    return true;
  }
}

class Waiting implements Timed {
  timerAt = Infinity;
  timerPlace = 0;
  readonly name: number;
  readonly #onDue: (waiting: Waiting) => void;

  constructor(name: number, onDue: (waiting: Waiting) => void) {
    this.name = name;
    this.#onDue = onDue;
  }

  onDue(): void {
    this.#onDue(this);
  }
}

describe("deadlines that share a timer", () => {
  it("come in the order of their times, with one timer at a time", () => {
    const clock = new Clock();
    const timers = new Timers(clock);
    const seen: [number, number][] = [];
    const times = [30, 10, 20.5, 50, 40];
    for (const [name, at] of times.entries()) {
      timers.set(new Waiting(name, () => seen.push([name, clock.time])), at);
      assert.equal(clock.set.size, 1);
    }
    while (clock.fire());
    assert.deepEqual(seen, [[1, 10], [2, 21], [0, 30], [4, 40], [3, 50]]);
    assert.equal(clock.set.size, 0);
  });

  it("leave no timer behind when nobody waits any more", () => {
    const clock = new Clock();
    const timers = new Timers(clock);
    const [a, b] = [new Waiting(0, () => assert.fail()), new Waiting(1, () => assert.fail())];
    timers.set(a, 10);
    timers.set(b, 20);
    timers.clear(b);
    timers.clear(b);
    assert.equal(clock.set.size, 1);
    timers.set(a, Infinity);
    assert.equal(clock.set.size, 0);
    assert.equal(a.timerAt, Infinity);
  });

  it("may be moved both ways", () => {
    const clock = new Clock();
    const timers = new Timers(clock);
    const seen: number[] = [];
    const waiting = [0, 1, 2].map((name) => new Waiting(name, () => seen.push(name)));
    for (const [i, each] of waiting.entries()) timers.set(each, 10 * (i + 1));
    timers.set(waiting[0]!, 40);
    timers.set(waiting[2]!, 5);
    while (clock.fire());
    assert.deepEqual(seen, [2, 1, 0]);
  });

  it("of one that throws do not keep the others from theirs", () => {
    const clock = new Clock();
    const timers = new Timers(clock);
    const seen: number[] = [];
    timers.set(
      new Waiting(0, () => {
        throw new Error("on purpose");
      }),
      10,
    );
    timers.set(new Waiting(1, () => seen.push(1)), 10);
    timers.set(new Waiting(2, () => seen.push(2)), 30);
    assert.throws(() => clock.fire(), /on purpose/);
    while (clock.fire());
    assert.deepEqual(seen, [1, 2]);
  });

  it("that come again at once let the process do something else in between", () => {
    const clock = new Clock();
    const timers = new Timers(clock);
    let calls = 0;
    const greedy = new Waiting(0, (self) => {
      calls++;
      timers.set(self, clock.time);
    });
    timers.set(greedy, 10);
    clock.fire();
    assert.equal(calls, 1);
    assert.equal(clock.set.size, 1);
    clock.fire();
    assert.equal(calls, 2);
  });

  it("may set and clear each other while they are called", () => {
    const clock = new Clock();
    const timers = new Timers(clock);
    const seen: [number, number][] = [];
    const second = new Waiting(1, () => seen.push([1, clock.time]));
    const third = new Waiting(2, () => seen.push([2, clock.time]));
    timers.set(
      new Waiting(0, () => {
        timers.clear(second);
        timers.set(third, 50);
      }),
      10,
    );
    timers.set(second, 10);
    timers.set(third, 10);
    while (clock.fire());
    assert.deepEqual(seen, [[2, 50]]);
  });

  it("are all kept, whatever is set, moved and cleared", () => {
    const step = fc.record({
      who: fc.nat(19),
      at: fc.oneof(fc.integer({ min: 0, max: 1_000 }), fc.constant(Infinity)),
    });
    fc.assert(fc.property(fc.array(step, { maxLength: 200 }), (steps) => {
      const clock = new Clock();
      const timers = new Timers(clock);
      const seen: [number, number][] = [];
      const all = Array.from({ length: 20 }, (_, name) => {
        return new Waiting(name, () => seen.push([clock.time, name]));
      });
      const model = new Map<number, number>();
      for (const { who, at } of steps) {
        timers.set(all[who]!, at);
        if (at === Infinity) model.delete(who);
        else model.set(who, at);
      }
      assert.ok(clock.set.size <= 1);
      while (clock.fire());
      const byTime = (a: [number, number], b: [number, number]) => a[0] - b[0] || a[1] - b[1];
      const expected = [...model].map(([who, at]): [number, number] => [at, who]);
      assert.deepEqual(seen.map(([at]) => at), seen.map(([at]) => at).sort((a, b) => a - b));
      assert.deepEqual(seen.sort(byTime), expected.sort(byTime));
    }));
  });
});
