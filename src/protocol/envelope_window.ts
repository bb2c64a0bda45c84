/**
 * Remembers which envelopes were taken, so that none is taken twice.
 *
 * @module
 */

/** What an {@linkcode EnvelopeWindow} is made with. */
export interface EnvelopeWindowOptions {
  /**
   * The largest difference in milliseconds between an envelope's timestamp and our clock.
   * @default {300000}
   */
  maxAgeMs?: number;
  /**
   * How far an envelope's number may lie behind the highest of its sender; a multiple of 32.
   * @default {1024}
   */
  width?: number;
  /**
   * How many senders are remembered; a further one is refused until one of them has been silent
   * for `maxAgeMs`.
   * @default {4096}
   */
  maxSenders?: number;
}

/** Why an envelope is refused. */
export type EnvelopeRefusal =
  /** Its timestamp is too old, or it may be one of those that were forgotten. */
  | "too-old"
  /** Its timestamp is too far in the future. */
  | "too-new"
  /** It was taken before. */
  | "replayed"
  /** Its number lies too far behind the highest to know whether it was taken. */
  | "too-far-behind"
  /** There are as many senders as are remembered. */
  | "too-many-senders";

/** What is known of one sender. */
interface Sender {
  /** The highest number that was taken. */
  highest: number;
  /** The highest timestamp that was taken. */
  newest: number;
  /** Bit `sequence % width` says whether that number was taken; circular, as in RFC 6479. */
  readonly bits: Uint32Array;
}

const DEFAULT_MAX_AGE_MS = 300_000;
const DEFAULT_WIDTH = 1024;
const DEFAULT_MAX_SENDERS = 4096;
/** A bitmap of this many bits has 8 KiB. */
const MAX_WIDTH = 65_536;

/**
 * A replay window as in IPsec (RFC 4303, section 3.4.3), for each sender, together with a check of
 * the age. Numbers need not come in order or without gaps: one that is higher than all before is
 * taken, one that lies less than `width` behind is taken once, one further behind is refused.
 *
 * A sender that was silent for longer than `maxAgeMs` may be forgotten: what it had signed before
 * is too old by then. So that a clock that is set back makes nothing of it young again, envelopes
 * of unknown senders that are no younger than what was forgotten are refused.
 *
 * Ask only about envelopes whose signature is right; anyone could fill the window otherwise.
 */
export class EnvelopeWindow {
  readonly #maxAgeMs: number;
  readonly #width: number;
  readonly #maxSenders: number;
  readonly #senders = new Map<string, Sender>();
  /** The highest timestamp of a sender that was forgotten. */
  #forgotten = -Infinity;

  /**
   * Makes an empty window.
   *
   * @throws {RangeError} If `maxAgeMs` is negative or not finite, `width` no multiple of 32 from 32
   * to 65536, or `maxSenders` no positive integer.
   */
  constructor(options: EnvelopeWindowOptions = {}) {
    const { maxAgeMs = DEFAULT_MAX_AGE_MS, width = DEFAULT_WIDTH } = options;
    const { maxSenders = DEFAULT_MAX_SENDERS } = options;
    if (!(Number.isFinite(maxAgeMs) && maxAgeMs >= 0)) {
      throw outOfRange("maxAgeMs must be finite and at least 0", maxAgeMs);
    }
    if (!(Number.isInteger(width / 32) && width >= 32 && width <= MAX_WIDTH)) {
      throw outOfRange(`width must be a multiple of 32 from 32 to ${MAX_WIDTH}`, width);
    }
    if (!(Number.isSafeInteger(maxSenders) && maxSenders >= 1)) {
      throw outOfRange("maxSenders must be an integer above 0", maxSenders);
    }
    this.#maxAgeMs = maxAgeMs;
    this.#width = width;
    this.#maxSenders = maxSenders;
  }

  /** How many senders are remembered. */
  get senders(): number {
    return this.#senders.size;
  }

  /**
   * Why an envelope would be refused; undefined: it would be taken. Changes nothing, so it may be
   * asked before the signature is checked.
   *
   * @param nowMs Our wall clock, milliseconds since the epoch. It may jump.
   */
  check(
    sender: string,
    sequence: number,
    timestamp: number,
    nowMs: number,
  ): EnvelopeRefusal | undefined {
    if (!(timestamp >= nowMs - this.#maxAgeMs)) return "too-old";
    if (!(timestamp <= nowMs + this.#maxAgeMs)) return "too-new";
    const known = this.#senders.get(sender);
    if (known === undefined) return timestamp <= this.#forgotten ? "too-old" : undefined;
    if (sequence > known.highest) return undefined;
    if (known.highest - sequence >= this.#width) return "too-far-behind";
    return this.#has(known, sequence) ? "replayed" : undefined;
  }

  /** Takes an envelope, or says why not. Its signature must have been checked. */
  admit(
    sender: string,
    sequence: number,
    timestamp: number,
    nowMs: number,
  ): EnvelopeRefusal | undefined {
    const refusal = this.check(sender, sequence, timestamp, nowMs);
    if (refusal !== undefined) return refusal;
    const known = this.#senders.get(sender) ?? this.#newSender(sender, sequence, nowMs);
    if (known === undefined) return "too-many-senders";
    this.#advance(known, sequence);
    const bit = sequence % this.#width;
    known.bits[bit >>> 5]! |= 1 << (bit & 31);
    known.newest = Math.max(known.newest, timestamp);
    return undefined;
  }

  #has({ bits }: Sender, sequence: number): boolean {
    const bit = sequence % this.#width;
    return (bits[bit >>> 5]! & (1 << (bit & 31))) !== 0;
  }

  /** Moves the window up to a number, and clears the bits of those in between. */
  #advance(known: Sender, sequence: number): void {
    if (sequence <= known.highest) return;
    if (sequence - known.highest >= this.#width) known.bits.fill(0);
    else {
      for (let passed = known.highest + 1; passed <= sequence; passed++) {
        const bit = passed % this.#width;
        known.bits[bit >>> 5]! &= ~(1 << (bit & 31));
      }
    }
    known.highest = sequence;
  }

  #newSender(name: string, sequence: number, nowMs: number): Sender | undefined {
    if (this.#senders.size >= this.#maxSenders) this.#forgetSilent(nowMs);
    if (this.#senders.size >= this.#maxSenders) return undefined;
    const bits = new Uint32Array(this.#width / 32);
    const sender: Sender = { highest: sequence, newest: -Infinity, bits };
    this.#senders.set(name, sender);
    return sender;
  }

  #forgetSilent(nowMs: number): void {
    const oldest = nowMs - this.#maxAgeMs;
    for (const [name, { newest }] of this.#senders) {
      if (newest >= oldest) continue;
      this.#senders.delete(name);
      this.#forgotten = Math.max(this.#forgotten, newest);
    }
  }
}

function outOfRange(demand: string, value: number): RangeError {
  return new RangeError(`Cannot make an envelope window: ${demand}, got ${value}`);
}
