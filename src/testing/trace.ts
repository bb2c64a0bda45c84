/**
 * What happened in a run, as one number; and as text for who wants to read it.
 *
 * @module
 */

/** Two hashes at once, of 32 bits each: FNV-1a, and the same with another start and prime. */
const STARTS = [0x811c9dc5, 0x9e3779b9] as const;
const PRIMES = [0x01000193, 0x85ebca6b] as const;

/** A log of events that is hashed as it grows, so that two runs can be compared. */
export class Trace {
  readonly #now: () => number;
  readonly #onEvent: ((line: string) => void) | undefined;
  #first: number = STARTS[0];
  #second: number = STARTS[1];
  #count = 0;

  /**
   * Begins without events.
   *
   * @param now The virtual clock.
   * @param onEvent Gets every event as a line.
   */
  constructor(now: () => number, onEvent?: (line: string) => void) {
    this.#now = now;
    this.#onEvent = onEvent;
  }

  /** Equal for two runs in which the same things happened at the same times: 16 hex digits. */
  get digest(): string {
    return [this.#first, this.#second]
      .map((hash) => (hash >>> 0).toString(16).padStart(8, "0")).join("");
  }

  /** Events so far. */
  get count(): number {
    return this.#count;
  }

  /** Adds an event; those of an application belong here as well. */
  record(what: string, ...details: (number | string)[]): void {
    this.#count++;
    const now = this.#now();
    this.#text(what);
    this.#number(now);
    for (const detail of details) {
      if (typeof detail === "number") this.#number(detail);
      else this.#text(detail);
    }
    this.#onEvent?.(`${now.toFixed(3)} ${what} ${details.join(" ")}`.trimEnd());
  }

  #number(value: number): void {
    // Times have fractions where jitter was drawn.
    this.#mix(value | 0);
    this.#mix((value % 1) * 0x7fffffff);
  }

  #text(text: string): void {
    for (let i = 0; i < text.length; i++) this.#mix(text.charCodeAt(i));
    this.#mix(-text.length);
  }

  #mix(value: number): void {
    this.#first = Math.imul(this.#first ^ value, PRIMES[0]);
    this.#second = Math.imul(this.#second ^ value, PRIMES[1]);
    this.#second ^= this.#second >>> 13;
  }
}
