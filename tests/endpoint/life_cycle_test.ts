import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { type Endpoint, TransportError } from "../../mod.ts";
import { bytes, inbox, inCluster, watchStates } from "../support/cluster.ts";

const names = (endpoint: Endpoint, types: ("peerup" | "peerdown")[]): string[] => {
  const seen: string[] = [];
  for (const type of types) {
    endpoint.addEventListener(type, (event) => seen.push(`${type} ${event.detail.nodeId}`));
  }
  return seen;
};

describe("connections", () => {
  it(
    "go through the states of the diagram, each change told with its reason",
    inCluster(async (cluster) => {
      const a = await cluster.start("a", { poolSize: 1, reconnect: { jitter: 0 } });
      const b = await cluster.start("b", { poolSize: 1 });
      const atA = watchStates(a);
      const atB = watchStates(b);
      await cluster.connect(a, "b");
      cluster.network.reset(cluster.address("b"));
      await cluster.environment.until(() => a.stats().reconnections === 1);
      const steps = (changes: typeof atA) => changes.map(({ from, to }) => `${from}>${to}`);
      assert.deepEqual(steps(atA), [
        "connecting>handshaking",
        "handshaking>active",
        "active>reconnecting",
        "reconnecting>connecting",
        "connecting>handshaking",
        "handshaking>active",
      ]);
      assert.deepEqual(steps(atB).slice(0, 3), [
        "connecting>handshaking",
        "handshaking>active",
        "active>closed",
      ]);
      assert.ok(atA.every(({ reason, nodeId }) => reason.length > 0 && nodeId === "b"));
      assert.match(atA[2]!.reason, /connection reset/);
    }),
  );

  it(
    "fill a pool of the wished size, which is filled again when one dies",
    inCluster(async (cluster) => {
      const a = await cluster.start("a", { poolSize: 4 });
      const b = await cluster.start("b", { poolSize: 4 });
      await cluster.connect(a, "b");
      await cluster.pooled(a, b, 4);
      assert.equal(a.peer("b")?.connections.length, 4);
      const downs = names(a, ["peerdown"]);
      [...cluster.network.links].find(({ info }) => info.remoteAddress.includes("b:1"))!.reset();
      await cluster.environment.advance(5);
      assert.equal(a.poolStats("b").active, 3);
      await cluster.pooled(a, b, 4);
      assert.deepEqual(downs, []);
      assert.equal(a.stats().reconnections, 0);
    }),
  );

  it(
    "settle at the smaller of two pool sizes without storming the other side",
    inCluster(async (cluster) => {
      const a = await cluster.start("a", { poolSize: 6 });
      await cluster.start("b", { poolSize: 1 });
      await cluster.connect(a, "b");
      await cluster.environment.advance(10_000);
      const dials = cluster.network.dials.length;
      assert.ok(dials <= 4, `${dials} dials`);
      await cluster.environment.advance(10_000);
      assert.equal(cluster.network.dials.length, dials);
    }),
  );

  it(
    "made from both sides at once end as one set, dialed by the lower node id",
    inCluster(async (cluster) => {
      const a = await cluster.start("a");
      const b = await cluster.start("b");
      await cluster.environment.run(Promise.all([
        a.connect({ nodeId: "b", address: cluster.address("b") }),
        b.connect({ nodeId: "a", address: cluster.address("a") }),
      ]));
      const send = async (from: Endpoint, to: string) => {
        for (let i = 0; i < 100; i++) {
          await from.send(to, bytes(`${i}`));
          await Promise.resolve();
        }
      };
      await cluster.environment.run(Promise.all([send(a, "b"), send(b, "a")]));
      await cluster.environment.advance(2_000);
      assert.equal(a.poolStats("b").active, 2);
      assert.equal(b.poolStats("a").active, 2);
      assert.ok(a.peer("b")!.connections.every((connection) => connection.dialed));
      assert.ok(b.peer("a")!.connections.every((connection) => !connection.dialed));
      const expected = Array.from({ length: 100 }, (_, i) => `${i}`);
      assert.deepEqual(inbox(a), expected);
      assert.deepEqual(inbox(b), expected);
    }),
  );

  for (let seed = 1; seed <= 20; seed++) {
    it(
      `keep messages in order while they are handed over and renewed (seed ${seed})`,
      inCluster(async (cluster) => {
        const a = await cluster.start("a", { keepaliveIntervalSecs: 1 });
        const b = await cluster.start("b", { keepaliveIntervalSecs: 1 });
        const { environment } = cluster;
        const dials = Promise.all([
          a.connect({ nodeId: "b", address: cluster.address("b") }),
          environment.advance(Math.floor(environment.random() * 4)).then(() =>
            b.connect({ nodeId: "a", address: cluster.address("a") })
          ),
        ]);
        await environment.run(dials);
        let sentByA = 0;
        let sentByB = 0;
        for (let step = 0; step < 300; step++) {
          if (environment.random() < 0.5) await a.send("b", bytes(`${sentByA++}`));
          if (environment.random() < 0.2) await b.send("a", bytes(`${sentByB++}`));
          await environment.advance(Math.floor(environment.random() * 60));
        }
        await environment.advance(3_000);
        assert.deepEqual(inbox(b), Array.from({ length: sentByA }, (_, i) => `${i}`));
        assert.deepEqual(inbox(a), Array.from({ length: sentByB }, (_, i) => `${i}`));
        assert.equal(a.poolStats("b").active, 2);
        assert.equal(a.stats().reconnections + b.stats().reconnections, 0);
      }, { seed }),
    );
  }
});

describe("reconnection", () => {
  it(
    "follows the backoff formula with the injected randomness",
    inCluster(async (cluster) => {
      const times: number[] = [];
      const a = await cluster.start("a", {
        poolSize: 1,
        reconnect: { initialBackoffMs: 100, maxBackoffMs: 30_000, multiplier: 2, jitter: 0 },
      });
      await cluster.start("b", { poolSize: 1 });
      await cluster.connect(a, "b");
      await cluster.environment.advance(2_000);
      a.addEventListener("statechange", ({ detail }) => {
        if (detail.to === "connecting") times.push(cluster.environment.now());
      });
      const b = cluster.endpoints.get("b")!;
      await cluster.environment.run(b.close({ drainMs: 0 }));
      const lost = cluster.environment.now();
      await cluster.environment.advance(120_000);
      const delays = times.map((time, i) => time - (times[i - 1] ?? lost));
      // Each refused attempt takes 1 ms on this network.
      const expected = [100, 200, 400, 800, 1600, 3200, 6400, 12_800, 25_600, 30_000];
      for (const [i, delay] of expected.entries()) {
        assert.ok(
          Math.abs(delays[i]! - delay) <= 3,
          `attempt ${i}: ${delays[i]} instead of ${delay}`,
        );
      }
    }),
  );

  it(
    "brings back a peer that was killed and comes back, without the application doing anything",
    inCluster(async (cluster) => {
      const a = await cluster.start("a");
      const b = await cluster.start("b");
      const seen = names(a, ["peerup", "peerdown"]);
      await cluster.connect(a, "b");
      cluster.network.reset(cluster.address("b"));
      await cluster.environment.run(b.close({ drainMs: 0 }));
      await cluster.environment.advance(3_000);
      await a.send("b", bytes("kept"));
      const again = await cluster.start("b");
      await cluster.environment.until(() => again.stats().messagesReceived === 1);
      assert.deepEqual(seen, ["peerup b", "peerdown b", "peerup b"]);
      assert.deepEqual(inbox(again), ["kept"]);
      assert.equal(a.stats().messagesSent, 1);
    }),
  );

  it(
    "gives up after maxAttempts and reports what waited",
    inCluster(async (cluster) => {
      const a = await cluster.start("a", { reconnect: { maxAttempts: 3, jitter: 0 } });
      const b = await cluster.start("b");
      await cluster.connect(a, "b");
      await cluster.pooled(a, b, 2);
      const states = watchStates(a);
      await cluster.environment.run(b.close({ drainMs: 0 }));
      await a.send("b", bytes("lost"));
      const undelivered: string[] = [];
      a.addEventListener("undelivered", ({ detail }) => {
        undelivered.push(`${detail.fate} ${detail.error.code}`);
      });
      await cluster.environment.until(() => a.peer("b")?.state === "failed");
      assert.deepEqual(undelivered, ["unsent ConnectionFailed"]);
      assert.ok(states.some(({ to }) => to === "failed"));
      await assert.rejects(a.send("b", bytes("x")), { code: "ConnectionFailed" });
      assert.equal(a.trySend("b", bytes("x")), false);
      await cluster.start("b");
      await cluster.connect(a, "b");
      await a.send("b", bytes("again"));
      await cluster.environment.advance(50);
      assert.deepEqual(inbox(cluster.endpoints.get("b")!), ["again"]);
    }),
  );

  it(
    "does not happen when it is switched off",
    inCluster(async (cluster) => {
      const a = await cluster.start("a", { reconnect: { enabled: false } });
      const b = await cluster.start("b");
      await cluster.connect(a, "b");
      await cluster.pooled(a, b, 2);
      const dials = cluster.network.dials.length;
      cluster.network.reset(cluster.address("b"));
      await cluster.environment.advance(60_000);
      assert.equal(cluster.network.dials.length, dials);
      assert.equal(a.peer("b")?.state, "failed");
    }),
  );

  it(
    "of a hundred peers at once is no storm",
    inCluster(async (cluster) => {
      const a = await cluster.start("a", { poolSize: 1 });
      const names = Array.from({ length: 100 }, (_, i) => `n${i}`);
      for (const name of names) await cluster.start(name);
      await cluster.environment.run(
        Promise.all(
          names.map((name) => a.connect({ nodeId: name, address: cluster.address(name) })),
        ),
      );
      const at: number[] = [];
      a.addEventListener("statechange", ({ detail }) => {
        if (detail.to === "handshaking") at.push(cluster.environment.now());
      });
      for (const name of names) cluster.network.reset(cluster.address(name));
      await cluster.environment.until(() => a.stats().reconnections === 100);
      // 32 in a burst, then 100 a second: 68 more take about 0.7 s.
      const tenth = at.filter((time) => time < at[0]! + 100).length;
      assert.ok(tenth <= 50, `${tenth} connections within 100 ms`);
      assert.equal(a.stats().peerCount, 100);
    }),
  );
});

describe("a silent connection", () => {
  const quiet = { keepaliveIntervalSecs: 10, connectTimeoutMs: 5_000 };

  it(
    "is not closed by a read timeout",
    inCluster(async (cluster) => {
      const options = { ioTimeoutMs: 100, keepalive: false, pool: { idleTimeoutMs: 0 } };
      const a = await cluster.start("a", options);
      const b = await cluster.start("b", options);
      await cluster.connect(a, "b");
      const states = watchStates(a);
      await cluster.pooled(a, b, 2);
      states.length = 0;
      await cluster.environment.advance(600_000);
      assert.deepEqual(states, []);
      await a.send("b", bytes("still here"));
      await cluster.environment.advance(20);
      assert.deepEqual(inbox(b), ["still here"]);
    }),
  );

  it(
    "that is dead without a word is noticed by both sides within twice the interval",
    inCluster(async (cluster) => {
      const a = await cluster.start("a", quiet);
      const b = await cluster.start("b", quiet);
      await cluster.connect(a, "b");
      await cluster.pooled(a, b, 2);
      const downs: string[] = [];
      const start = cluster.environment.now();
      for (const endpoint of [a, b]) {
        endpoint.addEventListener("peerdown", () => {
          downs.push(`${endpoint.nodeId} ${cluster.environment.now() - start}`);
        });
      }
      cluster.network.blackHoles.add(cluster.address("b"));
      await cluster.environment.until(() => downs.length === 2);
      assert.ok(cluster.environment.now() - start <= 20_000, downs.join());
    }),
  );

  it(
    "of version 2 that is alive is renewed without the application noticing",
    inCluster(async (cluster) => {
      const a = await cluster.start("a", { ...quiet, maxProtocolVersion: 2 });
      const b = await cluster.start("b", quiet);
      await cluster.connect(a, "b");
      await cluster.pooled(a, b, 2);
      const seen = [...names(a, ["peerdown"]), ...names(b, ["peerdown"])];
      const dials = cluster.network.dials.length;
      await cluster.environment.advance(100_000);
      assert.ok(cluster.network.dials.length > dials);
      assert.deepEqual(seen, []);
      assert.equal(a.poolStats("b").active, 2);
      assert.equal(b.poolStats("a").active, 2);
    }),
  );
});

describe("peerdown", () => {
  const downs = (endpoint: Endpoint): unknown[] => {
    const errors: unknown[] = [];
    endpoint.addEventListener("peerdown", ({ detail }) => errors.push(detail.error));
    return errors;
  };

  for (const dialer of ["a", "b"]) {
    for (const how of ["end", "close"] as const) {
      it(
        `has an error where the links of a process ${how} without a word; ${dialer} dialed`,
        inCluster(async (cluster) => {
          const nodes = { a: await cluster.start("a"), b: await cluster.start("b") };
          const other = dialer === "a" ? "b" : "a";
          await cluster.connect(nodes[dialer as "a" | "b"], other);
          await cluster.pooled(nodes.a, nodes.b, 2);
          const errors = downs(nodes.a);
          const isOfB = dialer === "a"
            ? (address: string) => address === cluster.address("b")
            : (address: string) => address !== cluster.address("a");
          for (const link of [...cluster.network.links]) {
            if (isOfB(link.info.localAddress)) link[how]();
          }
          await cluster.environment.advance(3);
          assert.equal(errors.length, 1);
          const [error] = errors;
          assert.ok(error instanceof TransportError, String(error));
          assert.deepEqual([error.code, error.peer], ["ConnectionClosed", "b"]);
          assert.match(error.message, /b ended it without a word/);
        }),
      );
    }
  }

  for (const maxProtocolVersion of [2, 3]) {
    for (const how of ["disconnect", "close"] as const) {
      it(
        `has none where a peer of version ${maxProtocolVersion} ends by ${how}`,
        inCluster(async (cluster) => {
          const { environment } = cluster;
          const a = await cluster.start("a", { maxProtocolVersion });
          const b = await cluster.start("b");
          await cluster.connect(a, "b");
          await cluster.pooled(a, b, 2);
          const errors = downs(a);
          await environment.run(how === "close" ? b.close() : b.disconnect("a"));
          await environment.advance(5);
          assert.deepEqual(errors, [undefined]);
        }),
      );
    }
  }
});

describe("a node whose application takes nothing for a long time", () => {
  for (const slow of ["dialer", "listener"] as const) {
    it(
      `is not taken for dead: the ${slow}`,
      inCluster(async (cluster) => {
        const options = { keepaliveIntervalSecs: 1, ioTimeoutMs: 700 };
        const a = await cluster.start("a", { ...options, recvBufferSize: 2 });
        const b = await cluster.start("b", { ...options, recvBufferSize: 2 });
        await cluster.connect(a, "b");
        await cluster.pooled(a, b, 2);
        const downs = [names(a, ["peerdown"]), names(b, ["peerdown"])];
        const [from, to] = slow === "dialer" ? [b, a] as const : [a, b] as const;
        const undelivered: string[] = [];
        from.addEventListener("undelivered", ({ detail }) => undelivered.push(detail.fate));
        for (let i = 0; i < 500; i++) await from.send(to.nodeId, bytes(`${i}`.padStart(1000)));
        await cluster.environment.advance(60_000);
        assert.deepEqual(downs, [[], []]);
        const seen: number[] = [];
        to.onMessage(({ payload }) => {
          seen.push(Number(new TextDecoder().decode(payload)));
        });
        await cluster.environment.advance(5_000);
        assert.deepEqual(seen, Array.from({ length: 500 }, (_, i) => i));
        assert.deepEqual(undelivered, []);
        await cluster.environment.advance(10_000);
        assert.deepEqual(downs, [[], []]);
      }),
    );
  }
});

describe("a write of version 2 that makes no progress", () => {
  it(
    "ends the connection when the peer shows no sign of life either",
    inCluster(async (cluster) => {
      const options = {
        keepalive: false,
        ioTimeoutMs: 1_000,
        connectTimeoutMs: 500,
        maxProtocolVersion: 2,
      };
      const a = await cluster.start("a", options);
      const b = await cluster.start("b", { ...options, recvBufferSize: 2 });
      await cluster.connect(a, "b");
      await cluster.pooled(a, b, 2);
      for (let i = 0; i < 200; i++) a.trySend("b", new Uint8Array(1000));
      cluster.network.blackHoles.add(cluster.address("b"));
      const start = cluster.environment.now();
      await cluster.environment.until(() => a.stats().sendFailures === 200);
      const took = cluster.environment.now() - start;
      assert.ok(took >= 1_000 && took <= 2_100, `${took} ms`);
      assert.ok((a.stats().errors.ConnectionClosed ?? 0) + (a.stats().errors.Timeout ?? 0) >= 1);
    }),
  );
});

describe("what was written when a connection of version 2 breaks", () => {
  it(
    "is reported as unknown, for nobody acknowledges it",
    inCluster(async (cluster) => {
      const a = await cluster.start("a", { maxProtocolVersion: 2 });
      const b = await cluster.start("b");
      await cluster.connect(a, "b");
      await cluster.pooled(a, b, 2);
      const fates: string[] = [];
      a.addEventListener("undelivered", ({ detail }) => {
        fates.push(`${new TextDecoder().decode(detail.payload)} ${detail.fate}`);
      });
      await a.send("b", bytes("long ago"));
      await cluster.environment.advance(6_000);
      await a.send("b", bytes("just now"));
      await cluster.environment.run(a.flush("b"));
      cluster.network.reset(cluster.address("b"));
      await cluster.environment.advance(10);
      assert.deepEqual(fates, ["just now unknown"]);
    }),
  );
});

describe("disconnect", () => {
  it(
    "ends the connections in order, reports what waits and forgets the peer",
    inCluster(async (cluster) => {
      const a = await cluster.start("a");
      const b = await cluster.start("b");
      await cluster.connect(a, "b");
      await cluster.pooled(a, b, 2);
      const downs = [names(a, ["peerdown"]), names(b, ["peerdown"])];
      await a.send("b", bytes("last"));
      await cluster.environment.run(a.disconnect("b"));
      await cluster.environment.advance(50);
      assert.deepEqual(downs, [["peerdown b"], ["peerdown a"]]);
      assert.deepEqual(inbox(b), ["last"]);
      assert.equal(a.peer("b"), undefined);
      await assert.rejects(a.disconnect("b"), { code: "PeerNotFound" });
      assert.equal(a.stats().messagesSent, 1);
    }),
  );
});

describe("close", () => {
  it(
    "lets what is queued leave, then ends; calling it again is harmless",
    inCluster(async (cluster) => {
      const a = await cluster.start("a");
      const b = await cluster.start("b");
      await cluster.connect(a, "b");
      for (let i = 0; i < 100; i++) await a.send("b", bytes(`${i}`));
      await cluster.environment.run(Promise.all([a.close(), a.close()]));
      await cluster.environment.advance(20);
      assert.equal(inbox(b).length, 100);
      await assert.rejects(a.send("b", bytes("x")), { code: "Shutdown" });
      await assert.rejects(a.receive(), { code: "Shutdown" });
      await assert.rejects(a.start(), { code: "Shutdown" });
    }),
  );

  it(
    "reports what could not leave in time, and leaves no timer behind",
    inCluster(async (cluster) => {
      const a = await cluster.start("a");
      const b = await cluster.start("b");
      await cluster.connect(a, "b");
      await cluster.pooled(a, b, 2);
      cluster.network.blackHoles.add(cluster.address("b"));
      cluster.network.reset(cluster.address("b"));
      await cluster.environment.advance(5);
      await a.send("b", bytes("stuck"));
      const undelivered: string[] = [];
      a.addEventListener("undelivered", ({ detail }) => undelivered.push(detail.error.code));
      await cluster.environment.run(a.close({ drainMs: 100 }));
      assert.deepEqual(undelivered, ["Shutdown"]);
      cluster.network.blackHoles.clear();
      await cluster.environment.run(b.close({ drainMs: 0 }));
      await cluster.environment.advance(10);
      assert.equal(cluster.environment.pendingTimers, 0);
      assert.equal(cluster.network.links.size, 0);
    }),
  );

  it(
    "ends an iteration after the messages that are still there",
    inCluster(async (cluster) => {
      const a = await cluster.start("a");
      const b = await cluster.start("b");
      await cluster.connect(a, "b");
      await a.send("b", bytes("1"));
      await a.send("b", bytes("2"));
      await cluster.environment.advance(20);
      await cluster.environment.run(b.close({ drainMs: 0 }));
      const seen: string[] = [];
      for await (const { payload } of b) seen.push(new TextDecoder().decode(payload));
      assert.deepEqual(seen, ["1", "2"]);
    }),
  );
});

describe("connect", () => {
  it(
    "rejects with the first failure and forgets a peer that was not known",
    inCluster(async (cluster) => {
      const a = await cluster.start("a");
      const attempt = a.connect({ nodeId: "b", address: cluster.address("b") });
      await assert.rejects(cluster.environment.run(attempt), { code: "ConnectionFailed" });
      assert.equal(a.peer("b"), undefined);
      await cluster.environment.advance(60_000);
      assert.equal(cluster.network.dials.length, 1);
    }),
  );

  it(
    "times out against a black hole",
    inCluster(async (cluster) => {
      const a = await cluster.start("a", { connectTimeoutMs: 700 });
      cluster.network.blackHoles.add(cluster.address("b"));
      const start = cluster.environment.now();
      const attempt = a.connect({ nodeId: "b", address: cluster.address("b") });
      await assert.rejects(cluster.environment.run(attempt), { code: "Timeout", peer: "b" });
      assert.ok(cluster.environment.now() - start <= 702);
    }),
  );

  it(
    "rethrows the reason of its signal",
    inCluster(async (cluster) => {
      const a = await cluster.start("a");
      cluster.network.blackHoles.add(cluster.address("b"));
      const reason = new Error("changed my mind");
      const abort = new AbortController();
      const attempt = a.connect({ nodeId: "b", address: cluster.address("b") }, {
        signal: abort.signal,
      });
      await cluster.environment.advance(100);
      abort.abort(reason);
      await assert.rejects(attempt, (error) => error === reason);
      assert.equal(a.peer("b"), undefined);
    }),
  );

  it(
    "to the wrong node, to ourselves, or with a scheme there is not, says what is wrong",
    inCluster(async (cluster) => {
      const a = await cluster.start("a");
      await cluster.start("b");
      const wrong = a.connect({ nodeId: "c", address: cluster.address("b") });
      await assert.rejects(cluster.environment.run(wrong), {
        code: "HandshakeFailed",
        rejectCode: "NODE_ID_MISMATCH",
      });
      await assert.rejects(a.connect({ nodeId: "a", address: cluster.address("a") }), {
        code: "HandshakeFailed",
      });
      await assert.rejects(a.connect({ nodeId: "b", address: "carrier-pigeon://b:1" }), {
        code: "UnsupportedProtocol",
      });
    }),
  );
});

describe("a second process with the same node id", () => {
  it(
    "can't evict the first, and gets in within seconds once that is gone",
    inCluster(async (cluster) => {
      const hub = await cluster.start("hub");
      const first = await cluster.start("twin");
      await cluster.connect(first, "hub");
      await cluster.pooled(first, hub, 2);
      const second = await cluster.start("twin", { listen: [] });
      cluster.endpoints.set("first twin", first);
      const attempt = second.connect({ nodeId: "hub", address: cluster.address("hub") });
      await assert.rejects(cluster.environment.run(attempt), {
        rejectCode: "DUPLICATE_NODE_ID",
        retryable: true,
      });
      await first.send("hub", bytes("still me"));
      await cluster.environment.advance(20);
      assert.deepEqual(inbox(hub), ["still me"]);
      await cluster.environment.run(first.close({ drainMs: 0 }));
      await cluster.environment.advance(20);
      await cluster.connect(second, "hub");
      await second.send("hub", bytes("now me"));
      await cluster.environment.advance(20);
      assert.deepEqual(inbox(hub), ["now me"]);
    }),
  );
});
