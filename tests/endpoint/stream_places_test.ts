/** A handler may leave what the other side writes unread: the place of its stream comes free. */

import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { Endpoint, TransportStream } from "../../mod.ts";
import { bytes, type Cluster, inCluster, text } from "../support/cluster.ts";

const PLACES = 2;
const STREAMS = 5;

async function pair(
  cluster: Cluster,
  handler: (stream: TransportStream) => void | Promise<void>,
): Promise<[Endpoint, Endpoint]> {
  const a = await cluster.start("a", { poolSize: 1 });
  const b = await cluster.start("b", { poolSize: 1, maxStreams: PLACES });
  b.onStream("get", handler);
  await cluster.connect(a, "b");
  return [a, b];
}

/** Answers without a look at the question. */
async function answer({ writable }: TransportStream): Promise<void> {
  const writer = writable.getWriter();
  await writer.write(bytes("answer"));
  await writer.close();
}

/** Asks in a stream; gives the answer, or the code of the failure. */
async function ask(a: Endpoint, question: Uint8Array): Promise<string> {
  try {
    const { readable, writable } = await a.openStream("b", { topic: "get" });
    const writer = writable.getWriter();
    const [answer] = await Promise.all([
      readAll(readable),
      writer.write(question).then(() => writer.close()),
    ]);
    return answer;
  } catch (error) {
    return (error as { remoteCode?: string }).remoteCode ?? (error as { code: string }).code;
  }
}

async function readAll(readable: ReadableStream<Uint8Array>): Promise<string> {
  let all = "";
  for await (const chunk of readable) all += text(chunk);
  return all;
}

describe("streams whose handler leaves what comes", () => {
  const questions = { "a short question": 1, "one beyond the stream's window": 1_000_000 };
  for (const [name, length] of Object.entries(questions)) {
    it(
      `come free when both directions have ended: ${name}`,
      inCluster(async (cluster) => {
        const [a, b] = await pair(cluster, answer);
        for (let i = 0; i < STREAMS; i++) {
          const asked = ask(a, new Uint8Array(length));
          assert.equal(await cluster.environment.run(asked), "answer", `stream ${i}`);
          await cluster.environment.advance(10);
          assert.equal(b.peer("a")!.openStreams, 0);
        }
      }),
    );
  }

  it(
    "come free when the session has ended",
    inCluster(async (cluster) => {
      const [a] = await pair(cluster, answer);
      for (let i = 0; i < STREAMS; i++) {
        await cluster.connect(a, "b");
        assert.equal(await cluster.environment.run(ask(a, bytes("?"))), "answer", `stream ${i}`);
        await cluster.environment.run(a.disconnect("b"));
        await cluster.environment.advance(100);
      }
    }),
  );

  it(
    "are still there for whoever reads them after the handler has returned",
    inCluster(async (cluster) => {
      const streams: TransportStream[] = [];
      const [a, b] = await pair(cluster, (stream) => void streams.push(stream));
      const { writable } = await a.openStream("b", { topic: "get" });
      const writer = writable.getWriter();
      await cluster.environment.run(writer.write(bytes("?")).then(() => writer.close()));
      await cluster.environment.advance(100);
      assert.equal(b.peer("a")!.openStreams, 1);
      assert.equal(await cluster.environment.run(readAll(streams[0]!.readable)), "?");
    }),
  );
});
