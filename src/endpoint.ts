/**
 * What an application holds. Joins the rooms of the library and keeps little itself.
 *
 * @module
 */

import { AddressRules } from "./address_rules.ts";
import { bytesCodec, type PayloadCodec } from "./codec.ts";
import { MessageTooLargeError, TransportError } from "./errors.ts";
import { type EndpointEventMap, TypedEventTarget } from "./events.ts";
import { Failures } from "./failures.ts";
import { checkOwnName, linkTls, readTls } from "./link_tls.ts";
import { Listeners } from "./listeners.ts";
import { iterateMessages } from "./message_iterator.ts";
import type { EndpointOptions, PeerAddress, ResolvedOptions } from "./options.ts";
import { readOwnKeys } from "./own_keys.ts";
import type { Bandwidth } from "./peer/bandwidth.ts";
import type { DatagramPeer } from "./peer/datagram_peer.ts";
import { Datagrams, type DatagramsHost } from "./peer/datagrams.ts";
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
import type { SendPlan } from "./peer/send_queue.ts";
import { type StreamHandler, StreamHandlers } from "./peer/stream_handlers.ts";
import { DONE } from "./peer/waiters.ts";
import type { TransportStream } from "./peer/web_stream.ts";
import type { PeerInfo } from "./peer_info.ts";
import type { PacketSeal } from "./protocol/datagram/seal.ts";
import { recipientInfo, recipientStats } from "./recipient_info.ts";
import { noDatagramFor, noSuchPeer, Recipients } from "./recipients.ts";
import { addressesOf } from "./resolve_addresses.ts";
import { resolveOptions } from "./resolve_options.ts";
import { RoutingTable } from "./routing.ts";
import { crc32 } from "./runtime/crc32.ts";
import { sha256 } from "./runtime/ed25519.ts";
import { type Environment, systemEnvironment } from "./runtime/environment.ts";
import { loadLz4 } from "./runtime/lz4.ts";
import { detectRuntime } from "./runtime/runtime.ts";
import { loadZstd } from "./runtime/zstd.ts";
import { checkSecurity } from "./security.ts";
import { goesByDatagram, sendPacket, trySendPacket } from "./send_packet.ts";
import {
  checkKeys,
  checkLane,
  checkWhenFull,
  PLAIN,
  sendAcknowledged,
  type SendOptions,
  sendPlan,
  type StreamOptions,
  type TrySendOptions,
} from "./send_plan.ts";
import type { PoolStats, TransportStats } from "./stats.ts";
import { advertisedAddresses } from "./transport/advertise.ts";
import { builtinTransports } from "./transport/builtin.ts";
import { TransportRegistry } from "./transport/registry.ts";
import type { Transport } from "./transport/transport.ts";

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
  readonly #rules: AddressRules;
  /** Whom something may be sent to, from the start on. */
  #recipients: Recipients | undefined;
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
    this.#rules = new AddressRules(this.#options, this.#registry);
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
    return [...this.#listeners.addresses, ...this.#recipients?.datagrams.addresses ?? []];
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
    const recipients = this.#running("connect");
    await recipients.connect(this.#rules.checkedPeer(peer), options.signal);
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
      const recipients = this.#running("send");
      let peer = recipients.onlyLinked(nodeId);
      if (peer === undefined) {
        const datagram = recipients.reachByDatagram(nodeId);
        if (datagram !== undefined) return this.#sendDatagram(datagram, nodeId, payload, options);
        peer = recipients.reach(nodeId, "send");
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
    const recipients = this.#running("send");
    const linked = recipients.onlyLinked(nodeId);
    const datagram = linked === undefined ? recipients.reachByDatagram(nodeId) : undefined;
    if (options !== undefined) checkKeys("trySend", options);
    const plan = options === undefined ? this.#plain : sendPlan(options, this.#options.delivery);
    if (datagram !== undefined) {
      const bytes = this.#encode(payload, nodeId);
      const reliable = recipients.manager.get(nodeId);
      if (reliable === undefined || goesByDatagram(datagram, bytes, plan)) {
        return trySendPacket(datagram, bytes, plan);
      }
    }
    const peer = linked ?? recipients.reach(nodeId, "send");
    return peer.state !== "failed" && peer.offer(this.#encode(payload, nodeId), plan) === "taken";
  }

  /**
   * Resolves when all that was accepted for the peer so far is acknowledged; before version 3, when
   * it is written to the network and nothing waits.
   */
  async flush(nodeId: string, options: { signal?: AbortSignal } = {}): Promise<void> {
    options.signal?.throwIfAborted();
    const recipients = this.#running("flush");
    const peer = recipients.find(nodeId);
    // What has been sent as a packet has left.
    if (peer === undefined && recipients.datagrams.get(nodeId) !== undefined) return;
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
    const recipients = this.#running("broadcast");
    options.signal?.throwIfAborted();
    checkKeys("send", options);
    sendPlan(options, this.#options.delivery);
    checkWhenFull(options.whenFull);
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
    for (const peer of [...recipients.manager.peers]) {
      note(peer.nodeId, () => this.#send(peer, bytes, options));
    }
    for (const peer of recipients.onlyDatagrams()) {
      note(peer.nodeId, () => sendPacket(peer, bytes, options, this.#options));
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
    const recipients = this.#running("ask");
    const datagram = recipients.reachByDatagram(nodeId);
    if (datagram !== undefined && recipients.manager.get(nodeId) === undefined) {
      if (datagram.failure !== undefined) throw datagram.failure;
      return datagram.request(this.#encode(payload, nodeId), options);
    }
    const peer = recipients.reach(nodeId, "ask");
    if (peer.failure !== undefined) throw peer.failure;
    checkVersion3(peer, "ask");
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
    const recipients = this.#running("open a stream to");
    const datagram = recipients.reachByDatagram(nodeId);
    if (datagram !== undefined && recipients.manager.get(nodeId) === undefined) {
      throw noDatagramFor(nodeId, "open a stream to");
    }
    const peer = recipients.reach(nodeId, "open a stream to");
    if (peer.failure !== undefined) throw peer.failure;
    checkVersion3(peer, "open a stream to");
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
    return iterateMessages(this);
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
    await this.#running("disconnect").leave(nodeId);
  }

  /** What is known of every peer. */
  peers(): PeerInfo[] {
    const recipients = this.#recipients;
    if (recipients === undefined) return [];
    const all = [...recipients.manager.peers, ...recipients.onlyDatagrams()];
    return all.flatMap(({ nodeId }) => this.peer(nodeId) ?? []);
  }

  /** What is known of one peer; undefined where there is none of that name. */
  peer(nodeId: string): PeerInfo | undefined {
    if (this.#recipients === undefined) return undefined;
    const [now, wallClock] = [this.#environment.now(), this.#environment.wallClock()];
    return recipientInfo(this.#recipients, nodeId, now, wallClock);
  }

  /** Counters and gauges of the endpoint. */
  stats(): TransportStats {
    return {
      ...recipientStats(this.#recipients),
      receiveQueueLength: this.#inbox.length,
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
    const action = "look at the pool of";
    return this.#running(action).linked(nodeId, action).poolStats();
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
      if (this.#rules.isDatagram(address)) this.#rules.checkDatagrams(address);
      else this.#rules.checkLinks(address);
    }
    for (const peer of peers) {
      const { links, datagram } = this.#rules.split(addressesOf(peer));
      if (links.length === 0 && datagram !== undefined) this.#rules.checkDatagrams(datagram);
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
    const { nodeId, routes } = this;
    const recipients = new Recipients(manager, datagrams, nodeId, this.#rules, routes);
    try {
      for (const address of listen) {
        if (this.#rules.isDatagram(address)) await datagrams.listen(address);
      }
      await listeners.open(tls && linkTls(tls, "listener"), {
        transport: (address) => this.#rules.transport(address),
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
    this.#recipients = recipients;
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
      if (peer.nodeId !== this.nodeId) recipients.keepConnected(peer);
    }
  }

  async #close(drainMs: number): Promise<void> {
    const starting = this.#starting;
    this.#phase = this.#phase === "new" ? "closed" : "closing";
    await starting?.catch(() => {});
    const recipients = this.#recipients;
    if (recipients !== undefined) {
      const { manager, datagrams } = recipients;
      this.#phase = "closing";
      manager.stop("the endpoint is closing");
      datagrams.stop();
      const closing = this.#listeners.close();
      await this.#drain(manager, drainMs);
      const error = new TransportError("Shutdown", "the endpoint is closed");
      await Promise.all([manager.end(error), datagrams.end(error)]);
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
      openLink: (address, options) => this.#rules.dial(address, options),
      priority: (address) => this.#rules.priority(address),
      advertised: (info) => this.#options.advertise ?? advertisedAddresses(this.addresses, info),
      dialable: (address, info) => this.#rules.dialable(address, info),
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
    const linked = (nodeId: string) =>
      (this.#recipients?.manager.get(nodeId)?.connectionCount ?? 0) > 0;
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
      transport: (address) => this.#rules.transport(address),
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
        this.#recipients?.manager.get(from)?.holdFor(settled);
        this.#recipients?.datagrams.get(from)?.holdFor(settled);
        settled.catch((error) => this.#failures.addHandlerError(from, error, MESSAGE_HANDLER));
      },
      onHandlerError: (from, error) => this.#failures.addHandlerError(from, error, MESSAGE_HANDLER),
    });
  }

  /** Peers that had to wait take turns at being first. */
  #releasePeers(): void {
    const peers = [...this.#recipients?.manager.peers ?? []];
    const first = peers.length === 0 ? 0 : this.#nextReleased++ % peers.length;
    for (let i = 0; i < peers.length; i++) peers[(first + i) % peers.length]!.releaseAll();
  }
  #nextReleased = 0;

  // --- helpers ---

  #send(peer: Peer, bytes: Uint8Array, options: SendOptions | undefined): Promise<void> {
    if (options === undefined) return peer.send(bytes, this.#plain, "wait", undefined);
    const { signal } = options;
    if (signal?.aborted) return Promise.reject(signal.reason);
    checkKeys("send", options);
    const whenFull = checkWhenFull(options.whenFull);
    if (options.acknowledged !== true) {
      return peer.send(bytes, sendPlan(options, this.#options.delivery), whenFull, signal);
    }
    return sendAcknowledged(peer, bytes, options, this.#options.delivery, whenFull);
  }

  #sendDatagram(
    peer: DatagramPeer,
    nodeId: string,
    payload: T,
    options: SendOptions | undefined,
  ): Promise<void> {
    const bytes = this.#encode(payload, nodeId);
    const reliable = this.#recipients!.manager.get(nodeId);
    if (reliable === undefined) return sendPacket(peer, bytes, options, this.#options);
    const plan = options === undefined ? this.#plain : sendPlan(options, this.#options.delivery);
    if (options?.acknowledged !== true && goesByDatagram(peer, bytes, plan)) {
      return sendPacket(peer, bytes, options, this.#options);
    }
    return this.#send(reliable, bytes, options);
  }

  #running(action: string): Recipients {
    if (this.#phase === "started") return this.#recipients!;
    if (this.#phase !== "new") throw this.#shutdown(action);
    throw new TransportError("Shutdown", `Cannot ${action}: the endpoint is not started`, {
      recovery: "call start() first",
    });
  }

  #shutdown(action: string): TransportError {
    return new TransportError("Shutdown", `Cannot ${action}: the endpoint is closed`);
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

/** What a connection has shown not to have is refused at once. */
function checkVersion3(peer: Peer, action: string): void {
  const version = peer.version;
  if (version === undefined || version >= 3) return;
  const { nodeId } = peer;
  const text = `Cannot ${action} ${nodeId}: it speaks version ${version} of the protocol`;
  throw new TransportError("UnsupportedProtocol", text, {
    peer: nodeId,
    recovery: "upgrade the peer to protocol version 3",
  });
}
