/**
 * Dialing peers that are reached by datagrams.
 *
 * @module
 */

import { TransportError } from "../errors.ts";
import type { ResolvedOptions } from "../options.ts";
import { Backoff } from "../protocol/backoff.ts";
import { Dialing } from "../protocol/datagram/dialing.ts";
import type { Greeter } from "../protocol/datagram/greeting.ts";
import type { DatagramLink } from "../protocol/datagram/link.ts";
import { type PacketKind, TAG_BYTES } from "../protocol/datagram/types.ts";
import type { Environment } from "../runtime/environment.ts";
import type { DatagramStats } from "../stats.ts";
import type { DatagramSocket, Transport } from "../transport/transport.ts";
import { keyOf } from "./datagram_addresses.ts";
import type { DatagramLinkParts } from "./datagram_link_parts.ts";
import type { DatagramPeer } from "./datagram_peer.ts";

/** What dialing needs of the datagrams around it. */
export interface DatagramDialerHost {
  readonly options: ResolvedOptions;
  readonly environment: Environment;
  readonly greeter: Greeter;
  readonly counters: DatagramStats;
  /** Nothing is dialed any more. */
  readonly closing: boolean;
  /** Whether a peer was not forgotten. */
  knows(peer: DatagramPeer): boolean;
  /** Throws where the security mode forbids an address. */
  check(address: string): void;
  /** The transport of an address; it has `bind`. */
  transport(address: string): Transport;
  /** The socket for packets to an address. */
  socketFor(local: string, remote: string): Promise<DatagramSocket>;
  /** Makes a link to who has answered. */
  newLink(parts: DatagramLinkParts): DatagramLink;
  /** The link is the peer's from now on. */
  attach(peer: DatagramPeer, link: DatagramLink): void;
  send(socket: DatagramSocket, packet: Uint8Array, to: string): boolean;
  /** An attempt failed. */
  onFailed(error: TransportError, peer: DatagramPeer): void;
}

/** An attempt to connect. */
interface Attempt {
  readonly dialing: Dialing;
  readonly peer: DatagramPeer;
  readonly tag: Uint8Array;
  readonly socket: DatagramSocket;
  readonly remote: string;
  settle(error?: unknown): void;
  cancelTimer: () => void;
}

/** The time after which a hello is sent again. */
const HELLO_DELAY_MS = 200;

/** Dials. */
export class DatagramDialer {
  readonly #host: DatagramDialerHost;
  readonly #attempts = new Map<string, Attempt>();
  /** Peers that are to be dialed later, with what cancels that. */
  readonly #redials = new Map<DatagramPeer, () => void>();
  /** Peers that are being dialed. */
  readonly #dialed = new Set<DatagramPeer>();

  /** Dials nobody yet. */
  constructor(host: DatagramDialerHost) {
    this.#host = host;
  }

  /** Gives a peer up. */
  forget(peer: DatagramPeer, error: TransportError): void {
    this.#redials.get(peer)?.();
    this.#redials.delete(peer);
    for (const attempt of [...this.#attempts.values()]) {
      if (attempt.peer === peer) attempt.settle(error);
    }
  }

  /** Gives all attempts up. */
  stop(): void {
    for (const cancel of this.#redials.values()) cancel();
    this.#redials.clear();
    for (const attempt of [...this.#attempts.values()]) attempt.settle(closed());
  }

  /** Dials a peer, now or later, until it has a link. */
  dialSoon(peer: DatagramPeer, delayMs: number, backoff?: Backoff): void {
    if (this.#host.closing || this.#dialed.has(peer)) return;
    const waiting = this.#redials.get(peer);
    if (waiting !== undefined && delayMs > 0) return;
    waiting?.();
    const start = () => {
      this.#redials.delete(peer);
      this.#begin(peer, false, backoff);
    };
    if (delayMs <= 0) return start();
    this.#redials.set(peer, this.#host.environment.setTimer(delayMs, start));
  }

  /**
   * Dials a peer once, beside the link that it has, of which the numbers go to their end. Where
   * that fails, the link goes on; if it has ended meanwhile, this is followed by other attempts.
   */
  renew(peer: DatagramPeer): void {
    if (!this.#host.closing && !this.#dialed.has(peer)) this.#begin(peer, true);
  }

  #begin(peer: DatagramPeer, beside: boolean, backoff?: Backoff): void {
    const { environment, options } = this.#host;
    const growing = backoff ?? new Backoff(options.reconnect, () => environment.random());
    this.#dialed.add(peer);
    this.#dial(peer, beside).then(() => this.#dialed.delete(peer), (error) => {
      this.#dialed.delete(peer);
      this.#attemptFailed(peer, error, growing);
    });
  }

  #attemptFailed(peer: DatagramPeer, error: unknown, backoff: Backoff): void {
    if (!this.#host.knows(peer) || peer.links.length > 0) return;
    const failure = error instanceof TransportError ? error : gaveUp(peer.nodeId, error);
    this.#host.onFailed(failure, peer);
    const delay = this.#host.options.reconnect.enabled ? backoff.next() : undefined;
    peer.connects.rejectAll(failure);
    if (delay === undefined) return peer.fail(failure);
    this.dialSoon(peer, delay, backoff);
  }

  /** One attempt; `beside`: though there is a link. */
  async #dial(peer: DatagramPeer, beside: boolean): Promise<void> {
    const { options, environment } = this.#host;
    const { address, nodeId } = peer;
    if (address === undefined) throw gaveUp(nodeId);
    this.#host.check(address);
    const transport = this.#host.transport(address);
    const route = await transport.resolve?.(address) ?? { remote: address, local: address };
    // A socket that is opened now would be nobody's to close.
    if (this.#host.closing) throw closed();
    const socket = await this.#host.socketFor(route.local, route.remote);
    if (this.#host.closing) throw closed();
    if (!this.#host.knows(peer) || peer.links.length > 0 && !beside) return;
    await new Promise<void>((resolve, reject) => {
      const tag = environment.randomBytes(TAG_BYTES);
      const key = keyOf(tag);
      const { remote } = route;
      const startedAt = environment.now();
      const dialing = new Dialing({
        greeter: this.#host.greeter,
        nodeId,
        tag,
        nonce: environment.randomBytes(16),
        generation: peer.generation,
        firstDelayMs: HELLO_DELAY_MS,
        send: (packet) => this.#host.send(socket, packet, remote),
      }, startedAt);
      const settle = (error?: unknown) => {
        attempt.cancelTimer();
        if (!this.#attempts.delete(key)) return;
        if (error === undefined) resolve();
        else reject(error);
      };
      const attempt: Attempt = { dialing, peer, tag, socket, remote, settle, cancelTimer: noTimer };
      this.#attempts.set(key, attempt);
      const arm = () => {
        // What was sent just now may have been answered within the call.
        if (this.#attempts.get(key) !== attempt) return;
        const now = environment.now();
        const left = startedAt + options.connectTimeoutMs - now;
        if (left <= 0) return settle(timedOut(nodeId, address, options.connectTimeoutMs));
        const delay = Math.max(0, Math.ceil(Math.min(left, dialing.nextTimeout - now)));
        attempt.cancelTimer = environment.setTimer(delay, () => {
          dialing.handleTimeout(environment.now());
          arm();
        });
      };
      arm();
    });
  }

  /** A packet came that belongs to an attempt. */
  onAnswer(kind: PacketKind, tag: Uint8Array, packet: Uint8Array): void {
    const attempt = this.#attempts.get(keyOf(tag));
    if (attempt === undefined) {
      this.#host.counters.unknown++;
      return;
    }
    const { environment } = this.#host;
    const [wallClock, now] = [environment.wallClock(), environment.now()];
    const { dialing, peer, socket, remote } = attempt;
    try {
      const dialed = dialing.handlePacket(kind, packet, wallClock, now);
      if (dialed === undefined) return;
      const ownTag = attempt.tag;
      const link = this.#host.newLink({ ...dialed, socket, ownTag, dialed: true, address: remote });
      attempt.settle();
      this.#host.attach(peer, link);
    } catch (error) {
      attempt.settle(error);
    }
  }
}

function noTimer(): void {}

/** A peer was given up. */
export function gaveUp(nodeId: string, cause?: unknown): TransportError {
  const text = `Cannot connect to ${nodeId}: given up`;
  return new TransportError("ConnectionFailed", text, { peer: nodeId, cause });
}

function closed(): TransportError {
  return new TransportError("Shutdown", "Cannot connect: the endpoint is closed");
}

function timedOut(nodeId: string, address: string, timeoutMs: number): TransportError {
  const text = `Cannot connect to ${nodeId} at ${address}: no answer within ${timeoutMs} ms`;
  return new TransportError("Timeout", text, { peer: nodeId });
}
