/**
 * Every runtime with every runtime, in strict mode, in processes of their own. Needs `--allow-run`;
 * `deno test --allow-net` leaves it out.
 */

import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { RUNTIMES } from "../../tools/runtimes.ts";
import { mayRun } from "../support/may_run.ts";
import { TestCa } from "../support/certs.ts";
import { Actor } from "./process.ts";

const skip = !mayRun();

describe("strict mutual TLS between runtimes", { skip }, () => {
  for (const dialer of RUNTIMES) {
    for (const listener of RUNTIMES) {
      const verification = dialer === listener ? "SubjectAltName" : "CommonName";
      it(`${dialer} dials ${listener} (${verification}): both ways, in order, pooled, compressed`, async () => {
        const ca = await TestCa.create();
        const options = async (nodeId: string) => ({
          nodeId,
          tls: {
            ...await ca.issue(nodeId),
            ca: ca.ca,
            requireClientAuth: true,
            nodeIdVerification: verification,
          } as const,
        });
        const a = new Actor(dialer);
        const b = new Actor(listener);
        try {
          const [address] = await b.tell({
            do: "start",
            options: { ...await options("b"), listen: "tcp://127.0.0.1:0" },
          });
          await a.tell({ do: "start", options: await options("a") });
          await a.tell({ do: "connect", nodeId: "b", address });
          await a.until<{ active: number }>(
            { do: "poolStats", nodeId: "b" },
            (s) => s.active === 2,
          );
          const seen = await b.until<{ connections: number } | null>(
            { do: "peer", nodeId: "a" },
            (peer) => peer?.connections === 2,
          );
          assert.deepEqual(seen, {
            state: "active",
            version: 3,
            capabilities: ["lz4", "zstd", "resume", "streams"],
            identity: "a",
            verifiedBy: verification,
            encrypted: true,
            connections: 2,
          });
          await Promise.all([
            a.tell({ do: "send", nodeId: "b", count: 2000, size: 1000 }),
            b.tell({ do: "send", nodeId: "a", count: 2000, size: 1000 }),
          ]);
          for (const [actor, from] of [[a, "b"], [b, "a"]] as const) {
            const received = await actor.until<Record<string, { count: number }>>(
              { do: "received" },
              (r) => r[from]?.count === 2000,
            );
            assert.deepEqual(received[from], { count: 2000, bytes: 2_000_000, inOrder: true });
          }
          const stats = await a.tell({ do: "stats" });
          assert.ok(stats.bytesSent < stats.payloadBytesSent * 0.7, "compressed");
        } finally {
          await Promise.all([a.close(), b.close()]);
        }
      });
    }
  }
});
