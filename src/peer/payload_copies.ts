/**
 * Copies of what waits to be sent, whose memory is used again.
 *
 * @module
 */

/** Payloads up to this many bytes share slabs: memory of its own costs more than a small payload. */
const MAX_SHARED_BYTES = 16_384;
/** Bytes of the first slab. Each is four times as large as the one before, … */
const MIN_SLAB_BYTES = 8_192;
const SLAB_GROWTH = 4;
/** … up to this, as long as something waits. */
const MAX_SLAB_BYTES = 131_072;
/** Buffers come in this many sizes between one power of two and the next. */
const STEPS = 4;
/** Buffers of one size that are remembered, in bytes together. */
const MAX_SPARE_BYTES = 16_777_216;
/** Where it is not more than that, so many of them. */
const MIN_SPARE = 2;

/** Memory that several payloads share. */
class Slab {
  readonly bytes: Uint8Array;
  /** Where the next payload goes. */
  at = 0;
  /** Payloads that somebody may still look at. */
  live = 0;

  constructor(bytes: Uint8Array) {
    this.bytes = bytes;
  }
}

/**
 * Copies payloads. Their memory is used again after they were written, or acknowledged where they
 * are long: fresh memory costs more than filling it, and each fresh megabyte brings the next garbage
 * collection nearer (16 MiB messages in a row on Node: 39 collections in 3 s without it, 13 with it,
 * at one and a half times the rate). It is not held: the collector may have it at any time.
 */
export class PayloadCopies {
  /** By size, what may be used again. */
  #spare: Map<number, WeakRef<ArrayBufferLike>[]> | undefined;
  #slabs: WeakMap<ArrayBufferLike, Slab> | undefined;
  #slab: Slab | undefined;
  #slabBytes = 0;

  /** A copy that nobody else changes. */
  copy(payload: Uint8Array): Uint8Array {
    const { length } = payload;
    if (length === 0) return payload;
    const copy = length <= MAX_SHARED_BYTES
      ? this.#share(length)
      : new Uint8Array(this.#take(sizeFor(length)), 0, length);
    copy.set(payload);
    return copy;
  }

  /** Nobody looks at a copy any more. Said once at most; never of what the application may hold. */
  release({ buffer, length }: Uint8Array): void {
    if (length === 0) return;
    // What was a slab once may have been given to a long payload since.
    const slab = length > MAX_SHARED_BYTES ? undefined : this.#slabs?.get(buffer);
    if (slab === undefined) {
      if (sizeFor(buffer.byteLength) === buffer.byteLength) this.#give(buffer);
      return;
    }
    if (--slab.live > 0) return;
    slab.at = 0;
    if (slab === this.#slab) {
      this.#slab = undefined;
      this.#slabBytes = 0;
    }
    this.#give(buffer);
  }

  #share(length: number): Uint8Array {
    let slab = this.#slab;
    if (slab === undefined || slab.at + length > slab.bytes.length) {
      slab = this.#slab = this.#newSlab(length);
    }
    const { at } = slab;
    slab.at = at + length;
    slab.live++;
    return new Uint8Array(slab.bytes.buffer, at, length);
  }

  #newSlab(least: number): Slab {
    const wanted = Math.max(
      MIN_SLAB_BYTES,
      this.#slabBytes * SLAB_GROWTH,
      2 ** Math.ceil(Math.log2(least)),
    );
    this.#slabBytes = Math.min(MAX_SLAB_BYTES, wanted);
    const buffer = this.#take(this.#slabBytes);
    const known = this.#slabs?.get(buffer);
    if (known !== undefined) return known;
    const slab = new Slab(new Uint8Array(buffer));
    (this.#slabs ??= new WeakMap()).set(buffer, slab);
    return slab;
  }

  #take(bytes: number): ArrayBufferLike {
    const spare = this.#spare?.get(bytes);
    for (let next = spare?.pop(); next !== undefined; next = spare?.pop()) {
      const buffer = next.deref();
      if (buffer !== undefined) return buffer;
    }
    return new ArrayBuffer(bytes);
  }

  #give(buffer: ArrayBufferLike): void {
    const { byteLength } = buffer;
    const spares = this.#spare ??= new Map();
    let spare = spares.get(byteLength);
    if (spare === undefined) spares.set(byteLength, spare = []);
    const most = Math.max(MIN_SPARE, MAX_SPARE_BYTES / byteLength);
    if (spare.length < most) spare.push(new WeakRef(buffer));
  }
}

/** The size of the buffer for a payload: never twice as much. */
function sizeFor(length: number): number {
  const step = 2 ** Math.max(0, Math.floor(Math.log2(length))) / STEPS;
  return Math.ceil(length / step) * step;
}
