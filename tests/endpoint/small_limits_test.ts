/** Streams between endpoints whose messages are smaller than a fragment. */

import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { inCluster } from "../support/cluster.ts";
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
