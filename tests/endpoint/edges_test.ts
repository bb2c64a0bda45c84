/** Corners where two things happen at once; each was a bug once. */

import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { Endpoint, type Listener, TransportError } from "../../mod.ts";
import { bytes, inbox, inCluster, text } from "../support/cluster.ts";

describe("the end of a line", () => {
  for (const how of ["close", "disconnect"] as const) {
    it(
      `by ${how} during a renewal of version 2 lets what was just sent arrive`,
      inCluster(async (cluster) => {
        const { environment, network } = cluster;
        const options = { poolSize: 1, keepaliveIntervalSecs: 1, maxProtocolVersion: 2 };
        const a = await cluster.start("a", options);
        const b = await cluster.start("b", options);
        await cluster.connect(a, "b");
        await cluster.pooled(a, b, 1);
        const lost: string[] = [];
        a.addEventListener("undelivered", ({ detail }) => lost.push(text(detail.payload)));
        const dials = network.dials.length;
        await environment.until(() => network.dials.length > dials);
        await a.send("b", bytes("m"));
        await environment.run(how === "disconnect" ? a.disconnect("b") : a.close());
        await environment.advance(100);
        assert.deepEqual([lost, inbox(b)], [[], ["m"]]);
      }, { latencyMs: 20 }),
    );
  }

  for (const to of ["connecting", "reconnecting"]) {
    it(
      `by a statechange listener, at "${to}", leaves no timer and no dial`,
      inCluster(async (cluster) => {
        const { environment, network } = cluster;
        const reconnect = { initialBackoffMs: 20_000, maxBackoffMs: 30_000 };
        const a = await cluster.start("a", { poolSize: 1, reconnect });
        const b = await cluster.start("b", { poolSize: 1 });
        await cluster.connect(a, "b");
        let done: Promise<void> | undefined;
        let dials = 0;
        a.addEventListener("statechange", ({ detail }) => {
          if (detail.to !== to || done !== undefined) return;
          dials = network.dials.length;
          done = a.disconnect("b");
        });
        network.blackHoles.add(cluster.address("b"));
        network.reset(cluster.address("b"));
        await environment.until(() => done !== undefined);
        await environment.run(done!);
        await environment.run(b.close());
        await environment.advance(10);
        assert.equal(environment.pendingTimers, 0);
        await environment.advance(60_000);
        assert.equal(network.dials.length, dials);
      }),
    );
  }

  it(
    "does not throw away what arrived and nobody has taken yet",
    inCluster(async (cluster) => {
      const { environment, network } = cluster;
      const b = await cluster.start("b", { recvBufferSize: 2, resumeWindowMs: 1_000 });
      const a = await cluster.start("a", { poolSize: 1 });
      await cluster.connect(a, "b");
      for (let i = 0; i < 6; i++) await a.send("b", bytes(`${i}`));
      await environment.advance(6_000);
      network.reset(cluster.address("b"));
      await environment.run(a.close());
      await environment.advance(5_000);
      const taken: string[] = [];
      for (let i = 0; i < 6; i++) {
        taken.push(...inbox(b));
        await environment.advance(10);
      }
      assert.deepEqual(taken, ["0", "1", "2", "3", "4", "5"]);
    }),
  );

  it(
    "is no obstacle to connect() from a peerdown listener",
    inCluster(async (cluster) => {
      const a = await cluster.start("a", { poolSize: 1, reconnect: { enabled: false } });
      await cluster.start("b", { poolSize: 1 });
      await cluster.connect(a, "b");
      let outcome = "pending";
      a.addEventListener("peerdown", () => {
        a.connect({ nodeId: "b", address: cluster.address("b") }).then(
          () => outcome = "up",
          (error) => outcome = error.message,
        );
      });
      cluster.network.reset(cluster.address("b"));
      await cluster.environment.advance(5_000);
      assert.equal(outcome, "up");
    }),
  );
});

describe("a connection that gives way to the other side's", () => {
  it(
    "is read to its end before what is sent after it",
    inCluster(async (cluster) => {
      const { environment, network } = cluster;
      const a = await cluster.start("a", { poolSize: 2 });
      const b = await cluster.start("b", { poolSize: 1 });
      await cluster.connect(b, "a");
      network.latencyMs = 1;
      await cluster.connect(a, "b");
      for (let i = 0; i < 300; i++) {
        await environment.run(b.send("a", bytes(`${i}`)));
        await environment.advance(1);
      }
      await environment.advance(1_000);
      assert.ok(a.peer("b")!.connections.every(({ dialed }) => dialed));
      assert.deepEqual(inbox(a), Array.from({ length: 300 }, (_, i) => `${i}`));
    }, { latencyMs: 50 }),
  );
});

describe("a start that fails", () => {
  for (const how of ["the second address is in use", "close() comes meanwhile"] as const) {
    it(
      `because ${how} ends the connections that were accepted already`,
      inCluster(async (cluster) => {
        const { environment, network } = cluster;
        const inner = network.transport("b");
        let settle = () => {};
        const b = new Endpoint({
          nodeId: "b",
          listen: ["memory://b:1", "memory://b:2"],
          security: "legacy",
          environment,
          transports: [{
            ...inner,
            listen: (address, options) => {
              if (!address.endsWith(":2")) return inner.listen(address, options);
              return new Promise<Listener>((resolve, reject) => {
                settle = how.startsWith("close")
                  ? () => resolve(inner.listen(address, options))
                  : () => reject(new TransportError("ConnectionFailed", "in use"));
              });
            },
          }],
        });
        const a = await cluster.start("a", { poolSize: 1, reconnect: { enabled: false } });
        let started: boolean | undefined;
        const starting = b.start().then(() => started = true, () => started = false);
        await environment.advance(1);
        await cluster.connect(a, "b");
        const closing = how.startsWith("close") ? b.close() : undefined;
        settle();
        await environment.run(starting);
        await environment.run(closing ?? b.close());
        await environment.advance(2_000);
        assert.equal(started, false);
        assert.equal(network.links.size, 0);
        assert.equal(a.stats().peerCount, 0);
      }),
    );
  }
});

describe("a rate limit", () => {
  it(
    "does not hold a peer back for ever after it was given up and found again",
    inCluster(async (cluster) => {
      const { environment, network } = cluster;
      const a = await cluster.start("a", {
        poolSize: 1,
        reconnect: { enabled: false },
        rateLimit: { bucketSize: 1, refillRate: 1 },
      });
      const b = await cluster.start("b", { poolSize: 1 });
      await cluster.connect(a, "b");
      for (let i = 0; i < 3; i++) await b.send("a", bytes(`${i}`));
      await environment.advance(20);
      network.reset(cluster.address("b"));
      await environment.advance(20);
      assert.equal(a.peer("b")!.state, "failed");
      await environment.advance(5_000);
      await cluster.connect(a, "b");
      await b.send("a", bytes("after"));
      await environment.advance(30_000);
      assert.deepEqual(inbox(a).at(-1), "after");
    }),
  );

  it(
    "is not used up by sends that find the queue full",
    inCluster(async (cluster) => {
      const rateLimit = { bucketSize: 5, refillRate: 1 };
      const a = await cluster.start("a", { poolSize: 1, maxPendingMessages: 1, rateLimit });
      const b = await cluster.start("b", { poolSize: 1 });
      await cluster.connect(a, "b");
      await cluster.environment.run(b.close({ drainMs: 0 }));
      await cluster.environment.advance(10);
      for (let i = 0; i < 20; i++) a.trySend("b", bytes("x"));
      await a.send("b", bytes("y"), { whenFull: "drop-oldest" });
      assert.equal(a.stats().rateLimited, 0);
    }),
  );
});

describe("a handler that is set late", () => {
  const cases = [
    ["recvBufferSize 1", { recvBufferSize: 1 }, [10, 10, 10, 10]],
    ["large messages", { maxPendingBytes: 2 ** 20, maxMessageSize: 2 ** 20 }, [
      500_000,
      700_000,
      10,
      10,
      10,
    ]],
  ] as const;
  for (const [name, options, sizes] of cases) {
    it(
      `gets what waits before what comes (${name})`,
      inCluster(async (cluster) => {
        const a = await cluster.start("a", { poolSize: 1 });
        const b = await cluster.start("b", { poolSize: 1, ...options });
        await cluster.connect(a, "b");
        for (const [i, size] of sizes.entries()) {
          const payload = new Uint8Array(size);
          payload[0] = i;
          await cluster.environment.run(a.send("b", payload));
        }
        await cluster.environment.advance(100);
        const seen: number[] = [];
        b.onMessage(({ payload }) => {
          seen.push(payload[0]!);
        });
        await cluster.environment.advance(1_000);
        assert.deepEqual(seen, sizes.map((_, i) => i));
      }),
    );
  }
});

describe("an event listener", () => {
  it(
    "that returns a rejected promise is counted, and reaches nobody else",
    inCluster(async (cluster) => {
      const a = await cluster.start("a");
      await cluster.start("b");
      a.addEventListener("peerup", async () => {
        await Promise.resolve();
        throw new Error("boom");
      });
      await cluster.connect(a, "b");
      await cluster.environment.advance(1);
      assert.equal(a.stats().handlerErrors, 1);
    }),
  );
});

describe("a restarted node", () => {
  it(
    "that was dialed before it dials is not taken for a second one",
    inCluster(async (cluster) => {
      const z = await cluster.start("z", { poolSize: 2 });
      const first = await cluster.start("a", { poolSize: 1 });
      await cluster.connect(first, "z");
      await cluster.connect(z, "a");
      await cluster.environment.run(first.close({ drainMs: 0 }));
      await cluster.environment.advance(50);
      const warnings: string[] = [];
      z.addEventListener("warning", ({ detail }) => warnings.push(detail.message));
      const again = await cluster.start("a", { poolSize: 4 });
      await cluster.environment.until(() => z.peer("a")?.state === "active");
      await cluster.connect(again, "z");
      await cluster.environment.advance(60_000);
      assert.deepEqual(warnings.filter((text) => text.includes("DUPLICATE_NODE_ID")), []);
      assert.ok(warnings.length <= 3, `${warnings.length} refusals`);
    }),
  );
});

describe("a send that is given up", () => {
  it(
    "makes room for another at once",
    inCluster(async (cluster) => {
      const a = await cluster.start("a", { maxPendingMessages: 1 });
      const b = await cluster.start("b");
      await cluster.connect(a, "b");
      await cluster.environment.run(b.close({ drainMs: 0 }));
      await a.send("b", bytes("waits"));
      for (let i = 0; i < 70_000; i++) {
        const abort = new AbortController();
        const sending = a.send("b", bytes("x"), { signal: abort.signal });
        abort.abort(i);
        await assert.rejects(sending, (reason) => reason === i);
      }
      assert.equal(a.peer("b")?.pendingMessages, 1);
    }),
  );
});
