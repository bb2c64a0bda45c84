/** Numbers that a seed decides, in the shapes a plan needs. */

import { seededRandom } from "../support/memory_network.ts";

/** A stream of its own: what one part of a run draws does not move what another part draws. */
export class Random {
  /** A number in [0, 1). */
  readonly next: () => number;

  /** `stream` tells streams of the same seed apart. */
  constructor(seed: number, stream: number) {
    this.next = seededRandom(Math.imul(seed + 1, 0x9e3779b1) ^ Math.imul(stream + 1, 0x85ebca6b));
    for (let i = 0; i < 4; i++) this.next();
  }

  /** An integer in [from, to]. */
  between(from: number, to: number): number {
    return from + Math.floor(this.next() * (to - from + 1));
  }

  /** An integer in [from, to], where each order of magnitude is as likely as the next. */
  spread(from: number, to: number): number {
    return Math.min(to, Math.floor(from * ((to + 1) / from) ** this.next()));
  }

  /** True with this probability. */
  chance(probability: number): boolean {
    return this.next() < probability;
  }

  /** One of several. */
  pick<T>(choices: readonly T[]): T {
    return choices[Math.floor(this.next() * choices.length)]!;
  }
}
