/** What a sender learns of its messages, row by row of docs/delivery.md. */

import assert from "node:assert/strict";
import { describe, it } from "node:test";
import {
  type Endpoint,
  type EndpointConfig,
  type LaneName,
  TransportError,
  type UndeliveredDetail,
} from "../../mod.ts";
import { bytes, type Cluster, inbox, inCluster, text } from "../support/cluster.ts";

const LANES: readonly LaneName[] = ["control", "normal", "bulk"];
const LATENCY_MS = 10;
const LATENCY = { latencyMs: LATENCY_MS };
const WINDOW_MS = 5_000;

type Options = Partial<EndpointConfig>;

async function pair(
  cluster: Cluster,
  options: { a?: Options; b?: Options } = {},
): Promise<[Endpoint, Endpoint]> {
  const a = await cluster.start("a", { poolSize: 1, ...options.a });
  const b = await cluster.start("b", { poolSize: 1, ...options.b });
  await cluster.connect(a, "b");
  await cluster.pooled(a, b, options.a?.poolSize ?? 1);
  return [a, b];
}

/** Nothing gets through to "b" any more, and the connections there are break. */
async function cutOff(cluster: Cluster): Promise<void> {
  vanish(cluster);
  cluster.network.reset(cluster.address("b"));
  await cluster.environment.advance(1);
}

/** Packets to and from "b" are lost without a word. */
function vanish({ network, address }: Cluster): void {
  network.blackHoles.add(address("b"));
}

function comeBack({ network }: Cluster): void {
  network.blackHoles.clear();
}

/** Every undelivered event, in short: "fate lane topic payload code". */
function undelivered(endpoint: Endpoint): string[] {
  const lines: string[] = [];
  endpoint.addEventListener("undelivered", ({ detail }) => lines.push(line(detail)));
  return lines;
}

function line({ fate, lane, topic, payload, error }: UndeliveredDetail): string {
  return [fate, lane, topic ?? "-", text(payload), error.code].join(" ");
}

interface Watched {
  outcome: "pending" | "resolved" | "rejected";
  error?: TransportError;
}

function watch(promise: Promise<unknown>): Watched {
  const watched: Watched = { outcome: "pending" };
  promise.then(
    () => watched.outcome = "resolved",
    (error) => Object.assign(watched, { outcome: "rejected", error }),
  );
  return watched;
}

const numbers = (from: number, to: number) =>
  Array.from({ length: to - from }, (_, i) => `${from + i}`);

describe("acknowledged: true", () => {
  it(
    "resolves when the peer's acknowledgement is there, and not before",
    inCluster(async (cluster) => {
      const [a, b] = await pair(cluster);
      const { environment } = cluster;
      const accepted = watch(a.send("b", bytes("1")));
      const acknowledged = watch(a.send("b", bytes("2"), { acknowledged: true }));
      await environment.advance(2 * LATENCY_MS - 1);
      assert.deepEqual([accepted.outcome, acknowledged.outcome], ["resolved", "pending"]);
      assert.equal(b.stats().receiveQueueLength, 2);
      await environment.advance(1);
      assert.equal(acknowledged.outcome, "resolved");
      assert.equal(a.peer("b")!.pendingMessages, 0);
    }, LATENCY),
  );

  for (const lane of LANES) {
    it(
      `waits for the receive queue of a slow application (${lane})`,
      inCluster(async (cluster) => {
        const [a, b] = await pair(cluster, { b: { recvBufferSize: 2 } });
        const { environment } = cluster;
        const sends = numbers(0, 4).map((n) =>
          watch(a.send("b", bytes(n), { acknowledged: true, lane }))
        );
        const states = () => sends.map(({ outcome }) => outcome);
        await environment.advance(500);
        assert.deepEqual(states(), ["resolved", "resolved", "pending", "pending"]);
        assert.equal(text((await b.receive()).payload), "0");
        await environment.advance(100);
        assert.deepEqual(states(), ["resolved", "resolved", "resolved", "pending"]);
        for (const n of numbers(1, 3)) assert.equal(text((await b.receive()).payload), n);
        await environment.advance(100);
        assert.equal(states()[3], "resolved");
      }),
    );
  }

  it(
    "holds for a message in fragments: its last one counts",
    inCluster(async (cluster) => {
      const [a, b] = await pair(cluster);
      const sent = watch(a.send("b", new Uint8Array(1_000_000), { acknowledged: true }));
      await cluster.environment.until(() => sent.outcome !== "pending");
      assert.equal(b.stats().receiveQueueLength, 1);
    }, LATENCY),
  );

  it(
    "survives the connection on which the acknowledgement was lost",
    inCluster(async (cluster) => {
      const [a, b] = await pair(cluster);
      const { environment } = cluster;
      const sent = watch(a.send("b", bytes("x"), { acknowledged: true }));
      await environment.advance(LATENCY_MS + 2);
      assert.equal(b.stats().receiveQueueLength, 1);
      await cutOff(cluster);
      await environment.advance(100);
      assert.equal(sent.outcome, "pending");
      comeBack(cluster);
      await environment.until(() => sent.outcome !== "pending");
      assert.equal(sent.outcome, "resolved");
      assert.deepEqual(inbox(b), ["x"]);
    }, LATENCY),
  );

  it(
    "rejects where the message is reported undelivered, in the same words",
    inCluster(async (cluster) => {
      const [a] = await pair(cluster, { a: { reconnect: { enabled: false } } });
      const { environment } = cluster;
      const events = undelivered(a);
      vanish(cluster);
      const written = watch(a.send("b", bytes("written"), { acknowledged: true }));
      await environment.advance(1);
      cluster.network.reset(cluster.address("b"));
      await environment.until(() => written.outcome !== "pending");
      assert.equal(written.outcome, "rejected");
      assert.ok(written.error instanceof TransportError);
      assert.equal(written.error.peer, "b");
      assert.match(written.error.message, /nobody knows whether it arrived/);
      assert.deepEqual(events, ["unknown normal - written ConnectionClosed"]);
    }),
  );

  it(
    "leaves when its signal fires; what was accepted is sent all the same",
    inCluster(async (cluster) => {
      const [a, b] = await pair(cluster);
      const stop = new AbortController();
      const sent = a.send("b", bytes("x"), { acknowledged: true, signal: stop.signal });
      const reason = new Error("enough");
      stop.abort(reason);
      await assert.rejects(sent, (error) => error === reason);
      await cluster.environment.advance(50);
      assert.deepEqual(inbox(b), ["x"]);
    }),
  );
});

describe("flush", () => {
  it(
    "resolves when all that was accepted before is acknowledged, in every lane",
    inCluster(async (cluster) => {
      const [a, b] = await pair(cluster);
      const { environment } = cluster;
      for (const lane of LANES) await a.send("b", bytes(lane), { lane });
      const flushed = watch(a.flush("b"));
      await environment.advance(2 * LATENCY_MS - 1);
      assert.equal(flushed.outcome, "pending");
      assert.equal(b.stats().receiveQueueLength, 3);
      await environment.advance(5);
      assert.equal(flushed.outcome, "resolved");
    }, LATENCY),
  );

  it(
    "does not wait for what comes after it",
    inCluster(async (cluster) => {
      const [a] = await pair(cluster, { b: { recvBufferSize: 1 } });
      await a.send("b", bytes("before"));
      const flushed = watch(a.flush("b"));
      await a.send("b", bytes("after"));
      await cluster.environment.advance(200);
      assert.equal(flushed.outcome, "resolved");
      assert.equal(a.peer("b")!.pendingMessages, 1);
    }),
  );

  it(
    "goes on over a broken connection, and rejects where a message was given up",
    inCluster(async (cluster) => {
      const [a, b] = await pair(cluster);
      const { environment } = cluster;
      await a.send("b", bytes("1"));
      const first = watch(a.flush("b"));
      await cutOff(cluster);
      await environment.advance(50);
      assert.equal(first.outcome, "pending");
      comeBack(cluster);
      await environment.until(() => first.outcome !== "pending");
      assert.equal(first.outcome, "resolved");
      vanish(cluster);
      await a.send("b", bytes("2"));
      const second = watch(a.flush("b"));
      await cutOff(cluster);
      await environment.run(b.close({ drainMs: 0 }));
      comeBack(cluster);
      const again = await cluster.start("b", { poolSize: 1 });
      await cluster.pooled(a, again, 1);
      assert.equal(second.outcome, "rejected");
      assert.equal(second.error!.code, "ConnectionClosed");
    }),
  );
});

describe("an undelivered event", () => {
  it(
    "has who, what, where, about what, why and how much is known",
    inCluster(async (cluster) => {
      const [a] = await pair(cluster, { a: { maxPendingMessages: 1 } });
      const events: UndeliveredDetail[] = [];
      a.addEventListener("undelivered", ({ detail }) => events.push(detail));
      await cutOff(cluster);
      await a.send("b", bytes("first"));
      const payload = bytes("second");
      const options = { lane: "bulk", topic: "gossip", whenFull: "drop-newest" } as const;
      await a.send("b", payload, options);
      payload.fill(0);
      const [{ nodeId, payload: reported, lane, topic, error, fate }] = events as [
        UndeliveredDetail,
      ];
      assert.equal(events.length, 1);
      assert.deepEqual([nodeId, text(reported), lane, topic, fate], [
        "b",
        "second",
        "bulk",
        "gossip",
        "unsent",
      ]);
      assert.ok(error instanceof TransportError);
      assert.deepEqual([error.code, error.peer, error.retryable], ["Backpressure", "b", true]);
      const { sendFailures, messagesDropped } = a.stats();
      assert.deepEqual([sendFailures, messagesDropped], [1, 1]);
    }),
  );

  it(
    "comes for each message once, fragments or not, in the order of each lane",
    inCluster(async (cluster) => {
      const [a] = await pair(cluster, { a: { reconnect: { enabled: false } } });
      const events: [LaneName, string, number, string][] = [];
      a.addEventListener("undelivered", ({ detail: { lane, topic, payload, fate } }) => {
        events.push([lane, topic!, payload.length, fate]);
      });
      vanish(cluster);
      const sizes = [10, 100_000, 20];
      for (const lane of LANES) {
        for (const [i, size] of sizes.entries()) {
          await a.send("b", new Uint8Array(size), { lane, topic: `${i}` });
        }
      }
      await cluster.environment.advance(5);
      cluster.network.reset(cluster.address("b"));
      await cluster.environment.advance(5);
      for (const lane of LANES) {
        const own = events.filter(([other]) => other === lane);
        assert.deepEqual(
          own.map(([, topic, length]) => [topic, length]),
          sizes.map((size, i) => [`${i}`, size]),
        );
      }
      assert.equal(events.length, 9);
      assert.equal(a.stats().sendFailures, 9);
    }),
  );

  it(
    "never comes for what was acknowledged",
    inCluster(async (cluster) => {
      const [a, b] = await pair(cluster, { a: { reconnect: { enabled: false } } });
      const events = undelivered(a);
      await a.send("b", bytes("acknowledged"));
      await cluster.environment.run(a.flush("b"));
      vanish(cluster);
      await a.send("b", bytes("not"));
      await cluster.environment.advance(5);
      cluster.network.reset(cluster.address("b"));
      await cluster.environment.advance(5);
      assert.deepEqual(events, ["unknown normal - not ConnectionClosed"]);
      assert.deepEqual(inbox(b), ["acknowledged"]);
    }),
  );
});

describe("a connection that breaks", () => {
  for (const poolSize of [1, 2, 3]) {
    it(
      `loses nothing and doubles nothing, again and again (${poolSize} in the pool)`,
      inCluster(async (cluster) => {
        const reconnect = { initialBackoffMs: 10, maxBackoffMs: 50 };
        const [a, b] = await pair(cluster, { a: { poolSize, reconnect }, b: { poolSize } });
        const { environment, network } = cluster;
        const seen: Record<LaneName, string[]> = { control: [], normal: [], bulk: [] };
        b.onMessage(({ lane, payload }) => {
          seen[lane].push(text(payload.subarray(0, 8)).trimEnd());
        });
        const events = undelivered(a);
        const acks: Watched[] = [];
        const total = 400;
        for (let i = 0; i < total; i++) {
          for (const lane of LANES) {
            const large = i % 50 === 7 ? 150_000 : 8;
            const payload = new Uint8Array(large).fill(32);
            payload.set(bytes(`${i}`));
            const acknowledged = i % 3 === 0;
            const sent = a.send("b", payload, { lane, acknowledged });
            if (acknowledged) acks.push(watch(sent));
            else await environment.run(sent);
          }
          if (i % 5 === 0) await environment.advance(1);
          if (i % 40 === 20) {
            // One of them, then all.
            if (i % 80 === 20) [...network.links].at(i % network.links.size)?.reset();
            else network.reset(cluster.address("b"));
          }
        }
        await environment.run(a.flush("b"));
        await environment.advance(50);
        for (const lane of LANES) assert.deepEqual(seen[lane], numbers(0, total), lane);
        assert.deepEqual(events, []);
        assert.ok(acks.every(({ outcome }) => outcome === "resolved"));
        assert.equal(a.stats().sendFailures, 0);
        const received = b.stats();
        assert.equal(received.messagesReceived, 3 * total);
      }, LATENCY),
    );
  }

  it(
    "sends nothing again that had arrived: the peer says what it has",
    inCluster(async (cluster) => {
      const [a, b] = await pair(cluster);
      const { environment } = cluster;
      // They arrive, and their acknowledgement does not.
      for (const n of numbers(0, 10)) await a.send("b", bytes(n));
      await environment.advance(LATENCY_MS + 1);
      assert.equal(b.stats().receiveQueueLength, 10);
      cluster.network.reset(cluster.address("b"));
      await environment.until(() => a.stats().reconnections === 1);
      await environment.run(a.flush("b"));
      assert.deepEqual(inbox(b), numbers(0, 10));
      assert.deepEqual([b.stats().messagesReceived, b.stats().duplicates], [10, 0]);
    }, LATENCY),
  );
});

describe("a peer whose process starts again", () => {
  it(
    "gets what was not yet sent; what was on its way is reported, each once",
    inCluster(async (cluster) => {
      const [a, b] = await pair(cluster);
      const { environment } = cluster;
      const events = undelivered(a);
      await a.send("b", bytes("there"));
      await environment.run(a.flush("b"));
      vanish(cluster);
      for (const lane of LANES) await a.send("b", bytes("on its way"), { lane, topic: "t" });
      await environment.advance(1);
      await cutOff(cluster);
      await environment.run(b.close({ drainMs: 0 }));
      for (const lane of LANES) await a.send("b", bytes("waiting"), { lane });
      assert.deepEqual(events, []);
      comeBack(cluster);
      const again = await cluster.start("b", { poolSize: 1 });
      await cluster.pooled(a, again, 1);
      await environment.advance(50);
      assert.deepEqual(
        events.toSorted(),
        LANES.map((lane) => `unknown ${lane} t on its way ConnectionClosed`).toSorted(),
      );
      assert.deepEqual(inbox(again), Array(3).fill("waiting"));
      assert.deepEqual(inbox(b), ["there"]);
    }),
  );
});

describe("a peer that stays away", () => {
  it(
    "and that we dial: what was on its way is given up with the window, the rest waits",
    inCluster(async (cluster) => {
      const [a, b] = await pair(cluster, { a: { resumeWindowMs: WINDOW_MS } });
      const { environment } = cluster;
      const events = undelivered(a);
      vanish(cluster);
      await a.send("b", bytes("on its way"));
      await environment.advance(1);
      await cutOff(cluster);
      await a.send("b", bytes("waiting"));
      await environment.advance(WINDOW_MS - 100);
      assert.deepEqual(events, []);
      await environment.advance(200);
      assert.deepEqual(events, ["unknown normal - on its way ConnectionClosed"]);
      comeBack(cluster);
      await cluster.pooled(a, b, 1);
      await environment.run(a.flush("b"));
      assert.deepEqual(inbox(b), ["waiting"]);
      assert.equal(events.length, 1);
    }),
  );

  it(
    "and that only ever dialed us: all of it is given up with the window",
    inCluster(async (cluster) => {
      const a = await cluster.start("a", { resumeWindowMs: WINDOW_MS, poolSize: 1 });
      const b = await cluster.start("b", { poolSize: 1 });
      await cluster.connect(b, "a");
      await cluster.pooled(a, b, 1);
      const { environment, network } = cluster;
      const events = undelivered(a);
      network.blackHoles.add(cluster.address("a"));
      await a.send("b", bytes("on its way"));
      await environment.advance(1);
      network.reset(cluster.address("a"));
      await environment.advance(1);
      await a.send("b", bytes("waiting"));
      await environment.advance(WINDOW_MS - 100);
      assert.deepEqual(events, []);
      await environment.advance(200);
      assert.deepEqual(events.toSorted(), [
        "unknown normal - on its way ConnectionClosed",
        "unsent normal - waiting ConnectionClosed",
      ]);
      assert.equal(a.peer("b"), undefined);
      await assert.rejects(a.send("b", bytes("later")), { code: "PeerNotFound" });
      network.blackHoles.clear();
    }),
  );

  it(
    "until we give it up: reports all, and takes nothing until connect",
    inCluster(async (cluster) => {
      const reconnect = { maxAttempts: 2, initialBackoffMs: 10 };
      const [a, b] = await pair(cluster, { a: { reconnect } });
      const { environment } = cluster;
      const events = undelivered(a);
      vanish(cluster);
      await a.send("b", bytes("on its way"));
      await environment.advance(1);
      await cutOff(cluster);
      await a.send("b", bytes("waiting"), { lane: "control", topic: "t" });
      await environment.until(() => a.peer("b")!.state === "failed");
      assert.deepEqual(events.map((event) => event.replace(/ \w+$/, "")).toSorted(), [
        "unknown normal - on its way",
        "unsent control t waiting",
      ]);
      await assert.rejects(async () => await a.send("b", bytes("refused")), TransportError);
      assert.equal(a.trySend("b", bytes("refused")), false);
      comeBack(cluster);
      await cluster.connect(a, "b");
      await a.send("b", bytes("again"));
      await environment.run(a.flush("b"));
      assert.deepEqual(inbox(b), ["again"]);
    }),
  );
});

describe("the end by our own will", () => {
  for (const how of ["disconnect", "close"] as const) {
    const end = (a: Endpoint) => how === "close" ? a.close({ drainMs: 100 }) : a.disconnect("b");

    it(
      `${how} lets what is on its way arrive, and reports nothing of it`,
      inCluster(async (cluster) => {
        const [a, b] = await pair(cluster);
        const events = undelivered(a);
        const sends = numbers(0, 10).map((n) =>
          watch(a.send("b", bytes(n), { acknowledged: true }))
        );
        await cluster.environment.advance(0);
        await cluster.environment.run(end(a));
        await cluster.environment.advance(100);
        assert.deepEqual([inbox(b), events], [numbers(0, 10), []]);
        assert.deepEqual(sends.map(({ outcome }) => outcome), Array(10).fill("resolved"));
      }, LATENCY),
    );

    it(
      `${how} reports what nobody answers for: on its way "unknown", not yet sent "unsent"`,
      inCluster(async (cluster) => {
        const [a] = await pair(cluster, { a: { connectTimeoutMs: 1_000 } });
        const { environment } = cluster;
        const events = undelivered(a);
        vanish(cluster);
        await a.send("b", bytes("on its way"));
        await environment.advance(1);
        await cutOff(cluster);
        await a.send("b", bytes("waiting"));
        await environment.run(end(a));
        await environment.advance(2_000);
        assert.deepEqual(events.map((event) => event.replace(/ \w+$/, "")).toSorted(), [
          "unknown normal - on its way",
          "unsent normal - waiting",
        ]);
      }),
    );
  }
});

describe("the end by the other side's will", () => {
  for (const how of ["disconnect", "close"] as const) {
    it(
      `${how}: what had arrived is acknowledged, and not reported`,
      inCluster(async (cluster) => {
        const [a, b] = await pair(cluster);
        const { environment } = cluster;
        const events = undelivered(a);
        for (const n of numbers(0, 5)) await a.send("b", bytes(n));
        await environment.advance(LATENCY_MS + 1);
        assert.deepEqual([b.stats().receiveQueueLength, a.peer("b")!.pendingMessages], [5, 5]);
        const ended = how === "close" ? b.close({ drainMs: 0 }) : b.disconnect("a");
        await environment.run(ended);
        await environment.advance(100);
        assert.deepEqual([inbox(b), events], [numbers(0, 5), []]);
        assert.equal(a.peer("b")!.pendingMessages, 0);
      }, LATENCY),
    );
  }
});

describe("at most once", () => {
  for (const by of ["message", "endpoint"] as const) {
    const delivery = "at-most-once" as const;
    const options = by === "endpoint" ? { a: { delivery } } : {};
    const plan = by === "endpoint" ? {} : { delivery };

    it(
      `(${by}): what a connection loses is counted, not reported and not sent again`,
      inCluster(async (cluster) => {
        const [a, b] = await pair(cluster, options);
        const { environment } = cluster;
        const events = undelivered(a);
        await a.send("b", bytes("1"), plan);
        await environment.run(a.flush("b"));
        vanish(cluster);
        for (const lane of LANES) await a.send("b", bytes("lost"), { ...plan, lane });
        await environment.advance(1);
        assert.equal(a.stats().messagesLost, 0);
        await cutOff(cluster);
        assert.equal(a.stats().messagesLost, 3);
        assert.equal(a.peer("b")!.pendingMessages, 0);
        // Without a connection it is lost at once.
        await a.send("b", bytes("lost"), plan);
        assert.equal(a.trySend("b", bytes("lost"), plan), true);
        assert.equal(a.stats().messagesLost, 5);
        comeBack(cluster);
        await cluster.pooled(a, b, 1);
        await a.send("b", bytes("2"), plan);
        await environment.run(a.flush("b"));
        assert.deepEqual(inbox(b), ["1", "2"]);
        assert.deepEqual(events, []);
        assert.equal(a.stats().sendFailures, 0);
        assert.equal(a.peer("b")!.stats.messagesLost, 5);
      }),
    );
  }

  it(
    "mixes with what is resumed: the lane keeps its order and the others arrive",
    inCluster(async (cluster) => {
      const [a, b] = await pair(cluster);
      const { environment } = cluster;
      vanish(cluster);
      for (const n of numbers(0, 20)) {
        const delivery = Number(n) % 2 === 0 ? "at-most-once" : "resume";
        await a.send("b", bytes(n), { delivery });
      }
      await environment.advance(1);
      await cutOff(cluster);
      comeBack(cluster);
      await cluster.pooled(a, b, 1);
      await environment.run(a.flush("b"));
      assert.deepEqual(inbox(b), numbers(0, 20).filter((n) => Number(n) % 2 === 1));
      assert.equal(a.stats().messagesLost, 10);
    }),
  );

  it(
    "with acknowledged: true rejects when it is lost, and resolves when it is there",
    inCluster(async (cluster) => {
      const [a, b] = await pair(cluster);
      const { environment } = cluster;
      const plan = { delivery: "at-most-once", acknowledged: true } as const;
      const first = watch(a.send("b", bytes("1"), plan));
      await environment.advance(10);
      assert.equal(first.outcome, "resolved");
      await cutOff(cluster);
      const second = watch(a.send("b", bytes("2"), plan));
      await environment.advance(0);
      assert.equal(second.outcome, "rejected");
      assert.equal(second.error!.code, "ConnectionClosed");
      comeBack(cluster);
      await cluster.pooled(a, b, 1);
      assert.deepEqual(inbox(b), ["1"]);
    }),
  );
});

describe("peer()", () => {
  it(
    "tells what the two have agreed on, and what the other side offers",
    inCluster(async (cluster) => {
      const [a, b] = await pair(cluster, {
        a: { maxMessageSize: 100_000, features: ["query"] },
        b: { maxMessageSize: 200_000, features: ["replication", "query"], maxStreams: 7 },
      });
      const seen = a.peer("b")!;
      assert.deepEqual([seen.version, seen.state, seen.health], [3, "active", "up"]);
      assert.deepEqual([seen.maxMessageSize, seen.maxStreams], [100_000, 7]);
      assert.deepEqual(seen.features, ["replication", "query"]);
      assert.ok(["resume", "streams"].every((word) => seen.capabilities.includes(word)));
      assert.deepEqual(b.peer("a")!.features, ["query"]);
      assert.deepEqual([seen.publicKey, seen.identity], [undefined, undefined]);
    }),
  );

  it(
    "counts what is under way: messages, requests both ways, streams",
    inCluster(async (cluster) => {
      const [a, b] = await pair(cluster);
      const { environment } = cluster;
      let answer = () => {};
      b.handle("slow", ({ payload }) =>
        new Promise((resolve) => {
          answer = () => resolve(payload);
        }));
      b.onStream("log", () => {});
      await a.send("b", new Uint8Array(1_000));
      const asked = a.request("b", bytes("x"), { topic: "slow" });
      const stream = await a.openStream("b", { topic: "log" });
      const here = () => a.peer("b")!;
      const there = () => b.peer("a")!;
      assert.ok(here().pendingBytes >= 1_000 && here().pendingMessages >= 1);
      await environment.advance(100);
      assert.deepEqual([here().openRequests, here().runningRequests], [1, 0]);
      assert.deepEqual([there().openRequests, there().runningRequests], [0, 1]);
      assert.deepEqual([here().openStreams, there().openStreams], [1, 1]);
      answer();
      stream.reset();
      await Promise.allSettled([environment.run(asked), stream.closed]);
      await environment.advance(100);
      for (const peer of [here(), there()]) {
        const { openRequests, runningRequests, openStreams, pendingMessages } = peer;
        assert.deepEqual([openRequests, runningRequests, openStreams, pendingMessages], [
          ...[0, 0, 0, 0],
        ]);
      }
    }, LATENCY),
  );

  it(
    "tells the round trips, and that a peer is late before it is down",
    inCluster(async (cluster) => {
      const [a] = await pair(cluster, { a: { keepaliveIntervalSecs: 10 } });
      const { environment } = cluster;
      await environment.advance(25_000);
      const { roundTrip } = a.peer("b")!;
      assert.ok(roundTrip !== undefined);
      assert.deepEqual([roundTrip.min, roundTrip.p50], [2 * LATENCY_MS, 2 * LATENCY_MS]);
      const health: string[] = [];
      a.addEventListener("healthchange", ({ detail }) => health.push(detail.health));
      vanish(cluster);
      await environment.advance(20_000);
      assert.deepEqual(health, ["suspect", "down"]);
      comeBack(cluster);
      await environment.until(() => a.peer("b")!.health === "up");
    }, LATENCY),
  );
});
