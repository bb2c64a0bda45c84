/**
 * QUIC of Deno: `Deno.QuicEndpoint` and `Deno.connectQuic`, with `--unstable-net`.
 *
 * @module
 */

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
} from "./quic.ts";
import { checkTls } from "./tls_check.ts";

/** Chunks that fill less than this share of their buffer are copied out of it. */
const MIN_FILL = 1 / 4;
const NO_DATAGRAMS = 0;

/** Why QUIC can't be used; undefined where it can. */
export function denoQuicUnavailable(): string | undefined {
  return typeof Deno.QuicEndpoint === "function" ? undefined : "Deno needs --unstable-net for QUIC";
}

/** QUIC of this process. */
export const denoQuic: QuicSockets = {
  connect: connectDeno,
  listen: listenDeno,
};

/** `Deno.connectQuic` shows a certificate like `Deno.connectTls`, which its types don't say. */
type ConnectOptions = Deno.ConnectQuicOptions<false> & {
  readonly cert?: string;
  readonly key?: string;
};

async function connectDeno(
  remote: SocketEnd,
  name: string,
  tls: LinkTls,
  times: QuicTimes,
  signal: AbortSignal,
): Promise<QuicConnection> {
  checkTls(tls);
  const endpoint = dialingEndpoint(remote);
  const options: ConnectOptions = {
    hostname: remote.host,
    port: remote.port,
    serverName: name.replace(/\.$/, "").replace(/%.*$/, ""),
    alpnProtocols: [QUIC_ALPN],
    ...transportOptions(times),
    ...(endpoint === undefined ? {} : { endpoint }),
    ...(tls.ca === undefined ? {} : { caCerts: [tls.ca] }),
    ...(tls.cert === undefined || tls.key === undefined ? {} : { cert: tls.cert, key: tls.key }),
  };
  try {
    const connecting = Deno.connectQuic(options);
    const conn = await abortable(connecting, signal, (late) => quietly(() => late.close()));
    return new DenoConnection(conn, localEnd(endOf(conn.endpoint.addr), remote), true);
  } catch (error) {
    quietly(() => endpoint?.close());
    throw error;
  }
}

/** A socket of its own for each connection: an attempt ends with it. */
function dialingEndpoint({ host }: SocketEnd): Deno.QuicEndpoint | undefined {
  try {
    return new Deno.QuicEndpoint({ hostname: host.includes(":") ? "::" : "0.0.0.0", port: 0 });
  } catch {
    // Not permitted for any address: Deno makes one by itself.
    return undefined;
  }
}

function endOf({ hostname, port }: Deno.NetAddr): SocketEnd {
  return { host: normalizeHost(hostname), port };
}

function transportOptions({ keepAliveMs, idleMs }: QuicTimes): Deno.QuicTransportOptions {
  return {
    keepAliveInterval: keepAliveMs,
    maxIdleTimeout: idleMs,
    maxConcurrentBidirectionalStreams: MAX_STREAMS,
    maxConcurrentUnidirectionalStreams: 0,
  };
}

class DenoConnection implements QuicConnection {
  readonly local: SocketEnd;
  readonly remote: SocketEnd;
  readonly peerCertificate: undefined;
  readonly maxDatagramBytes: number = NO_DATAGRAMS;
  readonly #conn: Deno.QuicConn;
  /** We dialed: the socket is ours alone. */
  readonly #ownsEndpoint: boolean;
  readonly #gone: Promise<unknown>;
  #closing = false;

  constructor(conn: Deno.QuicConn, local: SocketEnd, ownsEndpoint: boolean) {
    this.#conn = conn;
    this.#ownsEndpoint = ownsEndpoint;
    this.local = local;
    this.remote = endOf(conn.remoteAddr);
    this.#gone = conn.closed.then(
      ({ closeCode, reason }) => new Error(closeReason(closeCode, reason)),
      (error: unknown) => error,
    );
  }

  open(events: QuicEvents): void {
    this.#accept(events);
    this.#gone.then((reason) => {
      if (this.#ownsEndpoint) quietly(() => this.#conn.endpoint.close());
      events.onClose(this.#closing ? undefined : reason);
    });
  }

  async openStream(): Promise<QuicStream> {
    return this.#wrap(await this.#conn.createBidirectionalStream());
  }

  sendDatagram(): void {}

  close(): void {
    this.#closing = true;
    quietly(() => this.#conn.close({ closeCode: 0, reason: "" }));
  }

  async #accept(events: QuicEvents): Promise<void> {
    try {
      for await (const stream of this.#conn.incomingBidirectionalStreams) {
        events.onStream(this.#wrap(stream));
      }
    } catch {
      // The connection is gone, which `closed` tells.
    }
  }

  #wrap(stream: Deno.QuicBidirectionalStream): QuicStream {
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

function closeReason(code: number, reason: string): string {
  return reason === "" ? `the connection was closed with code ${code}` : reason;
}

class DenoStream implements QuicStream {
  readonly id: number;
  onBroken: ((cause: unknown) => void) | undefined;
  readonly #reader: ReadableStreamDefaultReader<Uint8Array<ArrayBuffer>>;
  readonly #writer: WritableStreamDefaultWriter<Uint8Array<ArrayBufferLike>>;
  readonly #explain: (error: unknown) => Promise<unknown>;

  constructor(
    stream: Deno.QuicBidirectionalStream,
    explain: (error: unknown) => Promise<unknown>,
  ) {
    this.id = Number(stream.readable.id);
    this.#reader = stream.readable.getReader();
    this.#writer = stream.writable.getWriter();
    this.#explain = explain;
    this.#reader.closed.catch(() => {});
    this.#writer.closed.catch(() => {});
    this.#writer.ready.catch(() => {});
  }

  async read(): Promise<readonly Uint8Array[] | undefined> {
    let result: ReadableStreamReadResult<Uint8Array<ArrayBuffer>>;
    try {
      result = await this.#reader.read();
    } catch (error) {
      throw await this.#explain(error);
    }
    if (result.done) return undefined;
    const chunk = result.value;
    // A small chunk must not hold the large buffer alive.
    return [chunk.length < chunk.buffer.byteLength * MIN_FILL ? chunk.slice() : chunk];
  }

  async write(chunk: Uint8Array): Promise<void> {
    try {
      await this.#writer.write(chunk);
    } catch (error) {
      throw await this.#explain(error);
    }
  }

  end(): void {
    this.#writer.close().catch(() => {});
  }

  /** Deno has no RESET_STREAM: the other side sees an end, and its writes fail. */
  reset(): void {
    this.#writer.abort().catch(() => {});
    this.#reader.cancel().catch(() => {});
  }
}

// deno-lint-ignore require-await -- what it throws must reach the caller as a rejection
async function listenDeno(
  { host, port }: SocketEnd,
  tls: LinkTls,
  times: QuicTimes,
  handshakeTimeoutMs: number,
  events: QuicServerEvents,
): Promise<QuicServer> {
  checkTls(tls);
  const endpoint = new Deno.QuicEndpoint({ hostname: host, port });
  const server = new DenoServer(endpoint, times, handshakeTimeoutMs);
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
  readonly #endpoint: Deno.QuicEndpoint;
  readonly #times: QuicTimes;
  readonly #handshakeTimeoutMs: number;
  /** All of them: one that is collected takes the certificate of its successor along (2.9.6). */
  readonly #listeners: Deno.QuicListener[] = [];
  #identity: Pick<LinkTls, "cert" | "key"> | undefined;
  #events: QuicServerEvents | undefined;

  constructor(endpoint: Deno.QuicEndpoint, times: QuicTimes, handshakeTimeoutMs: number) {
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
    if (cert === undefined || key === undefined) throw new Error("a listener needs a certificate");
    if (cert !== this.#identity?.cert || key !== this.#identity?.key) {
      this.#listeners.push(
        this.#endpoint.listen({
          cert,
          key,
          alpnProtocols: [QUIC_ALPN],
          ...transportOptions(this.#times),
        }),
      );
      this.#identity = { cert, key };
      if (this.#listeners.length === 1) this.#run(this.#listeners[0]!);
    }
    this.#events = events;
    return true;
  }

  free(): Promise<void> {
    this.stop();
    quietly(() => this.#endpoint.close());
    for (const listener of this.#listeners) quietly(() => listener.stop());
    // The socket is closed in another thread, as soon as that has told the connections.
    return new Promise((resolve) => setTimeout(resolve, 0));
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
    // Its address can't be asked for: Deno (2.9.6) gives the connection up when it is.
    const accepting = incoming.accept();
    const late = new AbortController();
    const timer = setTimeout(() => {
      const ms = this.#handshakeTimeoutMs;
      late.abort(new Error(`the TLS handshake took longer than ${ms} ms`));
    }, this.#handshakeTimeoutMs);
    try {
      const conn = await abortable(
        Promise.resolve(accepting),
        late.signal,
        (conn) => quietly(() => conn.close()),
      );
      events.onConnection(new DenoConnection(conn, this.bound, false));
    } catch (error) {
      events.onError(error, "");
    } finally {
      clearTimeout(timer);
    }
  }
}

function quietly(action: () => void): void {
  try {
    action();
  } catch {
    // It is closed already.
  }
}
