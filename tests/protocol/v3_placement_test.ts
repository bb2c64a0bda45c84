/** Which connection a lane takes, where there are several. */

import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { Channel } from "../../src/protocol/v3/channel.ts";
import {
  bulkChannel,
  bulkShares,
  chooseChannel,
  type OutLanes,
} from "../../src/protocol/v3/placement.ts";
import { CONTROL, NORMAL } from "../../src/protocol/v3/types.ts";

/** All that placement looks at. */
function channel(bytes = 0): Channel {
  return { open: true, outbox: { bytes } } as unknown as Channel;
}

interface At {
  readonly channel?: Channel | undefined;
  readonly idle?: boolean;
  readonly flight?: number;
}

/** Lanes with their connections; idle, where nothing else is said. */
function lanes(control: At, normal: At, bulk: At): OutLanes {
  const all = [control, normal, bulk].map(({ channel, idle = true, flight = 0 }, lane) => ({
    lane,
    channel,
    idle,
    flight,
  }));
  return all as unknown as OutLanes;
}

const [A, B, C] = [channel(), channel(), channel()];
const NOWHERE = lanes({}, {}, {});
const never = () => assert.fail("nobody takes turns here");

describe("the connection of a lane", () => {
  it("is the only one there is, whatever the strategy, and costs no turn", () => {
    for (const strategy of ["first-available", "round-robin", "least-loaded"] as const) {
      assert.equal(chooseChannel(NOWHERE, NORMAL, [A], strategy, never), A);
      assert.equal(chooseChannel(NOWHERE, NORMAL, [], strategy, never), undefined);
    }
  });

  it("first-available: the first, and for control the second", () => {
    assert.equal(chooseChannel(NOWHERE, NORMAL, [A, B], "first-available", never), A);
    assert.equal(chooseChannel(NOWHERE, CONTROL, [A, B], "first-available", never), B);
  });

  it("round-robin: the next each time", () => {
    let turn = 0;
    const next = () => chooseChannel(NOWHERE, NORMAL, [A, B, C], "round-robin", () => turn++);
    const chosen = [next(), next(), next(), next()];
    assert.deepEqual(chosen.map((one) => [A, B, C].indexOf(one!)), [0, 1, 2, 0]);
    assert.equal(turn, 4);
  });

  it("least-loaded: that with the least under way and about to be written", () => {
    const written = channel(500);
    const out = lanes({ channel: A, flight: 100 }, { channel: A, flight: 300 }, {});
    assert.equal(chooseChannel(out, NORMAL, [A, written], "least-loaded", never), A);
    assert.equal(chooseChannel(out, NORMAL, [A, written, B], "least-loaded", never), B);
  });
});

describe("the connection of bulk", () => {
  it("is one that nothing of the others is under way on, the newest of those", () => {
    const out = lanes({}, { channel: A, idle: false }, {});
    assert.equal(bulkChannel(out, [A, B, C], false), C);
    assert.equal(bulkChannel(out, [A], false), A);
    assert.equal(bulkChannel(out, [], false), undefined);
  });

  it("stays while anything is under way on it", () => {
    const busy = lanes({}, { channel: A, idle: false }, { channel: A, idle: false });
    assert.equal(bulkChannel(busy, [A, B], false), A);
  });

  it("stays when it is settled and shares with nobody", () => {
    const alone = lanes({}, { channel: A, idle: false }, { channel: B });
    assert.equal(bulkChannel(alone, [A, B, C], true), B);
    assert.equal(bulkChannel(alone, [A, B, C], false), C);
    const shared = lanes({}, { channel: B, idle: false }, { channel: B });
    assert.equal(bulkChannel(shared, [A, B], true), A);
  });

  it("is shared where it could have one to itself", () => {
    const shared = lanes({}, { channel: A, idle: false }, { channel: A, idle: false });
    assert.equal(bulkShares(shared, [A, B]), true);
    assert.equal(bulkShares(shared, [A]), false);
    const alone = lanes({}, { channel: A, idle: false }, { channel: B, idle: false });
    assert.equal(bulkShares(alone, [A, B, C]), false);
    const idle = lanes({}, { channel: A, idle: false }, { channel: A });
    assert.equal(bulkShares(idle, [A, B]), false);
  });
});
