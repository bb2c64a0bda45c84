import { describe, it } from "node:test";
import assert from "node:assert/strict";
import type { QuicSockets } from "../../src/runtime/quic.ts";
import { quicOf } from "../../src/runtime/quic_sockets.ts";
import { detectRuntime } from "../../src/runtime/runtime.ts";
import { quicTransport } from "../../src/transport/quic.ts";
import {
  encodePath,
  type PathDatagram,
  PathWatch,
  readPath,
} from "../../src/transport/quic_path.ts";
import { VirtualTime } from "../../src/testing/virtual_time.ts";
import { QuicProxy } from "../interop/quic_proxy.ts";
import { ContractListener, dialOptions } from "./link_contract.ts";
import { LinkRecorder, until } from "./link_recorder.ts";
import { dialerTls, listenerTls, testNodes } from "./tls_nodes.ts";

/** A watch in virtual time, and what it has done. */
function watching() {
  const time = new VirtualTime();
  const done = { asks: 0, silences: 0 };
  const watch = new PathWatch({
    ask: () => void done.asks++,
    onSilent: () => void done.silences++,
  }, time);
  return { time, done, watch };
}

/** A watch whose other side has shown that it answers. */
function answering() {
  const all = watching();
  all.watch.heard();
  all.watch.heard();
  all.watch.answered();
  assert.deepEqual(all.done, { asks: 1, silences: 0 });
  return all;
}

describe("the watch of a path", () => {
  it("is silent 1.1 s after bytes that nothing followed, and not before", async () => {
    const { time, done, watch } = answering();
    watch.sent();
    await time.advance(499);
    assert.deepEqual(done, { asks: 1, silences: 0 });
    await time.advance(600);
    assert.deepEqual([done, watch.silent], [{ asks: 4, silences: 0 }, false]);
    await time.advance(1);
    assert.deepEqual([done, watch.silent], [{ asks: 5, silences: 1 }, true]);
    watch.stop();
    assert.equal(time.pendingTimers, 0);
  });

  it("goes on asking, and tells of the silence again", async () => {
    const { time, done, watch } = answering();
    watch.sent();
    await time.advance(60_000);
    assert.ok(done.silences >= 4 && done.silences <= 6, `${done.silences}`);
    assert.ok(done.asks <= 80, `${done.asks}`);
    watch.stop();
  });

  it("takes whatever comes for a sign of life", async () => {
    const { time, done, watch } = answering();
    watch.sent();
    await time.advance(1_050);
    watch.heard();
    await time.advance(60_000);
    assert.deepEqual([done.silences, watch.silent, time.pendingTimers], [0, false, 0]);
    watch.sent();
    await time.advance(300);
    watch.heard();
    watch.sent();
    await time.advance(800);
    assert.equal(done.silences, 0);
    await time.advance(1_000);
    assert.equal(done.silences, 1);
    watch.heard();
    assert.equal(watch.silent, false);
    watch.stop();
  });

  it("sets no timer where nothing was sent", async () => {
    const { time, done } = answering();
    await time.advance(60_000);
    assert.deepEqual([done, time.pendingTimers], [{ asks: 1, silences: 0 }, 0]);
  });

  it("draws no conclusion where the other side does not answer", async () => {
    const { time, done, watch } = watching();
    for (let i = 0; i < 100; i++) {
      watch.sent();
      await time.advance(i % 2 === 0 ? 400 : 5_000);
      if (i % 4 === 0) watch.heard();
    }
    assert.deepEqual([done.silences, watch.silent], [0, false]);
    assert.ok(done.asks <= 3, `${done.asks}`);
  });

  it("does nothing once it was stopped", async () => {
    const { time, done, watch } = answering();
    watch.sent();
    watch.stop();
    watch.sent();
    watch.heard();
    await time.advance(60_000);
    assert.deepEqual([done, time.pendingTimers], [{ asks: 1, silences: 0 }, 0]);
  });
});

describe("datagrams about the path", () => {
  const token = Uint8Array.of(1, 2, 3, 4, 5, 6, 7, 8);
  const known: [PathDatagram, number[]][] = [
    [{ kind: "ask", token }, [3, 0, 1, 2, 3, 4, 5, 6, 7, 8]],
    [{ kind: "answer", token: new Uint8Array(0) }, [3, 1]],
    [{ kind: "abandoned", token }, [3, 2, 1, 2, 3, 4, 5, 6, 7, 8]],
  ];
  for (const [said, bytes] of known) {
    it(`${said.kind}: as docs/protocol.md shows`, () => {
      assert.deepEqual([...encodePath(said)], bytes);
      assert.deepEqual(readPath(Uint8Array.from(bytes.slice(1))), said);
    });
  }

  it("are nothing with a kind or a length that is not known", () => {
    for (const rest of [[], [3], [1, 0], [0], [0, 1, 2, 3, 4, 5, 6, 7], [2], [2, ...token, 9]]) {
      assert.equal(readPath(Uint8Array.from(rest)), undefined);
    }
  });
});

const runtime = detectRuntime();
const { unavailable: skip, sockets } = quicOf(runtime);

/** Notes the datagrams that come over connections that are dialed. */
function spying(sockets: QuicSockets, datagrams: Uint8Array[]): QuicSockets {
  return {
    listen: sockets.listen,
    connect: async (...args) => {
      const connection = await sockets.connect(...args);
      const open = connection.open.bind(connection);
      connection.open = (events) =>
        open({
          onStream: (stream) => events.onStream(stream),
          onClose: (reason) => events.onClose(reason),
          onDatagram: (bytes) => {
            datagrams.push(bytes);
            events.onDatagram(bytes);
          },
        });
      return connection;
    },
  };
}

describe("a QUIC connection whose path breaks", () => {
  it("is given up on both sides as soon as a new one stands", { skip }, async () => {
    const datagrams: Uint8Array[] = [];
    const transport = quicTransport(runtime, spying(sockets, datagrams));
    const { ca, server } = await testNodes();
    const listener = await new ContractListener().start(transport, "quic://127.0.0.1:0", {
      tls: listenerTls(ca, server, { requireClientAuth: false }),
    });
    const proxy = await QuicProxy.start(listener.address);
    try {
      const tls = dialerTls(ca, undefined);
      const dial = () => transport.dial(proxy.address, dialOptions(tls));
      const dialed = new LinkRecorder(await dial());
      dialed.link.write(Uint8Array.of(1));
      const accepted = new LinkRecorder(await listener.accepted());
      accepted.link.write(Uint8Array.of(2));
      await dialed.received(1);
      await until(() => datagrams.length > 0, "the answer");
      proxy.cut();
      dialed.link.write(Uint8Array.of(3));
      // QUIC alone gives up after 75 s.
      const [lost, told] = await Promise.all([dialed.closed(), accepted.closed()]);
      assert.deepEqual([lost?.code, told?.code], ["ConnectionClosed", "ConnectionClosed"]);
      const next = new LinkRecorder(await dial());
      assert.equal(proxy.flowCount, 2);
      next.link.write(Uint8Array.of(4));
      (await listener.accepted()).close();
      next.link.close();
      await listener.listener.close();
    } finally {
      proxy.close();
    }
  });
});
