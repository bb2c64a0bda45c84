import { describe, it } from "node:test";
import assert from "node:assert/strict";
import * as net from "node:net";
import process from "node:process";
import * as tls from "node:tls";
import { TransportError } from "../../src/errors.ts";
import { detectRuntime } from "../../src/runtime/runtime.ts";
import { tcpTransport } from "../../src/transport/tcp.ts";
import type { Link, LinkTls, ListenOptions } from "../../src/transport/transport.ts";
import { type Credentials, TestCa } from "../support/certs.ts";
import { ContractListener, dialOptions } from "./link_contract.ts";
import { LinkRecorder, until } from "./link_recorder.ts";
import { dialerTls, listenerTls, testNodes } from "./tls_nodes.ts";

const transport = tcpTransport(detectRuntime());
const HOUR_MS = 3_600_000;

describe("TLS listener", () => {
  const refused: Record<string, () => Promise<Credentials | undefined>> = {
    "no certificate": () => Promise.resolve(undefined),
    "a certificate of another authority": async () => (await TestCa.create()).issue("client"),
    "an expired certificate": async () =>
      (await testNodes()).ca.issue("client", { notAfter: new Date(Date.now() - HOUR_MS / 2) }),
    "a certificate that is not valid yet": async () =>
      (await testNodes()).ca.issue("client", { notBefore: new Date(Date.now() + HOUR_MS) }),
    "a certificate for servers": async () =>
      (await testNodes()).ca.issue("client", { usages: ["server"] }),
  };
  for (const [what, issue] of Object.entries(refused)) {
    it(`refuses ${what}, reports it once and delivers no byte`, async () => {
      const { ca, server } = await testNodes();
      const listener = await listen(listenerTls(ca, server));
      const own = await issue();
      const outcome = await useDial(listener.address, dialerTls(ca, own));
      await until(() => listener.errors.length > 0, "the report");
      await settled(listener);
      const [error] = listener.errors;
      assert.equal(listener.errors.length, 1, listener.errors.join("; "));
      assert.equal(listener.links.length, 0);
      const code = own === undefined ? "ClientCertificateRequired" : "HandshakeFailed";
      assert.equal(error?.code, code, error?.message);
      assert.match(error?.message ?? "", /^Cannot accept a connection from 127\.0\.0\.1: /);
      assert.equal(outcome.receivedBytes, 0);
      if (own === undefined) assert.equal(outcome.error?.code, "ClientCertificateRequired");
    });
  }

  it("tells a dialer without a certificate why, even one that says nothing", async () => {
    const { ca, server } = await testNodes();
    const listener = await listen(listenerTls(ca, server));
    await transport.dial(listener.address, dialOptions(dialerTls(ca, undefined))).then(
      async (link) => {
        const error = await new LinkRecorder(link).closed();
        assert.equal(error?.code, "ClientCertificateRequired", error?.message);
      },
      (error) => assert.equal(error.code, "ClientCertificateRequired", error.message),
    );
    await settled(listener);
  });

  it("accepts a certificate for clients only", async () => {
    const { ca, server } = await testNodes();
    const client = await ca.issue("client", { usages: ["client"] });
    await assertConnects(listenerTls(ca, server), dialerTls(ca, client));
  });

  it("serves a dialer that offers no application protocol", async () => {
    const { ca, server, client } = await testNodes();
    const listener = await listen(listenerTls(ca, server));
    const raw = rawDial(listener.address, ca, client, {});
    const link = new LinkRecorder(await listener.accepted());
    link.link.close();
    await closed(raw);
    await settled(listener);
    assert.deepEqual(listener.errors, []);
  });

  const strangers: Record<string, tls.ConnectionOptions> = {
    "another application protocol": { ALPNProtocols: ["h2"] },
    "TLS 1.2": { minVersion: "TLSv1.2", maxVersion: "TLSv1.2" },
  };
  for (const requireClientAuth of [true, false]) {
    for (const [what, options] of Object.entries(strangers)) {
      const auth = requireClientAuth ? "mutual" : "one-sided";
      it(`refuses a dialer that offers ${what} (${auth})`, async () => {
        const { ca, server, client } = await testNodes();
        const listener = await listen(listenerTls(ca, server, { requireClientAuth }));
        await closed(rawDial(listener.address, ca, client, options));
        await until(() => listener.errors.length > 0, "the report");
        await settled(listener);
        assert.deepEqual(listener.errors.map(({ code }) => code), ["HandshakeFailed"]);
        assert.equal(listener.links.length, 0);
      });
    }
  }

  it("lets nobody in by a resumed session without a certificate", async () => {
    const { ca, server, client } = await testNodes();
    const listener = await listen(listenerTls(ca, server));
    let session: Uint8Array | undefined;
    const first = rawDial(listener.address, ca, client, {});
    first.on("session", (ticket) => session = ticket);
    const link = new LinkRecorder(await listener.accepted());
    link.link.write(Uint8Array.of(1));
    await new Promise<void>((resolve) => first.once("data", () => resolve()));
    link.link.close();
    await closed(first);

    const options = session === undefined ? {} : { session: session as never };
    await closed(rawDial(listener.address, ca, undefined, options));
    await until(() => listener.errors.length > 0, "the report");
    await settled(listener);
    assert.equal(listener.links.length, 0);
  });

  it("gives up on a silent peer after the handshake timeout", async () => {
    const { ca, server } = await testNodes();
    const listener = await listen(listenerTls(ca, server), { handshakeTimeoutMs: 100 });
    const started = performance.now();
    await closed(rawConnect(listener.address));
    assert.ok(performance.now() - started >= 95);
    await settled(listener);
    assert.deepEqual(listener.errors.map(({ code }) => code), ["Timeout"]);
    assert.match(listener.errors[0]!.message, /from 127\.0\.0\.1: .* longer than 100 ms$/);
  });

  it("gives a peer that sends a byte at a time no longer than that", async () => {
    const { ca, server } = await testNodes();
    const listener = await listen(listenerTls(ca, server), { handshakeTimeoutMs: 200 });
    const raw = rawConnect(listener.address);
    const hello = [0x16, 3, 1, 1, 0, 1, 0, 0, 0xfc, 3, 3, ...new Array(200).fill(7)];
    const started = performance.now();
    const dribble = setInterval(() => raw.write(Uint8Array.of(hello.shift()!)), 10);
    await closed(raw);
    clearInterval(dribble);
    assert.ok(performance.now() - started < 2000);
    await settled(listener);
    assert.deepEqual(listener.errors.map(({ code }) => code), ["Timeout"]);
  });

  it("does not wait for a peer that has ended or gone", async () => {
    const { ca, server } = await testNodes();
    const listener = await listen(listenerTls(ca, server), { handshakeTimeoutMs: 60_000 });
    for (const leave of [(raw: net.Socket) => raw.end(), (raw: net.Socket) => raw.destroy()]) {
      const raw = rawConnect(listener.address);
      await new Promise<void>((resolve) => raw.once("connect", () => resolve()));
      leave(raw);
      await closed(raw);
    }
    await settled(listener);
    assert.deepEqual(listener.errors.map(({ code }) => code), [
      "HandshakeFailed",
      "HandshakeFailed",
    ]);
  });

  it("reports garbage once", async () => {
    const { ca, server } = await testNodes();
    const listener = await listen(listenerTls(ca, server));
    const raw = rawConnect(listener.address);
    raw.write("GET / HTTP/1.1\r\n\r\n");
    await closed(raw);
    await settled(listener);
    assert.deepEqual(listener.errors.map(({ code }) => code), ["HandshakeFailed"]);
  });

  it("ends unfinished handshakes when it is closed, without a report", async () => {
    const { ca, server } = await testNodes();
    const listener = await listen(listenerTls(ca, server));
    const raw = rawConnect(listener.address);
    await until(() => listener.admitted === 1, "admission");
    await listener.listener.close();
    await closed(raw);
    await settled(listener);
    assert.deepEqual([listener.errors, listener.links], [[], []]);
  });

  it("refuses what is no certificate before it binds", async () => {
    const { ca, server, client } = await testNodes();
    for (const broken of [{ cert: "nonsense" }, { key: "nonsense" }, { key: client.key }]) {
      await assert.rejects(listen(listenerTls(ca, { ...server, ...broken })), { code: "Config" });
    }
  });
});

describe("TLS dialer", () => {
  const refused: Record<string, () => Promise<Credentials>> = {
    "a certificate of another authority": async () => (await TestCa.create()).issue("server"),
    "an expired certificate": async () =>
      (await testNodes()).ca.issue("server", { notAfter: new Date(Date.now() - HOUR_MS / 2) }),
    "a certificate that is not valid yet": async () =>
      (await testNodes()).ca.issue("server", { notBefore: new Date(Date.now() + HOUR_MS) }),
    "a certificate for clients": async () =>
      (await testNodes()).ca.issue("server", { usages: ["client"] }),
  };
  for (const [what, issue] of Object.entries(refused)) {
    it(`refuses ${what}`, async () => {
      const { ca, client } = await testNodes();
      const listener = await listen(listenerTls(ca, await issue()));
      const dialing = transport.dial(listener.address, dialOptions(dialerTls(ca, client)));
      await assert.rejects(dialing, (error: unknown) => {
        assert.ok(error instanceof TransportError);
        assert.equal(error.code, "HandshakeFailed", error.message);
        assert.ok(error.message.startsWith(`Cannot connect to ${listener.address}: TLS failed: `));
        assert.ok(!error.retryable && error.recovery.includes("certificates"));
        return true;
      });
      await until(() => listener.errors.length > 0, "the report");
      await settled(listener);
      assert.deepEqual(listener.errors.map(({ code }) => code), ["HandshakeFailed"]);
      assert.equal(listener.links.length, 0);
    });
  }

  for (const host of ["localhost", "127.0.0.1"]) {
    it(`holds the certificate against ${host} where that is asked for, and only there`, async () => {
      const { ca, client } = await testNodes();
      const names = { dnsNames: ["other.example"], ipAddresses: ["10.0.0.1"] };
      const listener = await listen(listenerTls(ca, await ca.issue("server", names)));
      const address = listener.address.replace("127.0.0.1", host);
      const options = dialOptions(dialerTls(ca, client, { verifyHostName: true }));
      await assert.rejects(transport.dial(address, options), { code: "HandshakeFailed" });
      const link = await transport.dial(address, dialOptions(dialerTls(ca, client)));
      new LinkRecorder(link).link.close();
      await settled(listener);

      const right = await listen(listenerTls(ca, await ca.issue("server")));
      const dialed = await transport.dial(right.address.replace("127.0.0.1", host), options);
      new LinkRecorder(dialed).link.close();
      await settled(right);
    });
  }

  it("names the host to the listener, but not an IP address", async () => {
    const { ca, server } = await testNodes();
    const seen: unknown[] = [];
    const plain = tls.createServer({ cert: server.cert, key: server.key }, (socket) => {
      seen.push((socket as { servername?: unknown }).servername || undefined);
      socket.on("error", () => {});
      socket.end();
    });
    await new Promise<void>((resolve) => plain.listen(0, "127.0.0.1", () => resolve()));
    const { port } = plain.address() as net.AddressInfo;
    for (const host of ["127.0.0.1", "localhost"]) {
      const options = dialOptions(dialerTls(ca, undefined));
      const link = new LinkRecorder(await transport.dial(`tcp://${host}:${port}`, options));
      await link.until(() => link.told("end"));
      link.link.close();
    }
    plain.close();
    assert.deepEqual(seen, [undefined, "localhost"]);
  });

  it("verifies whatever the environment says", async (test) => {
    const { ca, server } = await testNodes();
    const rogue = await TestCa.create();
    const name = "NODE_TLS_REJECT_UNAUTHORIZED";
    if (!mayUseEnvironment()) return test.skip("the environment can't be set here");
    process.env[name] = "0";
    try {
      const listener = await listen(listenerTls(ca, server));
      const asClient = dialerTls(ca, await rogue.issue("client"));
      assert.equal((await useDial(listener.address, asClient)).receivedBytes, 0);
      await until(() => listener.errors.length > 0, "the report");
      const asDialer = dialOptions(dialerTls(rogue, undefined));
      await assert.rejects(transport.dial(listener.address, asDialer), { code: "HandshakeFailed" });
      await settled(listener);
      assert.equal(listener.links.length, 0);
    } finally {
      delete process.env[name];
    }
  });

  it("can be aborted while the listener is silent", async () => {
    const { ca, client } = await testNodes();
    const silent = net.createServer();
    await new Promise<void>((resolve) => silent.listen(0, "127.0.0.1", () => resolve()));
    const { port } = silent.address() as net.AddressInfo;
    const abort = new AbortController();
    const peer = new Promise<net.Socket>((resolve) =>
      silent.once("connection", (socket) => {
        socket.on("error", () => {});
        socket.once("data", () => resolve(socket));
      })
    );
    const options = dialOptions(dialerTls(ca, client), abort.signal);
    const dialing = transport.dial(`tcp://127.0.0.1:${port}`, options);
    dialing.catch(() => {});
    const gone = closed(await peer);
    const reason = new Error("enough");
    abort.abort(reason);
    await assert.rejects(dialing, (error) => error === reason);
    await gone;
    silent.close();
  });

  it("fails as a connection, and not as a handshake, when it is cut off during TLS", async () => {
    const { ca, client } = await testNodes();
    const rude = net.createServer((socket) => {
      socket.on("error", () => {});
      socket.once("data", () => socket.destroy());
    });
    await new Promise<void>((resolve) => rude.listen(0, "127.0.0.1", () => resolve()));
    const { port } = rude.address() as net.AddressInfo;
    const options = dialOptions(dialerTls(ca, client));
    await assert.rejects(transport.dial(`tcp://127.0.0.1:${port}`, options), {
      code: "ConnectionFailed",
      retryable: true,
    });
    rude.close();
  });

  it("refuses what is no certificate before it connects", async () => {
    const { ca, server, client } = await testNodes();
    const listener = await listen(undefined);
    for (const broken of [{ cert: "nonsense" }, { key: "nonsense" }, { key: server.key }]) {
      const options = dialOptions(dialerTls(ca, { ...client, ...broken }));
      await assert.rejects(transport.dial(listener.address, options), { code: "Config" });
    }
    await settled(listener);
    assert.equal(listener.admitted, 0);
  });
});

function listen(
  security: LinkTls | undefined,
  options: Partial<ListenOptions> = {},
): Promise<ContractListener> {
  const all = { tls: security, ...options };
  return new ContractListener().start(transport, "tcp://127.0.0.1:0", all);
}

/** Dials and writes; what came of it once the connection is over. */
async function useDial(
  address: string,
  security: LinkTls,
): Promise<{ receivedBytes: number; error: TransportError | undefined }> {
  let link: Link;
  try {
    link = await transport.dial(address, dialOptions(security));
  } catch (error) {
    return { receivedBytes: 0, error: error as TransportError };
  }
  const recorder = new LinkRecorder(link);
  link.write(new TextEncoder().encode("attack"));
  await recorder.until(() => recorder.told("end") || recorder.told("close"));
  link.close();
  return { receivedBytes: recorder.receivedBytes, error: await recorder.closed() };
}

async function assertConnects(listening: LinkTls, dialing: LinkTls): Promise<void> {
  const listener = await listen(listening);
  const dialed = new LinkRecorder(await transport.dial(listener.address, dialOptions(dialing)));
  const accepted = new LinkRecorder(await listener.accepted());
  dialed.link.write(Uint8Array.of(1));
  await accepted.received(1);
  dialed.link.close();
  accepted.link.close();
  await settled(listener);
  assert.deepEqual(listener.errors, []);
}

/** Waits until everything that was admitted is released, and closes. */
async function settled(listener: ContractListener): Promise<void> {
  await until(() => {
    for (const link of listener.links) link.close();
    return listener.released === listener.admitted;
  }, "releasing");
  await listener.listener.close();
}

function rawDial(
  address: string,
  ca: TestCa,
  own: Credentials | undefined,
  options: tls.ConnectionOptions,
): tls.TLSSocket {
  const raw = tls.connect({
    port: portOf(address),
    host: "127.0.0.1",
    ca: ca.ca,
    ...own,
    ...options,
  });
  raw.on("error", () => {});
  raw.resume();
  return raw;
}

function rawConnect(address: string): net.Socket {
  const raw = net.connect({ port: portOf(address), host: "127.0.0.1" });
  raw.on("error", () => {});
  raw.resume();
  return raw;
}

function closed(socket: net.Socket): Promise<void> {
  if (socket.closed) return Promise.resolve();
  return new Promise((resolve) => socket.once("close", () => resolve()));
}

function portOf(address: string): number {
  return Number(address.slice(address.lastIndexOf(":") + 1));
}

function mayUseEnvironment(): boolean {
  const deno = (globalThis as { Deno?: typeof Deno }).Deno;
  return deno === undefined || deno.permissions.querySync({ name: "env" }).state === "granted";
}
