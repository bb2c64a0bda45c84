/**
 * Topics as bytes.
 *
 * @module
 */

const MAX_TOPIC_BYTES = 255;
/** Topics remembered: an application has few, and sends many messages under each. */
const MAX_REMEMBERED = 256;

const encoder = new TextEncoder();
const remembered = new Map<string, Uint8Array>();

/**
 * The UTF-8 of a topic; the bytes are shared and must not be changed.
 *
 * @throws {TypeError} If it is no string.
 * @throws {RangeError} If it has not 1 to 255 bytes, or half of a surrogate pair.
 */
export function encodeTopic(topic: string): Uint8Array {
  const known = remembered.get(topic);
  if (known !== undefined) return known;
  if (typeof topic !== "string") throw new TypeError("Cannot send: the topic must be a string");
  if (!topic.isWellFormed()) throw new RangeError("Cannot send: the topic is no valid Unicode");
  const bytes = encoder.encode(topic);
  if (bytes.length < 1 || bytes.length > MAX_TOPIC_BYTES) {
    throw new RangeError(
      `Cannot send: a topic has 1 to ${MAX_TOPIC_BYTES} bytes, got ${bytes.length}`,
    );
  }
  if (remembered.size >= MAX_REMEMBERED) remembered.clear();
  remembered.set(topic, bytes);
  return bytes;
}
