/**
 * Streams of endpoints on QUIC streams of their own. On Deno only with `--unstable-net`: see
 * tests/interop/quic_test.ts.
 */

import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { Endpoint, type TransportStream } from "../../mod.ts";
import type { QuicConnection, QuicSockets } from "../../src/runtime/quic.ts";
import { quicOf } from "../../src/runtime/quic_sockets.ts";
import { detectRuntime } from "../../src/runtime/runtime.ts";
import { quicTransport } from "../../src/transport/quic.ts";
import { TestCa } from "../support/certs.ts";

const runtime = detectRuntime();
const { sockets, unavailable } = quicOf(runtime);
const skip = unavailable ?? false;
const COUNT = 100;
/** Of those that a listener opens, so many at once are on streams of their own. */
const OF_LISTENER = 64;
const BYTES = 30_000;

/** QUIC that counts the streams that are opened from this side. */
function counting(inner: QuicSockets, counts: { opened: number }): QuicSockets {
  const counted = (connection: QuicConnection): QuicConnection =>
    new Proxy(connection, {
      get(target, name) {
        const value: unknown = Reflect.get(target, name);
        if (name === "openStream") counts.opened++;
        return typeof value === "function" ? value.bind(target) : value;
      },
    });
  return {
    connect: async (...args) => counted(await inner.connect(...args)),
    listen: (local, tls, times, handshakeMs, events) =>
      inner.listen(local, tls, times, handshakeMs, {
        mayBegin: () => events.mayBegin(),
        onConnection: (connection) => events.onConnection(counted(connection)),
        onError: (cause, remoteHost) => events.onError(cause, remoteHost),
      }),
  };
}

async function echo(stream: TransportStream): Promise<void> {
  await stream.readable.pipeTo(stream.writable);
}

/** Opens a stream, writes, and reads it back. */
async function exchange(from: Endpoint, to: string, name: number): Promise<void> {
  const stream = await from.openStream(to, { topic: "echo" });
  const sent = new Uint8Array(BYTES).fill(name);
  const writer = stream.writable.getWriter();
  const written = writer.write(sent).then(() => writer.close());
  let received = 0;
  for await (const chunk of stream.readable) {
    assert.ok(chunk.every((byte) => byte === name));
    received += chunk.length;
  }
  await written;
  assert.equal(received, BYTES);
}

describe("streams over QUIC", { skip }, () => {
  it("are on QUIC streams of their own, opened by either side, which end with them", async () => {
    const ca = await TestCa.create();
    const [ofA, ofB] = [{ opened: 0 }, { opened: 0 }];
    const make = async (nodeId: string, counts: { opened: number }, listen?: string) =>
      new Endpoint({
        nodeId,
        security: "permissive",
        tls: { ...await ca.issue(nodeId), ca: ca.ca },
        transports: [quicTransport(runtime, counting(sockets, counts))],
        ...(listen === undefined ? {} : { listen }),
      });
    const a = await make("a", ofA);
    const b = await make("b", ofB, "quic://127.0.0.1:0");
    for (const node of [a, b]) node.onStream("echo", echo);
    try {
      await b.start();
      await a.start();
      await a.connect({ nodeId: "b", address: b.addresses[0]! });
      assert.ok(a.peer("b")!.capabilities!.includes("multistream"));
      // More than there may be at once: each must end, or the last ones would have none.
      for (let round = 1; round <= 3; round++) {
        const all = Array.from({ length: COUNT }, (_, name) => name);
        await Promise.all(all.map((name) => exchange(a, "b", name)));
        await Promise.all(all.map((name) => exchange(b, "a", name)));
        await Promise.all([a.flush("b"), b.flush("a")]);
        // Beside them, the dialer's connections are streams, too.
        assert.ok(ofA.opened >= round * COUNT, `a has opened ${ofA.opened}`);
        assert.ok(ofB.opened >= round * OF_LISTENER, `b has opened ${ofB.opened}`);
      }
      assert.deepEqual([a.stats().reconnections, b.stats().reconnections], [0, 0]);
    } finally {
      await a.close({ drainMs: 0 });
      await b.close({ drainMs: 0 });
    }
  });
});
