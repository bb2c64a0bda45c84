/**
 * A counter that five nodes replicate, on a simulated network: it goes through a partition, and is
 * the same everywhere once that is healed. Half a minute of the cluster takes some milliseconds, and
 * the same seed does the same again.
 *
 * Run it with `deno run -A examples/replicated_counter.ts [seed]`, or with `bun` or `node`. In a
 * program of your own the imports are `@hawser/hawser` and `@hawser/hawser/testing`.
 *
 * @module
 */

import process from "node:process";
import { Endpoint, json } from "../mod.ts";
import { SimulatedNetwork } from "../testing.ts";

/** How often each node has counted, as far as is known: merging takes the higher of two. */
type Counts = Record<string, number>;

/** One replica: it counts at home and gossips what it knows. */
class Replica {
  readonly endpoint: Endpoint<Counts>;
  readonly #counts: Counts = {};
  readonly #sleep: (ms: number) => Promise<void>;

  constructor(sim: SimulatedNetwork, nodeId: string, peers: string[]) {
    const host = sim.host(nodeId);
    this.#sleep = (ms) => host.sleep(ms);
    this.endpoint = new Endpoint<Counts>({
      nodeId,
      codec: json<Counts>(),
      listen: host.address,
      peers: peers.map((peer) => ({ nodeId: peer, address: sim.host(peer).address })),
      // What the endpoint knows of time, chance and the network is the simulation's.
      environment: host.environment,
      transports: [host.transport],
      security: "legacy",
    });
    this.endpoint.onMessage(({ payload }) => this.#merge(payload));
  }

  get total(): number {
    return Object.values(this.#counts).reduce((sum, count) => sum + count, 0);
  }

  count(): void {
    const { nodeId } = this.endpoint;
    this.#counts[nodeId] = (this.#counts[nodeId] ?? 0) + 1;
  }

  /** Tells the others five times a second, for as long as its process runs. */
  async gossip(): Promise<void> {
    while (true) {
      await this.#sleep(200);
      for (const { nodeId } of this.endpoint.peers()) this.endpoint.trySend(nodeId, this.#counts);
    }
  }

  #merge(counts: Counts): void {
    for (const [nodeId, count] of Object.entries(counts)) {
      this.#counts[nodeId] = Math.max(this.#counts[nodeId] ?? 0, count);
    }
  }
}

const seed = Number(process.argv[2] ?? 42);
const sim = new SimulatedNetwork({ seed, latencyMs: [1, 10], jitterMs: 2, loss: 0.01 });
const names = ["ada", "bob", "cleo", "dan", "eve"];
const replicas = names.map((name, i) => new Replica(sim, name, names.slice(0, i)));
for (const { endpoint } of replicas) await endpoint.start();
for (const replica of replicas) replica.gossip();

const totals = () => replicas.map(({ total }) => total);
const show = (what: string) =>
  console.log(`${(sim.now() / 1000).toFixed(1).padStart(5)} s  ${totals().join(" ")}  ${what}`);
/** Every node counts ten times a second. */
async function countFor(seconds: number): Promise<void> {
  for (let i = 0; i < seconds * 10; i++) {
    for (const replica of replicas) replica.count();
    await sim.run(100);
  }
}

console.log("       what ada, bob, cleo, dan and eve see");
await countFor(10);
show("all of them count, and tell each other");

sim.partition(["ada", "bob"], ["cleo", "dan", "eve"]);
await countFor(20);
show("the network is split in two, and they go on");
if (new Set(totals()).size < 2) throw new Error("the partition was not noticed");

sim.heal();
await sim.runUntil(() => new Set(totals()).size === 1, { withinMs: 30_000 });
show("it is healed: nothing was lost, nothing was counted twice");
const expected = (10 + 20) * 10 * names.length;
if (totals().some((total) => total !== expected)) throw new Error(`expected ${expected}`);

console.log(`seed ${seed}, ${sim.trace.count} events, digest ${sim.trace.digest}`);
await sim.runUntil(Promise.all(replicas.map(({ endpoint }) => endpoint.close())));
