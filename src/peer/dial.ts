/**
 * One attempt to connect: link, identity, handshake, all within one deadline.
 *
 * @module
 */

import { HandshakeError, TransportError } from "../errors.ts";
import type { Rejection } from "../protocol/connection.ts";
import type { Link } from "../transport/transport.ts";
import { Driver, type DriverConfig, type DriverOwner } from "./driver.ts";

/** What one attempt needs. */
export interface DialPlan {
  readonly nodeId: string;
  readonly address: string;
  readonly timeoutMs: number;
  /** Ends the attempt from outside. */
  readonly signal: AbortSignal;
  setTimer(delayMs: number, callback: () => void): () => void;
  openLink(signal: AbortSignal): Promise<Link>;
  /** The link is there: verifies whom it leads to, or throws. */
  onLink(link: Link): void;
  newConfig(link: Link): DriverConfig;
  /** The handshake is complete; no message has been delivered yet. */
  attach(driver: Driver): void;
}

/** Resolves when the connection is established and attached. */
export async function dial(plan: DialPlan): Promise<void> {
  const abort = new AbortController();
  const stop = () => abort.abort(plan.signal.reason);
  plan.signal.addEventListener("abort", stop, { once: true });
  if (plan.signal.aborted) stop();
  const cancelTimer = plan.setTimer(plan.timeoutMs, () => {
    abort.abort(
      new TransportError(
        "Timeout",
        `Cannot connect to ${plan.nodeId} at ${plan.address}: no answer within ${plan.timeoutMs} ms`,
        { peer: plan.nodeId },
      ),
    );
  });
  try {
    const link = await plan.openLink(abort.signal);
    try {
      abort.signal.throwIfAborted();
      plan.onLink(link);
    } catch (error) {
      discard(link);
      throw error;
    }
    await handshake(link, plan, abort.signal);
  } finally {
    cancelTimer();
    plan.signal.removeEventListener("abort", stop);
  }
}

function handshake(link: Link, plan: DialPlan, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const onAbort = () => driver.close(asError(signal.reason, plan));
    signal.addEventListener("abort", onAbort, { once: true });
    const owner = new Handshaking(
      (attached) => {
        signal.removeEventListener("abort", onAbort);
        plan.attach(attached);
        resolve();
      },
      (error) => {
        signal.removeEventListener("abort", onAbort);
        reject(lostInHandshake(error, plan));
      },
    );
    const driver = new Driver(link, plan.newConfig(link), owner);
  });
}

/** Owns a driver until its handshake is complete. */
class Handshaking implements DriverOwner {
  readonly #onDone: (driver: Driver) => void;
  readonly #onFailed: (error: TransportError | undefined) => void;

  constructor(
    onDone: (driver: Driver) => void,
    onFailed: (error: TransportError | undefined) => void,
  ) {
    this.#onDone = onDone;
    this.#onFailed = onFailed;
  }

  onEstablished(driver: Driver): void {
    this.#onDone(driver);
  }

  onClosed(_: Driver, error: TransportError | undefined): void {
    this.#onFailed(error);
  }

  onIdentity(): Rejection | undefined {
    return undefined;
  }

  onHello(): Rejection | undefined {
    return undefined;
  }

  wantsMessage(): boolean {
    return true;
  }

  onMessage(): void {}
  onWritable(): void {}
  onFlushed(): void {}
  onSilent(): void {}
  onPeerEnd(): void {}
}

/** A link that nobody wants: its end concerns nobody either. */
export function discard(link: Link): void {
  link.open({ onData() {}, onDrain() {}, onEnd() {}, onClose() {} });
  link.close();
}

function lostInHandshake(error: TransportError | undefined, plan: DialPlan): TransportError {
  if (error !== undefined && error.code !== "ConnectionClosed") return error;
  return new HandshakeError(
    `Cannot connect to ${plan.nodeId} at ${plan.address}: the connection was lost before the ` +
      "listener answered; it may have refused our certificate, or be overloaded",
    undefined,
    { peer: plan.nodeId, cause: error, retryable: true },
  );
}

function asError(reason: unknown, plan: DialPlan): TransportError {
  if (reason instanceof TransportError) return reason;
  return new TransportError("ConnectionFailed", `Cannot connect to ${plan.nodeId}: given up`, {
    peer: plan.nodeId,
    cause: reason,
  });
}
