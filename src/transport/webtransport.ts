/**
 * WebTransport: the transport of `wt://` addresses, sessions of HTTP/3. A link is a bidirectional
 * stream of a session, and everything else is as for QUIC, which lies under both.
 *
 * @module
 */

import { detectRuntime, type Runtime } from "../runtime/runtime.ts";
import type { QuicSockets } from "../runtime/quic.ts";
import { webTransportOf } from "../runtime/webtransport_sockets.ts";
import { type Address, canonicalAddress } from "./address.ts";
import { overQuic } from "./quic.ts";
import type { Transport } from "./transport.ts";
import { sessionSockets } from "./webtransport_session.ts";

/** The scheme of WebTransport addresses. */
export const WEBTRANSPORT_SCHEME = "wt";
const HTTPS_PORT = 443;

/** Options of {@linkcode webTransport}. */
export interface WebTransportOptions {
  /**
   * Origins whose pages in browsers may come in, as browsers name them: "https://example.org".
   * Others are refused; programs that are no browsers name none. Default: none.
   */
  readonly origins?: readonly string[];
}

/**
 * Makes the WebTransport transport with options of its own, to be given to an endpoint in the place
 * of the built-in one.
 *
 * @example
 * ```ts ignore
 * import { Endpoint, webTransport } from "@hawser/hawser";
 *
 * await using endpoint = new Endpoint({
 *   ...options,
 *   transports: [webTransport({ origins: ["https://app.example.org"] })],
 *   listen: "wt://0.0.0.0:443/hawser",
 * });
 * ```
 */
export function webTransport(options: WebTransportOptions = {}): Transport {
  return webTransportOn(detectRuntime(), options);
}

/** Makes it for a runtime. Its methods also throw `ConfigError` for an address that is none. */
export function webTransportOn(
  runtime: Pick<Runtime, "name">,
  options: WebTransportOptions = {},
  sockets: QuicSockets = webTransportOf(runtime).sockets,
): Transport {
  const { unavailable, peerAuthenticated } = webTransportOf(runtime);
  const origins = new Set(options.origins);
  return overQuic({
    scheme: WEBTRANSPORT_SCHEME,
    name: "WebTransport",
    priority: 45,
    unavailable,
    peerAuthenticated,
    sockets: (address) => {
      const target = {
        url: canonicalAddress(address),
        authority: authorityOf(address),
        path: address.path,
      };
      return sessionSockets(sockets, target, { path: address.path, origins });
    },
  });
}

/** Without the port of HTTPS, and without the zone of an IPv6 address, as browsers write it. */
function authorityOf({ host, port }: Address): string {
  const bare = host.replace(/%.*$/, "");
  const name = bare.includes(":") ? `[${bare}]` : bare;
  return port === HTTPS_PORT ? name : `${name}:${port}`;
}
