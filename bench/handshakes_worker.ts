/**
 * One process of the handshakes bench. It takes its task and then orders, a line each:
 *
 * - the listener answers every order with a `HandshakeReport`;
 * - the dialer takes "dial ADDRESS MILLISECONDS LANES" and answers when that time is over with a
 *   `DialReport`; "peer ADDRESS" connects for good, "send NUMBER" sends one message, "first ADDRESS"
 *   makes a new endpoint, connects and sends, and tells how long that took in `firstMs`.
 */

import { constants } from "node:crypto";
import net from "node:net";
import process from "node:process";
import tls from "node:tls";
import { Endpoint, type EndpointConfig } from "../mod.ts";
import { Orders, say, sayError } from "./child.ts";
import { type Pem, readStamp, stamp } from "./net_case.ts";

/** What the process is to be. */
export interface HandshakeTask {
  readonly role: "listener" | "dialer";
  readonly library: "raw" | "hawser";
  /** Mutual TLS, strict; null: none, and only the handshake of the library itself. */
  readonly tls: readonly Pem[] | null;
  /** The listener's; 0: any. */
  readonly port: number;
}

/** What the listener says of itself. */
export interface HandshakeReport {
  readonly address: string;
  /** Connections that were accepted and are usable. */
  readonly connections: number;
  /** The numbers of the messages that came. */
  readonly numbers: readonly number[];
  /** From when it listened to the first message, milliseconds; undefined: none has come. */
  readonly firstMs: number | undefined;
}

/** What the dialer found out. */
export interface DialReport {
  readonly connections: number;
  readonly ms: number;
  /** What one connection took from the call to when it could be used: the median and the 99th percentile. */
  readonly p50: number;
  readonly p99: number;
  /** Processor time of the dialer per connection, milliseconds. */
  readonly cpuMs: number;
  /** How long "first" took. */
  readonly firstMs: number;
}

/** The node id of the listener, and its certificate's name. */
export const LISTENER = "listener";
/**
 * Endpoints that take turns in a lane at least: nobody waits for the end of the connection before.
 * Where there are fewer lanes, all take turns, since each of them dials 100 times a second at the most.
 */
export const TURNS = 4;
/** Lanes at the most, that is, connections that are made at one time. */
export const MAX_LANES = 8;
const MESSAGE_BYTES = 64;
const GREETING_BYTES = 4;
/** OpenSSL's SSL_OP_NO_TICKET (ssl.h), for a runtime whose `constants` lack it. */
const NO_TICKET: number = constants.SSL_OP_NO_TICKET ?? 1 << 14;

/** The node id of a dialing endpoint, and its certificate's name. */
export function dialerName(index: number): string {
  return `dialer-${index}`;
}

/** Makes a connection, resolves when it can be used; what comes back ends it. */
type Dial = (address: string) => Promise<() => Promise<void>>;

class Listener {
  readonly #task: HandshakeTask;
  readonly #numbers: number[] = [];
  #listeningAt = 0;
  #firstMs: number | undefined;
  #connections = 0;
  #address = "";

  constructor(task: HandshakeTask) {
    this.#task = task;
  }

  async start(): Promise<void> {
    this.#address = this.#task.library === "raw" ? await this.#listenRaw() : await this.#listen();
    this.#listeningAt = performance.now();
  }

  report(): HandshakeReport {
    return {
      address: this.#address,
      connections: this.#connections,
      numbers: this.#numbers,
      firstMs: this.#firstMs,
    };
  }

  async #listen(): Promise<string> {
    const endpoint = newEndpoint(this.#task, LISTENER, 0, {
      listen: `tcp://127.0.0.1:${this.#task.port}`,
    });
    endpoint.addEventListener("peerup", () => this.#connections++);
    endpoint.onMessage(({ payload }) => {
      if (payload.length !== MESSAGE_BYTES) {
        throw new Error(`a message has ${payload.length} bytes`);
      }
      this.#firstMs ??= performance.now() - this.#listeningAt;
      this.#numbers.push(readStamp(payload, 0));
    });
    await endpoint.start();
    return endpoint.addresses[0]!;
  }

  #listenRaw(): Promise<string> {
    const pem = this.#task.tls?.[0];
    const accept = (socket: net.Socket) => {
      socket.on("error", () => {});
      const greeting = new Uint8Array(GREETING_BYTES);
      stamp(greeting, 0, this.#connections++);
      socket.write(greeting);
    };
    const server = pem === undefined ? net.createServer(accept) : tls.createServer({
      ...pem,
      requestCert: true,
      rejectUnauthorized: true,
      minVersion: "TLSv1.3",
      secureOptions: NO_TICKET,
    }, accept);
    server.on("tlsClientError", (error) => sayError(error));
    return new Promise((resolve) => {
      server.listen(this.#task.port, "127.0.0.1", () => {
        resolve(`tcp://127.0.0.1:${(server.address() as net.AddressInfo).port}`);
      });
    });
  }
}

/** Dials again and again. */
class Dialer {
  readonly #task: HandshakeTask;
  readonly #dials: Dial[] = [];
  #peer: Endpoint | undefined;

  constructor(task: HandshakeTask) {
    this.#task = task;
  }

  async start(): Promise<void> {
    if (this.#task.library === "raw") {
      this.#dials.push(...Array.from({ length: MAX_LANES * TURNS }, () => rawDial(this.#task)));
      return;
    }
    for (let index = 0; index < MAX_LANES * TURNS; index++) {
      const endpoint = newEndpoint(this.#task, dialerName(index), index + 1);
      await endpoint.start();
      this.#dials.push(async (address) => {
        await endpoint.connect({ nodeId: LISTENER, address });
        return () => endpoint.disconnect(LISTENER);
      });
    }
  }

  async obey(order: string): Promise<Partial<DialReport>> {
    const [verb, argument, ms, lanes] = order.split(" ") as [string, string, string, string];
    switch (verb) {
      case "dial":
        return await this.#dialFor(argument, Number(ms), Number(lanes));
      case "peer":
        // A new endpoint, whose delays begin anew: a short-lived connection leaves them grown.
        await this.#peer?.close();
        this.#peer = newEndpoint(this.#task, dialerName(0), 1);
        await this.#peer.start();
        await this.#peer.connect({ nodeId: LISTENER, address: argument });
        return {};
      case "send":
        await this.#peer!.send(LISTENER, messageOf(Number(argument)), { acknowledged: true });
        return {};
      case "first":
        return await this.#first(argument);
      default:
        throw new TypeError(`"${verb}" is no order`);
    }
  }

  async #first(address: string): Promise<Partial<DialReport>> {
    const start = performance.now();
    const endpoint = newEndpoint(this.#task, dialerName(1), 2);
    await endpoint.start();
    await endpoint.connect({ nodeId: LISTENER, address });
    await endpoint.send(LISTENER, messageOf(0), { acknowledged: true });
    return { firstMs: performance.now() - start };
  }

  async #dialFor(address: string, ms: number, lanes: number): Promise<DialReport> {
    const times: number[] = [];
    const start = performance.now();
    const before = process.cpuUsage();
    const turns = Math.floor(this.#dials.length / lanes);
    await Promise.all(Array.from({ length: lanes }, async (_, lane) => {
      const ends: Promise<void>[] = [];
      for (let turn = 0; performance.now() - start < ms; turn = (turn + 1) % turns) {
        await ends[turn];
        const begun = performance.now();
        const end = await this.#dials[lane * turns + turn]!(address);
        times.push(performance.now() - begun);
        ends[turn] = end();
      }
      await Promise.all(ends);
    }));
    const { user, system } = process.cpuUsage(before);
    const sorted = times.toSorted((a, b) => a - b);
    const at = (share: number) => sorted[Math.floor((sorted.length - 1) * share)] ?? NaN;
    return {
      connections: times.length,
      ms: performance.now() - start,
      p50: at(0.5),
      p99: at(0.99),
      cpuMs: (user + system) / 1000 / times.length,
      firstMs: NaN,
    };
  }
}

/** Up to the listener's greeting: only then has it accepted the dialer's certificate. */
function rawDial({ tls: pems }: HandshakeTask): Dial {
  const secureContext = pems === null ? undefined : tls.createSecureContext(pems[1]!);
  return (address) => {
    const { hostname: host, port: text } = new URL(address);
    const port = Number(text);
    return new Promise((resolve, reject) => {
      const socket = secureContext === undefined
        ? net.connect({ host, port })
        : tls.connect({ host, port, secureContext, minVersion: "TLSv1.3" });
      socket.on("error", reject);
      socket.once("data", (chunk: Uint8Array) => {
        if (chunk.length !== GREETING_BYTES) reject(new Error(`${chunk.length} bytes of greeting`));
        resolve(() => {
          socket.destroy();
          return Promise.resolve();
        });
      });
    });
  };
}

function newEndpoint(
  { tls: pems }: HandshakeTask,
  nodeId: string,
  index: number,
  more: Partial<EndpointConfig> = {},
): Endpoint {
  const shared = { nodeId, poolSize: 1, maxConnectionsPerHost: 1024, ...more } as const;
  if (pems === null) return new Endpoint({ ...shared, security: "legacy" });
  const checked = { requireClientAuth: true, nodeIdVerification: "CommonName" } as const;
  return new Endpoint({ ...shared, security: "strict", tls: { ...pems[index]!, ...checked } });
}

function messageOf(number: number): Uint8Array {
  const message = new Uint8Array(MESSAGE_BYTES);
  stamp(message, 0, number);
  return message;
}

if (import.meta.main) {
  const orders = new Orders();
  try {
    const task = await orders.task<HandshakeTask>();
    const node = task.role === "listener" ? new Listener(task) : new Dialer(task);
    await node.start();
    say(node instanceof Listener ? node.report() : {});
    for (let order = await orders.next(); order !== undefined; order = await orders.next()) {
      say(node instanceof Listener ? node.report() : await node.obey(order));
    }
  } catch (error) {
    sayError(error);
  }
  process.exit(0);
}
