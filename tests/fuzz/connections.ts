/** Fuzz targets: whole connections, before and after the handshake. */

import assert from "node:assert/strict";
import type { Capability } from "../../src/protocol/handshake.ts";
import { hello, welcome } from "../bad_input/wire.ts";
import { helloFieldsV3, helloV3 } from "../bad_input/wire_v3.ts";
import { converse, type Manner } from "./conversation.ts";
import { JSON_WORDS } from "./corpus/handshakes.ts";
import { CHUNKS, V2_CONVERSATIONS, V3_CONVERSATIONS } from "./corpus/frames.ts";
import { join } from "./corpus/hex.ts";
import { pieces, type Target } from "./target.ts";

/** Bits of an input's first byte. */
const CHECKSUM = 1;
const NO_RESUME = 2;
const HOLDS = 4;
const SMALL = 8;
const DIALS = 16;

const SMALL_MESSAGE = 256;
const LARGE_MESSAGE = 262_144;
const NO_BYTES = new Uint8Array(0);
const SESSION = { id: "f".repeat(32), resumed: false, received: [0, 0, 0] };
/** Of the time. */
const SHARE = 3;
/** A request of 18 bytes or a ping of 14 is answered in a batch of its own: a buffer of 1 KiB. */
const BYTES_PER_BYTE = 160;

/** All of them. */
export const CONNECTIONS: readonly Target[] = [
  afterHandshake("connection, version 1", CHUNKS, (mode) => talk(mode, hello(version(1)))),
  afterHandshake(
    "connection, version 2",
    V2_CONVERSATIONS,
    (mode) => talk(mode, hello(version(2)), ["lz4"]),
  ),
  afterHandshake(
    "connection, version 3",
    V3_CONVERSATIONS,
    (mode) => talk(mode, helloV3({ capabilities: capabilitiesOf(mode) })),
  ),
  afterHandshake(
    "connection, version 3, compressed",
    V3_CONVERSATIONS,
    (mode) => {
      const capabilities: Capability[] = [...capabilitiesOf(mode), "lz4", "zstd"];
      return talk(mode, helloV3({ capabilities }), ["lz4", "zstd"]);
    },
  ),
  {
    name: "connection from its first byte",
    corpus: [
      join(Uint8Array.of(0), hello(), V2_CONVERSATIONS[0]!),
      join(Uint8Array.of(0), hello(version(1)), CHUNKS[1]!),
      join(Uint8Array.of(0), helloV3(), V3_CONVERSATIONS[0]!),
      join(Uint8Array.of(HOLDS), helloV3({ protocol_version: 9 }), V3_CONVERSATIONS[1]!),
      join(Uint8Array.of(DIALS), welcome({ node_id: "node1" }), V2_CONVERSATIONS[0]!),
      join(Uint8Array.of(DIALS), welcomeV3(), V3_CONVERSATIONS[3]!),
      join(Uint8Array.of(DIALS), helloV3()),
    ],
    dictionary: JSON_WORDS,
    framesFrom: 1,
    share: SHARE,
    bytesPerByte: BYTES_PER_BYTE,
    run(input) {
      const mode = input[0] ?? 0;
      hold({ ...mannerOf(mode), role: mode & DIALS ? "dialer" : "listener" }, input.subarray(1));
    },
  },
];

/** A target whose input is a byte that says how, then what follows the hello. */
function afterHandshake(
  name: string,
  conversations: readonly Uint8Array[],
  begin: (mode: number) => { manner: Manner; hello: Uint8Array },
): Target {
  const modes = [0, CHECKSUM, HOLDS, NO_RESUME | SMALL];
  return {
    name,
    corpus: modes.flatMap((mode) => conversations.map((rest) => join(Uint8Array.of(mode), rest))),
    dictionary: [],
    framesFrom: 1,
    share: SHARE,
    bytesPerByte: name.endsWith("compressed") || name.endsWith("2") ? Infinity : BYTES_PER_BYTE,
    run(input) {
      const { manner, hello } = begin(input[0] ?? 0);
      hold(manner, input.subarray(1), hello);
    },
  };
}

/** The same bytes lead to the same, in whatever pieces they come. */
function hold(manner: Manner, input: Uint8Array, hello: Uint8Array = NO_BYTES): void {
  const whole = converse(manner, [join(hello, input)]);
  const inPieces = converse(manner, [hello, ...pieces(input)]);
  assert.deepEqual(inPieces.events, whole.events, "pieces are read differently");
  assert.deepEqual(inPieces.written, whole.written, "pieces are answered differently");
  // Of what the hello was good for, something must be left to see.
  if (hello.length > 0) assert.match(whole.events[0] ?? "nothing", /^established/);
}

function talk(
  mode: number,
  hello: Uint8Array,
  more: readonly Capability[] = [],
): { manner: Manner; hello: Uint8Array } {
  const manner = mannerOf(mode);
  return { manner: { ...manner, capabilities: [...manner.capabilities, ...more] }, hello };
}

function mannerOf(mode: number): Manner {
  return {
    role: "listener",
    capabilities: ["checksum", "resume", "streams"],
    maxMessageSize: mode & SMALL ? SMALL_MESSAGE : LARGE_MESSAGE,
    holds: (mode & HOLDS) !== 0,
  };
}

function capabilitiesOf(mode: number): Capability[] {
  const list: Capability[] = ["streams"];
  if (mode & CHECKSUM) list.push("checksum");
  if (!(mode & NO_RESUME)) list.push("resume");
  return list;
}

function version(protocol_version: number): Record<string, unknown> {
  return { protocol_version };
}

function welcomeV3(): Uint8Array {
  const fields = helloFieldsV3({ node_id: "node1", session: SESSION, min_protocol_version: 1 });
  return welcome(fields);
}
