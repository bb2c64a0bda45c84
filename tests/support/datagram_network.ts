/**
 * A network of datagrams in memory with virtual time: it loses, doubles, delays and reorders them,
 * the same way for the same seed.
 */

import { TransportError } from "../../src/errors.ts";
import type { BindOptions, DatagramSocket, Transport } from "../../src/transport/transport.ts";
import { seededRandom, type VirtualEnvironment } from "./memory_network.ts";

/** A packet on the line. */
export interface Seen {
  readonly from: string;
  readonly to: string;
  readonly packet: Uint8Array;
}

/** What goes wrong. */
export interface Trouble {
  /** Share of packets that get lost. */
  loss?: number;
  /** Share of packets that arrive twice. */
  doubled?: number;
  /** How long a packet takes at least. */
  latencyMs?: number;
  /** By how much it may take longer: this reorders. */
  spreadMs?: number;
}

/** The network. */
export class DatagramNetwork {
  /** Every packet that was sent, lost ones included. */
  readonly seen: Seen[] = [];
  trouble: Trouble;
  /** Sockets take no packet. */
  full = false;
  /** Says of a packet that is sent whether it may go on. */
  filter: (seen: Seen) => boolean = () => true;
  readonly #environment: VirtualEnvironment;
  readonly #random: () => number;
  readonly #sockets = new Map<string, BindOptions>();
  /** What a sender is seen as, as behind a NAT. */
  readonly #masks = new Map<string, string>();
  #port = 10_000;

  constructor(environment: VirtualEnvironment, trouble: Trouble = {}, seed = 1) {
    this.#environment = environment;
    this.trouble = trouble;
    this.#random = seededRandom(seed);
  }

  /** Sockets that are bound. */
  get sockets(): number {
    return this.#sockets.size;
  }

  /** The transport of `dgram://` addresses on one host. */
  transport(host: string): Transport {
    const none = () => Promise.reject(new TransportError("UnsupportedProtocol", "Cannot: no link"));
    return {
      scheme: "dgram",
      capabilities: {
        reliable: false,
        ordered: false,
        multiplexed: false,
        encrypted: false,
        peerAuthenticated: false,
        maxMessageSize: 65_480,
      },
      dial: none,
      listen: none,
      bind: (address, options) => Promise.resolve(this.#bind(address, options)),
      resolve: (remote) => Promise.resolve({ remote, local: `dgram://${host}:0` }),
    };
  }

  /** From now on, what this address sends is seen as from another, and answers find their way. */
  mask(address: string, seenAs: string): void {
    for (const [own, mask] of this.#masks) if (own === address) this.#sockets.delete(mask);
    this.#masks.set(address, seenAs);
    this.#sockets.set(seenAs, this.#sockets.get(address)!);
  }

  /** Sockets take packets again. */
  drain(): void {
    this.full = false;
    for (const { onDrain } of this.#sockets.values()) onDrain();
  }

  /** A packet that nobody's socket sent. */
  inject(packet: Uint8Array, from: string, to: string): void {
    this.#carry({ packet: packet.slice(), from, to });
  }

  /** Packets to an address since a point of `seen`. */
  sentTo(address: string, since = 0): Seen[] {
    return this.seen.slice(since).filter(({ to }) => to === address);
  }

  #bind(address: string, options: BindOptions): DatagramSocket {
    const own = address.endsWith(":0") ? `${address.slice(0, -1)}${this.#port++}` : address;
    if (this.#sockets.has(own)) {
      throw new TransportError("ConnectionFailed", `Cannot listen on ${own}: it is in use`);
    }
    this.#sockets.set(own, options);
    return {
      address: own,
      send: (packet, to) => {
        if (this.full) return false;
        const seen = { packet: packet.slice(), from: this.#masks.get(own) ?? own, to };
        this.seen.push(seen);
        if (!this.filter(seen)) return true;
        const { loss = 0, doubled = 0 } = this.trouble;
        if (this.#random() >= loss) this.#carry(seen);
        if (this.#random() < doubled) this.#carry(seen);
        return true;
      },
      close: () => {
        this.#sockets.delete(own);
        this.#sockets.delete(this.#masks.get(own) ?? own);
        this.#masks.delete(own);
        return Promise.resolve();
      },
    };
  }

  #carry({ packet, from, to }: Seen): void {
    const { latencyMs = 1, spreadMs = 0 } = this.trouble;
    this.#environment.setTimer(latencyMs + spreadMs * this.#random(), () => {
      this.#sockets.get(to)?.onPacket(packet.slice(), from);
    });
  }
}
