/**
 * QUIC between Deno and Bun, both ways, in processes of their own. Needs `--allow-run`;
 * `deno test --allow-net` leaves it out.
 */

import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { newKeys } from "../endpoint/on_the_line.ts";
import { TestCa } from "../support/certs.ts";
import { mayRun } from "../support/may_run.ts";
import { type Actor, ActorError } from "./process.ts";
import {
  actor,
  asA,
  asB,
  connect,
  type Options,
  type Pair,
  QUIC_PAIRS,
  strict,
  withPair,
} from "./quic_pair.ts";
import { QuicProxy } from "./quic_proxy.ts";
import { withoutTransport } from "./without_transport.ts";

const skip = !mayRun();
const STRANGER = newKeys();
/** Loss, streams from each side at once, bytes of each. In all more than a dialer on Bun takes at once. */
const ROUNDS = [[0, 100, 20_000], [0, 100, 5_000], [0.02, 30, 5_000]] as const;

async function exchange({ a, b }: Pair, count: number): Promise<void> {
  await Promise.all([
    a.tell({ do: "send", nodeId: "b", count, size: 1000 }),
    b.tell({ do: "send", nodeId: "a", count, size: 1000 }),
  ]);
  await bothReceived({ a, b }, count);
}

async function bothReceived({ a, b }: Pick<Pair, "a" | "b">, count: number): Promise<void> {
  for (const [actor, from] of [[a, "b"], [b, "a"]] as const) {
    const received = await actor.until<Record<string, { count: number }>>(
      { do: "received" },
      (received) => received[from]?.count === count,
    );
    assert.deepEqual(received[from], { count, bytes: count * 1000, inOrder: true });
  }
}

/** The dialer's code, and what the listener warned of. */
async function refused({ a, b, address }: Pair): Promise<{ code: string; warned: string[] }> {
  let code = "";
  await assert.rejects(a.tell({ do: "connect", nodeId: "b", address }), (error) => {
    assert.ok(error instanceof ActorError);
    code = error.rejectCode ?? error.code ?? "";
    return true;
  });
  const events = await b.tell({ do: "events" }) as { type: string; code?: string }[];
  const ups = events.filter(({ type }) => type === "peerup");
  assert.deepEqual(ups, []);
  return { code, warned: events.flatMap(({ code }) => code ?? []) };
}

for (const runtimes of QUIC_PAIRS) {
  const [dialer, listener] = runtimes;
  describe(`QUIC: ${dialer} dials ${listener}`, { skip }, () => {
    it("strict, with certificates and keys: messages, requests and streams both ways", async () => {
      const ca = await TestCa.create();
      const dials = { ...await strict(ca, "a"), ...asA() };
      const listens = { ...await strict(ca, "b"), ...asB() };
      await withPair(runtimes, dials, listens, async (pair) => {
        const { a, b } = pair;
        await connect(pair);
        await exchange(pair, 2000);
        for (const actor of [a, b]) await actor.tell({ do: "serve" });
        for (const [actor, nodeId] of [[a, "b"], [b, "a"]] as const) {
          const asked = await actor.tell({ do: "ask", nodeId, size: 1_000_000, topic: "echo" });
          assert.deepEqual(asked, [{ length: 1_000_000 }]);
          const echoed = await actor.tell({
            do: "exchange",
            nodeId,
            topic: "echo",
            lane: "bulk",
            bytes: 3_000_000,
          });
          assert.deepEqual([echoed.received, echoed.same, echoed.end], [3_000_000, true, "closed"]);
        }
        // Bun sees certificates, as a dialer and as a listener that asks for them.
        const seen = async (actor: Actor, nodeId: string) =>
          (await actor.tell({ do: "peer", nodeId })).identity;
        assert.deepEqual(
          [await seen(a, "b"), await seen(b, "a")],
          [dialer === "bun" ? "b" : undefined, listener === "bun" ? "a" : undefined],
        );
      });
    });

    it("refuses a stranger: another authority, another name, a key that is not listed", async () => {
      const ca = await TestCa.create();
      const [rogue, other] = [await TestCa.create("Rogue"), await ca.issue("c")];
      const listens = { ...await strict(ca, "b"), ...asB() };
      const stranger = {
        privateKey: STRANGER.privateKey,
        trustedKeys: asA().identity!.trustedKeys!,
      };
      const open = { security: "permissive" as const };
      const anyName = { nodeIdVerification: "None" as const, requireClientAuth: false };
      const own = await strict(ca, "a");
      const dialers: Record<string, [Options, string[]]> = {
        "a listener of an authority that the dialer does not know": [
          { ...await strict(rogue, "a"), ...asA() },
          ["HandshakeFailed"],
        ],
        "the certificate and the key of another node": [
          {
            ...own,
            ...open,
            tls: { ...own.tls, ...other, ...anyName },
            identity: stranger,
          },
          ["AUTH_FAILED"],
        ],
      };
      // A verified certificate is enough where it is asked for.
      if (listener === "deno") {
        dialers["a key that is not listed"] = [{ ...own, identity: stranger }, ["AUTH_FAILED"]];
        dialers["no key"] = [
          { ...own, ...open, tls: { ...own.tls, ...anyName } },
          ["IDENTITY_REQUIRED"],
        ];
      } else {
        dialers["no certificate"] = [
          { nodeId: "a", ...open, tls: { ca: ca.ca, ...anyName }, ...asA() },
          ["ClientCertificateRequired"],
        ];
      }
      for (const [what, [dials, codes]] of Object.entries(dialers)) {
        await withPair(runtimes, dials, listens, async (pair) => {
          const { code } = await refused(pair);
          assert.ok(codes.includes(code), `${what}: ${code}`);
        });
      }
    });

    it("sends in datagrams what need not arrive, both ways", async () => {
      const ca = await TestCa.create();
      const loose = { delivery: "at-most-once" } as const;
      const dials = { ...await strict(ca, "a"), ...asA(), ...loose };
      const listens = { ...await strict(ca, "b"), ...asB(), ...loose };
      await withPair(runtimes, dials, listens, async (pair) => {
        const { a, b } = pair;
        await connect(pair);
        for (const [from, to, name] of [[a, b, "b"], [b, a, "a"]] as const) {
          const { capabilities } = await from.tell({ do: "peer", nodeId: name });
          assert.ok(capabilities.includes("datagrams"));
          await from.tell({ do: "send", nodeId: name, count: 100, size: 500 });
          const own = name === "b" ? "a" : "b";
          // The network may lose some, but hardly on this host.
          const received = await to.until<Record<string, { count: number; bytes: number }>>(
            { do: "received" },
            (received) => (received[own]?.count ?? 0) >= 50,
          );
          assert.ok(received[own]!.count <= 100);
          assert.equal(received[own]!.bytes, received[own]!.count * 500);
        }
      });
    });

    it("carries 100 streams at once, both ways, also where packets get lost", async () => {
      const ca = await TestCa.create();
      const dials = { ...await strict(ca, "a"), ...asA() };
      const listens = { ...await strict(ca, "b"), ...asB() };
      await withPair(runtimes, dials, listens, async ({ a, b, address }) => {
        const proxy = await QuicProxy.start(address);
        try {
          await connect({ a, b, address: proxy.address });
          for (const actor of [a, b]) await actor.tell({ do: "serve" });
          const { capabilities } = await a.tell({ do: "peer", nodeId: "b" });
          assert.ok(capabilities.includes("multistream"));
          for (const [loss, count, bytes] of ROUNDS) {
            proxy.loss = loss;
            const all = (actor: Actor, nodeId: string) =>
              actor.tell({ do: "exchangeAll", nodeId, topic: "echo", bytes, count });
            assert.deepEqual(await Promise.all([all(a, "b"), all(b, "a")]), [count, count]);
          }
          assert.ok(proxy.lost > 0);
          proxy.loss = 0;
        } finally {
          proxy.close();
        }
      });
    });
  });
}

describe("QUIC on Bun alone", { skip }, () => {
  it("strict, with client certificates and no keys", async () => {
    const ca = await TestCa.create();
    const runtimes = ["bun", "bun"] as const;
    await withPair(runtimes, await strict(ca, "a"), await strict(ca, "b"), async (pair) => {
      await connect(pair);
      await exchange(pair, 1000);
      const { identity, verifiedBy } = await pair.b.tell({ do: "peer", nodeId: "a" });
      assert.deepEqual([identity, verifiedBy], ["a", "CommonName"]);
    });
  });
});

describe("QUIC on Deno alone", { skip }, () => {
  it("does not listen in strict mode without keys", async () => {
    const ca = await TestCa.create();
    const b = actor("deno");
    try {
      const options = { ...await strict(ca, "b"), listen: "quic://127.0.0.1:0" };
      await assert.rejects(b.tell({ do: "start", options }), { code: "MtlsRequired" });
    } finally {
      await b.close();
    }
  });
});

withoutTransport("QUIC", "quic://127.0.0.1:0", {
  "Deno without --unstable-net": ["deno", /Deno needs --unstable-net for QUIC/],
  "Node": ["node", /Node has no QUIC/],
});
