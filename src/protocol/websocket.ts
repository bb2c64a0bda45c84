/**
 * WebSocket framing (RFC 6455) of a stream of bytes, without sockets: frames in and out.
 *
 * A stream's bytes are the payloads of binary messages, whose borders mean nothing. An empty message
 * is the end of a side's bytes; the other side may go on. When both have ended, Close frames follow.
 *
 * @module
 */

import { TransportError } from "../errors.ts";

/** The codes of Close frames that are sent (RFC 6455, section 7.4.1). */
export const CLOSE_CODE = {
  /** Both sides have ended. */
  normal: 1000,
  /** A frame breaks the rules. */
  protocolError: 1002,
  /** A text message: only bytes are carried. */
  unsupportedData: 1003,
} as const;

/** The opcodes of frames (RFC 6455, section 5.2). */
export const OPCODE = { continuation: 0, text: 1, binary: 2, close: 8, ping: 9, pong: 10 } as const;

/** The longest payload of a control frame. */
export const MAX_CONTROL_BYTES = 125;
/** The longest header: two bytes, a length of eight, a mask of four. */
export const MAX_HEADER_BYTES = 14;
/** A length of more than 2^53 is no number here: the upper half of one that is less. */
const MAX_LENGTH_HIGH = 2 ** 21 - 1;
const MASK_BYTES = 4;
const FIN = 0x80;
const RESERVED = 0x70;
const MASKED = 0x80;

/** What arrives. The chunks of `onData` are views of what was given to the decoder. */
export interface WebSocketSink {
  /** Bytes of the stream, at least one. True: nobody looks at them any more. */
  onData(chunk: Uint8Array): boolean;
  /** The other side's bytes end here. */
  onEnd(): void;
  /** A ping, to be answered with the same payload, which is good until this returns. */
  onPing(payload: Uint8Array): void;
  /** A Close frame with its code, 1005 where it has none. Nothing follows it. */
  onClose(code: number): void;
}

/** The code that stands for a Close frame without one; never sent. */
const NO_CODE = 1005;

/** Takes frames apart, however they are cut. Unmasks in place: the chunks given to it are changed. */
export class WebSocketDecoder {
  readonly #sink: WebSocketSink;
  readonly #masked: boolean;
  readonly #head = new Uint8Array(MAX_HEADER_BYTES);
  readonly #mask = new Uint8Array(MASK_BYTES);
  #headLength = 0;
  /** How long the header is, as far as it is known. */
  #headNeeded = 2;
  #opcode = 0;
  #fin = false;
  /** Bytes of the frame's payload that have not come. */
  #remaining = 0;
  /** Where in the mask the next byte stands. */
  #phase = 0;
  /** Inside a message, between its frames. */
  #inMessage = false;
  #ended = false;
  #stopped = false;
  readonly #control = new Uint8Array(MAX_CONTROL_BYTES);
  #controlLength = 0;
  /** Which code says what was wrong, once `decode` has thrown. */
  closeCode: number = CLOSE_CODE.protocolError;

  /** `masked`: frames must be masked, as those of dialers are; otherwise none may be. */
  constructor(masked: boolean, sink: WebSocketSink) {
    this.#masked = masked;
    this.#sink = sink;
  }

  /**
   * Takes the next bytes. True: whatever the sink got of them, nobody looks at any more.
   *
   * @throws {TransportError} `InvalidFrame`; nothing may be given to it after that
   */
  decode(chunk: Uint8Array): boolean {
    let offset = 0;
    let free = true;
    while (offset < chunk.length && !this.#stopped) {
      if (this.#remaining === 0) {
        offset = this.#takeHead(chunk, offset);
        continue;
      }
      const end = Math.min(chunk.length, offset + this.#remaining);
      if (this.#masked) this.#phase = applyMask(chunk, offset, end, this.#mask, this.#phase);
      this.#remaining -= end - offset;
      if (this.#opcode >= OPCODE.close) {
        this.#control.set(chunk.subarray(offset, end), this.#controlLength);
        this.#controlLength += end - offset;
        if (this.#remaining === 0) this.#endFrame();
      } else {
        // The state is that after the piece before it is told: the sink may stop everything.
        if (this.#remaining === 0) this.#endFrame();
        if (!this.#sink.onData(chunk.subarray(offset, end))) free = false;
      }
      offset = end;
    }
    return free;
  }

  /** Nothing more is told, also of what is being decoded. */
  stop(): void {
    this.#stopped = true;
  }

  /** Collects the header; returns where it ends in the chunk, or the chunk does. */
  #takeHead(chunk: Uint8Array, start: number): number {
    let offset = start;
    while (offset < chunk.length) {
      this.#head[this.#headLength++] = chunk[offset++]!;
      if (this.#headLength === 2) this.#readFirstTwo(this.#head[0]!, this.#head[1]!);
      if (this.#headLength < this.#headNeeded) continue;
      this.#headLength = 0;
      const needed = this.#headNeeded;
      this.#headNeeded = 2;
      this.#readLength(needed);
      break;
    }
    return offset;
  }

  /** Refuses what the first two bytes show to be wrong, before the rest is waited for. */
  #readFirstTwo(first: number, second: number): void {
    if ((first & RESERVED) !== 0) throw this.#violation("a reserved bit is set");
    const masked = (second & MASKED) !== 0;
    if (masked !== this.#masked) {
      throw this.#violation(masked ? "a listener's frame is masked" : "a frame is not masked");
    }
    this.#fin = (first & FIN) !== 0;
    const opcode = first & 0x0f;
    const length = second & 0x7f;
    this.#checkOpcode(opcode, length);
    this.#opcode = opcode;
    const lengthBytes = length === 127 ? 8 : length === 126 ? 2 : 0;
    this.#headNeeded = 2 + lengthBytes + (masked ? MASK_BYTES : 0);
  }

  #checkOpcode(opcode: number, length: number): void {
    switch (opcode) {
      case OPCODE.text:
        this.closeCode = CLOSE_CODE.unsupportedData;
        throw this.#violation("a text message");
      case OPCODE.continuation:
      case OPCODE.binary:
        if (this.#ended) throw this.#violation("data after the end of the data");
        if ((opcode === OPCODE.continuation) !== this.#inMessage) {
          throw this.#violation("the frames of messages are mixed up");
        }
        return;
      case OPCODE.close:
      case OPCODE.ping:
      case OPCODE.pong:
        if (!this.#fin) throw this.#violation("a control frame in fragments");
        if (length > MAX_CONTROL_BYTES) throw this.#violation("a control frame is too long");
        return;
      default:
        throw this.#violation(`unknown opcode ${opcode}`);
    }
  }

  /** Reads what stands behind the first two bytes of a header of `needed` bytes. */
  #readLength(needed: number): void {
    const head = this.#head;
    const end = needed - (this.#masked ? MASK_BYTES : 0);
    let length = head[1]! & 0x7f;
    if (end === 4) {
      length = head[2]! << 8 | head[3]!;
      if (length < 126) throw this.#violation("a length is longer than it must be");
    } else if (end === 10) {
      const high = readUint32(head, 2);
      if (high > MAX_LENGTH_HIGH) throw this.#violation("a length beyond 2^53");
      length = high * 2 ** 32 + readUint32(head, 6);
      if (length < 65_536) throw this.#violation("a length is longer than it must be");
    }
    if (this.#masked) {
      for (let i = 0; i < MASK_BYTES; i++) this.#mask[i] = head[end + i]!;
    }
    this.#phase = 0;
    this.#remaining = length;
    if (length === 0) this.#endEmptyFrame();
  }

  #endEmptyFrame(): void {
    if (this.#opcode === OPCODE.binary && this.#fin) {
      this.#ended = true;
      this.#sink.onEnd();
    } else if (this.#opcode < OPCODE.close && !this.#fin) {
      throw this.#violation("an empty frame that is not the last of its message");
    } else {
      this.#endFrame();
    }
  }

  /** The whole payload of a frame has come. */
  #endFrame(): void {
    if (this.#opcode < OPCODE.close) {
      this.#inMessage = !this.#fin;
      return;
    }
    const payload = this.#control.subarray(0, this.#controlLength);
    this.#controlLength = 0;
    if (this.#opcode === OPCODE.ping) this.#sink.onPing(payload);
    else if (this.#opcode === OPCODE.close) this.#readClose(payload);
  }

  #readClose(payload: Uint8Array): void {
    if (payload.length === 1) throw this.#violation("a Close frame with half a code");
    const code = payload.length === 0 ? NO_CODE : payload[0]! << 8 | payload[1]!;
    if (payload.length > 0 && !mayBeSent(code)) {
      throw this.#violation(`a Close frame with code ${code}`);
    }
    this.#stopped = true;
    this.#sink.onClose(code);
  }

  #violation(what: string): TransportError {
    this.#stopped = true;
    return new TransportError("InvalidFrame", `Cannot read a WebSocket frame: ${what}`);
  }
}

/** Whether a Close frame may carry a code (RFC 6455, section 7.4, and the registry it founded). */
function mayBeSent(code: number): boolean {
  if (code >= 3000) return code <= 4999;
  return code >= 1000 && code <= 1014 && (code < 1004 || code > 1006);
}

/** How many bytes the header of a frame has. */
export function headerBytes(payloadLength: number, masked: boolean): number {
  const lengthBytes = payloadLength < 126 ? 0 : payloadLength < 65_536 ? 2 : 8;
  return 2 + lengthBytes + (masked ? MASK_BYTES : 0);
}

/** Writes the header of a whole message or control frame. Returns where the payload starts. */
export function writeHeader(
  target: Uint8Array,
  start: number,
  opcode: number,
  payloadLength: number,
  mask: Uint8Array | undefined,
): number {
  const maskBit = mask === undefined ? 0 : MASKED;
  let offset = start;
  target[offset++] = FIN | opcode;
  if (payloadLength < 126) {
    target[offset++] = maskBit | payloadLength;
  } else if (payloadLength < 65_536) {
    target[offset++] = maskBit | 126;
    target[offset++] = payloadLength >>> 8;
    target[offset++] = payloadLength & 0xff;
  } else {
    target[offset++] = maskBit | 127;
    offset = writeUint32(target, offset, Math.floor(payloadLength / 2 ** 32));
    offset = writeUint32(target, offset, payloadLength >>> 0);
  }
  if (mask !== undefined) {
    for (let i = 0; i < MASK_BYTES; i++) target[offset++] = mask[i]!;
  }
  return offset;
}

/** A short frame in one piece: an end, a Close, a pong. */
export function encodeFrame(
  opcode: number,
  payload: Uint8Array,
  mask: Uint8Array | undefined,
): Uint8Array {
  const masked = mask !== undefined;
  const frame = new Uint8Array(headerBytes(payload.length, masked) + payload.length);
  const start = writeHeader(frame, 0, opcode, payload.length, mask);
  frame.set(payload, start);
  if (masked) applyMask(frame, start, frame.length, mask, 0);
  return frame;
}

/** A Close frame. */
export function encodeClose(code: number, mask: Uint8Array | undefined): Uint8Array {
  return encodeFrame(OPCODE.close, Uint8Array.of(code >>> 8, code & 0xff), mask);
}

/** Where a mask becomes a number as the machine reads it, whichever its byte order. */
const maskWord = new Uint32Array(1);
const maskWordBytes = new Uint8Array(maskWord.buffer);

/**
 * Masks or unmasks bytes in place. `phase` is where in the mask the first one stands; returns that
 * of the next.
 */
export function applyMask(
  bytes: Uint8Array,
  start: number,
  end: number,
  mask: Uint8Array,
  phase: number,
): number {
  return maskBytes(bytes.subarray(start, end), bytes.subarray(start, end), mask, phase);
}

/**
 * Masks bytes into a target of the same length, which may be themselves. Fast where both lie alike
 * to words of four bytes. Returns where in the mask the next byte stands.
 */
export function maskBytes(
  source: Uint8Array,
  target: Uint8Array,
  mask: Uint8Array,
  phase: number,
): number {
  const { length, byteOffset } = source;
  const alike = (byteOffset & 3) === (target.byteOffset & 3);
  const aligned = alike ? Math.min(length, -byteOffset & 3) : length;
  let at = 0;
  for (; at < aligned; at++) target[at] = source[at]! ^ mask[(phase + at) & 3]!;
  const count = (length - at) >>> 2;
  if (count > 0) {
    for (let i = 0; i < 4; i++) maskWordBytes[i] = mask[(phase + at + i) & 3]!;
    const words = new Uint32Array(source.buffer, byteOffset + at, count);
    const masked = new Uint32Array(target.buffer, target.byteOffset + at, count);
    maskWords(words, masked, maskWord[0]!);
    at += count * 4;
  }
  for (; at < length; at++) target[at] = source[at]! ^ mask[(phase + at) & 3]!;
  return (phase + length) & 3;
}

/** Four at a time: twice as fast as one on V8. */
function maskWords(source: Uint32Array, target: Uint32Array, mask: number): void {
  const { length } = source;
  const most = length & ~3;
  for (let i = 0; i < most; i += 4) {
    target[i] = source[i]! ^ mask;
    target[i + 1] = source[i + 1]! ^ mask;
    target[i + 2] = source[i + 2]! ^ mask;
    target[i + 3] = source[i + 3]! ^ mask;
  }
  for (let i = most; i < length; i++) target[i] = source[i]! ^ mask;
}

function readUint32(bytes: Uint8Array, at: number): number {
  return (bytes[at]! << 24 | bytes[at + 1]! << 16 | bytes[at + 2]! << 8 | bytes[at + 3]!) >>> 0;
}

function writeUint32(bytes: Uint8Array, at: number, value: number): number {
  bytes[at] = value >>> 24;
  bytes[at + 1] = value >>> 16 & 0xff;
  bytes[at + 2] = value >>> 8 & 0xff;
  bytes[at + 3] = value & 0xff;
  return at + 4;
}
