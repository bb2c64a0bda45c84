/** Streams between endpoints whose messages are smaller than a fragment. */

import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { HandlerError } from "../../mod.ts";
import { bytes, inCluster } from "../support/cluster.ts";
import { watch } from "../support/watch.ts";

const BYTES = 200_000;

describe("a stream, where the largest message is smaller than a fragment", () => {
  for (const enabled of [true, false]) {
    it(
      `carries more than that, ${enabled ? "compressed" : "as it is"}`,
      inCluster(async (cluster) => {
        const common = { poolSize: 1, compression: { enabled } } as const;
        const a = await cluster.start("a", common);
        const b = await cluster.start("b", { ...common, maxMessageSize: 1_000 });
        let read = 0;
        b.onStream(undefined, async ({ readable }) => {
          for await (const chunk of readable) read += chunk.length;
        });
        await cluster.connect(a, "b");
        const { writable } = await a.openStream("b");
        const writer = writable.getWriter();
        const written = watch(writer.write(new Uint8Array(BYTES)).then(() => writer.close()));
        await cluster.environment.advance(1_000);
        assert.deepEqual([written.outcome, read], ["resolved", BYTES]);
        assert.deepEqual([a.stats().errors, b.stats().errors], [{}, {}]);
        assert.equal(cluster.network.dials.length, 1);
      }),
    );
  }
});

describe("an error answer that is longer than a message may be", () => {
  for (const text of ["x".repeat(1_000), "😀".repeat(500), '"'.repeat(1_000)]) {
    it(
      `arrives with less of its text (${text.slice(0, 2)}…)`,
      inCluster(async (cluster) => {
        const a = await cluster.start("a", { poolSize: 1, maxMessageSize: 100 });
        const b = await cluster.start("b", { poolSize: 1 });
        await cluster.connect(a, "b");
        b.handle(undefined, () => {
          throw new HandlerError("MY_CODE", text);
        });
        const asked = watch(a.request("b", bytes("?")));
        await cluster.environment.advance(5_000);
        assert.deepEqual([asked.outcome, asked.error?.code], ["rejected", "RemoteError"]);
        assert.equal(cluster.network.dials.length, 1);
        b.onStream(undefined, () => {
          throw new HandlerError("MY_CODE", text);
        });
        const stream = await a.openStream("b");
        const closed = watch(stream.closed);
        await cluster.environment.advance(5_000);
        assert.deepEqual([closed.outcome, closed.error?.code], ["rejected", "RemoteError"]);
        assert.equal(cluster.network.dials.length, 1);
      }),
    );
  }
});
