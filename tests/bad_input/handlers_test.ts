/** Row 28: an application whose callbacks fail. Only the peer whose message it was may notice. */

import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { json } from "../../mod.ts";
import { inScene, type Scene } from "./harness.ts";
import { frame, hello, messageV2 } from "./wire.ts";

const EVIL = "\x1b[2J\r\nINFO all is well";

/** Three messages, whose handler fails each time, are delivered and counted. */
async function failsThrice(scene: Scene): Promise<void> {
  const warnings: string[] = [];
  scene.victim.addEventListener("warning", ({ detail }) => warnings.push(`${detail.nodeId}`));
  const peer = await scene.insider();
  await peer.write(messageV2("1"), messageV2("2"), messageV2("3"));
  await scene.when(
    () => scene.victim.stats().handlerErrors === 3,
    1_000,
    () => JSON.stringify([scene.victim.stats().handlerErrors, scene.victim.stats().errors]),
  );
  assert.deepEqual(scene.delivered.map(({ text }) => text), ["1", "2", "3"]);
  assert.deepEqual(warnings, ["mallory", "mallory", "mallory"]);
  assert.equal(scene.victim.peer("mallory")?.state, "active");
  assert.deepEqual(scene.victim.stats().errors, {});
}

/** An object that can't be shown as text. */
const unprintable = (): unknown =>
  Object.create(null, {
    toString: {
      value() {
        throw new Error("no text either");
      },
    },
  });

describe("28. a message handler", () => {
  const failures: [string, () => void | Promise<void>][] = [
    ["that throws", () => {
      throw new Error(`handler: ${EVIL}`);
    }],
    ["that throws undefined", () => {
      throw undefined;
    }],
    ["that throws what has no text", () => {
      throw unprintable();
    }],
    ["that rejects", () => Promise.reject(new Error(`handler: ${EVIL}`))],
    ["that rejects with undefined", () => Promise.reject(undefined)],
    ["that rejects with what has no text", () => Promise.reject(unprintable())],
    ["that rejects later", () =>
      new Promise((_, reject) => {
        setTimeout(() => reject(new Error("late")), 1);
      })],
  ];
  for (const [name, onMessage] of failures) {
    it(`28. ${name} loses no message and no connection`, inScene({ onMessage }, failsThrice));
  }

  it(
    "28. that never returns holds its own peer back and nobody else",
    inScene({
      onMessage: ({ from }) => from === "mallory" ? new Promise<void>(() => {}) : undefined,
    }, async (scene) => {
      const peer = await scene.insider();
      for (let i = 0; i < 100; i++) await peer.write(messageV2(`${i}`));
      const bystander = await scene.insider({ node_id: "bystander" });
      for (let i = 0; i < 100; i++) await bystander.write(messageV2(`${i}`));
      const from = (who: string) => scene.delivered.filter((message) => message.from === who);
      await scene.when(() => from("bystander").length === 100, 1_000, () => "held back too");
      await scene.beats();
      assert.deepEqual(from("mallory").map(({ text }) => text), ["0"]);
      assert.equal(scene.victim.stats().handlerErrors, 0);
    }),
  );

  it("28. that returns late gets the rest in order", async () => {
    const release: (() => void)[] = [];
    const onMessage = () => new Promise<void>((resolve) => void release.push(resolve));
    await inScene({ onMessage }, async (scene) => {
      const peer = await scene.insider();
      await peer.write(...["a", "b", "c"].map((text) => messageV2(text)));
      for (let i = 1; i <= 3; i++) {
        await scene.when(() => scene.delivered.length === i, 1_000, () => `no message ${i}`);
        await scene.beats();
        assert.equal(scene.delivered.length, i);
        release.shift()!();
      }
      assert.equal(scene.delivered.map(({ text }) => text).join(""), "abc");
    })();
  });
});

describe("28. an event listener that throws", () => {
  for (const type of ["peerup", "peerdown", "statechange", "warning"] as const) {
    it(
      `28. at ${type}`,
      inScene({}, async (scene) => {
        let called = 0;
        scene.victim.addEventListener(type, () => {
          called++;
          throw new Error(`listener: ${EVIL}`);
        });
        const peer = await scene.insider();
        await peer.write(messageV2("heard"), frame([0x80]));
        await peer.gone;
        await scene.when(() => called > 0, 1_000, () => "not called");
        await scene.beats();
        assert.equal(scene.victim.stats().handlerErrors, called);
        assert.equal(scene.delivered.length, 1);
        assert.equal(scene.victim.stats().errors.InvalidFrame, 1);
      }),
    );
  }
});

describe("28. a codec that throws", () => {
  it(
    "28. at a message that is no JSON: counted, with the text escaped",
    inScene({}, async (scene) => {
      const reader = await scene.join("reader", { listen: "tcp://127.0.0.1:0", codec: json() });
      try {
        const texts: string[] = [];
        const received: unknown[] = [];
        reader.addEventListener("warning", ({ detail }) => texts.push(detail.message));
        reader.onMessage(({ payload }) => void received.push(payload));
        const port = Number(reader.addresses[0]!.split(":").at(-1));
        const peer = await scene.attacker({ port });
        await peer.write(hello(), messageV2(`${EVIL}{`), messageV2('{"good":1}'));
        await scene.when(() => received.length === 1, 1_000, () => "nothing received");
        assert.deepEqual(received, [{ good: 1 }]);
        assert.equal(reader.stats().handlerErrors, 1);
        for (const text of texts) assert.match(text, /^[ -~…]{1,600}$/);
      } finally {
        await reader.close({ drainMs: 0 });
      }
    }),
  );
});
