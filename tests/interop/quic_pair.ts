/** Two actors, of which one dials the other over QUIC, in processes of their own. */

import assert from "node:assert/strict";
import type { EndpointConfig } from "../../mod.ts";
import { newKeys } from "../endpoint/on_the_line.ts";
import { type Credentials, TestCa } from "../support/certs.ts";
import { Actor } from "./process.ts";
import { QuicProxy } from "./quic_proxy.ts";

const QUIC_RUNTIMES = ["deno", "bun"] as const;
/** A runtime that has QUIC. */
export type QuicRuntime = typeof QUIC_RUNTIMES[number];
/** Dialer and listener. */
export type QuicRuntimes = readonly [dialer: QuicRuntime, listener: QuicRuntime];
/** Every runtime that has QUIC, with every one. */
export const QUIC_PAIRS: readonly QuicRuntimes[] = QUIC_RUNTIMES.flatMap((dialer) =>
  QUIC_RUNTIMES.map((listener) => [dialer, listener] as const)
);
const [A, B] = [newKeys(), newKeys()];
/** `deno run` with the flag that QUIC needs; the arguments are those of `runCommand`. */
const UNSTABLE = ["sh", "-c", 'deno=$1; shift 2; exec "$deno" run --unstable-net "$@"', "sh"];

/** An actor that has QUIC. */
export function actor(runtime: QuicRuntime): Actor {
  return new Actor(runtime, runtime === "deno" ? { prefix: UNSTABLE } : {});
}

/** Options of an actor. */
export type Options = EndpointConfig & { nodeId: string };

/** With a certificate of the authority, or with these credentials. */
export async function strict(ca: TestCa, nodeId: string, own?: Credentials): Promise<Options> {
  return {
    nodeId,
    tls: {
      ...own ?? await ca.issue(nodeId),
      ca: ca.ca,
      requireClientAuth: true,
      nodeIdVerification: "CommonName",
    },
  };
}

/** The keys of "a". */
export const asA = (): Partial<EndpointConfig> => ({
  identity: { privateKey: A.privateKey, trustedKeys: { b: B.publicKey } },
});
/** The keys of "b". */
export const asB = (): Partial<EndpointConfig> => ({
  identity: { privateKey: B.privateKey, trustedKeys: { a: A.publicKey } },
});

/** The two, and where "b" listens. */
export interface Pair {
  readonly a: Actor;
  readonly b: Actor;
  readonly address: string;
}

/** "b" listens; "a" is started and has not dialed. */
export async function withPair(
  [dialer, listener]: QuicRuntimes,
  dials: Options,
  listens: Options,
  test: (pair: Pair) => Promise<void>,
  listen = "quic://127.0.0.1:0",
): Promise<void> {
  const [a, b] = [actor(dialer), actor(listener)];
  try {
    const [address] = await b.tell({ do: "start", options: { ...listens, listen } });
    await a.tell({ do: "start", options: dials });
    await test({ a, b, address });
    for (const { runtime, stderr } of [a, b]) {
      assert.doesNotMatch(stderr, /unhandled|uncaught|panicked/i, `${runtime}: ${stderr}`);
    }
  } finally {
    await Promise.all([a.close(), b.close()]);
  }
}

/** Dials, and waits for both connections of the pool. */
export async function connect({ a, address }: Pair): Promise<void> {
  await a.tell({ do: "connect", nodeId: "b", address });
  await a.until<{ active: number }>({ do: "poolStats", nodeId: "b" }, ({ active }) => active === 2);
}

/**
 * Numbered messages both ways through a proxy, while `test` does what it does. `pass` waits for so
 * many more on both sides. In the end all have arrived once, in order, and none was reported.
 */
export async function flowing(
  runtimes: QuicRuntimes,
  options: Partial<EndpointConfig>,
  test: (pair: Pair, proxy: QuicProxy, pass: (count: number) => Promise<void>) => Promise<void>,
  listen?: string,
): Promise<void> {
  const ca = await TestCa.create();
  const dials = { ...await strict(ca, "a"), ...asA(), ...options };
  const listens = { ...await strict(ca, "b"), ...asB(), ...options };
  await withPair(runtimes, dials, listens, async (pair) => {
    const { a, b } = pair;
    const ends = [[a, "b"], [b, "a"]] as const;
    const received = (actor: Actor, from: string, done: (count: number) => boolean) =>
      actor.until<Record<string, { count: number; inOrder: boolean }>>(
        { do: "received" },
        (received) => done(received[from]?.count ?? 0),
      ).then((received) => received[from]!);
    const proxy = await QuicProxy.start(pair.address);
    try {
      await connect({ a, b, address: proxy.address });
      for (const [actor, to] of ends) await actor.tell({ do: "flow", nodeIds: [to], from: 0 });
      await test(pair, proxy, async (more) => {
        for (const [actor, from] of ends) {
          const { count } = await received(actor, from, () => true) ?? { count: 0 };
          await received(actor, from, (now) => now >= count + more);
        }
      });
      const [fromA, fromB] = [await a.tell({ do: "stopFlow" }), await b.tell({ do: "stopFlow" })];
      assert.deepEqual([fromA.b.undelivered, fromB.a.undelivered], [[], []]);
      for (const [actor, from, sent] of [[b, "a", fromA.b], [a, "b", fromB.a]] as const) {
        const { inOrder } = await received(actor, from, (count) => count === sent.to);
        assert.ok(inOrder);
      }
    } finally {
      proxy.close();
    }
  }, listen);
}
