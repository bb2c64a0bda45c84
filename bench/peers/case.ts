/** What the two processes of a measurement agree on: the task, the messages, the clocks. */

import {
  Meter,
  newMessage,
  type Pem,
  readStamp,
  type Result,
  Script,
  stamp,
  type Task,
} from "../net_case.ts";

/** What is measured. */
export interface Case {
  readonly name: "64B" | "1KiB" | "64KiB" | "p50" | "64-in-flight";
  readonly title: string;
  readonly kind: "one-way" | "requests";
  readonly bytes: number;
  /** Requests that wait for their answers at the same time. */
  readonly inFlight: number;
  /** Both processes on one core, where the system can: no core must be woken up for a message. */
  readonly oneCore: boolean;
  /** What the number is divided by, the digits behind its point, and whether less of it is better. */
  readonly scale: number;
  readonly digits: number;
  readonly lessIsBetter: boolean;
}

const KIB = 1024;
const SMALL_BYTES = 64;
/** The requests of the last case. */
const MANY = 64;

/** All cases, in the order of the table. */
export const CASES: readonly Case[] = [
  oneWay("64B", "64 B, k/s", SMALL_BYTES, 1000),
  oneWay("1KiB", "1 KiB, MB/s", KIB, 1e6 / KIB),
  oneWay("64KiB", "64 KiB, MB/s", 64 * KIB, 1e6 / (64 * KIB)),
  {
    name: "p50",
    title: "request p50, us",
    kind: "requests",
    bytes: SMALL_BYTES,
    inFlight: 1,
    oneCore: true,
    scale: 1,
    digits: 0,
    lessIsBetter: true,
  },
  {
    name: "64-in-flight",
    title: "64 in flight, k/s",
    kind: "requests",
    bytes: SMALL_BYTES,
    inFlight: MANY,
    oneCore: false,
    scale: 1000,
    digits: 1,
    lessIsBetter: false,
  },
];

/** The work of one process. */
export interface PeerTask {
  readonly role: "receiver" | "sender";
  readonly library: string;
  /** Whether it needs the packages of the folder "package". */
  readonly packages: boolean;
  readonly kind: Case["kind"];
  /** Bytes per message, at least 4: each begins with its number. */
  readonly bytes: number;
  readonly inFlight: number;
  /** The certificates of mutual TLS, for who takes them. */
  readonly tls: Pem | null;
  /** Where the broker listens, for who needs one. */
  readonly broker: string | null;
  readonly warmUpMs: number;
  readonly measureMs: number;
}

/** What a process found out. */
export interface PeerResult {
  /** Receiver, one way: messages per second. */
  messagesPerSecond?: number;
  /** Sender of requests: answers per second. */
  answersPerSecond?: number;
  /** Sender of requests, if one waits at a time: the median and the 99th percentile, microseconds. */
  p50?: number;
  p99?: number;
}

/** How a library is measured. Both resolve when their part is over, `receive` only one way. */
export interface Adapter {
  /** Listens, says where, and resolves with what was measured; of requests it answers all. */
  receive(task: PeerTask, onListening: (address: string) => void): Promise<PeerResult>;
  /** Connects and sends, or asks, what the task says. */
  send(task: PeerTask, address: string): Promise<PeerResult>;
}

/** The task in the words of the network bench, for what is shared with it. */
export function netTask(task: PeerTask): Task {
  const { role, bytes, tls, warmUpMs, measureMs } = task;
  const library = task.library === "raw" ? "raw" : "hawser";
  return { role, library, style: "push", bytes, compress: false, tls, warmUpMs, measureMs };
}

/** The sender's side of one way: fresh messages with their numbers, as long as the task says. */
export function* messages(task: PeerTask): Generator<Uint8Array, void, void> {
  const script = new Script(netTask(task));
  const template = newMessage(task.bytes);
  for (let value = script.next(); value !== undefined; value = script.next()) {
    // Most libraries keep what they are given until it is written.
    const message = template.slice();
    stamp(message, 0, value);
    yield message;
  }
}

/** The receiver's side of one way: checks every message; `onEnd` gets what was measured. */
export function meter(
  task: PeerTask,
  onEnd: (result: PeerResult) => void,
  onError: (error: unknown) => void,
): (message: Uint8Array) => void {
  const counter = new Meter(netTask(task));
  return (message) => {
    try {
      if (counter.take(message.length, readStamp(message, 0))) onEnd(oneWayResult(counter.result));
    } catch (error) {
      onError(error);
    }
  };
}

/** What of the network bench's result is wanted here. */
export function oneWayResult({ messagesPerSecond }: Result): PeerResult {
  return messagesPerSecond === undefined ? {} : { messagesPerSecond };
}

function oneWay(name: Case["name"], title: string, bytes: number, scale: number): Case {
  return {
    name,
    title,
    kind: "one-way",
    bytes,
    inFlight: 0,
    oneCore: false,
    scale,
    digits: 0,
    lessIsBetter: false,
  };
}
