/** Requests: who asks, what is checked of each answer, and the clock. */

import { newMessage, readStamp, stamp } from "../net_case.ts";
import type { PeerResult, PeerTask } from "./case.ts";

/** Numbers the requests, checks the answers, and knows when it is over. */
class Tally {
  readonly #task: PeerTask;
  readonly #warmUntil: number;
  readonly #until: number;
  readonly #micros: number[] = [];
  #next = 0;
  #answers = 0;
  #measuredFrom = 0;
  #measuredTo = 0;

  constructor(task: PeerTask) {
    this.#task = task;
    this.#warmUntil = performance.now() + task.warmUpMs;
    this.#until = this.#warmUntil + task.measureMs;
  }

  /** The number of the next request; undefined if there is to be none any more. */
  next(): number | undefined {
    return this.#measuredTo === 0 ? this.#next++ : undefined;
  }

  /** An answer to the request with this number, which began then. */
  take(number: number, begunAt: number, answer: Uint8Array): void {
    const { bytes, inFlight } = this.#task;
    const got = answer.length >= 4 ? readStamp(answer, 0) : NaN;
    if (answer.length !== bytes || got !== number) {
      throw new Error(`an answer of ${answer.length} bytes to ${got} came instead of ${number}`);
    }
    const now = performance.now();
    if (this.#measuredFrom === 0) {
      if (now >= this.#warmUntil) this.#measuredFrom = now;
      return;
    }
    if (this.#measuredTo !== 0) return;
    this.#answers++;
    if (inFlight === 1) this.#micros.push((now - begunAt) * 1000);
    if (now >= this.#until) this.#measuredTo = now;
  }

  result(): PeerResult {
    const seconds = (this.#measuredTo - this.#measuredFrom) / 1000;
    const answersPerSecond = this.#answers / seconds;
    if (this.#micros.length === 0) return { answersPerSecond };
    const sorted = Float64Array.from(this.#micros).sort();
    const at = (share: number) => sorted[Math.floor((sorted.length - 1) * share)]!;
    return { answersPerSecond, p50: at(0.5), p99: at(0.99) };
  }
}

/** Asks through an API that promises the answer; as many loops as may wait at the same time. */
export async function askPromised(
  task: PeerTask,
  ask: (message: Uint8Array) => Promise<Uint8Array>,
): Promise<PeerResult> {
  const tally = new Tally(task);
  const template = newMessage(task.bytes);
  const loop = async () => {
    for (let number = tally.next(); number !== undefined; number = tally.next()) {
      const message = template.slice();
      stamp(message, 0, number);
      const begunAt = performance.now();
      tally.take(number, begunAt, await ask(message));
    }
  };
  await Promise.all(Array.from({ length: task.inFlight }, loop));
  return tally.result();
}

/** Asks over a channel that keeps the order and knows no requests: the answers come in order. */
export class OrderedRequests {
  /** What was measured; rejects if an answer is wrong. */
  readonly result: Promise<PeerResult>;
  readonly #tally: Tally;
  readonly #template: Uint8Array;
  readonly #begunAt: Float64Array;
  readonly #resolve: (result: PeerResult) => void;
  readonly #reject: (error: unknown) => void;
  #asked = 0;
  #answered = 0;

  constructor(task: PeerTask) {
    this.#tally = new Tally(task);
    this.#template = newMessage(task.bytes);
    this.#begunAt = new Float64Array(task.inFlight);
    const { promise, resolve, reject } = Promise.withResolvers<PeerResult>();
    this.result = promise;
    this.#resolve = resolve;
    this.#reject = reject;
  }

  /** The next request, if one may be sent now; to be called until none may. */
  next(): Uint8Array | undefined {
    if (this.#asked - this.#answered >= this.#begunAt.length) return undefined;
    const number = this.#tally.next();
    if (number === undefined) {
      if (this.#asked === this.#answered) this.#resolve(this.#tally.result());
      return undefined;
    }
    this.#asked = number + 1;
    this.#begunAt[number % this.#begunAt.length] = performance.now();
    const message = this.#template.slice();
    stamp(message, 0, number);
    return message;
  }

  /** Takes the next answer. */
  take(answer: Uint8Array): void {
    const number = this.#answered++;
    try {
      this.#tally.take(number, this.#begunAt[number % this.#begunAt.length]!, answer);
    } catch (error) {
      this.#reject(error);
    }
  }

  /** The channel has failed. */
  fail(error: unknown): void {
    this.#reject(error);
  }
}

/** Checks a request before it is answered. */
export function checkRequest(task: PeerTask, message: Uint8Array): void {
  if (message.length !== task.bytes) {
    throw new Error(`a request has ${message.length} bytes`);
  }
}
