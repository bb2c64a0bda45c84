/**
 * How a QUIC stream begins that belongs to a link: with a byte that no link begins with, and the
 * number of the link's stream (docs/protocol.md, section "QUIC").
 *
 * @module
 */

import type { QuicStream } from "../runtime/quic.ts";
import { readVarint, withVarint } from "../runtime/quic_varint.ts";

/** A link begins with the length of a hello, which is below 4097: with a byte of 0. */
export const SUBSTREAM_MARK = 0xff;
/** The mark and the longest number. */
const MAX_HEAD_BYTES = 5;
/** How long a stream may take to say what it is. */
const HEAD_MS = 10_000;
/** What may come on such a stream before the handshake of its link is complete; then it is read. */
const MAX_UNREAD_BYTES = 1_048_576;
const NO_BYTES: Uint8Array = new Uint8Array(0);

/** The first bytes of a stream that belongs to the link with this stream. */
export function encodeHead(parent: number): Uint8Array {
  const number = withVarint(parent, NO_BYTES);
  const head = new Uint8Array(1 + number.length);
  head[0] = SUBSTREAM_MARK;
  head.set(number, 1);
  return head;
}

/** What a stream of the other side turned out to be. */
export interface Begun {
  /** The stream with what follows its head. */
  readonly stream: QuicStream;
  /** The stream of the link that it belongs to; undefined: it is a link itself. */
  readonly parent: number | undefined;
}

/** Reads the head of a stream; undefined: it has none that can be read, and was reset. */
export async function readHead(stream: QuicStream): Promise<Begun | undefined> {
  const late = setTimeout(() => stream.reset(), HEAD_MS);
  try {
    let bytes = NO_BYTES;
    while (true) {
      const chunks = await stream.read();
      if (chunks === undefined) break;
      bytes = joined([bytes, ...chunks]);
      // An empty read shows that there is a stream, and links begin anyhow.
      if (bytes[0] !== SUBSTREAM_MARK) {
        return { stream: new BegunStream(stream, bytes), parent: undefined };
      }
      const number = readVarint(bytes.subarray(1));
      if (number !== undefined) {
        stream.maxUnreadBytes = MAX_UNREAD_BYTES;
        return { stream: new BegunStream(stream, number.rest), parent: number.value };
      }
      if (bytes.length >= MAX_HEAD_BYTES) break;
    }
  } catch {
    // It broke before it was anything.
  } finally {
    clearTimeout(late);
  }
  stream.reset();
  return undefined;
}

/** A stream whose first bytes were read. */
export class BegunStream implements QuicStream {
  readonly #stream: QuicStream;
  #rest: Uint8Array | undefined;

  /** `rest` is what was read beyond them. */
  constructor(stream: QuicStream, rest: Uint8Array) {
    this.#stream = stream;
    this.#rest = rest.length > 0 ? rest : undefined;
  }

  get onBroken(): ((cause: unknown) => void) | undefined {
    return this.#stream.onBroken;
  }

  set onBroken(call: ((cause: unknown) => void) | undefined) {
    this.#stream.onBroken = call;
  }

  get id(): number {
    return this.#stream.id;
  }

  read(): Promise<readonly Uint8Array[] | undefined> {
    const rest = this.#rest;
    if (rest === undefined) return this.#stream.read();
    this.#rest = undefined;
    return Promise.resolve([rest]);
  }

  write(chunk: Uint8Array): Promise<void> | undefined {
    return this.#stream.write(chunk);
  }

  end(): void {
    this.#stream.end();
  }

  reset(): void {
    this.#stream.reset();
  }
}

/** A stream that is being opened, and begins with some bytes. */
export class OpeningStream implements QuicStream {
  readonly #opened: Promise<QuicStream>;
  #stream: QuicStream | undefined;
  #onBroken: ((cause: unknown) => void) | undefined;
  #over = false;
  #ended = false;

  /** `opened` is written `head` before all else. */
  constructor(opened: Promise<QuicStream>, head: Uint8Array) {
    this.#opened = opened.then(async (stream) => {
      if (this.#over) {
        stream.reset();
        throw new Error("the stream was given up");
      }
      stream.onBroken = this.#onBroken;
      await stream.write(head);
      this.#stream = stream;
      return stream;
    });
    this.#opened.catch(() => {});
  }

  get onBroken(): ((cause: unknown) => void) | undefined {
    return this.#onBroken;
  }

  set onBroken(call: ((cause: unknown) => void) | undefined) {
    this.#onBroken = call;
    if (this.#stream !== undefined) this.#stream.onBroken = call;
  }

  get id(): number {
    return this.#stream?.id ?? -1;
  }

  async read(): Promise<readonly Uint8Array[] | undefined> {
    return await (this.#stream ?? await this.#opened).read();
  }

  write(chunk: Uint8Array): Promise<void> | undefined {
    const stream = this.#stream;
    return stream === undefined
      ? this.#opened.then((stream) => stream.write(chunk))
      : stream.write(chunk);
  }

  end(): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#opened.then((stream) => stream.end(), () => {});
  }

  reset(): void {
    this.#over = true;
    this.#opened.then((stream) => stream.reset(), () => {});
  }
}

/** Chunks as one. */
export function joined(chunks: readonly Uint8Array[]): Uint8Array {
  const filled = chunks.filter(({ length }) => length > 0);
  if (filled.length < 2) return filled[0] ?? NO_BYTES;
  const whole = new Uint8Array(filled.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const chunk of filled) {
    whole.set(chunk, at);
    at += chunk.length;
  }
  return whole;
}
