/** Endpoints over QUIC: who gets in in which security mode, and what its links share. */

import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { Endpoint, type EndpointConfig, type RejectCode } from "../../mod.ts";
import { encodeDatagram } from "../../src/protocol/v3/datagram.ts";
import type { QuicConnection, QuicSockets } from "../../src/runtime/quic.ts";
import { quicOf } from "../../src/runtime/quic_sockets.ts";
import { detectRuntime } from "../../src/runtime/runtime.ts";
import { withVarint } from "../../src/runtime/quic_varint.ts";
import { quicTransport } from "../../src/transport/quic.ts";
import { PATH_NUMBER } from "../../src/transport/quic_path.ts";
import { TestCa } from "../support/certs.ts";
import { bytes, text } from "../support/cluster.ts";
import {
  A,
  asA,
  asB,
  B,
  permissive,
  proving,
  refused,
  STRANGER,
  strict,
  talk,
  withPair,
} from "./proved_pair.ts";

const { unavailable: skip, peerAuthenticated } = quicOf(detectRuntime());
const withoutCertificates = skip ??
  (peerAuthenticated ? "this runtime asks for client certificates" : undefined);
const withCertificates = skip ??
  (peerAuthenticated ? undefined : "this runtime asks for no client certificates");
const QUIC = "quic://127.0.0.1:0";

/** QUIC that notes how long the datagrams are that are sent for a stream. */
function counting(
  sockets: QuicSockets,
  sent: number[],
  connections: QuicConnection[] = [],
): QuicSockets {
  const counted = (connection: QuicConnection): QuicConnection =>
    new Proxy(connection, {
      get(target, name) {
        const value: unknown = Reflect.get(target, name);
        if (name !== "sendDatagram") {
          return typeof value === "function" ? value.bind(target) : value;
        }
        return (bytes: Uint8Array) => {
          if (bytes[0] !== PATH_NUMBER) sent.push(bytes.length);
          return target.sendDatagram(bytes);
        };
      },
    });
  return {
    ...sockets,
    connect: async (...args) => {
      const connection = await sockets.connect(...args);
      connections.push(connection);
      return counted(connection);
    },
  };
}

describe("endpoints over QUIC", { skip }, () => {
  it("talk in permissive mode, their connections on streams of one", async () => {
    const ca = await TestCa.create();
    await withPair(
      QUIC,
      await permissive(ca, "a"),
      await permissive(ca, "b"),
      async ({ a, b, connect }) => {
        await connect();
        await talk(a, b);
        const up = () => a.peer("b")!.connections;
        while (up().length < 2) await new Promise((resolve) => setTimeout(resolve, 0));
        assert.equal(new Set(up().map(({ localAddress }) => localAddress)).size, 1);
        assert.ok(up().every(({ protocol, encrypted }) => protocol === "quic" && encrypted));
        await talk(a, b);
      },
    );
  });

  it("carry large messages, requests and streams", async () => {
    const ca = await TestCa.create();
    await withPair(
      QUIC,
      await permissive(ca, "a"),
      await permissive(ca, "b"),
      async ({ a, b, connect }) => {
        await connect();
        const large = new Uint8Array(8 * 1024 * 1024).map((_, index) => index * 31 + (index >> 8));
        b.handle("echo", ({ payload }) => payload);
        b.onStream("echo", (stream) => stream.readable.pipeTo(stream.writable));
        const reply = await a.request("b", large, { topic: "echo" });
        assert.ok(reply.every((byte, index) => byte === large[index]));
        const { readable, writable } = await a.openStream("b", { topic: "echo" });
        const writer = writable.getWriter();
        writer.write(large).then(() => writer.close()).catch(() => {});
        let count = 0;
        for await (const chunk of readable) count += chunk.length;
        assert.equal(count, large.length);
      },
    );
  });

  it("need certificates in every mode", async () => {
    const development = { security: "development" } as const;
    const listener = new Endpoint({ nodeId: "b", listen: QUIC, ...development });
    await assert.rejects(listener.start(), { code: "TlsRequired" });
    const dialer = new Endpoint({ nodeId: "a", ...development });
    await dialer.start();
    const connecting = dialer.connect({ nodeId: "b", address: "quic://127.0.0.1:9" });
    await assert.rejects(connecting, { code: "TlsRequired" });
    await dialer.close();
  });

  it("prove their keys where certificates are not looked at", async () => {
    const ca = await TestCa.create();
    const dials = { ...await permissive(ca, "a"), ...asA() };
    const listens = { ...await permissive(ca, "b"), ...asB() };
    await withPair(QUIC, dials, listens, async ({ a, b, connect }) => {
      await connect();
      await talk(a, b);
      assert.equal(a.peer("b")!.publicKey, B.publicKey);
      assert.equal(b.peer("a")!.publicKey, A.publicKey);
    });
  });

  const strangers: Record<string, [EndpointConfig["identity"], RejectCode, string]> = {
    "shows another key": [
      proving(STRANGER, { b: B.publicKey }).identity,
      "AUTH_FAILED",
      "IdentityMismatch",
    ],
    "shows no key": [undefined, "IDENTITY_REQUIRED", "HandshakeFailed"],
  };
  for (const [what, [identity, rejectCode, warning]] of Object.entries(strangers)) {
    it(`refuse a dialer that ${what} where keys are listed`, async () => {
      const ca = await TestCa.create();
      const dials = await permissive(ca, "a");
      const own = identity === undefined ? {} : { identity };
      const listens = { ...await permissive(ca, "b"), ...asB() };
      await withPair(QUIC, { ...dials, ...own }, listens, async (pair) => {
        await refused(pair, "HandshakeFailed", rejectCode, warning);
      });
    });
  }

  it("refuse a listener whose key is not the listed one", async () => {
    const ca = await TestCa.create();
    const dials = { ...await permissive(ca, "a"), ...proving(A, { b: STRANGER.publicKey }) };
    const listens = { ...await permissive(ca, "b"), ...asB() };
    await withPair(QUIC, dials, listens, async ({ a, b, connect }) => {
      await assert.rejects(connect(), { code: "IdentityMismatch" });
      assert.deepEqual([a.peers(), b.peers()], [[], []]);
    });
  });
});

describe("messages sent at most once over QUIC", { skip }, () => {
  it("leave as datagrams where they fit and nobody asks whether they arrived", async () => {
    const ca = await TestCa.create();
    const sent: number[] = [];
    const transports = [
      quicTransport(detectRuntime(), counting(quicOf(detectRuntime()).sockets, sent)),
    ];
    const options = { transports, delivery: "at-most-once" } as const;
    const dials = { ...await permissive(ca, "a"), ...options };
    const listens = { ...await permissive(ca, "b"), ...options };
    await withPair(QUIC, dials, listens, async ({ a, b, connect }) => {
      await connect();
      await a.send("b", bytes("first"), { acknowledged: true });
      assert.deepEqual(sent, []);
      assert.ok(a.peer("b")!.capabilities!.includes("datagrams"));
      const lanes = ["control", "normal", "bulk"] as const;
      for (const lane of lanes) await a.send("b", bytes(lane), { lane, topic: "small" });
      assert.equal(sent.length, lanes.length);
      await a.send("b", new Uint8Array(5000), { topic: "large" });
      await a.send("b", bytes("kept"), { delivery: "resume" });
      assert.equal(sent.length, lanes.length);
      const seen: string[] = [];
      while (seen.length < 6) {
        const { lane, topic, payload } = await b.receive();
        seen.push([lane, topic, payload.length > 10 ? payload.length : text(payload)].join(" "));
      }
      assert.deepEqual(seen.toSorted(), [
        "bulk small bulk",
        "control small control",
        "normal  first",
        "normal  kept",
        "normal large 5000",
        "normal small normal",
      ]);
      const { messagesSent, payloadBytesSent } = a.stats();
      assert.deepEqual(
        [messagesSent, payloadBytesSent],
        [b.stats().messagesReceived, b.stats().payloadBytesReceived],
      );
    });
  });

  it("leave in frames where messages are signed, and no unsigned datagram is taken", async () => {
    const ca = await TestCa.create();
    const sent: number[] = [];
    const connections: QuicConnection[] = [];
    const counted = counting(quicOf(detectRuntime()).sockets, sent, connections);
    const transports = [quicTransport(detectRuntime(), counted)];
    const dials = {
      ...await permissive(ca, "a"),
      signing: { privateKey: A.privateKey, trustedKeys: { b: B.publicKey } },
      transports,
    };
    const listens = {
      ...await permissive(ca, "b"),
      signing: { privateKey: B.privateKey, trustedKeys: { a: A.publicKey } },
    };
    await withPair(QUIC, dials, listens, async ({ a, b, connect }) => {
      await connect();
      await a.send("b", bytes("signed"), { delivery: "at-most-once" });
      assert.equal(text((await b.receive()).payload), "signed");
      assert.deepEqual(sent, []);
      const forged = encodeDatagram(1, undefined, bytes("forged"));
      for (const id of [0, 4]) connections[0]!.sendDatagram(withVarint(id, forged));
      // What goes over the stream, and back, comes after them.
      await a.send("b", bytes("after"), { acknowledged: true });
      await a.send("b", bytes("last"), { acknowledged: true });
      const seen = [text((await b.receive()).payload), text((await b.receive()).payload)];
      assert.deepEqual([seen, b.tryReceive()], [["after", "last"], undefined]);
    });
  });

  it("wait for a handler that works on another, some of them", async () => {
    const ca = await TestCa.create();
    const sent: number[] = [];
    const transports = [
      quicTransport(detectRuntime(), counting(quicOf(detectRuntime()).sockets, sent)),
    ];
    const dials = { ...await permissive(ca, "a"), transports, delivery: "at-most-once" } as const;
    await withPair(QUIC, dials, await permissive(ca, "b"), async ({ a, b, connect }) => {
      const seen: string[] = [];
      let release = () => {};
      const begun = new Promise<void>((resolve) => {
        b.onMessage(({ payload }) => {
          seen.push(text(payload));
          if (seen.length > 1) return;
          resolve();
          return new Promise<void>((resolve) => release = resolve);
        });
      });
      await connect();
      await a.send("b", bytes("0"));
      await begun;
      for (let index = 1; index < 10; index++) await a.send("b", bytes(`${index}`));
      assert.equal(sent.length, 10);
      // What goes the other way, and back, comes after them.
      b.handle("echo", ({ payload }) => payload);
      await a.request("b", bytes("?"), { topic: "echo" });
      assert.deepEqual(seen, ["0"]);
      release();
      while (seen.length < 10) await new Promise((resolve) => setTimeout(resolve, 0));
      assert.deepEqual(seen.toSorted(), Array.from({ length: 10 }, (_, index) => `${index}`));
    });
  });
});

describe("strict endpoints over QUIC without client certificates", {
  skip: withoutCertificates,
}, () => {
  it("prove their keys", async () => {
    const ca = await TestCa.create();
    const dials = { ...await strict(ca, "a"), ...asA() };
    const listens = { ...await strict(ca, "b"), ...asB() };
    await withPair(QUIC, dials, listens, async ({ a, b, connect }) => {
      await connect();
      await talk(a, b);
      assert.equal(a.peer("b")!.publicKey, B.publicKey);
      assert.equal(b.peer("a")!.publicKey, A.publicKey);
    });
  });

  it("do not start, and do not dial, without keys", async () => {
    const ca = await TestCa.create();
    const listener = new Endpoint({ ...await strict(ca, "b"), listen: QUIC });
    await assert.rejects(listener.start(), { code: "MtlsRequired" });
    const dialer = new Endpoint(await strict(ca, "a"));
    await dialer.start();
    const connecting = dialer.connect({ nodeId: "b", address: "quic://127.0.0.1:9" });
    await assert.rejects(connecting, { code: "MtlsRequired" });
    await dialer.close();
  });

  it("refuse a node that proves its key and claims another name", async () => {
    const ca = await TestCa.create();
    const dials = { ...await strict(ca, "c"), ...proving(A, { b: B.publicKey }) };
    const listens = { ...await strict(ca, "b"), ...asB() };
    await withPair(QUIC, dials, listens, async (pair) => {
      await refused(pair, "HandshakeFailed", "AUTH_FAILED", "IdentityMismatch");
    });
  });
});

describe("strict endpoints over QUIC with client certificates", { skip: withCertificates }, () => {
  for (const keys of [false, true]) {
    it(`verify each other's certificates, ${keys ? "also with" : "without"} keys`, async () => {
      const ca = await TestCa.create();
      const dials = { ...await strict(ca, "a"), ...(keys ? asA() : {}) };
      const listens = { ...await strict(ca, "b"), ...(keys ? asB() : {}) };
      await withPair(QUIC, dials, listens, async ({ a, b, connect }) => {
        await connect();
        assert.equal(a.peer("b")!.identity?.nodeId, "b");
        await talk(a, b);
        assert.equal(b.peer("a")!.identity?.nodeId, "a");
      });
    });
  }

  it("refuse a dialer whose certificate is another node's", async () => {
    const ca = await TestCa.create();
    const other = await strict(ca, "c");
    const dials: EndpointConfig = {
      ...other,
      nodeId: "a",
      security: "permissive",
      tls: { ...other.tls, nodeIdVerification: "None", requireClientAuth: false },
    };
    await withPair(QUIC, dials, await strict(ca, "b"), async (pair) => {
      await refused(pair, "HandshakeFailed", "AUTH_FAILED", "IdentityMismatch");
    });
  });

  it("refuse a listener whose certificate is another node's", async () => {
    const ca = await TestCa.create();
    const other = await strict(ca, "c");
    const listens: EndpointConfig = {
      ...other,
      nodeId: "b",
      security: "permissive",
      tls: { ...other.tls, nodeIdVerification: "None" },
    };
    await withPair(QUIC, await strict(ca, "a"), listens, async ({ a, b, connect }) => {
      await assert.rejects(connect(), { code: "IdentityMismatch" });
      assert.deepEqual([a.peers(), b.peers()], [[], []]);
    });
  });

  it("refuse a dialer without a certificate, whatever key it proves", async () => {
    const ca = await TestCa.create();
    const dials: EndpointConfig = {
      nodeId: "a",
      security: "permissive",
      tls: { ca: ca.ca },
      ...asA(),
    };
    const listens = { ...await strict(ca, "b"), ...asB() };
    await withPair(QUIC, dials, listens, async (pair) => {
      await refused(pair, "ClientCertificateRequired", undefined, "ClientCertificateRequired");
    });
  });
});
