/**
 * WebTransport between two processes of Deno, and what other runtimes say. Deno runs with
 * `--unstable-net`, which is why the tests of WebTransport in one process are run from here, too.
 * Needs `--allow-run`; `deno test --allow-net` leaves it out.
 */

import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { fileURLToPath } from "node:url";
import type { EndpointConfig } from "../../mod.ts";
import { run, type RuntimeName, runtimePath } from "../../tools/runtimes.ts";
import { newKeys } from "../endpoint/on_the_line.ts";
import { TestCa } from "../support/certs.ts";
import { mayRun } from "../support/may_run.ts";
import { Actor, ActorError } from "./process.ts";

const skip = !mayRun();
const KEYS = { a: newKeys(), b: newKeys() };
const TRUSTED = { a: KEYS.a.publicKey, b: KEYS.b.publicKey };
/** `deno run` with the flag that HTTP/3 needs; the arguments are those of `runCommand`. */
const UNSTABLE = ["sh", "-c", 'deno=$1; shift 2; exec "$deno" run --unstable-net "$@"', "sh"];

async function strict(
  ca: TestCa,
  nodeId: "a" | "b",
): Promise<EndpointConfig & { nodeId: string }> {
  return {
    nodeId,
    tls: {
      ...await ca.issue(nodeId),
      ca: ca.ca,
      requireClientAuth: true,
      nodeIdVerification: "CommonName",
    },
    identity: { privateKey: KEYS[nodeId].privateKey, trustedKeys: TRUSTED },
  };
}

/** Files with tests of WebTransport, and the describes in them where not all are. */
const ON_DENO: Record<string, string | undefined> = {
  "../transport/webtransport_test.ts": undefined,
  "../endpoint/webtransport_test.ts": undefined,
  "../endpoint/transports_ledger_test.ts": "over WebTransport",
  "../deno_leaks_test.ts": "over wt",
};

describe("the tests of WebTransport on Deno", { skip }, () => {
  for (const [file, only] of Object.entries(ON_DENO)) {
    it(`deno --unstable-net: ${file.slice(3)}`, async () => {
      const path = fileURLToPath(new URL(file, import.meta.url));
      const filter = only === undefined ? [] : [`--filter=${only}`];
      const command = [runtimePath("deno"), "test", "--allow-net", "--unstable-net", ...filter];
      const { code, output } = await run([...command, path], { quiet: true, limitMs: 120_000 });
      assert.equal(code, 0, output);
      assert.match(output, /ok \| [1-9]\d* passed/);
    });
  }
});

describe("WebTransport between two processes", { skip }, () => {
  it("strict: messages both ways, and on after the listener was started anew", async () => {
    const ca = await TestCa.create();
    const [a, b] = [
      new Actor("deno", { prefix: UNSTABLE }),
      new Actor("deno", { prefix: UNSTABLE }),
    ];
    let again: Actor | undefined;
    try {
      const listens = await strict(ca, "b");
      const start = (actor: Actor, listen: string) =>
        actor.tell({ do: "start", options: { ...listens, listen } });
      const [address] = await start(b, "wt://127.0.0.1:0/cluster");
      assert.match(address, /^wt:\/\/127\.0\.0\.1:\d+\/cluster$/);
      await a.tell({
        do: "start",
        options: {
          ...await strict(ca, "a"),
          reconnect: { initialBackoffMs: 10, maxBackoffMs: 100 },
        },
      });
      await a.tell({ do: "connect", nodeId: "b", address });
      const exchange = async (listener: Actor) => {
        await a.tell({ do: "send", nodeId: "b", count: 500, size: 1000 });
        const received = await listener.until<Record<string, { count: number; inOrder: boolean }>>(
          { do: "received" },
          (received) => received["a"]?.count === 500,
        );
        assert.equal(received["a"]!.inOrder, true);
      };
      await exchange(b);
      await b.tell({ do: "send", nodeId: "a", count: 500, size: 1000 });
      await a.until<Record<string, { count: number }>>(
        { do: "received" },
        (received) => received["b"]?.count === 500,
      );
      await b.close();
      again = new Actor("deno", { prefix: UNSTABLE });
      await start(again, address);
      await a.until<{ active: number }>(
        { do: "poolStats", nodeId: "b" },
        ({ active }) => active > 0,
      );
      await exchange(again);
      for (const { runtime, stderr } of [a, again]) {
        assert.doesNotMatch(stderr, /unhandled|uncaught|panicked/i, `${runtime}: ${stderr}`);
      }
    } finally {
      await Promise.all([a.close(), b.close(), again?.close()]);
    }
  });
});

describe("where there is no WebTransport", { skip }, () => {
  const without: Record<string, [RuntimeName, RegExp]> = {
    "Deno without --unstable-net": ["deno", /Deno needs --unstable-net for WebTransport/],
    "Bun": ["bun", /Bun's HTTP\/3 has no WebTransport/],
    "Node": ["node", /Node has no HTTP\/3/],
  };
  for (const [name, [runtime, reason]] of Object.entries(without)) {
    it(`${name} says so`, async () => {
      const ca = await TestCa.create();
      const b = new Actor(runtime);
      try {
        const options = { ...await strict(ca, "b"), listen: "wt://127.0.0.1:0" };
        await assert.rejects(b.tell({ do: "start", options }), (error) => {
          assert.ok(error instanceof ActorError);
          assert.equal(error.code, "UnsupportedProtocol", error.message);
          assert.match(error.message, reason);
          return true;
        });
      } finally {
        await b.close();
      }
    });
  }
});
