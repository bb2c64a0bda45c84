/**
 * The requests of a peer that run here or have been answered, so that none runs twice.
 *
 * @module
 */

import { NumberWindow } from "./number_window.ts";
import type { PacketKind } from "./types.ts";

/** An answer as it is sent: its kind and body. */
export interface Answer {
  /** Response or error. */
  readonly kind: PacketKind;
  /** The body of the packet. */
  readonly body: Uint8Array;
}

/** What is to be done with a request. */
export type Admission =
  /** Run it. */
  | "run"
  /** It runs already, or its answer is not wanted any more. */
  | "ignore"
  /** It was run, or may have been, and its answer is forgotten. */
  | "forgotten"
  /** It was answered. */
  | Answer;

/** Bounds of what is remembered of one peer. */
export interface AnswersOptions {
  /** Answers. */
  readonly maxAnswers: number;
  /** Bytes of answers. */
  readonly maxBytes: number;
  /** How long an answer is kept, milliseconds. */
  readonly maxAgeMs: number;
  /** What the tables of all peers have together. */
  readonly budget: AnswerBudget;
}

/** Bytes of answers that several tables share. */
export interface AnswerBudget {
  /** Bytes that are kept now. */
  bytes: number;
  /** The most. */
  readonly maxBytes: number;
}

interface Entry {
  answer: Answer | undefined;
  at: number;
}

/** Request numbers that are remembered: far more than answers. */
const WINDOW = 16_384;

/** The table. Answers are forgotten, oldest first; that a request was there is remembered longer. */
export class Answers {
  readonly #options: AnswersOptions;
  readonly #seen = new NumberWindow(WINDOW);
  readonly #running = new Set<number>();
  /** In the order in which they were answered. */
  readonly #answered = new Map<number, Entry>();
  #bytes = 0;

  /** Makes an empty table. */
  constructor(options: AnswersOptions) {
    this.#options = options;
  }

  /** Answers that are kept. */
  get size(): number {
    return this.#answered.size;
  }

  /** Their bytes. */
  get bytes(): number {
    return this.#bytes;
  }

  /** When there is something to forget; Infinity where there is nothing. */
  get nextTimeout(): number {
    for (const { at } of this.#answered.values()) return at + this.#options.maxAgeMs;
    return Infinity;
  }

  /** Takes a request in, by its number. */
  admit(id: number, now: number): Admission {
    this.handleTimeout(now);
    if (this.#running.has(id)) return "ignore";
    const entry = this.#answered.get(id);
    if (entry !== undefined) return entry.answer ?? "ignore";
    if (this.#seen.take(id) !== "new") return "forgotten";
    this.#running.add(id);
    return "run";
  }

  /** A request is answered; undefined: an answer is not wanted any more. */
  settle(id: number, answer: Answer | undefined, now: number): void {
    if (!this.#running.delete(id)) return;
    this.#answered.set(id, { answer, at: now });
    this.#count(answer, 1);
    const { maxAnswers, maxBytes, budget } = this.#options;
    while (
      this.#answered.size > maxAnswers || this.#bytes > maxBytes ||
      this.#bytes > 0 && budget.bytes > budget.maxBytes
    ) this.#forgetFirst();
  }

  /** Forgets all answers. */
  clear(): void {
    while (this.#answered.size > 0) this.#forgetFirst();
  }

  /** Forgets what is old. */
  handleTimeout(now: number): void {
    for (const { at } of this.#answered.values()) {
      if (now < at + this.#options.maxAgeMs) return;
      this.#forgetFirst();
    }
  }

  #forgetFirst(): void {
    for (const [id, { answer }] of this.#answered) {
      this.#answered.delete(id);
      this.#count(answer, -1);
      return;
    }
  }

  #count(answer: Answer | undefined, sign: 1 | -1): void {
    const bytes = sign * (answer?.body.length ?? 0);
    this.#bytes += bytes;
    this.#options.budget.bytes += bytes;
  }
}
