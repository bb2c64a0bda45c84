/**
 * Messages that wait for a connection of their peer, and senders that wait for room among them.
 *
 * @module
 */

import { BackpressureError, type TransportError } from "../errors.ts";
import { Fifo } from "./fifo.ts";

/** Sends that may wait for room at one time, per peer; one more is refused. */
export const MAX_WAITING_SENDS = 65_536;

interface Waiter {
  readonly payload: Uint8Array;
  readonly resolve: () => void;
  readonly reject: (reason: unknown) => void;
  readonly detach: () => void;
}

/** A bounded queue of payloads, in messages and in bytes. */
export class SendQueue {
  readonly #payloads = new Fifo<Uint8Array>();
  /** In the order of coming; one that gives up leaves at once, with its payload. */
  readonly #waiters = new Set<Waiter>();
  readonly #maxMessages: number;
  readonly #maxBytes: number;
  #bytes = 0;

  /** Both limits count what waits, here and in the connection. */
  constructor(maxMessages: number, maxBytes: number) {
    this.#maxMessages = maxMessages;
    this.#maxBytes = maxBytes;
  }

  /** Messages that wait. */
  get length(): number {
    return this.#payloads.length;
  }

  /** Their bytes. */
  get bytes(): number {
    return this.#bytes;
  }

  /** Senders that wait for room. */
  get waiting(): number {
    return this.#waiters.size;
  }

  /** Whether a message of `size` bytes fits beside what the connection still holds. */
  fits(size: number, heldMessages: number, heldBytes: number): boolean {
    return this.length + heldMessages < this.#maxMessages &&
      this.#bytes + heldBytes + size <= this.#maxBytes;
  }

  /** Takes a copy of a message, whatever the limits say; the caller has asked `fits`. */
  push(payload: Uint8Array): void {
    this.#payloads.push(payload.slice());
    this.#bytes += payload.length;
  }

  /** The next message, or undefined. */
  shift(): Uint8Array | undefined {
    const payload = this.#payloads.shift();
    if (payload !== undefined) this.#bytes -= payload.length;
    return payload;
  }

  /** Waits for room. Rejects with the signal's reason, or with what `failWaiting` is given. */
  wait(payload: Uint8Array, peer: string, signal: AbortSignal | undefined): Promise<void> {
    if (this.waiting >= MAX_WAITING_SENDS) {
      return Promise.reject(
        new BackpressureError("Cannot send: too many sends wait already", this.waiting, { peer }),
      );
    }
    return new Promise((resolve, reject) => {
      const onAbort = () => {
        this.#waiters.delete(waiter);
        reject(signal?.reason);
      };
      const detach = () => signal?.removeEventListener("abort", onAbort);
      const waiter: Waiter = { payload, resolve, reject, detach };
      signal?.addEventListener("abort", onAbort, { once: true });
      this.#waiters.add(waiter);
    });
  }

  /** Lets waiting senders in, in their order, as long as `offer` takes their payloads. */
  admit(offer: (payload: Uint8Array) => boolean): void {
    for (const waiter of this.#waiters) {
      if (!offer(waiter.payload)) return;
      this.#waiters.delete(waiter);
      waiter.detach();
      waiter.resolve();
    }
  }

  /** Turns every waiting sender away. */
  failWaiting(error: TransportError): void {
    for (const waiter of this.#waiters) {
      waiter.detach();
      waiter.reject(error);
    }
    this.#waiters.clear();
  }
}
