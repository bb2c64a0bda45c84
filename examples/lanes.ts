/**
 * A heartbeat beside a bulk transfer, on one connection: heartbeats in the control lane pass the
 * bytes that are on their way; in the bulk lane they would wait behind them.
 *
 * @module
 */

import { Endpoint, type LaneName } from "../mod.ts";

const BEATS = 50;
const BULK_BYTES = 1024 * 1024;
/** So many bulk messages are on their way all the time. */
const BULK_AHEAD = 16;

const settings = {
  security: "development",
  // With two connections, bulk would have one to itself.
  poolSize: 1,
  compression: { enabled: false },
} as const;
const leader = new Endpoint({ nodeId: "leader", listen: "tcp://127.0.0.1:0", ...settings });
const follower = new Endpoint({ nodeId: "follower", ...settings });

/** Round trips in milliseconds, the shortest first. */
async function beat(lane: LaneName): Promise<number[]> {
  const times: number[] = [];
  for (let i = 0; i < BEATS; i++) {
    const begun = performance.now();
    await follower.request("leader", new Uint8Array(8), { topic: "beat", lane });
    times.push(performance.now() - begun);
  }
  return times.sort((a, b) => a - b);
}

/** Keeps sending bulk messages until it is told to stop; resolves with how many arrived. */
async function transfer(stop: AbortSignal): Promise<number> {
  const snapshot = new Uint8Array(BULK_BYTES);
  let sent = 0;
  const sender = async () => {
    while (!stop.aborted) {
      await follower.send("leader", snapshot, { lane: "bulk", acknowledged: true });
      sent++;
    }
  };
  await Promise.all(Array.from({ length: BULK_AHEAD }, sender));
  return sent;
}

function print(what: string, times: readonly number[]): void {
  const at = (share: number) => times[Math.floor(share * (times.length - 1))]!.toFixed(2);
  console.log(`${what}: p50 ${at(0.5)} ms, p99 ${at(0.99)} ms`);
}

try {
  leader.handle("beat", () => new Uint8Array(0));
  leader.onMessage(() => {});
  await leader.start();
  await follower.start();
  await follower.connect({ nodeId: "leader", address: leader.addresses[0]! });

  await beat("control");
  print("heartbeat, nothing beside it", await beat("control"));
  for (const lane of ["control", "bulk"] as const) {
    const stop = new AbortController();
    const begun = performance.now();
    const transferred = transfer(stop.signal);
    const times = await beat(lane);
    stop.abort();
    const megabytes = (await transferred) * BULK_BYTES / 1e6;
    print(`heartbeat in lane ${lane}, beside a transfer`, times);
    const seconds = (performance.now() - begun) / 1000;
    console.log(
      `  the transfer: ${megabytes.toFixed(0)} MB at ${(megabytes / seconds).toFixed(0)} MB/s`,
    );
  }
} finally {
  await follower.close();
  await leader.close();
}
