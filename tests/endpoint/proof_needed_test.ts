/** Strict mode over links that encrypt, but can't show who is at the other end. */

import assert from "node:assert/strict";
import { describe, it } from "node:test";
import {
  type Endpoint,
  type EndpointConfig,
  HandshakeError,
  type Link,
  type Transport,
} from "../../mod.ts";
import { TestCa } from "../support/certs.ts";
import { bytes, type Cluster, inbox, inCluster } from "../support/cluster.ts";
import { type Keys, newKeys } from "./on_the_line.ts";

const [A, B, STRANGER] = [newKeys(), newKeys(), newKeys()];

/** The memory network, as if it encrypted; `seen` is the certificate that links show. */
function opaque(cluster: Cluster, host: string, proofNeeded: boolean): Transport {
  const memory = cluster.network.transport(host);
  const shown = (link: Link): Link => {
    Object.assign(link, { info: { ...link.info, encrypted: true, proofNeeded } });
    return link;
  };
  return {
    ...memory,
    capabilities: { ...memory.capabilities, encrypted: true, peerAuthenticated: !proofNeeded },
    dial: async (address, options) => shown(await memory.dial(address, options)),
    listen: (address, options) =>
      memory.listen(address, { ...options, onLink: (link) => options.onLink(shown(link)) }),
  };
}

async function strict(
  ca: TestCa,
  nodeId: string,
  own: Keys | undefined,
  trusted: Record<string, string> | undefined,
): Promise<Partial<EndpointConfig>> {
  const privateKey = own === undefined ? {} : { privateKey: own.privateKey };
  return {
    security: "strict",
    poolSize: 1,
    tls: {
      ...await ca.issue(nodeId),
      ca: ca.ca,
      requireClientAuth: true,
      nodeIdVerification: "CommonName",
    },
    ...(trusted === undefined ? {} : { identity: { ...privateKey, trustedKeys: trusted } }),
  };
}

/** Starts `a` and `b` with these options. */
async function pair(
  cluster: Cluster,
  a: Partial<EndpointConfig>,
  b: Partial<EndpointConfig>,
  proofNeeded = true,
): Promise<[Endpoint, Endpoint]> {
  const transports = (host: string) => ({ transports: [opaque(cluster, host, proofNeeded)] });
  return [
    await cluster.start("a", { ...a, ...transports("a") }),
    await cluster.start("b", { ...b, ...transports("b") }),
  ];
}

async function failure(cluster: Cluster, a: Endpoint): Promise<unknown> {
  const before = cluster.endpoints.get("b")!.stats().messagesReceived;
  const error = await cluster.connect(a, "b").then(() => undefined, (error) => error);
  assert.equal(cluster.endpoints.get("b")!.stats().messagesReceived, before);
  assert.equal(a.stats().peerCount, 0);
  return error;
}

describe("strict mode, where a link can't show certificates", () => {
  it(
    "takes the proof of a key on both sides",
    inCluster(async (cluster) => {
      const ca = await TestCa.create();
      const [a, b] = await pair(
        cluster,
        await strict(ca, "a", A, { b: B.publicKey }),
        await strict(ca, "b", B, { a: A.publicKey }),
      );
      await cluster.connect(a, "b");
      await cluster.environment.run(a.send("b", bytes("ahoy"), { acknowledged: true }));
      assert.deepEqual(inbox(b), ["ahoy"]);
      assert.equal(a.peer("b")!.publicKey, B.publicKey);
      assert.equal(b.peer("a")!.publicKey, A.publicKey);
    }),
  );

  it(
    "refuses a dialer that proves another key, or none",
    inCluster(async (cluster) => {
      const ca = await TestCa.create();
      const [a] = await pair(
        cluster,
        await strict(ca, "a", STRANGER, { b: B.publicKey }),
        await strict(ca, "b", B, { a: A.publicKey }),
      );
      const error = await failure(cluster, a);
      assert.ok(error instanceof HandshakeError, String(error));
    }),
  );

  it(
    "refuses a listener that proves another key",
    inCluster(async (cluster) => {
      const ca = await TestCa.create();
      const [a] = await pair(
        cluster,
        await strict(ca, "a", A, { b: B.publicKey }),
        await strict(ca, "b", STRANGER, { a: A.publicKey }),
      );
      assert.equal((await failure(cluster, a) as { code: string }).code, "IdentityMismatch");
    }),
  );

  it(
    "does not start or dial without keys",
    inCluster(async (cluster) => {
      const ca = await TestCa.create();
      const without = await strict(ca, "a", undefined, undefined);
      const transports = [opaque(cluster, "a", true)];
      await assert.rejects(cluster.start("a", { ...without, transports }), {
        code: "MtlsRequired",
      });
      const a = await cluster.start("a", { ...without, transports, listen: [] });
      await assert.rejects(cluster.connect(a, "b"), { code: "MtlsRequired" });
    }),
  );

  it(
    "lets nobody in without a certificate and without keys, in permissive mode either",
    inCluster(async (cluster) => {
      const ca = await TestCa.create();
      const tls = {
        ...await ca.issue("b"),
        ca: ca.ca,
        requireClientAuth: true,
        nodeIdVerification: "None",
      } as const;
      const listens = { security: "permissive", poolSize: 1, tls } as const;
      const dials = { ...listens, listen: [], tls: { ca: ca.ca } };
      const [a, b] = await pair(cluster, dials, listens);
      assert.ok(await failure(cluster, a) instanceof HandshakeError);
      await cluster.environment.advance(100);
      assert.equal(b.stats().errors.ClientCertificateRequired, 1);
    }),
  );

  it(
    "takes no proof in the place of a certificate that the link could have shown",
    inCluster(async (cluster) => {
      const ca = await TestCa.create();
      const [a] = await pair(
        cluster,
        await strict(ca, "a", A, { b: B.publicKey }),
        await strict(ca, "b", B, { a: A.publicKey }),
        false,
      );
      assert.equal((await failure(cluster, a) as { code: string }).code, "IdentityMismatch");
    }),
  );
});
