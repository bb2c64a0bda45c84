/** Endpoints on the memory network. */

import { Endpoint, type EndpointConfig, type StateChangeDetail } from "../../mod.ts";
import { MemoryNetwork, VirtualEnvironment } from "./memory_network.ts";

export const bytes = (text: string): Uint8Array => new TextEncoder().encode(text);
export const text = (payload: Uint8Array): string => new TextDecoder().decode(payload);

/** A cluster in virtual time. */
export class Cluster {
  readonly environment: VirtualEnvironment;
  readonly network: MemoryNetwork;
  readonly endpoints = new Map<string, Endpoint>();

  constructor(
    options: { seed?: number; latencyMs?: number; spreadMs?: number; highWater?: number } = {},
  ) {
    this.environment = new VirtualEnvironment(options.seed);
    this.network = new MemoryNetwork(this.environment, options);
  }

  address(nodeId: string): string {
    return `memory://${nodeId}:1`;
  }

  /** Makes and starts an endpoint that listens. */
  async start(nodeId: string, options: Partial<EndpointConfig> = {}): Promise<Endpoint> {
    const endpoint = new Endpoint({
      nodeId,
      listen: this.address(nodeId),
      security: "legacy",
      environment: this.environment,
      transports: [this.network.transport(nodeId)],
      ...options,
    });
    await endpoint.start();
    this.endpoints.set(nodeId, endpoint);
    return endpoint;
  }

  /** Connects one endpoint to another by name. */
  async connect(from: Endpoint, to: string): Promise<void> {
    await this.environment.run(from.connect({ nodeId: to, address: this.address(to) }));
  }

  /** Waits until `pool` connections stand between two endpoints, on both sides. */
  async pooled(a: Endpoint, b: Endpoint, pool: number): Promise<void> {
    const count = (x: Endpoint, y: Endpoint) => {
      const stats = x.peer(y.nodeId) === undefined ? undefined : x.poolStats(y.nodeId);
      return stats !== undefined && stats.active === pool && stats.draining === 0 &&
        stats.connecting === 0;
    };
    await this.environment.until(() => count(a, b) && count(b, a));
  }

  /** Closes everything; afterwards no timer may be left. */
  async close(): Promise<void> {
    const all = [...this.endpoints.values()].map((endpoint) => endpoint.close({ drainMs: 0 }));
    await this.environment.run(Promise.all(all));
    await this.environment.advance(1);
  }
}

/** Runs a test in a cluster and closes it. */
export function inCluster(
  test: (cluster: Cluster) => Promise<void>,
  options: { seed?: number; latencyMs?: number; spreadMs?: number; highWater?: number } = {},
): () => Promise<void> {
  return async () => {
    const cluster = new Cluster(options);
    try {
      await test(cluster);
    } finally {
      await cluster.close();
    }
  };
}

/** Every message that waits in an inbox, as text. */
export function inbox(endpoint: Endpoint): string[] {
  const messages: string[] = [];
  for (let m = endpoint.tryReceive(); m !== undefined; m = endpoint.tryReceive()) {
    messages.push(text(m.payload));
  }
  return messages;
}

/** The state changes of an endpoint from now on, as "from>to". */
export function watchStates(endpoint: Endpoint): StateChangeDetail[] {
  const changes: StateChangeDetail[] = [];
  endpoint.addEventListener("statechange", (event) => changes.push(event.detail));
  return changes;
}
