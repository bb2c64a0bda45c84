/**
 * UDP: the transport of `udp://` addresses. Its packets are no links: the endpoint speaks the
 * datagram protocol over its sockets (docs/datagrams.md).
 *
 * @module
 */

import { TransportError } from "../errors.ts";
import { bindDatagrams, resolveHost } from "../runtime/datagram_socket.ts";
import { formatAddress, parseAddress, parseDialAddress } from "./address.ts";
import type { DatagramRoute, Transport } from "./transport.ts";

const SCHEME = "udp";
/** The longest packet, 65,507 bytes, without what stands before the message in it. */
const MAX_MESSAGE_BYTES = 65_480;

/** Makes the UDP transport. */
export function udpTransport(): Transport {
  return {
    scheme: SCHEME,
    priority: 10,
    capabilities: {
      reliable: false,
      ordered: false,
      multiplexed: false,
      // With the keys of `signing`: without them packets are in clear.
      encrypted: true,
      peerAuthenticated: false,
      maxMessageSize: MAX_MESSAGE_BYTES,
    },
    dial: (address) => Promise.reject(noLink("connect to", address)),
    listen: (address) => Promise.reject(noLink("listen on", address)),
    bind: async (address, options) => {
      const { host, port } = parseAddress(address);
      const numeric = await resolveHost(host);
      return await bindDatagrams({ scheme: SCHEME, host: numeric, port, formatUrl }, options);
    },
    resolve: async (address): Promise<DatagramRoute> => {
      const { host, port } = parseDialAddress(address);
      const numeric = await resolveHost(host);
      const any = numeric.includes(":") ? "::" : "0.0.0.0";
      return { remote: formatUrl(numeric, port), local: formatUrl(any, 0) };
    },
  };
}

function formatUrl(host: string, port: number): string {
  return formatAddress(SCHEME, host, port);
}

function noLink(action: string, address: string): TransportError {
  const text = `Cannot ${action} ${address}: datagrams are no link`;
  return new TransportError("UnsupportedProtocol", text, {
    recovery: "give the address to an endpoint, in listen or connect",
  });
}
