/**
 * What the TCP transport asks of a runtime, the same on all three.
 *
 * @module
 */

import type { DialOptions, Link, Listener, ListenOptions } from "../transport/transport.ts";

/** The host and port of one side, or the path of a Unix socket, and how its URL is written. */
export interface SocketAddress {
  /** The scheme that links and listeners name as their protocol. */
  readonly scheme: string;
  /** A host name, an IPv4 address, or an IPv6 address without its brackets. */
  readonly host: string;
  /** 0 to 65535; 0 asks a listener for a free port. */
  readonly port: number;
  /** Of a Unix socket; a leading NUL makes its name an abstract one. `host` then only labels it. */
  readonly path?: string;
  /** The application protocol that TLS announces; by default our own. */
  readonly alpn?: string;
  /** Writes the URL of a host and port in this scheme. */
  formatUrl(host: string, port: number): string;
}

/** What the library uses of the runtime that it runs on. */
export interface Runtime {
  /** Which runtime this is. */
  readonly name: "deno" | "bun" | "node";
  /** The runtime's own version, as in "2.9.6". */
  readonly version: string;
  /**
   * Opens a TCP connection, with TLS where the options say so.
   *
   * @throws {TransportError} `ConnectionFailed`, `HandshakeFailed`, `ClientCertificateRequired` or `Config`; or `options.signal.reason`.
   */
  connect(address: SocketAddress, options: DialOptions): Promise<Link>;
  /**
   * Accepts TCP connections, with TLS where the options say so.
   *
   * @throws {TransportError} `ConnectionFailed` where the address can't be bound, `Config` where the certificate or key is unusable.
   */
  listen(address: SocketAddress, options: ListenOptions): Promise<Listener>;
  /** Reads a file as UTF-8 text. */
  readTextFile(path: string): Promise<string>;
  /** How many files and sockets this process may have open; undefined where that can't be learnt. */
  fileDescriptorLimit(): number | undefined;
}

/** `Link.write` asks its caller to wait while more than this many bytes are buffered. */
export const HIGH_WATER_BYTES: number = 256 * 1024;
