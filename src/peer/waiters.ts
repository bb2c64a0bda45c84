/**
 * Promises that settle together, with signals that take one of them out.
 *
 * @module
 */

import type { TransportError } from "../errors.ts";

/** What is returned where there is nothing to wait for. */
export const DONE: Promise<void> = Promise.resolve();

/** One who waits. */
export interface Waiter {
  readonly resolve: () => void;
  readonly reject: (reason: unknown) => void;
}

/** Callers that wait for the same thing. */
export class WaiterSet {
  /** Made when somebody waits: most sets never have anybody. */
  #waiters: Set<Waiter> | undefined;

  /** How many wait. */
  get size(): number {
    return this.#waiters?.size ?? 0;
  }

  /**
   * Waits until all are resolved or rejected, or the signal says no. `begun` may keep the waiter to
   * settle it alone.
   */
  wait(signal?: AbortSignal, begun?: (waiter: Waiter) => void): Promise<void> {
    return new Promise((resolve, reject) => {
      const leave = () => {
        this.#waiters?.delete(waiter);
        signal?.removeEventListener("abort", onAbort);
      };
      const onAbort = () => waiter.reject(signal?.reason);
      const waiter: Waiter = {
        resolve: () => {
          leave();
          resolve();
        },
        reject: (reason) => {
          leave();
          reject(reason);
        },
      };
      signal?.addEventListener("abort", onAbort, { once: true });
      (this.#waiters ??= new Set()).add(waiter);
      begun?.(waiter);
    });
  }

  /** Lets all go on. */
  resolveAll(): void {
    for (const waiter of [...this.#waiters ?? []]) waiter.resolve();
  }

  /** Turns all away. */
  rejectAll(error: TransportError): void {
    for (const waiter of [...this.#waiters ?? []]) waiter.reject(error);
  }
}
