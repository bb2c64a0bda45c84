/**
 * How a message is sent: what the application says of it, checked.
 *
 * @module
 */

import { TransportError } from "./errors.ts";
import type { Delivery, WhenFull } from "./options.ts";
import type { Peer } from "./peer/peer.ts";
import type { HandleOptions, RequestOptions } from "./peer/requests.ts";
import type { SendPlan } from "./peer/send_queue.ts";
import { quote } from "./protocol/text.ts";
import { encodeTopic } from "./protocol/v3/topic.ts";
import { type Lane, LANE_NAMES, type LaneName, NORMAL } from "./protocol/v3/types.ts";

/** How a message is sent that may not wait. */
export interface TrySendOptions {
  /**
   * The lane: "control" goes before everything else, "bulk" lets everything else go first. Order
   * holds within a lane.
   * @default {"normal"}
   */
  lane?: LaneName | undefined;
  /** What it is about, for the receiver: 1 to 255 bytes of UTF-8. Protocol version 3. */
  topic?: string | undefined;
  /**
   * `"at-most-once"`: it is sent once and not kept; lost with its connection, and then only counted.
   * @default {the endpoint's `delivery`}
   */
  delivery?: Delivery | undefined;
}

/** How a message is sent. */
export interface SendOptions extends TrySendOptions {
  /**
   * What to do when the peer's queue is full.
   * @default {"wait"}
   */
  whenFull?: WhenFull | undefined;
  /**
   * Resolve only when the peer has it in its receive queue, and reject if it is reported
   * undelivered. Protocol version 3.
   * @default {false}
   */
  acknowledged?: boolean | undefined;
  /**
   * Ends the wait: the promise rejects with `signal.reason`. A message that was accepted before is
   * sent all the same.
   */
  signal?: AbortSignal | undefined;
}

/** How a stream is opened. */
export interface StreamOptions {
  /** The lane of all its bytes. @default {"normal"} */
  lane?: LaneName | undefined;
  /** What it is about: the peer's `onStream` of this topic gets it. 1 to 255 bytes of UTF-8. */
  topic?: string | undefined;
  /** Bytes that the peer gets with the stream: at most `maxMessageSize`. */
  payload?: Uint8Array | undefined;
  /** Resets the stream. */
  signal?: AbortSignal | undefined;
}

/** How a message goes out of which nothing is said. */
export const PLAIN: SendPlan = {
  lane: NORMAL,
  topic: undefined,
  atMostOnce: false,
  tracker: undefined,
};

const DELIVERIES: readonly Delivery[] = ["resume", "at-most-once"];
const WHEN_FULL: readonly WhenFull[] = ["wait", "reject", "drop-oldest", "drop-newest"];

const SEND_KEYS: readonly (keyof SendOptions)[] = [
  ...["lane", "topic", "delivery", "whenFull", "acknowledged", "signal"] as const,
];
const TRY_SEND_KEYS: readonly (keyof TrySendOptions)[] = ["lane", "topic", "delivery"];
const REQUEST_KEYS: readonly (keyof RequestOptions)[] = ["topic", "lane", "timeoutMs", "signal"];
const HANDLE_KEYS: readonly (keyof HandleOptions)[] = ["concurrency", "concurrencyPerPeer"];
const STREAM_KEYS: readonly (keyof StreamOptions)[] = ["lane", "topic", "payload", "signal"];
/** The options of each call. */
const KEYS = {
  send: SEND_KEYS as readonly string[],
  trySend: TRY_SEND_KEYS as readonly string[],
  request: REQUEST_KEYS as readonly string[],
  handle: HANDLE_KEYS as readonly string[],
  openStream: STREAM_KEYS as readonly string[],
};

/** Refuses an option that the call does not have: a mistyped one would be without effect. */
export function checkKeys(call: keyof typeof KEYS, options: object): void {
  const known = KEYS[call];
  for (const key in options) {
    if (known.includes(key)) continue;
    throw new TypeError(
      `Cannot ${call}: there is no option ${quote(key)}; there are ${known.join(", ")}`,
    );
  }
}

/** The lane of a name. */
export function checkLane(name: LaneName | undefined): Lane {
  if (name === undefined) return NORMAL;
  const lane = LANE_NAMES.indexOf(name);
  if (lane >= 0) return lane as Lane;
  throw new TypeError(`Cannot send: lane must be one of ${LANE_NAMES.join(", ")}`);
}

/** Checks the options of one message. */
export function sendPlan(
  { lane, topic, delivery }: TrySendOptions,
  usual: Delivery,
): SendPlan {
  if (delivery !== undefined && !DELIVERIES.includes(delivery)) {
    throw new TypeError(`Cannot send: delivery must be one of ${DELIVERIES.join(", ")}`);
  }
  return {
    lane: checkLane(lane),
    topic: topic === undefined ? undefined : encodeTopic(topic),
    atMostOnce: (delivery ?? usual) === "at-most-once",
    tracker: undefined,
  };
}

/** Checks what is to be done when the queue is full. */
export function checkWhenFull(value: WhenFull | undefined): WhenFull {
  if (value === undefined) return "wait";
  if (WHEN_FULL.includes(value)) return value;
  throw new TypeError(`Cannot send: whenFull must be one of ${WHEN_FULL.join(", ")}`);
}

/** Sends a message and waits for the peer's acknowledgement. */
export function sendAcknowledged(
  peer: Peer,
  bytes: Uint8Array,
  options: SendOptions,
  usual: Delivery,
  whenFull: WhenFull,
): Promise<void> {
  const { signal } = options;
  const plan = sendPlan(options, usual);
  return new Promise((resolve, reject) => {
    const leave = () => signal?.removeEventListener("abort", onAbort);
    const onAbort = () => reject(signal?.reason);
    const tracker = {
      onAcked: () => {
        leave();
        resolve();
      },
      onEnded: (fate: "unsent" | "unknown", error?: TransportError) => {
        leave();
        if (error !== undefined) return reject(error);
        const why = fate === "unsent" ? "it was not sent" : "nobody knows whether it arrived";
        const text = `Cannot deliver a message to ${peer.nodeId}: ${why}`;
        reject(new TransportError("ConnectionClosed", text, { peer: peer.nodeId }));
      },
    };
    signal?.addEventListener("abort", onAbort, { once: true });
    const refused = (error: unknown) => {
      leave();
      reject(error);
    };
    try {
      peer.send(bytes, { ...plan, tracker }, whenFull, signal).catch(refused);
    } catch (error) {
      refused(error);
    }
  });
}
