/** Endpoints over UDP sockets of the system. */

import assert from "node:assert/strict";
import * as dgram from "node:dgram";
import { once } from "node:events";
import { describe, it } from "node:test";
import {
  Endpoint,
  type EndpointConfig,
  type TransportError,
  type WarningDetail,
} from "../../mod.ts";
import { TestCa } from "../support/certs.ts";
import { bytes, text } from "../support/cluster.ts";
import { seededRandom } from "../support/memory_network.ts";
import { newKeys } from "./on_the_line.ts";

type Options = Partial<EndpointConfig>;

/** Endpoints that are closed at the end of a test. */
class Endpoints {
  readonly #made: Endpoint[] = [];

  async start(nodeId: string, options: Options = {}): Promise<Endpoint> {
    const endpoint = new Endpoint({
      nodeId,
      listen: "udp://127.0.0.1:0",
      security: "development",
      ...options,
    });
    this.#made.push(endpoint);
    await endpoint.start();
    return endpoint;
  }

  async close(): Promise<void> {
    await Promise.all(this.#made.map((endpoint) => endpoint.close({ drainMs: 0 })));
  }
}

function withEndpoints(test: (endpoints: Endpoints) => Promise<void>): () => Promise<void> {
  return async () => {
    const endpoints = new Endpoints();
    try {
      await test(endpoints);
    } finally {
      await endpoints.close();
    }
  };
}

async function pair(endpoints: Endpoints, options: Options = {}): Promise<[Endpoint, Endpoint]> {
  const [a, b] = [await endpoints.start("a", options), await endpoints.start("b", options)];
  const up = next(b, "peerup");
  await a.connect({ nodeId: "b", address: b.addresses[0]! });
  await up;
  return [a, b];
}

function next<K extends "peerup" | "peerdown">(endpoint: Endpoint, type: K): Promise<void> {
  return new Promise((resolve) => endpoint.addEventListener(type, () => resolve(), { once: true }));
}

function warnings(endpoint: Endpoint): WarningDetail[] {
  const details: WarningDetail[] = [];
  endpoint.addEventListener("warning", ({ detail }) => details.push(detail));
  return details;
}

/** A socket without an endpoint. */
async function rawSocket(): Promise<{ socket: dgram.Socket; port: number; seen: Uint8Array[] }> {
  const socket = dgram.createSocket("udp4");
  const seen: Uint8Array[] = [];
  socket.on("message", (message) => seen.push(new Uint8Array(message)));
  socket.bind(0, "127.0.0.1");
  await once(socket, "listening");
  return { socket, port: socket.address().port, seen };
}

function portOf(endpoint: Endpoint): number {
  return Number(endpoint.addresses[0]!.split(":").at(-1));
}

function send(socket: dgram.Socket, packet: Uint8Array, port: number): Promise<void> {
  return new Promise((resolve, reject) => {
    socket.send(packet, port, "127.0.0.1", (error) => error ? reject(error) : resolve());
  });
}

/** What stands between a dialer and a listener, and loses, doubles and reorders packets. */
class LossyProxy {
  readonly #front = dgram.createSocket("udp4");
  readonly #back = dgram.createSocket("udp4");
  readonly #random: () => number;
  readonly #held: (() => void)[] = [];
  #dialer: number | undefined;
  lost = 0;

  constructor(seed: number) {
    this.#random = seededRandom(seed);
  }

  /** Where it is dialed. */
  async open(target: number): Promise<string> {
    this.#front.on("message", (packet, { port }) => {
      this.#dialer = port;
      this.#pass(() => this.#back.send(packet, target, "127.0.0.1"));
    });
    this.#back.on("message", (packet) => {
      const to = this.#dialer!;
      this.#pass(() => this.#front.send(packet, to, "127.0.0.1"));
    });
    for (const socket of [this.#front, this.#back]) {
      socket.bind(0, "127.0.0.1");
      await once(socket, "listening");
    }
    return `udp://127.0.0.1:${this.#front.address().port}`;
  }

  close(): void {
    this.#front.close();
    this.#back.close();
  }

  #pass(send: () => void): void {
    const chance = this.#random();
    if (chance < 0.15) {
      this.lost++;
      return;
    }
    // One in ten goes behind the next one, another one in ten comes twice.
    if (chance < 0.25) return void this.#held.push(send);
    send();
    if (chance < 0.35) send();
    for (const held of this.#held.splice(0)) held();
  }
}

describe("endpoints over UDP", () => {
  it(
    "exchange messages and requests both ways, one socket each",
    withEndpoints(async (endpoints) => {
      const [a, b] = await pair(endpoints);
      assert.match(b.addresses[0]!, /^udp:\/\/127\.0\.0\.1:[1-9]\d+$/);
      await a.send("b", bytes("ahoy"), { topic: "gossip", lane: "control" });
      const { from, payload, topic, lane } = await b.receive();
      assert.deepEqual([from, text(payload), topic, lane], ["a", "ahoy", "gossip", "control"]);
      await b.send("a", bytes("aye"));
      assert.equal(text((await a.receive()).payload), "aye");
      for (const [x, y] of [[a, b], [b, a]] as const) {
        y.handle("echo", ({ payload }) => payload);
        const answer = await x.request(y.nodeId, bytes("?"), { topic: "echo" });
        assert.equal(text(answer), "?");
        const [connection] = x.peer(y.nodeId)!.connections;
        assert.deepEqual([connection!.protocol, connection!.encrypted], ["udp", false]);
        assert.equal(connection!.localAddress, x.addresses[0]);
        assert.equal(connection!.remoteAddress, y.addresses[0]);
      }
    }),
  );

  it(
    "carry the longest packet there is, and refuse a longer one",
    withEndpoints(async (endpoints) => {
      const [a, b] = await pair(endpoints);
      const told = warnings(a);
      const message = Uint8Array.from({ length: 65_480 }, (_, i) => i % 251);
      await a.send("b", message);
      assert.deepEqual((await b.receive()).payload, message);
      assert.match(told[0]!.message, /65507 bytes: above 1200/);
      await assert.rejects(a.send("b", new Uint8Array(65_481)), {
        code: "MessageTooLarge",
        size: 65_481,
        maxSize: 65_480,
      });
    }),
  );

  it(
    "dial without listening, from one socket for all",
    withEndpoints(async (endpoints) => {
      const a = await endpoints.start("a", { listen: [] });
      const [b, c] = [await endpoints.start("b"), await endpoints.start("c")];
      const ups = [next(b, "peerup"), next(c, "peerup")];
      for (const other of [b, c]) {
        await a.connect({ nodeId: other.nodeId, address: other.addresses[0]! });
      }
      await Promise.all(ups);
      assert.deepEqual(a.addresses, []);
      const locals = a.peers().map(({ connections }) => connections[0]!.localAddress);
      assert.equal(new Set(locals).size, 1);
      await b.send("a", bytes("from b"));
      assert.equal(text((await a.receive()).payload), "from b");
      assert.deepEqual(
        await a.broadcast(bytes("all")).then(({ delivered }) => delivered.toSorted()),
        ["b", "c"],
      );
      for (const other of [b, c]) assert.equal(text((await other.receive()).payload), "all");
    }),
  );

  it(
    "listen on IPv6 and on names, beside other transports",
    withEndpoints(async (endpoints) => {
      const listen = ["udp://[::1]:0", "tcp://127.0.0.1:0", "udp://localhost:0"];
      const b = await endpoints.start("b", { listen });
      const [tcp, six] = b.addresses;
      assert.match(tcp!, /^tcp:/);
      assert.match(six!, /^udp:\/\/\[::1\]:\d+$/);
      const a = await endpoints.start("a", { listen: [] });
      await a.connect({ nodeId: "b", address: six! });
      await a.send("b", bytes("six"));
      assert.equal(text((await b.receive()).payload), "six");
      assert.match(a.peer("b")!.connections[0]!.localAddress, /^udp:\/\/\[::\]:\d+$/);
    }),
  );

  it(
    "tell an address that is in use",
    withEndpoints(async (endpoints) => {
      const a = await endpoints.start("a");
      const address = a.addresses[0]!;
      await assert.rejects(endpoints.start("b", { listen: address }), (error: TransportError) => {
        assert.equal(error.code, "ConnectionFailed");
        assert.ok(error.message.startsWith(`Cannot listen on ${address}: `), error.message);
        return true;
      });
    }),
  );

  it(
    "notice that the other side has ended",
    withEndpoints(async (endpoints) => {
      const [a, b] = await pair(endpoints, { reconnect: { enabled: false } });
      const down = next(b, "peerdown");
      await a.close();
      await down;
      assert.equal(b.peer("a")!.health, "down");
    }),
  );

  for (const seed of [11, 12]) {
    it(
      `run each request once behind a line that loses, doubles and reorders (seed ${seed})`,
      withEndpoints(async (endpoints) => {
        const [a, b] = [await endpoints.start("a"), await endpoints.start("b")];
        const proxy = new LossyProxy(seed);
        try {
          const address = await proxy.open(portOf(b));
          await a.connect({ nodeId: "b", address });
          const runs = new Map<string, number>();
          b.handle("count", ({ payload }) => {
            const key = text(payload);
            runs.set(key, (runs.get(key) ?? 0) + 1);
            return payload;
          });
          const asked = Array.from({ length: 60 }, async (_, i) => {
            const answer = await a.request("b", bytes(String(i)), { topic: "count" });
            assert.equal(text(answer), String(i));
          });
          await Promise.all(asked);
          assert.deepEqual([runs.size, ...new Set(runs.values())], [60, 1]);
          assert.ok(proxy.lost > 10, `lost ${proxy.lost}`);
          assert.ok(a.stats().datagrams.repeatedRequests > 5);
        } finally {
          proxy.close();
        }
      }),
    );
  }

  it(
    "answer no stranger with more than it has sent, and garbage not at all",
    withEndpoints(async (endpoints) => {
      const b = await endpoints.start("b");
      const { socket, seen } = await rawSocket();
      try {
        const port = portOf(b);
        const hello = new Uint8Array(1200);
        hello.set([0xda, 0x10]);
        const garbage = [
          new Uint8Array(0),
          new Uint8Array(1200),
          hello.subarray(0, 1199),
          ...Array.from({ length: 15 }, (_, kind) => {
            const packet = new Uint8Array(1200).fill(kind);
            packet.set([0xda, 0x11 + kind]);
            return packet;
          }),
        ];
        for (const packet of garbage) await send(socket, packet, port);
        const answered = once(socket, "message");
        await send(socket, hello, port);
        await answered;
        // What came before the hello was looked at before it, and nothing was said.
        assert.equal(seen.length, 1);
        assert.deepEqual([seen[0]!.length, seen[0]![0], seen[0]![1]], [59, 0xda, 0x11]);
        assert.equal(b.stats().datagrams.packetsReceived, garbage.length + 1);
        assert.equal(b.stats().datagrams.packetsSent, 1);
        assert.equal(b.peers().length, 0);
      } finally {
        socket.close();
      }
    }),
  );

  it("are no links", async () => {
    const endpoint = new Endpoint({ nodeId: "a", security: "development" });
    const udp = endpoint.transports.find(({ scheme }) => scheme === "udp")!;
    const { capabilities, priority, unavailable } = udp;
    assert.deepEqual(capabilities, {
      reliable: false,
      ordered: false,
      multiplexed: false,
      encrypted: true,
      peerAuthenticated: false,
      maxMessageSize: 65_480,
    });
    assert.deepEqual([priority, unavailable], [10, undefined]);
    const code = "UnsupportedProtocol";
    const signal = new AbortController().signal;
    const dialing = udp.dial("udp://127.0.0.1:9", { tls: undefined, keepaliveSecs: 1, signal });
    await assert.rejects(dialing, { code });
  });
});

describe("UDP where the security mode asks for more", () => {
  const cases = [["strict", "MtlsRequired"], ["permissive", "TlsRequired"]] as const;
  for (const [security, code] of cases) {
    it(
      `refuses to start and to connect in ${security} mode without signatures`,
      withEndpoints(async (endpoints) => {
        const ca = await TestCa.create();
        const tls = {
          ...await ca.issue("a"),
          ca: ca.ca,
          requireClientAuth: true,
          nodeIdVerification: "CommonName",
        } as const;
        await assert.rejects(endpoints.start("a", { security, tls }), { code });
        const a = await endpoints.start("a", { security, tls, listen: [] });
        const connecting = a.connect({ nodeId: "b", address: "udp://127.0.0.1:9" });
        await assert.rejects(connecting, { code });
        assert.equal(a.peers().length, 0);
        const peers = [{ nodeId: "b", address: "udp://127.0.0.1:9" }];
        await assert.rejects(endpoints.start("a", { security, tls, listen: [], peers }), { code });
      }),
    );

    it(
      `goes with signatures, and encrypted, in ${security} mode`,
      withEndpoints(async (endpoints) => {
        const ca = await TestCa.create();
        const keys = { a: newKeys(), b: newKeys() };
        const trustedKeys = { a: keys.a.publicKey, b: keys.b.publicKey };
        const start = async (nodeId: "a" | "b") =>
          await endpoints.start(nodeId, {
            security,
            tls: {
              ...await ca.issue(nodeId),
              ca: ca.ca,
              requireClientAuth: true,
              nodeIdVerification: "CommonName",
            },
            signing: { privateKey: keys[nodeId].privateKey, trustedKeys },
          });
        const [a, b] = [await start("a"), await start("b")];
        await a.connect({ nodeId: "b", address: b.addresses[0]! });
        await a.send("b", bytes("signed"));
        assert.equal(text((await b.receive()).payload), "signed");
        for (const [x, y] of [[a, b], [b, a]] as const) {
          assert.equal(x.peer(y.nodeId)!.connections[0]!.encrypted, true);
        }
      }),
    );
  }
});
