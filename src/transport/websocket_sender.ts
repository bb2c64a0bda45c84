/**
 * The sending half of a WebSocket link: frames given to the inner link, and what of them has left.
 *
 * @module
 */

import { encodeFrame, headerBytes, maskBytes, OPCODE, writeHeader } from "../protocol/websocket.ts";
import { systemEnvironment } from "../runtime/environment.ts";
import type { Link } from "./transport.ts";

/** The longest payload of a frame that is sent; a longer chunk is sent as several. */
const MAX_FRAME_BYTES = 131_072;
/** Up to here a copy behind the header costs less than a write of its own for the header. */
const COPY_BYTES = 32_768;
/** Masked frames of at least this many bytes get memory that is used again. */
const REUSED_BYTES = 16_384;
/** A header, and up to three bytes that make a masked payload lie like its source. */
const MASKED_HEAD_BYTES = 17;
/** How many pieces of memory for masked frames are kept. */
const MAX_SPARE = 4;
/** For how many masks random bytes are made at a time. */
const MASKS = 256;
const MASK_BYTES = 4;
const NO_BYTES = new Uint8Array(0);

/** A frame with payload that was given to the inner link. */
interface SentFrame {
  /** How many bytes had been given to the inner link with it. */
  readonly end: number;
  readonly payloadBytes: number;
  /** Its memory, where that can be used again. */
  readonly memory: Uint8Array<ArrayBuffer> | undefined;
}

/** Writes frames to a link. */
export class WebSocketSender {
  readonly #inner: Link;
  readonly #masks: MaskSource | undefined;
  /** Bytes given to the inner link in all. */
  #givenBytes = 0;
  #sent: SentFrame[] = [];
  #first = 0;
  /** Payload of the frames in `#sent` from the first on. */
  #payloadBytes = 0;
  readonly #spare: Uint8Array<ArrayBuffer>[] = [];

  /** `masked`: as dialers must. */
  constructor(inner: Link, masked: boolean) {
    this.#inner = inner;
    this.#masks = masked ? new MaskSource() : undefined;
  }

  /** Bytes of payload that have not left this process. */
  get unsentBytes(): number {
    const left = this.#givenBytes - this.#inner.bufferedBytes;
    this.#forgetUntil(left);
    const first = this.#sent[this.#first];
    if (first === undefined) return 0;
    // The payload stands at the end of its frame: what is left of the frame is payload first.
    return this.#payloadBytes - first.payloadBytes + Math.min(first.payloadBytes, first.end - left);
  }

  /** Sends bytes; the answer is the inner link's. */
  write(chunk: Uint8Array): boolean {
    if (chunk.length <= MAX_FRAME_BYTES) return this.#writeFrame(chunk);
    let more = true;
    for (let at = 0; at < chunk.length; at += MAX_FRAME_BYTES) {
      more = this.#writeFrame(chunk.subarray(at, at + MAX_FRAME_BYTES));
    }
    return more;
  }

  /** Says that no more bytes follow. */
  end(): void {
    this.#give(encodeFrame(OPCODE.binary, NO_BYTES, this.#masks?.next()));
  }

  /** Sends a Close frame. */
  close(code: number): void {
    const payload = Uint8Array.of(code >>> 8, code & 0xff);
    this.#give(encodeFrame(OPCODE.close, payload, this.#masks?.next()));
  }

  /** Answers a ping. */
  pong(payload: Uint8Array): void {
    this.#give(encodeFrame(OPCODE.pong, payload, this.#masks?.next()));
  }

  #writeFrame(chunk: Uint8Array): boolean {
    return this.#masks === undefined
      ? this.#writePlain(chunk)
      : this.#writeMasked(chunk, this.#masks.next());
  }

  #writePlain(chunk: Uint8Array): boolean {
    const { length } = chunk;
    const head = headerBytes(length, false);
    const together = length <= COPY_BYTES;
    const frame = new Uint8Array(together ? head + length : head);
    writeHeader(frame, 0, OPCODE.binary, length, undefined);
    if (together) frame.set(chunk, head);
    this.#note(head + length, length, undefined);
    const more = this.#inner.write(frame);
    return together ? more : this.#inner.write(chunk);
  }

  /** The caller's bytes must stay as they are: the masked ones are others. */
  #writeMasked(chunk: Uint8Array, mask: Uint8Array): boolean {
    const { length } = chunk;
    const head = headerBytes(length, true);
    const start = (chunk.byteOffset - head) & 3;
    const reused = length >= REUSED_BYTES;
    const memory = reused ? this.#memory() : new Uint8Array(start + head + length);
    const payloadStart = writeHeader(memory, start, OPCODE.binary, length, mask);
    const end = payloadStart + length;
    maskBytes(chunk, memory.subarray(payloadStart, end), mask, 0);
    this.#note(head + length, length, reused ? memory : undefined);
    return this.#inner.write(memory.subarray(start, end));
  }

  #memory(): Uint8Array<ArrayBuffer> {
    this.#forgetUntil(this.#givenBytes - this.#inner.bufferedBytes);
    return this.#spare.pop() ?? new Uint8Array(MAX_FRAME_BYTES + MASKED_HEAD_BYTES);
  }

  #note(frameBytes: number, payloadBytes: number, memory: SentFrame["memory"]): void {
    this.#givenBytes += frameBytes;
    this.#payloadBytes += payloadBytes;
    this.#sent.push({ end: this.#givenBytes, payloadBytes, memory });
  }

  #give(frame: Uint8Array): void {
    this.#givenBytes += frame.length;
    this.#inner.write(frame);
  }

  /** Forgets the frames that have left whole. */
  #forgetUntil(left: number): void {
    const sent = this.#sent;
    let first = this.#first;
    for (let frame = sent[first]; frame !== undefined && frame.end <= left; frame = sent[first]) {
      first++;
      this.#payloadBytes -= frame.payloadBytes;
      if (frame.memory !== undefined && this.#spare.length < MAX_SPARE) {
        this.#spare.push(frame.memory);
      }
    }
    if (first === sent.length) {
      this.#sent = first === 0 ? sent : [];
      first = 0;
    } else if (first > 64 && first * 2 > sent.length) {
      this.#sent = sent.slice(first);
      first = 0;
    }
    this.#first = first;
  }
}

/** Unpredictable masks, one for each frame. */
class MaskSource {
  #bytes: Uint8Array = NO_BYTES;
  #at = 0;

  next(): Uint8Array {
    if (this.#at === this.#bytes.length) {
      this.#bytes = systemEnvironment.randomBytes(MASKS * MASK_BYTES);
      this.#at = 0;
    }
    return this.#bytes.subarray(this.#at, this.#at += MASK_BYTES);
  }
}
