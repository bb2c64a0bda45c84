/**
 * WebTransport between two processes of Deno, and what other runtimes say. Deno runs with
 * `--unstable-net`, which is why the tests of WebTransport in one process are run from here, too.
 * Needs `--allow-run`; `deno test --allow-net` leaves it out.
 */

import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { TestCa } from "../support/certs.ts";
import { mayRun } from "../support/may_run.ts";
import type { Actor } from "./process.ts";
import { actor, asA, asB, connect, flowing, strict, withPair } from "./quic_pair.ts";
import { unstableTests } from "./unstable_tests.ts";
import { withoutTransport } from "./without_transport.ts";

const skip = !mayRun();
const LISTEN = "wt://127.0.0.1:0/cluster";
const DENO = ["deno", "deno"] as const;

unstableTests("the tests of WebTransport on Deno", {
  "../transport/webtransport_test.ts": undefined,
  "../endpoint/webtransport_test.ts": undefined,
  "../endpoint/transports_ledger_test.ts": "over WebTransport",
  "../deno_leaks_test.ts": "over wt",
});

describe("WebTransport between two processes", { skip }, () => {
  it("strict: messages both ways, and on after the listener was started anew", async () => {
    const ca = await TestCa.create();
    const reconnect = { initialBackoffMs: 10, maxBackoffMs: 100 };
    const dials = { ...await strict(ca, "a"), ...asA(), reconnect };
    const listens = { ...await strict(ca, "b"), ...asB() };
    await withPair(DENO, dials, listens, async ({ a, b, address }) => {
      assert.match(address, /^wt:\/\/127\.0\.0\.1:\d+\/cluster$/);
      await connect({ a, b, address });
      await exchange(a, "b", b, "a");
      await exchange(b, "a", a, "b");
      await b.close();
      const again = actor("deno");
      try {
        await again.tell({ do: "start", options: { ...listens, listen: address } });
        await a.until<{ active: number }>(
          { do: "poolStats", nodeId: "b" },
          ({ active }) => active > 0,
        );
        await exchange(a, "b", again, "a");
      } finally {
        await again.close();
      }
    }, LISTEN);
  });

  it("goes on when the dialer's address changes, on the same connection", async () => {
    await flowing(DENO, {}, async ({ a }, proxy, pass) => {
      for (let round = 1; round <= 3; round++) {
        await pass(50);
        proxy.rebind();
      }
      await pass(50);
      const { reconnections } = await a.tell({ do: "stats" });
      assert.equal(reconnections, 0);
      assert.ok(proxy.farPorts.size >= 4);
    }, LISTEN);
  });

  it("resumes the session without keepalive when the connection falls silent", async () => {
    await flowing(DENO, { keepalive: false }, async (_, proxy, pass) => {
      await pass(100);
      proxy.cut();
      await pass(300);
      assert.ok(proxy.flowCount > 1);
    }, LISTEN);
  });
});

async function exchange(from: Actor, nodeId: string, to: Actor, name: string): Promise<void> {
  await from.tell({ do: "send", nodeId, count: 500, size: 1000 });
  const received = await to.until<Record<string, { count: number; inOrder: boolean }>>(
    { do: "received" },
    (received) => received[name]?.count === 500,
  );
  assert.equal(received[name]!.inOrder, true);
}

withoutTransport("WebTransport", LISTEN, {
  "Deno without --unstable-net": ["deno", /Deno needs --unstable-net for WebTransport/],
  "Bun": ["bun", /Bun's HTTP\/3 has no WebTransport/],
  "Node": ["node", /Node has no HTTP\/3/],
});
