/** Rows 18, 29, 30 and 32 to 34 in version 3: peers that take up room, and peers that say nothing. */

import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { EndpointConfig, UndeliveredDetail } from "../../mod.ts";
import { systemEnvironment } from "../../src/runtime/environment.ts";
import { inScene, residentMiB, type Scene, within } from "./harness.ts";
import { Talker } from "./talker.ts";
import { join } from "./wire.ts";
import { ackEntry, frameV3, helloFieldsV3, helloV3, nextOfKind } from "./wire_v3.ts";

const CHUNK = 65_536;
const MEBIBYTE = 2 ** 20;
const GIGABYTE = 2 ** 30;
const KEY = `${"A".repeat(43)}=`;
/** The bound on connections that have not completed their handshake. */
const MAX_PENDING = 256;
const KEEPALIVE_MS = 1_000;

/** A message that starts with its number. */
function numbered(number: number): Uint8Array {
  const chunk = new Uint8Array(CHUNK);
  new DataView(chunk.buffer).setUint32(0, number);
  return chunk;
}

function numberOf(payload: Uint8Array): number {
  return new DataView(payload.buffer, payload.byteOffset).getUint32(0);
}

/** Sends until no more is taken, at most a gigabyte; returns how many messages were. */
function fill(scene: Scene, nodeId: string): number {
  let accepted = 0;
  while (accepted < GIGABYTE / CHUNK && scene.victim.trySend(nodeId, numbered(accepted))) {
    accepted++;
  }
  return accepted;
}

describe("18. handshakes of version 3 that stop before their proof", () => {
  it(
    "18. 300 from 10 hosts: bounded, and over at the deadline",
    inScene({ victim: { connectTimeoutMs: 2_000 } }, async (scene) => {
      const hello = (i: number) => helloV3({ node_id: `m${i}`, public_key: KEY });
      const peers = await Promise.all(Array.from({ length: 300 }, async (_, i) => {
        const peer = await scene.attacker({ localAddress: `127.0.1.${1 + i % 10}` });
        await peer.write(hello(i));
        return peer;
      }));
      await scene.when(
        () => scene.victim.stats().refused.pendingHandshakes === 300 - MAX_PENDING,
        2_000,
        () => JSON.stringify(scene.victim.stats().refused),
      );
      await scene.beats();
      await Promise.all(peers.map((peer) => within(4_000, peer.gone, "not over")));
      await scene.when(
        () => scene.victim.stats().errors.Timeout === MAX_PENDING,
        1_000,
        () => JSON.stringify(scene.victim.stats().errors),
      );
      assert.deepEqual(scene.victim.peers().map(({ nodeId }) => nodeId), ["canary"]);
    }),
  );
});

describe("29. more connections of version 3 than there is room for", () => {
  it(
    "29. of one node: more than its pool are TOO_MANY_CONNECTIONS, and the session goes on",
    inScene({ victim: { poolSize: 2 } }, async (scene) => {
      const peers = [];
      for (let i = 0; i < 3; i++) peers.push(await scene.insider(helloFieldsV3()));
      let answer: Record<string, unknown> = {};
      await scene.refuses({ code: "HandshakeFailed" }, async () => {
        const peer = await scene.attacker();
        await peer.write(helloV3());
        answer = await peer.answer();
        return peer;
      });
      assert.equal(answer.code, "TOO_MANY_CONNECTIONS");
      await peers[2]!.write(frameV3({ payload: "served" }));
      await scene.when(() => scene.delivered.length === 1, 1_000, () => "not served");
    }),
  );

  it(
    "29. 300 nodes that come and go: nothing of them is left when their time is over",
    inScene({ victim: { resumeWindowMs: 200, maxConnections: 50 } }, async (scene) => {
      for (let i = 0; i < 300; i += 20) {
        const some = await Promise.all(
          Array.from(
            { length: 20 },
            (_, j) => scene.insider(helloFieldsV3({ node_id: `m${i + j}` })),
          ),
        );
        await Promise.all(some.map((peer) => peer.write(frameV3({ payload: "one" }))));
        await scene.when(() => scene.delivered.length === i + 20, 1_000, () => "not delivered");
        for (const peer of some) peer.reset();
        await scene.when(() => scene.openConnections === 1, 1_000, () => "not closed");
      }
      await scene.when(
        () => scene.victim.peers().length === 1,
        2_000,
        () => `${scene.victim.peers().length} peers`,
      );
      assert.equal(scene.delivered.length, 300);
    }),
  );
});

describe("30. a gigabyte to a peer of version 3", () => {
  const victim: Partial<EndpointConfig> = {
    ioTimeoutMs: 300,
    maxPendingBytes: 32 * MEBIBYTE,
    resumeWindowMs: 100,
    compression: { enabled: false },
  };

  it(
    "30. that does not read: it answers no ping, and every message is reported once",
    inScene({ victim: { ...victim, keepaliveIntervalSecs: 1 } }, async (scene) => {
      const undelivered: UndeliveredDetail[] = [];
      scene.victim.addEventListener("undelivered", ({ detail }) => undelivered.push(detail));
      await Talker.join(scene, { reads: false, hello: { receive_window: GIGABYTE } });
      const before = residentMiB();
      const accepted = fill(scene, "mallory");
      assert.ok(accepted * CHUNK <= 32 * MEBIBYTE, `${accepted} messages accepted`);
      assert.ok(accepted > 0);
      await scene.when(() => undelivered.length === accepted, 4_000, () => `${undelivered.length}`);
      assert.ok(residentMiB() - before < 150, "memory");
      assert.deepEqual(
        undelivered.map(({ payload }) => numberOf(payload)).toSorted((a, b) => a - b),
        Array.from({ length: accepted }, (_, i) => i),
      );
      assert.deepEqual(scene.victim.stats().errors, { ConnectionClosed: 1 });
      assert.deepEqual(scene.reported.map(({ code }) => code), ["ConnectionClosed"]);
    }),
  );

  it(
    "30. that reads and never acknowledges: no more than its window is sent, nor kept than may be",
    inScene({ victim }, async (scene) => {
      const talker = await Talker.join(scene, { hello: { receive_window: MEBIBYTE } });
      const before = residentMiB();
      const accepted = fill(scene, "mallory");
      assert.ok(accepted > 0 && accepted * CHUNK <= 32 * MEBIBYTE, `${accepted} accepted`);
      assert.ok(await within(1_000, talker.settled(), "not read"), "the connection ended");
      const sent = talker.heard.data ?? 0;
      assert.ok(sent > 0 && sent * CHUNK <= MEBIBYTE, `${sent} sent`);
      // It is acknowledged after all: what waits follows.
      await talker.say(frameV3({ kind: "ack", payload: ackEntry(1, sent) }));
      await within(1_000, talker.until(() => talker.heard.data! > sent), "nothing follows");
      assert.ok(residentMiB() - before < 150, "memory");
      assert.deepEqual(scene.victim.stats().errors, {});
    }),
  );

  it(
    "30. that acknowledges byte by byte of its window: all arrives, in order",
    inScene({ victim: { ...victim, ioTimeoutMs: 30_000 } }, async (scene) => {
      const talker = await Talker.join(scene, { acks: true, hello: { receive_window: 1 } });
      for (let i = 0; i < 50; i++) await scene.victim.send("mallory", numbered(i));
      await within(5_000, scene.victim.flush("mallory"), "not flushed");
      assert.equal(talker.heard.data, 50);
    }),
  );
});

describe("30. a peer that sends more than our window", () => {
  it(
    "30. to an application that takes nothing: no longer read, memory bounded, nothing lost",
    async () => {
      const release: (() => void)[] = [];
      let held = true;
      const onMessage = () =>
        held ? new Promise<void>((resolve) => void release.push(resolve)) : undefined;
      const victim = { receiveWindow: CHUNK, maxMessageSize: CHUNK, keepalive: false };
      await inScene({ victim, onMessage }, async (scene) => {
        const talker = await Talker.join(scene);
        const before = residentMiB();
        const count = 64 * MEBIBYTE / CHUNK;
        const frames = Array.from(
          { length: count },
          () => talker.frame({ payload: new Uint8Array(CHUNK) }),
        );
        const written = talker.say(...frames).then(() => "written");
        const first = await Promise.race([written, scene.beats().then(() => "not yet")]);
        assert.equal(first, "not yet");
        await scene.beats();
        assert.equal(scene.delivered.length, 1);
        // The attacker has 64 MiB of frames, and once more as one write.
        const grown = residentMiB() - before;
        assert.ok(grown < 400, `${grown.toFixed(1)} MiB`);
        held = false;
        release[0]!();
        await within(10_000, written, "not read again");
        await scene.when(() => scene.delivered.length === count, 10_000, () => "not delivered");
        assert.equal(talker.heard.goaway, undefined);
        assert.deepEqual(scene.victim.stats().errors, {});
      })();
    },
  );
});

describe("32. a flood of pings", () => {
  const pings = join(
    ...Array.from({ length: 1_000 }, (_, i) => frameV3({ kind: "ping", id: 1_000 + i })),
  );

  it(
    "32. 100,000 whose answers are read: the connection goes on",
    inScene({}, async (scene) => {
      const talker = await Talker.join(scene);
      const before = residentMiB();
      for (let i = 0; i < 100; i++) {
        await talker.say(pings);
        if (i % 10 === 0) await scene.beats();
      }
      assert.ok(await within(10_000, talker.settled(), "not answered"), "the connection ended");
      const { pong = 0 } = talker.heard;
      assert.ok(pong > 1_000 && pong <= 100_001, `${pong} pongs`);
      assert.ok(residentMiB() - before < 200, "memory");
      assert.deepEqual(scene.victim.stats().errors, {});
    }),
  );

  it(
    "32. 1,000,000 whose answers are not read: they do not pile up, and others are served",
    inScene({ victim: { ioTimeoutMs: 500, resumeWindowMs: 100 } }, async (scene) => {
      const talker = await Talker.join(scene, { reads: false });
      const before = residentMiB();
      for (let i = 0; i < 1_000; i++) {
        // A connection that was given up takes no more writes.
        await Promise.race([talker.say(pings), scene.beats()]);
        if (i % 10 === 0) await scene.beats();
      }
      const grown = residentMiB() - before;
      assert.ok(grown < 400, `${grown.toFixed(1)} MiB`);
      const { errors } = scene.victim.stats();
      assert.ok(Object.values(errors).reduce((sum, count) => sum + count, 0) <= 1, "one error");
      assert.ok(scene.reported.length <= 1);
    }),
  );
});

describe("33. one slow peer", () => {
  it(
    "33. whose messages the application does not finish: those of others are taken",
    inScene({
      onMessage: ({ from }) => from === "mallory" ? new Promise<void>(() => {}) : undefined,
    }, async (scene) => {
      const slow = await Talker.join(scene, { acks: true });
      await slow.storm(2_000, () => slow.frame({ payload: new Uint8Array(1_000) }));
      const other = await Talker.join(scene, { acks: true, hello: { node_id: "bystander" } });
      await other.storm(2_000, (i) => other.frame({ payload: `${i}` }));
      const from = (who: string) => scene.delivered.filter((message) => message.from === who);
      await scene.when(() => from("bystander").length === 2_000, 2_000, () => "held back too");
      assert.equal(from("mallory").length, 1);
    }),
  );

  it(
    "33. that takes nothing of what we send: others get theirs, and it is not lost",
    inScene({ victim: { compression: { enabled: false } } }, async (scene) => {
      await Talker.join(scene, { reads: false });
      const accepted = fill(scene, "mallory");
      assert.ok(accepted > 0);
      const other = await Talker.join(scene, { acks: true, hello: { node_id: "bystander" } });
      for (let i = 0; i < 100; i++) await scene.victim.send("bystander", numbered(i));
      await within(5_000, scene.victim.flush("bystander"), "not flushed");
      assert.equal(other.heard.data, 100);
      // What the kernel took in the meantime has made room.
      fill(scene, "mallory");
      assert.equal(scene.victim.trySend("mallory", numbered(0)), false);
    }),
  );
});

describe("34. silence", () => {
  const victim = { keepaliveIntervalSecs: KEEPALIVE_MS / 1_000, resumeWindowMs: 100 };
  const everybody = { keepaliveIntervalSecs: KEEPALIVE_MS / 1_000 };

  it(
    "34. a peer that says nothing any more: noticed within twice the keepalive",
    inScene({ victim, everybody }, async (scene) => {
      const started = performance.now();
      await scene.refuses({ code: "ConnectionClosed", withinMs: 4 * KEEPALIVE_MS }, async () => {
        const talker = await Talker.join(scene, { pongs: false });
        return talker.peer;
      });
      const took = performance.now() - started;
      assert.ok(took > KEEPALIVE_MS, `after ${took} ms`);
    }),
  );

  it(
    "34. a peer that only answers pings lives on",
    inScene({ victim, everybody }, async (scene) => {
      const talker = await Talker.join(scene);
      await within(6_000, talker.until(() => (talker.heard.ping ?? 0) >= 4), "no pings");
      assert.equal(scene.victim.peer("mallory")?.state, "active");
      assert.deepEqual(scene.victim.stats().errors, {});
    }),
  );

  it(
    "34. a process that stands still and goes on: nothing is lost, its pong may be late",
    inScene({ victim, everybody }, async (scene) => {
      const peer = await scene.insider(helloFieldsV3());
      const asked = await nextOfKind(peer, "ping");
      // It stands still for half of the time that it may take to answer.
      const still = performance.now() + KEEPALIVE_MS / 2;
      await scene.when(() => performance.now() > still, 1_000, () => "the canary stands still");
      await peer.write(
        frameV3({ kind: "pong", id: asked!.id }),
        frameV3({ payload: "still here" }),
      );
      await scene.when(() => scene.delivered.length === 1, 1_000, () => "nothing delivered");
      const next = await within(2_000, nextOfKind(peer, "ping"), "no further ping");
      assert.notEqual(next?.id, asked!.id);
      assert.deepEqual(scene.victim.stats().errors, {});
    }),
  );

  it(
    "34. pongs of other pings are no sign of what was asked",
    inScene({ victim, everybody }, async (scene) => {
      const talker = await Talker.join(scene, { pongs: false });
      await talker.say(frameV3({ kind: "pong", id: 2n ** 64n - 1n }));
      await scene.refuses({ code: "ConnectionClosed", withinMs: 4 * KEEPALIVE_MS }, () => {
        return Promise.resolve(talker.peer);
      }).catch((error) => {
        // The connection was there before: one less is what must be left.
        assert.match(String(error), /1 connections instead of 2, ConnectionClosed/);
      });
    }),
  );

  for (const jump of [3_600_000, 86_400_000 * 30]) {
    it(
      `34. our clock jumps by ${jump} ms: whoever answers is not taken for dead`,
      async () => {
        let offset = 0;
        const environment = { ...systemEnvironment, now: () => systemEnvironment.now() + offset };
        const options = { victim: { ...victim, environment, resumeWindowMs: 60_000 }, everybody };
        await inScene(options, async (scene) => {
          const talker = await Talker.join(scene);
          await within(2_000, talker.until(() => (talker.heard.ping ?? 0) >= 1), "no pings");
          offset += jump;
          await talker.say(talker.frame({ payload: "before" }));
          const asked = talker.heard.ping!;
          await within(3_000, talker.until(() => talker.heard.ping! >= asked + 2), "no pings");
          await talker.say(talker.frame({ payload: "after" }));
          await scene.when(() => scene.delivered.length === 2, 1_000, () => "not delivered");
          assert.deepEqual(scene.victim.stats().errors, {});
        })();
      },
    );
  }
});
