/**
 * Joins the protocol of one connection to its link, and keeps the connection's only deadline.
 *
 * @module
 */

import { TransportError } from "../errors.ts";
import {
  Connection,
  type ConnectionConfig,
  type ConnectionSink,
  MISSED_INTERVALS,
  type Rejection,
} from "../protocol/connection.ts";
import { Fifo } from "../protocol/fifo.ts";
import type { Negotiated } from "../protocol/handshake.ts";
import { isReusable } from "../protocol/outbox.ts";
import type { OfferedSession } from "../protocol/handshaker.ts";
import type { Channel } from "../protocol/v3/channel.ts";
import { MAX_EARLY_SUBSTREAMS, type Substream } from "../protocol/v3/substream.ts";
import { GOAWAY, type GoawayCode } from "../protocol/v3/types.ts";
import type { Environment } from "../runtime/environment.ts";
import type { Link, LinkEvents } from "../transport/transport.ts";
import { discard } from "./discard.ts";
import type { PeerIdentity } from "./identity.ts";
import { SentTail } from "./sent_tail.ts";
import type { Timed, Timers } from "./timers.ts";

/** A batch is written as soon as it is this large, without waiting for the turn to end. */
const BATCH_BYTES = 131_072;
/** After this many bytes written in one go, other work of the process gets its turn. */
const TURN_BYTES = 8_388_608;
/** What a connection that ends may hold back at most while nobody takes it. */
const ENDING_BYTES = 1_048_576;
/** A read of this many bytes says that there is more to come. */
const FULL_READ_BYTES = 65_536;
/** How long a refused dialer's reject may take to leave. */
const LINGER_MS = 500;

/** What a driver tells the peer or manager that owns it. */
export interface DriverOwner {
  /** A listener's connection got a hello with this name; undefined believes it. */
  onIdentity(driver: Driver, nodeId: string): Rejection | undefined;
  /** The hello is in order; undefined lets it in. */
  onHello(driver: Driver, negotiated: Negotiated): Rejection | undefined;
  /** Which session the dialer gets; only listeners are asked. */
  offerSession?(negotiated: Negotiated): OfferedSession;
  /** The handshake is complete. */
  onEstablished(driver: Driver): void;
  /** Whether a message can be taken now. */
  wantsMessage(driver: Driver): boolean;
  /** One message. */
  onMessage(driver: Driver, payload: Uint8Array): void;
  /** A datagram, of which nothing was looked at. */
  onDatagram?(driver: Driver, bytes: Uint8Array): void;
  /** The driver may be given messages again. */
  onWritable(driver: Driver): void;
  /** Everything given to the driver has left the process. */
  onFlushed(driver: Driver): void;
  /** A dialed connection was silent for a keepalive interval. */
  onSilent(driver: Driver): void;
  /** The peer does not answer on this connection, or it does again. */
  onSuspect?(driver: Driver, suspect: boolean): void;
  /** The peer starts nothing new on this connection, which ends when all on it is done. */
  onGoaway?(driver: Driver, code: number): void;
  /** An idle connection is used again. */
  onUsed?(driver: Driver): void;
  /** More goes through it than it takes at once. */
  onBusy?(driver: Driver): void;
  /** The peer sends nothing more here; ours should end too. */
  onPeerEnd(driver: Driver): void;
  /** It is over, exactly once. What may not have arrived is in `takeUndelivered()`. */
  onClosed(driver: Driver, error: TransportError | undefined): void;
}

/** What is the same for all drivers of an endpoint. */
export interface DriverSettings {
  readonly environment: Environment;
  /** What all connections of the endpoint wait with. */
  readonly timers: Timers;
  /** How long what is ready may wait for more, milliseconds. */
  readonly batchDelayMs: number;
  readonly ioTimeoutMs: number;
  readonly lz4: ConnectionConfig["lz4"];
}

/** What a driver needs beside its link. */
export interface DriverConfig extends ConnectionConfig {
  readonly settings: DriverSettings;
}

/** A sub-stream and what carries it. */
interface Carried {
  readonly link: Link;
  writeDeadline: number | undefined;
  lastBuffered: number;
}

/** Most connections never have any, and there may be thousands of connections. */
const NO_SUBSTREAMS = new Map<Substream, Carried>();
const NOTHING_DIRTY = new Set<Substream>();
const NO_LINKS: readonly Link[] = [];

/** A connection at work. */
export class Driver implements ConnectionSink, LinkEvents, Timed {
  /** The link under it. */
  readonly link: Link;
  /** Whether we dialed. */
  readonly dialed: boolean;
  /** The address that was dialed; undefined where the peer dialed us. */
  dialedAddress: string | undefined;
  /** What the certificate of the other side proved; set by the owner. */
  identity: PeerIdentity | undefined;
  /** The generation of sessions that our hello or welcome told. */
  generation: number | undefined;
  /** @ignore */
  timerAt = Infinity;
  /** @ignore */
  timerPlace = 0;
  /** When it was established, on the monotonic clock. */
  establishedAt = 0;
  /** Set by the owner when the connection takes no new messages. */
  retiring = false;
  /** Set by the owner when nothing has gone through it for a while. */
  idle = false;
  /** When something other than pings last went through it, on the monotonic clock. */
  usedAt = 0;
  /** Bytes that came from the link. */
  bytesReceived = 0;
  /** Bytes given to the link. */
  bytesSent = 0;
  /** Messages given to the link. */
  messagesSent = 0;
  /** Messages delivered to the owner. */
  messagesReceived = 0;
  /** Bytes of the messages sent, before compression and framing. */
  payloadBytesSent = 0;
  /** Bytes of the messages received, after decompression. */
  payloadBytesReceived = 0;
  readonly #environment: Environment;
  readonly #settings: DriverSettings;
  readonly #connection: Connection;
  #owner: DriverOwner;
  #flushQueued = false;
  #cancelBatch: (() => void) | undefined;
  #seenBytes = 0;
  #congested = false;
  #turnBytes = 0;
  #turnEnding = false;
  #paused = false;
  #ending = false;
  #closing = false;
  #closed = false;
  #error: TransportError | undefined;
  /** In versions 1 and 2. */
  #tail: SentTail | undefined;
  /** Messages in chunks that the link may still hold. */
  #inflightMessages = 0;
  #unwrittenBytes = 0;
  #writeDeadline: number | undefined;
  #lastBuffered = 0;
  /** When the peer last showed on another connection that it lives. */
  #lifeAt = -Infinity;
  /** Whether a stalled write has made us ask for a sign of life. */
  #asked = false;
  #closeDeadline: number | undefined;
  /** Bytes given to the link in all. */
  #givenBytes = 0;
  /** Batches that nobody keeps: their memory is used again when they have left. */
  #lent: Fifo<{ readonly chunk: Uint8Array; readonly end: number }> | undefined;
  #work = 0;
  #substreams = NO_SUBSTREAMS;
  /** Those with something to write, or to end. */
  #dirty = NOTHING_DIRTY;
  /** Sub-streams of the peer that came before the handshake was complete. */
  #early = NO_LINKS;

  /** Takes the link over; the hello of a dialer leaves at once. */
  constructor(link: Link, config: DriverConfig, owner: DriverOwner) {
    this.link = link;
    this.dialed = config.role === "dialer";
    this.#settings = config.settings;
    this.#environment = config.settings.environment;
    this.#owner = owner;
    const { claimSession } = config;
    const ours = claimSession === undefined ? config : {
      ...config,
      claimSession: () => {
        const claimed = claimSession();
        this.generation = claimed.generation;
        return claimed;
      },
    };
    this.#connection = new Connection(ours, this, this.#environment.now());
    link.open(this);
    this.flush();
    this.#arm();
  }

  /** What was agreed; undefined before the handshake is complete. */
  get negotiated(): Negotiated | undefined {
    return this.#connection.negotiated;
  }

  /** Whether the connection is established and neither side has begun to end it. */
  get active(): boolean {
    return this.#connection.open && !this.#ending && !this.#closing && !this.retiring;
  }

  /** Whether `send` may be called now; in version 3, whether its session may write. */
  get writable(): boolean {
    if (this.#congested || this.#turnEnding) return false;
    if (this.#connection.channel === undefined) return this.active;
    return this.#connection.open && !this.#ending && !this.#closing;
  }

  /** What there is in version 3: undefined in versions 1 and 2. */
  get channel(): Channel | undefined {
    return this.#connection.channel;
  }

  /** Messages accepted and, as far as we know, still in this process. */
  get pendingMessages(): number {
    return this.#connection.outbox.messages + this.#inflightMessages;
  }

  /** Bytes accepted and still in this process. */
  get pendingBytes(): number {
    let bytes = this.#connection.outbox.bytes + this.link.bufferedBytes;
    if (this.#substreams.size === 0) return bytes;
    for (const [sub, { link }] of this.#substreams) bytes += sub.outbox.bytes + link.bufferedBytes;
    return bytes;
  }

  /** Whether sub-streams that are writable may be written to. */
  get mayWrite(): boolean {
    return !this.#turnEnding && this.#connection.open && !this.#ending && !this.#closing;
  }

  /** Hands the driver to another owner (from the manager to the peer it turned out to belong to). */
  set owner(owner: DriverOwner) {
    this.#owner = owner;
  }

  /** Its counters have been added to others: they must not be counted twice. */
  clearCounters(): void {
    this.bytesReceived = this.bytesSent = 0;
    this.messagesSent = this.messagesReceived = 0;
    this.payloadBytesSent = this.payloadBytesReceived = 0;
  }

  /** Sends a message with whatever else is sent in this turn. The payload is copied. */
  send(payload: Uint8Array): void {
    if (this.#connection.outbox.overflows(payload.length)) this.flush();
    this.#connection.send(payload);
    this.messagesSent++;
    this.payloadBytesSent += payload.length;
    if (this.#connection.outbox.bytes >= BATCH_BYTES) this.flush();
    else this.flushSoon();
  }

  /** The longest datagram that can be sent now; 0: none can. */
  get maxDatagramBytes(): number {
    if (!this.active || !this.#hasDatagrams || this.channel?.goaway !== undefined) return 0;
    return this.link.maxDatagramBytes ?? 0;
  }

  /** Sends a datagram beside everything else; false: it was not taken. */
  sendDatagram(bytes: Uint8Array): boolean {
    if (this.link.sendDatagram?.(bytes) !== true) return false;
    this.bytesSent += bytes.length;
    return true;
  }

  /** What is signed or has a checksum by agreement goes in frames alone. */
  get #hasDatagrams(): boolean {
    const capabilities = this.negotiated?.capabilities;
    return capabilities?.has("datagrams") === true && !capabilities.has("signed") &&
      !capabilities.has("checksum");
  }

  /** Writes what is gathered when this turn has ended, or after the batch delay. */
  flushSoon(): void {
    if (this.#flushQueued) return;
    this.#flushQueued = true;
    this.#seenBytes = 0;
    const { batchDelayMs } = this.#settings;
    if (batchDelayMs > 0 && this.active) {
      this.#cancelBatch = this.#environment.setTimer(batchDelayMs, this.#flushLater);
    } else {
      queueMicrotask(this.#flushLater);
    }
  }

  /** @ignore */
  recycle(chunk: Uint8Array): void {
    if (this.#closed || !isReusable(chunk)) return;
    // Whatever the peer says: it may be written over once it has left.
    if (this.link.bufferedBytes === 0) this.#connection.outbox.recycle(chunk);
    else (this.#lent ??= new Fifo()).push({ chunk, end: this.#givenBytes });
  }

  /** Writes what is gathered, now. */
  flush(): void {
    const { outbox } = this.#connection;
    const messages = outbox.messages;
    const chunk = outbox.take();
    if (chunk === undefined) return;
    const now = this.#environment.now();
    const kept = this.channel?.seal(chunk) ?? true;
    if (messages > 0) {
      this.#settle(now);
      (this.#tail ??= new SentTail()).push(chunk, now);
      this.#inflightMessages += messages;
    }
    // What was gathered when the end came is left for takeUndelivered().
    if (this.#closing || this.#ending) {
      this.#unwrittenBytes += chunk.length;
      return;
    }
    this.bytesSent += chunk.length;
    this.#givenBytes += chunk.length;
    if (!kept && isReusable(chunk)) {
      (this.#lent ??= new Fifo()).push({ chunk, end: this.#givenBytes });
    }
    this.#connection.handleWritten(now);
    this.#congested = !this.link.write(chunk) || this.#congested;
    this.#noteUse(now);
    if (this.#congested) this.#owner.onBusy?.(this);
    this.#settle(now);
    this.#watchWrites(now);
    this.#yieldTurn(chunk.length);
    // What the system takes at once is followed by no drain.
    if (this.link.bufferedBytes === 0) this.#owner.onFlushed(this);
  }

  // --- sub-streams ---

  /** @ignore */
  openSubstream(sub: Substream): boolean {
    if (this.#ending || this.#closing) return false;
    const link = this.link.openSubstream?.();
    if (link === undefined) return false;
    this.#carry(sub, link);
    return true;
  }

  /** @ignore */
  flushSubstreamSoon(sub: Substream): void {
    if (this.#dirty === NOTHING_DIRTY) this.#dirty = new Set();
    this.#dirty.add(sub);
    this.flushSoon();
  }

  /** @ignore */
  flushSubstream(sub: Substream): void {
    this.#dirty.delete(sub);
    const carried = this.#substreams.get(sub);
    const chunk = sub.outbox.take();
    if (chunk !== undefined) {
      sub.seal(chunk);
      if (carried !== undefined && !this.#closing && !this.#ending) {
        this.#writeTo(sub, carried, chunk);
      }
    }
    if (sub.finishing && carried !== undefined && !this.#closing) {
      carried.link.end();
      this.#connection.handleSubstreamFinished(sub);
    }
  }

  #writeTo(sub: Substream, carried: Carried, chunk: Uint8Array): void {
    const now = this.#environment.now();
    this.bytesSent += chunk.length;
    this.#connection.handleWritten(now);
    sub.writable = carried.link.write(chunk);
    this.#noteUse(now);
    this.#watchSubstream(carried, now);
    this.#yieldTurn(chunk.length);
  }

  #flushSubstreams(): void {
    if (this.#dirty.size === 0) return;
    for (const sub of this.#dirty) this.flushSubstream(sub);
  }

  /** @ignore */
  onSubstream(link: Link): void {
    if (this.#closing) return discard(link);
    // A stream of its own may come before the handshake that it is for.
    if (this.#connection.open && this.#early.length === 0) return this.#accept(link);
    this.#early = [...this.#early, link];
    if (this.#early.length <= MAX_EARLY_SUBSTREAMS) return;
    this.close(
      new TransportError("InvalidFrame", "Cannot go on with the connection: too many sub-streams"),
    );
  }

  #acceptEarly(): void {
    const early = this.#early;
    this.#early = NO_LINKS;
    for (const link of early) this.#accept(link);
  }

  #accept(link: Link): void {
    const sub = this.#closing
      ? undefined
      : this.#connection.acceptSubstream(this.#environment.now());
    if (sub === undefined) return discard(link);
    this.#carry(sub, link);
    this.#arm();
  }

  #carry(sub: Substream, link: Link): void {
    const carried: Carried = { link, writeDeadline: undefined, lastBuffered: 0 };
    if (this.#substreams === NO_SUBSTREAMS) this.#substreams = new Map();
    this.#substreams.set(sub, carried);
    link.open({
      onData: (chunk) => {
        this.bytesReceived += chunk.length;
        this.#turnBytes = 0;
        const now = this.#environment.now();
        this.#connection.handleSubstreamBytes(sub, chunk, now);
        this.#noteUse(now);
        this.#steerReading();
        this.#arm();
      },
      onDrain: () => {
        this.#turnBytes = 0;
        this.#watchSubstream(carried, this.#environment.now());
        sub.writable = true;
      },
      onEnd: () => this.#connection.handleSubstreamEnd(sub),
      onClose: (error) => this.#onSubstreamClosed(sub, error),
    });
  }

  /** Frames may be missing: the session repeats them, but on another connection. */
  #onSubstreamClosed(sub: Substream, error: TransportError | undefined): void {
    this.#substreams.delete(sub);
    if (sub.over || this.#ending || this.#closing) return;
    const text = "Cannot go on with the connection: a sub-stream was lost";
    const { nodeId: peer } = this.negotiated ?? {};
    this.close(error ?? new TransportError("ConnectionClosed", text, { peer }));
  }

  #closeSubstreams(): void {
    for (const { link } of this.#substreams.values()) link.close();
    this.#substreams = NO_SUBSTREAMS;
    for (const link of this.#early) discard(link);
    this.#early = NO_LINKS;
  }

  /** As `#watchWrites`, for a sub-stream. */
  #watchSubstream(carried: Carried, now: number): void {
    const { bufferedBytes } = carried.link;
    if (bufferedBytes === 0) carried.writeDeadline = undefined;
    else if (carried.writeDeadline === undefined || bufferedBytes < carried.lastBuffered) {
      carried.writeDeadline = now + this.#settings.ioTimeoutMs;
    }
    carried.lastBuffered = bufferedBytes;
    this.#arm();
  }

  /** When the first of them has made no progress for too long. */
  get #substreamDeadline(): number {
    let first = Infinity;
    if (this.#substreams.size === 0) return first;
    for (const { writeDeadline } of this.#substreams.values()) {
      if (writeDeadline !== undefined && writeDeadline < first) first = writeDeadline;
    }
    return first;
  }

  #checkSubstreams(now: number): void {
    if (now < this.#substreamDeadline) return;
    for (const carried of this.#substreams.values()) this.#watchSubstream(carried, now);
    if (now >= this.#substreamDeadline) this.#closeStalled();
  }

  /** Finishes: what was accepted is written, then FIN. Closes by force when that takes too long. */
  end(withinMs: number, code: GoawayCode = GOAWAY.idle, reason: string = ""): void {
    if (this.#ending || this.#closing) return;
    this.#closeDeadline ??= this.#environment.now() + withinMs;
    const { channel } = this;
    if (channel?.session === undefined) {
      this.#endNow();
    } else if (!channel.draining) {
      channel.drain(code, reason);
      channel.session.drain(channel, this.#environment.now());
    }
    this.#arm();
  }

  #endNow(): void {
    if (this.#ending || this.#closing) return;
    this.flush();
    this.#flushSubstreams();
    this.#ending = true;
    if (this.channel !== undefined) this.channel.ended = true;
    for (const [sub, { link }] of this.#substreams) {
      link.end();
      this.#connection.handleSubstreamFinished(sub);
    }
    this.link.end();
    this.#closeDeadline ??= this.#environment.now() + this.#settings.ioTimeoutMs;
    this.#steerReading();
    this.#arm();
  }

  /** Ends at once; `error` is why. */
  close(error?: TransportError): void {
    if (this.#closing) return;
    this.#closing = true;
    this.#error ??= error;
    this.link.close();
  }

  /** Whether messages that came before the link closed still wait to be wanted. */
  get hasRemains(): boolean {
    return this.#closed && !this.channel?.resume && this.#connection.hasRemains;
  }

  /** Looks again whether messages are wanted; also after the link has closed. */
  release(): void {
    if (this.#closing && !this.#closed) return;
    this.#connection.resume(this.#environment.now());
    this.#steerReading();
    this.#arm();
  }

  /** The peer has shown in another way that it lives. */
  noteLife(now: number): void {
    this.#lifeAt = now;
    this.#asked = false;
    this.#connection.noteLife(now);
  }

  /** Whether nothing waits on it, neither to be sent nor to be taken. */
  get quiet(): boolean {
    return this.pendingBytes === 0 && !this.#connection.held && !this.#paused;
  }

  /** Stops reading until `release`. */
  hold(): void {
    this.#steerReading();
  }

  /**
   * The messages that never left, and those of which nobody knows, oldest first. For after the
   * close; `inOrder` is how it went: then only what is still in this process is in doubt.
   */
  takeUndelivered(inOrder: boolean): { unsent: Uint8Array[]; unknown: Uint8Array[] } {
    // In version 3 the session keeps them.
    if (this.channel !== undefined) return { unsent: [], unknown: [] };
    const unwritten = this.#unwrittenBytes;
    const doubtful = inOrder ? unwritten + this.link.bufferedBytes : Infinity;
    const version = this.negotiated?.version ?? 2;
    return this.#tail?.take(unwritten, doubtful, version, this.#settings.lz4) ??
      { unsent: [], unknown: [] };
  }

  // --- what the protocol tells ---

  /** @ignore */
  onIdentity(nodeId: string): Rejection | undefined {
    return this.#owner.onIdentity(this, nodeId);
  }

  /** @ignore */
  onHello(negotiated: Negotiated): Rejection | undefined {
    return this.#owner.onHello(this, negotiated);
  }

  /** @ignore */
  offerSession(negotiated: Negotiated): OfferedSession {
    const offered = this.#owner.offerSession!(negotiated);
    this.generation = offered.generation;
    return offered;
  }

  /** @ignore */
  onEstablished(_: Negotiated): void {
    this.establishedAt = this.usedAt = this.#environment.now();
    this.flush();
    this.#owner.onEstablished(this);
    // A dialer's first bytes, its proof among them, go out before it looks at anything else.
    if (this.#early.length > 0) queueMicrotask(() => this.#acceptEarly());
  }

  /** @ignore */
  wantsMessage(): boolean {
    return this.#owner.wantsMessage(this);
  }

  /** @ignore */
  onMessage(payload: Uint8Array): void {
    this.messagesReceived++;
    this.payloadBytesReceived += payload.length;
    this.#owner.onMessage(this, payload);
  }

  /** @ignore */
  onSilent(): void {
    this.#owner.onSilent(this);
  }

  /** @ignore */
  onSuspect(suspect: boolean): void {
    this.#owner.onSuspect?.(this, suspect);
  }

  /** @ignore */
  onGoaway(code: number): void {
    this.#owner.onGoaway?.(this, code);
  }

  /** @ignore */
  onDrained(): void {
    // Who asked for the end waits for the other side, which may still have something under way.
    const { channel } = this;
    if (channel?.goaway !== undefined || this.#connection.finished) this.#endNow();
  }

  /** @ignore */
  onError(error: TransportError): void {
    if (this.#closing) return;
    // A reject must have a chance to leave before the link is closed.
    if (this.#connection.negotiated !== undefined || this.dialed) return this.close(error);
    this.#error ??= error;
    this.end(LINGER_MS);
  }

  // --- what the link tells ---

  /** @ignore */
  onData(chunk: Uint8Array): boolean {
    this.bytesReceived += chunk.length;
    this.#turnBytes = 0;
    const now = this.#environment.now();
    const free = this.#connection.handleBytes(chunk, now);
    this.#noteUse(now);
    if (chunk.length >= FULL_READ_BYTES) this.#owner.onBusy?.(this);
    // A welcome that must be answered with a proof.
    if (!this.#connection.open && !this.#closing) this.flush();
    this.#steerReading();
    this.#arm();
    return free;
  }

  /** @ignore */
  onDatagram(bytes: Uint8Array): void {
    this.bytesReceived += bytes.length;
    if (this.#hasDatagrams && !this.#closing) this.#owner.onDatagram?.(this, bytes);
  }

  /** @ignore */
  onDrain(): void {
    this.#turnBytes = 0;
    const wasCongested = this.#congested;
    this.#congested = false;
    const now = this.#environment.now();
    this.#settle(now);
    this.#watchWrites(now);
    // Who was never refused waits for nothing here.
    if (wasCongested && this.writable) this.#owner.onWritable(this);
    if (this.pendingBytes === 0) this.#owner.onFlushed(this);
  }

  /** @ignore */
  onEnd(): void {
    this.#connection.handleEnd(this.#environment.now());
    this.#tellPeerEnd();
    const { channel } = this;
    // The peer acknowledges nothing here any more: what it has not goes out again elsewhere.
    if (channel !== undefined && this.#connection.finished) this.#endNow();
  }

  /** @ignore */
  onClose(error?: TransportError): void {
    if (this.#closed) return;
    // A close without an end in order may have cut a frame or the handshake.
    if (!this.#closing && error === undefined) this.#connection.handleEnd(this.#environment.now());
    this.#closed = true;
    this.#closing = true;
    this.flush();
    this.#flushSubstreams();
    this.#closeSubstreams();
    this.#cancelBatch?.();
    this.#settings.timers.clear(this);
    this.#owner.onClosed(this, this.#error ?? error);
  }

  // --- helpers ---

  /** Runs as a microtask; goes once more round while messages keep coming in the same turn. */
  readonly #flushLater = (): void => {
    const bytes = this.#connection.outbox.bytes;
    if (bytes > this.#seenBytes) {
      this.#seenBytes = bytes;
      queueMicrotask(this.#flushLater);
      return;
    }
    this.#flushQueued = false;
    this.flush();
    this.#flushSubstreams();
  };

  #tellPeerEnd(): void {
    if (this.#connection.finished && !this.#ending) this.#owner.onPeerEnd(this);
  }

  /** Takes note of messages, requests and streams: pings and acknowledgements are no use. */
  #noteUse(now: number): void {
    const work = this.channel?.work ?? this.messagesSent + this.messagesReceived;
    if (work === this.#work) return;
    this.#work = work;
    this.usedAt = now;
    if (this.idle) this.#owner.onUsed?.(this);
  }

  /** Takes note of what has left. */
  #settle(now: number): void {
    const { bufferedBytes } = this.link;
    if (bufferedBytes === 0) this.#inflightMessages = 0;
    const { outbox } = this.#connection;
    this.#tail?.trim(now, bufferedBytes, outbox);
    const left = this.#givenBytes - bufferedBytes;
    const queue = this.#lent;
    if (queue === undefined) return;
    for (let lent = queue.peek(); lent !== undefined; lent = queue.peek()) {
      if (lent.end > left) break;
      queue.shift();
      outbox.recycle(lent.chunk);
    }
  }

  /** Keeps the deadline of a write that must make progress. */
  #watchWrites(now: number): void {
    const buffered = this.link.bufferedBytes;
    if (buffered === 0) this.#writeDeadline = undefined;
    else if (this.#writeDeadline === undefined || buffered < this.#lastBuffered) {
      this.#writeDeadline = now + this.#settings.ioTimeoutMs;
    }
    this.#lastBuffered = buffered;
    this.#arm();
  }

  /** A caller that sends without end must not keep the process from reading. */
  #yieldTurn(bytes: number): void {
    this.#turnBytes += bytes;
    if (this.#turnBytes < TURN_BYTES || this.#turnEnding) return;
    this.#turnEnding = true;
    this.#environment.setTimer(0, () => {
      this.#turnEnding = false;
      this.#turnBytes = 0;
      // While the main stream is full, sub-streams may not be.
      const routed = this.channel?.multistream === true && this.mayWrite;
      if (this.writable || routed) this.#owner.onWritable(this);
    });
  }

  #steerReading(): void {
    if (this.#closing) return;
    const { undeliveredBytes, open, held } = this.#connection;
    // An end must be seen although messages are not wanted: so reading goes on until there is
    // something to hold back, and on a connection that ends until that is much.
    const tolerated = this.retiring ? ENDING_BYTES : 0;
    const hold = undeliveredBytes > tolerated &&
      (held || (open && !this.channel?.resume && !this.#owner.wantsMessage(this)));
    if (hold === this.#paused) return;
    this.#paused = hold;
    if (hold) this.link.pause();
    else this.link.resume();
  }

  #arm(): void {
    if (this.#closed) return;
    const at = Math.min(
      this.#connection.nextTimeout() ?? Infinity,
      this.#writeDeadline ?? Infinity,
      this.#closeDeadline ?? Infinity,
      this.#substreamDeadline,
      this.link.bufferedBytes === 0 ? this.#tail?.deadline ?? Infinity : Infinity,
    );
    // An earlier timer finds out by itself that its deadline has moved.
    if (at < this.timerAt) this.#settings.timers.set(this, at);
  }

  /** @ignore */
  onDue(): void {
    const now = this.#environment.now();
    this.#settle(now);
    if (this.#closeDeadline !== undefined && now >= this.#closeDeadline) return this.close();
    this.#connection.handleTimeout(now);
    if (now >= (this.#writeDeadline ?? Infinity)) {
      this.#watchWrites(now);
      if (now >= (this.#writeDeadline ?? Infinity)) this.#writeStalled(now);
    }
    this.#checkSubstreams(now);
    this.#arm();
  }

  /** Nothing leaves: either the peer is dead, or it lives and nobody takes its messages. */
  #writeStalled(now: number): void {
    const { ioTimeoutMs } = this.#settings;
    // A peer of version 3 reads even while its application does not take messages.
    if (this.channel?.resume) return this.#closeStalled();
    const patience = Math.max(ioTimeoutMs, (this.negotiated?.keepaliveMs ?? 0) * MISSED_INTERVALS);
    if (this.#lifeAt + patience > now) {
      this.#writeDeadline = this.#lifeAt + patience;
    } else if (this.dialed && !this.#asked && this.active) {
      this.#asked = true;
      this.#writeDeadline = now + ioTimeoutMs;
      this.#owner.onSilent(this);
    } else {
      this.#closeStalled();
    }
  }

  #closeStalled(): void {
    this.close(
      new TransportError("Timeout", "Cannot write to the connection: no progress", {
        peer: this.negotiated?.nodeId,
      }),
    );
  }
}
