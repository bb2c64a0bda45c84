/** A process that is killed twenty times, and started again, during a stream of messages to it. */

import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, it } from "node:test";
import type { EndpointOptions } from "../../mod.ts";
import { type RuntimeName, RUNTIMES } from "../../tools/runtimes.ts";
import { type LaneName, LANES, NEWEST } from "../simulation/api.ts";
import { Random } from "../simulation/random.ts";
import { mayRun } from "../support/may_run.ts";
import { Actor } from "./process.ts";
import { addArrival, type Arrivals, compare } from "./stream_ledger.ts";

const KILLS = 20;
const MESSAGES = 200_000;
const MAX_SIZE = 5_000;

const lanes: LaneName[] = NEWEST === 3 ? [...LANES] : ["normal"];
const perLane = Math.ceil(MESSAGES / lanes.length);

const options = (nodeId: string): EndpointOptions => ({
  nodeId,
  security: "development",
  reconnect: { initialBackoffMs: 5, maxBackoffMs: 50 },
});

/** The receiving process of now; the next one is being started while it runs. */
class Receivers {
  readonly files: string[] = [];
  readonly #directory: string;
  readonly #address: string;
  #current: Actor | undefined;
  #next: Actor;

  constructor(directory: string, address: string) {
    this.#directory = directory;
    this.#address = address;
    this.#next = this.#spawn();
  }

  async startNext(): Promise<void> {
    const actor = this.#next;
    const file = join(this.#directory, `received${this.files.length}`);
    this.files.push(file);
    this.#current = actor;
    this.#next = this.#spawn();
    const peers = [{ nodeId: "sender", address: this.#address }];
    await actor.tell({
      do: "start",
      options: { ...options("receiver"), peers },
      recordTo: file,
    });
  }

  async kill(): Promise<void> {
    this.#current!.kill("SIGKILL");
    await this.#current!.exited;
  }

  async close(): Promise<void> {
    await Promise.all([this.#current?.close(), this.#next.close()]);
  }

  #spawn(): Actor {
    return new Actor(RUNTIMES[(this.files.length + 1) % RUNTIMES.length] as RuntimeName);
  }
}

/** What a receiver wrote down: five bytes a message, the last of which may be cut off. */
function readArrivals(file: string): Arrivals {
  const bytes = readFileSync(file);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const names = new Map(LANES.map((lane) => [lane.charCodeAt(0), lane]));
  const arrivals: Arrivals = {};
  for (let at = 0; at + 5 <= bytes.length; at += 5) {
    addArrival(arrivals[names.get(bytes[at]!)!] ??= [], view.getUint32(at + 1));
  }
  return arrivals;
}

describe("kill -9 of the receiver, twenty times", { skip: !mayRun() }, () => {
  it("leaves every message received once, or reported", async () => {
    const random = new Random(9, 1);
    const directory = mkdtempSync(join(tmpdir(), "hawser-"));
    const sender = new Actor("deno");
    let receivers: Receivers | undefined;
    try {
      const [address] = await sender.tell({
        do: "start",
        options: { ...options("sender"), listen: "tcp://127.0.0.1:0" },
      });
      receivers = new Receivers(directory, address);
      await receivers.startNext();
      const nodeId = "receiver";
      await sender.until({ do: "peer", nodeId }, (peer) => peer !== null);
      await sender.tell({ do: "stream", nodeId, lanes, count: perLane, maxSize: MAX_SIZE });
      for (let kill = 1; kill <= KILLS; kill++) {
        const at = MESSAGES * (kill - random.next() / 2) / (KILLS + 1);
        await sender.until<number>({ do: "streamed" }, (count) => count >= at);
        await receivers.kill();
        await receivers.startNext();
      }
      await sender.until<number>({ do: "streamed" }, (count) => count >= perLane * lanes.length);
      await sender.tell({ do: "stopStream" });
      await sender.tell({ do: "flush", nodeId });
      const outcomes = await sender.tell({ do: "outcomes" });
      const read = () => compare(outcomes, receivers!.files.map(readArrivals));
      const sum = read();
      assert.equal(receivers.files.length, KILLS + 1);
      assert.ok(sum.received > MESSAGES / 2, `${sum.received} received`);
      assert.ok(NEWEST === 2 || sum.acked > MESSAGES / 10, `${sum.acked} acknowledged`);
      // What version 2 has given to the system when the receiver dies may be lost in silence.
      if (NEWEST === 2) return;
      assert.deepEqual(sum.violations, []);
      assert.equal(sum.lost, 0);
      assert.equal(sum.accepted, perLane * lanes.length);
    } finally {
      await Promise.all([sender.close(), receivers?.close()]);
      rmSync(directory, { recursive: true });
    }
  });
});
