/**
 * A network with the faults of real ones, in virtual time.
 *
 * @module
 */

import { TransportError } from "../errors.ts";
import { canonicalAddress, parseAddress } from "../transport/address.ts";
import type {
  DialOptions,
  Link,
  LinkInfo,
  Listener,
  ListenOptions,
  Transport,
} from "../transport/transport.ts";
import {
  type Conditions,
  DEFAULT_CONDITIONS,
  type LinkConditions,
  withConditions,
} from "./conditions.ts";
import { simulatedDatagrams } from "./datagrams.ts";
import { type HostListener, type HostNetwork, SimulatedHost } from "./host.ts";
import { type ConnectionEnd, type LinkNetwork, SimulatedLink } from "./link.ts";
import { Path } from "./path.ts";
import type { SimulatedProcess } from "./process.ts";
import { Random } from "./random.ts";
import { Trace } from "./trace.ts";
import { VirtualTime } from "./virtual_time.ts";

/** How a {@linkcode SimulatedNetwork} is, and what its links are like where nothing else is said. */
export interface SimulatedNetworkOptions extends LinkConditions {
  /**
   * Decides everything that is drawn: the same seed, the same run.
   * @default {1}
   */
  readonly seed?: number;
  /** Gets every event of the trace as a line of text, to print or to keep. */
  readonly onEvent?: (line: string) => void;
  /**
   * Bytes that wait in a process above which a link asks its writer to stop.
   * @default {65536}
   */
  readonly highWaterBytes?: number;
  /**
   * Whether bytes count as sent only once the other side has read them, and not when the socket has
   * taken them, as real ones do.
   * @default {false}
   */
  readonly bufferedUntilRead?: boolean;
  /**
   * Whether links say that they are encrypted.
   * @default {false}
   */
  readonly encrypted?: boolean;
  /**
   * Whether links have sub-streams that overtake each other, as those of QUIC have.
   * @default {false}
   */
  readonly substreams?: boolean;
}

/** How long {@linkcode SimulatedNetwork.runUntil} waits. */
export interface RunUntilOptions {
  /**
   * Milliseconds of virtual time after which it rejects.
   * @default {120000}
   */
  withinMs?: number;
}

/** One host or several, by name. */
export type Hosts = string | readonly string[];

/** Ports of connections that were dialed. */
const FIRST_PORT = 10_000;
const PORTS = 50_000;

/**
 * Hosts, the network between them and virtual time, for tests of a cluster. Nothing happens unless
 * {@linkcode run} or {@linkcode runUntil} lets time pass, which takes no longer than the work that
 * is done in it, and everything that is drawn comes from the seed.
 *
 * @example
 * ```ts
 * import { Endpoint } from "@hawser/hawser";
 * import { SimulatedNetwork } from "@hawser/hawser/testing";
 *
 * const sim = new SimulatedNetwork({ seed: 42, latencyMs: [1, 5], loss: 0.01 });
 * const [a, b] = ["a", "b"].map((nodeId) => {
 *   const { address, environment, transport } = sim.host(nodeId);
 *   return new Endpoint({
 *     nodeId,
 *     listen: address,
 *     security: "development",
 *     environment,
 *     transports: [transport],
 *   });
 * }) as [Endpoint, Endpoint];
 * await Promise.all([a.start(), b.start()]);
 * await sim.runUntil(a.connect({ nodeId: "b", address: "memory://b" }));
 *
 * sim.partition("a", "b");
 * await a.send("b", new TextEncoder().encode("ahoy"));
 * await sim.run(3_000);
 * sim.heal();
 * const { payload } = await sim.runUntil(b.receive());
 * console.log(new TextDecoder().decode(payload), "after", sim.now(), "ms");
 * await sim.runUntil(Promise.all([a.close(), b.close()]));
 * ```
 */
export class SimulatedNetwork {
  /** Decides everything that is drawn. */
  readonly seed: number;
  /** What happens, to compare runs by its digest. Events of an application may be added. */
  readonly trace: Trace;
  readonly #time = new VirtualTime();
  readonly #defaults: Conditions;
  readonly #encrypted: boolean;
  readonly #hosts = new Map<string, SimulatedHost>();
  /** From one host to another, by "from>to". */
  readonly #paths = new Map<string, Path>();
  /** Dials that wait for an answer which does not come. */
  readonly #hanging = new Set<() => void>();
  readonly #random: Random;
  readonly #links: LinkNetwork;
  readonly #machines: HostNetwork;
  #linkCount = 0;
  #dialCount = 0;
  #running = false;

  /**
   * Makes a network without hosts.
   *
   * @throws {RangeError} A condition is out of range.
   */
  constructor(options: SimulatedNetworkOptions = {}) {
    const { seed = 1, highWaterBytes = 65_536, bufferedUntilRead = false } = options;
    this.seed = seed;
    this.trace = new Trace(() => this.#time.now(), options.onEvent);
    this.#defaults = withConditions(DEFAULT_CONDITIONS, options);
    this.#encrypted = options.encrypted ?? false;
    this.#random = new Random(seed, "network");
    const { trace } = this;
    const [time, random] = [this.#time, this.#random];
    const nextLink = () => ++this.#linkCount;
    const links = new Set<SimulatedLink>();
    const down = new Set<string>();
    const { substreams = false } = options;
    const behaviour = { highWaterBytes, bufferedUntilRead, substreams };
    this.#links = { time, random, trace, ...behaviour, links, down, nextLink };
    const path = (from: string, to: string) => this.#path(from, to);
    const datagrams = { time, trace, down, sockets: new Map(), path };
    this.#machines = {
      seed,
      time,
      trace,
      down,
      transport: (host, process) => this.#transport(host, process),
      datagrams: (process) => simulatedDatagrams(datagrams, process),
      retry: () => this.#retry(),
    };
  }

  // --- time ---

  /** Milliseconds of virtual time since the beginning. */
  now(): number {
    return this.#time.now();
  }

  /** Lets so many milliseconds pass. */
  async run(ms: number): Promise<void> {
    await this.#alone(() => this.#time.advance(ms));
  }

  /**
   * Lets time pass until a promise is settled, and gives what it resolves to.
   *
   * @throws {Error} It is not within the time.
   */
  runUntil<T>(promise: Promise<T>, options?: RunUntilOptions): Promise<T>;
  /**
   * Lets time pass until a condition holds, which is looked at once per millisecond at most.
   *
   * @throws {Error} It does not within the time.
   */
  runUntil(condition: () => boolean, options?: RunUntilOptions): Promise<void>;
  async runUntil<T>(
    goal: Promise<T> | (() => boolean),
    { withinMs }: RunUntilOptions = {},
  ): Promise<T | void> {
    return await this.#alone<T | void>(() =>
      typeof goal === "function"
        ? this.#time.until(goal, withinMs)
        : this.#time.complete(goal, withinMs)
    );
  }

  /** Runs `callback` once, so many milliseconds from now, whatever becomes of the hosts. */
  after(delayMs: number, callback: () => void): void {
    this.#time.setTimer(delayMs, callback);
  }

  /** Timers that are set, and packets on their way; 0 once everything is closed. */
  get pendingTimers(): number {
    return this.#time.pendingTimers;
  }

  // --- hosts and links ---

  /** The host of this name, which is made when it is first asked for. */
  host(name: string): SimulatedHost {
    let host = this.#hosts.get(name);
    if (host === undefined) {
      host = new SimulatedHost(this.#machines, name);
      this.#hosts.set(name, host);
    }
    return host;
  }

  /** All hosts, in the order in which they were made. */
  hosts(): SimulatedHost[] {
    return [...this.#hosts.values()];
  }

  /** Connections that were made so far. */
  get connectionsMade(): number {
    return this.#dialCount;
  }

  /** Both ends of all connections that stand between some hosts and others, or of all there are. */
  connections(between?: Hosts, and?: Hosts): ConnectionEnd[] {
    const all = [...this.#links.links].filter(({ parent }) => parent === undefined);
    if (between === undefined) return all;
    const [left, right] = [names(between), and === undefined ? undefined : names(and)];
    const matches = (a: string, b: string) => left.has(a) && (right === undefined || right.has(b));
    return all.filter(({ host, peerHost }) => matches(host, peerHost) || matches(peerHost, host));
  }

  /**
   * Changes what the ways between some hosts and others are like, in both directions. Connections
   * that stand feel it at once.
   *
   * @throws {RangeError} A condition is out of range.
   */
  setLink(between: Hosts, and: Hosts, conditions: LinkConditions): void {
    this.setPath(between, and, conditions);
    this.setPath(and, between, conditions);
  }

  /**
   * Changes what the way from some hosts to others is like; the way back stays as it is.
   *
   * @throws {RangeError} A condition is out of range.
   */
  setPath(from: Hosts, to: Hosts, conditions: LinkConditions): void {
    for (const path of this.#pathsOf(from, to)) {
      path.conditions = withConditions(path.conditions, conditions);
    }
  }

  // --- faults ---

  /**
   * Separates some hosts from others: nothing gets from one side to the other, and nobody is told.
   * What is sent waits, as TCP sends it again until it arrives.
   */
  partition(between: Hosts, and: Hosts): void {
    this.partitionOneWay(between, and);
    this.partitionOneWay(and, between);
  }

  /** What some hosts send to others no longer arrives; the way back works. */
  partitionOneWay(from: Hosts, to: Hosts): void {
    this.trace.record("partition", [...names(from)].join(), [...names(to)].join());
    for (const path of this.#pathsOf(from, to)) path.blocked = true;
  }

  /** Ends partitions: all of them, or those between some hosts and others. */
  heal(between?: Hosts, and?: Hosts): void {
    this.trace.record("heal");
    const paths = between === undefined || and === undefined
      ? this.#paths.values()
      : [...this.#pathsOf(between, and), ...this.#pathsOf(and, between)];
    for (const path of paths) path.blocked = false;
    this.#retry();
  }

  /** Breaks the connections that stand between hosts: both ends see a reset. New ones can be made. */
  cut(between: Hosts, and: Hosts): void {
    this.trace.record("cut");
    for (const end of this.connections(between, and)) end.cut();
  }

  /**
   * Leaves the connections that stand between hosts half-open: those on the second side see a reset,
   * those on the first hear nothing, and what they send vanishes. New connections can be made.
   */
  halfOpen(stays: Hosts, forgets: Hosts): void {
    this.trace.record("half-open");
    const forgetting = names(forgets);
    for (const end of this.connections(stays, forgets)) {
      if (forgetting.has(end.host)) end.forget();
    }
  }

  // --- the transport ---

  #transport(host: SimulatedHost, process: SimulatedProcess): Transport {
    return {
      scheme: "memory",
      capabilities: {
        reliable: true,
        ordered: true,
        multiplexed: false,
        encrypted: this.#encrypted,
        peerAuthenticated: false,
        maxMessageSize: undefined,
      },
      dial: (address, options) => this.#dial(host, process, address, options),
      listen: (address, options) => this.#listen(host, process, address, options),
    };
  }

  async #alone<T>(body: () => Promise<T>): Promise<T> {
    if (this.#running) throw new Error("Cannot let time pass: it is passing already");
    this.#running = true;
    try {
      return await body();
    } finally {
      this.#running = false;
    }
  }

  #path(from: string, to: string): Path {
    const key = `${from}>${to}`;
    let path = this.#paths.get(key);
    if (path === undefined) {
      path = new Path(this.#defaults, new Random(this.seed, key));
      this.#paths.set(key, path);
    }
    return path;
  }

  #pathsOf(from: Hosts, to: Hosts): Path[] {
    return [...names(from)].flatMap((a) => [...names(to)].map((b) => this.#path(a, b)));
  }

  /** Whether nothing gets from one host to another. */
  #blocked(from: string, to: string): boolean {
    const { down } = this.#links;
    return this.#path(from, to).blocked || down.has(from) || down.has(to);
  }

  #retry(): void {
    for (const link of this.#links.links) {
      link.retry();
      link.peer.retry();
    }
    const dials = [...this.#hanging];
    this.#hanging.clear();
    for (const dial of dials) dial();
  }

  #listen(
    host: SimulatedHost,
    process: SimulatedProcess,
    text: string,
    options: ListenOptions,
  ): Promise<Listener> {
    const address = canonicalAddress(parseAddress(text));
    const problem = parseAddress(address).host !== host.name
      ? `it is not of the host ${host.name}`
      : host.listeners.has(address)
      ? "address in use"
      : undefined;
    if (problem !== undefined) {
      const message = `Cannot listen on ${address}: ${problem}`;
      const cause = new Error(problem);
      return Promise.reject(new TransportError("ConnectionFailed", message, { cause }));
    }
    const listener: HostListener = { address, options, process, backlog: new Set() };
    if (process.alive) host.listeners.set(address, listener);
    const close = () => {
      if (host.listeners.get(address) === listener) host.listeners.delete(address);
      for (const link of listener.backlog) link.close();
      listener.backlog.clear();
      return Promise.resolve();
    };
    return Promise.resolve({ address, close });
  }

  #dial(
    from: SimulatedHost,
    process: SimulatedProcess,
    text: string,
    { signal }: DialOptions,
  ): Promise<Link> {
    const address = canonicalAddress(parseAddress(text));
    const to = this.host(parseAddress(address).host);
    const there = this.#path(from.name, to.name);
    const back = this.#path(to.name, from.name);
    const places: Places = [this.#random.next(), this.#random.next()];
    return new Promise((resolve, reject) => {
      if (signal.aborted) return reject(signal.reason);
      signal.addEventListener("abort", () => reject(signal.reason), { once: true });
      const attempt = () => {
        if (signal.aborted || !process.alive) return;
        if (this.#blocked(from.name, to.name) || this.#blocked(to.name, from.name)) {
          return this.#hanging.add(attempt);
        }
        const listener = to.listeners.get(address);
        const link = listener === undefined
          ? undefined
          : this.#accept(process, listener, address, places);
        process.turn(() => {
          if (link === undefined) return reject(refused(address));
          if (signal.aborted) link.close();
          else resolve(link);
        });
      };
      const delayMs = there.latencyMs(places[0]) + back.latencyMs(places[1]) + there.dialDelayMs();
      this.after(delayMs, attempt);
    });
  }

  /** Connects a process to a listener; undefined where that does not admit it. */
  #accept(
    process: SimulatedProcess,
    listener: HostListener,
    address: string,
    places: Places,
  ): SimulatedLink | undefined {
    const { options, process: acceptor } = listener;
    if (!acceptor.paused) {
      const release = options.admit(process.host);
      if (release === undefined) return undefined;
      const [near, far] = this.#connect(process, acceptor, address, places);
      far.release = release;
      options.onLink(far);
      return near;
    }
    // The kernel accepts for it, and it learns of it when it goes on.
    const [near, far] = this.#connect(process, acceptor, address, places);
    listener.backlog.add(far);
    acceptor.turn(() => {
      if (!listener.backlog.delete(far)) return;
      const release = options.admit(process.host);
      if (release === undefined) return far.close();
      far.release = release;
      options.onLink(far);
    });
    return near;
  }

  #connect(
    a: SimulatedProcess,
    b: SimulatedProcess,
    address: string,
    places: Places,
  ): [SimulatedLink, SimulatedLink] {
    const own = `memory://${a.host}:${FIRST_PORT + this.#dialCount++ % PORTS}`;
    const info = (localAddress: string, remoteAddress: string, remoteHost: string): LinkInfo => ({
      protocol: "memory",
      localAddress,
      remoteAddress,
      remoteHost,
      encrypted: this.#encrypted,
      peerCertificate: undefined,
    });
    const [there, back] = [this.#path(a.host, b.host), this.#path(b.host, a.host)];
    const network = this.#links;
    const near = new SimulatedLink(network, a, there, places[0], info(own, address, b.host));
    const far = new SimulatedLink(network, b, back, places[1], info(address, own, a.host));
    near.peer = far;
    far.peer = near;
    this.trace.record("connect", a.host, b.host, near.id);
    return [near, far];
  }
}

/** Where between the least and the most latency a connection is, there and back. */
type Places = readonly [number, number];

function names(hosts: Hosts): ReadonlySet<string> {
  return new Set(typeof hosts === "string" ? [hosts] : hosts);
}

function refused(address: string): TransportError {
  return new TransportError("ConnectionFailed", `Cannot connect to ${address}: refused`);
}
