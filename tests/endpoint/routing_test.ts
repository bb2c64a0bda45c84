/** Recipients that are no peers: the routing table of an endpoint at work. */

import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { ConfigError, type Endpoint, type EndpointConfig, type PeerAddress } from "../../mod.ts";
import { bytes, type Cluster, inbox, inCluster, text } from "../support/cluster.ts";

const DID = "did:key:z6MkhaXgBZDvotDkL5257faiztiGiC2QtKLGpbnnEGta2doK";
const OTHER_DID = "did:web:example.com:users:42";

const at = (cluster: Cluster, nodeId: string): PeerAddress => ({
  nodeId,
  address: cluster.address(nodeId),
});

async function nodes(
  cluster: Cluster,
  options: (cluster: Cluster) => Partial<EndpointConfig>,
): Promise<[Endpoint, Endpoint, Endpoint]> {
  const b = await cluster.start("b", { poolSize: 1 });
  const c = await cluster.start("c", { poolSize: 1 });
  const a = await cluster.start("a", { poolSize: 1, ...options(cluster) });
  return [a, b, c];
}

const byDid = (cluster: Cluster) => ({ routes: { [DID]: at(cluster, "b") } });

describe("a recipient that is only routed", () => {
  it(
    "is sent to without connect: its node gets the message, and is a peer from then on",
    inCluster(async (cluster) => {
      const [a, b, c] = await nodes(cluster, byDid);
      assert.deepEqual([a.peers(), cluster.network.dials], [[], []]);
      await a.send(DID, bytes("ahoy"), { topic: "t", lane: "control" });
      assert.equal(a.peer("b")!.address, cluster.address("b"));
      await cluster.environment.run(a.flush(DID));
      const { from, payload, topic, lane } = b.tryReceive()!;
      assert.deepEqual([from, text(payload), topic, lane], ["a", "ahoy", "t", "control"]);
      assert.equal(a.peer("b")!.state, "active");
      assert.deepEqual([a.peers().length, a.peer(DID), inbox(c)], [1, undefined, []]);
    }),
  );

  it(
    "is asked, and streamed to, in the same way",
    inCluster(async (cluster) => {
      const [a, b] = await nodes(cluster, byDid);
      const { environment } = cluster;
      b.handle("who", ({ from }) => bytes(`${from} at b`));
      b.onStream("echo", (stream) => stream.readable.pipeTo(stream.writable));
      const answer = await environment.run(a.request(DID, bytes("?"), { topic: "who" }));
      assert.equal(text(answer), "a at b");
      const stream = await a.openStream(DID, { topic: "echo" });
      assert.equal(stream.nodeId, "b");
      const writer = stream.writable.getWriter();
      await environment.run(writer.write(bytes("data")));
      const { value } = await environment.run(stream.readable.getReader().read());
      assert.equal(text(value!), "data");
    }),
  );

  it(
    "is taken by trySend, too, and waits where its node is away",
    inCluster(async (cluster) => {
      const a = await cluster.start("a", { poolSize: 1, ...byDid(cluster) });
      assert.equal(a.trySend(DID, bytes("early")), true);
      await cluster.environment.advance(1_000);
      assert.equal(a.peer("b")!.state, "reconnecting");
      const b = await cluster.start("b", { poolSize: 1 });
      await cluster.environment.run(a.flush(DID));
      assert.deepEqual(inbox(b), ["early"]);
    }),
  );

  it(
    "shares connection and order with others of its node, and with the node itself",
    inCluster(async (cluster) => {
      const routes = (cluster: Cluster) => ({
        routes: { [DID]: at(cluster, "b"), [OTHER_DID]: at(cluster, "b") },
      });
      const [a, b] = await nodes(cluster, routes);
      const to = [DID, OTHER_DID, "b"];
      for (let i = 0; i < 30; i++) {
        if (i === 2) assert.equal(a.peer("b")!.pendingMessages, 2);
        await a.send(to[i % 3]!, bytes(`${i}`));
      }
      await cluster.environment.run(a.flush("b"));
      assert.deepEqual(inbox(b), Array.from({ length: 30 }, (_, i) => `${i}`));
      assert.deepEqual(cluster.network.dials, [cluster.address("b")]);
    }),
  );

  it(
    "goes over the connection that its node has dialed",
    inCluster(async (cluster) => {
      const [a, b] = await nodes(cluster, () => ({}));
      await cluster.connect(b, "a");
      await cluster.pooled(a, b, 1);
      a.routes.set(DID, { nodeId: "b", address: "memory://nowhere:1" });
      await cluster.environment.run(a.send(DID, bytes("x"), { acknowledged: true }));
      assert.deepEqual(inbox(b), ["x"]);
      assert.ok(!cluster.network.dials.includes("memory://nowhere:1"));
    }),
  );
});

describe("the default route", () => {
  it(
    "takes what has no route of its own, and only that",
    inCluster(async (cluster) => {
      const [a, b, c] = await nodes(cluster, (cluster) => ({
        ...byDid(cluster),
        defaultRoute: at(cluster, "c"),
      }));
      await a.send(DID, bytes("for b"));
      await a.send("did:key:unheard-of", bytes("for c"));
      await a.send("some-node", bytes("for c, too"));
      await cluster.environment.run(Promise.all([a.flush("b"), a.flush("c")]));
      assert.deepEqual([inbox(b), inbox(c)], [["for b"], ["for c", "for c, too"]]);
    }),
  );

  it(
    "does not take what is for a known peer, though that is away",
    inCluster(async (cluster) => {
      const [a, b, c] = await nodes(cluster, (cluster) => ({ defaultRoute: at(cluster, "c") }));
      const { environment, network } = cluster;
      await cluster.connect(a, "b");
      network.blackHoles.add(cluster.address("b"));
      network.reset(cluster.address("b"));
      await environment.advance(50);
      await a.send("b", bytes("x"));
      network.blackHoles.clear();
      await environment.run(a.flush("b"));
      assert.deepEqual([inbox(b), inbox(c)], [["x"], []]);
    }),
  );

  it(
    "can be set and removed while messages flow",
    inCluster(async (cluster) => {
      const [a, b, c] = await nodes(cluster, () => ({}));
      const { environment } = cluster;
      a.routes.defaultRoute = at(cluster, "b");
      await environment.run(a.send("x", bytes("1"), { acknowledged: true }));
      a.routes.defaultRoute = at(cluster, "c");
      await environment.run(a.send("x", bytes("2"), { acknowledged: true }));
      a.routes.defaultRoute = undefined;
      await assert.rejects(a.send("x", bytes("3")), { code: "PeerNotFound", peer: "x" });
      assert.deepEqual([inbox(b), inbox(c)], [["1"], ["2"]]);
    }),
  );
});

describe("routes that change while the endpoint runs", () => {
  it(
    "hold for what is sent from then on",
    inCluster(async (cluster) => {
      const [a, b, c] = await nodes(cluster, byDid);
      const { environment } = cluster;
      await environment.run(a.send(DID, bytes("1"), { acknowledged: true }));
      a.routes.set(DID, at(cluster, "c"));
      await environment.run(a.send(DID, bytes("2"), { acknowledged: true }));
      a.routes.set(OTHER_DID, at(cluster, "b"));
      await environment.run(a.send(OTHER_DID, bytes("3"), { acknowledged: true }));
      a.routes.delete(DID);
      await assert.rejects(a.send(DID, bytes("4")), { code: "PeerNotFound", peer: DID });
      a.routes.clear();
      assert.throws(() => a.trySend(OTHER_DID, bytes("5")), { code: "PeerNotFound" });
      // Nodes that were reached by a route stay peers.
      await environment.run(a.send("c", bytes("6"), { acknowledged: true }));
      assert.deepEqual([inbox(b), inbox(c)], [["1", "3"], ["2", "6"]]);
    }),
  );

  it(
    "do not move what waits for the node that was meant before",
    inCluster(async (cluster) => {
      const [a, b, c] = await nodes(cluster, byDid);
      const { environment, network } = cluster;
      network.blackHoles.add(cluster.address("b"));
      await a.send(DID, bytes("for b"));
      a.routes.set(DID, at(cluster, "c"));
      await environment.run(a.send(DID, bytes("for c"), { acknowledged: true }));
      network.blackHoles.clear();
      await environment.run(a.flush("b"));
      assert.deepEqual([inbox(b), inbox(c)], [["for b"], ["for c"]]);
    }),
  );

  it(
    "stay as they are where the new one is wrong",
    inCluster(async (cluster) => {
      const [a, b] = await nodes(cluster, byDid);
      for (
        const route of [
          { nodeId: "c", address: "no address" },
          { nodeId: "", address: cluster.address("c") },
          { nodeId: "two words", address: cluster.address("c") },
        ]
      ) {
        assert.throws(() => a.routes.set(DID, route), ConfigError);
      }
      assert.throws(() => a.routes.set("two words", at(cluster, "c")), ConfigError);
      await cluster.environment.run(a.send(DID, bytes("x"), { acknowledged: true }));
      assert.deepEqual(inbox(b), ["x"]);
    }),
  );
});

describe("a recipient that nobody knows", () => {
  it(
    "is PeerNotFound, whatever is wanted of it, and is not dialed",
    inCluster(async (cluster) => {
      const [a] = await nodes(cluster, byDid);
      const notFound = { code: "PeerNotFound", peer: "nobody", retryable: false };
      const payload = bytes("x");
      await assert.rejects(a.send("nobody", payload), notFound);
      await assert.rejects(a.send("nobody", payload, { acknowledged: true }), notFound);
      await assert.rejects(a.request("nobody", payload), notFound);
      await assert.rejects(a.openStream("nobody"), notFound);
      await assert.rejects(a.flush("nobody"), notFound);
      await assert.rejects(a.disconnect(DID), { code: "PeerNotFound" });
      assert.throws(() => a.trySend("nobody", payload), notFound);
      assert.throws(() => a.poolStats("nobody"), notFound);
      assert.deepEqual([a.peers(), cluster.network.dials], [[], []]);
    }),
  );

  it(
    "and whose route leads back to us is, too",
    inCluster(async (cluster) => {
      const [a] = await nodes(cluster, (cluster) => ({ defaultRoute: at(cluster, "a") }));
      await assert.rejects(a.send("nobody", bytes("x")), { code: "PeerNotFound", peer: "nobody" });
      assert.deepEqual(cluster.network.dials, []);
    }),
  );

  it(
    "and whose route has a scheme without a transport is named, and no peer is left of it",
    inCluster(async (cluster) => {
      const [a] = await nodes(cluster, () => ({}));
      a.routes.set(DID, { nodeId: "d", address: "pigeon://d:1" });
      await assert.rejects(a.send(DID, bytes("x")), /pigeon/);
      assert.deepEqual(a.peers(), []);
    }),
  );

  it(
    "and whose address is another node's gets nothing: the other one refuses",
    inCluster(async (cluster) => {
      const [a, b, c] = await nodes(cluster, (cluster) => ({
        routes: { [DID]: { nodeId: "b", address: cluster.address("c") } },
      }));
      const rejects: unknown[] = [];
      a.addEventListener("warning", ({ detail: { error } }) => {
        rejects.push((error as { rejectCode?: string }).rejectCode);
      });
      await a.send(DID, bytes("x"));
      await cluster.environment.advance(1_000);
      assert.ok(rejects.length > 0 && rejects.every((code) => code === "NODE_ID_MISMATCH"));
      assert.deepEqual([inbox(b), inbox(c), c.peers()], [[], [], []]);
    }),
  );
});
