/**
 * Tools for tests: a simulated network in virtual time for a cluster of one's own, and the contract
 * that every transport keeps.
 *
 * @example
 * ```ts
 * import { Endpoint } from "@hawser/hawser";
 * import { SimulatedNetwork } from "@hawser/hawser/testing";
 *
 * const sim = new SimulatedNetwork({ seed: 7, latencyMs: [1, 20] });
 * const { address, environment, transport } = sim.host("a");
 * const a = new Endpoint({
 *   nodeId: "a",
 *   listen: address,
 *   security: "development",
 *   environment,
 *   transports: [transport],
 * });
 * await a.start();
 * await sim.run(60_000);
 * await sim.runUntil(a.close());
 * console.log(sim.trace.digest);
 * ```
 *
 * @module
 */

export { type ErrorCode, TransportError, type TransportErrorOptions } from "./src/errors.ts";
export type { Environment } from "./src/runtime/environment.ts";
export type { LinkConditions } from "./src/testing/conditions.ts";
export { type ContractSubject, type ContractTest, linkContract } from "./src/testing/contract.ts";
export { type CrashOptions, SimulatedHost } from "./src/testing/host.ts";
export type { ConnectionEnd } from "./src/testing/link.ts";
export { Random } from "./src/testing/random.ts";
export {
  type Hosts,
  type RunUntilOptions,
  SimulatedNetwork,
  type SimulatedNetworkOptions,
} from "./src/testing/simulated_network.ts";
export { Trace } from "./src/testing/trace.ts";
export type {
  BindOptions,
  DatagramRoute,
  DatagramSocket,
  DialOptions,
  Link,
  LinkEvents,
  LinkInfo,
  LinkTls,
  Listener,
  ListenOptions,
  Transport,
  TransportCapabilities,
} from "./src/transport/transport.ts";
