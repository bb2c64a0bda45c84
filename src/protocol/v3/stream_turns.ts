/**
 * A line of those who take turns: joining, leaving and being next are all constant in time.
 *
 * @module
 */

/** A place in a {@linkcode Turns}; whoever may stand in one has one. */
export class Turn<T> {
  /** Whose place it is. */
  readonly owner: T;
  /** The line it stands in. Only that line changes this and the two below. */
  line: Turns<T> | undefined;
  /** Who is before it. */
  before: Turn<T> | undefined;
  /** Who is behind it. */
  behind: Turn<T> | undefined;

  /** Makes a place that stands nowhere. */
  constructor(owner: T) {
    this.owner = owner;
  }
}

/** A line, as a doubly linked list. */
export class Turns<T> {
  #first: Turn<T> | undefined;
  #last: Turn<T> | undefined;

  /** Whether nobody stands in it. */
  get empty(): boolean {
    return this.#first === undefined;
  }

  /** Joins at the end. False: it stands in a line already. */
  join(turn: Turn<T>): boolean {
    if (turn.line !== undefined) return false;
    turn.line = this;
    turn.before = this.#last;
    if (this.#last === undefined) this.#first = turn;
    else this.#last.behind = turn;
    this.#last = turn;
    return true;
  }

  /** Leaves, wherever it stands; nothing happens if it does not stand here. */
  leave(turn: Turn<T>): void {
    if (turn.line !== this) return;
    const { before, behind } = turn;
    if (before === undefined) this.#first = behind;
    else before.behind = behind;
    if (behind === undefined) this.#last = before;
    else behind.before = before;
    turn.line = turn.before = turn.behind = undefined;
  }

  /** Takes out who is first. */
  next(): T | undefined {
    const first = this.#first;
    if (first === undefined) return undefined;
    this.leave(first);
    return first.owner;
  }
}
