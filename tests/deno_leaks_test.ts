/**
 * What Deno's sanitizers see and `node:test` does not: sockets, timers and operations left behind.
 * On Bun and Node this file has no tests.
 */

import { Endpoint, type EndpointConfig } from "../mod.ts";
import { newKeys } from "./endpoint/on_the_line.ts";
import { TestCa } from "./support/certs.ts";
import { until } from "./transport/link_recorder.ts";

/** One step in each, for tools/run_tests.ts counts steps. */
type DenoTest = (
  options: {
    name: string;
    sanitizeOps: boolean;
    sanitizeResources: boolean;
    ignore?: boolean;
  },
  fn: (context: { step(name: string, fn: () => Promise<void>): Promise<boolean> }) => Promise<void>,
) => void;
const deno = (globalThis as { Deno?: { test?: unknown } }).Deno;

const KEYS = { a: newKeys(), b: newKeys() };
const TRUSTED = { a: KEYS.a.publicKey, b: KEYS.b.publicKey };

/** Everything that is not TCP: what is listened on, and what security that needs. */
const LISTENING: Record<string, { listen: string; security: "development" | "strict" }> = {
  ws: { listen: "ws://127.0.0.1:0", security: "development" },
  wss: { listen: "wss://127.0.0.1:0", security: "strict" },
  udp: { listen: "udp://127.0.0.1:0", security: "development" },
  quic: { listen: "quic://127.0.0.1:0", security: "strict" },
  wt: { listen: "wt://127.0.0.1:0", security: "strict" },
};

/** What is there with `--unstable-net` only, and frees its address a little later. */
const OVER_QUIC: ReadonlySet<string> = new Set(["quic", "wt"]);

/** Opens, sends both ways, asks, and closes. */
async function talk(scheme: string): Promise<void> {
  const { listen, security } = LISTENING[scheme]!;
  const ca = await TestCa.create();
  const options = async (nodeId: "a" | "b"): Promise<EndpointConfig & { nodeId: string }> => ({
    nodeId,
    security,
    ...(security === "development" ? {} : {
      tls: {
        ...await ca.issue(nodeId),
        ca: ca.ca,
        requireClientAuth: true,
        nodeIdVerification: "CommonName",
      },
      identity: { privateKey: KEYS[nodeId].privateKey, trustedKeys: TRUSTED },
    }),
  });
  const a = new Endpoint({ ...await options("a"), listen });
  const b = new Endpoint(await options("b"));
  a.handle("echo", ({ payload }) => payload);
  await a.start();
  await b.start();
  await b.connect({ nodeId: "a", address: a.addresses[0]! });
  const payload = new Uint8Array(1000);
  const delivery = scheme === "udp" ? "at-most-once" : "resume";
  await b.send("a", payload, { delivery });
  await a.receive();
  await a.send("b", payload, { delivery });
  await b.receive();
  await b.request("a", payload, { topic: "echo" });
  const [address] = a.addresses;
  await a.close();
  await b.close();
  if (OVER_QUIC.has(scheme)) {
    await until(() => isFree(Number(new URL(address!).port)), "the address");
  }
}

/**
 * Both ends of a QUIC connection stay for a second, for what may be on its way, and the one that
 * hears of the end does so a little later: waits until none of the timers set in `run` is left.
 */
async function untilTimersEnd(run: () => Promise<void>): Promise<void> {
  const { setTimeout: set, clearTimeout: clear } = globalThis;
  const pending = new Set<unknown>();
  globalThis.setTimeout =
    ((fire: (...args: unknown[]) => void, ms?: number, ...args: unknown[]) => {
      const timer = set(() => {
        pending.delete(timer);
        fire(...args);
      }, ms);
      pending.add(timer);
      return timer;
    }) as typeof setTimeout;
  globalThis.clearTimeout = (timer) => {
    pending.delete(timer);
    clear(timer);
  };
  try {
    await run();
    await until(() => pending.size === 0, "the end of all timers");
  } finally {
    globalThis.setTimeout = set;
    globalThis.clearTimeout = clear;
  }
}

/** Its connections stay for a second, for what may be on its way: the address is free after that. */
function isFree(port: number): boolean {
  try {
    Deno.listenDatagram({ transport: "udp", hostname: "127.0.0.1", port }).close();
    return true;
  } catch {
    return false;
  }
}

async function exchange(mode: "legacy" | "strict"): Promise<void> {
  const ca = await TestCa.create();
  const options = async (nodeId: string) => ({
    nodeId,
    security: mode,
    ...(mode === "legacy" ? {} : {
      tls: {
        ...await ca.issue(nodeId),
        ca: ca.ca,
        requireClientAuth: true,
        nodeIdVerification: "CommonName" as const,
      },
    }),
  });
  const a = new Endpoint({ ...await options("a"), listen: "tcp://127.0.0.1:0" });
  const b = new Endpoint(await options("b"));
  await a.start();
  await b.start();
  await b.connect({ nodeId: "a", address: a.addresses[0]! });
  for (let i = 0; i < 100; i++) await b.send("a", new Uint8Array(1000));
  for (let i = 0; i < 100; i++) await a.receive();
  await a.send("b", new Uint8Array(1));
  await b.receive();
  // One endpoint goes without a word to the other, which then must give up cleanly.
  await a.close();
  await b.close();
}

if (deno?.test !== undefined) {
  const test = deno.test as DenoTest;
  for (const mode of ["legacy", "strict"] as const) {
    test(
      {
        name: `a closed ${mode} endpoint leaves nothing behind`,
        sanitizeOps: true,
        sanitizeResources: true,
      },
      async (context) => void await context.step("messages both ways", () => exchange(mode)),
    );
  }
  const missing = (scheme: string) => OVER_QUIC.has(scheme) && !("QuicEndpoint" in deno);
  for (const scheme of Object.keys(LISTENING)) {
    test(
      {
        name: `closed endpoints over ${scheme} leave nothing behind`,
        sanitizeOps: true,
        sanitizeResources: true,
        ignore: missing(scheme),
      },
      async (context) =>
        void await context.step(
          "messages both ways",
          () => untilTimersEnd(() => talk(scheme)),
        ),
    );
  }
  test(
    { name: "a refused connect leaves nothing behind", sanitizeOps: true, sanitizeResources: true },
    async (context) =>
      void await context.step("nobody listens", async () => {
        const a = new Endpoint({ nodeId: "a", security: "legacy" });
        await a.start();
        await a.connect({ nodeId: "b", address: "127.0.0.1:1" }).catch(() => {});
        await a.close();
      }),
  );
}
