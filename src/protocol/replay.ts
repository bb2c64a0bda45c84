/**
 * Remembers which hellos were seen, so that none is accepted twice.
 *
 * @module
 */

/** What a {@linkcode ReplayWindow} is made with. */
export interface ReplayWindowOptions {
  /** The largest difference in milliseconds between a dialer's clock and ours. */
  maxSkewMs: number;
  /**
   * How many hellos are remembered at most.
   * @default {65536}
   */
  capacity?: number;
  /**
   * How many of them may be of one node; its further hellos are refused until those are too old.
   * @default {capacity}
   */
  maxPerNode?: number;
}

/** A hello that was admitted. */
interface Seen {
  readonly key: string;
  readonly nodeId: string;
  readonly timestamp: number;
}

const DEFAULT_CAPACITY = 65_536;
/** This share of the capacity may hold hellos that are too old to pass the skew check. */
const SPARE_SHARE = 1 / 16;

/**
 * The hellos of the last while, by node id and nonce.
 *
 * One is remembered at least until its timestamp is too old to be accepted anyway. Where there are
 * more than fit, the oldest timestamps are forgotten, and from then on a hello that is no younger
 * than a forgotten one is refused: a replay is never let in, a slow clock may have to try again.
 * The same holds for what is forgotten because of its age, as a clock may be set back; so that
 * fresh hellos pass then, a few that are too old are kept while there is room.
 */
export class ReplayWindow {
  readonly #maxSkewMs: number;
  readonly #capacity: number;
  readonly #maxPerNode: number;
  readonly #spare: number;
  /** Node id -> how many hellos of it are remembered. */
  readonly #perNode = new Map<string, number>();
  /** Key -> timestamp of what is remembered. */
  readonly #known = new Map<string, number>();
  /** The same as a binary heap, the oldest timestamp first. */
  readonly #heap: Seen[] = [];
  /** The highest timestamp that was forgotten. */
  #forgotten = -Infinity;

  /**
   * Makes an empty window.
   *
   * @throws {RangeError} If `maxSkewMs` is negative or not finite, or `capacity` is no positive integer.
   */
  constructor({ maxSkewMs, capacity = DEFAULT_CAPACITY, maxPerNode }: ReplayWindowOptions) {
    if (!(Number.isFinite(maxSkewMs) && maxSkewMs >= 0)) {
      throw outOfRange("maxSkewMs must be finite and at least 0", maxSkewMs);
    }
    if (!(Number.isSafeInteger(capacity) && capacity >= 1)) {
      throw outOfRange("capacity must be an integer above 0", capacity);
    }
    this.#maxSkewMs = maxSkewMs;
    this.#capacity = capacity;
    this.#maxPerNode = maxPerNode ?? capacity;
    this.#spare = Math.floor(capacity * SPARE_SHARE);
  }

  /** How many hellos are remembered. */
  get size(): number {
    return this.#heap.length;
  }

  /**
   * Whether a hello may be accepted; if so, it is remembered. Takes amortised O(log size).
   *
   * @param timestamp The hello's own, milliseconds since the epoch.
   * @param nowMs Our wall clock, milliseconds since the epoch. It may jump.
   */
  admit(nodeId: string, timestamp: number, nonce: string, nowMs: number): boolean {
    const oldest = nowMs - this.#maxSkewMs;
    if (!(timestamp >= oldest && timestamp <= nowMs + this.#maxSkewMs)) return false;
    const key = `${nodeId.length}:${nodeId}${nonce}`;
    const known = this.#known.get(key);
    if (known !== undefined && known >= oldest) return false;
    while (this.#heap.length > this.#spare && this.#heap[0]!.timestamp < oldest) {
      this.#forgetOldest();
    }
    // Two timestamps under one key would be too many: the old one gives way.
    while (this.#known.has(key)) this.#forgetOldest();
    if (timestamp <= this.#forgotten) return false;
    const ofNode = this.#perNode.get(nodeId) ?? 0;
    // The timestamps of one node must not push those of the others out.
    if (ofNode >= this.#maxPerNode && this.#maxPerNode < this.#capacity) return false;
    this.#perNode.set(nodeId, ofNode + 1);
    this.#known.set(key, timestamp);
    push(this.#heap, { key, nodeId, timestamp });
    while (this.#heap.length > this.#capacity) this.#forgetOldest();
    return true;
  }

  #forgetOldest(): void {
    const { key, nodeId, timestamp } = pop(this.#heap);
    this.#known.delete(key);
    const left = (this.#perNode.get(nodeId) ?? 1) - 1;
    if (left === 0) this.#perNode.delete(nodeId);
    else this.#perNode.set(nodeId, left);
    // Never lower than before: what was no younger than the last one forgotten was not let in.
    this.#forgotten = timestamp;
  }
}

function push(heap: Seen[], seen: Seen): void {
  let at = heap.length;
  while (at > 0) {
    const parent = (at - 1) >> 1;
    if (heap[parent]!.timestamp <= seen.timestamp) break;
    heap[at] = heap[parent]!;
    at = parent;
  }
  heap[at] = seen;
}

/** Takes the oldest out of a heap that isn't empty. */
function pop(heap: Seen[]): Seen {
  const first = heap[0]!;
  const last = heap.pop()!;
  if (heap.length === 0) return first;
  let at = 0;
  for (;;) {
    let child = 2 * at + 1;
    if (child >= heap.length) break;
    if (child + 1 < heap.length && heap[child + 1]!.timestamp < heap[child]!.timestamp) child++;
    if (heap[child]!.timestamp >= last.timestamp) break;
    heap[at] = heap[child]!;
    at = child;
  }
  heap[at] = last;
  return first;
}

function outOfRange(demand: string, value: number): RangeError {
  return new RangeError(`Cannot make a replay window: ${demand}, got ${value}`);
}
