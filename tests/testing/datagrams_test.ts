/** Datagrams in the simulated network: sockets by themselves, and endpoints over them. */

import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { type SimulatedHost, SimulatedNetwork } from "../../testing.ts";
import type { DatagramSocket } from "../../src/transport/transport.ts";
import { bytes, inbox } from "../support/cluster.ts";
import { closeAll, endpointOn } from "./simulated_cluster.ts";

/** A socket that writes down what it gets: the first two bytes of each packet, as a number. */
async function socketOn(
  host: SimulatedHost,
  maxQueued = 1_000,
): Promise<{ socket: DatagramSocket; got: number[]; from: Set<string>; drains: () => number }> {
  const got: number[] = [];
  const from = new Set<string>();
  let drains = 0;
  const socket = await host.datagrams.bind!(`udp://${host.name}:9000`, {
    maxQueued,
    maxQueuedBytes: 1_000_000,
    onPacket: (packet, sender) => {
      got.push(packet[0]! * 256 + packet[1]!);
      from.add(sender);
    },
    onDrain: () => drains++,
    onError: (error) => assert.fail(error),
  });
  return { socket, got, from, drains: () => drains };
}

function packetOf(number: number, length = 100): Uint8Array {
  const packet = new Uint8Array(length);
  packet.set([number >> 8, number & 255]);
  return packet;
}

const numbers = (count: number) => Array.from({ length: count }, (_, i) => i);

describe("datagrams between hosts", () => {
  it("arrive in order after the latency where nothing is wrong", async () => {
    const sim = new SimulatedNetwork({ latencyMs: 5 });
    const [a, b] = [await socketOn(sim.host("a")), await socketOn(sim.host("b"))];
    for (const i of numbers(100)) assert.ok(a.socket.send(packetOf(i), "udp://b:9000"));
    await sim.run(4.9);
    assert.deepEqual(b.got, []);
    await sim.run(0.1);
    assert.deepEqual(b.got, numbers(100));
    assert.deepEqual([...b.from], ["udp://a:9000"]);
  });

  it("are lost, doubled and overtaken as often as was asked for", async () => {
    const sim = new SimulatedNetwork({
      latencyMs: 5,
      loss: 0.2,
      duplicate: 0.1,
      reorder: 0.3,
    });
    const [a, b] = [await socketOn(sim.host("a")), await socketOn(sim.host("b"))];
    for (const i of numbers(2_000)) {
      a.socket.send(packetOf(i), "udp://b:9000");
      await sim.run(1);
    }
    await sim.run(100);
    const distinct = new Set(b.got).size;
    const overtaken = b.got.filter((number, i) => i > 0 && number < b.got[i - 1]!).length;
    assert.ok(distinct > 1_500 && distinct < 1_700, `${distinct} of 2000 arrived`);
    const doubled = b.got.length - distinct;
    assert.ok(doubled > 100 && doubled < 220, `${doubled} arrived twice`);
    assert.ok(overtaken > 200, `${overtaken} were overtaken`);
  });

  it("are gone where they are sent into a partition, to nobody, or to a host that is off", async () => {
    const sim = new SimulatedNetwork();
    const [a, b] = [await socketOn(sim.host("a")), await socketOn(sim.host("b"))];
    const send = async (number: number) => {
      assert.ok(a.socket.send(packetOf(number), "udp://b:9000"));
      await sim.run(10);
    };
    await send(1);
    sim.partitionOneWay("a", "b");
    await send(2);
    sim.heal();
    await send(3);
    a.socket.send(packetOf(4), "udp://b:1");
    a.socket.send(packetOf(5), "udp://nobody:9000");
    sim.host("b").crash({ silent: true });
    await send(6);
    sim.host("b").restart();
    await send(7);
    const again = await socketOn(sim.host("b"));
    await send(8);
    assert.deepEqual([b.got, again.got], [[1, 3], [8]]);
  });

  it("wait for a process that stands still, as many as a kernel keeps", async () => {
    const sim = new SimulatedNetwork();
    const [a, b] = [await socketOn(sim.host("a")), await socketOn(sim.host("b"))];
    sim.host("b").pause();
    for (const i of numbers(1_000)) a.socket.send(packetOf(i), "udp://b:9000");
    await sim.run(10);
    assert.deepEqual(b.got, []);
    sim.host("b").resume();
    await sim.run(10);
    assert.deepEqual(b.got, numbers(256));
  });

  it("wait for bandwidth, and are refused where too many do", async () => {
    const sim = new SimulatedNetwork({ latencyMs: 1, bandwidthBytesPerSecond: 100_000 });
    const [a, b] = [await socketOn(sim.host("a"), 10), await socketOn(sim.host("b"))];
    let taken = 0;
    while (a.socket.send(packetOf(taken, 1_000), "udp://b:9000")) taken++;
    assert.equal(taken, 10);
    await sim.run(55);
    assert.deepEqual(b.got, numbers(5));
    assert.equal(a.drains(), 1);
    assert.ok(a.socket.send(packetOf(99, 1_000), "udp://b:9000"));
    await sim.run(100);
    assert.deepEqual(b.got, [...numbers(10), 99]);
  });

  it("are bound to the host's own addresses, each once", async () => {
    const sim = new SimulatedNetwork();
    const { socket } = await socketOn(sim.host("a"));
    await assert.rejects(socketOn(sim.host("a")), { code: "ConnectionFailed" });
    const other = sim.host("b").datagrams.bind!("udp://a:1", undefined as never);
    await assert.rejects(other, /it is not of the host b/);
    await socket.close();
    assert.equal(socket.send(packetOf(1), "udp://b:9000"), false);
    assert.equal((await socketOn(sim.host("a"))).socket.address, "udp://a:9000");
  });
});

describe("endpoints over simulated datagrams", () => {
  it("connect, exchange messages and answer requests where packets get lost", async () => {
    const sim = new SimulatedNetwork({ seed: 3, latencyMs: 5, loss: 0.1, reorder: 0.1 });
    const [a, b] = ["a", "b"].map((name) => {
      const { transport, datagrams } = sim.host(name);
      return endpointOn(sim, name, {
        listen: `udp://${name}:9000`,
        transports: [transport, datagrams],
      });
    }) as [ReturnType<typeof endpointOn>, ReturnType<typeof endpointOn>];
    await a.start();
    await b.start();
    assert.deepEqual(a.addresses, ["udp://a:9000"]);
    b.handle("add", ({ payload }) => Uint8Array.of(payload[0]! + payload[1]!));
    await sim.runUntil(a.connect({ nodeId: "b", address: "udp://b:9000" }));
    for (const i of numbers(100)) {
      await a.send("b", bytes(String(i)));
      await sim.run(10);
    }
    const arrived = inbox(b).length;
    assert.ok(arrived > 75 && arrived < 100, `${arrived} arrived`);
    const answer = a.request("b", Uint8Array.of(3, 4), { topic: "add", timeoutMs: 10_000 });
    assert.deepEqual(await sim.runUntil(answer), Uint8Array.of(7));
    await closeAll(sim, [a, b]);
    assert.deepEqual([sim.host("a").pendingTimers, sim.host("b").pendingTimers], [0, 0]);
  });
});
