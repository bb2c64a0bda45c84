/**
 * Whom something is for: a peer that has connections, one that is reached by datagrams, or one that
 * a route leads to.
 *
 * @module
 */

import type { AddressRules } from "./address_rules.ts";
import { TransportError } from "./errors.ts";
import type { PeerAddress } from "./options.ts";
import type { DatagramPeer } from "./peer/datagram_peer.ts";
import type { Datagrams } from "./peer/datagrams.ts";
import type { PeerManager } from "./peer/manager.ts";
import type { Peer } from "./peer/peer.ts";
import { addressesOf } from "./resolve_addresses.ts";
import type { RoutingTable } from "./routing.ts";

/** Everybody that an endpoint can reach, from its start on. */
export class Recipients {
  /** The peers that have connections, or should have. */
  readonly manager: PeerManager;
  /** The peers that are reached by datagrams. */
  readonly datagrams: Datagrams;
  readonly #self: string;
  readonly #rules: AddressRules;
  readonly #routes: RoutingTable;

  /** `self` is our own node id. */
  constructor(
    manager: PeerManager,
    datagrams: Datagrams,
    self: string,
    rules: AddressRules,
    routes: RoutingTable,
  ) {
    this.manager = manager;
    this.datagrams = datagrams;
    this.#self = self;
    this.#rules = rules;
    this.#routes = routes;
  }

  /** A peer that has links, where no peer has datagrams: the usual case, found with one look. */
  onlyLinked(nodeId: string): Peer | undefined {
    return this.datagrams.size === 0 ? this.manager.get(nodeId) : undefined;
  }

  /** Peers that have datagrams and no links. */
  onlyDatagrams(): DatagramPeer[] {
    return [...this.datagrams.peers].filter(({ nodeId }) => this.manager.get(nodeId) === undefined);
  }

  /** A peer, or the one that a recipient is routed to. */
  find(nodeId: string): Peer | undefined {
    return this.manager.get(nodeId) ??
      this.manager.get(this.#routes.resolve(nodeId)?.nodeId ?? nodeId);
  }

  /** A peer that has links. */
  linked(nodeId: string, action: string): Peer {
    const peer = this.manager.get(nodeId);
    if (peer === undefined) throw noSuchPeer(nodeId, action);
    return peer;
  }

  /** A peer that something is to be sent to: one that is only routed is dialed. */
  reach(nodeId: string, action: string): Peer {
    const known = this.find(nodeId);
    if (known !== undefined) return known;
    const route = this.#routes.resolve(nodeId);
    if (route === undefined || route.nodeId === this.#self) throw noSuchPeer(nodeId, action);
    const { links } = this.#rules.split(addressesOf(route));
    if (links.length === 0) throw noDatagramFor(nodeId, action);
    this.#rules.checkUsable(links);
    return this.manager.reach(route.nodeId, links);
  }

  /** A peer that datagrams may be sent to; one that is only routed is dialed. */
  reachByDatagram(nodeId: string): DatagramPeer | undefined {
    const known = this.datagrams.get(nodeId);
    if (known !== undefined || this.manager.get(nodeId) !== undefined) return known;
    const route = this.#routes.resolve(nodeId);
    if (route === undefined || route.nodeId === this.#self) return undefined;
    const { links, datagram } = this.#rules.split(addressesOf(route));
    if (links.length > 0 || datagram === undefined) return undefined;
    this.#rules.checkDatagrams(datagram);
    return this.datagrams.keepConnected(route.nodeId, datagram);
  }

  /** Connects to a peer; resolves when it is there. */
  async connect(peer: PeerAddress, signal: AbortSignal | undefined): Promise<void> {
    const { nodeId } = peer;
    const { links, datagram } = this.#rules.split(addressesOf(peer));
    if (links.length === 0) {
      this.#rules.checkDatagrams(datagram!);
      return await this.datagrams.connect(nodeId, datagram!, signal);
    }
    await this.manager.connect(nodeId, links, signal);
    this.#addDatagrams(nodeId, datagram);
  }

  /** Connects to a peer again and again, until it is there. */
  keepConnected(peer: PeerAddress): void {
    const { links, datagram } = this.#rules.split(addressesOf(peer));
    if (links.length > 0) this.manager.keepConnected(peer.nodeId, links);
    this.#addDatagrams(peer.nodeId, datagram);
  }

  /** Ends all that there is with a peer, and forgets it. */
  async leave(nodeId: string): Promise<void> {
    const peer = this.manager.get(nodeId);
    const datagram = this.datagrams.get(nodeId);
    if (peer === undefined && datagram === undefined) throw noSuchPeer(nodeId, "disconnect");
    const error = new TransportError("ConnectionClosed", "disconnect was called", { peer: nodeId });
    if (datagram !== undefined) this.datagrams.leave(nodeId, error);
    if (peer !== undefined) await this.manager.leave(peer, error);
  }

  #addDatagrams(nodeId: string, address: string | undefined): void {
    if (address === undefined || !this.#rules.allowsDatagrams(address)) return;
    this.datagrams.keepConnected(nodeId, address);
  }
}

/** That something needs a connection, and a peer is reached by datagrams only. */
export function noDatagramFor(nodeId: string, action: string): TransportError {
  const text = `Cannot ${action} ${nodeId}: it is reached by datagrams only`;
  return new TransportError("UnsupportedProtocol", text, {
    peer: nodeId,
    recovery: "connect to it by another transport, too",
  });
}

/** That nobody of that name is known. */
export function noSuchPeer(nodeId: string, action: string): TransportError {
  return new TransportError("PeerNotFound", `Cannot ${action} ${nodeId}: no such peer`, {
    peer: nodeId,
  });
}
