import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import {
  BackpressureError,
  RemoteError,
  RequestLostError,
  TransportError,
} from "../../src/errors.ts";
import { Deadlines, type Due } from "../../src/protocol/v3/call_deadlines.ts";
import { encodeFailure, encodeId } from "../../src/protocol/v3/call_messages.ts";
import { encodeTopic } from "../../src/protocol/v3/topic.ts";
import type { Call } from "../../src/protocol/v3/calls.ts";
import { KIND, type Lane } from "../../src/protocol/v3/types.ts";
import { bytes, carry, hex, Node, type NodeConfig, Outcome, settle } from "./v3_pair.ts";

const GONE = new TransportError("ConnectionClosed", "Cannot go on: a test says so");
const NONE = new Uint8Array(0);

function pair(config: NodeConfig = {}): { a: Node; b: Node } {
  return { a: new Node("b", config), b: new Node("a", config) };
}

function ask(
  node: Node,
  payload: string,
  { lane = 1, topic, deadline }: { lane?: Lane; topic?: string; deadline?: number } = {},
): { outcome: Outcome; call: Call } {
  const outcome = new Outcome();
  const topicBytes = topic === undefined ? undefined : encodeTopic(topic);
  const call = node.calls.start(lane, topicBytes, bytes(payload), deadline, outcome);
  return { outcome, call };
}

/** The frames written, as `kind:body`. */
function log(node: Node): string[] {
  return node.session.written.map(({ kind, body }) => `${kind}:${hex(body)}`);
}

function codeIs(code: string): (error: unknown) => boolean {
  return (error) => error instanceof TransportError && error.code === code;
}

describe("a request", () => {
  it("is answered in its lane, to whom it asked", () => {
    const { a, b } = pair();
    const first = ask(a, "ping", { lane: 2, topic: "t" });
    const second = ask(a, "pong", { lane: 0 });
    carry(a, b);
    const [pong, ping] = b.requests;
    assert.deepEqual([ping?.topic, ping?.lane, ping?.id, ping?.deadline], ["t", 2, 1, undefined]);
    assert.deepEqual([pong?.topic, pong?.lane, pong?.id], [undefined, 0, 1]);
    assert.equal(hex(ping!.payload), hex(bytes("ping")));
    assert.equal(ping!.respond(bytes("one")), true);
    assert.equal(pong!.respond(bytes("two")), true);
    settle(a, b);
    assert.deepEqual([first.outcome.responses, second.outcome.responses], [["one"], ["two"]]);
    assert.deepEqual([a.calls.open, b.served.running], [0, 0]);
  });

  it("looks on the wire as the protocol says", () => {
    const { a, b } = pair();
    a.session.now = 1000.5;
    ask(a, "A");
    ask(a, "B", { deadline: 1500 });
    const { call } = ask(a, "C", { deadline: 1000 });
    carry(a, b);
    a.calls.cancel(call);
    b.requests[0]!.respond(bytes("D"));
    b.requests[1]!.fail("NOPE", "no");
    settle(a, b);
    assert.deepEqual(log(a), [
      "1:0000000041", // no deadline
      "1:000001f442", // 499.5 ms, rounded up
      "1:0000000143", // passed, and yet not 0
      "4:0000000000000003",
    ]);
    assert.deepEqual(log(b), [
      "2:000000000000000144",
      "3:0000000000000002" + hex(bytes('{"code":"NOPE","message":"no"}')),
    ]);
  });

  it("tells the time that is left when it leaves, at most 2^32 - 1", () => {
    const { a, b } = pair();
    ask(a, "", { deadline: 10_000 });
    ask(a, "", { deadline: 2 ** 53 });
    ask(a, "", { deadline: Infinity });
    a.session.now = 9000;
    b.session.now = 50;
    carry(a, b);
    assert.deepEqual(log(a), ["1:000003e8", "1:ffffffff", "1:00000000"]);
    const deadlines = b.requests.map((request) => request.deadline);
    assert.deepEqual(deadlines, [1050, 50 + 2 ** 32 - 1, undefined]);
  });

  it("fails with the peer's code, and is retryable where the peer refused it", () => {
    const { a, b } = pair();
    const outcomes = ["NO_HANDLER", "TOO_MANY_REQUESTS"].map((code) => {
      const { outcome } = ask(a, "x");
      carry(a, b);
      b.requests.at(-1)!.fail(code, "it \u001b[2J is so");
      settle(a, b);
      return outcome.errors[0];
    });
    for (const error of outcomes) assert.ok(error instanceof RemoteError);
    const [none, many] = outcomes as RemoteError[];
    assert.deepEqual([none!.remoteCode, none!.code, none!.peer], [
      "NO_HANDLER",
      "RemoteError",
      "b",
    ]);
    assert.equal(none!.remoteMessage, "it \u001b[2J is so");
    assert.match(none!.message, /^Cannot complete the request: b says "NO_HANDLER", "it \\u001b/);
    assert.deepEqual([none!.retryable, many!.retryable], [false, true]);
    assert.match(none!.recovery, /peer's own message/);
    assert.match(many!.recovery, /did not run.*maxRequests/);
    const stream = new RemoteError("Cannot go on", "TOO_MANY_STREAMS", "");
    assert.equal(stream.retryable, true);
    assert.match(stream.recovery, /other streams.*maxStreams/);
  });

  it("that is late says whether it was sent, of what topic it was, and why it was not", () => {
    let unconnected: { error: TransportError | undefined } | undefined = undefined;
    const { a, b } = pair({ calls: { unconnected: () => unconnected } });
    a.session.now = 100;
    const late = (topic?: string) => {
      const { outcome } = ask(a, "", {
        deadline: a.session.now + 50,
        ...(topic !== undefined && { topic }),
      });
      return () => {
        a.session.now += 50;
        a.calls.handleTimeout(a.session.now);
        const [error] = outcome.errors;
        assert.ok(error instanceof RequestLostError && outcome.errors.length === 1);
        assert.deepEqual([error.code, error.peer, error.retryable], ["Timeout", "b", true]);
        return error;
      };
    };
    const sent = late("get");
    carry(a, b);
    const ran = sent();
    assert.equal(
      ran.message,
      'Cannot complete the request "get": b did not answer within 50 ms',
    );
    assert.deepEqual([ran.outcome, ran.cause], ["may-have-run", undefined]);
    assert.match(ran.recovery, /if it may run twice/);
    const queued = late("\u001b")();
    assert.equal(
      queued.message,
      'Cannot complete the request "\\u001b": it was not sent to b within 50 ms',
    );
    assert.deepEqual([queued.outcome, queued.cause], ["not-run", undefined]);
    unconnected = { error: GONE };
    const alone = late()();
    assert.equal(
      alone.message,
      "Cannot complete the request: b was not connected within 50 ms",
    );
    assert.deepEqual([alone.outcome, alone.cause], ["not-run", GONE]);
    assert.match(alone.recovery, /check the address/);
  });

  it("is withdrawn where it has not left, and cancelled where it has", () => {
    const { a, b } = pair();
    const kept = ask(a, "x");
    a.calls.cancel(kept.call);
    assert.equal(a.session.ready(1), false);
    const sent = ask(a, "y");
    carry(a, b);
    a.calls.cancel(sent.call);
    a.calls.cancel(sent.call);
    settle(a, b);
    assert.deepEqual(b.cancelled, [[b.requests[0]!, "cancelled"]]);
    assert.equal(b.requests[0]!.respond(bytes("late")), false);
    settle(a, b);
    assert.deepEqual([b.session.written, kept.outcome, sent.outcome], [
      [],
      new Outcome(),
      new Outcome(),
    ]);
  });

  it("takes no notice of an answer that comes too late", () => {
    const { a, b } = pair();
    const { call, outcome } = ask(a, "x");
    carry(a, b);
    b.requests[0]!.respond(bytes("y"));
    a.calls.cancel(call);
    settle(a, b);
    assert.deepEqual([outcome.responses, outcome.errors, b.cancelled], [[], [], []]);
    a.calls.handleError(1, 1, "HANDLER_FAILED", "");
  });

  it("never was, where an answer or a cancel names an id that was not used", () => {
    const { a, b } = pair();
    ask(a, "x");
    carry(a, b);
    for (const id of [0, 2, NaN, Infinity, 2 ** 64]) {
      assert.throws(() => a.calls.handleResponse(1, id, NONE), codeIs("InvalidFrame"));
      assert.throws(() => a.calls.handleError(1, id, "X", ""), codeIs("InvalidFrame"));
    }
    assert.throws(() => a.calls.handleResponse(0, 1, NONE), codeIs("InvalidFrame"));
    for (const id of [2, NaN, Infinity]) {
      assert.throws(() => b.served.handleCancel(1, id), codeIs("InvalidFrame"));
    }
    // It stands where a message stood that is not sent again.
    b.served.handleCancel(1, 0);
    assert.equal(b.cancelled.length, 0);
  });

  it("times out on both sides, and the peer answers nothing", () => {
    const { a, b } = pair();
    let sooner = 0;
    const c = new Node("b", { calls: { onSooner: () => sooner++ } });
    ask(c, "", { deadline: 10 });
    ask(c, "", { deadline: 20 });
    ask(c, "", { deadline: 5 });
    assert.equal(sooner, 2);
    const { outcome } = ask(a, "x", { deadline: 100 });
    carry(a, b);
    assert.deepEqual([a.calls.nextTimeout(), b.served.nextTimeout()], [100, 100]);
    a.calls.handleTimeout(99.9);
    b.served.handleTimeout(99.9);
    assert.deepEqual([outcome.errors, b.cancelled], [[], []]);
    a.calls.handleTimeout(100);
    b.served.handleTimeout(100);
    assert.deepEqual(outcome.errors.map(({ code }) => code), ["Timeout"]);
    assert.deepEqual(b.cancelled, [[b.requests[0]!, "deadline"]]);
    settle(a, b);
    assert.equal(b.requests[0]!.respond(NONE), false);
    assert.deepEqual([b.session.written, b.cancelled.length, b.served.running], [[], 1, 0]);
    assert.deepEqual([a.calls.nextTimeout(), b.served.nextTimeout()], [undefined, undefined]);
  });

  it("is not answered after its deadline, though no timer has noticed that", () => {
    const { a, b } = pair();
    ask(a, "x", { deadline: 100 });
    carry(a, b);
    b.session.now = 100;
    assert.equal(b.requests[0]!.respond(NONE), false);
    assert.equal(b.served.running, 0);
  });

  it("fails with what is known of it when the session ends", () => {
    const { a, b } = pair();
    const written = ask(a, "1");
    carry(a, b);
    const waiting = ask(a, "2");
    const later = ask(a, "3");
    a.restart(GONE);
    const [error] = written.outcome.errors;
    assert.ok(error instanceof RequestLostError);
    assert.deepEqual([error.code, error.outcome, error.retryable, error.cause], [
      "ConnectionClosed",
      "may-have-run",
      false,
      GONE,
    ]);
    b.restart(GONE);
    assert.deepEqual(b.cancelled, [[b.requests[0]!, "ended"]]);
    assert.equal(b.requests[0]!.respond(bytes("to nobody")), false);
    carry(a, b);
    assert.deepEqual(b.requests.slice(1).map(({ id }) => id), [1, 2]);
    for (const request of b.requests.slice(1)) request.respond(request.payload);
    settle(a, b);
    assert.deepEqual([waiting.outcome.responses, later.outcome.responses], [["2"], ["3"]]);
  });

  it("fails as not run where the peer is given up before it left", () => {
    const { a, b } = pair();
    ask(a, "1");
    carry(a, b);
    const { outcome } = ask(a, "2");
    const dropped = ask(a, "3");
    const [, last] = a.session.queues[1]!;
    a.session.withdraw(last!);
    last!.tracker?.onEnded?.("unsent");
    a.calls.fail(GONE);
    for (const { errors } of [outcome, dropped.outcome]) {
      const [error] = errors;
      assert.ok(error instanceof RequestLostError && errors.length === 1);
      assert.deepEqual([error.outcome, error.retryable], ["not-run", true]);
    }
    assert.deepEqual([a.calls.open, a.session.ready(1)], [0, false]);
  });

  it("is refused where too many are under way, cancelled ones until the peer knows", () => {
    const { a, b } = pair({ calls: { maxCalls: 2 } });
    const first = ask(a, "1");
    ask(a, "2");
    assert.throws(
      () => ask(a, "3"),
      (error) => error instanceof BackpressureError && error.queued === 2 && error.peer === "b",
    );
    carry(a, b);
    a.calls.cancel(first.call);
    assert.throws(() => ask(a, "3"), BackpressureError);
    carry(a, b);
    assert.throws(() => ask(a, "3"), BackpressureError);
    a.session.ack();
    ask(a, "3");
    a.restart(GONE);
    ask(a, "4");
    assert.throws(() => ask(a, "5"), BackpressureError);
  });

  it("leaves nothing of an old session in its accounts", () => {
    const { a, b } = pair({ calls: { maxCalls: 2, maxBytes: 10 } });
    const { call } = ask(a, "12345678");
    carry(a, b);
    a.calls.cancel(call);
    a.restart(GONE);
    b.restart(GONE);
    ask(a, "12345678");
    assert.throws(() => ask(a, "901"), BackpressureError);
    ask(a, "90");
    assert.throws(() => ask(a, ""), BackpressureError);
    carry(a, b);
    a.restart(GONE);
    assert.throws(() => a.calls.handleResponse(1, 1, NONE), codeIs("InvalidFrame"));
  });

  it("is cancelled as soon as it is numbered, where it was given up on its way out", () => {
    const { a } = pair();
    const { call, outcome } = ask(a, "x");
    const message = a.session.queues[1]!.shift()!;
    a.calls.cancel(call);
    message.tracker!.onNumbered!(7);
    const [cancel] = a.session.queues[1]!;
    assert.deepEqual([cancel!.kind, hex(cancel!.prefix!(0))], [KIND.cancel, "0000000000000007"]);
    a.calls.handleResponse(1, 7, NONE);
    assert.deepEqual([outcome, a.calls.open], [new Outcome(), 0]);
  });

  it("is refused where unacknowledged ones have too many bytes", () => {
    const { a, b } = pair({ calls: { maxBytes: 10 } });
    ask(a, "larger than all that");
    assert.throws(() => ask(a, ""), BackpressureError);
    settle(a, b);
    a.session.ack();
    const { call } = ask(a, "12345678");
    assert.throws(() => ask(a, "901"), BackpressureError);
    a.calls.cancel(call);
    ask(a, "901");
    carry(a, b);
    a.restart(GONE);
    ask(a, "1234567890");
  });
});

describe("the bounds of what a peer may ask", () => {
  it("refuse what is above them, by peer, topic and bytes", () => {
    const limitOf = (topic: string | undefined) => topic === "narrow" ? 1 : undefined;
    const { a, b } = pair({ served: { maxRequests: 3, maxRequestBytes: 10, limitOf } });
    const outcomes = ["narrow", "narrow", "wide", undefined, undefined].map((topic) =>
      ask(a, "1", topic === undefined ? {} : { topic }).outcome
    );
    settle(a, b);
    const codes = () => outcomes.map(({ errors }) => (errors[0] as RemoteError)?.remoteCode);
    const no = "TOO_MANY_REQUESTS";
    assert.deepEqual(codes(), [undefined, no, undefined, undefined, no]);
    assert.deepEqual([b.refusals, b.served.running], [2, 3]);
    for (const request of b.requests) request.respond(NONE);
    outcomes.length = 0;
    for (const payload of ["12345678", "901"]) outcomes.push(ask(a, payload).outcome);
    settle(a, b);
    assert.deepEqual(codes(), [undefined, no]);
    b.requests.at(-1)!.respond(NONE);
    outcomes.length = 0;
    outcomes.push(ask(a, "one that is larger than the bound").outcome);
    settle(a, b);
    assert.deepEqual(codes(), [undefined]);
  });

  it("count a cancelled request until its handler is done", () => {
    const { a, b } = pair({ served: { maxRequests: 2 } });
    const storm = 10_000;
    for (let i = 0; i < storm; i++) {
      const { call } = ask(a, "x", { deadline: 2 ** 40 });
      carry(a, b);
      a.calls.cancel(call);
      settle(a, b);
      a.session.ack();
      b.session.ack();
    }
    assert.deepEqual([b.requests.length, b.cancelled.length, b.served.running], [2, 2, 2]);
    assert.deepEqual([b.refusals, b.served.unacknowledged], [storm - 2, 0]);
    assert.deepEqual([b.served.nextTimeout(), a.calls.nextTimeout()], [undefined, undefined]);
    for (const request of b.requests) request.fail("HANDLER_FAILED", "");
    const { outcome } = ask(a, "y");
    carry(a, b);
    b.requests.at(-1)!.respond(NONE);
    settle(a, b);
    assert.deepEqual(outcome.responses, [""]);
  });

  it("count what earlier sessions left running", () => {
    const { a, b } = pair({ served: { maxRequests: 1 } });
    ask(a, "x");
    settle(a, b);
    a.restart(GONE);
    b.restart(GONE);
    const { outcome } = ask(a, "y");
    settle(a, b);
    assert.equal((outcome.errors[0] as RemoteError).remoteCode, "TOO_MANY_REQUESTS");
    b.requests[0]!.respond(NONE);
    ask(a, "z");
    settle(a, b);
    assert.deepEqual([b.requests.length, b.served.running], [2, 1]);
  });

  it("hold a peer back that asks and does not take the answers", () => {
    const { b } = pair({ served: { maxRequests: 0, maxAnswers: 100 } });
    let taken = 0;
    for (let id = 1; id <= 100_000 && !b.served.overloaded; id++) {
      b.served.handleRequest(1, id, undefined, NONE, 0, 0);
      b.served.handleCancel(1, id);
      taken++;
    }
    assert.deepEqual([taken, b.served.unacknowledged, b.session.queues[1]!.length], [
      100,
      100,
      100,
    ]);
    while (b.session.write(1) !== undefined);
    assert.equal(b.relieved, 0);
    b.session.ack();
    assert.deepEqual([b.relieved, b.served.overloaded], [1, false]);
  });

  it("hold a peer back by the bytes of its answers, until the session ends at the latest", () => {
    const { a, b } = pair({ served: { maxAnswerBytes: 10 } });
    ask(a, "");
    ask(a, "");
    carry(a, b);
    b.requests[0]!.respond(bytes("123456789"));
    assert.equal(b.served.overloaded, false);
    b.requests[1]!.respond(bytes("0"));
    assert.equal(b.served.overloaded, true);
    b.session.write(1);
    b.restart(GONE);
    assert.deepEqual([b.served.overloaded, b.relieved, b.served.unacknowledged], [false, 1, 0]);
  });

  it("let only the first answer count", () => {
    const { a, b } = pair();
    const { outcome } = ask(a, "");
    carry(a, b);
    const [request] = b.requests;
    assert.equal(request!.respond(bytes("1")), true);
    assert.equal(request!.respond(bytes("2")), false);
    assert.equal(request!.fail("X", ""), false);
    settle(a, b);
    assert.deepEqual([outcome.responses, outcome.errors, b.served.running], [["1"], [], 0]);
  });
});

describe("whatever happens to requests", () => {
  /** Two nodes, and what was done with them. */
  class World {
    readonly a = new Node("b", { calls: { maxCalls: 12 } });
    readonly b = new Node("a", { served: { maxRequests: 4 } });
    readonly calls: { outcome: Outcome; call: Call; cancelled: boolean }[] = [];

    ask(lane: Lane, deadline: number): void {
      if (this.a.calls.open === 12) {
        assert.throws(() => ask(this.a, "too many"), BackpressureError);
        return;
      }
      try {
        this.calls.push({
          ...ask(this.a, `${this.calls.length}`, { lane, deadline }),
          cancelled: false,
        });
      } catch (error) {
        assert.ok(error instanceof BackpressureError);
      }
    }

    cancel(pick: number): void {
      const one = this.calls[pick % this.calls.length];
      if (one === undefined || ended(one.outcome) > 0) return;
      this.a.calls.cancel(one.call);
      one.cancelled = true;
    }

    answer(pick: number): void {
      const request = this.b.requests[pick % this.b.requests.length];
      if (pick % 2 === 0) request?.respond(request.payload);
      else request?.fail("NO", "");
    }

    carryOne(lane: Lane, back: boolean): void {
      const [from, to] = back ? [this.b, this.a] : [this.a, this.b];
      const frame = from.session.write(lane);
      if (frame !== undefined) to.receive(frame);
    }

    ack(): void {
      this.a.session.ack();
      this.b.session.ack();
    }

    restart(): void {
      this.a.restart(GONE);
      this.b.restart(GONE);
    }

    wait(ms: number): void {
      this.a.session.now = this.b.session.now += ms;
      this.a.calls.handleTimeout(this.a.session.now);
      this.b.served.handleTimeout(this.b.session.now);
    }
  }

  const WHAT = ["ask", "ask", "cancel", "answer", "out", "out", "back", "ack", "restart", "wait"];
  const step = fc.record({
    what: fc.constantFrom(...WHAT),
    lane: fc.constantFrom<Lane>(0, 1, 2),
    pick: fc.nat(200),
  });

  function take(world: World, { what, lane, pick }: { what: string; lane: Lane; pick: number }) {
    if (what === "ask") world.ask(lane, world.a.session.now + pick);
    else if (what === "cancel") world.cancel(pick);
    else if (what === "answer") world.answer(pick);
    else if (what === "out" || what === "back") world.carryOne(lane, what === "back");
    else if (what === "ack") world.ack();
    else if (what === "restart") world.restart();
    else world.wait(pick / 4);
  }

  it("each ends exactly once, no place is lost and no timer is left", () => {
    fc.assert(fc.property(fc.array(step, { maxLength: 200 }), (steps) => {
      const world = new World();
      const { a, b } = world;
      for (const step of steps) {
        take(world, step);
        assert.ok(b.served.running <= 4 && a.calls.open <= 12);
      }
      settle(a, b);
      world.wait(1000);
      settle(a, b);
      world.ack();
      for (const request of b.requests) request.respond(NONE);
      world.calls.forEach(({ outcome, cancelled }, index) => {
        assert.equal(ended(outcome), cancelled ? 0 : 1);
        if (outcome.responses.length > 0) assert.deepEqual(outcome.responses, [`${index}`]);
      });
      assert.deepEqual([a.calls.open, b.served.running, b.served.unacknowledged], [0, 0, 0]);
      assert.deepEqual([a.calls.nextTimeout(), b.served.nextTimeout()], [undefined, undefined]);
      for (let i = 0; i < 12; i++) ask(a, "", { deadline: 10_000 });
    }));
  });

  function ended({ responses, errors }: Outcome): number {
    return responses.length + errors.length;
  }
});

describe("Deadlines", () => {
  class Item implements Due {
    place = -1;
    readonly deadline: number | undefined;
    constructor(deadline: number | undefined) {
      this.deadline = deadline;
    }
  }

  it("gives what is due in order, and forgets what was taken out", () => {
    const action = fc.record({ deadline: fc.nat(100), remove: fc.option(fc.nat()) });
    fc.assert(fc.property(fc.array(action, { maxLength: 100 }), (actions) => {
      const deadlines = new Deadlines<Item>();
      const waiting: Item[] = [];
      for (const { deadline, remove } of actions) {
        const item = new Item(deadline);
        deadlines.add(item);
        waiting.push(item);
        if (remove === null) continue;
        const [out] = waiting.splice(remove % waiting.length, 1);
        deadlines.remove(out!);
        deadlines.remove(out!);
      }
      assert.equal(deadlines.size, waiting.length);
      const order = waiting.map(({ deadline }) => deadline!).toSorted((x, y) => x - y);
      assert.equal(deadlines.next, order[0]);
      for (const deadline of order) {
        assert.equal(deadlines.takeDue(deadline - 1), undefined);
        assert.equal(deadlines.takeDue(deadline)?.deadline, deadline);
      }
      assert.equal(deadlines.size, 0);
    }));
  });

  it("takes no notice of what is never due", () => {
    const deadlines = new Deadlines<Item>();
    const item = new Item(undefined);
    deadlines.add(item);
    deadlines.remove(item);
    assert.deepEqual([deadlines.size, deadlines.next], [0, undefined]);
  });
});

describe("the bytes of requests", () => {
  it("are as the protocol says", () => {
    assert.equal(hex(encodeId(1)), "0000000000000001");
    assert.equal(hex(encodeId(0x1_0000_0002, 0x8000_0000)), "8000000100000002");
    assert.equal(hex(encodeId(Number.MAX_SAFE_INTEGER)), "001fffffffffffff");
    assert.equal(
      new TextDecoder().decode(encodeFailure("A", 'x"\n\ud800')),
      String.raw`{"code":"A","message":"x\"\n\ud800"}`,
    );
    assert.ok(encodeFailure("A", "\u0001".repeat(100_000)).length < 6 * 1024 + 40);
  });

  it("hold topics of 1 to 255 bytes", () => {
    assert.equal(hex(encodeTopic("é")), "c3a9");
    assert.equal(encodeTopic("x".repeat(255)).length, 255);
    for (const topic of ["", "x".repeat(256), "é".repeat(128), "x".repeat(1_000_000), "\ud800"]) {
      assert.throws(() => encodeTopic(topic), RangeError);
    }
  });

  it("name their kinds", () => {
    assert.deepEqual([KIND.request, KIND.response, KIND.error, KIND.cancel], [1, 2, 3, 4]);
  });
});
