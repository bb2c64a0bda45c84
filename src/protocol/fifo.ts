/**
 * A first-in, first-out queue whose `shift` is constant in time, which an array's is not.
 *
 * @module
 */

/** Dead places at the front that are tolerated before the rest moves down. */
const MAX_DEAD = 1024;

/** A queue of values. */
export class Fifo<T> {
  #items: (T | undefined)[] = [];
  #head = 0;

  /** How many values wait. */
  get length(): number {
    return this.#items.length - this.#head;
  }

  /** Adds at the end. */
  push(item: T): void {
    this.#items.push(item);
  }

  /** The value at the front, which stays. */
  peek(): T | undefined {
    return this.#items[this.#head];
  }

  /** Takes the value at the front. */
  shift(): T | undefined {
    if (this.#head === this.#items.length) return undefined;
    const item = this.#items[this.#head];
    this.#items[this.#head++] = undefined;
    if (this.#head === this.#items.length) {
      this.#items = [];
      this.#head = 0;
    } else if (this.#head >= MAX_DEAD && this.#head * 2 >= this.#items.length) {
      this.#items.splice(0, this.#head);
      this.#head = 0;
    }
    return item;
  }
}
