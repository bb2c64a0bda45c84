import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { describe, it } from "node:test";
import {
  BackpressureError,
  MessageTooLargeError,
  RemoteError,
  RequestLostError,
  TransportError,
} from "../../src/errors.ts";
import {
  type HandleOptions,
  HandlerError,
  Handlers,
  request,
  type RequestHandler,
  type RequestHost,
  type RequestOptions,
  RequestServer,
  type ServerHost,
  type TransportRequest,
} from "../../src/peer/requests.ts";
import { Calls } from "../../src/protocol/v3/calls.ts";
import { Served } from "../../src/protocol/v3/served.ts";
import { bytes, type Node } from "../protocol/v3_pair.ts";
import { LivePair, turns } from "./live_pair.ts";

const GONE = new TransportError("ConnectionClosed", "Cannot go on: a test says so");
const EPOCH = 1_700_000_000_000;

interface Bounds {
  readonly maxCalls?: number;
  readonly maxRequests?: number;
  readonly maxMessageSize?: number;
}

/** Node a asks, node b serves. */
class World {
  readonly pair = new LivePair();
  readonly handlers = new Handlers();
  readonly errors: unknown[] = [];
  readonly calls: Calls;
  readonly served: Served;
  refused = 0;
  readonly #host: RequestHost;

  constructor({ maxCalls = 100, maxRequests = 100, maxMessageSize = 1000 }: Bounds = {}) {
    const { a, b } = this.pair;
    this.calls = new Calls(a.session, { peer: "b", maxCalls });
    this.#host = {
      nodeId: "b",
      calls: this.calls,
      maxMessageSize,
      requestTimeoutMs: 30_000,
      get now() {
        return a.session.now;
      },
    };
    const server: ServerHost = {
      nodeId: "a",
      maxMessageSize,
      now: () => b.session.now,
      epochNow: () => EPOCH + b.session.now,
      onHandlerError: (error) => this.errors.push(error),
      onRefused: () => this.refused++,
      onRelieved: () => {},
    };
    const limitOf = (topic: string | undefined) => this.handlers.limitOf(topic);
    const config = { peer: "a", maxRequests, limitOf };
    this.served = new Served(b.session, config, new RequestServer(this.handlers, server));
    put(a, "calls", this.calls);
    put(b, "served", this.served);
  }

  ask(payload: string | Uint8Array = "", options?: RequestOptions): Promise<Uint8Array> {
    return request(this.#host, typeof payload === "string" ? bytes(payload) : payload, options);
  }

  handle(handler: RequestHandler, options?: HandleOptions): () => void {
    return this.handlers.handle(undefined, handler, options);
  }

  /** Time passes on both sides. */
  wait(ms: number): void {
    const { a, b } = this.pair;
    a.session.now = b.session.now += ms;
    this.calls.handleTimeout(a.session.now);
    this.served.handleTimeout(b.session.now);
  }
}

function put<K extends "calls" | "served">(node: Node, key: K, value: Node[K]): void {
  Object.defineProperty(node, key, { value });
}

/** What a promise comes to, now. */
async function outcome(promise: Promise<unknown>): Promise<string> {
  let state = "pending";
  promise.then(
    (value) => state = value instanceof Uint8Array ? new TextDecoder().decode(value) : "done",
    (error) =>
      state = error instanceof RemoteError ? error.remoteCode : error?.code ?? error?.name ?? error,
  );
  await turns();
  return state;
}

const never: RequestHandler = () => new Promise(() => {});

describe("a request", () => {
  it("resolves with what the handler of its topic returns, at once or later", async () => {
    const world = new World();
    const seen: TransportRequest[] = [];
    world.handlers.handle("echo", (request) => {
      seen.push(request);
      return request.payload;
    });
    world.handlers.handle("later", async () => {
      await turns(10);
      return bytes("later");
    });
    world.handle(() => bytes("no topic"));
    assert.equal(await outcome(world.ask("x", { topic: "echo", lane: "bulk" })), "x");
    assert.equal(await outcome(world.ask("x", { topic: "later", lane: "control" })), "later");
    assert.equal(await outcome(world.ask("x")), "no topic");
    const [{ from, topic, lane, payload }] = seen as [TransportRequest];
    assert.deepEqual([from, topic, lane, payload], ["a", "echo", "bulk", bytes("x")]);
    assert.deepEqual([world.served.running, world.errors], [0, []]);
  });

  it("takes a copy of its payload, of a Buffer too", async () => {
    const world = new World();
    world.handle(({ payload }) => payload);
    world.pair.stopped = true;
    const payload = Buffer.from("before");
    const asked = world.ask(payload);
    payload.fill(0);
    world.pair.stopped = false;
    world.pair.carrySoon();
    assert.equal(await outcome(asked), "before");
  });

  it("tells the handler its deadline, on the clock of the wall", async () => {
    const world = new World();
    const deadlines: (number | undefined)[] = [];
    world.handle(({ deadline }) => {
      deadlines.push(deadline);
      return bytes("");
    });
    world.pair.a.session.now = 500;
    world.pair.b.session.now = 70;
    await world.ask("", { timeoutMs: 1000 });
    await world.ask("");
    await world.ask("", { timeoutMs: Infinity });
    await world.ask("", { timeoutMs: 2 ** 53 });
    assert.deepEqual(deadlines, [
      EPOCH + 1070,
      EPOCH + 30_070,
      undefined,
      EPOCH + 70 + 2 ** 32 - 1,
    ]);
  });

  it("is refused with wrong arguments", async () => {
    const world = new World();
    for (const timeoutMs of [0, -1, NaN, -Infinity, "5" as unknown as number]) {
      await assert.rejects(world.ask("", { timeoutMs }), RangeError);
    }
    await assert.rejects(world.ask("", { topic: "" }), RangeError);
    await assert.rejects(world.ask("", { lane: "fast" as "bulk" }), TypeError);
    for (const payload of [new ArrayBuffer(1), [1], undefined, new Uint16Array(1)]) {
      const host = { nodeId: "b", calls: world.calls, maxMessageSize: 9, requestTimeoutMs: 1 };
      const asked = request({ ...host, now: 0 }, payload as unknown as Uint8Array);
      await assert.rejects(asked, TypeError);
    }
    await assert.rejects(
      world.ask(new Uint8Array(1001)),
      (error) =>
        error instanceof MessageTooLargeError && error.size === 1001 && error.maxSize === 1000,
    );
    assert.equal(world.calls.open, 0);
  });

  it("is refused where too many are under way", async () => {
    const world = new World({ maxCalls: 1 });
    world.handle(never);
    const first = world.ask();
    await assert.rejects(world.ask(), BackpressureError);
    assert.equal(await outcome(first), "pending");
  });

  it("honours its signal at every stage", async () => {
    const world = new World();
    let request: TransportRequest | undefined;
    let answer: (payload: Uint8Array) => void = () => {};
    world.handle((got) => {
      request = got;
      return new Promise((resolve) => answer = resolve);
    });
    assert.equal(await outcome(world.ask("", { signal: AbortSignal.abort("early") })), "early");

    const unsent = new AbortController();
    world.pair.stopped = true;
    const waiting = world.ask("", { signal: unsent.signal });
    unsent.abort("unsent");
    assert.equal(await outcome(waiting), "unsent");
    world.pair.stopped = false;
    assert.deepEqual([world.calls.open, request], [0, undefined]);

    const sent = new AbortController();
    const asked = world.ask("", { signal: sent.signal });
    await turns();
    assert.equal(request!.signal.aborted, false);
    sent.abort("sent");
    assert.equal(await outcome(asked), "sent");
    assert.equal(request!.signal.reason.remoteCode, "CANCELLED");
    answer(bytes("too late"));
    await turns();
    assert.equal(world.served.running, 0);

    const late = new AbortController();
    const answered = world.ask("", { signal: late.signal });
    await turns();
    answer(bytes("ok"));
    assert.equal(await outcome(answered), "ok");
    late.abort("late");
    assert.deepEqual([await outcome(answered), request!.signal.aborted], ["ok", false]);
  });

  it("leaves no listener at its signal, however it ends", async () => {
    const world = new World();
    const listeners = new Set<unknown>();
    const giveUp = new AbortController();
    const { signal } = giveUp;
    signal.addEventListener = (_: string, listener: unknown) => void listeners.add(listener);
    signal.removeEventListener = (_: string, listener: unknown) => void listeners.delete(listener);
    world.handle(({ payload }) => payload);
    const asked = world.ask("x", { signal });
    assert.equal(listeners.size, 1);
    assert.deepEqual([await outcome(asked), listeners.size], ["x", 0]);
    assert.equal(await outcome(world.ask("", { signal, topic: "none" })), "NO_HANDLER");
    assert.equal(listeners.size, 0);
  });

  it("times out on both sides", async () => {
    const world = new World();
    let signal: AbortSignal | undefined;
    world.handle((request) => {
      signal = request.signal;
      return never(request);
    });
    const asked = world.ask("", { timeoutMs: 100 });
    await turns();
    world.wait(99);
    assert.deepEqual([await outcome(asked), signal!.aborted], ["pending", false]);
    world.wait(1);
    assert.equal(await outcome(asked), "Timeout");
    assert.ok(signal!.reason instanceof TransportError);
    assert.equal(signal!.reason.code, "Timeout");
  });

  it("fails on both sides when the session ends", async () => {
    const world = new World();
    let signal: AbortSignal | undefined;
    world.handle((request) => {
      signal = request.signal;
      return never(request);
    });
    const asked = world.ask("");
    await turns();
    world.calls.end(GONE);
    world.served.end();
    await assert.rejects(
      asked,
      (error) => error instanceof RequestLostError && error.outcome === "may-have-run",
    );
    assert.equal(signal!.reason.code, "ConnectionClosed");
  });
});

describe("a handler", () => {
  it("that fails tells the other side nothing of our insides", async () => {
    const world = new World();
    const secret = new Error("the password is 1234");
    const failing: RequestHandler[] = [
      () => {
        throw secret;
      },
      () => Promise.reject(secret),
      () => Promise.reject(undefined),
    ];
    for (const handler of failing) {
      world.handle(handler);
      const error = await world.ask().then(() => undefined, (error) => error);
      assert.ok(error instanceof RemoteError);
      assert.deepEqual([error.remoteCode, error.remoteMessage], [
        "HANDLER_FAILED",
        "the handler failed",
      ]);
    }
    assert.deepEqual([world.errors, world.served.running], [[secret, secret, undefined], 0]);
  });

  it("chooses what the other side is told with a HandlerError", async () => {
    const world = new World();
    world.handle(() => {
      throw new HandlerError("NOT_FOUND", "no such key");
    });
    const error = await world.ask().then(() => undefined, (error) => error);
    assert.deepEqual([error.remoteCode, error.remoteMessage], ["NOT_FOUND", "no such key"]);
    assert.deepEqual(world.errors, []);
    for (const code of ["", "two words", "é", "x".repeat(65)]) {
      assert.throws(() => new HandlerError(code, ""), RangeError);
    }
  });

  it("that returns what can't be sent has failed", async () => {
    const world = new World();
    const wrong: unknown[] = ["text", undefined, new ArrayBuffer(1), new Uint8Array(1001)];
    for (const value of wrong) {
      world.handle(() => value as Uint8Array);
      assert.equal(await outcome(world.ask()), "HANDLER_FAILED");
      world.handle(() => Promise.resolve(value as Uint8Array));
      assert.equal(await outcome(world.ask()), "HANDLER_FAILED");
    }
    assert.equal(world.errors.length, 2 * wrong.length);
    assert.ok(world.errors[0] instanceof TypeError);
    assert.ok(world.errors.at(-1) instanceof MessageTooLargeError);
  });

  it("that is not there is named", async () => {
    const world = new World();
    const stop = world.handle(() => bytes("x"));
    const stopOther = world.handle(() => bytes("y"));
    stop();
    assert.equal(await outcome(world.ask()), "y");
    stopOther();
    assert.equal(await outcome(world.ask()), "NO_HANDLER");
    assert.equal(await outcome(world.ask("", { topic: "constructor" })), "NO_HANDLER");
  });

  it("that never settles takes places, and no more than there are", async () => {
    const world = new World({ maxRequests: 2 });
    world.handle(never);
    const outcomes: string[] = [];
    for (let i = 0; i < 10; i++) {
      const giveUp = new AbortController();
      outcomes.push(await outcome(world.ask("", { signal: giveUp.signal })));
      giveUp.abort();
      await turns();
    }
    assert.deepEqual(outcomes.slice(0, 3), ["pending", "pending", "TOO_MANY_REQUESTS"]);
    assert.deepEqual([world.served.running, world.refused], [2, 8]);
  });

  it("runs no more often at once than it allows, in all and for one node", async () => {
    for (const options of [{ concurrency: 1 }, { concurrencyPerPeer: 1 }]) {
      const world = new World();
      let finish: (payload: Uint8Array) => void = () => {};
      world.handle(() => new Promise((resolve) => finish = resolve), options);
      const first = world.ask();
      await turns();
      assert.equal(await outcome(world.ask()), "TOO_MANY_REQUESTS");
      assert.equal(world.refused, 1);
      finish(bytes("1"));
      assert.equal(await outcome(first), "1");
      assert.equal(await outcome(world.ask()), "pending");
    }
  });

  it("that throws after it was told to stop is no news", async () => {
    const world = new World();
    world.handle(({ signal }) =>
      new Promise((_, reject) => signal.addEventListener("abort", () => reject(signal.reason)))
    );
    const giveUp = new AbortController();
    const asked = world.ask("", { signal: giveUp.signal });
    await turns();
    giveUp.abort("enough");
    assert.equal(await outcome(asked), "enough");
    assert.deepEqual([world.errors, world.served.running], [[], 0]);
  });

  it("that asks for the signal only afterwards finds it fired", async () => {
    const world = new World();
    let request: TransportRequest | undefined;
    world.handle((got) => {
      request = got;
      return never(got);
    });
    const giveUp = new AbortController();
    world.ask("", { signal: giveUp.signal }).catch(() => {});
    await turns();
    giveUp.abort();
    await turns();
    assert.deepEqual([request!.signal.aborted, request!.signal === request!.signal], [true, true]);
  });

  it("can pass a request on with another payload", async () => {
    const world = new World();
    const copies: TransportRequest<string>[] = [];
    world.handle((request) => {
      const payload = new TextDecoder().decode(request.payload);
      const properties = { payload: { value: payload } };
      copies.push({ ...request, payload }, Object.create(request, properties));
      return never(request);
    });
    const giveUp = new AbortController();
    world.ask("x", { signal: giveUp.signal }).catch(() => {});
    await turns();
    giveUp.abort();
    await turns();
    assert.equal(copies.length, 2);
    for (const { from, payload, lane, signal } of copies) {
      assert.deepEqual([from, payload, lane, signal.aborted], ["a", "x", "normal", true]);
    }
  });

  it("is refused with wrong arguments", () => {
    const { handlers } = new World();
    assert.throws(() => handlers.handle("x", 1 as unknown as RequestHandler), TypeError);
    assert.throws(() => handlers.handle("", never), RangeError);
    for (const bound of [0, -1, 1.5, NaN, "1" as unknown as number]) {
      assert.throws(() => handlers.handle("x", never, { concurrency: bound }), RangeError);
      assert.throws(() => handlers.handle("x", never, { concurrencyPerPeer: bound }), RangeError);
    }
  });
});
