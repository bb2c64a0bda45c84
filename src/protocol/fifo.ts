/**
 * A first-in, first-out queue whose `shift` is constant in time, which an array's is not.
 *
 * @module
 */

/** An empty queue keeps at most so many places. */
const MAX_KEPT_CAPACITY = 1024;

/** The places of a queue that never held anything; nothing is put here. */
const NONE: undefined[] = [];

/** A queue of values: a ring of places, of which there are twice as many when it is full. */
export class Fifo<T> {
  #places: (T | undefined)[] = NONE;
  #head = 0;
  #length = 0;

  /** How many values wait. */
  get length(): number {
    return this.#length;
  }

  /** Adds at the end. */
  push(item: T): void {
    if (this.#length === this.#places.length) this.#grow();
    this.#places[this.#head + this.#length & this.#places.length - 1] = item;
    this.#length++;
  }

  /** The value at the front, which stays. */
  peek(): T | undefined {
    return this.#length === 0 ? undefined : this.#places[this.#head];
  }

  /** Takes the value at the front. */
  shift(): T | undefined {
    if (this.#length === 0) return undefined;
    const item = this.#places[this.#head];
    this.#places[this.#head] = undefined;
    this.#head = this.#head + 1 & this.#places.length - 1;
    if (--this.#length === 0 && this.#places.length > MAX_KEPT_CAPACITY) {
      this.#places = NONE;
      this.#head = 0;
    }
    return item;
  }

  #grow(): void {
    const old = this.#places;
    if (old.length === 0) {
      // A power of two, as every capacity. Few: there are queues that hold one thing once.
      this.#places = [undefined, undefined, undefined, undefined];
      return;
    }
    const places: (T | undefined)[] = [];
    for (let i = 0; i < old.length; i++) places.push(old[this.#head + i & old.length - 1]);
    while (places.length < 2 * old.length) places.push(undefined);
    this.#places = places;
    this.#head = 0;
  }
}
