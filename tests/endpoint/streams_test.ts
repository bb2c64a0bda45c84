/** Streams between endpoints, from end to end. */

import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { type Endpoint, HandlerError, RemoteError, type TransportStream } from "../../mod.ts";
import { bytes, type Cluster, inbox, inCluster, text } from "../support/cluster.ts";
import { changing, indexOf } from "./on_the_line.ts";

const WINDOW = 262_144;
const MIB = 1_048_576;

async function pair(
  cluster: Cluster,
  options: { a?: object; b?: object } = {},
): Promise<[Endpoint, Endpoint]> {
  const a = await cluster.start("a", options.a);
  const b = await cluster.start("b", options.b);
  await cluster.connect(a, "b");
  await cluster.pooled(a, b, 2);
  return [a, b];
}

/** Bytes that say where they stand. */
function pattern(length: number, seed = 0): Uint8Array {
  return Uint8Array.from({ length }, (_, i) => (i * 31 + (i >> 8) * 7 + seed) & 0xff);
}

async function writeAll(stream: TransportStream, data: Uint8Array, chunk = 50_000): Promise<void> {
  const writer = stream.writable.getWriter();
  for (let at = 0; at < data.length; at += chunk) {
    await writer.write(data.subarray(at, at + chunk));
  }
  await writer.close();
}

async function readAll(stream: TransportStream): Promise<Uint8Array> {
  const parts: Uint8Array[] = [];
  let length = 0;
  for await (const part of stream.readable) {
    parts.push(part.slice());
    length += part.length;
  }
  const all = new Uint8Array(length);
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}

/** The streams that peers open here, as they come. */
function accepted(endpoint: Endpoint, topic?: string): TransportStream[] {
  const streams: TransportStream[] = [];
  endpoint.onStream(topic, (stream) => {
    streams.push(stream);
  });
  return streams;
}

/** Opens a stream and gives both ends. */
async function opened(
  cluster: Cluster,
  a: Endpoint,
  b: Endpoint,
): Promise<[TransportStream, TransportStream]> {
  const streams = accepted(b);
  const here = await a.openStream("b");
  await cluster.environment.until(() => streams.length === 1);
  return [here, streams[0]!];
}

/** What becomes of promises, to be asked at any time. */
function outcomes(...promises: Promise<unknown>[]): string[] {
  const seen = promises.map(() => "pending");
  promises.forEach((promise, i) => {
    promise.then(
      () => seen[i] = "done",
      (error) => seen[i] = error.remoteCode ?? error.code ?? error.name,
    );
  });
  return seen;
}

describe("a stream", () => {
  it(
    "is given to the handler of its topic, which sees who opened it, in which lane, with what",
    inCluster(async (cluster) => {
      const [a, b] = await pair(cluster);
      const [plain, files] = [accepted(b), accepted(b, "files")];
      const payload = pattern(100_000);
      const here = await a.openStream("b", { topic: "files", lane: "bulk", payload });
      await a.openStream("b");
      await cluster.environment.advance(50);
      assert.deepEqual([plain.length, files.length], [1, 1]);
      const there = files[0]!;
      assert.deepEqual(
        [there.nodeId, there.topic, there.lane, here.nodeId, here.topic, here.lane],
        ["a", "files", "bulk", "b", "files", "bulk"],
      );
      assert.deepEqual(there.payload, payload);
      assert.deepEqual([plain[0]!.topic, plain[0]!.payload.length], [undefined, 0]);
    }),
  );

  it(
    "carries megabytes both ways at once, and closes when both have ended",
    inCluster(async (cluster) => {
      const [a, b] = await pair(cluster);
      const [here, there] = await opened(cluster, a, b);
      const [up, down] = [pattern(2 * MIB, 1), pattern(2 * MIB + 17, 2)];
      const [, , got, sent] = await cluster.environment.run(Promise.all([
        writeAll(here, up),
        writeAll(there, down, 300_000),
        readAll(here),
        readAll(there),
      ]));
      await cluster.environment.run(Promise.all([here.closed, there.closed]));
      assert.deepEqual([got, sent], [down, up]);
    }),
  );

  it(
    "can be half closed: the answer comes after the end of the question",
    inCluster(async (cluster) => {
      const [a, b] = await pair(cluster);
      b.onStream("upper", async (stream) => {
        const question = await readAll(stream);
        await writeAll(stream, bytes(text(question).toUpperCase()));
      });
      const here = await a.openStream("b", { topic: "upper" });
      await cluster.environment.run(writeAll(here, bytes("who goes there")));
      const [state] = outcomes(here.closed);
      assert.equal(state, "pending");
      const answer = await cluster.environment.run(readAll(here));
      assert.equal(text(answer), "WHO GOES THERE");
      await cluster.environment.run(here.closed);
    }),
  );

  it(
    "works in pipes, as the parts of one",
    inCluster(async (cluster) => {
      const [a, b] = await pair(cluster);
      b.onStream("echo", ({ readable, writable }) => readable.pipeTo(writable));
      const { readable, writable } = await a.openStream("b", { topic: "echo" });
      const source = new ReadableStream<string>({
        start(controller) {
          for (const word of ["heave", " ", "ho"]) controller.enqueue(word);
          controller.close();
        },
      });
      const sending = source.pipeThrough(
        new TransformStream<string, Uint8Array>({
          transform: (word, controller) => controller.enqueue(bytes(word)),
        }),
      ).pipeTo(writable);
      let got = "";
      const reading = (async () => {
        for await (const part of readable) got += text(part);
      })();
      await cluster.environment.run(Promise.all([sending, reading]));
      assert.equal(got, "heave ho");
    }),
  );

  it(
    "that is opened before there is a connection begins when there is one",
    inCluster(async (cluster) => {
      const peers = [{ nodeId: "b", address: cluster.address("b") }];
      const a = await cluster.start("a", { peers });
      const here = await a.openStream("b", { topic: "early" });
      const writing = writeAll(here, pattern(1_000));
      const b = await cluster.start("b");
      const streams = accepted(b, "early");
      await cluster.environment.until(() => streams.length === 1);
      assert.deepEqual(await cluster.environment.run(readAll(streams[0]!)), pattern(1_000));
      await cluster.environment.run(writing);
    }),
  );

  it(
    "is refused with wrong arguments, and to nobody",
    inCluster(async (cluster) => {
      const [a] = await pair(cluster);
      await assert.rejects(a.openStream("c"), { code: "PeerNotFound", peer: "c" });
      await assert.rejects(a.openStream("b", { lane: "fast" as "bulk" }), TypeError);
      await assert.rejects(a.openStream("b", { topic: "" }), RangeError);
      const reason = new Error("enough");
      const signal = AbortSignal.abort(reason);
      await assert.rejects(a.openStream("b", { signal }), (error) => error === reason);
    }),
  );
});

describe("a reset", () => {
  for (const side of ["the opener", "the other side"] as const) {
    it(
      `by ${side} fails everything on both sides, with code and message`,
      inCluster(async (cluster) => {
        const [a, b] = await pair(cluster);
        const [here, there] = await opened(cluster, a, b);
        const [from, to] = side === "the opener" ? [here, there] : [there, here];
        const pending = [from, to].flatMap((stream) => [
          stream.closed,
          stream.readable.getReader().read(),
          writeAll(stream, pattern(2 * WINDOW)),
        ]);
        const seen = outcomes(...pending);
        await cluster.environment.advance(10);
        from.reset("DISK_FULL", "no room");
        await cluster.environment.advance(10);
        // What had come before may still be read.
        assert.deepEqual([seen[0], seen[2]], ["ConnectionClosed", "ConnectionClosed"]);
        assert.deepEqual([seen[3], seen[5]], ["DISK_FULL", "DISK_FULL"]);
        const error = await to.closed.catch((e) => e);
        assert.ok(error instanceof RemoteError);
        assert.deepEqual([error.remoteMessage, error.peer], [
          "no room",
          from.nodeId === "b" ? "a" : "b",
        ]);
      }),
    );
  }

  it(
    "by the signal of openStream cancels it, at any time",
    inCluster(async (cluster) => {
      const [a, b] = await pair(cluster);
      const streams = accepted(b);
      const abort = new AbortController();
      const here = await a.openStream("b", { signal: abort.signal });
      await cluster.environment.advance(10);
      const seen = outcomes(here.closed, streams[0]!.closed);
      abort.abort();
      await cluster.environment.advance(10);
      assert.deepEqual(seen, ["ConnectionClosed", "CANCELLED"]);
    }),
  );

  it(
    "says why the handler failed, without its insides",
    inCluster(async (cluster) => {
      const [a, b] = await pair(cluster);
      b.onStream("chosen", () => {
        throw new HandlerError("NOT_TODAY", "come back tomorrow");
      });
      b.onStream("failed", () => Promise.reject(new Error("password=hunter2")));
      const codes: string[] = [];
      for (const topic of ["chosen", "failed", "nobody"]) {
        const here = await a.openStream("b", { topic });
        const error = await cluster.environment.run(here.closed.catch((e) => e));
        codes.push(`${error.remoteCode}: ${error.remoteMessage}`);
      }
      assert.deepEqual(codes.slice(0, 2), [
        "NOT_TODAY: come back tomorrow",
        "HANDLER_FAILED: the handler failed",
      ]);
      assert.match(codes[2]!, /^NO_HANDLER: /);
      assert.equal(b.stats().handlerErrors, 1);
    }),
  );
});

describe("the window of a stream", () => {
  it(
    "stops a writer whose reader does not read, and nobody else",
    inCluster(async (cluster) => {
      const [a, b] = await pair(cluster);
      const { environment } = cluster;
      const [here, there] = await opened(cluster, a, b);
      let written = 0;
      const writing = (async () => {
        const writer = here.writable.getWriter();
        for (let i = 0; i < 100; i++) {
          await writer.write(pattern(10_000, i));
          written += 10_000;
        }
        await writer.close();
      })();
      await environment.advance(1_000);
      assert.ok(written <= WINDOW + 10_000, `${written} bytes were taken`);
      assert.ok(written >= WINDOW - 20_000, `${written} bytes were taken`);
      // The same lane of the same connection goes on.
      await environment.run(a.send("b", bytes("message"), { acknowledged: true }));
      assert.deepEqual(inbox(b), ["message"]);
      b.onStream("echo", ({ readable, writable }) => readable.pipeTo(writable));
      const other = await a.openStream("b", { topic: "echo" });
      const echo = Promise.all([writeAll(other, pattern(MIB)), readAll(other)]);
      assert.deepEqual((await environment.run(echo))[1], pattern(MIB));
      const all = await environment.run(readAll(there));
      await environment.run(writing);
      assert.equal(all.length, 1_000_000);
    }),
  );
});

describe("hundreds of streams at once", () => {
  it(
    "carry their own bytes, and those that nobody reads stall no other",
    inCluster(async (cluster) => {
      const STREAMS = 250;
      const [a, b] = await pair(cluster);
      const { environment } = cluster;
      b.onStream("stuck", () => {});
      b.onStream("echo", ({ readable, writable }) => readable.pipeTo(writable));
      const stuck = await Promise.all(
        Array.from({ length: 5 }, () => a.openStream("b", { topic: "stuck" })),
      );
      const stalled = outcomes(...stuck.map((stream) => writeAll(stream, pattern(2 * WINDOW))));
      const sizes = Array.from({ length: STREAMS }, (_, i) => 1 + (i * 7919) % 30_000);
      const echoes = await environment.run(Promise.all(sizes.map(async (size, i) => {
        const stream = await a.openStream("b", { topic: "echo" });
        const [echo] = await Promise.all([readAll(stream), writeAll(stream, pattern(size, i))]);
        await stream.closed;
        return echo;
      })));
      for (const [i, echo] of echoes.entries()) assert.deepEqual(echo, pattern(sizes[i]!, i));
      assert.deepEqual([...new Set(stalled)], ["pending"]);
      for (const stream of stuck) stream.reset();
      await environment.advance(20);
      assert.deepEqual([...new Set(stalled)], ["ConnectionClosed"]);
    }),
  );

  it(
    "are opened by both sides, and the numbers of the two never meet",
    inCluster(async (cluster) => {
      const [a, b] = await pair(cluster);
      for (const endpoint of [a, b]) {
        endpoint.onStream("echo", ({ readable, writable }) => readable.pipeTo(writable));
      }
      const ask = async (from: Endpoint, to: string, i: number) => {
        const stream = await from.openStream(to, { topic: "echo" });
        const word = `${from.nodeId}${i}`;
        const [echo] = await Promise.all([readAll(stream), writeAll(stream, bytes(word))]);
        assert.equal(text(echo), word);
      };
      const all = Array.from({ length: 100 }, (_, i) => [ask(a, "b", i), ask(b, "a", i)]);
      await cluster.environment.run(Promise.all(all.flat()));
    }),
  );
});

describe("maxStreams", () => {
  it(
    "of the peer bounds what we open, and a place is free again when a stream is over",
    inCluster(async (cluster) => {
      const [a, b] = await pair(cluster, { b: { maxStreams: 3 } });
      const streams = accepted(b);
      const ours = await Promise.all([1, 2, 3].map(() => a.openStream("b")));
      await assert.rejects(a.openStream("b"), { code: "Backpressure", queued: 3 });
      await cluster.environment.advance(20);
      ours[0]!.reset();
      await cluster.environment.advance(20);
      assert.equal(streams.length, 3);
      const again = await a.openStream("b");
      await cluster.environment.advance(20);
      const [state] = outcomes(again.closed);
      assert.deepEqual([state, streams.length], ["pending", 4]);
    }),
  );

  it(
    "refuses what was opened before it was known, typed and counted",
    inCluster(async (cluster) => {
      const peers = [{ nodeId: "b", address: cluster.address("b") }];
      const a = await cluster.start("a", { peers });
      const ours = await Promise.all([1, 2, 3].map(() => a.openStream("b")));
      const seen = outcomes(...ours.map(({ closed }) => closed));
      const b = await cluster.start("b", { maxStreams: 2 });
      const streams = accepted(b);
      await cluster.environment.until(() => streams.length === 2);
      await cluster.environment.advance(20);
      assert.deepEqual(seen, ["pending", "pending", "TOO_MANY_STREAMS"]);
      assert.equal(b.stats().refused.requestsAndStreams, 1);
      const error = await ours[2]!.closed.catch((e) => e);
      assert.equal(error.retryable, true);
    }),
  );
});

describe("a peer of version 3 that offers no streams", () => {
  it(
    "is opened none: what was opened before it was known fails, and nothing else is harmed",
    inCluster(async (cluster) => {
      const { environment, network } = cluster;
      const without = changing(network.transport("b"), (body) => {
        if (indexOf(body, bytes('"welcome"')) < 0) return body;
        return bytes(text(body).replace(/,?"streams"/, ""));
      });
      const a = await cluster.start("a", {
        poolSize: 1,
        peers: [{ nodeId: "b", address: cluster.address("b") }],
      });
      const early = await a.openStream("b");
      const seen = outcomes(early.closed, early.readable.getReader().read());
      await a.send("b", bytes("message"));
      const b = await cluster.start("b", { poolSize: 1, transports: [without] });
      await environment.run(a.flush("b"));
      assert.deepEqual(seen, ["UnsupportedProtocol", "UnsupportedProtocol"]);
      assert.equal(a.peer("b")!.openStreams, 0);
      await assert.rejects(a.openStream("b"), { code: "UnsupportedProtocol", peer: "b" });
      assert.deepEqual([inbox(b), b.stats().errors], [["message"], {}]);
    }),
  );
});

describe("a stream whose connection breaks", () => {
  it(
    "goes on over the next ones without a byte lost or doubled",
    inCluster(async (cluster) => {
      const [a, b] = await pair(cluster, { a: { reconnect: { jitter: 0 } } });
      const { environment, network } = cluster;
      const [here, there] = await opened(cluster, a, b);
      const [up, down] = [pattern(3 * MIB, 1), pattern(MIB, 2)];
      const work = Promise.all([
        readAll(there),
        readAll(here),
        writeAll(here, up),
        writeAll(there, down),
      ]);
      const seen = outcomes(work);
      let cuts = 0;
      while (seen[0] === "pending" && cuts < 12) {
        await environment.advance(70);
        const links = [...network.links];
        if (cuts % 2 === 0) links[0]?.reset();
        else network.reset(cluster.address("b"));
        cuts++;
      }
      const [sent, got] = await environment.run(work);
      assert.deepEqual([sent, got], [up, down]);
      assert.ok(cuts >= 3, `${cuts} cuts`);
      assert.ok(a.stats().reconnections > 0);
    }, { highWater: 20_000, latencyMs: 20 }),
  );

  for (const how of ["the peer is started again", "disconnect", "close"] as const) {
    it(
      `for good by ${how} fails on both sides with ConnectionClosed`,
      inCluster(async (cluster) => {
        const [a, b] = await pair(cluster);
        const { environment } = cluster;
        const [here, there] = await opened(cluster, a, b);
        const seen = outcomes(here.closed, there.closed, here.readable.getReader().read());
        if (how === "disconnect") await environment.run(a.disconnect("b"));
        else if (how === "close") await environment.run(a.close({ drainMs: 100 }));
        else {
          cluster.network.reset(cluster.address("b"));
          await environment.run(b.close({ drainMs: 0 }));
          const again = await cluster.start("b");
          await cluster.pooled(a, again, 2);
        }
        await environment.advance(50);
        assert.deepEqual(seen, ["ConnectionClosed", "ConnectionClosed", "ConnectionClosed"]);
      }),
    );
  }
});

describe("onStream", () => {
  it(
    "takes streams until it is ended, in the place of who did so before",
    inCluster(async (cluster) => {
      const [a, b] = await pair(cluster);
      const [first, second]: string[][] = [[], []];
      b.onStream("t", (stream) => void first!.push(text(stream.payload)));
      const stop = b.onStream("t", (stream) => void second!.push(text(stream.payload)));
      await a.openStream("b", { topic: "t", payload: bytes("1") });
      await cluster.environment.advance(10);
      stop();
      const refused = await a.openStream("b", { topic: "t", payload: bytes("2") });
      const [state] = [await cluster.environment.run(refused.closed.catch((e) => e.remoteCode))];
      assert.deepEqual([first, second, state], [[], ["1"], "NO_HANDLER"]);
    }),
  );
});
