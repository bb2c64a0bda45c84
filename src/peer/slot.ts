/**
 * One dialed place in a peer's pool: dials, keeps the connection, dials again when it is lost.
 *
 * @module
 */

import { HandshakeError, TransportError } from "../errors.ts";
import type { Backoff } from "../protocol/backoff.ts";
import type { Driver } from "./driver.ts";
import type { Lifecycle } from "./lifecycle.ts";

/** A connection that lived this long ends the series of failed attempts before it. */
const STABLE_MS = 1_000;

/**
 * Why a connection is renewed: it was silent and may be dead, it is as old as one may become, or a
 * better address may lead to the peer.
 */
export type RenewalReason = "silent" | "old" | "better";

const REASONS: Readonly<Record<RenewalReason, string>> = {
  silent: "renewed after silence",
  old: "the end of its lifetime",
  better: "a better address",
};

/** One attempt to connect. */
export interface DialAttempt {
  /** Told "handshaking" when bytes can flow; other changes are the slot's. */
  readonly lifecycle: Lifecycle;
  /** Ends the attempt. */
  readonly signal: AbortSignal;
  /** For the renewal of a silent connection: milliseconds it may take. Undefined: connectTimeoutMs. */
  readonly renewWithinMs: number | undefined;
  /** Only addresses that are preferred to this one are tried; undefined: all. */
  readonly betterThan: string | undefined;
  /** Called once, at the moment the handshake is complete, before any message is delivered. */
  attach(driver: Driver): void;
}

/** What a slot needs of the pool around it. */
export interface SlotOwner {
  /** Makes one attempt; resolves after `attach`, rejects where there is no connection. */
  dial(attempt: DialAttempt): Promise<void>;
  /** A fresh lifecycle in state "connecting". */
  newLifecycle(): Lifecycle;
  newBackoff(): Backoff;
  /** Whether a lost connection or a failed attempt is followed by another attempt. */
  readonly reconnects: boolean;
  now(): number;
  setTimer(delayMs: number, callback: () => void): () => void;
  /** The slot has a connection. */
  onUp(slot: Slot, driver: Driver): void;
  /** A failed attempt; the slot goes on by itself unless `final`. */
  onAttemptFailed(slot: Slot, error: TransportError, final: boolean): void;
  /** Whether the slot should keep dialing now; asked before every attempt. */
  mayDial(slot: Slot): boolean;
  /** The peer did not answer in time: all its silent connections are dead. */
  onDead(error: TransportError): void;
  /** The peer answered, if only to say no. */
  noteLife(): void;
  /** A connection that was made only to see whether the peer lives. */
  probed(driver: Driver, lifecycle: Lifecycle): void;
  /** Takes a connection out of use in order: nothing new is sent on it, FIN, closed. */
  retire(driver: Driver, reason: string): void;
}

/** A place in the pool. */
export class Slot {
  /** The connection in use, once there is one. */
  driver: Driver | undefined;
  /** Whether the slot has given up or was stopped. */
  stopped = false;
  readonly #owner: SlotOwner;
  readonly #backoff: Backoff;
  #lifecycle: Lifecycle;
  #abort: AbortController | undefined;
  #cancelWait: (() => void) | undefined;

  /** Makes a slot that does nothing until `dial`. */
  constructor(owner: SlotOwner) {
    this.#owner = owner;
    this.#backoff = owner.newBackoff();
    this.#lifecycle = owner.newLifecycle();
  }

  /** The life of its present connection. */
  get lifecycle(): Lifecycle {
    return this.#lifecycle;
  }

  /** Whether an attempt is under way. */
  get dialing(): boolean {
    return this.#abort !== undefined && this.driver === undefined;
  }

  /** Whether the next attempt is set for later. */
  get waiting(): boolean {
    return this.#cancelWait !== undefined;
  }

  /** Dials now, cutting a wait short. No-op while dialing, connected or stopped. */
  dial(reason: string): void {
    if (this.stopped || this.driver !== undefined || this.#abort !== undefined) return;
    if (!this.#owner.mayDial(this)) return;
    this.#cancelWait?.();
    this.#cancelWait = undefined;
    this.#change("connecting", reason);
    // A listener of that change may have ended it all.
    if (this.stopped) return;
    const abort = new AbortController();
    this.#abort = abort;
    const lifecycle = this.#lifecycle;
    this.#owner.dial({
      lifecycle,
      signal: abort.signal,
      renewWithinMs: undefined,
      betterThan: undefined,
      attach: (driver) => this.#up(driver, lifecycle, "handshake complete"),
    }).then(
      () => this.#finishAttempt(abort),
      (error) => this.#attemptFailed(abort, typed(error)),
    );
  }

  /** The connection in use is gone. */
  lost(error: TransportError | undefined): void {
    const driver = this.driver;
    this.driver = undefined;
    if (this.stopped || driver === undefined) return;
    if (this.#owner.now() - driver.establishedAt >= STABLE_MS) this.#backoff.reset();
    const reason = error?.message ?? "the peer closed the connection";
    this.#waitAndDial(error, reason);
  }

  /**
   * Replaces a connection by a fresh one. Where it was silent, that shows whether the peer lives:
   * the old one is retired, or closed as dead where no fresh one can be had in time. Where
   * something waits on the old one, and no session to hand it over, the fresh one is only a sign of
   * life and ends at once.
   */
  async renew(withinMs: number, why: RenewalReason): Promise<void> {
    const old = this.driver;
    if (this.stopped || old === undefined || this.#abort !== undefined) return;
    const abort = new AbortController();
    this.#abort = abort;
    const lifecycle = this.#owner.newLifecycle();
    try {
      await this.#owner.dial({
        lifecycle,
        signal: abort.signal,
        renewWithinMs: withinMs,
        betterThan: why === "better" ? old.dialedAddress : undefined,
        attach: (driver) => this.#renewed(old, driver, lifecycle, why),
      });
      this.#finishAttempt(abort);
    } catch (error) {
      this.#finishAttempt(abort);
      lifecycle.change("closed", "the renewal failed");
      if (this.stopped) return;
      // What was only old, or not the best, goes on.
      if (this.driver === old && why !== "silent") return;
      if (this.driver === old) this.#renewalFailed(old, typed(error));
      else if (!this.waiting) this.dial("the connection was lost while it was renewed");
    }
  }

  /** Stops dialing for good; a connection in use is left to the caller. */
  stop(reason: string): void {
    if (this.stopped) return;
    this.stopped = true;
    this.#cancelWait?.();
    this.#cancelWait = undefined;
    this.#abort?.abort(new TransportError("Shutdown", `Cannot connect: ${reason}`));
    if (this.driver === undefined) this.#change("closed", reason);
  }

  #up(driver: Driver, lifecycle: Lifecycle, reason: string): void {
    if (this.stopped) {
      // It came up at the very moment nobody wanted it any more.
      lifecycle.change("closed", "no longer needed");
      return driver.close();
    }
    this.#cancelWait?.();
    this.#cancelWait = undefined;
    // The connection that a renewal replaced may have been lost meanwhile: its life ends here.
    if (this.driver === undefined && this.#lifecycle !== lifecycle) this.#change("closed", reason);
    this.driver = driver;
    this.#lifecycle = lifecycle;
    lifecycle.change("active", reason);
    this.#owner.onUp(this, driver);
  }

  #renewed(old: Driver, driver: Driver, lifecycle: Lifecycle, why: RenewalReason): void {
    const replaces = this.driver === old;
    if (replaces && !old.quiet && old.channel === undefined) {
      lifecycle.change("active", "a sign of life");
      return this.#owner.probed(driver, lifecycle);
    }
    const reason = REASONS[why];
    this.#up(driver, lifecycle, reason);
    if (replaces) this.#owner.retire(old, reason);
  }

  #renewalFailed(old: Driver, error: TransportError): void {
    const rejectCode = error instanceof HandshakeError ? error.rejectCode : undefined;
    if (rejectCode === "TOO_MANY_CONNECTIONS" && old.quiet) {
      // The peer lives and has no room for a second one: end the old one first, then dial anew.
      this.#owner.retire(old, "renewed after silence");
      this.driver = undefined;
      this.#lifecycle = this.#owner.newLifecycle();
      this.#waitAndDial(undefined, "renewed after silence");
      return;
    }
    // Whoever says no is alive, unless another node has its address now.
    if (rejectCode !== undefined && rejectCode !== "NODE_ID_MISMATCH") {
      return this.#owner.noteLife();
    }
    const text = "Cannot go on with the connection: no sign of life";
    this.#owner.onDead(new TransportError("ConnectionClosed", text, { cause: error }));
    old.close();
  }

  #attemptFailed(abort: AbortController, error: TransportError): void {
    this.#finishAttempt(abort);
    if (this.stopped || this.driver !== undefined) return;
    this.#waitAndDial(error, error.message);
  }

  #finishAttempt(abort: AbortController): void {
    if (this.#abort === abort) this.#abort = undefined;
  }

  #waitAndDial(error: TransportError | undefined, reason: string): void {
    const delay = this.#owner.reconnects ? this.#backoff.next() : undefined;
    const failure = error ??
      new TransportError("ConnectionClosed", "Cannot go on with the connection: " + reason);
    if (delay === undefined) {
      this.stopped = true;
      this.#change("failed", reason);
      this.#owner.onAttemptFailed(this, failure, true);
      return;
    }
    this.#change("reconnecting", reason);
    if (this.stopped) return;
    this.#cancelWait = this.#owner.setTimer(delay, () => {
      this.#cancelWait = undefined;
      this.dial("backoff complete");
    });
    this.#owner.onAttemptFailed(this, failure, false);
  }

  #change(to: "connecting" | "reconnecting" | "failed" | "closed", reason: string): void {
    this.#lifecycle.change(to, reason);
  }
}

function typed(error: unknown): TransportError {
  if (error instanceof TransportError) return error;
  return new TransportError("ConnectionFailed", "Cannot connect: the attempt was given up", {
    cause: error,
  });
}
