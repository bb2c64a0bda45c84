/**
 * What an application holds. Joins the rooms of the library and keeps little itself.
 *
 * @module
 */

import { bytesCodec, type PayloadCodec } from "./codec.ts";
import { HandshakeError, MessageTooLargeError, TransportError } from "./errors.ts";
import { type EndpointEventMap, TypedEventTarget } from "./events.ts";
import { Failures } from "./failures.ts";
import type { EndpointOptions, PeerAddress, ResolvedOptions, WhenFull } from "./options.ts";
import { Listeners } from "./listeners.ts";
import { checkTransport, linkTls, readTls } from "./link_tls.ts";
import { Inbox, type Message, type MessageHandler } from "./peer/inbox.ts";
import type { StateChange } from "./peer/lifecycle.ts";
import { type ManagerHost, PeerManager } from "./peer/manager.ts";
import type { Fate } from "./peer/outgoing.ts";
import type { Peer } from "./peer/peer.ts";
import { type PeerInfo, peerInfo } from "./peer_info.ts";
import { resolveOptions } from "./resolve_options.ts";
import { type Environment, systemEnvironment } from "./runtime/environment.ts";
import { loadLz4 } from "./runtime/lz4.ts";
import { detectRuntime } from "./runtime/runtime.ts";
import { checkSecurity } from "./security.ts";
import { noTraffic, type PoolStats, type TransportStats } from "./stats.ts";
import { formatAddress, parseAddress, parseDialAddress } from "./transport/address.ts";
import { TransportRegistry } from "./transport/registry.ts";
import { tcpTransport } from "./transport/tcp.ts";
import type { DialOptions, Link, Transport } from "./transport/transport.ts";

/** How long `close` lets queued messages leave. */
const DEFAULT_DRAIN_MS = 5_000;

/** Options of an {@linkcode Endpoint} that are code, beside those of a configuration file. */
export interface EndpointConfig<T = Uint8Array> extends EndpointOptions {
  /** Turns payloads into bytes and back; without it they are `Uint8Array`. */
  codec?: PayloadCodec<T>;
  /** Further transports, for address schemes of your own. */
  transports?: Transport[];
}

/** How a message is sent. */
export interface SendOptions {
  /**
   * What to do when the peer's queue is full.
   * @default {"wait"}
   */
  whenFull?: WhenFull;
  /** Ends the wait; the promise rejects with `signal.reason` and the message is not sent. */
  signal?: AbortSignal;
}

/** What became of a broadcast. */
export interface BroadcastResult {
  /** The peers whose queues took the message. */
  delivered: string[];
  /** The peers that did not take it, and why. */
  failed: { nodeId: string; error: unknown }[];
}

type Phase = "new" | "started" | "closing" | "closed";

/**
 * A node's line to every other node of its cluster: authenticated, encrypted, back-pressured.
 *
 * @example
 * ```ts
 * import { Endpoint } from "@hawser/hawser";
 *
 * await using a = new Endpoint({
 *   nodeId: "a",
 *   listen: "tcp://127.0.0.1:0",
 *   security: "development",
 * });
 * await a.start();
 * await using b = new Endpoint({ nodeId: "b", security: "development" });
 * await b.start();
 * await b.connect({ nodeId: "a", address: a.addresses[0]! });
 * await b.send("a", new TextEncoder().encode("ahoy"));
 * const { from, payload } = await a.receive();
 * console.log(from, new TextDecoder().decode(payload));
 * ```
 */
export class Endpoint<T = Uint8Array> extends TypedEventTarget<EndpointEventMap<T>>
  implements AsyncDisposable {
  readonly #options: ResolvedOptions;
  readonly #environment: Environment;
  readonly #codec: PayloadCodec<T>;
  readonly #registry = new TransportRegistry();
  readonly #inbox: Inbox;
  readonly #failures = new Failures((detail) => this.emit("warning", detail));
  #manager: PeerManager | undefined;
  #listeners: Listeners;
  #phase: Phase = "new";
  #starting: Promise<void> | undefined;
  #closed: Promise<void> | undefined;

  /**
   * Checks the options; nothing is opened yet.
   *
   * @throws {ConfigError} an option is unknown, of the wrong type or out of range
   * @throws {TransportError} the options do not give what the security mode demands
   */
  constructor(config: EndpointConfig<T>) {
    super((error) => this.#failures.addHandlerError(undefined, error));
    const { codec, transports, environment, ...options } = config;
    this.#options = resolveOptions(options);
    checkSecurity(this.#options);
    this.#environment = environment ?? systemEnvironment;
    this.#codec = codec ?? (bytesCodec as unknown as PayloadCodec<T>);
    this.#listeners = new Listeners(this.#options, undefined);
    this.#inbox = this.#newInbox();
    this.#registry.register(tcpTransport(detectRuntime()));
    for (const transport of transports ?? []) this.#registry.register(transport);
  }

  /** Our own node id. */
  get nodeId(): string {
    return this.#options.nodeId;
  }

  /** Where we accept connections, with real ports; empty before `start` and without `listen`. */
  get addresses(): string[] {
    return this.#listeners.addresses;
  }

  /**
   * Opens the listeners and begins to dial configured peers. Calling it again does nothing.
   *
   * @throws {TransportError} an address can't be bound, a certificate can't be read, or the
   *   security mode is not met
   */
  start(): Promise<void> {
    if (this.#phase === "closing" || this.#phase === "closed") {
      return Promise.reject(this.#shutdown("start"));
    }
    this.#starting ??= this.#start().catch((error) => {
      this.#starting = undefined;
      throw error;
    });
    return this.#starting;
  }

  /**
   * Connects to a peer and keeps the connection from then on. Resolves when it is there; does
   * nothing where it is already. A peer that was not known before is forgotten if the first
   * attempt fails.
   *
   * @throws {TransportError} there is no connection: `ConnectionFailed`, `Timeout`,
   *   `HandshakeFailed`, `IdentityMismatch`, `UnsupportedProtocol`, …
   */
  async connect(peer: PeerAddress, options: { signal?: AbortSignal } = {}): Promise<void> {
    const manager = this.#running("connect");
    const { nodeId, address } = this.#checkedPeer(peer);
    await manager.connect(nodeId, address, options.signal);
  }

  /**
   * Sends a message. Resolves when it is accepted: it will arrive, in order, or be reported by an
   * `undelivered` event; docs/protocol.md says what version 2 can't know. The payload may be
   * changed once the promise has resolved.
   *
   * @throws {TransportError} `PeerNotFound`, `MessageTooLarge`, `RateLimited`, `Backpressure`
   *   (only with `whenFull: "reject"`), `Shutdown`, or why the peer was given up
   */
  send(nodeId: string, payload: T, options: SendOptions = {}): Promise<void> {
    try {
      options.signal?.throwIfAborted();
      const peer = this.#peer(nodeId, "send");
      const bytes = this.#encode(payload, nodeId);
      return peer.send(bytes, checkedWhenFull(options.whenFull), options.signal);
    } catch (error) {
      return Promise.reject(error);
    }
  }

  /**
   * Sends a message if that needs no waiting. False: the queue is full or the rate limit reached.
   *
   * @throws {TransportError} what no retry would mend: `PeerNotFound`, `MessageTooLarge`, `Shutdown`
   */
  trySend(nodeId: string, payload: T): boolean {
    const peer = this.#peer(nodeId, "send");
    return peer.state !== "failed" && peer.offer(this.#encode(payload, nodeId)) === "taken";
  }

  /** Resolves when all that was accepted for the peer is written to the network, and nothing waits. */
  async flush(nodeId: string, options: { signal?: AbortSignal } = {}): Promise<void> {
    options.signal?.throwIfAborted();
    await this.#peer(nodeId, "flush").flush(options.signal);
  }

  /**
   * Sends a message to every known peer; no failure of one keeps it from the others. A peer that is
   * reconnecting gets it when it is back.
   */
  async broadcast(payload: T, options: SendOptions = {}): Promise<BroadcastResult> {
    const manager = this.#running("broadcast");
    options.signal?.throwIfAborted();
    const bytes = this.#encode(payload, undefined);
    const whenFull = checkedWhenFull(options.whenFull);
    const result: BroadcastResult = { delivered: [], failed: [] };
    await Promise.all(Array.from(manager.peers, async (peer) => {
      try {
        await peer.send(bytes, whenFull, options.signal);
        result.delivered.push(peer.nodeId);
      } catch (error) {
        result.failed.push({ nodeId: peer.nodeId, error });
      }
    }));
    return result;
  }

  /**
   * The next message, waiting for one.
   *
   * @throws {TransportError} `Shutdown` when the endpoint is closed and nothing is left
   */
  async receive(options: { signal?: AbortSignal } = {}): Promise<Message<T>> {
    while (true) {
      const message = this.#decode(await this.#inbox.receive(options.signal));
      if (message !== undefined) return message;
    }
  }

  /** The next message if one is there. */
  tryReceive(): Message<T> | undefined {
    while (true) {
      const raw = this.#inbox.tryReceive();
      if (raw === undefined) return undefined;
      const message = this.#decode(raw);
      if (message !== undefined) return message;
    }
  }

  /** Messages as they come, until the endpoint is closed. The same queue as `receive`. */
  [Symbol.asyncIterator](): AsyncIterableIterator<Message<T>, void, void> {
    // Written by hand: a generator costs two promises more for each message.
    const end = { done: true, value: undefined } as const;
    let ended = false;
    const wait = async (): Promise<IteratorResult<Message<T>, void>> => {
      try {
        return { done: false, value: await this.receive() };
      } catch (error) {
        if (error instanceof TransportError && error.code === "Shutdown") return end;
        throw error;
      }
    };
    return {
      next: () => {
        if (ended) return Promise.resolve(end);
        const value = this.tryReceive();
        return value === undefined ? wait() : Promise.resolve({ done: false, value });
      },
      return: () => {
        ended = true;
        return Promise.resolve(end);
      },
      [Symbol.asyncIterator]() {
        return this;
      },
    };
  }

  /**
   * Calls `handler` for every message instead of queueing it. Where it returns a promise, the same
   * peer's next message waits until that has settled. Returns a function that ends it.
   */
  onMessage(handler: MessageHandler<T>): () => void {
    if (typeof handler !== "function") {
      throw new TypeError("Cannot set the handler: it must be a function");
    }
    const call: MessageHandler = (raw) => {
      const message = this.#decode(raw);
      if (message !== undefined) return handler(message);
    };
    this.#inbox.setHandler(call);
    return () => this.#inbox.clearHandler(call);
  }

  /**
   * Ends all connections to a peer in order and forgets it. What waits for it is reported as
   * undelivered. A peer that dials us may come back.
   *
   * @throws {TransportError} `PeerNotFound`
   */
  async disconnect(nodeId: string): Promise<void> {
    const peer = this.#peer(nodeId, "disconnect");
    const error = new TransportError("ConnectionClosed", "disconnect was called", { peer: nodeId });
    await this.#manager!.leave(peer, error);
  }

  /** What is known of every peer. */
  peers(): PeerInfo[] {
    return this.#manager === undefined ? [] : [...this.#manager.peers].map(peerInfo);
  }

  /** What is known of one peer; undefined where there is none of that name. */
  peer(nodeId: string): PeerInfo | undefined {
    const peer = this.#manager?.get(nodeId);
    return peer === undefined ? undefined : peerInfo(peer);
  }

  /** Counters and gauges of the endpoint. */
  stats(): TransportStats {
    const manager = this.#manager;
    const peers = manager === undefined ? [] : [...manager.peers];
    return {
      ...(manager ?? NO_PEERS).traffic(),
      peerCount: peers.filter((peer) => peer.connectionCount > 0).length,
      connectionCount: manager?.connectionCount ?? 0,
      receiveQueueLength: this.#inbox.length,
      pendingMessages: peers.reduce((sum, peer) => sum + peer.pendingMessages, 0),
      refused: { ...this.#listeners.limits.refused },
      errors: { ...this.#failures.byCode },
      handlerErrors: this.#failures.handlerErrors,
    };
  }

  /**
   * The connections of one peer.
   *
   * @throws {TransportError} `PeerNotFound`
   */
  poolStats(nodeId: string): PoolStats {
    return this.#peer(nodeId, "look at the pool of").poolStats();
  }

  /**
   * Closes the endpoint: no new work, what is queued gets `drainMs` milliseconds to leave, what
   * could not is reported as undelivered, and all connections end. Never rejects; calling it again
   * waits for the same end.
   */
  close(options: { drainMs?: number } = {}): Promise<void> {
    this.#closed ??= this.#close(options.drainMs ?? DEFAULT_DRAIN_MS);
    return this.#closed;
  }

  /** `close` with its defaults. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  // --- start and close ---

  async #start(): Promise<void> {
    checkSecurity(this.#options);
    const { security, listen, peers, compression } = this.#options;
    const runtime = detectRuntime();
    const tls = await readTls(this.#options.tls, (path) => runtime.readTextFile(path));
    const lz4 = compression.enabled ? await loadLz4() : undefined;
    for (const address of listen) checkTransport(this.#transport(address), security, address);
    if (this.#phase !== "new") throw this.#shutdown("start");
    const listeners = new Listeners(this.#options, runtime.fileDescriptorLimit());
    this.#listeners = listeners;
    const manager = new PeerManager(this.#managerHost(), {
      dialTls: tls && linkTls(tls, "dialer"),
      lz4,
    });
    try {
      await listeners.open(tls && linkTls(tls, "listener"), {
        transport: (address) => this.#transport(address),
        onLink: (link) => manager.accept(link),
        onError: (error, host) => this.#failures.add(error, undefined, host),
      });
      if (this.#phase !== "new") throw this.#shutdown("start");
    } catch (error) {
      // Somebody may have come in through the first address before the second one failed.
      manager.stop("the endpoint did not start");
      await listeners.close();
      await manager.end(this.#shutdown("start"));
      throw error;
    }
    this.#manager = manager;
    this.#phase = "started";
    if (listeners.notice !== undefined) this.#failures.warn(listeners.notice);
    if (tls === undefined && (security === "development" || security === "legacy")) {
      this.#failures.warn(
        `Security mode "${security}": connections are neither encrypted nor verified`,
        {
          log: true,
        },
      );
    }
    // One list of peers may serve every node of a cluster: we are in it, too.
    for (const { nodeId, address } of peers) {
      if (nodeId !== this.nodeId) manager.keepConnected(nodeId, address);
    }
  }

  async #close(drainMs: number): Promise<void> {
    const starting = this.#starting;
    this.#phase = this.#phase === "new" ? "closed" : "closing";
    await starting?.catch(() => {});
    const manager = this.#manager;
    if (manager !== undefined) {
      this.#phase = "closing";
      manager.stop("the endpoint is closing");
      const closing = this.#listeners.close();
      await this.#drain(manager, drainMs);
      await manager.end(new TransportError("Shutdown", "the endpoint is closed"));
      await closing;
    }
    this.#phase = "closed";
    this.#inbox.close();
  }

  async #drain(manager: PeerManager, drainMs: number): Promise<void> {
    if (drainMs <= 0) return;
    const connected = [...manager.peers].filter((peer) => peer.connectionCount > 0);
    const flushed = Promise.all(connected.map((peer) => peer.flush().catch(() => {})));
    let cancel = () => {};
    const late = new Promise<void>((resolve) => {
      cancel = this.#environment.setTimer(drainMs, resolve);
    });
    await Promise.race([flushed, late]);
    cancel();
  }

  // --- what the manager and the inbox ask ---

  #managerHost(): ManagerHost {
    const inbox = this.#inbox;
    return {
      options: this.#options,
      environment: this.#environment,
      limits: this.#listeners.limits,
      get inboxFull() {
        return inbox.full;
      },
      openLink: (address, options) => this.#openLink(address, options),
      deliver: (peer, payload) => inbox.push({ from: peer.nodeId, payload }),
      onPeerUp: ({ nodeId, identity }) => this.emit("peerup", { nodeId, identity }),
      onPeerDown: ({ nodeId }, error) => this.emit("peerdown", { nodeId, error }),
      onStateChange: (nodeId, change) => this.#stateChanged(nodeId, change),
      onUndelivered: (peer, payload, error, fate) => this.#undelivered(peer, payload, error, fate),
      onFailure: (error, nodeId, address) => this.#failures.add(error, nodeId, address),
    };
  }

  #openLink(address: string, options: DialOptions): Promise<Link> {
    const transport = this.#transport(address);
    checkTransport(transport, this.#options.security, address);
    return transport.dial(address, options);
  }

  #stateChanged(nodeId: string | undefined, change: StateChange): void {
    this.emit("statechange", { nodeId, ...change });
  }

  #undelivered(peer: Peer, bytes: Uint8Array, error: TransportError, fate: Fate): void {
    let payload: T;
    try {
      payload = this.#codec.decode(bytes);
    } catch (cause) {
      this.#failures.addHandlerError(peer.nodeId, cause);
      return;
    }
    this.emit("undelivered", { nodeId: peer.nodeId, payload, error, fate });
  }

  #newInbox(): Inbox {
    return new Inbox({
      maxMessages: this.#options.recvBufferSize,
      maxBytes: this.#options.maxPendingBytes,
      onRoom: () => this.#releasePeers(),
      onPending: (from, settled) => {
        this.#manager?.get(from)?.holdFor(settled);
        settled.catch((error) => this.#failures.addHandlerError(from, error));
      },
      onHandlerError: (from, error) => this.#failures.addHandlerError(from, error),
    });
  }

  /** Peers that had to wait take turns at being first. */
  #releasePeers(): void {
    const peers = [...this.#manager?.peers ?? []];
    const first = peers.length === 0 ? 0 : this.#nextReleased++ % peers.length;
    for (let i = 0; i < peers.length; i++) peers[(first + i) % peers.length]!.releaseAll();
  }
  #nextReleased = 0;

  // --- helpers ---

  #transport(address: string): Transport {
    return this.#registry.get(parseAddress(address).scheme);
  }

  #running(action: string): PeerManager {
    if (this.#phase === "started") return this.#manager!;
    if (this.#phase !== "new") throw this.#shutdown(action);
    throw new TransportError("Shutdown", `Cannot ${action}: the endpoint is not started`, {
      recovery: "call start() first",
    });
  }

  #shutdown(action: string): TransportError {
    return new TransportError("Shutdown", `Cannot ${action}: the endpoint is closed`);
  }

  #peer(nodeId: string, action: string): Peer {
    const peer = this.#running(action).get(nodeId);
    if (peer !== undefined) return peer;
    throw new TransportError("PeerNotFound", `Cannot ${action} ${nodeId}: no such peer`, {
      peer: nodeId,
    });
  }

  #checkedPeer({ nodeId, address }: PeerAddress): PeerAddress {
    const { scheme, host, port } = parseDialAddress(address);
    // The same rules as for our own node id; the error names the right argument.
    resolveOptions({ nodeId, security: "development" });
    if (nodeId === this.nodeId) {
      throw new HandshakeError("Cannot connect: that is our own node id", "DUPLICATE_NODE_ID", {
        peer: nodeId,
      });
    }
    this.#registry.get(scheme);
    return { nodeId, address: formatAddress(scheme, host, port) };
  }

  #encode(payload: T, nodeId: string | undefined): Uint8Array {
    const bytes = this.#codec.encode(payload);
    if (!(bytes instanceof Uint8Array)) {
      throw new TypeError("Cannot send: the payload must be a Uint8Array, or a codec be given");
    }
    const { maxMessageSize } = this.#options;
    if (bytes.length > maxMessageSize) {
      throw new MessageTooLargeError(
        `Cannot send: the message has ${bytes.length} bytes, the limit is ${maxMessageSize}`,
        bytes.length,
        maxMessageSize,
        { peer: nodeId },
      );
    }
    return bytes;
  }

  #decode(raw: Message): Message<T> | undefined {
    if (this.#codec as unknown === bytesCodec) return raw as Message<T>;
    try {
      return { from: raw.from, payload: this.#codec.decode(raw.payload) };
    } catch (error) {
      this.#failures.addHandlerError(raw.from, error);
      return undefined;
    }
  }
}

const NO_PEERS = { traffic: noTraffic };

const WHEN_FULL: readonly WhenFull[] = ["wait", "reject", "drop-oldest", "drop-newest"];

function checkedWhenFull(value: WhenFull | undefined): WhenFull {
  if (value === undefined) return "wait";
  if (WHEN_FULL.includes(value)) return value;
  throw new TypeError(`Cannot send: whenFull must be one of ${WHEN_FULL.join(", ")}`);
}
