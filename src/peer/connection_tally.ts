/**
 * The connections of an endpoint by the protocol that carries them: counters, and the round trips
 * of those that are gone.
 *
 * @module
 */

import { RoundTrips } from "../protocol/v3/round_trips.ts";
import type { ConnectionMetrics, ProtocolMetrics } from "../stats.ts";

/** What is counted of a connection: that of a driver, or of a link over datagrams. */
export interface Tallied {
  /** What carries it. */
  readonly link: { readonly info: { readonly protocol: string } };
  /** Bytes given to it. */
  readonly bytesSent: number;
  /** Bytes that came from it. */
  readonly bytesReceived: number;
  /** Its round trips, where it measures them. */
  readonly channel: { readonly roundTrips: RoundTrips } | undefined;
  /** Whether it carried nothing for a while. */
  readonly idle: boolean;
  /** Whether it ends in order. */
  readonly retiring: boolean;
}

interface Count {
  established: number;
  failed: number;
  bytesSent: number;
  bytesReceived: number;
  readonly roundTrips: RoundTrips;
}

/** Schemes beyond this many share one entry: they come from configuration, but cost memory. */
const MAX_PROTOCOLS = 32;
const OTHERS = "other";

/** Counts connections. */
export class ConnectionTally {
  readonly #past = new Map<string, Count>();

  /** A handshake is complete. */
  established({ link }: Pick<Tallied, "link">): void {
    this.#of(link.info.protocol).established++;
  }

  /** An attempt to connect, or a handshake that a peer began, came to nothing. */
  failed(protocol: string): void {
    this.#of(protocol).failed++;
  }

  /** An established connection is gone. */
  ended({ link, bytesSent, bytesReceived, channel }: Tallied): void {
    const count = this.#of(link.info.protocol);
    count.bytesSent += bytesSent;
    count.bytesReceived += bytesReceived;
    if (channel !== undefined) count.roundTrips.absorb(channel.roundTrips);
  }

  /** What there was, and is in `live`. */
  metrics(live: Iterable<Tallied>): ConnectionMetrics {
    const all = new RoundTrips();
    const drivers = [...live];
    const protocols = new Set([
      ...this.#past.keys(),
      ...drivers.map(({ link }) => this.#name(link.info.protocol)),
    ]);
    const byProtocol: Record<string, ProtocolMetrics> = Object.create(null);
    const sum = { established: 0, failed: 0, bytesSent: 0, bytesReceived: 0 };
    for (const protocol of protocols) {
      const metrics = this.#metricsOf(
        protocol,
        drivers.filter(({ link }) => this.#name(link.info.protocol) === protocol),
        all,
      );
      byProtocol[protocol] = metrics;
      for (const key of ["established", "failed", "bytesSent", "bytesReceived"] as const) {
        sum[key] += metrics[key];
      }
    }
    return { ...sum, roundTrip: all.summary(), byProtocol };
  }

  #metricsOf(protocol: string, drivers: readonly Tallied[], all: RoundTrips): ProtocolMetrics {
    const past = this.#past.get(protocol);
    const roundTrips = new RoundTrips();
    if (past !== undefined) roundTrips.absorb(past.roundTrips);
    let { bytesSent, bytesReceived } = past ?? { bytesSent: 0, bytesReceived: 0 };
    for (const driver of drivers) {
      bytesSent += driver.bytesSent;
      bytesReceived += driver.bytesReceived;
      if (driver.channel !== undefined) roundTrips.absorb(driver.channel.roundTrips);
    }
    all.absorb(roundTrips);
    return {
      established: past?.established ?? 0,
      failed: past?.failed ?? 0,
      active: drivers.filter(({ idle, retiring }) => !idle && !retiring).length,
      idle: drivers.filter(({ idle, retiring }) => idle && !retiring).length,
      bytesSent,
      bytesReceived,
      roundTrip: roundTrips.summary(),
    };
  }

  #name(protocol: string): string {
    return this.#past.has(protocol) || this.#past.size < MAX_PROTOCOLS ? protocol : OTHERS;
  }

  #of(protocol: string): Count {
    const name = this.#name(protocol);
    let count = this.#past.get(name);
    if (count === undefined) {
      count = {
        established: 0,
        failed: 0,
        bytesSent: 0,
        bytesReceived: 0,
        roundTrips: new RoundTrips(),
      };
      this.#past.set(name, count);
    }
    return count;
  }
}
