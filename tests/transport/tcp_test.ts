import { describe, it } from "node:test";
import assert from "node:assert/strict";
import * as net from "node:net";
import { TransportError } from "../../src/errors.ts";
import { detectRuntime } from "../../src/runtime/runtime.ts";
import { tcpTransport } from "../../src/transport/tcp.ts";
import { ContractListener, dialOptions, linkContract } from "./link_contract.ts";
import { LinkRecorder, until } from "./link_recorder.ts";
import { certificateOf, dialerTls, listenerTls, testNodes } from "./tls_nodes.ts";

const transport = tcpTransport(detectRuntime());
const listenAddress = "tcp://127.0.0.1:0";

linkContract("plain TCP", () =>
  Promise.resolve({
    transport,
    listenAddress,
    dialerTls: undefined,
    listenerTls: undefined,
    dialerCertificate: undefined,
    listenerCertificate: undefined,
  }));

linkContract("TLS", async () => {
  const { ca, server } = await testNodes();
  return {
    transport,
    listenAddress,
    dialerTls: dialerTls(ca, undefined, { verifyHostName: true, needPeerCertificate: false }),
    listenerTls: listenerTls(ca, server, { requireClientAuth: false, needPeerCertificate: false }),
    dialerCertificate: undefined,
    listenerCertificate: undefined,
  };
});

linkContract("mutual TLS", async () => {
  const { ca, server, client } = await testNodes();
  return {
    transport,
    listenAddress,
    dialerTls: dialerTls(ca, client),
    listenerTls: listenerTls(ca, server),
    dialerCertificate: certificateOf(client),
    listenerCertificate: certificateOf(server),
  };
});

describe("TCP addresses", () => {
  for (
    const [listen, dial, host] of [
      ["tcp://127.0.0.1:0", "tcp://localhost", "127.0.0.1"],
      ["tcp://localhost:0", "tcp://localhost", undefined],
      ["tcp://0.0.0.0:0", "tcp://127.0.0.1", "127.0.0.1"],
      ["tcp://[::1]:0", "tcp://[::1]", "::1"],
      ["tcp://[::]:0", "tcp://127.0.0.1", "127.0.0.1"],
    ] as const
  ) {
    it(`listens on ${listen} and is reached at ${dial}`, async (test) => {
      if (listen.includes("[") && !await hasIpv6()) return test.skip("no IPv6 here");
      const server = await new ContractListener().start(transport, listen);
      const port = server.address.slice(server.address.lastIndexOf(":"));
      const dialed = new LinkRecorder(await transport.dial(dial + port, dialOptions(undefined)));
      const accepted = new LinkRecorder(await server.accepted());
      assert.equal(accepted.link.info.remoteHost, host ?? server.hosts[0]);
      assert.deepEqual(server.hosts, [accepted.link.info.remoteHost]);
      assert.equal(accepted.link.info.remoteAddress, dialed.link.info.localAddress);
      dialed.link.write(Uint8Array.of(1));
      await accepted.received(1);
      dialed.link.close();
      accepted.link.close();
      await accepted.closed();
      await server.listener.close();
    });
  }

  it("names the address and the reason when a dial fails", async () => {
    const server = await new ContractListener().start(transport, listenAddress);
    await server.listener.close();
    await assert.rejects(
      transport.dial(server.address, dialOptions(undefined)),
      (error: unknown) => {
        assert.ok(error instanceof TransportError);
        assert.equal(error.code, "ConnectionFailed");
        assert.ok(error.message.startsWith(`Cannot connect to ${server.address}: `), error.message);
        assert.match(error.message, /refused/i);
        assert.ok(error.cause instanceof Error && error.retryable);
        return true;
      },
    );
    await assert.rejects(
      transport.dial("tcp://no-such-host.invalid:1", dialOptions(undefined)),
      { code: "ConnectionFailed", message: /^Cannot connect to tcp:\/\/no-such-host\.invalid:1: / },
    );
  });

  it("refuses what is not an address, and port 0 to dial", async () => {
    await assert.rejects(transport.dial("tcp://127.0.0.1:0", dialOptions(undefined)), {
      name: "ConfigError",
    });
    await assert.rejects(transport.dial("nonsense", dialOptions(undefined)), {
      name: "ConfigError",
    });
  });
});

describe("TCP resets", () => {
  for (const dialing of [true, false]) {
    const side = dialing ? "the dialing" : "the accepting";
    it(`ends the link of ${side} side once, with an error`, async () => {
      const { recorder, reset } = await linkToRawPeer(dialing);
      recorder.link.write(new Uint8Array(16 * 1024 * 1024));
      await recorder.received(1);
      reset();
      const error = await recorder.closed();
      assert.equal(error?.code, "ConnectionClosed");
      assert.match(error?.message ?? "", /^Cannot keep the connection with tcp:\/\/127\.0\.0\.1:/);
      assert.ok(recorder.link.bufferedBytes > 0);
      assert.equal(recorder.events.filter((event) => event === "close").length, 1);
    });
  }

  it("tells of a reset before the link was opened when it is opened", async () => {
    const server = await new ContractListener().start(transport, listenAddress);
    const raw = await rawConnect(server.address);
    const link = await server.accepted();
    link.write(new Uint8Array(8));
    raw.resetAndDestroy();
    await new Promise<void>((resolve) => raw.once("close", () => resolve()));
    const second = new LinkRecorder(
      await transport.dial(server.address, dialOptions(undefined)),
    );
    const other = new LinkRecorder(await server.accepted());
    second.link.write(Uint8Array.of(1));
    await other.received(1);
    const recorder = new LinkRecorder(link);
    assert.equal((await recorder.closed())?.code, "ConnectionClosed");
    second.link.close();
    other.link.close();
    await until(() => server.released === 2, "releasing");
    await server.listener.close();
  });
});

/** A link whose other side is a plain socket that has sent one byte and reads nothing. */
async function linkToRawPeer(
  dialing: boolean,
): Promise<{ recorder: LinkRecorder; reset: () => void }> {
  if (!dialing) {
    const server = await new ContractListener().start(transport, listenAddress);
    const raw = await rawConnect(server.address);
    raw.write(Uint8Array.of(1));
    const recorder = new LinkRecorder(await server.accepted());
    await server.listener.close();
    return { recorder, reset: () => void raw.resetAndDestroy() };
  }
  const server = net.createServer({ pauseOnConnect: true });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", () => resolve()));
  const accepted = new Promise<net.Socket>((resolve) => server.once("connection", resolve));
  const { port } = server.address() as net.AddressInfo;
  const link = await transport.dial(`tcp://127.0.0.1:${port}`, dialOptions(undefined));
  const raw = await accepted;
  server.close();
  raw.on("error", () => {});
  raw.write(Uint8Array.of(1));
  return { recorder: new LinkRecorder(link), reset: () => void raw.resetAndDestroy() };
}

async function rawConnect(address: string): Promise<net.Socket> {
  const port = Number(address.slice(address.lastIndexOf(":") + 1));
  const socket = net.connect({ port, host: "127.0.0.1" });
  socket.on("error", () => {});
  socket.pause();
  await new Promise<void>((resolve) => socket.once("connect", () => resolve()));
  return socket;
}

async function hasIpv6(): Promise<boolean> {
  const server = net.createServer();
  const found = await new Promise<boolean>((resolve) => {
    server.once("error", () => resolve(false));
    server.listen(0, "::1", () => resolve(true));
  });
  if (found) server.close();
  return found;
}
