/** A proxy between two Unix sockets whose connections can be cut in the middle. */

import { connect, createServer, type Server, type Socket } from "node:net";

/** Between two cuts something must go through within this time. */
const STILL_MS = 15_000;

/** Forwards connections from one path to another. */
export class UnixProxy {
  /** Connections that were cut. */
  cuts = 0;
  readonly #server: Server;
  readonly #pairs = new Set<[Socket, Socket]>();
  #left = 0;
  #passed = () => {};

  private constructor(server: Server, target: string) {
    this.#server = server;
    server.on("connection", (near) => this.#join([near, connect({ path: target })]));
  }

  /** Listens at a path, in front of another. */
  static start(path: string, target: string): Promise<UnixProxy> {
    const server = createServer({ allowHalfOpen: true });
    return new Promise((resolve) => {
      server.listen({ path }, () => resolve(new UnixProxy(server, target)));
    });
  }

  /** Resolves when so many bytes more have gone through, in both directions together. */
  forwarded(bytes: number): Promise<void> {
    this.#left = bytes;
    return new Promise((resolve, reject) => {
      const why = `nothing goes through any more after ${this.cuts} cuts`;
      const limit = setTimeout(() => reject(new Error(why)), STILL_MS);
      this.#passed = () => {
        clearTimeout(limit);
        resolve();
      };
    });
  }

  /** Cuts every connection, wherever it is. */
  cut(): void {
    if (this.#pairs.size > 0) this.cuts++;
    for (const pair of this.#pairs) for (const socket of pair) socket.destroy();
  }

  async close(): Promise<void> {
    this.cut();
    await new Promise<void>((resolve) => this.#server.close(() => resolve()));
  }

  #join(pair: [Socket, Socket]): void {
    this.#pairs.add(pair);
    const [near, far] = pair;
    for (const [from, to] of [[near, far], [far, near]] as const) {
      from.on("data", (chunk: Uint8Array) => {
        if (!to.write(chunk)) from.pause();
        if (this.#left > 0 && (this.#left -= chunk.length) <= 0) this.#passed();
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
}
