import { after, describe, it } from "node:test";
import assert from "node:assert/strict";
import * as net from "node:net";
import type { ListenOptions } from "../../mod.ts";
import { ContractListener, dialOptions, linkContract } from "./link_contract.ts";
import { LinkRecorder, until } from "./link_recorder.ts";
import { mountedTransport, SERVERS } from "./mounted_servers.ts";
import { certificateOf, dialerTls, listenerTls, testNodes } from "./tls_nodes.ts";
import { NO_PROTOCOL, RawPeer, unhex, UPGRADE } from "./websocket_peer.ts";

const closings: (() => Promise<void>)[] = [];
after(async () => {
  for (const close of closings) await close();
});

for (const [name, start] of Object.entries(SERVERS)) {
  linkContract(`a WebSocket mounted in ${name}`, async () => {
    const server = await start();
    closings.push(server.close);
    return {
      transport: mountedTransport(server),
      listenAddress: server.url,
      dialerTls: undefined,
      listenerTls: undefined,
      dialerCertificate: undefined,
      listenerCertificate: undefined,
      readsOnWhilePaused: name === "Deno.serve",
    };
  });

  linkContract(`a WebSocket mounted in ${name} with TLS`, async () => {
    const { ca, server: credentials, client } = await testNodes();
    const server = await start(credentials);
    closings.push(server.close);
    return {
      transport: mountedTransport(server),
      listenAddress: server.url,
      dialerTls: dialerTls(ca, client),
      listenerTls: listenerTls(ca, credentials),
      dialerCertificate: undefined,
      listenerCertificate: certificateOf(credentials),
      readsOnWhilePaused: name === "Deno.serve",
    };
  });
}

/** A raw connection to a server, which has sent this. */
async function rawConnect(url: string, sent: string): Promise<net.Socket> {
  const socket = net.connect({ port: Number(new URL(url).port), host: "127.0.0.1" });
  socket.on("error", () => {});
  await new Promise<void>((resolve) => socket.once("connect", () => resolve()));
  await new Promise<void>((resolve) => socket.write(sent, () => resolve()));
  return socket;
}

/** Everything that a raw connection receives until it ends. */
async function receiveAll(socket: net.Socket): Promise<string> {
  let text = "";
  socket.on("data", (chunk) => text += chunk.toString("latin1"));
  socket.once("end", () => socket.end());
  await new Promise<void>((resolve) => socket.once("close", () => resolve()));
  return text;
}

for (const [name, start] of Object.entries(SERVERS)) {
  describe(`dialers of a WebSocket mounted in ${name}`, () => {
    const begin = async (options: Partial<ListenOptions> = {}) => {
      const server = await start();
      closings.push(server.close);
      const listener = new ContractListener();
      return {
        server,
        listener: await listener.start(mountedTransport(server), server.url, options),
      };
    };

    it("are released however they go before or after the upgrade", async () => {
      const { server, listener } = await begin({ handshakeTimeoutMs: 100 });
      for (let i = 0; i < 24; i++) {
        const socket = await rawConnect(server.url, UPGRADE);
        if (i % 4 === 0) socket.destroy();
        else if (i % 4 === 1) socket.resetAndDestroy();
        else if (i % 4 === 2) setTimeout(() => socket.destroy(), 0);
        else socket.once("data", () => socket.destroy());
      }
      await until(() => {
        for (const link of listener.links.splice(0)) new LinkRecorder(link);
        return listener.released === listener.admitted;
      }, "releasing");
      assert.deepEqual(listener.errors, []);
      await listener.listener.close();
    });

    it("get their bytes by any WebSocket, in messages as they like", async () => {
      const { server, listener } = await begin();
      const socket = await rawConnect(server.url, UPGRADE);
      const b = new LinkRecorder(await listener.accepted());
      // Two messages, the second in fragments; a ping between them; then the end.
      const frames = "828500000000" + "0102030405" + "028200000000" + "0607" + "898100000000" +
        "70" + "808100000000" + "08" + "828000000000";
      socket.write(unhex(frames));
      await b.until(() => b.told("end"));
      assert.deepEqual(b.bytes, Uint8Array.of(1, 2, 3, 4, 5, 6, 7, 8));
      const received = receiveAll(socket);
      b.link.write(Uint8Array.of(9));
      b.link.end();
      await b.received(8);
      const close = Uint8Array.from([0x88, 0x82, 0, 0, 0, 0, 3, 232]);
      socket.write(close);
      assert.equal(await b.closed(), undefined);
      const text = await received;
      assert.ok(text.includes("\r\nUpgrade: websocket\r\n") || /upgrade: websocket/i.test(text));
      assert.ok(text.includes("\x8a\x01p"), "the pong");
      assert.ok(
        text.includes("\x82\x01\x09\x82\x00\x88\x02\x03\xe8"),
        "a message, the end, a Close",
      );
      assert.equal(listener.released, 1);
      await listener.listener.close();
    });

    const refused: [what: string, status: string, request: string][] = [
      ["no subprotocol", "400", NO_PROTOCOL],
      ["version 8", "426", UPGRADE.replace("Version: 13", "Version: 8")],
    ];
    for (const [what, status, request] of refused) {
      it(`are answered ${status} to ${what}, with one report`, async () => {
        const { server, listener } = await begin();
        const socket = await rawConnect(server.url, request);
        const answer = new Promise<string>((resolve) =>
          socket.once("data", (chunk) => resolve(chunk.toString("latin1")))
        );
        assert.ok((await answer).startsWith(`HTTP/1.1 ${status} `));
        socket.destroy();
        assert.deepEqual(listener.errors.map(({ code }) => code), ["HandshakeFailed"]);
        assert.deepEqual([listener.admitted, listener.links], [0, []]);
        await listener.listener.close();
      });
    }

    it("may send behind the request in the same packet", async () => {
      const { server, listener } = await begin();
      const bytes = String.fromCharCode(...unhex("828100000000 07 828000000000"));
      const peer = await RawPeer.connect(server.url, UPGRADE + bytes);
      const b = new LinkRecorder(await listener.accepted());
      await b.until(() => b.told("end"));
      assert.deepEqual(b.bytes, Uint8Array.of(7));
      b.link.close();
      await b.closed();
      peer.socket.destroy();
      await until(() => listener.released === 1, "releasing");
      await listener.listener.close();
    });

    it("get the subprotocol of proofs over TLS alone", async () => {
      const { server, listener } = await begin();
      const offer = UPGRADE.replace("hawser.v1", "hawser.v1.proof, hawser.v1");
      const peer = await RawPeer.connect(server.url, offer);
      assert.match(await peer.head(), /\r\nsec-websocket-protocol: hawser\.v1\r\n/i);
      peer.socket.destroy();
      new LinkRecorder(await listener.accepted());
      await until(() => listener.released === 1, "releasing");
      await listener.listener.close();
    });

    it("lose the link when they send text, or data behind their end", async () => {
      const { server, listener } = await begin();
      for (const frames of ["818100000000" + "61", "828000000000" + "828100000000" + "61"]) {
        const socket = await rawConnect(server.url, UPGRADE);
        const b = new LinkRecorder(await listener.accepted());
        socket.write(unhex(frames));
        assert.equal((await b.closed())?.code, "InvalidFrame");
        assert.equal(b.receivedBytes, 0);
        socket.destroy();
      }
      await until(() => listener.released === 2, "releasing");
      await listener.listener.close();
    });
  });
}

describe("a WebSocket mounted in Deno.serve", () => {
  it("is closed when more comes than a paused link can hold", {
    skip: SERVERS["Deno.serve"] === undefined,
  }, async () => {
    const server = await SERVERS["Deno.serve"]!();
    closings.push(server.close);
    const transport = mountedTransport(server);
    const listener = await new ContractListener().start(transport, server.url);
    const dialed = await transport.dial(server.url, dialOptions(undefined));
    const [a, b] = [new LinkRecorder(dialed), new LinkRecorder(await listener.accepted())];
    b.link.pause();
    a.link.write(new Uint8Array(20 * 1024 * 1024));
    assert.equal((await b.closed())?.code, "Backpressure");
    assert.equal((await a.closed())?.code, "ConnectionClosed");
    await until(() => listener.released === 1, "releasing");
    await listener.listener.close();
  });
});
