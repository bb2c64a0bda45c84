/** Versions of the protocol in processes of different runtimes, and an upgrade node by node. */

import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { EndpointOptions } from "../../mod.ts";
import { type RuntimeName, RUNTIMES } from "../../tools/runtimes.ts";
import { TestCa } from "../support/certs.ts";
import { mayRun } from "../support/may_run.ts";
import { Actor, ActorError } from "./process.ts";
import type { Flowed, Outcome } from "./services.ts";
import type { Arrivals } from "./stream_ledger.ts";

const skip = !mayRun();
const PAIRS: readonly [RuntimeName, RuntimeName][] = [
  ["deno", "bun"],
  ["bun", "node"],
  ["node", "deno"],
];
const VERSIONS = [[2, 3], [3, 2], [3, 3]] as const;
const COUNT = 1_000;

interface PeerSeen {
  state: string;
  version: number | undefined;
  capabilities: string[];
  connections: number;
}

describe("two runtimes with versions of their own", { skip }, () => {
  for (const [dialer, listener] of PAIRS) {
    for (const [own, other] of VERSIONS) {
      it(`${dialer} at ${own} dials ${listener} at ${other}`, async () => {
        const ca = await TestCa.create();
        const options = async (nodeId: string, version: number): Promise<EndpointOptions> => ({
          nodeId,
          maxProtocolVersion: version,
          tls: {
            ...await ca.issue(nodeId),
            ca: ca.ca,
            requireClientAuth: true,
            nodeIdVerification: "CommonName",
          },
        });
        const [a, b] = [new Actor(dialer), new Actor(listener)];
        try {
          const listening = { ...await options("b", other), listen: "tcp://127.0.0.1:0" };
          const [address] = await b.tell({ do: "start", options: listening });
          await a.tell({ do: "start", options: await options("a", own) });
          await a.tell({ do: "connect", nodeId: "b", address });
          const agreed = Math.min(own, other);
          const both = [[a, "b"], [b, "a"]] as const;
          for (const [actor, nodeId] of both) {
            await actor.tell({ do: "serve" });
            const { version, capabilities } = await actor.until<PeerSeen>(
              { do: "peer", nodeId },
              (peer) => peer?.connections === 2,
            );
            assert.equal(version, agreed);
            assert.equal(capabilities.includes("resume"), agreed === 3);
            assert.ok(capabilities.includes("lz4"));
          }
          await Promise.all(
            both.map(([actor, nodeId]) =>
              actor.tell({ do: "send", nodeId, count: COUNT, size: 700 })
            ),
          );
          for (const [actor, nodeId] of both) {
            const received = await actor.until<Record<string, { count: number }>>(
              { do: "received" },
              (seen) => seen[nodeId]?.count === COUNT,
            );
            assert.deepEqual(received[nodeId], { count: COUNT, bytes: COUNT * 700, inOrder: true });
          }
          for (const [actor, nodeId] of both) await newWords(actor, nodeId, agreed);
        } finally {
          await Promise.all([a.close(), b.close()]);
        }
      });
    }
  }
});

/** Topics and requests work in version 3, and are refused before. */
async function newWords(actor: Actor, nodeId: string, agreed: number): Promise<void> {
  const [asked]: Outcome[] = await actor.tell({ do: "ask", nodeId, size: 5, topic: "echo" });
  const withTopic = actor.tell({
    do: "sendWith",
    nodeId,
    count: 1,
    size: 10,
    lane: "normal",
    topic: "t",
  });
  if (agreed === 3) {
    await withTopic;
    return assert.deepEqual(asked, { length: 5 });
  }
  assert.deepEqual(asked, { code: "UnsupportedProtocol" });
  await assert.rejects(withTopic, (error) => {
    assert.ok(error instanceof ActorError);
    assert.equal(error.code, "UnsupportedProtocol");
    return true;
  });
}

/** A node of the cluster: its processes, one after the other. */
interface Node {
  readonly nodeId: string;
  readonly runtime: RuntimeName;
  address: string;
  actor: Actor;
  /** What each process of it received, by sender. */
  readonly arrivals: Record<string, Arrivals>[];
  /** What each process of it sent, by receiver. */
  readonly flows: Record<string, Flowed>[];
}

/** The numbers of a node's next process begin here. */
const GENERATION = 100_000;

class Upgrade {
  readonly nodes: Node[];

  constructor() {
    this.nodes = RUNTIMES.map((runtime) => ({
      nodeId: `on-${runtime}`,
      runtime,
      address: "tcp://127.0.0.1:0",
      actor: new Actor(runtime),
      arrivals: [],
      flows: [],
    }));
  }

  others(node: Node): Node[] {
    return this.nodes.filter((other) => other !== node);
  }

  async start(node: Node, version: number): Promise<void> {
    const known = this.others(node).filter(({ address }) => !address.endsWith(":0"));
    const options: EndpointOptions = {
      nodeId: node.nodeId,
      listen: node.address,
      security: "development",
      maxProtocolVersion: version,
      reconnect: { initialBackoffMs: 20, maxBackoffMs: 100 },
      peers: known.map(({ nodeId, address }) => ({ nodeId, address })),
    };
    [node.address] = await node.actor.tell({ do: "start", options }) as [string];
  }

  async flow(node: Node): Promise<void> {
    const nodeIds = this.others(node).map(({ nodeId }) => nodeId);
    await node.actor.tell({ do: "flow", nodeIds, from: node.flows.length * GENERATION });
  }

  /** Stops sending, and writes down what the process has to say. */
  async quiet(node: Node): Promise<void> {
    await node.actor.tell({ do: "stopFlow" });
    for (const { nodeId } of this.others(node)) await node.actor.tell({ do: "flush", nodeId });
    node.flows.push(await node.actor.tell({ do: "stopFlow" }));
  }

  /** What the process of a node has received. */
  async collect(node: Node): Promise<void> {
    const arrivals: Record<string, Arrivals> = {};
    for (const { nodeId } of this.others(node)) {
      arrivals[nodeId] = await node.actor.tell({ do: "arrivals", nodeId });
    }
    node.arrivals.push(arrivals);
  }

  /** Every two nodes speak the lower of their versions, with whole pools. */
  async agree(versionOf: (node: Node) => number): Promise<void> {
    for (const node of this.nodes) {
      for (const other of this.others(node)) {
        const version = Math.min(versionOf(node), versionOf(other));
        await node.actor.until<PeerSeen | null>(
          { do: "peer", nodeId: other.nodeId },
          (peer) => peer?.state === "active" && peer.version === version && peer.connections >= 2,
        );
      }
    }
  }

  /** `times` more messages arrive at every node from every other one. */
  async flows(times: number): Promise<void> {
    for (const node of this.nodes) {
      const seen = async () => await node.actor.tell({ do: "received" });
      const before: Record<string, { count: number }> = await seen();
      await node.actor.until<Record<string, { count: number }>>(
        { do: "received" },
        (now) =>
          this.others(node).every(({ nodeId }) =>
            (now[nodeId]?.count ?? 0) >= (before[nodeId]?.count ?? 0) + times
          ),
      );
    }
  }

  /** What was sent from one node to another arrived once and in order, or was reported. */
  check(from: Node, to: Node): { sent: number; reported: number } {
    const came = new Set<number>();
    for (const arrivals of to.arrivals) {
      let last = -1;
      for (const [first, end] of arrivals[from.nodeId]?.normal ?? []) {
        assert.ok(first > last, `${first} came to ${to.nodeId} after ${last}`);
        last = end;
        for (let number = first; number <= end; number++) {
          assert.ok(!came.has(number), `${number} came to ${to.nodeId} twice`);
          came.add(number);
        }
      }
    }
    let sent = 0;
    let reported = 0;
    for (const flows of from.flows) {
      const flow = flows[to.nodeId]!;
      const fates = new Map(flow.undelivered);
      assert.equal(fates.size, flow.undelivered.length, "reported twice");
      for (const [number, fate] of fates) {
        assert.ok(number >= flow.from && number < flow.to);
        assert.ok(fate === "unknown" || !came.has(number), `${number} was unsent, and came`);
      }
      for (let number = flow.from; number < flow.to; number++) {
        assert.ok(came.delete(number) || fates.has(number), `${number} is lost without a word`);
      }
      sent += flow.to - flow.from;
      reported += fates.size;
    }
    assert.deepEqual([...came], [], "came and was never sent");
    return { sent, reported };
  }
}

describe("a cluster of three runtimes", { skip }, () => {
  it("is upgraded from version 2 to 3 node by node, while messages flow", async () => {
    const upgrade = new Upgrade();
    const { nodes } = upgrade;
    const upgraded = new Set<Node>();
    const versionOf = (node: Node) => upgraded.has(node) ? 3 : 2;
    try {
      for (const node of nodes) await upgrade.start(node, 2);
      await upgrade.agree(versionOf);
      for (const node of nodes) await upgrade.flow(node);
      await upgrade.flows(20);
      for (const node of nodes) {
        await upgrade.quiet(node);
        // What came until its end is what the old process says last.
        await node.actor.tell({ do: "end" });
        await upgrade.collect(node);
        await node.actor.close();
        node.actor = new Actor(node.runtime);
        upgraded.add(node);
        await upgrade.start(node, 3);
        await upgrade.agree(versionOf);
        await upgrade.flow(node);
        await upgrade.flows(20);
      }
      for (const node of nodes) await upgrade.quiet(node);
      for (const node of nodes) await upgrade.collect(node);
      for (const from of nodes) {
        for (const to of upgrade.others(from)) {
          const { sent, reported } = upgrade.check(from, to);
          assert.ok(sent >= 60, `${sent} from ${from.nodeId} to ${to.nodeId}`);
          assert.ok(reported <= sent / 2, `${reported} of ${sent} reported`);
        }
      }
    } finally {
      await Promise.all(nodes.map(({ actor }) => actor.close()));
    }
  });
});
