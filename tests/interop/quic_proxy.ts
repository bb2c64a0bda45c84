/** A UDP proxy: its side towards the target can change its port, or fall silent. */

import { createSocket, type Socket } from "node:dgram";
import { seededRandom } from "../../src/testing/random.ts";

/** One dialer and the socket on which its packets go on. */
interface Flow {
  far: Socket;
  /** Sockets of before, on which nothing is forwarded. */
  readonly past: Socket[];
  cut: boolean;
}

/** Forwards packets to one port of this host. */
export class QuicProxy {
  /** What to dial instead of the target. */
  readonly address: string;
  /** Ports from which the target has been reached. */
  readonly farPorts = new Set<number>();
  /** The share of packets that is lost, in both directions. */
  loss = 0;
  /** Packets that were lost so. */
  lost = 0;
  readonly #random = seededRandom(1);
  readonly #near: Socket;
  readonly #target: number;
  readonly #flows = new Map<number, Flow>();

  private constructor(near: Socket, address: string) {
    this.#near = near;
    const port = new URL(address).port;
    this.#target = Number(port);
    this.address = address.replace(`:${port}`, `:${near.address().port}`);
    near.on("message", (packet, { port }) => {
      let flow = this.#flows.get(port);
      if (flow === undefined) this.#flows.set(port, flow = this.#flow(port));
      if (!flow.cut && !this.#loses()) flow.far.send(packet, this.#target, "127.0.0.1");
    });
  }

  /** Starts a proxy in front of an address. */
  static start(address: string): Promise<QuicProxy> {
    const near = createSocket("udp4");
    return new Promise((resolve) => {
      near.bind(0, "127.0.0.1", () => resolve(new QuicProxy(near, address)));
    });
  }

  /** Dialers that have come so far. */
  get flowCount(): number {
    return this.#flows.size;
  }

  /**
   * As a NAT that forgets: from now on every dialer comes from another port. What is still sent to the
   * one before is lost, or `refused`: then the target's system is told so (ICMP).
   */
  rebind({ refused = false }: { refused?: boolean } = {}): void {
    for (const [port, flow] of this.#flows) {
      if (refused) flow.far.close();
      else flow.past.push(flow.far);
      flow.far = this.#open(port);
    }
  }

  /** Loses every further packet of those who dialed up to now. */
  cut(): void {
    for (const flow of this.#flows.values()) flow.cut = true;
  }

  close(): void {
    this.#near.close();
    for (const { far, past } of this.#flows.values()) {
      for (const socket of [far, ...past]) socket.close();
    }
  }

  #loses(): boolean {
    if (this.loss === 0 || this.#random() >= this.loss) return false;
    this.lost++;
    return true;
  }

  #flow(nearPort: number): Flow {
    return { far: this.#open(nearPort), past: [], cut: false };
  }

  #open(nearPort: number): Socket {
    const far = createSocket("udp4");
    far.on("message", (packet) => {
      const flow = this.#flows.get(nearPort);
      if (flow?.far === far && !flow.cut && !this.#loses()) {
        this.#near.send(packet, nearPort, "127.0.0.1");
      }
    });
    far.bind(0, "127.0.0.1", () => this.farPorts.add(far.address().port));
    return far;
  }
}
