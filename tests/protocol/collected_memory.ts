/** The buffers that are still there after the garbage collector has run. */

import vm from "node:vm";
import v8 from "node:v8";

let collect: (() => void) | undefined;

/** Runs the collector, in a turn of its own: a turn keeps what it has looked at. */
async function collected(): Promise<void> {
  collect ??= findCollector();
  await new Promise<void>((resolve) => setImmediate(resolve));
  collect();
}

function findCollector(): () => void {
  const bun = (globalThis as { Bun?: { gc(now: boolean): void } }).Bun;
  if (bun !== undefined) return () => bun.gc(true);
  v8.setFlagsFromString("--expose-gc");
  return vm.runInNewContext("gc") as () => void;
}

/** Knows of the buffers that are made while it watches, and keeps none of them. */
export class Buffers {
  readonly #all: WeakRef<ArrayBufferLike>[] = [];
  readonly #known = new WeakSet<ArrayBufferLike>();

  /** Takes note of a buffer that was made elsewhere. */
  note<T extends Uint8Array>(bytes: T): T {
    const { buffer } = bytes;
    if (!this.#known.has(buffer)) {
      this.#known.add(buffer);
      this.#all.push(new WeakRef(buffer));
    }
    return bytes;
  }

  /** Takes note of every buffer that a synchronous function makes. */
  watch(run: () => void): void {
    const Real = globalThis.Uint8Array;
    const typedArray = Object.getPrototypeOf(Real.prototype) as Uint8Array;
    const { slice } = typedArray;
    const note = <T extends Uint8Array>(bytes: T) => this.note(bytes);
    globalThis.Uint8Array = new Proxy(Real, {
      construct: (made, args: [number | ArrayBuffer, number?, number?]) =>
        note(Reflect.construct(made, args) as Uint8Array),
    });
    typedArray.slice = function (this: Uint8Array, start?: number, end?: number) {
      return note(slice.call(this, start, end));
    } as typeof slice;
    try {
      run();
    } finally {
      globalThis.Uint8Array = Real;
      typedArray.slice = slice;
    }
  }

  /** Bytes of those that somebody keeps. */
  async retained(): Promise<number> {
    await collected();
    return this.#all.reduce((sum, ref) => sum + (ref.deref()?.byteLength ?? 0), 0);
  }
}
