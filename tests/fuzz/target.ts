/** What a fuzz target is, and what must hold of each whatever its input. */

import assert from "node:assert/strict";
import { TransportError } from "../../src/errors.ts";

/** Something that takes bytes of strangers. */
export interface Target {
  readonly name: string;
  /** Inputs to begin with, valid and invalid ones, written by hand. */
  readonly corpus: readonly Uint8Array[];
  /** Bytes that mean something to it. */
  readonly dictionary: readonly Uint8Array[];
  /** Bytes before the first frame, where the input is frames; mutations then keep lengths right. */
  readonly framesFrom?: number;
  /** New memory for each byte of input; what a decompressor makes is bounded by what it is told. */
  readonly bytesPerByte?: number;
  /** Its share of the time, 1 by default: more where more can go wrong. */
  readonly share?: number;
  /** Throws where a rule is broken. A refusal by `TransportError` breaks none: see `attempt`. */
  run(input: Uint8Array): void;
}

/** New memory for each byte of input: nothing that is retained can be more than was allocated. */
const BYTES_PER_BYTE = 4;
/** And for every input, of whatever length: the first buffer of an outbox, most of all. */
const MORE_BYTES = 131_072;
/** Time for each byte of input, and for every input: far more than is needed. */
const MS_PER_BYTE = 0.02;
const MORE_MS = 100;
/** Time is measured again where it was too long: the machine may have been busy elsewhere. */
const MEASUREMENTS = 5;

/** Holds a target against one input. Throws what is wrong. */
export function check(target: Target, input: Uint8Array): void {
  const { allocated, ms } = measure(target, input);
  const perByte = target.bytesPerByte ?? BYTES_PER_BYTE;
  const maxBytes = perByte * (input.length + 1) + MORE_BYTES;
  assert.ok(allocated <= maxBytes, `${allocated} bytes allocated for ${input.length}`);
  const maxMs = MORE_MS + MS_PER_BYTE * input.length;
  if (ms <= maxMs) return;
  let least = ms;
  for (let i = 1; i < MEASUREMENTS && least > maxMs; i++) {
    least = Math.min(least, measure(target, input).ms);
  }
  assert.ok(least <= maxMs, `${Math.round(least)} ms for ${input.length} bytes`);
}

/** What a call returns; undefined where it refused its input with a `TransportError`. */
export function attempt<T>(call: () => T): T | undefined {
  try {
    return call();
  } catch (error) {
    if (error instanceof TransportError) return undefined;
    throw error;
  }
}

/** The bytes of an input in pieces, of sizes that the input itself decides. */
export function pieces(input: Uint8Array): Uint8Array[] {
  const parts: Uint8Array[] = [];
  let hash = 0x811c9dc5;
  for (let at = 0; at < input.length;) {
    hash = Math.imul(hash ^ input[at]!, 0x01000193) >>> 0;
    const size = hash % 3 === 0 ? 1 : 1 + hash % 97;
    parts.push(input.slice(at, at + size));
    at += size;
  }
  return parts;
}

function measure(target: Target, input: Uint8Array): { allocated: number; ms: number } {
  // What is given away may be kept and must not change.
  const copy = input.slice();
  const start = performance.now();
  const allocated = allocatedBy(() => target.run(copy));
  const ms = performance.now() - start;
  assert.deepEqual(copy, input, "the input was changed");
  return { allocated, ms };
}

/** Bytes of the buffers that a synchronous function makes. */
function allocatedBy(run: () => void): number {
  const Real = globalThis.Uint8Array;
  let allocated = 0;
  globalThis.Uint8Array = new Proxy(Real, {
    construct(made, args: [number | ArrayBuffer, number?, number?]) {
      if (typeof args[0] === "number") allocated += args[0];
      return Reflect.construct(made, args);
    },
  });
  try {
    run();
  } finally {
    globalThis.Uint8Array = Real;
  }
  return allocated;
}
