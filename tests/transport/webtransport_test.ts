import { describe, it } from "node:test";
import assert from "node:assert/strict";
import { detectRuntime } from "../../src/runtime/runtime.ts";
import { webTransportOf } from "../../src/runtime/webtransport_sockets.ts";
import { parseAddress } from "../../src/transport/address.ts";
import { overQuic } from "../../src/transport/quic.ts";
import { webTransport, webTransportOn } from "../../src/transport/webtransport.ts";
import { sessionSockets } from "../../src/transport/webtransport_session.ts";
import type { Transport } from "../../src/transport/transport.ts";
import { linkContract } from "../../testing.ts";
import { type Credentials, pemToDer, TestCa } from "../support/certs.ts";
import { ContractListener, dialOptions } from "./link_contract.ts";
import { LinkRecorder, until } from "./link_recorder.ts";
import { announcing } from "./quic_streams.ts";
import { dialerTls, listenerTls, testNodes } from "./tls_nodes.ts";

const runtime = detectRuntime();
const { unavailable: skip, sockets } = webTransportOf(runtime);
const ORIGIN = "https://app.example.org";
const listenAddress = "wt://127.0.0.1:0";
const transport = webTransportOn(runtime);

/** Streams show themselves as soon as they are opened, as the contract expects of links. */
const announced: Transport = overQuic({
  scheme: "wt",
  name: "WebTransport",
  priority: 45,
  unavailable: skip,
  peerAuthenticated: false,
  sockets: ({ path }) => {
    const target = { url: "", authority: "node", path };
    return announcing(sessionSockets(sockets, target, { path, origins: new Set() }));
  },
});

describe("WebTransport", { skip }, () => {
  const tests = linkContract(async () => {
    const { ca, server } = await testNodes();
    return {
      transport: announced,
      listenAddress,
      dialerTls: dialerTls(ca, undefined, { verifyHostName: true, needPeerCertificate: false }),
      listenerTls: listenerTls(ca, server, open),
      dialerCertificate: undefined,
      listenerCertificate: undefined,
    };
  });
  for (const test of tests) {
    it(test.name, async (context) => {
      await test.run();
      if (test.skipped !== undefined) context.skip(test.skipped);
    });
  }
});

const open = { requireClientAuth: false, needPeerCertificate: false };

async function listen(path = "", use: Transport = transport): Promise<ContractListener> {
  const { ca, server } = await testNodes();
  const options = { tls: listenerTls(ca, server, open) };
  return await new ContractListener().start(use, `${listenAddress}${path}`, options);
}

async function dialed(listener: ContractListener): Promise<LinkRecorder> {
  const { ca } = await testNodes();
  const options = dialOptions(dialerTls(ca, undefined));
  return new LinkRecorder(await transport.dial(listener.address, options));
}

/** Waits until everything that was admitted is released, and closes. */
async function settled(listener: ContractListener): Promise<void> {
  await until(() => {
    for (const link of listener.links) link.close();
    return listener.released === listener.admitted;
  }, "releasing");
  await listener.listener.close();
}

describe("wt:// addresses", () => {
  it("have a path of their own, and the port of HTTPS", () => {
    const path = (address: string) => parseAddress(address).path;
    assert.deepEqual(parseAddress("wt://node1"), {
      scheme: "wt",
      host: "node1",
      port: 443,
      path: "/hawser",
    });
    assert.equal(path("wt://node1:9100"), "/hawser");
    assert.equal(path("wt://node1:9100/"), "/");
    assert.equal(path("wt://node1:9100/a/b"), "/a/b");
    for (
      const wrong of ["wt://node1/?a", "wt://node1/a b", "wt://a@node1", "constructor://a/b:1"]
    ) {
      assert.throws(() => parseAddress(wrong), { code: "Config" });
    }
  });
});

describe("the WebTransport transport", () => {
  it("says why it can't be used, and refuses to be", async () => {
    const why = { bun: "Bun's HTTP/3 has no WebTransport", node: "Node has no HTTP/3" };
    const { ca, server } = await testNodes();
    for (const [name, reason] of Object.entries(why)) {
      const there = webTransportOn({ name: name as "bun" | "node" });
      assert.equal(there.unavailable, reason);
      const address = "wt://127.0.0.1:9/hawser";
      await assert.rejects(there.dial(address, dialOptions(dialerTls(ca, undefined))), {
        code: "UnsupportedProtocol",
        message: `Cannot connect to ${address}: ${reason}`,
      });
      const tls = listenerTls(ca, server);
      await assert.rejects(new ContractListener().start(there, address, { tls }), {
        code: "UnsupportedProtocol",
        message: `Cannot listen on ${address}: ${reason}`,
      });
    }
  });

  it("is used after QUIC and TCP, and before WebSocket", () => {
    assert.deepEqual([transport.scheme, transport.priority], ["wt", 45]);
  });

  it("has no plain text", { skip }, async () => {
    const expected = { code: "TlsRequired", message: /WebTransport needs certificates$/ };
    await assert.rejects(transport.dial("wt://127.0.0.1:9", dialOptions(undefined)), expected);
    await assert.rejects(new ContractListener().start(transport, listenAddress), expected);
  });

  it("tells its addresses with their path", { skip }, async () => {
    const listener = await listen("/a/b");
    assert.match(listener.address, /^wt:\/\/127\.0\.0\.1:\d+\/a\/b$/);
    const link = await dialed(listener);
    link.link.write(Uint8Array.of(1));
    const accepted = new LinkRecorder(await listener.accepted());
    await accepted.received(1);
    const { info } = accepted.link;
    assert.equal(info.localAddress, listener.address);
    assert.equal(info.remoteAddress, link.link.info.localAddress);
    assert.deepEqual(
      [info.protocol, info.encrypted, info.proofNeeded, info.peerCertificate],
      ["wt", true, true, undefined],
    );
    link.link.close();
    accepted.link.close();
    await settled(listener);
  });

  it("refuses another path, and says so to both", { skip }, async () => {
    const { ca } = await testNodes();
    const listener = await listen();
    const address = listener.address.replace("/hawser", "/other");
    await assert.rejects(transport.dial(address, dialOptions(dialerTls(ca, undefined))), {
      code: "HandshakeFailed",
      message: `Cannot connect to ${address}: the listener answered with status 404`,
    });
    await until(() => listener.errors.length === 1, "the report");
    const [error] = listener.errors;
    assert.equal(error!.code, "HandshakeFailed");
    assert.match(error!.message, /from 127\.0\.0\.1: the path "\/other" is not served$/);
    assert.equal(listener.admitted, 0);
    await settled(listener);
  });

  const wrong: Record<string, () => Promise<{ ca: TestCa; server: Credentials }>> = {
    "of another authority": async () => ({ ...await testNodes(), ca: await TestCa.create() }),
    "for another host": async () => {
      const { ca } = await testNodes();
      const names = { dnsNames: ["other.example"], ipAddresses: ["10.0.0.1"] };
      return { ca, server: await ca.issue("server", names) };
    },
    "that has expired": async () => {
      const { ca } = await testNodes();
      return { ca, server: await ca.issue("server", { notAfter: new Date(Date.now() - 60_000) }) };
    },
  };
  for (const [what, make] of Object.entries(wrong)) {
    it(`refuses a listener with a certificate ${what}`, { skip }, async () => {
      const { ca, server } = await make();
      const tls = listenerTls(ca, server, open);
      const listener = await new ContractListener().start(transport, listenAddress, { tls });
      for (const verifyHostName of [true, false]) {
        const options = dialOptions(dialerTls(ca, undefined, { verifyHostName }));
        await assert.rejects(transport.dial(listener.address, options), {
          code: "HandshakeFailed",
        });
      }
      assert.equal(listener.admitted, 0);
      await settled(listener);
    });
  }

  it("is not QUIC, and QUIC is not it", { skip }, async () => {
    const { ca } = await testNodes();
    const listener = await listen();
    const { quicTransport } = await import("../../src/transport/quic.ts");
    const address = listener.address.replace("wt:", "quic:").replace("/hawser", "");
    const options = dialOptions(dialerTls(ca, undefined));
    await assert.rejects(quicTransport(runtime).dial(address, options), {
      code: "HandshakeFailed",
    });
    await settled(listener);
  });
});

/** The part of the runtime's own WebTransport that is used: a client that is not ours. */
type Client = InstanceType<typeof WebTransport>;

async function client(url: string, cert: string): Promise<Client> {
  const value = await crypto.subtle.digest("SHA-256", new Uint8Array(pemToDer(cert)));
  const hashes = [{ algorithm: "sha-256", value }];
  const session = new WebTransport(url, { serverCertificateHashes: hashes });
  session.closed.catch(() => {});
  return session;
}

describe("WebTransport with the runtime's own", { skip }, () => {
  it("as a client: streams both ways, and the end of the session", async () => {
    const { server } = await testNodes();
    const listener = await listen("", webTransport({ origins: [ORIGIN] }));
    const session = await client(listener.address.replace("wt:", "https:"), server.cert);
    await session.ready;
    const ends: [LinkRecorder, ReadableStreamDefaultReader<Uint8Array>][] = [];
    for (let index = 1; index <= 3; index++) {
      const { readable, writable } = await session.createBidirectionalStream();
      const writer = writable.getWriter();
      await writer.write(Uint8Array.of(index));
      const accepted = new LinkRecorder(await listener.accepted());
      await accepted.received(1);
      accepted.link.write(Uint8Array.of(100 + index));
      ends.push([accepted, readable.getReader()]);
    }
    for (const [index, [, reader]] of ends.entries()) {
      assert.deepEqual((await reader.read()).value, Uint8Array.of(101 + index));
    }
    ends[0]![0].link.end();
    assert.equal((await ends[0]![1].read()).done, true);
    session.close();
    for (const [accepted] of ends) {
      assert.equal((await accepted.closed())?.code, "ConnectionClosed");
    }
    await settled(listener);
  });

  it("as a client that asks for another path", async () => {
    const { server } = await testNodes();
    const listener = await listen();
    const url = listener.address.replace("wt:", "https:").replace("/hawser", "/other");
    const session = await client(url, server.cert);
    await assert.rejects(session.ready, /404/);
    await until(() => listener.errors.length === 1, "the report");
    assert.equal(listener.admitted, 0);
    await settled(listener);
  });

  it("as a listener", async () => {
    const { ca, server } = await testNodes();
    const endpoint = new Deno.QuicEndpoint({ hostname: "127.0.0.1", port: 0 });
    const incoming = endpoint.listen({ ...server, alpnProtocols: ["h3"] });
    const address = `wt://127.0.0.1:${endpoint.addr.port}/any`;
    const serving = (async () => {
      const session = await Deno.upgradeWebTransport(await incoming.accept());
      const streams = session.incomingBidirectionalStreams.getReader();
      const { readable, writable } = (await streams.read()).value!;
      const writer = writable.getWriter();
      for await (const chunk of readable) await writer.write(chunk);
      return session;
    })();
    const link = new LinkRecorder(
      await transport.dial(address, dialOptions(dialerTls(ca, undefined))),
    );
    link.link.write(Uint8Array.of(1, 2, 3));
    await link.received(3);
    // Deno (2.9.6) ends none of its own streams before they are collected.
    link.link.end();
    const session = await serving;
    assert.equal(session.url, address.replace("wt:", "https:"));
    session.close();
    assert.equal((await link.closed())?.code, "ConnectionClosed");
    endpoint.close();
  });
});
