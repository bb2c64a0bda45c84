/** Inputs made from others, decided by a seed. */

import type { Random } from "../simulation/random.ts";
import { crc32, u64 } from "../bad_input/wire_v3.ts";
import { header, join } from "../bad_input/wire.ts";
import type { Target } from "./target.ts";

/** No input becomes longer. */
const MAX_BYTES = 65_536;
const MAX_STEPS = 6;
/** What is at the edge of something. */
const EDGES = [0, 1, 2, 3, 4, 8, 15, 16, 64, 127, 128, 255, 256, 4096, 65_535, 65_536, 262_144];
const HUGE = [0x00ff_ffff, 0x0100_0000, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff];
const NUMBERS = ["0", "-1", "1.5", "1e309", "9007199254740991", "9007199254740993", "65536", "-0"];
/** Bodies of frames: flags, then the number. */
const HEAD_BYTES = 10;
const CHECKSUM_FLAG = 0x80;
const CHECKSUM_BYTES = 4;

type Step = (input: Uint8Array, random: Random, target: Target) => Uint8Array;

/** A new input from one of the corpus. */
export function mutate(target: Target, random: Random): Uint8Array {
  const from = target.framesFrom;
  let input: Uint8Array = random.pick(target.corpus).slice();
  if (from !== undefined && random.chance(0.7)) {
    const start = input.subarray(0, from);
    if (random.chance(0.2)) input = join(steps(start, random, target), input.subarray(from));
    input = join(input.subarray(0, from), mutateFrames(input.subarray(from), random, target));
  } else {
    input = steps(input, random, target);
  }
  return input.subarray(0, MAX_BYTES);
}

/** Cuts bytes into the bodies of frames; what is left over is the last one. */
export function bodiesOf(bytes: Uint8Array): Uint8Array[] {
  const bodies: Uint8Array[] = [];
  for (let at = 0; at < bytes.length;) {
    const view = new DataView(bytes.buffer, bytes.byteOffset + at, bytes.length - at);
    const length = view.byteLength < 4 ? 0 : view.getUint32(0);
    bodies.push(bytes.slice(at + 4, at + 4 + length));
    at += 4 + length;
  }
  return bodies;
}

function steps(input: Uint8Array, random: Random, target: Target): Uint8Array {
  for (let left = random.between(1, MAX_STEPS); left > 0; left--) {
    input = random.pick(STEPS)(input, random, target);
  }
  return input;
}

/** Frames of which some are changed, lost, doubled or moved; the lengths are right again. */
function mutateFrames(input: Uint8Array, random: Random, target: Target): Uint8Array {
  let bodies = bodiesOf(input);
  for (let left = random.between(1, MAX_STEPS); left > 0; left--) {
    const at = random.between(0, Math.max(0, bodies.length - 1));
    const body = bodies[at] ?? new Uint8Array(1);
    switch (random.between(0, 5)) {
      case 0:
        bodies.splice(at, 1);
        break;
      case 1:
        bodies.splice(at, 0, ...Array<Uint8Array>(random.spread(1, 300)).fill(body));
        break;
      case 2: {
        const other = random.pick(target.corpus).subarray(target.framesFrom ?? 0);
        bodies.splice(at, 0, ...bodiesOf(other));
        break;
      }
      default:
        bodies[at] = steps(body, random, target);
    }
  }
  if (random.chance(0.6)) bodies = renumbered(bodies);
  if (random.chance(0.8)) bodies = bodies.map(withChecksum);
  return join(...bodies.flatMap((body) => [header(body.length), body]));
}

/** Gives the frames of each lane the numbers they should have. */
function renumbered(bodies: readonly Uint8Array[]): Uint8Array[] {
  const next = [1, 1, 1, 1];
  return bodies.map((old) => {
    const kind = old[0]! & 15;
    if (old.length < HEAD_BYTES || kind > 9 && kind < 14) return old;
    const body = old.slice();
    body.set(u64(next[body[0]! >>> 5 & 3]!++), 2);
    return body;
  });
}

function withChecksum(old: Uint8Array): Uint8Array {
  const end = old.length - CHECKSUM_BYTES;
  if (end < HEAD_BYTES || (old[1]! & CHECKSUM_FLAG) === 0) return old;
  return join(old.subarray(0, end), header(crc32(old.subarray(0, end))));
}

const STEPS: readonly Step[] = [
  /** A bit is flipped. */
  (input, random) => {
    const at = random.between(0, input.length - 1);
    return replaced(input, at, [input[at]! ^ 1 << random.between(0, 7)]);
  },
  /** A byte is another one. */
  (input, random) => {
    const value = random.chance(0.5) ? random.between(0, 255) : random.pick(EDGES);
    return replaced(input, random.between(0, input.length - 1), [value]);
  },
  /** A number of two, four or eight bytes, either end first. */
  (input, random) => {
    const value = random.pick(random.chance(0.5) ? EDGES : HUGE);
    const bytes = u64(value).subarray(random.pick([0, 4, 6]));
    if (random.chance(0.3)) bytes.reverse();
    return replaced(input, random.between(0, input.length), bytes);
  },
  /** Some bytes are gone. */
  (input, random) => {
    const at = random.between(0, input.length);
    return join(input.subarray(0, at), input.subarray(at + random.spread(1, 64)));
  },
  /** It ends before its end. */
  (input, random) => input.slice(0, random.between(0, input.length)),
  /** Bytes come in between. */
  (input, random) => {
    const bytes = Uint8Array.from(
      { length: random.spread(1, 32) },
      () => random.between(0, 255),
    );
    return inserted(input, random.between(0, input.length), bytes);
  },
  /** Bytes come twice, or very often. */
  (input, random) => {
    const at = random.between(0, input.length);
    const part = input.subarray(at, at + random.spread(1, 40));
    const times = random.chance(0.9) ? random.between(1, 3) : random.spread(4, 1_000);
    return inserted(input, at, join(...Array<Uint8Array>(times).fill(part)));
  },
  /** A word of its own language is there, in the place of others or between them. */
  (input, random, { dictionary }) => {
    if (dictionary.length === 0) return input;
    const word = random.pick(dictionary);
    const at = random.between(0, input.length);
    return random.chance(0.5) ? inserted(input, at, word) : replaced(input, at, word);
  },
  /** The rest of another input follows. */
  (input, random, { corpus }) => {
    const other = random.pick(corpus);
    const rest = other.subarray(random.between(0, other.length));
    return join(input.subarray(0, random.between(0, input.length)), rest);
  },
  /** A number in digits is another one. */
  (input, random) => {
    const text = new TextDecoder("latin1").decode(input);
    const found = [...text.matchAll(/\d+/g)];
    if (found.length === 0) return input;
    const { 0: digits, index } = random.pick(found);
    const number = new TextEncoder().encode(random.pick(NUMBERS));
    return join(input.subarray(0, index), number, input.subarray(index + digits.length));
  },
];

function replaced(input: Uint8Array, at: number, bytes: ArrayLike<number>): Uint8Array {
  return join(input.subarray(0, at), Uint8Array.from(bytes), input.subarray(at + bytes.length));
}

function inserted(input: Uint8Array, at: number, bytes: Uint8Array): Uint8Array {
  return join(input.subarray(0, at), bytes, input.subarray(at));
}
