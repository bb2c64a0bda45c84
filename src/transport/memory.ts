/**
 * Links inside one process: the transport of `memory://name` addresses. For endpoints that share a
 * process, and for tests in real time; virtual time is in `@hawser/hawser/testing`.
 *
 * @module
 */

import { TransportError } from "../errors.ts";
import { canonicalAddress, formatAddress, parseAddress } from "./address.ts";
import { MemoryLink } from "./memory_link.ts";
import type {
  DialOptions,
  Link,
  LinkInfo,
  Listener,
  ListenOptions,
  Transport,
} from "./transport.ts";

const SCHEME = "memory";
/** What dialers are called: they have no name of their own. */
const DIALER_HOST = "local";
const MAX_PORT = 65_535;

/** Who listens in this process, by address. */
const listeners = new Map<string, ListenOptions>();
let dials = 0;

/** Makes the transport inside one process. Its methods also throw `ConfigError` for an address that is none. */
export function memoryTransport(): Transport {
  return {
    scheme: SCHEME,
    // No system call is made.
    priority: 90,
    capabilities: {
      reliable: true,
      ordered: true,
      multiplexed: false,
      encrypted: false,
      peerAuthenticated: false,
      maxMessageSize: undefined,
    },
    dial: (address, options) => dial(canonicalAddress(parseAddress(address)), options),
    listen: async (address, options) =>
      await listen(canonicalAddress(parseAddress(address)), options),
  };
}

function listen(address: string, options: ListenOptions): Promise<Listener> {
  if (listeners.has(address)) {
    const cause = new Error("address in use");
    const message = `Cannot listen on ${address}: ${cause.message}`;
    return Promise.reject(new TransportError("ConnectionFailed", message, { cause }));
  }
  // An object of its own: the same options may be used for the next listener.
  const own = { ...options };
  listeners.set(address, own);
  const close = () => {
    if (listeners.get(address) === own) listeners.delete(address);
    return Promise.resolve();
  };
  return Promise.resolve({ address, close });
}

async function dial(address: string, { signal }: DialOptions): Promise<Link> {
  signal.throwIfAborted();
  await new Promise<void>((resolve) => void setImmediate(resolve));
  signal.throwIfAborted();
  const listener = listeners.get(address);
  const release = listener?.admit(DIALER_HOST);
  if (listener === undefined || release === undefined) {
    const why = listener === undefined ? "nobody listens there" : "refused";
    throw new TransportError("ConnectionFailed", `Cannot connect to ${address}: ${why}`);
  }
  const own = formatAddress(SCHEME, DIALER_HOST, 1 + dials++ % MAX_PORT);
  const [dialing, accepting] = MemoryLink.pair(
    linkInfo(own, address),
    linkInfo(address, own),
    release,
  );
  listener.onLink(accepting);
  return dialing;
}

function linkInfo(localAddress: string, remoteAddress: string): LinkInfo {
  return {
    protocol: SCHEME,
    localAddress,
    remoteAddress,
    remoteHost: parseAddress(remoteAddress).host,
    encrypted: false,
    peerCertificate: undefined,
  };
}
