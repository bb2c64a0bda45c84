import { describe, it } from "node:test";
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import * as net from "node:net";
import * as tls from "node:tls";
import { type ListenOptions, TransportError } from "../../mod.ts";
import { detectRuntime } from "../../src/runtime/runtime.ts";
import { webSocketTransports } from "../../src/transport/websocket.ts";
import { ContractListener, dialOptions, linkContract } from "./link_contract.ts";
import { LinkRecorder, until } from "./link_recorder.ts";
import { certificateOf, dialerTls, listenerTls, testNodes } from "./tls_nodes.ts";
import { ACCEPTED, hex, NO_PROTOCOL, RawPeer, unhex, UPGRADE } from "./websocket_peer.ts";

const [ws, wss] = webSocketTransports(detectRuntime());

linkContract("WebSocket", () =>
  Promise.resolve({
    transport: ws!,
    listenAddress: "ws://127.0.0.1:0/hawser",
    dialerTls: undefined,
    listenerTls: undefined,
    dialerCertificate: undefined,
    listenerCertificate: undefined,
  }));

linkContract("WebSocket with mutual TLS", async () => {
  const { ca, server, client } = await testNodes();
  return {
    transport: wss!,
    listenAddress: "wss://127.0.0.1:0/",
    dialerTls: dialerTls(ca, client),
    listenerTls: listenerTls(ca, server),
    dialerCertificate: certificateOf(client),
    listenerCertificate: certificateOf(server),
  };
});

const listen = (options: Partial<ListenOptions> = {}) =>
  new ContractListener().start(ws!, "ws://127.0.0.1:0/hawser", options);

/** Waits until nothing that was admitted is left, and closes. */
async function settled(listener: ContractListener): Promise<void> {
  await until(() => listener.released === listener.admitted, "releasing");
  await listener.listener.close();
}

describe("a WebSocket listener", () => {
  it("answers a good request as RFC 6455 has it", async () => {
    const listener = await listen();
    const peer = await RawPeer.connect(listener.address, UPGRADE);
    assert.equal(await peer.head(), ACCEPTED);
    new LinkRecorder(await listener.accepted()).link.close();
    await peer.closed();
    await settled(listener);
  });

  it("is reached at / where no path is given, and by any name", async () => {
    const listener = await new ContractListener().start(ws!, "ws://localhost:0");
    assert.match(listener.address, /:\d+\/$/);
    const address = listener.address.slice(0, -1);
    const link = new LinkRecorder(await ws!.dial(address, dialOptions(undefined)));
    link.link.close();
    new LinkRecorder(await listener.accepted()).link.close();
    await settled(listener);
  });

  const refused: [what: string, status: number, request: string][] = [
    ["another path", 404, UPGRADE.replace("/hawser", "/")],
    ["a page", 426, "GET /hawser HTTP/1.1\r\nHost: node1\r\n\r\n"],
    ["a post", 405, "POST /hawser HTTP/1.1\r\nHost: node1\r\n\r\n"],
    ["no subprotocol", 400, NO_PROTOCOL],
    ["TLS", 400, "\x16\x03\x01\x02\x00\r\n\r\n"],
    ["10 KB of one header", 400, `GET /hawser HTTP/1.1\r\nA: ${"b".repeat(10_000)}\r\n\r\n`],
  ];
  for (const [what, status, request] of refused) {
    it(`answers ${what} with ${status}, reports it once and closes`, async () => {
      const listener = await listen();
      const peer = await RawPeer.connect(listener.address, request);
      assert.match(await peer.head(), new RegExp(`^HTTP/1\\.1 ${status} [ -~]+\r\n`));
      peer.socket.end();
      await peer.closed();
      assert.deepEqual(listener.errors.map(({ code }) => code), ["HandshakeFailed"]);
      assert.match(listener.errors[0]!.message, /^Cannot accept a connection from 127\.0\.0\.1: /);
      assert.equal(listener.links.length, 0);
      await settled(listener);
    });
  }

  for (const sent of ["", UPGRADE.slice(0, -1)]) {
    it(`gives a dialer that sent ${sent.length} bytes its time and no more`, async () => {
      const listener = await listen({ handshakeTimeoutMs: 100 });
      const peer = await RawPeer.connect(listener.address, sent);
      await peer.closed();
      assert.deepEqual(listener.errors.map(({ code }) => code), ["Timeout"]);
      await settled(listener);
    });
  }

  it("counts that time from the accept, however the bytes drip in", async () => {
    const listener = await listen({ handshakeTimeoutMs: 100 });
    const peer = await RawPeer.connect(listener.address, "GET /hawser HTTP/1.1\r\nA: ");
    const timer = setInterval(() => peer.socket.write("b"), 5);
    await peer.closed();
    clearInterval(timer);
    assert.deepEqual(listener.errors.map(({ code }) => code), ["Timeout"]);
    await settled(listener);
  });

  it("reports a dialer that goes before its upgrade, but not those it ends itself", async () => {
    const listener = await listen();
    const early = await RawPeer.connect(listener.address, "GET");
    early.socket.destroy();
    await until(() => listener.errors.length > 0, "the report");
    assert.deepEqual(listener.errors.map(({ code }) => code), ["HandshakeFailed"]);
    const late = await RawPeer.connect(listener.address, "GET");
    await until(() => listener.admitted === 2, "the second dialer");
    await listener.listener.close();
    await late.closed();
    await settled(listener);
    assert.equal(listener.errors.length, 1);
  });

  it("keeps what comes behind the request in the same packet", async () => {
    const listener = await listen();
    const peer = await RawPeer.connect(listener.address, `${UPGRADE}\x82\x80\0\0\0\0`);
    await peer.head();
    const link = new LinkRecorder(await listener.accepted());
    await link.until(() => link.told("end"));
    link.link.close();
    await link.closed();
    await settled(listener);
  });

  it("takes the WebSocket of any runtime for a client", async () => {
    const listener = await listen();
    const client = new WebSocket(listener.address, "hawser.v1");
    client.binaryType = "arraybuffer";
    const received: number[] = [];
    const gone = new Promise<number>((resolve) => {
      client.onclose = ({ code }) => resolve(code);
    });
    client.onmessage = ({ data }) => received.push(...new Uint8Array(data as ArrayBuffer));
    const b = new LinkRecorder(await listener.accepted());
    b.onChunk = (chunk) => b.link.write(chunk);
    await new Promise<void>((resolve) => {
      if (client.readyState === client.OPEN) resolve();
      else client.onopen = () => resolve();
    });
    client.send(Uint8Array.of(1, 2, 3));
    client.send(new Uint8Array(0));
    await b.until(() => b.told("end"));
    b.link.end();
    assert.equal(await gone, 1000);
    assert.deepEqual(received, [1, 2, 3]);
    assert.equal(await b.closed(), undefined);
    await settled(listener);
  });
});

/** A link that a raw dialer has opened. */
async function rawPair(): Promise<{
  peer: RawPeer;
  link: LinkRecorder;
  listener: ContractListener;
}> {
  const listener = await listen();
  const peer = await RawPeer.connect(listener.address, UPGRADE);
  await peer.head();
  return { peer, listener, link: new LinkRecorder(await listener.accepted()) };
}

describe("a WebSocket link", () => {
  const MASK = "00000000";

  for (
    const [what, frames, code] of [
      ["an unmasked frame", "820161", 1002],
      ["a text message", `8181${MASK}61`, 1003],
      ["a frame that claims 2^63 bytes", `82ff8000000000000000${MASK}`, 1002],
      ["a ping in fragments", `0981${MASK}61`, 1002],
    ] as const
  ) {
    it(`answers ${what} with Close ${code} and ends`, async () => {
      const { peer, link, listener } = await rawPair();
      await peer.send(frames, "hex");
      assert.equal(await peer.take(4), `8802${code.toString(16).padStart(4, "0")}`);
      await peer.closed();
      const error = await link.closed();
      assert.equal(error?.code, "InvalidFrame");
      assert.deepEqual(link.events, ["close"]);
      await settled(listener);
    });
  }

  it("answers pings also while it is paused", async () => {
    const { peer, link, listener } = await rawPair();
    await peer.send(`8981${MASK}61 8282${MASK}0102 8982${MASK}6263`, "hex");
    assert.equal(await peer.take(3), "8a0161");
    assert.equal(await peer.take(4), "8a026263");
    await link.received(2);
    link.link.close();
    await link.closed();
    await settled(listener);
  });

  it("answers no more pings than the other side takes the answers of", async () => {
    const { peer, link, listener } = await rawPair();
    peer.socket.pause();
    const pings = unhex(`89fd${MASK}${"61".repeat(125)}`.repeat(1000));
    for (let i = 0; i < 120; i++) {
      await new Promise<void>((resolve) => peer.socket.write(pings, () => resolve()));
    }
    await peer.send(`8281${MASK}07`, "hex");
    await link.received(1);
    assert.equal(link.link.bufferedBytes, 0);
    link.link.write(Uint8Array.of(1));
    assert.ok(link.link.bufferedBytes <= 1);
    peer.socket.destroy();
    await link.closed();
    await settled(listener);
  });

  it("takes a Close frame for the end where no other came, and answers it", async () => {
    const { peer, link, listener } = await rawPair();
    await peer.send(`8281${MASK}07 8882${MASK}03e8`, "hex");
    assert.equal(await peer.take(4), "880203e8");
    await link.until(() => link.told("end"));
    assert.equal(link.link.write(Uint8Array.of(1)), false);
    link.link.end();
    peer.socket.end();
    await link.closed();
    assert.deepEqual(link.events, ["data", "end", "close"]);
    await settled(listener);
  });

  for (
    const [how, act] of [
      ["a Close frame with another code", (peer) => peer.send("888200000000 03e9", "hex")],
      ["the end of the connection", (peer) => void peer.socket.end()],
      ["a reset", (peer) => void peer.socket.resetAndDestroy()],
    ] as [string, (peer: RawPeer) => unknown][]
  ) {
    it(`ends with an error by ${how}`, async () => {
      const { peer, link, listener } = await rawPair();
      await act(peer);
      await peer.until(() => peer.socket.destroyed || peer.text !== "");
      peer.socket.end();
      assert.equal((await link.closed())?.code, "ConnectionClosed");
      await settled(listener);
    });
  }
});

/** A server that answers each connection's first bytes with this, and what it does then. */
async function rawServer(
  answer: (socket: net.Socket) => void,
): Promise<{ url: string; requests: string[]; close(): void }> {
  const requests: string[] = [];
  const sockets = new Set<net.Socket>();
  const server = net.createServer((socket) => {
    sockets.add(socket);
    socket.on("error", () => {});
    socket.once("data", (chunk) => {
      requests.push(chunk.toString("latin1"));
      answer(socket);
    });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", () => resolve()));
  const { port } = server.address() as net.AddressInfo;
  const close = () => {
    server.close();
    for (const socket of sockets) socket.destroy();
  };
  return { url: `ws://127.0.0.1:${port}/hawser`, requests, close };
}

describe("a WebSocket dialer", () => {
  it("asks as RFC 6455 has it, each time with another key", async () => {
    const server = await rawServer((socket) => socket.end("HTTP/1.1 404 Not Found\r\n\r\n"));
    for (let i = 0; i < 2; i++) {
      await assert.rejects(ws!.dial(server.url, dialOptions(undefined)), {
        code: "HandshakeFailed",
      });
    }
    const host = new URL(server.url).host;
    const keys = server.requests.map((request) => {
      const key = /\r\nSec-WebSocket-Key: ([A-Za-z0-9+/]{22}==)\r\n/.exec(request)?.[1];
      assert.ok(key !== undefined, request);
      assert.equal(
        request,
        `GET /hawser HTTP/1.1\r\nHost: ${host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n` +
          `Sec-WebSocket-Key: ${key}\r\nSec-WebSocket-Version: 13\r\n` +
          "Sec-WebSocket-Protocol: hawser.v1\r\n\r\n",
      );
      return key;
    });
    assert.notEqual(keys[0], keys[1]);
    server.close();
  });

  const refusals: [what: string, answer: string, code: string, why: RegExp][] = [
    ["an answer to another key", ACCEPTED, "HandshakeFailed", /did not answer our key$/],
    ["a page", "HTTP/1.1 200 OK\r\n\r\n", "HandshakeFailed", /answered "200 OK"$/],
    ["503", "HTTP/1.1 503 Busy\r\n\r\n", "ConnectionFailed", /answered "503 Busy"$/],
    ["nothing", "", "ConnectionFailed", /closed before the answer/],
    ["half an answer", "HTTP/1.1 101 Swi", "ConnectionFailed", /closed before the answer/],
    ["another protocol", "SSH-2.0-x\r\n\r\n", "HandshakeFailed", /not HTTP/],
    ["a head without end", "A".repeat(9000), "HandshakeFailed", /longer than 8192 bytes$/],
  ];
  for (const [what, answer, code, why] of refusals) {
    it(`refuses ${what}`, async () => {
      const server = await rawServer((socket) => socket.end(answer));
      const dialing = ws!.dial(server.url, dialOptions(undefined));
      await assert.rejects(dialing, (error) => {
        assert.ok(error instanceof TransportError);
        assert.equal(error.code, code);
        assert.ok(error.message.startsWith(`Cannot connect to ${server.url}: `), error.message);
        assert.match(error.message, why);
        return true;
      });
      server.close();
    });
  }

  it("can be aborted while the server is silent", async () => {
    const abort = new AbortController();
    const reason = new Error("enough");
    const server = await rawServer(() => abort.abort(reason));
    const dialing = ws!.dial(server.url, dialOptions(undefined, abort.signal));
    await assert.rejects(dialing, (error) => error === reason);
    server.close();
  });

  it("masks what it sends, with masks that differ, and leaves the chunk as it was", async () => {
    const listener = net.createServer();
    await new Promise<void>((resolve) => listener.listen(0, "127.0.0.1", () => resolve()));
    const { port } = listener.address() as net.AddressInfo;
    const connected = new Promise<RawPeer>((resolve) =>
      listener.once("connection", (socket) => resolve(new RawPeer(socket)))
    );
    const dialing = ws!.dial(`ws://127.0.0.1:${port}/`, dialOptions(undefined));
    const peer = await connected;
    const key = /Key: (\S+)/.exec(await peer.head())![1]!;
    const accept = createHash("sha1").update(`${key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`);
    await peer.send(ACCEPTED.replace(/Accept: .*/, `Accept: ${accept.digest("base64")}`));
    const link = new LinkRecorder(await dialing);
    const chunk = Uint8Array.of(1, 2, 3, 4, 5);
    const masks = new Set<string>();
    for (let i = 0; i < 8; i++) {
      link.link.write(chunk);
      const frame = unhex(await peer.take(2 + 4 + 5));
      assert.deepEqual([frame[0], frame[1]], [0x82, 0x85]);
      masks.add(hex(frame.subarray(2, 6)));
      const unmasked = frame.subarray(6).map((byte, i) => byte ^ frame[2 + i % 4]!);
      assert.deepEqual(unmasked, chunk);
    }
    assert.ok(masks.size > 6);
    assert.deepEqual(chunk, Uint8Array.of(1, 2, 3, 4, 5));
    link.link.close();
    await link.closed();
    listener.close();
    peer.socket.destroy();
  });
});

describe("TLS of wss", () => {
  for (
    const [offered, agreed] of [
      [["http/1.1"], "http/1.1"],
      [["h2", "http/1.1"], "http/1.1"],
      [undefined, false],
      [["hawser/1"], undefined],
    ] as const
  ) {
    it(`serves a dialer that offers ${offered ?? "no protocol"}: ${agreed ?? "no"}`, async () => {
      const { ca, server, client } = await testNodes();
      const listener = await new ContractListener().start(wss!, "wss://127.0.0.1:0/hawser", {
        tls: listenerTls(ca, server),
      });
      const { port } = new URL(listener.address);
      const socket = tls.connect({
        port: Number(port),
        host: "127.0.0.1",
        ca: ca.ca,
        ...client,
        checkServerIdentity: () => undefined,
        ...(offered === undefined ? {} : { ALPNProtocols: [...offered] }),
      });
      const peer = new RawPeer(socket);
      if (agreed === undefined) {
        await peer.closed();
        assert.equal(listener.links.length, 0);
      } else {
        await new Promise<void>((resolve) => socket.once("secureConnect", () => resolve()));
        assert.equal(socket.alpnProtocol || false, agreed);
        await peer.send(UPGRADE);
        assert.equal(await peer.head(), ACCEPTED);
        new LinkRecorder(await listener.accepted()).link.close();
        await peer.closed();
      }
      await settled(listener);
    });
  }
});
