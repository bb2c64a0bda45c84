/**
 * What is due next, of many that are mostly done before they are due.
 *
 * @module
 */

/** Something with a deadline. */
export interface Due {
  /** When it is due, on the monotonic clock. It must not change while it waits. */
  readonly deadline: number | undefined;
  /** Where it stands; only {@linkcode Deadlines} changes it. -1: it does not wait. */
  place: number;
}

/**
 * A binary heap by deadline. What is done early is taken out at once, so that the heap is never
 * larger than what really waits, however far away the deadlines are.
 */
export class Deadlines<T extends Due> {
  readonly #heap: T[] = [];

  /** How many wait. */
  get size(): number {
    return this.#heap.length;
  }

  /** The earliest deadline, or undefined. */
  get next(): number | undefined {
    return this.#heap[0]?.deadline;
  }

  /** Lets something wait for its deadline; what has none does not wait. */
  add(item: T): void {
    if (item.deadline === undefined || item.place >= 0) return;
    this.#heap.push(item);
    this.#rise(item, this.#heap.length - 1);
  }

  /** Takes something out; nothing happens if it does not wait. */
  remove(item: T): void {
    const { place } = item;
    if (place < 0 || this.#heap[place] !== item) return;
    item.place = -1;
    const last = this.#heap.pop()!;
    if (last === item) return;
    this.#sink(last, place);
    this.#rise(last, last.place);
  }

  /** Takes one out that is due at `now`. */
  takeDue(now: number): T | undefined {
    const first = this.#heap[0];
    if (first === undefined || first.deadline! > now) return undefined;
    this.remove(first);
    return first;
  }

  #rise(item: T, from: number): void {
    let place = from;
    while (place > 0) {
      const parentPlace = (place - 1) >> 1;
      const parent = this.#heap[parentPlace]!;
      if (parent.deadline! <= item.deadline!) break;
      this.#put(parent, place);
      place = parentPlace;
    }
    this.#put(item, place);
  }

  #sink(item: T, from: number): void {
    let place = from;
    for (;;) {
      const left = 2 * place + 1;
      const right = this.#heap[left + 1];
      const leftChild = this.#heap[left];
      if (leftChild === undefined) break;
      const rightIsLess = right !== undefined && right.deadline! < leftChild.deadline!;
      const child = rightIsLess ? right : leftChild;
      if (item.deadline! <= child.deadline!) break;
      this.#put(child, place);
      place = rightIsLess ? left + 1 : left;
    }
    this.#put(item, place);
  }

  #put(item: T, place: number): void {
    this.#heap[place] = item;
    item.place = place;
  }
}
