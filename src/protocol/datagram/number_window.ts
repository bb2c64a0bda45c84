/**
 * Which numbers were taken, so that none is taken twice.
 *
 * @module
 */

/** What became of a number. */
export type Taken = "new" | "taken" | "too-old";

/**
 * A window over numbers that come in any order, as in IPsec (RFC 6479): what is higher than all
 * before moves it, what lies less than its width behind is taken once, what lies further behind
 * counts as taken.
 */
export class NumberWindow {
  readonly #width: number;
  readonly #bits: Uint32Array;
  #highest = 0;

  /**
   * Makes an empty window.
   *
   * @param width How many numbers are remembered: a multiple of 32.
   */
  constructor(width: number) {
    if (!(Number.isInteger(width / 32) && width >= 32)) {
      throw new RangeError(
        `Cannot make a window: its width must be a multiple of 32, got ${width}`,
      );
    }
    this.#width = width;
    this.#bits = new Uint32Array(width / 32);
  }

  /** The highest number that was taken; 0 where none was. */
  get highest(): number {
    return this.#highest;
  }

  /** What `take` would do with a number. Changes nothing. */
  check(number: number): Taken {
    if (number > this.#highest) return "new";
    if (number <= this.#highest - this.#width) return "too-old";
    return this.#has(number) ? "taken" : "new";
  }

  /** Takes a number: a safe integer of at least 1. */
  take(number: number): Taken {
    const taken = this.check(number);
    if (taken !== "new") return taken;
    this.#advance(number);
    const bit = number % this.#width;
    this.#bits[bit >>> 5]! |= 1 << (bit & 31);
    return "new";
  }

  #has(number: number): boolean {
    const bit = number % this.#width;
    return (this.#bits[bit >>> 5]! & (1 << (bit & 31))) !== 0;
  }

  /** Moves the window up to a number, and forgets what stood in the places that it takes. */
  #advance(number: number): void {
    if (number <= this.#highest) return;
    if (number - this.#highest >= this.#width) this.#bits.fill(0);
    else {
      for (let passed = this.#highest + 1; passed <= number; passed++) {
        const bit = passed % this.#width;
        this.#bits[bit >>> 5]! &= ~(1 << (bit & 31));
      }
    }
    this.#highest = number;
  }
}
