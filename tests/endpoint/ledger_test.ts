/**
 * An independent record of what was accepted, received and reported, under cuts, renewals and
 * both sides dialing. On this network a byte counts as sent once the other side has read it, so
 * here every message must be in the record; docs/protocol.md says what a kernel may swallow.
 */

import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { Endpoint } from "../../mod.ts";
import { bytes, type Cluster, inCluster, text } from "../support/cluster.ts";

class Ledger {
  accepted = 0;
  readonly received: number[] = [];
  readonly reported: number[] = [];
  readonly #from: Endpoint;
  readonly #to: Endpoint;

  constructor(from: Endpoint, to: Endpoint) {
    this.#from = from;
    this.#to = to;
    from.addEventListener("undelivered", ({ detail }) => {
      if (detail.nodeId === to.nodeId) this.reported.push(Number(text(detail.payload)));
    });
  }

  take(payload: Uint8Array): void {
    this.received.push(Number(text(payload)));
  }

  /** Messages of very different sizes: the number, padded. */
  send(size: number): void {
    const payload = bytes(`${this.accepted}`.padStart(size, "0"));
    if (this.#from.peer(this.#to.nodeId) === undefined) return;
    if (this.#from.trySend(this.#to.nodeId, payload)) this.accepted++;
  }

  check(): void {
    const sorted = this.received.toSorted((a, b) => a - b);
    assert.deepEqual(this.received, sorted, "received in order");
    assert.equal(new Set(this.received).size, this.received.length, "received once");
    const known = new Set([...this.received, ...this.reported]);
    const lost = Array.from({ length: this.accepted }, (_, i) => i).filter((i) => !known.has(i));
    assert.deepEqual(lost, [], "lost in silence");
  }
}

async function storm(cluster: Cluster, cuts: boolean): Promise<void> {
  const { environment, network } = cluster;
  const options = { keepaliveIntervalSecs: 0.5, maxPendingMessages: 200 };
  const a = await cluster.start("a", options);
  const b = await cluster.start("b", options);
  const ledgers = [new Ledger(a, b), new Ledger(b, a)] as const;
  b.onMessage(({ payload }) => ledgers[0].take(payload));
  a.onMessage(({ payload }) => ledgers[1].take(payload));
  const dial = (from: Endpoint, to: string) =>
    from.connect({ nodeId: to, address: cluster.address(to) }).catch(() => {});
  const dials = [dial(a, "b"), environment.random() < 0.5 ? dial(b, "a") : Promise.resolve()];
  await environment.run(Promise.all(dials));
  for (let step = 0; step < 150; step++) {
    const burst = Math.floor(environment.random() * 20);
    for (let i = 0; i < burst; i++) {
      ledgers[0].send(1 + Math.floor(environment.random() ** 6 * 40_000));
      if (environment.random() < 0.4) ledgers[1].send(10);
    }
    if (cuts && environment.random() < 0.06) {
      const links = [...network.links];
      links[Math.floor(environment.random() * links.length)]?.reset();
    }
    await environment.advance(Math.floor(environment.random() * 40));
  }
  await environment.run(Promise.all([a.flush("b"), b.flush("a")]).catch(() => {}));
  await environment.advance(2_000);
  for (const ledger of ledgers) ledger.check();
  assert.ok(ledgers[0].received.length > 100);
  if (!cuts) assert.deepEqual([ledgers[0].reported, ledgers[1].reported], [[], []]);
}

describe("nothing accepted is lost in silence, and all is in order", () => {
  for (let seed = 1; seed <= 60; seed++) {
    it(`under cuts (seed ${seed})`, inCluster((cluster) => storm(cluster, true), { seed }));
  }
  for (let seed = 101; seed <= 140; seed++) {
    it(
      `without cuts nothing is even reported (seed ${seed})`,
      inCluster((cluster) => storm(cluster, false), { seed, latencyMs: 3, highWater: 10_000 }),
    );
  }
});

describe("order holds where each connection has a latency of its own", () => {
  for (let seed = 201; seed <= 240; seed++) {
    it(
      `while connections are handed over and renewed (seed ${seed})`,
      inCluster((cluster) => storm(cluster, false), { seed, spreadMs: 60 }),
    );
  }
});

describe("messages that arrived before the connection broke", () => {
  it(
    "are still delivered, before those of the next connection, when the application takes them",
    inCluster(async (cluster) => {
      const a = await cluster.start("a");
      const b = await cluster.start("b", { recvBufferSize: 4 });
      await cluster.environment.run(
        a.connect({ nodeId: "b", address: cluster.address("b") }),
      );
      await cluster.pooled(a, b, 2);
      for (let i = 0; i < 20; i++) await a.send("b", bytes(`${i}`));
      await cluster.environment.advance(20);
      cluster.network.reset(cluster.address("b"));
      await cluster.environment.advance(5);
      await cluster.pooled(a, b, 2);
      for (let i = 20; i < 30; i++) await a.send("b", bytes(`${i}`));
      await cluster.environment.advance(50);
      const seen: number[] = [];
      b.onMessage(({ payload }) => {
        seen.push(Number(text(payload)));
      });
      await cluster.environment.advance(50);
      assert.deepEqual(seen, Array.from({ length: 30 }, (_, i) => i));
      assert.equal(b.stats().messagesReceived, 30);
    }),
  );
});
