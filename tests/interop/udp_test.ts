/**
 * Datagrams between every pair of runtimes, in processes of their own: plain, and encrypted and
 * signed in strict mode. Needs `--allow-run`; `deno test --allow-net` leaves it out.
 */

import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { EndpointOptions } from "../../mod.ts";
import { type RuntimeName, RUNTIMES } from "../../tools/runtimes.ts";
import { newKeys } from "../endpoint/on_the_line.ts";
import { TestCa } from "../support/certs.ts";
import { mayRun } from "../support/may_run.ts";
import { Actor } from "./process.ts";
import type { Outcome } from "./services.ts";

const skip = !mayRun();
const COUNT = 50;
const SIZE = 900;
const LARGEST = 60_000;

/** What a node tells of its peer. */
interface PeerState {
  readonly connections: number;
  readonly capabilities: string[];
  readonly encrypted: boolean;
}

/** What two nodes are started with. */
type Options = (nodeId: "a" | "b") => Promise<Partial<EndpointOptions>>;

const plain: Options = () => Promise.resolve({ security: "development" });

/** Strict mode: certificates for what has links, signatures for datagrams. */
async function strict(): Promise<Options> {
  const ca = await TestCa.create();
  const keys = { a: newKeys(), b: newKeys() };
  const trustedKeys = { a: keys.a.publicKey, b: keys.b.publicKey };
  return async (nodeId) => ({
    tls: {
      ...await ca.issue(nodeId),
      ca: ca.ca,
      requireClientAuth: true,
      nodeIdVerification: "CommonName",
    },
    signing: { privateKey: keys[nodeId].privateKey, trustedKeys },
  });
}

for (const dialer of RUNTIMES) {
  for (const listener of RUNTIMES) {
    describe(`datagrams from ${dialer} to ${listener}`, { skip }, () => {
      it("carry messages and requests both ways", () => meet(dialer, listener, plain, [], false));
      it("do so encrypted and signed, in strict mode", async () =>
        meet(dialer, listener, await strict(), ["signed"], true));
    });
  }
}

async function meet(
  dialer: RuntimeName,
  listener: RuntimeName,
  options: Options,
  capabilities: string[],
  encrypted: boolean,
): Promise<void> {
  const [a, b] = [new Actor(dialer), new Actor(listener)];
  try {
    const listening = { nodeId: "b", ...await options("b"), listen: "udp://127.0.0.1:0" };
    const [address] = await b.tell({ do: "start", options: listening });
    assert.match(address, /^udp:\/\/127\.0\.0\.1:\d+$/);
    await a.tell({ do: "start", options: { nodeId: "a", ...await options("a") } });
    await a.tell({ do: "connect", nodeId: "b", address });
    for (const actor of [a, b]) await actor.tell({ do: "serve" });
    for (const [actor, nodeId] of [[a, "b"], [b, "a"]] as const) {
      const peer = await actor.until<PeerState | null>(
        { do: "peer", nodeId },
        (peer) => peer?.connections === 1,
      );
      assert.deepEqual([peer?.capabilities, peer?.encrypted], [capabilities, encrypted]);
      await actor.tell({ do: "send", nodeId, count: COUNT, size: SIZE });
      const [small, large, none]: Outcome[] = [
        ...await actor.tell({ do: "ask", nodeId, size: SIZE, topic: "echo" }),
        ...await actor.tell({ do: "ask", nodeId, size: LARGEST, topic: "echo" }),
        ...await actor.tell({ do: "ask", nodeId, size: 8, topic: "nothing" }),
      ];
      assert.deepEqual([small?.length, large?.length], [SIZE, LARGEST]);
      assert.equal(none?.remoteCode, "NO_HANDLER");
    }
    for (const [actor, from] of [[a, "b"], [b, "a"]] as const) {
      const received = await actor.until<Record<string, { count: number; bytes: number }>>(
        { do: "received" },
        (all) => all[from]?.count === COUNT,
      );
      assert.equal(received[from]?.bytes, COUNT * SIZE);
    }
  } finally {
    await Promise.all([a.close(), b.close()]);
  }
}
