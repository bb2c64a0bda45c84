/**
 * Numbers of a lane that were received beyond a gap: on a connection with streams of their own,
 * frames overtake each other.
 *
 * One bit each, in a ring that is as long as what is under way: adding, asking and going on cost
 * the same whatever a peer sends, and nothing is sorted.
 *
 * @module
 */

const WORD_BITS = 32;
const MIN_BITS = 1024;

/** The numbers that are known above the highest one received in order, which the caller keeps. */
export class NumbersAhead {
  #words: Uint32Array = new Uint32Array(MIN_BITS / WORD_BITS);
  #bits = MIN_BITS;
  #count = 0;

  /** Whether there are none. */
  get empty(): boolean {
    return this.#count === 0;
  }

  /** Whether a number is known; it is above `received`. */
  has(id: number, received: number): boolean {
    if (id - received > this.#bits) return false;
    const at = id % this.#bits;
    return (this.#words[at >>> 5]! >>> (at & 31) & 1) !== 0;
  }

  /** Adds a number that is not known. The caller bounds how far it is above `received`. */
  add(id: number, received: number): void {
    if (id - received > this.#bits) this.#grow(id - received, received);
    this.#set(id);
    this.#count++;
  }

  /** Forgets the numbers that follow `received` without a gap, and returns the last of them. */
  goOn(received: number): number {
    let last = received;
    while (this.#count > 0) {
      const at = (last + 1) % this.#bits;
      const bit = 1 << (at & 31);
      if ((this.#words[at >>> 5]! & bit) === 0) break;
      this.#words[at >>> 5]! &= ~bit;
      this.#count--;
      last++;
    }
    return last;
  }

  #set(id: number): void {
    const at = id % this.#bits;
    this.#words[at >>> 5]! |= 1 << (at & 31);
  }

  #grow(span: number, received: number): void {
    const known: number[] = [];
    for (let id = received + 1; id <= received + this.#bits; id++) {
      if (this.has(id, received)) known.push(id);
    }
    while (this.#bits < span) this.#bits *= 2;
    this.#words = new Uint32Array(this.#bits / WORD_BITS);
    for (const id of known) this.#set(id);
  }
}
