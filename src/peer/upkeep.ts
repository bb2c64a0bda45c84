/**
 * What time does to the connections of a pool: they become idle, and they grow old.
 *
 * @module
 */

import type { Driver } from "./driver.ts";
import type { Lifecycle } from "./lifecycle.ts";
import type { Slot } from "./slot.ts";
import type { Timed, Timers } from "./timers.ts";

/** Share of the lifetime by which a connection may be replaced early: not all at the same time. */
const LIFETIME_JITTER = 0.1;
/** Share of the interval by which a better address may be tried early. */
const UPGRADE_JITTER = 0.1;
/** When a replacement is tried again that could not be had. */
const REPLACE_AGAIN_MS = 10_000;
/** When a connection that must be quiet to be replaced is looked at again. */
const LOOK_AGAIN_MS = 1_000;

/** A usable connection and the life it leads. */
export interface Member {
  readonly driver: Driver;
  readonly lifecycle: Lifecycle;
  /** The place it has, where we dialed it. */
  readonly slot: Slot | undefined;
  /** When it hands over to a new one. */
  expiresAt: number;
  /** When a better address is tried. */
  betterAt: number;
}

/** What time may do. Milliseconds. */
export interface UpkeepSettings {
  /** Connections that are kept though idle. */
  readonly minConnections: number;
  /** Time without use after which a connection is idle; 0: never. */
  readonly idleTimeoutMs: number;
  /** Age at which a connection hands over to a new one; 0: never. */
  readonly maxLifetimeMs: number;
  /** After so long a connection at a lesser address is tried at a better one; 0: never. */
  readonly upgradeIntervalMs: number;
}

/** What the upkeep needs of its pool. */
export interface UpkeepHost {
  now(): number;
  random(): number;
  readonly timers: Timers;
  /** Usable connections, oldest first. */
  readonly members: readonly Member[];
  /** Ends an idle connection that we dialed, in order. */
  retireIdle(member: Member): void;
  /** Replaces a connection that we dialed; resolves when that is done or has failed. */
  replace(slot: Slot): Promise<void>;
  /** Whether a better address is known than the one that was dialed. */
  improvable(driver: Driver): boolean;
  /** Tries a better address; resolves when that is done or has failed. */
  improve(slot: Slot): Promise<void>;
  /** Every connection is idle. */
  onIdle(): void;
}

/** What time does to a pool. */
export class Upkeep implements Timed {
  /** @ignore */
  timerAt = Infinity;
  /** @ignore */
  timerPlace = 0;
  readonly #settings: UpkeepSettings;
  readonly #host: UpkeepHost;
  #busyAt = -Infinity;
  /** When idle connections that could not be ended are looked at again. */
  #againAt = Infinity;

  /** Waits for nothing yet. */
  constructor(settings: UpkeepSettings, host: UpkeepHost) {
    this.#settings = settings;
    this.#host = host;
  }

  /** When a connection that is made now hands over. */
  expiry(): number {
    const { maxLifetimeMs } = this.#settings;
    if (maxLifetimeMs === 0) return Infinity;
    return this.#host.now() + maxLifetimeMs * (1 - LIFETIME_JITTER * this.#host.random());
  }

  /** When a better address is tried for a connection. */
  upgrade(driver: Driver): number {
    const { upgradeIntervalMs } = this.#settings;
    if (upgradeIntervalMs === 0 || !this.#host.improvable(driver)) return Infinity;
    return this.#host.now() + upgradeIntervalMs * (1 - UPGRADE_JITTER * this.#host.random());
  }

  /** The pool is busy: it needs all its connections. */
  noteBusy(): void {
    this.#busyAt = this.#host.now();
  }

  /** Something has changed: sets the timer. */
  arm(): void {
    const at = this.#nextTimeout();
    // An earlier timer finds out by itself that there is nothing to do yet.
    if (at < this.timerAt || at === Infinity) this.#host.timers.set(this, at);
  }

  /** @ignore */
  onDue(): void {
    this.#run(this.#host.now());
    this.arm();
  }

  #nextTimeout(): number {
    const { members } = this.#host;
    if (members.length === 0) return Infinity;
    let at = this.#againAt;
    for (const { driver, slot, expiresAt, betterAt } of members) {
      if (!driver.idle) at = Math.min(at, this.#idleAt(driver));
      if (slot !== undefined) at = Math.min(at, expiresAt, betterAt);
    }
    return at;
  }

  #idleAt({ usedAt }: Driver): number {
    const { idleTimeoutMs } = this.#settings;
    return idleTimeoutMs === 0 ? Infinity : usedAt + idleTimeoutMs;
  }

  #run(now: number): void {
    this.#againAt = Infinity;
    for (const member of [...this.#host.members]) {
      // Whoever is told of a change may have ended it all.
      if (!this.#host.members.includes(member)) continue;
      if (now >= member.expiresAt && member.slot !== undefined) this.#replace(member, member.slot);
      else if (now >= member.betterAt && member.slot !== undefined) {
        this.#improve(member, member.slot);
      } else if (!member.driver.idle && now >= this.#idleAt(member.driver)) this.#rest(member);
    }
    this.#shrink(now);
    const { members } = this.#host;
    if (members.length > 0 && members.every(({ driver }) => driver.idle)) this.#host.onIdle();
  }

  #rest({ driver, lifecycle }: Member): void {
    driver.idle = true;
    lifecycle.change("idle", `nothing was sent or received for ${this.#settings.idleTimeoutMs} ms`);
  }

  #shrink(now: number): void {
    const { minConnections, idleTimeoutMs } = this.#settings;
    while (this.#host.members.length > minConnections) {
      const spare = this.#host.members.findLast(({ driver, slot }) =>
        slot !== undefined && driver.idle
      );
      if (spare === undefined) return;
      // A version 1 or 2 connection can't hand over what it holds.
      const holds = spare.driver.channel === undefined && !spare.driver.quiet;
      const from = holds ? now : this.#busyAt;
      if (now < from + idleTimeoutMs) {
        this.#againAt = from + idleTimeoutMs;
        return;
      }
      this.#host.retireIdle(spare);
    }
  }

  #improve(member: Member, slot: Slot): void {
    const { driver } = member;
    if (driver.channel === undefined && !driver.quiet) {
      member.betterAt = this.#host.now() + LOOK_AGAIN_MS;
      return;
    }
    member.betterAt = Infinity;
    this.#host.improve(slot).then(() => {
      if (!this.#host.members.includes(member)) return;
      member.betterAt = this.upgrade(driver);
      this.arm();
    });
  }

  #replace(member: Member, slot: Slot): void {
    const { driver } = member;
    if (driver.channel === undefined && !driver.quiet) {
      member.expiresAt = this.#host.now() + LOOK_AGAIN_MS;
      return;
    }
    member.expiresAt = Infinity;
    this.#host.replace(slot).then(() => {
      if (!this.#host.members.includes(member)) return;
      member.expiresAt = this.#host.now() + REPLACE_AGAIN_MS;
      this.arm();
    });
  }
}
