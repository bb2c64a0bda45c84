/** Streams on sub-streams of the simulated network, which overtake each other, while it breaks. */

import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { Endpoint, type EndpointConfig, type TransportStream } from "../../mod.ts";
import { SimulatedNetwork } from "../../testing.ts";
import { newKeys } from "./on_the_line.ts";
import { detectRuntime } from "../../src/runtime/runtime.ts";
import { Random } from "../../src/testing/random.ts";

const LANES = ["control", "normal", "bulk"] as const;
/** Each runtime has seeds of its own. */
const RANGES = { deno: [1, 80], bun: [81, 160], node: [161, 200] } as const;
const [FIRST, LAST] = RANGES[detectRuntime().name];
const MAX_CHUNK_BYTES = 40_000;

/** What streams carry: nothing that is lost, doubled or turned round looks the same. */
const CONTENT = Uint8Array.from({ length: 350_000 }, (_, at) => at * 7 + (at >>> 8) * 13);

/** Writes so many bytes, in chunks of any size, and ends. */
async function write(stream: TransportStream, name: number, bytes: number, random: Random) {
  const writer = stream.writable.getWriter();
  for (let at = name; at < name + bytes;) {
    const end = Math.min(name + bytes, at + random.between(1, MAX_CHUNK_BYTES));
    await writer.write(CONTENT.subarray(at, end));
    at = end;
  }
  await writer.close();
}

/** Reads to the end; returns how many bytes came, all of them right. */
async function read(stream: TransportStream, name: number): Promise<number> {
  let at = name;
  for await (const chunk of stream.readable) {
    if (chunk.some((byte, index) => byte !== CONTENT[at + index])) {
      throw new Error(`stream ${name} is wrong after ${at - name} bytes`);
    }
    at += chunk.length;
  }
  return at - name;
}

interface Pair {
  readonly sim: SimulatedNetwork;
  readonly a: Endpoint;
  readonly b: Endpoint;
}

async function withPair(
  options: ConstructorParameters<typeof SimulatedNetwork>[0],
  test: (pair: Pair) => Promise<void>,
  settings: Partial<EndpointConfig> | ((nodeId: string) => Partial<EndpointConfig>) = {},
): Promise<void> {
  const sim = new SimulatedNetwork({ substreams: true, ...options });
  const [a, b] = ["a", "b"].map((nodeId) => {
    const { address, environment, transport } = sim.host(nodeId);
    return new Endpoint({
      nodeId,
      listen: address,
      security: "development",
      environment,
      transports: [transport],
      ...(typeof settings === "function" ? settings(nodeId) : settings),
    });
  }) as [Endpoint, Endpoint];
  await Promise.all([a.start(), b.start()]);
  await sim.runUntil(a.connect({ nodeId: "b", address: "memory://b" }));
  await test({ sim, a, b });
  await sim.runUntil(Promise.all([a.close(), b.close()]));
  // What was on its way arrives nowhere.
  await sim.run(10_000);
  assert.equal(sim.pendingTimers, 0);
}

/** What endpoints are configured with: whatever changes what goes where, and how often. */
function settingsOf(seed: number): Partial<EndpointConfig> {
  const strategies = ["first-available", "round-robin", "least-loaded"] as const;
  const small = seed % 11 === 0;
  return {
    poolSize: 1 + seed % 3,
    pool: { strategy: strategies[seed % 7 % 3]! },
    checksum: seed % 2 === 0 ? "never" : "always",
    compression: { enabled: seed % 5 !== 0, method: seed % 4 === 0 ? "zstd" : "lz4" },
    ...(small ? { receiveWindow: 1_048_576, maxMessageSize: 500_000 } : {}),
  };
}

/** Streams and messages both ways, while connections break. */
async function run(seed: number): Promise<{ overtaken: number; cuts: number }> {
  const random = new Random(seed, "streams");
  const network = {
    seed,
    latencyMs: [1, random.between(1, 30)] as [number, number],
    jitterMs: random.between(0, 30),
    reorder: 0.2,
    fragmentation: random.chance(0.5) ? 0.3 : 0,
  };
  let cuts = 0;
  const arrivals: number[] = [];
  await withPair(network, async ({ sim, a, b }) => {
    if (random.chance(0.5)) sim.setLink("a", "b", { loss: 0.02 });
    const order: Record<string, number[]> = {};
    for (const [node, from] of [[b, "a"], [a, "b"]] as const) {
      node.onMessage(({ lane, payload }) => {
        (order[`${from} ${lane}`] ??= []).push(payload[0]! << 8 | payload[1]!);
      });
      node.onStream("both", async (stream) => {
        const [name, bytes] = JSON.parse(new TextDecoder().decode(stream.payload));
        arrivals.push(name);
        const [read_] = await Promise.all([read(stream, name), write(stream, name, bytes, random)]);
        assert.equal(read_, bytes);
      });
    }
    const streams = Array.from({ length: random.between(2, 24) }, async (_, name) => {
      await sleep(sim, random.between(0, 400));
      const [from, to] = random.chance(0.5) ? [a, "b"] as const : [b, "a"] as const;
      const bytes = random.chance(0.2) ? 0 : random.between(1, 300_000);
      const stream = await from.openStream(to, {
        topic: "both",
        lane: LANES[random.between(0, 2)]!,
        payload: new TextEncoder().encode(JSON.stringify([name, bytes])),
      });
      const [count] = await Promise.all([read(stream, name), write(stream, name, bytes, random)]);
      assert.equal(count, bytes, `stream ${name}`);
    });
    const sent: Record<string, number> = {};
    const messages = [a, b].map(async (from) => {
      for (let number = 0; number < 60; number++) {
        await sleep(sim, random.between(0, 15));
        const lane = LANES[random.between(0, 2)]!;
        const key = `${from.nodeId} ${lane}`;
        const count = sent[key] = (sent[key] ?? 0) + 1;
        const payload = new Uint8Array(random.chance(0.1) ? 150_000 : 100);
        payload.set([count >> 8, count]);
        await from.send(from === a ? "b" : "a", payload, { lane });
      }
    });
    const breaks = (async () => {
      for (let left = random.between(0, 4); left > 0; left--) {
        await sleep(sim, random.between(5, 300));
        const ends = sim.connections();
        if (ends.length === 0) continue;
        const end = ends[random.between(0, ends.length - 1)]!;
        cuts++;
        if (random.chance(0.7)) end.cut(random.between(0, 20), random.between(0, 20));
        else end.endBothWays();
      }
    })();
    await sim.runUntil(Promise.all([...streams, ...messages, breaks]));
    await sim.runUntil(Promise.all([a.flush("b"), b.flush("a")]));
    for (const [key, count] of Object.entries(sent)) {
      const expected = Array.from({ length: count }, (_, index) => index + 1);
      assert.deepEqual(order[key], expected, `messages of ${key}`);
    }
  }, settingsOf(seed));
  const overtaken = arrivals.filter((name, at) => arrivals.slice(0, at).some((o) => o > name));
  return { overtaken: overtaken.length, cuts };
}

function sleep(sim: SimulatedNetwork, ms: number): Promise<void> {
  return new Promise((resolve) => sim.after(ms, resolve));
}

/** Ten streams from a to b, of which one is lost at first: how many have arrived before it is repaired. */
async function stalled(substreams: boolean): Promise<number> {
  let before = 0;
  await withPair({ substreams, latencyMs: 10 }, async ({ sim, a, b }) => {
    let arrived = 0;
    const done = new Promise<void>((resolve) => {
      b.onStream("up", async (stream) => {
        assert.equal(await read(stream, 0), 60_000);
        if (++arrived === 10) resolve();
      });
    });
    const random = new Random(1, "stalled");
    for (let name = 0; name < 10; name++) {
      const stream = await a.openStream("b", { topic: "up" });
      await sim.run(0);
      // The first one's packets get lost: with one stream for all, so do those of all others.
      if (name === 0) {
        const ends = sim.connections("a", "b").filter(({ host }) => host === "a");
        for (const end of substreams ? ends.flatMap((end) => end.substreams) : ends) end.stall();
      }
      write(stream, 0, 60_000, random).catch(() => {});
    }
    await sim.run(2_000);
    before = arrived;
    sim.cut("a", "b");
    await sim.runUntil(done);
  });
  return before;
}

describe("streams on sub-streams", () => {
  it("do not wait for what another one has lost", async () => {
    assert.equal(await stalled(false), 0);
    assert.equal(await stalled(true), 9);
  });

  it("are signed, and never in fragments", async () => {
    const keys = { a: newKeys(), b: newKeys() };
    const settings = (nodeId: string): Partial<EndpointConfig> => {
      const [own, other] = nodeId === "a" ? (["a", "b"] as const) : (["b", "a"] as const);
      const trustedKeys = { [other]: keys[other].publicKey };
      return { signing: { privateKey: keys[own].privateKey, trustedKeys } };
    };
    await withPair({}, async ({ sim, a, b }) => {
      const bytes = 300_000;
      const done = new Promise<number>((resolve) => {
        b.onStream("up", async (stream) => resolve(await read(stream, 0)));
      });
      assert.ok(a.peer("b")!.capabilities!.includes("signed"));
      const stream = await a.openStream("b", { topic: "up" });
      const writer = stream.writable.getWriter();
      writer.write(CONTENT.subarray(0, bytes)).then(() => writer.close()).catch(() => {});
      await sim.run(20);
      const [sub] = sim.connections("a", "b").flatMap((end) => end.substreams);
      assert.ok(sub !== undefined);
      assert.equal(await sim.runUntil(done), bytes);
    }, settings);
  });

  it(`lose and double nothing, whatever breaks (seeds ${FIRST} to ${LAST})`, async () => {
    let [overtaken, cuts] = [0, 0];
    for (let seed = FIRST; seed <= LAST; seed++) {
      try {
        const result = await run(seed);
        overtaken += result.overtaken;
        cuts += result.cuts;
      } catch (cause) {
        throw new Error(`seed ${seed}: ${(cause as Error).stack}`, { cause });
      }
    }
    const seeds = LAST - FIRST + 1;
    assert.ok(overtaken > seeds && cuts > seeds, `${overtaken} overtaken, ${cuts} cuts`);
  });
});
