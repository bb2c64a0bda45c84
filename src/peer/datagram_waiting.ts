/**
 * What waits until a packet for one peer may be sent: messages, and answers to its requests.
 *
 * @module
 */

import type { Answer } from "../protocol/datagram/answers.ts";
import { readAnswer } from "../protocol/datagram/packet.ts";
import type { PacketKind } from "../protocol/datagram/types.ts";
import { type Lane, LANE_NAMES } from "../protocol/v3/types.ts";
import type { SendPlan } from "./send_queue.ts";

/** What became of a message that was offered. */
export type Offered = "sent" | "lost" | "full";

/** Answers that wait for their turn; the requester asks again for what is dropped. */
const MAX_ANSWERS = 256;
const MAX_ANSWER_BYTES = 1_048_576;

/** A message that waits for room. */
interface WaitingMessage {
  readonly payload: Uint8Array;
  readonly plan: SendPlan;
  readonly resolve: () => void;
  readonly reject: (reason: unknown) => void;
}

/** Messages that wait for room, with those who wait for them. */
export class WaitingMessages {
  readonly #waiting = new Set<WaitingMessage>();

  /** Waits with a message until it was sent or lost. */
  add(payload: Uint8Array, plan: SendPlan, signal: AbortSignal | undefined): Promise<void> {
    return new Promise((resolve, reject) => {
      const onAbort = () => waiting.reject(signal?.reason);
      const leave = () => {
        this.#waiting.delete(waiting);
        signal?.removeEventListener("abort", onAbort);
      };
      const waiting: WaitingMessage = {
        payload,
        plan,
        resolve: () => {
          leave();
          resolve();
        },
        reject: (reason) => {
          leave();
          reject(reason);
        },
      };
      this.#waiting.add(waiting);
      signal?.addEventListener("abort", onAbort, { once: true });
    });
  }

  /** Offers what waits, the oldest first; what `offer` throws is why that message fails. */
  pump(offer: (payload: Uint8Array, plan: SendPlan) => Offered): void {
    const full = new Set<Lane>();
    for (const waiting of this.#waiting) {
      const { lane } = waiting.plan;
      // A lane that waits for its own limit must not hold up others.
      if (full.has(lane)) continue;
      try {
        if (offer(waiting.payload, waiting.plan) === "full") full.add(lane);
        else waiting.resolve();
        if (full.size === LANE_NAMES.length) return;
      } catch (error) {
        waiting.reject(error);
      }
    }
  }

  /** Nothing can be sent any more. */
  fail(error: unknown): void {
    for (const waiting of this.#waiting) waiting.reject(error);
  }
}

/** Answers whose turn has not come. */
export class WaitingAnswers {
  /** By request. */
  readonly #answers = new Map<number, Answer>();
  #bytes = 0;

  /** How many there are. */
  get size(): number {
    return this.#answers.size;
  }

  /** Keeps an answer, once for each request; false: there is no room. */
  add(kind: PacketKind, body: Uint8Array): boolean {
    const { id } = readAnswer(body);
    if (this.#answers.has(id)) return true;
    const bytes = this.#bytes + body.length;
    if (this.#answers.size >= MAX_ANSWERS || bytes > MAX_ANSWER_BYTES) return false;
    this.#answers.set(id, { kind, body });
    this.#bytes = bytes;
    return true;
  }

  /** Sends what waits, the oldest first, while it `may`. */
  pump(may: () => boolean, send: (answer: Answer) => void): void {
    for (const [id, answer] of this.#answers) {
      if (!may()) return;
      this.#answers.delete(id);
      this.#bytes -= answer.body.length;
      send(answer);
    }
  }

  /** Nobody waits for them any more. */
  clear(): void {
    this.#answers.clear();
    this.#bytes = 0;
  }
}
