/**
 * Senders that wait for room among the messages of a peer.
 *
 * @module
 */

import { BackpressureError, type TransportError } from "../errors.ts";
import { Fifo } from "../protocol/fifo.ts";
import type { Tracker } from "../protocol/v3/out_message.ts";
import { BULK, type Lane, NORMAL } from "../protocol/v3/types.ts";

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
  readonly number: number;
  readonly payload: Uint8Array;
  readonly plan: SendPlan;
  readonly resolve: () => void;
  readonly reject: (reason: unknown) => void;
  readonly detach: () => void;
}

interface Mark {
  readonly number: number;
  readonly passed: () => void;
}

/** Why a message is not taken: its lane has its share, or there is no room at all. */
export type Refusal = "lane" | "total";

/** Senders in the order of coming; one that gives up leaves at once, with its payload. */
export class WaitingSends {
  /** Made when somebody waits: most peers take everything at once. */
  #lanes: readonly [Set<Waiter>, Set<Waiter>, Set<Waiter>] | undefined;
  #marks: Fifo<Mark> | undefined;
  #lastNumber = 0;
  #admitting = false;

  /** How many wait. */
  get size(): number {
    const lanes = this.#lanes;
    return lanes === undefined ? 0 : lanes[0].size + lanes[1].size + lanes[2].size;
  }

  /** The bytes of the message that is next in a lane; undefined where none waits. */
  nextOf(lane: Lane): number | undefined {
    return this.#lanes === undefined ? undefined : first(this.#lanes[lane])?.payload.length;
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
    const waiters = (this.#lanes ??= [new Set(), new Set(), new Set()])[plan.lane];
    return new Promise((resolve, reject) => {
      const onAbort = () => {
        waiters.delete(waiter);
        reject(signal?.reason);
        this.#tellPassed();
      };
      const detach = () => signal?.removeEventListener("abort", onAbort);
      const number = ++this.#lastNumber;
      const waiter: Waiter = { number, payload, plan, resolve, reject, detach };
      signal?.addEventListener("abort", onAbort, { once: true });
      waiters.add(waiter);
    });
  }

  /**
   * Lets waiting senders in, in their order, as long as `take` takes their messages. Who is refused
   * for its lane holds back its lane; who is refused altogether holds back all but what is urgent.
   */
  admit(take: (payload: Uint8Array, plan: SendPlan) => Refusal | undefined): void {
    // Taking one can make room for the next: whoever is being taken must not be offered again.
    const lanes = this.#lanes;
    if (lanes === undefined || this.#admitting) return;
    this.#admitting = true;
    const open = [true, true, true];
    for (let next = nextOf(lanes, open); next !== undefined; next = nextOf(lanes, open)) {
      const { lane } = next.plan;
      let failure: unknown;
      try {
        const refusal = take(next.payload, next.plan);
        if (refusal !== undefined) {
          open[lane] = false;
          if (refusal === "total") open[NORMAL] = open[BULK] = false;
          continue;
        }
      } catch (error) {
        failure = error;
      }
      lanes[lane].delete(next);
      next.detach();
      if (failure === undefined) next.resolve();
      else next.reject(failure);
    }
    this.#admitting = false;
    this.#tellPassed();
  }

  /** Calls `passed` once everybody who waits now does not any more. Forgotten by `fail`. */
  whenPassed(passed: () => void): void {
    if (this.size === 0) return passed();
    (this.#marks ??= new Fifo()).push({ number: this.#lastNumber, passed });
  }

  #tellPassed(): void {
    const marks = this.#marks;
    if (marks === undefined || this.#lanes === undefined) return;
    const oldest = Math.min(...this.#lanes.map((waiters) => first(waiters)?.number ?? Infinity));
    for (let mark = marks.peek(); mark !== undefined; mark = marks.peek()) {
      if (mark.number >= oldest) return;
      marks.shift();
      mark.passed();
    }
  }

  /** Turns every waiting sender away. */
  fail(error: TransportError): void {
    for (const waiters of this.#lanes ?? []) {
      for (const waiter of waiters) {
        waiter.detach();
        waiter.reject(error);
      }
      waiters.clear();
    }
    this.#marks = undefined;
  }
}

/** The urgent ones first, then who came first. */
function nextOf(
  lanes: readonly ReadonlySet<Waiter>[],
  open: readonly boolean[],
): Waiter | undefined {
  const [control, normal, bulk] = lanes.map((waiters, lane) =>
    open[lane] ? first(waiters) : undefined
  );
  if (control !== undefined) return control;
  if (normal === undefined || bulk === undefined) return normal ?? bulk;
  return normal.number < bulk.number ? normal : bulk;
}

function first(waiters: ReadonlySet<Waiter>): Waiter | undefined {
  for (const waiter of waiters) return waiter;
  return undefined;
}
