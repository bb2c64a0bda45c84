/** Rows 24 and 25 in version 3: strangers that know which process they speak for, and made-up names. */

import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { EndpointConfig } from "../../mod.ts";
import { systemEnvironment } from "../../src/runtime/environment.ts";
import { inScene, type Scene, within } from "./harness.ts";
import { RawListener, type RawPeer } from "./raw_peer.ts";
import { bytes, hello } from "./wire.ts";
import { frameV3, helloV3, textOf } from "./wire_v3.ts";

const UNKNOWN = "f".repeat(32);
const NOTHING = [0, 0, 0];
/** So many names of a session are remembered. */
const MAX_NAMES = 64;

type Fields = Record<string, unknown>;

/** The victim's clock can be set forward: a session that is young then is not any more. */
function laterClock(): { victim: Partial<EndpointConfig>; later: (ms: number) => void } {
  let offset = 0;
  const environment = { ...systemEnvironment, now: () => systemEnvironment.now() + offset };
  return { victim: { environment, keepalive: false }, later: (ms) => offset += ms };
}

/** What the canary says to somebody else that it dials. */
async function toldBy(scene: Scene): Promise<Fields> {
  let told: (body: Uint8Array | undefined) => void;
  const first = new Promise<Uint8Array | undefined>((resolve) => told = resolve);
  const listener = await RawListener.listen((peer) => peer.nextFrame().then(told));
  try {
    const dialed = scene.canary.connect({ nodeId: "stranger", address: listener.address });
    const failed = assert.rejects(dialed, { code: "HandshakeFailed" });
    const body = await within(1_000, first, "no hello");
    listener.close();
    await failed;
    return JSON.parse(textOf(body!));
  } finally {
    listener.close();
  }
}

/** A hello in the name of the canary is rejected, and the victim's messages go to the canary. */
async function isTurnedAway(scene: Scene, content: Uint8Array, code: string): Promise<void> {
  let answer: Fields = {};
  let more: Uint8Array | undefined;
  await scene.refuses({ code: "HandshakeFailed" }, async () => {
    const peer = await scene.attacker();
    await peer.write(content);
    answer = await peer.answer();
    const sent = scene.victim.send("canary", bytes("for the canary"), { acknowledged: true });
    await within(1_000, sent, "not acknowledged");
    more = await peer.nextFrame();
    return peer;
  });
  assert.deepEqual([answer.type, answer.code], ["reject", code]);
  assert.equal(more, undefined);
  assert.equal(textOf(scene.canary.tryReceive()!.payload), "for the canary");
  assert.deepEqual(scene.delivered, []);
}

describe("25. a hello with the incarnation of a node that is connected, which others were told", () => {
  const none = { id: UNKNOWN, received: NOTHING };
  const future = 10 ** 12;
  const hellos: [name: string, content: (told: Fields) => Uint8Array, code?: string][] = [
    ["and the generation, too", (told) => helloV3(told), "AUTH_FAILED"],
    ["both, without sessions", (told) => helloV3({ ...told, capabilities: [] }), "AUTH_FAILED"],
    ["and a generation to come", (told) => helloV3({ ...told, session_generation: future })],
    ["and no generation", (told) => helloV3({ ...told, session_generation: undefined })],
    [
      "and a session that there is not",
      (told) => helloV3({ ...told, session_generation: future, session: none }),
    ],
    ["in version 2", (told) => hello({ ...told, protocol_version: 2, min_protocol_version: 1 })],
  ];
  for (const [name, content, code = "DUPLICATE_NODE_ID"] of hellos) {
    it(`25. ${name}: is turned away, and the canary's session goes on`, async () => {
      const { victim, later } = laterClock();
      await inScene({ victim }, async (scene) => {
        const { node_id, incarnation, session_generation } = await toldBy(scene);
        assert.equal(node_id, "canary");
        later(60_000);
        await isTurnedAway(scene, content({ node_id, incarnation, session_generation }), code);
      })();
    });
  }
});

const nameOf = (number: number) => number.toString(16).padStart(32, "0");

/** Says hello with a claim on a session; gives the answer. */
async function claims(scene: Scene, id: string): Promise<{ peer: RawPeer; answer: Fields }> {
  const peer = await scene.attacker();
  await peer.write(helloV3({ session: { id, received: NOTHING } }));
  return { peer, answer: await peer.answer() };
}

/** The same, and the end of the connection. */
async function claimsAndLeaves(scene: Scene, id: string): Promise<Fields> {
  const open = scene.openConnections;
  const { peer, answer } = await claims(scene, id);
  peer.close();
  await scene.when(() => scene.openConnections === open, 1_000, () => "still open");
  return answer;
}

describe("24. a peer that makes up names for its session", () => {
  it(
    `24. has ${MAX_NAMES} of them remembered, and those that it was given`,
    async () => {
      const { victim, later } = laterClock();
      await inScene({ victim }, async (scene) => {
        const first = await scene.attacker();
        await first.write(helloV3());
        const { id } = (await first.answer()).session as { id: string };
        await first.write(frameV3({ payload: "mine" }));
        await scene.when(() => scene.delivered.length === 1, 1_000, () => "nothing delivered");
        for (let i = 1; i <= 2 * MAX_NAMES; i++) {
          assert.equal((await claimsAndLeaves(scene, nameOf(i))).type, "welcome");
        }
        // From now on only names that are known count.
        later(60_000);
        const types: unknown[] = [];
        for (const name of [id, nameOf(1), nameOf(MAX_NAMES - 1), nameOf(MAX_NAMES)]) {
          const { type, code } = await claimsAndLeaves(scene, name);
          types.push(code ?? type);
        }
        assert.deepEqual(types, ["welcome", "welcome", "welcome", "AUTH_FAILED"]);
        await first.write(frameV3({ id: 2, payload: "still mine" }));
        await scene.when(() => scene.delivered.length === 2, 1_000, () => "nothing delivered");
      })();
    },
  );
});
