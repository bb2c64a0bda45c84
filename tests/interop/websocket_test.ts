/**
 * WebSockets between every two runtimes, in strict mode, in processes of their own; also with those
 * that are mounted in a server of the other side. Needs `--allow-run`; `deno test --allow-net`
 * leaves it out.
 */

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import process from "node:process";
import { createInterface } from "node:readline";
import { describe, it } from "node:test";
import { fileURLToPath } from "node:url";
import { runCommand, type RuntimeName, RUNTIMES } from "../../tools/runtimes.ts";
import { newKeys } from "../endpoint/on_the_line.ts";
import { strict } from "../endpoint/proved_pair.ts";
import { TestCa } from "../support/certs.ts";
import { mayRun } from "../support/may_run.ts";
import type { MountedEcho } from "./mounted_echo.ts";
import { Actor } from "./process.ts";

const skip = !mayRun();
const ECHO = fileURLToPath(new URL("./mounted_echo.ts", import.meta.url));
/** The servers that a mount is for, and where they are. */
const SERVERS: readonly (readonly [RuntimeName, string])[] = [
  ["deno", "Deno.serve"],
  ["bun", "Bun.serve"],
  ...RUNTIMES.map((runtime) => [runtime, "node:http"] as const),
];

interface Received {
  readonly [from: string]: { count: number; bytes: number; inOrder: boolean };
}

async function assertReceives(actor: Actor, from: string, count: number): Promise<void> {
  const received = await actor.until<Received>({ do: "received" }, (r) => r[from]?.count === count);
  assert.deepEqual(received[from], { count, bytes: count * 1000, inOrder: true });
}

describe("wss between runtimes, with mutual TLS", { skip }, () => {
  for (const dialer of RUNTIMES) {
    for (const listener of RUNTIMES) {
      it(`${dialer} dials ${listener}: both ways, in order, verified`, async () => {
        const ca = await TestCa.create();
        const [a, b] = [new Actor(dialer), new Actor(listener)];
        try {
          const listen = "wss://127.0.0.1:0/hawser";
          const options = { ...await strict(ca, "b"), listen };
          const [address] = await b.tell({ do: "start", options });
          await a.tell({ do: "start", options: await strict(ca, "a") });
          await a.tell({ do: "connect", nodeId: "b", address });
          for (const [actor, nodeId] of [[a, "b"], [b, "a"]] as const) {
            const peer = await actor.tell({ do: "peer", nodeId });
            assert.deepEqual([peer.state, peer.identity, peer.encrypted], ["active", nodeId, true]);
          }
          await Promise.all([
            a.tell({ do: "send", nodeId: "b", count: 2000, size: 1000 }),
            b.tell({ do: "send", nodeId: "a", count: 2000, size: 1000 }),
          ]);
          await assertReceives(a, "b", 2000);
          await assertReceives(b, "a", 2000);
        } finally {
          await Promise.all([a.close(), b.close()]);
        }
      });
    }
  }
});

/** Starts a process with a mounted endpoint; `stop` lets it end. */
async function mountedEcho(
  runtime: RuntimeName,
  told: MountedEcho,
): Promise<{ url: string; stop(): Promise<unknown> }> {
  const [command, ...args] = runCommand(runtime, ECHO);
  const child = spawn(command!, args, {
    stdio: ["pipe", "pipe", "inherit"],
    env: { ...process.env, NO_COLOR: "1" },
  });
  const exited = new Promise((resolve) => child.on("exit", resolve));
  child.stdin.write(`${JSON.stringify(told)}\n`);
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  const { value, done } = await lines.next();
  if (done) throw new Error(`the ${runtime} process is gone`);
  const stop = () => {
    child.stdin.end("\n");
    return exited;
  };
  return { url: JSON.parse(value), stop };
}

describe("wss to a mounted server, with proofs by keys", { skip }, () => {
  for (const [runtime, server] of SERVERS) {
    for (const dialer of RUNTIMES) {
      it(`${dialer} dials ${server} on ${runtime}: both ways, in order, proven`, async () => {
        const ca = await TestCa.create();
        const [keyA, keyB] = [newKeys(), newKeys()];
        const trustedKeys = { a: keyA.publicKey, b: keyB.publicKey };
        const credentials = await ca.issue("b");
        const echo = await mountedEcho(runtime, {
          server,
          credentials,
          options: {
            ...await strict(ca, "b"),
            identity: { privateKey: keyB.privateKey, trustedKeys },
          },
        });
        const a = new Actor(dialer);
        try {
          const identity = { privateKey: keyA.privateKey, trustedKeys };
          await a.tell({ do: "start", options: { ...await strict(ca, "a"), identity } });
          await a.tell({ do: "connect", nodeId: "b", address: echo.url });
          await a.tell({ do: "send", nodeId: "b", count: 2000, size: 1000 });
          await assertReceives(a, "b", 2000);
        } finally {
          await a.close();
          await echo.stop();
        }
      });
    }
  }
});
