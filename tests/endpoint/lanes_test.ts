/** Lanes, fragments and topics between endpoints. */

import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { Endpoint, LaneName, Link, Message, PoolStrategy, Transport } from "../../mod.ts";
import { bytes, type Cluster, inCluster, text } from "../support/cluster.ts";

const LANES: readonly LaneName[] = ["control", "normal", "bulk"];
const FRAGMENT = 65_536;
const MIB = 1_048_576;

async function pair(
  cluster: Cluster,
  options: { a?: object; b?: object; poolSize?: number } = {},
): Promise<[Endpoint, Endpoint]> {
  const poolSize = options.poolSize ?? 1;
  const a = await cluster.start("a", { poolSize, ...options.a });
  const b = await cluster.start("b", { poolSize, ...options.b });
  await cluster.connect(a, "b");
  await cluster.pooled(a, b, poolSize);
  return [a, b];
}

/** Every message as it arrives, and when. */
function arrivals(cluster: Cluster, endpoint: Endpoint): (Message & { at: number })[] {
  const seen: (Message & { at: number })[] = [];
  endpoint.onMessage((message) => {
    seen.push({ ...message, at: cluster.environment.now() });
  });
  return seen;
}

/** Bytes that do not compress. */
function noise(cluster: Cluster, length: number): Uint8Array {
  const words = new Uint32Array(Math.ceil(length / 4));
  for (let i = 0; i < words.length; i++) words[i] = cluster.environment.random() * 2 ** 32;
  return new Uint8Array(words.buffer, 0, length);
}

describe("a control message", () => {
  const LATENCY = { latencyMs: 5 };

  it(
    "overtakes a large bulk message on the same connection",
    inCluster(async (cluster) => {
      const [a, b] = await pair(cluster);
      const { environment } = cluster;
      const seen = arrivals(cluster, b);
      await a.send("b", noise(cluster, 8 * MIB), { lane: "bulk" });
      await environment.advance(20);
      const sentAt = environment.now();
      await a.send("b", bytes("heartbeat"), { lane: "control" });
      await environment.until(() => seen.length === 2);
      assert.deepEqual(seen.map(({ lane }) => lane), ["control", "bulk"]);
      const { at } = seen[0]!;
      // What the link had taken before goes first; then the heartbeat.
      assert.ok(at - sentAt <= 3 * LATENCY.latencyMs, `after ${at - sentAt} ms`);
      assert.ok(seen[1]!.at > at + 10 * LATENCY.latencyMs);
      assert.equal(seen[1]!.payload.length, 8 * MIB);
    }, LATENCY),
  );

  it(
    "makes its round trip while bulk is in flight as it does without",
    inCluster(async (cluster) => {
      const [a, b] = await pair(cluster);
      const { environment } = cluster;
      b.handle("beat", ({ payload }) => payload);
      const roundTrip = async () => {
        const before = environment.now();
        await environment.run(a.request("b", bytes("x"), { topic: "beat", lane: "control" }));
        return environment.now() - before;
      };
      const idle = await roundTrip();
      const bulk = a.send("b", noise(cluster, 8 * MIB), { lane: "bulk", acknowledged: true });
      let loaded = 0;
      for (let i = 0; i < 10; i++) loaded = Math.max(loaded, await roundTrip());
      assert.ok(loaded <= 5 * idle, `${idle} ms idle, ${loaded} ms beside bulk`);
      assert.ok(a.peer("b")!.pendingMessages > 0);
      await environment.run(bulk);
    }, LATENCY),
  );

  it(
    "goes before what waits for a peer that is away",
    inCluster(async (cluster) => {
      const [a, b] = await pair(cluster);
      const seen = arrivals(cluster, b);
      cluster.network.reset(cluster.address("b"));
      await cluster.environment.advance(1);
      for (const lane of ["bulk", "normal", "control"] as const) {
        await a.send("b", bytes(lane), { lane });
      }
      await cluster.environment.until(() => seen.length === 3);
      assert.deepEqual(seen.map(({ payload }) => text(payload)), LANES);
    }),
  );
});

describe("bulk", () => {
  for (const size of [20_000, 22_000, 35_000, 50_000, 65_537]) {
    it(
      `is not starved by a normal lane that is never empty (messages of ${size} bytes)`,
      inCluster(async (cluster) => {
        const [a, b] = await pair(cluster, { a: { maxPendingMessages: 100 } });
        const { environment } = cluster;
        const seen = arrivals(cluster, b);
        const payload = noise(cluster, size);
        let stopped = false;
        const flood = (async () => {
          while (!stopped) await a.send("b", payload);
        })();
        await environment.advance(50);
        const before = seen.length;
        await environment.run(a.send("b", noise(cluster, MIB), { lane: "bulk" }));
        await environment.until(() => seen.some(({ lane }) => lane === "bulk"), 5_000);
        stopped = true;
        await environment.run(flood);
        const normalBytes = (seen.length - 1 - before) * payload.length;
        // Four fragments of normal go out for one of bulk; the rest was on its way before.
        assert.ok(normalBytes <= 8 * MIB, `${normalBytes} bytes went before 1 MiB of bulk`);
        assert.ok(normalBytes >= MIB, `${normalBytes} bytes went before 1 MiB of bulk`);
      }),
    );
  }

  /** What has no room for a fragment, the window, the pool, the size of the messages that fit. */
  const ROOMS = [
    ["window", 500_000, 1, 20_000],
    ["window", 500_000, 2, 20_000],
    ["connection", undefined, 1, 2_000],
  ] as const;
  for (const [room, receiveWindow, poolSize, size] of ROOMS) {
    it(
      `is not starved by messages that fit where a fragment does not: the ${room}, ${poolSize} in the pool`,
      inCluster(async (cluster) => {
        const maxMessageSize = 400_000;
        const b = receiveWindow === undefined ? {} : { maxMessageSize, receiveWindow };
        const bulkBytes = receiveWindow === undefined ? MIB : maxMessageSize;
        const [sender, receiver] = await pair(cluster, {
          poolSize,
          a: { maxPendingMessages: 10_000 },
          b,
        });
        const { environment } = cluster;
        const seen: LaneName[] = [];
        let stopped = false;
        // One message a millisecond: all that may be in flight always is.
        receiver.onMessage(({ lane }) => {
          seen.push(lane);
          if (stopped) return;
          return new Promise<void>((resolve) => environment.setTimer(1, resolve));
        });
        const payload = noise(cluster, size);
        const flood = () => {
          if (stopped) return;
          while (sender.peer("b")!.pendingMessages < 2_000) sender.trySend("b", payload);
          environment.setTimer(1, flood);
        };
        flood();
        await environment.advance(2_000);
        const before = seen.length;
        await sender.send("b", noise(cluster, bulkBytes), { lane: "bulk" });
        const came = environment.until(() => seen.includes("bulk"), 5_000);
        await came.finally(() => stopped = true);
        const normalBytes = (seen.length - 1 - before) * payload.length;
        assert.ok(normalBytes <= 12 * MIB, `${normalBytes} bytes went before the bulk`);
        await environment.run(sender.flush("b"));
      }),
    );
  }

  it(
    "has a connection to itself where there are two",
    inCluster(async (cluster) => {
      const [a, b] = await pair(cluster, { poolSize: 2 });
      const { environment } = cluster;
      const seen = arrivals(cluster, b);
      const sent = () => a.peer("b")!.connections.map(({ bytesSent }) => bytesSent);
      const before = sent();
      await a.send("b", noise(cluster, MIB), { lane: "bulk" });
      for (let i = 0; i < 10; i++) await a.send("b", noise(cluster, 1_000));
      await environment.until(() => seen.length === 11);
      const grown = sent().map((bytes, i) => bytes - before[i]!).toSorted((x, y) => x - y);
      assert.ok(grown[0]! >= 10_000 && grown[0]! < 12_000, `${grown}`);
      assert.ok(grown[1]! >= MIB && grown[1]! < MIB + 2_000, `${grown}`);
    }),
  );
});

describe("bulk that never ends", () => {
  /** Sends again and again until the returned function is called. */
  function steady(cluster: Cluster, send: () => void): () => void {
    let stopped = false;
    const more = () => {
      if (stopped) return;
      send();
      cluster.environment.setTimer(1, more);
    };
    more();
    return () => stopped = true;
  }

  for (const lane of ["control", "normal"] as const) {
    it(
      `gets a connection to itself beside lane ${lane}, though it began when there was only one`,
      inCluster(async (cluster) => {
        const { environment } = cluster;
        const b = await cluster.start("b");
        b.onMessage(() => {});
        const pool = { idleTimeoutMs: 1_000 };
        const a = await cluster.start("a", { pool, compression: { enabled: false } });
        await cluster.connect(a, "b");
        await cluster.pooled(a, b, 2);
        const beat = noise(cluster, 100);
        const beats = steady(cluster, () => {
          for (let i = 0; i < 10; i++) a.trySend("b", beat, { lane });
        });
        await environment.until(() => a.poolStats("b").active === 1);
        const snapshot = noise(cluster, MIB);
        const bulk = steady(cluster, () => {
          while (a.trySend("b", snapshot, { lane: "bulk" }));
        });
        await environment.until(() => a.poolStats("b").active === 2)
          .catch((error) => (beats(), bulk(), Promise.reject(error)));
        await environment.advance(500);
        const sent = () => a.peer("b")!.connections.map(({ bytesSent }) => bytesSent);
        const before = sent();
        await environment.advance(1_000);
        const [little, much] = sent().map((bytes, i) => bytes - before[i]!)
          .toSorted((x, y) => x - y);
        beats();
        bulk();
        assert.ok(little! >= 900_000 && little! <= 1_500_000, `${little} bytes of ${lane}`);
        assert.ok(much! >= 10 * MIB, `${much} bytes of bulk`);
        await environment.run(a.flush("b"));
        assert.equal(b.stats().duplicates, 0);
      }, { highWater: 100_000, latencyMs: 2 }),
    );
  }
});

describe("order", () => {
  const strategies: PoolStrategy[] = ["first-available", "round-robin", "least-loaded"];
  for (const strategy of strategies) {
    for (const poolSize of [1, 2, 4]) {
      it(
        `holds within each lane, with ${poolSize} connections (${strategy})`,
        inCluster(async (cluster) => {
          const [a, b] = await pair(cluster, { a: { pool: { strategy } }, poolSize });
          const { environment } = cluster;
          const seen = arrivals(cluster, b);
          const counts = [0, 0, 0];
          const total = 300;
          for (let i = 0; i < total; i++) {
            const lane = Math.floor(environment.random() * 3);
            const size = 4 + Math.floor(environment.random() ** 8 * 200_000);
            const payload = new Uint8Array(size);
            new DataView(payload.buffer).setUint32(0, counts[lane]!++);
            await environment.run(a.send("b", payload, { lane: LANES[lane] }));
            if (i % 10 === 0) await environment.advance(1);
          }
          await environment.run(a.flush("b"));
          await environment.until(() => seen.length === total);
          for (const [i, lane] of LANES.entries()) {
            const numbers = seen.filter((message) => message.lane === lane)
              .map(({ payload }) => new DataView(payload.buffer, payload.byteOffset).getUint32(0));
            assert.deepEqual(numbers, Array.from({ length: counts[i]! }, (_, n) => n));
          }
          assert.equal(b.stats().duplicates, 0);
        }, { spreadMs: 20 }),
      );
    }
  }
});

describe("messages in fragments", () => {
  it(
    "arrive whole at every size around a fragment, with their topics, in every lane",
    inCluster(async (cluster) => {
      const maxMessageSize = 4 * FRAGMENT;
      const [a, b] = await pair(cluster, { a: { maxMessageSize }, b: { maxMessageSize } });
      const seen = arrivals(cluster, b);
      const sizes = [1, 2, 3, 4].flatMap((n) => [-1, 0, 1].map((d) => n * FRAGMENT + d))
        .filter((size) => size <= maxMessageSize);
      const sent: [LaneName, string, Uint8Array][] = [];
      for (const size of [0, 1, ...sizes]) {
        for (const lane of LANES) {
          const payload = noise(cluster, size);
          const topic = `${lane}/${size}`;
          sent.push([lane, topic, payload]);
          await cluster.environment.run(a.send("b", payload, { lane, topic }));
        }
      }
      await cluster.environment.until(() => seen.length === sent.length);
      for (const [lane, topic, payload] of sent) {
        const got = seen.find((message) => message.topic === topic)!;
        assert.equal(got.lane, lane);
        assert.deepEqual(got.payload, payload);
      }
    }),
  );
});

describe("topics", () => {
  it(
    "have 1 to 255 bytes of UTF-8, and none is undefined",
    inCluster(async (cluster) => {
      const [a, b] = await pair(cluster);
      const seen = arrivals(cluster, b);
      const topics = ["t", "x".repeat(255), "é".repeat(127), "raft/⚓"];
      for (const topic of topics) await a.send("b", bytes("x"), { topic });
      await a.send("b", bytes("x"));
      await cluster.environment.advance(20);
      assert.deepEqual(seen.map(({ topic }) => topic), [...topics, undefined]);
      const send = (topic: string) => async () => await a.send("b", bytes("x"), { topic });
      for (const topic of ["", "x".repeat(256), "é".repeat(128), "\ud800"]) {
        await assert.rejects(send(topic), RangeError);
        assert.throws(() => a.trySend("b", bytes("x"), { topic }), RangeError);
      }
      const lane = "fast" as LaneName;
      await assert.rejects(async () => await a.send("b", bytes("x"), { lane }), TypeError);
      await cluster.environment.advance(20);
      assert.equal(seen.length, topics.length + 1);
    }),
  );

  it(
    "and lanes travel with a broadcast",
    inCluster(async (cluster) => {
      const [a, b] = await pair(cluster);
      const c = await cluster.start("c", { poolSize: 1 });
      await cluster.connect(a, "c");
      const [atB, atC] = [arrivals(cluster, b), arrivals(cluster, c)];
      const result = await a.broadcast(bytes("all"), { lane: "control", topic: "raft" });
      await cluster.environment.advance(20);
      assert.deepEqual([result.delivered.toSorted(), result.failed], [["b", "c"], []]);
      for (const [message] of [atB, atC]) {
        assert.deepEqual([message!.lane, message!.topic, text(message!.payload)], [
          "control",
          "raft",
          "all",
        ]);
      }
    }),
  );
});

describe("what may wait", () => {
  const LIMITS = { maxPendingMessages: 16, maxPendingBytes: 16 * MIB };

  /** A peer that is away, and `a` with a full queue of bulk. */
  async function full(cluster: Cluster) {
    const [a] = await pair(cluster, { a: LIMITS });
    cluster.network.blackHoles.add(cluster.address("b"));
    cluster.network.reset(cluster.address("b"));
    await cluster.environment.advance(5);
    const taken = (lane: LaneName, word = "x") => a.trySend("b", bytes(word), { lane });
    const fill = (lane: LaneName) => {
      let count = 0;
      while (taken(lane)) count++;
      return count;
    };
    return { a, taken, fill };
  }

  it(
    "of bulk is three quarters, of all the limit, of control an eighth more",
    inCluster(async (cluster) => {
      const { a, fill } = await full(cluster);
      assert.equal(fill("bulk"), 12);
      assert.equal(fill("normal"), 4);
      assert.equal(fill("control"), 2);
      assert.equal(a.peer("b")!.pendingMessages, 18);
    }),
  );

  it(
    "is counted in bytes, too",
    inCluster(async (cluster) => {
      const { a } = await full(cluster);
      const payload = noise(cluster, MIB);
      const count = (lane: LaneName) => {
        let taken = 0;
        while (taken < 5 && a.trySend("b", payload.subarray(0, MIB - 1000), { lane })) taken++;
        return taken;
      };
      let bulk = 0;
      while (a.trySend("b", noise(cluster, 3 * MIB), { lane: "bulk" })) bulk++;
      assert.equal(bulk, 4);
      assert.equal(count("normal"), 4);
      assert.equal(count("control"), 2);
    }),
  );

  it(
    "of bulk never makes the others wait, whoever came first",
    inCluster(async (cluster) => {
      const { a, fill } = await full(cluster);
      fill("bulk");
      const order: string[] = [];
      const waits = (lane: LaneName, word: string) =>
        a.send("b", bytes(word), { lane }).then(() => order.push(word));
      const bulk = waits("bulk", "bulk");
      await cluster.environment.run(waits("normal", "normal"));
      await cluster.environment.run(waits("control", "control"));
      assert.deepEqual(order, ["normal", "control"]);
      fill("normal");
      const late = [waits("normal", "late normal"), waits("control", "late control")];
      await cluster.environment.run(late[1]!);
      cluster.network.blackHoles.clear();
      await cluster.environment.run(Promise.all([bulk, ...late]));
      assert.deepEqual(order, ["normal", "control", "late control", "bulk", "late normal"]);
    }),
  );
});

describe('whenFull: "drop-oldest"', () => {
  async function away(cluster: Cluster) {
    const [a, b] = await pair(cluster, { a: { maxPendingMessages: 3 } });
    cluster.network.blackHoles.add(cluster.address("b"));
    cluster.network.reset(cluster.address("b"));
    await cluster.environment.advance(5);
    const dropped: string[] = [];
    a.addEventListener("undelivered", ({ detail }) => {
      dropped.push(`${detail.lane} ${text(detail.payload)} ${detail.fate}`);
    });
    const send = (word: string, lane: LaneName) =>
      a.send("b", bytes(word), { lane, whenFull: "drop-oldest" });
    const back = async () => {
      cluster.network.blackHoles.clear();
      const seen = arrivals(cluster, b);
      await cluster.pooled(a, b, 1);
      await cluster.environment.advance(20);
      return seen.map(({ payload }) => text(payload));
    };
    return { send, back, dropped };
  }

  it(
    "drops the oldest of its own lane, then of the least urgent one",
    inCluster(async (cluster) => {
      const { send, back, dropped } = await away(cluster);
      for (const word of ["bulk 1", "bulk 2", "bulk 3"]) await send(word, "bulk");
      await send("normal 1", "normal");
      await send("normal 2", "normal");
      // An eighth more may wait for the control lane: one message here.
      await send("control 1", "control");
      await send("control 2", "control");
      assert.deepEqual(dropped, [
        "bulk bulk 1 unsent",
        "normal normal 1 unsent",
        "control control 1 unsent",
      ]);
      assert.deepEqual(await back(), ["control 2", "normal 2", "bulk 2", "bulk 3"]);
    }),
  );

  it(
    "never drops what is more urgent than the new one",
    inCluster(async (cluster) => {
      const { send, back, dropped } = await away(cluster);
      for (const word of ["1", "2", "3"]) await send(word, "control");
      await send("4", "bulk");
      assert.deepEqual(dropped, ["bulk 4 unsent"]);
      assert.deepEqual(await back(), ["1", "2", "3"]);
    }),
  );
});

describe("lanes over links that share a connection", () => {
  it(
    "have one each, though poolSize is less",
    inCluster(async (cluster) => {
      const transports = (host: string): Transport[] => {
        const memory = cluster.network.transport(host);
        const shared = (link: Link): Link => {
          Object.assign(link, { info: { ...link.info, multiplexed: true } });
          return link;
        };
        return [{
          ...memory,
          dial: async (address, options) => shared(await memory.dial(address, options)),
          listen: (address, options) =>
            memory.listen(address, {
              ...options,
              onLink: (link) => options.onLink(shared(link)),
            }),
        }];
      };
      const b = await cluster.start("b", { transports: transports("b") });
      const compression = { enabled: false };
      const a = await cluster.start("a", { transports: transports("a"), compression });
      await cluster.connect(a, "b");
      await cluster.pooled(a, b, 3);
      for (const lane of LANES) {
        const message = new Uint8Array(20_000).fill(LANES.indexOf(lane));
        await cluster.environment.run(a.send("b", message, { lane, acknowledged: true }));
      }
      for (const { bytesSent } of a.peer("b")!.connections) {
        assert.ok(bytesSent > 20_000 && bytesSent < 30_000, `${bytesSent} bytes`);
      }
      assert.deepEqual(a.peer("b")!.connections.length, 3);
    }),
  );
});
