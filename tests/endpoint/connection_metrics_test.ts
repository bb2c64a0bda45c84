/** What is known of connections: of each one, and of all that were, by protocol. */

import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { bytes, inCluster } from "../support/cluster.ts";

describe("the metrics of connections", () => {
  it(
    "count what was established, what failed and what it carried, by protocol",
    inCluster(async (cluster) => {
      const b = await cluster.start("b", { poolSize: 1 });
      const a = await cluster.start("a", { poolSize: 1 });
      assert.deepEqual(a.stats().connections, {
        established: 0,
        failed: 0,
        bytesSent: 0,
        bytesReceived: 0,
        roundTrip: undefined,
        byProtocol: Object.create(null),
      });
      await cluster.connect(a, "b");
      await cluster.environment.run(a.connect({ nodeId: "c", address: "memory://c:1" })).catch(
        () => {},
      );
      await cluster.environment.run(a.send("b", bytes("hello"), { acknowledged: true }));
      const before = a.stats();
      const { memory } = before.connections.byProtocol;
      assert.ok(memory !== undefined);
      assert.deepEqual([memory.established, memory.failed, memory.active, memory.idle], [
        1,
        1,
        1,
        0,
      ]);
      assert.equal(memory.bytesSent, before.bytesSent);
      assert.equal(memory.bytesReceived, before.bytesReceived);
      assert.ok(memory.roundTrip!.p50 >= 2 && memory.roundTrip!.p50 < 10);
      assert.deepEqual(before.connections.roundTrip, memory.roundTrip);
      assert.equal(b.stats().connections.byProtocol.memory!.established, 1);

      await cluster.environment.run(a.disconnect("b"));
      const after = a.stats().connections.byProtocol.memory!;
      assert.equal(after.established, 1);
      assert.equal(after.active, 0);
      assert.equal(after.bytesSent, a.stats().bytesSent);
      assert.ok(after.bytesSent >= memory.bytesSent);
      assert.equal(after.roundTrip!.count >= memory.roundTrip!.count, true);
    }),
  );

  it(
    "say of a connection what carries it, since when, and what it was seen to deliver",
    inCluster(async (cluster) => {
      const b = await cluster.start("b", { poolSize: 1 });
      b.onMessage(() => {});
      const a = await cluster.start("a", { poolSize: 1, compression: { enabled: false } });
      const wallClock = cluster.environment.wallClock();
      await cluster.connect(a, "b");
      await cluster.environment.advance(500);
      const [connection] = a.peer("b")!.connections;
      assert.equal(connection!.protocol, "memory");
      assert.equal(connection!.remoteAddress, "memory://b:1");
      assert.ok(Math.abs(connection!.establishedAt - wallClock) < 50);
      for (let i = 0; i < 50; i++) {
        await cluster.environment.run(a.send("b", new Uint8Array(100_000)));
      }
      await cluster.environment.run(a.flush("b"));
      const { bandwidth } = a.peer("b")!.connections[0]!;
      assert.ok(bandwidth !== undefined && bandwidth > 100_000, `${bandwidth} bytes per second`);
    }, { highWater: 100_000 }),
  );
});
