/** A TCP proxy whose connections can be cut with RST. */

import { connect, createServer, type Server, type Socket } from "node:net";
import type { Random } from "../simulation/random.ts";

/** Between two cuts something must go through within this time. */
const STILL_MS = 15_000;

/** Both sides of one connection through the proxy. */
interface Pair {
  readonly near: Socket;
  readonly far: Socket;
}

/** Forwards connections to one port of this host. */
export class Proxy {
  /** What to dial instead of the target. */
  readonly address: string;
  /** Connections that were cut. */
  cuts = 0;
  readonly #server: Server;
  readonly #pairs = new Set<Pair>();
  #forwarded = 0;
  #waiter: { readonly at: number; readonly resolve: () => void } | undefined;

  private constructor(server: Server, target: number) {
    this.#server = server;
    const { port } = server.address() as { port: number };
    this.address = `tcp://127.0.0.1:${port}`;
    server.on("connection", (near) => this.#join({ near, far: connect(target, "127.0.0.1") }));
  }

  /** Starts a proxy in front of an address. */
  static start(address: string): Promise<Proxy> {
    const server = createServer({ allowHalfOpen: true });
    return new Promise((resolve) => {
      server.listen(
        0,
        "127.0.0.1",
        () => resolve(new Proxy(server, Number(new URL(address).port))),
      );
    });
  }

  /** Resolves when so many bytes more have gone through, in both directions together. */
  forwarded(bytes: number): Promise<void> {
    return new Promise((resolve, reject) => {
      const limit = setTimeout(
        () => reject(new Error(`nothing goes through any more after ${this.cuts} cuts`)),
        STILL_MS,
      );
      const done = () => {
        clearTimeout(limit);
        resolve();
      };
      this.#waiter = { at: this.#forwarded + bytes, resolve: done };
    });
  }

  /** Cuts one connection with RST on both sides. */
  cut(random: Random): void {
    const pairs = [...this.#pairs];
    if (pairs.length === 0) return;
    const { near, far } = random.pick(pairs);
    this.cuts++;
    // One side may hear of it before the other.
    const order = random.chance(0.5) ? [near, far] : [far, near];
    for (const socket of order) socket.resetAndDestroy();
  }

  async close(): Promise<void> {
    for (const { near, far } of this.#pairs) {
      near.destroy();
      far.destroy();
    }
    await new Promise<void>((resolve) => this.#server.close(() => resolve()));
  }

  #join(pair: Pair): void {
    this.#pairs.add(pair);
    const { near, far } = pair;
    for (const [from, to] of [[near, far], [far, near]] as const) {
      from.setNoDelay(true);
      from.on("data", (chunk: Uint8Array) => {
        if (!to.write(chunk)) from.pause();
        this.#count(chunk.length);
      });
      to.on("drain", () => from.resume());
      from.on("end", () => to.end());
      from.on("error", () => to.destroy());
      from.on("close", () => {
        this.#pairs.delete(pair);
        to.destroy();
      });
    }
  }

  #count(bytes: number): void {
    this.#forwarded += bytes;
    const waiter = this.#waiter;
    if (waiter === undefined || this.#forwarded < waiter.at) return;
    this.#waiter = undefined;
    waiter.resolve();
  }
}
