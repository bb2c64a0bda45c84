/** Transports that can't encrypt, where certificates are given. */

import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { Transport } from "../../mod.ts";
import { TestCa } from "../support/certs.ts";
import { inCluster } from "../support/cluster.ts";

describe("tls that is given", () => {
  it(
    "is never left out by a transport that can't encrypt, in development mode either",
    inCluster(async (cluster) => {
      const ca = await TestCa.create();
      const own = async (host: string) => {
        const inner = cluster.network.transport(host);
        const memory = (address: string) => address.replace("plain://", "memory://");
        const plain: Transport = {
          ...inner,
          scheme: "plain",
          dial: (address, options) => inner.dial(memory(address), options),
          listen: (address, options) => inner.listen(memory(address), options),
        };
        const tls = { ...await ca.issue(host), ca: ca.ca, nodeIdVerification: "None" as const };
        return { security: "development" as const, poolSize: 1, tls, transports: [plain] };
      };
      await assert.rejects(cluster.start("b", { ...await own("b"), listen: "plain://b:1" }), {
        code: "TlsRequired",
      });
      const a = await cluster.start("a", { ...await own("a"), listen: [] });
      const connecting = a.connect({ nodeId: "b", address: "plain://b:1" });
      await assert.rejects(cluster.environment.run(connecting), { code: "TlsRequired" });
    }),
  );
});
