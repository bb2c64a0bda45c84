/**
 * What the signature of a message covers beside its envelope: where the message stands.
 *
 * @module
 */

import { KIND, type Kind, type Lane } from "./types.ts";

/** What has application bytes. */
const SEALED_KINDS: readonly Kind[] = [
  ...[KIND.data, KIND.request, KIND.response, KIND.streamOpen, KIND.streamData],
];
const REF_BYTES = 8;

/** Whether the application bytes of a kind are signed. */
export function isSealed(kind: Kind): boolean {
  return SEALED_KINDS.includes(kind);
}

/** Whether it names a request or a stream, which the signature covers, too. */
function refers(kind: Kind): boolean {
  return kind === KIND.response || kind === KIND.streamData;
}

/**
 * Kind, lane, the topic behind its length (0: none), and the id of the request or stream that the
 * message is about, as its prefix has it: so that nobody can put a signed message elsewhere.
 *
 * @param prefix The prefix of the kind; only that of a response and of a stream's data is covered.
 */
export function aroundSealed(
  kind: Kind,
  lane: Lane,
  topic: Uint8Array | undefined,
  prefix: Uint8Array | undefined,
): Uint8Array {
  const topicBytes = topic?.length ?? 0;
  const around = new Uint8Array(3 + topicBytes + (refers(kind) ? REF_BYTES : 0));
  around[0] = kind;
  around[1] = lane;
  around[2] = topicBytes;
  if (topic !== undefined) around.set(topic, 3);
  if (refers(kind)) around.set(prefix!.subarray(0, REF_BYTES), 3 + topicBytes);
  return around;
}

/** The prefix of a received message, as far as it is covered. */
export function refPrefix(high: number, low: number): Uint8Array {
  const prefix = new Uint8Array(REF_BYTES);
  const view = new DataView(prefix.buffer);
  view.setUint32(0, high);
  view.setUint32(4, low);
  return prefix;
}
