/**
 * Decodes the hex examples of docs/protocol.md, whole and byte by byte, and holds the page's tables
 * against the code.
 *
 * @module
 */

import assert from "node:assert/strict";
import { isDeepStrictEqual } from "node:util";
import { HandshakeError, TransportError } from "../../src/errors.ts";
import { decodeBase64 } from "../../src/protocol/base64.ts";
import { FrameDecoder } from "../../src/protocol/frame.ts";
import {
  type Agreement,
  type Capability,
  encodeHello,
  encodeWelcome,
  parseAnswer,
  parseHello,
  type ProtocolVersion,
  type SessionClaim,
  type SessionOffer,
} from "../../src/protocol/handshake.ts";
import { decodeBodyV2, type Lz4 } from "../../src/protocol/message.ts";
import type { LocalIdentity } from "../../src/protocol/negotiate.ts";
import { parseProof, proofInput, withoutSignature } from "../../src/protocol/proof.ts";
import { type Frame, FrameCodec, readAcks, readGoaway } from "../../src/protocol/v3/frame_codec.ts";
import { Received, ReceiveLane } from "../../src/protocol/v3/receive_lane.ts";
import { GOAWAY, KIND, type Kind, LANE_NAMES } from "../../src/protocol/v3/types.ts";
import { crc32 } from "../../src/runtime/crc32.ts";
import { sha256, verifySignature } from "../../src/runtime/ed25519.ts";
import { loadLz4 } from "../../src/runtime/lz4.ts";
import { loadZstd } from "../../src/runtime/zstd.ts";

const PAGE = "docs/protocol.md";
const HANDSHAKE_BYTES = 4096;
const MAX_MESSAGE_SIZE = 1024 * 1024;
/** What the page must at least show. */
const KINDS = [
  ...["frame", "handshake", "v1", "v2", "v2-without-lz4"],
  ...["v3", "v3-checksum", "v3-lane", "v3-plain"],
];

/** A heading of the page, and the union whose members its table has to list. */
const UNIONS = [
  { heading: "reject", file: "src/errors.ts", type: "RejectCode" },
  { heading: "Capabilities", file: "src/protocol/negotiate.ts", type: "Capability" },
  { heading: "Requests", file: "src/protocol/v3/types.ts", type: "ProtocolCode" },
];
const FIELDS_OF_REJECT = ["type", "code", "reason"];

interface Example {
  readonly kind: string;
  readonly line: number;
  readonly bytes: Uint8Array;
  readonly expected: unknown;
}

/** Fails where an example does not decode to what stands under it, or a table is incomplete. */
export async function check(read: (path: string) => Promise<string>): Promise<void> {
  const page = await read(PAGE);
  const lz4 = await loadLz4();
  const examples = readExamples(page);
  assert.deepEqual([...new Set(examples.map(({ kind }) => kind))].toSorted(), KINDS.toSorted());
  for (const example of examples) {
    const { bytes, line, expected } = example;
    const whole = decode(example, [bytes], lz4);
    assert.deepEqual(whole, expected, `${PAGE}:${line}: decodes to ${JSON.stringify(whole)}`);
    const single = decode(example, [...bytes].map((byte) => Uint8Array.of(byte)), lz4);
    assert.deepEqual(single, expected, `${PAGE}:${line}: byte by byte: ${JSON.stringify(single)}`);
  }
  checkFields(page, examples);
  checkKinds(examples);
  checkProofs(page, examples);
  checkTables(page);
  for (const table of UNIONS) await checkUnion(page, read, table);
}

/** Each `hex` fence with the `json` fence that must follow it. */
function readExamples(page: string): Example[] {
  const fence = /^```hex (\S+)\n([^]*?)^```\n\n(?:```json\n([^]*?)^```)?/gm;
  const examples = [...page.matchAll(fence)].map(([whole, kind = "", hex = "", json], index) => {
    const line = page.slice(0, page.indexOf(whole)).split("\n").length;
    assert.ok(json !== undefined, `${PAGE}:${line}: example ${index} says not what it decodes to`);
    return { kind, line, bytes: fromHex(hex), expected: JSON.parse(json) as unknown };
  });
  const all = page.match(/^```hex/gm)?.length ?? 0;
  assert.equal(examples.length, all, "every hex fence has a kind and ends");
  return examples;
}

function decode({ kind, expected }: Example, chunks: readonly Uint8Array[], lz4: Lz4): unknown {
  try {
    const maxFrameBytes = kind === "handshake" ? HANDSHAKE_BYTES : MAX_MESSAGE_SIZE + 512;
    const bodies = frames(new FrameDecoder({ maxFrameBytes }), chunks);
    if (kind === "v3-lane") return lanes(codecFor(kind, lz4), bodies);
    assert.equal(bodies.length, 1, "one frame");
    const body = bodies[0]!;
    switch (kind) {
      case "handshake":
        return readHandshake(body);
      case "v1":
        return message(body, expected);
      case "v2":
        return message(decodeBodyV2(body, lz4, MAX_MESSAGE_SIZE), expected);
      case "v2-without-lz4":
        return message(decodeBodyV2(body, undefined, MAX_MESSAGE_SIZE), expected);
      case "v3":
      case "v3-checksum":
      case "v3-plain":
        return frame(codecFor(kind, lz4), body, expected);
      default:
        return `unknown kind of example: ${kind}`;
    }
  } catch (error) {
    if (!(error instanceof TransportError)) throw error;
    const rejectCode = error instanceof HandshakeError ? error.rejectCode : undefined;
    return rejectCode === undefined ? { error: error.code } : { error: error.code, rejectCode };
  }
}

/** The bodies of the frames that the chunks hold. */
function frames(decoder: FrameDecoder, chunks: readonly Uint8Array[]): Uint8Array[] {
  const bodies: Uint8Array[] = [];
  for (const chunk of chunks) {
    decoder.push(chunk);
    for (let body = decoder.next(); body !== undefined; body = decoder.next()) bodies.push(body);
  }
  assert.ok(!decoder.midFrame, "nothing behind them");
  return bodies;
}

/** The JSON as it stands, once the code under test has accepted it. */
function readHandshake(body: Uint8Array): unknown {
  const text = new TextDecoder().decode(body);
  if (text.startsWith('{"type":"hello"')) parseHello(body);
  else if (text.startsWith('{"type":"proof"')) parseProof(body);
  else {
    const answer = parseAnswer(body);
    if (answer.type === "welcome" && answer.signature !== undefined) {
      withoutSignature(body, answer.signature);
    }
  }
  return JSON.parse(text);
}

/** A codec as the kind of example says: `v3`, `v3-plain` without compression, `v3-checksum`. */
function codecFor(kind: string, lz4: Lz4): FrameCodec {
  const plain = kind === "v3-plain";
  return new FrameCodec({
    checksum: kind === "v3-checksum",
    crc32,
    lz4: plain ? undefined : lz4,
    zstd: plain ? undefined : loadZstd(),
    method: undefined,
    compressMinSize: 256,
    maxMessageSize: MAX_MESSAGE_SIZE,
  });
}

/** What a receiver makes of frames that follow each other. */
function lanes(codec: FrameCodec, bodies: readonly Uint8Array[]): unknown {
  const lanes = ([0, 1, 2] as const).map((lane) => new ReceiveLane(lane, MAX_MESSAGE_SIZE));
  const messages: unknown[] = [];
  const received = new Received();
  for (const body of bodies) {
    const frame = codec.decode(body);
    if (lanes[frame.lane]!.accept(frame, received)) messages.push(shown(received));
  }
  return { messages, duplicates: lanes.reduce((sum, lane) => sum + lane.duplicates, 0) };
}

function shown({ kind, lane, id, topic, payload, refHigh, refLow }: Received): unknown {
  const named = [refHigh, refLow].map((word) => (word >>> 0).toString(16).padStart(8, "0"));
  return {
    kind: kindName(kind),
    lane: LANE_NAMES[lane],
    id,
    ...topic === undefined ? {} : { topic },
    ...kind === KIND.cancel ? { of: named.join("") } : {},
    payload: new TextDecoder().decode(payload),
  };
}

function kindName(kind: Kind): string {
  return Object.keys(KIND).find((name) => KIND[name as keyof typeof KIND] === kind)!
    .replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
}

/** A frame as the page shows it. */
function frame(codec: FrameCodec, body: Uint8Array, expected: unknown): unknown {
  const read = codec.decode(body);
  const kind = kindName(read.kind);
  switch (read.kind) {
    case KIND.ping:
    case KIND.pong:
      return { kind, token: toHex(body.subarray(2, 10)) };
    case KIND.ack: {
      const acks: unknown[] = [];
      readAcks(read.payload, (lane, id) => acks.push({ lane: LANE_NAMES[lane], id }));
      return { kind, acks };
    }
    case KIND.goaway:
      return { kind, ...readGoaway(read.payload) };
    default:
      return {
        kind,
        ...sequenced(codec, read),
        ...message(codec.application(read).payload, expected),
      };
  }
}

function sequenced(codec: FrameCodec, read: Frame): Record<string, unknown> {
  const { topic, payload } = codec.application(read);
  const start = topic === undefined ? 0 : 1 + new TextEncoder().encode(topic).length;
  const prefix = toHex(read.payload.subarray(start, read.payload.length - payload.length));
  return {
    lane: LANE_NAMES[read.lane],
    id: read.id,
    ...read.more ? { more: true } : {},
    ...topic === undefined ? {} : { topic },
    ...prefix === "" ? {} : { prefix },
  };
}

function toHex(bytes: Uint8Array): string {
  return [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** A payload that repeats is shown as one piece and a number. */
function message(payload: Uint8Array, expected: unknown): Record<string, unknown> {
  const text = new TextDecoder().decode(payload);
  if (typeof expected !== "object" || expected === null || !("times" in expected)) {
    return { payload: text };
  }
  const times = Number(expected.times);
  const piece = text.slice(0, text.length / times);
  return piece.repeat(times) === text ? { payload: piece, times } : { payload: text };
}

/** The fields that are sent are in the tables, and the long examples are what is really sent. */
function checkFields(page: string, examples: readonly Example[]): void {
  const hellos = [
    sent(encodeHello(LOCAL, "node2", NOW, nonce(0))),
    sent(encodeHello(LOCAL_3, "node2", NOW, nonce(0), { claim: CLAIM, sessionGeneration: 0 })),
  ];
  const welcomes = [
    sent(encodeWelcome(agreement(2, ["lz4"], undefined), LISTENER)),
    sent(encodeWelcome(agreement(3, LISTENER.capabilities, OFFER), LISTENER, {
      wallClockMs: NOW + 4,
      nonce: nonce(16),
      sessionGeneration: 0,
    })),
  ];
  for (const message of [...hellos, ...welcomes]) {
    assert.ok(
      examples.some(({ expected }) => isDeepStrictEqual(expected, message)),
      `no example shows ${JSON.stringify(message)}`,
    );
    for (const field of Object.keys(message)) checkField(page, String(message["type"]), field);
  }
  for (const field of ["auth_token", "public_key"]) checkField(page, "hello", field);
  for (const field of ["features", "public_key", "signature"]) checkField(page, "welcome", field);
}

function checkField(page: string, heading: string, field: string): void {
  assert.match(section(page, heading), new RegExp(`^\\| \`${field}\` +\\|`, "m"), field);
}

/** Every kind of frame that is in use is shown by an example. */
function checkKinds(examples: readonly Example[]): void {
  const shown = new Set(examples.flatMap(({ expected }) => kindsIn(expected)));
  const inUse = Object.values(KIND).filter((kind) => kind !== KIND.routed && kind !== KIND.control);
  assert.deepEqual([...shown].toSorted(), inUse.map(kindName).toSorted(), "the kinds of examples");
}

function kindsIn(expected: unknown): string[] {
  if (typeof expected !== "object" || expected === null) return [];
  if ("messages" in expected && Array.isArray(expected.messages)) {
    return expected.messages.flatMap(kindsIn);
  }
  return "kind" in expected ? [String(expected.kind)] : [];
}

/** The three frames of the handshake with proofs: the hashes that the page names, and signatures that hold. */
function checkProofs(page: string, examples: readonly Example[]): void {
  const proof = examples.findIndex(({ expected }) => fieldOf(expected, "type") === "proof");
  const [hello, welcome, last] = examples.slice(proof - 2, proof + 1);
  assert.ok(hello !== undefined && welcome !== undefined && last !== undefined, "three frames");
  const helloBody = hello.bytes.subarray(4);
  const welcomeBody = welcome.bytes.subarray(4);
  const theirs = String(fieldOf(welcome.expected, "signature"));
  const listener = proofInput("listener", helloBody, withoutSignature(welcomeBody, theirs));
  const dialer = proofInput("dialer", helloBody, welcomeBody);
  for (
    const [input, key, signature] of [
      [listener, fieldOf(welcome.expected, "public_key"), theirs],
      [dialer, fieldOf(hello.expected, "public_key"), fieldOf(last.expected, "signature")],
    ] as const
  ) {
    const digest = sha256(input);
    assert.ok(page.includes(`\`${toHex(digest)}\``), `the page names the hash ${toHex(digest)}`);
    assert.ok(
      verifySignature(decodeBase64(String(key)), digest, decodeBase64(String(signature))),
      `the signature with the key ${String(key)}`,
    );
  }
}

function fieldOf(value: unknown, field: string): unknown {
  return typeof value === "object" && value !== null ? Reflect.get(value, field) : undefined;
}

/** Each kind and each code of a goaway is in its table. */
function checkTables(page: string): void {
  for (const [name, kind] of Object.entries(KIND)) {
    assert.match(
      section(page, "Kinds"),
      new RegExp(`^\\| ${kind} +\\| \`${kindName(kind)}\``, "m"),
      name,
    );
  }
  for (const code of Object.values(GOAWAY)) {
    assert.match(section(page, "Goaway"), new RegExp(`^\\| ${code} +\\|`, "m"), `goaway ${code}`);
  }
}

/** The codes of a table are those of a union of texts in the code. */
async function checkUnion(
  page: string,
  read: (path: string) => Promise<string>,
  { heading, file, type }: (typeof UNIONS)[number],
): Promise<void> {
  const union = new RegExp(`export type ${type} =([^;]*);`).exec(await read(file))?.[1] ?? "";
  const codes = [...union.matchAll(/"(\w+)"/g)].map((match) => match[1]!);
  const rows = [...section(page, heading).matchAll(/^\| `(\w+)` +\|/gm)].map((row) => row[1]!);
  const known = rows.filter((row) => !FIELDS_OF_REJECT.includes(row));
  assert.deepEqual(known.toSorted(), codes.toSorted(), `the table of ${heading}`);
}

const LOCAL: LocalIdentity = {
  nodeId: "node1",
  clusterName: "prod",
  authToken: undefined,
  incarnation: "00c0ffee00c0ffee",
  minVersion: 1,
  maxVersion: 2,
  capabilities: ["lz4"],
  maxMessageSize: 16 * 1024 * 1024,
  maxClockSkewMs: 300_000,
  keepaliveMs: 30_000,
};

const LOCAL_3: LocalIdentity = {
  ...LOCAL,
  maxVersion: 3,
  capabilities: ["lz4", "zstd", "checksum", "resume", "streams"],
  receiveWindow: 16_842_752,
  features: ["query"],
  maxStreams: 256,
};
const LISTENER: LocalIdentity = {
  ...LOCAL_3,
  nodeId: "node2",
  incarnation: "feedfacefeedface",
  features: [],
};
const NOW = 1767225600000;
const SESSION_ID = "000102030405060708090a0b0c0d0e0f";
const CLAIM: SessionClaim = { id: SESSION_ID, received: [7, 1024, 0] };
const OFFER: SessionOffer = { id: SESSION_ID, resumed: true, received: [3, 4096, 12] };

function agreement(
  version: ProtocolVersion,
  capabilities: readonly Capability[],
  session: SessionOffer | undefined,
): Agreement {
  const { maxMessageSize } = LOCAL;
  return { version, capabilities: new Set(capabilities), maxMessageSize, session };
}

function nonce(first: number): Uint8Array {
  return Uint8Array.from({ length: 16 }, (_, index) => first + index);
}

function sent(body: Uint8Array): Record<string, unknown> {
  return JSON.parse(new TextDecoder().decode(body));
}

/** The text under a heading of the third level. */
function section(page: string, heading: string): string {
  return page.split(/^#{2,3} /m).find((part) => part.startsWith(`${heading}\n`)) ?? "";
}

/** Bytes in hex, with white space, and comments from "#" to the end of a line. */
function fromHex(text: string): Uint8Array {
  const digits = text.replace(/#.*$/gm, "").replace(/\s+/g, "");
  assert.match(digits, /^(?:[0-9a-f]{2})+$/);
  return Uint8Array.from(digits.match(/../g) ?? [], (byte) => parseInt(byte, 16));
}
