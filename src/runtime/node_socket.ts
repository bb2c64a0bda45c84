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

/** Both ends of a socket; `address` stands in for what a socket that was just lost no longer tells. */
export function socketEnds(
  socket: Socket,
  address: SocketAddress,
): { local: SocketEnd; remote: SocketEnd } {
  const { host, port } = address;
  return {
    local: { host: socket.localAddress ?? host, port: socket.localPort ?? port },
    remote: { host: socket.remoteAddress ?? host, port: socket.remotePort ?? port },
  };
}
