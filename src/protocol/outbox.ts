/**
 * Bytes on their way out, gathered into one buffer so that frames that are ready together leave
 * in one write.
 *
 * @module
 */

const HEADER_BYTES = 4;
/** A frame's header and the flags of version 2. */
const OVERHEAD_BYTES = 5;
/** Flags and message id of version 3. */
const V3_HEAD_BYTES = 10;
/** A batch buffer starts this large and doubles; most turns send little. */
const FIRST_BUFFER_BYTES = 1024;
/** From this size on, batches get buffers of one size, which can be used again. */
const BUSY_BYTES = 16_384;
/** That size: a full batch of the driver, and a little more. */
const BUSY_BUFFER_BYTES = 135_168;
/** Buffers remembered for the next batches: what a busy connection has in flight at least. */
const MAX_SPARE_BUFFERS = 64;
const NO_BYTES: Uint8Array = new Uint8Array(0);
/** Memory that first buffers are cut from: one of its own costs more than a request and its answer. */
const SLAB_BYTES = 16_384;
let slab: ArrayBuffer | undefined;
let slabAt = 0;

/** Gathers frames of every version until they are taken as one chunk. */
export class Outbox {
  #buffer: Uint8Array | undefined;
  #length = 0;
  #messages = 0;
  #nextBufferBytes = FIRST_BUFFER_BYTES;
  #spare: WeakRef<ArrayBufferLike>[] | undefined;

  /** Bytes gathered and not taken. */
  get bytes(): number {
    return this.#length;
  }

  /** Application messages gathered and not taken. */
  get messages(): number {
    return this.#messages;
  }

  /** Whether a message is better put into the next batch: this one's buffer would have to grow for it. */
  overflows(payloadBytes: number): boolean {
    return this.#length > 0 && this.#length + OVERHEAD_BYTES + payloadBytes > BUSY_BUFFER_BYTES;
  }

  /**
   * Takes back a chunk that nobody looks at any more. Fresh memory costs more than filling it. It is
   * not held: the collector may have it at any time, so that connections that were busy once cost
   * nothing.
   */
  recycle(chunk: Uint8Array): void {
    if (!isReusable(chunk)) return;
    const spare = this.#spare ??= [];
    if (spare.length < MAX_SPARE_BUFFERS) spare.push(new WeakRef(chunk.buffer));
  }

  /** Adds a frame that is no application message (handshake). */
  addFrame(body: Uint8Array): void {
    const at = this.#header(body.length);
    this.#buffer!.set(body, at);
  }

  /** Adds a version 1 message: the body is the payload. */
  addV1(payload: Uint8Array): void {
    this.addFrame(payload);
    this.#messages++;
  }

  /** Adds a version 2 message: flags, then the payload as it goes on the wire. */
  addV2(flags: number, payload: Uint8Array): void {
    const at = this.#header(payload.length + 1);
    const buffer = this.#buffer!;
    buffer[at] = flags;
    buffer.set(payload, at + 1);
    this.#messages++;
  }

  /** Adds frames that are encoded already, lengths included, as they are. */
  addRaw(frames: Uint8Array): void {
    if (frames.length === 0) return;
    this.#room(this.#length + frames.length).set(frames, this.#length);
    this.#length += frames.length;
  }

  /**
   * Begins a version 3 frame: length, flags and message id. The caller fills the rest through
   * {@linkcode buffer}, and counts messages itself.
   *
   * @param restBytes What follows the id: the payload and, where there is one, the checksum.
   * @returns Where in the buffer that goes.
   */
  beginV3(flags: number, idHigh: number, idLow: number, restBytes: number): number {
    const at = this.#header(V3_HEAD_BYTES + restBytes);
    const buffer = this.#buffer!;
    buffer[at] = flags >>> 8;
    buffer[at + 1] = flags;
    buffer[at + 2] = idHigh >>> 24;
    buffer[at + 3] = idHigh >>> 16;
    buffer[at + 4] = idHigh >>> 8;
    buffer[at + 5] = idHigh;
    buffer[at + 6] = idLow >>> 24;
    buffer[at + 7] = idLow >>> 16;
    buffer[at + 8] = idLow >>> 8;
    buffer[at + 9] = idLow;
    return at + V3_HEAD_BYTES;
  }

  /** Makes the frame that was added last shorter. Its body begins at `bodyAt`. */
  shorten(bodyAt: number, bodyLength: number): void {
    this.#length = bodyAt + bodyLength;
    writeLength(this.#buffer!, bodyAt - HEADER_BYTES, bodyLength);
  }

  /** What is being filled. It is another one as soon as anything is added or taken. */
  get buffer(): Uint8Array {
    return this.#buffer ?? NO_BYTES;
  }

  /** Hands over everything gathered as one chunk, which the outbox never touches again. */
  take(): Uint8Array | undefined {
    if (this.#length === 0) return undefined;
    const chunk = this.#buffer!.subarray(0, this.#length);
    giveBack(this.#buffer!, this.#length);
    // The next batch is likely as large as this one: start there, and shrink by halves.
    const shrunk = Math.max(FIRST_BUFFER_BYTES, this.#nextBufferBytes >> 1);
    this.#nextBufferBytes = Math.min(BUSY_BUFFER_BYTES, Math.max(this.#length, shrunk));
    this.#buffer = undefined;
    this.#length = 0;
    this.#messages = 0;
    return chunk;
  }

  /** Makes room for a frame and writes its length; returns where the body goes. */
  #header(bodyLength: number): number {
    const at = this.#length;
    const end = at + HEADER_BYTES + bodyLength;
    writeLength(this.#room(end), at, bodyLength);
    this.#length = end;
    return at + HEADER_BYTES;
  }

  /** The buffer, with room for at least `end` bytes. */
  #room(end: number): Uint8Array {
    const buffer = this.#buffer;
    return buffer === undefined || end > buffer.length ? this.#grow(end) : buffer;
  }

  #grow(needed: number): Uint8Array {
    const old = this.#buffer;
    const wanted = Math.max(needed, old === undefined ? this.#nextBufferBytes : old.length * 2);
    const busy = wanted >= BUSY_BYTES && needed <= BUSY_BUFFER_BYTES;
    const buffer = busy ? this.#busyBuffer() : newBuffer(wanted);
    if (old !== undefined) buffer.set(old.subarray(0, this.#length));
    this.#buffer = buffer;
    return buffer;
  }

  #busyBuffer(): Uint8Array {
    for (let spare = this.#spare?.pop(); spare !== undefined; spare = this.#spare?.pop()) {
      const buffer = spare.deref();
      if (buffer !== undefined) return new Uint8Array(buffer);
    }
    return new Uint8Array(BUSY_BUFFER_BYTES);
  }
}

/** Whether `recycle` has a use for a chunk. */
export function isReusable({ buffer }: Uint8Array): boolean {
  return buffer.byteLength === BUSY_BUFFER_BYTES;
}

/** A small buffer is cut from memory that others are cut from, too. No byte of it is used twice. */
function newBuffer(bytes: number): Uint8Array {
  if (bytes > FIRST_BUFFER_BYTES) return new Uint8Array(bytes);
  if (slab === undefined || slabAt + bytes > SLAB_BYTES) {
    slab = new ArrayBuffer(SLAB_BYTES);
    slabAt = 0;
  }
  const buffer = new Uint8Array(slab, slabAt, bytes);
  slabAt += bytes;
  return buffer;
}

/** The rest of a buffer of which so many bytes were filled goes to the next one. */
function giveBack({ buffer, byteOffset, length }: Uint8Array, filled: number): void {
  if (buffer === slab && byteOffset + length === slabAt) slabAt = byteOffset + filled;
}

function writeLength(buffer: Uint8Array, at: number, length: number): void {
  buffer[at] = length >>> 24;
  buffer[at + 1] = length >>> 16;
  buffer[at + 2] = length >>> 8;
  buffer[at + 3] = length;
}
