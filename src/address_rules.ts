/**
 * Which addresses an endpoint can use: by which transport, and in which security mode.
 *
 * @module
 */

import { HandshakeError } from "./errors.ts";
import { checkTransport } from "./link_tls.ts";
import { OBJECT_SOURCE } from "./option_reader.ts";
import type { PeerAddress, ResolvedOptions } from "./options.ts";
import { checkDatagrams } from "./peer/datagrams.ts";
import { addressesOf, resolvePeer } from "./resolve_addresses.ts";
import { resolveOptions } from "./resolve_options.ts";
import {
  canonicalAddress,
  isDialable,
  parseAddress,
  parseDialAddress,
  readAddress,
} from "./transport/address.ts";
import { mayLeadTo } from "./transport/advertise.ts";
import type { TransportRegistry } from "./transport/registry.ts";
import {
  DEFAULT_PRIORITY,
  type DialOptions,
  type Link,
  type LinkInfo,
  type Transport,
} from "./transport/transport.ts";

/** The addresses of a peer, by what they carry. */
export interface SplitAddresses {
  /** Those for connections. */
  readonly links: readonly string[];
  /** The first one for datagrams. */
  readonly datagram: string | undefined;
}

/** What an endpoint's options and transports say of addresses. */
export class AddressRules {
  readonly #options: ResolvedOptions;
  readonly #registry: TransportRegistry;

  constructor(options: ResolvedOptions, registry: TransportRegistry) {
    this.#options = options;
    this.#registry = registry;
  }

  /** The transport of an address. */
  transport(address: string): Transport {
    return this.#registry.get(parseAddress(address).scheme);
  }

  /** Dials an address, if the security mode allows it. */
  async dial(address: string, options: DialOptions): Promise<Link> {
    const transport = this.transport(address);
    this.#check(transport, address);
    return await transport.dial(address, options);
  }

  /** Checks that the security mode allows connections at an address. */
  checkLinks(address: string): void {
    this.#check(this.transport(address), address);
  }

  /** Checks that the security mode allows datagrams at an address. */
  checkDatagrams(address: string): void {
    checkDatagrams(this.#options, address);
  }

  /** Where there are links, too, an address that the security mode rules out is left out. */
  allowsDatagrams(address: string): boolean {
    try {
      this.checkDatagrams(address);
      return true;
    } catch {
      return false;
    }
  }

  /** Whether an address is reached by datagrams. */
  isDatagram(address: string): boolean {
    return this.transport(address).bind !== undefined;
  }

  /** The addresses for links, and the first one for datagrams. */
  split(addresses: readonly string[]): SplitAddresses {
    const schemes = new Set<string>();
    for (const { scheme, bind } of this.#registry.list()) {
      if (bind !== undefined) schemes.add(scheme);
    }
    const isDatagram = (address: string) => schemes.has(parseAddress(address).scheme);
    return {
      links: addresses.filter((one) => !isDatagram(one)),
      datagram: addresses.find(isDatagram),
    };
  }

  /** One address that can be used is enough; others may be for other runtimes. */
  checkUsable(addresses: readonly string[]): void {
    if (addresses.length > 1 && addresses.some((one) => this.priority(one) !== undefined)) return;
    this.transport(addresses[0]!);
  }

  /** How early an address is tried; undefined for one that connections can't be had at. */
  priority(address: string): number | undefined {
    const { scheme } = parseAddress(address);
    const transport = this.#registry.list().find((other) => other.scheme === scheme);
    if (transport === undefined || transport.unavailable !== undefined) return undefined;
    // Datagrams carry no session.
    if (!transport.capabilities.reliable) return undefined;
    try {
      this.#check(transport, address);
    } catch {
      return undefined;
    }
    return transport.priority ?? DEFAULT_PRIORITY;
  }

  /** An address that a peer has told of itself, as it is dialed; undefined if it had better not be. */
  dialable(address: string, info: LinkInfo): string | undefined {
    const parsed = readAddress(address);
    if (typeof parsed === "string" || !isDialable(parsed)) return undefined;
    if (!mayLeadTo(parsed, info)) return undefined;
    const canonical = canonicalAddress(parsed);
    return this.priority(canonical) === undefined ? undefined : canonical;
  }

  /** Checks a peer that an application has named. */
  checkedPeer({ nodeId, address }: PeerAddress): PeerAddress {
    const list = typeof address === "string" ? [address] : address;
    const path = (i: number) => typeof address === "string" ? "address" : `address[${i}]`;
    for (const [i, item] of list.entries()) parseDialAddress(item, path(i));
    // The same rules as for our own node id; the error names the right argument.
    resolveOptions({ nodeId, security: "development" });
    if (nodeId === this.#options.nodeId) {
      throw new HandshakeError("Cannot connect: that is our own node id", "DUPLICATE_NODE_ID", {
        peer: nodeId,
      });
    }
    const checked = resolvePeer({ nodeId, address }, "", OBJECT_SOURCE);
    this.checkUsable(addressesOf(checked));
    return checked;
  }

  #check(transport: Transport, address: string): void {
    const { security, identity, tls } = this.#options;
    checkTransport(transport, security, address, identity !== undefined, tls !== undefined);
  }
}
