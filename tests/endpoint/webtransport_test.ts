/** Endpoints over WebTransport: who gets in in which security mode, and what goes over a session. */

import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { Endpoint, type EndpointConfig, type RejectCode } from "../../mod.ts";
import type { QuicConnection, QuicSockets } from "../../src/runtime/quic.ts";
import { detectRuntime } from "../../src/runtime/runtime.ts";
import { webTransportOf } from "../../src/runtime/webtransport_sockets.ts";
import { webTransportOn } from "../../src/transport/webtransport.ts";
import { pemToDer, TestCa } from "../support/certs.ts";
import { bytes, text } from "../support/cluster.ts";
import {
  A,
  asA,
  asB,
  B,
  permissive,
  refused,
  STRANGER,
  strict,
  talk,
  withPair,
} from "./proved_pair.ts";

const runtime = detectRuntime();
const { unavailable: skip, sockets } = webTransportOf(runtime);
const LISTEN = "wt://127.0.0.1:0";

/** Sockets that give the connections that were dialed with them. */
function watched(connections: QuicConnection[]): QuicSockets {
  return {
    ...sockets,
    connect: async (...args) => {
      const connection = await sockets.connect(...args);
      connections.push(connection);
      return connection;
    },
  };
}

describe("endpoints over WebTransport", { skip }, () => {
  it("talk in permissive mode, their connections on streams of one session", async () => {
    const ca = await TestCa.create();
    await withPair(
      LISTEN,
      await permissive(ca, "a"),
      await permissive(ca, "b"),
      async ({ a, b, connect }) => {
        await connect();
        await talk(a, b);
        const up = () => a.peer("b")!.connections;
        while (up().length < 2) await new Promise((resolve) => setTimeout(resolve, 0));
        assert.equal(new Set(up().map(({ localAddress }) => localAddress)).size, 1);
        assert.ok(up().every(({ protocol, encrypted }) => protocol === "wt" && encrypted));
        const { capabilities } = a.peer("b")!;
        for (const capability of ["datagrams", "multistream"] as const) {
          assert.ok(capabilities!.includes(capability), capability);
        }
      },
    );
  });

  it("carry large messages, requests, streams and what need not arrive", async () => {
    const ca = await TestCa.create();
    await withPair(
      LISTEN,
      await permissive(ca, "a"),
      await permissive(ca, "b"),
      async ({ a, b, connect }) => {
        await connect();
        const large = new Uint8Array(4 * 1024 * 1024).map((_, index) => index * 31 + (index >> 8));
        b.handle("echo", ({ payload }) => payload);
        b.onStream("echo", (stream) => stream.readable.pipeTo(stream.writable));
        const reply = await a.request("b", large, { topic: "echo" });
        assert.ok(reply.every((byte, index) => byte === large[index]));
        const counts = await Promise.all(Array.from({ length: 8 }, async () => {
          const { readable, writable } = await a.openStream("b", { topic: "echo" });
          const writer = writable.getWriter();
          writer.write(large.subarray(0, 500_000)).then(() => writer.close()).catch(() => {});
          let count = 0;
          for await (const chunk of readable) count += chunk.length;
          return count;
        }));
        assert.deepEqual(counts, Array(8).fill(500_000));
        await a.send("b", bytes("perhaps"), { delivery: "at-most-once" });
        assert.equal(text((await b.receive()).payload), "perhaps");
      },
    );
  });

  it("resume after the session was cut, without losing or doubling a message", async () => {
    const ca = await TestCa.create();
    const connections: QuicConnection[] = [];
    const dials = {
      ...await permissive(ca, "a"),
      transports: [webTransportOn(runtime, {}, watched(connections))],
    };
    await withPair(LISTEN, dials, await permissive(ca, "b"), async ({ a, b, connect }) => {
      await connect();
      const seen: number[] = [];
      const all = new Promise<void>((resolve) => {
        b.onMessage(({ payload }) => {
          if (seen.push(Number(text(payload))) === 300) resolve();
        });
      });
      for (let index = 0; index < 300; index++) {
        await a.send("b", bytes(`${index}`));
        if (index % 100 === 50) connections.at(-1)!.close();
        if (index % 10 === 0) await new Promise((resolve) => setTimeout(resolve, 0));
      }
      await all;
      assert.deepEqual(seen, Array.from({ length: 300 }, (_, index) => index));
      assert.ok(connections.length > 1);
      assert.ok(a.stats().reconnections > 0);
    });
  });

  it("are told apart by their path", async () => {
    const ca = await TestCa.create();
    await withPair(LISTEN, await permissive(ca, "a"), await permissive(ca, "b"), async (pair) => {
      await assert.rejects(pair.connect((address) => address.replace("/hawser", "/other")), {
        code: "HandshakeFailed",
        message: /404/,
      });
      await pair.connect();
      await talk(pair.a, pair.b);
      assert.deepEqual(pair.warnings, ["HandshakeFailed"]);
    });
  });

  it("refuse a listener of another authority", async () => {
    const [ca, rogue] = [await TestCa.create(), await TestCa.create("Rogue")];
    const dials = await permissive(ca, "a");
    await withPair(LISTEN, dials, await permissive(rogue, "b"), async (pair) => {
      await refused(pair, "HandshakeFailed", undefined);
    });
  });

  it("need certificates in every mode", async () => {
    const development = { security: "development" } as const;
    const listener = new Endpoint({ nodeId: "b", listen: LISTEN, ...development });
    await assert.rejects(listener.start(), { code: "TlsRequired" });
    const dialer = new Endpoint({ nodeId: "a", ...development });
    await dialer.start();
    const connecting = dialer.connect({ nodeId: "b", address: "wt://127.0.0.1:9" });
    await assert.rejects(connecting, { code: "TlsRequired" });
    await dialer.close();
  });
});

describe("strict endpoints over WebTransport", { skip }, () => {
  it("prove their keys", async () => {
    const ca = await TestCa.create();
    const dials = { ...await strict(ca, "a"), ...asA() };
    const listens = { ...await strict(ca, "b"), ...asB() };
    await withPair(LISTEN, dials, listens, async ({ a, b, connect }) => {
      await connect();
      await talk(a, b);
      assert.equal(a.peer("b")!.publicKey, B.publicKey);
      assert.equal(b.peer("a")!.publicKey, A.publicKey);
    });
  });

  it("do not start, and do not dial, without keys", async () => {
    const ca = await TestCa.create();
    const listener = new Endpoint({ ...await strict(ca, "b"), listen: LISTEN });
    await assert.rejects(listener.start(), { code: "MtlsRequired" });
    const dialer = new Endpoint(await strict(ca, "a"));
    await dialer.start();
    const connecting = dialer.connect({ nodeId: "b", address: "wt://127.0.0.1:9" });
    await assert.rejects(connecting, { code: "MtlsRequired" });
    await dialer.close();
  });

  const open = async (ca: TestCa) => {
    const { security, tls } = await permissive(ca, "a");
    return { nodeId: "a", security: security!, tls: tls! };
  };
  const strangers: Record<string, [EndpointConfig["identity"], RejectCode]> = {
    "shows another key": [
      { privateKey: STRANGER.privateKey, trustedKeys: { b: B.publicKey } },
      "AUTH_FAILED",
    ],
    "shows no key": [undefined, "IDENTITY_REQUIRED"],
  };
  for (const [what, [identity, rejectCode]] of Object.entries(strangers)) {
    it(`refuse a dialer that ${what}`, async () => {
      const ca = await TestCa.create();
      const dials = { ...await open(ca), ...(identity === undefined ? {} : { identity }) };
      const listens = { ...await strict(ca, "b"), ...asB() };
      await withPair(LISTEN, dials, listens, async (pair) => {
        await refused(pair, "HandshakeFailed", rejectCode);
      });
    });
  }

  it("refuse a listener whose key is not the listed one", async () => {
    const ca = await TestCa.create();
    const identity = { privateKey: A.privateKey, trustedKeys: { b: STRANGER.publicKey } };
    const dials = { ...await strict(ca, "a"), identity };
    const listens = { ...await permissive(ca, "b"), ...asB() };
    await withPair(LISTEN, dials, listens, async (pair) => {
      await refused(pair, "IdentityMismatch", undefined);
    });
  });
});

describe("a page in a browser", { skip }, () => {
  it("talks to a node over a stream of its own, with version 2", async () => {
    const ca = await TestCa.create();
    const tls = { ...await ca.issue("b"), ca: ca.ca };
    const b = new Endpoint({ nodeId: "b", security: "permissive", tls, listen: LISTEN });
    await b.start();
    const value = await crypto.subtle.digest("SHA-256", new Uint8Array(pemToDer(tls.cert)));
    const session = new WebTransport(b.addresses[0]!.replace("wt:", "https:"), {
      serverCertificateHashes: [{ algorithm: "sha-256", value }],
    });
    session.closed.catch(() => {});
    await session.ready;
    const { readable, writable } = await session.createBidirectionalStream();
    const writer = writable.getWriter();
    const reader = readable.getReader();
    const frame = (body: Uint8Array) => {
      const framed = new Uint8Array(4 + body.length);
      new DataView(framed.buffer).setUint32(0, body.length);
      framed.set(body, 4);
      return framed;
    };
    const hello = { type: "hello", protocol_version: 2, node_id: "page", capabilities: [] };
    await writer.write(frame(bytes(JSON.stringify(hello))));
    const welcome = JSON.parse(text((await reader.read()).value!.subarray(4)));
    assert.deepEqual([welcome.type, welcome.node_id, welcome.protocol_version], [
      "welcome",
      "b",
      2,
    ]);
    await writer.write(frame(Uint8Array.of(0, ...bytes("ahoy"))));
    const { from, payload } = await b.receive();
    assert.deepEqual([from, text(payload)], ["page", "ahoy"]);
    await b.send("page", bytes("aye"));
    assert.deepEqual((await reader.read()).value, frame(Uint8Array.of(0, ...bytes("aye"))));
    session.close();
    await b.close({ drainMs: 0 });
  });
});
