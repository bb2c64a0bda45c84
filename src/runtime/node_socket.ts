/**
 * What dialed and accepted sockets of `node:net` have in common.
 *
 * @module
 */

import type { Socket } from "node:net";
import type { SocketEnd } from "./link_info.ts";
import type { SocketAddress } from "./sockets.ts";

/** Sends small writes at once, and probes an idle connection where that is asked for. */
export function configureSocket(socket: Socket, keepaliveSecs: number | undefined): void {
  socket.setNoDelay(true);
  if (keepaliveSecs !== undefined) socket.setKeepAlive(true, keepaliveSecs * 1000);
}

/** Listens for errors of sockets that have nobody else yet: unheard, one would end the process. */
export function ignoreError(): void {}

/** Where `node:net` connects to and listens. */
export function socketTarget(
  { host, port, path }: SocketAddress,
): { host: string; port: number } | { path: string } {
  return path === undefined ? { host, port } : { path };
}

/** Dialers of Unix sockets have no address: they are numbered instead, by each side for itself. */
let lastDialer = 0;

/** Both ends of a socket; `address` stands in for what a socket that was just lost no longer tells. */
export function socketEnds(
  socket: Socket,
  address: SocketAddress,
  side: "dialer" | "listener",
): { local: SocketEnd; remote: SocketEnd } {
  const { host, port, path } = address;
  if (path !== undefined) {
    const [dialer, listener] = [{ host, port: ++lastDialer }, { host, port: 0 }];
    return side === "dialer"
      ? { local: dialer, remote: listener }
      : { local: listener, remote: dialer };
  }
  return {
    local: { host: socket.localAddress ?? host, port: socket.localPort ?? port },
    remote: { host: socket.remoteAddress ?? host, port: socket.remotePort ?? port },
  };
}
