/**
 * One of the two processes of the benches of connections. Standard input brings its task as one JSON
 * line, and then a line for each further step; it answers each with one JSON line. "dial N" makes
 * connections until there are N, "broadcast" sends a message through each.
 *
 * @module
 */

import net from "node:net";
import process from "node:process";
import tls from "node:tls";
import { Endpoint, type EndpointConfig } from "../mod.ts";
import { collect, Orders, residentBytes, say, sayError } from "./child.ts";
import type { Pem } from "./net_case.ts";

/** What the process is to be. */
export interface Task {
  readonly role: "listener" | "dialer";
  readonly library: "raw" | "hawser";
  /** Of Hawser's endpoints. */
  readonly options: Omit<EndpointConfig, "nodeId">;
  /** Of raw sockets: mutual TLS with these certificates; null: none. */
  readonly tls: Pem | null;
  /** The dialer's: where to. */
  readonly address: string;
}

/** What a process says of itself. */
export interface Report {
  readonly address: string;
  readonly connections: number;
  readonly received: number;
  readonly bytes: number;
}

/** Dials that are under way at one time. */
const AT_ONCE = 32;
const MAX_ATTEMPTS = 20;
const NODE_ID = "listener";
const MESSAGE_BYTES = 16;
/** How a message is filled, so that a wrong one is seen. */
const FILL = 7;

/** What the process holds, of Hawser or of raw sockets. */
interface Holder {
  address: string;
  received: number;
  connections(): number;
  listen(): Promise<void>;
  /** Makes one connection. */
  dial(index: number): Promise<void>;
  /** Sends a message through each connection. */
  broadcast(): Promise<void>;
}

class Endpoints implements Holder {
  readonly #task: Task;
  readonly #endpoints: Endpoint[] = [];
  address = "";
  received = 0;

  constructor(task: Task) {
    this.#task = task;
  }

  connections(): number {
    return this.#endpoints.reduce((sum, each) => sum + each.stats().connectionCount, 0);
  }

  async listen(): Promise<void> {
    this.address = (await this.#start(NODE_ID)).addresses[0]!;
  }

  async dial(index: number): Promise<void> {
    const endpoint = await this.#start(`dialer-${index}`);
    for (let attempt = 1;; attempt++) {
      try {
        return await endpoint.connect({ nodeId: NODE_ID, address: this.#task.address });
      } catch (error) {
        // The other process may have had no time for it.
        if (attempt === MAX_ATTEMPTS) throw error;
      }
    }
  }

  async broadcast(): Promise<void> {
    await this.#endpoints[0]!.broadcast(new Uint8Array(MESSAGE_BYTES).fill(FILL));
  }

  async #start(nodeId: string): Promise<Endpoint> {
    const endpoint = new Endpoint({ ...this.#task.options, nodeId });
    endpoint.onMessage(({ payload }) => {
      checkMessage(payload);
      this.received++;
    });
    await endpoint.start();
    this.#endpoints.push(endpoint);
    return endpoint;
  }
}

class Sockets implements Holder {
  readonly #task: Task;
  readonly #sockets = new Set<net.Socket>();
  readonly #secureContext: tls.SecureContext | undefined;
  address = "";
  received = 0;

  constructor(task: Task) {
    this.#task = task;
    this.#secureContext = task.tls === null ? undefined : tls.createSecureContext(task.tls);
  }

  connections(): number {
    return this.#sockets.size;
  }

  listen(): Promise<void> {
    const accept = (socket: net.Socket) => this.#add(socket);
    const server = this.#task.tls === null ? net.createServer(accept) : tls.createServer({
      ...this.#task.tls,
      requestCert: true,
      rejectUnauthorized: true,
      minVersion: "TLSv1.3",
    }, accept);
    return new Promise((resolve) => {
      server.listen({ port: 0, host: "127.0.0.1", backlog: AT_ONCE * 2 }, () => {
        this.address = `tcp://127.0.0.1:${(server.address() as net.AddressInfo).port}`;
        resolve();
      });
    });
  }

  dial(): Promise<void> {
    const { hostname: host, port: text } = new URL(this.#task.address);
    const port = Number(text);
    const secureContext = this.#secureContext;
    const socket = secureContext === undefined
      ? net.connect({ host, port })
      : tls.connect({ host, port, secureContext, minVersion: "TLSv1.3" });
    return new Promise((resolve, reject) => {
      socket.once("error", reject);
      socket.once(secureContext === undefined ? "connect" : "secureConnect", () => {
        this.#add(socket);
        resolve();
      });
    });
  }

  broadcast(): Promise<void> {
    for (const socket of this.#sockets) socket.write(new Uint8Array(MESSAGE_BYTES).fill(FILL));
    return Promise.resolve();
  }

  #add(socket: net.Socket): void {
    this.#sockets.add(socket);
    socket.setNoDelay(true);
    socket.setKeepAlive(true, 30_000);
    socket.on("error", () => {});
    socket.on("close", () => this.#sockets.delete(socket));
    socket.on("data", (chunk: Uint8Array) => {
      checkMessage(chunk);
      this.received++;
    });
  }
}

function checkMessage(payload: Uint8Array): void {
  if (payload.length !== MESSAGE_BYTES || payload.some((byte) => byte !== FILL)) {
    throw new Error(`a message of ${payload.length} bytes is not what was sent`);
  }
}

/** Makes connections until there are so many. */
async function dialUpTo(holder: Holder, from: number, count: number): Promise<void> {
  let next = from;
  const run = async () => {
    while (next < count) await holder.dial(next++);
  };
  await Promise.all(Array.from({ length: AT_ONCE }, run));
}

if (import.meta.main) {
  const orders = new Orders();
  try {
    const task = await orders.task<Task>();
    const holder = task.library === "raw" ? new Sockets(task) : new Endpoints(task);
    const answer = (verb?: string) => {
      // Whoever is asked often what has come must have time to read it.
      if (verb !== "count") collect();
      const { address, received } = holder;
      const connections = holder.connections();
      const report: Report = { address, connections, received, bytes: residentBytes() };
      say(report);
    };
    if (task.role === "listener") await holder.listen();
    answer();
    let dialed = 0;
    for (let order = await orders.next(); order !== undefined; order = await orders.next()) {
      const [verb, argument] = order.split(" ");
      if (verb === "dial") {
        await dialUpTo(holder, dialed, Number(argument));
        dialed = Number(argument);
      }
      if (verb === "broadcast") await holder.broadcast();
      answer(verb);
    }
  } catch (error) {
    sayError(error);
  }
  process.exit(0);
}
