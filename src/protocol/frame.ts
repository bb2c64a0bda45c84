/**
 * Framing: a u32 big-endian length, then that many bytes (docs/protocol.md, section 1). The same
 * in every version of the protocol, and of use without the rest of it.
 *
 * @module
 */

import { TransportError } from "../errors.ts";

const HEADER_BYTES = 4;
const MAX_U32 = 0xffff_ffff;
/** The least that is allocated for a frame in several chunks, unless the frame itself is smaller. */
const MIN_ASSEMBLY_BYTES = 64;
/** The most that is kept to be used again: a fragment of version 3, and a little more. */
const MAX_SPARE_BYTES = 66_560;
/** Slots of the queue that may be spent before the array is cut; keeps the cost per chunk constant. */
const MIN_SPENT_SLOTS = 32;
/** A body of at most this many bytes among fragments is copied out of its chunk. */
const MAX_COPY_BYTES = 1024;
const NO_BYTES: Uint8Array = new Uint8Array(0);
/** The queue of a decoder in which nothing waits: nothing is put here. */
const NO_CHUNKS: Uint8Array[] = [];
/** How a TLS record begins that a side sends first: an alert or a handshake, of a version 3.x. */
const TLS_RECORDS: ReadonlySet<number> = new Set([0x1503, 0x1603]);

/**
 * Puts the four length bytes before a body. The body is copied.
 *
 * @param body 1 to 4,294,967,295 bytes.
 * @returns A new array of `4 + body.length` bytes.
 * @throws {RangeError} If the body is empty or too long for a u32.
 *
 * @example
 * ```ts
 * import { encodeFrame } from "@hawser/hawser";
 *
 * encodeFrame(new Uint8Array([7, 8])); // 00 00 00 02 07 08
 * ```
 */
export function encodeFrame(body: Uint8Array): Uint8Array {
  const { length } = body;
  if (length === 0 || length > MAX_U32) {
    throw new RangeError(
      `Cannot encode a frame: the body must have 1 to ${MAX_U32} bytes, got ${length}`,
    );
  }
  const frame = new Uint8Array(HEADER_BYTES + length);
  frame[0] = length >>> 24;
  frame[1] = length >>> 16;
  frame[2] = length >>> 8;
  frame[3] = length;
  frame.set(body, HEADER_BYTES);
  return frame;
}

/** What a {@linkcode FrameDecoder} is made with. */
export interface FrameDecoderOptions {
  /** The longest body accepted, in bytes: an integer from 1 to 4,294,967,295. */
  maxFrameBytes: number;
}

/**
 * Cuts a stream of chunks into frame bodies. Chunks are pushed in and frames pulled out one by
 * one, so that a caller whose own queue is full can stop in the middle of a chunk.
 *
 * A body that lies in one chunk comes back as a view of that chunk; one that spans chunks is
 * assembled in a buffer that grows with the bytes that really came, never with what the length
 * claims. A view keeps its whole chunk alive: copy with `slice()` what is to be kept for long.
 *
 * @example
 * ```ts
 * import { FrameDecoder } from "@hawser/hawser";
 *
 * const decoder = new FrameDecoder({ maxFrameBytes: 4096 });
 * decoder.push(new Uint8Array([0, 0, 0, 2, 7, 8, 0, 0]));
 * decoder.next(); // 07 08
 * decoder.next(); // undefined: the rest is the start of another frame
 * ```
 */
export class FrameDecoder {
  /**
   * Where the body lies that `advance` went to.
   *
   * @ignore
   */
  bytes: Uint8Array = NO_BYTES;
  /** @ignore */
  start: number = 0;
  /** @ignore */
  end: number = 0;
  #maxFrameBytes: number;
  #chunk: Uint8Array = NO_BYTES;
  /** Where the unread part of `#chunk` starts. */
  #offset = 0;
  /** Chunks after `#chunk`; the slots before `#queueHead` are spent. */
  #queue = NO_CHUNKS;
  #queueHead = 0;
  #bufferedBytes = 0;
  #headerBytes = 0;
  /** Whether no frame has been whole yet. */
  #first = true;
  /** The length of the frame under way; its bytes are shifted in, which shifts the last one out. */
  #frameBytes = 0;
  /** The body under way where it spans chunks; its first `#assembledBytes` are filled. */
  #assembly: Uint8Array | undefined;
  #assembledBytes = 0;
  /** Where the last body was put together, until it is known whether that place is free. */
  #lent: Uint8Array | undefined;
  /** Such a place that is free. */
  #spare: Uint8Array | undefined;
  /** How long the last body was that was put together: the next one may be as long. */
  #lastBytes = 0;
  #failure: TransportError | undefined;
  /** Whether somebody may still look at a view of the present chunk, or of one before it. */
  #viewed = false;
  /** The same before the last body was taken. */
  #viewedBefore = false;
  /** Whether the last body was looked at no more once it was handled: the next is likely another such. */
  #passing = false;

  /**
   * Makes a decoder without bytes.
   *
   * @throws {RangeError} If `maxFrameBytes` is not an integer from 1 to 4,294,967,295.
   */
  constructor(options: FrameDecoderOptions) {
    this.#maxFrameBytes = checkLimit(options.maxFrameBytes);
  }

  /**
   * The longest body accepted, in bytes. A new value counts from the next frame whose length has
   * not been read; setting it throws a `RangeError` as the constructor does.
   */
  get maxFrameBytes(): number {
    return this.#maxFrameBytes;
  }

  set maxFrameBytes(value: number) {
    this.#maxFrameBytes = checkLimit(value);
  }

  /** Bytes pushed and not yet returned by {@linkcode next}, headers included; 0 after an error. */
  get bufferedBytes(): number {
    return this.#bufferedBytes;
  }

  /** After {@linkcode next} returned undefined: whether a frame has begun and is not whole. */
  get midFrame(): boolean {
    return this.#bufferedBytes > 0;
  }

  /**
   * Takes a chunk, of any size. Nothing is parsed and nothing thrown. The chunk belongs to the
   * decoder from now on and must not be changed. After an error it is dropped.
   */
  push(chunk: Uint8Array): void {
    if (chunk.length === 0 || this.#failure !== undefined) return;
    this.#bufferedBytes += chunk.length;
    if (this.#offset < this.#chunk.length) {
      if (this.#queue === NO_CHUNKS) this.#queue = [chunk];
      else this.#queue.push(chunk);
    } else {
      this.#chunk = chunk;
      this.#offset = 0;
      this.#viewed = this.#viewedBefore = false;
    }
  }

  /**
   * Whether nobody looks at the chunks any more that were pushed since all before them were read:
   * all of them was read, and every body that lay in one was released for good.
   */
  get chunksFree(): boolean {
    return this.#chunk === NO_BYTES && !this.#viewed;
  }

  /**
   * Says whether the body that `next` returned last is looked at no more and another like it is
   * expected: then that is put together in the same place, if it has to be put together.
   */
  release(again: boolean): void {
    this.#passing = again;
    // What is not kept by anybody must not be kept here.
    if (this.#chunk !== this.bytes) this.bytes = NO_BYTES;
    if (again) this.#viewed = this.#viewedBefore;
    if (this.#lent === undefined) return;
    if (again) this.#spare = this.#lent;
    this.#lent = undefined;
  }

  /**
   * The body of the next frame, never empty; undefined until it has arrived as a whole.
   *
   * @throws {TransportError} `InvalidFrame` for a length of 0 or above the limit, as soon as the
   * four length bytes are there; where the first of them begin a TLS record, it says so. What was
   * buffered is dropped, and every later call throws the same error.
   */
  next(): Uint8Array | undefined {
    if (!this.advance()) return undefined;
    const { bytes, start, end } = this;
    this.bytes = NO_BYTES;
    if (start === 0 && end === bytes.length && !isBuffer(bytes)) return bytes;
    // Not subarray(): on a Buffer it makes another Buffer, whose slice() does not copy.
    return new Uint8Array(bytes.buffer, bytes.byteOffset + start, end - start);
  }

  /**
   * Goes to the next frame: its body is `bytes` from `start` to `end`. False: it has not arrived as
   * a whole. It makes no view, which costs more than reading a small frame.
   *
   * @throws {TransportError} As {@linkcode next}.
   * @ignore
   */
  advance(): boolean {
    if (this.#headerBytes === 0) {
      const chunk = this.#chunk;
      const start = this.#offset + HEADER_BYTES;
      if (start <= chunk.length) {
        const length = readLength(chunk, this.#offset);
        const end = start + length;
        if (end <= chunk.length && length !== 0 && length <= this.#maxFrameBytes) {
          this.#take(start, end);
          return true;
        }
      }
    }
    return this.#advanceSlowly();
  }

  /** Frames that span chunks, headers that do, and refusals. */
  #advanceSlowly(): boolean {
    if (this.#failure !== undefined) throw this.#failure;
    while (this.#offset < this.#chunk.length) {
      if (this.#headerBytes < HEADER_BYTES) {
        this.#readHeader();
      } else {
        const left = this.#chunk.length - this.#offset;
        if (this.#assembly === undefined && left >= this.#frameBytes) {
          this.#take(this.#offset, this.#offset + this.#frameBytes);
          return true;
        }
        if (this.#assemble(Math.min(left, this.#frameBytes - this.#assembledBytes))) return true;
      }
    }
    return false;
  }

  #readHeader(): void {
    const chunk = this.#chunk;
    let offset = this.#offset;
    while (this.#headerBytes < HEADER_BYTES && offset < chunk.length) {
      this.#frameBytes = (this.#frameBytes << 8 | chunk[offset++]!) >>> 0;
      this.#headerBytes++;
    }
    this.#moveTo(offset);
    if (this.#headerBytes === HEADER_BYTES) this.#judgeLength();
  }

  #judgeLength(): void {
    const length = this.#frameBytes;
    if (length !== 0 && length <= this.#maxFrameBytes) return;
    this.#failure = this.#first && TLS_RECORDS.has(length >>> 16)
      ? speaksTls()
      : wrongLength(length, this.#maxFrameBytes);
    this.#chunk = NO_BYTES;
    this.#offset = 0;
    this.#queue = NO_CHUNKS;
    this.#queueHead = 0;
    this.#bufferedBytes = 0;
    throw this.#failure;
  }

  /** Ends the frame with the bytes of the current chunk from `start` to `end`. */
  #take(start: number, end: number): void {
    const chunk = this.#chunk;
    this.#moveTo(end);
    this.#endFrame(end - start);
    this.#viewedBefore = this.#viewed;
    if (this.#passing && end - start <= MAX_COPY_BYTES) {
      // Between fragments, which leave the chunk free: one small message must not keep all of it.
      return this.#show(new Uint8Array(chunk.subarray(start, end)), 0, end - start);
    }
    this.#viewed = true;
    this.#show(chunk, start, end);
  }

  #show(bytes: Uint8Array, start: number, end: number): void {
    this.bytes = bytes;
    this.start = start;
    this.end = end;
  }

  /** Adds the next `count` bytes of the chunk to the body; true once it is whole. */
  #assemble(count: number): boolean {
    const filled = this.#assembledBytes + count;
    const assembly = this.#roomFor(filled);
    const { buffer, byteOffset } = this.#chunk;
    const bytes = new Uint8Array(buffer, byteOffset + this.#offset, count);
    assembly.set(bytes, this.#assembledBytes);
    this.#assembledBytes = filled;
    this.#moveTo(this.#offset + count);
    if (filled < this.#frameBytes) return false;
    this.#assembly = undefined;
    this.#assembledBytes = 0;
    if (assembly.length <= MAX_SPARE_BYTES) this.#lent = assembly;
    this.#lastBytes = Math.min(filled, MAX_SPARE_BYTES);
    this.#endFrame(filled);
    this.#show(assembly, 0, filled);
    return true;
  }

  /**
   * The assembly buffer, with room for at least `needed` bytes, and for at most twice as many or as
   * many as the last body had that came: growing would copy it again.
   */
  #roomFor(needed: number): Uint8Array {
    const old = this.#assembly;
    if (old !== undefined && needed <= old.length) return old;
    const spare = this.#spare;
    this.#spare = undefined;
    if (old === undefined && spare !== undefined && this.#frameBytes <= spare.length) {
      return this.#assembly = spare;
    }
    const most = Math.max(MIN_ASSEMBLY_BYTES, 2 * needed, this.#lastBytes);
    const size = Math.min(this.#frameBytes, most);
    const grown = new Uint8Array(size);
    if (old !== undefined) grown.set(old.subarray(0, this.#assembledBytes));
    this.#assembly = grown;
    return grown;
  }

  #endFrame(length: number): void {
    this.#first = false;
    this.#bufferedBytes -= HEADER_BYTES + length;
    this.#headerBytes = 0;
  }

  /** Moves within the chunk, and to the next one as soon as this one is read: it may be freed. */
  #moveTo(offset: number): void {
    if (offset < this.#chunk.length) {
      this.#offset = offset;
      return;
    }
    this.#offset = 0;
    if (this.#queueHead === this.#queue.length) {
      this.#chunk = NO_BYTES;
      return;
    }
    this.#chunk = this.#queue[this.#queueHead]!;
    this.#queue[this.#queueHead++] = NO_BYTES;
    if (this.#queueHead >= MIN_SPENT_SLOTS && 2 * this.#queueHead >= this.#queue.length) {
      this.#queue.splice(0, this.#queueHead);
      this.#queueHead = 0;
    }
  }
}

/** Whether it is more than a plain array of bytes: a Buffer's `slice` does not copy. */
function isBuffer(bytes: Uint8Array): boolean {
  return bytes.constructor !== Uint8Array;
}

function readLength(bytes: Uint8Array, at: number): number {
  return (bytes[at]! << 24 | bytes[at + 1]! << 16 | bytes[at + 2]! << 8 | bytes[at + 3]!) >>> 0;
}

function wrongLength(length: number, limit: number): TransportError {
  const problem = length === 0
    ? "its length is 0"
    : `its length is ${length} bytes, the limit ${limit}`;
  return new TransportError("InvalidFrame", `Cannot read a frame: ${problem}`);
}

function speaksTls(): TransportError {
  const text = "Cannot read a frame: the other side speaks TLS, and this one does not";
  return new TransportError("InvalidFrame", text, {
    recovery: "configure tls on both sides or on neither; check what runs there",
  });
}

function checkLimit(value: number): number {
  if (Number.isInteger(value) && value >= 1 && value <= MAX_U32) return value;
  throw new RangeError(
    `Cannot limit frames: maxFrameBytes must be an integer from 1 to ${MAX_U32}, got ${value}`,
  );
}
