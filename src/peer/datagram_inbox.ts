/**
 * The messages that come by datagrams from one peer, on their way to the application.
 *
 * @module
 */

import { Fifo } from "../protocol/fifo.ts";
import type { TokenBucket } from "../protocol/token_bucket.ts";
import type { LaneName } from "../protocol/v3/types.ts";
import type { DatagramStats, TrafficStats } from "../stats.ts";

/** Messages that wait while the application's handler works on one of the same peer. */
const MAX_HELD = 256;
const MAX_HELD_BYTES = 1_048_576;

/** A message that came. */
export interface ReceivedDatagram {
  readonly payload: Uint8Array;
  readonly lane: LaneName;
  readonly topic: string | undefined;
}

/** What the messages of a peer need of it. */
export interface DatagramInboxHost {
  readonly traffic: TrafficStats;
  readonly counters: DatagramStats;
  /** What it may send; undefined where there is no limit. */
  readonly bucket: TokenBucket | undefined;
  readonly inboxFull: boolean;
  /** The monotonic clock, milliseconds. */
  now(): number;
  /** A message is the application's. */
  deliver(message: ReceivedDatagram): void;
}

/** Delivers, holds or drops them. */
export class DatagramInbox {
  readonly #host: DatagramInboxHost;
  readonly #held = new Fifo<ReceivedDatagram>();
  #heldBytes = 0;
  #pendingHandlers = 0;

  /** Nothing has come. */
  constructor(host: DatagramInboxHost) {
    this.#host = host;
  }

  /** A message came. */
  take(message: ReceivedDatagram): void {
    const { bucket, traffic, counters } = this.#host;
    const { length } = message.payload;
    if (bucket !== undefined && !bucket.tryTake(this.#host.now())) {
      traffic.rateLimited++;
      counters.dropped++;
    } else if (this.#pendingHandlers === 0 && this.#held.length === 0) {
      this.#deliver(message);
    } else if (this.#held.length < MAX_HELD && this.#heldBytes + length <= MAX_HELD_BYTES) {
      this.#held.push(message);
      this.#heldBytes += length;
    } else {
      counters.dropped++;
    }
  }

  /** The handler works on a message: the next one waits. */
  holdFor(settled: Promise<void>): void {
    this.#pendingHandlers++;
    const done = () => {
      this.#pendingHandlers--;
      this.#release();
    };
    settled.then(done, done);
  }

  #deliver(message: ReceivedDatagram): void {
    const { counters, traffic } = this.#host;
    if (this.#host.inboxFull) {
      counters.dropped++;
      return;
    }
    traffic.messagesReceived++;
    traffic.payloadBytesReceived += message.payload.length;
    this.#host.deliver(message);
  }

  #release(): void {
    while (this.#pendingHandlers === 0) {
      const message = this.#held.shift();
      if (message === undefined) return;
      this.#heldBytes -= message.payload.length;
      this.#deliver(message);
    }
  }
}
