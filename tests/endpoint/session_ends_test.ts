import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { TransportError } from "../../mod.ts";
import { Outbox } from "../../src/protocol/outbox.ts";
import { Backlog } from "../../src/protocol/v3/backlog.ts";
import { Channel } from "../../src/protocol/v3/channel.ts";
import { FrameCodec } from "../../src/protocol/v3/frame_codec.ts";
import { Session } from "../../src/protocol/v3/session.ts";
import { bytes, inCluster, text } from "../support/cluster.ts";

const NOTHING = [0, 0, 0] as const;
const MAX_MESSAGE = 1_048_576;

/** A session on a connection that writes nothing. */
function sessionAtRest(): Session {
  const codec = new FrameCodec({
    checksum: false,
    crc32: () => 0,
    lz4: undefined,
    zstd: undefined,
    method: undefined,
    compressMinSize: 0,
    maxMessageSize: MAX_MESSAGE,
  });
  const link = { outbox: new Outbox(), writable: true, flush() {}, flushSoon() {} };
  const times = { keepaliveMs: undefined, healthCheckMs: undefined };
  const sink = { onSuspect() {}, onGoaway() {}, onDrained() {} };
  const channel = new Channel({ codec, resume: true, ...times }, link, sink, 0);
  const session = new Session({
    seal: undefined,
    resume: true,
    maxMessageSize: MAX_MESSAGE,
    peerWindow: MAX_MESSAGE,
    receiveWindow: MAX_MESSAGE,
    strategy: "first-available",
    backlog: new Backlog(),
  }, {
    wantsMessage: () => true,
    onMessage() {},
    onOther() {},
    checkLoad() {},
    onRoom() {},
    onSent() {},
    onPayloadFree() {},
    onBusy() {},
    onTimer() {},
  }, 0);
  session.attach(channel, NOTHING, 0);
  return session;
}

describe("a session that ends", () => {
  it("gives back what stands in a batch that was not taken yet", () => {
    const session = sessionAtRest();
    for (const word of ["one", "two"]) {
      assert.ok(session.sendData(1, undefined, bytes(word), false, undefined, 0));
    }
    assert.deepEqual(session.end().map(({ payload }) => text(payload)), ["one", "two"]);
    assert.equal(session.idle, true);
  });

  it(
    "by disconnect leaves nothing behind that the next one could overtake",
    inCluster(async (cluster) => {
      const a = await cluster.start("a");
      const b = await cluster.start("b");
      const taken: string[] = [];
      let goOn = () => {};
      const waits = new Promise<void>((resolve) => {
        goOn = resolve;
      });
      b.onMessage(({ payload }) => {
        taken.push(text(payload));
        return waits;
      });
      const undelivered: string[] = [];
      a.addEventListener("undelivered", ({ detail }) => {
        undelivered.push(`${text(detail.payload)} ${detail.fate}`);
      });
      await cluster.connect(a, "b");
      for (const word of ["first", "held"]) await a.send("b", bytes(word));
      await cluster.environment.until(() => taken.length === 1);
      const left = b.disconnect("a");
      await cluster.environment.run(left);
      await cluster.environment.until(() => a.peer("b")?.state === "active");
      await a.send("b", bytes("next"));
      await cluster.environment.advance(100);
      goOn();
      await cluster.environment.advance(100);
      assert.deepEqual(taken.filter((word) => word !== "first"), ["next"]);
      assert.ok(undelivered.includes("held unknown"), undelivered.join());
    }),
  );

  it(
    "by disconnect waits for a receiver that takes its time: nothing is in doubt",
    inCluster(async (cluster) => {
      const a = await cluster.start("a");
      const b = await cluster.start("b", { recvBufferSize: 1 });
      await cluster.connect(a, "b");
      const undelivered: unknown[] = [];
      a.addEventListener("undelivered", ({ detail }) => undelivered.push(detail));
      const words = Array.from({ length: 50 }, (_, i) => `${i}`);
      for (const word of words) assert.ok(a.trySend("b", bytes(word)));
      await cluster.environment.advance(100);
      const left = a.disconnect("b");
      const taken: string[] = [];
      while (taken.length < words.length) {
        const message = b.tryReceive();
        if (message !== undefined) taken.push(text(message.payload));
        await cluster.environment.advance(10);
      }
      await cluster.environment.run(left);
      assert.deepEqual(taken, words);
      assert.deepEqual(undelivered, []);
    }),
  );

  it(
    "by disconnect waits no longer than connectTimeoutMs for one that takes nothing",
    inCluster(async (cluster) => {
      const a = await cluster.start("a", { connectTimeoutMs: 2_000 });
      await cluster.start("b", { recvBufferSize: 1 });
      await cluster.connect(a, "b");
      const undelivered: string[] = [];
      a.addEventListener("undelivered", ({ detail: { payload, fate } }) => {
        undelivered.push(`${text(payload)} ${fate}`);
      });
      for (const word of ["first", "second"]) assert.ok(a.trySend("b", bytes(word)));
      await cluster.environment.advance(100);
      const before = cluster.environment.now();
      await cluster.environment.run(a.disconnect("b"));
      const waited = cluster.environment.now() - before;
      assert.ok(waited >= 1_900 && waited <= 2_100, `${waited} ms`);
      assert.deepEqual(undelivered, ["second unknown"]);
    }),
  );

  it(
    "while its endpoint closes is not followed by another",
    inCluster(async (cluster) => {
      const a = await cluster.start("a");
      await cluster.start("b");
      await cluster.connect(a, "b");
      const left = a.disconnect("b");
      const again = a.connect({ nodeId: "b", address: cluster.address("b") });
      const closed = a.close({ drainMs: 0 });
      const refused = assert.rejects(
        again,
        (error) => error instanceof TransportError && error.code === "Shutdown",
      );
      await cluster.environment.run(Promise.all([left, closed, refused]));
      await cluster.environment.advance(0);
      assert.deepEqual(a.peers(), []);
    }),
  );
});
