/**
 * The proof: thousands of seeds of a network with every fault there is, each held against a record
 * of its own of what was sent, accepted, acknowledged, received and reported.
 */

import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { detectRuntime } from "../../src/runtime/runtime.ts";
import { NEWEST } from "./api.ts";
import { simulate } from "./simulate.ts";

/** Each runtime has seeds of its own; Node's test runner makes promises slow, and has fewer. */
const RANGES = { deno: [1, 1_000], bun: [1_001, 2_000], node: [2_001, 2_200] } as const;
const SEEDS_PER_GROUP = 100;

describe("between living processes every accepted message arrives once, in order in its lane", () => {
  const [from, to] = RANGES[detectRuntime().name];
  for (let first = from; first <= to; first += SEEDS_PER_GROUP) {
    const last = first + SEEDS_PER_GROUP - 1;
    it(`whatever breaks on the way (seeds ${first} to ${last})`, async () => {
      for (let seed = first; seed <= last; seed++) await simulate(seed, { version: NEWEST });
    });
  }
});

describe("version 2 keeps the promises it can keep", () => {
  it("whatever breaks on the way (seeds 1 to 100)", async () => {
    for (let seed = 1; seed <= 100; seed++) await simulate(seed, { version: 2 });
  });
});

describe("the simulation", () => {
  it("does the same again for the same seed", async () => {
    for (let seed = 1; seed <= 30; seed++) {
      assert.deepEqual(await simulate(seed), await simulate(seed), `seed ${seed}`);
    }
  });

  it("does not do nothing: all kinds of things happen in it", async () => {
    const sum = { accepted: 0, received: 0, connections: 0, faults: 0 };
    const hashes = new Set<string>();
    for (let seed = 1; seed <= 30; seed++) {
      const result = await simulate(seed);
      for (const name of Object.keys(sum) as (keyof typeof sum)[]) sum[name] += result[name];
      hashes.add(result.hash);
    }
    assert.equal(hashes.size, 30);
    assert.ok(sum.accepted > 3_000, `${sum.accepted} accepted`);
    assert.ok(sum.received > 2_500, `${sum.received} received`);
    assert.ok(sum.connections > 300, `${sum.connections} connections`);
    assert.ok(sum.faults > 60, `${sum.faults} faults`);
  });
});
