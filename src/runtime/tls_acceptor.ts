/**
 * Accepted sockets from their first byte to a verified TLS connection, or to one report of why not.
 *
 * @module
 */

import type { Server, Socket } from "node:net";
import type { TLSSocket } from "node:tls";
import { TransportError } from "../errors.ts";
import type { LinkTls, ListenOptions } from "../transport/transport.ts";
import { ignoreError } from "./node_socket.ts";
import { handshakeFailed } from "./socket_errors.ts";
import { verifiedCertificate } from "./tls_settings.ts";

/** A socket whose handshake is not complete. */
interface Handshake {
  readonly action: string;
  readonly remoteHost: string;
  readonly timer: ReturnType<typeof setTimeout>;
  readonly onClose: () => void;
}

/** Watches the handshakes of one server. */
export class TlsAcceptor {
  readonly #options: ListenOptions;
  readonly #tls: LinkTls;
  readonly #alpn: string | undefined;
  readonly #establish: (socket: Socket, certificate: Uint8Array | undefined) => void;
  /** By the raw socket. Who takes a handshake out of here is the one who reports it. */
  readonly #handshakes = new Map<Socket, Handshake>();

  /** `establish` gets each verified socket, with its certificate where one is required. */
  constructor(
    server: Server,
    options: ListenOptions,
    tls: LinkTls,
    establish: (socket: Socket, certificate: Uint8Array | undefined) => void,
    alpn?: string,
  ) {
    this.#options = options;
    this.#tls = tls;
    this.#alpn = alpn;
    this.#establish = establish;
    server.on("secureConnection", (socket: TLSSocket) => this.#onSecure(socket));
    server.on("tlsClientError", (error: Error, socket: TLSSocket) => this.#onError(error, socket));
  }

  /** Takes over an admitted socket before TLS is started on it. */
  begin(raw: Socket, remoteHost: string): void {
    const { handshakeTimeoutMs } = this.#options;
    const action = `accept a connection from ${remoteHost}`;
    const timer = setTimeout(() => {
      const why = `the TLS handshake took longer than ${handshakeTimeoutMs} ms`;
      this.#report(raw, new TransportError("Timeout", `Cannot ${action}: ${why}`));
      raw.destroy();
    }, handshakeTimeoutMs);
    const onClose = () => {
      clearTimeout(timer);
      // Deno closes the socket first and says in the same turn what the reason was.
      if (this.#handshakes.has(raw)) setTimeout(() => this.#onLost(raw, action), 0);
    };
    this.#handshakes.set(raw, { action, remoteHost, timer, onClose });
    raw.on("close", onClose);
  }

  /** Ends every handshake, without a report: it was we who wanted it. */
  close(): void {
    for (const [raw, { timer }] of this.#handshakes) {
      clearTimeout(timer);
      raw.destroy();
    }
    this.#handshakes.clear();
  }

  #onSecure(socket: TLSSocket): void {
    socket.on("error", ignoreError);
    const raw = this.#rawOf(socket);
    const handshake = raw && this.#handshakes.get(raw);
    if (raw === undefined || handshake === undefined) return void socket.destroy();
    const { requireClientAuth } = this.#tls;
    const { action } = handshake;
    const result = verifiedCertificate(socket, requireClientAuth, action, this.#alpn);
    if (result instanceof TransportError) {
      this.#report(raw, result);
      return void socket.destroy();
    }
    clearTimeout(handshake.timer);
    this.#handshakes.delete(raw);
    raw.off("close", handshake.onClose);
    socket.allowHalfOpen = true;
    this.#establish(socket, result);
  }

  #onError(error: Error, socket: TLSSocket): void {
    socket.on("error", ignoreError);
    const raw = this.#rawOf(socket);
    const handshake = raw && this.#handshakes.get(raw);
    if (raw !== undefined && handshake !== undefined) {
      // Where verification failed, Node and Deno only say that the socket hung up.
      const cause: unknown = socket.authorizationError ?? error;
      this.#report(raw, handshakeFailed(handshake.action, cause));
    }
    socket.destroy();
  }

  #onLost(raw: Socket, action: string): void {
    const cause = new Error("the dialer closed the connection during the handshake");
    this.#report(raw, handshakeFailed(action, cause));
  }

  #report(raw: Socket, error: TransportError): void {
    const handshake = this.#handshakes.get(raw);
    if (handshake === undefined) return;
    clearTimeout(handshake.timer);
    this.#handshakes.delete(raw);
    this.#options.onError(error, handshake.remoteHost);
  }

  /** The socket that "connection" showed: the same one on Bun, the one underneath on Node and Deno. */
  #rawOf(socket: TLSSocket): Socket | undefined {
    if (this.#handshakes.has(socket)) return socket;
    const parent: unknown = Reflect.get(socket, "_parent");
    return this.#handshakes.has(parent as Socket) ? parent as Socket : undefined;
  }
}
