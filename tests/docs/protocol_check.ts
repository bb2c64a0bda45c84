/**
 * Decodes the hex examples of docs/protocol.md, whole and byte by byte, and holds the page's tables
 * against the code.
 *
 * @module
 */

import assert from "node:assert/strict";
import { HandshakeError, TransportError } from "../../src/errors.ts";
import { FrameDecoder } from "../../src/protocol/frame.ts";
import {
  encodeHello,
  encodeWelcome,
  parseAnswer,
  parseHello,
} from "../../src/protocol/handshake.ts";
import { decodeBodyV2, type Lz4 } from "../../src/protocol/message.ts";
import type { LocalIdentity } from "../../src/protocol/negotiate.ts";
import { loadLz4 } from "../../src/runtime/lz4.ts";

const PAGE = "docs/protocol.md";
const HANDSHAKE_BYTES = 4096;
const MAX_MESSAGE_SIZE = 1024 * 1024;
/** What the page must at least show. */
const KINDS = ["frame", "handshake", "v1", "v2", "v2-without-lz4"];

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
  await checkRejectCodes(page, read);
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
    const maxFrameBytes = kind === "handshake" ? HANDSHAKE_BYTES : MAX_MESSAGE_SIZE + 1;
    const body = onlyFrame(new FrameDecoder({ maxFrameBytes }), chunks);
    switch (kind) {
      case "handshake":
        return readHandshake(body);
      case "v1":
        return message(body, expected);
      case "v2":
        return message(decodeBodyV2(body, lz4, MAX_MESSAGE_SIZE), expected);
      case "v2-without-lz4":
        return message(decodeBodyV2(body, undefined, MAX_MESSAGE_SIZE), expected);
      default:
        return `unknown kind of example: ${kind}`;
    }
  } catch (error) {
    if (!(error instanceof TransportError)) throw error;
    const rejectCode = error instanceof HandshakeError ? error.rejectCode : undefined;
    return rejectCode === undefined ? { error: error.code } : { error: error.code, rejectCode };
  }
}

/** The body of the one frame that the chunks hold. */
function onlyFrame(decoder: FrameDecoder, chunks: readonly Uint8Array[]): Uint8Array {
  const bodies: Uint8Array[] = [];
  for (const chunk of chunks) {
    decoder.push(chunk);
    for (let body = decoder.next(); body !== undefined; body = decoder.next()) bodies.push(body);
  }
  assert.equal(bodies.length, 1, "one frame");
  assert.ok(!decoder.midFrame, "nothing behind it");
  return bodies[0]!;
}

/** The JSON as it stands, once the code under test has accepted it. */
function readHandshake(body: Uint8Array): unknown {
  const text = new TextDecoder().decode(body);
  if (text.startsWith('{"type":"hello"')) parseHello(body);
  else parseAnswer(body);
  return JSON.parse(text);
}

/** A payload that repeats is shown as one piece and a number. */
function message(payload: Uint8Array, expected: unknown): unknown {
  const text = new TextDecoder().decode(payload);
  if (typeof expected !== "object" || expected === null || !("times" in expected)) {
    return { payload: text };
  }
  const times = Number(expected.times);
  const piece = text.slice(0, text.length / times);
  return piece.repeat(times) === text ? { payload: piece, times } : { payload: text };
}

/** The fields that are sent are in the tables, and the long hello is what is really sent. */
function checkFields(page: string, examples: readonly Example[]): void {
  const hello = sent(encodeHello(LOCAL, "node2", 1767225600000, nonce()));
  const shown = examples.find(({ expected }) =>
    typeof expected === "object" && expected !== null && "keepalive_ms" in expected
  );
  assert.deepEqual(shown?.expected, hello, "the long hello");
  const negotiated = { ...LOCAL, version: 2, capabilities: new Set(LOCAL.capabilities) } as const;
  const welcome = sent(encodeWelcome({ ...negotiated, keepaliveMs: undefined }, LOCAL));
  for (const field of [...Object.keys(hello), "auth_token"]) {
    assert.match(section(page, "hello"), new RegExp(`^\\| \`${field}\` +\\|`, "m"));
  }
  for (const field of Object.keys(welcome)) {
    assert.match(section(page, "welcome"), new RegExp(`^\\| \`${field}\` +\\|`, "m"));
  }
}

async function checkRejectCodes(
  page: string,
  read: (path: string) => Promise<string>,
): Promise<void> {
  const union = /export type RejectCode =([^;]*);/.exec(await read("src/errors.ts"))?.[1] ?? "";
  const codes = [...union.matchAll(/"(\w+)"/g)].map((match) => match[1]!);
  const rows = [...section(page, "reject").matchAll(/^\| `([A-Z_]+)` +\|/gm)].map((row) => row[1]!);
  assert.deepEqual(rows.toSorted(), codes.toSorted(), "the table of reject codes");
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

function nonce(): Uint8Array {
  return Uint8Array.from({ length: 16 }, (_, index) => index);
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
