/**
 * Dialing plain TCP with `Deno.connect`.
 *
 * @module
 */

import type { DialOptions, Link } from "../transport/transport.ts";
import { DenoLink } from "./deno_link.ts";
import { linkInfo } from "./link_info.ts";
import { connectionFailed } from "./socket_errors.ts";
import type { SocketAddress } from "./sockets.ts";

/** Opens a connection; see {@linkcode Runtime.connect} for what it throws. */
export async function connectDeno(address: SocketAddress, options: DialOptions): Promise<Link> {
  const { signal } = options;
  signal.throwIfAborted();
  let conn: Deno.TcpConn;
  try {
    conn = await Deno.connect({ hostname: address.host, port: address.port, signal });
  } catch (cause) {
    signal.throwIfAborted();
    const url = address.formatUrl(address.host, address.port);
    throw connectionFailed(`connect to ${url}`, cause);
  }
  if (signal.aborted) {
    conn.close();
    throw signal.reason;
  }
  return denoLink(conn, address, options.keepaliveSecs);
}

/** Makes a link of a connection. `onGone` is called once, when the connection is gone. */
export function denoLink(
  conn: Deno.TcpConn,
  address: SocketAddress,
  keepaliveSecs: number | undefined,
  onGone?: () => void,
): Link {
  conn.setNoDelay(true);
  // Deno takes no interval; the protocol's own limits are what notices a lost peer sooner.
  if (keepaliveSecs !== undefined) conn.setKeepAlive(true);
  const [local, remote] = [conn.localAddr, conn.remoteAddr].map(({ hostname, port }) => ({
    host: hostname,
    port,
  })) as [{ host: string; port: number }, { host: string; port: number }];
  const info = linkInfo(address, local, remote, { encrypted: false, peerCertificate: undefined });
  return new DenoLink(conn, info, onGone);
}
