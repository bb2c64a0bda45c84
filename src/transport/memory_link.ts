/**
 * Links between two endpoints of one process.
 *
 * @module
 */

import { TransportError } from "../errors.ts";
import type { Link, LinkEvents, LinkInfo } from "./transport.ts";

/** Bytes that may wait for the other side before `write` says stop. */
const HIGH_WATER_BYTES = 262_144;
/** Bytes that are taken for an owner that does not read: they have left the writer. */
const INBOX_BYTES = 131_072;
/** The most that is delivered as one chunk. */
const CHUNK_BYTES = 131_072;
/** After this many bytes in one go, other work of the process gets its turn. */
const TURN_BYTES = 4_194_304;

const NO_BYTES: Uint8Array = new Uint8Array(0);

/** One end of a link: what it writes waits until the other end reads it. */
export class MemoryLink implements Link {
  readonly info: LinkInfo;
  bufferedBytes = 0;
  readonly #release: () => void;
  #peer!: MemoryLink;
  #events: LinkEvents | undefined;
  /** Written, and not read by the peer. */
  readonly #queue: Uint8Array[] = [];
  /** Taken from the peer, and not delivered yet. */
  readonly #inbox: Uint8Array[] = [];
  #inboxBytes = 0;
  #paused = false;
  #ended = false;
  /** The peer's end was told. */
  #peerEnded = false;
  /** The peer is gone, and all that it wrote was taken. */
  #alone = false;
  #drainDue = false;
  #closed = false;
  #closeTold = false;
  #closeError: TransportError | undefined;
  #turnDue = false;
  /** Memory of a chunk that the receiver has given back. */
  #spare = NO_BYTES;

  private constructor(info: LinkInfo, release: () => void) {
    this.info = info;
    this.#release = release;
  }

  /** Two ends of one link. `release` is called when the accepting end is gone. */
  static pair(
    dialer: LinkInfo,
    acceptor: LinkInfo,
    release: () => void,
  ): [dialing: MemoryLink, accepting: MemoryLink] {
    const dialing = new MemoryLink(dialer, () => {});
    const accepting = new MemoryLink(acceptor, release);
    dialing.#peer = accepting;
    accepting.#peer = dialing;
    return [dialing, accepting];
  }

  open(events: LinkEvents): void {
    this.#events = events;
    this.#turnSoon();
  }

  write(chunk: Uint8Array): boolean {
    this.bufferedBytes += chunk.length;
    if (this.#closed || this.#ended) return false;
    if (chunk.length > 0) this.#queue.push(chunk);
    this.#peer.#turnSoon();
    return this.bufferedBytes < HIGH_WATER_BYTES;
  }

  pause(): void {
    this.#paused = true;
  }

  resume(): void {
    this.#paused = false;
    this.#turnSoon();
  }

  end(): void {
    if (this.#ended || this.#closed) return;
    this.#ended = true;
    this.#peer.#turnSoon();
    this.#turnSoon();
  }

  close(): void {
    if (this.#closed) return;
    const { bufferedBytes } = this.#peer;
    const lost = this.bufferedBytes > 0 || bufferedBytes > 0 || this.#inboxBytes > 0;
    this.#shut(undefined);
    if (lost) this.#peer.#shut(lostError());
    else this.#peer.#leftAlone();
  }

  /** Everything is told in a turn of its own, so that nothing comes from inside a call. */
  #turnSoon(): void {
    if (this.#turnDue || this.#closeTold) return;
    this.#turnDue = true;
    setImmediate(() => {
      this.#turnDue = false;
      if (this.#events !== undefined) this.#turn(this.#events);
      this.#fill();
    });
  }

  #turn(events: LinkEvents): void {
    this.#read(events);
    if (this.#drainDue && !this.#closed && this.bufferedBytes === 0) {
      this.#drainDue = false;
      events.onDrain();
    }
    if (!this.#peerEnded && this.#peer.#ended && this.#readable) this.#tellEnd(events);
    if (this.#over) this.#shut(undefined);
    if (!this.#closed || this.#closeTold) return;
    this.#closeTold = true;
    events.onClose(this.#closeError);
  }

  /** Whether events of the other direction may be told. */
  get #readable(): boolean {
    return !this.#paused && !this.#closed;
  }

  get #over(): boolean {
    if (this.#alone) return this.#inbox.length === 0;
    return this.#ended && this.#peerEnded && this.bufferedBytes === 0;
  }

  #leftAlone(): void {
    this.#alone = true;
    this.#turnSoon();
  }

  #read(events: LinkEvents): void {
    let bytes = 0;
    while (this.#readable) {
      if (bytes >= TURN_BYTES) return this.#turnSoon();
      const chunk = this.#fromInbox() ?? this.#take();
      if (chunk === undefined) return;
      bytes += chunk.length;
      if (events.onData(chunk) === true) this.#spare = new Uint8Array(chunk.buffer);
    }
  }

  /** Takes what finds room while nobody reads. */
  #fill(): void {
    while (!this.#closed && this.#inboxBytes < INBOX_BYTES) {
      const chunk = this.#take();
      if (chunk === undefined) return;
      this.#inbox.push(chunk);
      this.#inboxBytes += chunk.length;
    }
  }

  #fromInbox(): Uint8Array | undefined {
    const chunk = this.#inbox.shift();
    this.#inboxBytes -= chunk?.length ?? 0;
    return chunk;
  }

  /** The next chunk of what the peer has written, which has left it with this. */
  #take(): Uint8Array | undefined {
    const queue = this.#peer.#queue;
    if (queue.length === 0) return undefined;
    const chunk = this.#nextChunk(queue);
    this.#peer.#left(chunk.length);
    return chunk;
  }

  /** A copy: the writer may use its memory again, and the receiver may keep what it gets. */
  #nextChunk(queue: Uint8Array[]): Uint8Array {
    const first = queue[0]!;
    const size = Math.min(first.length, CHUNK_BYTES);
    const chunk = this.#spare.length >= size ? this.#spare.subarray(0, size) : new Uint8Array(size);
    this.#spare = NO_BYTES;
    if (size === first.length) {
      chunk.set(first);
      queue.shift();
    } else {
      chunk.set(first.subarray(0, size));
      queue[0] = first.subarray(size);
    }
    return chunk;
  }

  #tellEnd(events: LinkEvents): void {
    if (this.#peer.#queue.length > 0 || this.#inbox.length > 0) return;
    this.#peerEnded = true;
    events.onEnd();
  }

  /** The peer has read this many of our bytes. */
  #left(bytes: number): void {
    this.bufferedBytes -= bytes;
    if (this.bufferedBytes > 0) return;
    this.#drainDue = true;
    this.#turnSoon();
  }

  #shut(error: TransportError | undefined): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#closeError = error;
    this.#queue.length = 0;
    this.#peer.#queue.length = 0;
    this.#release();
    this.#turnSoon();
  }
}

function lostError(): TransportError {
  return new TransportError("ConnectionClosed", "Cannot read: the other side closed the link");
}
