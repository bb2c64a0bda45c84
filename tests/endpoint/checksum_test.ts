/** The option `checksum`: where frames carry one, and what a flipped bit does. */

import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { type ChecksumMode, Endpoint, type EndpointConfig } from "../../mod.ts";
import { TestCa } from "../support/certs.ts";
import { bytes, Cluster, text } from "../support/cluster.ts";
import { seededRandom } from "../support/memory_network.ts";
import { type Change, changing, indexOf } from "./on_the_line.ts";

const MESSAGES = 200;
const SEEDS = 20;
/** One frame in so many is damaged. */
const DAMAGED = 40;

/** The capabilities of two endpoints on loopback, as both see them, when they have talked. */
async function capabilities(dials: EndpointConfig, listens: EndpointConfig): Promise<string[]> {
  const listener = new Endpoint({ listen: "tcp://127.0.0.1:0", ...listens });
  const dialer = new Endpoint(dials);
  try {
    await listener.start();
    await dialer.start();
    await dialer.connect({ nodeId: listener.nodeId, address: listener.addresses[0]! });
    await dialer.send(listener.nodeId, bytes("ahoy"));
    assert.equal(text((await listener.receive()).payload), "ahoy");
    const seen = dialer.peer(listener.nodeId)!.capabilities;
    assert.deepEqual(listener.peer(dialer.nodeId)!.capabilities.toSorted(), seen.toSorted());
    return [...seen];
  } finally {
    await dialer.close({ drainMs: 0 });
    await listener.close({ drainMs: 0 });
  }
}

describe("frames carry checksums", () => {
  const plain = (nodeId: string, checksum?: ChecksumMode): EndpointConfig => ({
    nodeId,
    security: "development",
    ...checksum === undefined ? {} : { checksum },
  });

  async function secured(
    ca: TestCa,
    nodeId: string,
    checksum?: ChecksumMode,
  ): Promise<EndpointConfig> {
    const tls = {
      ...await ca.issue(nodeId),
      ca: ca.ca,
      requireClientAuth: true,
      nodeIdVerification: "CommonName" as const,
    };
    return { nodeId, tls, ...checksum === undefined ? {} : { checksum } };
  }

  for (
    const [dials, listens, onPlain, underTls] of [
      [undefined, undefined, true, false],
      ["auto", "auto", true, false],
      ["always", "always", true, true],
      ["never", "never", false, false],
      ["auto", "always", true, false],
      ["always", "never", false, false],
    ] as const
  ) {
    const modes = `${dials ?? "by default"} / ${listens ?? "by default"}`;

    it(`${modes}: ${onPlain ? "" : "not "}without TLS`, async () => {
      const seen = await capabilities(plain("node2", dials), plain("node1", listens));
      assert.equal(seen.includes("checksum"), onPlain, seen.join());
    });

    it(`${modes}: ${underTls ? "" : "not "}under TLS`, async () => {
      const ca = await TestCa.create();
      const dialer = await secured(ca, "node2", dials);
      const seen = await capabilities(dialer, await secured(ca, "node1", listens));
      assert.equal(seen.includes("checksum"), underTls, seen.join());
    });
  }
});

interface Line {
  readonly cluster: Cluster;
  readonly a: Endpoint;
  readonly b: Endpoint;
}

/** A cluster of two, whose frames go through `change`, one way or both. */
async function onLine(
  seed: number,
  checksum: ChecksumMode,
  [fromA, fromB]: readonly [Change, Change],
  test: (line: Line) => Promise<void>,
): Promise<void> {
  const cluster = new Cluster({ seed, highWater: 10_000_000 });
  try {
    const common: Partial<EndpointConfig> = {
      checksum,
      rateLimit: "disabled",
      compression: { enabled: false },
      reconnect: { initialBackoffMs: 10, maxBackoffMs: 50 },
    };
    const start = (nodeId: string, change: Change) =>
      cluster.start(nodeId, {
        ...common,
        transports: [changing(cluster.network.transport(nodeId), change)],
      });
    const b = await start("b", fromB);
    const a = await start("a", fromA);
    await cluster.connect(a, "b");
    await cluster.environment.advance(100);
    await test({ cluster, a, b });
  } finally {
    await cluster.close();
  }
}

/** Flips one bit of a frame. */
function flip(body: Uint8Array, bit: number): Uint8Array {
  body[bit >>> 3]! ^= 1 << (bit & 7);
  return body;
}

/** Hello and welcome have no checksums; both name their node. */
const HANDSHAKE = /"node_id"/;

describe("a flipped bit on the line", () => {
  it("closes the connection; the session goes on, and nothing is lost, doubled or changed", async () => {
    for (let seed = 1; seed <= SEEDS; seed++) {
      const random = seededRandom(seed);
      let flipped = 0;
      let armed = false;
      const damage: Change = (body) => {
        if (!armed || HANDSHAKE.test(text(body)) || random() >= 1 / DAMAGED) return body;
        flipped++;
        return flip(body, Math.floor(random() * body.length * 8));
      };
      await onLine(seed, "auto", [damage, damage], async ({ cluster, a, b }) => {
        const undelivered: unknown[] = [];
        for (const endpoint of [a, b]) {
          endpoint.addEventListener("undelivered", ({ detail }) => undelivered.push(detail));
        }
        armed = true;
        for (let i = 0; i < MESSAGES; i++) {
          await cluster.environment.run(a.send("b", bytes(`there ${i}`)));
          await cluster.environment.run(b.send("a", bytes(`back ${i}`)));
          await cluster.environment.advance(i % 3);
        }
        armed = false;
        await cluster.environment.run(Promise.all([a.flush("b"), b.flush("a")]));
        for (const [endpoint, word] of [[b, "there"], [a, "back"]] as const) {
          for (let i = 0; i < MESSAGES; i++) {
            assert.equal(text(endpoint.tryReceive()!.payload), `${word} ${i}`, `seed ${seed}`);
          }
          assert.equal(endpoint.tryReceive(), undefined);
        }
        assert.deepEqual(undelivered, []);
        assert.ok(flipped > 0, `seed ${seed} flipped nothing`);
        const closed = (a.stats().errors.InvalidFrame ?? 0) + (b.stats().errors.InvalidFrame ?? 0);
        assert.ok(closed > 0 && closed <= flipped, `${closed} closed for ${flipped} bits`);
      });
    }
  });

  it("closes the connection wherever in the frame it is", async () => {
    const message = bytes("a message of some length");
    const frameBytes = 2 + 8 + message.length + 4;
    for (let bit = 0; bit < 8 * frameBytes; bit++) {
      let left = 1;
      const damage: Change = (body) => {
        if (left === 0 || indexOf(body, message) < 0) return body;
        left--;
        assert.equal(body.length, frameBytes);
        return flip(body, bit);
      };
      await onLine(1, "auto", [damage, (body) => body], async ({ cluster, a, b }) => {
        await cluster.environment.run(a.send("b", message, { acknowledged: true }));
        assert.equal(left, 0);
        assert.deepEqual(b.stats().errors, { InvalidFrame: 1 }, `bit ${bit}`);
        assert.deepEqual(b.tryReceive()!.payload, message);
        assert.equal(b.tryReceive(), undefined);
      });
    }
  });

  it("passes for what was sent where nobody checks", async () => {
    const message = bytes("a message of some length");
    const damage: Change = (body) =>
      indexOf(body, message) < 0 ? body : flip(body, 8 * (2 + 8) + 1);
    await onLine(1, "never", [damage, (body) => body], async ({ cluster, a, b }) => {
      await cluster.environment.run(a.send("b", message, { acknowledged: true }));
      assert.equal(text(b.tryReceive()!.payload), "c message of some length");
      assert.deepEqual(b.stats().errors, {});
    });
  });
});
