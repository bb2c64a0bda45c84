/** Hawser's side of the network bench: two endpoints with the defaults but for compression. */

import { Endpoint, type Message, type TrySendOptions } from "../mod.ts";
import {
  Counter,
  Effort,
  IN_FLIGHT,
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
  type Style,
  type Task,
} from "./net_case.ts";

/** Listens, tells the addresses, and resolves with what the sender brought. */
export async function receiveHawser(
  task: Task,
  onListening: (addresses: string) => void,
): Promise<Result> {
  const endpoints = peersOf(task).map((nodeId) => newEndpoint(task, nodeId));
  const results = endpoints.map((endpoint) => receivers[task.style](endpoint, task));
  await Promise.all(endpoints.map((endpoint) => endpoint.start()));
  onListening(endpoints.map((endpoint) => endpoint.addresses[0]!).join(" "));
  return (await Promise.all(results))[0]!;
}

/** Connects, sends what the task says, and resolves when it is written. */
export async function sendHawser(task: Task, addresses: string): Promise<Result> {
  const endpoint = newEndpoint(task, SENDER);
  await endpoint.start();
  const peers = peersOf(task);
  await Promise.all(
    addresses.split(" ").map((address, index) => {
      return endpoint.connect({ nodeId: peers[index]!, address });
    }),
  );
  return await senders[task.style](endpoint, task);
}

const receivers: Record<Style, (endpoint: Endpoint, task: Task) => Promise<Result>> = {
  push: measurePush,
  await: measureAwait,
  "round trip": echo,
  request: answer,
  "in flight": answer,
  broadcast: measurePush,
  each: measurePush,
};

const senders: Record<Style, (endpoint: Endpoint, task: Task) => Promise<Result>> = {
  push: (endpoint, task) => sendScript(endpoint, task, sendPush),
  await: (endpoint, task) => sendScript(endpoint, task, sendAwait),
  "round trip": pingPongBesideBulk,
  request: askOneByOne,
  "in flight": askManyAtOnce,
  broadcast: (endpoint, task) => sendScript(endpoint, task, sendToAll),
  each: (endpoint, task) => sendScript(endpoint, task, sendToEach),
};

/** The node ids of the receivers. */
function peersOf({ peers }: Task): string[] {
  if (peers === undefined) return [RECEIVER];
  return Array.from({ length: peers }, (_, index) => `${RECEIVER}-${index}`);
}

/** Sends what the script says; the processor time counts until all is acknowledged. */
async function sendScript(
  endpoint: Endpoint,
  task: Task,
  send: (endpoint: Endpoint, task: Task, script: Script) => Promise<void>,
): Promise<Result> {
  const script = new Script(task);
  await send(endpoint, task, script);
  for (const peer of peersOf(task)) await endpoint.flush(peer);
  return { cpuNs: script.cpuNs() };
}

async function pingPongBesideBulk(endpoint: Endpoint, task: Task): Promise<Result> {
  const bulk = new Bulk(endpoint, task.bulkBytes ?? 0);
  const result = await pingPong(endpoint, task, bulk);
  const ended = bulk.end();
  await endpoint.flush(RECEIVER);
  return { ...result, ...ended };
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

/** One call for all peers. */
async function sendToAll(endpoint: Endpoint, task: Task, script: Script): Promise<void> {
  const message = newMessage(task.bytes);
  for (let value = script.next(); value !== undefined; value = script.next()) {
    stamp(message, 0, value);
    const { delivered } = await endpoint.broadcast(message);
    if (delivered.length !== task.peers) throw new Error(`only ${delivered.length} peers took it`);
  }
}

/** A call for each peer, without a promise where its queue has room. */
async function sendToEach(endpoint: Endpoint, task: Task, script: Script): Promise<void> {
  const message = newMessage(task.bytes);
  const peers = peersOf(task);
  for (let value = script.next(); value !== undefined; value = script.next()) {
    stamp(message, 0, value);
    for (const peer of peers) {
      if (!endpoint.trySend(peer, message)) await endpoint.send(peer, message);
    }
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

/** Answers every request with its own payload. */
function answer(endpoint: Endpoint, task: Task): Promise<Result> {
  let served = 0;
  const effort = new Effort(0);
  return new Promise((resolve, reject) => {
    endpoint.handle(undefined, ({ payload }) => {
      if (payload.length !== task.bytes) reject(new Error(`a request has ${payload.length} bytes`));
      served++;
      if (readStamp(payload, 0) === MARK_END) resolve({ cpuNs: effort.nsPerMessage(served) });
      return payload;
    });
  });
}

async function askOneByOne(endpoint: Endpoint, task: Task): Promise<Result> {
  const message = newMessage(task.bytes);
  const watch = new StopWatch(task);
  for (let number = 0, over = false; !over; number++) {
    watch.begin();
    await ask(endpoint, message, number);
    over = watch.end();
  }
  await ask(endpoint, message, MARK_END);
  return watch.percentiles();
}

async function askManyAtOnce(endpoint: Endpoint, task: Task): Promise<Result> {
  const counter = new Counter(task);
  let number = 0;
  let result: Result | undefined;
  const keepAsking = async () => {
    const message = newMessage(task.bytes);
    while (result === undefined) {
      await ask(endpoint, message, number++);
      if (result === undefined && counter.take()) result = counter.result();
    }
  };
  await Promise.all(Array.from({ length: IN_FLIGHT }, keepAsking));
  await ask(endpoint, newMessage(task.bytes), MARK_END);
  return result!;
}

/** A request whose answer must be itself. */
async function ask(endpoint: Endpoint, message: Uint8Array, value: number): Promise<void> {
  stamp(message, 0, value);
  const answer = await endpoint.request(RECEIVER, message);
  if (answer.length !== message.length || readStamp(answer, 0) !== value) {
    throw new Error(`the answer to request ${value} is another one's`);
  }
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
