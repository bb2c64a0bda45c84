/** What is sent in one turn leaves in one write; `batchDelayMs` waits for more, and no longer. */

import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import type { Endpoint, EndpointConfig, LaneName, Link, Transport } from "../../mod.ts";
import { bytes, type Cluster, inbox, inCluster, text } from "../support/cluster.ts";

const BATCH_DELAY_MS = 20;
const BATCH_BYTES = 131_072;
/** What a frame adds to its payload: length and flags, in version 3 also number and checksum. */
const FRAME_BYTES: Readonly<Record<number, number>> = { 2: 5, 3: 4 + 2 + 8 + 4 };
/** Far from the pings at the beginning of a connection. */
const QUIET_MS = 1_000;

/** One write to the link. */
interface Write {
  readonly at: number;
  /** The messages in it: this test's begin with "<" and end with ">". */
  readonly messages: string[];
}

/** A transport that notes what its dialed links write. */
function noting(transport: Transport, now: () => number, writes: Write[]): Transport {
  const noted = (link: Link): Link => ({
    info: link.info,
    get bufferedBytes() {
      return link.bufferedBytes;
    },
    open: (events) => link.open(events),
    write: (chunk) => {
      const messages = text(chunk).match(/<[^<>]*>/g) ?? [];
      writes.push({ at: now(), messages });
      return link.write(chunk);
    },
    pause: () => link.pause(),
    resume: () => link.resume(),
    end: () => link.end(),
    close: () => link.close(),
  });
  return {
    scheme: transport.scheme,
    capabilities: transport.capabilities,
    dial: async (address, options) => noted(await transport.dial(address, options)),
    listen: (address, options) => transport.listen(address, options),
  };
}

interface Pair {
  readonly a: Endpoint;
  readonly b: Endpoint;
  /** What `a` has written since the connection was quiet. */
  readonly writes: Write[];
}

async function pair(cluster: Cluster, options: Partial<EndpointConfig>): Promise<Pair> {
  const { environment, network } = cluster;
  const writes: Write[] = [];
  const common: Partial<EndpointConfig> = {
    poolSize: 1,
    rateLimit: "disabled",
    compression: { enabled: false },
    ...options,
  };
  const b = await cluster.start("b", common);
  const transport = noting(network.transport("a"), () => environment.now(), writes);
  const a = await cluster.start("a", { ...common, transports: [transport] });
  await cluster.connect(a, "b");
  await environment.advance(QUIET_MS);
  writes.length = 0;
  return { a, b, writes };
}

const numbered = (count: number) => Array.from({ length: count }, (_, i) => `<${i}>`);

for (const maxProtocolVersion of [1, 2, 3]) {
  describe(`what is sent in one turn, in version ${maxProtocolVersion}`, () => {
    const options = { maxProtocolVersion };

    it(
      "leaves in one write, at once",
      inCluster(async (cluster) => {
        const { a, b, writes } = await pair(cluster, options);
        const at = cluster.environment.now();
        const sent = numbered(100).map((message) => a.send("b", bytes(message)));
        assert.deepEqual(writes, [], "the turn is not over");
        await Promise.all(sent);
        await cluster.environment.advance(0);
        assert.deepEqual(writes, [{ at, messages: numbered(100) }]);
        await cluster.environment.advance(10);
        assert.deepEqual(inbox(b), numbered(100));
      }),
    );

    it(
      "leaves in one write where each send is awaited",
      inCluster(async (cluster) => {
        const { a, writes } = await pair(cluster, options);
        const at = cluster.environment.now();
        for (const message of numbered(20)) await a.send("b", bytes(message));
        await cluster.environment.advance(0);
        assert.deepEqual(writes, [{ at, messages: numbered(20) }]);
      }),
    );

    it(
      "does not wait for the next turn",
      inCluster(async (cluster) => {
        const { a, writes } = await pair(cluster, options);
        const at = cluster.environment.now();
        await cluster.environment.run(a.send("b", bytes("<first>")));
        await cluster.environment.advance(1);
        await cluster.environment.run(a.send("b", bytes("<second>")));
        await cluster.environment.advance(0);
        assert.deepEqual(writes, [
          { at, messages: ["<first>"] },
          { at: at + 1, messages: ["<second>"] },
        ]);
      }),
    );
  });

  describe(`batchDelayMs, in version ${maxProtocolVersion}`, () => {
    const options = { maxProtocolVersion, batchDelayMs: BATCH_DELAY_MS };

    it(
      "joins what is sent in several turns into one write",
      inCluster(async (cluster) => {
        const { a, b, writes } = await pair(cluster, options);
        const at = cluster.environment.now();
        await cluster.environment.run(a.send("b", bytes("<first>")));
        await cluster.environment.advance(BATCH_DELAY_MS - 1);
        await cluster.environment.run(a.send("b", bytes("<second>")));
        await cluster.environment.advance(0);
        assert.deepEqual(writes, []);
        await cluster.environment.advance(1);
        assert.deepEqual(writes, [
          { at: at + BATCH_DELAY_MS, messages: ["<first>", "<second>"] },
        ]);
        await cluster.environment.advance(10);
        assert.deepEqual(inbox(b), ["<first>", "<second>"]);
      }),
    );

    it(
      "delays nothing for longer, and by default nothing at all",
      () =>
        fc.assert(
          fc.asyncProperty(
            fc.array(fc.integer({ min: 0, max: 30 }), { minLength: 1, maxLength: 15 }),
            fc.boolean(),
            async (pauses, delays) => {
              await inCluster(async (cluster) => {
                const more = delays ? options : { maxProtocolVersion };
                const { a, writes } = await pair(cluster, more);
                const sentAt: number[] = [];
                for (const [i, pause] of pauses.entries()) {
                  await cluster.environment.advance(pause);
                  sentAt.push(cluster.environment.now());
                  await a.send("b", bytes(`<${i}>`));
                }
                await cluster.environment.advance(QUIET_MS);
                const seen = writes.flatMap(({ at, messages }) =>
                  messages.map((message) => ({ at, message }))
                );
                assert.deepEqual(seen.map(({ message }) => message), numbered(pauses.length));
                seen.forEach(({ at }, i) => {
                  const waited = at - sentAt[i]!;
                  assert.ok(waited <= (delays ? BATCH_DELAY_MS : 0), `${i} waited ${waited} ms`);
                });
              })();
            },
          ),
          { numRuns: 25 },
        ),
    );
  });
}

describe("what is sent in one turn, in lanes", () => {
  it(
    "leaves in one write, too",
    inCluster(async (cluster) => {
      const { a, b, writes } = await pair(cluster, {});
      const lanes: LaneName[] = ["bulk", "normal", "control"];
      const sent = lanes.flatMap((lane) =>
        ["<1>", "<2>"].map((message) => a.send("b", bytes(message), { lane, topic: lane }))
      );
      await Promise.all(sent);
      await cluster.environment.advance(0);
      assert.deepEqual(writes.map(({ messages }) => messages.length), [6]);
      await cluster.environment.advance(10);
      assert.equal(inbox(b).length, 6);
    }),
  );
});

for (const maxProtocolVersion of [2, 3]) {
  describe(`a batch of 128 KiB, in version ${maxProtocolVersion}`, () => {
    it(
      "waits neither for the end of the turn nor for batchDelayMs",
      inCluster(async (cluster) => {
        const options = { maxProtocolVersion, batchDelayMs: BATCH_DELAY_MS };
        const { a, b, writes } = await pair(cluster, options);
        const message = `<${"x".repeat(998)}>`;
        for (let i = 1; i <= 200; i++) {
          void a.send("b", bytes(message));
          const frames = Math.ceil(BATCH_BYTES / (FRAME_BYTES[maxProtocolVersion]! + 1_000));
          assert.equal(writes.length, i < frames ? 0 : 1, `${i} messages`);
        }
        await cluster.environment.advance(BATCH_DELAY_MS + 10);
        assert.equal(inbox(b).length, 200);
      }, { highWater: 10_000_000 }),
    );
  });
}

describe("requests of one turn", () => {
  /** How many requests stand in each write of `a`, which makes 40 in one turn. */
  async function writesOf(cluster: Cluster, options: Partial<EndpointConfig>): Promise<number[]> {
    const { a, b, writes } = await pair(cluster, options);
    b.handle(undefined, ({ payload }) => payload);
    const asked = numbered(40).map((message) => a.request("b", bytes(message)));
    const answers = await cluster.environment.run(Promise.all(asked));
    assert.deepEqual(answers.map(text), numbered(40));
    return writes.map(({ messages }) => messages.length).filter((count) => count > 0);
  }

  it(
    "leave by sixteen, so that the other side begins while the rest is made",
    inCluster(async (cluster) => assert.deepEqual(await writesOf(cluster, {}), [16, 16, 8])),
  );

  it(
    "leave in one write where a batch delay is asked for",
    inCluster(async (cluster) => {
      const options = { batchDelayMs: BATCH_DELAY_MS };
      assert.deepEqual(await writesOf(cluster, options), [40]);
    }),
  );
});
