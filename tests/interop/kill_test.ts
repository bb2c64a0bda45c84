/** Rows 25, 34 and 35 of the bad inputs with real processes: killed, stopped, started again. */

import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { EndpointOptions } from "../../mod.ts";
import type { RuntimeName } from "../../tools/runtimes.ts";
import { TestCa } from "../support/certs.ts";
import { mayRun } from "../support/may_run.ts";
import { Actor } from "./process.ts";

const PAIRS: [RuntimeName, RuntimeName][] = [["deno", "bun"], ["bun", "deno"]];
const INTERVAL_SECS = 1;
/** What asking the other process takes on a busy machine. */
const MARGIN_MS = 500;

interface PeerSeen {
  state: string;
}
type Received = Record<string, { count: number; inOrder: boolean } | undefined>;

const active = (peer: PeerSeen | null) => peer?.state === "active";
const notActive = (peer: PeerSeen | null) => peer?.state !== "active";

/** Two endpoints in processes of their own, one of which dialed the other. */
class Pair {
  readonly #ca: TestCa;
  readonly dialerRuntime: RuntimeName;
  readonly listenerRuntime: RuntimeName;
  dialer: Actor;
  listener: Actor;
  address = "tcp://127.0.0.1:0";

  constructor(ca: TestCa, dialer: RuntimeName, listener: RuntimeName) {
    this.#ca = ca;
    this.dialerRuntime = dialer;
    this.listenerRuntime = listener;
    this.dialer = new Actor(dialer);
    this.listener = new Actor(listener);
  }

  async start(more: Partial<EndpointOptions> = {}): Promise<void> {
    await this.startListener(more);
    await this.startDialer(more);
  }

  async startListener(more: Partial<EndpointOptions> = {}): Promise<void> {
    const options = await this.#options("listener", { ...more, listen: this.address });
    [this.address] = await this.listener.tell({ do: "start", options });
  }

  async startDialer(more: Partial<EndpointOptions> = {}): Promise<void> {
    const peers = [{ nodeId: "listener", address: this.address }];
    const options = await this.#options("dialer", { ...more, peers });
    await this.dialer.tell({ do: "start", options });
    await this.dialer.until({ do: "peer", nodeId: "listener" }, active);
    await this.listener.until({ do: "peer", nodeId: "dialer" }, active);
  }

  /** Both directions carry messages again. */
  async talks(): Promise<void> {
    const both = [[this.dialer, this.listener, "dialer", "listener"], [
      this.listener,
      this.dialer,
      "listener",
      "dialer",
    ]] as const;
    for (const [from, to, fromId, toId] of both) {
      const before = (await to.tell({ do: "received" }))[fromId]?.count ?? 0;
      await from.tell({ do: "send", nodeId: toId, count: 100, size: 500 });
      await to.until<Received>({ do: "received" }, (r) => r[fromId]?.count === before + 100);
    }
  }

  async close(): Promise<void> {
    for (const actor of [this.dialer, this.listener]) actor.kill("SIGCONT");
    await Promise.all([this.dialer.close(), this.listener.close()]);
  }

  async #options(nodeId: string, more: Partial<EndpointOptions>): Promise<EndpointOptions> {
    const tls = {
      ...await this.#ca.issue(nodeId),
      ca: this.#ca.ca,
      requireClientAuth: true,
      nodeIdVerification: "CommonName",
    } as const;
    return { nodeId, tls, ...more };
  }
}

async function inPair(runtimes: [RuntimeName, RuntimeName], test: (pair: Pair) => Promise<void>) {
  const pair = new Pair(await TestCa.create(), ...runtimes);
  try {
    await test(pair);
  } finally {
    await pair.close();
  }
}

describe("25, 35. kill -9", { skip: !mayRun() }, () => {
  for (const runtimes of PAIRS) {
    const [dialer, listener] = runtimes;

    it(`the ${listener} listener comes back: the ${dialer} dialer finds it by itself`, () =>
      inPair(runtimes, async (pair) => {
        await pair.start();
        await pair.talks();
        pair.listener.kill("SIGKILL");
        await pair.listener.exited;
        await pair.dialer.until({ do: "peer", nodeId: "listener" }, notActive);
        // The system of a process that is killed may send FIN, which is no end in order.
        const events: { type: string; code?: string }[] = await pair.dialer.tell({ do: "events" });
        const downs = events.filter(({ type }) => type === "peerdown");
        assert.deepEqual(downs.map(({ code }) => code), ["ConnectionClosed"]);
        pair.listener = new Actor(listener);
        await pair.startListener();
        await pair.dialer.until({ do: "peer", nodeId: "listener" }, active, 5_000);
        await pair.listener.until({ do: "peer", nodeId: "dialer" }, active, 5_000);
        await pair.talks();
        const { reconnections } = await pair.dialer.tell({ do: "stats" });
        assert.equal(reconnections, 1);
      }));

    it(`the ${dialer} dialer comes back: the ${listener} listener lets it in at once`, () =>
      inPair(runtimes, async (pair) => {
        await pair.start();
        await pair.talks();
        pair.dialer.kill("SIGKILL");
        await pair.dialer.exited;
        pair.dialer = new Actor(dialer);
        await pair.startDialer();
        await pair.talks();
      }));
  }
});

describe("34. a process that is stopped", { skip: !mayRun() }, () => {
  for (const runtimes of PAIRS) {
    for (const stopped of ["listener", "dialer"] as const) {
      const other = stopped === "listener" ? "dialer" : "listener";
      const name = `${runtimes[stopped === "dialer" ? 0 : 1]} ${stopped}`;
      it(`the ${name} is noticed within twice the interval, and found again`, () =>
        inPair(runtimes, async (pair) => {
          await pair.start({ keepaliveIntervalSecs: INTERVAL_SECS });
          await pair.talks();
          pair[stopped].kill("SIGSTOP");
          const stoppedAt = performance.now();
          await pair[other].until({ do: "peer", nodeId: stopped }, notActive);
          const noticedMs = performance.now() - stoppedAt;
          const limitMs = 2_000 * INTERVAL_SECS + MARGIN_MS;
          assert.ok(noticedMs < limitMs, `noticed after ${noticedMs} ms`);
          pair[stopped].kill("SIGCONT");
          await pair[other].until({ do: "peer", nodeId: stopped }, active, 10_000);
          await pair[stopped].until({ do: "peer", nodeId: other }, active, 10_000);
          await pair.talks();
        }));
    }
  }
});
