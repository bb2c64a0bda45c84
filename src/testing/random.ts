/**
 * Numbers that look random and that a seed decides: the same on every runtime.
 *
 * @module
 */

/** Draws of a stream that are thrown away: near seeds begin alike. */
const WARM_UP = 4;

/** A stream of numbers in [0, 1) that a seed decides: mulberry32. */
export function seededRandom(seed: number): () => number {
  let state = seed | 0;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

/**
 * A stream of random numbers of its own: what one part of a simulation draws does not move what
 * another part draws.
 *
 * @example
 * ```ts
 * import { Random } from "@hawser/hawser/testing";
 *
 * const random = new Random(42);
 * const pauseMs = random.between(10, 200);
 * if (random.chance(0.1)) console.log(`one time in ten, after ${pauseMs} ms`);
 * ```
 */
export class Random {
  readonly #next: () => number;

  /**
   * Begins a stream.
   *
   * @param seed Any integer.
   * @param stream Tells streams of the same seed apart; a text counts by its characters.
   */
  constructor(seed: number, stream: number | string = 0) {
    const number = typeof stream === "number" ? stream : hashText(stream);
    this.#next = seededRandom(
      Math.imul(seed + 1, 0x9e3779b1) ^ Math.imul(number + 1, 0x85ebca6b),
    );
    for (let i = 0; i < WARM_UP; i++) this.#next();
  }

  /** A number in [0, 1). */
  next(): number {
    return this.#next();
  }

  /** An integer in [from, to]. */
  between(from: number, to: number): number {
    return from + Math.floor(this.#next() * (to - from + 1));
  }

  /** True with this probability. */
  chance(probability: number): boolean {
    return this.#next() < probability;
  }

  /** One of several. */
  pick<T>(choices: readonly T[]): T {
    return choices[Math.floor(this.#next() * choices.length)]!;
  }

  /** So many bytes. */
  bytes(length: number): Uint8Array {
    return Uint8Array.from({ length }, () => Math.floor(this.#next() * 256));
  }
}

/** FNV-1a over the characters. */
function hashText(text: string): number {
  let hash = 0x811c9dc5;
  for (let i = 0; i < text.length; i++) hash = Math.imul(hash ^ text.charCodeAt(i), 0x01000193);
  return hash;
}
