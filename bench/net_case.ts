/** What the two processes of the network bench agree on: the task, the messages, the clock. */

import process from "node:process";

/**
 * What is sent: one way with each of the two ways to send and receive; to and fro as messages, as
 * requests one after the other, as many requests at once; to all peers at once, or to one after the
 * other.
 */
export type Style =
  | "push"
  | "await"
  | "round trip"
  | "request"
  | "in flight"
  | "broadcast"
  | "each";

/** Certificates of one side, PEM. */
export interface Pem {
  readonly cert: string;
  readonly key: string;
  readonly ca: string;
}

/** The work of one process. */
export interface Task {
  readonly role: "receiver" | "sender";
  readonly library: "raw" | "hawser";
  readonly style: Style;
  /** Bytes per message, at least 4. */
  readonly bytes: number;
  /** Round trips in lane control, beside a bulk message of so many bytes; undefined: lane normal. */
  readonly bulkBytes?: number;
  /** Receivers, each with an endpoint of its own; undefined: one. Broadcasts only. */
  readonly peers?: number;
  /** Whether Hawser compresses; the messages are random bytes, which do not shrink. */
  readonly compress: boolean;
  /** Mutual TLS with these certificates; null: none. */
  readonly tls: Pem | null;
  readonly warmUpMs: number;
  readonly measureMs: number;
}

/** What a process found out. */
export interface Findings {
  /** Messages per second between the two marks; requests per second. */
  messagesPerSecond?: number;
  /** Sender, round trip: the median and the 99th percentile, microseconds. */
  p50?: number;
  p99?: number;
  /** Sender, round trips beside bulk: the bulk bytes that were acknowledged per second. */
  bulkBytesPerSecond?: number;
  /** What one call of `send` with bulk took, which copies the message: the median, milliseconds. */
  bulkSendMs?: number;
  /** Not of single round trips: the processor time of this process per message, nanoseconds. */
  cpuNs?: number;
  /** The most memory the process ever had resident, bytes. */
  peakBytes: number;
}

/** Findings before the process looks at its memory. */
export type Result = Omit<Findings, "peakBytes">;

/** Who the two processes are, in certificates and handshakes. */
export const SENDER = "sender";
export const RECEIVER = "receiver";
/** Requests that are under way at one time, where several are. */
export const IN_FLIGHT = 64;

/** Instead of a sequence number: what comes now is measured. */
const MARK_START = 0xffff_fffe;
/** Instead of a sequence number: nothing more will come. */
export const MARK_END = 0xffff_ffff;
/** The clock is read once for this many messages. */
const MESSAGES_PER_CLOCK = 64;

/** A message of random bytes, whose first four are overwritten by `stamp`. */
export function newMessage(bytes: number): Uint8Array {
  const message = new Uint8Array(bytes);
  // getRandomValues fills 65,536 bytes at most.
  for (let at = 0; at < bytes; at += 65_536) {
    crypto.getRandomValues(message.subarray(at, at + 65_536));
  }
  return message;
}

/** Writes a sequence number or mark, big-endian. */
export function stamp(bytes: Uint8Array, at: number, value: number): void {
  bytes[at] = value >>> 24;
  bytes[at + 1] = value >>> 16;
  bytes[at + 2] = value >>> 8;
  bytes[at + 3] = value;
}

/** Reads what `stamp` wrote. */
export function readStamp(bytes: Uint8Array, at: number): number {
  return (bytes[at]! << 24 | bytes[at + 1]! << 16 | bytes[at + 2]! << 8 | bytes[at + 3]!) >>> 0;
}

/** What a one-way sender sends: numbers, a mark after the warm-up, a mark at the end. */
export class Script {
  readonly #measureMs: number;
  #until: number;
  #next = 0;
  #calls = 0;
  #phase: "warm-up" | "measure" | "done" = "warm-up";
  #effort = new Effort(0);

  constructor(task: Task) {
    this.#measureMs = task.measureMs;
    this.#until = performance.now() + task.warmUpMs;
  }

  /** The stamp of the next message; undefined after the last. */
  next(): number | undefined {
    if (this.#phase === "done") return undefined;
    if (++this.#calls % MESSAGES_PER_CLOCK === 0) {
      const now = performance.now();
      if (now >= this.#until) return this.#turn(now);
    }
    return this.#next++;
  }

  /** The processor time per message since the first mark, nanoseconds; for after the flush. */
  cpuNs(): number {
    return this.#effort.nsPerMessage(this.#next);
  }

  #turn(now: number): number {
    if (this.#phase === "measure") {
      this.#phase = "done";
      return MARK_END;
    }
    this.#phase = "measure";
    this.#until = now + this.#measureMs;
    this.#effort = new Effort(this.#next);
    return MARK_START;
  }
}

/** Checks every message of a one-way receiver and measures between the marks. */
export class Meter {
  readonly #bytes: number;
  #next = 0;
  #startedAt = 0;
  #startedWith = 0;
  #effort = new Effort(0);
  #result: Result = {};

  constructor(task: Task) {
    this.#bytes = task.bytes;
  }

  /** What was measured, once the end has come. */
  get result(): Result {
    return this.#result;
  }

  /** Takes a message in; true at the end. Throws at one that is lost, doubled, or of another length. */
  take(length: number, value: number): boolean {
    if (length !== this.#bytes) throw new Error(`a message has ${length} bytes`);
    if (value === this.#next) {
      this.#next++;
      return false;
    }
    const now = performance.now();
    if (value === MARK_START) {
      this.#startedAt = now;
      this.#startedWith = this.#next;
      this.#effort = new Effort(this.#next);
      return false;
    }
    if (value !== MARK_END) throw new Error(`message ${value} came instead of ${this.#next}`);
    const seconds = (now - this.#startedAt) / 1000;
    this.#result = {
      messagesPerSecond: (this.#next - this.#startedWith) / seconds,
      cpuNs: this.#effort.nsPerMessage(this.#next),
    };
    return true;
  }
}

/** The processor time of this process from here on: less moved by other processes than a rate. */
export class Effort {
  readonly #messages: number;
  readonly #cpu = process.cpuUsage();

  /** `messages`: how many there have been. */
  constructor(messages: number) {
    this.#messages = messages;
  }

  /** The time since then per message; `messages`: how many there have been by now. */
  nsPerMessage(messages: number): number {
    const { user, system } = process.cpuUsage(this.#cpu);
    return (user + system) * 1000 / (messages - this.#messages);
  }
}

/** Times round trips: `begin`, `end`, and so on, for as long as the task says. */
export class StopWatch {
  readonly #warmUntil: number;
  readonly #until: number;
  readonly #micros: number[] = [];
  #begunAt = 0;

  constructor(task: Task) {
    this.#warmUntil = performance.now() + task.warmUpMs;
    this.#until = this.#warmUntil + task.measureMs;
  }

  /** A round trip begins. */
  begin(): void {
    this.#begunAt = performance.now();
  }

  /** It ended; true if it was the last. It counts if it began after `since`. */
  end(since = -Infinity): boolean {
    const now = performance.now();
    if (now >= this.#warmUntil && this.#begunAt >= since) {
      this.#micros.push((now - this.#begunAt) * 1000);
    }
    return now >= this.#until;
  }

  /** The median and the 99th percentile, microseconds. */
  percentiles(): { p50: number; p99: number } {
    const sorted = Float64Array.from(this.#micros).sort();
    const at = (share: number) => sorted[Math.floor((sorted.length - 1) * share)] ?? NaN;
    return { p50: at(0.5), p99: at(0.99) };
  }
}

/** Counts answers after the warm-up, for as long as the task says. */
export class Counter {
  readonly #warmUntil: number;
  readonly #until: number;
  #count = 0;
  #startedWith = 0;
  #startedAt = 0;
  #effort: Effort | undefined;

  constructor(task: Task) {
    this.#warmUntil = performance.now() + task.warmUpMs;
    this.#until = this.#warmUntil + task.measureMs;
  }

  /** So many more came; true if the time is over. */
  take(answers = 1): boolean {
    const before = Math.floor(this.#count / MESSAGES_PER_CLOCK);
    this.#count += answers;
    if (Math.floor(this.#count / MESSAGES_PER_CLOCK) === before) return false;
    const now = performance.now();
    if (this.#effort === undefined && now >= this.#warmUntil) {
      this.#effort = new Effort(this.#count);
      this.#startedWith = this.#count;
      this.#startedAt = now;
    }
    return now >= this.#until;
  }

  /** What was measured up to now. */
  result(): Result {
    const seconds = (performance.now() - this.#startedAt) / 1000;
    return {
      messagesPerSecond: (this.#count - this.#startedWith) / seconds,
      cpuNs: this.#effort?.nsPerMessage(this.#count) ?? NaN,
    };
  }
}
