/** Hawser's side of the network bench: two endpoints with the defaults but for compression. */

import { Endpoint, type Message, type TrySendOptions } from "../mod.ts";
import {
  MARK_END,
  Meter,
  newMessage,
  readStamp,
  RECEIVER,
  type Result,
  Script,
  SENDER,
  stamp,
  StopWatch,
  type Task,
} from "./net_case.ts";

/** Listens, tells the address, and resolves with what the sender brought. */
export async function receiveHawser(
  task: Task,
  onListening: (address: string) => void,
): Promise<Result> {
  const endpoint = newEndpoint(task, RECEIVER);
  await endpoint.start();
  const result = task.style === "round trip"
    ? echo(endpoint, task)
    : task.style === "push"
    ? measurePush(endpoint, task)
    : measureAwait(endpoint, task);
  onListening(endpoint.addresses[0]!);
  return await result;
}

/** Connects, sends what the task says, and resolves when it is written. */
export async function sendHawser(task: Task, address: string): Promise<Result> {
  const endpoint = newEndpoint(task, SENDER);
  await endpoint.start();
  await endpoint.connect({ nodeId: RECEIVER, address });
  if (task.style === "round trip") {
    const bulk = new Bulk(endpoint, task.bulkBytes ?? 0);
    const result = await pingPong(endpoint, task, bulk);
    const ended = bulk.end();
    await endpoint.flush(RECEIVER);
    return { ...result, ...ended };
  }
  const script = new Script(task);
  await (task.style === "push" ? sendPush : sendAwait)(endpoint, task, script);
  await endpoint.flush(RECEIVER);
  return { cpuNs: script.cpuNs() };
}

function newEndpoint(task: Task, nodeId: string): Endpoint {
  const listen = task.role === "receiver" ? { listen: "tcp://127.0.0.1:0" } : {};
  const compression = { enabled: task.compress };
  // One connection for both lanes.
  const pool = task.bulkBytes === undefined ? {} : { poolSize: 1 };
  if (task.tls === null) {
    return new Endpoint({ nodeId, ...listen, ...pool, compression, security: "legacy" });
  }
  const tls = { ...task.tls, requireClientAuth: true, nodeIdVerification: "CommonName" as const };
  return new Endpoint({ nodeId, ...listen, ...pool, compression, security: "strict", tls });
}

/** Sends without a promise per message, and waits only where the queue is full. */
async function sendPush(endpoint: Endpoint, task: Task, script: Script): Promise<void> {
  const message = newMessage(task.bytes);
  for (let value = script.next(); value !== undefined; value = script.next()) {
    stamp(message, 0, value);
    if (!endpoint.trySend(RECEIVER, message)) await endpoint.send(RECEIVER, message);
  }
}

async function sendAwait(endpoint: Endpoint, task: Task, script: Script): Promise<void> {
  const message = newMessage(task.bytes);
  for (let value = script.next(); value !== undefined; value = script.next()) {
    stamp(message, 0, value);
    await endpoint.send(RECEIVER, message);
  }
}

function measurePush(endpoint: Endpoint, task: Task): Promise<Result> {
  const meter = new Meter(task);
  return new Promise((resolve, reject) => {
    endpoint.onMessage(guarded(reject, ({ payload }) => {
      if (!meter.take(payload.length, readStamp(payload, 0))) return;
      resolve(meter.result);
    }));
  });
}

async function measureAwait(endpoint: Endpoint, task: Task): Promise<Result> {
  const meter = new Meter(task);
  for await (const { payload } of endpoint) {
    if (meter.take(payload.length, readStamp(payload, 0))) break;
  }
  return meter.result;
}

function echo(endpoint: Endpoint, task: Task): Promise<Result> {
  let next = 0;
  return new Promise((resolve, reject) => {
    const options = pingOptions(task);
    endpoint.onMessage(guarded(reject, ({ from, payload, lane }) => {
      if (lane === "bulk") return;
      const value = readStamp(payload, 0);
      if (value === MARK_END) return resolve({});
      if (payload.length !== task.bytes || value !== next++) {
        throw new Error(`message ${value} came`);
      }
      if (!endpoint.trySend(from, payload, options)) throw new Error("the answer was not taken");
    }));
  });
}

function pingPong(endpoint: Endpoint, task: Task, bulk: Bulk): Promise<Result> {
  const message = newMessage(task.bytes);
  const watch = new StopWatch(task);
  let number = 0;
  const options = pingOptions(task);
  const ping = (value: number) => {
    stamp(message, 0, value);
    if (!endpoint.trySend(RECEIVER, message, options)) throw new Error("the message was not taken");
  };
  return new Promise((resolve, reject) => {
    endpoint.onMessage(guarded(reject, ({ payload }) => {
      const value = readStamp(payload, 0);
      if (payload.length !== task.bytes || value !== number) {
        throw new Error(`answer ${value} came`);
      }
      if (watch.end(bulk.since)) {
        ping(MARK_END);
        return resolve(watch.percentiles());
      }
      watch.begin();
      ping(++number);
    }));
    watch.begin();
    ping(number);
  });
}

function pingOptions({ bulkBytes }: Task): TrySendOptions | undefined {
  return bulkBytes === undefined ? undefined : { lane: "control" };
}

/** Has one bulk message on its way at any time, unless it is empty, and counts what is acknowledged. */
class Bulk {
  /** When `send` returned with the message that is on its way. */
  since = -Infinity;
  readonly #startedAt = performance.now();
  readonly #sendMs: number[] = [];
  #bytes = 0;
  #ended = false;

  constructor(endpoint: Endpoint, bytes: number) {
    if (bytes === 0) return;
    const message = newMessage(bytes);
    const next = (): void => {
      if (this.#ended) return;
      const before = performance.now();
      const sent = endpoint.send(RECEIVER, message, { lane: "bulk", acknowledged: true });
      this.since = performance.now();
      this.#sendMs.push(this.since - before);
      sent.then(() => {
        this.#bytes += bytes;
        next();
      });
    };
    next();
  }

  end(): Result {
    this.#ended = true;
    if (this.#sendMs.length === 0) return {};
    return {
      bulkBytesPerSecond: this.#bytes / (performance.now() - this.#startedAt) * 1000,
      bulkSendMs: this.#sendMs.toSorted((a, b) => a - b)[this.#sendMs.length >> 1]!,
    };
  }
}

function guarded(
  reject: (error: unknown) => void,
  handle: (message: Message) => void,
): (message: Message) => void {
  return (message) => {
    try {
      handle(message);
    } catch (error) {
      reject(error);
    }
  };
}
