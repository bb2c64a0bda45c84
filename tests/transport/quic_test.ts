import { describe, it } from "node:test";
import assert from "node:assert/strict";
import { createSocket, type Socket } from "node:dgram";
import type { TransportError } from "../../src/errors.ts";
import { quicTimes } from "../../src/runtime/quic.ts";
import { readVarint, varintBytes, withVarint } from "../../src/runtime/quic_varint.ts";
import { quicOf } from "../../src/runtime/quic_sockets.ts";
import { detectRuntime } from "../../src/runtime/runtime.ts";
import { quicTransport } from "../../src/transport/quic.ts";
import type { Link, LinkTls } from "../../src/transport/transport.ts";
import { type ContractSubject, linkContract } from "../../testing.ts";
import { type Credentials, TestCa } from "../support/certs.ts";
import { ContractListener, dialOptions } from "./link_contract.ts";
import { LinkRecorder, turn, until } from "./link_recorder.ts";
import { announcing } from "./quic_streams.ts";
import { certificateOf, dialerTls, listenerTls, testNodes } from "./tls_nodes.ts";

const runtime = detectRuntime();
const { unavailable: skip, sockets, peerAuthenticated } = quicOf(runtime);
const announced = quicTransport(runtime, announcing(sockets));
const transport = quicTransport(runtime);
const listenAddress = "quic://127.0.0.1:0";
const MIB = 1024 * 1024;
const HOUR_MS = 3_600_000;

/** Bun 1.4.5 grants credit for what nobody has read: a pause pushes nobody back. */
const readsOn = runtime.name === "bun";
const PUSHES_BACK = "stops a sender of 64 MiB while it is paused, and loses nothing";

function contract(name: string, make: () => Promise<ContractSubject>): void {
  describe(name, { skip }, () => {
    for (const test of linkContract(make)) {
      const why = readsOn && test.name.endsWith(PUSHES_BACK) ? "Bun reads on" : undefined;
      it(test.name, { skip: why }, async () => void await test.run());
    }
  });
}

contract("QUIC", async () => {
  const { ca, server } = await testNodes();
  return {
    transport: announced,
    listenAddress,
    dialerTls: dialerTls(ca, undefined, { verifyHostName: true, needPeerCertificate: false }),
    listenerTls: listenerTls(ca, server, { requireClientAuth: false, needPeerCertificate: false }),
    dialerCertificate: undefined,
    listenerCertificate: undefined,
  };
});

if (peerAuthenticated) {
  contract("QUIC with mutual TLS", async () => {
    const { ca, server, client } = await testNodes();
    return {
      transport: announced,
      listenAddress,
      dialerTls: dialerTls(ca, client),
      listenerTls: listenerTls(ca, server),
      dialerCertificate: certificateOf(client),
      listenerCertificate: certificateOf(server),
    };
  });
}

describe("numbers before datagrams", () => {
  const known: [number, string][] = [
    [0, "00"],
    [63, "3f"],
    [64, "4040"],
    [15_293, "7bbd"],
    [494_878_333, "9d7f3e7d"],
    [2 ** 30 - 1, "bfffffff"],
  ];
  for (const [value, hex] of known) {
    it(`${value} is ${hex}, as in RFC 9000`, () => {
      const bytes = withVarint(value, Uint8Array.of(9));
      assert.equal(hexOf(bytes), `${hex}09`);
      assert.deepEqual(readVarint(bytes), { value, rest: Uint8Array.of(9) });
      assert.equal(varintBytes(value), hex.length / 2);
      assert.equal(readVarint(bytes.subarray(0, hex.length / 2 - 1)), undefined);
    });
  }

  it("are not read where they are longer than a stream's can be", () => {
    assert.equal(readVarint(Uint8Array.of(0xc0, 0, 0, 0, 0, 0, 0, 1, 9)), undefined);
    assert.equal(varintBytes(2 ** 30), Infinity);
    assert.equal(varintBytes(-1), Infinity);
  });
});

describe("QUIC transport", () => {
  it("says why it can't be used, and refuses to be", async () => {
    const onNode = quicTransport({ name: "node" });
    assert.equal(onNode.unavailable, "Node has no QUIC");
    const { ca, server } = await testNodes();
    const expected = {
      code: "UnsupportedProtocol",
      message: "Cannot connect to quic://127.0.0.1:9: Node has no QUIC",
    };
    const tls = dialerTls(ca, undefined);
    await assert.rejects(onNode.dial("quic://127.0.0.1:9", dialOptions(tls)), expected);
    const listening = new ContractListener().start(onNode, "quic://127.0.0.1:9", {
      tls: listenerTls(ca, server),
    });
    await assert.rejects(listening, { code: "UnsupportedProtocol" });
  });

  it("has no plain text", { skip }, async () => {
    const expected = { code: "TlsRequired", message: /QUIC needs certificates$/ };
    await assert.rejects(transport.dial("quic://127.0.0.1:9", dialOptions(undefined)), expected);
    await assert.rejects(new ContractListener().start(transport, listenAddress), expected);
  });

  it("refuses what is no certificate before it connects", { skip }, async () => {
    const { ca, server, client } = await testNodes();
    const listener = await listen(listenerTls(ca, server, { requireClientAuth: false }));
    for (const broken of [{ cert: "nonsense" }, { key: "nonsense" }, { key: server.key }]) {
      const options = dialOptions(dialerTls(ca, { ...client, ...broken }));
      await assert.rejects(transport.dial(listener.address, options), { code: "Config" });
    }
    const none = listenerTls(ca, server, { cert: undefined, key: undefined });
    await assert.rejects(listen(none), { code: "Config" });
    await settled(listener);
    assert.deepEqual([listener.admitted, listener.errors], [0, []]);
  });

  it("refuses a listener of another authority", { skip }, async () => {
    const { ca, server } = await testNodes();
    const listener = await listen(listenerTls(ca, server, { requireClientAuth: false }));
    const rogue = await TestCa.create();
    for (const verifyHostName of [true, false]) {
      const options = dialOptions(dialerTls(rogue, undefined, { verifyHostName }));
      await assert.rejects(transport.dial(listener.address, options), { code: "HandshakeFailed" });
    }
    await settled(listener);
    assert.equal(listener.admitted, 0);
  });

  for (const host of ["127.0.0.1", "localhost"]) {
    it(`holds the certificate against ${host}`, { skip }, async () => {
      const { ca } = await testNodes();
      const names = { dnsNames: ["other.example"], ipAddresses: ["10.0.0.1"] };
      const wrong = await listen(
        listenerTls(ca, await ca.issue("server", names), { requireClientAuth: false }),
      );
      const dial = (listener: ContractListener, verifyHostName: boolean) =>
        transport.dial(
          listener.address.replace("127.0.0.1", host),
          dialOptions(dialerTls(ca, undefined, { verifyHostName })),
        );
      await assert.rejects(dial(wrong, true), { code: "HandshakeFailed" });
      // Deno holds it against the host also where the node id is what counts.
      if (!peerAuthenticated) {
        await assert.rejects(dial(wrong, false), { code: "HandshakeFailed" });
      } else await exchange(await dial(wrong, false), wrong);
      await settled(wrong);

      const right = await listen(
        listenerTls(ca, await ca.issue("server"), { requireClientAuth: false }),
      );
      await exchange(await dial(right, true), right);
      await settled(right);
    });
  }

  it(
    "gives links to one address one connection, and each TLS setting its own",
    { skip },
    async () => {
      const { ca, server } = await testNodes();
      const listener = await listen(listenerTls(ca, server, { requireClientAuth: false }));
      const [one, other] = [dialerTls(ca, undefined), dialerTls(ca, undefined)];
      const links = await Promise.all(
        [one, one, one, other].map((tls) => transport.dial(listener.address, dialOptions(tls))),
      );
      links.push(await transport.dial(listener.address, dialOptions(one)));
      const from = links.map(({ info }) => info.localAddress);
      assert.deepEqual([from[1], from[2], from[4]], [from[0], from[0], from[0]]);
      assert.notEqual(from[3], from[0]);
      for (const link of links) await exchange(link, listener);
      await settled(listener);
      assert.deepEqual([listener.admitted, listener.errors], [5, []]);
    },
  );

  it("gives the address of a listener back when its last link is gone", { skip }, async () => {
    const { ca, server } = await testNodes();
    const tls = listenerTls(ca, server, { requireClientAuth: false });
    const first = await listen(tls);
    await exchange(
      await transport.dial(first.address, dialOptions(dialerTls(ca, undefined))),
      first,
    );
    await settled(first);
    // The connection stays for what may still be on its way.
    const bind = () =>
      new Promise<boolean>((resolve) => {
        const socket = createSocket("udp4");
        socket.on("error", () => resolve(false));
        socket.bind(Number(new URL(first.address).port), "127.0.0.1", () => {
          socket.close(() => resolve(true));
        });
      });
    let free = false;
    for (const end = performance.now() + 10_000; !free && performance.now() < end;) {
      free = await bind();
      await turn();
    }
    assert.ok(free, "the address is still in use");
    const second = await new ContractListener().start(transport, first.address, { tls });
    const link = await transport.dial(second.address, dialOptions(dialerTls(ca, undefined)));
    await exchange(link, second);
    await settled(second);
  });

  it("brings each link its own datagrams", { skip }, async () => {
    const { ca, server } = await testNodes();
    const listener = await listen(listenerTls(ca, server, { requireClientAuth: false }));
    const tls = dialerTls(ca, undefined);
    const ends: [Link, Link, Received, Received][] = [];
    for (let index = 0; index < 2; index++) {
      const dialed = await transport.dial(listener.address, dialOptions(tls));
      const atDialer = datagramsOf(dialed);
      dialed.write(Uint8Array.of(1));
      const accepted = await listener.accepted();
      ends.push([dialed, accepted, atDialer, datagramsOf(accepted)]);
      accepted.write(Uint8Array.of(2));
      await until(() => atDialer.bytes === 1, "the answer");
    }
    for (const [index, [dialed, accepted, atDialer, atListener]] of ends.entries()) {
      for (const [link, other] of [[dialed, atListener], [accepted, atDialer]] as const) {
        assert.ok(link.maxDatagramBytes! >= 1000, `only ${link.maxDatagramBytes}`);
        const large = new Uint8Array(link.maxDatagramBytes!).fill(index);
        // Nothing is lost on this host, but what the kernel has no room for.
        while (other.datagrams.length === 0) {
          assert.equal(link.sendDatagram!(large.slice()), true);
          await turn();
        }
        assert.deepEqual(other.datagrams[0], large);
      }
    }
    for (const [index, [, , ...received]] of ends.entries()) {
      for (const { datagrams } of received) {
        assert.ok(datagrams.every((datagram) => datagram[0] === index));
      }
    }
    for (const [dialed, accepted] of ends) {
      dialed.close();
      accepted.close();
      assert.deepEqual([dialed.maxDatagramBytes, dialed.sendDatagram!(new Uint8Array(1))], [
        0,
        false,
      ]);
    }
    await settled(listener);
  });

  it("dials anew where a link was given up and nothing was heard since", { skip }, async () => {
    const { ca, server } = await testNodes();
    const listener = await listen(listenerTls(ca, server, { requireClientAuth: false }));
    const tls = dialerTls(ca, undefined);
    const dial = () => transport.dial(listener.address, dialOptions(tls));
    const [first, second] = [new LinkRecorder(await dial()), new LinkRecorder(await dial())];
    const accepted: LinkRecorder[] = [];
    for (const { link } of [first, second]) {
      link.write(Uint8Array.of(1));
      accepted.push(new LinkRecorder(await listener.accepted()));
      await accepted.at(-1)!.received(1);
    }
    first.link.close();
    const third = new LinkRecorder(await dial());
    assert.notEqual(third.link.info.localAddress, first.link.info.localAddress);
    accepted[1]!.link.write(Uint8Array.of(2));
    await second.received(1);
    third.link.close();
    const fourth = new LinkRecorder(await dial());
    assert.equal(fourth.link.info.localAddress, second.link.info.localAddress);
    for (const { link } of [second, fourth, ...accepted]) link.close();
    await settled(listener);
  });

  it("gives up a dial that nobody answers when it is aborted", { skip }, async () => {
    const { ca } = await testNodes();
    const silent = createSocket("udp4");
    await new Promise<void>((resolve) => silent.bind(0, "127.0.0.1", () => resolve()));
    const reason = new Error("enough");
    const abort = new AbortController();
    silent.once("message", () => abort.abort(reason));
    const options = dialOptions(dialerTls(ca, undefined), abort.signal);
    const { port } = silent.address();
    const dialing = transport.dial(`quic://127.0.0.1:${port}`, options);
    await assert.rejects(dialing, (error) => error === reason);
    silent.close();
  });

  it("breaks a link whose peer sends on while nobody reads", {
    skip: skip ?? (readsOn ? undefined : "the runtime pushes back"),
  }, async () => {
    const { ca, server } = await testNodes();
    const listener = await listen(listenerTls(ca, server, { requireClientAuth: false }));
    const options = dialOptions(dialerTls(ca, undefined));
    const dialed = new LinkRecorder(await transport.dial(listener.address, options));
    dialed.link.write(Uint8Array.of(1));
    const accepted = new LinkRecorder(await listener.accepted());
    await accepted.received(1);
    accepted.link.pause();
    const send = () => {
      while (dialed.link.write(new Uint8Array(MIB)));
    };
    dialed.onDrain = send;
    send();
    assert.equal((await accepted.closed())?.code, "Backpressure");
    assert.ok(accepted.receivedBytes < 2 * MIB);
    assert.equal((await dialed.closed())?.code, "ConnectionClosed");
    await settled(listener);
  });

  const tellsResets = skip ??
    (runtime.name === "bun" ? undefined : "the runtime has no reset: the other side sees an end");
  for (const ended of [false, true]) {
    for (const busy of [false, true]) {
      const when = `${ended ? "after our end" : "before it"}${busy ? ", while we are busy" : ""}`;
      it(`tells a stream that was cut from one that has ended: ${when}`, {
        skip: tellsResets,
      }, async () => {
        const { ca, server } = await testNodes();
        const listener = await listen(listenerTls(ca, server, { requireClientAuth: false }));
        const options = dialOptions(dialerTls(ca, undefined));
        for (const cut of [true, false]) {
          const dialed = new LinkRecorder(await transport.dial(listener.address, options));
          dialed.link.write(new Uint8Array(100_000));
          const accepted = new LinkRecorder(await listener.accepted());
          await accepted.received(100_000);
          accepted.link.write(Uint8Array.of(2));
          await dialed.received(1);
          if (ended) {
            accepted.link.end();
            await until(() => dialed.events.includes("end"), "the end");
          }
          dialed.link.write(new Uint8Array(500));
          if (cut) dialed.link.close();
          else dialed.link.end();
          if (busy) {
            for (const end = performance.now() + 100; performance.now() < end;);
          }
          if (!ended) await until(() => cut || accepted.events.includes("end"), "the end");
          if (!ended && !cut) accepted.link.end();
          const error = await accepted.closed();
          assert.equal(error?.code, cut ? "ConnectionClosed" : undefined);
          assert.equal(accepted.events.includes("end"), !cut);
        }
        await settled(listener);
      });
    }
  }

  const makesRoom = skip ??
    (runtime.name === "bun" ? undefined : "a handshake that was begun can't be ended");
  it("has room for dialers while strangers begin handshakes that nobody answers", {
    skip: makesRoom,
  }, async () => {
    const { ca, server } = await testNodes();
    const listener = await listen(listenerTls(ca, server, { requireClientAuth: false }));
    const tls = dialerTls(ca, undefined);
    const port = Number(new URL(listener.address).port);
    const strangers = await Strangers.start(port);
    const abort = new AbortController();
    for (let begun = 0; begun < 288; begun += 32) {
      for (let i = 0; i < 32; i++) {
        sockets.connect(strangers.end, "127.0.0.1", tls, quicTimes(30), abort.signal)
          .catch(() => {});
      }
      await until(() => strangers.begun >= begun + 32, "the handshakes");
    }
    await exchange(await transport.dial(listener.address, dialOptions(tls)), listener);
    abort.abort(new Error("enough"));
    strangers.close();
    await settled(listener);
    assert.ok(listener.errors.every(({ message }) => /too many handshakes/.test(message)));
  });

  const mutual = skip ?? (peerAuthenticated ? undefined : "no client certificates are asked for");
  const refused: Record<string, () => Promise<Credentials | undefined>> = {
    "no certificate": () => Promise.resolve(undefined),
    "a certificate of another authority": async () => (await TestCa.create()).issue("client"),
    "an expired certificate": async () =>
      (await testNodes()).ca.issue("client", { notAfter: new Date(Date.now() - HOUR_MS / 2) }),
    "a certificate that is not valid yet": async () =>
      (await testNodes()).ca.issue("client", { notBefore: new Date(Date.now() + HOUR_MS) }),
  };
  for (const [what, issue] of Object.entries(refused)) {
    it(`refuses a dialer with ${what}, and says so to both`, { skip: mutual }, async () => {
      const { ca, server } = await testNodes();
      const listener = await listen(listenerTls(ca, server));
      const own = await issue();
      const error = await useDial(listener.address, dialerTls(ca, own));
      await until(() => listener.errors.length > 0, "the report");
      const code = own === undefined ? "ClientCertificateRequired" : "HandshakeFailed";
      assert.equal(error?.code, code, error?.message);
      assert.deepEqual(listener.errors.map(({ code }) => code), [code]);
      await settled(listener);
      assert.equal(listener.admitted, 0);
    });
  }
});

/** As senders with addresses of others: what they send arrives, and no answer reaches them. */
class Strangers {
  readonly end: { readonly host: string; readonly port: number };
  readonly #near: Socket;
  readonly #far: Socket;
  readonly #answered = new Set<string>();

  private constructor(near: Socket, far: Socket, port: number) {
    this.#near = near;
    this.#far = far;
    this.end = { host: "127.0.0.1", port: near.address().port };
    near.on("message", (packet) => far.send(packet, port, "127.0.0.1"));
    // Whom a long header is for stands behind the version.
    far.on("message", (packet) => {
      if (packet[0]! >= 0x80) this.#answered.add(hexOf(packet.subarray(6, 6 + packet[5]!)));
    });
  }

  static async start(port: number): Promise<Strangers> {
    const sockets = [createSocket("udp4"), createSocket("udp4")] as const;
    for (const socket of sockets) {
      await new Promise<void>((resolve) => socket.bind(0, "127.0.0.1", () => resolve()));
    }
    return new Strangers(...sockets, port);
  }

  /** Handshakes that the listener has begun. */
  get begun(): number {
    return this.#answered.size;
  }

  close(): void {
    this.#near.close();
    this.#far.close();
  }
}

function hexOf(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

function listen(tls: LinkTls): Promise<ContractListener> {
  return new ContractListener().start(transport, listenAddress, { tls });
}

/** What came over a link. */
interface Received {
  bytes: number;
  readonly datagrams: Uint8Array[];
}

function datagramsOf(link: Link): Received {
  const received: Received = { bytes: 0, datagrams: [] };
  link.open({
    onData: (chunk) => {
      received.bytes += chunk.length;
    },
    onDatagram: (datagram) => received.datagrams.push(datagram.slice()),
    onDrain() {},
    onEnd() {},
    onClose() {},
  });
  return received;
}

/** Dials and writes; why that failed. */
async function useDial(address: string, tls: LinkTls): Promise<TransportError | undefined> {
  let link: Link;
  try {
    link = await transport.dial(address, dialOptions(tls));
  } catch (error) {
    return error as TransportError;
  }
  link.write(Uint8Array.of(1));
  return await new LinkRecorder(link).closed();
}

/** A byte there and a byte back, then the end on both sides. */
async function exchange(link: Link, listener: ContractListener): Promise<void> {
  const dialed = new LinkRecorder(link);
  dialed.link.write(Uint8Array.of(1));
  const accepted = new LinkRecorder(await listener.accepted());
  await accepted.received(1);
  accepted.link.write(Uint8Array.of(2));
  await dialed.received(1);
  dialed.link.end();
  accepted.link.end();
  assert.deepEqual([await dialed.closed(), await accepted.closed()], [undefined, undefined]);
}

/** Waits until everything that was admitted is released, and closes. */
async function settled(listener: ContractListener): Promise<void> {
  await until(() => {
    for (const link of listener.links) link.close();
    return listener.released === listener.admitted;
  }, "releasing");
  await listener.listener.close();
}
