/** The keys of links over datagrams: when they are made, and that no link outlives its own. */

import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { Bandwidth } from "../../src/peer/bandwidth.ts";
import { Datagrams } from "../../src/peer/datagrams.ts";
import { Handlers } from "../../src/peer/requests.ts";
import type { SendPlan } from "../../src/peer/send_queue.ts";
import type { PacketCrypto } from "../../src/protocol/datagram/encryption.ts";
import { PacketSeal } from "../../src/protocol/datagram/seal.ts";
import { PACKET } from "../../src/protocol/datagram/types.ts";
import { NORMAL } from "../../src/protocol/v3/types.ts";
import { resolveOptions } from "../../src/resolve_options.ts";
import {
  parsePublicKey,
  readSigningKey,
  sha256,
  verifySignature,
} from "../../src/runtime/ed25519.ts";
import { packetCrypto } from "../../src/runtime/packet_crypto.ts";
import { newKeys } from "../endpoint/on_the_line.ts";
import { bytes, text } from "../support/cluster.ts";
import { DatagramNetwork, type Seen } from "../support/datagram_network.ts";
import { VirtualEnvironment } from "../support/memory_network.ts";

type Name = "a" | "b";

const KEYS = { a: newKeys(), b: newKeys() };
const ADDRESSES = { a: "dgram://a:1", b: "dgram://b:1" };
/** Packets that a key of these nodes seals. */
const MAX_PACKETS = 64;
const PLAN: SendPlan = {
  lane: NORMAL,
  topic: undefined,
  atMostOnce: true,
  tracker: undefined,
};

/** A node, and what it has counted. */
class Node {
  readonly nodeId: Name;
  readonly datagrams: Datagrams;
  readonly got: string[] = [];
  readonly handlers = new Handlers();
  /** Key pairs it has made. */
  exchanges = 0;
  downs = 0;

  constructor(nodeId: Name, environment: VirtualEnvironment, network: DatagramNetwork) {
    this.nodeId = nodeId;
    const crypto: PacketCrypto = {
      ...packetCrypto,
      maxPackets: MAX_PACKETS,
      newExchange: () => {
        this.exchanges++;
        return packetCrypto.newExchange();
      },
    };
    const key = readSigningKey(KEYS[nodeId].privateKey);
    const trustedKeys = new Map(
      (["a", "b"] as const).map((name) => [name, [parsePublicKey(KEYS[name].publicKey)!]]),
    );
    const options = resolveOptions({
      nodeId,
      security: "legacy",
      connectTimeoutMs: 1000,
      keepaliveIntervalSecs: 1,
    });
    const transport = network.transport(nodeId);
    this.datagrams = new Datagrams({
      options,
      environment,
      handlers: this.handlers,
      sha256,
      seal: new PacketSeal({
        nodeId,
        sign: (message) => key.sign(message),
        verify: verifySignature,
        trustedKeys,
        maxAgeMs: 60_000,
        encryption: crypto,
      }),
      inboxFull: false,
      bandwidth: new Bandwidth(options.bandwidth, environment),
      transport: () => transport,
      deliver: (_, payload) => void this.got.push(text(payload)),
      onPeerUp: () => {},
      onPeerDown: () => void this.downs++,
      onHealth: () => {},
      onFailure: () => {},
      onHandlerError: () => {},
      onRefused: () => {},
      warn: () => {},
    });
  }

  async send(to: Name, message: string): Promise<void> {
    await this.datagrams.get(to)!.send(bytes(message), PLAN, undefined);
  }
}

interface World {
  readonly environment: VirtualEnvironment;
  readonly network: DatagramNetwork;
  readonly a: Node;
  readonly b: Node;
  /** One dials the other; "a" unless said. */
  dial(from?: Name): Promise<void>;
}

function inWorld(test: (world: World) => Promise<void>): () => Promise<void> {
  return async () => {
    const environment = new VirtualEnvironment(1);
    const network = new DatagramNetwork(environment, {}, 1);
    const [a, b] = [new Node("a", environment, network), new Node("b", environment, network)];
    for (const node of [a, b]) await node.datagrams.listen(ADDRESSES[node.nodeId]);
    const dial = async (from: Name = "a") => {
      const [dialer, to] = from === "a" ? [a, "b" as const] : [b, "a" as const];
      await environment.run(dialer.datagrams.connect(to, ADDRESSES[to], undefined));
      await environment.advance(10);
    };
    try {
      await test({ environment, network, a, b, dial });
    } finally {
      const error = new Error("the test is over") as never;
      await environment.run(Promise.all([a, b].map((node) => node.datagrams.end(error))));
      await environment.advance(10_000);
    }
    assert.equal(environment.pendingTimers, 0);
  };
}

const kindOf = ({ packet }: Seen) => packet[1]! & 15;

/** The highest number of a packet for each tag. */
function numbersByTag(network: DatagramNetwork): number[] {
  const highest = new Map<string, number>();
  const seenTwice = new Set<string>();
  for (const seen of network.seen) {
    if (kindOf(seen) < PACKET.data) continue;
    const tag = seen.packet.subarray(2, 18).join();
    const number = new DataView(seen.packet.buffer).getUint32(22);
    assert.ok(!seenTwice.has(`${tag} ${number}`), "a number came twice under one key");
    seenTwice.add(`${tag} ${number}`);
    highest.set(tag, Math.max(number, highest.get(tag) ?? 0));
  }
  return [...highest.values()];
}

describe("key agreements over datagrams", () => {
  it(
    "cost a listener nothing until the cookie is good, and are made once for each link",
    inWorld(async ({ environment, network, a, b, dial }) => {
      const hello = new Uint8Array(1200);
      hello.set([0xda, 0x10]);
      for (let i = 0; i < 50; i++) {
        hello.fill(i, 2, 18);
        network.inject(hello, `dgram://stranger:${i + 1}`, ADDRESSES.b);
      }
      const forged = hello.slice();
      forged.set([40], 18);
      network.inject(forged, "dgram://stranger:1", ADDRESSES.b);
      await environment.advance(10);
      assert.equal(network.seen.filter((seen) => kindOf(seen) === PACKET.retry).length, 51);
      assert.equal(b.exchanges, 0);
      // The hello with the cookie comes twice, and gets the same welcome twice.
      network.trouble = { doubled: 1 };
      await dial();
      assert.deepEqual([a.exchanges, b.exchanges], [1, 1]);
      const welcomes = network.seen.filter((seen) => kindOf(seen) === PACKET.welcome);
      assert.ok(welcomes.length >= 2);
      assert.equal(new Set(welcomes.map(({ packet }) => packet.join())).size, 1);
    }),
  );
});

describe("a link over datagrams whose numbers go to their end", () => {
  const cases: [dialer: Name, sender: Name][] = [["a", "a"], ["a", "b"], ["b", "a"], ["b", "b"]];
  for (const [dialer, from] of cases) {
    it(
      `gets a successor in time and loses nothing, where ${dialer} dialed and ${from} sends`,
      inWorld(async ({ environment, network, a, b, dial }) => {
        await dial(dialer);
        const [sender, receiver] = from === "a" ? [a, b] : [b, a];
        const sent: string[] = [];
        for (let i = 0; i < 500; i++) {
          sent.push(String(i));
          await sender.send(receiver.nodeId, String(i));
          await environment.advance(1);
        }
        await environment.advance(20);
        assert.deepEqual(receiver.got, sent);
        assert.deepEqual([a.downs, b.downs], [0, 0]);
        assert.ok(b.exchanges > 5, `${b.exchanges} links`);
        assert.ok(Math.max(...numbersByTag(network)) < MAX_PACKETS);
        for (const node of [a, b]) assert.equal(node.datagrams.linkCount, 1);
      }),
    );
  }

  it(
    "is ended where there is none, and nothing is sent under its keys any more",
    inWorld(async ({ environment, network, a, b, dial }) => {
      await dial();
      network.filter = (seen) => kindOf(seen) !== PACKET.hello;
      for (let i = 0; i < 100; i++) {
        await a.send("b", String(i));
        await environment.advance(1);
      }
      assert.ok(b.got.length < MAX_PACKETS);
      assert.deepEqual([a.downs, b.downs], [1, 1]);
      assert.ok(Math.max(...numbersByTag(network)) <= MAX_PACKETS);
      assert.equal(a.datagrams.traffic().messagesLost, 100 - b.got.length);
      network.filter = () => true;
      await environment.advance(5_000);
      await a.send("b", "again");
      await environment.advance(10);
      assert.equal(b.got.at(-1), "again");
    }),
  );

  it(
    "takes its requests with it to the next one",
    inWorld(async ({ environment, network, a, b, dial }) => {
      await dial();
      let runs = 0;
      b.handlers.handle("count", async ({ payload }) => {
        runs++;
        await new Promise<void>((resolve) => void environment.setTimer(300, resolve));
        return payload;
      });
      // One answer in two gets lost, so that requests are repeated over several links.
      let answers = 0;
      network.filter = (seen) => kindOf(seen) !== PACKET.response || ++answers % 2 === 0;
      const asked = Array.from(
        { length: 60 },
        (_, i) =>
          a.datagrams.get("b")!.request(bytes(String(i)), { topic: "count", timeoutMs: 60_000 }),
      );
      const all = await environment.run(Promise.all(asked));
      assert.deepEqual(all.map(text), Array.from({ length: 60 }, (_, i) => String(i)));
      assert.equal(runs, 60);
      assert.ok(b.exchanges > 2, `${b.exchanges} links`);
    }),
  );
});
