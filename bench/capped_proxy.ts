/** A proxy before a listener, which lets so many bytes per second through in each direction. */

import net from "node:net";

/** How long the tokens that are not used are kept: a burst is no longer than this. */
const BURST_MS = 10;
const TICK_MS = 2;

/** What stands between the two. */
export interface CappedProxy {
  /** Where to dial instead. */
  readonly address: string;
  /** The bytes that went from the dialer to the listener. */
  bytes(): number;
  /** Ends it with all connections. */
  close(): void;
}

/** Listens before the address; all its connections share the rate of each direction. */
export async function startProxy(target: string, bytesPerSecond: number): Promise<CappedProxy> {
  const { hostname, port } = new URL(target);
  const there = new Direction(bytesPerSecond);
  const back = new Direction(bytesPerSecond);
  const sockets = new Set<net.Socket>();
  const server = net.createServer((inner) => {
    const outer = net.connect({ host: hostname, port: Number(port) });
    for (const [from, to, direction] of [[inner, outer, there], [outer, inner, back]] as const) {
      sockets.add(from);
      from.setNoDelay(true);
      from.on("data", (chunk: Uint8Array) => direction.add(from, to, chunk));
      from.on("error", () => from.destroy());
      from.on("close", () => to.destroy());
    }
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const timer = setInterval(() => {
    there.refill();
    back.refill();
  }, TICK_MS);
  return {
    address: `tcp://127.0.0.1:${(server.address() as net.AddressInfo).port}`,
    bytes: () => there.bytes,
    close() {
      clearInterval(timer);
      server.close();
      for (const socket of sockets) socket.destroy();
    },
  };
}

/** A chunk that waits for tokens; its socket is not read until it has left. */
interface Waiting {
  readonly from: net.Socket;
  readonly to: net.Socket;
  rest: Uint8Array;
}

/** A token bucket and the chunks that wait at it. */
class Direction {
  readonly #bytesPerSecond: number;
  readonly #waiting: Waiting[] = [];
  #tokens = 0;
  #refilledAt = performance.now();
  bytes = 0;

  constructor(bytesPerSecond: number) {
    this.#bytesPerSecond = bytesPerSecond;
  }

  add(from: net.Socket, to: net.Socket, chunk: Uint8Array): void {
    from.pause();
    this.#waiting.push({ from, to, rest: chunk });
    this.#move();
  }

  refill(): void {
    const now = performance.now();
    const most = this.#bytesPerSecond * BURST_MS / 1000;
    const fresh = this.#bytesPerSecond * (now - this.#refilledAt) / 1000;
    // What a late timer brings must not be lost, or a busy machine would make the line slower.
    this.#tokens = Math.min(this.#tokens, most) + fresh;
    this.#refilledAt = now;
    this.#move();
  }

  #move(): void {
    while (this.#waiting.length > 0 && this.#tokens >= 1) {
      const first = this.#waiting[0]!;
      const part = first.rest.subarray(0, Math.floor(this.#tokens));
      first.rest = first.rest.subarray(part.length);
      this.#tokens -= part.length;
      this.bytes += part.length;
      first.to.write(part);
      if (first.rest.length > 0) return;
      this.#waiting.shift();
      first.from.resume();
    }
  }
}
