/**
 * Which of our addresses a peer is told in the handshake.
 *
 * @module
 */

import { type Address, canonicalAddress, readAddress } from "./address.ts";
import type { LinkInfo } from "./transport.ts";

/** All addresses go into one handshake message of 4096 bytes, beside much else. */
export const MAX_TOLD_BYTES: number = 1024;
const MAX_ADDRESSES = 16;
/** Schemes whose addresses mean nothing on another machine. */
const ON_THIS_MACHINE: ReadonlySet<string> = new Set(["unix", "memory"]);

/** Whether a handshake can tell an address. */
export function canBeTold(address: string): boolean {
  return /^[!-~]{1,200}$/.test(address);
}

/**
 * Whether an address that the peer at the other end of a link has told may lead to it: what leads to
 * this machine only does so where the peer is on this machine.
 */
export function mayLeadTo({ scheme, host }: Address, info: LinkInfo): boolean {
  if (ON_THIS_MACHINE.has(scheme)) return isLocal(info);
  return !isUnspecified(host) && (isLocal(info) || !isLoopback(host));
}

/**
 * What `listening` is to the peer at the other end of a link: 0.0.0.0 and [::] become the address
 * that it has reached us at, and what only leads to this machine is told on this machine only.
 */
export function advertisedAddresses(listening: readonly string[], info: LinkInfo): string[] {
  const local = isLocal(info);
  const told = new Set<string>();
  let bytes = 0;
  for (const text of listening) {
    const address = readAddress(text);
    const seen = typeof address === "string" ? undefined : asSeen(address, info, local);
    if (seen === undefined || told.has(seen) || !canBeTold(seen)) continue;
    bytes += seen.length;
    if (bytes > MAX_TOLD_BYTES || told.size === MAX_ADDRESSES) break;
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

function isLocal({ protocol, remoteHost }: LinkInfo): boolean {
  return ON_THIS_MACHINE.has(protocol) || remoteHost === "unix" || isLoopback(remoteHost);
}

function isUnspecified(host: string): boolean {
  const plain = plainHost(host);
  return plain === "0.0.0.0" || plain === "::";
}

function isLoopback(host: string): boolean {
  const plain = plainHost(host);
  return /^127\./.test(plain) || plain === "::1" || /^(.+\.)?localhost$/.test(plain);
}

/** One spelling of a host: IPv6 as short as can be, and as IPv4 where it stands for that. */
function plainHost(host: string): string {
  if (!host.includes(":")) return host.toLowerCase().replace(/\.$/, "");
  const [address = ""] = host.split("%");
  const url = URL.parse(`http://[${address}]`);
  if (url === null) return host;
  const short = url.hostname.slice(1, -1);
  const mapped = /^::(?:ffff:)?([0-9a-f]{1,4}):([0-9a-f]{1,4})$/.exec(short);
  if (mapped === null) return short;
  const [high, low] = [parseInt(mapped[1]!, 16), parseInt(mapped[2]!, 16)];
  return `${high >> 8}.${high & 255}.${low >> 8}.${low & 255}`;
}
