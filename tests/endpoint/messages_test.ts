import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { BackpressureError, json, MessageTooLargeError, TransportError } from "../../mod.ts";
import { bytes, inbox, inCluster, text } from "../support/cluster.ts";

describe("messages", () => {
  it(
    "arrive once and in order, whoever dialed",
    inCluster(async (cluster) => {
      const a = await cluster.start("a");
      const b = await cluster.start("b");
      await cluster.connect(a, "b");
      await cluster.pooled(a, b, 2);
      for (let i = 0; i < 300; i++) {
        await a.send("b", bytes(`a${i}`));
        await b.send("a", bytes(`b${i}`));
      }
      await cluster.environment.advance(100);
      assert.deepEqual(inbox(b), Array.from({ length: 300 }, (_, i) => `a${i}`));
      assert.deepEqual(inbox(a), Array.from({ length: 300 }, (_, i) => `b${i}`));
      assert.equal(a.stats().messagesSent, 300);
      assert.equal(a.stats().messagesReceived, 300);
    }),
  );

  it(
    "may be changed by the sender as soon as they are accepted",
    inCluster(async (cluster) => {
      const a = await cluster.start("a");
      const b = await cluster.start("b");
      await cluster.connect(a, "b");
      const payload = bytes("first");
      await a.send("b", payload);
      payload.set(bytes("later"));
      await cluster.environment.advance(100);
      assert.deepEqual(inbox(b), ["first"]);
    }),
  );

  it(
    "may be changed as soon as they wait in the queue, too",
    inCluster(async (cluster) => {
      const a = await cluster.start("a");
      const b = await cluster.start("b");
      await cluster.connect(a, "b");
      await cluster.pooled(a, b, 2);
      cluster.network.reset(cluster.address("b"));
      await cluster.environment.advance(5);
      const payload = bytes("first");
      await a.send("b", payload);
      payload.set(bytes("later"));
      await cluster.pooled(a, b, 2);
      await cluster.environment.advance(50);
      assert.deepEqual(inbox(b), ["first"]);
    }),
  );

  it(
    "wait in the queue while the peer is away and leave in order when it is back",
    inCluster(async (cluster) => {
      const a = await cluster.start("a");
      const b = await cluster.start("b");
      await cluster.connect(a, "b");
      await cluster.pooled(a, b, 2);
      cluster.network.reset(cluster.address("b"));
      await cluster.environment.advance(5);
      assert.equal(a.peer("b")?.state, "reconnecting");
      for (let i = 0; i < 10; i++) await a.send("b", bytes(`${i}`));
      await cluster.pooled(a, b, 2);
      await cluster.environment.advance(50);
      assert.deepEqual(inbox(b), ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"]);
      assert.equal(a.stats().reconnections, 1);
    }),
  );

  it(
    "to nobody are PeerNotFound, too large ones MessageTooLarge, wrong ones TypeError",
    inCluster(async (cluster) => {
      const a = await cluster.start("a", { maxMessageSize: 10 });
      const b = await cluster.start("b");
      await cluster.connect(a, "b");
      await assert.rejects(a.send("c", bytes("x")), { code: "PeerNotFound", peer: "c" });
      assert.throws(() => a.trySend("c", bytes("x")), { code: "PeerNotFound" });
      const error = await a.send("b", new Uint8Array(11)).catch((e) => e);
      assert.ok(error instanceof MessageTooLargeError);
      assert.equal(error.size, 11);
      assert.equal(error.maxSize, 10);
      await assert.rejects(a.send("b", "text" as unknown as Uint8Array), TypeError);
      await assert.rejects(
        a.send("b", bytes("x"), { whenFull: "never" as unknown as "wait" }),
        TypeError,
      );
      await cluster.environment.advance(20);
      assert.equal(b.stats().messagesReceived, 0);
    }),
  );

  it(
    "that the other side finds too large are reported, and do not cost the connection",
    inCluster(async (cluster) => {
      const a = await cluster.start("a");
      await cluster.start("b", { maxMessageSize: 100 });
      await cluster.connect(a, "b");
      assert.equal(a.peer("b")?.maxMessageSize, 100);
      const undelivered: string[] = [];
      a.addEventListener("undelivered", ({ detail }) => undelivered.push(detail.fate));
      await assert.rejects(a.send("b", new Uint8Array(101)), { code: "MessageTooLarge" });
      await cluster.environment.advance(20);
      assert.equal(a.peer("b")?.state, "active");
    }),
  );

  it(
    "come through receive, tryReceive, iteration and onMessage alike",
    inCluster(async (cluster) => {
      const a = await cluster.start("a");
      const b = await cluster.start("b");
      await cluster.connect(a, "b");
      for (const word of ["one", "two", "three", "four"]) await a.send("b", bytes(word));
      await cluster.environment.advance(20);
      assert.equal(text((await b.receive()).payload), "one");
      assert.equal(text(b.tryReceive()!.payload), "two");
      for await (const message of b) {
        assert.equal(message.from, "a");
        assert.equal(text(message.payload), "three");
        break;
      }
      const pushed: string[] = [];
      const stop = b.onMessage(({ payload }) => {
        pushed.push(text(payload));
      });
      assert.deepEqual(pushed, ["four"]);
      await a.send("b", bytes("five"));
      await cluster.environment.advance(20);
      assert.deepEqual(pushed, ["four", "five"]);
      stop();
      await a.send("b", bytes("six"));
      await cluster.environment.advance(20);
      assert.deepEqual(inbox(b), ["six"]);
    }),
  );

  it(
    "carry objects with a codec, and one that can't be decoded harms nobody",
    inCluster(async (cluster) => {
      const a = await cluster.start("a");
      const { Endpoint } = await import("../../mod.ts");
      const b = new Endpoint<{ n: number }>({
        nodeId: "b",
        listen: cluster.address("b"),
        security: "legacy",
        codec: json<{ n: number }>(),
        environment: cluster.environment,
        transports: [cluster.network.transport("b")],
      });
      await b.start();
      await cluster.connect(a, "b");
      await a.send("b", bytes('{"n":1}'));
      await a.send("b", bytes("not json"));
      await a.send("b", bytes('{"n":2}'));
      await cluster.environment.advance(20);
      assert.deepEqual((await b.receive()).payload, { n: 1 });
      assert.deepEqual((await b.receive()).payload, { n: 2 });
      assert.equal(b.stats().handlerErrors, 1);
      await cluster.environment.run(b.close({ drainMs: 0 }));
    }),
  );
});

describe("broadcast", () => {
  it(
    "reaches every connected peer and says whom it did not",
    inCluster(async (cluster) => {
      const a = await cluster.start("a", { maxPendingMessages: 1, reconnect: { jitter: 0 } });
      const b = await cluster.start("b");
      const c = await cluster.start("c");
      await cluster.connect(a, "b");
      await cluster.connect(a, "c");
      await cluster.pooled(a, b, 2);
      await cluster.pooled(a, c, 2);
      cluster.network.blackHoles.add(cluster.address("c"));
      cluster.network.reset(cluster.address("c"));
      await cluster.environment.advance(5);
      await a.send("c", bytes("fills the queue"));
      const result = await a.broadcast(bytes("all"), { whenFull: "reject" });
      assert.deepEqual(result.delivered, ["b"]);
      assert.equal(result.failed[0]?.nodeId, "c");
      assert.ok(result.failed[0]?.error instanceof BackpressureError);
      await cluster.environment.advance(20);
      assert.deepEqual(inbox(b), ["all"]);
    }),
  );
});

describe("a full queue", () => {
  const away = async (cluster: import("../support/cluster.ts").Cluster) => {
    const a = await cluster.start("a", { maxPendingMessages: 3 });
    const b = await cluster.start("b");
    await cluster.connect(a, "b");
    await cluster.pooled(a, b, 2);
    cluster.network.blackHoles.add(cluster.address("b"));
    cluster.network.reset(cluster.address("b"));
    await cluster.environment.advance(5);
    for (const word of ["1", "2", "3"]) assert.equal(a.trySend("b", bytes(word)), true);
    const back = async () => {
      cluster.network.blackHoles.clear();
      await cluster.pooled(a, b, 2);
      await cluster.environment.advance(50);
      return inbox(b);
    };
    const undelivered: string[] = [];
    a.addEventListener("undelivered", ({ detail }) => undelivered.push(text(detail.payload)));
    return { a, b, back, undelivered };
  };

  it(
    'makes "wait" wait, in order, and lets it in when there is room',
    inCluster(async (cluster) => {
      const { a, back } = await away(cluster);
      let accepted = 0;
      const waiting = ["4", "5", "6"].map((word) =>
        a.send("b", bytes(word)).then(() => accepted++)
      );
      await cluster.environment.advance(10);
      assert.equal(accepted, 0);
      assert.equal(a.trySend("b", bytes("x")), false);
      assert.deepEqual(await back(), ["1", "2", "3", "4", "5", "6"]);
      await Promise.all(waiting);
      assert.equal(a.stats().backpressureEvents, 4);
    }),
  );

  it(
    "gives a waiting send up when its signal says so, with the signal's reason",
    inCluster(async (cluster) => {
      const { a, back } = await away(cluster);
      const abort = new AbortController();
      const reason = new Error("enough");
      const waiting = a.send("b", bytes("never"), { signal: abort.signal });
      abort.abort(reason);
      await assert.rejects(waiting, (error) => error === reason);
      await assert.rejects(
        a.send("b", bytes("never"), { signal: abort.signal }),
        (error) => error === reason,
      );
      assert.deepEqual(await back(), ["1", "2", "3"]);
    }),
  );

  it(
    'makes "reject" a Backpressure error',
    inCluster(async (cluster) => {
      const { a, back } = await away(cluster);
      const error = await a.send("b", bytes("4"), { whenFull: "reject" }).catch((e) => e);
      assert.ok(error instanceof BackpressureError);
      assert.equal(error.queued, 3);
      assert.deepEqual(await back(), ["1", "2", "3"]);
    }),
  );

  it(
    'drops and reports the oldest with "drop-oldest"',
    inCluster(async (cluster) => {
      const { a, back, undelivered } = await away(cluster);
      await a.send("b", bytes("4"), { whenFull: "drop-oldest" });
      await a.send("b", bytes("5"), { whenFull: "drop-oldest" });
      assert.deepEqual(undelivered, ["1", "2"]);
      assert.equal(a.stats().messagesDropped, 2);
      assert.deepEqual(await back(), ["3", "4", "5"]);
    }),
  );

  it(
    'drops and reports the new one with "drop-newest"',
    inCluster(async (cluster) => {
      const { a, back, undelivered } = await away(cluster);
      await a.send("b", bytes("4"), { whenFull: "drop-newest" });
      assert.deepEqual(undelivered, ["4"]);
      assert.equal(a.stats().sendFailures, 1);
      assert.deepEqual(await back(), ["1", "2", "3"]);
    }),
  );
});

describe("backpressure", () => {
  it(
    "stops a sender when the receiver takes nothing, at the bounds of both sides",
    inCluster(async (cluster) => {
      const a = await cluster.start("a", { maxPendingMessages: 50, ioTimeoutMs: 600_000 });
      const b = await cluster.start("b", { recvBufferSize: 20, ioTimeoutMs: 600_000 });
      await cluster.connect(a, "b");
      await cluster.pooled(a, b, 2);
      let accepted = 0;
      const payload = new Uint8Array(1000);
      const sending = (async () => {
        for (let i = 0; i < 2000; i++) {
          new DataView(payload.buffer).setUint32(0, i);
          await a.send("b", payload);
          accepted++;
        }
      })();
      await cluster.environment.advance(5_000);
      // 20 in the inbox, and 50 here, of which those that were written count a sixteenth.
      assert.ok(accepted >= 70, `accepted ${accepted}`);
      assert.ok(accepted <= 20 + 50 * 16, `accepted ${accepted}`);
      const before = accepted;
      await cluster.environment.advance(20_000);
      assert.equal(accepted, before);
      assert.equal(b.stats().receiveQueueLength, 20);
      const numbers: number[] = [];
      b.onMessage(({ payload }) => {
        numbers.push(new DataView(payload.buffer, payload.byteOffset).getUint32(0));
      });
      await cluster.environment.run(sending);
      await cluster.environment.until(() => numbers.length === 2000);
      assert.deepEqual(numbers, Array.from({ length: 2000 }, (_, i) => i));
    }),
  );

  it(
    "holds only that peer back whose message a handler still works on",
    inCluster(async (cluster) => {
      const a = await cluster.start("a");
      const b = await cluster.start("b");
      const c = await cluster.start("c");
      await cluster.connect(a, "c");
      await cluster.connect(b, "c");
      const seen: string[] = [];
      let finish = () => {};
      c.onMessage(({ from, payload }) => {
        seen.push(`${from}${text(payload)}`);
        if (from === "a" && text(payload) === "1") {
          return new Promise<void>((resolve) => {
            finish = resolve;
          });
        }
      });
      for (const word of ["1", "2"]) {
        await a.send("c", bytes(word));
        await b.send("c", bytes(word));
      }
      await cluster.environment.advance(50);
      assert.deepEqual(seen.toSorted(), ["a1", "b1", "b2"]);
      finish();
      await cluster.environment.advance(50);
      assert.deepEqual(seen.toSorted(), ["a1", "a2", "b1", "b2"]);
    }),
  );

  it(
    "goes on after a handler that throws or rejects",
    inCluster(async (cluster) => {
      const a = await cluster.start("a");
      const b = await cluster.start("b");
      await cluster.connect(a, "b");
      const warnings: string[] = [];
      b.addEventListener("warning", ({ detail }) => warnings.push(detail.message));
      let seen = 0;
      b.onMessage(() => {
        seen++;
        if (seen === 1) throw new Error("thrown");
        if (seen === 2) return Promise.reject(new Error("rejected"));
      });
      for (const word of ["1", "2", "3"]) await a.send("b", bytes(word));
      await cluster.environment.advance(50);
      assert.equal(seen, 3);
      assert.equal(b.stats().handlerErrors, 2);
      assert.deepEqual(warnings, [
        'An application callback failed: the message handler: "thrown"',
        'An application callback failed: the message handler: "rejected"',
      ]);
    }),
  );
});

describe("the warning of a callback that failed", () => {
  it(
    "names the callback",
    inCluster(async (cluster) => {
      const broken = { encode: (x: Uint8Array) => x, decode: () => fail("codec") };
      const fail = (why: string): never => {
        throw new Error(why);
      };
      const a = await cluster.start("a");
      const b = await cluster.start("b");
      const c = await cluster.start("c", { codec: broken });
      const warnings: string[] = [];
      const prefix = "An application callback failed: ";
      for (const endpoint of [b, c]) {
        endpoint.addEventListener("warning", ({ detail }) => {
          warnings.push(detail.message.replace(prefix, ""));
        });
      }
      b.addEventListener("peerup", () => fail("one"));
      b.addEventListener("statechange", { handleEvent: () => Promise.reject(new Error("two")) });
      const { environment } = cluster;
      await cluster.connect(a, "b");
      await cluster.pooled(a, b, 2);
      assert.deepEqual([...new Set(warnings.splice(0))].toSorted(), [
        'the listener of "peerup": "one"',
        'the listener of "statechange": "two"',
      ]);
      b.handle("get", () => fail("three"));
      b.handle(undefined, () => fail("four"));
      b.onStream("log", () => fail("five"));
      for (const options of [{ topic: "get" }, {}]) {
        await assert.rejects(environment.run(a.request("b", bytes("x"), options)));
      }
      const stream = await a.openStream("b", { topic: "log" });
      await assert.rejects(environment.run(stream.closed));
      await cluster.connect(a, "c");
      await a.send("c", bytes("x"));
      await environment.advance(10);
      assert.equal(c.tryReceive(), undefined);
      assert.deepEqual(warnings.filter((warning) => !warning.includes("statechange")), [
        'the request handler of "get": "three"',
        'the request handler without a topic: "four"',
        'the stream handler of "log": "five"',
        'the codec\'s decode: "codec"',
      ]);
    }),
  );
});

describe("options that a call does not have", () => {
  it(
    "are refused by name",
    inCluster(async (cluster) => {
      const a = await cluster.start("a");
      await cluster.start("b");
      await cluster.connect(a, "b");
      const wrong = { lane: "bulk", timeout: 5 } as object;
      const refused =
        /^TypeError: Cannot send: there is no option "timeout"; there are lane, topic/;
      await assert.rejects(a.send("b", bytes("x"), wrong), refused);
      await assert.rejects(a.broadcast(bytes("x"), wrong), refused);
      const acknowledged = { acknowledged: true, ack: true } as object;
      await assert.rejects(a.send("b", bytes("x"), acknowledged), /"ack"/);
      assert.throws(() => a.trySend("b", bytes("x"), { whenFull: "wait" } as object), /"whenFull"/);
      assert.equal(a.stats().pendingMessages, 0);
    }),
  );
});

describe("the rate limit", () => {
  it(
    "refuses what we send above the bucket, and says when to try again",
    inCluster(async (cluster) => {
      const a = await cluster.start("a", { rateLimit: { bucketSize: 5, refillRate: 10 } });
      const b = await cluster.start("b");
      await cluster.connect(a, "b");
      for (let i = 0; i < 5; i++) await a.send("b", bytes(`${i}`));
      assert.equal(a.trySend("b", bytes("x")), false);
      const error = await a.send("b", bytes("x")).catch((e) => e);
      assert.ok(error instanceof TransportError);
      assert.equal(error.code, "RateLimited");
      assert.equal((error as { retryAfterMs?: number }).retryAfterMs, 100);
      await cluster.environment.advance(100);
      await a.send("b", bytes("5"));
      await cluster.environment.advance(20);
      assert.deepEqual(inbox(b), ["0", "1", "2", "3", "4", "5"]);
      assert.equal(a.stats().rateLimited, 2);
    }),
  );

  it(
    "slows a peer that sends too much, and drops nothing of it",
    inCluster(async (cluster) => {
      const a = await cluster.start("a");
      const b = await cluster.start("b", { rateLimit: { bucketSize: 10, refillRate: 50 } });
      await cluster.connect(a, "b");
      for (let i = 0; i < 60; i++) await a.send("b", bytes(`${i}`));
      await cluster.environment.advance(20);
      assert.equal(b.stats().receiveQueueLength, 10);
      await cluster.environment.advance(400);
      const early = b.stats().receiveQueueLength;
      assert.ok(early >= 28 && early <= 32, `${early} messages after 420 ms`);
      await cluster.environment.advance(1000);
      assert.deepEqual(inbox(b), Array.from({ length: 60 }, (_, i) => `${i}`));
      assert.ok(b.stats().rateLimited > 0);
    }),
  );
});
