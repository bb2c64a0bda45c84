/**
 * Every runtime with every runtime over Unix sockets, in processes of their own, while connections
 * are cut; and what becomes of the sockets' files on the runtime that needs permissions for them.
 */

import assert from "node:assert/strict";
import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { describe, it } from "node:test";
import type { EndpointOptions } from "../../mod.ts";
import { RUNTIMES } from "../../tools/runtimes.ts";
import { LANES } from "../simulation/api.ts";
import { mayRun } from "../support/may_run.ts";
import { TestCa } from "../support/certs.ts";
import { unixContract } from "../transport/unix_contract.ts";
import { unixFileTests } from "../transport/unix_files.ts";
import { Actor } from "./process.ts";
import { type Arrivals, compare, type Outcomes } from "./stream_ledger.ts";
import { UnixProxy } from "./unix_proxy.ts";

const skip = !mayRun() || process.platform === "win32";
/** The other runtimes run these tests beside those of the other transports. */
const onDeno = !skip && "Deno" in globalThis;
const CUTS = 10;
const BYTES_BETWEEN = 200_000;

async function optionsOf(nodeId: string, ca: TestCa | undefined): Promise<EndpointOptions> {
  const options: EndpointOptions = {
    nodeId,
    // Every connection is to go through the proxy.
    useAdvertised: "never",
    reconnect: { initialBackoffMs: 5, maxBackoffMs: 20 },
  };
  if (ca === undefined) return { ...options, security: "development" };
  const tls = {
    ...await ca.issue(nodeId),
    ca: ca.ca,
    requireClientAuth: true,
    nodeIdVerification: "CommonName",
  } as const;
  return { ...options, tls };
}

/** One direction: everything that was accepted has arrived once and in order. */
async function assertBalance(from: Actor, to: Actor, fromId: string, toId: string): Promise<void> {
  await from.tell({ do: "flush", nodeId: toId });
  const outcomes: Outcomes = await from.tell({ do: "outcomes" });
  let sum = compare(outcomes, [{}]);
  await to.until<Arrivals>({ do: "arrivals", nodeId: fromId }, (arrivals) => {
    sum = compare(outcomes, [arrivals]);
    return sum.lost === 0;
  }, 10_000).catch(() => {});
  const { violations, accepted, undelivered, received, lost } = sum;
  assert.ok(accepted > 500, `${accepted} accepted`);
  assert.deepEqual({ violations, undelivered, received, lost }, {
    violations: [],
    undelivered: 0,
    received: accepted,
    lost: 0,
  });
}

describe("Unix sockets between runtimes", { skip }, () => {
  for (const [index, dialer] of RUNTIMES.entries()) {
    for (const [other, listener] of RUNTIMES.entries()) {
      // Each runtime dials and listens with and without TLS.
      const tls = (index + other) % 2 === 0;
      it(`${dialer} dials ${listener} (${tls ? "strict" : "development"}), and ${CUTS} cuts lose nothing`, async () => {
        const ca = tls ? await TestCa.create() : undefined;
        const dir = mkdtempSync(join(tmpdir(), "hawser-"));
        const [a, b] = [new Actor(dialer), new Actor(listener)];
        const [path, proxyPath] = [join(dir, "b.sock"), join(dir, "proxy.sock")];
        let proxy: UnixProxy | undefined;
        try {
          const listen = { ...await optionsOf("b", ca), listen: `unix:${path}` };
          assert.deepEqual(await b.tell({ do: "start", options: listen }), [`unix:${path}`]);
          proxy = await UnixProxy.start(proxyPath, path);
          await a.tell({ do: "start", options: await optionsOf("a", ca) });
          await a.tell({ do: "connect", nodeId: "b", address: `unix:${proxyPath}` });
          const seen = await b.until<{ identity?: string; encrypted: boolean } | null>(
            { do: "peer", nodeId: "a" },
            (peer) => peer !== null,
          );
          assert.deepEqual([seen?.identity, seen?.encrypted], [tls ? "a" : undefined, tls]);
          const stream = { do: "stream", count: 1e6, maxSize: 100_000 } as const;
          await a.tell({ ...stream, nodeId: "b", lanes: [...LANES] });
          await b.tell({ ...stream, nodeId: "a", lanes: [...LANES] });
          while (proxy.cuts < CUTS) {
            await proxy.forwarded(BYTES_BETWEEN);
            proxy.cut();
          }
          await Promise.all([a.tell({ do: "stopStream" }), b.tell({ do: "stopStream" })]);
          await assertBalance(a, b, "a", "b");
          await assertBalance(b, a, "b", "a");
        } finally {
          await Promise.all([a.close(), b.close()]);
          await proxy?.close();
          const left = readdirSync(dir);
          rmSync(dir, { recursive: true });
          assert.deepEqual(left, []);
        }
      });
    }
  }
});

describe("files of Unix sockets", { skip: !onDeno }, unixFileTests);

if (onDeno) {
  let lastName = 0;
  const dir = mkdtempSync(join(tmpdir(), "hawser-"));
  unixContract("Unix sockets", () => `unix:${join(dir, `${++lastName}.sock`)}`);
  describe("after all tests", () => {
    it("no file of a Unix socket is left", () => {
      const left = readdirSync(dir);
      rmSync(dir, { recursive: true });
      assert.deepEqual(left, []);
    });
  });
}
