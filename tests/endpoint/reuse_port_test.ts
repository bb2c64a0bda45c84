/** Several endpoints of one node id on one port, over real sockets. */

import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { Endpoint, type EndpointConfig, TransportError } from "../../mod.ts";
import { TestCa } from "../support/certs.ts";
import { bytes, text } from "../support/cluster.ts";

const MAX_CLIENTS = 64;

async function strictTls(ca: TestCa, nodeId: string): Promise<EndpointConfig> {
  const tls = {
    ...await ca.issue(nodeId),
    ca: ca.ca,
    requireClientAuth: true,
    nodeIdVerification: "CommonName",
  } as const;
  return { nodeId, tls };
}

describe("reusePort", () => {
  for (const security of ["strict", "legacy"] as const) {
    it(`lets two endpoints serve one port, each its own connections (${security})`, async () => {
      const ca = await TestCa.create();
      const optionsOf = (nodeId: string) =>
        security === "strict" ? strictTls(ca, nodeId) : Promise.resolve({ nodeId, security });
      const all: Endpoint[] = [];
      const start = async (options: EndpointConfig) => {
        const endpoint = new Endpoint(options);
        all.push(endpoint);
        await endpoint.start();
        return endpoint;
      };
      try {
        const service = await optionsOf("w");
        const reusePort = true;
        const first = await start({ ...service, listen: "tcp://127.0.0.1:0", reusePort });
        const listen = first.addresses[0]!;
        const second = await start({ ...service, listen, reusePort });
        assert.deepEqual(second.addresses, [listen]);
        first.handle("who", () => bytes("first"));
        second.handle("who", () => bytes("second"));
        const served = new Set<string>();
        for (let number = 0; served.size < 2 && number < MAX_CLIENTS; number++) {
          const client = await start(await optionsOf(`c${number}`));
          await client.connect({ nodeId: "w", address: listen });
          // With more connections than one, it still talks to one of them.
          const names = new Set<string>();
          for (let request = 0; request < 5; request++) {
            names.add(text(await client.request("w", bytes(""), { topic: "who" })));
          }
          assert.equal(names.size, 1);
          for (const name of names) served.add(name);
        }
        assert.deepEqual([...served].toSorted(), ["first", "second"]);
      } finally {
        await Promise.all(all.map((endpoint) => endpoint.close({ drainMs: 0 })));
      }
    });
  }

  it("has to be wished by everybody on the port", async () => {
    const security = "legacy";
    const listen = "tcp://127.0.0.1:0";
    const first = new Endpoint({ nodeId: "w", security, listen, reusePort: true });
    try {
      await first.start();
      const second = new Endpoint({ nodeId: "w", security, listen: first.addresses[0]! });
      await assert.rejects(second.start(), (error: unknown) => {
        assert.ok(error instanceof TransportError);
        assert.equal(error.code, "ConnectionFailed");
        assert.match(error.message, /in use/i);
        return true;
      });
      await second.close();
    } finally {
      await first.close();
    }
  });

  it("is refused at the start where it can't be had", async () => {
    const endpoint = new Endpoint({
      nodeId: "w",
      security: "legacy",
      listen: ["tcp://127.0.0.1:0", "unix:@hawser-never"],
      reusePort: true,
    });
    await assert.rejects(endpoint.start(), { code: "UnsupportedProtocol" });
    await endpoint.close();
  });
});
