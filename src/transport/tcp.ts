/**
 * TCP, plain or with TLS 1.3: the transport of `tcp://` addresses.
 *
 * @module
 */

import type { Runtime, SocketAddress } from "../runtime/runtime.ts";
import { type Address, formatAddress, parseAddress, parseDialAddress } from "./address.ts";
import type { Transport } from "./transport.ts";

const SCHEME = "tcp";

/** Makes the TCP transport over the sockets of a runtime. Its methods also throw `ConfigError` for an address that is none. */
export function tcpTransport(runtime: Runtime): Transport {
  return {
    scheme: SCHEME,
    priority: 60,
    capabilities: {
      reliable: true,
      ordered: true,
      multiplexed: false,
      encrypted: true,
      peerAuthenticated: true,
      maxMessageSize: undefined,
    },
    dial: async (address, options) =>
      await runtime.connect(socketAddress(parseDialAddress(address)), options),
    listen: async (address, options) =>
      await runtime.listen(socketAddress(parseAddress(address)), options),
  };
}

function socketAddress({ host, port }: Address): SocketAddress {
  return {
    scheme: SCHEME,
    host,
    port,
    formatUrl: (host, port) => formatAddress(SCHEME, host, port),
  };
}
