/** Time that stands still until it is told to pass. */

import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { VirtualTime } from "../../src/testing/virtual_time.ts";

describe("VirtualTime", () => {
  it("runs timers in their order, and those of one instant in the order of setting", async () => {
    const time = new VirtualTime();
    const fired: string[] = [];
    const set = (name: string, ms: number) =>
      time.setTimer(ms, () => fired.push(`${name}@${time.now()}`));
    set("c", 10.5);
    set("a", 3);
    set("b", 3);
    set("late", 11);
    set("now", 0);
    set("before", -5);
    await time.advance(10.75);
    assert.deepEqual(fired, ["now@0", "before@0", "a@3", "b@3", "c@10.5"]);
    assert.equal(time.now(), 10.75);
    assert.equal(time.pendingTimers, 1);
  });

  it("runs all promise callbacks between two timers, however long their chain is", async () => {
    const time = new VirtualTime();
    const order: string[] = [];
    time.setTimer(1, async () => {
      for (let i = 0; i < 5_000; i++) await Promise.resolve();
      order.push("the chain of the first");
    });
    time.setTimer(1, () => order.push("the second"));
    await time.advance(1);
    assert.deepEqual(order, ["the chain of the first", "the second"]);
  });

  it("runs timers that timers and promises set, in the same advance", async () => {
    const time = new VirtualTime();
    const sleep = (ms: number) => new Promise<void>((resolve) => void time.setTimer(ms, resolve));
    let rounds = 0;
    const loop = async () => {
      while (true) {
        await sleep(10);
        rounds++;
      }
    };
    loop();
    await time.advance(1_000);
    assert.equal(rounds, 100);
  });

  it("forgets cancelled timers", async () => {
    const time = new VirtualTime();
    const cancels = Array.from(
      { length: 100 },
      (_, i) => time.setTimer(i, () => assert.ok(i % 2 === 1)),
    );
    cancels.forEach((cancel, i) => i % 2 === 0 && cancel());
    cancels[0]!();
    assert.equal(time.pendingTimers, 50);
    await time.advance(100);
    cancels[1]!();
    assert.equal(time.pendingTimers, 0);
  });

  it("says what does not happen in time, and passes on what a promise rejects with", async () => {
    const time = new VirtualTime();
    await assert.rejects(time.until(() => false, 50), /not done within 50 virtual ms/);
    assert.equal(time.now(), 50);
    await assert.rejects(time.complete(new Promise(() => {}), 50), /not done within 50/);
    await assert.rejects(time.complete(Promise.reject(new Error("own")), 50), /^Error: own$/);
    assert.equal(await time.complete(Promise.resolve(7)), 7);
    assert.equal(time.now(), 100);
  });

  it("does not hang where timers without delay follow each other", async () => {
    const time = new VirtualTime(0, () => Promise.resolve());
    const again = () => void time.setTimer(0, again);
    again();
    await assert.rejects(time.advance(1), /time stands still at 0/);
  });
});
