/**
 * Senders that wait for room among the messages of a peer.
 *
 * @module
 */

import { BackpressureError, type TransportError } from "../errors.ts";
import type { Tracker } from "../protocol/v3/out_message.ts";
import type { Lane } from "../protocol/v3/types.ts";

/** Sends that may wait for room at one time, per peer; one more is refused. */
export const MAX_WAITING_SENDS = 65_536;

/** How a message is to be sent. */
export interface SendPlan {
  readonly lane: Lane;
  readonly topic: Uint8Array | undefined;
  readonly atMostOnce: boolean;
  readonly tracker: Tracker | undefined;
}

interface Waiter {
  readonly payload: Uint8Array;
  readonly plan: SendPlan;
  readonly resolve: () => void;
  readonly reject: (reason: unknown) => void;
  readonly detach: () => void;
}

/** Senders in the order of coming; one that gives up leaves at once, with its payload. */
export class WaitingSends {
  readonly #waiters = new Set<Waiter>();

  /** How many wait. */
  get size(): number {
    return this.#waiters.size;
  }

  /** Waits for room. Rejects with the signal's reason, or with what `fail` is given. */
  wait(
    payload: Uint8Array,
    plan: SendPlan,
    peer: string,
    signal: AbortSignal | undefined,
  ): Promise<void> {
    if (this.size >= MAX_WAITING_SENDS) {
      return Promise.reject(
        new BackpressureError("Cannot send: too many sends wait already", this.size, { peer }),
      );
    }
    return new Promise((resolve, reject) => {
      const onAbort = () => {
        this.#waiters.delete(waiter);
        reject(signal?.reason);
      };
      const detach = () => signal?.removeEventListener("abort", onAbort);
      const waiter: Waiter = { payload, plan, resolve, reject, detach };
      signal?.addEventListener("abort", onAbort, { once: true });
      this.#waiters.add(waiter);
    });
  }

  /** Lets waiting senders in, in their order, as long as `offer` takes their messages. */
  admit(offer: (payload: Uint8Array, plan: SendPlan) => boolean): void {
    for (const waiter of this.#waiters) {
      if (!offer(waiter.payload, waiter.plan)) return;
      this.#waiters.delete(waiter);
      waiter.detach();
      waiter.resolve();
    }
  }

  /** Turns every waiting sender away. */
  fail(error: TransportError): void {
    for (const waiter of this.#waiters) {
      waiter.detach();
      waiter.reject(error);
    }
    this.#waiters.clear();
  }
}
