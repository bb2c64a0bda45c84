/**
 * The fragments of a message, put together as they come.
 *
 * @module
 */

/** Makes room for so many bytes, whatever they hold: all are written before anybody reads them. */
export type Allocate = (bytes: number) => Uint8Array;

/** How much of the old buffer is moved for each byte that comes: done long before it is full again. */
const MOVE_SHARE = 2;

/**
 * A buffer that grows with what comes and is never moved in one go: a long message must not keep
 * the process from everything else. It has at most twice the bytes that came; while it is being
 * moved, three times. Where it is told what to expect, it has room for that from the beginning,
 * which costs address space, but no memory before it is filled.
 */
export class Gathered {
  readonly #allocate: Allocate;
  #buffer: Uint8Array;
  #bytes = 0;
  /** The smaller buffer before, of which `#moved` bytes have been copied. */
  #old: Uint8Array | undefined;
  #moved = 0;

  /** Begins with a copy of `first`; so many bytes are expected in all. */
  constructor(first: Uint8Array, expected: number = 0, allocate: Allocate = zeros) {
    this.#allocate = allocate;
    this.#buffer = allocate(Math.max(2 * first.length, expected));
    this.append(first);
  }

  /** Bytes so far. */
  get bytes(): number {
    return this.#bytes;
  }

  /** Adds a copy of `more`. */
  append(more: Uint8Array): void {
    const end = this.#bytes + more.length;
    if (end > this.#buffer.length) this.#grow(end);
    this.#buffer.set(more, this.#bytes);
    this.#bytes = end;
    this.#move(MOVE_SHARE * more.length);
  }

  /** All of it. Nothing may be added after it. */
  take(): Uint8Array {
    this.#move(Infinity);
    const whole = this.#buffer.subarray(0, this.#bytes);
    if (2 * whole.length < this.#buffer.length) return whole.slice();
    // Whoever gets it can look at all of its memory.
    this.#buffer.fill(0, this.#bytes);
    return whole;
  }

  #grow(needed: number): void {
    this.#move(Infinity);
    const old = this.#buffer;
    // What it had room for and did not get must not be moved over what comes now.
    this.#old = old.subarray(0, this.#bytes);
    this.#moved = 0;
    this.#buffer = this.#allocate(Math.max(needed, 2 * old.length));
  }

  #move(bytes: number): void {
    const old = this.#old;
    if (old === undefined) return;
    // What is above the bytes that the old buffer had is in the new one already.
    const to = Math.min(this.#moved + bytes, old.length);
    this.#buffer.set(old.subarray(this.#moved, to), this.#moved);
    this.#moved = to;
    if (to === old.length) this.#old = undefined;
  }
}

function zeros(bytes: number): Uint8Array {
  return new Uint8Array(bytes);
}
