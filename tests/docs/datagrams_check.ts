/**
 * Decodes the hex examples of docs/datagrams.md, and holds the page against the code.
 *
 * @module
 */

import assert from "node:assert/strict";
import { CookieJar, hmacSha256 } from "../../src/protocol/datagram/cookie.ts";
import { agreeOnKeys, type LinkKeys, readOffer } from "../../src/protocol/datagram/encryption.ts";
import { readWelcome } from "../../src/protocol/datagram/greeting.ts";
import {
  readAnswer,
  readContent,
  readData,
  readHello,
  readNumber,
  readPrefix,
  readRequest,
  readRetry,
  readToken,
} from "../../src/protocol/datagram/packet.ts";
import { PacketSeal } from "../../src/protocol/datagram/seal.ts";
import {
  DATA_OVERHEAD,
  FORGOTTEN,
  HEADER_BYTES,
  MAX_PACKET_BYTES,
  MIN_HELLO_BYTES,
  PACKET,
  RESPONSE_TOO_LARGE,
} from "../../src/protocol/datagram/types.ts";
import { parseHello } from "../../src/protocol/hello.ts";
import { encodeRetry } from "../../src/protocol/datagram/packet.ts";
import { parseAnswer } from "../../src/protocol/welcome.ts";
import { readGoaway } from "../../src/protocol/v3/payloads.ts";
import { LANE_NAMES } from "../../src/protocol/v3/types.ts";
import { parsePublicKey, sha256, verifySignature } from "../../src/runtime/ed25519.ts";
import { packetCrypto } from "../../src/runtime/packet_crypto.ts";
import { noDatagrams } from "../../src/stats.ts";
import { OTHER_KEY, PUBLIC_KEY } from "../envelope/vectors.ts";
import {
  fixedExchange,
  FROM_DIALER,
  FROM_LISTENER,
  PUBLIC1,
  PUBLIC2,
  SECRET1,
  SECRET2,
  SHARED,
  TAG1,
  TAG2,
} from "../protocol/datagram_vectors.ts";
import { identity } from "../protocol/identities.ts";

const PAGE = "docs/datagrams.md";
const TIMESTAMP = 1786752000000;
const EXAMPLE = /^```hex packet\n([^]*?)^```\n\n```json\n([^]*?)^```/gm;
const KINDS = Object.keys(PACKET);

const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);
const toHex = (bytes: Uint8Array) =>
  Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");

/** Fails where the page and the code disagree. `read` gives the text of a file of the project. */
export async function check(read: (path: string) => Promise<string>): Promise<void> {
  const page = await read(PAGE);
  const examples = [...page.matchAll(EXAMPLE)];
  assert.equal(examples.length, page.match(/^```hex/gm)?.length, "every example has its JSON");
  const shown = new Set<string>();
  for (const [, hex = "", json = ""] of examples) {
    const decoded = decode(fromHex(hex));
    shown.add(String(decoded.kind));
    assert.deepEqual(decoded, JSON.parse(json), hex);
  }
  assert.deepEqual([...shown].toSorted(), KINDS.toSorted(), "every kind has an example");
  for (const [name, kind] of Object.entries(PACKET)) {
    assert.match(page, new RegExp(`^\\| ${kind} +\\| ${name} +\\|`, "m"), name);
  }
  for (const counter of Object.keys(noDatagrams())) {
    assert.match(page, new RegExp(`^\\| \`${counter}\` +\\|`, "m"), counter);
  }
  const retry = encodeRetry(new Uint8Array(16), cookie()).length;
  for (const said of [FORGOTTEN, RESPONSE_TOO_LARGE, `retry, ${retry} bytes`]) {
    assert.ok(page.includes(said), said);
  }
  for (const number of [MAX_PACKET_BYTES, MIN_HELLO_BYTES]) {
    assert.ok(page.includes(number.toLocaleString("en")), String(number));
  }
  assert.ok(page.includes(`of which ${DATA_OVERHEAD} are the protocol's`), "the overhead");
  const sealed = sealOf("a").overhead("b") - 2;
  assert.ok(page.includes(`with \`signing\` it is ${sealed} and the lengths`), "with signing");
  for (const number of [packetCrypto.maxPackets, packetCrypto.maxPackets / 2]) {
    assert.ok(page.includes(number.toLocaleString("en")), String(number));
  }
  for (const key of [SHARED, FROM_DIALER, FROM_LISTENER]) assert.ok(page.includes(toHex(key)));
}

function cookie(): Uint8Array {
  return new CookieJar(sha256, new Uint8Array(32)).make("udp://a:1", new Uint8Array(16), 0);
}

function decode(packet: Uint8Array): Record<string, unknown> {
  const { kind, tag } = readPrefix(packet)!;
  const prefix = { kind: KINDS[kind], tag: toHex(tag) };
  if (kind === PACKET.hello) return { ...prefix, ...decodeHello(packet, tag) };
  if (kind === PACKET.retry) return { ...prefix, cookie: toHex(readRetry(packet)) };
  if (kind < PACKET.data) return { ...prefix, ...decodeAnswer(kind, packet) };
  const number = readNumber(packet)!;
  const { body, signedBy } = opened(packet, number);
  return { ...prefix, number, ...signedBy, ...decodeBody(kind, body) };
}

function decodeHello(packet: Uint8Array, tag: Uint8Array): Record<string, unknown> {
  const { cookie, auth, content } = readHello(packet);
  assert.equal(packet.length, MIN_HELLO_BYTES);
  if (cookie.length === 0) return { cookie: "" };
  const shown = { cookie: toHex(cookie) };
  if (content[0] === 1) {
    const around = Uint8Array.from([PACKET.hello, ...tag, ...cookie]);
    const { sender, body } = sealOf("node2").open(content, undefined, 0, TIMESTAMP, around);
    const publicKey = toHex(readOffer(body)!);
    assert.equal(parseHello(body.subarray(33)).nodeId, sender);
    return { ...shown, signedBy: sender, publicKey, content: text(body.subarray(33)) };
  }
  assert.equal(parseHello(content).nodeId, "node1");
  const label = new TextEncoder().encode("hawser datagram auth 1\0");
  const proved = Uint8Array.from([...label, ...tag, ...cookie, ...content]);
  assert.deepEqual(auth, hmacSha256(sha256, new TextEncoder().encode("secret"), proved));
  return { ...shown, token: "secret", content: text(content) };
}

function decodeAnswer(kind: number, packet: Uint8Array): Record<string, unknown> {
  const content = readContent(packet);
  if (kind === PACKET.reject) {
    assert.equal(parseAnswer(content).type, "reject");
    return { content: text(content) };
  }
  const signed = content[0] === 1;
  const greeter = {
    local: identity({ nodeId: "node1", maxVersion: 3, capabilities: signed ? ["signed"] : [] }),
    authToken: undefined,
    seal: signed ? sealOf("node1") : undefined,
    sha256,
  };
  const exchange = signed ? fixedExchange(SECRET1) : undefined;
  const greeted = { nodeId: "node2", tag: TAG1, exchange };
  const { tag, negotiated, keys } = readWelcome(greeter, greeted, packet, TIMESTAMP);
  assert.equal(negotiated.maxMessageSize, MAX_PACKET_BYTES - DATA_OVERHEAD);
  const ownTag = toHex(tag);
  if (!signed) return { ownTag, content: text(content.subarray(16)) };
  assert.ok(keys !== undefined);
  const around = Uint8Array.from([PACKET.welcome, ...TAG1, ...PUBLIC1]);
  const { sender, body } = sealOf("node1").open(content, "node2", 0, TIMESTAMP, around);
  const publicKey = toHex(readOffer(body.subarray(16))!);
  return { ownTag, signedBy: sender, publicKey, content: text(body.subarray(49)) };
}

/** What node2 says is known from its tag: that of packets to node1. */
function opened(
  packet: Uint8Array,
  number: number,
): { body: Uint8Array; signedBy: Record<string, unknown> } {
  const content = packet.subarray(HEADER_BYTES);
  if (content.length < 100) return { body: content, signedBy: {} };
  const header = packet.subarray(0, HEADER_BYTES);
  const toDialer = toHex(packet.subarray(2, 18)) === toHex(TAG1);
  const envelope = keysOf(toDialer).open(packet);
  assert.ok(envelope !== undefined, "the packet can be opened");
  const seal = sealOf(toDialer ? "node1" : "node2");
  const { sender, body } = seal.open(envelope, undefined, number, TIMESTAMP, header);
  return { body, signedBy: { signedBy: sender } };
}

/** The keys of the link in the examples, on one side. */
function keysOf(dialed: boolean): LinkKeys {
  return agreeOnKeys(packetCrypto, sha256, {
    dialer: { nodeId: "node1", tag: TAG1, publicKey: PUBLIC1 },
    listener: { nodeId: "node2", tag: TAG2, publicKey: PUBLIC2 },
    exchange: fixedExchange(dialed ? SECRET1 : SECRET2),
    dialed,
  })!;
}

function sealOf(nodeId: string): PacketSeal {
  return new PacketSeal({
    nodeId,
    sign: () => new Uint8Array(64),
    verify: verifySignature,
    trustedKeys: new Map([
      ["node1", [parsePublicKey(PUBLIC_KEY)!]],
      ["node2", [parsePublicKey(OTHER_KEY)!]],
    ]),
    maxAgeMs: 0,
    encryption: packetCrypto,
  });
}

function decodeBody(kind: number, body: Uint8Array): Record<string, unknown> {
  switch (kind) {
    case PACKET.data:
      return message(readData(body));
    case PACKET.request: {
      const { id, msLeft, ...rest } = readRequest(body);
      return { ...message(rest), id, msLeft };
    }
    case PACKET.ping:
    case PACKET.pong:
      return { token: toHex(readToken(body)) };
    case PACKET.bye:
      return { ...readGoaway(body) };
    default: {
      const { id, rest } = readAnswer(body);
      return { id, payload: text(rest) };
    }
  }
}

function message({ lane, topic, payload }: ReturnType<typeof readData>): Record<string, unknown> {
  const shown = { lane: LANE_NAMES[lane], payload: text(payload) };
  return topic === undefined ? shown : { ...shown, topic };
}

/** Hex with comments; `00*12` is twelve zero bytes. */
function fromHex(shown: string): Uint8Array {
  const digits = shown.replaceAll(/#.*$/gm, "")
    .replaceAll(/([0-9a-f]{2})\*(\d+)/g, (_, byte: string, count: string) => {
      return byte.repeat(Number(count));
    })
    .replaceAll(/\s/g, "");
  return Uint8Array.from({ length: digits.length / 2 }, (_, at) => {
    return Number.parseInt(digits.slice(2 * at, 2 * at + 2), 16);
  });
}
