/** What happened in a run, as one number; and as text for who wants to read it. */

/** A log that is hashed as it grows (FNV-1a). */
export class EventLog {
  readonly #now: () => number;
  readonly #write: ((line: string) => void) | undefined;
  #hash = 0x811c9dc5;
  #count = 0;

  constructor(now: () => number, write: ((line: string) => void) | undefined) {
    this.#now = now;
    this.#write = write;
  }

  /** Equal for two runs in which the same things happened at the same times. */
  get hash(): string {
    return (this.#hash >>> 0).toString(16).padStart(8, "0");
  }

  /** Events so far. */
  get count(): number {
    return this.#count;
  }

  add(what: string, ...details: (number | string)[]): void {
    this.#count++;
    const now = this.#now();
    this.#text(what);
    this.#number(now);
    for (const detail of details) {
      if (typeof detail === "number") this.#number(detail);
      else this.#text(detail);
    }
    this.#write?.(`${now.toFixed(3)} ${what} ${details.join(" ")}`);
  }

  #number(value: number): void {
    // Times have fractions where jitter was drawn.
    this.#hash = Math.imul(this.#hash ^ (value | 0), 0x01000193);
    this.#hash = Math.imul(this.#hash ^ ((value % 1) * 0x7fffffff), 0x01000193);
  }

  #text(text: string): void {
    for (let i = 0; i < text.length; i++) {
      this.#hash = Math.imul(this.#hash ^ text.charCodeAt(i), 0x01000193);
    }
  }
}
