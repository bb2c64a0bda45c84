/**
 * The hellos that come as datagrams: judging them, and the places of those that were accepted.
 *
 * @module
 */

import { HandshakeError, type RejectCode, type TransportError } from "../errors.ts";
import type { ResolvedOptions } from "../options.ts";
import { CookieJar } from "../protocol/datagram/cookie.ts";
import {
  type Greeter,
  type Greeting,
  judgeHelloPacket,
  rejectPacket,
  welcome,
} from "../protocol/datagram/greeting.ts";
import type { DatagramLink } from "../protocol/datagram/link.ts";
import { encodeRetry, type HelloPacket, readHello } from "../protocol/datagram/packet.ts";
import { PACKET, TAG_BYTES } from "../protocol/datagram/types.ts";
import type { Hello } from "../protocol/hello.ts";
import type { Negotiated } from "../protocol/negotiate.ts";
import type { Rejection } from "../protocol/rejection.ts";
import { ReplayWindow } from "../protocol/replay.ts";
import { quote } from "../protocol/text.ts";
import { encodeGoawayPayload } from "../protocol/v3/payloads.ts";
import type { Environment } from "../runtime/environment.ts";
import type { DatagramStats } from "../stats.ts";
import type { DatagramSocket } from "../transport/transport.ts";
import { hostOf, keyOf, networkOf } from "./datagram_addresses.ts";
import type { DatagramLinkParts } from "./datagram_link_parts.ts";
import { BYE, type DatagramPeer } from "./datagram_peer.ts";

/** What accepting needs of the datagrams around it. */
export interface DatagramAcceptorHost {
  readonly options: ResolvedOptions;
  readonly environment: Environment;
  readonly greeter: Greeter;
  readonly counters: DatagramStats;
  /** No new peers. */
  readonly closing: boolean;
  /** Usable links of all peers. */
  readonly links: Iterable<DatagramLink>;
  /** Whether hellos are taken on this socket. */
  listensOn(socket: DatagramSocket): boolean;
  /** A peer by its node id. */
  peer(nodeId: string): DatagramPeer | undefined;
  /** The number of one more table of answers. */
  nextGeneration(): number;
  /** Makes a link to who has sent a hello. */
  newLink(parts: DatagramLinkParts): DatagramLink;
  /** Such a link is of no use. */
  dropLink(link: DatagramLink): void;
  /** The link is a peer's from now on; a peer that is new gets this table of answers. */
  admit(link: DatagramLink, generation: number): void;
  send(socket: DatagramSocket, packet: Uint8Array, to: string): boolean;
  /** A hello was refused. */
  onRefused(error: TransportError, from: string): void;
}

/** A hello was accepted; its dialer has not been heard of since. */
interface Pending {
  readonly link: DatagramLink;
  readonly welcome: Uint8Array;
  readonly dialer: string;
  readonly generation: number;
  readonly host: string;
  readonly network: string;
  readonly cancel: () => void;
}

/** Accepted hellos whose dialers have not been heard of, in all and from one network. */
const MAX_PENDING = 1024;
const MAX_PENDING_PER_NETWORK = 64;
/** Hellos of one network that are looked at in a second; more are ignored, and come again. */
const MAX_JUDGED_PER_NETWORK = 100;
/** Hellos that are remembered of one node. */
const MAX_HELLOS_PER_NODE = 8_192;
/** A peer whose name another process claims has so long to answer. */
const CONTENTION_MS = 1_000;

/** Accepts hellos. */
export class DatagramAcceptor {
  readonly #host: DatagramAcceptorHost;
  readonly #cookies: CookieJar;
  readonly #replay: ReplayWindow;
  readonly #pending = new Map<string, Pending>();
  /** Tags of what is pending, by address and tag of the dialer. */
  readonly #dialers = new Map<string, string>();
  /** Hellos that were judged in this second, by network. */
  readonly #judged = new Map<string, number>();
  #judgedSince = -Infinity;

  /** Nothing has come yet. */
  constructor(host: DatagramAcceptorHost) {
    this.#host = host;
    const { environment, greeter, options } = host;
    this.#cookies = new CookieJar(greeter.sha256, environment.randomBytes(32));
    this.#replay = new ReplayWindow({
      maxSkewMs: options.maxClockSkewMs,
      maxPerNode: MAX_HELLOS_PER_NODE,
    });
  }

  /** A hello came. */
  onHello(socket: DatagramSocket, tag: Uint8Array, packet: Uint8Array, from: string): void {
    const hello = readHello(packet);
    if (this.#host.closing || !this.#host.listensOn(socket)) {
      this.#host.counters.unknown++;
      return;
    }
    const now = this.#host.environment.now();
    if (!this.#cookies.check(hello.cookie, from, tag, now)) {
      const cookie = this.#cookies.make(from, tag, now);
      this.#host.send(socket, encodeRetry(tag, cookie), from);
      return;
    }
    const pending = this.#pending.get(this.#dialers.get(dialerKey(from, tag)) ?? "");
    if (pending !== undefined) this.#host.send(socket, pending.welcome, from);
    else if (this.#mayJudge(networkOf(from), now)) this.#judge(socket, tag, hello, from);
    else this.#host.counters.refused++;
  }

  /** Judging may take a signature: a network can't have it done as often as it likes. */
  #mayJudge(network: string, now: number): boolean {
    if (now - this.#judgedSince >= 1000 || this.#judged.size >= MAX_PENDING) {
      this.#judgedSince = now;
      this.#judged.clear();
    }
    const count = (this.#judged.get(network) ?? 0) + 1;
    this.#judged.set(network, count);
    return count <= MAX_JUDGED_PER_NETWORK;
  }

  #judge(socket: DatagramSocket, tag: Uint8Array, packet: HelloPacket, from: string): void {
    const wallClockMs = this.#host.environment.wallClock();
    const verdict = judgeHelloPacket(this.#host.greeter, tag, packet, wallClockMs);
    if ("reject" in verdict) return this.#reject(socket, tag, verdict.reject, verdict.nodeId, from);
    const { accept, hello, publicKey } = verdict;
    const contention = this.#contend(accept);
    // The dialer asks again; by then it is known whether there are two of the same name.
    if (contention === "wait") return;
    const refusal = contention ?? this.#refusal(hello, from);
    if (refusal !== undefined) return this.#reject(socket, tag, refusal, accept.nodeId, from);
    this.#accept(socket, { tag: tag.slice(), negotiated: accept, publicKey }, from);
  }

  #accept(socket: DatagramSocket, greeting: Greeting, from: string): void {
    const { environment, options, greeter } = this.#host;
    const { tag, negotiated } = greeting;
    const ownTag = environment.randomBytes(TAG_BYTES);
    const generation = this.#generationFor(negotiated);
    const welcomed = welcome(greeter, greeting, {
      ownTag,
      wallClockMs: environment.wallClock(),
      nonce: environment.randomBytes(16),
      generation,
    });
    if ("code" in welcomed) return this.#reject(socket, tag, welcomed, negotiated.nodeId, from);
    const { packet, keys } = welcomed;
    const link = this.#host.newLink({
      socket,
      negotiated,
      keys,
      ownTag,
      peerTag: tag,
      dialed: false,
      address: from,
    });
    const key = keyOf(ownTag);
    const dialer = dialerKey(from, tag);
    const cancel = environment.setTimer(options.connectTimeoutMs, () => {
      this.#unpend(key);
      this.#host.dropLink(link);
    });
    const [host, network] = [hostOf(from), networkOf(from)];
    this.#pending.set(key, { link, welcome: packet, dialer, generation, host, network, cancel });
    this.#dialers.set(dialer, key);
    this.#host.send(socket, packet, from);
  }

  /** A link of what is pending, by our tag. */
  pendingLink(key: string): DatagramLink | undefined {
    return this.#pending.get(key)?.link;
  }

  /** The dialer of what is pending was heard of. False: there is no place for it any more. */
  confirm(key: string): boolean {
    const pending = this.#pending.get(key);
    if (pending === undefined) return false;
    const { link, generation } = pending;
    const { nodeId, negotiated: { incarnation } } = link;
    const peer = this.#host.peer(nodeId);
    const same = peer?.incarnation === incarnation && incarnation !== undefined;
    // Another process of that name was quicker; the dialer asks again, and is told so.
    const taken = peer !== undefined && peer.links.length > 0 && !same;
    if (this.#host.closing || taken) {
      this.#abandon(key, pending);
      return false;
    }
    pending.cancel();
    this.#unpend(key);
    this.#host.admit(link, generation);
    return true;
  }

  /** A peer is forgotten: who was told of its table of answers, which goes with it, must ask again. */
  forget({ nodeId, incarnation }: DatagramPeer): void {
    if (incarnation === undefined) return;
    for (const [key, pending] of [...this.#pending]) {
      if (pending.link.nodeId === nodeId) this.#abandon(key, pending);
    }
  }

  /** Nothing is pending any more. */
  end(): void {
    for (const { cancel } of this.#pending.values()) cancel();
    this.#pending.clear();
    this.#dialers.clear();
  }

  /** Takes back that a hello was accepted. */
  #abandon(key: string, { link, cancel }: Pending): void {
    cancel();
    this.#unpend(key);
    const reason = encodeGoawayPayload(BYE.closing, "");
    link.send(PACKET.bye, reason, this.#host.environment.wallClock());
    this.#host.dropLink(link);
  }

  #unpend(key: string): void {
    const pending = this.#pending.get(key);
    if (pending === undefined) return;
    this.#pending.delete(key);
    this.#dialers.delete(pending.dialer);
  }

  /** What a node is told of its table of answers: there is one for each process. */
  #generationFor({ nodeId, incarnation }: Negotiated): number {
    const peer = this.#host.peer(nodeId);
    if (peer !== undefined) return peer.generation;
    for (const { link, generation } of this.#pending.values()) {
      const same = link.nodeId === nodeId && link.negotiated.incarnation === incarnation;
      if (same) return generation;
    }
    return this.#host.nextGeneration();
  }

  /** Whether the name that a hello has is that of a peer which lives. */
  #contend({ nodeId, incarnation }: Negotiated): "wait" | Rejection | undefined {
    const peer = this.#host.peer(nodeId);
    if (peer === undefined || peer.links.length === 0) return undefined;
    if (peer.incarnation === incarnation && incarnation !== undefined) return undefined;
    const { contention } = peer;
    if (contention === undefined || contention.incarnation !== incarnation) {
      peer.contention = { incarnation, at: this.#host.environment.now() };
      peer.probe(CONTENTION_MS);
      return "wait";
    }
    if (!peer.heardSince(contention.at)) return "wait";
    peer.contention = undefined;
    return { code: "DUPLICATE_NODE_ID", reason: "a node with this id is connected" };
  }

  #refusal({ nodeId, timestamp, nonce }: Hello, from: string): Rejection | undefined {
    const { options, environment } = this.#host;
    const accepted = [...this.#host.links].filter((link) => !link.dialed);
    const host = hostOf(from);
    const ofHost = accepted.filter((link) => hostOf(link.address) === host).length;
    const network = networkOf(from);
    let [pendingOfHost, pendingOfNetwork] = [0, 0];
    for (const pending of this.#pending.values()) {
      if (pending.host === host) pendingOfHost++;
      if (pending.network === network) pendingOfNetwork++;
    }
    const pending = this.#pending.size;
    const tooMany = pending >= MAX_PENDING || pendingOfNetwork >= MAX_PENDING_PER_NETWORK ||
      accepted.length + pending >= options.maxConnections ||
      ofHost + pendingOfHost >= options.maxConnectionsPerHost;
    if (tooMany) return { code: "TOO_MANY_CONNECTIONS", reason: "too many nodes are connected" };
    if (timestamp === undefined || nonce === undefined) return undefined;
    if (this.#replay.admit(nodeId, timestamp, nonce, environment.wallClock())) return undefined;
    return { code: "REPLAYED", reason: "this hello, or one as old as it, was seen before" };
  }

  #reject(
    socket: DatagramSocket,
    tag: Uint8Array,
    rejection: Rejection,
    nodeId: string | undefined,
    from: string,
  ): void {
    this.#host.counters.refused++;

    this.#host.send(socket, rejectPacket(tag, rejection), from);
    const { code, reason, error } = rejection;
    const who = nodeId === undefined ? from : quote(nodeId);
    const refused = error ?? refusedError(who, code, reason);
    this.#host.onRefused(refused, from);
  }
}

function dialerKey(from: string, tag: Uint8Array): string {
  return `${from} ${keyOf(tag)}`;
}

function refusedError(who: string, code: RejectCode, reason: string): HandshakeError {
  return new HandshakeError(`Cannot accept ${who}: ${reason}`, code);
}
