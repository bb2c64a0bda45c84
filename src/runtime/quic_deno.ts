/**
 * QUIC of Deno: `Deno.QuicEndpoint` and `Deno.connectQuic`, with `--unstable-net`.
 *
 * @module
 */

import type { LinkTls } from "../transport/transport.ts";
import { normalizeHost, type SocketEnd } from "./link_info.ts";
import {
  abortable,
  HAWSER_PROTOCOL,
  localEnd,
  MAX_STREAMS,
  type QuicConnection,
  type QuicEvents,
  type QuicProtocol,
  type QuicServer,
  type QuicServerEvents,
  type QuicSockets,
  type QuicStream,
  type QuicTimes,
  REASON_WAIT_MS,
} from "./quic.ts";
import { checkTls } from "./tls_check.ts";

/** Chunks that fill less than this share of their buffer are copied out of it. */
const MIN_FILL = 1 / 4;
/** Sockets that rest before one of them is taken again. */
const MIN_RESTING = 4;
/** How often the collector is pushed at most, and how long it may take the first time; later more. */
const MAX_PUSHES = 9;
const FIRST_PUSH_MS = 1;
/** By how much it is pushed. */
const PUSH_BUFFERS = 8;
const PUSH_BYTES = 64 * 1024 * 1024;
/** Datagrams that wait until they may leave. */
const MAX_WAITING_DATAGRAMS = 64;

/** Why QUIC can't be used; undefined where it can. */
export function denoQuicUnavailable(): string | undefined {
  return typeof Deno.QuicEndpoint === "function" ? undefined : "Deno needs --unstable-net for QUIC";
}

/** QUIC of this process. */
export const denoQuic: QuicSockets = denoQuicFor(HAWSER_PROTOCOL);

/** The same for what else may be spoken. */
export function denoQuicFor(protocol: QuicProtocol): QuicSockets {
  return {
    connect: (...args) => connectDeno(protocol, ...args),
    listen: (...args) => listenDeno(protocol, ...args),
  };
}

/** `Deno.connectQuic` shows a certificate like `Deno.connectTls`, which its types don't say. */
type ConnectOptions = Deno.ConnectQuicOptions<false> & {
  readonly cert?: string;
  readonly key?: string;
};

async function connectDeno(
  protocol: QuicProtocol,
  remote: SocketEnd,
  name: string,
  tls: LinkTls,
  times: QuicTimes,
  signal: AbortSignal,
): Promise<QuicConnection> {
  checkTls(tls);
  const sockets = dialingSockets(protocol, tls, remote);
  const endpoint = sockets.take();
  const options: ConnectOptions = {
    hostname: remote.host,
    port: remote.port,
    serverName: name.replace(/\.$/, "").replace(/%.*$/, ""),
    alpnProtocols: [protocol.alpn],
    ...transportOptions(protocol, times),
    ...(endpoint === undefined ? {} : { endpoint }),
    ...(tls.ca === undefined ? {} : { caCerts: [tls.ca] }),
    ...(tls.cert === undefined || tls.key === undefined ? {} : { cert: tls.cert, key: tls.key }),
  };
  const giveBack = () => endpoint === undefined ? undefined : sockets.giveBack(endpoint);
  try {
    const connecting = Deno.connectQuic(options);
    const conn = await abortable(connecting, signal, (late) => quietly(() => late.close()));
    const local = localEnd(endOf(conn.endpoint.addr), remote);
    return new DenoConnection(protocol, conn, local, giveBack);
  } catch (error) {
    giveBack();
    throw error;
  }
}

/**
 * Sockets to dial from. Deno (2.9.6) closes a socket only when its endpoint is collected, so they
 * are used again. The one that rested longest is taken: a path may be broken for its port alone.
 */
class DialingSockets {
  readonly #hostname: string;
  #resting: Deno.QuicEndpoint[] = [];

  constructor(hostname: string) {
    this.#hostname = hostname;
  }

  take(): Deno.QuicEndpoint | undefined {
    if (this.#resting.length >= MIN_RESTING) return this.#resting.shift();
    try {
      return new Deno.QuicEndpoint({ hostname: this.#hostname, port: 0 });
    } catch {
      // Not permitted for any address, or no IPv6: Deno makes one by itself, where it can.
      return this.#resting.shift();
    }
  }

  giveBack(endpoint: Deno.QuicEndpoint): void {
    this.#resting.push(endpoint);
  }
}

/** By TLS setting, since an endpoint remembers whom it has verified; by protocol, and by family. */
const sockets = new WeakMap<LinkTls, Map<string, DialingSockets>>();

function dialingSockets(
  { alpn }: QuicProtocol,
  tls: LinkTls,
  { host }: SocketEnd,
): DialingSockets {
  const unbound = host.includes(":") ? "::" : "0.0.0.0";
  const key = `${alpn} ${unbound}`;
  const ofTls = sockets.get(tls) ?? new Map<string, DialingSockets>();
  sockets.set(tls, ofTls);
  const found = ofTls.get(key) ?? new DialingSockets(unbound);
  ofTls.set(key, found);
  return found;
}

function endOf({ hostname, port }: Deno.NetAddr): SocketEnd {
  return { host: normalizeHost(hostname), port };
}

function transportOptions(
  { maxUniStreams }: QuicProtocol,
  { keepAliveMs, idleMs }: QuicTimes,
): Deno.QuicTransportOptions {
  return {
    keepAliveInterval: keepAliveMs,
    maxIdleTimeout: idleMs,
    maxConcurrentBidirectionalStreams: MAX_STREAMS,
    maxConcurrentUnidirectionalStreams: maxUniStreams,
  };
}

class DenoConnection implements QuicConnection {
  readonly local: SocketEnd;
  readonly remote: SocketEnd;
  readonly peerCertificate: undefined;
  readonly #protocol: QuicProtocol;
  /** Undefined when it is gone: it would keep its socket. */
  #conn: Deno.QuicConn | undefined;
  readonly #gone: Promise<unknown>;
  #closing = false;
  #waitingDatagrams = 0;

  constructor(
    protocol: QuicProtocol,
    conn: Deno.QuicConn,
    local: SocketEnd,
    onGone: () => void,
  ) {
    this.#protocol = protocol;
    this.#conn = conn;
    this.local = local;
    this.remote = endOf(conn.remoteAddr);
    const gone = () => {
      this.#conn = undefined;
      onGone();
    };
    this.#gone = conn.closed.then(
      ({ closeCode, reason }) => {
        gone();
        return new Error(closeReason(closeCode, reason));
      },
      (error: unknown) => {
        gone();
        return error;
      },
    );
  }

  open(events: QuicEvents): void {
    const conn = this.#conn;
    if (conn !== undefined) {
      this.#accept(conn, events);
      if (this.#protocol.maxUniStreams > 0) this.#acceptUni(conn, events);
      readDatagrams(conn, events);
    }
    this.#gone.then((reason) => events.onClose(this.#closing ? undefined : reason));
  }

  async openStream(): Promise<QuicStream> {
    const stream = await this.#conn?.createBidirectionalStream();
    if (stream === undefined) throw new Error("the connection is closed");
    return this.#wrap(stream);
  }

  async openUniStream(): Promise<QuicStream> {
    const writable = await this.#conn?.createUnidirectionalStream();
    if (writable === undefined) throw new Error("the connection is closed");
    return this.#wrap({ writable });
  }

  get maxDatagramBytes(): number {
    return this.#conn?.maxDatagramSize ?? 0;
  }

  sendDatagram(bytes: Uint8Array): boolean {
    if (this.#conn === undefined || this.#waitingDatagrams >= MAX_WAITING_DATAGRAMS) return false;
    this.#waitingDatagrams++;
    const done = () => {
      this.#waitingDatagrams--;
    };
    this.#conn.sendDatagram(bytes).then(done, done);
    return true;
  }

  close(): void {
    this.#closing = true;
    quietly(() => this.#conn?.close({ closeCode: this.#protocol.closeCode, reason: "" }));
  }

  async #accept(conn: Deno.QuicConn, events: QuicEvents): Promise<void> {
    try {
      for await (const stream of conn.incomingBidirectionalStreams) {
        events.onStream(this.#wrap(stream));
      }
    } catch {
      // The connection is gone, which `closed` tells.
    }
  }

  async #acceptUni(conn: Deno.QuicConn, events: QuicEvents): Promise<void> {
    try {
      for await (const readable of conn.incomingUnidirectionalStreams) {
        events.onUniStream?.(this.#wrap({ readable }));
      }
    } catch {
      // The connection is gone, which `closed` tells.
    }
  }

  #wrap(stream: Partial<Deno.QuicBidirectionalStream>): QuicStream {
    return new DenoStream(stream, (error) => this.#explain(error));
  }

  /** A stream only says that the connection is lost; the connection says why, in the same moment. */
  #explain(error: unknown): Promise<unknown> {
    return new Promise((resolve) => {
      const timer = setTimeout(() => resolve(error), REASON_WAIT_MS);
      this.#gone.then((reason) => {
        clearTimeout(timer);
        resolve(reason);
      });
    });
  }
}

async function readDatagrams(conn: Deno.QuicConn, events: QuicEvents): Promise<void> {
  try {
    while (true) events.onDatagram(await conn.readDatagram());
  } catch {
    // The connection is gone, which `closed` tells.
  }
}

function closeReason(code: number, reason: string): string {
  return reason === "" ? `the connection was closed with code ${code}` : reason;
}

class DenoStream implements QuicStream {
  readonly id: number;
  onBroken: ((cause: unknown) => void) | undefined;
  /** Undefined where only the other side reads. */
  readonly #reader: ReadableStreamDefaultReader<Uint8Array<ArrayBuffer>> | undefined;
  /** Undefined where only the other side writes. */
  readonly #writer: WritableStreamDefaultWriter<Uint8Array<ArrayBufferLike>> | undefined;
  readonly #explain: (error: unknown) => Promise<unknown>;

  constructor(
    { readable, writable }: Partial<Deno.QuicBidirectionalStream>,
    explain: (error: unknown) => Promise<unknown>,
  ) {
    this.id = Number(readable?.id ?? writable?.id);
    this.#reader = readable?.getReader();
    this.#writer = writable?.getWriter();
    this.#explain = explain;
    this.#reader?.closed.catch(() => {});
    this.#writer?.closed.catch(() => {});
    this.#writer?.ready.catch(() => {});
  }

  async read(): Promise<readonly Uint8Array[] | undefined> {
    let result: ReadableStreamReadResult<Uint8Array<ArrayBuffer>> | undefined;
    try {
      result = await this.#reader?.read();
    } catch (error) {
      throw await this.#explain(error);
    }
    if (result === undefined || result.done) return undefined;
    const chunk = result.value;
    // A small chunk must not hold the large buffer alive.
    return [chunk.length < chunk.buffer.byteLength * MIN_FILL ? chunk.slice() : chunk];
  }

  async write(chunk: Uint8Array): Promise<void> {
    try {
      await this.#writer?.write(chunk);
    } catch (error) {
      throw await this.#explain(error);
    }
  }

  end(): void {
    this.#writer?.close().catch(() => {});
  }

  /** Deno has no RESET_STREAM: the other side sees an end, and its writes fail. */
  reset(): void {
    this.#writer?.abort().catch(() => {});
    this.#reader?.cancel().catch(() => {});
  }
}

// deno-lint-ignore require-await -- what it throws must reach the caller as a rejection
async function listenDeno(
  protocol: QuicProtocol,
  { host, port }: SocketEnd,
  tls: LinkTls,
  times: QuicTimes,
  handshakeTimeoutMs: number,
  events: QuicServerEvents,
): Promise<QuicServer> {
  checkTls(tls);
  const endpoint = new Deno.QuicEndpoint({ hostname: host, port });
  const server = new DenoServer(protocol, endpoint, times, handshakeTimeoutMs);
  try {
    server.restart(tls, events);
  } catch (error) {
    endpoint.close();
    throw error;
  }
  return server;
}

class DenoServer implements QuicServer {
  readonly bound: SocketEnd;
  readonly #protocol: QuicProtocol;
  #endpoint: Deno.QuicEndpoint | undefined;
  readonly #times: QuicTimes;
  readonly #handshakeTimeoutMs: number;
  /** All of them: one that is collected takes the certificate of its successor along (2.9.6). */
  #listeners: Deno.QuicListener[] = [];
  #identity: Pick<LinkTls, "cert" | "key"> | undefined;
  #events: QuicServerEvents | undefined;

  constructor(
    protocol: QuicProtocol,
    endpoint: Deno.QuicEndpoint,
    times: QuicTimes,
    handshakeTimeoutMs: number,
  ) {
    this.#protocol = protocol;
    this.#endpoint = endpoint;
    this.#times = times;
    this.#handshakeTimeoutMs = handshakeTimeoutMs;
    this.bound = endOf(endpoint.addr);
  }

  /** Goes on accepting, to refuse: dialers would wait long for an answer that does not come. */
  stop(): void {
    this.#events = undefined;
  }

  restart(tls: LinkTls, events: QuicServerEvents): boolean {
    const { cert, key } = tls;
    if (this.#endpoint === undefined) return false;
    if (cert === undefined || key === undefined) throw new Error("a listener needs a certificate");
    if (cert !== this.#identity?.cert || key !== this.#identity?.key) {
      const listener = this.#endpoint.listen({
        cert,
        key,
        alpnProtocols: [this.#protocol.alpn],
        ...transportOptions(this.#protocol, this.#times),
      });
      this.#listeners.push(listener);
      this.#identity = { cert, key };
      if (this.#listeners.length === 1) this.#run(listener);
    }
    this.#events = events;
    return true;
  }

  async free(): Promise<void> {
    this.stop();
    if (this.#endpoint === undefined) return;
    this.#close();
    await collected(this.bound);
  }

  /** Lets go of everything: a variable of a function that waits would keep it. */
  #close(): void {
    quietly(() => this.#endpoint?.close());
    for (const listener of this.#listeners) quietly(() => listener.stop());
    this.#endpoint = undefined;
    this.#listeners = [];
  }

  async #run(listener: Deno.QuicListener): Promise<void> {
    try {
      // One accepting at a time: it is the endpoint's, whichever listener is asked.
      while (true) {
        const incoming = await listener.incoming();
        if (this.#events === undefined || !this.#events.mayBegin()) incoming.refuse();
        else this.#accept(incoming, this.#events);
      }
    } catch {
      // The endpoint is closed.
    }
  }

  async #accept(incoming: Deno.QuicIncoming, events: QuicServerEvents): Promise<void> {
    const late = new AbortController();
    const timer = setTimeout(() => {
      const ms = this.#handshakeTimeoutMs;
      late.abort(new Error(`the TLS handshake took longer than ${ms} ms`));
    }, this.#handshakeTimeoutMs);
    try {
      // Its address can't be asked for: Deno (2.9.6) gives the connection up when it is.
      const accepting = Promise.resolve(incoming.accept());
      const onLate = (conn: Deno.QuicConn) => quietly(() => conn.close());
      const conn = await abortable(accepting, late.signal, onLate);
      events.onConnection(new DenoConnection(this.#protocol, conn, this.bound, () => {}));
    } catch (error) {
      events.onError(error, "");
    } finally {
      clearTimeout(timer);
    }
  }
}

/**
 * Waits until the address of an endpoint is free. Deno (2.9.6) gives it back when the closed endpoint
 * is collected, which may be hours later in a process that does little: so the collector is told of
 * memory, none of which is ever touched.
 */
async function collected({ host, port }: SocketEnd): Promise<void> {
  await new Promise((resolve) => setTimeout(resolve, 0));
  for (let push = 0; push < MAX_PUSHES && !isFree(host, port); push++) {
    pushCollector();
    await new Promise((resolve) => setTimeout(resolve, FIRST_PUSH_MS << push));
  }
}

/** Such buffers have no memory until something is written to them. */
function pushCollector(): void {
  const buffers: ArrayBuffer[] = [];
  try {
    while (buffers.length < PUSH_BUFFERS) buffers.push(new ArrayBuffer(PUSH_BYTES));
  } catch {
    // The process may not have so much: it is nearer to a collection than we thought.
  }
}

function isFree(hostname: string, port: number): boolean {
  try {
    Deno.listenDatagram({ transport: "udp", hostname, port }).close();
    return true;
  } catch {
    return false;
  }
}

function quietly(action: () => void): void {
  try {
    action();
  } catch {
    // It is closed already.
  }
}
