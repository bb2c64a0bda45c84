import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import { BackpressureError, RemoteError, TransportError } from "../../src/errors.ts";
import { ByteQueue } from "../../src/protocol/v3/stream_bytes.ts";
import type { StreamCore, StreamSink } from "../../src/protocol/v3/stream_core.ts";
import { Turn, Turns } from "../../src/protocol/v3/stream_turns.ts";
import { FRAGMENT_BYTES, KIND, type Lane } from "../../src/protocol/v3/types.ts";
import { bytes, carry, type Frame, hex, Node, type NodeConfig, settle } from "./v3_pair.ts";

const GONE = new TransportError("ConnectionClosed", "Cannot go on: a test says so");
const NONE = new Uint8Array(0);
const WINDOW = 262_144;
const PEER = 0x8000_0000;

/** What a stream was told. */
class Ears implements StreamSink {
  readable = 0;
  writable = 0;
  endsSent = 0;
  readonly errors: TransportError[] = [];

  onReadable(): void {
    this.readable++;
  }

  onWritable(): void {
    this.writable++;
  }

  onEndSent(): void {
    this.endsSent++;
  }

  onFailed(error: TransportError): void {
    this.errors.push(error);
  }
}

function pair(config: NodeConfig = {}): { a: Node; b: Node } {
  return { a: new Node("b", config), b: new Node("a", config) };
}

function open(node: Node, lane: Lane = 1, payload: string = ""): StreamCore {
  return node.streams.open(lane, undefined, undefined, bytes(payload));
}

/** A stream of `a`, as both sides see it, with their ears. */
function opened(a: Node, b: Node, lane: Lane = 1) {
  const ours = open(a, lane);
  settle(a, b);
  const theirs = b.opened.at(-1)!;
  const [hereEars, thereEars] = [new Ears(), new Ears()];
  ours.attach(hereEars);
  theirs.attach(thereEars);
  return { ours, theirs, hereEars, thereEars };
}

/** Reads all that waits. */
function readAll(stream: StreamCore): string {
  let text = "";
  for (let chunk = stream.read(); chunk.length > 0; chunk = stream.read()) {
    text += new TextDecoder().decode(chunk);
  }
  return text;
}

/** Reads all that waits and counts it. */
function drain(stream: StreamCore): number {
  let sum = 0;
  for (let chunk = stream.read(); chunk.length > 0; chunk = stream.read()) sum += chunk.length;
  return sum;
}

/** The frames written, as `kind:body`. */
function log(node: Node): string[] {
  return node.session.written.map(({ kind, body }) => `${kind}:${hex(body)}`);
}

function codeIs(code: string): (error: unknown) => boolean {
  return (error) => error instanceof TransportError && error.code === code;
}

describe("a stream", () => {
  it("carries bytes both ways, to an end each", () => {
    const { a, b } = pair();
    const ours = a.streams.open(2, "t", bytes("t"), bytes("hello"));
    assert.equal(ours.write(bytes("before it is open")), 17);
    settle(a, b);
    const [theirs] = b.opened;
    assert.deepEqual([theirs!.topic, theirs!.lane, theirs!.id], ["t", 2, 1]);
    assert.equal(hex(theirs!.payload), hex(bytes("hello")));
    assert.equal(readAll(theirs!), "before it is open");
    ours.write(bytes("and "));
    ours.write(bytes("after"));
    ours.end();
    assert.equal(ours.write(bytes("too late")), 0);
    theirs!.write(bytes("back"));
    settle(a, b);
    assert.equal(theirs!.drained, false);
    assert.equal(readAll(theirs!), "and after");
    assert.deepEqual([theirs!.drained, ours.drained, ours.closed], [true, false, false]);
    theirs!.end();
    settle(a, b);
    assert.equal(readAll(ours), "back");
    assert.deepEqual([ours.closed, theirs!.closed, ours.drained], [true, true, true]);
    assert.deepEqual([a.streams.ours, b.streams.theirs], [0, 1]);
    theirs!.release();
    theirs!.release();
    assert.equal(b.streams.theirs, 0);
  });

  it("looks on the wire as the protocol says", () => {
    const { a, b } = pair();
    const first = a.streams.open(1, undefined, undefined, bytes("A"));
    const second = open(a);
    first.write(bytes("B"));
    first.end();
    settle(a, b);
    b.opened[0]!.write(bytes("C"));
    b.opened[1]!.reset("NO", "way");
    second.write(new Uint8Array(WINDOW / 2));
    settle(a, b);
    assert.deepEqual(log(a).slice(0, 4), [
      "5:41",
      "5:",
      "6:000000000000000142",
      "7:0000000000000001",
    ]);
    assert.deepEqual(log(b), [
      "8:8000000000000002" + hex(bytes('{"code":"NO","message":"way"}')),
      "6:800000000000000143",
    ]);
  });

  it("grants further bytes at half a window, in one frame", () => {
    const { a, b } = pair();
    const { ours, theirs } = opened(a, b);
    ours.write(new Uint8Array(WINDOW));
    carry(a, b);
    while (theirs.unread > WINDOW / 2 + 1) theirs.read();
    const half = theirs.unread === WINDOW / 2;
    settle(a, b);
    assert.equal(half, true);
    assert.deepEqual(log(b), ["9:800000000000000100020000"]);
    drain(theirs);
    settle(a, b);
    assert.deepEqual(log(b), ["9:800000000000000100020000", "9:800000000000000100020000"]);
    assert.equal(ours.write(new Uint8Array(WINDOW + 1)), WINDOW);
  });

  it("takes one window and tells when it takes more", () => {
    const { a, b } = pair();
    const { ours, theirs, hereEars } = opened(a, b);
    assert.equal(ours.write(new Uint8Array(WINDOW + 5)), WINDOW);
    assert.equal(ours.write(new Uint8Array(5)), 0);
    settle(a, b);
    assert.deepEqual([hereEars.writable, theirs.unread], [0, WINDOW]);
    drain(theirs);
    settle(a, b);
    assert.equal(hereEars.writable, 1);
    assert.equal(ours.write(new Uint8Array(5)), 5);
    settle(a, b);
    assert.equal(drain(theirs), 5);
  });

  it("keeps no more than a window of ours, whatever window the peer gives", () => {
    const { a, b } = pair();
    const { ours, hereEars } = opened(a, b);
    for (let i = 0; i < 100; i++) a.streams.handleWindow(1, PEER + 0, 1, 0xffff_ffff);
    assert.equal(ours.write(new Uint8Array(10 * WINDOW)), WINDOW);
    a.session.write(1);
    assert.equal(hereEars.writable, 1);
    assert.equal(ours.write(new Uint8Array(10 * WINDOW)), FRAGMENT_BYTES);
  });

  it("is not written from while the writer changes its bytes", () => {
    const { a, b } = pair();
    const { ours, theirs } = opened(a, b);
    for (const size of [10, 10_000, 100_000]) {
      const chunk = new Uint8Array(size).fill(1);
      ours.write(chunk);
      chunk.fill(2);
      settle(a, b);
      let sum = 0;
      for (let read = theirs.read(); read.length > 0; read = theirs.read()) {
        sum += read.reduce((x, y) => x + y, 0);
      }
      assert.equal(sum, size);
    }
  });

  it("dies where the peer sends more than its window, and says so", () => {
    const { a, b } = pair();
    const { ours, theirs, hereEars, thereEars } = opened(a, b);
    b.streams.handleData(1, 0, 1, new Uint8Array(WINDOW));
    assert.deepEqual([theirs.unread, thereEars.errors], [WINDOW, []]);
    b.streams.handleData(1, 0, 1, new Uint8Array(1));
    assert.deepEqual(thereEars.errors.map(({ code }) => code), ["InvalidFrame"]);
    assert.deepEqual([theirs.unread, theirs.error], [0, thereEars.errors[0]]);
    b.streams.handleData(1, 0, 1, new Uint8Array(WINDOW));
    settle(a, b);
    const [error] = hereEars.errors;
    assert.ok(error instanceof RemoteError);
    assert.equal(error.remoteCode, "FLOW_CONTROL");
    assert.deepEqual([ours.closed, theirs.closed], [true, true]);
    b.streams.handleData(1, 0, 1, new Uint8Array(WINDOW));
    assert.equal(thereEars.errors.length, 1);
  });

  it("is reset by either side, with a reason", () => {
    for (const from of ["opener", "other"] as const) {
      const { a, b } = pair();
      const { ours, theirs, hereEars, thereEars } = opened(a, b);
      const [resetter, resetterEars, other, otherEars] = from === "opener"
        ? [ours, hereEars, theirs, thereEars]
        : [theirs, thereEars, ours, hereEars];
      other.write(new Uint8Array(WINDOW));
      resetter.write(bytes("what is thrown away"));
      resetter.reset("BORED", "no more \u001b");
      resetter.reset("AGAIN", "");
      settle(a, b);
      const [error] = otherEars.errors;
      assert.ok(error instanceof RemoteError && otherEars.errors.length === 1);
      assert.deepEqual([error.remoteCode, error.remoteMessage], ["BORED", "no more \u001b"]);
      assert.match(error.message, /^Cannot use the stream: . says "BORED", "no more \\u001b"$/);
      assert.deepEqual(resetterEars.errors.map(({ code }) => code), ["ConnectionClosed"]);
      assert.deepEqual([ours.closed, theirs.closed], [true, true]);
      assert.deepEqual([drain(resetter), drain(other)], [0, 0]);
      assert.deepEqual([other.write(bytes("x")), resetter.write(bytes("x"))], [0, 0]);
      const node = from === "opener" ? a : b;
      const kinds = node.session.written.map(({ kind }) => kind);
      assert.deepEqual(kinds.filter((kind) => kind !== KIND.streamOpen), [KIND.streamReset]);
      theirs.release();
      assert.deepEqual([a.streams.ours, b.streams.theirs], [0, 0]);
    }
  });

  it("leaves no trace where it is reset before it was opened", () => {
    const { a, b } = pair();
    const stream = open(a);
    const ears = new Ears();
    stream.attach(ears);
    stream.write(bytes("x"));
    stream.reset("CANCELLED", "");
    settle(a, b);
    assert.deepEqual([a.session.written, a.streams.ours, ears.errors.length], [[], 0, 1]);
  });

  it("owes no reset where both sides reset", () => {
    const { a, b } = pair();
    const { ours, theirs } = opened(a, b);
    ours.reset("A", "");
    theirs.reset("B", "");
    carry(a, b);
    assert.deepEqual([b.session.ready(1), ours.closed, theirs.closed], [false, true, true]);
  });

  it("fails when the session ends, unless it is over", () => {
    const { a, b } = pair();
    const done = opened(a, b);
    done.ours.end();
    done.theirs.write(bytes("kept"));
    done.theirs.end();
    settle(a, b);
    const { ours, theirs, hereEars, thereEars } = opened(a, b);
    const unsent = open(a);
    const unsentEars = new Ears();
    unsent.attach(unsentEars);
    a.restart(GONE);
    b.restart(GONE);
    for (const { errors } of [hereEars, thereEars, unsentEars]) {
      assert.deepEqual(errors.map(({ code }) => code), ["ConnectionClosed"]);
    }
    assert.equal(hereEars.errors[0]!.cause, GONE);
    assert.deepEqual([done.hereEars.errors, readAll(done.ours)], [[], "kept"]);
    assert.deepEqual([a.streams.ours, b.streams.theirs], [0, 2]);
    for (const stream of [ours, theirs, unsent, done.theirs]) stream.release();
    assert.equal(b.streams.theirs, 0);
    settle(a, b);
    assert.deepEqual([a.session.written, b.session.written], [[], []]);
    const next = opened(a, b);
    next.ours.write(bytes("anew"));
    settle(a, b);
    assert.equal(readAll(next.theirs), "anew");
  });

  it("that was not opened when the session ends is never opened", () => {
    const { a, b } = pair();
    open(a);
    const [message] = a.session.queues[1]!;
    a.streams.end(GONE);
    assert.equal(a.session.ready(1), false);
    message!.tracker!.onNumbered!(1);
    assert.throws(() => a.streams.handleData(1, PEER, 1, NONE), codeIs("InvalidFrame"));
    settle(a, b);
    assert.deepEqual(a.session.written, []);
  });

  it("is not allowed further bytes after its end", () => {
    const { a, b } = pair();
    const { ours, theirs } = opened(a, b);
    ours.write(new Uint8Array(WINDOW));
    ours.end();
    settle(a, b);
    assert.equal(drain(theirs), WINDOW);
    settle(a, b);
    assert.deepEqual(b.session.written, []);
  });

  it("may not go on after its end", () => {
    const { a, b } = pair();
    const { ours, theirs } = opened(a, b);
    ours.end();
    settle(a, b);
    for (
      const bad of [() => b.streams.handleData(1, 0, 1, NONE), () => b.streams.handleEnd(1, 0, 1)]
    ) {
      assert.throws(bad, codeIs("InvalidFrame"));
    }
    theirs.end();
    settle(a, b);
    b.streams.handleEnd(1, 0, 1);
  });

  it("is unknown where it never was, and forgotten where it is over", () => {
    const { a, b } = pair();
    const { ours, theirs } = opened(a, b);
    ours.end();
    theirs.end();
    settle(a, b);
    const never: [Lane, number, number][] = [
      ...[[1, 0, 0], [1, 0, 2], [1, 1, 1], [1, PEER, 1], [0, 0, 1]] as [Lane, number, number][],
      ...[[1, 0x7fff_ffff, 0xffff_ffff], [1, 0xffff_ffff, 0xffff_ffff]] as [Lane, number, number][],
    ];
    const each = (node: Node, lane: Lane, high: number, low: number) => [
      () => node.streams.handleData(lane, high, low, bytes("x")),
      () => node.streams.handleEnd(lane, high, low),
      () => node.streams.handleReset(lane, high, low, "X", ""),
      () => node.streams.handleWindow(lane, high, low, 1),
    ];
    for (const [lane, high, low] of never) {
      for (const handle of each(b, lane, high, low)) assert.throws(handle, codeIs("InvalidFrame"));
    }
    for (const handle of each(b, 1, 0, 1)) handle();
    for (const handle of each(a, 1, PEER, 1)) handle();
    b.streams.handleOpen(1, 3, undefined, NONE);
    assert.throws(() => b.streams.handleOpen(1, 3, undefined, NONE), codeIs("InvalidFrame"));
    // Opens may overtake each other.
    b.streams.handleOpen(1, 2, undefined, NONE);
  });

  it("tells its reader once until everything was read", () => {
    const { a, b } = pair();
    const { ours, theirs, thereEars } = opened(a, b);
    for (let i = 0; i < 3; i++) {
      ours.write(bytes("x"));
      settle(a, b);
    }
    ours.end();
    settle(a, b);
    assert.equal(thereEars.readable, 1);
    assert.equal(readAll(theirs), "xxx");
    assert.deepEqual([theirs.drained, thereEars.readable], [true, 1]);
  });
});

describe("many streams", () => {
  it("take turns, frame by frame, however much each has", () => {
    const { a, b } = pair({ streams: { maxStreams: 500 }, peerMaxStreams: 500 });
    const streams = Array.from({ length: 500 }, () => open(a));
    settle(a, b);
    streams.forEach((stream, index) => stream.write(new Uint8Array(index % 3 === 0 ? WINDOW : 10)));
    const turn = () => {
      const frame = a.session.write(1)!;
      b.receive(frame);
      return hex(frame.body.subarray(0, 8));
    };
    const first = Array.from({ length: 500 }, turn);
    assert.equal(new Set(first).size, 500);
    const large = streams.filter((_, index) => index % 3 === 0).length;
    for (let round = 0; round < 3; round++) {
      const next = Array.from({ length: large }, turn);
      assert.deepEqual(next, first.filter((_, index) => index % 3 === 0));
    }
    assert.equal(a.session.ready(1), false);
  });

  it("do not wait for one that nobody reads", () => {
    const { a, b } = pair();
    const slow = opened(a, b);
    slow.ours.write(new Uint8Array(WINDOW));
    settle(a, b);
    assert.equal(slow.ours.write(bytes("x")), 0);
    const fast = opened(a, b);
    let sum = 0;
    while (sum < 10 * WINDOW) {
      fast.ours.write(new Uint8Array(WINDOW));
      settle(a, b);
      sum += drain(fast.theirs);
      settle(a, b);
    }
    assert.equal(slow.theirs.unread, WINDOW);
  });

  it("are refused above what the peer may open, and by us above what it takes", () => {
    const { a, b } = pair({ streams: { maxStreams: 2 }, peerMaxStreams: 3 });
    const ears = Array.from({ length: 3 }, () => {
      const mine = new Ears();
      open(a).attach(mine);
      return mine;
    });
    assert.throws(
      () => open(a),
      (error) => error instanceof BackpressureError && error.queued === 3 && error.peer === "b",
    );
    settle(a, b);
    const refused = ears.flatMap(({ errors }) => errors);
    assert.equal(refused.length, 1);
    const [error] = refused;
    assert.ok(error instanceof RemoteError && error.retryable);
    assert.equal(error.remoteCode, "TOO_MANY_STREAMS");
    assert.deepEqual([b.opened.length, b.refusals, b.streams.theirs, a.streams.ours], [2, 1, 2, 2]);
  });

  it("that are opened and reset at once cost no more places than there are", () => {
    const { a, b } = pair({ streams: { maxStreams: 10 } });
    for (let i = 0; i < 10_000; i++) {
      const stream = open(a);
      carry(a, b);
      stream.reset("CANCELLED", "");
      carry(a, b);
    }
    assert.deepEqual([b.opened.length, b.streams.theirs, b.streams.overloaded], [10, 10, false]);
    // The refusals whose streams were reset meanwhile are not owed any more.
    assert.equal(b.session.ready(1), false);
    for (const stream of b.opened) stream.release();
    open(a);
    settle(a, b);
    assert.equal(b.opened.length, 11);
  });

  it("hold a peer back that opens them without taking the refusals", () => {
    const { b } = pair({ streams: { maxStreams: 0, maxRefusals: 100 } });
    let id = 0;
    while (id < 100_000 && !b.streams.overloaded) b.streams.handleOpen(1, ++id, undefined, NONE);
    assert.deepEqual([id, b.refusals, b.relieved], [100, 100, 0]);
    b.session.write(1);
    assert.deepEqual([b.relieved, b.streams.overloaded], [1, false]);
    b.streams.handleOpen(1, ++id, undefined, NONE);
    assert.equal(b.streams.overloaded, true);
    b.restart(GONE);
    assert.deepEqual([b.relieved, b.streams.overloaded], [2, false]);
  });

  it("keep their places until what resets them has been written", () => {
    const { a, b } = pair({ streams: { maxStreams: 2 } });
    b.onStream = (stream) => {
      stream.reset("NO_HANDLER", "");
      stream.release();
    };
    for (let i = 0; i < 5; i++) open(a);
    carry(a, b);
    assert.deepEqual([b.opened.length, b.refusals, b.streams.theirs], [2, 3, 2]);
    settle(a, b);
    assert.deepEqual([b.streams.theirs, a.streams.ours], [0, 0]);
  });
});

describe("whatever happens to streams", () => {
  /** One direction of a stream, with the test's own account. */
  class Way {
    written = 0;
    read = 0;
    ended = false;
    readonly from: StreamCore;
    to: StreamCore | undefined;

    constructor(from: StreamCore) {
      this.from = from;
    }

    write(size: number): void {
      const chunk = new Uint8Array(size);
      for (let i = 0; i < size; i++) chunk[i] = (this.written + i) % 251;
      this.written += this.from.write(chunk);
    }

    readSome(): void {
      const chunk = this.to?.read() ?? NONE;
      for (const byte of chunk) assert.equal(byte, this.read++ % 251);
    }

    end(): void {
      this.ended = true;
      this.from.end();
    }
  }

  const WHAT = [
    "open",
    "write",
    "write",
    "read",
    "read",
    "end",
    "out",
    "out",
    "out",
    "back",
    "back",
  ];
  const step = fc.record({
    what: fc.constantFrom(...WHAT),
    pick: fc.nat(),
    lane: fc.constantFrom<Lane>(0, 1, 2),
    size: fc.oneof(fc.nat(300), fc.nat(100_000), fc.constant(WINDOW)),
    resets: fc.boolean(),
  });

  for (const withResets of [false, true]) {
    it(
      withResets
        ? "what is read is what was written, as far as it goes, and every place is free in the end"
        : "everything arrives once, in order, to its end, within the windows",
      () => {
        const steps = fc.array(step, { maxLength: 150 });
        fc.assert(fc.property(steps, (steps) => run(steps, withResets)), { numRuns: 150 });
      },
    );
  }

  interface Step {
    what: string;
    pick: number;
    lane: Lane;
    size: number;
    resets: boolean;
  }

  function run(steps: Step[], withResets: boolean): void {
    const { a, b } = pair();
    const ways: Way[] = [];
    const cores: StreamCore[] = [];
    for (const { what, pick, lane, size, resets } of steps) {
      const way = ways[pick % ways.length];
      if (what === "open") begin(pick % 2 === 0 ? [a, b] : [b, a], lane, ways, cores);
      else if (what === "write" && !way?.ended) way?.write(size);
      else if (what === "read") way?.readSome();
      else if (what === "end" && withResets && resets) way?.from.reset("X", "");
      else if (what === "end") way?.end();
      else if (what === "out") carryOne(a, b, lane, pick);
      else if (what === "back") carryOne(b, a, lane, pick);
      for (const core of cores) assert.ok(core.unread <= WINDOW);
    }
    for (let busy = true; busy;) {
      settle(a, b);
      busy = ways.some(({ to }) => (to?.unread ?? 0) > 0);
      for (const way of ways) way.readSome();
    }
    for (const way of ways) way.end();
    settle(a, b);
    for (const way of ways) {
      if (!withResets) {
        assert.equal(way.from.error, undefined);
        assert.deepEqual([way.read, way.to?.drained], [way.written, true]);
      }
      assert.ok(way.read <= way.written);
      assert.equal(way.from.closed, true);
    }
    for (const core of cores) core.release();
    assert.deepEqual([a.streams.ours, b.streams.ours], [0, 0]);
    assert.deepEqual([a.streams.theirs, b.streams.theirs], [0, 0]);
  }

  function begin([from, to]: [Node, Node], lane: Lane, ways: Way[], cores: StreamCore[]): void {
    const ours = open(from, lane);
    const there = new Way(ours);
    ways.push(there);
    cores.push(ours);
    to.onStream = (theirs) => {
      // The opener's way is the one whose stream has this id and lane, and no other end yet.
      const way = ways.find((way) =>
        way.to === undefined && way.from.ours && way.from.lane === theirs.lane &&
        way.from.id === theirs.id && !cores.includes(theirs) && fromOf(way) === from
      )!;
      way.to = theirs;
      const back = new Way(theirs);
      back.to = way.from;
      ways.push(back);
      cores.push(theirs);
    };
    owners.set(ours, from);
  }

  const owners = new WeakMap<StreamCore, Node>();
  function fromOf(way: Way): Node | undefined {
    return owners.get(way.from);
  }

  function carryOne(from: Node, to: Node, lane: Lane, pick: number): void {
    const frame: Frame | undefined = from.session.write(lane, pick % 2 === 0);
    if (frame !== undefined) to.receive(frame);
  }
});

describe("ByteQueue", () => {
  const chunk = fc.oneof(fc.nat(20), fc.nat(5000), fc.nat(70_000));
  const action = fc.record({
    add: chunk,
    take: fc.oneof(fc.constant(0), chunk),
    borrowed: fc.boolean(),
  });

  it("gives the bytes in order, in pieces of at most what was asked for", () => {
    fc.assert(fc.property(fc.array(action, { maxLength: 60 }), (actions) => {
      const queue = new ByteQueue();
      let [added, taken] = [0, 0];
      const check = (bytes: Uint8Array, max: number) => {
        assert.ok(bytes.length <= max);
        for (const byte of bytes) assert.equal(byte, taken++ % 251);
      };
      for (const { add, take, borrowed } of actions) {
        const bytes = new Uint8Array(add);
        for (let i = 0; i < add; i++) bytes[i] = added++ % 251;
        queue.add(bytes, borrowed);
        if (borrowed) bytes.fill(255);
        check(queue.take(take), take);
        assert.equal(queue.length, added - taken);
      }
      while (queue.length > 0) check(queue.take(1000), 1000);
      assert.deepEqual([taken, queue.take(1000).length], [added, 0]);
    }));
  });

  for (const size of [1, 100, 4095, 4096, 65_536]) {
    it(`keeps at most four times what waits, in chunks of ${size} of a large buffer`, () => {
      const queue = new ByteQueue();
      const count = Math.ceil(WINDOW / size);
      const large = new Uint8Array(16 * WINDOW);
      for (let i = 0; i < count; i++) {
        queue.add(large.subarray(i, i + size), false);
      }
      const buffers = new Set<ArrayBufferLike>();
      for (let piece = queue.take(WINDOW); piece.length > 0; piece = queue.take(WINDOW)) {
        buffers.add(piece.buffer);
      }
      const kept = [...buffers].reduce((sum, { byteLength }) => sum + byteLength, 0);
      assert.ok(kept <= 4 * count * size, `${kept} for ${count * size}`);
      assert.ok(buffers.size < 100);
    });
  }

  it("forgets everything when it is cleared", () => {
    const queue = new ByteQueue();
    queue.add(bytes("small"), false);
    queue.add(new Uint8Array(10_000), false);
    queue.clear();
    assert.deepEqual([queue.length, queue.take(10).length], [0, 0]);
    queue.add(bytes("again"), false);
    assert.equal(hex(queue.take(10)), hex(bytes("again")));
  });
});

describe("Turns", () => {
  it("are taken in order, whoever leaves in between", () => {
    const move = fc.record({ who: fc.nat(9), what: fc.constantFrom("join", "leave", "next") });
    fc.assert(fc.property(fc.array(move, { maxLength: 100 }), (moves) => {
      const line = new Turns<number>();
      const turns = Array.from({ length: 10 }, (_, index) => new Turn(index));
      const model: number[] = [];
      for (const { who, what } of moves) {
        const at = model.indexOf(who);
        if (what === "next") {
          assert.equal(line.next(), model.shift());
        } else if (what === "join") {
          assert.equal(line.join(turns[who]!), at < 0);
          if (at < 0) model.push(who);
        } else {
          line.leave(turns[who]!);
          if (at >= 0) model.splice(at, 1);
        }
        assert.equal(line.empty, model.length === 0);
      }
    }));
  });
});

describe("the kinds of streams", () => {
  it("are as the protocol numbers them", () => {
    const { streamOpen, streamData, streamEnd, streamReset, streamWindow } = KIND;
    assert.deepEqual([streamOpen, streamData, streamEnd, streamReset, streamWindow], [
      5,
      6,
      7,
      8,
      9,
    ]);
  });
});
