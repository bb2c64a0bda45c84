/**
 * What turns an application's values into message payloads and back.
 *
 * @module
 */

/** Encodes values as bytes. Both methods may throw; a message that can't be decoded is a warning. */
export interface PayloadCodec<T> {
  /** The bytes of a value. */
  encode(value: T): Uint8Array;
  /** The value of bytes that came from a peer: never trust their shape. */
  decode(bytes: Uint8Array): T;
}

const encoder = new TextEncoder();
const decoder = new TextDecoder("utf-8", { fatal: true });

/**
 * JSON as UTF-8. The type parameter is a promise of yours, not a check: validate what peers send.
 *
 * @example
 * ```ts
 * import { Endpoint, json } from "@hawser/hawser";
 *
 * interface Vote { term: number; granted: boolean }
 * const endpoint = new Endpoint({ nodeId: "a", security: "development", codec: json<Vote>() });
 * ```
 */
export function json<T>(): PayloadCodec<T> {
  return {
    encode: (value) => {
      const text = JSON.stringify(value);
      if (text === undefined) throw new TypeError("Cannot encode: the value has no JSON form");
      return encoder.encode(text);
    },
    decode: (bytes) => JSON.parse(decoder.decode(bytes)) as T,
  };
}

/** Bytes as they are. */
export const bytesCodec: PayloadCodec<Uint8Array> = {
  encode: (value) => value,
  decode: (bytes) => bytes,
};
