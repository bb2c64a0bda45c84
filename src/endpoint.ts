/**
 * What an application holds. Joins the rooms of the library and keeps little itself.
 *
 * @module
 */

import { bytesCodec, type PayloadCodec } from "./codec.ts";
import {
  BackpressureError,
  HandshakeError,
  MessageTooLargeError,
  TransportError,
} from "./errors.ts";
import { type EndpointEventMap, TypedEventTarget } from "./events.ts";
import { Failures } from "./failures.ts";
import type { EndpointOptions, PeerAddress, ResolvedOptions, WhenFull } from "./options.ts";
import { Listeners } from "./listeners.ts";
import { checkOwnName, checkTransport, linkTls, readTls } from "./link_tls.ts";
import { readOwnKeys } from "./own_keys.ts";
import type { Bandwidth } from "./peer/bandwidth.ts";
import { ConnectionTally } from "./peer/connection_tally.ts";
import type { DatagramPeer } from "./peer/datagram_peer.ts";
import { checkDatagrams, Datagrams, type DatagramsHost } from "./peer/datagrams.ts";
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
import { DONE } from "./peer/waiters.ts";
import type { PacketSeal } from "./protocol/datagram/seal.ts";
import { type StreamHandler, StreamHandlers } from "./peer/stream_handlers.ts";
import type { TransportStream } from "./peer/web_stream.ts";
import { datagramPeerInfo, type PeerInfo, peerInfo } from "./peer_info.ts";
import { OBJECT_SOURCE } from "./option_reader.ts";
import { addressesOf, resolvePeer } from "./resolve_addresses.ts";
import { resolveOptions } from "./resolve_options.ts";
import { type Environment, systemEnvironment } from "./runtime/environment.ts";
import { crc32 } from "./runtime/crc32.ts";
import { sha256 } from "./runtime/ed25519.ts";
import { loadLz4 } from "./runtime/lz4.ts";
import { loadZstd } from "./runtime/zstd.ts";
import { RoutingTable } from "./routing.ts";
import { checkKeys, checkLane, PLAIN, sendPlan, type StreamOptions } from "./send_plan.ts";
import { sendAcknowledged, type SendOptions, type TrySendOptions } from "./send_plan.ts";
import type { SendPlan } from "./peer/send_queue.ts";
import { detectRuntime } from "./runtime/runtime.ts";
import { checkSecurity } from "./security.ts";
import {
  addTraffic,
  type ConnectionMetrics,
  noDatagrams,
  noTraffic,
  type PoolStats,
  type TransportStats,
} from "./stats.ts";
import {
  canonicalAddress,
  isDialable,
  parseAddress,
  parseDialAddress,
  readAddress,
} from "./transport/address.ts";
import { advertisedAddresses, mayLeadTo } from "./transport/advertise.ts";
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
  /** The peers that are reached by datagrams. */
  #datagrams: Datagrams | undefined;
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
    return [...this.#listeners.addresses, ...this.#datagrams?.addresses ?? []];
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
    const { nodeId } = checked;
    const [links, datagram] = this.#splitAddresses(addressesOf(checked));
    if (links.length === 0) {
      checkDatagrams(this.#options, datagram!);
      return await this.#datagrams!.connect(nodeId, datagram!, options.signal);
    }
    await manager.connect(nodeId, links, options.signal);
    if (datagram !== undefined && this.#allowsDatagrams(datagram)) {
      this.#datagrams!.keepConnected(nodeId, datagram);
    }
  }

  /**
   * Sends a message. Resolves when it is accepted: it arrives once and in the order of its lane, or
   * is reported by an `undelivered` event (docs/delivery.md). With `acknowledged: true` it resolves
   * when the peer has it in its receive queue. The payload may be changed once the promise has
   * resolved.
   *
   * To a peer that is reached by datagrams only it is best effort: it arrives once or not at all.
   *
   * @throws {TransportError} `PeerNotFound`, `MessageTooLarge`, `RateLimited`, `Backpressure`
   *   (only with `whenFull: "reject"`), `UnsupportedProtocol`, `Shutdown`, or why the peer was
   *   given up or, with `acknowledged`, the message not delivered
   */
  send(nodeId: string, payload: T, options?: SendOptions): Promise<void> {
    try {
      let peer = this.#onlyLinked(nodeId, "send");
      if (peer === undefined) {
        const datagram = this.#reachByDatagram(nodeId, "send");
        if (datagram !== undefined) return this.#sendDatagram(datagram, nodeId, payload, options);
        peer = this.#reach(nodeId, "send");
      }
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
    const linked = this.#onlyLinked(nodeId, "send");
    const datagram = linked === undefined ? this.#reachByDatagram(nodeId, "send") : undefined;
    if (options !== undefined) checkKeys("trySend", options);
    const plan = options === undefined ? this.#plain : sendPlan(options, this.#options.delivery);
    if (datagram !== undefined) {
      const bytes = this.#encode(payload, nodeId);
      const reliable = this.#manager!.get(nodeId);
      if (reliable === undefined || goesByDatagram(datagram, bytes, plan)) {
        return this.#tryDatagram(datagram, bytes, plan);
      }
    }
    const peer = linked ?? this.#reach(nodeId, "send");
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
    // What has been sent as a packet has left.
    if (peer === undefined && this.#datagrams?.get(nodeId) !== undefined) return;
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
    const waiting: Promise<void>[] = [];
    const note = (nodeId: string, send: () => Promise<void>) => {
      const failed = (error: unknown) => {
        result.failed.push({ nodeId, error });
      };
      try {
        const sent = send();
        // What was taken at once costs no promise, and shares its write with the next broadcast.
        if (sent === DONE) result.delivered.push(nodeId);
        else waiting.push(sent.then(() => void result.delivered.push(nodeId), failed));
      } catch (error) {
        failed(error);
      }
    };
    for (const peer of [...manager.peers]) {
      note(peer.nodeId, () => this.#send(peer, bytes, options));
    }
    for (const peer of this.#onlyDatagrams()) {
      note(peer.nodeId, () => this.#sendPacket(peer, bytes, options));
    }
    if (waiting.length > 0) await Promise.all(waiting);
    return result;
  }

  /**
   * Asks a peer and resolves with its answer.
   *
   * @throws {TransportError} `RemoteError` (with the peer's `remoteCode`), `Timeout` and
   *   `ConnectionClosed` (a `RequestLostError`, which says whether it may have run), `PeerNotFound`,
   *   `MessageTooLarge`, `Backpressure`, `Shutdown`
   */
  request(nodeId: string, payload: T, options: RequestOptions = {}): Promise<T> {
    try {
      const answer = this.#request(nodeId, payload, options);
      // A promise less for who sends bytes.
      return this.#codec as unknown === bytesCodec
        ? answer as Promise<unknown> as Promise<T>
        : answer.then((bytes) => this.#codec.decode(bytes));
    } catch (error) {
      return Promise.reject(error);
    }
  }

  #request(nodeId: string, payload: T, options: RequestOptions): Promise<Uint8Array> {
    options.signal?.throwIfAborted();
    checkKeys("request", options);
    const datagram = this.#reachByDatagram(nodeId, "ask");
    if (datagram !== undefined && this.#manager!.get(nodeId) === undefined) {
      if (datagram.failure !== undefined) throw datagram.failure;
      return datagram.request(this.#encode(payload, nodeId), options);
    }
    const peer = this.#reach(nodeId, "ask");
    if (peer.failure !== undefined) throw peer.failure;
    this.#checkVersion3(peer, "ask");
    return peer.exchange.request(this.#encode(payload, nodeId), options);
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
    if (this.#codec as unknown === bytesCodec) {
      return this.#handlers.handle(topic, handler as unknown as RequestHandler, options);
    }
    return this.#handlers.handle(topic, async (request) => {
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
    const datagram = this.#reachByDatagram(nodeId, "open a stream to");
    if (datagram !== undefined && this.#manager!.get(nodeId) === undefined) {
      throw noDatagramFor("open a stream to", nodeId);
    }
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
    const manager = this.#running("disconnect");
    const peer = manager.get(nodeId);
    const datagram = this.#datagrams?.get(nodeId);
    if (peer === undefined && datagram === undefined) throw noSuchPeer(nodeId, "disconnect");
    const error = new TransportError("ConnectionClosed", "disconnect was called", { peer: nodeId });
    if (datagram !== undefined) this.#datagrams!.leave(nodeId, error);
    if (peer !== undefined) await manager.leave(peer, error);
  }

  /** What is known of every peer. */
  peers(): PeerInfo[] {
    const linked = Array.from(this.#manager?.peers ?? [], (peer) => peer.nodeId);
    const others = this.#onlyDatagrams().map((peer) => peer.nodeId);
    return [...linked, ...others].flatMap((nodeId) => this.peer(nodeId) ?? []);
  }

  /** What is known of one peer; undefined where there is none of that name. */
  peer(nodeId: string): PeerInfo | undefined {
    const [now, wallClock] = [this.#environment.now(), this.#environment.wallClock()];
    const peer = this.#manager?.get(nodeId);
    const datagrams = this.#datagrams;
    const other = datagrams?.get(nodeId);
    const linked = peer === undefined ? undefined : peerInfo(peer, now, wallClock);
    if (datagrams === undefined || other === undefined) return linked;
    const localAddress = datagrams.localAddress.bind(datagrams);
    const info = datagramPeerInfo(other, localAddress, now, wallClock);
    if (linked === undefined) return info;
    return { ...linked, connections: [...linked.connections, ...info.connections] };
  }

  /** Counters and gauges of the endpoint. */
  stats(): TransportStats {
    const manager = this.#manager;
    const datagrams = this.#datagrams;
    const peers = manager === undefined ? [] : [...manager.peers];
    const traffic = (manager ?? NO_PEERS).traffic();
    if (datagrams !== undefined) addTraffic(traffic, datagrams.traffic());
    return {
      ...traffic,
      peerCount: peers.filter((peer) => peer.connectionCount > 0).length +
        this.#onlyDatagrams().filter((peer) => peer.links.length > 0).length,
      connectionCount: (manager?.connectionCount ?? 0) + (datagrams?.linkCount ?? 0),
      connections: joinMetrics(
        (manager ?? NO_PEERS).connectionMetrics(),
        datagrams?.connectionMetrics(),
      ),
      receiveQueueLength: this.#inbox.length,
      pendingMessages: peers.reduce((sum, peer) => sum + peer.pendingMessages, 0),
      datagrams: datagrams?.counters() ?? noDatagrams(),
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
    for (const address of listen) {
      if (this.#isDatagram(address)) checkDatagrams(this.#options, address);
      else this.#checkTransport(this.#transport(address), address);
    }
    for (const peer of peers) {
      const [links, datagram] = this.#splitAddresses(addressesOf(peer));
      if (links.length === 0 && datagram !== undefined) checkDatagrams(this.#options, datagram);
    }
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
    const datagrams = new Datagrams(this.#datagramsHost(keys.seals?.packets, manager.bandwidth));
    try {
      for (const address of listen) {
        if (this.#isDatagram(address)) await datagrams.listen(address);
      }
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
      await datagrams.end(this.#shutdown("start"));
      await manager.end(this.#shutdown("start"));
      throw error;
    }
    this.#manager = manager;
    this.#datagrams = datagrams;
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
      if (peer.nodeId === this.nodeId) continue;
      const [links, datagram] = this.#splitAddresses(addressesOf(peer));
      if (links.length > 0) manager.keepConnected(peer.nodeId, links);
      if (datagram !== undefined && this.#allowsDatagrams(datagram)) {
        datagrams.keepConnected(peer.nodeId, datagram);
      }
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
      this.#datagrams?.stop();
      const closing = this.#listeners.close();
      await this.#drain(manager, drainMs);
      const error = new TransportError("Shutdown", "the endpoint is closed");
      await Promise.all([manager.end(error), this.#datagrams?.end(error)]);
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
      dialable: (address, info) => {
        const parsed = readAddress(address);
        if (typeof parsed === "string" || !isDialable(parsed)) return undefined;
        if (!mayLeadTo(parsed, info)) return undefined;
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

  #datagramsHost(seal: PacketSeal | undefined, bandwidth: Bandwidth): DatagramsHost {
    const inbox = this.#inbox;
    // A peer that has links, too, comes and goes with those.
    const linked = (nodeId: string) => (this.#manager?.get(nodeId)?.connectionCount ?? 0) > 0;
    return {
      options: this.#options,
      environment: this.#environment,
      handlers: this.#handlers,
      sha256,
      seal,
      bandwidth,
      get inboxFull() {
        return inbox.full;
      },
      transport: (address) => this.#transport(address),
      deliver: (from, payload, lane, topic) => inbox.push({ from, payload, topic, lane }),
      onPeerUp: (nodeId) => {
        if (!linked(nodeId)) this.emit("peerup", { nodeId, identity: undefined });
      },
      onPeerDown: (nodeId, error) => {
        if (!linked(nodeId)) this.emit("peerdown", { nodeId, error });
      },
      onHealth: (nodeId, health, previous) => {
        if (!linked(nodeId)) this.emit("healthchange", { nodeId, health, previous });
      },
      onFailure: (error, nodeId, address) => this.#failures.add(error, nodeId, address),
      onHandlerError: (nodeId, error, what) => this.#failures.addHandlerError(nodeId, error, what),
      onRefused: () => this.#listeners.limits.refused.requestsAndStreams++,
      warn: (nodeId, message) => this.#failures.warn(message, { nodeId }),
    };
  }

  async #openLink(address: string, options: DialOptions): Promise<Link> {
    const transport = this.#transport(address);
    this.#checkTransport(transport, address);
    return await transport.dial(address, options);
  }

  #checkTransport(transport: Transport, address: string): void {
    const { security, identity, tls } = this.#options;
    checkTransport(transport, security, address, identity !== undefined, tls !== undefined);
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
        this.#datagrams?.get(from)?.holdFor(settled);
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

  // --- datagrams ---

  /** Whether an address is reached by datagrams. */
  #isDatagram(address: string): boolean {
    return this.#transport(address).bind !== undefined;
  }

  /** The addresses for links, and the first one for datagrams. */
  #splitAddresses(
    addresses: readonly string[],
  ): [links: readonly string[], datagram: string | undefined] {
    const schemes = new Set<string>();
    for (const { scheme, bind } of this.#registry.list()) {
      if (bind !== undefined) schemes.add(scheme);
    }
    const isDatagram = (address: string) => schemes.has(parseAddress(address).scheme);
    return [addresses.filter((one) => !isDatagram(one)), addresses.find(isDatagram)];
  }

  /** Where there are links, too, an address that the security mode rules out is left out. */
  #allowsDatagrams(address: string): boolean {
    try {
      checkDatagrams(this.#options, address);
      return true;
    } catch {
      return false;
    }
  }

  /** Peers that have datagrams and no links. */
  #onlyDatagrams(): DatagramPeer[] {
    const peers = [...this.#datagrams?.peers ?? []];
    return peers.filter(({ nodeId }) => this.#manager?.get(nodeId) === undefined);
  }

  /** A peer that has links, where no peer has datagrams: the usual case, found with one look. */
  #onlyLinked(nodeId: string, action: string): Peer | undefined {
    const manager = this.#running(action);
    return this.#datagrams!.size === 0 ? manager.get(nodeId) : undefined;
  }

  /** A peer that datagrams may be sent to; one that is only routed is dialed. */
  #reachByDatagram(nodeId: string, action: string): DatagramPeer | undefined {
    const manager = this.#running(action);
    const datagrams = this.#datagrams!;
    const known = datagrams.get(nodeId);
    if (known !== undefined || manager.get(nodeId) !== undefined) return known;
    const route = this.routes.resolve(nodeId);
    if (route === undefined || route.nodeId === this.nodeId) return undefined;
    const [links, datagram] = this.#splitAddresses(addressesOf(route));
    if (links.length > 0 || datagram === undefined) return undefined;
    checkDatagrams(this.#options, datagram);
    return datagrams.keepConnected(route.nodeId, datagram);
  }

  #sendDatagram(
    peer: DatagramPeer,
    nodeId: string,
    payload: T,
    options: SendOptions | undefined,
  ): Promise<void> {
    const bytes = this.#encode(payload, nodeId);
    const reliable = this.#manager!.get(nodeId);
    if (reliable === undefined) return this.#sendPacket(peer, bytes, options);
    const plan = options === undefined ? this.#plain : sendPlan(options, this.#options.delivery);
    if (options?.acknowledged !== true && goesByDatagram(peer, bytes, plan)) {
      return this.#sendPacket(peer, bytes, options);
    }
    return this.#send(reliable, bytes, options);
  }

  async #sendPacket(
    peer: DatagramPeer,
    bytes: Uint8Array,
    options: SendOptions = {},
  ): Promise<void> {
    const { signal } = options;
    signal?.throwIfAborted();
    checkKeys("send", options);
    const whenFull = checkedWhenFull(options.whenFull);
    const plan = sendPlan(options, this.#options.delivery);
    if (options.acknowledged === true) throw noDatagramFor("have acknowledged", peer.nodeId);
    if (peer.failure !== undefined) throw peer.failure;
    if (whenFull === "wait") return await peer.send(bytes, plan, signal);
    if (peer.offer(bytes, plan) !== "full") return;
    if (whenFull === "reject") {
      const text = `Cannot send to ${peer.nodeId}: too many packets wait`;
      throw new BackpressureError(text, this.#options.maxPendingMessages, { peer: peer.nodeId });
    }
    peer.countDropped();
  }

  #tryDatagram(peer: DatagramPeer, bytes: Uint8Array, plan: SendPlan): boolean {
    if (peer.failure !== undefined) return false;
    try {
      return peer.offer(bytes, plan) === "sent";
    } catch (error) {
      if (error instanceof TransportError && error.code === "RateLimited") return false;
      throw error;
    }
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
    const [links] = this.#splitAddresses(addressesOf(route));
    if (links.length === 0) throw noDatagramFor(action, nodeId);
    this.#checkUsable(links);
    return manager.reach(route.nodeId, links);
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

/** The connections of links and those of datagrams, which have no protocol in common. */
function joinMetrics(links: ConnectionMetrics, datagrams?: ConnectionMetrics): ConnectionMetrics {
  if (datagrams === undefined) return links;
  return {
    established: links.established + datagrams.established,
    failed: links.failed + datagrams.failed,
    bytesSent: links.bytesSent + datagrams.bytesSent,
    bytesReceived: links.bytesReceived + datagrams.bytesReceived,
    roundTrip: links.roundTrip ?? datagrams.roundTrip,
    byProtocol: Object.assign(links.byProtocol, datagrams.byProtocol),
  };
}

/** Whether a message to a peer that has links, too, is sent as a packet. */
function goesByDatagram(peer: DatagramPeer, bytes: Uint8Array, plan: SendPlan): boolean {
  return plan.atMostOnce && peer.link !== undefined && peer.fits(bytes.length, plan.topic);
}

function noDatagramFor(action: string, nodeId: string): TransportError {
  const text = `Cannot ${action} ${nodeId}: it is reached by datagrams only`;
  return new TransportError("UnsupportedProtocol", text, {
    peer: nodeId,
    recovery: "connect to it by another transport, too",
  });
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
