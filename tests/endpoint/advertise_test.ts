/** What endpoints tell each other of where they can be reached, and what is made of it. */

import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { EndpointConfig, LinkInfo, Transport } from "../../mod.ts";
import { advertisedAddresses } from "../../src/transport/advertise.ts";
import { type Cluster, inCluster } from "../support/cluster.ts";

function seenFrom(remoteHost: string, localAddress: string, protocol = "tcp"): LinkInfo {
  return {
    protocol,
    localAddress,
    remoteAddress: `${protocol}://${remoteHost}:50000`,
    remoteHost,
    encrypted: false,
    peerCertificate: undefined,
  };
}

describe("the addresses that a peer is told", () => {
  const far = seenFrom("10.0.0.9", "tcp://10.0.0.5:9100");

  it("have the host that it has reached in the place of any host", () => {
    const told = advertisedAddresses(["tcp://0.0.0.0:9100", "wss://[::]:443/x"], far);
    assert.deepEqual(told, ["tcp://10.0.0.5:9100", "wss://10.0.0.5:443/x"]);
    const six = seenFrom("2001:db8::9", "tcp://[2001:db8::5]:9100");
    assert.deepEqual(advertisedAddresses(["tcp://0.0.0.0:1", "tcp://[::]:2"], six), [
      "tcp://[2001:db8::5]:2",
    ]);
  });

  it("lead to this machine on this machine only", () => {
    const listening = [
      ...["tcp://127.0.0.1:1", "tcp://[::1]:2", "tcp://localhost:3", "unix:/run/a.sock"],
      ...["memory://a", "tcp://10.0.0.5:4"],
    ];
    assert.deepEqual(advertisedAddresses(listening, far), ["tcp://10.0.0.5:4"]);
    assert.deepEqual(
      advertisedAddresses(listening, seenFrom("127.0.0.1", "tcp://127.0.0.1:1")),
      listening,
    );
    assert.deepEqual(
      advertisedAddresses(listening, seenFrom("unix", "unix:/run/a.sock", "unix")),
      listening,
    );
  });

  it("are at most 16, each told once, and fit into a hello", () => {
    const many = Array.from({ length: 40 }, (_, i) => `tcp://10.0.0.5:${i + 1}`);
    assert.deepEqual(advertisedAddresses([...many, ...many], far), many.slice(0, 16));
    const long = Array.from({ length: 16 }, (_, i) => `tcp://${"a.".repeat(80)}b:${i + 1}`);
    assert.ok(advertisedAddresses(long, far).length < 16);
  });
});

/** The memory network under another, better scheme. */
function fast(inner: Transport): Transport {
  const memory = (address: string) => address.replace("fast://", "memory://");
  return {
    ...inner,
    scheme: "fast",
    priority: 70,
    dial: (address, options) => inner.dial(memory(address), options),
    listen: async (address, options) => {
      const listener = await inner.listen(memory(address), options);
      return { address, close: () => listener.close() };
    },
  };
}

/** `b` listens at two addresses, of which `a` is given the lesser one. */
async function pair(cluster: Cluster, options: Partial<EndpointConfig>) {
  const transports = (host: string) => {
    const memory = cluster.network.transport(host);
    return [memory, fast(memory)];
  };
  const b = await cluster.start("b", {
    listen: ["memory://b:1", "fast://b-fast:1"],
    transports: transports("b"),
    ...options,
  });
  const a = await cluster.start("a", { transports: transports("a"), poolSize: 1, ...options });
  await cluster.connect(a, "b");
  return { a, b };
}

describe("an advertised address", () => {
  it(
    "is seen at both ends",
    inCluster(async (cluster) => {
      const { a, b } = await pair(cluster, {});
      assert.deepEqual(a.peer("b")!.advertised, ["memory://b:1", "fast://b-fast:1"]);
      assert.deepEqual(b.peer("a")!.advertised, ["memory://a:1"]);
    }),
  );

  it(
    "is not dialed where nobody has proven whose it is",
    inCluster(async (cluster) => {
      const { a } = await pair(cluster, {});
      await cluster.environment.advance(100_000);
      assert.equal(a.peer("b")!.connections[0]!.remoteAddress, "memory://b:1");
      assert.ok(!cluster.network.dials.includes("memory://b-fast:1"));
    }),
  );

  it(
    "is moved to where that is better and allowed",
    inCluster(async (cluster) => {
      const { a, b } = await pair(cluster, { useAdvertised: "always" });
      await cluster.environment.advance(31_000);
      assert.equal(a.peer("b")!.address, "fast://b-fast:1");
      assert.equal(a.peer("b")!.connections.length, 1);
      assert.equal(b.stats().connectionCount, 1);
      assert.deepEqual(a.peer("b")!.addresses, ["memory://b:1"]);
    }),
  );

  it(
    "is another one where `advertise` says so",
    inCluster(async (cluster) => {
      const { a } = await pair(cluster, { advertise: ["tcp://node.example.com:1"] });
      assert.deepEqual(a.peer("b")!.advertised, ["tcp://node.example.com:1"]);
    }),
  );
});
