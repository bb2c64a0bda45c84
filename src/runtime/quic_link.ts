/**
 * A link over one bidirectional stream of a QUIC connection.
 *
 * @module
 */

import type { TransportError } from "../errors.ts";
import type { Link, LinkEvents, LinkInfo } from "../transport/transport.ts";
import type { QuicStream } from "./quic.ts";
import { varintBytes, withVarint } from "./quic_varint.ts";
import { HIGH_WATER_BYTES } from "./sockets.ts";

/** What is handed to the stream at a time. */
const PIECE_BYTES = 64 * 1024;
/** Sub-streams that wait until the link is opened. */
const MAX_EARLY_SUBSTREAMS = 8;

/** What a link needs of the connection that it is a part of. */
export interface QuicLinkHost {
  /** Bytes have arrived: the other side is there. */
  onBytes(): void;
  /** Bytes were given to the stream. */
  onSent(): void;
  /** The longest datagram of the connection, the number of its stream included. */
  readonly maxDatagramBytes: number;
  /** Sends a datagram of the connection; false: it was not taken. */
  sendDatagram(bytes: Uint8Array): boolean;
  /** Opens a stream that belongs to a link; undefined: there are enough. */
  openSubstream(link: QuicLink): Link | undefined;
  /** The link is gone, once. `inOrder`: both sides had finished. */
  onGone(link: QuicLink, inOrder: boolean): void;
  /** Why the stream broke. */
  failure(cause: unknown): TransportError;
}

/** Wraps a stream, and from then on owns it. */
export class QuicLink implements Link {
  readonly info: LinkInfo;
  readonly #stream: QuicStream;
  readonly #host: QuicLinkHost;
  #events: LinkEvents | undefined;
  #error: TransportError | undefined;

  #queue: Uint8Array[] = [];
  #bufferedBytes = 0;
  #writing = false;
  #ended = false;
  #finished = false;

  #reading = false;
  #paused = false;
  #held: Uint8Array[] = [];
  #peerEnded = false;
  #closed = false;
  /** Sub-streams that came before anybody could be told. */
  #early: Link[] = [];

  /** Makes a link of a stream that nobody else reads or writes. */
  constructor(stream: QuicStream, info: LinkInfo, host: QuicLinkHost) {
    this.#stream = stream;
    this.info = info;
    this.#host = host;
    stream.onBroken = (cause) => this.#fail(cause);
  }

  get bufferedBytes(): number {
    return this.#bufferedBytes;
  }

  get maxDatagramBytes(): number {
    if (this.#closed) return 0;
    return Math.max(0, this.#host.maxDatagramBytes - varintBytes(this.streamId));
  }

  sendDatagram(bytes: Uint8Array): boolean {
    const id = this.streamId;
    return !this.#closed && id >= 0 && this.#host.sendDatagram(withVarint(id, bytes));
  }

  /** The number of its stream; negative while it has none. */
  get streamId(): number {
    return this.#stream.id;
  }

  /** A datagram came for this link. */
  takeDatagram(bytes: Uint8Array): void {
    if (!this.#closed && bytes.length > 0) this.#events?.onDatagram?.(bytes);
  }

  openSubstream(): Link | undefined {
    return this.#closed ? undefined : this.#host.openSubstream(this);
  }

  /** A sub-stream came for this link; false: it wants none. */
  takeSubstream(substream: Link): boolean {
    if (this.#closed || this.#early.length >= MAX_EARLY_SUBSTREAMS) return false;
    if (this.#events === undefined) this.#early.push(substream);
    else if (this.#events.onSubstream === undefined) return false;
    else this.#events.onSubstream(substream);
    return true;
  }

  open(events: LinkEvents): void {
    this.#events = events;
    const early = this.#early;
    this.#early = [];
    for (const substream of early) if (!this.takeSubstream(substream)) substream.close();
    queueMicrotask(() => {
      if (this.#closed) this.#tellClose();
      else this.#read();
    });
  }

  write(chunk: Uint8Array): boolean {
    if (chunk.length > 0) {
      this.#bufferedBytes += chunk.length;
      if (this.#ended || this.#closed) return false;
      this.#queue.push(chunk);
      if (!this.#writing) this.#writeQueue();
    }
    return this.#bufferedBytes <= HIGH_WATER_BYTES;
  }

  pause(): void {
    this.#paused = true;
  }

  resume(): void {
    if (!this.#paused) return;
    this.#paused = false;
    if (this.#events !== undefined) queueMicrotask(() => this.#read());
  }

  end(): void {
    if (this.#ended || this.#closed) return;
    this.#ended = true;
    if (!this.#writing) this.#finish();
  }

  close(): void {
    this.#shut(undefined);
  }

  /** The connection is gone. */
  lose(error: TransportError): void {
    this.#shut(error);
  }

  async #writeQueue(): Promise<void> {
    this.#writing = true;
    let waited = false;
    try {
      while (this.#queue.length > 0 && !this.#closed) {
        const chunk = this.#queue[0]!;
        const piece = chunk.length > PIECE_BYTES ? chunk.subarray(0, PIECE_BYTES) : chunk;
        if (piece === chunk) this.#queue.shift();
        else this.#queue[0] = chunk.subarray(PIECE_BYTES);
        this.#host.onSent();
        const taken = this.#stream.write(piece);
        if (taken !== undefined) {
          waited = true;
          await taken;
          if (this.#closed) break;
        }
        this.#bufferedBytes -= piece.length;
        if (waited && this.#queue.length === 0) this.#events?.onDrain();
      }
    } catch (cause) {
      this.#fail(cause);
    }
    this.#writing = false;
    if (this.#ended) this.#finish();
  }

  /** Sends FIN. */
  #finish(): void {
    if (this.#closed || this.#finished) return;
    this.#finished = true;
    this.#stream.end();
    if (this.#peerEnded) this.#shut(undefined);
  }

  async #read(): Promise<void> {
    if (this.#reading) return;
    this.#reading = true;
    while (this.#open) {
      if (this.#held.length > 0) {
        this.#deliver();
        continue;
      }
      let chunks: readonly Uint8Array[] | undefined;
      try {
        chunks = await this.#stream.read();
      } catch (cause) {
        this.#fail(cause);
        break;
      }
      if (this.#closed) break;
      if (chunks === undefined) {
        this.#onEnd();
        break;
      }
      this.#host.onBytes();
      for (const chunk of chunks) if (chunk.length > 0) this.#held.push(chunk);
    }
    this.#reading = false;
  }

  get #open(): boolean {
    return !this.#paused && !this.#closed && !this.#peerEnded;
  }

  #deliver(): void {
    const chunks = this.#held;
    this.#held = [];
    for (let index = 0; index < chunks.length; index++) {
      if (this.#paused) {
        this.#held = chunks.slice(index);
        return;
      }
      if (this.#closed) return;
      this.#events?.onData(chunks[index]!);
    }
  }

  #onEnd(): void {
    this.#peerEnded = true;
    this.#events?.onEnd();
    if (this.#finished) this.#shut(undefined);
  }

  #fail(cause: unknown): void {
    if (!this.#closed) this.#shut(this.#host.failure(cause));
  }

  #shut(error: TransportError | undefined): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#error = error;
    this.#queue = [];
    this.#held = [];
    for (const substream of this.#early) substream.close();
    this.#early = [];
    const inOrder = this.#finished && this.#peerEnded;
    if (!inOrder) this.#stream.reset();
    this.#host.onGone(this, inOrder);
    queueMicrotask(() => this.#tellClose());
  }

  #tellClose(): void {
    const events = this.#events;
    this.#events = undefined;
    events?.onClose(this.#error);
  }
}
