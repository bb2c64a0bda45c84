/** Rows 18 and 29 inside one process: more connections than there is room for. */

import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { inScene, type Scene } from "./harness.ts";
import type { RawPeer } from "./raw_peer.ts";
import { hello, messageV2 } from "./wire.ts";

/** The bound on connections that have not completed their handshake. */
const MAX_PENDING = 256;
const DEADLINE_MS = 2_000;

/** `perHost` silent connections from each of 127.0.1.1 and following. */
async function flood(scene: Scene, hosts: number, perHost: number): Promise<RawPeer[]> {
  const all: Promise<RawPeer>[] = [];
  for (let host = 1; host <= hosts; host++) {
    for (let i = 0; i < perHost; i++) all.push(scene.attacker({ localAddress: `127.0.1.${host}` }));
  }
  return await Promise.all(all);
}

const refused = (scene: Scene) => scene.victim.stats().refused;

describe("18. half-open handshakes", () => {
  for (const strict of [false, true]) {
    it(
      `18. 600 from 20 hosts: bounded, and over at the deadline (${strict ? "TLS" : "plain text"})`,
      inScene({ strict, victim: { connectTimeoutMs: DEADLINE_MS } }, async (scene) => {
        const peers = await flood(scene, 20, 30);
        await scene.when(
          () => refused(scene).pendingHandshakes === 600 - MAX_PENDING,
          DEADLINE_MS,
          () => JSON.stringify(refused(scene)),
        );
        await scene.beats();
        await scene.when(
          () => scene.victim.stats().errors.Timeout === MAX_PENDING,
          DEADLINE_MS + 1_000,
          () => JSON.stringify(scene.victim.stats().errors),
        );
        await Promise.all(peers.map((peer) => peer.gone));
        const newcomer = await scene.join("newcomer");
        assert.equal(scene.victim.stats().connectionCount, 2);
        await newcomer.close({ drainMs: 0 });
        assert.deepEqual(scene.victim.stats().errors, { Timeout: MAX_PENDING });
      }),
    );
  }

  for (const strict of [false, true]) {
    it(
      `18. attackers that hang up make room at once (${strict ? "TLS" : "plain text"})`,
      inScene({ strict }, async (scene) => {
        const peers = await flood(scene, 10, 30);
        const turnedAway = 300 - MAX_PENDING;
        await scene.when(
          () => refused(scene).pendingHandshakes === turnedAway,
          2_000,
          () => JSON.stringify(refused(scene)),
        );
        for (const peer of peers) peer.close();
        await scene.when(
          () => count(scene) === MAX_PENDING,
          2_000,
          () => JSON.stringify(scene.victim.stats().errors),
        );
        const newcomer = await scene.join("newcomer");
        await newcomer.close({ drainMs: 0 });
      }),
    );
  }
});

describe("29. more connections than there is room for", () => {
  it(
    "29. from one host: the rest is turned away, other hosts are served",
    inScene({ victim: { maxConnectionsPerHost: 5 } }, async (scene) => {
      await flood(scene, 1, 5);
      await scene.when(() => scene.openConnections === 6, 1_000, () => "not accepted");
      for (let i = 0; i < 3; i++) {
        await scene.refuses(
          { refused: "maxConnectionsPerHost" },
          () => scene.attacker({ localAddress: "127.0.1.1" }),
        );
      }
      const other = await scene.insider({}, { localAddress: "127.0.1.2" });
      await other.write(messageV2("served"));
      await scene.when(() => scene.delivered.length === 1, 1_000, () => "not served");
    }),
  );

  it(
    "29. in all: the rest is turned away, one that ends makes room",
    inScene({ victim: { maxConnections: 10 } }, async (scene) => {
      const insiders: RawPeer[] = [];
      for (let i = 0; i < 9; i++) insiders.push(await scene.insider({ node_id: `m${i}` }));
      await scene.refuses({ refused: "maxConnections" }, () => scene.attacker());
      insiders[0]!.end();
      await insiders[0]!.gone;
      await scene.beats();
      await scene.insider({ node_id: "newcomer" });
    }),
  );

  it(
    "29. of one node: more than its pool are TOO_MANY_CONNECTIONS",
    inScene({ victim: { poolSize: 2 } }, async (scene) => {
      for (let i = 0; i < 3; i++) await scene.insider();
      let answer: Record<string, unknown> = {};
      await scene.refuses({ code: "HandshakeFailed" }, async () => {
        const peer = await scene.attacker();
        await peer.write(hello());
        answer = await peer.answer();
        return peer;
      });
      assert.equal(answer.code, "TOO_MANY_CONNECTIONS");
    }),
  );
});

/** Connections that ended before their handshake was complete. */
function count(scene: Scene): number {
  const { HandshakeFailed = 0, ConnectionClosed = 0 } = scene.victim.stats().errors;
  return HandshakeFailed + ConnectionClosed;
}
