/**
 * The connections of one peer: those we dialed, those it dialed, and which of them is used.
 *
 * @module
 */

import { HandshakeError, type TransportError } from "../errors.ts";
import { Backoff } from "../protocol/backoff.ts";
import { GOAWAY, type GoawayCode, LANE_NAMES } from "../protocol/v3/types.ts";
import type { PoolStrategy } from "../options.ts";
import type { Driver } from "./driver.ts";
import type { Lifecycle } from "./lifecycle.ts";
import type { Timers } from "./timers.ts";
import { type DialAttempt, type RenewalReason, Slot, type SlotOwner } from "./slot.ts";
import { type Member, Upkeep, type UpkeepHost, type UpkeepSettings } from "./upkeep.ts";

/**
 * Share of the keepalive interval that a renewal may take: with the interval of silence before it, a
 * dead peer is noticed within twice the interval, late timers included.
 */
const RENEWAL_SHARE = 0.8;

/** What a pool needs of its peer. */
export interface PoolOwner {
  readonly nodeId: string;
  readonly ownNodeId: string;
  readonly settings: PoolSettings;
  readonly timers: Timers;
  now(): number;
  setTimer(delayMs: number, callback: () => void): () => void;
  random(): number;
  newLifecycle(state: "connecting" | "handshaking"): Lifecycle;
  dial(attempt: DialAttempt): Promise<void>;
  /** The peer has shown that it lives. */
  noteLife(): void;
  /** A connection can be used. */
  onUp(driver: Driver): void;
  /** The last usable connection is gone; `returning`: a new one is being dialed. */
  onDown(error: TransportError | undefined, returning: boolean): void;
  /** An attempt failed while there was no connection. */
  onAttemptFailed(error: TransportError, final: boolean): void;
  /** The connection that messages are sent on may have changed. */
  onSenderChanged(): void;
  /** Messages may be taken again from connections that had to wait for another to end. */
  onHandedOver(): void;
  /** Nothing has gone through any connection for a while. */
  onIdle(): void;
  /** Whether a better address is known than the one that was dialed. */
  improvable(driver: Driver): boolean;
}

/** The options of a pool. */
export interface PoolSettings extends UpkeepSettings {
  readonly poolSize: number;
  readonly strategy: PoolStrategy;
  readonly retireMs: number;
  readonly keepaliveMs: number | undefined;
  readonly connectTimeoutMs: number;
  readonly reconnect: {
    readonly enabled: boolean;
    readonly initialBackoffMs: number;
    readonly maxBackoffMs: number;
    readonly multiplier: number;
    readonly maxAttempts: number | undefined;
    readonly jitter: number;
  };
}

/** A connection that is replaced by a fresh one. */
interface Renewal {
  readonly why: RenewalReason;
  readonly done: () => void;
}

/** Who only ever dialed us has none. Nothing is put here. */
const NO_SLOTS: Slot[] = [];

/** All connections of a peer. */
export class Pool implements SlotOwner, UpkeepHost {
  readonly #owner: PoolOwner;
  #slots = NO_SLOTS;
  /** Usable connections, oldest first. */
  #active: Member[] = [];
  /** Connections that end in order. */
  #retiring: Map<Driver, Member & { readonly byUs: boolean }> | undefined;
  /** Connections to be renewed, and what is to be called then; the first one is under way. */
  #toRenew: Map<Slot, Renewal> | undefined;
  /** Connections that were silent while they were being renewed for another reason. */
  #silentMeanwhile: Map<Slot, Driver> | undefined;
  readonly #upkeep: Upkeep;
  /** How many connections there should be: `#most`, or fewer after they were idle. */
  #target: number;
  /** poolSize, or one connection for each lane where they share what carries them. */
  #most: number;
  #nextLoose = 0;
  #dials = false;
  #sender: Driver | undefined;
  /** Our messages wait until this one has ended, to stay in order. */
  #handover: Driver | undefined;
  /** The peer admits no more connections than it has until one of them is gone. */
  #full = false;

  /** Makes an empty pool. */
  constructor(owner: PoolOwner) {
    this.#owner = owner;
    this.#most = this.#target = owner.settings.poolSize;
    this.#upkeep = new Upkeep(owner.settings, this);
  }

  /** Usable connections. */
  get size(): number {
    return this.#active.length;
  }

  /** Every connection there is, usable or ending. */
  get drivers(): Driver[] {
    const drivers = this.#active.map((member) => member.driver);
    if (this.#retiring !== undefined) drivers.push(...this.#retiring.keys());
    return drivers;
  }

  /** The slots of ours, for statistics. */
  get slots(): readonly Slot[] {
    return this.#slots;
  }

  /** Whether a lost connection is followed by a new one of ours. */
  get returning(): boolean {
    return this.#dials && (this.reconnects || this.#slots.some((slot) => slot.dialing));
  }

  /** Whether messages of this connection may be delivered: those of a connection that ends go first. */
  mayDeliver(driver: Driver): boolean {
    const retiring = this.#retiring;
    if (retiring === undefined || retiring.size === 0) return true;
    for (const { byUs, driver: { channel } } of retiring.values()) {
      if (byUs && channel === undefined) return retiring.has(driver);
    }
    return true;
  }

  /** The connection that messages go out on; undefined while there is none, or one must end first. */
  get sender(): Driver | undefined {
    return this.#sender;
  }

  /** A connection of version 1 or 2 for what needs no order, as the strategy says. */
  loose(): Driver | undefined {
    const usable = this.#active.map(({ driver }) => driver)
      .filter((driver) => driver.channel === undefined && driver.writable);
    if (usable.length < 2) return usable[0];
    switch (this.#owner.settings.strategy) {
      case "first-available":
        return usable[0];
      case "round-robin":
        return usable[this.#nextLoose++ % usable.length];
      case "least-loaded":
        return usable.reduce((best, other) =>
          other.pendingBytes < best.pendingBytes ? other : best
        );
    }
  }

  /** An idle connection is used again. */
  used(driver: Driver): void {
    driver.idle = false;
    this.#active.find((member) => member.driver === driver)
      ?.lifecycle.change("active", "in use again");
    this.#upkeep.arm();
  }

  /** More is on its way than a connection takes at once. */
  busy(): void {
    this.#upkeep.noteBusy();
    if (this.#target === this.#most) return;
    this.#target = this.#most;
    this.#fill("there is more to send");
  }

  /**
   * Ends the connection that was idle longest, where there are more than must be. False: there is
   * none.
   */
  endSpare(): boolean {
    const spare = this.spare;
    if (spare !== undefined) this.retireIdle(spare);
    return spare !== undefined;
  }

  /** The connection beyond `minConnections` of ours that was not used for the longest time. */
  get spare(): Member | undefined {
    if (this.size <= this.#owner.settings.minConnections) return undefined;
    return this.#active.reduce<Member | undefined>((spare, member) => {
      const { slot, driver } = member;
      if (slot === undefined || !driver.quiet) return spare;
      return spare === undefined || driver.usedAt <= spare.driver.usedAt ? member : spare;
    }, undefined);
  }

  /** Begins to dial, at once. */
  start(reason: string): void {
    this.#target = this.#most;
    this.#dials = true;
    this.#full = false;
    for (const slot of [...this.#slots]) if (slot.stopped) this.#dropSlot(slot);
    // There may be more addresses than before.
    for (const member of this.#active) {
      if (member.slot !== undefined && member.betterAt === Infinity) {
        member.betterAt = this.#upkeep.upgrade(member.driver);
      }
    }
    this.#upkeep.arm();
    // An explicit wish does not wait for the backoff.
    this.#slots[0]?.dial(reason);
    this.#fill(reason);
  }

  /** Stops dialing; connections stay. */
  stop(reason: string): void {
    this.#dials = false;
    for (const slot of [...this.#slots]) slot.stop(reason);
  }

  /** Takes in a connection that the peer dialed. */
  accept(driver: Driver, lifecycle: Lifecycle): void {
    this.#join({ driver, lifecycle, slot: undefined, expiresAt: Infinity, betterAt: Infinity });
  }

  /** Ends every connection in order; `code` says why to a peer of version 3. */
  retireAll(reason: string, code: GoawayCode): void {
    this.stop(reason);
    for (const member of [...this.#active]) this.#retire(member, reason, true, code);
  }

  /** Closes everything at once. */
  closeAll(error: TransportError): void {
    this.stop(error.message);
    for (const driver of this.drivers) driver.close(error);
  }

  /** The peer ends one of its connections; `error` where that is not in order. */
  peerEnded(driver: Driver, error?: TransportError): void {
    const member = this.#active.find((other) => other.driver === driver);
    if (member === undefined) return;
    this.#full = false;
    // Our side ends too; what we send next leaves on another connection, which the peer
    // does not read before it has seen our end of this one.
    const reason = error?.message ?? "the peer ended the connection";
    this.#retire(member, reason, false, GOAWAY.idle, error);
    member.slot?.lost(error);
  }

  /** A connection is gone. */
  closed(driver: Driver, error: TransportError | undefined): void {
    const retired = this.#retiring?.get(driver);
    if (retired !== undefined) return this.#retired(retired, error);
    const index = this.#active.findIndex((member) => member.driver === driver);
    if (index < 0) return;
    const [member] = this.#active.splice(index, 1);
    this.#leave(member!, error);
  }

  /** A dialed connection was silent for the keepalive interval. */
  silent(driver: Driver): void {
    const slot = this.#slots.find((other) => other.driver === driver);
    if (slot === undefined) return;
    const why = this.#toRenew?.get(slot)?.why ?? "silent";
    if (why !== "silent") (this.#silentMeanwhile ??= new Map()).set(slot, driver);
    else this.#renew(slot, { why, done: () => {} });
  }

  #renew(slot: Slot, renewal: Renewal): void {
    const toRenew = this.#toRenew ??= new Map();
    if (toRenew.has(slot)) return renewal.done();
    toRenew.set(slot, renewal);
    if (toRenew.size === 1) this.#renewNext(toRenew);
  }

  /** One after the other: the peer admits one connection more than the pool has. */
  #renewNext(toRenew: Map<Slot, Renewal>): void {
    const [next] = toRenew;
    if (next === undefined) return;
    const [slot, { why, done }] = next;
    const { keepaliveMs, connectTimeoutMs } = this.#owner.settings;
    const interval = why === "silent" ? keepaliveMs ?? connectTimeoutMs : connectTimeoutMs;
    slot.renew(Math.min(connectTimeoutMs, interval * RENEWAL_SHARE), why).then(() => {
      toRenew.delete(slot);
      this.#renewNext(toRenew);
      done();
      const silent = this.#silentMeanwhile?.get(slot);
      this.#silentMeanwhile?.delete(slot);
      // It goes on, and is told of its silence once only.
      if (silent !== undefined && slot.driver === silent) this.silent(silent);
    });
  }

  // --- what the upkeep asks ---

  /** @ignore */
  get members(): readonly Member[] {
    return this.#active;
  }

  /** @ignore */
  replace(slot: Slot): Promise<void> {
    if (!this.#dials) return Promise.resolve();
    return new Promise((done) => this.#renew(slot, { why: "old", done }));
  }

  /** @ignore */
  improvable(driver: Driver): boolean {
    return this.#dials && this.#owner.improvable(driver);
  }

  /** @ignore */
  improve(slot: Slot): Promise<void> {
    if (!this.#dials) return Promise.resolve();
    return new Promise((done) => this.#renew(slot, { why: "better", done }));
  }

  /** @ignore */
  retireIdle(member: Member): void {
    const { slot } = member;
    slot?.stop("idle");
    this.#retire(member, "idle", true);
    if (slot !== undefined) this.#dropSlot(slot);
    this.#target = Math.max(this.#owner.settings.minConnections, this.size);
  }

  /** @ignore */
  onIdle(): void {
    this.#owner.onIdle();
  }

  // --- what the slots ask ---

  /** @ignore */
  dial(attempt: DialAttempt): Promise<void> {
    return this.#owner.dial(attempt);
  }

  /** @ignore */
  newLifecycle(): Lifecycle {
    return this.#owner.newLifecycle("connecting");
  }

  /** @ignore */
  newBackoff(): Backoff {
    return new Backoff(this.#owner.settings.reconnect, () => this.#owner.random());
  }

  /** @ignore */
  get reconnects(): boolean {
    return this.#dials && this.#owner.settings.reconnect.enabled;
  }

  /** @ignore */
  now(): number {
    return this.#owner.now();
  }

  /** @ignore */
  random(): number {
    return this.#owner.random();
  }

  /** @ignore */
  get timers(): Timers {
    return this.#owner.timers;
  }

  /** @ignore */
  setTimer(delayMs: number, callback: () => void): () => void {
    return this.#owner.setTimer(delayMs, callback);
  }

  /** @ignore */
  onUp(slot: Slot, driver: Driver): void {
    this.#join({
      driver,
      lifecycle: slot.lifecycle,
      slot,
      expiresAt: this.#upkeep.expiry(),
      betterAt: this.#upkeep.upgrade(driver),
    });
  }

  /** @ignore */
  onAttemptFailed(slot: Slot, error: TransportError, final: boolean): void {
    if (this.size > 0) {
      if (error instanceof HandshakeError && error.rejectCode === "TOO_MANY_CONNECTIONS") {
        this.#full = true;
        this.#dropSlot(slot);
        this.#leaveSpare();
      } else if (error.code === "PoolExhausted") {
        // Those that there are do. It is tried again when they are busy.
        this.#dropSlot(slot);
        this.#target = Math.max(this.#owner.settings.minConnections, this.size);
      } else if (final || this.#theirsWin()) this.#dropSlot(slot);
      return;
    }
    if (final) { for (const other of [...this.#slots]) this.#dropSlot(other); }
    this.#owner.onAttemptFailed(error, final);
  }

  /** @ignore */
  mayDial(slot: Slot): boolean {
    if (!this.#dials || this.#theirsWin()) return false;
    // One attempt at a time is enough to find out whether the peer is back, or has room for more.
    return !this.#slots.some((other) => other !== slot && other.dialing);
  }

  /** @ignore */
  onDead(error: TransportError): void {
    for (const [slot, { why }] of this.#toRenew ?? []) {
      if (why === "silent") slot.driver?.close(error);
    }
  }

  /** @ignore */
  noteLife(): void {
    this.#owner.noteLife();
  }

  /** @ignore */
  probed(driver: Driver, lifecycle: Lifecycle): void {
    const member = {
      driver,
      lifecycle,
      slot: undefined,
      expiresAt: Infinity,
      betterAt: Infinity,
    };
    this.#active = withOne(this.#active, member);
    this.#owner.onUp(driver);
    this.#owner.noteLife();
    this.#retire(member, "a sign of life", true);
  }

  /** @ignore */
  retire(driver: Driver, reason: string): void {
    const member = this.#active.find((other) => other.driver === driver);
    if (member !== undefined) this.#retire(member, reason, true);
  }

  // --- helpers ---

  #join(member: Member): void {
    const { link, channel } = member.driver;
    if (link.info.multiplexed && channel?.resume && this.#most < LANE_NAMES.length) {
      if (this.#target === this.#most) this.#target = LANE_NAMES.length;
      this.#most = LANE_NAMES.length;
    }
    this.#active = withOne(this.#active, member);
    this.#owner.onUp(member.driver);
    this.#settleTie();
    this.#choose();
    this.#fill("filling the pool");
    this.#upkeep.arm();
  }

  #leave(member: Member, error: TransportError | undefined): void {
    this.#full = false;
    if (this.#sender === member.driver) this.#sender = undefined;
    const { slot, lifecycle } = member;
    const returning = this.returning;
    if (slot !== undefined && !slot.stopped && slot.driver === member.driver) slot.lost(error);
    else lifecycle.change("closed", error?.message ?? "the connection ended");
    if (this.size === 0) this.#owner.onDown(error, returning);
    this.#choose();
    if (this.reconnects) this.#fill("connection lost");
    this.#upkeep.arm();
  }

  #retire(
    member: Member,
    reason: string,
    byUs: boolean,
    code: GoawayCode = GOAWAY.idle,
    error?: TransportError,
  ): void {
    const index = this.#active.indexOf(member);
    if (index >= 0) this.#active.splice(index, 1);
    (this.#retiring ??= new Map()).set(member.driver, { ...member, byUs });
    member.driver.retiring = true;
    const { lifecycle } = member;
    if (lifecycle.state === "active" || lifecycle.state === "idle") {
      lifecycle.change("draining", reason);
    }
    if (this.#sender === member.driver) {
      this.#sender = undefined;
      // The peer reads the old connection to its end before it ends it in turn.
      if (byUs) this.#handover = member.driver;
    }
    member.driver.end(this.#owner.settings.retireMs, code, reason);
    this.#choose();
    this.#upkeep.arm();
    if (this.size === 0) this.#owner.onDown(error, this.returning);
  }

  #retired(member: Member, error: TransportError | undefined): void {
    this.#retiring?.delete(member.driver);
    if (member.lifecycle.state === "draining") {
      member.lifecycle.change("closed", error?.message ?? "ended in order");
    }
    if (this.#handover === member.driver) this.#handover = undefined;
    this.#choose();
    this.#owner.onHandedOver();
    this.#fill("filling the pool");
  }

  /** The lower node id's dials win: the higher one ends its own when the other's are there. */
  #settleTie(): void {
    if (!this.#theirsWin()) return;
    for (const slot of [...this.#slots]) {
      // The other side may use a connection as soon as it has our hello: an attempt under way is
      // not cut off but ends in order once it is up.
      if (slot.dialing) continue;
      const driver = slot.driver;
      slot.stop("the other side's connections are used");
      const member = this.#active.find((other) => other.driver === driver);
      if (member !== undefined) this.#retire(member, "the other side's connections are used", true);
      this.#dropSlot(slot);
    }
  }

  #theirsWin(): boolean {
    const { ownNodeId, nodeId } = this.#owner;
    return ownNodeId > nodeId && this.#active.some(({ driver }) => !driver.dialed);
  }

  /** Opens connections until there are as many as there should be. */
  #fill(reason: string): void {
    if (!this.#dials || this.#full || this.#theirsWin()) return;
    const accepted = this.#active.filter(({ slot }) => slot === undefined).length;
    // One more only after the first is up: a peer that is down is asked once, not poolSize times.
    const wanted = this.size === 0 ? 1 : this.#target;
    while (this.#slots.length + accepted < wanted) {
      this.#slots = withOne(this.#slots, new Slot(this));
    }
    for (const slot of [...this.#slots]) if (!slot.waiting) slot.dial(reason);
  }

  /** The peer's pool is smaller than ours: the one place more that it has is for renewals. */
  #leaveSpare(): void {
    const last = this.#active.findLast((member) => member.slot !== undefined);
    if (last?.slot === undefined || this.size < 2) return;
    last.slot.stop("the peer has no room for it");
    this.#retire(last, "the peer has no room for it", true);
    this.#dropSlot(last.slot);
  }

  #dropSlot(slot: Slot): void {
    slot.stop("no longer needed");
    const index = this.#slots.indexOf(slot);
    if (index >= 0) this.#slots.splice(index, 1);
  }

  /**
   * Messages stay in order, so one connection carries them until it is gone. Each side takes the
   * other end of the list, so that the two directions have a connection of their own.
   */
  #choose(): void {
    if (this.#sender !== undefined || this.#handover !== undefined) return;
    const first = this.#owner.ownNodeId < this.#owner.nodeId;
    // In version 3 the session says which connection takes what.
    const plain = this.#active.filter(({ driver }) => driver.channel === undefined);
    this.#sender = first ? plain[0]?.driver : plain.at(-1)?.driver;
    if (this.#sender !== undefined) this.#owner.onSenderChanged();
  }
}

/** One more. What `push` makes room for is many, and most peers have one connection. */
function withOne<T>(list: readonly T[], item: T): T[] {
  return list.length === 0 ? [item] : [...list, item];
}
