/**
 * Time and randomness as the library sees them. Tests and simulations give their own.
 *
 * @module
 */

import { Buffer } from "node:buffer";

/** The outside world of an endpoint beside its sockets. */
export interface Environment {
  /** Wall clock, milliseconds since the epoch. Used for handshake timestamps only. */
  wallClock(): number;
  /** Monotonic clock, milliseconds from an arbitrary start. Used for every deadline. */
  now(): number;
  /** Runs `callback` once, at least `delayMs` from now. Returns a function that cancels it. */
  setTimer(delayMs: number, callback: () => void): () => void;
  /** A number in [0, 1); jitter only, never secrets. */
  random(): number;
  /** Cryptographically strong random bytes. */
  randomBytes(length: number): Uint8Array;
  /**
   * Memory of its own for so many bytes, all of which will be written before anybody reads them:
   * whatever they hold. By default they are zeros.
   */
  readonly allocate?: (length: number) => Uint8Array;
}

/** `setTimeout` fires at once above this delay. */
const MAX_DELAY_MS = 2 ** 31 - 1;

/** The real clock, timers and randomness. */
export const systemEnvironment: Environment = {
  wallClock: () => Date.now(),
  now: () => performance.now(),
  setTimer: (delayMs, callback) => {
    const timer = setTimeout(callback, Math.min(Math.max(delayMs, 0), MAX_DELAY_MS));
    return () => clearTimeout(timer);
  },
  random: () => Math.random(),
  randomBytes: (length) => crypto.getRandomValues(new Uint8Array(length)),
  // Zeros for a message of 16 MiB take 0.9 ms on Node, and as long on Bun.
  allocate: (length) => new Uint8Array(Buffer.allocUnsafeSlow(length).buffer as ArrayBuffer),
};
