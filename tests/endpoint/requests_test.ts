/** Requests between endpoints, from end to end. */

import assert from "node:assert/strict";
import { describe, it } from "node:test";
import {
  Endpoint,
  HandlerError,
  json,
  RemoteError,
  RequestLostError,
  type TransportRequest,
} from "../../mod.ts";
import { bytes, type Cluster, inCluster, text } from "../support/cluster.ts";

const LATENCY_MS = 1;

/** "a", connected to "b" with all connections, and what the test needs of both. */
async function pair(
  cluster: Cluster,
  options: { a?: object; b?: object } = {},
): Promise<[Endpoint, Endpoint]> {
  const a = await cluster.start("a", { reconnect: { jitter: 0 }, ...options.a });
  const b = await cluster.start("b", options.b);
  await cluster.connect(a, "b");
  await cluster.pooled(a, b, 2);
  return [a, b];
}

/** A handler that answers when the test says so. */
class Held {
  readonly requests: TransportRequest[] = [];
  readonly #answers: (() => void)[] = [];

  readonly handler = (request: TransportRequest): Promise<Uint8Array> => {
    this.requests.push(request);
    return new Promise((resolve) => this.#answers.push(() => resolve(request.payload)));
  };

  answer(): void {
    for (const answer of this.#answers.splice(0)) answer();
  }
}

/** What becomes of a promise, to be asked at any time. */
function watch(promise: Promise<unknown>): { outcome: string; error: unknown } {
  const seen: { outcome: string; error: unknown } = { outcome: "pending", error: undefined };
  promise.then(
    () => seen.outcome = "resolved",
    (error) => {
      seen.outcome = error.code ?? error.name;
      seen.error = error;
    },
  );
  return seen;
}

describe("a request", () => {
  it(
    "is answered by the handler of its topic, which sees who asks what in which lane",
    inCluster(async (cluster) => {
      const [a, b] = await pair(cluster);
      const seen: unknown[] = [];
      b.handle("get", ({ from, payload, topic, lane }) => {
        seen.push([from, text(payload), topic, lane]);
        return bytes(`got ${text(payload)}`);
      });
      b.handle(undefined, () => bytes("without a topic"));
      const { environment } = cluster;
      const got = await environment.run(a.request("b", bytes("x"), { topic: "get", lane: "bulk" }));
      const plain = await environment.run(a.request("b", new Uint8Array(0)));
      assert.deepEqual([text(got), text(plain)], ["got x", "without a topic"]);
      assert.deepEqual(seen, [["a", "x", "get", "bulk"]]);
    }),
  );

  it(
    "goes both ways at once, hundreds under way, each with its own answer",
    inCluster(async (cluster) => {
      const [a, b] = await pair(cluster);
      for (const [x, y] of [[a, "b"], [b, "a"]] as const) {
        x.handle("twice", async ({ payload }) => {
          const word = text(payload);
          const answer = await x.request(y, bytes(word), { topic: "once" });
          return bytes(`${word}+${text(answer)}`);
        });
        x.handle("once", ({ payload }) => payload);
      }
      const asked = Array.from({ length: 120 }, (_, i) => [
        a.request("b", bytes(`a${i}`), { topic: "twice" }),
        b.request("a", bytes(`b${i}`), { topic: "twice" }),
      ]).flat();
      const answers = (await cluster.environment.run(Promise.all(asked))).map(text);
      const expected = Array.from({ length: 120 }, (_, i) => [`a${i}+a${i}`, `b${i}+b${i}`]);
      assert.deepEqual(answers, expected.flat());
    }),
  );

  it(
    "and its answer may be as large as a message, in fragments and compressed",
    inCluster(async (cluster) => {
      const maxMessageSize = 1_000_000;
      const [a, b] = await pair(cluster, { b: { maxMessageSize } });
      b.handle("echo", ({ payload }) => payload);
      const payload = Uint8Array.from({ length: maxMessageSize }, (_, i) => (i >> 8) * 7);
      const answer = await cluster.environment.run(a.request("b", payload, { topic: "echo" }));
      assert.deepEqual(answer, payload);
      assert.ok(a.stats().bytesSent < maxMessageSize / 2);
      const tooLarge = a.request("b", new Uint8Array(maxMessageSize + 1), { topic: "echo" });
      await assert.rejects(tooLarge, { code: "MessageTooLarge", maxSize: maxMessageSize });
    }),
  );

  it(
    "carries objects with a codec on both sides",
    inCluster(async (cluster) => {
      const { environment, network } = cluster;
      const make = (nodeId: string) =>
        new Endpoint<{ n: number }>({
          nodeId,
          listen: cluster.address(nodeId),
          security: "legacy",
          codec: json<{ n: number }>(),
          environment,
          transports: [network.transport(nodeId)],
        });
      const [a, b] = [make("a"), make("b")];
      await Promise.all([a.start(), b.start()]);
      try {
        b.handle("add", ({ payload, from }) => ({ n: payload.n + from.length }));
        await environment.run(a.connect({ nodeId: "b", address: cluster.address("b") }));
        const answer = await environment.run(a.request("b", { n: 41 }, { topic: "add" }));
        assert.deepEqual(answer, { n: 42 });
      } finally {
        await environment.run(Promise.all([a.close({ drainMs: 0 }), b.close({ drainMs: 0 })]));
      }
    }),
  );

  it(
    "waits for a peer that is away, for as long as its deadline lets it",
    inCluster(async (cluster) => {
      const [a, b] = await pair(cluster);
      b.handle("get", ({ payload }) => payload);
      const { environment, network } = cluster;
      network.blackHoles.add(cluster.address("b"));
      network.reset(cluster.address("b"));
      await environment.advance(5);
      const patient = watch(a.request("b", bytes("x"), { topic: "get" }));
      const hasty = watch(a.request("b", bytes("x"), { topic: "get", timeoutMs: 50 }));
      await environment.advance(49);
      assert.equal(hasty.outcome, "pending");
      await environment.advance(1);
      assert.equal(hasty.outcome, "Timeout");
      network.blackHoles.clear();
      await cluster.pooled(a, b, 2);
      await environment.advance(50);
      assert.equal(patient.outcome, "resolved");
    }),
  );

  it(
    "is refused with wrong arguments, and to nobody",
    inCluster(async (cluster) => {
      const [a] = await pair(cluster);
      const ask = (options: object) => a.request("b", bytes("x"), options);
      await assert.rejects(a.request("c", bytes("x")), { code: "PeerNotFound", peer: "c" });
      await assert.rejects(a.request("b", "x" as unknown as Uint8Array), TypeError);
      await assert.rejects(ask({ lane: "fast" }), TypeError);
      for (const topic of ["", "x".repeat(256)]) await assert.rejects(ask({ topic }), RangeError);
      for (const timeoutMs of [0, -1, NaN]) await assert.rejects(ask({ timeoutMs }), RangeError);
      await assert.rejects(ask({ timeout: 5 }), /^TypeError: Cannot request:.* option "timeout";/);
      const concurrency = { concurency: 5 } as object;
      assert.throws(() => a.handle("get", () => bytes(""), concurrency), /"concurency"/);
      const stream = { window: 5 } as object;
      await assert.rejects(a.openStream("b", stream), /^TypeError: .*"window"; there are lane/);
      const reason = new Error("enough");
      await assert.rejects(ask({ signal: AbortSignal.abort(reason) }), (e) => e === reason);
    }),
  );
});

describe("a request to a peer that can't be reached", () => {
  const ask = (a: Endpoint) => watch(a.request("b", bytes("x"), { topic: "get", timeoutMs: 400 }));
  const check = ({ error }: { error: unknown }, cause: RegExp) => {
    assert.ok(error instanceof RequestLostError, String(error));
    assert.equal(
      error.message,
      'Cannot complete the request "get": b was not connected within 400 ms',
    );
    assert.deepEqual([error.code, error.outcome, error.retryable], ["Timeout", "not-run", true]);
    assert.match(String((error.cause as Error).message), cause);
  };

  it(
    "and never was says so at its deadline, and why",
    inCluster(async (cluster) => {
      const peers = [{ nodeId: "b", address: cluster.address("b") }];
      const a = await cluster.start("a", { peers });
      const asked = ask(a);
      await cluster.environment.advance(400);
      check(asked, /Cannot connect to memory:.*refused/);
    }),
  );

  it(
    "any more says the same; what was sent before may have run",
    inCluster(async (cluster) => {
      const [a, b] = await pair(cluster);
      const { environment, network } = cluster;
      const held = new Held();
      b.handle("get", held.handler);
      const before = ask(a);
      await environment.advance(5);
      assert.equal(held.requests.length, 1);
      network.refusing.add(cluster.address("b"));
      network.reset(cluster.address("b"));
      await environment.advance(5);
      const after = ask(a);
      await environment.advance(400);
      check(after, /refused/);
      assert.ok(before.error instanceof RequestLostError);
      assert.equal(before.error.outcome, "may-have-run");
      assert.match(before.error.message, /b did not answer within 400 ms/);
      held.answer();
    }),
  );
});

describe("a deadline", () => {
  it(
    "travels to the handler, and both sides give up when it passes",
    inCluster(async (cluster) => {
      const [a, b] = await pair(cluster);
      const { environment } = cluster;
      const held = new Held();
      b.handle("slow", held.handler);
      const askedAt = environment.wallClock();
      const asked = watch(a.request("b", bytes("x"), { topic: "slow", timeoutMs: 500 }));
      await environment.advance(20);
      const { deadline, signal } = held.requests[0]!;
      assert.ok(deadline! >= askedAt + 500 && deadline! <= askedAt + 500 + 2 * LATENCY_MS);
      await environment.advance(479);
      assert.deepEqual([asked.outcome, signal.aborted], ["pending", false]);
      await environment.advance(5);
      assert.deepEqual([asked.outcome, signal.aborted], ["Timeout", true]);
      assert.ok((asked.error as { retryable: boolean }).retryable);
      // What is answered too late is no news for anybody.
      held.answer();
      await environment.advance(50);
      assert.deepEqual([a.stats().errors, b.stats().errors], [{}, {}]);
      assert.equal(b.stats().handlerErrors, 0);
    }),
  );

  it(
    "is that of the endpoint where none is given; Infinity is none",
    inCluster(async (cluster) => {
      const [a, b] = await pair(cluster, { a: { requestTimeoutMs: 300 } });
      const { environment } = cluster;
      const held = new Held();
      b.handle("slow", held.handler);
      const usual = watch(a.request("b", bytes("x"), { topic: "slow" }));
      const endless = watch(a.request("b", bytes("x"), { topic: "slow", timeoutMs: Infinity }));
      await environment.advance(310);
      assert.deepEqual([usual.outcome, endless.outcome], ["Timeout", "pending"]);
      assert.equal(held.requests[1]!.deadline, undefined);
      await environment.advance(100_000);
      held.answer();
      await environment.advance(10);
      assert.equal(endless.outcome, "resolved");
    }),
  );
});

describe("a request that is given up", () => {
  it(
    "rejects with the signal's reason at once, and the handler's signal fires",
    inCluster(async (cluster) => {
      const [a, b] = await pair(cluster);
      const { environment } = cluster;
      const held = new Held();
      b.handle("slow", held.handler);
      const abort = new AbortController();
      const reason = new Error("enough");
      const asked = a.request("b", bytes("x"), { topic: "slow", signal: abort.signal });
      await environment.advance(10);
      const { signal } = held.requests[0]!;
      assert.equal(signal.aborted, false);
      abort.abort(reason);
      await assert.rejects(asked, (error) => error === reason);
      await environment.advance(10);
      assert.ok(signal.reason instanceof RemoteError);
      assert.deepEqual([signal.reason.remoteCode, signal.reason.peer], ["CANCELLED", "a"]);
    }),
  );

  it(
    "while the peer is away never reaches it",
    inCluster(async (cluster) => {
      const [a, b] = await pair(cluster);
      const { environment, network } = cluster;
      const held = new Held();
      b.handle("slow", held.handler);
      network.reset(cluster.address("b"));
      await environment.advance(1);
      const abort = new AbortController();
      const asked = watch(a.request("b", bytes("x"), { topic: "slow", signal: abort.signal }));
      abort.abort();
      await cluster.pooled(a, b, 2);
      await environment.advance(50);
      assert.deepEqual([asked.outcome, held.requests.length], [20, 0]);
      assert.equal(a.peer("b")!.pendingMessages, 0);
    }),
  );
});

describe("a handler that fails", () => {
  it(
    "with a HandlerError chooses what the other side is told",
    inCluster(async (cluster) => {
      const [a, b] = await pair(cluster);
      b.handle("get", () => {
        throw new HandlerError("NO_SUCH_KEY", "there is no key x");
      });
      const error = await cluster.environment.run(
        a.request("b", bytes("x"), { topic: "get" }).catch((e) => e),
      );
      assert.ok(error instanceof RemoteError);
      assert.deepEqual(
        [error.code, error.remoteCode, error.remoteMessage, error.peer, error.retryable],
        ["RemoteError", "NO_SUCH_KEY", "there is no key x", "b", false],
      );
      assert.equal(b.stats().handlerErrors, 0);
    }),
  );

  it(
    "otherwise tells nothing of its insides, and is counted and reported at home",
    inCluster(async (cluster) => {
      const [a, b] = await pair(cluster);
      const warnings: string[] = [];
      b.addEventListener("warning", ({ detail }) => warnings.push(detail.message));
      b.handle("get", () => Promise.reject(new Error("password=hunter2")));
      b.handle("nothing", () => undefined as unknown as Uint8Array);
      for (const topic of ["get", "nothing"]) {
        const error = await cluster.environment.run(
          a.request("b", bytes("x"), { topic }).catch((e) => e),
        );
        assert.equal(error.remoteCode, "HANDLER_FAILED");
        assert.ok(!`${error.message} ${error.remoteMessage}`.includes("hunter2"));
      }
      assert.equal(b.stats().handlerErrors, 2);
      assert.ok(warnings[0]?.includes("hunter2"));
    }),
  );

  it(
    "because it is not there, or not any more, is named",
    inCluster(async (cluster) => {
      const [a, b] = await pair(cluster);
      const ask = (topic: string | undefined) =>
        cluster.environment.run(a.request("b", bytes("x"), { topic }));
      const stop = b.handle("get", ({ payload }) => payload);
      await ask("get");
      stop();
      const refused = { code: "RemoteError", remoteCode: "NO_HANDLER", retryable: false };
      await assert.rejects(ask("get"), refused);
      await assert.rejects(ask(undefined), refused);
    }),
  );
});

describe("too many requests", () => {
  const cases = [
    ["maxRequests of the endpoint", { maxRequests: 2 }, {}],
    ["concurrency of the topic", {}, { concurrency: 2 }],
    ["concurrencyPerPeer of the topic", {}, { concurrencyPerPeer: 2 }],
  ] as const;
  for (const [name, b, handling] of cases) {
    it(
      `by ${name} are refused, typed and counted, and served again when there is room`,
      inCluster(async (cluster) => {
        const [a, server] = await pair(cluster, { b });
        const { environment } = cluster;
        const held = new Held();
        server.handle("slow", held.handler, handling);
        const ask = () => a.request("b", bytes("x"), { topic: "slow" });
        const first = [watch(ask()), watch(ask())];
        await environment.advance(10);
        const error = await environment.run(ask().catch((e) => e));
        assert.ok(error instanceof RemoteError);
        assert.deepEqual([error.remoteCode, error.retryable], ["TOO_MANY_REQUESTS", true]);
        assert.equal(server.stats().refused.requestsAndStreams, 1);
        held.answer();
        await environment.advance(10);
        assert.deepEqual(first.map(({ outcome }) => outcome), ["resolved", "resolved"]);
        const again = watch(ask());
        await environment.advance(10);
        held.answer();
        await environment.advance(10);
        assert.equal(again.outcome, "resolved");
      }),
    );
  }

  it(
    "of one peer are no reason to refuse another's",
    inCluster(async (cluster) => {
      const [a, b] = await pair(cluster, { b: { maxRequests: 1 } });
      const c = await cluster.start("c");
      await cluster.connect(c, "b");
      const held = new Held();
      b.handle("slow", held.handler);
      const asked = [a, c].map((from) => watch(from.request("b", bytes("x"), { topic: "slow" })));
      await cluster.environment.advance(20);
      held.answer();
      await cluster.environment.advance(20);
      assert.deepEqual(asked.map(({ outcome }) => outcome), ["resolved", "resolved"]);
    }),
  );
});

describe("a request whose connection breaks", () => {
  for (const when of ["before it arrived", "while it runs"] as const) {
    it(
      `${when} is carried over by the session and runs once`,
      inCluster(async (cluster) => {
        const [a, b] = await pair(cluster);
        const { environment, network } = cluster;
        const held = new Held();
        b.handle("slow", held.handler);
        const asked = watch(a.request("b", bytes("x"), { topic: "slow" }));
        if (when === "while it runs") await environment.advance(10);
        else await environment.advance(0);
        for (let i = 0; i < 3; i++) {
          network.reset(cluster.address("b"));
          await environment.advance(5);
          await cluster.pooled(a, b, 2);
        }
        assert.equal(held.requests.length, 1);
        assert.equal(held.requests[0]!.signal.aborted, false);
        held.answer();
        await environment.advance(10);
        assert.equal(asked.outcome, "resolved");
      }, { latencyMs: LATENCY_MS }),
    );
  }

  it(
    "and the answer, too: it is not lost with the connection it was written to",
    inCluster(async (cluster) => {
      const [a, b] = await pair(cluster);
      const { environment, network } = cluster;
      let runs = 0;
      b.handle("get", ({ payload }) => {
        runs++;
        network.reset(cluster.address("b"));
        return payload;
      });
      const answer = await environment.run(a.request("b", bytes("x"), { topic: "get" }));
      assert.deepEqual([text(answer), runs], ["x", 1]);
    }),
  );

  it(
    "because the peer was started again fails: it may have run",
    inCluster(async (cluster) => {
      const [a, b] = await pair(cluster);
      const { environment, network } = cluster;
      const held = new Held();
      b.handle("slow", held.handler);
      const asked = watch(a.request("b", bytes("x"), { topic: "slow" }));
      await environment.advance(10);
      network.blackHoles.add(cluster.address("b"));
      network.reset(cluster.address("b"));
      await environment.run(b.close({ drainMs: 0 }));
      assert.ok(held.requests[0]!.signal.aborted);
      assert.equal(held.requests[0]!.signal.reason.code, "ConnectionClosed");
      network.blackHoles.clear();
      const again = await cluster.start("b");
      const later = new Held();
      again.handle("slow", later.handler);
      await cluster.pooled(a, again, 2);
      const { error } = asked;
      assert.ok(error instanceof RequestLostError);
      assert.deepEqual(
        [error.code, error.outcome, error.retryable, error.peer],
        ["ConnectionClosed", "may-have-run", false, "b"],
      );
      await environment.advance(50);
      assert.equal(later.requests.length, 0);
    }),
  );

  it(
    "and that was not written before goes to the peer that was started again",
    inCluster(async (cluster) => {
      const [a, b] = await pair(cluster);
      const { environment } = cluster;
      await environment.run(b.close({ drainMs: 0 }));
      await environment.advance(5);
      const asked = watch(a.request("b", bytes("x"), { topic: "get" }));
      const again = await cluster.start("b");
      again.handle("get", ({ payload }) => payload);
      await cluster.pooled(a, again, 2);
      await environment.advance(10);
      assert.equal(asked.outcome, "resolved");
    }),
  );

  for (const how of ["disconnect", "close"] as const) {
    it(
      `by ${how} of the requester fails, and the handler is told`,
      inCluster(async (cluster) => {
        const [a, b] = await pair(cluster);
        const { environment } = cluster;
        const held = new Held();
        b.handle("slow", held.handler);
        const asked = watch(a.request("b", bytes("x"), { topic: "slow" }));
        await environment.advance(10);
        await environment.run(how === "close" ? a.close() : a.disconnect("b"));
        await environment.advance(20);
        assert.ok(asked.error instanceof RequestLostError);
        assert.equal(asked.error.outcome, "may-have-run");
        assert.ok(held.requests[0]!.signal.aborted);
      }),
    );
  }

  it(
    "for good fails when the resume window is over",
    inCluster(async (cluster) => {
      const [a, b] = await pair(cluster, {
        a: { resumeWindowMs: 1_000 },
        b: { resumeWindowMs: 500 },
      });
      const { environment, network } = cluster;
      const held = new Held();
      b.handle("slow", held.handler);
      const asked = watch(a.request("b", bytes("x"), { topic: "slow", timeoutMs: 60_000 }));
      await environment.advance(10);
      network.blackHoles.add(cluster.address("b"));
      network.reset(cluster.address("b"));
      await environment.advance(400);
      assert.equal(held.requests[0]!.signal.aborted, false);
      await environment.advance(200);
      assert.equal(held.requests[0]!.signal.aborted, true);
      assert.equal(asked.outcome, "pending");
      await environment.advance(500);
      assert.ok(asked.error instanceof RequestLostError);
      assert.equal(asked.error.outcome, "may-have-run");
      network.blackHoles.clear();
    }),
  );
});
