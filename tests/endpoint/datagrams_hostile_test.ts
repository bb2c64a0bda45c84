/** What strangers, copies and crossing hellos must not be able to do over datagrams and WebSocket. */

import assert from "node:assert/strict";
import { once } from "node:events";
import * as net from "node:net";
import { describe, it } from "node:test";
import { Endpoint, type EndpointConfig } from "../../mod.ts";
import type { BindOptions } from "../../src/transport/transport.ts";
import { bytes, Cluster, inbox, text } from "../support/cluster.ts";
import { DatagramNetwork } from "../support/datagram_network.ts";

type Options = Partial<EndpointConfig>;

class DatagramCluster {
  readonly cluster = new Cluster();
  readonly environment = this.cluster.environment;
  readonly network = new DatagramNetwork(this.environment, {}, 1);
  readonly made: Endpoint[] = [];

  async start(nodeId: string, host: string, options: Options = {}): Promise<Endpoint> {
    const endpoint = new Endpoint({
      nodeId,
      listen: host,
      security: "legacy",
      environment: this.environment,
      transports: [this.network.transport(host.slice(8).split(":")[0]!)],
      ...options,
    });
    this.made.push(endpoint);
    await endpoint.start();
    return endpoint;
  }
  async connect(from: Endpoint, to: string, address: string): Promise<void> {
    await this.environment.run(from.connect({ nodeId: to, address }));
  }
}

function inDatagrams(test: (cluster: DatagramCluster) => Promise<void>): () => Promise<void> {
  return async () => {
    const cluster = new DatagramCluster();
    try {
      await test(cluster);
    } finally {
      const all = cluster.made.map((endpoint) => endpoint.close({ drainMs: 0 }));
      await cluster.environment.run(Promise.all(all));
      await cluster.environment.advance(10_000);
    }
    assert.equal(cluster.environment.pendingTimers, 0);
    assert.equal(cluster.network.sockets, 0);
  };
}

describe("datagrams, reviewed", () => {
  it(
    "a handler runs once, though its peer is forgotten while the node comes again",
    inDatagrams(async (c) => {
      const fast = { keepaliveIntervalSecs: 1 };
      const a = await c.start("a", "dgram://a:1", fast);
      const b = await c.start("b", "dgram://b:1", fast);
      let ran = 0;
      b.handle("pay", () => {
        ran++;
        return bytes("paid");
      });
      await c.connect(a, "b", "dgram://b:1");
      await c.environment.advance(10);
      // What b sends is lost, until a has given its link up and says hello again.
      c.network.filter = ({ from, packet }) => from !== "dgram://b:1" || (packet[1]! & 15) < 4;
      const paid = a.request("b", bytes(""), { topic: "pay", timeoutMs: 60_000 })
        .catch((error) => error);
      const welcomed = () => c.network.seen.slice(20).some(({ packet }) => (packet[1]! & 15) === 2);
      for (let i = 0; i < 20_000 && !welcomed(); i++) await c.environment.advance(0.5);
      assert.ok(welcomed());
      assert.equal(ran, 1);
      c.network.filter = () => true;
      // The welcome is on its way, and b forgets a.
      void b.disconnect("a");
      await c.environment.advance(60_000);
      await paid;
      assert.equal(ran, 1);
    }),
  );

  it(
    "those that are not confirmed count for maxConnectionsPerHost",
    inDatagrams(async (c) => {
      const b = await c.start("b", "dgram://b:1", { maxConnectionsPerHost: 2 });
      const all: Promise<unknown>[] = [];
      for (let i = 0; i < 8; i++) {
        const node = await c.start(`n${i}`, `dgram://h:${i + 1}`, {
          reconnect: { enabled: false },
        });
        all.push(node.connect({ nodeId: "b", address: "dgram://b:1" }).catch(() => {}));
      }
      await c.environment.advance(100);
      assert.ok(b.peers().length <= 2, `${b.peers().length} peers`);
      await c.environment.run(Promise.all(all));
    }),
  );

  it(
    "of two processes with one name that come at once, the first one stays",
    inDatagrams(async (c) => {
      const b = await c.start("b", "dgram://b:1");
      let downs = 0;
      b.addEventListener("peerdown", () => downs++);
      const [one, two] = [
        await c.start("a", "dgram://h:1"),
        await c.start("a", "dgram://i:1"),
      ];
      const both = [one, two].map((node) =>
        node.connect({ nodeId: "b", address: "dgram://b:1" }).catch(() => {})
      );
      await c.environment.advance(5_000);
      await c.environment.run(Promise.all(both));
      assert.equal(downs, 0);
      await one.send("b", bytes("one"));
      await c.environment.advance(10);
      assert.deepEqual(inbox(b), ["one"]);
    }),
  );

  it(
    "an endpoint that is closed while a name is looked up opens no socket",
    inDatagrams(async (c) => {
      let found = (): void => {};
      const transport = c.network.transport("a");
      const slow = {
        ...transport,
        resolve: (remote: string) =>
          new Promise<{ remote: string; local: string }>((resolve) => {
            found = () => resolve({ remote, local: "dgram://a:0" });
          }),
      };
      const a = await c.start("a", "dgram://a:1", { transports: [slow] });
      const connected = a.connect({ nodeId: "b", address: "dgram://b:1" }).catch((e) => e);
      await c.environment.advance(1);
      await c.environment.run(a.close({ drainMs: 0 }));
      found();
      await c.environment.advance(10);
      assert.equal((await connected).code, "Shutdown");
      assert.equal(c.network.sockets, 0);
    }),
  );

  it(
    "a message that waits for its lane's limit holds up no other lane",
    inDatagrams(async (c) => {
      const a = await c.start("a", "dgram://a:1", { bandwidth: { bulk: 4_096, total: 100_000 } });
      const b = await c.start("b", "dgram://b:1");
      await c.connect(a, "b", "dgram://b:1");
      for (let i = 0; i < 2; i++) await a.send("b", new Uint8Array(60_000), { lane: "bulk" });
      const bulk = a.send("b", new Uint8Array(100), { lane: "bulk" }).catch(() => {});
      const normal = a.send("b", bytes("normal")).catch(() => {});
      await c.environment.advance(5_000);
      const got: number[] = [];
      for (let m = b.tryReceive(); m !== undefined; m = b.tryReceive()) got.push(m.payload.length);
      assert.deepEqual(got, [60_000, 60_000, 6]);
      await c.environment.advance(120_000);
      await bulk;
      await normal;
    }),
  );

  it(
    "a copied packet from elsewhere changes nothing of where a node sends from",
    inDatagrams(async (c) => {
      const a = await c.start("a", "dgram://a:1");
      const b = await c.start("b", "dgram://b:1", { listen: ["dgram://b:1", "dgram://b2:1"] });
      await c.connect(a, "b", "dgram://b:1");
      await c.environment.advance(10);
      c.network.filter = () => false;
      await a.send("b", bytes("seen"));
      const { packet } = c.network.seen.at(-1)!;
      c.network.filter = () => true;
      c.network.inject(packet, "dgram://evil:1", "dgram://b2:1");
      await c.environment.advance(10);
      const before = c.network.seen.length;
      await b.send("a", bytes("answer"));
      assert.equal(c.network.seen[before]!.from, "dgram://b:1");
    }),
  );

  it(
    "a message that waits for room pays its rate limit once",
    inDatagrams(async (c) => {
      const transport = c.network.transport("a");
      let full = false;
      let drain = (): void => {};
      const narrow = {
        ...transport,
        bind: async (address: string, options: BindOptions) => {
          drain = options.onDrain;
          const socket = await transport.bind!(address, options);
          const send = (packet: Uint8Array, to: string) => !full && socket.send(packet, to);
          return { address: socket.address, send, close: () => socket.close() };
        },
      };
      const a = await c.start("a", "dgram://a:1", {
        rateLimit: { bucketSize: 2, refillRate: 0.001 },
        transports: [narrow],
      });
      await c.start("b", "dgram://b:1");
      await c.connect(a, "b", "dgram://b:1");
      full = true;
      const outcome = a.send("b", bytes("x")).then(() => "sent", (error) => error.code);
      for (let i = 0; i < 3; i++) drain();
      full = false;
      drain();
      assert.equal(await outcome, "sent");
    }),
  );
});

describe("requests over datagrams, reviewed", () => {
  it(
    "keep to the limit of bandwidth, both the requests and the answers",
    inDatagrams(async (c) => {
      const quiet = { maxRequests: 2_000, datagrams: { warnAbove: 0 } };
      const a = await c.start("a", "dgram://a:1", { ...quiet, bandwidth: { total: 100_000 } });
      const b = await c.start("b", "dgram://b:1", quiet);
      const other = await c.start("c", "dgram://c:1", quiet);
      await c.connect(a, "b", "dgram://b:1");
      await c.connect(a, "c", "dgram://c:1");
      a.handle("big", () => new Uint8Array(60_000));
      const since = c.network.seen.length;
      const asked: Promise<unknown>[] = [];
      for (let i = 0; i < 100; i++) {
        asked.push(b.request("a", bytes(""), { topic: "big", timeoutMs: 1_000 }).catch(() => {}));
      }
      await c.environment.advance(100);
      void a.send("c", bytes("starved?")).catch(() => {});
      await c.environment.advance(900);
      let sent = 0;
      for (const seen of c.network.seen.slice(since)) {
        if (seen.from === "dgram://a:1") sent += seen.packet.length;
      }
      await c.environment.advance(3_000);
      const got = inbox(other);
      await Promise.all(asked);
      assert.deepEqual(got, ["starved?"]);
      assert.ok(sent < 100_000 + 2 * 65_536, `${sent} bytes in a second`);
    }),
  );
});

describe("a request over datagrams that waited for its turn", () => {
  it(
    "is repeated like others",
    inDatagrams(async (c) => {
      const a = await c.start("a", "dgram://a:1", { bandwidth: { total: 100_000 } });
      const b = await c.start("b", "dgram://b:1");
      await c.connect(a, "b", "dgram://b:1");
      await c.environment.advance(10);
      b.handle("time", () => bytes("now"));
      for (let i = 0; i < 2; i++) await a.send("b", new Uint8Array(60_000));
      let lost = 0;
      c.network.filter = ({ packet }) => (packet[1]! & 15) !== 5 || lost++ > 0;
      const asked = a.request("b", bytes(""), { topic: "time", timeoutMs: 60_000 }).catch((e) => e);
      assert.equal(lost, 0);
      await c.environment.advance(5_000);
      assert.equal(lost, 2);
      assert.equal(text(await asked), "now");
    }),
  );
});

/** The first line that a listener answers a browser with. */
async function answerTo(port: number, path: string, more: string): Promise<string> {
  const socket = net.connect(port, "127.0.0.1");
  await once(socket, "connect");
  socket.write(
    `GET ${path} HTTP/1.1\r\nHost: 127.0.0.1:${port}\r\nUpgrade: websocket\r\n` +
      "Connection: Upgrade\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n" +
      `Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: hawser.v1\r\n${more}\r\n`,
  );
  const [chunk] = await once(socket, "data");
  socket.destroy();
  return text(new Uint8Array(chunk)).split("\r\n")[0]!;
}

describe("a page in a browser", () => {
  it("gets no WebSocket from a listener", async () => {
    const endpoint = new Endpoint({
      nodeId: "a",
      listen: "ws://127.0.0.1:0/hawser",
      security: "development",
    });
    await endpoint.start();
    try {
      const port = Number(new URL(endpoint.addresses[0]!).port);
      assert.match(await answerTo(port, "/hawser", ""), / 101 /);
      const page = await answerTo(port, "/hawser", "Origin: https://evil.example\r\n");
      assert.match(page, / 403 /);
    } finally {
      await endpoint.close({ drainMs: 0 });
    }
  });
});
