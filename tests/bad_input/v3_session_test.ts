/** Rows 24, 25 and 35 in version 3: sessions that belong to somebody else, numbers that lie. */

import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { EndpointConfig, RejectCode, UndeliveredDetail } from "../../mod.ts";
import { systemEnvironment } from "../../src/runtime/environment.ts";
import { inScene, type Scene, within } from "./harness.ts";
import type { RawPeer } from "./raw_peer.ts";
import { bytes } from "./wire.ts";
import { ackEntry, frameV3, helloFieldsV3, helloV3, nextOfKind, textOf } from "./wire_v3.ts";

const OTHER = "00000000000000bb";
const UNKNOWN = "f".repeat(32);
const NOTHING = [0, 0, 0];

interface Session {
  id: string;
  resumed: boolean;
  received: number[];
}

/** The victim's clock can be set forward: what is young then is not any more. */
function laterClock(): { victim: Partial<EndpointConfig>; later: (ms: number) => void } {
  let offset = 0;
  const environment = { ...systemEnvironment, now: () => systemEnvironment.now() + offset };
  return { victim: { environment, keepalive: false }, later: (ms) => offset += ms };
}

/** Lets a peer in and gives the session that its welcome names. */
async function joins(
  scene: Scene,
  fields: Record<string, unknown> = {},
  target: Parameters<Scene["attacker"]>[0] = {},
): Promise<{ peer: RawPeer; session: Session }> {
  const peer = await scene.attacker(target);
  await peer.write(helloV3(fields));
  const answer = await peer.answer();
  assert.equal(answer.type, "welcome", JSON.stringify(answer));
  return { peer, session: answer.session as Session };
}

/** A hello that must be answered with this reject. */
async function isRejected(
  scene: Scene,
  fields: Record<string, unknown>,
  code: RejectCode,
): Promise<void> {
  let answer: Record<string, unknown> = {};
  await scene.refuses({ code: "HandshakeFailed" }, async () => {
    const peer = await scene.attacker();
    await peer.write(helloV3(fields), frameV3({ id: 2, payload: "secret" }));
    answer = await peer.answer();
    return peer;
  });
  assert.deepEqual([answer.type, answer.code], ["reject", code]);
}

/** The peer has shown that it knows its session: a message of it arrived. */
async function confirmed(scene: Scene, fields: Record<string, unknown> = {}) {
  const joined = await joins(scene, fields);
  await joined.peer.write(frameV3({ payload: "mine" }));
  await scene.when(() => scene.delivered.length === 1, 1_000, () => "nothing delivered");
  return joined;
}

describe("5. numbers that come twice", () => {
  it(
    "5. are dropped and counted, whatever is in them",
    inScene({}, async (scene) => {
      const { peer } = await joins(scene);
      await peer.write(
        frameV3({ payload: "one" }),
        frameV3({ id: 2, payload: "two" }),
        frameV3({ id: 1, payload: "another one" }),
        frameV3({ id: 2, kind: "request", payload: "" }),
        frameV3({ id: 2, kind: "cancel", payload: "too short" }),
        frameV3({ id: 3, payload: "three" }),
      );
      await scene.when(() => scene.delivered.length === 3, 1_000, () => "nothing delivered");
      assert.deepEqual(scene.delivered.map(({ text }) => text), ["one", "two", "three"]);
      assert.equal(scene.victim.peer("mallory")?.stats.duplicates, 3);
      const ack = await within(1_000, nextOfKind(peer, "ack"), "no ack");
      assert.deepEqual(ack?.payload, ackEntry(1, 3));
    }),
  );

  it(
    "5. on another connection of the session are duplicates, and a gap there is an error",
    inScene({}, async (scene) => {
      const { session } = await confirmed(scene);
      const claim = { session: { id: session.id, received: NOTHING } };
      const second = await joins(scene, claim);
      assert.deepEqual(second.session, { id: session.id, resumed: true, received: [0, 1, 0] });
      await second.peer.write(
        frameV3({ id: 1, payload: "again" }),
        frameV3({ id: 2, payload: "two" }),
      );
      await scene.when(() => scene.delivered.length === 2, 1_000, () => "nothing delivered");
      await scene.refuses({ code: "InvalidFrame" }, async () => {
        const third = await joins(scene, claim);
        await third.peer.write(frameV3({ id: 4, payload: "four" }));
        return third.peer;
      });
      await second.peer.write(frameV3({ id: 3, payload: "three" }));
      await scene.when(() => scene.delivered.length === 3, 1_000, () => "nothing delivered");
      assert.deepEqual(scene.delivered.map(({ text }) => text), ["mine", "two", "three"]);
    }),
  );
});

describe("5. acknowledgements that lie", () => {
  it(
    "5. of more than was sent: the connection ends, the message does not count as arrived",
    inScene({}, async (scene) => {
      const { peer } = await joins(scene);
      const sent = scene.victim.send("mallory", bytes("hello"), { acknowledged: true });
      const outcome = sent.then(() => "acknowledged", () => "failed");
      await nextOfKind(peer, "data");
      await scene.refuses({ code: "InvalidFrame" }, async () => {
        await peer.write(frameV3({ kind: "ack", payload: ackEntry(1, 2) }));
        return peer;
      }).catch((error) => {
        // The connection was there before: one less is what must be left.
        assert.match(String(error), /1 connections instead of 2, InvalidFrame/);
      });
      await scene.victim.disconnect("mallory");
      assert.equal(await outcome, "failed");
    }),
  );

  it(
    "5. in another lane, twice, or of less than before",
    inScene({}, async (scene) => {
      const { peer } = await joins(scene);
      await scene.victim.send("mallory", bytes("one"));
      await scene.victim.send("mallory", bytes("two"));
      assert.equal((await nextOfKind(peer, "data"))?.id, 1n);
      assert.equal((await nextOfKind(peer, "data"))?.id, 2n);
      const flushed = scene.victim.flush("mallory");
      const ack = (lane: number, id: number) =>
        frameV3({ kind: "ack", payload: ackEntry(lane, id) });
      await peer.write(ack(1, 1), ack(1, 1), ack(1, 0), ack(0, 0), ack(2, 0), ack(1, 2), ack(1, 1));
      await within(1_000, flushed, "not flushed");
      assert.deepEqual(scene.victim.stats().errors, {});
    }),
  );
});

describe("24. a session that is asked for by others", () => {
  it(
    "24. that there never was is a new one",
    inScene({}, async (scene) => {
      const claim = { session: { id: UNKNOWN, received: [7, 7, 7] } };
      const { peer, session } = await joins(scene, claim);
      assert.notEqual(session.id, UNKNOWN);
      assert.deepEqual([session.resumed, session.received], [false, NOTHING]);
      await peer.write(frameV3({ payload: "first" }));
      await scene.when(() => scene.delivered.length === 1, 1_000, () => "nothing delivered");
    }),
  );

  it(
    "24. of another node is a new one, and that node's goes on",
    inScene({}, async (scene) => {
      const { peer, session } = await confirmed(scene);
      const claim = { session: { id: session.id, received: NOTHING } };
      const thief = await joins(scene, { node_id: "thief", incarnation: OTHER, ...claim });
      assert.deepEqual([thief.session.resumed, thief.session.received], [false, NOTHING]);
      await scene.victim.send("mallory", bytes("for mallory"));
      assert.equal(textOf((await nextOfKind(peer, "data"))!.payload), "for mallory");
      await peer.write(frameV3({ id: 2, payload: "still mine" }));
      await scene.when(() => scene.delivered.length === 2, 1_000, () => "nothing delivered");
    }),
  );

  it(
    "24. with the right node id and a wrong session id",
    async () => {
      const { victim, later } = laterClock();
      await inScene({ victim }, async (scene) => {
        const { peer } = await confirmed(scene);
        later(20_000);
        await isRejected(scene, { session: { id: UNKNOWN, received: NOTHING } }, "AUTH_FAILED");
        await peer.write(frameV3({ id: 2, payload: "still mine" }));
        await scene.when(() => scene.delivered.length === 2, 1_000, () => "nothing delivered");
      })();
    },
  );

  it(
    "24. with a generation that is over",
    inScene({}, async (scene) => {
      const { session } = await confirmed(scene, { session_generation: 5 });
      const claim = { session: { id: session.id, received: NOTHING } };
      await isRejected(scene, { session_generation: 4, ...claim }, "REPLAYED");
      await isRejected(scene, { session_generation: 0 }, "REPLAYED");
    }),
  );

  it(
    "24. with a generation that is none yet, by somebody who does not know the session",
    async () => {
      const { victim, later } = laterClock();
      await inScene({ victim }, async (scene) => {
        const { peer } = await confirmed(scene);
        later(20_000);
        const claim = { session: { id: UNKNOWN, received: NOTHING } };
        await peer.write(frameV3({ id: 2, payload: "still mine" }));
        await scene.when(() => scene.delivered.length === 2, 1_000, () => "nothing delivered");
        await isRejected(scene, { session_generation: 0, ...claim }, "AUTH_FAILED");
        await peer.write(frameV3({ id: 3, payload: "still mine" }));
        await scene.when(() => scene.delivered.length === 3, 1_000, () => "nothing delivered");
      })();
    },
  );

  for (const received of [[0, 1, 0], [1, 0, 0], [0, 0, 2 ** 53 - 1]]) {
    it(
      `24. and says it received ${received}, which was never sent`,
      inScene({}, async (scene) => {
        const { peer, session } = await confirmed(scene);
        await scene.refuses({ code: "InvalidFrame" }, async () => {
          const next = await scene.attacker();
          await next.write(helloV3({ session: { id: session.id, received } }));
          return next;
        });
        await peer.write(frameV3({ id: 2, payload: "still mine" }));
        await scene.when(() => scene.delivered.length === 2, 1_000, () => "nothing delivered");
      }),
    );
  }
});

describe("25. a second live node with the same id, in version 3", () => {
  it(
    "25. of another incarnation is turned away, and the session of the first goes on",
    inScene({}, async (scene) => {
      const { peer, session } = await confirmed(scene);
      const claim = { session: { id: session.id, received: NOTHING } };
      await isRejected(scene, { incarnation: OTHER }, "DUPLICATE_NODE_ID");
      await isRejected(scene, { incarnation: OTHER, ...claim }, "DUPLICATE_NODE_ID");
      await scene.victim.send("mallory", bytes("for mallory"));
      assert.equal(textOf((await nextOfKind(peer, "data"))!.payload), "for mallory");
    }),
  );

  it(
    "25. can't evict the canary with any hello of version 3 that names another incarnation",
    inScene({}, async (scene) => {
      for (const session_generation of [0, 1, 1_000]) {
        await isRejected(
          scene,
          { node_id: "canary", incarnation: OTHER, session_generation },
          "DUPLICATE_NODE_ID",
        );
      }
    }),
  );
});

describe("35. cut off in the middle, in version 3", () => {
  for (const [name, leave] of [["FIN", "end"], ["RST", "reset"]] as const) {
    it(
      `35. by ${name}: every message that was not acknowledged is reported once, never as delivered`,
      inScene({ victim: { resumeWindowMs: 100 } }, async (scene) => {
        const undelivered: UndeliveredDetail[] = [];
        scene.victim.addEventListener("undelivered", ({ detail }) => undelivered.push(detail));
        const { peer } = await joins(scene);
        const fates: Promise<string>[] = [];
        for (let i = 0; i < 10; i++) {
          const sent = scene.victim.send("mallory", bytes(`${i}`), { acknowledged: true });
          fates.push(sent.then(() => "acknowledged", (error) => error.code));
        }
        for (let i = 0; i < 10; i++) await nextOfKind(peer, "data");
        await peer.write(frameV3({ kind: "ack", payload: ackEntry(1, 4) }));
        assert.equal(await fates[3], "acknowledged");
        peer[leave]();
        await scene.when(() => undelivered.length === 6, 1_500, () => `${undelivered.length}`);
        await scene.beats();
        assert.deepEqual(undelivered.map(({ payload }) => textOf(payload)), [..."456789"]);
        assert.ok(undelivered.every(({ fate }) => fate === "unknown"));
        const all = await Promise.all(fates);
        assert.deepEqual(all.slice(0, 4), Array(4).fill("acknowledged"));
        assert.deepEqual(all.slice(4), Array(6).fill("ConnectionClosed"));
      }),
    );
  }

  it(
    "35. and back again: what was not acknowledged comes once more, and no message twice",
    inScene({}, async (scene) => {
      const { peer, session } = await joins(scene);
      for (let i = 0; i < 5; i++) await scene.victim.send("mallory", bytes(`${i}`));
      for (let i = 0; i < 5; i++) await nextOfKind(peer, "data");
      peer.reset();
      await scene.when(
        () => scene.victim.peer("mallory")?.state !== "active",
        1_000,
        () => "still there",
      );
      const claim = { session: { id: session.id, received: [0, 3, 0] } };
      const back = await joins(scene, claim);
      assert.deepEqual([back.session.id, back.session.resumed], [session.id, true]);
      for (let id = 4n; id <= 5n; id++) {
        const frame = await within(1_000, nextOfKind(back.peer, "data"), "not sent again");
        assert.deepEqual([frame?.id, textOf(frame!.payload)], [id, `${id - 1n}`]);
      }
      await back.peer.write(frameV3({ kind: "ack", payload: ackEntry(1, 5) }));
      await within(1_000, scene.victim.flush("mallory"), "not flushed");
    }),
  );
});

describe("25. a hello without an incarnation", () => {
  it(
    "25. of a version 2 client without one is let in beside others of its kind",
    inScene({}, async (scene) => {
      const fields = { protocol_version: 2, min_protocol_version: 1, incarnation: undefined };
      const first = await scene.insider(helloFieldsV3(fields));
      await scene.insider(helloFieldsV3(fields));
      await first.write(Uint8Array.of(0, 0, 0, 2, 0, 97));
      await scene.when(() => scene.delivered.length === 1, 1_000, () => "nothing delivered");
    }),
  );
});
