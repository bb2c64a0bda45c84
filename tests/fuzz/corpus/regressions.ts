/**
 * Inputs that once broke a rule, by target: what `deno task fuzz` prints where it finds one. Each
 * says what it broke.
 */

import { hex } from "./hex.ts";

/** An input, and the target that it is for. */
export interface Regression {
  readonly target: string;
  readonly why: string;
  readonly input: Uint8Array;
}

/** All of them. */
export const REGRESSIONS: readonly Regression[] = [
  {
    target: "FrameDecoder",
    why: "a length above the limit, cut: refused as soon as four bytes are there",
    input: hex("000100 01"),
  },
];
