/**
 * A network with the faults of real ones, in virtual time. Beside what the memory network of the
 * other tests does: chunks are split and merged on their way, each link has socket buffers that
 * fill, and links, pairs of hosts and hosts fail in the ways TCP and its users know.
 */

import { TransportError } from "../../src/errors.ts";
import type {
  DialOptions,
  Link,
  LinkEvents,
  LinkInfo,
  Listener,
  ListenOptions,
  Transport,
} from "../../src/transport/transport.ts";
import type { VirtualEnvironment } from "../support/memory_network.ts";
import type { Random } from "./random.ts";

/** How the network behaves while nothing is broken. */
export interface NetworkPlan {
  /** What bytes take at least on any link. */
  readonly latencyMs: number;
  /** What a link may take longer than another. */
  readonly spreadMs: number;
  /** What a segment may take longer than the one before. */
  readonly jitterMs: number;
  /** Bytes that a direction of a link holds between the two processes. */
  readonly socketBytes: number;
  /** Bytes in the process above which `write` says stop. */
  readonly highWater: number;
  /** Whether bytes count as sent once the socket has them; else once the other side has read them. */
  readonly swallows: boolean;
  /** What links say of themselves. */
  readonly encrypted: boolean;
}

/** What the network tells an observer. */
export type NetworkLog = (what: string, link: number, bytes: number) => void;

type Item =
  & { readonly at: number }
  & (
    | { readonly kind: "data"; readonly bytes: Uint8Array }
    | { readonly kind: "fin" | "rst" }
  );

/** A handshake frame has at most this many bytes. */
const HANDSHAKE_BYTES = 4_100;

const resetError = () => new TransportError("ConnectionClosed", "Cannot read: connection reset");

/** One side of a link: what it writes travels to `peer`. */
export class SimulatedLink implements Link {
  readonly info: LinkInfo;
  readonly id: number;
  /** Whose process this end is in. */
  readonly host: Host;
  peer!: SimulatedLink;
  /** What this side sends never arrives, and nobody is told. */
  stalled = false;
  readonly #network: SimulatedNetwork;
  readonly #latencyMs: number;
  readonly #release: () => void;
  #events: LinkEvents | undefined;
  /** Written, and still in the process. */
  readonly #queue: Uint8Array[] = [];
  #queuedBytes = 0;
  /** Between the processes, in order. */
  readonly #wire: Item[] = [];
  /** In the sockets: on the wire, or arrived and not read. */
  #socketBytes = 0;
  #lastAt = 0;
  #inbound: Uint8Array[] = [];
  #arrivedEnd = false;
  #paused = false;
  #ended = false;
  #finSent = false;
  #peerEnded = false;
  #closed = false;
  /** The path is cut: nothing more gets on the wire. */
  #cut = false;
  /** Its process is gone without a word. */
  #abandoned = false;
  /** Bytes that arrived at the peer. */
  #arrivedBytes = 0;
  #corruptNext = false;
  #flowQueued = false;

  constructor(network: SimulatedNetwork, host: Host, info: LinkInfo, release: () => void) {
    this.#network = network;
    this.host = host;
    this.info = info;
    this.#release = release;
    this.id = network.nextLink++;
    this.#latencyMs = network.plan.latencyMs +
      Math.floor(network.random.next() * network.plan.spreadMs);
  }

  get bufferedBytes(): number {
    return this.#network.plan.swallows
      ? this.#queuedBytes
      : this.#queuedBytes + (this.#closed ? this.#lostBytes : this.#socketBytes);
  }
  /** What was in the sockets when the link closed. */
  #lostBytes = 0;

  /** Whether this end is closed or its process gone. */
  get gone(): boolean {
    return this.#closed || this.#abandoned;
  }

  open(events: LinkEvents): void {
    this.#events = events;
    this.#queueFlow();
  }

  write(chunk: Uint8Array): boolean {
    if (this.#abandoned) return false;
    this.#queue.push(chunk);
    this.#queuedBytes += chunk.length;
    if (this.#closed || this.#ended) return false;
    this.#pump();
    return this.bufferedBytes < this.#network.plan.highWater;
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
    if (!this.#finSent || unread) this.#put({ kind: unread ? "rst" : "fin" });
    this.#shut(undefined);
  }

  // --- faults ---

  /** The path breaks: nothing more gets through, and both sides hear of it when they do. */
  breakPath(afterMs: number, peerAfterMs: number): void {
    this.#cut = this.peer.#cut = true;
    this.#network.later(() => this.#shut(resetError()), afterMs);
    this.#network.later(() => this.peer.#shut(resetError()), peerAfterMs);
  }

  /** Something between the hosts ends both directions in order, wherever in a frame that is. */
  endPath(): void {
    for (const side of [this, this.peer]) {
      side.#put({ kind: "fin" });
      side.#cut = true;
    }
  }

  /** One bit of what this side sends next, after the handshake, arrives wrong. */
  corrupt(): void {
    this.#corruptNext = true;
  }

  /** The process is gone. `silent`: its host as well, so nobody is told. */
  abandon(silent: boolean): void {
    if (this.gone) return;
    if (silent) this.#wire.length = 0;
    else this.#put({ kind: "rst" });
    this.#abandoned = true;
    this.#queue.length = 0;
    this.#network.links.delete(this);
    this.#release();
  }

  /** Takes up what was held back by a fault that is over. */
  retry(): void {
    if (this.#wire.length > 0) this.#network.later(() => this.#arrive(), this.#latencyMs);
  }

  /** Bytes this side was sent and has not read. */
  get unreadBytes(): number {
    return this.#inbound.reduce((sum, chunk) => sum + chunk.length, 0);
  }

  // --- from the process to the wire ---

  #pump(): void {
    // Whatever ended the path knows nothing of it any more.
    if (this.#cut && this.#queue.length > 0) {
      this.#network.later(() => this.#shut(resetError()), this.#latencyMs);
    }
    const { socketBytes } = this.#network.plan;
    while (this.#queue.length > 0 && this.#socketBytes < socketBytes && !this.#cut && !this.gone) {
      const chunk = this.#queue[0]!;
      const room = socketBytes - this.#socketBytes;
      const size = Math.min(chunk.length, room, this.#network.drawSegment(chunk.length));
      this.#put({ kind: "data", bytes: chunk.slice(0, size) });
      this.#socketBytes += size;
      this.#queuedBytes -= size;
      if (size === chunk.length) this.#queue.shift();
      else this.#queue[0] = chunk.subarray(size);
    }
    if (this.#ended && !this.#finSent && this.#queue.length === 0 && !this.gone) {
      this.#finSent = true;
      this.#put({ kind: "fin" });
      this.#queueFlow();
    }
  }

  #put(item: { kind: "data"; bytes: Uint8Array } | { kind: "fin" | "rst" }): void {
    if (this.#cut) return;
    if (item.kind === "data" && this.#corruptNext) this.#corruptNext = !this.#flipBit(item.bytes);
    const { jitterMs } = this.#network.plan;
    const delayMs = this.#latencyMs + Math.floor(this.#network.random.next() * (jitterMs + 1));
    const at = Math.max(this.#lastAt, this.#network.environment.now() + delayMs);
    this.#lastAt = at;
    this.#wire.push({ ...item, at });
    this.#network.later(() => this.#arrive(), at - this.#network.environment.now());
  }

  /** False: this may still be the handshake, which no checksum covers. */
  #flipBit(bytes: Uint8Array): boolean {
    if (this.#arrivedBytes <= HANDSHAKE_BYTES) return false;
    const index = Math.floor(this.#network.random.next() * bytes.length);
    bytes[index]! ^= 1 << Math.floor(this.#network.random.next() * 8);
    return true;
  }

  // --- from the wire to the process ---

  #arrive(): void {
    const now = this.#network.environment.now();
    while (this.#wire.length > 0 && this.#wire[0]!.at <= now) {
      if (this.stalled || this.#network.blocked(this.host, this.peer.host)) return;
      const item = this.#wire.shift()!;
      this.#network.log(item.kind, this.id, item.kind === "data" ? item.bytes.length : 0);
      if (this.peer.gone) {
        if (item.kind === "data") this.peer.#refuseBytes();
      } else if (item.kind === "data") {
        this.#arrivedBytes += item.bytes.length;
        this.peer.#inbound.push(item.bytes);
      } else if (item.kind === "fin") {
        this.peer.#arrivedEnd = true;
      } else {
        this.peer.#shut(resetError());
      }
    }
    this.peer.#flow();
  }

  /** Nobody is here any more for what arrives: the kernel says so. */
  #refuseBytes(): void {
    const { peer } = this;
    this.#network.later(() => {
      if (this.stalled || this.#network.blocked(this.host, peer.host)) return;
      peer.#shut(resetError());
    }, this.#latencyMs);
  }

  #queueFlow(): void {
    if (this.#flowQueued) return;
    this.#flowQueued = true;
    this.#network.later(() => {
      this.#flowQueued = false;
      this.#flow();
    }, 0);
  }

  #flow(): void {
    while (this.#events !== undefined && !this.#paused && !this.gone) {
      const chunk = this.#read();
      if (chunk === undefined) break;
      this.#events.onData(chunk);
      this.peer.#left(chunk.length);
    }
    if (this.#events === undefined || this.#paused || this.gone) return;
    if (this.#arrivedEnd && !this.#peerEnded && this.#inbound.length === 0) {
      this.#peerEnded = true;
      this.#events.onEnd();
    }
    if (this.#peerEnded && this.#finSent && this.bufferedBytes === 0) this.#shut(undefined);
  }

  /** One segment, or all there are in one. */
  #read(): Uint8Array | undefined {
    if (this.#inbound.length < 2 || this.#network.random.next() < 0.5) return this.#inbound.shift();
    const chunks = this.#inbound;
    this.#inbound = [];
    const whole = new Uint8Array(chunks.reduce((sum, chunk) => sum + chunk.length, 0));
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
    this.#network.later(() => {
      if (this.gone || this.bufferedBytes > 0) return;
      this.#events?.onDrain();
      this.#flow();
    }, 0);
  }

  #shut(error: TransportError | undefined): void {
    if (this.gone) return;
    this.#lostBytes = this.#socketBytes;
    this.#closed = true;
    this.#network.log("closed", this.id, error === undefined ? 0 : 1);
    this.#network.links.delete(this);
    this.#release();
    this.#network.later(() => {
      if (!this.#abandoned) this.#events?.onClose(error);
    }, 0);
  }

  /** The process died between the close and its event. */
  forget(): void {
    this.#abandoned = true;
  }
}

/** A machine: its processes come and go, its address stays. */
export class Host {
  readonly name: string;
  /** Nothing gets in or out, and nobody is told. */
  down = false;
  listener: { readonly options: ListenOptions; readonly owner: LinkOwner } | undefined;

  constructor(name: string) {
    this.name = name;
  }

  get address(): string {
    return `memory://${this.name}:1`;
  }
}

/** A process as the network sees it. */
export interface LinkOwner {
  readonly host: Host;
  /** Its ends of links, gone or not. */
  readonly links: Set<SimulatedLink>;
  alive(): boolean;
}

/** Hosts, the links between them, and what is wrong with them. */
export class SimulatedNetwork {
  readonly environment: VirtualEnvironment;
  readonly plan: NetworkPlan;
  readonly random: Random;
  readonly log: NetworkLog;
  readonly links = new Set<SimulatedLink>();
  nextLink = 1;
  readonly #hosts = new Map<string, Host>();
  /** "a>b": what a sends does not reach b. */
  readonly #blocked = new Set<string>();
  /** Dials that wait for an answer which does not come. */
  readonly #hanging = new Set<() => void>();

  constructor(
    environment: VirtualEnvironment,
    plan: NetworkPlan,
    random: Random,
    log: NetworkLog = () => {},
  ) {
    this.environment = environment;
    this.plan = plan;
    this.random = random;
    this.log = log;
  }

  host(name: string): Host {
    let host = this.#hosts.get(name);
    if (host === undefined) {
      host = new Host(name);
      this.#hosts.set(name, host);
    }
    return host;
  }

  later(callback: () => void, delayMs: number): void {
    this.environment.setTimer(delayMs, callback);
  }

  /** How much of a chunk of this length the socket takes in one go. */
  drawSegment(length: number): number {
    const draw = this.random.next();
    if (draw < 0.6) return length;
    if (draw < 0.7) return 1 + Math.floor(this.random.next() * 16);
    return 1 + Math.floor(this.random.next() * length);
  }

  /** Whether nothing gets from one host to another now. */
  blocked(from: Host, to: Host): boolean {
    return from.down || to.down || this.#blocked.has(`${from.name}>${to.name}`);
  }

  /** What one host sends to another no longer arrives. */
  block(from: Host, to: Host): void {
    this.#blocked.add(`${from.name}>${to.name}`);
  }

  /** It arrives again, and what was sent meanwhile does after all. */
  unblock(from: Host, to: Host): void {
    this.#blocked.delete(`${from.name}>${to.name}`);
    this.#retry();
  }

  /** A process dies. `silent`: its host goes down as well. */
  kill({ host, links }: LinkOwner, silent: boolean): void {
    if (host.listener?.owner.links === links) host.listener = undefined;
    for (const link of links) {
      link.abandon(silent);
      link.forget();
    }
    if (silent) host.down = true;
  }

  /** The host is up again. */
  restore(host: Host): void {
    host.down = false;
    this.#retry();
  }

  /** The transport under the scheme "memory", for one process. */
  transport(owner: LinkOwner): Transport {
    const { encrypted } = this.plan;
    return {
      scheme: "memory",
      capabilities: {
        reliable: true,
        ordered: true,
        multiplexed: false,
        encrypted,
        peerAuthenticated: false,
        maxMessageSize: undefined,
      },
      dial: (address, options) => this.#dial(owner, address, options),
      listen: (_, options) => this.#listen(owner, options),
    };
  }

  #retry(): void {
    for (const link of this.links) {
      link.retry();
      link.peer.retry();
    }
    const dials = [...this.#hanging];
    this.#hanging.clear();
    for (const dial of dials) dial();
  }

  #listen(owner: LinkOwner, options: ListenOptions): Promise<Listener> {
    const { host } = owner;
    const listener = { options, owner };
    host.listener = listener;
    const close = () => {
      if (host.listener === listener) host.listener = undefined;
      return Promise.resolve();
    };
    return Promise.resolve({ address: host.address, close });
  }

  #dial(owner: LinkOwner, address: string, { signal }: DialOptions): Promise<Link> {
    const from = owner.host;
    const to = this.host(address.slice("memory://".length).split(":")[0]!);
    return new Promise((resolve, reject) => {
      if (signal.aborted) return reject(signal.reason);
      signal.addEventListener("abort", () => reject(signal.reason), { once: true });
      const attempt = () => {
        if (signal.aborted || !owner.alive()) return;
        if (this.blocked(from, to) || this.blocked(to, from)) return this.#hanging.add(attempt);
        const { listener } = to;
        const release = listener?.options.admit(from.name);
        if (listener === undefined || release === undefined) {
          const text = `Cannot connect to ${address}: refused`;
          return reject(new TransportError("ConnectionFailed", text));
        }
        const [near, far] = this.#connect(owner, listener.owner, release);
        listener.options.onLink(far);
        resolve(near);
      };
      this.later(attempt, this.plan.latencyMs * 2);
    });
  }

  #connect(a: LinkOwner, b: LinkOwner, release: () => void): [SimulatedLink, SimulatedLink] {
    const address = `memory://${a.host.name}:${50_000 + this.nextLink}`;
    const info = (localAddress: string, remoteAddress: string, remoteHost: string): LinkInfo => ({
      protocol: "memory",
      localAddress,
      remoteAddress,
      remoteHost,
      encrypted: this.plan.encrypted,
      peerCertificate: undefined,
    });
    const nearInfo = info(address, b.host.address, b.host.name);
    const near = new SimulatedLink(this, a.host, nearInfo, () => {});
    const far = new SimulatedLink(
      this,
      b.host,
      info(b.host.address, address, a.host.name),
      release,
    );
    near.peer = far;
    far.peer = near;
    this.links.add(near).add(far);
    a.links.add(near);
    b.links.add(far);
    this.log("link", near.id, 0);
    return [near, far];
  }
}
