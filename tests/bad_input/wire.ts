/** Bytes of protocol versions 1 and 2, written by hand from docs/protocol.md. */

/** Text or bytes as bytes. */
export function bytes(content: string | readonly number[] | Uint8Array): Uint8Array {
  return typeof content === "string" ? new TextEncoder().encode(content) : Uint8Array.from(content);
}

/** All parts one after the other. */
export function join(...parts: readonly Uint8Array[]): Uint8Array {
  const whole = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}

/** A u32, big-endian: the header of a frame. */
export function header(length: number): Uint8Array {
  return Uint8Array.of(length >>> 24, length >>> 16, length >>> 8, length);
}

/** A u32, little-endian: the size before an LZ4 block. */
export function littleEndian(size: number): Uint8Array {
  return Uint8Array.of(size, size >>> 8, size >>> 16, size >>> 24);
}

/** A frame; version 1 messages are just that. */
export function frame(body: string | readonly number[] | Uint8Array): Uint8Array {
  const content = bytes(body);
  return join(header(content.length), content);
}

/** A version 2 message. */
export function messageV2(payload: string | Uint8Array, flags = 0): Uint8Array {
  return frame(join(Uint8Array.of(flags), bytes(payload)));
}

/** A version 2 message that says it is LZ4: the claimed size, then the block. */
export function compressed(size: number, block: readonly number[] | Uint8Array): Uint8Array {
  return messageV2(join(littleEndian(size), bytes(block)), 1);
}

/** The minimal hello of a version 2 client, with fields added or replaced. */
export function helloText(fields: Record<string, unknown> = {}): string {
  return JSON.stringify({
    type: "hello",
    protocol_version: 2,
    node_id: "mallory",
    capabilities: ["lz4"],
    ...fields,
  });
}

/** {@linkcode helloText} in its frame. */
export function hello(fields: Record<string, unknown> = {}): Uint8Array {
  return frame(helloText(fields));
}

/** A welcome to a version 2 dialer, in its frame. */
export function welcome(fields: Record<string, unknown> = {}): Uint8Array {
  return frame(JSON.stringify({
    type: "welcome",
    protocol_version: 2,
    node_id: "mallory",
    capabilities: ["lz4"],
    max_message_size: 16_777_216,
    ...fields,
  }));
}

/** A reject in its frame. */
export function reject(code: string, reason: string): Uint8Array {
  return frame(JSON.stringify({ type: "reject", code, reason }));
}
