/** Frames: whole ones for decoders of streams, bodies for what reads one. */

import { bodyV3, failure, frameV3, ref, theirs, topicOf, u32 } from "../../bad_input/wire_v3.ts";
import { ackEntry } from "../../bad_input/wire_v3.ts";
import { bytes, hex, hexes, join } from "./hex.ts";

const PACKED = hex("05000000 50 68656c6c6f");
const ZSTD = hex("05000000 28b52ffd 20 05 290000 68656c6c6f");

/** What a connection may bring, framed. */
export const CHUNKS: Uint8Array[] = hexes(
  "00000001 61",
  "00000002 0708 00000003 010203 00000001 ff",
  `00000100 ${"ab".repeat(256)} 00000001 00`,
  "00000000",
  "ffffffff",
  "00010000",
  "00010001 00",
  "000000",
  "",
);

/** Bodies of version 2. */
export const V2_BODIES: Uint8Array[] = [
  ...hexes("00", "0068656c6c6f", "01", "0168", "02", "80ff"),
  join(Uint8Array.of(1), PACKED),
  hex("01 ffffffff 1f 61 0100 ffffff 50 6161616161"),
];

/** Bodies of version 3, one of each kind and more. */
export const V3_BODIES: Uint8Array[] = [
  bodyV3({ payload: "hello" }),
  bodyV3({ lane: 0, id: 7, more: true, payload: "a part" }),
  bodyV3({ lane: 2, topic: true, payload: join(topicOf("topic"), bytes("hello")) }),
  bodyV3({ checksum: true, payload: "hello" }),
  bodyV3({ compression: 1, payload: PACKED }),
  bodyV3({ compression: 2, payload: ZSTD }),
  bodyV3({ compression: 1, checksum: true, payload: PACKED }),
  bodyV3({ kind: "request", topic: true, payload: join(topicOf("get"), u32(1_000)) }),
  bodyV3({ kind: "response", payload: ref(1, "an answer") }),
  bodyV3({ kind: "error", payload: ref(1, failure("NO_HANDLER", "nobody")) }),
  bodyV3({ kind: "error", payload: ref(1, failure("\x1b[2J", "\r\n")) }),
  bodyV3({ kind: "cancel", payload: ref(1) }),
  bodyV3({ kind: "open", topic: true, payload: topicOf("file") }),
  bodyV3({ kind: "streamData", payload: ref(theirs(1), "some bytes") }),
  bodyV3({ kind: "end", payload: ref(1) }),
  bodyV3({ kind: "reset", payload: ref(1, failure("CANCELLED")) }),
  bodyV3({ kind: "window", payload: ref(1, u32(262_144)) }),
  bodyV3({ kind: "ping", id: 7 }),
  bodyV3({ kind: "pong", id: 2n ** 64n - 1n }),
  bodyV3({ kind: "ack", payload: join(ackEntry(0, 1), ackEntry(1, 2), ackEntry(2, 3)) }),
  bodyV3({ kind: "goaway", payload: [0, 1, 0x69, 0x64, 0x6c, 0x65] }),
  bodyV3({ kind: "routed" }),
  bodyV3({ kind: "control" }),
  bodyV3({ lane: 3 }),
  bodyV3({ version: 2 }),
  bodyV3({ compression: 3 }),
  bodyV3({ id: 0 }),
  bodyV3({ id: 2n ** 64n - 1n }),
];

/** Frames of version 2, as they follow a handshake. */
export const V2_CONVERSATIONS: Uint8Array[] = [
  hex("00000006 00 68656c6c6f 00000001 00 00000002 00 61"),
  hex("0000000b 01 05000000 50 68656c6c6f 00000002 00 61"),
  join(
    ...Array.from({ length: 3 }, (_, i) => join(hex("0000012d 00"), new Uint8Array(300).fill(i))),
  ),
  hex("00000002 80 61"),
  hex("01000001 00"),
  hex("01000002"),
];

/** What a peer of version 3 says after the handshake: messages, requests, streams. */
export const V3_CONVERSATIONS: Uint8Array[] = [
  join(
    frameV3({ payload: "one" }),
    frameV3({ id: 2, topic: true, payload: join(topicOf("topic"), bytes("two")) }),
    frameV3({ lane: 0, payload: "urgent" }),
    frameV3({ lane: 2, payload: "bulk" }),
    frameV3({ kind: "ping", id: 1 }),
  ),
  join(
    frameV3({ more: true, payload: "a message " }),
    frameV3({ lane: 0, payload: "between" }),
    frameV3({ id: 2, more: true, payload: "in three " }),
    frameV3({ id: 3, payload: "parts" }),
    frameV3({ id: 3, payload: "twice" }),
  ),
  join(
    frameV3({ kind: "request", topic: true, payload: join(topicOf("get"), u32(1_000)) }),
    frameV3({ id: 2, kind: "request", payload: join(u32(0), bytes("nobody")) }),
    frameV3({ id: 3, kind: "cancel", payload: ref(1) }),
    frameV3({ id: 4, kind: "response", payload: ref(1, "of what?") }),
    frameV3({ id: 5, kind: "error", payload: ref(9, failure("CODE", "text")) }),
    frameV3({ kind: "ack", payload: ackEntry(1, 1) }),
  ),
  join(
    frameV3({ kind: "open", topic: true, payload: topicOf("file") }),
    frameV3({ id: 2, kind: "streamData", payload: ref(1, "some bytes") }),
    frameV3({ id: 3, kind: "window", payload: ref(1, u32(10)) }),
    frameV3({ id: 4, kind: "end", payload: ref(1) }),
    frameV3({ id: 5, kind: "open" }),
    frameV3({ id: 6, kind: "reset", payload: ref(5, failure("CANCELLED", "no more")) }),
    frameV3({ id: 7, kind: "window", payload: ref(1, u32(0xffff_ffff)) }),
    frameV3({ id: 8, kind: "streamData", payload: ref(theirs(1), "of none") }),
  ),
  join(
    frameV3({ checksum: true, payload: "one" }),
    frameV3({ id: 2, checksum: true, compression: 1, payload: PACKED }),
    frameV3({ id: 3, checksum: true, compression: 2, payload: ZSTD }),
    frameV3({ kind: "goaway", checksum: true, payload: [0, 0] }),
    frameV3({ id: 4, checksum: true, payload: "after goaway" }),
  ),
  join(
    frameV3({ id: 1, payload: new Uint8Array(1_000) }),
    frameV3({ id: 2, kind: "open", topic: true, payload: topicOf("file") }),
    ...Array.from({ length: 6 }, (_, i) => {
      const payload = ref(2, new Uint8Array(60_000));
      return frameV3({ id: 3 + i, kind: "streamData", payload });
    }),
  ).subarray(0, 30_000),
  join(
    ...Array.from(
      { length: 5 },
      (_, i) => frameV3({ id: 1 + i, more: i < 4, payload: new Uint8Array(300).fill(i) }),
    ),
    frameV3({ id: 6, kind: "open", topic: true, payload: topicOf("file") }),
    ...Array.from({ length: 5 }, (_, i) =>
      frameV3({
        id: 7 + i,
        kind: "streamData",
        payload: ref(6, new Uint8Array(200 + 20 * i).fill(i)),
      })),
    ...Array.from({ length: 3 }, (_, i) => {
      const payload = join(topicOf("get"), u32(0), new Uint8Array(400).fill(i));
      return frameV3({ id: 12 + i, kind: "request", topic: true, payload });
    }),
    ...Array.from(
      { length: 3 },
      (_, i) => frameV3({ id: 15 + i, payload: new Uint8Array(350).fill(i) }),
    ),
  ),
  hex("01000200 0003"),
  hex("00000001 03"),
];
