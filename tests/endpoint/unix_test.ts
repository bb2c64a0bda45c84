/** Endpoints over Unix sockets. Abstract names of Linux, which need no permission for files. */

import assert from "node:assert/strict";
import process from "node:process";
import { describe, it } from "node:test";
import { Endpoint, type EndpointConfig } from "../../mod.ts";
import { TestCa } from "../support/certs.ts";
import { bytes, text } from "../support/cluster.ts";
import { until } from "../transport/link_recorder.ts";

let lastName = 0;
const newAddress = () => `unix:@hawser-${crypto.randomUUID().slice(0, 8)}-${++lastName}`;

async function withEndpoints(
  options: EndpointConfig[],
  test: (endpoints: Endpoint[], address: string) => Promise<void>,
): Promise<void> {
  const address = newAddress();
  const endpoints = options.map((each, index) =>
    new Endpoint(index === 0 ? { listen: address, ...each } : each)
  );
  try {
    for (const endpoint of endpoints) await endpoint.start();
    await test(endpoints, address);
  } finally {
    await Promise.all(endpoints.map((endpoint) => endpoint.close({ drainMs: 0 })));
  }
}

async function strict(ca: TestCa, nodeId: string, name = nodeId): Promise<EndpointConfig> {
  const tls = {
    ...await ca.issue(name),
    ca: ca.ca,
    requireClientAuth: true,
    nodeIdVerification: "CommonName",
  } as const;
  return { nodeId, tls };
}

describe("Unix sockets", { skip: process.platform !== "linux" }, () => {
  it("carry strict security, both ways", async () => {
    const ca = await TestCa.create();
    const options = [await strict(ca, "b"), await strict(ca, "a")];
    await withEndpoints(options, async ([b, a], address) => {
      assert.deepEqual(b!.addresses, [address]);
      await a!.connect({ nodeId: "b", address });
      await a!.send("b", bytes("there"));
      assert.equal(text((await b!.receive()).payload), "there");
      await b!.send("a", bytes("back"));
      assert.equal(text((await a!.receive()).payload), "back");
      for (const [endpoint, other] of [[a, "b"], [b, "a"]] as const) {
        const peer = endpoint!.peer(other);
        assert.equal(peer?.identity?.nodeId, other);
        for (const { protocol, encrypted } of peer!.connections) {
          assert.deepEqual({ protocol, encrypted }, { protocol: "unix", encrypted: true });
        }
      }
    });
  });

  it("refuse in strict mode whoever proves to be another", async () => {
    const [ca, other] = [await TestCa.create(), await TestCa.create("Other CA")];
    const options = [await strict(ca, "b"), await strict(ca, "c"), await strict(other, "a")];
    await withEndpoints(options, async ([, c, a], address) => {
      await assert.rejects(c!.connect({ nodeId: "x", address }), { code: "IdentityMismatch" });
      await assert.rejects(a!.connect({ nodeId: "b", address }), { code: "HandshakeFailed" });
    });
  });

  it("count as one host", async () => {
    const security = "development";
    const options: EndpointConfig[] = [
      { nodeId: "b", security, maxConnectionsPerHost: 2 },
      ...["a", "c"].map((nodeId) => ({ nodeId, security, poolSize: 2 }) as const),
    ];
    await withEndpoints(options, async ([b, a, c], address) => {
      await a!.connect({ nodeId: "b", address });
      await until(() => a!.poolStats("b").active === 2, "the second connection");
      await assert.rejects(c!.connect({ nodeId: "b", address }));
      assert.ok(b!.stats().refused.maxConnectionsPerHost > 0);
    });
  });
});
