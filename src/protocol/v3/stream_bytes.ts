/**
 * Bytes that wait in a stream: what is kept is never much more than what waits.
 *
 * @module
 */

import { Fifo } from "../fifo.ts";
import { NO_BYTES } from "./call_messages.ts";

/** Chunks below this size are gathered in blocks. */
const SMALL_BYTES = 4096;
/** The first block; each further one is twice as large, … */
const MIN_BLOCK_BYTES = 512;
/** … up to this. */
const MAX_BLOCK_BYTES = 16_384;
/** A view of less than this share of its buffer is copied, so that it does not keep the rest. */
const MIN_SHARE = 4;

interface Block {
  readonly bytes: Uint8Array;
  start: number;
  end: number;
}

/**
 * A queue of bytes in chunks. A million chunks of one byte cost about a million bytes, and a small
 * view of a large buffer does not keep that buffer alive.
 */
export class ByteQueue {
  readonly #blocks = new Fifo<Block>();
  /** The last block, where it is one that small chunks are gathered in. */
  #open: Block | undefined;
  #blockBytes = MIN_BLOCK_BYTES;
  #length = 0;

  /** Bytes that wait. */
  get length(): number {
    return this.#length;
  }

  /** Adds bytes. `borrowed`: their owner may change them, so they are copied in any case. */
  add(bytes: Uint8Array, borrowed: boolean): void {
    if (bytes.length === 0) return;
    this.#length += bytes.length;
    if (bytes.length < SMALL_BYTES) return this.#gather(bytes);
    const copied = borrowed || bytes.length * MIN_SHARE < bytes.buffer.byteLength;
    // Not slice(): that of a Buffer is a view.
    const own = copied ? new Uint8Array(bytes) : bytes;
    this.#blocks.push({ bytes: own, start: 0, end: own.length });
    this.#open = undefined;
  }

  /** Takes at most `max` bytes; none if nothing waits. */
  take(max: number): Uint8Array {
    const block = this.#blocks.peek();
    if (block === undefined || max <= 0) return NO_BYTES;
    const start = block.start;
    const end = Math.min(block.end, start + max);
    block.start = end;
    this.#length -= end - start;
    // What is taken is never written again: an open block only grows behind it.
    if (end === block.end) this.#drop(block);
    return block.bytes.subarray(start, end);
  }

  /** Forgets everything. */
  clear(): void {
    while (this.#blocks.shift() !== undefined);
    this.#open = undefined;
    this.#length = 0;
  }

  #drop(block: Block): void {
    this.#blocks.shift();
    if (this.#open !== block) return;
    this.#open = undefined;
    this.#blockBytes = MIN_BLOCK_BYTES;
  }

  #gather(bytes: Uint8Array): void {
    let block = this.#open;
    if (block === undefined || block.bytes.length - block.end < bytes.length) {
      const size = Math.max(this.#blockBytes, bytes.length);
      this.#blockBytes = Math.min(this.#blockBytes * 2, MAX_BLOCK_BYTES);
      block = { bytes: new Uint8Array(size), start: 0, end: 0 };
      this.#blocks.push(block);
      this.#open = block;
    }
    block.bytes.set(bytes, block.end);
    block.end += bytes.length;
  }
}
