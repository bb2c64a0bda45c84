/**
 * Time that passes only when somebody says so.
 *
 * @module
 */

interface Timer {
  readonly at: number;
  readonly order: number;
  callback: (() => void) | undefined;
}

/** So many timers at one instant are a loop that never ends. */
const MAX_TIMERS_AT_ONCE = 200_000;
/** How long `until` and `complete` wait, in virtual time, where nothing else is said. */
const DEFAULT_LIMIT_MS = 120_000;

/** A clock and timers that stand still until {@linkcode VirtualTime.advance}. */
export class VirtualTime {
  #now: number;
  #order = 0;
  #pending = 0;
  #firedNow = 0;
  readonly #timers = new TimerQueue();
  readonly #settled: () => Promise<void>;

  /**
   * Stands still.
   *
   * @param startMs What the clock shows first.
   * @param settled Resolves when no promise callback is due any more.
   */
  constructor(startMs = 0, settled: () => Promise<void> = promisesSettled) {
    this.#now = startMs;
    this.#settled = settled;
  }

  /** Milliseconds. */
  now(): number {
    return this.#now;
  }

  /** Runs `callback` once, `delayMs` from now. Returns a function that cancels it. */
  setTimer(delayMs: number, callback: () => void): () => void {
    const at = this.#now + Math.max(0, delayMs);
    const timer: Timer = { at, order: this.#order++, callback };
    this.#timers.push(timer);
    this.#pending++;
    return () => {
      if (timer.callback === undefined) return;
      timer.callback = undefined;
      this.#pending--;
    };
  }

  /** Timers that are set and not cancelled. */
  get pendingTimers(): number {
    return this.#pending;
  }

  /** Lets `ms` milliseconds pass, running timers in order and promise callbacks between them. */
  async advance(ms: number): Promise<void> {
    const end = this.#now + ms;
    await this.#settled();
    while (this.#fireNext(end)) await this.#settled();
    this.#now = end;
    await this.#settled();
  }

  /** Lets time pass until `done`, at most `limitMs`; looks once per millisecond at most. */
  async until(done: () => boolean, limitMs = DEFAULT_LIMIT_MS): Promise<void> {
    const end = this.#now + limitMs;
    await this.#settled();
    while (!done()) {
      if (this.#now >= end) throw new Error(`not done within ${limitMs} virtual ms`);
      // To the end of the next millisecond in which something happens.
      const next = this.#timers.peek()?.at ?? end;
      const steps = Math.max(1, Math.ceil(next - this.#now));
      await this.advance(Math.min(steps, end - this.#now));
    }
  }

  /** Awaits a promise while time passes, at most `limitMs` of it. */
  async complete<T>(promise: Promise<T>, limitMs = DEFAULT_LIMIT_MS): Promise<T> {
    let finished = false;
    const finish = () => {
      finished = true;
    };
    promise.then(finish, finish);
    await this.until(() => finished, limitMs);
    return await promise;
  }

  /** Runs the next timer that is due by `end`; false where there is none. */
  #fireNext(end: number): boolean {
    const timer = this.#timers.peek();
    if (timer === undefined || timer.at > end) return false;
    this.#timers.pop();
    const callback = timer.callback!;
    timer.callback = undefined;
    this.#pending--;
    if (timer.at > this.#now) {
      this.#now = timer.at;
      this.#firedNow = 0;
    } else if (++this.#firedNow > MAX_TIMERS_AT_ONCE) {
      throw new Error(`time stands still at ${this.#now}: timers without delay follow each other`);
    }
    callback();
    return true;
  }
}

/** Resolves when every promise callback that is due has run, those included that they make due. */
export function promisesSettled(): Promise<void> {
  // The event loop goes on only when there are none left.
  return new Promise((resolve) => void setImmediate(resolve));
}

/** Timers by their time, and by the order of setting where that is equal: a binary heap. */
class TimerQueue {
  readonly #heap: Timer[] = [];

  push(timer: Timer): void {
    const heap = this.#heap;
    let i = heap.push(timer) - 1;
    while (i > 0) {
      const parent = (i - 1) >> 1;
      if (!before(timer, heap[parent]!)) break;
      heap[i] = heap[parent]!;
      i = parent;
    }
    heap[i] = timer;
  }

  /** The first timer that is not cancelled; it stays in the queue. */
  peek(): Timer | undefined {
    while (this.#heap.length > 0 && this.#heap[0]!.callback === undefined) this.pop();
    return this.#heap[0];
  }

  pop(): void {
    const heap = this.#heap;
    const last = heap.pop();
    if (last === undefined || heap.length === 0) return;
    let i = 0;
    while (true) {
      let child = 2 * i + 1;
      if (child >= heap.length) break;
      if (child + 1 < heap.length && before(heap[child + 1]!, heap[child]!)) child++;
      if (!before(heap[child]!, last)) break;
      heap[i] = heap[child]!;
      i = child;
    }
    heap[i] = last;
  }
}

function before(a: Timer, b: Timer): boolean {
  return a.at < b.at || (a.at === b.at && a.order < b.order);
}
