/** Row 30, and the promise that memory stays flat: somebody does not read what is sent. */

import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { Endpoint } from "../../mod.ts";
import { inScene, residentMiB } from "./harness.ts";

const CHUNK = 65_536;
const GIGABYTE = 2 ** 30;
/** The sender stands still when it was not let go on for this long. */
const STILL_MS = 500;
/** Small enough that what the limits allow is little beside what garbage collectors leave. */
const LIMITS = { maxPendingBytes: 2 ** 25, recvBufferSize: 500 };

/** A message that starts with its number. */
function numbered(chunk: Uint8Array, number: number): Uint8Array {
  new DataView(chunk.buffer).setUint32(0, number);
  return chunk;
}

describe("30. memory stays flat while 1 GB waits to be sent", () => {
  it("30. to an endpoint that takes nothing: the sender waits, and goes on when it may", async () => {
    const receiver = await started({ nodeId: "receiver", listen: "tcp://127.0.0.1:0" });
    const sender = await started({ nodeId: "sender" });
    const abort = new AbortController();
    try {
      await sender.connect({ nodeId: "receiver", address: receiver.addresses[0]! });
      const before = residentMiB();
      let accepted = 0;
      const sending = (async () => {
        const chunk = new Uint8Array(CHUNK);
        while (accepted < GIGABYTE / CHUNK) {
          await sender.send("receiver", numbered(chunk, accepted), { signal: abort.signal });
          accepted++;
        }
      })();
      const outcome = sending.then(() => "sent it all", (error) => error);
      await standsStill(() => accepted);
      const grown = residentMiB() - before;
      // 32 MiB wait here, 32 MiB there; the kernel and the runtime hold some megabytes more.
      assert.ok(accepted < 1_500, `${accepted} messages accepted`);
      assert.ok(grown < 200, `${grown.toFixed(1)} MiB`);
      assert.ok(receiver.stats().receiveQueueLength <= LIMITS.recvBufferSize);

      abort.abort();
      assert.equal(await outcome, abort.signal.reason);
      for (let number = 0; number < accepted; number++) {
        const { payload } = await receiver.receive();
        assert.equal(new DataView(payload.buffer, payload.byteOffset).getUint32(0), number);
      }
      assert.equal(receiver.tryReceive(), undefined);
    } finally {
      await Promise.all([sender.close({ drainMs: 0 }), receiver.close({ drainMs: 0 })]);
    }
  });

  it(
    "30. to a peer that stops reading: given up after ioTimeoutMs, every message accounted for",
    inScene({
      victim: {
        ioTimeoutMs: 300,
        maxPendingBytes: 2 ** 25,
        resumeWindowMs: 100,
        compression: { enabled: false },
      },
    }, async (scene) => {
      const { victim } = scene;
      const fates: Record<string, number> = { unsent: 0, unknown: 0 };
      const numbers = new Set<number>();
      victim.addEventListener("undelivered", ({ detail }) => {
        fates[detail.fate]!++;
        numbers.add(new DataView(detail.payload.buffer, detail.payload.byteOffset).getUint32(0));
      });
      const peer = await scene.insider();
      peer.stopReading();
      const before = residentMiB();
      let accepted = 0;
      while (accepted < GIGABYTE / CHUNK) {
        const sent = victim.trySend("mallory", numbered(new Uint8Array(CHUNK), accepted));
        if (!sent) break;
        accepted++;
      }
      assert.ok(accepted * CHUNK < 2 ** 26, `${accepted} messages accepted`);
      await scene.when(
        () => victim.peer("mallory") === undefined,
        2_000,
        () => JSON.stringify(victim.peer("mallory")?.state),
      );
      assert.ok(residentMiB() - before < 100, "memory");
      assert.deepEqual(victim.stats().errors, { Timeout: 1 });
      assert.deepEqual(scene.reported.map(({ code }) => code), ["Timeout"]);
      assert.equal(numbers.size, fates.unsent! + fates.unknown!, "reported twice");
      assert.ok(numbers.has(accepted - 1), "the last one was certainly not delivered");
      // What is not reported has been given to the kernel, whose buffers are small.
      assert.ok((accepted - numbers.size) * CHUNK < 2 ** 24, `${numbers.size} of ${accepted}`);
    }),
  );
});

async function started(options: { nodeId: string; listen?: string }): Promise<Endpoint> {
  const { warn } = console;
  console.warn = () => {};
  try {
    const endpoint = new Endpoint({
      ...options,
      ...LIMITS,
      security: "development",
      compression: { enabled: false },
    });
    await endpoint.start();
    return endpoint;
  } finally {
    console.warn = warn;
  }
}

/** Resolves when the count has not changed for a while. */
function standsStill(count: () => number): Promise<void> {
  return new Promise((resolve) => {
    let last = count();
    const timer = setInterval(() => {
      if (count() === last && last > 0) {
        clearInterval(timer);
        resolve();
      }
      last = count();
    }, STILL_MS);
  });
}
