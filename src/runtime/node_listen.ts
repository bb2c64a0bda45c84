/**
 * Accepting with `node:net` and `node:tls`.
 *
 * @module
 */

import * as net from "node:net";
import * as tls from "node:tls";
import type { Link, Listener, ListenOptions } from "../transport/transport.ts";
import { linkInfo, normalizeHost } from "./link_info.ts";
import { NodeLink } from "./node_link.ts";
import { configureSocket, ignoreError, socketEnds, socketTarget } from "./node_socket.ts";
import { connectionFailed, unusableTls } from "./socket_errors.ts";
import type { SocketAddress } from "./sockets.ts";
import { TlsAcceptor } from "./tls_acceptor.ts";
import { checkTls } from "./tls_check.ts";
import { listenerTls } from "./tls_settings.ts";

/** Starts to accept; see {@linkcode Runtime.listen} for what it throws. */
export async function listenNode(
  address: SocketAddress,
  options: ListenOptions,
): Promise<Listener> {
  const action = `listen on ${address.formatUrl(address.host, address.port)}`;
  const establish = (socket: net.Socket, certificate?: Uint8Array) => {
    socket.allowHalfOpen = true;
    configureSocket(socket, options.keepaliveSecs);
    const link = acceptedLink(socket, address, options, certificate);
    // From now on the link listens for errors.
    socket.off("error", ignoreError);
    options.onLink(link);
  };
  const server = makeServer(address, options, action);
  const acceptor = options.tls &&
    new TlsAcceptor(server, options, options.tls, establish, address.alpn);
  let closed = false;

  // Fires before TLS is started, on all three runtimes.
  server.on("connection", (socket: net.Socket) => {
    // An error always ends in "close", which is where it is dealt with.
    socket.on("error", ignoreError);
    const host = address.path === undefined ? socket.remoteAddress : address.host;
    const remoteHost = normalizeHost(host ?? "");
    const release = closed || host === undefined ? undefined : options.admit(remoteHost);
    if (release === undefined) return void socket.destroy();
    // Not `once`, which keeps more for each socket than the function itself: it may be called again.
    socket.on("close", release);
    if (acceptor === undefined) establish(socket);
    else acceptor.begin(socket, remoteHost);
  });

  await bind(server, address, options.reusePort ?? false, action);
  // Accepting can fail later, as when the process has no descriptor left; the listener goes on.
  server.on(
    "error",
    (cause) => options.onError(connectionFailed("accept a connection", cause), ""),
  );
  const bound = server.address();
  return {
    address: bound === null || typeof bound === "string"
      ? address.formatUrl(address.host, 0)
      : address.formatUrl(bound.address, bound.port),
    close: () => {
      if (!closed) {
        closed = true;
        server.close();
        acceptor?.close();
      }
      // The server's own callback would wait for the links; the address is free in the next turn.
      return new Promise((resolve) => setTimeout(resolve, 0));
    },
  };
}

function makeServer(address: SocketAddress, options: ListenOptions, action: string): net.Server {
  if (options.tls === undefined) return net.createServer({ allowHalfOpen: true });
  try {
    checkTls(options.tls);
    if (options.tls.cert === undefined) throw new Error("a listener needs a certificate");
    // Our own deadline counts from the accept; this one would only come second.
    const handshakeTimeout = options.handshakeTimeoutMs * 2;
    // Half-open only once the handshake is complete (tls_acceptor.ts): before, Node and Deno would
    // not notice a dialer that hangs up until the deadline.
    const settings = listenerTls(options.tls, address.alpn);
    return tls.createServer({ ...settings, allowHalfOpen: false, handshakeTimeout });
  } catch (cause) {
    throw unusableTls(action, cause);
  }
}

function bind(
  server: net.Server,
  address: SocketAddress,
  reusePort: boolean,
  action: string,
): Promise<void> {
  return new Promise((resolve, reject) => {
    const onError = (cause: unknown) => reject(connectionFailed(action, cause));
    server.once("error", onError);
    server.listen({ ...socketTarget(address), ...(reusePort ? { reusePort } : {}) }, () => {
      server.off("error", onError);
      resolve();
    });
  });
}

function acceptedLink(
  socket: net.Socket,
  address: SocketAddress,
  options: ListenOptions,
  peerCertificate: Uint8Array | undefined,
): Link {
  const { local, remote } = socketEnds(socket, address, "listener");
  const encrypted = options.tls !== undefined;
  return new NodeLink(socket, linkInfo(address, local, remote, { encrypted, peerCertificate }));
}
