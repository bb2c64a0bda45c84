/**
 * How many connections are accepted, in all and from one host, and how many of them may be
 * unauthenticated at one time.
 *
 * @module
 */

import type { RefusedStats } from "../stats.ts";

/** Accepted connections that have not completed their handshake; each has an absolute deadline. */
export const MAX_PENDING_HANDSHAKES = 256;

/** Counts accepted connections against the limits. */
export class ConnectionLimits {
  /** What was turned away. */
  readonly refused: RefusedStats = {
    maxConnections: 0,
    maxConnectionsPerHost: 0,
    pendingHandshakes: 0,
    requestsAndStreams: 0,
  };
  readonly #maxConnections: number;
  readonly #maxPerHost: number;
  readonly #perHost = new Map<string, number>();
  #total = 0;
  #established = 0;

  /** Both limits count connections. */
  constructor(maxConnections: number, maxPerHost: number) {
    this.#maxConnections = maxConnections;
    this.#maxPerHost = maxPerHost;
  }

  /** Lets a connection in and gives the function that lets it out, or undefined and a count. */
  admit(host: string): (() => void) | undefined {
    const fromHost = this.#perHost.get(host) ?? 0;
    if (this.#total >= this.#maxConnections) return this.#refuse("maxConnections");
    if (fromHost >= this.#maxPerHost) return this.#refuse("maxConnectionsPerHost");
    if (this.#total - this.#established >= MAX_PENDING_HANDSHAKES) {
      return this.#refuse("pendingHandshakes");
    }
    this.#total++;
    this.#perHost.set(host, fromHost + 1);
    let out = false;
    return () => {
      if (out) return;
      out = true;
      this.#total--;
      const left = (this.#perHost.get(host) ?? 1) - 1;
      if (left === 0) this.#perHost.delete(host);
      else this.#perHost.set(host, left);
    };
  }

  /** A connection has completed its handshake, or one that had is gone. */
  countEstablished(change: 1 | -1): void {
    this.#established += change;
  }

  #refuse(limit: keyof RefusedStats): undefined {
    this.refused[limit]++;
    return undefined;
  }
}
