/**
 * What a link says of itself, from what a socket knows.
 *
 * @module
 */

import type { LinkInfo } from "../transport/transport.ts";
import type { SocketAddress } from "./sockets.ts";

/** Host and port of one end of a socket. */
export interface SocketEnd {
  readonly host: string;
  readonly port: number;
}

/** Gathers what is known of an established socket. */
export function linkInfo(
  address: SocketAddress,
  local: SocketEnd,
  remote: SocketEnd,
  { encrypted, peerCertificate }: Pick<LinkInfo, "encrypted" | "peerCertificate">,
): LinkInfo {
  const remoteHost = normalizeHost(remote.host);
  return {
    protocol: address.scheme,
    localAddress: address.formatUrl(normalizeHost(local.host), local.port),
    remoteAddress: address.formatUrl(remoteHost, remote.port),
    remoteHost,
    encrypted,
    peerCertificate,
  };
}

/** Writes an IPv4 address that a dual-stack socket shows as IPv6 (`::ffff:127.0.0.1`) as IPv4. */
export function normalizeHost(host: string): string {
  const mapped = /^::ffff:(?:(\d+\.\d+\.\d+\.\d+)|([0-9a-f]{1,4}):([0-9a-f]{1,4}))$/i.exec(host);
  if (mapped === null) return host;
  if (mapped[1] !== undefined) return mapped[1];
  const [high, low] = [parseInt(mapped[2] ?? "", 16), parseInt(mapped[3] ?? "", 16)];
  return [high >> 8, high & 255, low >> 8, low & 255].join(".");
}
