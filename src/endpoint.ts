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
import { checkOwnName, checkTransport, linkTls, readTls } from "./link_tls.ts";
import { readOwnKeys } from "./own_keys.ts";
import { ConnectionTally } from "./peer/connection_tally.ts";
import { Inbox, type Message, type MessageHandler } from "./peer/inbox.ts";
import type { StateChange } from "./peer/lifecycle.ts";
import { type ManagerHost, PeerManager } from "./peer/manager.ts";
import type { Undelivered } from "./peer/outgoing.ts";
import type { Peer } from "./peer/peer.ts";
import {
  type HandleOptions,
  Handlers,
  type RequestHandler,
  type RequestOptions,
} from "./peer/requests.ts";
import { type StreamHandler, StreamHandlers } from "./peer/stream_handlers.ts";
import type { TransportStream } from "./peer/web_stream.ts";
import { type PeerInfo, peerInfo } from "./peer_info.ts";
import { OBJECT_SOURCE } from "./option_reader.ts";
import { addressesOf, resolvePeer } from "./resolve_addresses.ts";
import { resolveOptions } from "./resolve_options.ts";
import { type Environment, systemEnvironment } from "./runtime/environment.ts";
import { crc32 } from "./runtime/crc32.ts";
import { loadLz4 } from "./runtime/lz4.ts";
import { loadZstd } from "./runtime/zstd.ts";
import { RoutingTable } from "./routing.ts";
import { checkKeys, checkLane, PLAIN, sendPlan, type StreamOptions } from "./send_plan.ts";
import { sendAcknowledged, type SendOptions, type TrySendOptions } from "./send_plan.ts";
import type { SendPlan } from "./peer/send_queue.ts";
import { detectRuntime } from "./runtime/runtime.ts";
import { checkSecurity } from "./security.ts";
import { noTraffic, type PoolStats, type TransportStats } from "./stats.ts";
import {
  canonicalAddress,
  isDialable,
  parseAddress,
  parseDialAddress,
  readAddress,
} from "./transport/address.ts";
import { advertisedAddresses } from "./transport/advertise.ts";
import { builtinTransports } from "./transport/builtin.ts";
import { TransportRegistry } from "./transport/registry.ts";
import {
  DEFAULT_PRIORITY,
  type DialOptions,
  type Link,
  type Transport,
} from "./transport/transport.ts";

/** How warnings name callbacks. */
const MESSAGE_HANDLER = "the message handler";
const DECODER = "the codec's decode";
/** How long `close` lets queued messages leave. */
const DEFAULT_DRAIN_MS = 5_000;

/** Options of an {@linkcode Endpoint} that are code, beside those of a configuration file. */
export interface EndpointConfig<T = Uint8Array> extends EndpointOptions {
  /** Turns payloads into bytes and back; without it they are `Uint8Array`. */
  codec?: PayloadCodec<T>;
  /** Further transports, for address schemes of your own. */
  transports?: Transport[];
}

/** What became of a broadcast. */
export interface BroadcastResult {
  /**
   * The peers whose queues took the message, those included that have no connection at the time.
   * With `acknowledged`, those that have it.
   */
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
  /** How a message goes out of which nothing is said. */
  readonly #plain: SendPlan;
  readonly #registry = new TransportRegistry();
  readonly #inbox: Inbox;
  readonly #handlers = new Handlers();
  readonly #streamHandlers = new StreamHandlers();
  readonly #failures = new Failures((detail) => this.emit("warning", detail));
  /**
   * Which node takes what is for a recipient that is no peer: `send`, `request` and `openStream` to
   * such an id connect by themselves. May be changed at any time.
   */
  readonly routes: RoutingTable;
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
    super((error, type) =>
      this.#failures.addHandlerError(undefined, error, `the listener of "${type}"`)
    );
    const { codec, transports, environment, ...options } = config;
    this.#options = resolveOptions(options);
    checkSecurity(this.#options);
    this.#environment = environment ?? systemEnvironment;
    const { routes, defaultRoute } = this.#options;
    this.routes = new RoutingTable({ routes, defaultRoute });
    this.#plain = this.#options.delivery === "resume" ? PLAIN : sendPlan({}, "at-most-once");
    this.#codec = codec ?? (bytesCodec as unknown as PayloadCodec<T>);
    this.#listeners = new Listeners(this.#options, undefined);
    this.#inbox = this.#newInbox();
    for (const transport of builtinTransports(detectRuntime())) this.#registry.register(transport);
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

  /** The transports that can be had, those included that this runtime lacks: they say why. */
  get transports(): readonly Transport[] {
    return this.#registry.list();
  }

  /**
   * Adds a transport for an address scheme, or puts it in the place of a built-in one. Also after
   * `start`, for addresses that are dialed from then on.
   */
  registerTransport(transport: Transport): void {
    this.#registry.register(transport);
  }

  /**
   * Opens the listeners and begins to dial configured peers. Calling it again does nothing.
   *
   * @throws {TransportError} an address can't be bound, a certificate can't be read or is another
   *   node's (`IdentityMismatch`), or the security mode is not met
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
    const checked = this.#checkedPeer(peer);
    await manager.connect(checked.nodeId, addressesOf(checked), options.signal);
  }

  /**
   * Sends a message. Resolves when it is accepted: it arrives once and in the order of its lane, or
   * is reported by an `undelivered` event (docs/delivery.md). With `acknowledged: true` it resolves
   * when the peer has it in its receive queue. The payload may be changed once the promise has
   * resolved.
   *
   * @throws {TransportError} `PeerNotFound`, `MessageTooLarge`, `RateLimited`, `Backpressure`
   *   (only with `whenFull: "reject"`), `UnsupportedProtocol`, `Shutdown`, or why the peer was
   *   given up or, with `acknowledged`, the message not delivered
   */
  send(nodeId: string, payload: T, options?: SendOptions): Promise<void> {
    try {
      const peer = this.#reach(nodeId, "send");
      const bytes = this.#encode(payload, nodeId);
      return this.#send(peer, bytes, options);
    } catch (error) {
      return Promise.reject(error);
    }
  }

  /**
   * Sends a message if that needs no waiting. False: the queue is full or the rate limit reached.
   *
   * @throws {TransportError} what no retry would mend: `PeerNotFound`, `MessageTooLarge`, `Shutdown`
   */
  trySend(nodeId: string, payload: T, options?: TrySendOptions): boolean {
    const peer = this.#reach(nodeId, "send");
    if (options !== undefined) checkKeys("trySend", options);
    const plan = options === undefined ? this.#plain : sendPlan(options, this.#options.delivery);
    return peer.state !== "failed" && peer.offer(this.#encode(payload, nodeId), plan) === "taken";
  }

  /**
   * Resolves when all that was accepted for the peer so far is acknowledged; before version 3, when
   * it is written to the network and nothing waits.
   */
  async flush(nodeId: string, options: { signal?: AbortSignal } = {}): Promise<void> {
    options.signal?.throwIfAborted();
    this.#running("flush");
    const peer = this.#find(nodeId);
    // A recipient that nothing was sent to lately has nothing to wait for.
    if (peer === undefined && this.routes.resolve(nodeId) === undefined) {
      throw noSuchPeer(nodeId, "flush");
    }
    await peer?.flush(options.signal);
  }

  /**
   * Sends a message to every known peer; no failure of one keeps it from the others. A peer that is
   * down counts as delivered when its queue took the message, and gets it when it is back; only
   * `acknowledged: true` waits for that.
   */
  async broadcast(payload: T, options: SendOptions = {}): Promise<BroadcastResult> {
    const manager = this.#running("broadcast");
    options.signal?.throwIfAborted();
    checkKeys("send", options);
    sendPlan(options, this.#options.delivery);
    checkedWhenFull(options.whenFull);
    const bytes = this.#encode(payload, undefined);
    const result: BroadcastResult = { delivered: [], failed: [] };
    await Promise.all(Array.from(manager.peers, async (peer) => {
      try {
        await this.#send(peer, bytes, options);
        result.delivered.push(peer.nodeId);
      } catch (error) {
        result.failed.push({ nodeId: peer.nodeId, error });
      }
    }));
    return result;
  }

  /**
   * Asks a peer and resolves with its answer.
   *
   * @throws {TransportError} `RemoteError` (with the peer's `remoteCode`), `Timeout` and
   *   `ConnectionClosed` (a `RequestLostError`, which says whether it may have run), `PeerNotFound`,
   *   `MessageTooLarge`, `Backpressure`, `Shutdown`
   */
  async request(nodeId: string, payload: T, options: RequestOptions = {}): Promise<T> {
    options.signal?.throwIfAborted();
    checkKeys("request", options);
    const peer = this.#reach(nodeId, "ask");
    if (peer.failure !== undefined) throw peer.failure;
    this.#checkVersion3(peer, "ask");
    const answer = await peer.exchange.request(this.#encode(payload, nodeId), options);
    return this.#codec.decode(answer);
  }

  /**
   * Serves the requests of a topic, in the place of who did so before; undefined serves those
   * without a topic. Returns a function that ends it.
   */
  handle(
    topic: string | undefined,
    handler: RequestHandler<T>,
    options?: HandleOptions,
  ): () => void {
    if (typeof handler !== "function") {
      throw new TypeError("Cannot handle requests: the handler is not a function");
    }
    if (options !== undefined) checkKeys("handle", options);
    return this.#handlers.handle(topic, async (request) => {
      if (this.#codec as unknown === bytesCodec) {
        return await (handler as unknown as RequestHandler)(request);
      }
      const payload = this.#codec.decode(request.payload);
      const decoded = Object.create(request, { payload: { value: payload, enumerable: true } });
      return this.#codec.encode(await handler(decoded));
    }, options);
  }

  /**
   * Opens a stream of bytes to a peer: two Web Streams, each with a window of its own.
   *
   * @throws {TransportError} `PeerNotFound`, `Backpressure` (as many are open as the peer takes),
   *   `UnsupportedProtocol`, `Shutdown`
   */
  async openStream(nodeId: string, options: StreamOptions = {}): Promise<TransportStream> {
    const { signal, topic, payload } = options;
    signal?.throwIfAborted();
    checkKeys("openStream", options);
    const peer = this.#reach(nodeId, "open a stream to");
    if (peer.failure !== undefined) throw peer.failure;
    this.#checkVersion3(peer, "open a stream to");
    const lane = checkLane(options.lane);
    const stream = peer.exchange.openStream(lane, topic, payload ?? new Uint8Array(0));
    const onAbort = () => stream.reset("CANCELLED", "the opener gave it up");
    signal?.addEventListener("abort", onAbort, { once: true });
    const done = () => signal?.removeEventListener("abort", onAbort);
    stream.closed.then(done, done);
    return await Promise.resolve(stream);
  }

  /**
   * Takes the streams of a topic that peers open; undefined takes those without a topic. Returns a
   * function that ends it.
   */
  onStream(topic: string | undefined, handler: StreamHandler): () => void {
    return this.#streamHandlers.handle(topic, handler);
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
    const now = this.#environment.now();
    const wallClock = this.#environment.wallClock();
    return [...this.#manager?.peers ?? []].map((peer) => peerInfo(peer, now, wallClock));
  }

  /** What is known of one peer; undefined where there is none of that name. */
  peer(nodeId: string): PeerInfo | undefined {
    const peer = this.#manager?.get(nodeId);
    return peer === undefined ? undefined : peerInfo(
      peer,
      this.#environment.now(),
      this.#environment.wallClock(),
    );
  }

  /** Counters and gauges of the endpoint. */
  stats(): TransportStats {
    const manager = this.#manager;
    const peers = manager === undefined ? [] : [...manager.peers];
    return {
      ...(manager ?? NO_PEERS).traffic(),
      peerCount: peers.filter((peer) => peer.connectionCount > 0).length,
      connectionCount: manager?.connectionCount ?? 0,
      connections: (manager ?? NO_PEERS).connectionMetrics(),
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
    if (tls !== undefined) checkOwnName(tls, this.nodeId);
    const lz4 = compression.enabled ? await loadLz4() : undefined;
    const keys = await readOwnKeys(
      this.#options,
      (path) => runtime.readTextFile(path),
      this.#environment.wallClock(),
    );
    const zstd = compression.enabled ? loadZstd() : undefined;
    for (const address of listen) this.#checkTransport(this.#transport(address), address);
    if (this.#phase !== "new") throw this.#shutdown("start");
    const listeners = new Listeners(this.#options, runtime.fileDescriptorLimit());
    this.#listeners = listeners;
    const manager = new PeerManager(this.#managerHost(), {
      dialTls: tls && linkTls(tls, "dialer"),
      lz4,
      zstd,
      crc32,
      ...keys,
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
    for (const peer of peers) {
      if (peer.nodeId !== this.nodeId) manager.keepConnected(peer.nodeId, addressesOf(peer));
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
      priority: (address) => this.#priority(address),
      advertised: (info) => this.#options.advertise ?? advertisedAddresses(this.addresses, info),
      dialable: (address) => {
        const parsed = readAddress(address);
        if (typeof parsed === "string" || !isDialable(parsed)) return undefined;
        const canonical = canonicalAddress(parsed);
        return this.#priority(canonical) === undefined ? undefined : canonical;
      },
      exchange: {
        handlers: this.#handlers,
        streamHandlers: this.#streamHandlers,
        maxMessageSize: this.#options.maxMessageSize,
        maxRequests: this.#options.maxRequests,
        maxStreams: this.#options.maxStreams,
        requestTimeoutMs: this.#options.requestTimeoutMs,
        wallClock: () => this.#environment.wallClock(),
        onHandlerError: (nodeId, error, what) =>
          this.#failures.addHandlerError(nodeId, error, what),
        onRefused: () => this.#listeners.limits.refused.requestsAndStreams++,
      },
      deliver: ({ nodeId }, payload, lane, topic) =>
        inbox.push({ from: nodeId, payload, topic, lane }),
      onPeerUp: ({ nodeId, identity }) => this.emit("peerup", { nodeId, identity }),
      onPeerDown: ({ nodeId }, error) => this.emit("peerdown", { nodeId, error }),
      onStateChange: (nodeId, change) => this.#stateChanged(nodeId, change),
      onHealth: ({ nodeId }, health, previous) =>
        this.emit("healthchange", { nodeId, health, previous }),
      onUndelivered: (peer, message) => this.#undelivered(peer, message),
      onFailure: (error, nodeId, address) => this.#failures.add(error, nodeId, address),
    };
  }

  async #openLink(address: string, options: DialOptions): Promise<Link> {
    const transport = this.#transport(address);
    this.#checkTransport(transport, address);
    return await transport.dial(address, options);
  }

  #checkTransport(transport: Transport, address: string): void {
    const { security, identity } = this.#options;
    checkTransport(transport, security, address, identity !== undefined);
  }

  #stateChanged(nodeId: string | undefined, change: StateChange): void {
    this.emit("statechange", { nodeId, ...change });
  }

  #undelivered(peer: Peer, { payload: bytes, lane, topic, error, fate }: Undelivered): void {
    let payload: T;
    try {
      payload = this.#codec.decode(bytes);
    } catch (cause) {
      this.#failures.addHandlerError(peer.nodeId, cause, DECODER);
      return;
    }
    this.emit("undelivered", { nodeId: peer.nodeId, payload, lane, topic, error, fate });
  }

  #newInbox(): Inbox {
    return new Inbox({
      maxMessages: this.#options.recvBufferSize,
      maxBytes: this.#options.maxPendingBytes,
      onRoom: () => this.#releasePeers(),
      onPending: (from, settled) => {
        this.#manager?.get(from)?.holdFor(settled);
        settled.catch((error) => this.#failures.addHandlerError(from, error, MESSAGE_HANDLER));
      },
      onHandlerError: (from, error) => this.#failures.addHandlerError(from, error, MESSAGE_HANDLER),
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

  #send(peer: Peer, bytes: Uint8Array, options: SendOptions | undefined): Promise<void> {
    if (options === undefined) return peer.send(bytes, this.#plain, "wait", undefined);
    const { signal } = options;
    if (signal?.aborted) return Promise.reject(signal.reason);
    checkKeys("send", options);
    const whenFull = checkedWhenFull(options.whenFull);
    if (options.acknowledged !== true) {
      return peer.send(bytes, sendPlan(options, this.#options.delivery), whenFull, signal);
    }
    return sendAcknowledged(peer, bytes, options, this.#options.delivery, whenFull);
  }

  /** What a connection has shown not to have is refused at once. */
  #checkVersion3(peer: Peer, action: string): void {
    const version = peer.version;
    if (version === undefined || version >= 3) return;
    const { nodeId } = peer;
    const text = `Cannot ${action} ${nodeId}: it speaks version ${version} of the protocol`;
    throw new TransportError("UnsupportedProtocol", text, {
      peer: nodeId,
      recovery: "upgrade the peer to protocol version 3",
    });
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

  /** A peer that something is to be sent to: one that is only routed is dialed. */
  #reach(nodeId: string, action: string): Peer {
    const manager = this.#running(action);
    const known = this.#find(nodeId);
    if (known !== undefined) return known;
    const route = this.routes.resolve(nodeId);
    if (route === undefined || route.nodeId === this.nodeId) throw noSuchPeer(nodeId, action);
    const addresses = addressesOf(route);
    this.#checkUsable(addresses);
    return manager.reach(route.nodeId, addresses);
  }

  #peer(nodeId: string, action: string): Peer {
    const peer = this.#running(action).get(nodeId);
    if (peer === undefined) throw noSuchPeer(nodeId, action);
    return peer;
  }

  /** A peer, or the one that a recipient is routed to. */
  #find(nodeId: string): Peer | undefined {
    const manager = this.#manager;
    return manager?.get(nodeId) ?? manager?.get(this.routes.resolve(nodeId)?.nodeId ?? nodeId);
  }

  #checkedPeer({ nodeId, address }: PeerAddress): PeerAddress {
    const list = typeof address === "string" ? [address] : address;
    const path = (i: number) => typeof address === "string" ? "address" : `address[${i}]`;
    for (const [i, item] of list.entries()) parseDialAddress(item, path(i));
    // The same rules as for our own node id; the error names the right argument.
    resolveOptions({ nodeId, security: "development" });
    if (nodeId === this.nodeId) {
      throw new HandshakeError("Cannot connect: that is our own node id", "DUPLICATE_NODE_ID", {
        peer: nodeId,
      });
    }
    const checked = resolvePeer({ nodeId, address }, "", OBJECT_SOURCE);
    this.#checkUsable(addressesOf(checked));
    return checked;
  }

  /** One address that can be used is enough; others may be for other runtimes. */
  #checkUsable(addresses: readonly string[]): void {
    if (addresses.length > 1 && addresses.some((one) => this.#priority(one) !== undefined)) return;
    this.#transport(addresses[0]!);
  }

  #priority(address: string): number | undefined {
    const { scheme } = parseAddress(address);
    const transport = this.#registry.list().find((other) => other.scheme === scheme);
    if (transport === undefined || transport.unavailable !== undefined) return undefined;
    // Datagrams carry no session.
    if (!transport.capabilities.reliable) return undefined;
    try {
      this.#checkTransport(transport, address);
    } catch {
      return undefined;
    }
    return transport.priority ?? DEFAULT_PRIORITY;
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
      return { ...raw, payload: this.#codec.decode(raw.payload) };
    } catch (error) {
      this.#failures.addHandlerError(raw.from, error, DECODER);
      return undefined;
    }
  }
}

function noSuchPeer(nodeId: string, action: string): TransportError {
  return new TransportError("PeerNotFound", `Cannot ${action} ${nodeId}: no such peer`, {
    peer: nodeId,
  });
}

const NO_PEERS = {
  traffic: noTraffic,
  connectionMetrics: () => new ConnectionTally().metrics([]),
};

const WHEN_FULL: readonly WhenFull[] = ["wait", "reject", "drop-oldest", "drop-newest"];

function checkedWhenFull(value: WhenFull | undefined): WhenFull {
  if (value === undefined) return "wait";
  if (WHEN_FULL.includes(value)) return value;
  throw new TypeError(`Cannot send: whenFull must be one of ${WHEN_FULL.join(", ")}`);
}
