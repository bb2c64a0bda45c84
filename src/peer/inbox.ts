/**
 * Received messages on their way to the application: a bounded queue, or a handler.
 *
 * @module
 */

import { TransportError } from "../errors.ts";
import { Fifo } from "../protocol/fifo.ts";
import type { LaneName } from "../protocol/v3/types.ts";

/** One received message. */
export interface Message<T = Uint8Array> {
  /** The node id of the sender, as verified by the security mode. */
  readonly from: string;
  /** What was sent. Bytes may share a larger buffer: copy them if you keep few of many. */
  readonly payload: T;
  /** What it is about, where the sender said so. */
  readonly topic: string | undefined;
  /** The lane it came in. */
  readonly lane: LaneName;
}

/** Takes messages as they come. A returned promise holds that peer's next message back. */
export type MessageHandler<T = Uint8Array> = (message: Message<T>) => void | Promise<void>;

interface Receiver {
  readonly resolve: (message: Message) => void;
  readonly reject: (reason: unknown) => void;
  readonly detach: () => void;
}

/** What an inbox needs to know. */
export interface InboxConfig {
  readonly maxMessages: number;
  readonly maxBytes: number;
  /** There is room again after the inbox was full. */
  onRoom(): void;
  /** The handler returned a promise for a message of this node. */
  onPending(from: string, settled: Promise<void>): void;
  /** The handler threw. */
  onHandlerError(from: string, error: unknown): void;
}

/** The one place where all peers' messages meet the application. */
export class Inbox {
  readonly #config: InboxConfig;
  readonly #messages = new Fifo<Message>();
  readonly #receivers = new Set<Receiver>();
  #bytes = 0;
  #handler: MessageHandler | undefined;
  #draining = false;
  #wasFull = false;
  #closed: TransportError | undefined;

  /** Makes an empty inbox. */
  constructor(config: InboxConfig) {
    this.#config = config;
  }

  /** Messages that wait. */
  get length(): number {
    return this.#messages.length;
  }

  /** Their bytes. */
  get bytes(): number {
    return this.#bytes;
  }

  /** Whether a further message must wait outside. */
  get full(): boolean {
    if (this.#messages.length < this.#config.maxMessages && this.#bytes < this.#config.maxBytes) {
      return false;
    }
    this.#wasFull = true;
    return true;
  }

  /** Takes a message in; the caller has asked `full`. */
  push(message: Message): void {
    if (this.#handler !== undefined && !this.#draining && this.#messages.length === 0) {
      this.#call(message);
      return;
    }
    const receiver = first(this.#receivers);
    if (receiver !== undefined) {
      this.#receivers.delete(receiver);
      receiver.detach();
      receiver.resolve(message);
      return;
    }
    this.#messages.push(message);
    this.#bytes += message.payload.length;
  }

  /** The next message, or undefined. */
  tryReceive(): Message | undefined {
    const message = this.#shift();
    if (message !== undefined) this.#tellRoom();
    return message;
  }

  /** The next message, waiting for one. */
  receive(signal?: AbortSignal): Promise<Message> {
    if (signal?.aborted) return Promise.reject(signal.reason);
    const message = this.tryReceive();
    if (message !== undefined) return Promise.resolve(message);
    if (this.#closed !== undefined) return Promise.reject(this.#closed);
    return new Promise((resolve, reject) => {
      const onAbort = () => {
        this.#receivers.delete(receiver);
        reject(signal?.reason);
      };
      const detach = () => signal?.removeEventListener("abort", onAbort);
      const receiver: Receiver = { resolve, reject, detach };
      signal?.addEventListener("abort", onAbort, { once: true });
      this.#receivers.add(receiver);
    });
  }

  /** Sets the handler, which gets what waits first. */
  setHandler(handler: MessageHandler): void {
    this.#handler = handler;
    this.#drain();
  }

  /** Goes back to the queue, unless another handler has been set since. */
  clearHandler(handler: MessageHandler): void {
    if (this.#handler === handler) this.#handler = undefined;
  }

  /** Gives waiting messages to the handler, one after the other where it returns promises. */
  #drain(): void {
    while (this.#handler !== undefined && !this.#draining) {
      const message = this.#shift();
      if (message === undefined) return;
      // What comes in while there is room told must not overtake this message.
      this.#draining = true;
      const pending = this.#call(message);
      this.#tellRoom();
      if (pending === undefined) {
        this.#draining = false;
        continue;
      }
      const goOn = () => {
        this.#draining = false;
        this.#drain();
      };
      pending.then(goOn, goOn);
    }
  }

  /** No message will come any more: waiting receivers are turned away, queued messages stay. */
  close(): void {
    if (this.#closed !== undefined) return;
    this.#closed = new TransportError("Shutdown", "Cannot receive: the endpoint is closed");
    for (const receiver of this.#receivers) {
      receiver.detach();
      receiver.reject(this.#closed);
    }
    this.#receivers.clear();
  }

  #shift(): Message | undefined {
    const message = this.#messages.shift();
    if (message !== undefined) this.#bytes -= message.payload.length;
    return message;
  }

  #call(message: Message): Promise<void> | undefined {
    try {
      const pending = this.#handler!(message);
      if (!(pending instanceof Promise)) return undefined;
      this.#config.onPending(message.from, pending);
      return pending;
    } catch (error) {
      this.#config.onHandlerError(message.from, error);
      return undefined;
    }
  }

  /** Room is told at half, so that peers are not stopped and started for each message. */
  #tellRoom(): void {
    if (!this.#wasFull) return;
    const { maxMessages, maxBytes } = this.#config;
    if (this.#messages.length * 2 > maxMessages || this.#bytes * 2 > maxBytes) return;
    this.#wasFull = false;
    this.#config.onRoom();
  }
}

function first<T>(set: Set<T>): T | undefined {
  for (const value of set) return value;
  return undefined;
}
