/**
 * QUIC between Deno and Bun where the path between them changes or breaks, in processes of their
 * own. Needs `--allow-run`; `deno test --allow-net` leaves it out.
 */

import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { mayRun } from "../support/may_run.ts";
import { flowing, QUIC_PAIRS } from "./quic_pair.ts";

const skip = !mayRun();

for (const runtimes of QUIC_PAIRS) {
  const [dialer, listener] = runtimes;
  describe(`QUIC over another path: ${dialer} dials ${listener}`, { skip }, () => {
    it("goes on when the dialer's address changes, on the same connection", async () => {
      await flowing(runtimes, {}, async ({ a }, proxy, pass) => {
        for (let round = 1; round <= 3; round++) {
          await pass(50);
          proxy.rebind();
        }
        await pass(50);
        const { reconnections } = await a.tell({ do: "stats" });
        assert.equal(reconnections, 0);
        assert.ok(proxy.farPorts.size >= 4);
      });
    });

    // Bun (1.4.5) loses the way now and then where the old address refuses packets.
    it("goes on without keepalive where the address of before refuses packets", async () => {
      await flowing(runtimes, { keepalive: false }, async (_, proxy, pass) => {
        for (let round = 1; round <= 4; round++) {
          await pass(50);
          proxy.rebind({ refused: true });
        }
        await pass(50);
      });
    });

    it("resumes the session without keepalive when the connection falls silent", async () => {
      await flowing(runtimes, { keepalive: false }, async (_, proxy, pass) => {
        await pass(100);
        proxy.cut();
        await pass(300);
        assert.ok(proxy.flowCount > 1);
      });
    });
  });
}
