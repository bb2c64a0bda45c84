/**
 * The raw socket that Hawser is held against: `node:net` or `node:tls`, length-prefixed frames
 * batched by hand. The receiver checks each frame's length and number where it lies and hands
 * nothing on, so this is what the socket gives, not what an application could have of it.
 */

import net from "node:net";
import tls from "node:tls";
import {
  Counter,
  Effort,
  IN_FLIGHT,
  MARK_END,
  Meter,
  newMessage,
  readStamp,
  type Result,
  Script,
  stamp,
  StopWatch,
  type Task,
} from "./net_case.ts";

const LENGTH_BYTES = 4;
/** The length and the stamp behind it. */
const HEAD_BYTES = 8;
/** Frames are written together up to this many bytes, or one at a time if they are longer. */
const BATCH_BYTES = 131_072;

/** Listens, tells the port, and resolves with what the first connection brought. */
export function receiveRaw(task: Task, onListening: (address: string) => void): Promise<Result> {
  return new Promise((resolve, reject) => {
    const accept = (socket: net.Socket) => {
      socket.setNoDelay(true);
      socket.on("error", reject);
      const serve = task.style === "in flight" ? answer : isRoundTrip(task) ? echo : measure;
      serve(socket, task, resolve, reject);
    };
    const server = task.tls === null ? net.createServer(accept) : tls.createServer({
      ...task.tls,
      requestCert: true,
      rejectUnauthorized: true,
      minVersion: "TLSv1.3",
    }, accept);
    server.on("error", reject);
    server.on("tlsClientError", reject);
    server.listen(0, "127.0.0.1", () => {
      onListening(`127.0.0.1:${(server.address() as net.AddressInfo).port}`);
    });
  });
}

/** Connects, sends what the task says, and resolves when it is written. */
export async function sendRaw(task: Task, address: string): Promise<Result> {
  const socket = await connect(task, Number(address.split(":")[1]));
  if (task.style === "in flight") return await ask(socket, task);
  if (isRoundTrip(task)) return await pingPong(socket, task);
  const script = new Script(task);
  await sendBatches(socket, task, script);
  return { cpuNs: script.cpuNs() };
}

/** A request is a message to and fro. */
function isRoundTrip({ style }: Task): boolean {
  return style === "round trip" || style === "request";
}

function connect(task: Task, port: number): Promise<net.Socket> {
  return new Promise((resolve, reject) => {
    const socket = task.tls === null
      ? net.connect({ host: "127.0.0.1", port })
      : tls.connect({ ...task.tls, host: "127.0.0.1", port, minVersion: "TLSv1.3" });
    socket.on("error", reject);
    socket.once(task.tls === null ? "connect" : "secureConnect", () => {
      socket.setNoDelay(true);
      resolve(socket);
    });
  });
}

function measure(
  socket: net.Socket,
  task: Task,
  resolve: (result: Result) => void,
  reject: (error: unknown) => void,
): void {
  const meter = new Meter(task);
  const parser = new Parser((length, value) => {
    if (!meter.take(length, value)) return;
    resolve(meter.result);
  });
  socket.on("data", guarded(parser, reject));
}

function echo(
  socket: net.Socket,
  task: Task,
  resolve: (result: Result) => void,
  reject: (error: unknown) => void,
): void {
  const template = newFrame(task.bytes);
  let next = 0;
  const parser = new Parser((length, value) => {
    if (value === MARK_END) return resolve({});
    if (length !== task.bytes || value !== next++) throw new Error(`message ${value} came`);
    const frame = template.slice();
    stamp(frame, LENGTH_BYTES, value);
    socket.write(frame);
  });
  socket.on("data", guarded(parser, reject));
}

function pingPong(socket: net.Socket, task: Task): Promise<Result> {
  const template = newFrame(task.bytes);
  const watch = new StopWatch(task);
  let number = 0;
  const send = (value: number) => {
    const frame = template.slice();
    stamp(frame, LENGTH_BYTES, value);
    socket.write(frame);
  };
  return new Promise((resolve, reject) => {
    const parser = new Parser((length, value) => {
      if (length !== task.bytes || value !== number) throw new Error(`answer ${value} came`);
      if (watch.end()) {
        send(MARK_END);
        return resolve(watch.percentiles());
      }
      watch.begin();
      send(++number);
    });
    socket.on("data", guarded(parser, reject));
    watch.begin();
    send(number);
  });
}

/** Answers all requests of a chunk with one write. */
function answer(
  socket: net.Socket,
  task: Task,
  resolve: (result: Result) => void,
  reject: (error: unknown) => void,
): void {
  const frames = new Frames(task.bytes);
  const effort = new Effort(0);
  let next = 0;
  const parser = new Parser((length, value) => {
    if (value === MARK_END) return resolve({ cpuNs: effort.nsPerMessage(next) });
    if (length !== task.bytes || value !== next) throw new Error(`request ${value} came`);
    frames.add(next++);
  });
  const parse = guarded(parser, reject);
  socket.on("data", (chunk: Uint8Array) => {
    parse(chunk);
    frames.writeTo(socket);
  });
}

/** Has so many requests on their way at any time; those of a turn leave in one write. */
function ask(socket: net.Socket, task: Task): Promise<Result> {
  const frames = new Frames(task.bytes);
  const counter = new Counter(task);
  let asked = 0;
  let answered = 0;
  let over = false;
  return new Promise((resolve, reject) => {
    const parser = new Parser((length, value) => {
      if (length !== task.bytes || value !== answered++) throw new Error(`answer ${value} came`);
      if (over) return;
      over = counter.take();
      frames.add(over ? MARK_END : asked++);
      if (over) resolve(counter.result());
    });
    const parse = guarded(parser, reject);
    socket.on("data", (chunk: Uint8Array) => {
      parse(chunk);
      frames.writeTo(socket);
    });
    while (asked < IN_FLIGHT) frames.add(asked++);
    frames.writeTo(socket);
  });
}

/** Frames that leave with one write. */
class Frames {
  readonly #frameBytes: number;
  /** As many frames as can be needed, all but their numbers. */
  readonly #blank: Uint8Array;
  readonly #values: number[] = [];

  constructor(bytes: number) {
    const frame = newFrame(bytes);
    this.#frameBytes = frame.length;
    this.#blank = new Uint8Array(frame.length * IN_FLIGHT);
    for (let at = 0; at < this.#blank.length; at += frame.length) this.#blank.set(frame, at);
  }

  add(value: number): void {
    this.#values.push(value);
  }

  writeTo(socket: net.Socket): void {
    const values = this.#values;
    if (values.length === 0) return;
    const batch = this.#blank.slice(0, values.length * this.#frameBytes);
    for (let index = 0; index < values.length; index++) {
      stamp(batch, index * this.#frameBytes + LENGTH_BYTES, values[index]!);
    }
    values.length = 0;
    socket.write(batch);
  }
}

async function sendBatches(socket: net.Socket, task: Task, script: Script): Promise<void> {
  const template = newFrame(task.bytes);
  const batchBytes = Math.max(1, Math.floor(BATCH_BYTES / template.length)) * template.length;
  const free: Uint8Array[] = [];
  for (;;) {
    const batch = free.pop() ?? new Uint8Array(batchBytes);
    const length = fill(batch, template, script);
    if (length === 0) return;
    const more = socket.write(batch.subarray(0, length), () => free.push(batch));
    if (!more) await new Promise<void>((resolve) => socket.once("drain", resolve));
  }
}

function fill(batch: Uint8Array, template: Uint8Array, script: Script): number {
  let at = 0;
  while (at < batch.length) {
    const value = script.next();
    if (value === undefined) break;
    batch.set(template, at);
    stamp(batch, at + LENGTH_BYTES, value);
    at += template.length;
  }
  return at;
}

function newFrame(bytes: number): Uint8Array {
  const frame = new Uint8Array(LENGTH_BYTES + bytes);
  stamp(frame, 0, bytes);
  frame.set(newMessage(bytes), LENGTH_BYTES);
  return frame;
}

function guarded(parser: Parser, reject: (error: unknown) => void): (chunk: Uint8Array) => void {
  return (chunk) => {
    try {
      parser.push(chunk);
    } catch (error) {
      reject(error);
    }
  };
}

/** Finds the length and the stamp of every frame and skips the rest of it. */
class Parser {
  readonly #onFrame: (length: number, value: number) => void;
  readonly #head = new Uint8Array(HEAD_BYTES);
  #headBytes = 0;
  #skip = 0;

  constructor(onFrame: (length: number, value: number) => void) {
    this.#onFrame = onFrame;
  }

  push(chunk: Uint8Array): void {
    let at = 0;
    while (true) {
      const skipped = Math.min(this.#skip, chunk.length - at);
      at += skipped;
      this.#skip -= skipped;
      if (at === chunk.length) break;
      if (this.#headBytes === 0 && at + HEAD_BYTES <= chunk.length) {
        this.#frame(readStamp(chunk, at), readStamp(chunk, at + LENGTH_BYTES));
        at += HEAD_BYTES;
      } else {
        this.#head[this.#headBytes++] = chunk[at++]!;
        if (this.#headBytes < HEAD_BYTES) continue;
        this.#headBytes = 0;
        this.#frame(readStamp(this.#head, 0), readStamp(this.#head, LENGTH_BYTES));
      }
    }
  }

  /** The frame counts as received when its head is there; its bytes are skipped as they come. */
  #frame(length: number, value: number): void {
    this.#skip = length - (HEAD_BYTES - LENGTH_BYTES);
    this.#onFrame(length, value);
  }
}
