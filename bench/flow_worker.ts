/**
 * One of the two processes of the benches that send at full rate for as long as they are told. It
 * takes its task and then orders, a line each, and answers every order with a line.
 *
 * - sender: "connect ADDRESS ..." connects, "go" begins to send, "stop" ends it and answers when all
 *   is acknowledged;
 * - both: "report" answers with a `FlowReport`, "collect" too, after the garbage collector has run.
 */

import process from "node:process";
import { Endpoint, type EndpointConfig, type Message } from "../mod.ts";
import { collect, Orders, peakBytes, residentBytes, say, sayError } from "./child.ts";
import { newMessage, type Pem, readStamp, stamp } from "./net_case.ts";
import { JsonMessages } from "./json_messages.ts";

/** What the process is to be. */
export interface FlowTask {
  readonly role: "sender" | "receiver";
  /** Endpoints in the sender's process, and in the receiver's: 1 or as many as there are flows. */
  readonly senders: number;
  readonly receivers: number;
  readonly bytes: number;
  /** Random bytes, or JSON, which compresses. */
  readonly payload: "random" | "json";
  readonly compression: "none" | "lz4" | "zstd";
  /** Mutual TLS with these certificates, for one sender and one receiver; null: none. */
  readonly tls: Pem | null;
}

/** What a process says of itself. */
export interface FlowReport {
  /** The receiver's addresses. */
  readonly addresses: readonly string[];
  /** Messages that were accepted to be sent, or received. */
  readonly messages: number;
  /** The clock of the process, milliseconds. */
  readonly now: number;
  /** Processor time, milliseconds. */
  readonly cpuMs: number;
  /** What is in use: of the heap, and outside of it by arrays. */
  readonly heapBytes: number;
  readonly residentBytes: number;
  readonly peakBytes: number;
}

/** What all messages have: a number, and a way to check the rest. */
interface Messages {
  /** The message of this number; the array may be another one's next time. */
  make(number: number): Uint8Array;
  /** Throws where the message is not that of this number. */
  check(payload: Uint8Array, number: number): void;
}

class RandomMessages implements Messages {
  readonly #message: Uint8Array;

  constructor(bytes: number) {
    this.#message = newMessage(bytes);
  }

  make(number: number): Uint8Array {
    stamp(this.#message, 0, number >>> 0);
    return this.#message;
  }

  check(payload: Uint8Array, number: number): void {
    if (payload.length === this.#message.length && readStamp(payload, 0) === number >>> 0) return;
    throw new Error(`${payload.length} bytes, number ${readStamp(payload, 0)}: not ${number}`);
  }
}

interface Flows {
  readonly addresses: readonly string[];
  readonly messages: number;
  start(): Promise<void>;
  obey(order: string): Promise<void>;
}

class Receiver implements Flows {
  readonly #endpoints: Endpoint[];
  readonly #task: FlowTask;
  readonly #kind: Messages;
  #failure: Error | undefined;
  messages = 0;

  constructor(task: FlowTask) {
    this.#task = task;
    this.#kind = messagesOf(task);
    this.#endpoints = Array.from({ length: task.receivers }, (_, index) => this.#listen(index));
  }

  get addresses(): readonly string[] {
    return this.#endpoints.map((endpoint) => endpoint.addresses[0]!);
  }

  async start(): Promise<void> {
    for (const endpoint of this.#endpoints) await endpoint.start();
  }

  obey(): Promise<void> {
    return this.#failure === undefined ? Promise.resolve() : Promise.reject(this.#failure);
  }

  #listen(index: number): Endpoint {
    const endpoint = new Endpoint({
      ...optionsOf(this.#task),
      nodeId: `receiver-${index}`,
      listen: "tcp://127.0.0.1:0",
      maxConnections: this.#task.senders + 1,
      maxConnectionsPerHost: this.#task.senders + 1,
    });
    const next = new Map<string, { number: number }>();
    endpoint.onMessage(({ from, payload }: Message) => {
      let expected = next.get(from);
      if (expected === undefined) next.set(from, expected = { number: 0 });
      this.messages++;
      try {
        this.#kind.check(payload, expected.number++);
      } catch (error) {
        this.#failure ??= new Error(`from ${from}: ${(error as Error).message}`);
      }
    });
    return endpoint;
  }
}

class Sender implements Flows {
  readonly #endpoints: Endpoint[];
  readonly #task: FlowTask;
  readonly addresses: readonly string[] = [];
  #sending: Promise<void>[] = [];
  #stopped = false;
  messages = 0;

  constructor(task: FlowTask) {
    this.#task = task;
    this.#endpoints = Array.from({ length: task.senders }, (_, index) => {
      return new Endpoint({ ...optionsOf(task), nodeId: `sender-${index}` });
    });
  }

  async start(): Promise<void> {
    for (const endpoint of this.#endpoints) await endpoint.start();
  }

  async obey(order: string): Promise<void> {
    const [verb, ...addresses] = order.split(" ");
    if (verb === "connect") await this.#connect(addresses);
    if (verb === "go") {
      this.#sending = this.#flows().map(([from, to]) => this.#keepSending(from, to));
    }
    if (verb !== "stop") return;
    this.#stopped = true;
    await Promise.all(this.#sending);
    await Promise.all(this.#flows().map(([from, to]) => from.flush(to)));
  }

  /** Some at a time: a listener's queue of those that wait is short. */
  async #connect(addresses: readonly string[]): Promise<void> {
    const flows = this.#flows();
    const AT_ONCE = 16;
    for (let first = 0; first < flows.length; first += AT_ONCE) {
      await Promise.all(
        flows.slice(first, first + AT_ONCE).map(([from, nodeId], index) => {
          return from.connect({ nodeId, address: addresses[(first + index) % addresses.length]! });
        }),
      );
    }
  }

  /** Who sends to whom. */
  #flows(): [from: Endpoint, to: string][] {
    const { senders, receivers } = this.#task;
    return Array.from({ length: Math.max(senders, receivers) }, (_, index) => {
      return [this.#endpoints[index % senders]!, `receiver-${index % receivers}`];
    });
  }

  /** As fast as the queue takes it. */
  async #keepSending(from: Endpoint, to: string): Promise<void> {
    const kind = messagesOf(this.#task);
    for (let number = 0; !this.#stopped; number++) {
      const message = kind.make(number);
      if (!from.trySend(to, message)) await from.send(to, message);
      this.messages++;
    }
  }
}

function messagesOf({ payload, bytes }: FlowTask): Messages {
  return payload === "json" ? new JsonMessages(bytes) : new RandomMessages(bytes);
}

function optionsOf({ tls, compression }: FlowTask): Omit<EndpointConfig, "nodeId"> {
  const shared = {
    poolSize: 1,
    connectTimeoutMs: 30_000,
    compression: compression === "none" ? { enabled: false } : { method: compression },
  };
  if (tls === null) return { ...shared, security: "legacy" };
  const checked = { requireClientAuth: true, nodeIdVerification: "CommonName" } as const;
  return { ...shared, security: "strict", tls: { ...tls, ...checked } };
}

function reportOf({ addresses, messages }: Flows): FlowReport {
  const { heapUsed, arrayBuffers } = process.memoryUsage();
  const { user, system } = process.cpuUsage();
  return {
    addresses,
    messages,
    now: performance.now(),
    cpuMs: (user + system) / 1000,
    heapBytes: heapUsed + (arrayBuffers ?? 0),
    residentBytes: residentBytes(),
    peakBytes: peakBytes(),
  };
}

if (import.meta.main) {
  const orders = new Orders();
  try {
    const task = await orders.task<FlowTask>();
    const flows = task.role === "receiver" ? new Receiver(task) : new Sender(task);
    await flows.start();
    say(reportOf(flows));
    for (let order = await orders.next(); order !== undefined; order = await orders.next()) {
      await flows.obey(order);
      if (order === "collect") collect();
      say(reportOf(flows));
    }
  } catch (error) {
    sayError(error);
  }
  process.exit(0);
}
