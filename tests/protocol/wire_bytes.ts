/** Bytes for the codec tests: written as hex, cut in pieces, and the work done with them counted. */

/** Bytes from hex digits; spaces are for the eye. */
export function hex(text: string): Uint8Array {
  const digits = text.replace(/\s/g, "");
  if (digits.length % 2 !== 0) throw new RangeError(`Cannot read hex: odd digits in "${text}"`);
  return Uint8Array.from(digits.match(/../g) ?? [], (pair) => {
    const byte = Number(`0x${pair}`);
    if (Number.isNaN(byte)) throw new RangeError(`Cannot read hex: "${pair}"`);
    return byte;
  });
}

/** Copies of `bytes` cut into pieces of the given sizes, which are repeated as needed. */
export function cut(bytes: Uint8Array, sizes: readonly number[]): Uint8Array[] {
  const pieces: Uint8Array[] = [];
  for (let at = 0, i = 0; at < bytes.length; i++) {
    const size = Math.max(sizes[i % sizes.length] ?? 1, 1);
    pieces.push(bytes.slice(at, at + size));
    at += size;
  }
  return pieces;
}

/** All parts one after the other. */
export function concat(...parts: readonly Uint8Array[]): Uint8Array {
  const whole = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}

/** What a synchronous function did with memory. */
export interface Work {
  /** Bytes of new buffers. */
  allocated: number;
  /** The largest of them. */
  largest: number;
  /** Bytes copied by `set`. */
  copied: number;
  /** Array slots that had to move up because slots before them were removed. */
  moved: number;
}

/** Counts the work of `run` by standing in for the built-ins that do it. */
export function countWork(run: () => void): Work {
  const work: Work = { allocated: 0, largest: 0, copied: 0, moved: 0 };
  const RealUint8Array = globalThis.Uint8Array;
  const typedArray = Object.getPrototypeOf(RealUint8Array.prototype) as Uint8Array;
  const array = Array.prototype as unknown[];
  const { set } = typedArray;
  const { shift, splice } = array;
  globalThis.Uint8Array = new Proxy(RealUint8Array, {
    construct(target, args: [number | ArrayBuffer, number?, number?], newTarget) {
      const size = args[0];
      if (typeof size === "number") {
        work.allocated += size;
        work.largest = Math.max(work.largest, size);
      }
      return Reflect.construct(
        target,
        args,
        newTarget === globalThis.Uint8Array ? target : newTarget,
      );
    },
  });
  typedArray.set = function (this: Uint8Array, source: ArrayLike<number>, at?: number): void {
    work.copied += source.length;
    set.call(this, source, at);
  };
  array.shift = function (this: unknown[]): unknown {
    work.moved += Math.max(this.length - 1, 0);
    return shift.call(this);
  };
  array.splice = function (this: unknown[], start: number, count: number): unknown[] {
    work.moved += this.length - start - count;
    return splice.call(this, start, count);
  };
  try {
    run();
  } finally {
    globalThis.Uint8Array = RealUint8Array;
    typedArray.set = set;
    array.shift = shift;
    array.splice = splice;
  }
  return work;
}
