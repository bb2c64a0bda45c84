/** Rows 7 and 8 in version 3: messages in fragments that are no messages. */

import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { inScene, residentMiB, type Scene } from "./harness.ts";
import { join } from "./wire.ts";
import { type FrameV3, frameV3, helloFieldsV3, nextOfKind, ref, topicOf, u32 } from "./wire_v3.ts";

/** The largest message here: 64 + 10,240 / 1024 fragments. */
const MAX_MESSAGE = 10_240;
const MAX_FRAGMENTS = 74;
const FIELDS = { max_message_size: MAX_MESSAGE };

/** Frames of one lane, numbered from 1. */
function numbered(...frames: readonly FrameV3[]): Uint8Array {
  return join(...frames.map((parts, i) => frameV3({ id: i + 1, ...parts })));
}

/** A message of single bytes. */
function tiny(count: number, more = false): FrameV3[] {
  return Array.from(
    { length: count },
    (_, i): FrameV3 => ({ more: more || i < count - 1, payload: "x" }),
  );
}

async function isRefused(scene: Scene, content: Uint8Array): Promise<void> {
  await scene.refuses({ code: "InvalidFrame" }, async () => {
    const peer = await scene.insider(helloFieldsV3(FIELDS));
    await peer.write(frameV3({ lane: 2, payload: "before" }), content);
    return peer;
  });
  assert.deepEqual(scene.delivered, [{ from: "mallory", text: "before" }]);
}

function refusals(row: number, cases: readonly (readonly [string, readonly FrameV3[]])[]): void {
  for (const [name, frames] of cases) {
    it(`${row}. ${name}`, inScene({}, (scene) => isRefused(scene, numbered(...frames))));
  }
}

describe("7. a million tiny or empty fragments", () => {
  refusals(7, [
    ["one fragment too many", tiny(MAX_FRAGMENTS + 1)],
    ["one fragment too many, which is empty", [...tiny(MAX_FRAGMENTS, true), {}]],
    ["tiny fragments without end", tiny(2_000, true)],
    ["an empty fragment at the start", [{ more: true }, { payload: "x" }]],
    ["an empty fragment in the middle", [
      { more: true, payload: "x" },
      { more: true },
      { payload: "x" },
    ]],
    ["an empty fragment that has a topic", [
      { more: true, topic: true, payload: topicOf("t") },
      { payload: "x" },
    ]],
    ["an empty fragment of a request", [
      { kind: "request", more: true, payload: u32(0) },
      { kind: "request", payload: "x" },
    ]],
  ]);

  it(
    "7. as many as there may be, an empty last one among them, are a message",
    inScene({}, async (scene) => {
      const peer = await scene.insider(helloFieldsV3(FIELDS));
      await peer.write(numbered(...tiny(MAX_FRAGMENTS - 1, true), {}));
      await scene.when(() => scene.delivered.length === 1, 1_000, () => "nothing delivered");
      assert.equal(scene.delivered[0]!.text, "x".repeat(MAX_FRAGMENTS - 1));
    }),
  );

  it(
    "7. 16,000 of a message of 16 MiB take little memory, and no more of them are taken",
    inScene({}, async (scene) => {
      const before = residentMiB();
      await scene.refuses({ code: "InvalidFrame", withinMs: 10_000 }, async () => {
        const peer = await scene.insider(helloFieldsV3());
        for (let id = 1; id < 20_000; id += 1_000) {
          const frames = Array.from(
            { length: 1_000 },
            (_, i) => frameV3({ id: id + i, more: true, payload: "x" }),
          );
          await peer.write(...frames);
        }
        return peer;
      });
      assert.deepEqual(scene.delivered, []);
      const grown = residentMiB() - before;
      assert.ok(grown < 100, `${grown.toFixed(1)} MiB`);
    }),
  );
});

describe("8. a fragment sequence that is none", () => {
  const half = "x".repeat(6_000);
  refusals(8, [
    ["another kind inside", [
      { more: true, payload: "a" },
      { kind: "request", payload: "\0\0\0\0b" },
    ]],
    ["a short kind inside", [{ more: true, payload: "a" }, { kind: "cancel", payload: ref(1) }]],
    ["a stream inside", [{ more: true, payload: "a" }, { kind: "open" }]],
    ["a topic in the second fragment", [
      { more: true, payload: "a" },
      { topic: true, payload: topicOf("t") },
    ]],
    ["more bytes than a message may have", [
      { more: true, payload: half },
      { more: true, payload: half },
      { payload: "x" },
    ]],
    ["one byte more than a message may have, at its end", [
      { more: true, payload: "x".repeat(MAX_MESSAGE) },
      { payload: "x" },
    ]],
    ["a gap between two fragments", [{ more: true, payload: "a" }, { id: 3, payload: "b" }]],
    ["a cancel that goes on", [{ kind: "cancel", more: true, payload: ref(0, "x") }]],
    ["an end that goes on", [{ kind: "open" }, { kind: "end", more: true, payload: ref(1) }]],
    ["a window that goes on", [
      { kind: "open" },
      { kind: "window", more: true, payload: ref(1, "\0\0\0\x01") },
    ]],
  ]);

  it(
    "8. that never ends holds nobody up, and its first half is not delivered",
    inScene({}, async (scene) => {
      const peer = await scene.insider(helloFieldsV3(FIELDS));
      await peer.write(
        frameV3({ more: true, payload: "never" }),
        frameV3({ lane: 0, payload: "control" }),
        frameV3({ lane: 2, payload: "bulk" }),
        frameV3({ kind: "ping", id: 1 }),
      );
      await scene.when(() => scene.delivered.length === 2, 1_000, () => "held up");
      assert.equal((await nextOfKind(peer, "pong"))?.id, 1n);
      peer.close();
      await scene.when(() => scene.openConnections === 1, 1_000, () => "not closed");
      assert.deepEqual(scene.delivered.map(({ text }) => text), ["control", "bulk"]);
    }),
  );

  it(
    "8. with frames of other lanes between its own is a message",
    inScene({}, async (scene) => {
      const peer = await scene.insider(helloFieldsV3(FIELDS));
      await peer.write(
        frameV3({ more: true, payload: "a" }),
        frameV3({ lane: 2, more: true, payload: "1" }),
        frameV3({ id: 2, more: true, payload: "b" }),
        frameV3({ lane: 0, payload: "control" }),
        frameV3({ lane: 2, id: 2, payload: "2" }),
        frameV3({ id: 3, payload: "c" }),
      );
      await scene.when(() => scene.delivered.length === 3, 1_000, () => "messages are missing");
      assert.deepEqual(scene.delivered.map(({ text }) => text), ["control", "12", "abc"]);
    }),
  );
});
