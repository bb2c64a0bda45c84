/** Rows 28, 31 and 36 in version 3: requests and streams that only cost, and times that are none. */

import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { inScene, residentMiB, type Scene, within } from "./harness.ts";
import { Talker } from "./talker.ts";
import { bytes, join } from "./wire.ts";
import { failure, ref, theirs, u32 } from "./wire_v3.ts";

const WINDOW = 262_144;
/** Answers, or resets, that a peer may leave unacknowledged or unread. */
const MAX_ANSWERS = 8_192;
const STORM = 20_000;
/** Resident memory, that of the attacker in the same process included. */
const MAX_MIB = 400;
const NO_TIME = u32(0);
const never = () => new Promise<never>(() => {});

/** A request without an end to its time, and a cancel of it. */
function askAndCancel(talker: Talker): Uint8Array {
  const request = talker.frame({ kind: "request", topic: "get", payload: NO_TIME });
  return join(request, talker.frame({ kind: "cancel", payload: ref(talker.last) }));
}

/** A stream that is opened and given up. */
function openAndReset(talker: Talker): Uint8Array {
  const open = talker.frame({ kind: "open", topic: "file" });
  return join(open, talker.frame({ kind: "reset", payload: ref(talker.last, failure("NO")) }));
}

/** Nothing runs any more, nothing is counted against the peer, and little memory is left. */
async function leavesNothing(scene: Scene, talker: Talker, before: number): Promise<void> {
  assert.ok(await within(10_000, talker.settled(), "not read"), "the connection ended");
  await scene.beats();
  assert.deepEqual(scene.victim.stats().errors, {});
  const { openRequests, openStreams } = scene.victim.peer("mallory")!;
  assert.deepEqual([openRequests, openStreams], [0, 0]);
  const grown = residentMiB() - before;
  assert.ok(grown < MAX_MIB, `${grown.toFixed(1)} MiB`);
}

/** The attack ends its connection, with one error. What was refused before is counted, too. */
async function isCutOff(scene: Scene, attack: () => Promise<Talker>): Promise<void> {
  const before = residentMiB();
  const { peer } = await attack();
  await within(10_000, peer.gone, "not cut off");
  await scene.when(() => scene.reported.length > 0, 1_000, () => "nothing reported");
  await scene.beats();
  assert.deepEqual(scene.victim.stats().errors, { Backpressure: 1 });
  assert.deepEqual(scene.reported.map(({ code }) => code), ["Backpressure"]);
  assert.equal(scene.openConnections, 1);
  assert.ok(residentMiB() - before < MAX_MIB, "memory");
}

describe("31. a storm of requests", () => {
  it(
    "31. that are cancelled at once: never more run than may, and their places are free again",
    inScene({ victim: { maxRequests: 16 } }, async (scene) => {
      let running = 0;
      let most = 0;
      scene.victim.handle("get", ({ signal }) => {
        most = Math.max(most, ++running);
        return new Promise((_, reject) => {
          signal.addEventListener("abort", () => {
            running--;
            reject(signal.reason);
          });
        });
      });
      const before = residentMiB();
      const talker = await Talker.join(scene, { acks: true });
      await talker.storm(STORM, () => askAndCancel(talker));
      await leavesNothing(scene, talker, before);
      assert.ok(most <= 16 && most > 0, `${most} ran at once`);
      assert.equal(running, 0);
      assert.equal(scene.victim.stats().handlerErrors, 0);
    }),
  );

  it(
    "31. that are cancelled at once, to a handler that goes on: its places stay taken",
    inScene({ victim: { maxRequests: 16 } }, async (scene) => {
      let called = 0;
      scene.victim.handle("get", () => {
        called++;
        return never();
      });
      const before = residentMiB();
      const talker = await Talker.join(scene, { acks: true });
      await talker.storm(STORM, () => askAndCancel(talker));
      assert.ok(await within(10_000, talker.settled(), "not read"), "the connection ended");
      assert.equal(called, 16);
      assert.deepEqual(talker.codes, { TOO_MANY_REQUESTS: STORM - 16 });
      assert.equal(scene.victim.stats().refused.requestsAndStreams, STORM - 16);
      assert.ok(residentMiB() - before < MAX_MIB, "memory");
    }),
  );

  const refusals: [string, (scene: Scene) => void][] = [
    ["of which too many run", (scene) => void scene.victim.handle("get", never)],
    ["that nobody handles", () => {}],
    ["that are answered", (scene) => {
      scene.victim.handle("get", () => Promise.resolve(new Uint8Array(0)));
    }],
  ];
  for (const [name, prepare] of refusals) {
    it(
      `31. ${name}, by one that never acknowledges our answers: cut off`,
      inScene({ victim: { maxRequests: 16 } }, async (scene) => {
        prepare(scene);
        await isCutOff(scene, async () => {
          const talker = await Talker.join(scene);
          const request = () => talker.frame({ kind: "request", topic: "get", payload: NO_TIME });
          await talker.storm(MAX_ANSWERS + 17, request);
          return talker;
        });
      }),
    );
  }

  it(
    "31. whose handler fails: each is answered and counted, nothing of the failure is told",
    inScene({}, async (scene) => {
      scene.victim.handle("get", () => {
        throw new Error("secret");
      });
      const before = residentMiB();
      const talker = await Talker.join(scene, { acks: true });
      const request = () => talker.frame({ kind: "request", topic: "get", payload: NO_TIME });
      await talker.storm(2_000, request, 200);
      await leavesNothing(scene, talker, before);
      assert.deepEqual(talker.codes, { HANDLER_FAILED: 2_000 });
      assert.equal(scene.victim.stats().handlerErrors, 2_000);
    }),
  );

  it(
    "31. by one peer: the requests of others are answered",
    inScene({ victim: { maxRequests: 4 } }, async (scene) => {
      scene.victim.handle("get", ({ from }) => from === "canary" ? bytes("served") : never());
      const talker = await Talker.join(scene, { acks: true });
      const storming = talker.storm(STORM, () => askAndCancel(talker));
      for (let i = 0; i < 20; i++) {
        const asked = scene.canary.request("victim", bytes("?"), { topic: "get" });
        const answer = await within(1_000, asked, "not answered");
        assert.equal(new TextDecoder().decode(answer), "served");
      }
      await storming;
    }),
  );
});

describe("31. a storm of streams", () => {
  it(
    "31. that are reset at once: their places are free again",
    inScene({ victim: { maxStreams: 8 } }, async (scene) => {
      let open = 0;
      let most = 0;
      scene.victim.onStream("file", async (stream) => {
        most = Math.max(most, ++open);
        await stream.closed.catch(() => {});
        open--;
      });
      const before = residentMiB();
      const talker = await Talker.join(scene, { acks: true });
      await talker.storm(STORM, () => openAndReset(talker));
      await leavesNothing(scene, talker, before);
      assert.ok(most <= 8 && most > 0, `${most} were open at once`);
      assert.equal(open, 0);
    }),
  );

  it(
    "31. that stay open: those above the bound are refused",
    inScene({ victim: { maxStreams: 8 } }, async (scene) => {
      scene.victim.onStream("file", never);
      const talker = await Talker.join(scene, { acks: true });
      await talker.storm(2_000, () => talker.frame({ kind: "open", topic: "file" }));
      assert.ok(await within(10_000, talker.settled(), "not read"), "the connection ended");
      await within(5_000, talker.until(() => talker.codes.TOO_MANY_STREAMS === 1_992), "resets");
      assert.equal(scene.victim.stats().refused.requestsAndStreams, 1_992);
      assert.equal(scene.victim.peer("mallory")?.openStreams, 8);
    }),
  );

  it(
    "31. by one that does not read our resets: cut off",
    inScene({ victim: { maxStreams: 8 } }, async (scene) => {
      scene.victim.onStream("file", never);
      await isCutOff(scene, async () => {
        const talker = await Talker.join(scene, { hello: { receive_window: 65_536 } });
        await talker.storm(STORM, () => talker.frame({ kind: "open", topic: "file" }));
        return talker;
      });
    }),
  );

  it(
    "31. that we reset because nobody takes them, or because whoever does fails",
    inScene({}, async (scene) => {
      scene.victim.onStream("file", () => {
        throw new Error("secret");
      });
      const before = residentMiB();
      const talker = await Talker.join(scene, { acks: true });
      await talker.storm(1_000, () => talker.frame({ kind: "open", topic: "file" }), 200);
      await talker.storm(1_000, () => talker.frame({ kind: "open", topic: "nobody" }), 200);
      await within(5_000, talker.until(() => talker.codes.NO_HANDLER === 1_000), "resets");
      await leavesNothing(scene, talker, before);
      assert.deepEqual(talker.codes, { HANDLER_FAILED: 1_000, NO_HANDLER: 1_000 });
    }),
  );

  it(
    "31. that we reset because more than the window came",
    inScene({}, async (scene) => {
      let failed = 0;
      scene.victim.onStream("file", async (stream) => {
        await stream.closed.catch(({ code }) => failed += code === "InvalidFrame" ? 1 : 0);
      });
      const before = residentMiB();
      const talker = await Talker.join(scene, { acks: true });
      const part = new Uint8Array(WINDOW / 4);
      for (let i = 0; i < 50; i++) {
        await talker.say(talker.frame({ kind: "open", topic: "file" }));
        const id = talker.last;
        const data = (payload: Uint8Array) =>
          talker.frame({ kind: "streamData", payload: ref(id, payload) });
        await talker.say(...Array.from({ length: 4 }, () => data(part)), data(new Uint8Array(1)));
        // What is still under way to a stream that was given up.
        await talker.say(data(part), talker.frame({ kind: "end", payload: ref(id) }));
        await talker.say(talker.frame({ kind: "reset", payload: ref(id, failure("SO_BE_IT")) }));
      }
      await leavesNothing(scene, talker, before);
      assert.equal(failed, 50);
      assert.deepEqual(talker.codes, { FLOW_CONTROL: 50 });
    }),
  );
});

describe("5. frames of requests and streams that there never were", () => {
  const cases: [string, (talker: Talker) => Uint8Array][] = [
    ["a response to a request that was never made", (t) =>
      t.frame({
        kind: "response",
        payload: ref(1, "?"),
      })],
    ["an error for one", (t) => t.frame({ kind: "error", payload: ref(1, failure("NO")) })],
    ["a response to number 0", (t) => t.frame({ kind: "response", payload: ref(0) })],
    ["a response to 2^64 - 1", (t) => t.frame({ kind: "response", payload: ref(2n ** 64n - 1n) })],
    ["a cancel of a request yet to come", (t) => t.frame({ kind: "cancel", payload: ref(9) })],
    ["bytes of a stream that was never opened", (t) =>
      t.frame({
        kind: "streamData",
        payload: ref(1, "?"),
      })],
    ["bytes of a stream of ours", (t) =>
      t.frame({
        kind: "streamData",
        payload: ref(theirs(1), "?"),
      })],
    ["the end of none", (t) => t.frame({ kind: "end", payload: ref(1) })],
    ["the reset of none", (t) => t.frame({ kind: "reset", payload: ref(1, failure("NO")) })],
    ["a window of none", (t) => t.frame({ kind: "window", payload: ref(1, u32(1)) })],
    ["a window of stream 0", (t) => t.frame({ kind: "window", payload: ref(0, u32(1)) })],
    ["bytes after the end", (t) => {
      const open = t.frame({ kind: "open", topic: "file" });
      const end = t.frame({ kind: "end", payload: ref(1) });
      return join(open, end, t.frame({ kind: "streamData", payload: ref(1, "?") }));
    }],
    ["two ends", (t) => {
      const open = t.frame({ kind: "open", topic: "file" });
      const end = () => t.frame({ kind: "end", payload: ref(1) });
      return join(open, end(), end());
    }],
  ];
  for (const [name, make] of cases) {
    it(
      `5. ${name}`,
      inScene({}, async (scene) => {
        scene.victim.onStream("file", never);
        await scene.refuses({ code: "InvalidFrame" }, async () => {
          const talker = await Talker.join(scene);
          await talker.say(make(talker), talker.frame({ payload: "after" }));
          return talker.peer;
        });
        assert.deepEqual(scene.delivered, []);
      }),
    );
  }

  it(
    "5. windows without end: the connection goes on, and nothing is sent beyond what there is",
    inScene({}, async (scene) => {
      scene.victim.onStream("file", async ({ writable }) => {
        const writer = writable.getWriter();
        await writer.write(bytes("some bytes"));
        await writer.close();
      });
      const talker = await Talker.join(scene, { acks: true });
      await talker.say(talker.frame({ kind: "open", topic: "file" }));
      const grant = () => talker.frame({ kind: "window", payload: ref(1, u32(0xffff_ffff)) });
      await talker.storm(3_000, grant);
      assert.ok(await within(5_000, talker.settled(), "not read"), "the connection ended");
      await within(1_000, talker.until(() => talker.heard.end === 1), "no end");
      assert.equal(talker.heard.streamData, 1);
    }),
  );

  it(
    "5. answers that come late, or twice, are nobody's",
    inScene({}, async (scene) => {
      const talker = await Talker.join(scene, { acks: true });
      const asked = scene.victim.request("mallory", bytes("?"), { timeoutMs: 50 });
      await assert.rejects(asked, { code: "Timeout" });
      await within(1_000, talker.until(() => talker.heard.cancel === 1), "no cancel");
      const answer = () => talker.frame({ kind: "response", payload: ref(1, "late") });
      await talker.say(answer(), answer());
      await talker.say(talker.frame({ kind: "error", payload: ref(1, failure("LATE")) }));
      assert.ok(await within(1_000, talker.settled(), "not read"), "the connection ended");
    }),
  );
});

describe("36. times that are none", () => {
  for (const timeoutMs of [-1, 0, NaN, -Infinity, "50", null]) {
    it(
      `36. ${timeoutMs} (${typeof timeoutMs}) of a caller is refused, and nothing is sent`,
      inScene({}, async (scene) => {
        const talker = await Talker.join(scene);
        const options = { timeoutMs: timeoutMs as number };
        const asked = scene.victim.request("mallory", bytes("?"), options);
        // What is not given at all is the default.
        if (timeoutMs === null) asked.catch(() => {});
        else await assert.rejects(asked, RangeError);
        assert.ok(await within(1_000, talker.settled(), "not read"));
        assert.equal(talker.heard.request, timeoutMs === null ? 1 : undefined);
      }),
    );
  }

  for (const timeoutMs of [2 ** 31, 2 ** 32, 2 ** 53, Number.MAX_VALUE, Infinity]) {
    it(
      `36. ${timeoutMs} of a caller is long, not over at once`,
      inScene({}, async (scene) => {
        const talker = await Talker.join(scene, { acks: true });
        const asked = scene.victim.request("mallory", bytes("?"), { timeoutMs });
        assert.ok(await within(1_000, talker.until(() => talker.heard.request === 1), "not asked"));
        await scene.beats();
        await talker.say(talker.frame({ kind: "response", payload: ref(1, "answer") }));
        assert.deepEqual(await within(1_000, asked, "not answered"), bytes("answer"));
      }),
    );
  }

  for (const ms of [0x7fff_ffff, 0x8000_0000, 0xffff_ffff]) {
    it(
      `36. ${ms} of a peer is long, not over at once`,
      inScene({}, async (scene) => {
        const deadlines: (number | undefined)[] = [];
        let aborted = false;
        const answers: (() => void)[] = [];
        scene.victim.handle("get", ({ deadline, signal }) => {
          deadlines.push(deadline);
          signal.addEventListener("abort", () => aborted = true);
          return new Promise((resolve) => answers.push(() => resolve(bytes("answer"))));
        });
        const talker = await Talker.join(scene, { acks: true });
        await talker.say(talker.frame({ kind: "request", topic: "get", payload: u32(ms) }));
        await talker.settled();
        await scene.beats();
        assert.ok(Math.abs(deadlines[0]! - Date.now() - ms) < 10_000, `${deadlines[0]}`);
        assert.equal(aborted, false);
        answers[0]!();
        assert.ok(await within(1_000, talker.until(() => talker.heard.response === 1), "answer"));
      }),
    );
  }

  it(
    "36. 20,000 deadlines of a millisecond: each passes once, and is not answered",
    inScene({}, async (scene) => {
      let aborted = 0;
      scene.victim.handle("get", ({ signal }) => {
        return new Promise((_, reject) => {
          signal.addEventListener("abort", () => {
            aborted++;
            reject(signal.reason);
          });
        });
      });
      const before = residentMiB();
      const talker = await Talker.join(scene, { acks: true });
      const request = () => talker.frame({ kind: "request", topic: "get", payload: u32(1) });
      await talker.storm(STORM, request);
      assert.ok(await within(10_000, talker.settled(), "not read"), "the connection ended");
      const refused = () => talker.codes.TOO_MANY_REQUESTS ?? 0;
      await scene.when(() => aborted + refused() === STORM, 5_000, () => `${aborted}`);
      await leavesNothing(scene, talker, before);
      assert.equal(talker.heard.response, undefined);
    }),
  );
});
