/**
 * QUIC of Bun: its `node:quic`.
 *
 * @module
 */

import { createPrivateKey, type KeyObject, type X509Certificate } from "node:crypto";
import { isBuiltin } from "node:module";
import { isIP } from "node:net";
import process from "node:process";
import { TransportError } from "../errors.ts";
import type { LinkTls } from "../transport/transport.ts";
import { normalizeHost, type SocketEnd } from "./link_info.ts";
import {
  abortable,
  localEnd,
  MAX_STREAMS,
  QUIC_ALPN,
  type QuicConnection,
  type QuicEvents,
  type QuicServer,
  type QuicServerEvents,
  type QuicSockets,
  type QuicStream,
  type QuicTimes,
  REASON_WAIT_MS,
  RESET_CODE,
} from "./quic.ts";
import { checkTls } from "./tls_check.ts";

/** What a stream buffers before its writer asks to wait. */
const STREAM_BUFFER_BYTES = 256 * 1024;
/** What may come for a stream that nobody reads. */
const MAX_UNREAD_BYTES = 32 * 1024 * 1024;
/** The key under which a writer has its promise to be writable again. */
const DRAINABLE = Symbol.for("Stream.drainableProtocol");
/** Connections from one host; `admit` decides about their streams. */
const MAX_CONNECTIONS_PER_HOST = 4096;
/** QUIC's flow control: what may be on its way, for each stream and for all of a connection. */
const STREAM_WINDOW_BYTES = 1024 * 1024;
const CONNECTION_WINDOW_BYTES = 8 * 1024 * 1024;
/** A dialer of Bun (1.4.5) closes a connection whose listener opens more, whatever it has allowed. */
const MAX_STREAMS_OF_LISTENER = 100;
const MAX_DATAGRAM_FRAME_BYTES = 65_535;
/** Datagrams that wait until they may leave; of more the oldest are dropped. */
const MAX_WAITING_DATAGRAMS = 1024;

// The part of the API that is used here (Node's documentation of `node:quic`, version 26).

interface Quic {
  readonly QuicEndpoint: new (
    options: { address: Address; maxConnectionsPerHost?: number },
  ) => Endpoint;
  connect(address: Address, options: object): Promise<Session>;
  listen(onSession: (session: Session) => void, options: object): Promise<Endpoint>;
}

interface Address {
  readonly address: string;
  readonly port: number;
  readonly family?: string;
}

interface Endpoint {
  readonly address: Address | undefined;
  readonly closed: Promise<void>;
  busy: boolean;
  close(): Promise<void>;
  destroy(error?: Error): Promise<void>;
  setSNIContexts(entries: object, options: { replace: boolean }): void;
}

interface Handshake {
  readonly remote: Address | undefined;
  readonly protocol: string | undefined;
  readonly validationErrorReason: string | undefined;
}

interface Session {
  readonly opened: Promise<Handshake>;
  readonly closed: Promise<void>;
  readonly destroyed: boolean;
  readonly path: { readonly local: Address; readonly remote: Address } | undefined;
  readonly peerCertificate: X509Certificate | undefined;
  readonly maxDatagramSize: number | bigint;
  maxPendingDatagrams: number;
  onstream: ((stream: Stream) => void) | undefined;
  ondatagram: ((bytes: Uint8Array) => void) | undefined;
  onerror: ((error: unknown) => void) | undefined;
  createBidirectionalStream(options?: { highWaterMark: number }): Promise<Stream>;
  sendDatagram(bytes: Uint8Array): Promise<bigint>;
  destroy(error?: Error, options?: { code: bigint; type: string }): void;
}

interface Stream extends AsyncIterable<Uint8Array[]> {
  readonly id: bigint | null;
  readonly destroyed: boolean;
  readonly closed: Promise<void>;
  readonly writer: Writer;
  highWaterMark: number;
  onerror: ((error: unknown) => void) | undefined;
  resetStream(code: bigint): void;
  stopSending(code: bigint): void;
  destroy(error?: unknown, options?: { code: bigint }): void;
}

interface Writer {
  readonly desiredSize: number | null;
  writeSync(chunk: Uint8Array): boolean;
  endSync(): number;
  end(): Promise<number>;
  [DRAINABLE](): Promise<unknown> | null;
}

/** Why QUIC can't be used; undefined where it can. */
export function bunQuicUnavailable(): string | undefined {
  return isBuiltin("node:quic") ? undefined : "this version of Bun has no node:quic";
}

/** QUIC of this process. */
export const bunQuic: QuicSockets = {
  connect: connectBun,
  listen: listenBun,
};

/** Loaded when it is first used: it warns that it is experimental. */
function quic(): Quic {
  return process.getBuiltinModule("node:quic") as unknown as Quic;
}

async function connectBun(
  remote: SocketEnd,
  name: string,
  tls: LinkTls,
  times: QuicTimes,
  signal: AbortSignal,
): Promise<QuicConnection> {
  checkTls(tls);
  const unbound = remote.host.includes(":") ? "::" : "0.0.0.0";
  const { QuicEndpoint, connect } = quic();
  // A socket of its own for each connection: an attempt ends with it.
  const endpoint = new QuicEndpoint({ address: addressOf({ host: unbound, port: 0 }) });
  endpoint.closed.catch(() => {});
  try {
    const session = await connect(addressOf(remote), {
      endpoint,
      alpn: QUIC_ALPN,
      ...(isIP(name) === 0 ? { servername: name.replace(/\.$/, "") } : {}),
      ...(tls.cert === undefined || tls.key === undefined ? {} : {
        keys: [createPrivateKey(tls.key)],
        certs: [encode(tls.cert)],
      }),
      ...commonOptions(tls, times, MAX_STREAMS_OF_LISTENER),
    });
    const connection = new BunConnection(session, endpoint);
    const handshake = await abortable(session.opened, signal, () => {});
    connection.established(handshake, remote, undefined);
    verifyServer(session, handshake, tls, name);
    return connection;
  } catch (error) {
    endpoint.destroy().catch(() => {});
    throw error;
  }
}

/** The runtime's own check of the host name takes no IP address: so the chain is its matter alone. */
function verifyServer(
  { peerCertificate }: Session,
  { validationErrorReason }: Handshake,
  tls: LinkTls,
  name: string,
): void {
  if (validationErrorReason !== undefined) {
    throw new BunTlsError(`the certificate is not verified: ${validationErrorReason}`);
  }
  if (peerCertificate === undefined) throw new BunTlsError("the listener showed no certificate");
  if (!tls.verifyHostName) return;
  const fits = isIP(name) === 0
    ? peerCertificate.checkHost(name.replace(/\.$/, ""), { subject: "never" })
    : peerCertificate.checkIP(name);
  if (fits === undefined) throw new BunTlsError(`the certificate is not for ${name}`);
}

/** TLS came about, but not so that it may be used. */
class BunTlsError extends Error {
  override readonly name: string = "TlsError";
}

function commonOptions(
  tls: LinkTls,
  { keepAliveMs, idleMs }: QuicTimes,
  maxStreams: number = MAX_STREAMS,
): object {
  return {
    ...(tls.ca === undefined ? {} : { ca: [encode(tls.ca)] }),
    // Nothing is taken for true before the handshake is complete.
    enableEarlyData: false,
    verifyPeer: "manual",
    keepAlive: keepAliveMs,
    // Windows never grow by themselves.
    maxStreamWindow: STREAM_WINDOW_BYTES,
    maxWindow: CONNECTION_WINDOW_BYTES,
    transportParams: {
      // Seconds, as the only one.
      maxIdleTimeout: Math.ceil(idleMs / 1000),
      initialMaxStreamsBidi: maxStreams,
      initialMaxStreamsUni: 0,
      initialMaxStreamDataBidiLocal: STREAM_WINDOW_BYTES,
      initialMaxStreamDataBidiRemote: STREAM_WINDOW_BYTES,
      initialMaxData: CONNECTION_WINDOW_BYTES,
      maxDatagramFrameSize: MAX_DATAGRAM_FRAME_BYTES,
    },
  };
}

class BunConnection implements QuicConnection {
  local: SocketEnd = { host: "0.0.0.0", port: 0 };
  remote: SocketEnd = { host: "0.0.0.0", port: 0 };
  peerCertificate: Uint8Array | undefined;
  readonly #session: Session;
  /** We dialed: the socket is ours alone. */
  readonly #endpoint: Endpoint | undefined;
  readonly #gone: Promise<unknown>;
  #early: Stream[] = [];
  #events: QuicEvents | undefined;
  #closing = false;

  constructor(session: Session, endpoint: Endpoint | undefined) {
    this.#session = session;
    this.#endpoint = endpoint;
    // Both are promises of the runtime that reject with nobody there.
    session.onerror = () => {};
    session.maxPendingDatagrams = MAX_WAITING_DATAGRAMS;
    session.opened.catch(() => {});
    session.onstream = (stream) => {
      quiet(stream);
      if (this.#events === undefined) this.#early.push(stream);
      else this.#events.onStream(this.#wrap(stream));
    };
    // A Buffer, whose `slice` does not copy, would surprise whoever gets it.
    session.ondatagram = ({ buffer, byteOffset, byteLength }) =>
      this.#events?.onDatagram(new Uint8Array(buffer, byteOffset, byteLength));
    this.#gone = session.closed.then(() => undefined, (error) => error);
  }

  established({ remote }: Handshake, dialed: SocketEnd | undefined, bound?: SocketEnd): void {
    const { path, peerCertificate } = this.#session;
    const seen = remote ?? path?.remote;
    this.remote = seen === undefined ? dialed ?? this.remote : endOf(seen);
    if (bound !== undefined) this.local = bound;
    else if (path !== undefined) this.local = localEnd(endOf(path.local), this.remote);
    if (peerCertificate !== undefined) {
      this.peerCertificate = new Uint8Array(peerCertificate.raw);
    }
  }

  open(events: QuicEvents): void {
    this.#events = events;
    const early = this.#early;
    this.#early = [];
    for (const stream of early) events.onStream(this.#wrap(stream));
    this.#gone.then((reason) => {
      this.#endpoint?.destroy().catch(() => {});
      events.onClose(this.#closing ? undefined : reason ?? new Error("the connection was closed"));
    });
  }

  async openStream(): Promise<QuicStream> {
    const options = { highWaterMark: STREAM_BUFFER_BYTES };
    const stream = await this.#session.createBidirectionalStream(options);
    quiet(stream);
    return this.#wrap(stream);
  }

  get maxDatagramBytes(): number {
    return this.#session.destroyed ? 0 : Number(this.#session.maxDatagramSize);
  }

  sendDatagram(bytes: Uint8Array): boolean {
    if (this.#session.destroyed) return false;
    this.#session.sendDatagram(bytes).catch(() => {});
    return true;
  }

  close(): void {
    this.#closing = true;
    this.#session.destroy(undefined, { code: 0n, type: "application" });
  }

  #wrap(stream: Stream): QuicStream {
    stream.highWaterMark = STREAM_BUFFER_BYTES;
    return new BunStream(stream, () => this.#lost());
  }

  /** Why the connection is gone, where it is. Its streams go first: it takes a moment to be sure. */
  #lost(): Promise<unknown> {
    const gone = this.#gone.then((reason) => reason ?? new Error("the connection was closed"));
    if (this.#session.destroyed) return gone;
    return new Promise((resolve) => {
      const timer = setTimeout(() => resolve(undefined), REASON_WAIT_MS);
      gone.then((reason) => {
        clearTimeout(timer);
        resolve(reason);
      });
    });
  }
}

/** A stream has promises that reject with nobody there. */
function quiet(stream: Stream): void {
  stream.closed.catch(() => {});
  stream.onerror = () => {};
}

class BunStream implements QuicStream {
  onBroken: ((cause: unknown) => void) | undefined;
  maxUnreadBytes = MAX_UNREAD_BYTES;
  readonly #stream: Stream;
  readonly #writer: Writer;
  readonly #lost: () => Promise<unknown>;
  #finished = false;
  /**
   * What nobody has read. Bun (1.4.5) takes from the network whatever comes and grants further
   * credit for it, read or not: so it is looked at as it comes, and there is a limit.
   */
  #unread: Uint8Array[] = [];
  #unreadBytes = 0;
  #ended = false;
  #broken: { readonly cause: unknown } | undefined;
  #wake: (() => void) | undefined;
  #reset = false;

  constructor(stream: Stream, lost: () => Promise<unknown>) {
    this.#stream = stream;
    this.#lost = lost;
    this.#writer = stream.writer;
    this.#gather();
  }

  get id(): number {
    return Number(this.#stream.id ?? -1n);
  }

  async read(): Promise<readonly Uint8Array[] | undefined> {
    while (this.#unread.length === 0) {
      if (this.#broken !== undefined) throw this.#broken.cause;
      if (this.#ended) return undefined;
      await new Promise<void>((resolve) => this.#wake = resolve);
    }
    const chunks = this.#unread;
    this.#unread = [];
    this.#unreadBytes = 0;
    return chunks;
  }

  async #gather(): Promise<void> {
    try {
      for await (const chunks of this.#stream) {
        for (const chunk of chunks) {
          this.#unread.push(chunk);
          this.#unreadBytes += chunk.length;
        }
        if (this.#unreadBytes > this.maxUnreadBytes) throw overflow(this.maxUnreadBytes);
        this.#wake?.();
      }
      // They merely end, too, where the stream or the whole connection is lost, which is told later.
      const cut = this.#stream.destroyed && !this.#finished;
      const reason = await this.#lost();
      if (reason !== undefined) throw reason;
      if (cut) throw new Error("the other side closed the stream");
      // Where both sides have finished it resolves, where the other one has reset it, it rejects.
      if (this.#stream.destroyed) await this.#stream.closed;
      this.#ended = true;
    } catch (cause) {
      this.#broken = { cause };
      if (this.#unreadBytes > this.maxUnreadBytes) {
        this.#unread = [];
        this.reset();
        this.onBroken?.(cause);
      }
    }
    this.#wake?.();
  }

  write(chunk: Uint8Array): Promise<void> | undefined {
    return this.#writer.writeSync(chunk) ? undefined : this.#writeLater(chunk);
  }

  end(): void {
    this.#finished = true;
    if (this.#writer.endSync() < 0) this.#writer.end().catch(() => {});
  }

  reset(): void {
    if (this.#reset || this.#stream.destroyed) return;
    this.#reset = true;
    const code = BigInt(RESET_CODE);
    this.#stream.resetStream(code);
    this.#stream.stopSending(code);
    this.#stream.destroy(undefined, { code });
  }

  async #writeLater(chunk: Uint8Array): Promise<void> {
    do {
      const drained = this.#writer[DRAINABLE]();
      if (drained !== null) await drained;
      else if (this.#writer.desiredSize === null || this.#stream.destroyed) {
        throw await this.#lost() ?? new Error("the other side closed the stream");
      } else await new Promise((resolve) => setTimeout(resolve, 1));
    } while (!this.#writer.writeSync(chunk));
  }
}

function overflow(bytes: number): Error {
  return new TransportError(
    "Backpressure",
    `Cannot keep the connection: more than ${bytes} bytes came while it was not read`,
  );
}

async function listenBun(
  local: SocketEnd,
  tls: LinkTls,
  times: QuicTimes,
  handshakeTimeoutMs: number,
  events: QuicServerEvents,
): Promise<QuicServer> {
  checkTls(tls);
  const server = new BunServer(tls, handshakeTimeoutMs, events);
  await server.start(local, times);
  return server;
}

class BunServer implements QuicServer {
  bound: SocketEnd = { host: "", port: 0 };
  readonly #handshakeTimeoutMs: number;
  #tls: LinkTls;
  #events: QuicServerEvents | undefined;
  #endpoint: Endpoint | undefined;
  /** What ends the handshakes that are under way, the oldest first. */
  readonly #handshakes = new Set<(error: unknown) => void>();

  constructor(tls: LinkTls, handshakeTimeoutMs: number, events: QuicServerEvents) {
    this.#tls = tls;
    this.#handshakeTimeoutMs = handshakeTimeoutMs;
    this.#events = events;
  }

  async start(local: SocketEnd, times: QuicTimes): Promise<void> {
    const tls = this.#tls;
    const endpoint = new (quic().QuicEndpoint)({
      address: addressOf(local),
      maxConnectionsPerHost: MAX_CONNECTIONS_PER_HOST,
    });
    endpoint.closed.catch(() => {});
    this.#endpoint = endpoint;
    try {
      await quic().listen((session) => this.#onSession(session), {
        endpoint,
        alpn: [QUIC_ALPN],
        sni: identityOf(tls),
        verifyClient: tls.requireClientAuth,
        ...commonOptions(tls, times),
      });
      const { address } = endpoint;
      if (address === undefined) throw new Error("the address can't be bound");
      this.bound = { host: address.address, port: address.port };
    } catch (error) {
      endpoint.destroy().catch(() => {});
      throw error;
    }
  }

  stop(): void {
    this.#events = undefined;
    if (this.#endpoint !== undefined) this.#endpoint.busy = true;
  }

  restart(tls: LinkTls, events: QuicServerEvents): boolean {
    const before = this.#tls;
    const endpoint = this.#endpoint;
    if (endpoint === undefined) return false;
    if (tls.ca !== before.ca || tls.requireClientAuth !== before.requireClientAuth) return false;
    checkTls(tls);
    if (tls.cert !== before.cert || tls.key !== before.key) {
      endpoint.setSNIContexts(identityOf(tls), { replace: true });
    }
    this.#tls = tls;
    this.#events = events;
    endpoint.busy = false;
    return true;
  }

  async free(): Promise<void> {
    this.stop();
    const endpoint = this.#endpoint;
    this.#endpoint = undefined;
    await endpoint?.destroy().catch(() => {});
  }

  /**
   * Whoever begins a handshake may have written somebody else's address. So where there are too many,
   * it is the oldest that goes: one that is answered takes a few round trips, and is not it.
   */
  #mayBegin(events: QuicServerEvents): boolean {
    if (events.mayBegin()) return true;
    const [oldest] = this.#handshakes;
    oldest?.(new Error("too many handshakes were under way"));
    return oldest !== undefined && events.mayBegin();
  }

  /** What it throws would destroy the session. */
  #onSession(session: Session): void {
    const connection = new BunConnection(session, undefined);
    const events = this.#events;
    if (events === undefined || !this.#mayBegin(events)) return connection.close();
    const timer = setTimeout(() => {
      const ms = this.#handshakeTimeoutMs;
      fail(new Error(`the TLS handshake took longer than ${ms} ms`));
    }, this.#handshakeTimeoutMs);
    let done = false;
    const fail = (error: unknown) => {
      clearTimeout(timer);
      if (done) return;
      done = true;
      this.#handshakes.delete(fail);
      events.onError(error, connection.remote.host);
      connection.close();
    };
    this.#handshakes.add(fail);
    session.closed.then(() => fail(new Error("the dialer closed the connection")), fail);
    session.opened.then((handshake) => {
      if (session.destroyed) return;
      connection.established(handshake, undefined, this.bound);
      // The handshake is complete before a missing certificate is noticed.
      if (this.#tls.requireClientAuth) {
        if (connection.peerCertificate === undefined) return;
        const { validationErrorReason } = handshake;
        if (validationErrorReason !== undefined) {
          return fail(new BunTlsError(`the certificate is not verified: ${validationErrorReason}`));
        }
      }
      clearTimeout(timer);
      done = true;
      this.#handshakes.delete(fail);
      events.onConnection(connection);
    }).catch(fail);
  }
}

function identityOf({ cert, key }: LinkTls): object {
  if (cert === undefined || key === undefined) throw new Error("a listener needs a certificate");
  return { "*": { keys: [createPrivateKey(key) satisfies KeyObject], certs: [encode(cert)] } };
}

function endOf({ address, port }: Address): SocketEnd {
  return { host: normalizeHost(address), port };
}

function addressOf({ host, port }: SocketEnd): Address {
  return { address: host, port, family: host.includes(":") ? "ipv6" : "ipv4" };
}

function encode(pem: string): Uint8Array {
  return new TextEncoder().encode(pem);
}
