/** What a hostile or broken peer must not be able to do with addresses and identities. */

import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { EndpointConfig, Link, Transport } from "../../mod.ts";
import { Endpoint } from "../../mod.ts";
import { type Cluster, inCluster } from "../support/cluster.ts";
import { TestCa } from "../support/certs.ts";

/** Accepts, reads, and never says a word. */
async function mute(cluster: Cluster, address: string) {
  const listener = await cluster.network.transport("mute").listen(address, {
    tls: undefined,
    reusePort: false,
    unixMode: undefined,
    admit: () => () => {},
    onLink: (link: Link) => link.open({ onData() {}, onDrain() {}, onEnd() {}, onClose() {} }),
    onError() {},
  } as never);
  return listener;
}

function far(inner: Transport, scheme: string, priority: number, remoteHost: string): Transport {
  const memory = (address: string) => address.replace(`${scheme}://`, "memory://");
  const shown = (link: Link): Link =>
    Object.assign(link, { info: { ...link.info, protocol: scheme, remoteHost } });
  return {
    ...inner,
    scheme,
    priority,
    dial: async (address, options) => shown(await inner.dial(memory(address), options)),
    listen: async (address, options) => {
      const listener = await inner.listen(memory(address), {
        ...options,
        onLink: (link) => options.onLink(shown(link)),
      });
      return { address, close: () => listener.close() };
    },
  };
}

describe("hostile peers with several addresses", () => {
  it(
    "a node that accepts and says nothing does not keep the next address from its turn",
    inCluster(async (cluster) => {
      await mute(cluster, "memory://mute:1");
      await cluster.start("b");
      const a = await cluster.start("a", { listen: [], poolSize: 1 });
      const connecting = a.connect({ nodeId: "b", address: ["memory://mute:1", "memory://b:1"] });
      await cluster.environment.run(connecting);
      assert.equal(a.peer("b")!.address, "memory://b:1");
    }),
  );

  it(
    "attempts that took too long are counted as failed",
    inCluster(async (cluster) => {
      cluster.network.blackHoles.add("memory://b:1");
      const a = await cluster.start("a", { listen: [], poolSize: 1 });
      await assert.rejects(cluster.connect(a, "b"), { code: "Timeout" });
      assert.equal(a.stats().connections.failed, 1);
    }),
  );

  it(
    "an address of the other machine itself is not dialed here",
    inCluster(async (cluster) => {
      const dialed: string[] = [];
      const transports = (host: string, remote: string) => {
        const memory = cluster.network.transport(host);
        const unix: Transport = {
          ...memory,
          scheme: "unix",
          priority: 80,
          dial: (address) => {
            dialed.push(address);
            return Promise.reject(new Error("nobody"));
          },
        };
        return [memory, unix, far(memory, "far", 20, remote), {
          ...far(memory, "tcp", 50, remote),
          dial: unix.dial,
        }];
      };
      const options = (told: string[]): Partial<EndpointConfig> => ({
        useAdvertised: "always",
        poolSize: 1,
        advertise: told,
      });
      const evil = ["unix:/run/docker.sock", "tcp://127.0.0.1:6379", "tcp://[::1]:1"];
      await cluster.start("b", {
        listen: ["far://b:1"],
        transports: transports("b", "10.0.0.1"),
        ...options(evil),
      });
      const a = await cluster.start("a", {
        listen: [],
        transports: transports("a", "10.0.0.2"),
        ...options([]),
      });
      await cluster.environment.run(a.connect({ nodeId: "b", address: "far://b:1" }));
      assert.deepEqual(a.peer("b")!.advertised, evil);
      await cluster.environment.advance(100_000);
      assert.deepEqual(dialed, []);
    }),
  );

  it("advertise that no peer would take is refused when the endpoint is made", () => {
    const make = (advertise: string[]) =>
      new Endpoint({ nodeId: "a", security: "development", advertise });
    assert.throws(() => make(["unix:/run/n\u00f6de.sock"]));
    assert.throws(() => make([`tcp://${"a.".repeat(110)}b:1`]));
    assert.throws(() =>
      make(Array.from({ length: 16 }, (_, i) => `tcp://${"a.".repeat(80)}b:${i + 1}`))
    );
  });

  it(
    "a route with a datagram address beside links dials the links only",
    inCluster(async (cluster) => {
      const a = await cluster.start("a", {
        listen: [],
        poolSize: 1,
        reconnect: { enabled: false },
        routes: { r: { nodeId: "b", address: ["udp://127.0.0.1:9", "memory://b:1"] } },
      } as never);
      cluster.network.refusing.add("memory://b:1");
      const errors: string[] = [];
      a.addEventListener("undelivered", (event) => errors.push(event.detail.error.message));
      await a.send("r", new Uint8Array(1));
      await cluster.environment.advance(10_000);
      assert.equal(errors.length, 1);
      assert.ok(!errors[0]!.includes("udp://"), errors[0]);
    }),
  );

  it(
    "silence that falls into a search for a better address is looked into afterwards",
    inCluster(async (cluster) => {
      await cluster.start("b", { maxProtocolVersion: 2, keepalive: false });
      const memory = cluster.network.transport("a");
      const a = await cluster.start("a", {
        listen: [],
        poolSize: 1,
        maxProtocolVersion: 2,
        transports: [memory, far(memory, "fast", 70, "10.0.0.2")],
        pool: { upgradeIntervalMs: 10_000 },
        keepaliveIntervalSecs: 13,
        reconnect: { enabled: false },
      });
      cluster.network.blackHoles.add("memory://nobody:1");
      await cluster.environment.run(
        a.connect({ nodeId: "b", address: ["memory://b:1", "fast://nobody:1"] }),
      );
      await cluster.environment.advance(3_000);
      cluster.network.blackHoles.add("memory://b:1");
      await cluster.environment.advance(60_000);
      assert.equal(a.peer("b")?.connections.length ?? 0, 0);
    }),
  );

  it(
    "what a connection proved is not said of another one that proved nothing",
    inCluster(async (cluster) => {
      const ca = await TestCa.create();
      const old = { notBefore: new Date(0) };
      const issued = { z: await ca.issue("z", old), b: await ca.issue("b", old) };
      const der = (pem: string) =>
        Uint8Array.from(atob(pem.replace(/-----[^-]+-----|\s/g, "")), (c) => c.charCodeAt(0));
      const tls = (host: "z" | "b"): Partial<EndpointConfig> => {
        const memory = cluster.network.transport(host);
        const shown = (link: Link, peerCertificate: Uint8Array | undefined): Link =>
          Object.assign(link, { info: { ...link.info, encrypted: true, peerCertificate } });
        const other = host === "z" ? "b" : "z";
        return {
          security: "permissive",
          poolSize: 1,
          tls: { ...issued[host], ca: ca.ca, nodeIdVerification: "CommonName" },
          transports: [{
            ...memory,
            capabilities: { ...memory.capabilities, encrypted: true, peerAuthenticated: true },
            dial: async (address, options) =>
              shown(await memory.dial(address, options), der(issued[other].cert)),
            listen: (address, options) =>
              memory.listen(address, {
                ...options,
                onLink: (link) => options.onLink(shown(link, undefined)),
              }),
          }],
        };
      };
      const b = await cluster.start("b", tls("b"));
      const z = await cluster.start("z", tls("z"));
      const first = b.connect({ nodeId: "z", address: "memory://z:1" });
      await cluster.environment.advance(1);
      const second = z.connect({ nodeId: "b", address: "memory://b:1" });
      await cluster.environment.run(Promise.all([first, second]));
      await cluster.environment.advance(1_000);
      const { connections, identity } = z.peer("b")!;
      assert.deepEqual(connections.map(({ dialed }) => dialed), [false]);
      assert.equal(identity, undefined);
      assert.equal(b.peer("z")!.identity?.nodeId, "z");
    }, { latencyMs: 10 }),
  );

  for (const own of ["a"]) {
    it(
      `F9: who only claims a name does not keep out who proves it (${own})`,
      inCluster(async (cluster) => {
        const ca = await TestCa.create();
        const old = { notBefore: new Date(0) };
        const issued: Record<string, { cert: string; key: string }> = {
          [own]: await ca.issue(own, old),
          b: await ca.issue("b", old),
        };
        const der = (pem: string) =>
          Uint8Array.from(atob(pem.replace(/-----[^-]+-----|\s/g, "")), (c) => c.charCodeAt(0));
        const tls = (host: string, node: string): Partial<EndpointConfig> => {
          const memory = cluster.network.transport(host);
          const shown = (link: Link, peerCertificate: Uint8Array | undefined): Link =>
            Object.assign(link, { info: { ...link.info, encrypted: true, peerCertificate } });
          const other = node === own ? "b" : own;
          return {
            security: "permissive",
            poolSize: 2,
            tls: { ...issued[node]!, ca: ca.ca, nodeIdVerification: "CommonName" },
            transports: [{
              ...memory,
              capabilities: { ...memory.capabilities, encrypted: true, peerAuthenticated: true },
              dial: async (address, options) =>
                shown(await memory.dial(address, options), der(issued[other]!.cert)),
              listen: (address, options) =>
                memory.listen(address, {
                  ...options,
                  onLink: (link) => options.onLink(shown(link, undefined)),
                }),
            }],
          };
        };
        const a = await cluster.start(own, tls(own, own));
        const stranger = new Endpoint({
          nodeId: "b",
          environment: cluster.environment,
          reconnect: { enabled: false },
          ...tls("stranger", "b"),
        });
        await stranger.start();
        const address = `memory://${own}:1`;
        await cluster.environment.run(stranger.connect({ nodeId: own, address }));
        const b = await cluster.start("b", tls("b", "b"));
        await cluster.environment.run(a.connect({ nodeId: "b", address: "memory://b:1" }));
        await cluster.environment.advance(20_000);
        assert.equal(a.peer("b")!.identity?.nodeId, "b");
        await cluster.environment.run(a.send("b", new Uint8Array(1), { acknowledged: true }));
        assert.equal(b.stats().messagesReceived, 1);
        await cluster.environment.run(stranger.close({ drainMs: 0 }));
      }),
    );
  }
});
