/**
 * The demo's own messages, carried by `send` and `onMessage`:
 *
 * ```text
 * chunk  1 | file u32 | attempt u32 | offset f64 | total f64 | path length u16 | path | bytes
 * ack    2 | file u32 | attempt u32 | SHA-256 of the file as it was written, 32 bytes
 * again  3 | file u32 | attempt u32
 * ```
 *
 * A file is sent in chunks from its start. Each time that begins anew the attempt goes up by one,
 * so that what an earlier attempt left in a queue can't get mixed in. The receiver answers a whole
 * file with `ack`, and one that lacks a part with `again`.
 *
 * @module
 */

/** Part of a file. An empty file is one chunk without bytes. */
export interface Chunk {
  readonly type: "chunk";
  readonly file: number;
  readonly attempt: number;
  /** Where in the file `data` belongs. */
  readonly offset: number;
  /** Size of the whole file in bytes. */
  readonly total: number;
  /** Relative to the folder, parts separated by "/". */
  readonly path: string;
  readonly data: Uint8Array;
}

/** The whole file is written. */
export interface Ack {
  readonly type: "ack";
  readonly file: number;
  readonly attempt: number;
  readonly sha256: Uint8Array;
}

/** A part is missing: send the file again. */
export interface Again {
  readonly type: "again";
  readonly file: number;
  readonly attempt: number;
}

/** Any of them. */
export type DemoMessage = Chunk | Ack | Again;

const CHUNK = 1;
const ACK = 2;
const AGAIN = 3;
const START_BYTES = 9;
const CHUNK_HEADER_BYTES = START_BYTES + 8 + 8 + 2;
const HASH_BYTES = 32;

/** The bytes of a message. */
export function encodeMessage(message: DemoMessage): Uint8Array {
  switch (message.type) {
    case "chunk":
      return encodeChunk(message);
    case "ack":
      return withStart(ACK, message, message.sha256);
    case "again":
      return withStart(AGAIN, message, new Uint8Array(0));
  }
}

/** The message in these bytes; throws an `Error` where they are not one. */
export function decodeMessage(bytes: Uint8Array): DemoMessage {
  if (bytes.length < START_BYTES) throw new Error(`a message of ${bytes.length} bytes`);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const start = { file: view.getUint32(1), attempt: view.getUint32(5) };
  switch (bytes[0]) {
    case CHUNK:
      return { type: "chunk", ...start, ...decodeChunk(bytes, view) };
    case ACK:
      if (bytes.length !== START_BYTES + HASH_BYTES) throw new Error("an ack without SHA-256");
      return { type: "ack", ...start, sha256: bytes.slice(START_BYTES) };
    case AGAIN:
      return { type: "again", ...start };
    default:
      throw new Error(`a message of unknown type ${bytes[0]}`);
  }
}

function encodeChunk({ file, attempt, offset, total, path, data }: Chunk): Uint8Array {
  const name = new TextEncoder().encode(path);
  const rest = new Uint8Array(CHUNK_HEADER_BYTES - START_BYTES + name.length + data.length);
  const view = new DataView(rest.buffer);
  view.setFloat64(0, offset);
  view.setFloat64(8, total);
  view.setUint16(16, name.length);
  rest.set(name, 18);
  rest.set(data, 18 + name.length);
  return withStart(CHUNK, { file, attempt }, rest);
}

function decodeChunk(bytes: Uint8Array, view: DataView): Omit<Chunk, "type" | "file" | "attempt"> {
  if (bytes.length < CHUNK_HEADER_BYTES) throw new Error("a chunk without its header");
  const offset = view.getFloat64(9);
  const total = view.getFloat64(17);
  const end = CHUNK_HEADER_BYTES + view.getUint16(25);
  if (bytes.length < end) throw new Error("a chunk whose path is cut");
  const data = bytes.subarray(end);
  const sane = Number.isSafeInteger(offset) && Number.isSafeInteger(total) && offset >= 0 &&
    offset + data.length <= total && (data.length > 0 || total === 0);
  if (!sane) throw new Error(`a chunk of ${data.length} bytes at ${offset} of ${total}`);
  const decoder = new TextDecoder("utf-8", { fatal: true });
  return { offset, total, path: decoder.decode(bytes.subarray(CHUNK_HEADER_BYTES, end)), data };
}

function withStart(
  type: number,
  { file, attempt }: { file: number; attempt: number },
  rest: Uint8Array,
): Uint8Array {
  const bytes = new Uint8Array(START_BYTES + rest.length);
  const view = new DataView(bytes.buffer);
  view.setUint8(0, type);
  view.setUint32(1, file);
  view.setUint32(5, attempt);
  bytes.set(rest, START_BYTES);
  return bytes;
}
