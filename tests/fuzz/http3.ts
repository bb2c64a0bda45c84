/** Fuzz targets: the bytes of HTTP/3 that stand before a WebTransport session. */

import assert from "node:assert/strict";
import {
  encodeControl,
  FrameReader,
  HEADERS_FRAME,
  readSettings,
  readStreamHead,
  SETTINGS_FRAME,
} from "../../src/protocol/http3.ts";
import { decodeFields } from "../../src/protocol/qpack.ts";
import {
  encodeAnswer,
  encodeConnect,
  judgeAnswer,
  judgeConnect,
} from "../../src/protocol/webtransport_handshake.ts";
import { hex } from "./corpus/hex.ts";
import { attempt, pieces, type Target } from "./target.ts";

const ORIGINS = new Set(["https://app.example.org"]);
const WORDS: Uint8Array[] = [
  hex("4041"),
  hex("c0"),
  hex("ff"),
  hex("ffffffffffffffff"),
  hex("01"),
  hex("04"),
  hex("27"),
  hex("5f"),
];

const STREAMS: Uint8Array[] = [
  encodeControl().subarray(1),
  encodeConnect("node1:9100", "/hawser"),
  encodeAnswer(200),
  hex("00 03 010203 21 00 01 03 0000 d9"),
  hex("01 80004001"),
];

const SECTIONS: Uint8Array[] = [
  encodeConnect("node1:9100", "/hawser").subarray(3),
  hex("0000 cf d7 508c f1e3 c2e5 f23a 6ba0 ab90 f4ff 5f4b 03 616263"),
  hex("0000 2f01 25a8 49e9 5ba9 7d7f 0178 31 61 0162"),
  hex("0000 d9"),
];

/** What a reader gives for an input in these pieces, and whether it refused it. */
function framed(type: number, parts: readonly Uint8Array[]): unknown {
  const reader = new FrameReader(type);
  for (const part of parts) {
    const taken = attempt(() => ({ frame: reader.take(part) }));
    if (taken === undefined) return "refused";
    if (taken.frame !== undefined) return [[...taken.frame], reader.count];
  }
  return reader.count;
}

/** Targets for HTTP/3. */
export const HTTP3: readonly Target[] = [
  {
    name: "frames of HTTP/3",
    corpus: STREAMS,
    dictionary: WORDS,
    // What is not whole is copied with each piece.
    bytesPerByte: 256,
    run(input) {
      for (const type of [HEADERS_FRAME, SETTINGS_FRAME]) {
        const whole = framed(type, [input]);
        assert.deepEqual(framed(type, pieces(input)), whole, "pieces are read differently");
      }
      attempt(() => readSettings(input));
      readStreamHead(input);
    },
  },
  {
    name: "header fields of HTTP/3",
    corpus: SECTIONS,
    dictionary: WORDS,
    // A map, and texts of two bytes for each character, which have shorter codes.
    bytesPerByte: 256,
    run(input) {
      const fields = attempt(() => decodeFields(input));
      const judged = attempt(() => ({ refusal: judgeConnect(input, "/hawser", ORIGINS) }));
      attempt(() => judgeAnswer(input));
      if (judged === undefined || judged.refusal !== undefined) return;
      assert.equal(fields!.get(":path"), "/hawser");
      assert.equal(fields!.get(":method"), "CONNECT");
      const origin = fields!.get("origin");
      assert.ok(origin === undefined || ORIGINS.has(origin));
    },
  },
];
