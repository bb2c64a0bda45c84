/** What one sender of datagrams may have, and what is left when an attempt ends. */

import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { Endpoint, type EndpointConfig } from "../../mod.ts";
import { networkOf } from "../../src/peer/datagram_addresses.ts";
import type { BindOptions, Transport } from "../../src/transport/transport.ts";
import { bytes, inbox } from "../support/cluster.ts";
import { DatagramNetwork } from "../support/datagram_network.ts";
import { VirtualEnvironment } from "../support/memory_network.ts";

const LISTENER = "dgram://[2001:db8:ffff::1]:1";

interface Crowd {
  readonly environment: VirtualEnvironment;
  readonly listener: Endpoint;
  /** Dials from each of these hosts with a wrong token; the codes they get in the end. */
  dial(hosts: readonly string[]): Promise<string>[];
}

async function withCrowd(test: (crowd: Crowd) => Promise<void>): Promise<void> {
  const environment = new VirtualEnvironment(1);
  const network = new DatagramNetwork(environment, {}, 1);
  const endpoints: Endpoint[] = [];
  const start = (nodeId: string, listen: string, options: Partial<EndpointConfig>) => {
    const host = listen.slice("dgram://".length, listen.lastIndexOf(":"));
    const transports = [network.transport(host)];
    const common = { nodeId, listen, security: "legacy", environment, transports } as const;
    const endpoint = new Endpoint({ ...common, ...options });
    endpoints.push(endpoint);
    return endpoint;
  };
  const listener = start("b", LISTENER, { authToken: "secret" });
  try {
    await listener.start();
    await test({
      environment,
      listener,
      dial: (hosts) =>
        hosts.map(async (host, index) => {
          const dialer = start(`d${index}`, `dgram://${host}:${index + 1}`, {});
          await dialer.start();
          return await dialer.connect({ nodeId: "b", address: LISTENER })
            .then(() => "", (error) => error.rejectCode ?? error.code);
        }),
    });
  } finally {
    const all = endpoints.map((endpoint) => endpoint.close({ drainMs: 0 }));
    await environment.run(Promise.all(all));
    await environment.advance(10_000);
  }
  assert.equal(environment.pendingTimers, 0);
}

const crowd = (host: (index: number) => string) => Array.from({ length: 120 }, (_, i) => host(i));

describe("hellos over datagrams", () => {
  it("are judged so often for one IPv6 network of 64 bits and no more", () =>
    withCrowd(async ({ environment, listener, dial }) => {
      const codes = dial(crowd((index) => `[2001:db8:0:1::${(index + 1).toString(16)}]`));
      await environment.advance(100);
      assert.equal(listener.stats().errors.HandshakeFailed, 100);
      // The others ask again.
      const all = await environment.run(Promise.all(codes));
      assert.deepEqual(new Set(all), new Set(["AUTH_FAILED"]));
    }));

  it("of other networks are not held up by them", () =>
    withCrowd(async ({ environment, listener, dial }) => {
      const codes = dial(crowd((index) => `[2001:db8:0:${index.toString(16)}::1]`));
      await environment.advance(100);
      assert.equal(listener.stats().errors.HandshakeFailed, 120);
      await environment.run(Promise.all(codes));
    }));
});

describe("the network of an address", () => {
  const known: Record<string, string> = {
    "udp://192.0.2.1:9100": "udp://192.0.2.1",
    "own://node-1:1": "own://node-1",
    "udp://[2001:db8::1]:9100": "udp://[2001:db8:0:0::/64]",
    "udp://[2001:0DB8:0000:0000:ffff::9]:1": "udp://[2001:db8:0:0::/64]",
    "udp://[2001:db8:0:1:2:3:4:5]:1": "udp://[2001:db8:0:1::/64]",
    "udp://[::1]:1": "udp://[0:0:0:0::/64]",
    "udp://[fe80::1%eth0]:1": "udp://[fe80:0:0:0::/64]",
    "udp://[64:ff9b::192.0.2.1]:1": "udp://[64:ff9b:0:0::/64]",
    "udp://[1:2:3:4:5:6:7::]:1": "udp://[1:2:3:4::/64]",
  };
  for (const [address, network] of Object.entries(known)) {
    it(`${address}: ${network}`, () => assert.equal(networkOf(address), network));
  }
});

/** A network that carries a packet within the call that sends it. */
function immediate(): (host: string) => Transport {
  const sockets = new Map<string, BindOptions>();
  const none = () => Promise.reject(new Error("no links"));
  return (host) => ({
    scheme: "dgram",
    capabilities: {
      reliable: false,
      ordered: false,
      multiplexed: false,
      encrypted: false,
      peerAuthenticated: false,
      maxMessageSize: 65_480,
    },
    dial: none,
    listen: none,
    bind: (address, options) => {
      sockets.set(address, options);
      return Promise.resolve({
        address,
        send: (packet, to) => {
          sockets.get(to)?.onPacket(packet.slice(), address);
          return true;
        },
        close: () => {
          sockets.delete(address);
          return Promise.resolve();
        },
      });
    },
    resolve: (remote) => Promise.resolve({ remote, local: `dgram://${host}:1` }),
  });
}

describe("an attempt to connect over datagrams", () => {
  it("leaves no timer where the answer comes within the call that sends", async () => {
    const environment = new VirtualEnvironment(1);
    const host = immediate();
    const make = (nodeId: string) =>
      new Endpoint({
        nodeId,
        listen: `dgram://${nodeId}:1`,
        security: "legacy",
        environment,
        keepalive: false,
        transports: [host(nodeId)],
      });
    const [a, b] = [make("a"), make("b")];
    for (const endpoint of [a, b]) await endpoint.start();
    const before = environment.pendingTimers;
    await environment.run(a.connect({ nodeId: "b", address: "dgram://b:1" }));
    await a.send("b", bytes("hello"));
    assert.deepEqual(inbox(b), ["hello"]);
    assert.equal(environment.pendingTimers, before);
    await environment.run(Promise.all([a, b].map((endpoint) => endpoint.close({ drainMs: 0 }))));
    assert.equal(environment.pendingTimers, 0);
  });
});
