/**
 * Round-trip times of a connection.
 *
 * @module
 */

/** Samples kept for the percentiles. */
const SAMPLES = 128;
/** Below this number there is no room for more than there are. */
const FEW_SAMPLES = 16;
const NO_SAMPLES: readonly number[] = [];
/** Weight of a new sample in the smoothed time (RFC 6298: 1/8). */
const ALPHA = 1 / 8;

/** What is known of the round trips of a connection or a peer, milliseconds. */
export interface RoundTrip {
  /** The last one. */
  readonly last: number;
  /** Smoothed, as TCP does it (RFC 6298). */
  readonly smoothed: number;
  /** The least since the connection was made. */
  readonly min: number;
  /** The median of the last 128. */
  readonly p50: number;
  /** The 99th percentile of the last 128. */
  readonly p99: number;
  /** How many were measured. */
  readonly count: number;
}

/** Collects them. */
export class RoundTrips {
  #samples: readonly number[] = NO_SAMPLES;
  /** Where the next sample goes. */
  #next = 0;
  #last = 0;
  #count = 0;
  #smoothed = 0;
  #min = Infinity;

  /** The least so far; Infinity without any. */
  get min(): number {
    return this.#min;
  }

  /** Takes a round trip of so many milliseconds. */
  add(ms: number): void {
    const sample = Math.max(0, ms);
    this.#last = sample;
    this.#keep(sample);
    this.#smoothed += this.#count === 0 ? sample : (sample - this.#smoothed) * ALPHA;
    this.#min = Math.min(this.#min, sample);
    this.#count++;
  }

  #keep(sample: number): void {
    const samples = this.#samples;
    // Most connections measure few, and an array makes room for many at once.
    if (samples.length < FEW_SAMPLES) this.#samples = withOne(samples, sample);
    else (samples as number[])[this.#next] = sample;
    this.#next = (this.#next + 1) % SAMPLES;
  }

  /** Takes in what another connection has measured: its last samples, and how many there were. */
  absorb(other: RoundTrips): void {
    const { length } = other.#samples;
    if (length === 0) return;
    // From the oldest on: what comes last stays longest.
    const oldest = length < SAMPLES ? 0 : other.#next;
    for (let i = 0; i < length; i++) this.add(other.#samples[(oldest + i) % length]!);
    this.#count += other.#count - length;
    this.#min = Math.min(this.#min, other.#min);
  }

  /** The figures; undefined while nothing was measured. */
  summary(): RoundTrip | undefined {
    if (this.#count === 0) return undefined;
    const sorted = this.#samples.toSorted((a, b) => a - b);
    const at = (share: number) => sorted[Math.ceil(share * sorted.length) - 1]!;
    return {
      last: this.#last,
      smoothed: this.#smoothed,
      min: this.#min,
      p50: at(0.5),
      p99: at(0.99),
      count: this.#count,
    };
  }
}

function withOne(samples: readonly number[], sample: number): number[] {
  return samples.length === 0 ? [sample] : samples.concat(sample);
}
