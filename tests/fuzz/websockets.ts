/** Fuzz targets: the frames and the upgrade of WebSocket. */

import assert from "node:assert/strict";
import { encodeFrame, OPCODE, WebSocketDecoder } from "../../src/protocol/websocket.ts";
import {
  encodeRequest,
  HeadReader,
  judgeRequest,
  judgeResponse,
  MAX_HEAD_BYTES,
} from "../../src/protocol/websocket_handshake.ts";
import { attempt, pieces, type Target } from "./target.ts";

const encoder = new TextEncoder();
const MASK = Uint8Array.of(0x37, 0xfa, 0x21, 0x3d);
const KEY = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/** Every byte of a header, and the lengths that have more of them. */
const FRAMES: Uint8Array[] = [
  encodeFrame(OPCODE.binary, encoder.encode("Hello"), undefined),
  encodeFrame(OPCODE.binary, encoder.encode("Hello"), MASK),
  encodeFrame(OPCODE.binary, new Uint8Array(300), MASK),
  encodeFrame(OPCODE.binary, new Uint8Array(0), undefined),
  encodeFrame(OPCODE.ping, encoder.encode("Hello"), MASK),
  encodeFrame(OPCODE.close, Uint8Array.of(3, 232), undefined),
  Uint8Array.of(0x02, 0x03, 1, 2, 3, 0x80, 0x02, 4, 5),
  Uint8Array.of(0x82, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff),
];

const HEADS: Uint8Array[] = [
  encodeRequest("node1.example.com:9443", "/hawser", KEY, ["hawser.v1"]),
  encoder.encode(
    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
      "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n" +
      "Sec-WebSocket-Protocol: hawser.v1\r\n\r\nrest",
  ),
  encoder.encode("GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n folded\r\n\r\n"),
];

/** What a decoder gives for an input in these pieces: the bytes, and how it ended. */
function decoded(parts: readonly Uint8Array[], masked: boolean): [bytes: number[], end: string] {
  const bytes: number[] = [];
  let end = "";
  const decoder = new WebSocketDecoder(masked, {
    onData: (chunk) => bytes.push(...chunk) < 0,
    onEnd: () => void (end += "end "),
    onPing: (payload) => void (end += `ping ${payload} `),
    onClose: (code) => void (end += `close ${code} `),
  });
  for (const part of parts) {
    // It unmasks in place.
    if (attempt(() => decoder.decode(part.slice())) === undefined) {
      return [bytes, `${end}refused ${decoder.closeCode}`];
    }
  }
  return [bytes, end];
}

/** Targets for WebSocket. */
export const WEBSOCKETS: readonly Target[] = [
  {
    name: "frames of WebSocket",
    corpus: FRAMES,
    dictionary: [MASK, Uint8Array.of(0x82), Uint8Array.of(0x7e), Uint8Array.of(0x7f)],
    // The test's own list of the bytes.
    bytesPerByte: 64,
    run(input) {
      for (const masked of [true, false]) {
        const whole = decoded([input], masked);
        assert.deepEqual(decoded(pieces(input), masked), whole);
        assert.ok(whole[0].length <= input.length);
      }
    },
  },
  {
    name: "upgrade to WebSocket",
    corpus: HEADS,
    dictionary: ["\r\n", ": ", "Upgrade", "websocket", "Sec-WebSocket-Key", KEY, "101", "hawser.v1"]
      .map((word) => encoder.encode(word)),
    bytesPerByte: 64,
    run(input) {
      const reader = new HeadReader();
      for (const part of pieces(input)) {
        const read = attempt(() => reader.take(part));
        if (read === undefined) continue;
        assert.ok(read.rest.length <= input.length);
        assert.ok(read.head.line.length <= MAX_HEAD_BYTES);
        attempt(() => judgeRequest(read.head, "/hawser"));
        attempt(() => judgeResponse(read.head, ACCEPT, ["hawser.v1"], "connect"));
        return;
      }
    },
  },
];
