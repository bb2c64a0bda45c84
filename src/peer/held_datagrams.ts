/**
 * Messages that came in datagrams while the application was busy: a few of them wait.
 *
 * @module
 */

import { Fifo } from "../protocol/fifo.ts";
import type { DatagramMessage } from "../protocol/v3/datagram.ts";

const MAX_MESSAGES = 256;
const MAX_BYTES = 1_048_576;

/** What waits, oldest first. */
export class HeldDatagrams {
  readonly #messages = new Fifo<DatagramMessage>();
  #bytes = 0;

  /** How many wait. */
  get length(): number {
    return this.#messages.length;
  }

  /** Keeps a message; false: there is no room. */
  push(message: DatagramMessage): boolean {
    const bytes = this.#bytes + message.payload.length;
    if (this.#messages.length >= MAX_MESSAGES || bytes > MAX_BYTES) return false;
    this.#bytes = bytes;
    this.#messages.push(message);
    return true;
  }

  /** The oldest one. */
  shift(): DatagramMessage | undefined {
    const message = this.#messages.shift();
    if (message !== undefined) this.#bytes -= message.payload.length;
    return message;
  }
}
