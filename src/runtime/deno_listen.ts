/**
 * Accepting plain TCP with `Deno.listen`.
 *
 * @module
 */

import type { Listener, ListenOptions } from "../transport/transport.ts";
import { denoLink } from "./deno_connect.ts";
import { normalizeHost } from "./link_info.ts";
import { connectionFailed } from "./socket_errors.ts";
import type { SocketAddress } from "./sockets.ts";

/** How long accepting rests after it failed: long enough not to spin, short enough not to matter. */
const ACCEPT_PAUSE_MS = 50;

/** Starts to accept; see {@linkcode Runtime.listen} for what it throws. */
// deno-lint-ignore require-await -- what it throws must reach the caller as a rejection
export async function listenDeno(
  address: SocketAddress,
  options: ListenOptions,
): Promise<Listener> {
  const { host, port } = address;
  let listener: Deno.TcpListener;
  try {
    listener = Deno.listen({ hostname: host, port });
  } catch (cause) {
    throw connectionFailed(`listen on ${address.formatUrl(host, port)}`, cause);
  }
  const acceptor = new DenoAcceptor(listener, address, options);
  const done = acceptor.run();
  return {
    address: address.formatUrl(listener.addr.hostname, listener.addr.port),
    close: () => {
      acceptor.close();
      return done;
    },
  };
}

class DenoAcceptor {
  readonly #listener: Deno.TcpListener;
  readonly #address: SocketAddress;
  readonly #options: ListenOptions;
  #closed = false;
  #endPause = () => {};

  constructor(listener: Deno.TcpListener, address: SocketAddress, options: ListenOptions) {
    this.#listener = listener;
    this.#address = address;
    this.#options = options;
  }

  async run(): Promise<void> {
    while (!this.#closed) {
      let conn: Deno.TcpConn;
      try {
        conn = await this.#listener.accept();
      } catch (cause) {
        if (this.#closed) return;
        this.#options.onError(connectionFailed("accept a connection", cause), "");
        await this.#pause();
        continue;
      }
      this.#onConnection(conn);
    }
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#listener.close();
    this.#endPause();
  }

  #onConnection(conn: Deno.TcpConn): void {
    const release = this.#closed
      ? undefined
      : this.#options.admit(normalizeHost(conn.remoteAddr.hostname));
    if (release === undefined) return conn.close();
    const { keepaliveSecs } = this.#options;
    this.#options.onLink(denoLink(conn, this.#address, keepaliveSecs, release));
  }

  #pause(): Promise<void> {
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, ACCEPT_PAUSE_MS);
      this.#endPause = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }
}
