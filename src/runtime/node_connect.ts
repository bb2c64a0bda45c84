/**
 * Dialing with `node:net` and `node:tls`.
 *
 * @module
 */

import * as net from "node:net";
import * as tls from "node:tls";
import { TransportError } from "../errors.ts";
import type { DialOptions, Link, LinkTls } from "../transport/transport.ts";
import { linkInfo } from "./link_info.ts";
import { NodeLink } from "./node_link.ts";
import { configureSocket, socketEnds, socketTarget } from "./node_socket.ts";
import { connectionFailed, handshakeFailed, isNetworkError, unusableTls } from "./socket_errors.ts";
import type { SocketAddress } from "./sockets.ts";
import { checkTls } from "./tls_check.ts";
import { dialerTls, verifiedCertificate } from "./tls_settings.ts";

/** Opens a connection; see {@linkcode Runtime.connect} for what it throws. */
export function connectNode(address: SocketAddress, options: DialOptions): Promise<Link> {
  return new Promise((resolve, reject) => {
    const { signal } = options;
    signal.throwIfAborted();
    const action = `connect to ${address.formatUrl(address.host, address.port)}`;
    const socket = openSocket(address, options.tls, action);
    let connected = false;

    const fail = (reason: unknown) => {
      signal.removeEventListener("abort", onAbort);
      socket.destroy();
      reject(reason);
    };
    const onAbort = () => fail(signal.reason);
    const onError = (cause: unknown) => {
      const duringTls = connected && options.tls !== undefined && !isNetworkError(cause);
      fail(duringTls ? handshakeFailed(action, cause) : connectionFailed(action, cause));
    };
    const onClose = () => fail(connectionFailed(action, new Error("the connection was closed")));
    const onReady = () => {
      const link = makeLink(socket, address, options, action);
      if (link instanceof TransportError) return fail(link);
      signal.removeEventListener("abort", onAbort);
      socket.off("close", onClose);
      socket.off("error", onError);
      resolve(link);
    };

    signal.addEventListener("abort", onAbort);
    // Stays until the link takes over: an error after a failure has nobody else to catch it.
    socket.on("error", onError);
    socket.once("close", onClose);
    socket.once("connect", () => {
      connected = true;
    });
    socket.once(options.tls ? "secureConnect" : "connect", onReady);
  });
}

function openSocket(
  address: SocketAddress,
  security: LinkTls | undefined,
  action: string,
): net.Socket {
  const target = socketTarget(address);
  if (security === undefined) return net.connect({ ...target, allowHalfOpen: true });
  try {
    checkTls(security);
    // @types/node has `allowHalfOpen` for a TLS server only; Node, Deno and Bun all honour it here.
    const half = { allowHalfOpen: true };
    // What listens at a path is on this machine, which is the name its certificate is held against.
    const host = address.path === undefined ? address.host : "localhost";
    return tls.connect({ ...target, ...half, ...dialerTls(security, host, address.alpn) });
  } catch (cause) {
    throw unusableTls(action, cause);
  }
}

function makeLink(
  socket: net.Socket,
  address: SocketAddress,
  options: DialOptions,
  action: string,
): Link | TransportError {
  const security = options.tls;
  let peerCertificate: Uint8Array | undefined;
  if (security !== undefined) {
    const secure = socket as tls.TLSSocket;
    const verified = verifiedCertificate(secure, true, action, address.alpn);
    if (verified instanceof TransportError) return verified;
    if (security.needPeerCertificate) peerCertificate = verified;
  }
  configureSocket(socket, options.keepaliveSecs);
  const { local, remote } = socketEnds(socket, address, "dialer");
  const encrypted = security !== undefined;
  return new NodeLink(socket, linkInfo(address, local, remote, { encrypted, peerCertificate }));
}
