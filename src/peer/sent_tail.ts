/**
 * What was written lately. Versions 1 and 2 have no acknowledgements: when a connection breaks,
 * nobody knows whether this arrived.
 *
 * @module
 */

import { FrameDecoder } from "../protocol/frame.ts";
import { decodeBodyV2, type Lz4 } from "../protocol/message.ts";
import { Fifo } from "../protocol/fifo.ts";
import type { Outbox } from "../protocol/outbox.ts";

/** Bytes that are remembered after they have left the process. */
const TAIL_BYTES = 4_194_304;
/** How long they are remembered: a peer that reads has taken them long before. */
const TAIL_MS = 5_000;

interface Entry {
  readonly chunk: Uint8Array;
  readonly writtenAt: number;
}

/** Chunks of whole message frames, oldest first. */
export class SentTail {
  /** Made for a connection of version 1 or 2. */
  #entries: Fifo<Entry> | undefined;
  #bytes = 0;

  /** When the oldest entry may be forgotten; undefined where there is none. */
  get deadline(): number | undefined {
    const oldest = this.#entries?.peek();
    return oldest === undefined ? undefined : oldest.writtenAt + TAIL_MS;
  }

  /** Remembers a chunk. */
  push(chunk: Uint8Array, now: number): void {
    // A small chunk must not keep a large buffer alive.
    const kept = chunk.length * 2 < chunk.buffer.byteLength ? chunk.slice() : chunk;
    (this.#entries ??= new Fifo()).push({ chunk: kept, writtenAt: now });
    this.#bytes += chunk.length;
  }

  /**
   * Forgets what is old or too much, but nothing of the last `bufferedBytes`, which have not left.
   * The outbox gets the chunks back.
   */
  trim(now: number, bufferedBytes: number, outbox: Outbox): void {
    const entries = this.#entries;
    if (entries === undefined) return;
    for (let entry = entries.peek(); entry !== undefined; entry = entries.peek()) {
      const left = this.#bytes - entry.chunk.length >= bufferedBytes;
      if (!left || (this.#bytes <= TAIL_BYTES && entry.writtenAt + TAIL_MS > now)) return;
      entries.shift();
      this.#bytes -= entry.chunk.length;
      outbox.recycle(entry.chunk);
    }
  }

  /**
   * Takes the messages out: those of the last `unwritten` bytes never left, of the others among the
   * last `doubtful` bytes nobody knows.
   */
  take(
    unwritten: number,
    doubtful: number,
    version: number,
    lz4: Lz4 | undefined,
  ): { unsent: Uint8Array[]; unknown: Uint8Array[] } {
    const unsentFrom = this.#bytes - unwritten;
    const doubtfulFrom = this.#bytes - Math.min(doubtful, this.#bytes);
    const decoder = new FrameDecoder({ maxFrameBytes: 0xffffffff });
    for (let entry = this.#entries?.shift(); entry; entry = this.#entries?.shift()) {
      decoder.push(entry.chunk);
    }
    this.#bytes = 0;
    const taken = { unsent: [] as Uint8Array[], unknown: [] as Uint8Array[] };
    let end = 0;
    for (let body = decoder.next(); body !== undefined; body = decoder.next()) {
      const start = end;
      end += 4 + body.length;
      if (end <= doubtfulFrom) continue;
      const payload = version === 1 ? body : decodeBodyV2(body, lz4, 0xffffffff);
      (start >= unsentFrom ? taken.unsent : taken.unknown).push(payload);
    }
    return taken;
  }
}
