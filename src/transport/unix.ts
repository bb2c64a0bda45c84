/**
 * Unix sockets, plain or with TLS 1.3: the transport of `unix:` addresses.
 *
 * @module
 */

import { connectUnix } from "../runtime/unix_connect.ts";
import { listenUnix } from "../runtime/unix_listen.ts";
import { UNIX_UNAVAILABLE, unixAddress } from "../runtime/unix_address.ts";
import { formatAddress, parseAddress, parseDialAddress } from "./address.ts";
import type { Transport } from "./transport.ts";

const SCHEME = "unix";

/**
 * Makes the transport of Unix sockets. Its methods also throw `ConfigError` for an address that is
 * none.
 */
export function unixTransport(): Transport {
  return {
    scheme: SCHEME,
    // Nothing is faster between processes of one machine.
    priority: 80,
    unavailable: UNIX_UNAVAILABLE,
    capabilities: {
      reliable: true,
      ordered: true,
      multiplexed: false,
      encrypted: true,
      peerAuthenticated: true,
      maxMessageSize: undefined,
    },
    dial: async (address, options) =>
      await connectUnix(socketAddress(parseDialAddress(address).path), options),
    listen: async (address, options) =>
      await listenUnix(socketAddress(parseAddress(address).path), options),
  };
}

function socketAddress(path: string) {
  return unixAddress(SCHEME, path, formatAddress(SCHEME, "", 0, path));
}
