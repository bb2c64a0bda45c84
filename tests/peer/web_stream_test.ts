import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import { RemoteError, TransportError } from "../../src/errors.ts";
import { HandlerError } from "../../src/peer/requests.ts";
import { StreamHandlers } from "../../src/peer/stream_handlers.ts";
import { TransportStream } from "../../src/peer/web_stream.ts";
import { encodeTopic } from "../../src/protocol/v3/topic.ts";
import { bytes } from "../protocol/v3_pair.ts";
import { LivePair, turns } from "./live_pair.ts";

const GONE = new TransportError("ConnectionClosed", "Cannot go on: a test says so");
const WINDOW = 262_144;

/** A stream of a to b, as both hold it. */
async function connect(pair = new LivePair()) {
  let there: TransportStream | undefined;
  pair.b.onStream = (core) => {
    there = new TransportStream("a", core);
  };
  const here = openStream(pair);
  await turns();
  return { pair, here, there: there! };
}

function openStream({ a }: LivePair, topic?: string): TransportStream {
  const topicBytes = topic === undefined ? undefined : encodeTopic(topic);
  return new TransportStream("b", a.streams.open(1, topic, topicBytes, bytes("hi")));
}

async function readText(stream: TransportStream): Promise<string> {
  let text = "";
  for await (const chunk of stream.readable) text += new TextDecoder().decode(chunk);
  return text;
}

async function write(stream: TransportStream, text: string): Promise<void> {
  const writer = stream.writable.getWriter();
  await writer.write(bytes(text));
  await writer.close();
  writer.releaseLock();
}

/** What a promise comes to, now. */
async function outcome(promise: Promise<unknown>): Promise<string> {
  let state = "pending";
  promise.then(
    () => state = "done",
    (error) =>
      state = error instanceof RemoteError ? error.remoteCode : error?.code ?? error?.name ?? error,
  );
  await turns();
  return state;
}

describe("TransportStream", () => {
  it("reads what the other side writes, both ways, and closes", async () => {
    const { here, there } = await connect();
    assert.deepEqual([here.nodeId, there.nodeId], ["b", "a"]);
    assert.deepEqual([here.lane, there.topic], ["normal", undefined]);
    assert.deepEqual([here.payload, there.payload], [bytes("hi"), bytes("hi")]);
    const [, , there1, here1] = await Promise.all([
      write(here, "to there"),
      write(there, "to here"),
      readText(there),
      readText(here),
    ]);
    assert.deepEqual([there1, here1], ["to there", "to here"]);
    await Promise.all([here.closed, there.closed]);
  });

  it("keeps one direction open when the other has ended", async () => {
    const { here, there } = await connect();
    await write(here, "request");
    assert.equal(await readText(there), "request");
    assert.equal(await outcome(here.closed), "pending");
    await write(there, "response");
    assert.equal(await readText(here), "response");
    assert.deepEqual([await outcome(here.closed), await outcome(there.closed)], ["done", "done"]);
  });

  it("waits with writing until the other side reads", async () => {
    const { here, there } = await connect();
    const writer = here.writable.getWriter();
    await writer.write(new Uint8Array(WINDOW));
    const second = writer.write(new Uint8Array(10 * WINDOW));
    assert.equal(await outcome(second), "pending");
    const reader = there.readable.getReader();
    let sum = 0;
    while (sum < 11 * WINDOW) sum += (await reader.read()).value!.length;
    assert.equal(sum, 11 * WINDOW);
    assert.equal(await outcome(second), "done");
  });

  it("reads no more than a window ahead of the application", async () => {
    const { here, there, pair } = await connect();
    const writing = write(here, "x".repeat(3 * WINDOW));
    await turns(1000);
    assert.equal(pair.b.opened[0]!.unread, WINDOW);
    assert.equal((await readText(there)).length, 3 * WINDOW);
    await writing;
  });

  it("has closed its writable when the end has gone out", async () => {
    const { here, pair } = await connect();
    pair.stopped = true;
    const closing = here.writable.getWriter().close();
    assert.equal(await outcome(closing), "pending");
    pair.stopped = false;
    pair.carrySoon();
    assert.equal(await outcome(closing), "done");
  });

  it("takes a chunk back to its writer once it is taken", async () => {
    const { here, there } = await connect();
    const writer = here.writable.getWriter();
    const chunk = new Uint8Array(1000).fill(1);
    await writer.write(chunk);
    chunk.fill(2);
    const { value } = await there.readable.getReader().read();
    assert.deepEqual(value, new Uint8Array(1000).fill(1));
  });

  it("reads a chunk as soon as there is one, and an end without asking", async () => {
    const { here, there } = await connect();
    const reader = there.readable.getReader();
    const read = reader.read();
    const writer = here.writable.getWriter();
    await writer.write(new Uint8Array(0));
    assert.equal(await outcome(read), "pending");
    await writer.write(bytes("x"));
    assert.deepEqual((await read).value, bytes("x"));
    await writer.close();
    assert.equal(await outcome(reader.closed), "done");
  });

  it("works in a pipe and through a transform", async () => {
    const { here, there } = await connect();
    const source = new Blob(["once ", "upon ", "a time"]).stream();
    const piping = source.pipeThrough(new TransformStream()).pipeTo(here.writable);
    assert.equal(await readText(there), "once upon a time");
    await piping;
  });

  const wrong: [string, unknown][] = [
    ["an ArrayBuffer", new ArrayBuffer(1)],
    ["a DataView", new DataView(new ArrayBuffer(1))],
    ["a Uint16Array", new Uint16Array(1)],
    ["a string", "x"],
    ["undefined", undefined],
  ];
  for (const [name, chunk] of wrong) {
    it(`refuses ${name} with a TypeError, and gives the stream up`, async () => {
      const { here, there } = await connect();
      const writer = here.writable.getWriter();
      await assert.rejects(writer.write(chunk as Uint8Array), TypeError);
      assert.equal(await outcome(there.closed), "CANCELLED");
      assert.equal(await outcome(here.closed), "ConnectionClosed");
      await assert.rejects(writer.closed, TypeError);
    });
  }

  it("is reset with a reason: everything fails on both sides", async () => {
    const { here, there } = await connect();
    const read = there.readable.getReader().read();
    const writer = there.writable.getWriter();
    await writer.write(new Uint8Array(WINDOW));
    const written = writer.write(new Uint8Array(1));
    assert.equal(await outcome(written), "pending");
    here.reset("WRONG_FILE", "not that one");
    here.reset();
    for (const promise of [read, written, writer.closed, there.closed]) {
      assert.equal(await outcome(promise), "WRONG_FILE");
    }
    for (const promise of [here.closed, here.readable.getReader().read()]) {
      assert.equal(await outcome(promise), "ConnectionClosed");
    }
    assert.equal(await outcome(here.writable.getWriter().closed), "ConnectionClosed");
    for (const code of ["", "a b", "é", "x".repeat(65), "a\n"]) {
      assert.throws(() => here.reset(code), RangeError);
    }
  });

  it("is cancelled where the reader cancels", async () => {
    const { here, there } = await connect();
    await here.readable.cancel("enough");
    assert.equal(await outcome(there.closed), "CANCELLED");
    assert.equal(await outcome(there.writable.getWriter().closed), "CANCELLED");
    assert.equal(await outcome(here.writable.getWriter().closed), "ConnectionClosed");
    assert.equal(await outcome(here.closed), "ConnectionClosed");
  });

  it("is cancelled where the writer aborts, even in the middle of a write", async () => {
    for (const blocked of [false, true]) {
      const { here, there } = await connect();
      const writer = here.writable.getWriter();
      const write = writer.write(new Uint8Array(blocked ? 2 * WINDOW : 1));
      await turns();
      assert.equal(await outcome(writer.abort("enough")), "done");
      assert.equal(await outcome(write), blocked ? "ConnectionClosed" : "done");
      assert.equal(await outcome(writer.closed), "enough");
      assert.equal(await outcome(there.closed), "CANCELLED");
      assert.equal(await outcome(here.closed), "ConnectionClosed");
    }
  });

  it("does not mind a cancel or an abort when its direction is over", async () => {
    const { here, there } = await connect();
    await Promise.all([write(here, ""), readText(there)]);
    await Promise.all([here.writable.abort(), there.readable.cancel()]);
    await write(there, "still there");
    assert.equal(await readText(here), "still there");
    await Promise.all([here.closed, there.closed]);
  });

  it("fails when the session ends", async () => {
    const { pair, here, there } = await connect();
    const read = here.readable.getReader().read();
    pair.a.restart(GONE);
    pair.b.restart(GONE);
    for (const promise of [read, here.closed, there.closed, there.writable.getWriter().closed]) {
      assert.equal(await outcome(promise), "ConnectionClosed");
    }
  });

  it("fails at once where the stream has failed before somebody holds it", async () => {
    const pair = new LivePair();
    const core = pair.a.streams.open(1, undefined, undefined, bytes(""));
    core.reset("CANCELLED", "");
    const stream = new TransportStream("b", core);
    assert.equal(await outcome(stream.closed), "ConnectionClosed");
    assert.equal(await outcome(stream.readable.getReader().read()), "ConnectionClosed");
    assert.equal(await outcome(stream.writable.getWriter().write(bytes("x"))), "ConnectionClosed");
  });

  it("reads what had come before somebody holds it", async () => {
    const pair = new LivePair();
    const here = openStream(pair);
    await write(here, "early");
    await turns();
    const there = new TransportStream("a", pair.b.opened[0]!);
    assert.equal(await readText(there), "early");
  });

  for (const atOnce of [false, true]) {
    const when = atOnce ? "in the middle of calls" : "at the end of turns";
    it(`carries whatever sizes are written and however they are read, ${when}`, async () => {
      const size = fc.oneof(fc.nat(10), fc.nat(70_000), fc.constant(WINDOW), fc.nat(3 * WINDOW));
      await fc.assert(
        fc.asyncProperty(fc.array(size, { maxLength: 10 }), async (sizes) => {
          const { here, there } = await connect(new LivePair({}, atOnce));
          const total = sizes.reduce((sum, size) => sum + size, 0);
          const [, got] = await Promise.all([writeSizes(here, sizes), readCounted(there)]);
          assert.equal(got, total);
        }),
        // The example's last write is granted more while it is at work.
        { numRuns: 30, examples: [[[60_000, 60_000, 400_000]]] },
      );
    });
  }

  /** Writes chunks in which each byte depends on where it stands. */
  async function writeSizes(stream: TransportStream, sizes: number[]): Promise<void> {
    const writer = stream.writable.getWriter();
    let sent = 0;
    for (const size of sizes) {
      const chunk = new Uint8Array(size);
      for (let i = 0; i < size; i++) chunk[i] = sent++ % 251;
      await writer.write(chunk);
      // So that the reader waits when the next chunk comes.
      await turns(20);
    }
    await writer.close();
  }

  async function readCounted(stream: TransportStream): Promise<number> {
    let got = 0;
    for await (const chunk of stream.readable) {
      for (const byte of chunk) if (byte !== got++ % 251) assert.fail(`at ${got}`);
    }
    return got;
  }
});

describe("StreamHandlers", () => {
  function serve() {
    const pair = new LivePair({ streams: { maxStreams: 1 } });
    const handlers = new StreamHandlers();
    const errors: unknown[] = [];
    const host = { nodeId: "a", onHandlerError: (error: unknown) => errors.push(error) };
    pair.b.onStream = (core) => handlers.dispatch(core, host);
    return { pair, handlers, errors, places: () => pair.b.streams.theirs };
  }

  it("give a stream to the handler of its topic, and free its place when both are done", async () => {
    const { pair, handlers, places, errors } = serve();
    let finish: () => void = () => {};
    handlers.handle("copy", (stream) => {
      write(stream, "copied").catch(() => {});
      readText(stream).catch(() => {});
      return new Promise((resolve) => finish = resolve);
    });
    const here = openStream(pair, "copy");
    assert.equal(await readText(here), "copied");
    await write(here, "");
    await here.closed;
    await turns();
    assert.equal(places(), 1);
    finish();
    await turns();
    assert.deepEqual([places(), errors], [0, []]);
  });

  it("keep the place of a handler that has returned until the stream is over", async () => {
    const { pair, handlers, places } = serve();
    handlers.handle(undefined, () => {});
    const here = openStream(pair);
    await turns();
    assert.equal(places(), 1);
    here.reset();
    await turns();
    assert.equal(places(), 0);
  });

  it("keep the place of a stream whose last bytes nobody has read", async () => {
    const { pair, handlers, places } = serve();
    let there: TransportStream | undefined;
    handlers.handle(undefined, (stream) => {
      there = stream;
      stream.writable.close();
    });
    await write(openStream(pair), "left");
    await turns();
    assert.deepEqual([pair.b.opened[0]!.closed, places()], [true, 1]);
    assert.equal(await readText(there!), "left");
    await turns();
    assert.equal(places(), 0);
  });

  it("take no notice of a handler that fails because the stream has", async () => {
    const { pair, handlers, errors, places } = serve();
    handlers.handle(undefined, (stream) => readText(stream).then(() => {}));
    const here = openStream(pair);
    await turns();
    here.reset();
    await turns();
    assert.deepEqual([errors, places()], [[], 0]);
  });

  it("keep the place of a handler that goes on when the peer has reset the stream", async () => {
    const { pair, handlers, places } = serve();
    handlers.handle(undefined, () => new Promise(() => {}));
    const outcomes: string[] = [];
    for (let i = 0; i < 10; i++) {
      const here = openStream(pair);
      outcomes.push(await outcome(here.closed));
      here.reset();
      await turns();
    }
    assert.deepEqual([outcomes[0], new Set(outcomes.slice(1))], [
      "pending",
      new Set(["TOO_MANY_STREAMS"]),
    ]);
    assert.equal(places(), 1);
  });

  it("refuse what nobody takes", async () => {
    const { pair, handlers, places } = serve();
    const stop = handlers.handle("x", () => {});
    stop();
    assert.equal(await outcome(openStream(pair, "x").closed), "NO_HANDLER");
    assert.equal(places(), 0);
  });

  it("reset the stream where the handler fails, and tell nothing of our insides", async () => {
    const { pair, handlers, places, errors } = serve();
    const secret = new Error("the password is 1234");
    const failures: [() => void | Promise<void>, string, string][] = [
      [() => Promise.reject(secret), "HANDLER_FAILED", "the handler failed"],
      [
        () => {
          throw secret;
        },
        "HANDLER_FAILED",
        "the handler failed",
      ],
      [
        () => Promise.reject(new HandlerError("NO_FILE", "no such file")),
        "NO_FILE",
        "no such file",
      ],
    ];
    for (const [handler, code, message] of failures) {
      handlers.handle("x", handler);
      const error = await openStream(pair, "x").closed.then(() => undefined, (error) => error);
      assert.ok(error instanceof RemoteError);
      assert.deepEqual([error.remoteCode, error.remoteMessage], [code, message]);
      await turns();
      assert.equal(places(), 0);
    }
    assert.deepEqual(errors, [secret, secret]);
  });

  it("take the newest handler of a topic, and only functions", async () => {
    const { pair, handlers } = serve();
    const got: string[] = [];
    const stop = handlers.handle("x", () => void got.push("old"));
    handlers.handle("x", (stream) => {
      got.push("new");
      stream.reset();
    });
    stop();
    await outcome(openStream(pair, "x").closed);
    assert.deepEqual(got, ["new"]);
    assert.throws(() => handlers.handle("x", undefined as unknown as () => void), TypeError);
    assert.throws(() => handlers.handle("", () => {}), RangeError);
  });
});
