/**
 * A connection in a simulated network, as TCP makes them.
 *
 * @module
 */

import { TransportError } from "../errors.ts";
import type { Link, LinkEvents, LinkInfo } from "../transport/transport.ts";
import type { Path } from "./path.ts";
import type { Random } from "./random.ts";
import type { Trace } from "./trace.ts";
import type { VirtualTime } from "./virtual_time.ts";

/** What a link asks of its network. */
export interface LinkNetwork {
  readonly time: VirtualTime;
  readonly random: Random;
  readonly trace: Trace;
  /** Bytes in the process above which `write` says stop. */
  readonly highWaterBytes: number;
  /** Whether `bufferedBytes` counts what the other side has not read yet. */
  readonly bufferedUntilRead: boolean;
  /** Whether links have sub-streams. */
  readonly substreams: boolean;
  /** Both ends of all links that are not gone. */
  readonly links: Set<SimulatedLink>;
  /** The hosts that are switched off. */
  readonly down: ReadonlySet<string>;
  /** A number for a new end. */
  nextLink(): number;
}

/** What a link asks of the process that holds it. */
export interface LinkOwner {
  /** The name of its host. */
  readonly host: string;
  /** It has not been killed. */
  readonly alive: boolean;
  /** It stands still: nothing is told to it. */
  readonly paused: boolean;
  /** Its ends of links that it may still hear of. */
  readonly links: Set<SimulatedLink>;
  /** Calls it as soon as it runs, never if it is dead. */
  turn(callback: () => void): void;
}

/** One end of a connection, and what can go wrong with it. */
export interface ConnectionEnd {
  /** Tells it apart in the trace. */
  readonly id: number;
  /** The host it is on. */
  readonly host: string;
  /** The host of the other end. */
  readonly peerHost: string;
  /** Bytes this end was sent and has not read. */
  readonly unreadBytes: number;
  /** This end of its sub-streams, oldest first, where the network has any. */
  readonly substreams: readonly ConnectionEnd[];
  /**
   * The connection breaks, and both ends see a reset: this one after `afterMs`, the other after
   * `peerAfterMs`. What is on its way arrives up to then, and not after it.
   */
  cut(afterMs?: number, peerAfterMs?: number): void;
  /** Something between the hosts ends both directions in order, in the middle of whatever it is. */
  endBothWays(): void;
  /** What this end sends never arrives any more, and nobody is told; `bothWays`: the other's neither. */
  stall(bothWays?: boolean): void;
  /** One bit of what this end sends next arrives wrong, once the handshake is over. */
  corrupt(): void;
  /** This end is gone with a reset; the other hears nothing, and what it sends vanishes. */
  forget(): void;
}

type Item =
  | { readonly at: number; readonly kind: "data"; readonly bytes: Uint8Array }
  | { readonly at: number; readonly kind: "fin" | "rst" };

/** A handshake frame has at most this many bytes. */
const HANDSHAKE_BYTES = 4_100;
/** A packet here stands for a row of real ones. */
const MAX_PACKET_BYTES = 16_384;
/** Times are whole microseconds, but a timer set for the difference of two may be early by a bit. */
const ROUNDING_MS = 1e-4;

/** One end of a connection: what it writes travels to `peer`. */
export class SimulatedLink implements Link, ConnectionEnd {
  readonly info: LinkInfo;
  readonly id: number;
  /** The other end. */
  peer!: SimulatedLink;
  /** Called when this end is gone. */
  release: () => void = () => {};
  readonly #network: LinkNetwork;
  readonly #owner: LinkOwner;
  readonly #path: Path;
  /** Between the least latency of the path and the most. */
  readonly #place: number;
  #events: LinkEvents | undefined;
  /** Written, and still in the process. */
  readonly #queue: Uint8Array[] = [];
  #queuedBytes = 0;
  /** On the way, in order. */
  readonly #wire: Item[] = [];
  /** On the way, or arrived and not read. */
  #socketBytes = 0;
  /** What was in the sockets when the link closed. */
  #lostBytes = 0;
  #lastAt = 0;
  #inbound: Uint8Array[] = [];
  #arrivedEnd = false;
  #paused = false;
  #ended = false;
  #finSent = false;
  #peerEnded = false;
  #closed = false;
  #closeError: TransportError | undefined;
  /** What this side sends never arrives. */
  #stalled = false;
  /** Nothing more gets on the wire. */
  #cut = false;
  /** Its process is gone. */
  #abandoned = false;
  /** Bytes that arrived at the peer. */
  #arrivedBytes = 0;
  #corruptNext = false;
  #flowQueued = false;
  /** Opens a sub-stream, where there are any. */
  readonly openSubstream?: () => Link;
  /** The link that this is a sub-stream of. */
  readonly parent: SimulatedLink | undefined;
  readonly #substreams = new Set<SimulatedLink>();
  /** Sub-streams of the peer, until somebody is told. */
  #early: SimulatedLink[] = [];
  #announced = false;

  constructor(
    network: LinkNetwork,
    owner: LinkOwner,
    path: Path,
    place: number,
    info: LinkInfo,
    parent?: SimulatedLink,
  ) {
    this.#network = network;
    this.#owner = owner;
    this.#path = path;
    this.#place = place;
    this.info = info;
    this.id = network.nextLink();
    network.links.add(this);
    owner.links.add(this);
    this.parent = parent;
    if (parent !== undefined) parent.#substreams.add(this);
    if (network.substreams && parent === undefined) {
      this.openSubstream = () => this.#openSubstream();
    }
  }

  /** Its packets take other ways than those of the link, and wait for none of them. */
  #openSubstream(): Link {
    const near = this.#newSubstream();
    const far = this.peer.#newSubstream();
    near.peer = far;
    far.peer = near;
    if (this.gone) near.#shut(resetError());
    if (this.peer.gone) far.#shut(resetError());
    for (const end of [near, far]) {
      end.#stalled = end.parent!.#stalled;
      end.#cut = end.parent!.#cut;
    }
    return near;
  }

  #newSubstream(): SimulatedLink {
    const place = this.#network.random.next();
    return new SimulatedLink(this.#network, this.#owner, this.#path, place, this.info, this);
  }

  /** The first bytes of a sub-stream have come. */
  #announce(substream: SimulatedLink): void {
    if (substream.#announced) return;
    substream.#announced = true;
    this.#early.push(substream);
    if (this.#events !== undefined) this.#tell(() => this.#tellEarly());
  }

  #tellEarly(): void {
    const early = this.#early;
    this.#early = [];
    if (this.gone) return;
    for (const substream of early) this.#events!.onSubstream?.(substream);
  }

  get host(): string {
    return this.#owner.host;
  }

  get peerHost(): string {
    return this.peer.#owner.host;
  }

  get bufferedBytes(): number {
    if (!this.#network.bufferedUntilRead) return this.#queuedBytes;
    return this.#queuedBytes + (this.#closed ? this.#lostBytes : this.#socketBytes);
  }

  get substreams(): readonly ConnectionEnd[] {
    return [...this.#substreams];
  }

  get unreadBytes(): number {
    return this.#inbound.reduce((sum, chunk) => sum + chunk.length, 0);
  }

  /** Whether this end is closed or its process gone. */
  get gone(): boolean {
    return this.#closed || this.#abandoned;
  }

  open(events: LinkEvents): void {
    this.#events = events;
    if (this.#closed) this.#tellClose();
    else this.#queueFlow();
    if (this.#early.length > 0) this.#tell(() => this.#tellEarly());
  }

  write(chunk: Uint8Array): boolean {
    if (this.#abandoned) return false;
    this.#queuedBytes += chunk.length;
    if (this.#closed || this.#ended) return false;
    this.#queue.push(chunk);
    this.#pump();
    return this.bufferedBytes < this.#network.highWaterBytes;
  }

  pause(): void {
    this.#paused = true;
  }

  resume(): void {
    this.#paused = false;
    this.#queueFlow();
  }

  end(): void {
    if (this.#ended || this.gone) return;
    this.#ended = true;
    this.#pump();
  }

  close(): void {
    if (this.gone) return;
    // What was not read makes a kernel answer with RST instead of FIN.
    const unread = this.#inbound.length > 0;
    if (!this.#finSent || unread) this.#put(unread ? "rst" : "fin");
    for (const substream of [...this.#substreams]) substream.close();
    this.#shut(undefined);
  }

  // --- faults ---

  cut(afterMs = 0, peerAfterMs = 0): void {
    this.#cut = this.peer.#cut = true;
    this.#later(() => this.#shut(resetError()), afterMs);
    this.#later(() => this.peer.#shut(resetError()), peerAfterMs);
    for (const substream of this.#substreams) substream.cut(afterMs, peerAfterMs);
  }

  endBothWays(): void {
    for (const side of [this, this.peer]) {
      side.#put("fin");
      side.#cut = true;
    }
    for (const substream of this.#substreams) substream.endBothWays();
  }

  stall(bothWays = false): void {
    this.#stalled = true;
    if (bothWays) this.peer.#stalled = true;
    for (const substream of this.#substreams) substream.stall(bothWays);
  }

  corrupt(): void {
    this.#corruptNext = true;
  }

  forget(): void {
    this.stall(true);
    for (const substream of [...this.#substreams]) substream.forget();
    this.#shut(resetError());
  }

  /** The process is gone. `silent`: its host as well, so nobody is told. */
  abandon(silent: boolean): void {
    if (this.gone) return;
    if (silent) this.#wire.length = 0;
    else this.#put("rst");
    this.#abandoned = true;
    this.#queue.length = 0;
    this.#network.links.delete(this);
    this.release();
  }

  /** Takes up what was held back by a fault that is over. */
  retry(): void {
    if (this.#wire.length > 0) this.#later(() => this.#arrive(), this.#latencyMs);
  }

  /** The process runs again. */
  wake(): void {
    this.#queueFlow();
  }

  // --- from the process to the wire ---

  get #latencyMs(): number {
    return this.#path.latencyMs(this.#place);
  }

  /** Whether nothing gets from here to the peer. */
  get #blocked(): boolean {
    const { down } = this.#network;
    return this.#stalled || this.#path.blocked ||
      (down.size > 0 && (down.has(this.host) || down.has(this.peerHost)));
  }

  #later(callback: () => void, delayMs: number): void {
    this.#network.time.setTimer(delayMs, callback);
  }

  #pump(): void {
    // Whatever ended the path knows nothing of it any more.
    if (this.#cut && this.#queue.length > 0) {
      this.#later(() => this.#shut(resetError()), this.#latencyMs);
    }
    while (this.#queue.length > 0 && this.#room > 0 && !this.#cut && !this.gone) {
      const chunk = this.#queue[0]!;
      const size = this.#putBytes(chunk);
      if (size === chunk.length) this.#queue.shift();
      else this.#queue[0] = chunk.subarray(size);
    }
    if (this.#ended && !this.#finSent && this.#queue.length === 0 && !this.gone) {
      this.#finSent = true;
      this.#put("fin");
      this.#queueFlow();
    }
  }

  get #room(): number {
    return this.#path.conditions.socketBytes - this.#socketBytes;
  }

  /** Sends the beginning of a chunk; returns how much of it. */
  #putBytes(chunk: Uint8Array): number {
    if (chunk.length === 0) return 0;
    const most = Math.min(chunk.length, this.#room, MAX_PACKET_BYTES);
    // The writer may use its memory again once it counts as sent.
    const bytes = chunk.slice(0, this.#path.packetBytes(most));
    this.#socketBytes += bytes.length;
    this.#queuedBytes -= bytes.length;
    if (this.#corruptNext) this.#corruptNext = !this.#flipBit(bytes);
    this.#put("data", bytes);
    return bytes.length;
  }

  #put(kind: Item["kind"], bytes: Uint8Array = new Uint8Array(0)): void {
    if (this.#cut) return;
    const now = this.#network.time.now();
    const at = Math.max(this.#lastAt, this.#path.arrival(now, bytes.length, this.#latencyMs));
    this.#lastAt = at;
    this.#wire.push(kind === "data" ? { at, kind, bytes } : { at, kind });
    this.#later(() => this.#arrive(), at - now);
  }

  /** False: this may still be the handshake, which no checksum covers. */
  #flipBit(bytes: Uint8Array): boolean {
    if (this.#arrivedBytes <= HANDSHAKE_BYTES) return false;
    const { random } = this.#network;
    bytes[random.between(0, bytes.length - 1)]! ^= 1 << random.between(0, 7);
    return true;
  }

  // --- from the wire to the process ---

  #arrive(): void {
    const now = this.#network.time.now();
    while (this.#wire.length > 0 && this.#wire[0]!.at <= now + ROUNDING_MS) {
      if (this.#blocked) return;
      const item = this.#wire.shift()!;
      this.#network.trace.record(item.kind, this.id, item.kind === "data" ? item.bytes.length : 0);
      this.#deliver(item);
    }
    this.peer.#flow();
  }

  #deliver(item: Item): void {
    const { peer } = this;
    if (peer.gone) {
      if (item.kind === "data") peer.#refuseBytes();
    } else if (item.kind === "data") {
      this.#arrivedBytes += item.bytes.length;
      peer.#inbound.push(item.bytes);
      if (peer.parent !== undefined) peer.parent.#announce(peer);
    } else if (item.kind === "fin") {
      peer.#arrivedEnd = true;
    } else {
      peer.#shut(resetError());
    }
  }

  /** Nobody is here any more for what arrives: the kernel says so. */
  #refuseBytes(): void {
    this.#later(() => {
      if (!this.#blocked) this.peer.#shut(resetError());
    }, this.#latencyMs);
  }

  #queueFlow(): void {
    if (this.#flowQueued) return;
    this.#flowQueued = true;
    this.#later(() => {
      this.#flowQueued = false;
      this.#flow();
    }, 0);
  }

  get #flows(): boolean {
    return this.#events !== undefined && !this.#paused && !this.gone && !this.#owner.paused;
  }

  #flow(): void {
    while (this.#flows) {
      const chunk = this.#read();
      if (chunk === undefined) break;
      const { length } = chunk;
      this.#events!.onData(chunk);
      this.peer.#left(length);
    }
    if (!this.#flows) return;
    if (this.#arrivedEnd && !this.#peerEnded && this.#inbound.length === 0) {
      this.#peerEnded = true;
      this.#events!.onEnd();
    }
    if (this.#peerEnded && this.#finSent && this.bufferedBytes === 0) this.#shut(undefined);
  }

  /** One packet, or all there are in one. */
  #read(): Uint8Array | undefined {
    if (this.#inbound.length < 2 || !this.peer.#path.merges()) return this.#inbound.shift();
    const chunks = this.#inbound;
    const whole = new Uint8Array(this.unreadBytes);
    this.#inbound = [];
    let at = 0;
    for (const chunk of chunks) {
      whole.set(chunk, at);
      at += chunk.length;
    }
    return whole;
  }

  /** The peer has read this many of our bytes. */
  #left(bytes: number): void {
    if (this.gone) return;
    const before = this.bufferedBytes;
    this.#socketBytes -= bytes;
    this.#pump();
    if (before === 0 || this.bufferedBytes > 0) return;
    this.#tell((events) => {
      if (this.gone || this.bufferedBytes > 0) return;
      events.onDrain();
      this.#flow();
    });
  }

  #shut(error: TransportError | undefined): void {
    if (this.gone) return;
    this.#lostBytes = this.#socketBytes;
    this.#closed = true;
    this.#queue.length = 0;
    this.#inbound.length = 0;
    this.#network.trace.record("closed", this.id, error === undefined ? 0 : 1);
    this.#network.links.delete(this);
    if (this.parent !== undefined) this.parent.#substreams.delete(this);
    this.release();
    for (const substream of [...this.#substreams]) substream.#shut(error);
    this.#closeError = error;
    if (this.#events !== undefined) this.#tellClose();
    this.#owner.links.delete(this);
  }

  #tellClose(): void {
    this.#tell((events) => events.onClose(this.#closeError));
  }

  #tell(tell: (events: LinkEvents) => void): void {
    this.#later(() => this.#owner.turn(() => tell(this.#events!)), 0);
  }
}

function resetError(): TransportError {
  return new TransportError("ConnectionClosed", "Cannot read: connection reset");
}
