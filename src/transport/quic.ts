/**
 * QUIC: the transport of `quic://` addresses. A link is one bidirectional stream; links to one
 * address share a connection, and none of them waits for a packet that another one has lost.
 *
 * @module
 */

import { TransportError } from "../errors.ts";
import {
  abortable,
  type QuicConnection,
  type QuicServer,
  type QuicServerEvents,
  type QuicSockets,
  type QuicStream,
  quicTimes,
  resolveHost,
} from "../runtime/quic.ts";
import { quicFailed } from "../runtime/quic_errors.ts";
import { quicOf } from "../runtime/quic_sockets.ts";
import type { Runtime } from "../runtime/runtime.ts";
import { unusableTls } from "../runtime/socket_errors.ts";
import { checkTls } from "../runtime/tls_check.ts";
import {
  type Address,
  canonicalAddress,
  formatAddress,
  parseAddress,
  parseDialAddress,
} from "./address.ts";
import { Carrier, type CarrierHost, QUIC_SCHEME } from "./quic_carrier.ts";
import type {
  DialOptions,
  Link,
  LinkTls,
  Listener,
  ListenOptions,
  Transport,
} from "./transport.ts";

/** How long a dialed connection stays without a link, for what is on its way and for the next one. */
const DIALER_LINGER_MS = 1_000;
/** The dialer closes first, as a rule. */
const LISTENER_LINGER_MS = 5_000;
/** How long a connection may take that is dialed since another one has fallen silent. */
const REPLACE_MS = 10_000;
/** How long the silent one may still be heard once the new one stands. */
const GRACE_MS = 200;
/** Sub-streams of ours in one connection, well below what the other side takes (`MAX_STREAMS`). */
const DIALER_SUBSTREAMS = 128;
/** A dialer on Bun takes 100, and hears late of those that have ended. */
const LISTENER_SUBSTREAMS = 64;
/** Accepted connections that have no link, handshakes included. */
const MAX_BARE_CONNECTIONS = 256;

/** What the connections of a transport carry: links as they are, or within something else. */
export interface OverQuic {
  /** The scheme of its addresses. */
  readonly scheme: string;
  /** Its name in errors. */
  readonly name: string;
  /** That of the transport. */
  readonly priority: number;
  /** Why it can't be used; undefined where it can. */
  readonly unavailable: string | undefined;
  /** Whether each side can see a verified certificate of the other. */
  readonly peerAuthenticated: boolean;
  /** What dials and accepts for an address. */
  sockets(address: Address): QuicSockets;
}

/** Makes the QUIC transport of a runtime. Its methods also throw `ConfigError` for an address that is none. */
export function quicTransport(
  runtime: Pick<Runtime, "name">,
  sockets: QuicSockets = quicOf(runtime).sockets,
): Transport {
  const { unavailable, peerAuthenticated } = quicOf(runtime);
  return overQuic({
    scheme: QUIC_SCHEME,
    name: "QUIC",
    priority: 70,
    unavailable,
    peerAuthenticated,
    sockets: () => sockets,
  });
}

/** Makes a transport over connections of QUIC. */
export function overQuic(
  { scheme, name, priority, unavailable, peerAuthenticated, sockets }: OverQuic,
): Transport {
  const dialed = new DialedConnections(sockets);
  const bound = new Map<string, BoundAddress>();
  return {
    scheme,
    priority,
    unavailable,
    capabilities: {
      reliable: true,
      ordered: true,
      multiplexed: true,
      encrypted: true,
      peerAuthenticated,
      maxMessageSize: undefined,
    },
    dial: async (address, options) => {
      const parsed = parseDialAddress(address);
      const action = `connect to ${canonicalAddress(parsed)}`;
      checkAvailable(action, unavailable);
      options.signal.throwIfAborted();
      return await dialed.dial(parsed, checkedTls(action, name, options.tls), options);
    },
    listen: async (address, options) => {
      const parsed = parseAddress(address);
      const action = `listen on ${canonicalAddress(parsed)}`;
      checkAvailable(action, unavailable);
      const tls = checkedTls(action, name, options.tls);
      if (tls.cert === undefined) {
        throw unusableTls(action, new Error("a listener needs a certificate"));
      }
      return await listen(sockets(parsed), bound, parsed, tls, options);
    },
  };
}

function checkAvailable(action: string, unavailable: string | undefined): void {
  if (unavailable === undefined) return;
  throw new TransportError("UnsupportedProtocol", `Cannot ${action}: ${unavailable}`);
}

/** QUIC has no plain text. A certificate made up on the way would only look like security. */
function checkedTls(action: string, name: string, tls: LinkTls | undefined): LinkTls {
  if (tls === undefined) {
    throw new TransportError("TlsRequired", `Cannot ${action}: ${name} needs certificates`, {
      recovery: "give tls.cert, tls.key and tls.ca, or use another transport",
    });
  }
  try {
    checkTls(tls);
  } catch (cause) {
    throw unusableTls(action, cause);
  }
  return tls;
}

/** A connection that is being dialed, for everyone who needs it. */
interface Attempt {
  readonly carrier: Promise<Carrier>;
  readonly abort: AbortController;
  users: number;
}

/** Connections that we dialed, by address and TLS settings. */
class DialedConnections {
  readonly #sockets: OverQuic["sockets"];
  readonly #carriers = new Map<string, Set<Carrier>>();
  readonly #attempts = new Map<string, Attempt>();
  /** Settings are told apart as objects: an endpoint dials with the same ones again. */
  readonly #tlsIds = new WeakMap<LinkTls, number>();
  #lastTlsId = 0;

  constructor(sockets: OverQuic["sockets"]) {
    this.#sockets = sockets;
  }

  async dial(address: Address, tls: LinkTls, options: DialOptions): Promise<Link> {
    const key = `${this.#tlsId(tls)} ${options.keepaliveSecs ?? "-"} ${canonicalAddress(address)}`;
    const { signal } = options;
    for (const carrier of this.#carriers.get(key) ?? []) {
      if (!carrier.usable) continue;
      try {
        return await abortable(carrier.openLink(), signal, discardLate);
      } catch {
        signal.throwIfAborted();
        // It was lost just now, or the other side takes no further stream: a new one, then.
      }
    }
    try {
      const carrier = await this.#share(key, address, tls, options);
      return await abortable(carrier.openLink(), signal, discardLate);
    } catch (cause) {
      signal.throwIfAborted();
      throw quicFailed(`connect to ${canonicalAddress(address)}`, cause);
    }
  }

  /** Dials, or waits for who dials already; the attempt ends when nobody waits any more. */
  async #share(
    key: string,
    address: Address,
    tls: LinkTls,
    options: Pick<DialOptions, "keepaliveSecs" | "signal">,
  ): Promise<Carrier> {
    let attempt = this.#attempts.get(key);
    if (attempt === undefined) {
      const abort = new AbortController();
      const carrier = this.#connect(key, address, tls, options.keepaliveSecs, abort.signal);
      const started: Attempt = attempt = { carrier, abort, users: 0 };
      this.#attempts.set(key, started);
      const forget = () => {
        if (this.#attempts.get(key) === started) this.#attempts.delete(key);
      };
      carrier.then(forget, forget);
    }
    attempt.users++;
    try {
      return await abortable(attempt.carrier, options.signal, () => {});
    } finally {
      if (--attempt.users === 0) {
        if (this.#attempts.get(key) === attempt) this.#attempts.delete(key);
        attempt.abort.abort(new Error("given up"));
      }
    }
  }

  async #connect(
    key: string,
    address: Address,
    tls: LinkTls,
    keepaliveSecs: number | undefined,
    signal: AbortSignal,
  ): Promise<Carrier> {
    const times = quicTimes(keepaliveSecs);
    const { host, port } = address;
    const sockets = this.#sockets(address);
    const hosts = await resolveHost(host);
    const again: Redial = (abort) =>
      this.#share(key, address, tls, { keepaliveSecs, signal: abort });
    const connection = await first(
      hosts.map((ip) => (signal: AbortSignal) =>
        sockets.connect({ host: ip, port }, host, tls, times, signal)
      ),
      signal,
    );
    const carriers = this.#carriers.get(key) ?? new Set<Carrier>();
    this.#carriers.set(key, carriers);
    const carrier = new Carrier(connection, {
      lingerMs: DIALER_LINGER_MS,
      maxSubstreams: DIALER_SUBSTREAMS,
      served: address,
      showCertificate: tls.needPeerCertificate,
      // A listener has no reason to open one.
      onStream: (_, stream) => stream.reset(),
      onSilent: (silent) => replace(silent, again),
      onGone: (gone) => {
        carriers.delete(gone);
        if (carriers.size === 0 && this.#carriers.get(key) === carriers) this.#carriers.delete(key);
      },
    });
    carriers.add(carrier);
    return carrier;
  }

  #tlsId(tls: LinkTls): number {
    let id = this.#tlsIds.get(tls);
    if (id === undefined) this.#tlsIds.set(tls, id = ++this.#lastTlsId);
    return id;
  }
}

/** Dials the address of a connection again. */
type Redial = (signal: AbortSignal) => Promise<Carrier>;

/**
 * A connection has fallen silent. Where a new one can be made, it is the path of the old one that is
 * broken, and not that the other side is busy or gone: then its links are lost, and what they carried
 * goes on over the new one. What is returned stops that.
 */
function replace(silent: Carrier, redial: Redial): () => void {
  const abort = new AbortController();
  const late = setTimeout(() => abort.abort(new Error("not reached")), REPLACE_MS);
  redial(abort.signal).then(async (carrier) => {
    await pause(GRACE_MS, abort.signal);
    if (!abort.signal.aborted && silent.silent) silent.abandon(carrier);
  }).catch(() => {
    // It can't be reached at all: keepalive decides.
  }).finally(() => clearTimeout(late));
  return () => abort.abort(new Error("no longer needed"));
}

/** Waits so long, or until the signal is aborted. */
function pause(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const timer = setTimeout(done, ms);
    function done(): void {
      clearTimeout(timer);
      signal.removeEventListener("abort", done);
      resolve();
    }
    signal.addEventListener("abort", done);
    if (signal.aborted) done();
  });
}

/** A name may have an IPv6 and an IPv4 address, and only one of them be served: whichever answers first. */
async function first(
  attempts: readonly ((signal: AbortSignal) => Promise<QuicConnection>)[],
  signal: AbortSignal,
): Promise<QuicConnection> {
  const abort = new AbortController();
  const stop = () => abort.abort(signal.reason);
  if (signal.aborted) stop();
  else signal.addEventListener("abort", stop, { once: true });
  let won: QuicConnection | undefined;
  try {
    return await Promise.any(attempts.map(async (attempt) => {
      const connection = await attempt(abort.signal);
      if (won === undefined) won = connection;
      else connection.close();
      return connection;
    }));
  } catch (error) {
    throw error instanceof AggregateError ? error.errors[0] : error;
  } finally {
    signal.removeEventListener("abort", stop);
    abort.abort(new Error("another address answered first"));
  }
}

function discardLate(link: Link): void {
  link.open({ onData() {}, onDrain() {}, onEnd() {}, onClose() {} });
  link.close();
}

/** One UDP socket that accepts, or did: its connections need it for as long as they live. */
interface BoundAddress {
  readonly server: QuicServer;
  readonly key: string;
  readonly carriers: Set<Carrier>;
  acceptor: QuicAcceptor | undefined;
}

async function listen(
  sockets: QuicSockets,
  bound: Map<string, BoundAddress>,
  address: Address,
  tls: LinkTls,
  options: ListenOptions,
): Promise<Listener> {
  const action = `listen on ${canonicalAddress(address)}`;
  const acceptor = new QuicAcceptor(address, tls, options);
  try {
    const local = { host: (await resolveHost(address.host))[0]!, port: address.port };
    const before = local.port === 0 ? undefined : bound.get(keyOf(local, address));
    let here: BoundAddress;
    if (before !== undefined && before.acceptor === undefined) {
      // Links of a listener that was closed are still alive on this socket.
      if (!before.server.restart(tls, acceptor)) {
        throw new Error("the address is in use by links that were accepted with other settings");
      }
      here = before;
    } else {
      const times = quicTimes(options.keepaliveSecs);
      const { handshakeTimeoutMs } = options;
      const server = await sockets.listen(local, tls, times, handshakeTimeoutMs, acceptor);
      here = {
        server,
        key: keyOf(server.bound, address),
        carriers: new Set(),
        acceptor: undefined,
      };
      bound.set(here.key, here);
    }
    acceptor.start(here, () => release(bound, here));
    return listenerOf(bound, here, acceptor, address);
  } catch (cause) {
    throw quicFailed(action, cause);
  }
}

/** Where one listener at a time may be. */
function keyOf({ host, port }: QuicServer["bound"], { path }: Address): string {
  return `${host}:${port}${path}`;
}

function listenerOf(
  bound: Map<string, BoundAddress>,
  here: BoundAddress,
  acceptor: QuicAcceptor,
  { scheme, path }: Address,
): Listener {
  const { host, port } = here.server.bound;
  let closed: Promise<void> | undefined;
  return {
    address: formatAddress(scheme, host, port, path),
    close: () => {
      return closed ??= (() => {
        here.acceptor = undefined;
        here.server.stop();
        acceptor.stop();
        return release(bound, here);
      })();
    },
  };
}

/** The socket goes when nobody listens and no link needs it. */
async function release(bound: Map<string, BoundAddress>, here: BoundAddress): Promise<void> {
  if (here.acceptor !== undefined || here.carriers.size > 0) return;
  if (bound.get(here.key) === here) bound.delete(here.key);
  await here.server.free();
}

/** Accepts connections and their streams for one listener. */
class QuicAcceptor implements QuicServerEvents, CarrierHost {
  readonly showCertificate: boolean;
  readonly served: Address;
  readonly maxSubstreams: number = LISTENER_SUBSTREAMS;
  readonly #options: ListenOptions;
  #here: BoundAddress | undefined;
  #onFree: () => Promise<void> = () => Promise.resolve();
  #handshakes = 0;
  #stopped = false;

  constructor(served: Address, tls: LinkTls, options: ListenOptions) {
    this.served = served;
    this.#options = options;
    this.showCertificate = tls.requireClientAuth;
  }

  /** A connection has as long as a handshake for its first stream; later the dialer closes first. */
  get lingerMs(): number {
    if (this.#stopped) return DIALER_LINGER_MS;
    return Math.max(LISTENER_LINGER_MS, this.#options.handshakeTimeoutMs);
  }

  start(here: BoundAddress, onFree: () => Promise<void>): void {
    this.#here = here;
    this.#onFree = onFree;
    here.acceptor = this;
  }

  /** Connections without a link are of no use any more. */
  stop(): void {
    this.#stopped = true;
    for (const carrier of this.#here?.carriers ?? []) {
      carrier.shorten();
    }
  }

  mayBegin(): boolean {
    let bare = this.#handshakes;
    for (const carrier of this.#here?.carriers ?? []) if (carrier.linkCount === 0) bare++;
    if (bare >= MAX_BARE_CONNECTIONS) return false;
    this.#handshakes++;
    return true;
  }

  onConnection(connection: QuicConnection): void {
    this.#handshakes--;
    const here = this.#here;
    if (this.#stopped || here === undefined) return connection.close();
    here.carriers.add(new Carrier(connection, this));
  }

  onError(cause: unknown, remoteHost: string): void {
    this.#handshakes--;
    if (this.#stopped) return;
    const from = remoteHost === "" ? "" : ` from ${remoteHost}`;
    this.#options.onError(quicFailed(`accept a connection${from}`, cause), remoteHost);
  }

  onStream(carrier: Carrier, stream: QuicStream): void {
    const release = this.#stopped ? undefined : this.#options.admit(carrier.remoteHost);
    if (release === undefined) return stream.reset();
    this.#options.onLink(carrier.addLink(stream, release));
  }

  onAbandoned(token: Uint8Array): void {
    for (const carrier of this.#here?.carriers ?? []) if (carrier.isNamed(token)) carrier.close();
  }

  onGone(carrier: Carrier): void {
    this.#here?.carriers.delete(carrier);
    if (this.#stopped) this.#onFree().catch(() => {});
  }
}
