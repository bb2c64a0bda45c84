/**
 * A network in memory with virtual time: tests say when time passes, and nothing else moves it.
 */

import { TransportError } from "../../src/errors.ts";
import type { Environment } from "../../src/runtime/environment.ts";
import { seededRandom } from "../../src/testing/random.ts";
import { VirtualTime } from "../../src/testing/virtual_time.ts";
import type {
  DialOptions,
  Link,
  LinkEvents,
  LinkInfo,
  Listener,
  ListenOptions,
  Transport,
} from "../../src/transport/transport.ts";

export { seededRandom };

/** Virtual clock, timers and seeded randomness. */
export class VirtualEnvironment extends VirtualTime implements Environment {
  /** A number in [0, 1). */
  readonly random: () => number;

  constructor(seed = 1) {
    super(1_000);
    this.random = seededRandom(seed);
  }

  wallClock(): number {
    return 1_700_000_000_000 + this.now();
  }

  randomBytes(length: number): Uint8Array {
    return Uint8Array.from({ length }, () => Math.floor(this.random() * 256));
  }

  /** Awaits a promise while time passes. */
  run<T>(promise: Promise<T>, limitMs?: number): Promise<T> {
    return this.complete(promise, limitMs);
  }
}

/** One side of a link in memory. */
export class MemoryLink implements Link {
  readonly info: LinkInfo;
  peer!: MemoryLink;
  bufferedBytes = 0;
  /** How long its bytes travel; links of one pair of nodes may differ. */
  readonly latencyMs: number;
  /** Bytes this side may have on their way before `write` says stop. */
  readonly #highWater: number;
  readonly #network: MemoryNetwork;
  #events: LinkEvents | undefined;
  #inbound: Uint8Array[] = [];
  #inboundEnd = false;
  #paused = false;
  #ended = false;
  #peerEnded = false;
  #closed = false;
  #congested = false;
  readonly release: () => void;

  constructor(network: MemoryNetwork, info: LinkInfo, highWater: number, release: () => void) {
    this.#network = network;
    this.latencyMs = network.drawLatency();
    this.info = info;
    this.#highWater = highWater;
    this.release = release;
  }

  open(events: LinkEvents): void {
    this.#events = events;
    this.#schedule();
  }

  write(chunk: Uint8Array): boolean {
    this.bufferedBytes += chunk.length;
    if (this.#closed || this.#ended) return false;
    const copy = chunk.slice();
    this.#network.later(() => this.#deliver(copy), this.latencyMs);
    this.#congested = this.bufferedBytes >= this.#highWater;
    return !this.#congested;
  }

  pause(): void {
    this.#paused = true;
  }

  resume(): void {
    this.#paused = false;
    this.#schedule();
  }

  end(): void {
    if (this.#ended || this.#closed) return;
    this.#ended = true;
    this.#network.later(() => {
      if (this.#network.dropping(this)) return;
      this.peer.#inboundEnd = true;
      this.peer.#schedule();
    }, this.latencyMs);
  }

  close(): void {
    this.#shut(undefined, true);
  }

  /** As if the other host had sent RST. */
  reset(): void {
    const error = () => new TransportError("ConnectionClosed", "Cannot read: connection reset");
    this.#shut(error(), false);
    this.peer.#shut(error(), false);
  }

  /** Bytes this side was sent and has not read. */
  get unreadBytes(): number {
    return this.#inbound.reduce((sum, chunk) => sum + chunk.length, 0);
  }

  #deliver(chunk: Uint8Array): void {
    if (this.#network.dropping(this) || this.peer.#closed) return;
    this.peer.#inbound.push(chunk);
    this.peer.#schedule();
  }

  #schedule(): void {
    this.#network.later(() => this.#flow(), 0);
  }

  #flow(): void {
    while (this.#events !== undefined && !this.#paused && !this.#closed) {
      const chunk = this.#inbound.shift();
      if (chunk === undefined) break;
      this.peer.#left(chunk.length);
      this.#events.onData(chunk);
    }
    if (this.#events === undefined || this.#paused || this.#closed) return;
    if (this.#inboundEnd && !this.#peerEnded) {
      this.#peerEnded = true;
      this.#events.onEnd();
    }
    if (this.#peerEnded && this.#ended && this.bufferedBytes === 0) this.#shut(undefined, false);
  }

  /** The peer has read this many of our bytes. */
  #left(bytes: number): void {
    this.bufferedBytes -= bytes;
    if (this.bufferedBytes > 0 || this.#closed) return;
    this.#congested = false;
    this.#network.later(() => {
      if (this.bufferedBytes === 0 && !this.#closed) this.#events?.onDrain();
      if (this.#ended && this.#peerEnded) this.#flow();
    }, 0);
  }

  #shut(error: TransportError | undefined, tellPeer: boolean): void {
    if (this.#closed) return;
    this.#closed = true;
    this.release();
    this.#network.links.delete(this);
    this.#network.later(() => this.#events?.onClose(error), 0);
    if (!tellPeer) return;
    this.#network.later(() => {
      if (this.#network.dropping(this)) return;
      this.peer.#inboundEnd = true;
      this.peer.#schedule();
    }, this.latencyMs);
  }
}

/** Hosts that can reach each other until a test says otherwise. */
export class MemoryNetwork {
  readonly environment: VirtualEnvironment;
  /** Of links that are made from now on. */
  latencyMs: number;
  readonly highWater: number;
  readonly #spreadMs: number;
  readonly links = new Set<MemoryLink>();
  /** Attempts to connect, by address. */
  readonly dials: string[] = [];
  /** Addresses whose packets are lost without a word, dials included. */
  readonly blackHoles = new Set<string>();
  /** Addresses at which new connections are refused. */
  readonly refusing = new Set<string>();
  readonly #listeners = new Map<string, ListenOptions>();
  #nextPort = 1;

  constructor(
    environment: VirtualEnvironment,
    options: { latencyMs?: number; spreadMs?: number; highWater?: number } = {},
  ) {
    this.environment = environment;
    this.latencyMs = options.latencyMs ?? 1;
    this.highWater = options.highWater ?? 65_536;
    this.#spreadMs = options.spreadMs ?? 0;
  }

  /** The latency of a new link. */
  drawLatency(): number {
    return this.latencyMs + Math.floor(this.environment.random() * this.#spreadMs);
  }

  later(callback: () => void, delayMs: number = this.latencyMs): void {
    this.environment.setTimer(delayMs, callback);
  }

  dropping(from: MemoryLink): boolean {
    return this.blackHoles.has(from.info.remoteAddress) ||
      this.blackHoles.has(from.info.localAddress);
  }

  /** The transport under the scheme "memory"; `host` is what listeners see of this node. */
  transport(host: string): Transport {
    return {
      scheme: "memory",
      capabilities: {
        reliable: true,
        ordered: true,
        multiplexed: false,
        encrypted: false,
        peerAuthenticated: false,
        maxMessageSize: undefined,
      },
      dial: (address, options) => this.#dial(host, address, options),
      listen: (address, options) => this.#listen(address, options),
    };
  }

  /** Resets every link at an address, as a host that was switched off and on does. */
  reset(address: string): void {
    for (const link of [...this.links]) {
      if (link.info.localAddress === address || link.info.remoteAddress === address) link.reset();
    }
  }

  #listen(address: string, options: ListenOptions): Promise<Listener> {
    if (this.#listeners.has(address)) {
      return Promise.reject(
        new TransportError("ConnectionFailed", `Cannot listen on ${address}: address in use`),
      );
    }
    this.#listeners.set(address, options);
    return Promise.resolve({
      address,
      close: () => {
        this.#listeners.delete(address);
        return Promise.resolve();
      },
    });
  }

  #dial(host: string, address: string, { signal }: DialOptions): Promise<Link> {
    this.dials.push(address);
    return new Promise((resolve, reject) => {
      signal.addEventListener("abort", () => reject(signal.reason), { once: true });
      if (this.blackHoles.has(address)) return;
      this.later(() => {
        const listener = this.refusing.has(address) ? undefined : this.#listeners.get(address);
        const release = listener?.admit(host);
        if (signal.aborted) return;
        if (listener === undefined || release === undefined) {
          return reject(
            new TransportError("ConnectionFailed", `Cannot connect to ${address}: refused`),
          );
        }
        const dialAddress = `memory://${host}:${50_000 + this.#nextPort++}`;
        const info = (local: string, remote: string, remoteHost: string): LinkInfo => ({
          protocol: "memory",
          localAddress: local,
          remoteAddress: remote,
          remoteHost,
          encrypted: false,
          peerCertificate: undefined,
        });
        const near = new MemoryLink(
          this,
          info(dialAddress, address, address),
          this.highWater,
          () => {},
        );
        const far = new MemoryLink(this, info(address, dialAddress, host), this.highWater, release);
        near.peer = far;
        far.peer = near;
        this.links.add(near).add(far);
        listener.onLink(far);
        resolve(near);
      });
    });
  }
}
