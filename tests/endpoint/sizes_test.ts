/** What is larger than the peer takes fails by itself; the session, and what follows, go on. */

import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { Endpoint, EndpointConfig, TransportError } from "../../mod.ts";
import { bytes, type Cluster, inbox, inCluster } from "../support/cluster.ts";
import { undelivered, watch, type Watched } from "../support/watch.ts";
import { newKeys } from "./on_the_line.ts";

const MOST = 100_000;
const [A, B] = [newKeys(), newKeys()];
const trustedKeys = { a: A.publicKey, b: B.publicKey };

interface Case {
  readonly name: string;
  /** What "a" tries to send. */
  readonly size: number;
  /** The largest payload that "b" takes. */
  readonly most: number;
  readonly a: Partial<EndpointConfig>;
  readonly b: Partial<EndpointConfig>;
}

const PLAIN = { poolSize: 1, compression: { enabled: false }, maxMessageSize: MOST } as const;
/** Version, "a" and "b" with their lengths, sequence, time, length of the payload, signature. */
const ENVELOPE_BYTES = 1 + 2 + 2 + 8 + 8 + 4 + 64;
const CASES: readonly Case[] = [
  { name: "beyond the peer's limit", size: 500_000, most: MOST, ...limits() },
  { name: "within it, but not with its signature", size: MOST, most: MOST, ...signatures() },
];

function limits(): Pick<Case, "a" | "b"> {
  return { a: { ...PLAIN, maxMessageSize: 1_000_000 }, b: PLAIN };
}

function signatures(): Pick<Case, "a" | "b"> {
  return {
    a: { ...PLAIN, signing: { privateKey: A.privateKey, trustedKeys } },
    b: { ...PLAIN, signing: { privateKey: B.privateKey, trustedKeys } },
  };
}

async function started(cluster: Cluster, { a, b }: Case): Promise<[Endpoint, Endpoint]> {
  return [await cluster.start("a", a), await cluster.start("b", b)];
}

/** What follows arrives, and over the first connection. */
async function goesOn(cluster: Cluster, from: Endpoint, to: Endpoint): Promise<void> {
  const next = watch(from.send(to.nodeId, bytes("next"), { acknowledged: true }));
  await cluster.environment.advance(5_000);
  assert.equal(next.outcome, "resolved");
  assert.deepEqual(inbox(to), ["next"]);
  assert.equal(cluster.network.dials.length, 1);
  assert.deepEqual([from.stats().errors, to.stats().errors], [{}, {}]);
}

function failed({ outcome, error }: Watched): string {
  return `${outcome} ${error?.code}`;
}

for (const each of CASES) {
  describe(`${each.size} bytes, ${each.name}`, () => {
    it(
      "are reported where they are a message that waited for the connection",
      inCluster(async (cluster) => {
        const [a, b] = await started(cluster, each);
        const events = undelivered(a, ({ fate, payload, error }) => {
          return `${fate} ${payload.length} ${error.code}`;
        });
        const connected = a.connect({ nodeId: "b", address: cluster.address("b") });
        const accepted = watch(a.send("b", new Uint8Array(each.size)));
        const acknowledged = watch(a.send("b", new Uint8Array(each.size), { acknowledged: true }));
        await cluster.environment.run(connected);
        await goesOn(cluster, a, b);
        assert.deepEqual(events, Array(2).fill(`unsent ${each.size} MessageTooLarge`));
        assert.equal(accepted.outcome, "resolved");
        assert.equal(failed(acknowledged), "rejected MessageTooLarge");
      }),
    );

    it(
      "fail where they are a request that waited for the connection",
      inCluster(async (cluster) => {
        const [a, b] = await started(cluster, each);
        b.handle(undefined, ({ payload }) => payload);
        const connected = a.connect({ nodeId: "b", address: cluster.address("b") });
        const asked = watch(a.request("b", new Uint8Array(each.size), { timeoutMs: Infinity }));
        await cluster.environment.run(connected);
        await goesOn(cluster, a, b);
        assert.equal(asked.outcome, "rejected");
        assert.equal((asked.error!.cause as TransportError).code, "MessageTooLarge");
        assert.equal(a.peer("b")!.openRequests, 0);
      }),
    );

    it(
      "fail where they are a request to a peer that is there",
      inCluster(async (cluster) => {
        const [a, b] = await started(cluster, each);
        await cluster.connect(a, "b");
        b.handle(undefined, ({ payload }) => payload);
        const asked = watch(a.request("b", new Uint8Array(each.size), { timeoutMs: Infinity }));
        await goesOn(cluster, a, b);
        assert.equal(failed(asked), "rejected MessageTooLarge");
      }),
    );

    it(
      "are refused as what a stream begins with",
      inCluster(async (cluster) => {
        const [a, b] = await started(cluster, each);
        await cluster.connect(a, "b");
        b.onStream(undefined, () => {});
        const opened = watch(a.openStream("b", { payload: new Uint8Array(each.size) }));
        await goesOn(cluster, a, b);
        assert.equal(failed(opened), "rejected MessageTooLarge");
        assert.equal(a.peer("b")!.openStreams, 0);
      }),
    );

    it(
      "are no answer to a request: it fails",
      inCluster(async (cluster) => {
        const [a, b] = await started(cluster, each);
        await cluster.connect(a, "b");
        a.handle(undefined, () => new Uint8Array(each.size));
        const asked = watch(b.request("a", bytes("?"), { timeoutMs: Infinity }));
        await cluster.environment.advance(100);
        assert.equal(failed(asked), "rejected RemoteError");
        await goesOn(cluster, b, a);
      }),
    );
  });
}

describe("the largest payload beside its signature", () => {
  const most = MOST - ENVELOPE_BYTES;
  const signed: Case = { name: "", size: most, most, ...signatures() };

  it(
    "goes as a message, as a request and its answer, and with a stream; one byte more does not",
    inCluster(async (cluster) => {
      const { environment } = cluster;
      const [a, b] = await started(cluster, signed);
      await cluster.connect(a, "b");
      b.handle(undefined, ({ payload }) => payload);
      const opened: number[] = [];
      b.onStream(undefined, ({ payload }) => void opened.push(payload.length));
      const [whole, more] = [new Uint8Array(most), new Uint8Array(most + 1)];
      await environment.run(a.send("b", whole, { acknowledged: true }));
      assert.equal((await environment.run(a.request("b", whole))).length, most);
      await a.openStream("b", { payload: whole });
      await environment.advance(100);
      assert.deepEqual(opened, [most]);
      const tooLarge = { code: "MessageTooLarge" };
      await assert.rejects(async () => await a.send("b", more), tooLarge);
      await assert.rejects(async () => await a.request("b", more), tooLarge);
      await assert.rejects(async () => await a.openStream("b", { payload: more }), tooLarge);
    }),
  );
});
