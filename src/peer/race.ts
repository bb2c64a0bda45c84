/**
 * Which of a peer's addresses a link comes about on first, staggered as in Happy Eyeballs
 * (RFC 8305): the best is tried first, the next one when it has failed or has taken its time.
 *
 * @module
 */

import { HandshakeError, TransportError } from "../errors.ts";
import type { Link } from "../transport/transport.ts";
import { discard } from "./discard.ts";

/** RFC 8305, section 5: the recommended delay between two attempts. */
export const STAGGER_MS = 250;

/** What a race needs. */
export interface RacePlan {
  /** In the order in which they are tried. */
  readonly addresses: readonly string[];
  /** Ends all attempts. */
  readonly signal: AbortSignal;
  open(address: string, signal: AbortSignal): Promise<Link>;
  setTimer(delayMs: number, callback: () => void): () => void;
  /** There is no link at an address. */
  onFailed(address: string): void;
}

/** A link, and what it was opened on. */
export interface Winner {
  readonly link: Link;
  readonly address: string;
}

/** Why each of the addresses failed, in the order in which they did. */
export type Failures = Map<string, unknown>;

/**
 * Resolves with the first link; the other attempts are given up, and a link that comes too late is
 * closed. Undefined: every address failed, and `failures` says why.
 *
 * @throws `signal.reason` when it was aborted.
 */
export function race(plan: RacePlan, failures: Failures): Promise<Winner | undefined> {
  return new Promise((resolve, reject) => {
    const { addresses, signal } = plan;
    const attempts = new Set<AbortController>();
    let next = 0;
    let over = false;
    let cancelTimer = () => {};

    const finish = (): void => {
      over = true;
      cancelTimer();
      signal.removeEventListener("abort", onAbort);
      if (attempts.size === 0) return;
      const reason = signal.aborted ? signal.reason : new Error("another address was faster");
      for (const attempt of attempts) attempt.abort(reason);
    };
    const onAbort = (): void => {
      finish();
      reject(signal.reason);
    };
    const start = (): void => {
      cancelTimer();
      const address = addresses[next++];
      if (address === undefined) return;
      if (next < addresses.length) cancelTimer = plan.setTimer(STAGGER_MS, start);
      const attempt = new AbortController();
      attempts.add(attempt);
      plan.open(address, attempt.signal).then(
        (link) => {
          attempts.delete(attempt);
          if (over) return discard(link);
          finish();
          resolve({ link, address });
        },
        (error) => {
          attempts.delete(attempt);
          if (over) return;
          failures.set(address, error);
          plan.onFailed(address);
          if (next < addresses.length) return start();
          if (attempts.size > 0) return;
          finish();
          resolve(undefined);
        },
      );
    };

    if (signal.aborted) return onAbort();
    signal.addEventListener("abort", onAbort);
    start();
  });
}

/** All that went wrong in one error; of one address alone, that error itself. */
export function allFailed(nodeId: string, failures: Failures): unknown {
  if (failures.size < 2) return [...failures.values()][0];
  const errors = [...failures.values()].map(typed);
  const list = errors.map((error, i) => `${[...failures.keys()][i]}: ${error.message}`).join("; ");
  const text = `Cannot connect to ${nodeId} at any of its addresses: ${list}`;
  const options = { peer: nodeId, cause: new AggregateError(errors, text) };
  // Who has answered, if only to say no, knows more than an address where nobody is.
  const answered = errors.find((error) => error instanceof HandshakeError);
  if (answered !== undefined) {
    return new HandshakeError(text, answered.rejectCode, {
      ...options,
      retryable: errors.some((error) => error.retryable),
    });
  }
  const [{ code }] = errors as [TransportError];
  const same = errors.every((error) => error.code === code);
  return new TransportError(same ? code : "ConnectionFailed", text, {
    ...options,
    retryable: errors.some((error) => error.retryable),
  });
}

function typed(error: unknown): TransportError {
  if (error instanceof TransportError) return error;
  return new TransportError("ConnectionFailed", "the attempt was given up", { cause: error });
}
