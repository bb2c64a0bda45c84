/**
 * The table that says which node takes what is for a recipient.
 *
 * @module
 */

import { ConfigError } from "./errors.ts";
import { isName, joinEntry, NAME_DEMAND, OBJECT_SOURCE } from "./option_reader.ts";
import type { PeerAddress } from "./options.ts";
import { MAX_ROUTES, resolvePeer } from "./resolve_addresses.ts";
import { showValue } from "./show_value.ts";

/** What a {@linkcode RoutingTable} starts with. */
export interface RoutingTableOptions {
  /** Routes by recipient. */
  routes?: Readonly<Record<string, PeerAddress>>;
  /** Where everything else goes. */
  defaultRoute?: PeerAddress | undefined;
  /**
   * How many routes it may hold.
   * @default {65536}
   */
  maxRoutes?: number;
}

/**
 * Routes by recipient, with a default, that may be changed at any time. A recipient is 1 to 255
 * characters of printable ASCII without spaces: a node id, a DID. Routes are frozen copies, their
 * addresses with a scheme.
 *
 * @example
 * ```ts ignore
 * const routing = new RoutingTable({ defaultRoute: { nodeId: "gateway", address: "10.0.0.1:9100" } });
 * routing.set("did:key:z6MkhaXg", { nodeId: "node2", address: "10.0.1.2:9100" });
 * routing.resolve("did:key:z6MkhaXg"); // { nodeId: "node2", address: "tcp://10.0.1.2:9100" }
 * routing.resolve("did:key:z6MkpTHR")?.nodeId; // gateway
 * ```
 */
export class RoutingTable {
  readonly #routes = new Map<string, Readonly<PeerAddress>>();
  readonly #maxRoutes: number;
  #default: Readonly<PeerAddress> | undefined;

  /**
   * Makes a table with the given routes.
   *
   * @throws {ConfigError} As {@linkcode RoutingTable.set} does.
   * @throws {RangeError} If `maxRoutes` is no positive integer.
   */
  constructor({ routes = {}, defaultRoute, maxRoutes = MAX_ROUTES }: RoutingTableOptions = {}) {
    if (!(Number.isSafeInteger(maxRoutes) && maxRoutes >= 1)) {
      const demand = `maxRoutes must be an integer above 0, got ${String(maxRoutes)}`;
      throw new RangeError(`Cannot make a routing table: ${demand}`);
    }
    this.#maxRoutes = maxRoutes;
    for (const [recipient, route] of Object.entries(routes)) this.set(recipient, route);
    this.defaultRoute = defaultRoute;
  }

  /** How many routes there are, the default aside. */
  get size(): number {
    return this.#routes.size;
  }

  /** Where what has no route of its own goes; undefined: nowhere. */
  get defaultRoute(): Readonly<PeerAddress> | undefined {
    return this.#default;
  }

  /**
   * Sets or, with undefined, removes the default.
   *
   * @throws {ConfigError} If its node id or its address is wrong.
   */
  set defaultRoute(route: PeerAddress | undefined) {
    this.#default = route === undefined
      ? undefined
      : resolvePeer(route, "defaultRoute", OBJECT_SOURCE);
  }

  /**
   * Adds a route, or replaces the one there is.
   *
   * @throws {ConfigError} If the recipient, the node id or the address is wrong, or the table is
   * full. The table is as before then.
   */
  set(recipient: string, route: PeerAddress): void {
    if (!isName(recipient)) {
      throw new ConfigError("routes", `each key ${NAME_DEMAND}, got ${showValue(recipient)}`);
    }
    const checked = resolvePeer(route, joinEntry("routes", recipient), OBJECT_SOURCE);
    if (this.#routes.size >= this.#maxRoutes && !this.#routes.has(recipient)) {
      throw new ConfigError("routes", `must have at most ${this.#maxRoutes} entries`);
    }
    this.#routes.set(recipient, checked);
  }

  /** Removes a route; false where there was none. */
  delete(recipient: string): boolean {
    return this.#routes.delete(recipient);
  }

  /** Removes all routes; the default stays. */
  clear(): void {
    this.#routes.clear();
  }

  /** Whether the recipient has a route of its own. */
  has(recipient: string): boolean {
    return this.#routes.has(recipient);
  }

  /** The recipient's own route, without regard to the default. */
  get(recipient: string): Readonly<PeerAddress> | undefined {
    return this.#routes.get(recipient);
  }

  /** The recipient's own route, or else the default; undefined where there is neither. */
  resolve(recipient: string): Readonly<PeerAddress> | undefined {
    return this.#routes.get(recipient) ?? this.#default;
  }

  /** The routes with their recipients, in the order in which they were added. */
  entries(): IterableIterator<[recipient: string, route: Readonly<PeerAddress>]> {
    return this.#routes.entries();
  }
}
