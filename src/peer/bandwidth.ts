/**
 * Limits of what is sent, in bytes per second, and the turns that peers take at what they share.
 *
 * @module
 */

import type { ResolvedBandwidth } from "../options.ts";
import type { Pace } from "../protocol/v3/session.ts";
import { CONTROL, type Lane } from "../protocol/v3/types.ts";
import type { Environment } from "../runtime/environment.ts";

/** A bucket holds what comes in during this time, … */
const BURST_SECONDS = 0.05;
/** … but at least this many bytes: one fragment. */
const MIN_BURST_BYTES = 65_536;
/** What a turn is worth. A timer for each few bytes would cost more than they do. */
const TURN_BYTES = 4_096;

/** Bytes that come in at a steady rate; what is written may leave it in debt. */
class ByteBucket {
  readonly #rate: number;
  readonly #burst: number;
  #level: number;
  #at: number;

  /** `rate` in bytes per second; `now` in milliseconds. */
  constructor(rate: number, now: number) {
    this.#rate = rate;
    this.#burst = Math.max(MIN_BURST_BYTES, rate * BURST_SECONDS);
    this.#level = this.#burst;
    this.#at = now;
  }

  level(now: number): number {
    const elapsed = Math.max(0, now - this.#at);
    this.#at = now;
    this.#level = Math.min(this.#burst, this.#level + elapsed * this.#rate / 1000);
    return this.#level;
  }

  spend(bytes: number, now: number): void {
    this.#level = this.level(now) - bytes;
  }

  /** Milliseconds until a turn can be had. */
  waitMs(now: number): number {
    const missing = Math.min(TURN_BYTES, this.#burst) - this.level(now);
    return Math.max(0, missing / this.#rate * 1000);
  }
}

/**
 * A bucket, and who waits for it: deficit round robin (Shreedhar and Varghese, 1995), so that those
 * who send large frames get no more bytes than those who send small ones.
 */
class Shared {
  readonly #environment: Environment;
  readonly #bucket: ByteBucket;
  /** In the order of their turns. */
  readonly #waiting = new Set<PeerPace>();
  /** What a peer may still send, or has sent too much. */
  readonly #credit = new WeakMap<PeerPace, number>();
  /** Whose turn it is while it is asked to write, and what it may write. */
  #turn: PeerPace | undefined;
  #left = 0;
  #cancelTimer: (() => void) | undefined;

  constructor(rate: number, environment: Environment) {
    this.#environment = environment;
    this.#bucket = new ByteBucket(rate, environment.now());
  }

  allows(pace: PeerPace): boolean {
    const may = this.#turn === pace ? this.#left > 0 : this.#waiting.size === 0;
    if (may && this.#bucket.level(this.#environment.now()) > 0) return true;
    this.#waiting.add(pace);
    this.#wake();
    return false;
  }

  spend(pace: PeerPace, bytes: number): void {
    if (this.#turn === pace) this.#left -= bytes;
    this.#bucket.spend(bytes, this.#environment.now());
  }

  /** A peer is gone. */
  forget(pace: PeerPace): void {
    this.#waiting.delete(pace);
    if (this.#waiting.size > 0) return;
    this.#cancelTimer?.();
    this.#cancelTimer = undefined;
  }

  #wake(): void {
    if (this.#turn !== undefined) return;
    this.#cancelTimer ??= this.#environment.setTimer(
      Math.ceil(this.#bucket.waitMs(this.#environment.now())),
      () => {
        this.#cancelTimer = undefined;
        this.#giveTurns();
      },
    );
  }

  #giveTurns(): void {
    while (this.#bucket.level(this.#environment.now()) > 0) {
      const [pace] = this.#waiting;
      if (pace === undefined) return;
      this.#waiting.delete(pace);
      this.#left = (this.#credit.get(pace) ?? 0) + TURN_BYTES;
      if (this.#left > 0) {
        this.#turn = pace;
        pace.onTurn();
        this.#turn = undefined;
      } else this.#waiting.add(pace);
      // Who has nothing more to send saves nothing up.
      this.#credit.set(pace, this.#waiting.has(pace) ? this.#left : Math.min(0, this.#left));
    }
    if (this.#waiting.size > 0) this.#wake();
  }
}

/** The limits of an endpoint. */
export class Bandwidth {
  /** For all lanes. */
  readonly total: Shared | undefined;
  /** For one lane each. */
  readonly lanes: readonly (Shared | undefined)[];
  readonly #perPeer: number | undefined;
  readonly #environment: Environment;

  /** Buckets begin full. */
  constructor(limits: ResolvedBandwidth, environment: Environment) {
    const shared = (rate: number | undefined) =>
      rate === undefined ? undefined : new Shared(rate, environment);
    this.#environment = environment;
    this.total = shared(limits.total);
    this.lanes = [limits.control, limits.normal, limits.bulk].map(shared);
    this.#perPeer = limits.perPeer;
  }

  /** The limits of a peer; undefined where there are none. `onTurn` writes what waits. */
  pace(onTurn: () => void): PeerPace | undefined {
    const limited = this.total !== undefined || this.#perPeer !== undefined ||
      this.lanes.some((lane) => lane !== undefined);
    if (!limited) return undefined;
    // A limit that nobody shares is one whose turn comes whenever there is room.
    const own = this.#perPeer === undefined
      ? undefined
      : new Shared(this.#perPeer, this.#environment);
    return new PeerPace(this, own, onTurn);
  }
}

/** The limits as one peer meets them. */
export class PeerPace implements Pace {
  /** Writes what waits. */
  readonly onTurn: () => void;
  readonly #limits: Bandwidth;
  readonly #own: Shared | undefined;

  /** Made by {@linkcode Bandwidth.pace}. */
  constructor(limits: Bandwidth, own: Shared | undefined, onTurn: () => void) {
    this.#limits = limits;
    this.#own = own;
    this.onTurn = onTurn;
  }

  /** @ignore */
  allows(lane: Lane): boolean {
    const { total, lanes } = this.#limits;
    // One at a time: who waits for its lane must not hold up others at what all share.
    if (lanes[lane]?.allows(this) === false) return false;
    if (lane === CONTROL) return true;
    return this.#own?.allows(this) !== false && total?.allows(this) !== false;
  }

  /** @ignore */
  spend(lane: Lane, bytes: number): void {
    const { total, lanes } = this.#limits;
    lanes[lane]?.spend(this, bytes);
    this.#own?.spend(this, bytes);
    total?.spend(this, bytes);
  }

  /** The peer is gone: it waits for nothing. */
  end(): void {
    const { total, lanes } = this.#limits;
    for (const lane of lanes) lane?.forget(this);
    this.#own?.forget(this);
    total?.forget(this);
  }
}
