/** Endpoints over WebSockets: identity, sessions, and servers that are there already. */

import assert from "node:assert/strict";
import * as net from "node:net";
import { describe, it } from "node:test";
import { Endpoint, type EndpointConfig, type TransportError } from "../../mod.ts";
import { webSocketMount } from "../../src/transport/websocket_mount.ts";
import { TestCa } from "../support/certs.ts";
import { bytes, text } from "../support/cluster.ts";
import { SERVERS, type StartServer } from "../transport/mounted_servers.ts";
import { newKeys } from "./on_the_line.ts";
import { strict } from "./proved_pair.ts";

interface Pair {
  readonly listener: Endpoint;
  readonly dialer: Endpoint;
}

async function withPair(
  listens: EndpointConfig,
  dials: EndpointConfig,
  test: (pair: Pair) => Promise<void>,
): Promise<void> {
  const listener = new Endpoint(listens);
  const dialer = new Endpoint(dials);
  try {
    await listener.start();
    await dialer.start();
    await test({ listener, dialer });
  } finally {
    await dialer.close({ drainMs: 0 });
    await listener.close({ drainMs: 0 });
  }
}

async function talk({ listener, dialer }: Pair): Promise<void> {
  await dialer.send(listener.nodeId, bytes("there"));
  assert.equal(text((await listener.receive()).payload), "there");
  await listener.send(dialer.nodeId, bytes("back"));
  assert.equal(text((await dialer.receive()).payload), "back");
}

function warning(endpoint: Endpoint): Promise<TransportError> {
  return new Promise((resolve) =>
    endpoint.addEventListener("warning", ({ detail }) => {
      if (detail.error !== undefined) resolve(detail.error);
    })
  );
}

const PLAIN = { security: "development" } as const;

describe("endpoints over ws", () => {
  it("talk both ways, and are told by their addresses", async () => {
    const listens = { nodeId: "a", listen: "ws://127.0.0.1:0/hawser", ...PLAIN };
    await withPair(listens, { nodeId: "b", ...PLAIN }, async (pair) => {
      const [address] = pair.listener.addresses;
      assert.match(address!, /^ws:\/\/127\.0\.0\.1:\d+\/hawser$/);
      await pair.dialer.connect({ nodeId: "a", address: address! });
      await talk(pair);
      const [connection] = pair.dialer.peer("a")!.connections;
      assert.equal(connection!.encrypted, false);
      assert.equal(connection!.remoteAddress, address);
    });
  });

  it("carry large messages, requests and streams", async () => {
    const listens = { nodeId: "a", listen: "ws://127.0.0.1:0", ...PLAIN };
    await withPair(listens, { nodeId: "b", ...PLAIN }, async ({ listener, dialer }) => {
      await dialer.connect({ nodeId: "a", address: listener.addresses[0]! });
      const large = new Uint8Array(5_000_000).map((_, i) => i * 31);
      listener.handle(undefined, ({ payload }) => payload);
      assert.deepEqual(await dialer.request("a", large), large);
      const received = new Promise<number>((resolve) =>
        listener.onStream("copy", async (stream) => {
          let sum = 0;
          for await (const chunk of stream.readable) sum += chunk.length;
          resolve(sum);
          await stream.writable.close();
        })
      );
      const stream = await dialer.openStream("a", { topic: "copy" });
      const writer = stream.writable.getWriter();
      for (let i = 0; i < 20; i++) await writer.write(large.subarray(0, 100_000));
      await writer.close();
      assert.equal(await received, 2_000_000);
      await stream.readable.cancel();
    });
  });

  it("are refused at another path, with a reason on both sides", async () => {
    const listens = { nodeId: "a", listen: "ws://127.0.0.1:0/hawser", ...PLAIN };
    await withPair(listens, { nodeId: "b", ...PLAIN }, async ({ listener, dialer }) => {
      const warned = warning(listener);
      const address = listener.addresses[0]!.replace("hawser", "other");
      await assert.rejects(dialer.connect({ nodeId: "a", address }), {
        code: "HandshakeFailed",
        message: /the server answered "404 Not Found"$/,
      });
      assert.match((await warned).message, /^Cannot accept a connection from 127\.0\.0\.1: path/);
    });
  });

  it("are refused in strict mode, and wherever certificates are given", async () => {
    const ca = await TestCa.create();
    const config = await strict(ca, "a");
    const endpoint = new Endpoint({ ...config, listen: "ws://127.0.0.1:0" });
    await assert.rejects(endpoint.start(), { code: "TlsRequired" });
    await endpoint.close();
    const lax = new Endpoint({ ...config, ...PLAIN, listen: "ws://127.0.0.1:0" });
    await assert.rejects(lax.start(), { code: "TlsRequired", message: /tls is given$/ });
    await lax.close();
    const bare = new Endpoint({ nodeId: "a", ...PLAIN, listen: "wss://127.0.0.1:0" });
    await assert.rejects(bare.start(), { code: "TlsRequired", message: /tls is not given$/ });
    await bare.close();
  });
});

describe("endpoints over wss in strict mode", () => {
  it("verify each other's certificates", async () => {
    const ca = await TestCa.create();
    const listens = { ...await strict(ca, "a"), listen: "wss://127.0.0.1:0/hawser" };
    await withPair(listens, await strict(ca, "b"), async (pair) => {
      const address = pair.listener.addresses[0]!;
      await pair.dialer.connect({ nodeId: "a", address });
      await talk(pair);
      assert.equal(pair.dialer.peer("a")?.identity?.nodeId, "a");
      assert.equal(pair.listener.peer("b")?.identity?.nodeId, "b");
      assert.ok(pair.dialer.peer("a")!.connections.every(({ encrypted }) => encrypted));
    });
  });

  it("refuse a stranger and a node under another's name, on either side", async () => {
    const ca = await TestCa.create();
    const stranger = await TestCa.create("stranger");
    const listens = { ...await strict(ca, "a"), listen: "wss://127.0.0.1:0" };
    const lie = {
      ...await strict(ca, "c"),
      nodeId: "b",
      security: "permissive" as const,
    };
    const lying = { ...lie, tls: { ...lie.tls, nodeIdVerification: "None" as const } };
    await withPair(listens, await strict(stranger, "b"), async ({ listener, dialer }) => {
      const address = listener.addresses[0]!;
      await assert.rejects(dialer.connect({ nodeId: "a", address }), { code: "HandshakeFailed" });
      assert.deepEqual(listener.peers(), []);
    });
    await withPair(listens, lying, async ({ listener, dialer }) => {
      const address = listener.addresses[0]!;
      await assert.rejects(dialer.connect({ nodeId: "a", address }), { rejectCode: "AUTH_FAILED" });
      assert.deepEqual(listener.peers(), []);
    });
    await withPair(listens, await strict(ca, "b"), async ({ listener, dialer }) => {
      const address = listener.addresses[0]!;
      await assert.rejects(dialer.connect({ nodeId: "x", address }), { code: "IdentityMismatch" });
    });
  });
});

/** Forwards connections, and cuts them on demand. */
class CuttingProxy {
  readonly #server = net.createServer((near) => this.#forward(near));
  readonly #sockets = new Set<net.Socket>();
  readonly #target: number;
  cuts = 0;

  constructor(target: string) {
    this.#target = Number(new URL(target).port);
  }

  async start(): Promise<number> {
    await new Promise<void>((resolve) => this.#server.listen(0, "127.0.0.1", () => resolve()));
    return (this.#server.address() as net.AddressInfo).port;
  }

  cut(): void {
    this.cuts++;
    for (const socket of this.#sockets) socket.destroy();
  }

  async close(): Promise<void> {
    this.cut();
    await new Promise<void>((resolve) => this.#server.close(() => resolve()));
  }

  #forward(near: net.Socket): void {
    const far = net.connect({ port: this.#target, host: "127.0.0.1" });
    for (const [from, to] of [[near, far], [far, near]] as const) {
      this.#sockets.add(from);
      from.on("error", () => {});
      from.on("close", () => {
        this.#sockets.delete(from);
        to.destroy();
      });
      from.pipe(to);
    }
  }
}

describe("a session over WebSockets", () => {
  const starts: Record<string, StartServer | undefined> = { "a listener": undefined, ...SERVERS };
  for (const [name, start] of Object.entries(starts)) {
    it(`goes on after cuts, and loses and repeats nothing (${name})`, async () => {
      const server = await start?.();
      const mount = server === undefined ? undefined : webSocketMount(server.url);
      if (server !== undefined) server.mount = mount;
      const reconnect = { initialBackoffMs: 1, maxBackoffMs: 20 };
      const listens: EndpointConfig = {
        nodeId: "a",
        ...PLAIN,
        ...(mount === undefined
          ? { listen: "ws://127.0.0.1:0/hawser" }
          : { listen: mount.address, transports: [mount] }),
      };
      await withPair(
        listens,
        { nodeId: "b", ...PLAIN, reconnect },
        async ({ listener, dialer }) => {
          const proxy = new CuttingProxy(listener.addresses[0]!);
          const port = await proxy.start();
          const address = `ws://127.0.0.1:${port}/hawser`;
          await dialer.connect({ nodeId: "a", address });
          const count = 2000;
          const sending = (async () => {
            for (let i = 0; i < count; i++) {
              await dialer.send("a", bytes(`${i} ${"x".repeat(1000)}`));
            }
            await dialer.flush("a");
          })();
          for (let i = 0; i < count; i++) {
            const [number] = text((await listener.receive()).payload).split(" ");
            assert.equal(number, String(i));
            if (i % 500 === 250) {
              proxy.cut();
            }
          }
          await sending;
          assert.equal(listener.tryReceive(), undefined);
          assert.equal(proxy.cuts, 4);
          await proxy.close();
        },
      );
      await server?.close();
    });
  }
});

describe("endpoints over servers that are there already", () => {
  for (const [name, start] of Object.entries(SERVERS)) {
    it(`prove their keys in strict mode (${name})`, async () => {
      const ca = await TestCa.create();
      const [keyA, keyB] = [newKeys(), newKeys()];
      const trustedKeys = { a: [keyA.publicKey], b: [keyB.publicKey] };
      const server = await start(await ca.issue("a"));
      const mount = webSocketMount(server.url);
      server.mount = mount;
      const listens = {
        ...await strict(ca, "a"),
        identity: { privateKey: keyA.privateKey, trustedKeys },
        listen: mount.address,
        transports: [mount],
      };
      const dials = {
        ...await strict(ca, "b"),
        identity: { privateKey: keyB.privateKey, trustedKeys },
      };
      await withPair(listens, dials, async (pair) => {
        assert.deepEqual(pair.listener.addresses, [server.url]);
        await pair.dialer.connect({ nodeId: "a", address: server.url });
        await talk(pair);
        assert.equal(pair.listener.peer("b")?.publicKey, keyB.publicKey);
        assert.equal(pair.dialer.peer("a")?.identity?.nodeId, "a");
        assert.ok(pair.listener.peer("b")!.connections.every(({ encrypted }) => encrypted));
      });
      // Who has a certificate of the authority but not the key is a stranger here.
      const keyC = newKeys();
      const liar = { ...dials, identity: { privateKey: keyC.privateKey, trustedKeys } };
      await withPair(listens, liar, async ({ listener, dialer }) => {
        const connecting = dialer.connect({ nodeId: "a", address: server.url });
        await assert.rejects(connecting, { code: "HandshakeFailed" });
        assert.deepEqual(listener.peers(), []);
      });
      const keyless = await strict(ca, "b");
      await withPair(listens, keyless, async ({ listener, dialer }) => {
        const connecting = dialer.connect({ nodeId: "a", address: server.url });
        await assert.rejects(connecting, { code: "HandshakeFailed" });
        assert.deepEqual(listener.peers(), []);
      });
      await server.close();
    });

    it(`hold the server's certificate against the node id (${name})`, async () => {
      const ca = await TestCa.create();
      const [keyA, keyB] = [newKeys(), newKeys()];
      const trustedKeys = { a: [keyA.publicKey], b: [keyB.publicKey] };
      // Another node of the cluster that stands between the two could pass their proofs on.
      const server = await start(await ca.issue("c"));
      const mount = webSocketMount(server.url);
      server.mount = mount;
      const listens = {
        ...await strict(ca, "a"),
        identity: { privateKey: keyA.privateKey, trustedKeys },
        listen: mount.address,
        transports: [mount],
      };
      const dials = {
        ...await strict(ca, "b"),
        identity: { privateKey: keyB.privateKey, trustedKeys },
      };
      await withPair(listens, dials, async ({ listener, dialer }) => {
        const connecting = dialer.connect({ nodeId: "a", address: server.url });
        await assert.rejects(connecting, { code: "IdentityMismatch" });
        assert.deepEqual(listener.peers(), []);
      });
      await server.close();
    });
  }

  it("are refused in strict mode without TLS, without keys, and twice", async () => {
    const ca = await TestCa.create();
    const config = await strict(ca, "a");
    const plain = webSocketMount("ws://127.0.0.1:80/hawser");
    const refused: [EndpointConfig, string][] = [
      [{ ...config, listen: plain.address, transports: [plain] }, "TlsRequired"],
      [{ ...config, ...PLAIN, listen: plain.address, transports: [plain] }, "TlsRequired"],
    ];
    const secure = webSocketMount("wss://127.0.0.1:443/hawser");
    refused.push([{ ...config, listen: secure.address, transports: [secure] }, "MtlsRequired"]);
    const twice = [plain.address, plain.address];
    refused.push([
      { nodeId: "a", ...PLAIN, listen: twice, transports: [plain] },
      "ConnectionFailed",
    ]);
    for (const [config, code] of refused) {
      const endpoint = new Endpoint(config);
      await assert.rejects(endpoint.start(), { code });
      await endpoint.close();
    }
    assert.throws(() => webSocketMount("tcp://127.0.0.1:9100"), { name: "ConfigError" });
    await assert.rejects(plain.dial(plain.address, undefined as never), {
      code: "UnsupportedProtocol",
    });
  });
});
