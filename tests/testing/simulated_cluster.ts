/** Endpoints in a simulated network, as a user of `@hawser/hawser/testing` makes them. */

import { Endpoint, type EndpointConfig } from "../../mod.ts";
import { SimulatedNetwork, type SimulatedNetworkOptions } from "../../testing.ts";

/** An endpoint on the process that its host runs now. */
export function endpointOn(
  sim: SimulatedNetwork,
  nodeId: string,
  options: Partial<EndpointConfig> = {},
): Endpoint {
  const { address, environment, transport } = sim.host(nodeId);
  return new Endpoint({
    nodeId,
    listen: address,
    // Development without its warning.
    security: "legacy",
    environment,
    transports: [transport],
    ...options,
  });
}

/** A network with started endpoints, each of which dials those before it. */
export async function cluster(
  names: readonly string[],
  network: SimulatedNetworkOptions = {},
  options: Partial<EndpointConfig> = {},
): Promise<{ sim: SimulatedNetwork; nodes: Endpoint[] }> {
  const sim = new SimulatedNetwork(network);
  const nodes = names.map((nodeId, index) => {
    const peers = names.slice(0, index).map((peer) => ({
      nodeId: peer,
      address: `memory://${peer}`,
    }));
    return endpointOn(sim, nodeId, { peers, ...options });
  });
  for (const node of nodes) await node.start();
  await sim.runUntil(() => nodes.every((node) => connected(node).length === names.length - 1));
  return { sim, nodes };
}

/** The peers that a node is connected to. */
export function connected(node: Endpoint): string[] {
  return node.peers().filter(({ state }) => state === "active").map(({ nodeId }) => nodeId);
}

/** Closes endpoints; afterwards nothing may be left of them. */
export async function closeAll(sim: SimulatedNetwork, nodes: readonly Endpoint[]): Promise<void> {
  await sim.runUntil(Promise.all(nodes.map((node) => node.close({ drainMs: 0 }))));
  await sim.run(1_000);
}

/** What a run of {@linkcode story} came to. */
export interface Story {
  readonly digest: string;
  readonly events: number;
  readonly received: number;
  readonly virtualMs: number;
}

/** Five nodes that talk to each other without pause, through faults of every kind, for so long. */
export async function story(seed: number, minutes: number): Promise<Story> {
  const names = ["a", "b", "c", "d", "e"];
  const { sim, nodes } = await cluster(names, {
    seed,
    latencyMs: [1, 5],
    jitterMs: 1,
    loss: 0.01,
    reorder: 0.02,
    fragmentation: 0.1,
  });
  let received = 0;
  let over = false;
  for (const node of nodes) {
    node.onMessage(({ from, payload }) => {
      received++;
      sim.trace.record("message", from, node.nodeId, payload.length);
    });
    const { environment } = sim.host(node.nodeId);
    const talk = () => {
      if (over) return;
      const payload = environment.randomBytes(100);
      for (const name of names) if (name !== node.nodeId) node.trySend(name, payload);
      environment.setTimer(100, talk);
    };
    talk();
  }
  for (let minute = 0; minute < minutes; minute++) {
    sim.partition("a", ["b", "c"]);
    sim.cut("d", "e");
    await sim.run(10_000);
    sim.heal();
    sim.halfOpen("b", "c");
    sim.host("e").pause();
    await sim.run(2_000);
    sim.host("e").resume();
    await sim.run(48_000);
  }
  const { digest, count } = sim.trace;
  const virtualMs = sim.now();
  over = true;
  await closeAll(sim, nodes);
  return { digest, events: count, received, virtualMs };
}
