/**
 * WebSocket: the transports of `ws://` and, with TLS 1.3, `wss://` addresses. The same frames and
 * the same sockets on every runtime, so that backpressure and certificates are what they are for
 * TCP.
 *
 * @module
 */

import { TransportError } from "../errors.ts";
import type { Runtime, SocketAddress } from "../runtime/runtime.ts";
import { type Address, formatAddress, parseAddress, parseDialAddress } from "./address.ts";
import type {
  DialOptions,
  Link,
  LinkTls,
  Listener,
  ListenOptions,
  Transport,
} from "./transport.ts";
import { UpgradeAccepted, upgradeDialed } from "./websocket_upgrade.ts";

const DEFAULT_PORTS = { ws: 80, wss: 443 } as const;
/** What proxies and servers know; our own protocol is named by the subprotocol. */
const ALPN_PROTOCOL = "http/1.1";

/** Who dials `wss://` without certificates of its own asks the authorities of the runtime. */
const PUBLIC_AUTHORITIES: LinkTls = {
  cert: undefined,
  key: undefined,
  ca: undefined,
  requireClientAuth: false,
  verifyHostName: true,
  needPeerCertificate: false,
};

/**
 * Makes both transports over the sockets of a runtime. Their methods also throw `ConfigError` for
 * an address that is none.
 */
export function webSocketTransports(runtime: Runtime): Transport[] {
  return [webSocketTransport(runtime, "ws"), webSocketTransport(runtime, "wss")];
}

function webSocketTransport(runtime: Runtime, scheme: "ws" | "wss"): Transport {
  const encrypted = scheme === "wss";
  return {
    scheme,
    priority: encrypted ? 40 : 30,
    capabilities: {
      reliable: true,
      ordered: true,
      multiplexed: false,
      encrypted,
      peerAuthenticated: encrypted,
      maxMessageSize: undefined,
    },
    dial: async (address, options) => {
      const parsed = parseDialAddress(address);
      if (!encrypted) refuseTls(options.tls, address);
      const tls = encrypted ? options.tls ?? PUBLIC_AUTHORITIES : undefined;
      return await dial(runtime, parsed, { ...options, tls });
    },
    listen: async (address, options) => {
      const parsed = parseAddress(address);
      if (!encrypted) refuseTls(options.tls, address);
      else if (options.tls === undefined) throw certificateNeeded(address);
      return await listen(runtime, parsed, options);
    },
  };
}

async function dial(runtime: Runtime, address: Address, options: DialOptions): Promise<Link> {
  const { scheme, host, port, path } = address;
  const inner = await runtime.connect(socketAddress(address), options);
  const target = {
    url: formatAddress(scheme, host, port, path),
    host: hostHeader(address),
    path,
    offerProof: options.tls !== undefined,
  };
  return await upgradeDialed(inner, target, options.signal);
}

async function listen(
  runtime: Runtime,
  address: Address,
  options: ListenOptions,
): Promise<Listener> {
  const upgrades = new Set<UpgradeAccepted>();
  let closed = false;
  const onLink = (inner: Link) => {
    if (closed) return inner.close();
    const upgrade = new UpgradeAccepted(inner, {
      path: address.path,
      timeoutMs: options.handshakeTimeoutMs,
      onLink: options.onLink,
      onError: (error) => options.onError(error, inner.info.remoteHost),
    }, (upgrade) => upgrades.delete(upgrade));
    upgrades.add(upgrade);
  };
  const listener = await runtime.listen(socketAddress(address), { ...options, onLink });
  return {
    address: listener.address,
    close: async () => {
      closed = true;
      for (const upgrade of [...upgrades]) upgrade.close();
      await listener.close();
    },
  };
}

function socketAddress({ scheme, host, port, path }: Address): SocketAddress {
  return {
    scheme,
    host,
    port,
    alpn: ALPN_PROTOCOL,
    formatUrl: (host, port) => formatAddress(scheme, host, port, path),
  };
}

/** RFC 9110, section 7.2: without the scheme's own port, and without the zone of an IPv6 address. */
function hostHeader({ scheme, host, port }: Address): string {
  const bare = host.replace(/%.*$/, "");
  const name = bare.includes(":") ? `[${bare}]` : bare;
  return port === DEFAULT_PORTS[scheme as "ws" | "wss"] ? name : `${name}:${port}`;
}

/** Who has certificates never falls back to plain text. */
function refuseTls(tls: LinkTls | undefined, address: string): void {
  if (tls === undefined) return;
  throw new TransportError(
    "TlsRequired",
    `Cannot use ${address}: ws does not encrypt, and tls is given`,
    { recovery: "use wss, or leave tls out in development mode" },
  );
}

function certificateNeeded(address: string): TransportError {
  return new TransportError("TlsRequired", `Cannot listen on ${address}: tls is not given`);
}
