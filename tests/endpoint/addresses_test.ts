/** A peer with several addresses: the best that works is used, and what was tried is told. */

import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { type EndpointConfig, HandshakeError, type Transport, TransportError } from "../../mod.ts";
import { bytes, type Cluster, inbox, inCluster, text } from "../support/cluster.ts";

/** The memory network under another scheme. */
function renamed(scheme: string, priority: number, inner: Transport): Transport {
  const memory = (address: string) => address.replace(`${scheme}://`, "memory://");
  return {
    ...inner,
    scheme,
    priority,
    dial: (address, options) => inner.dial(memory(address), options),
    listen: async (address, options) => {
      const listener = await inner.listen(memory(address), options);
      return { ...listener, address, close: () => listener.close() };
    },
  };
}

const FAST = "fast://b-fast:1";
const SLOW = "slow://b-slow:1";

/** `b` listens at two addresses; `a` knows both ways to get there. */
async function pair(cluster: Cluster, options: Partial<EndpointConfig> = {}) {
  const transports = (host: string) => {
    const memory = cluster.network.transport(host);
    return [memory, renamed("fast", 70, memory), renamed("slow", 20, memory)];
  };
  const b = await cluster.start("b", { listen: [SLOW, FAST], transports: transports("b") });
  const a = await cluster.start("a", { transports: transports("a"), poolSize: 1, ...options });
  const dialed = () => cluster.network.dials.map((address) => address.replace("memory://", ""));
  return { a, b, dialed };
}

const BOTH = { nodeId: "b", address: [SLOW, FAST] };

describe("a peer with several addresses", () => {
  it(
    "is dialed at the best one first, and at no other where that works",
    inCluster(async (cluster) => {
      const { a, b, dialed } = await pair(cluster);
      await cluster.environment.run(a.connect(BOTH));
      assert.deepEqual(dialed(), ["b-fast:1"]);
      assert.equal(a.peer("b")!.address, FAST);
      assert.deepEqual(a.peer("b")!.addresses, [SLOW, FAST]);
      await cluster.environment.run(a.send("b", bytes("x")));
      await cluster.environment.until(() => b.stats().messagesReceived === 1);
      assert.deepEqual(inbox(b), ["x"]);
    }),
  );

  it(
    "is dialed at the next one at once when the first one refuses",
    inCluster(async (cluster) => {
      const { a, dialed } = await pair(cluster);
      cluster.network.refusing.add("memory://b-fast:1");
      const before = cluster.environment.now();
      await cluster.environment.run(a.connect(BOTH));
      assert.deepEqual(dialed(), ["b-fast:1", "b-slow:1"]);
      assert.ok(cluster.environment.now() - before < 100);
      assert.equal(a.peer("b")!.address, SLOW);
    }),
  );

  it(
    "is dialed at the next one after 250 ms when the first one is silent",
    inCluster(async (cluster) => {
      const { a, dialed } = await pair(cluster);
      cluster.network.blackHoles.add("memory://b-fast:1");
      const connecting = a.connect(BOTH);
      await cluster.environment.advance(249);
      assert.deepEqual(dialed(), ["b-fast:1"]);
      await cluster.environment.advance(1);
      assert.deepEqual(dialed(), ["b-fast:1", "b-slow:1"]);
      await cluster.environment.run(connecting);
    }),
  );

  it(
    "is found again where it was found last",
    inCluster(async (cluster) => {
      const { a, dialed } = await pair(cluster);
      cluster.network.refusing.add("memory://b-fast:1");
      await cluster.environment.run(a.connect(BOTH));
      cluster.network.refusing.clear();
      const before = dialed().length;
      cluster.network.reset("memory://b-slow:1");
      await cluster.environment.until(() => a.stats().reconnections === 1);
      assert.deepEqual(dialed().slice(before), ["b-slow:1"]);
    }),
  );

  it(
    "moves to a better address when that becomes possible, and loses nothing",
    inCluster(async (cluster) => {
      const { a, b, dialed } = await pair(cluster);
      cluster.network.refusing.add("memory://b-fast:1");
      await cluster.environment.run(a.connect(BOTH));
      const received: string[] = [];
      b.onMessage(({ payload }) => void received.push(text(payload)));
      const sent: string[] = [];
      const send = async (ms: number) => {
        for (let i = 0; i < ms / 50; i++) {
          sent.push(`${sent.length}`);
          assert.ok(a.trySend("b", bytes(sent.at(-1)!)));
          await cluster.environment.advance(50);
        }
      };
      await send(31_000);
      assert.ok(dialed().filter((address) => address === "b-fast:1").length >= 2);
      assert.equal(a.peer("b")!.address, SLOW);
      assert.deepEqual(a.peer("b")!.connections.map(({ remoteAddress }) => remoteAddress), [
        "memory://b-slow:1",
      ]);
      cluster.network.refusing.clear();
      await send(31_000);
      assert.equal(a.peer("b")!.address, FAST);
      assert.deepEqual(a.peer("b")!.connections.map(({ remoteAddress }) => remoteAddress), [
        "memory://b-fast:1",
      ]);
      assert.deepEqual(received, sent);
      assert.equal(a.stats().reconnections, 0);
    }),
  );

  it(
    "stays where it is with upgradeIntervalMs 0",
    inCluster(async (cluster) => {
      const { a, dialed } = await pair(cluster, { pool: { upgradeIntervalMs: 0 } });
      cluster.network.refusing.add("memory://b-fast:1");
      await cluster.environment.run(a.connect(BOTH));
      cluster.network.refusing.clear();
      const before = dialed().length;
      await cluster.environment.advance(600_000);
      assert.equal(dialed().length, before);
    }),
  );

  it(
    "leaves one connection, though two came about",
    inCluster(async (cluster) => {
      const { a, b } = await pair(cluster);
      cluster.network.latencyMs = 300;
      await cluster.environment.run(a.connect(BOTH));
      await cluster.environment.advance(2_000);
      assert.equal(a.poolStats("b").active, 1);
      assert.equal(b.stats().connectionCount, 1);
    }),
  );

  it(
    "is not there: one error says why of each",
    inCluster(async (cluster) => {
      const { a } = await pair(cluster);
      for (const host of ["b-fast:1", "b-slow:1"]) {
        cluster.network.refusing.add(`memory://${host}`);
      }
      const error = await cluster.environment.run(a.connect(BOTH).catch((error) => error));
      assert.ok(error instanceof TransportError);
      assert.equal(error.code, "ConnectionFailed");
      assert.ok(error.message.includes(FAST) && error.message.includes(SLOW), error.message);
      assert.equal((error.cause as AggregateError).errors.length, 2);
    }),
  );

  it(
    "is silent at all of them: the negotiation has timed out",
    inCluster(async (cluster) => {
      const { a } = await pair(cluster);
      for (const host of ["b-fast:1", "b-slow:1"]) {
        cluster.network.blackHoles.add(`memory://${host}`);
      }
      const error = await cluster.environment.run(a.connect(BOTH).catch((error) => error));
      assert.equal(error.code, "NegotiationTimeout");
      assert.match(error.message, /fast:\/\/b-fast:1: no answer; slow:\/\/b-slow:1: no answer/);
    }),
  );

  it(
    "is somebody else at the better one: the other address is used",
    inCluster(async (cluster) => {
      const { a, b } = await pair(cluster);
      await cluster.start("c", { listen: "memory://c-fast:1" });
      const address = ["memory://c-fast:1", SLOW];
      await cluster.environment.run(a.connect({ nodeId: "b", address }));
      assert.equal(a.peer("b")!.address, SLOW);
      assert.equal(b.stats().peerCount, 1);
    }),
  );

  it(
    "is somebody else everywhere: the refusal is told, with its code",
    inCluster(async (cluster) => {
      const { a } = await pair(cluster);
      await cluster.start("c", { listen: ["memory://c:1", "memory://c:2"] });
      const connecting = a.connect({ nodeId: "b", address: ["memory://c:1", "memory://c:2"] });
      const error = await cluster.environment.run(connecting.catch((error) => error));
      assert.ok(error instanceof HandshakeError);
      assert.equal(error.rejectCode, "NODE_ID_MISMATCH");
    }),
  );

  it(
    "may have addresses that can't be used here",
    inCluster(async (cluster) => {
      const { a } = await pair(cluster);
      const address = ["smoke://b:1", SLOW];
      await cluster.environment.run(a.connect({ nodeId: "b", address }));
      assert.equal(a.peer("b")!.address, SLOW);
      await assert.rejects(a.connect({ nodeId: "d", address: ["smoke://b:1", "pigeon://b:1"] }), {
        code: "UnsupportedProtocol",
      });
    }),
  );

  it(
    "has 1 to 16 of them",
    inCluster(async (cluster) => {
      const a = await cluster.start("a");
      const many = Array.from({ length: 17 }, (_, i) => `memory://b:${i + 1}`);
      for (const address of [[], many, ["memory://b:1", "b"], ["memory://b:1", 7]]) {
        await assert.rejects(a.connect({ nodeId: "b", address: address as string[] }), {
          code: "Config",
        });
      }
    }),
  );
});
