/**
 * Topics as text, without decoding those again that came a moment ago.
 *
 * @module
 */

/** Topics that are remembered, each of at most 255 bytes. A power of two. */
const SLOTS = 64;

const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

interface Entry {
  readonly bytes: Uint8Array;
  readonly text: string;
}

/** The last topics seen. Each has one place; a topic with the same place takes it over. */
export class TopicCache {
  readonly #entries: (Entry | undefined)[] = Array<Entry | undefined>(SLOTS).fill(undefined);

  /** The text of the UTF-8 at `from` to `to`; undefined if it is not valid. */
  read(bytes: Uint8Array, from: number, to: number): string | undefined {
    let hash = to - from;
    for (let at = from; at < to; at++) hash = Math.imul(hash ^ bytes[at]!, 0x0100_0193);
    const slot = (hash ^ hash >>> 15) & SLOTS - 1;
    const entry = this.#entries[slot];
    if (entry !== undefined && equals(entry.bytes, bytes, from, to)) return entry.text;
    const text = decode(bytes.subarray(from, to));
    if (text !== undefined) this.#entries[slot] = { bytes: bytes.slice(from, to), text };
    return text;
  }
}

function equals(known: Uint8Array, bytes: Uint8Array, from: number, to: number): boolean {
  if (known.length !== to - from) return false;
  for (let at = 0; at < known.length; at++) {
    if (known[at] !== bytes[from + at]) return false;
  }
  return true;
}

function decode(bytes: Uint8Array): string | undefined {
  try {
    return decoder.decode(bytes);
  } catch {
    return undefined;
  }
}
