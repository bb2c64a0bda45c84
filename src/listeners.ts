/**
 * The addresses an endpoint accepts connections on, and how many it accepts.
 *
 * @module
 */

import { TransportError } from "./errors.ts";
import type { ResolvedOptions } from "./options.ts";
import { ConnectionLimits } from "./peer/connection_limits.ts";
import type { Link, LinkTls, Listener, Transport } from "./transport/transport.ts";

/**
 * Descriptors kept back for files, dials, and connections that are being turned away. Deno's event
 * loop accepts up to 128 connections before it runs any code of ours, and a `node:net` server of
 * its that once finds no descriptor left never accepts again.
 */
const RESERVED_DESCRIPTORS = 192;

/**
 * Where the limit can't be read it is taken for the usual one, unless `maxConnections` says that more
 * is meant: running into it ends the whole process on Deno.
 */
const USUAL_DESCRIPTOR_LIMIT = 1024;

/** Transports of ours that have no `reusePort`; others say so themselves. */
const UNSHARED: ReadonlySet<string> = new Set(["quic", "wt", "udp", "memory"]);

/** What listeners tell. */
export interface ListenersHost {
  transport(address: string): Transport;
  onLink(link: Link): void;
  onError(error: TransportError, remoteHost: string): void;
}

/** All listeners of an endpoint. */
export class Listeners {
  /** What is admitted and what was refused. */
  readonly limits: ConnectionLimits;
  /** What should be said about the limits; undefined where nothing. */
  readonly notice: string | undefined;
  readonly #options: ResolvedOptions;
  #listeners: Listener[] = [];

  /** `descriptorLimit` is how many descriptors the process may open, where that is known. */
  constructor(options: ResolvedOptions, descriptorLimit: number | undefined) {
    this.#options = options;
    const { maxConnections, maxConnectionsPerHost } = options;
    const most = Math.min(maxConnections, affordable(options, descriptorLimit));
    this.limits = new ConnectionLimits(most, maxConnectionsPerHost);
    if (most < maxConnections && descriptorLimit !== undefined) {
      this.notice = `maxConnections is lowered from ${maxConnections} to ${most}: ` +
        `the process may open ${descriptorLimit} descriptors`;
    }
  }

  /** The bound addresses with their real ports. */
  get addresses(): string[] {
    return this.#listeners.map((listener) => listener.address);
  }

  /** Opens all addresses, or none: where one fails the others are closed again. */
  async open(tls: LinkTls | undefined, host: ListenersHost): Promise<void> {
    const { listen, keepalive, keepaliveIntervalSecs, connectTimeoutMs } = this.#options;
    const { unixMode, reusePort } = this.#options;
    try {
      for (const address of listen) {
        const transport = host.transport(address);
        if (reusePort) checkShared(transport, address);
        // Datagrams are no links.
        if (transport.bind !== undefined) continue;
        this.#listeners.push(
          await transport.listen(address, {
            unixMode,
            reusePort,
            tls,
            keepaliveSecs: keepalive ? keepaliveIntervalSecs : undefined,
            handshakeTimeoutMs: connectTimeoutMs,
            admit: (remoteHost) => this.limits.admit(remoteHost),
            onLink: (link) => host.onLink(link),
            onError: (error, remoteHost) => host.onError(error, remoteHost),
          }),
        );
      }
    } catch (error) {
      await this.close();
      throw error;
    }
  }

  /** Stops accepting; resolves when the addresses are free again. */
  async close(): Promise<void> {
    const listeners = this.#listeners;
    this.#listeners = [];
    await Promise.all(listeners.map((listener) => listener.close()));
  }
}

/** A port that only we take must not pass for one that is shared. */
function checkShared({ scheme }: Transport, address: string): void {
  if (!UNSHARED.has(scheme)) return;
  const text = `Cannot share ${address}: ${scheme} has one listener at each address`;
  throw new TransportError("UnsupportedProtocol", text, { recovery: "leave out reusePort" });
}

/** Running out of descriptors hurts the whole process (docs/architecture.md): stay below. */
function affordable(options: ResolvedOptions, known: number | undefined): number {
  if (options.listen.length === 0) return Infinity;
  if (known === undefined && options.maxConnections > USUAL_DESCRIPTOR_LIMIT) return Infinity;
  const limit = known ?? USUAL_DESCRIPTOR_LIMIT;
  return Math.max(1, limit - RESERVED_DESCRIPTORS, Math.floor(limit / 4));
}
