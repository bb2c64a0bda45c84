/**
 * What Deno's sanitizers see and `node:test` does not: sockets, timers and operations left behind.
 * On Bun and Node this file has no tests.
 */

import { Endpoint } from "../mod.ts";
import { TestCa } from "./support/certs.ts";

/** One step in each, for tools/run_tests.ts counts steps. */
type DenoTest = (
  options: { name: string; sanitizeOps: boolean; sanitizeResources: boolean },
  fn: (context: { step(name: string, fn: () => Promise<void>): Promise<boolean> }) => Promise<void>,
) => void;
const deno = (globalThis as { Deno?: { test?: unknown } }).Deno;

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
