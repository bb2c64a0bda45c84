/**
 * One attempt to connect: link, identity, handshake, all within one deadline.
 *
 * @module
 */

import { HandshakeError, TransportError } from "../errors.ts";
import type { Rejection } from "../protocol/connection.ts";
import type { Link } from "../transport/transport.ts";
import { discard } from "./discard.ts";
import { Driver, type DriverConfig, type DriverOwner } from "./driver.ts";
import { allFailed, type Failures, race, type Winner } from "./race.ts";

/** A handshake has at least this long, or half of the time, before other addresses have a turn. */
const MIN_TURN_MS = 1_000;

/** What one attempt needs. */
export interface DialPlan {
  readonly nodeId: string;
  /** Where the node may be, at least one address, in the order in which they are tried. */
  readonly addresses: readonly string[];
  readonly timeoutMs: number;
  /** Ends the attempt from outside. */
  readonly signal: AbortSignal;
  setTimer(delayMs: number, callback: () => void): () => void;
  openLink(address: string, signal: AbortSignal): Promise<Link>;
  /** An address came to nothing; not where the attempt was given up. */
  onFailed(address: string): void;
  /** The link is there: verifies whom it leads to, or throws. */
  onLink(link: Link, address: string): void;
  newConfig(link: Link): DriverConfig;
  /** The handshake is complete; no message has been delivered yet. */
  attach(driver: Driver): void;
}

/**
 * Resolves with the address in use when the connection is established and attached. Links are
 * raced, handshakes are not: where one fails, the addresses that are left have their turn.
 */
export async function dial(plan: DialPlan): Promise<string> {
  const abort = new AbortController();
  const stop = () => abort.abort(plan.signal.reason);
  plan.signal.addEventListener("abort", stop, { once: true });
  if (plan.signal.aborted) stop();
  const failures: Failures = new Map();
  /** Where an attempt is under way. */
  const trying = new Set<string>();
  const cancelTimer = plan.setTimer(plan.timeoutMs, () => {
    abort.abort(tooLate(plan, failures, trying));
    for (const address of trying) plan.onFailed(address);
  });
  const onFailed = (address: string) => {
    trying.delete(address);
    plan.onFailed(address);
  };
  try {
    while (true) {
      const addresses = plan.addresses.filter((address) => !failures.has(address));
      if (addresses.length === 0) throw allFailed(plan.nodeId, failures);
      const winner = await race({
        addresses,
        signal: abort.signal,
        open: (address, signal) => {
          trying.add(address);
          return plan.openLink(address, signal);
        },
        setTimer: (delayMs, callback) => plan.setTimer(delayMs, callback),
        onFailed,
      }, failures);
      if (winner === undefined) continue;
      trying.clear();
      trying.add(winner.address);
      try {
        await establish(winner, plan, abort.signal, addresses.length > 1);
        return winner.address;
      } catch (error) {
        if (abort.signal.aborted) throw error;
        failures.set(winner.address, error);
        onFailed(winner.address);
      }
    }
  } finally {
    cancelTimer();
    plan.signal.removeEventListener("abort", stop);
  }
}

function tooLate(
  { nodeId, addresses, timeoutMs }: DialPlan,
  failures: Failures,
  trying: ReadonlySet<string>,
): TransportError {
  const [address] = addresses;
  if (addresses.length === 1) {
    return noAnswer(nodeId, address!, timeoutMs);
  }
  const list = addresses.map((address) => {
    const error = failures.get(address);
    const silent = trying.has(address) ? "no answer" : "not tried";
    return `${address}: ${error instanceof Error ? error.message : silent}`;
  });
  const text = `Cannot connect to ${nodeId} within ${timeoutMs} ms: ${list.join("; ")}`;
  return new TransportError("NegotiationTimeout", text, {
    peer: nodeId,
    cause: new AggregateError([...failures.values()], text),
  });
}

function noAnswer(nodeId: string, address: string, withinMs: number): TransportError {
  const text = `Cannot connect to ${nodeId} at ${address}: no answer within ${withinMs} ms`;
  return new TransportError("Timeout", text, { peer: nodeId });
}

async function establish(
  { link, address }: Winner,
  plan: DialPlan,
  signal: AbortSignal,
  othersWait: boolean,
): Promise<void> {
  try {
    signal.throwIfAborted();
    plan.onLink(link, address);
  } catch (error) {
    discard(link);
    throw error;
  }
  const { timeoutMs, addresses } = plan;
  const turn = Math.max(timeoutMs / addresses.length, Math.min(MIN_TURN_MS, timeoutMs / 2));
  await handshake(link, address, plan, signal, othersWait ? turn : undefined);
}

function handshake(
  link: Link,
  address: string,
  plan: DialPlan,
  signal: AbortSignal,
  withinMs: number | undefined,
): Promise<void> {
  return new Promise((resolve, reject) => {
    const onAbort = () => driver.close(asError(signal.reason, plan));
    signal.addEventListener("abort", onAbort, { once: true });
    // Who accepts and says nothing must not keep the other addresses from their turn.
    const cancelTurn = withinMs === undefined ? () => {} : plan.setTimer(
      Math.ceil(withinMs),
      () => driver.close(noAnswer(plan.nodeId, address, Math.ceil(withinMs))),
    );
    const owner = new Handshaking(
      (attached) => {
        signal.removeEventListener("abort", onAbort);
        cancelTurn();
        plan.attach(attached);
        resolve();
      },
      (error) => {
        signal.removeEventListener("abort", onAbort);
        cancelTurn();
        reject(lostInHandshake(error, plan.nodeId, address));
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

function lostInHandshake(
  error: TransportError | undefined,
  nodeId: string,
  address: string,
): TransportError {
  if (error !== undefined && error.code !== "ConnectionClosed") return error;
  return new HandshakeError(
    `Cannot connect to ${nodeId} at ${address}: the connection was lost before the ` +
      "listener answered; it may have refused our certificate, or be overloaded",
    undefined,
    { peer: nodeId, cause: error, retryable: true },
  );
}

function asError(reason: unknown, plan: DialPlan): TransportError {
  if (reason instanceof TransportError) return reason;
  return new TransportError("ConnectionFailed", `Cannot connect to ${plan.nodeId}: given up`, {
    peer: plan.nodeId,
    cause: reason,
  });
}
