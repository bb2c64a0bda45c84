/**
 * Messages as a `for await` gets them.
 *
 * @module
 */

import { TransportError } from "./errors.ts";
import type { Message } from "./peer/inbox.ts";

/** Where messages come from. */
export interface MessageSource<T> {
  /** The next one, waiting for it; rejects with `Shutdown` where no more will come. */
  receive(): Promise<Message<T>>;
  /** The next one if it is there. */
  tryReceive(): Message<T> | undefined;
}

const END = { done: true, value: undefined } as const;

/** Iterates until no more will come. Written by hand: a generator costs two promises more a message. */
export function iterateMessages<T>(
  source: MessageSource<T>,
): AsyncIterableIterator<Message<T>, void, void> {
  let ended = false;
  const wait = async (): Promise<IteratorResult<Message<T>, void>> => {
    try {
      return { done: false, value: await source.receive() };
    } catch (error) {
      if (error instanceof TransportError && error.code === "Shutdown") return END;
      throw error;
    }
  };
  return {
    next: () => {
      if (ended) return Promise.resolve(END);
      const value = source.tryReceive();
      return value === undefined ? wait() : Promise.resolve({ done: false, value });
    },
    return: () => {
      ended = true;
      return Promise.resolve(END);
    },
    [Symbol.asyncIterator]() {
      return this;
    },
  };
}
