/**
 * What the QUIC transport asks of a runtime: connections, and their bidirectional streams.
 *
 * @module
 */

import { lookup } from "node:dns/promises";
import { isIP } from "node:net";
import type { DialOptions, LinkTls } from "../transport/transport.ts";
import type { SocketEnd } from "./link_info.ts";

/** One bidirectional stream. */
export interface QuicStream {
  /** Its id, the same on both sides. */
  readonly id: number;
  /** Called when the stream breaks although nobody reads it; set by its owner. */
  onBroken: ((cause: unknown) => void) | undefined;
  /** Bytes that may come while nobody reads, where the runtime can't push back; set by its owner. */
  maxUnreadBytes?: number;
  /** What arrives next, in one chunk or more; undefined at the end. Rejects where it never ends. */
  read(): Promise<readonly Uint8Array[] | undefined>;
  /**
   * Takes bytes, all of them. A promise asks to wait for it before the next ones; it rejects where
   * they can't leave any more.
   */
  write(chunk: Uint8Array): Promise<void> | undefined;
  /** Ends our direction, after all that was written. */
  end(): void;
  /** Ends both directions at once; what was written may be lost. */
  reset(): void;
}

/** What a connection tells. */
export interface QuicEvents {
  /** The other side has opened a stream. */
  onStream(stream: QuicStream): void;
  /** The other side has opened a stream that it alone writes to, where the protocol has such. */
  onUniStream?(stream: QuicStream): void;
  /** A datagram arrived. */
  onDatagram(bytes: Uint8Array): void;
  /** The connection is gone, exactly once, with the reason where it is not our own `close`. */
  onClose(reason: unknown): void;
}

/** An established connection. */
export interface QuicConnection {
  /** Our own end. The host is that of the socket, "0.0.0.0" where it is bound to no address. */
  readonly local: SocketEnd;
  /** The other side's end. */
  readonly remote: SocketEnd;
  /** DER bytes of the other side's certificate, verified; undefined where it can't be seen. */
  readonly peerCertificate: Uint8Array | undefined;
  /** Starts the flow of events; those from before are kept. */
  open(events: QuicEvents): void;
  /** Opens a stream. Nothing of it is seen at the other side before something is written. */
  openStream(): Promise<QuicStream>;
  /** Opens a stream that we alone write to, where the protocol has such. */
  openUniStream?(): Promise<QuicStream>;
  /** The longest datagram that fits at the moment; 0 where there are none. */
  readonly maxDatagramBytes: number;
  /** Sends a datagram; false: it was not taken. */
  sendDatagram(bytes: Uint8Array): boolean;
  /** Closes the connection and all its streams. */
  close(): void;
}

/** What a server tells. */
export interface QuicServerEvents {
  /** Whether one more connection may begin its handshake. */
  mayBegin(): boolean;
  /** A connection is established. */
  onConnection(connection: QuicConnection): void;
  /** A handshake failed. */
  onError(cause: unknown, remoteHost: string): void;
}

/** Something that accepts connections. */
export interface QuicServer {
  /** Where it is bound. */
  readonly bound: SocketEnd;
  /** No further connections are accepted; those that are live on. */
  stop(): void;
  /** Accepts again. False where it can't with these settings. */
  restart(tls: LinkTls, events: QuicServerEvents): boolean;
  /** Gives the address back and closes what is left. */
  free(): Promise<void>;
}

/** How long a connection may be silent, and after which silence it makes itself heard. */
export interface QuicTimes {
  /** Milliseconds. */
  readonly keepAliveMs: number;
  /** Milliseconds. */
  readonly idleMs: number;
}

/** Dials and accepts. */
export interface QuicSockets {
  /** Connects to an IP address. `name` is the host that was dialed. */
  connect(
    remote: SocketEnd,
    name: string,
    tls: LinkTls,
    times: QuicTimes,
    signal: AbortSignal,
  ): Promise<QuicConnection>;
  /** Binds an address. */
  listen(
    local: SocketEnd,
    tls: LinkTls,
    times: QuicTimes,
    handshakeTimeoutMs: number,
    events: QuicServerEvents,
  ): Promise<QuicServer>;
}

/** What is spoken on connections. */
export interface QuicProtocol {
  /** Its name in TLS. */
  readonly alpn: string;
  /** Unidirectional streams that the other side may have open at a time. */
  readonly maxUniStreams: number;
  /** The code with which a connection is closed where nothing is wrong. */
  readonly closeCode: number;
}

/** The application protocol of docs/protocol.md, section 6. */
export const QUIC_ALPN = "hawser/1";
/** Links on the streams of connections, and nothing beside them. */
export const HAWSER_PROTOCOL: QuicProtocol = { alpn: QUIC_ALPN, maxUniStreams: 0, closeCode: 0 };
/** Streams that the other side may have open at one time in one connection: links and sub-streams. */
export const MAX_STREAMS = 256;
/** The code in RESET_STREAM and STOP_SENDING of a link that was closed. */
export const RESET_CODE = 1;

/** How long a broken stream waits for the connection to say why. */
export const REASON_WAIT_MS = 20;

const DEFAULT_KEEP_ALIVE_MS = 20_000;
const MIN_IDLE_MS = 30_000;

/**
 * The times of a connection. QUIC gives up on a silent connection, which no other transport does,
 * so it makes itself heard also where keepalive is off.
 */
export function quicTimes(keepaliveSecs: number | undefined): QuicTimes {
  const keepAliveMs = keepaliveSecs === undefined
    ? DEFAULT_KEEP_ALIVE_MS
    : Math.max(1, Math.ceil(keepaliveSecs * 1000));
  return { keepAliveMs, idleMs: Math.max(MIN_IDLE_MS, Math.ceil(keepAliveMs * 2.5)) };
}

/** The addresses of a host: the first of each family, in the order of the system's resolver. */
export async function resolveHost(host: string): Promise<string[]> {
  if (isIP(host.replace(/%.*$/, "")) !== 0) return [host];
  const found = await lookup(host, { all: true });
  const first = new Map<number, string>();
  for (const { address, family } of found) {
    if (!first.has(family)) first.set(family, address);
  }
  if (first.size === 0) throw new Error(`no address of ${host} is known`);
  return [...first.values()];
}

/**
 * Our own end of a connection that was dialed from a socket bound to no address. Over loopback both
 * ends have the same host; elsewhere it is the route that says, and it may change.
 */
export function localEnd(bound: SocketEnd, remote: SocketEnd): SocketEnd {
  const loopback = remote.host === "::1" || remote.host === "127.0.0.1";
  const unbound = bound.host === "::" || bound.host === "0.0.0.0";
  return { host: unbound && loopback ? remote.host : bound.host, port: bound.port };
}

/** Rejects with the signal's reason as soon as it is aborted; `onLate` gets what comes after that. */
export function abortable<T>(
  promise: Promise<T>,
  signal: DialOptions["signal"],
  onLate: (value: T) => void,
): Promise<T> {
  return new Promise((resolve, reject) => {
    const onAbort = () => reject(signal.reason);
    if (signal.aborted) onAbort();
    else signal.addEventListener("abort", onAbort, { once: true });
    promise.then(
      (value) => {
        signal.removeEventListener("abort", onAbort);
        if (signal.aborted) onLate(value);
        else resolve(value);
      },
      (error) => {
        signal.removeEventListener("abort", onAbort);
        reject(error);
      },
    );
  });
}
