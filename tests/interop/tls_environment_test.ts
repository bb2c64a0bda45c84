/** Row 22 of the bad inputs on every runtime: an environment that switches verification off. */

import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { TransportStats } from "../../mod.ts";
import { RUNTIMES } from "../../tools/runtimes.ts";
import { RawListener, RawPeer } from "../bad_input/raw_peer.ts";
import { hello, messageV2, welcome } from "../bad_input/wire.ts";
import { TestCa } from "../support/certs.ts";
import { mayRun } from "../support/may_run.ts";
import { makeMessage } from "./actor.ts";
import { Actor } from "./process.ts";

const env = { NODE_TLS_REJECT_UNAUTHORIZED: "0" };

describe("22. NODE_TLS_REJECT_UNAUTHORIZED=0 changes nothing", { skip: !mayRun() }, () => {
  for (const runtime of RUNTIMES) {
    it(`22. on ${runtime}`, async () => {
      const [ca, rogueCa] = [await TestCa.create(), await TestCa.create()];
      const rogue = { ...await rogueCa.issue("mallory"), ca: rogueCa.ca };
      const rules = { requireClientAuth: true, nodeIdVerification: "CommonName" } as const;
      const secret = messageV2(makeMessage(0, 64));
      const actor = new Actor(runtime, { env });
      const listener = await RawListener.listen((peer) => peer.write(welcome(), secret), rogue);
      try {
        const [address] = await actor.tell({
          do: "start",
          options: {
            nodeId: "victim",
            listen: "tcp://127.0.0.1:0",
            tls: { ...await ca.issue("victim"), ca: ca.ca, ...rules },
          },
        });
        const dial = actor.tell({ do: "connect", nodeId: "mallory", address: listener.address });
        await assert.rejects(dial, { code: "HandshakeFailed" });
        for (const material of [rogue, {}]) {
          const port = Number(address.split(":").at(-1));
          const peer = await RawPeer.connect({ port, tls: material });
          await peer.write(hello(), secret);
          await peer.gone;
          assert.notEqual((await peer.answer()).type, "welcome");
        }
        const { errors } = await actor.until<TransportStats>(
          { do: "stats" },
          ({ errors }) => errors.ClientCertificateRequired === 1 && errors.HandshakeFailed === 2,
        );
        assert.deepEqual(Object.keys(errors).sort(), [
          "ClientCertificateRequired",
          "HandshakeFailed",
        ]);
        assert.deepEqual(await actor.tell({ do: "received" }), {});
      } finally {
        listener.close();
        await actor.close();
      }
    });
  }
});
