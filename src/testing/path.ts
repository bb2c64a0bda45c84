/**
 * The way from one host to another, in one direction: what all connections on it share.
 *
 * @module
 */

import { type Conditions, latencyRange } from "./conditions.ts";
import type { Random } from "./random.ts";

/** What TCP waits at least before it sends again (Linux), and at most (RFC 6298, section 2.5). */
const RETRANSMIT_MS = 200;
const MAX_RETRANSMIT_MS = 60_000;
/** What it waits before it asks again for a connection (RFC 6298, section 2.1). */
const SYN_RETRANSMIT_MS = 1_000;
/** Linux gives up after so many. */
const MAX_RETRANSMITS = 15;

/** Datagrams take what is in the middle of the latencies of connections. */
const DATAGRAM_PLACE = 0.5;

/** One direction between two hosts. */
export class Path {
  /** What it is like now. */
  conditions: Conditions;
  /** Nothing gets through, and nobody is told. */
  blocked = false;
  /** When the last byte of what has been sent is out. */
  #freeAt = 0;
  readonly #random: Random;

  constructor(conditions: Conditions, random: Random) {
    this.conditions = conditions;
    this.#random = random;
  }

  /** The latency of a connection that has drawn `place`, from 0 to 1. */
  latencyMs(place: number): number {
    const [least, most] = latencyRange(this.conditions);
    return least + place * (most - least);
  }

  /** When a packet of a stream is there that is ready now. */
  arrival(now: number, bytes: number, latencyMs: number): number {
    const out = this.#departure(now, bytes);
    return toMicroseconds(out + latencyMs + this.#delays(latencyMs));
  }

  /** When a datagram that is ready now is out, and when it arrives: not at all, once or twice. */
  datagram(now: number, bytes: number): { outAt: number; arrivals: number[] } {
    const outAt = this.#departure(now, bytes);
    const { loss, duplicate } = this.conditions;
    if (loss > 0 && this.#random.chance(loss)) return { outAt, arrivals: [] };
    const copies = duplicate > 0 && this.#random.chance(duplicate) ? 2 : 1;
    const latencyMs = this.latencyMs(DATAGRAM_PLACE);
    const arrival = () => toMicroseconds(outAt + latencyMs + this.#detour(latencyMs));
    return { outAt, arrivals: Array.from({ length: copies }, arrival) };
  }

  /** What losses add to the time that a dial takes. */
  dialDelayMs(): number {
    return this.#losses(SYN_RETRANSMIT_MS);
  }

  /** How much of a chunk of this length goes into one packet. */
  packetBytes(length: number): number {
    const { fragmentation } = this.conditions;
    if (fragmentation === 0 || !this.#random.chance(fragmentation)) return length;
    const most = this.#random.chance(0.25) ? Math.min(16, length) : length;
    return this.#random.between(1, most);
  }

  /** Whether packets that wait are read as one. */
  merges(): boolean {
    const { fragmentation } = this.conditions;
    return fragmentation > 0 && this.#random.chance(fragmentation);
  }

  #departure(now: number, bytes: number): number {
    const { bandwidthBytesPerSecond } = this.conditions;
    if (bandwidthBytesPerSecond === Infinity) return now;
    this.#freeAt = Math.max(now, this.#freeAt) + bytes * 1000 / bandwidthBytesPerSecond;
    return this.#freeAt;
  }

  #delays(latencyMs: number): number {
    return this.#losses(Math.max(RETRANSMIT_MS, 2 * latencyMs)) + this.#detour(latencyMs);
  }

  #detour(latencyMs: number): number {
    const { jitterMs, reorder } = this.conditions;
    let delayMs = 0;
    if (jitterMs > 0) delayMs += this.#random.next() * jitterMs;
    if (reorder > 0 && this.#random.chance(reorder)) {
      delayMs += this.#random.next() * 2 * latencyMs;
    }
    return delayMs;
  }

  /** What passes until a packet gets through: twice as long after each loss. */
  #losses(firstMs: number): number {
    const { loss } = this.conditions;
    let delayMs = 0;
    let waitMs = firstMs;
    for (let i = 0; loss > 0 && i < MAX_RETRANSMITS && this.#random.chance(loss); i++) {
      delayMs += waitMs;
      waitMs = Math.min(2 * waitMs, Math.max(firstMs, MAX_RETRANSMIT_MS));
    }
    return delayMs;
  }
}

/** Whole microseconds, so that sums come out the same in whatever order they are made. */
function toMicroseconds(ms: number): number {
  return Math.round(ms * 1000) / 1000;
}
