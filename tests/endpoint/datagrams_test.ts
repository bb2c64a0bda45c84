/** Endpoints over datagrams that get lost, doubled, delayed and reordered, in virtual time. */

import assert from "node:assert/strict";
import { describe, it } from "node:test";
import {
  type Endpoint,
  type EndpointConfig,
  HandshakeError,
  MessageTooLargeError,
  RemoteError,
  RequestLostError,
  type TransportRequest,
  type WarningDetail,
} from "../../mod.ts";
import { bytes, Cluster, inbox, text } from "../support/cluster.ts";
import { DatagramNetwork, type Trouble } from "../support/datagram_network.ts";
import { seededRandom } from "../support/memory_network.ts";
import { newKeys } from "./on_the_line.ts";

const KIND = { hello: 0, retry: 1, welcome: 2, reject: 3, data: 4, request: 5, ping: 9, pong: 10 };

/** Seeds of the runs in which much goes wrong at once, and of those with keys. */
const SEEDS = [1, 2, 3, 4, 5, 6];
const SIGNED_SEEDS = [7, 8];

type Options = Partial<EndpointConfig>;

/** A cluster whose nodes listen on datagrams. */
class DatagramCluster {
  readonly cluster = new Cluster();
  readonly environment = this.cluster.environment;
  readonly network: DatagramNetwork;

  constructor(trouble: Trouble, seed: number) {
    this.network = new DatagramNetwork(this.environment, trouble, seed);
  }

  async start(nodeId: string, options: Options = {}): Promise<Endpoint> {
    return await this.cluster.start(nodeId, {
      listen: addressOf(nodeId),
      transports: [this.cluster.network.transport(nodeId), this.network.transport(nodeId)],
      ...options,
    });
  }

  async connect(from: Endpoint, to: string): Promise<void> {
    await this.environment.run(from.connect({ nodeId: to, address: addressOf(to) }));
  }

  async pair(a: Options = {}, b: Options = {}): Promise<[Endpoint, Endpoint]> {
    const pair: [Endpoint, Endpoint] = [await this.start("a", a), await this.start("b", b)];
    await this.connect(pair[0], "b");
    await this.environment.until(() => pair[1].peer("a")?.health === "up");
    return pair;
  }
}

function addressOf(nodeId: string): string {
  return `dgram://${nodeId}:1`;
}

function inDatagrams(
  test: (cluster: DatagramCluster) => Promise<void>,
  trouble: Trouble = {},
  seed = 1,
): () => Promise<void> {
  return async () => {
    const cluster = new DatagramCluster(trouble, seed);
    try {
      await test(cluster);
    } finally {
      await cluster.cluster.close();
      await cluster.environment.advance(10_000);
    }
    assert.equal(cluster.environment.pendingTimers, 0);
    assert.equal(cluster.network.sockets, 0);
  };
}

function warnings(endpoint: Endpoint): WarningDetail[] {
  const details: WarningDetail[] = [];
  endpoint.addEventListener("warning", ({ detail }) => details.push(detail));
  return details;
}

function codeOf(kind: number): number {
  return 0x10 | kind;
}

describe("messages over datagrams", () => {
  it(
    "arrive with topic and lane, both ways, over one socket of each node",
    inDatagrams(async (cluster) => {
      const [a, b] = await cluster.pair();
      assert.deepEqual(a.addresses, ["dgram://a:1"]);
      await a.send("b", bytes("one"), { topic: "gossip", lane: "control" });
      await b.send("a", bytes("two"));
      assert.equal(a.trySend("b", bytes("three"), { lane: "bulk" }), true);
      await cluster.environment.advance(10);
      const [first, second] = [b.tryReceive()!, b.tryReceive()!];
      assert.deepEqual({ ...first, payload: text(first.payload) }, {
        from: "a",
        payload: "one",
        topic: "gossip",
        lane: "control",
      });
      assert.deepEqual([text(second.payload), second.lane], ["three", "bulk"]);
      assert.deepEqual(inbox(a), ["two"]);
      assert.equal(cluster.network.sockets, 2);
    }),
  );

  it(
    "show in peers, events and counters",
    inDatagrams(async (cluster) => {
      const a = await cluster.start("a");
      const b = await cluster.start("b");
      const events: string[] = [];
      for (const type of ["peerup", "peerdown"] as const) {
        b.addEventListener(type, ({ detail }) => events.push(`${type} ${detail.nodeId}`));
      }
      await cluster.connect(a, "b");
      await cluster.environment.advance(10);
      const info = a.peer("b")!;
      assert.deepEqual([info.state, info.health, info.address], ["active", "up", "dgram://b:1"]);
      assert.deepEqual(
        info.connections.map(({ protocol, localAddress, remoteAddress }) => {
          return [protocol, localAddress, remoteAddress];
        }),
        [["dgram", "dgram://a:1", "dgram://b:1"]],
      );
      assert.equal(info.roundTrip?.count, 1);
      assert.deepEqual(b.peers().map(({ nodeId }) => nodeId), ["a"]);
      await a.send("b", bytes("12345"));
      await cluster.environment.advance(10);
      const { messagesReceived, payloadBytesReceived, peerCount, datagrams } = b.stats();
      assert.deepEqual([messagesReceived, payloadBytesReceived, peerCount], [1, 5, 1]);
      assert.equal(datagrams.packetsReceived, 4);
      const { established, byProtocol } = a.stats().connections;
      const { established: ofDatagrams, active, bytesSent } = byProtocol.dgram!;
      assert.deepEqual([established, ofDatagrams, active, bytesSent], [1, 1, 1, 34 + 32]);
      await cluster.environment.run(a.disconnect("b"));
      await cluster.environment.advance(10);
      assert.equal(a.peer("b"), undefined);
      assert.deepEqual(events, ["peerup a", "peerdown a"]);
      await assert.rejects(a.send("b", bytes("late")), { code: "PeerNotFound" });
    }),
  );

  it(
    "have a limit that a typed error tells, and a warning above what a network carries in one piece",
    inDatagrams(async (cluster) => {
      const [a, b] = await cluster.pair();
      const told = warnings(a);
      await a.send("b", new Uint8Array(1173));
      assert.equal(told.length, 0);
      await a.send("b", new Uint8Array(1174));
      await a.send("b", new Uint8Array(65_480));
      assert.deepEqual(told.map(({ message, nodeId }) => [message.slice(0, 32), nodeId]), [
        ["A packet to b has 1201 bytes: abo", "b"].map((text) => text.slice(0, 32)),
      ]);
      await cluster.environment.advance(10);
      assert.deepEqual(cluster.network.seen.at(-1)?.packet.length, 65_507);
      assert.equal(inbox(b).length, 3);
      const error = await a.send("b", new Uint8Array(65_481)).catch((error) => error);
      assert.ok(error instanceof MessageTooLargeError);
      assert.deepEqual([error.size, error.maxSize, error.peer], [65_481, 65_480, "b"]);
      const topical = await a.send("b", new Uint8Array(65_480), { topic: "t" }).catch((e) => e);
      assert.deepEqual([topical.code, topical.maxSize], ["MessageTooLarge", 65_478]);
      assert.throws(() => a.trySend("b", new Uint8Array(65_481)), { code: "MessageTooLarge" });
    }),
  );

  it(
    "may be limited further, and be silent about it",
    inDatagrams(async (cluster) => {
      const datagrams = { maxBytes: 2000, warnAbove: 0 };
      const [a] = await cluster.pair({ datagrams });
      const told = warnings(a);
      await a.send("b", new Uint8Array(1973));
      await assert.rejects(a.send("b", new Uint8Array(1974)), { code: "MessageTooLarge" });
      assert.equal(told.length, 0);
    }),
  );

  it(
    "are limited by what the other side takes",
    inDatagrams(async (cluster) => {
      const [a] = await cluster.pair({}, { maxMessageSize: 500 });
      assert.equal(a.peer("b")!.maxMessageSize, 500);
      await a.send("b", new Uint8Array(500));
      await assert.rejects(a.send("b", new Uint8Array(501)), { code: "MessageTooLarge" });
    }),
  );

  it(
    "arrive at most once, whatever the network does",
    inDatagrams(async (cluster) => {
      const [a, b] = await cluster.pair({}, { recvBufferSize: 10_000 });
      for (let i = 0; i < 500; i++) {
        await a.send("b", bytes(String(i)));
        await cluster.environment.advance(1);
      }
      await cluster.environment.advance(100);
      const received = inbox(b);
      assert.equal(new Set(received).size, received.length);
      assert.ok(received.length > 300 && received.length < 480, String(received.length));
      assert.notDeepEqual(received, received.toSorted((x, y) => Number(x) - Number(y)));
      assert.ok(b.stats().datagrams.replayed > 50);
    }, { loss: 0.2, doubled: 0.3, latencyMs: 1, spreadMs: 20 }),
  );

  it(
    "that find the queue of the application full are dropped and counted",
    inDatagrams(async (cluster) => {
      const [a, b] = await cluster.pair({}, { recvBufferSize: 10 });
      for (let i = 0; i < 25; i++) await a.send("b", bytes(String(i)));
      await cluster.environment.advance(10);
      assert.equal(b.stats().receiveQueueLength, 10);
      assert.equal(b.stats().datagrams.dropped, 15);
      assert.equal(inbox(b).length, 10);
      await a.send("b", bytes("again"));
      await cluster.environment.advance(10);
      assert.deepEqual(inbox(b), ["again"]);
    }),
  );

  it(
    "that find the socket full wait, or are refused or dropped, as they are told",
    inDatagrams(async (cluster) => {
      const { network, environment } = cluster;
      const [a, b] = await cluster.pair();
      network.full = true;
      let sent = 0;
      const waiting = a.send("b", bytes("waits")).then(() => sent++);
      const controller = new AbortController();
      const given = a.send("b", bytes("given up"), { signal: controller.signal });
      given.catch(() => {});
      assert.equal(a.trySend("b", bytes("no")), false);
      await assert.rejects(a.send("b", bytes("no"), { whenFull: "reject" }), {
        code: "Backpressure",
      });
      await a.send("b", bytes("no"), { whenFull: "drop-newest" });
      await a.send("b", bytes("no"), { whenFull: "drop-oldest" });
      await environment.advance(10);
      controller.abort(new Error("enough"));
      await assert.rejects(given, { message: "enough" });
      assert.equal(sent, 0);
      network.drain();
      await environment.run(waiting);
      await environment.advance(10);
      assert.deepEqual(inbox(b), ["waits"]);
      const { messagesDropped, backpressureEvents, datagrams } = a.stats();
      assert.deepEqual([messagesDropped, backpressureEvents, datagrams.unsent], [2, 6, 6]);
      network.full = true;
      const lost = a.send("b", bytes("no"));
      lost.catch(() => {});
      await environment.run(a.close({ drainMs: 0 }));
      await assert.rejects(lost, { code: "Shutdown" });
      network.drain();
    }),
  );

  it(
    "of a peer that keeps no limit are not taken",
    inDatagrams(async (cluster) => {
      const [a, b] = await cluster.pair();
      const { network, environment } = cluster;
      const c = await cluster.start("c", { maxMessageSize: 100 });
      await cluster.connect(a, "c");
      await a.send("b", new Uint8Array(101));
      await environment.advance(10);
      assert.equal(inbox(b).length, 1);
      // The body of the one in a packet to the other.
      const long = network.seen.findLast(({ to }) => to === addressOf("b"))!.packet;
      await a.send("c", new Uint8Array(1));
      const short = network.seen.at(-1)!.packet;
      network.inject(
        Uint8Array.from([...short.subarray(0, 25), 99, ...long.subarray(26)]),
        addressOf("a"),
        addressOf("c"),
      );
      await environment.advance(10);
      assert.deepEqual([inbox(c).length, c.stats().datagrams.invalid], [1, 1]);
    }),
  );

  it(
    "wait, a few of them, while a handler works on one",
    inDatagrams(async (cluster) => {
      const [a, b] = await cluster.pair();
      const received: string[] = [];
      let release = () => {};
      b.onMessage(({ payload }) => {
        received.push(text(payload));
        if (received.length > 1) return;
        return new Promise((resolve) => {
          release = resolve;
        });
      });
      for (let i = 0; i < 300; i++) a.trySend("b", bytes(String(i)));
      await cluster.environment.advance(10);
      assert.deepEqual(received, ["0"]);
      release();
      await cluster.environment.advance(10);
      assert.equal(received.length, 257);
      assert.equal(b.stats().datagrams.dropped, 43);
    }),
  );

  it(
    "keep the rate limit of both sides",
    inDatagrams(async (cluster) => {
      const rateLimit = { bucketSize: 3, refillRate: 1 };
      const [a, b] = await cluster.pair({ rateLimit });
      for (let i = 0; i < 3; i++) await a.send("b", bytes("x"));
      await assert.rejects(a.send("b", bytes("x")), { code: "RateLimited", retryAfterMs: 1000 });
      assert.equal(a.trySend("b", bytes("x")), false);
      for (let i = 0; i < 5; i++) await b.send("a", bytes("y"));
      await cluster.environment.advance(10);
      assert.deepEqual([inbox(a).length, a.stats().datagrams.dropped], [3, 2]);
    }),
  );

  it(
    "keep the limits of bandwidth, in turns with those to other peers",
    inDatagrams(async (cluster) => {
      const { environment } = cluster;
      const [a, b] = await cluster.pair({ bandwidth: { total: 100_000 } });
      const c = await cluster.start("c");
      await cluster.connect(a, "c");
      const before = environment.now();
      const sent = ["b", "c"].map(async (nodeId) => {
        for (let i = 0; i < 150; i++) await a.send(nodeId, new Uint8Array(973));
        return environment.now() - before;
      });
      await environment.advance(1);
      assert.equal(a.trySend("b", new Uint8Array(973)), false);
      await a.send("b", bytes("urgent"), { lane: "control" });
      await environment.advance(10);
      assert.equal(text(b.tryReceive()!.payload).length, 973);
      assert.ok(inbox(b).includes("urgent"));
      inbox(c);
      const took = await environment.run(Promise.all(sent));
      // 300,000 bytes, of which 65,536 are a burst.
      for (const ms of took) assert.ok(ms > 2100 && ms < 2500, `${took}`);
      await environment.advance(10);
      assert.ok(Math.abs(inbox(b).length - inbox(c).length) < 40);
    }),
  );

  it(
    "have no acknowledgements and no streams",
    inDatagrams(async (cluster) => {
      const [a] = await cluster.pair();
      const unsupported = { code: "UnsupportedProtocol", peer: "b" };
      await assert.rejects(a.send("b", bytes("x"), { acknowledged: true }), unsupported);
      await assert.rejects(a.openStream("b"), unsupported);
      await a.flush("b");
    }),
  );

  it(
    "are broadcast, too",
    inDatagrams(async (cluster) => {
      const [a, b] = await cluster.pair();
      assert.deepEqual(await a.broadcast(bytes("all")), { delivered: ["b"], failed: [] });
      await cluster.environment.advance(10);
      assert.deepEqual(inbox(b), ["all"]);
    }),
  );

  it(
    "are for what may get lost where a peer has links, too",
    inDatagrams(async (cluster) => {
      const both = (id: string) => ({ listen: [addressOf(id), `memory://${id}:1`] });
      const a = await cluster.start("a", both("a"));
      const b = await cluster.start("b", both("b"));
      const address = ["memory://b:1", addressOf("b")];
      await cluster.environment.run(a.connect({ nodeId: "b", address }));
      await cluster.environment.until(() => (b.peer("a")?.connections.length ?? 0) === 3);
      const protocols = a.peer("b")!.connections.map(({ protocol }) => protocol);
      assert.deepEqual(protocols, ["memory", "memory", "dgram"]);
      const packets = () =>
        cluster.network.seen.filter(({ packet }) => {
          return packet[1] === codeOf(KIND.data);
        }).length;
      await a.send("b", bytes("sure"));
      assert.equal(packets(), 0);
      await a.send("b", bytes("quick"), { delivery: "at-most-once" });
      assert.equal(a.trySend("b", bytes("too"), { delivery: "at-most-once" }), true);
      assert.equal(packets(), 2);
      await a.send("b", new Uint8Array(100_000), { delivery: "at-most-once" });
      const delivery = "at-most-once";
      const acknowledged = a.send("b", bytes("x"), { acknowledged: true, delivery });
      await cluster.environment.run(acknowledged);
      assert.equal(packets(), 2);
      await cluster.environment.advance(100);
      assert.equal(inbox(b).length, 5);
      const { messagesReceived } = b.stats();
      assert.equal(messagesReceived, 5);
    }),
  );
});

describe("requests over datagrams", () => {
  it(
    "are answered, and errors have codes",
    inDatagrams(async (cluster) => {
      const [a, b] = await cluster.pair();
      b.handle("echo", ({ payload, from, topic, lane }) => {
        return bytes(`${from} ${topic} ${lane} ${text(payload)}`);
      });
      b.handle("throws", () => {
        throw new Error("inside");
      });
      const { environment } = cluster;
      const options = { topic: "echo", lane: "bulk" } as const;
      const answer = await environment.run(a.request("b", bytes("?"), options));
      assert.equal(text(answer), "a echo bulk ?");
      const failed = a.request("b", bytes("?"), { topic: "throws" });
      await assert.rejects(environment.run(failed), { remoteCode: "HANDLER_FAILED" });
      const unknown = a.request("b", bytes("?"), { topic: "none" });
      await assert.rejects(environment.run(unknown), { remoteCode: "NO_HANDLER" });
      assert.equal(a.peer("b")!.openRequests, 0);
    }),
  );

  for (const seed of [1, 2, 3, 4, 5]) {
    it(
      `run once each, however many packets get lost, doubled and reordered (seed ${seed})`,
      inDatagrams(
        async (cluster) => {
          const [a, b] = await cluster.pair();
          const runs = new Map<string, number>();
          b.handle("count", async ({ payload }) => {
            const key = text(payload);
            runs.set(key, (runs.get(key) ?? 0) + 1);
            const delay = Number(key) % 7 * 20;
            if (delay > 0) {
              await new Promise<void>((resolve) => cluster.environment.setTimer(delay, resolve));
            }
            return bytes(`${key} done`);
          });
          const asked = Array.from({ length: 200 }, (_, i) => {
            return a.request("b", bytes(String(i)), { topic: "count", timeoutMs: 60_000 });
          });
          const answers = await cluster.environment.run(Promise.all(asked));
          assert.deepEqual(answers.map(text), answers.map((_, i) => `${i} done`));
          assert.equal(runs.size, 200);
          assert.deepEqual([...new Set(runs.values())], [1]);
          assert.ok(a.stats().datagrams.repeatedRequests > 50);
          assert.ok(b.stats().datagrams.repeatedAnswers > 10);
        },
        { loss: 0.3, doubled: 0.2, latencyMs: 2, spreadMs: 60 },
        seed,
      ),
    );
  }

  it(
    "end at their deadline on both sides, and say whether they may have run",
    inDatagrams(async (cluster) => {
      const [a, b] = await cluster.pair();
      const reasons: unknown[] = [];
      b.handle("hangs", ({ signal, deadline }) => {
        reasons.push(deadline! - cluster.environment.wallClock());
        return new Promise((_, reject) => {
          signal.addEventListener("abort", () => {
            reasons.push(signal.reason.code);
            reject(signal.reason);
          });
        });
      });
      const asked = a.request("b", bytes("?"), { topic: "hangs", timeoutMs: 1000 });
      const error = await cluster.environment.run(asked).catch((error) => error);
      assert.ok(error instanceof RequestLostError);
      assert.deepEqual([error.code, error.outcome], ["Timeout", "may-have-run"]);
      await cluster.environment.advance(10);
      assert.deepEqual(reasons, [1000, "Timeout"]);
      assert.equal(b.peer("a")!.runningRequests, 0);
    }),
  );

  it(
    "are given up by a signal on both sides",
    inDatagrams(async (cluster) => {
      const [a, b] = await cluster.pair();
      const reasons: unknown[] = [];
      b.handle("hangs", ({ signal }) =>
        new Promise((_, reject) => {
          signal.addEventListener("abort", () => {
            reasons.push(signal.reason.remoteCode);
            reject(signal.reason);
          });
        }));
      const controller = new AbortController();
      const { signal } = controller;
      const asked = a.request("b", bytes("?"), { topic: "hangs", signal });
      asked.catch(() => {});
      await cluster.environment.advance(100);
      controller.abort(new Error("enough"));
      await assert.rejects(asked, { message: "enough" });
      await cluster.environment.advance(10);
      assert.deepEqual(reasons, ["CANCELLED"]);
    }),
  );

  for (const [how, leaves] of [["closes", true], ["dies and is started again", false]] as const) {
    it(
      `are told to their handler where the requester ${how}`,
      inDatagrams(async (cluster) => {
        const [a, b] = await cluster.pair();
        const reasons: unknown[] = [];
        b.handle("hangs", ({ signal }) =>
          new Promise((_, reject) => {
            signal.addEventListener("abort", () => {
              reasons.push(signal.reason.code);
              reject(signal.reason);
            });
          }));
        a.request("b", bytes("?"), { topic: "hangs" }).catch(() => {});
        const { network, environment } = cluster;
        await environment.advance(10);
        assert.equal(b.peer("a")!.runningRequests, 1);
        if (!leaves) network.filter = () => false;
        await environment.run(a.close({ drainMs: 0 }));
        network.filter = () => true;
        if (!leaves) await cluster.connect(await cluster.start("a"), "b");
        await environment.advance(10);
        assert.deepEqual(reasons, ["ConnectionClosed"]);
        assert.equal(b.peer("a")!.runningRequests, 0);
      }),
    );
  }

  it(
    "whose answer fits no packet fail with a code",
    inDatagrams(async (cluster) => {
      const [a, b] = await cluster.pair();
      b.handle("large", ({ payload }) => new Uint8Array(payload[0] === 1 ? 65_473 : 65_474));
      const ask = (size: number) => {
        return cluster.environment.run(a.request("b", Uint8Array.of(size), { topic: "large" }));
      };
      assert.equal((await ask(1)).length, 65_473);
      const error = await ask(2).catch((error) => error);
      assert.ok(error instanceof RemoteError);
      assert.equal(error.remoteCode, "RESPONSE_TOO_LARGE");
      assert.equal(b.stats().handlerErrors, 1);
      await assert.rejects(a.request("b", new Uint8Array(65_500), { topic: "large" }), {
        code: "MessageTooLarge",
      });
    }),
  );

  it(
    "keep the bounds of the peer and of the handler",
    inDatagrams(async (cluster) => {
      const [a, b] = await cluster.pair({}, { maxRequests: 5 });
      const waiting: ((answer: Uint8Array) => void)[] = [];
      const hang = (_: TransportRequest) =>
        new Promise<Uint8Array>((resolve) => void waiting.push(resolve));
      b.handle("hangs", hang);
      b.handle("one", hang, { concurrencyPerPeer: 1 });
      const ask = (topic: string) => a.request("b", bytes("?"), { topic }).catch((error) => error);
      const one = [ask("one"), ask("one")];
      const many = Array.from({ length: 6 }, () => ask("hangs"));
      await cluster.environment.advance(10);
      assert.equal(waiting.length, 5);
      assert.equal((await one[1]).remoteCode, "TOO_MANY_REQUESTS");
      for (const resolve of waiting) resolve(bytes("done"));
      const codes = (await cluster.environment.run(Promise.all(many))).map((error) => {
        return error.remoteCode ?? "answered";
      });
      assert.equal(codes.filter((code) => code === "TOO_MANY_REQUESTS").length, 2);
      assert.equal(b.stats().refused.requestsAndStreams, 3);
    }),
  );

  it(
    "are refused, and not run again, where the answer is forgotten",
    inDatagrams(async (cluster) => {
      const [a, b] = await cluster.pair();
      let runs = 0;
      b.handle("get", () => {
        runs++;
        return new Uint8Array(60_000);
      });
      const { network, environment } = cluster;
      let first: Uint8Array | undefined;
      // The first answer gets lost, and with it all that are sent again for a while.
      network.filter = ({ packet, from }) => {
        const isAnswer = from === "dgram://b:1" && packet[1] === codeOf(6);
        if (!isAnswer) return true;
        const id = packet.subarray(26, 34);
        first ??= id.slice();
        return !id.every((byte, i) => byte === first![i]);
      };
      const lost = a.request("b", bytes("?"), { topic: "get" });
      lost.catch(() => {});
      await environment.advance(20);
      for (let i = 0; i < 100; i++) {
        await environment.run(a.request("b", bytes("?"), { topic: "get" }));
      }
      const error = await environment.run(lost).catch((error) => error);
      assert.deepEqual([error.code, error.remoteCode], ["RemoteError", "FORGOTTEN"]);
      assert.equal(runs, 101);
    }),
  );

  it(
    "wait for the peer to come back, and go on where it is the same process",
    inDatagrams(async (cluster) => {
      const options = { keepaliveIntervalSecs: 1 };
      const [a, b] = await cluster.pair(options, options);
      let runs = 0;
      b.handle("get", () => {
        runs++;
        return bytes("here");
      });
      const { network, environment } = cluster;
      network.filter = () => false;
      const asked = a.request("b", bytes("?"), { topic: "get", timeoutMs: 60_000 });
      await environment.until(() => a.peer("b")?.health === "down");
      network.filter = () => true;
      await environment.until(() => a.peer("b")?.health === "up");
      await environment.advance(5);
      assert.equal(a.peer("b")!.openRequests, 0);
      assert.equal(text(await asked), "here");
      assert.equal(runs, 1);
      assert.equal(a.stats().reconnections, 1);
    }),
  );

  it(
    "do not run again in a process that has taken the place of the one that had them",
    inDatagrams(async (cluster) => {
      const options = { keepaliveIntervalSecs: 1 };
      const [a, b] = await cluster.pair(options, options);
      let runs = 0;
      const serve = (endpoint: Endpoint) =>
        endpoint.handle("get", () => {
          runs++;
          return new Promise(() => {});
        });
      serve(b);
      const asked = a.request("b", bytes("?"), { topic: "get", timeoutMs: 60_000 });
      const outcome = asked.catch((error) => error);
      await cluster.environment.advance(10);
      await cluster.environment.run(b.close({ drainMs: 0 }));
      serve(await cluster.start("b", options));
      const error = await cluster.environment.run(outcome);
      assert.ok(error instanceof RequestLostError, String(error));
      assert.equal(error.outcome, "may-have-run");
      assert.equal(runs, 1);
    }),
  );
});

describe("the handshake over datagrams", () => {
  it(
    "comes about though most packets get lost",
    inDatagrams(async (cluster) => {
      const [a, b] = await cluster.pair({ connectTimeoutMs: 60_000 }, { connectTimeoutMs: 60_000 });
      assert.deepEqual([a.peer("b")!.state, b.peer("a")!.state], ["active", "active"]);
    }, { loss: 0.6, doubled: 0.1, spreadMs: 100 }),
  );

  it(
    "of two nodes that dial each other leaves one link",
    inDatagrams(async (cluster) => {
      const [a, b] = [await cluster.start("a"), await cluster.start("b")];
      const ups: string[] = [];
      for (const endpoint of [a, b]) {
        endpoint.addEventListener("peerup", ({ detail }) => ups.push(detail.nodeId));
        endpoint.addEventListener("peerdown", ({ detail }) => ups.push(`-${detail.nodeId}`));
      }
      await Promise.all([cluster.connect(a, "b"), cluster.connect(b, "a")]);
      await cluster.environment.advance(1000);
      assert.equal(a.peer("b")!.connections.length, 1);
      assert.equal(b.peer("a")!.connections.length, 1);
      assert.deepEqual([a.peer("b")!.connections[0]!.dialed, b.peer("a")!.connections[0]!.dialed], [
        true,
        false,
      ]);
      assert.deepEqual(ups.toSorted(), ["a", "b"]);
      await a.send("b", bytes("to b"));
      await b.send("a", bytes("to a"));
      await cluster.environment.advance(10);
      assert.deepEqual([inbox(a), inbox(b)], [["to a"], ["to b"]]);
    }),
  );

  const refused: [string, Options, Options, string][] = [
    ["another cluster", { clusterName: "x" }, { clusterName: "y" }, "CLUSTER_MISMATCH"],
    ["no token", {}, { authToken: "secret" }, "AUTH_FAILED"],
    ["a wrong token", { authToken: "guess" }, { authToken: "secret" }, "AUTH_FAILED"],
  ];
  for (const [what, a, b, rejectCode] of refused) {
    it(
      `refuses ${what}`,
      inDatagrams(async (cluster) => {
        const dialer = await cluster.start("a", a);
        const listener = await cluster.start("b", b);
        const told = warnings(listener);
        const error = await cluster.connect(dialer, "b").catch((error) => error);
        assert.ok(error instanceof HandshakeError);
        assert.equal(error.rejectCode, rejectCode);
        assert.equal(dialer.peer("b"), undefined);
        assert.equal(listener.stats().datagrams.refused, 1);
        assert.equal((told[0]!.error as HandshakeError).rejectCode, rejectCode);
      }),
    );
  }

  it(
    "refuses another node than was meant, and our own name",
    inDatagrams(async (cluster) => {
      const a = await cluster.start("a");
      await cluster.start("b");
      const address = addressOf("b");
      const wrong = cluster.environment.run(a.connect({ nodeId: "c", address }));
      await assert.rejects(wrong, { rejectCode: "NODE_ID_MISMATCH" });
      await assert.rejects(a.connect({ nodeId: "a", address }), {
        rejectCode: "DUPLICATE_NODE_ID",
      });
    }),
  );

  it(
    "shows a token without sending it",
    inDatagrams(async (cluster) => {
      const authToken = "a very secret token";
      const [a] = await cluster.pair({ authToken }, { authToken });
      assert.equal(a.peer("b")!.state, "active");
      for (const { packet } of cluster.network.seen) {
        assert.ok(!text(packet).includes(authToken));
      }
    }),
  );

  it(
    "times out where nobody answers, and where a signal says so",
    inDatagrams(async (cluster) => {
      const a = await cluster.start("a", { connectTimeoutMs: 700 });
      const error = await cluster.connect(a, "b").catch((error) => error);
      assert.deepEqual([error.code, error.peer], ["Timeout", "b"]);
      assert.equal(a.peer("b"), undefined);
      const signal = AbortSignal.abort(new Error("enough"));
      const connecting = a.connect({ nodeId: "b", address: addressOf("b") }, { signal });
      await assert.rejects(connecting, { message: "enough" });
      const controller = new AbortController();
      const given = a.connect(
        { nodeId: "b", address: addressOf("b") },
        { signal: controller.signal },
      );
      given.catch(() => {});
      await cluster.environment.advance(100);
      const before = cluster.network.sentTo(addressOf("b")).length;
      controller.abort(new Error("later"));
      await assert.rejects(given, { message: "later" });
      assert.equal(a.peer("b"), undefined);
      await cluster.environment.advance(1000);
      assert.equal(cluster.network.sentTo(addressOf("b")).length, before);
      const hellos = cluster.network.sentTo(addressOf("b")).slice(0, 3);
      assert.deepEqual(hellos.map(({ packet }) => packet.length), [1200, 1200, 1200]);
    }),
  );

  it(
    "is judged so often for one host and no more",
    inDatagrams(async (cluster) => {
      const b = await cluster.start("b", { authToken: "secret" });
      const dialers: Promise<string>[] = [];
      for (let i = 0; i < 120; i++) {
        const dialer = await cluster.start(`d${i}`, {
          listen: `dgram://crowd:${i + 1}`,
          transports: [cluster.network.transport("crowd")],
        });
        const connecting = dialer.connect({ nodeId: "b", address: addressOf("b") });
        dialers.push(connecting.then(() => "", (error) => error.rejectCode));
      }
      await cluster.environment.advance(100);
      assert.equal(b.stats().errors.HandshakeFailed, 100);
      // The others ask again.
      const codes = await cluster.environment.run(Promise.all(dialers));
      assert.deepEqual(new Set(codes), new Set(["AUTH_FAILED"]));
    }),
  );

  it(
    "lets in a node that was restarted within seconds, and no second one beside a living one",
    inDatagrams(async (cluster) => {
      const [a, b] = await cluster.pair();
      const second = await cluster.start("a2", { nodeId: "a" });
      const error = await cluster.connect(second, "b").catch((error) => error);
      assert.equal(error.rejectCode, "DUPLICATE_NODE_ID");
      await a.send("b", bytes("still here"));
      await cluster.environment.advance(10);
      assert.deepEqual(inbox(b), ["still here"]);
      // The first one dies without a word.
      const [from] = cluster.network.seen.map(({ from }) => from);
      cluster.network.filter = (seen) => seen.from !== from && seen.to !== from;
      const before = cluster.environment.now();
      await cluster.connect(second, "b");
      assert.ok(cluster.environment.now() - before < 3000);
      await second.send("b", bytes("now me"));
      await cluster.environment.advance(10);
      assert.deepEqual(inbox(b), ["now me"]);
    }),
  );

  it(
    "keeps a configured peer connected",
    inDatagrams(async (cluster) => {
      const options = { keepaliveIntervalSecs: 1 };
      const peers = [{ nodeId: "b", address: addressOf("b") }, { nodeId: "a", address: "x:1" }];
      const a = await cluster.start("a", { ...options, peers, connectTimeoutMs: 500 });
      await cluster.environment.advance(2000);
      assert.equal(a.peer("b")!.health, "down");
      const b = await cluster.start("b", options);
      await cluster.environment.until(() => a.peer("b")!.health === "up");
      cluster.network.filter = () => false;
      await cluster.environment.until(() => a.peer("b")!.health === "down", 2_100);
      await a.send("b", bytes("lost"));
      assert.equal(a.peer("b")!.stats.messagesLost, 1);
      cluster.network.filter = () => true;
      await cluster.environment.until(() => a.peer("b")!.health === "up");
      await a.send("b", bytes("back"));
      await cluster.environment.advance(10);
      assert.deepEqual(inbox(b), ["back"]);
    }),
  );

  it(
    "is made for a recipient that only a route leads to",
    inDatagrams(async (cluster) => {
      const a = await cluster.start("a");
      const b = await cluster.start("b");
      a.routes.set("did:key:b", { nodeId: "b", address: addressOf("b") });
      await a.send("did:key:b", bytes("lost on the way to a link"));
      await cluster.environment.until(() => a.peer("b")?.health === "up");
      await a.send("did:key:b", bytes("hello"));
      await cluster.environment.advance(10);
      assert.deepEqual(inbox(b), ["hello"]);
    }),
  );
});

describe("what strangers send", () => {
  const SPOOFED = "dgram://victim:9";

  it(
    "is never answered with more than came, before the address is validated",
    inDatagrams(async (cluster) => {
      await cluster.pair();
      const { network, environment } = cluster;
      const recorded = network.seen.map(({ packet }) => packet);
      const start = network.seen.length;
      let bytesIn = 0;
      for (const packet of recorded) {
        for (const length of [packet.length, 60, 18, 5, 0]) {
          const cut = packet.slice(0, length);
          bytesIn += cut.length;
          const before = network.sentTo(SPOOFED, start).length;
          network.inject(cut, SPOOFED, addressOf("b"));
          await environment.advance(10);
          const answers = network.sentTo(SPOOFED, start).slice(before);
          assert.ok(answers.reduce((sum, { packet }) => sum + packet.length, 0) <= cut.length);
        }
      }
      await environment.advance(10_000);
      const answers = network.sentTo(SPOOFED, start);
      // Retries for the hellos, and nothing else: no cookie is good at another address.
      assert.deepEqual([...new Set(answers.map(({ packet }) => packet[1]))], [codeOf(KIND.retry)]);
      assert.equal(answers.length, recorded.filter((packet) => packet[1] === 0x10).length);
      assert.ok(answers.every(({ packet }) => packet.length === 59));
      assert.ok(bytesIn > 20 * answers.length * 59 / 10);
    }),
  );

  it(
    "is not answered where it is no hello, however much of it there is",
    inDatagrams(async (cluster) => {
      const [, b] = await cluster.pair();
      const { network, environment } = cluster;
      const start = network.seen.length;
      let seed = 7;
      for (let i = 0; i < 2000; i++) {
        const packet = Uint8Array.from({ length: i % 100 }, () => {
          seed = (seed * 1_103_515_245 + 12_345) & 0x7fffffff;
          return seed >>> 16;
        });
        if (i % 2 === 0 && packet.length > 1) [packet[0], packet[1]] = [0xda, 0x10 | i % 16];
        network.inject(packet, SPOOFED, addressOf("b"));
      }
      // A hello that is shorter than it must be, and one that is longer.
      for (const length of [1199, 4097]) {
        const hello = new Uint8Array(length);
        hello.set([0xda, 0x10]);
        network.inject(hello, SPOOFED, addressOf("b"));
      }
      await environment.advance(10_000);
      assert.equal(network.sentTo(SPOOFED, start).length, 0);
      const { invalid, unknown, packetsReceived } = b.stats().datagrams;
      assert.ok(invalid > 1000 && unknown > 300, `${invalid} ${unknown}`);
      assert.equal(packetsReceived - 3, invalid + unknown);
      assert.equal(b.stats().peerCount, 1);
    }),
  );

  it(
    "is not taken for what a peer sent, nor is what a peer sent taken twice",
    inDatagrams(async (cluster) => {
      const [a, b] = await cluster.pair();
      const { network, environment } = cluster;
      await a.send("b", bytes("once"));
      await environment.advance(10);
      assert.deepEqual(inbox(b), ["once"]);
      const { packet } = network.seen.findLast(({ to }) => to === addressOf("b"))!;
      network.inject(packet, addressOf("a"), addressOf("b"));
      const guess = packet.slice();
      guess[10]! ^= 1;
      network.inject(guess, addressOf("a"), addressOf("b"));
      await environment.advance(10);
      assert.deepEqual(inbox(b), []);
      const { replayed, unknown } = b.stats().datagrams;
      assert.deepEqual([replayed, unknown], [1, 1]);
    }),
  );

  it(
    "replays no handshake",
    inDatagrams(async (cluster) => {
      const [a, b] = await cluster.pair();
      const { network, environment } = cluster;
      const hello = network.seen.findLast(({ packet }) => packet[1] === 0x10)!;
      await environment.run(a.close({ drainMs: 0 }));
      await environment.advance(10);
      const start = network.seen.length;
      network.inject(hello.packet, hello.from, hello.to);
      await environment.advance(100);
      assert.deepEqual(network.seen.slice(start).map(({ packet }) => packet[1]), [0x13]);
      assert.match(text(network.seen.at(-1)!.packet), /"REPLAYED"/);
      assert.equal(b.peer("a")!.health, "down");
      assert.equal(b.stats().errors.HandshakeFailed, 1);
    }),
  );

  it(
    "takes no place for longer than the handshake may",
    inDatagrams(async (cluster) => {
      const { network, environment } = cluster;
      const b = await cluster.start("b", { connectTimeoutMs: 300 });
      // Nobody's packet gets behind the welcome.
      network.filter = ({ packet }) => packet[1] !== codeOf(KIND.ping);
      const a = await cluster.start("a", { reconnect: { enabled: false } });
      await cluster.connect(a, "b");
      await environment.advance(100);
      assert.equal(b.peer("a"), undefined);
      await environment.advance(1000);
      network.filter = () => true;
      await a.send("b", bytes("too late"));
      await environment.advance(100);
      assert.deepEqual(inbox(b), []);
    }),
  );
});

describe("a peer whose address changes", () => {
  it(
    "is asked at the new one before anything else is sent there",
    inDatagrams(async (cluster) => {
      const [a, b] = await cluster.pair();
      const { network, environment } = cluster;
      const MOVED = "dgram://moved:77";
      const start = network.seen.length;
      network.mask(addressOf("a"), MOVED);
      await b.send("a", bytes("to the old one"));
      await a.send("b", bytes("from the new one"));
      await environment.advance(1.5);
      assert.deepEqual(inbox(b), ["from the new one"]);
      assert.deepEqual(network.sentTo(MOVED, start).map(({ packet }) => packet[1]), [
        codeOf(KIND.ping),
      ]);
      await environment.advance(10);
      assert.equal(b.peer("a")!.connections[0]!.remoteAddress, MOVED);
      assert.equal(b.stats().datagrams.migrations, 1);
      await b.send("a", bytes("to the new one"));
      await environment.advance(10);
      assert.equal(network.seen.at(-1)!.to, MOVED);
      assert.deepEqual(inbox(a).at(-1), "to the new one");
    }),
  );

  it(
    "is not followed to an address that does not answer, nor told much there",
    inDatagrams(async (cluster) => {
      const [a, b] = await cluster.pair();
      const { network, environment } = cluster;
      const VICTIM = "dgram://victim:9";
      b.handle("get", () => new Uint8Array(10_000));
      const start = network.seen.length;
      // What "a" sends is seen as from somebody else, as a peer that means harm could do.
      let bytesIn = 0;
      network.filter = (seen) => {
        if (seen.from !== addressOf("a")) return true;
        bytesIn += seen.packet.length;
        network.inject(seen.packet, VICTIM, seen.to);
        return false;
      };
      for (let i = 0; i < 50; i++) {
        a.request("b", new Uint8Array(1), { topic: "get", timeoutMs: 5000 }).catch(() => {});
        a.trySend("b", new Uint8Array(1));
        await environment.advance(20);
      }
      const victim = network.sentTo(VICTIM, start);
      const bytesOut = victim.reduce((sum, { packet }) => sum + packet.length, 0);
      assert.ok(bytesOut > 0 && bytesOut <= bytesIn);
      assert.ok(victim.every(({ packet }) => packet.length <= 34));
      assert.equal(b.peer("a")!.connections[0]!.remoteAddress, addressOf("a"));
      await environment.advance(10_000);
    }),
  );
});

describe("datagrams under signatures", () => {
  const [A, B, STRANGER] = [newKeys(), newKeys(), newKeys()];
  const trustedKeys = { a: A.publicKey, b: B.publicKey };
  const asA = { signing: { privateKey: A.privateKey, trustedKeys } };
  const asB = { signing: { privateKey: B.privateKey, trustedKeys } };

  it(
    "carry messages and requests, encrypted and as long as said",
    inDatagrams(async (cluster) => {
      const [a, b] = await cluster.pair(asA, asB);
      assert.deepEqual(a.peer("b")!.capabilities, ["signed"]);
      b.handle("echo", ({ payload }) => payload);
      const asked = a.request("b", bytes("signed?"), { topic: "echo" });
      assert.equal(text(await cluster.environment.run(asked)), "signed?");
      await a.send("b", new Uint8Array(65_480 - 105));
      await assert.rejects(a.send("b", new Uint8Array(65_481 - 105)), {
        code: "MessageTooLarge",
        maxSize: 65_480 - 105,
      });
      assert.equal(a.peer("b")!.maxMessageSize, 65_480 - 105);
      await cluster.environment.advance(10);
      assert.equal(inbox(b).length, 1);
      assert.equal(Math.max(...cluster.network.seen.map(({ packet }) => packet.length)), 65_507);
    }),
  );

  it(
    "refuse what was changed, moved to another packet, or signed by somebody else",
    inDatagrams(async (cluster) => {
      const [a, b] = await cluster.pair(asA, asB);
      const { network, environment } = cluster;
      network.filter = ({ packet }) => packet[1] !== codeOf(KIND.data);
      await a.send("b", bytes("one"));
      await a.send("b", bytes("two"));
      network.filter = () => true;
      const [one, two] = network.seen.slice(-2).map(({ packet }) => packet);
      const inject = (packet: Uint8Array) => network.inject(packet, addressOf("a"), addressOf("b"));
      for (let i = 0; i < one!.length; i += 3) {
        const changed = one!.slice();
        changed[i]! ^= 0x40;
        inject(changed);
      }
      // The envelope of the one under the number of the other, and as another kind.
      const moved = one!.slice();
      moved.set(two!.subarray(18, 26), 18);
      inject(moved);
      const pong = one!.slice();
      pong[1] = codeOf(KIND.pong);
      inject(pong);
      await environment.advance(10);
      assert.deepEqual(inbox(b), []);
      assert.ok(b.stats().datagrams.forged > 30);
      inject(one!);
      inject(two!);
      await environment.advance(10);
      assert.deepEqual(inbox(b), ["one", "two"]);
    }),
  );

  const strangers: [string, Options, Options, string][] = [
    [
      "a key that is not trusted",
      {
        signing: { privateKey: STRANGER.privateKey, trustedKeys },
      },
      asB,
      "IDENTITY_REQUIRED",
    ],
    ["no signature", {}, asB, "IDENTITY_REQUIRED"],
    ["a signature that nobody here can check", asA, {}, "IDENTITY_REQUIRED"],
  ];
  for (const [what, a, b, rejectCode] of strangers) {
    it(
      `refuse a dialer with ${what}`,
      inDatagrams(async (cluster) => {
        const [dialer, listener] = [await cluster.start("a", a), await cluster.start("b", b)];
        const error = await cluster.connect(dialer, "b").catch((error) => error);
        assert.equal(error.rejectCode, rejectCode);
        assert.equal(listener.peers().length, 0);
      }),
    );
  }

  it(
    "refuse a listener with a key that is not trusted",
    inDatagrams(async (cluster) => {
      const a = await cluster.start("a", asA);
      const signing = { privateKey: STRANGER.privateKey, trustedKeys };
      await cluster.start("b", { signing });
      const error = await cluster.connect(a, "b").catch((error) => error);
      assert.deepEqual([error.code, error.peer], ["IdentityMismatch", "b"]);
    }),
  );

  it(
    "hold off a dialer under the name of another",
    inDatagrams(async (cluster) => {
      const b = await cluster.start("b", asB);
      const keys = { a: A.publicKey, b: B.publicKey, c: STRANGER.publicKey };
      const c = await cluster.start("c", {
        nodeId: "a",
        signing: { privateKey: STRANGER.privateKey, trustedKeys: keys },
      });
      const error = await cluster.connect(c, "b").catch((error) => error);
      assert.equal(error.rejectCode, "IDENTITY_REQUIRED");
      assert.equal(b.peers().length, 0);
    }),
  );

  it(
    "refuse what is too old",
    inDatagrams(async (cluster) => {
      const { environment, network } = cluster;
      const signing = { ...asB.signing, maxAgeMs: 60_000 };
      const [a, b] = await cluster.pair(asA, { signing });
      network.filter = ({ packet }) => packet[1] !== codeOf(KIND.data);
      await a.send("b", bytes("kept back"));
      const { packet } = network.seen.at(-1)!;
      network.filter = () => true;
      await environment.advance(60_001);
      network.inject(packet, addressOf("a"), addressOf("b"));
      await environment.advance(10);
      assert.deepEqual([inbox(b), b.stats().datagrams.forged], [[], 1]);
    }),
  );
});

describe("a cluster over a bad network", () => {
  const NODES = ["a", "b", "c", "d"];
  const STEPS = 60;
  const keys = new Map(NODES.map((nodeId) => [nodeId, newKeys()]));
  const trustedKeys = Object.fromEntries(
    [...keys].map(([nodeId, { publicKey }]) => [nodeId, publicKey]),
  );

  for (const seed of [...SEEDS, ...SIGNED_SEEDS]) {
    const signed = SIGNED_SEEDS.includes(seed);
    const how = signed ? "encrypted, seed" : "seed";
    const signingOf = (nodeId: string): Options =>
      signed ? { signing: { privateKey: keys.get(nodeId)!.privateKey, trustedKeys } } : {};
    it(
      `runs nothing twice and delivers nothing twice, through cuts, moves and restarts (${how} ${seed})`,
      inDatagrams(
        async (cluster) => {
          const { environment, network } = cluster;
          const random = seededRandom(seed);
          const pick = <T>(list: readonly T[]): T => list[Math.floor(random() * list.length)]!;
          const endpoints = new Map<string, Endpoint>();
          const seen = new Map<string, number>();
          const note = (what: string) => void seen.set(what, (seen.get(what) ?? 0) + 1);
          let answered = 0;
          let lost = 0;
          let port = 1;
          const start = async (nodeId: string) => {
            const peers = NODES.filter((other) => other !== nodeId)
              .map((other) => ({ nodeId: other, address: addressOf(other) }));
            const endpoint = await cluster.start(nodeId, {
              peers,
              keepaliveIntervalSecs: 1,
              connectTimeoutMs: 2000,
              reconnect: { maxBackoffMs: 1000 },
              recvBufferSize: 100_000,
              ...signingOf(nodeId),
            });
            endpoint.onMessage(({ payload }) => note(`message ${text(payload)}`));
            endpoint.handle("run", async ({ payload }) => {
              note(`request ${text(payload)}`);
              const delay = payload.length % 3 * 40;
              await new Promise<void>((done) => void environment.setTimer(delay, done));
              return payload;
            });
            endpoints.set(nodeId, endpoint);
          };
          for (const nodeId of NODES) await start(nodeId);
          for (let step = 0; step < STEPS; step++) {
            for (const [from, endpoint] of endpoints) {
              for (const to of NODES.filter((node) => node !== from)) {
                endpoint.send(to, bytes(`${from} ${to} ${step}`)).catch(() => {});
                const what = bytes(`${from} ${to} ${step}`.padEnd(10 + step % 5));
                endpoint.request(to, what, { topic: "run", timeoutMs: 8000 }).then((answer) => {
                  assert.deepEqual(answer, what);
                  answered++;
                }, () => lost++);
              }
            }
            const event = random();
            if (event < 0.1) {
              const cut = addressOf(pick(NODES));
              network.filter = (packet) => packet.from !== cut && packet.to !== cut;
            } else if (event < 0.3) {
              network.filter = () => true;
            } else if (event < 0.35) {
              const node = pick(NODES);
              await environment.run(endpoints.get(node)!.close({ drainMs: 0 }));
              await start(node);
            } else if (event < 0.45) {
              network.mask(addressOf(pick(NODES)), `dgram://moved:${port++}`);
            }
            await environment.advance(random() * 300);
          }
          network.filter = () => true;
          network.trouble = {};
          await environment.advance(20_000);
          const twice = [...seen].filter(([, times]) => times > 1);
          assert.deepEqual(twice, []);
          assert.equal(answered + lost, STEPS * NODES.length * (NODES.length - 1));
          assert.ok(answered > STEPS * 6, `${answered} answered`);
          for (const [from, endpoint] of endpoints) {
            for (const to of NODES.filter((node) => node !== from)) {
              assert.equal(endpoint.peer(to)?.health, "up", `${from} ${to}`);
              const { connections } = endpoint.peer(to)!;
              assert.equal(connections.length, 1, `${from} ${to}`);
              assert.equal(connections[0]!.encrypted, signed);
            }
          }
        },
        { loss: 0.15, doubled: 0.1, latencyMs: 2, spreadMs: 40 },
        seed,
      ),
    );
  }
});
