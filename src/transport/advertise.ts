/**
 * Which of our addresses a peer is told in the handshake.
 *
 * @module
 */

import { type Address, canonicalAddress, readAddress } from "./address.ts";
import type { LinkInfo } from "./transport.ts";

/** All addresses go into one handshake message of 4096 bytes, beside much else. */
const MAX_BYTES = 1024;
const MAX_ADDRESSES = 16;
/** Schemes whose addresses mean nothing on another machine. */
const ON_THIS_MACHINE: ReadonlySet<string> = new Set(["unix", "memory"]);

/**
 * What `listening` is to the peer at the other end of a link: 0.0.0.0 and [::] become the address
 * that it has reached us at, and what only leads to this machine is told on this machine only.
 */
export function advertisedAddresses(listening: readonly string[], info: LinkInfo): string[] {
  const local = ON_THIS_MACHINE.has(info.protocol) || isLoopback(info.remoteHost);
  const told = new Set<string>();
  let bytes = 0;
  for (const text of listening) {
    const address = readAddress(text);
    const seen = typeof address === "string" ? undefined : asSeen(address, info, local);
    if (seen === undefined || told.has(seen) || !/^[!-~]{1,200}$/.test(seen)) continue;
    bytes += seen.length;
    if (bytes > MAX_BYTES || told.size === MAX_ADDRESSES) break;
    told.add(seen);
  }
  return [...told];
}

function asSeen(address: Address, info: LinkInfo, local: boolean): string | undefined {
  const { scheme, host, port } = address;
  if (ON_THIS_MACHINE.has(scheme)) return local ? canonicalAddress(address) : undefined;
  if (port === 0) return undefined;
  if (!isUnspecified(host)) {
    return local || !isLoopback(host) ? canonicalAddress(address) : undefined;
  }
  const here = readAddress(info.localAddress);
  if (typeof here === "string" || here.host === "" || isUnspecified(here.host)) return undefined;
  // 0.0.0.0 takes no IPv6.
  if (host === "0.0.0.0" && here.host.includes(":")) return undefined;
  return canonicalAddress({ ...address, host: here.host });
}

function isUnspecified(host: string): boolean {
  return host === "0.0.0.0" || host === "::" || host === "0:0:0:0:0:0:0:0";
}

function isLoopback(host: string): boolean {
  return /^127\./.test(host) || host === "::1" || host === "localhost" || host === "unix";
}
