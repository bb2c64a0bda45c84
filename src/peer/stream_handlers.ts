/**
 * Who takes the streams that other nodes open.
 *
 * @module
 */

import type { StreamCore } from "../protocol/v3/stream_core.ts";
import { encodeTopic } from "../protocol/v3/topic.ts";
import { failureOf, HandlerError, handlerName } from "./requests.ts";
import { TransportStream } from "./web_stream.ts";

/**
 * Takes a stream. Its place among the peer's streams is free again once the stream has closed and
 * a returned promise has settled. What is thrown resets the stream, as it would answer a request.
 */
export type StreamHandler = (stream: TransportStream) => void | Promise<void>;

/** What taking streams needs of a peer. */
export interface StreamHost {
  readonly nodeId: string;
  /** A handler threw or rejected; `what` names it. */
  onHandlerError(error: unknown, what: string): void;
}

/** The handlers of an endpoint, by topic. */
export class StreamHandlers {
  readonly #byTopic = new Map<string | undefined, StreamHandler>();

  /**
   * Takes streams with a topic, in the place of who did so before; undefined takes those without.
   * Returns a function that ends it.
   *
   * @throws {TypeError} If `handler` is no function or the topic is no string.
   * @throws {RangeError} If the topic does not have 1 to 255 bytes, or is not well-formed.
   */
  handle(topic: string | undefined, handler: StreamHandler): () => void {
    if (topic !== undefined) encodeTopic(topic);
    if (typeof handler !== "function") {
      throw new TypeError("Cannot handle streams: the handler is not a function");
    }
    this.#byTopic.set(topic, handler);
    return () => {
      if (this.#byTopic.get(topic) === handler) this.#byTopic.delete(topic);
    };
  }

  /** Gives a stream that a peer has opened to its handler. */
  dispatch(core: StreamCore, host: StreamHost): void {
    const handler = this.#byTopic.get(core.topic);
    if (handler === undefined) {
      core.reset("NO_HANDLER", "nobody takes streams of this topic");
      return core.release();
    }
    const stream = new TransportStream(host.nodeId, core);
    const failed = (error: unknown) => {
      const { code, message } = failureOf(error);
      // A stream that is over fails the handler that still used it: that is no news.
      if (core.error === undefined && !(error instanceof HandlerError)) {
        host.onHandlerError(error, handlerName("stream", core.topic));
      }
      core.reset(code, message);
    };
    const release = () => core.release();
    const settled = () => void stream.closed.then(release, release);
    try {
      const done: unknown = handler(stream);
      // Whoever keeps the stream for later returns no promise.
      if (done instanceof Promise) done.catch(failed).then(() => stream.leave()).then(settled);
      else settled();
    } catch (error) {
      failed(error);
      settled();
    }
  }
}
