/** Numbers that a seed decides, in the shapes a plan needs. */

import { Random as SeededRandom } from "../../testing.ts";

/** A stream of its own: what one part of a run draws does not move what another part draws. */
export class Random extends SeededRandom {
  /** An integer in [from, to], where each order of magnitude is as likely as the next. */
  spread(from: number, to: number): number {
    return Math.min(to, Math.floor(from * ((to + 1) / from) ** this.next()));
  }
}
