/** Two endpoints on real sockets, with certificates and keys; "b" listens, "a" dials. */

import assert from "node:assert/strict";
import { Endpoint, type EndpointConfig, type RejectCode, TransportError } from "../../mod.ts";
import type { TestCa } from "../support/certs.ts";
import { bytes, text } from "../support/cluster.ts";
import { type Keys, newKeys } from "./on_the_line.ts";

/** The keys of "a", of "b", and of somebody whom neither knows. */
export const [A, B, STRANGER]: readonly [Keys, Keys, Keys] = [newKeys(), newKeys(), newKeys()];

/** A key of one's own, and whom one trusts. */
export function proving(
  own: Keys | undefined,
  trustedKeys: Record<string, string | string[]>,
): Partial<EndpointConfig> {
  return { identity: { ...own && { privateKey: own.privateKey }, trustedKeys } };
}

/** "a", which trusts "b". */
export const asA = (): Partial<EndpointConfig> => proving(A, { b: B.publicKey });
/** "b", which trusts "a". */
export const asB = (): Partial<EndpointConfig> => proving(B, { a: A.publicKey });

/** A node of strict mode. */
export async function strict(
  ca: TestCa,
  nodeId: string,
  more: Partial<NonNullable<EndpointConfig["tls"]>> = {},
): Promise<EndpointConfig> {
  return {
    nodeId,
    tls: {
      ...await ca.issue(nodeId),
      ca: ca.ca,
      requireClientAuth: true,
      nodeIdVerification: "CommonName",
      ...more,
    },
  };
}

/** A node of permissive mode. */
export async function permissive(ca: TestCa, nodeId: string): Promise<EndpointConfig> {
  return { nodeId, security: "permissive", tls: { ...await ca.issue(nodeId), ca: ca.ca } };
}

/** Two that are started. */
export interface Pair {
  readonly a: Endpoint;
  readonly b: Endpoint;
  /** Codes of the warnings of "b". */
  readonly warnings: string[];
  /** "a" dials where "b" listens; `change` may make another address of that. */
  connect(change?: (address: string) => string): Promise<void>;
}

/** Runs a test with two endpoints. */
export async function withPair(
  listen: string,
  dials: EndpointConfig,
  listens: EndpointConfig,
  test: (pair: Pair) => Promise<void>,
): Promise<void> {
  const a = new Endpoint(dials);
  const b = new Endpoint({ listen, ...listens });
  const warnings: string[] = [];
  b.addEventListener("warning", ({ detail }) => {
    if (detail.error !== undefined) warnings.push(detail.error.code);
  });
  try {
    await b.start();
    await a.start();
    await test({
      a,
      b,
      warnings,
      connect: (change = (address) => address) =>
        a.connect({ nodeId: "b", address: change(b.addresses[0]!) }),
    });
  } finally {
    await a.close({ drainMs: 0 });
    await b.close({ drainMs: 0 });
  }
}

/** A message each way. */
export async function talk(a: Endpoint, b: Endpoint): Promise<void> {
  await a.send("b", bytes("ahoy"), { acknowledged: true });
  assert.equal(text((await b.receive()).payload), "ahoy");
  await b.send("a", bytes("aye"), { acknowledged: true });
  assert.equal(text((await a.receive()).payload), "aye");
}

/** "a" does not get in, nobody keeps anything of it, and "b" warns of it where that is said. */
export async function refused(
  pair: Pair,
  code: string,
  rejectCode: RejectCode | undefined,
  warning?: string,
): Promise<void> {
  const warned = new Promise<void>((resolve) => {
    pair.b.addEventListener("warning", () => resolve(), { once: true });
  });
  await assert.rejects(pair.connect(), (error) => {
    assert.ok(error instanceof TransportError, String(error));
    assert.equal(error.code, code, error.message);
    assert.equal((error as { rejectCode?: RejectCode }).rejectCode, rejectCode, error.message);
    return true;
  });
  if (warning !== undefined) {
    await warned;
    assert.deepEqual(pair.warnings, [warning]);
  }
  assert.deepEqual([pair.a.peers(), pair.b.peers()], [[], []]);
}
