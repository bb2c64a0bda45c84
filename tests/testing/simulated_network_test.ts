/** The faults of the simulated network, as endpoints meet them. */

import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { Endpoint } from "../../mod.ts";
import { linkContract, SimulatedNetwork } from "../../testing.ts";
import { ContractListener, dialOptions } from "../../src/testing/contract_listener.ts";
import { countedBytes, LinkRecorder } from "../../src/testing/link_recorder.ts";
import { bytes, inbox, text } from "../support/cluster.ts";
import { undelivered } from "../support/watch.ts";
import { closeAll, cluster, connected, endpointOn, story } from "./simulated_cluster.ts";

/** Both ends of a link from a to b. */
async function links(sim: SimulatedNetwork): Promise<[LinkRecorder, LinkRecorder]> {
  const server = await new ContractListener().start(sim.host("b").transport, sim.host("b").address);
  const dialing = sim.host("a").transport.dial(server.address, dialOptions(undefined));
  const dialed = new LinkRecorder(await sim.runUntil(dialing));
  return [dialed, new LinkRecorder(server.links.shift()!)];
}

/** What a message takes from one node to the other, in virtual milliseconds. */
async function travelMs(sim: SimulatedNetwork, from: Endpoint, to: Endpoint): Promise<number> {
  const start = sim.now();
  await from.send(to.nodeId, bytes("x"));
  await sim.runUntil(to.receive());
  return sim.now() - start;
}

describe("linkContract on the simulated network", () => {
  // The contract waits in real time, so time must pass by itself.
  const subject = () => {
    const sim = new SimulatedNetwork({ latencyMs: 0.1, socketBytes: 1_000_000 });
    const { transport, address } = sim.host("test");
    return { sim, transport, listenAddress: address };
  };
  let running: SimulatedNetwork | undefined;
  const make = () => {
    const made = subject();
    running = made.sim;
    return made;
  };
  for (const { name, run } of linkContract(make)) {
    it(name, async () => {
      let over = false;
      const test = run().finally(() => over = true);
      test.catch(() => {});
      while (!over) await (running?.run(1) ?? Promise.resolve());
      await test;
    });
  }
});

describe("replay", () => {
  it("does the same again for the same seed, and something else for another", async () => {
    const first = await story(1, 1);
    assert.deepEqual(await story(1, 1), first);
    assert.notEqual((await story(2, 1)).digest, first.digest);
    assert.ok(first.received > 10_000, `${first.received} messages`);
  });

  it("runs 10 minutes of 5 nodes in seconds", async () => {
    const { virtualMs, received } = await story(3, 10);
    assert.ok(virtualMs >= 600_000 && virtualMs < 601_000, `${virtualMs} ms`);
    assert.ok(received > 110_000, `${received} messages`);
  });
});

describe("links between hosts", () => {
  it("take the latency that was set, also when it changes under a connection", async () => {
    const { sim, nodes } = await cluster(["a", "b"], { latencyMs: 20 });
    const [a, b] = nodes as [Endpoint, Endpoint];
    assert.equal(Math.round(await travelMs(sim, a, b)), 20);
    sim.setPath("a", "b", { latencyMs: 100 });
    assert.equal(Math.round(await travelMs(sim, a, b)), 100);
    assert.equal(Math.round(await travelMs(sim, b, a)), 20);
    sim.setLink("a", "b", { latencyMs: [30, 40] });
    for (const [from, to] of [[a, b], [b, a]] as const) {
      const ms = await travelMs(sim, from, to);
      assert.ok(ms >= 30 && ms <= 41, `${ms} ms`);
    }
    await closeAll(sim, nodes);
  });

  it("deliver every byte in order under loss, jitter, reordering and fragmentation", async () => {
    const sim = new SimulatedNetwork({
      seed: 5,
      latencyMs: 5,
      jitterMs: 20,
      loss: 0.2,
      reorder: 0.3,
      fragmentation: 0.8,
      socketBytes: 20_000,
    });
    const [a, b] = await links(sim);
    a.link.write(countedBytes(300_000));
    a.link.end();
    await sim.runUntil(() => b.told("end"), { withinMs: 3_600_000 });
    assert.deepEqual(b.bytes, countedBytes(300_000));
  });

  it("show a lost packet as a delay of at least 200 ms", async () => {
    const sim = new SimulatedNetwork({ latencyMs: 1 });
    const [a, b] = await links(sim);
    sim.setPath("a", "b", { loss: 0.5 });
    const delays: number[] = [];
    for (let i = 0; i < 100; i++) {
      const start = sim.now();
      a.link.write(Uint8Array.of(i));
      await sim.runUntil(() => b.receivedBytes > i);
      delays.push(Math.round(sim.now() - start));
    }
    const late = delays.filter((ms) => ms > 1);
    assert.ok(late.length > 30 && late.length < 70, `${late.length} of 100 were late`);
    // 200 ms, and each time twice as long.
    const once = [200, 600, 1_400, 3_000, 6_200, 12_600, 25_400];
    assert.ok(late.every((ms) => once.includes(ms - 1)), `late by ${late.join(", ")}`);
    assert.ok(late.includes(601) && late.includes(1_401), "none was lost twice and three times");
  });

  it("share a bandwidth among the connections of one way", async () => {
    const sim = new SimulatedNetwork({ latencyMs: 1, bandwidthBytesPerSecond: 1_000_000 });
    const pairs = [await links(sim)];
    const start = sim.now();
    pairs[0]![0].link.write(new Uint8Array(500_000));
    await sim.runUntil(() => pairs[0]![1].receivedBytes === 500_000);
    assert.ok(Math.abs(sim.now() - start - 500) < 10, `${sim.now() - start} ms`);

    const server = await new ContractListener().start(sim.host("c").transport, "memory://c");
    for (let i = 0; i < 2; i++) {
      const dialing = sim.host("a").transport.dial("memory://c", dialOptions(undefined));
      const dialed = new LinkRecorder(await sim.runUntil(dialing));
      pairs.push([dialed, new LinkRecorder(server.links.shift()!)]);
    }
    const both = sim.now();
    const two = pairs.slice(1);
    for (const [near] of two) near.link.write(new Uint8Array(500_000));
    await sim.runUntil(() => two.every(([, far]) => far.receivedBytes === 500_000));
    assert.ok(Math.abs(sim.now() - both - 1_000) < 10, `${sim.now() - both} ms`);
  });

  it("cut chunks into pieces and join them, where that is asked for", async () => {
    const sim = new SimulatedNetwork({ fragmentation: 0.5, jitterMs: 3 });
    const [a, b] = await links(sim);
    const sizes: number[] = [];
    b.onChunk = ({ length }) => sizes.push(length);
    for (let i = 0; i < 200; i++) {
      a.link.write(countedBytes(1_000, i * 1_000));
      await sim.run(1);
    }
    await sim.runUntil(() => b.receivedBytes === 200_000);
    assert.ok(sizes.some((size) => size < 1_000), "no pieces");
    assert.ok(sizes.some((size) => size > 1_000), "nothing joined");
    assert.deepEqual(b.bytes, countedBytes(200_000));
  });

  it("break in the middle of a chunk", async () => {
    const sim = new SimulatedNetwork({ fragmentation: 1, socketBytes: 5_000 });
    const [a, b] = await links(sim);
    a.link.write(countedBytes(100_000));
    await sim.run(5);
    sim.cut("a", "b");
    await sim.run(5);
    assert.equal(a.closeError?.code, "ConnectionClosed");
    assert.equal(b.closeError?.code, "ConnectionClosed");
    assert.ok(b.receivedBytes > 0 && b.receivedBytes < 100_000);
    assert.deepEqual(b.bytes, countedBytes(100_000).subarray(0, b.receivedBytes));
  });

  it("are reset by who closes without reading all, and told to who opens them later", async () => {
    const sim = new SimulatedNetwork();
    const server = await new ContractListener().start(sim.host("b").transport, "memory://b");
    const dialing = sim.host("a").transport.dial("memory://b", dialOptions(undefined));
    const near = await sim.runUntil(dialing);
    const b = new LinkRecorder(server.links.shift()!);
    near.write(Uint8Array.of(1));
    b.link.pause();
    await sim.run(10);
    b.link.close();
    await sim.run(10);
    const a = new LinkRecorder(near);
    await sim.run(1);
    assert.deepEqual([b.closeError, a.closeError?.code], [undefined, "ConnectionClosed"]);
  });

  it("let a writer change its memory once that counts as sent", async () => {
    const sim = new SimulatedNetwork({ latencyMs: 10 });
    const [a, b] = await links(sim);
    const chunk = countedBytes(1_000);
    a.link.write(chunk);
    assert.equal(a.link.bufferedBytes, 0);
    chunk.fill(0xee);
    await sim.runUntil(() => b.receivedBytes === 1_000);
    assert.deepEqual(b.bytes, countedBytes(1_000));
  });

  it("refuse conditions that make no sense", () => {
    const wrong = [
      { latencyMs: -1 },
      { latencyMs: [5, 1] },
      { jitterMs: NaN },
      { loss: 1 },
      { reorder: 2 },
      { fragmentation: -0.1 },
      { bandwidthBytesPerSecond: 0 },
      { socketBytes: 0 },
    ] as const;
    const sim = new SimulatedNetwork();
    for (const conditions of wrong) {
      const name = Object.keys(conditions)[0];
      const expected = { name: "RangeError", message: new RegExp(`^Cannot set ${name}: `) };
      assert.throws(() => new SimulatedNetwork(conditions), expected);
      assert.throws(() => sim.setLink("a", "b", conditions), expected);
    }
  });
});

describe("partitions", () => {
  it("hold back what is sent until they are healed, and nothing is lost", async () => {
    const { sim, nodes } = await cluster(["a", "b", "c"]);
    const [a, b, c] = nodes as [Endpoint, Endpoint, Endpoint];
    sim.partition("a", ["b", "c"]);
    await a.send("b", bytes("held back"));
    await b.send("c", bytes("not in the way"));
    await sim.run(5_000);
    assert.deepEqual(inbox(b), []);
    assert.deepEqual(inbox(c), ["not in the way"]);
    sim.heal();
    await sim.runUntil(() => b.stats().receiveQueueLength > 0);
    assert.deepEqual(inbox(b), ["held back"]);
    await closeAll(sim, nodes);
  });

  it("may work in one direction only", async () => {
    const { sim, nodes } = await cluster(["a", "b"]);
    const [a, b] = nodes as [Endpoint, Endpoint];
    sim.partitionOneWay("a", "b");
    await a.send("b", bytes("held back"));
    await b.send("a", bytes("arrives"));
    await sim.run(100);
    assert.deepEqual([inbox(a), inbox(b)], [["arrives"], []]);
    sim.heal("b", "a");
    await sim.run(10_000);
    assert.deepEqual([inbox(a), inbox(b)], [[], ["held back"]]);
    await closeAll(sim, nodes);
  });

  it("are noticed where they last, and hold dials back, too", async () => {
    const { sim, nodes } = await cluster(["a", "b"], {}, { keepaliveIntervalSecs: 1 });
    const [a] = nodes as [Endpoint, Endpoint];
    sim.partition("a", "b");
    await sim.runUntil(() => connected(a).length === 0);
    const made = sim.connectionsMade;
    await sim.run(60_000);
    assert.equal(sim.connectionsMade, made);
    sim.heal("a", "b");
    await sim.runUntil(() => connected(a).length === 1, { withinMs: 60_000 });
    await closeAll(sim, nodes);
  });
});

describe("dials", () => {
  it("into a partition succeed when it is healed", async () => {
    const sim = new SimulatedNetwork();
    await new ContractListener().start(sim.host("b").transport, "memory://b");
    sim.partition("a", "b");
    const dialing = sim.host("a").transport.dial("memory://b", dialOptions(undefined));
    await sim.run(10_000);
    assert.equal(sim.connectionsMade, 0);
    sim.heal();
    await sim.runUntil(dialing, { withinMs: 1 });
  });

  it("that were given up while their process stood still leave no connection", async () => {
    const sim = new SimulatedNetwork();
    const server = await new ContractListener().start(sim.host("b").transport, "memory://b");
    const abort = new AbortController();
    const options = dialOptions(undefined, abort.signal);
    const dialing = sim.host("a").transport.dial("memory://b", options);
    dialing.catch(() => {});
    sim.host("a").pause();
    await sim.run(10);
    assert.equal(sim.connectionsMade, 1);
    abort.abort(new Error("given up"));
    sim.host("a").resume();
    await assert.rejects(sim.runUntil(dialing), /^Error: given up$/);
    const b = new LinkRecorder(server.links.shift()!);
    await sim.runUntil(() => b.told("end"));
    assert.equal(sim.host("a").connections, 0);
  });

  it("that nobody looks at before the listener closes are closed as well", async () => {
    const sim = new SimulatedNetwork();
    const server = await new ContractListener().start(sim.host("b").transport, "memory://b");
    sim.host("b").pause();
    const dialing = sim.host("a").transport.dial("memory://b", dialOptions(undefined));
    const a = new LinkRecorder(await sim.runUntil(dialing));
    await server.listener.close();
    await sim.run(10);
    assert.ok(a.told("end"));
    sim.host("b").resume();
    await sim.run(10);
    assert.deepEqual([server.hosts, sim.host("b").connections], [[], 0]);
  });
});

describe("connections", () => {
  it("are made again when they were cut, and the session loses nothing", async () => {
    const { sim, nodes } = await cluster(["a", "b"]);
    const [a, b] = nodes as [Endpoint, Endpoint];
    for (let i = 0; i < 50; i++) {
      await a.send("b", bytes(String(i)));
      if (i % 10 === 5) sim.cut("a", "b");
      await sim.run(10);
    }
    await sim.run(10_000);
    assert.deepEqual(inbox(b), Array.from({ length: 50 }, (_, i) => String(i)));
    await closeAll(sim, nodes);
  });

  it("that are half-open are noticed on one side only, and replaced later", async () => {
    const { sim, nodes } = await cluster(["a", "b"], {}, { keepaliveIntervalSecs: 1, poolSize: 1 });
    const [a, b] = nodes as [Endpoint, Endpoint];
    // It is b that dials: a is left with a connection of which b knows nothing.
    sim.partition("a", "b");
    sim.halfOpen("a", "b");
    await sim.run(50);
    assert.deepEqual([connected(a), connected(b)], [["b"], []]);
    sim.heal();
    await a.send("b", bytes("into the void, and again"));
    await sim.runUntil(() => b.stats().receiveQueueLength > 0, { withinMs: 30_000 });
    assert.deepEqual(inbox(b), ["into the void, and again"]);
    await closeAll(sim, nodes);
  });

  it("can be found and broken one by one", async () => {
    const { sim, nodes } = await cluster(["a", "b", "c"], {}, { poolSize: 1 });
    assert.equal(sim.connections().length, 6);
    assert.deepEqual(
      sim.connections("a").map(({ host, peerHost }) => `${host}>${peerHost}`).toSorted(),
      ["a>b", "a>c", "b>a", "c>a"],
    );
    const ends = sim.connections("b", "c");
    assert.equal(ends.length, 2);
    ends[0]!.stall(true);
    await nodes[1]!.send("c", bytes("x"));
    await sim.run(200);
    assert.deepEqual(inbox(nodes[2]!), []);
    await closeAll(sim, nodes);
  });

  it("show a flipped bit as what it is: a connection to give up, and no wrong message", async () => {
    const options = { poolSize: 1, checksum: "always", compression: { enabled: false } } as const;
    const { sim, nodes } = await cluster(["a", "b"], {}, options);
    const [a, b] = nodes as [Endpoint, Endpoint];
    // The handshake is over once this much has gone through.
    await a.send("b", new Uint8Array(5_000));
    await sim.runUntil(b.receive());
    const made = sim.connectionsMade;
    for (const end of sim.connections("a", "b")) if (end.host === "a") end.corrupt();
    await a.send("b", new Uint8Array(50_000).fill(7));
    const { payload } = await sim.runUntil(b.receive());
    assert.deepEqual(payload, new Uint8Array(50_000).fill(7));
    assert.ok(sim.connectionsMade > made);
    await closeAll(sim, nodes);
  });
});

describe("hosts", () => {
  it("that are paused do nothing, and catch up when they go on", async () => {
    const { sim, nodes } = await cluster(["a", "b"]);
    const [a, b] = nodes as [Endpoint, Endpoint];
    const host = sim.host("b");
    let ticks = 0;
    const tick = () => {
      ticks++;
      host.environment.setTimer(100, tick);
    };
    tick();
    await sim.run(1_000);
    assert.equal(ticks, 11);
    host.pause();
    await a.send("b", bytes("while it slept"));
    await sim.run(1_000);
    assert.equal(ticks, 11);
    assert.deepEqual(inbox(b), []);
    host.resume();
    await sim.run(50);
    assert.equal(ticks, 12);
    assert.deepEqual(inbox(b), ["while it slept"]);
    await closeAll(sim, nodes);
  });

  it("that are paused take connections, and look at them when they go on", async () => {
    const sim = new SimulatedNetwork();
    const server = await new ContractListener().start(sim.host("b").transport, "memory://b");
    sim.host("b").pause();
    const dialing = sim.host("a").transport.dial("memory://b", dialOptions(undefined));
    const a = new LinkRecorder(await sim.runUntil(dialing));
    a.link.write(Uint8Array.of(1, 2, 3));
    await sim.run(100);
    assert.deepEqual(server.hosts, []);
    sim.host("b").resume();
    await sim.run(1);
    const b = new LinkRecorder(server.links.shift()!);
    await sim.run(1);
    assert.deepEqual(b.bytes, Uint8Array.of(1, 2, 3));
  });

  it("that crash reset their connections, and come back as new processes", async () => {
    const { sim, nodes } = await cluster(["a", "b"]);
    const [a] = nodes as [Endpoint];
    const reports = undelivered(a);
    const host = sim.host("b");
    const before = host.environment;
    host.crash();
    assert.deepEqual([host.running, host.connections, host.pendingTimers], [false, 0, 0]);
    await sim.run(10);
    assert.deepEqual(connected(a), []);
    const refused = sim.host("a").transport.dial("memory://b", dialOptions(undefined));
    await assert.rejects(sim.runUntil(refused), { code: "ConnectionFailed" });

    host.restart();
    assert.notEqual(host.environment, before);
    const again = endpointOn(sim, "b", { peers: [{ nodeId: "a", address: "memory://a" }] });
    await again.start();
    await sim.runUntil(() => connected(a).length === 1);
    await a.send("b", bytes("hello again"));
    assert.equal(text((await sim.runUntil(again.receive())).payload), "hello again");
    assert.deepEqual(reports, []);
    await closeAll(sim, [a, again]);
  });

  it("that lose their power tell nobody, and answer with a reset when they are back", async () => {
    const { sim, nodes } = await cluster(["a", "b"], {}, { poolSize: 1 });
    const [a] = nodes as [Endpoint];
    sim.host("b").crash({ silent: true });
    assert.ok(sim.host("b").down);
    await a.send("b", bytes("unheard"));
    await sim.run(1_000);
    assert.deepEqual(connected(a), ["b"]);
    sim.host("b").restart();
    await sim.run(5);
    assert.deepEqual(connected(a), []);
    await closeAll(sim, [a]);
  });

  it("whose process is gone never hear of anything again", async () => {
    const sim = new SimulatedNetwork();
    const host = sim.host("a");
    const { environment, transport } = host;
    let fired = false;
    const fire = () => {
      fired = true;
    };
    environment.setTimer(10, fire);
    transport.dial("memory://b", dialOptions(undefined)).then(fire, fire);
    host.sleep(1).then(fire);
    host.crash();
    environment.setTimer(10, fire);
    host.restart();
    await sim.run(1_000);
    assert.equal(fired, false);
  });

  it("have clocks that can be wrong, while their timers go right", async () => {
    const sim = new SimulatedNetwork();
    const [a, b] = ["a", "b"].map((name) => endpointOn(sim, name)) as [Endpoint, Endpoint];
    await a.start();
    await b.start();
    const host = sim.host("b");
    const before = host.environment.wallClock();
    host.jumpClock(600_000);
    assert.equal(host.clockOffsetMs, 600_000);
    assert.equal(host.environment.wallClock() - before, 600_000);
    assert.equal(host.environment.now(), sim.host("a").environment.now());
    const connecting = b.connect({ nodeId: "a", address: "memory://a" });
    await assert.rejects(sim.runUntil(connecting), { code: "HandshakeFailed" });
    host.jumpClock(-600_000);
    await sim.runUntil(b.connect({ nodeId: "a", address: "memory://a" }));
    const start = sim.now();
    await sim.runUntil(host.sleep(250));
    assert.equal(sim.now() - start, 250);
    await closeAll(sim, [a, b]);
  });

  it("draw the same numbers in every run, and each its own", () => {
    const draw = (seed: number, name: string) =>
      new SimulatedNetwork({ seed }).host(name).environment.randomBytes(8);
    assert.deepEqual(draw(1, "a"), draw(1, "a"));
    assert.notDeepEqual(draw(1, "a"), draw(2, "a"));
    assert.notDeepEqual(draw(1, "a"), draw(1, "b"));
    const host = new SimulatedNetwork({ seed: 1 }).host("a");
    host.restart();
    assert.notDeepEqual(host.environment.randomBytes(8), draw(1, "a"));
  });

  it("listen under their own name, once", async () => {
    const sim = new SimulatedNetwork();
    const { transport } = sim.host("a");
    const listener = (address: string) => new ContractListener().start(transport, address);
    await assert.rejects(listener("memory://b"), {
      message: "Cannot listen on memory://b: it is not of the host a",
    });
    const first = await listener("memory://a");
    await assert.rejects(listener("memory://a"), { code: "ConnectionFailed" });
    await listener("memory://a:7");
    await first.listener.close();
    await listener("memory://a");
  });
});

describe("a run", () => {
  it("is the only one that lets time pass", async () => {
    const sim = new SimulatedNetwork();
    const first = sim.run(10);
    await assert.rejects(sim.run(10), /it is passing already/);
    await first;
    await sim.run(1);
    assert.equal(sim.now(), 11);
  });

  it("leaves nothing behind when everything is closed", async () => {
    const { sim, nodes } = await cluster(["a", "b", "c"]);
    await closeAll(sim, nodes);
    assert.equal(sim.pendingTimers, 0);
    assert.deepEqual(sim.connections(), []);
    for (const host of sim.hosts()) {
      assert.deepEqual([host.name, host.pendingTimers, host.connections], [host.name, 0, 0]);
    }
  });

  it("shows its events as text", async () => {
    const lines: string[] = [];
    const sim = new SimulatedNetwork({ onEvent: (line) => lines.push(line) });
    await links(sim);
    sim.host("a").jumpClock(5);
    sim.trace.record("mine", 1, "two");
    assert.deepEqual(lines, ["2.000 connect a b 1", "2.000 clock a 5", "2.000 mine 1 two"]);
    assert.equal(sim.trace.count, 3);
  });
});
