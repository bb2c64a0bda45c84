/** Runs targets on inputs that a seed decides, and makes what fails small. */

import { join } from "../bad_input/wire.ts";
import { Random } from "../simulation/random.ts";
import { mutate } from "./mutate.ts";
import { check, type Target } from "./target.ts";

/** An input that breaks a rule. */
export interface Finding {
  readonly input: Uint8Array;
  readonly error: Error;
}

/** Rounds of making a finding smaller. */
const MAX_SHRINKS = 2_000;

/** The input of a number: the corpus first, then mutations of it. */
export function inputOf(target: Target, seed: number, index: number): Uint8Array {
  return target.corpus[index] ?? mutate(target, new Random(seed, index));
}

/** Holds a target against one input; returns what is wrong. */
export function findingOf(target: Target, input: Uint8Array): Finding | undefined {
  try {
    check(target, input);
    return undefined;
  } catch (error) {
    return { input, error: error instanceof Error ? error : new Error(String(error)) };
  }
}

/** The same trouble with fewer bytes, as far as leaving out parts of the input leads to it. */
export function shrink(target: Target, finding: Finding): Finding {
  let best = finding;
  let left = MAX_SHRINKS;
  for (let size = best.input.length >>> 1; size > 0; size >>>= 1) {
    for (let at = 0; at < best.input.length && left > 0; left--) {
      const found = findingOf(
        target,
        join(best.input.subarray(0, at), best.input.subarray(at + size)),
      );
      if (found?.error.name === best.error.name) best = found;
      else at += size;
    }
  }
  return best;
}

/** An input as digits, to be put into the corpus. */
export function toHex(input: Uint8Array): string {
  return Array.from(input, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
