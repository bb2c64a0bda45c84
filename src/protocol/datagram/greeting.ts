/**
 * The handshake over datagrams: the hello and welcome of section 2 of docs/protocol.md, in packets,
 * with a cookie before and, where messages are signed, under signatures (docs/datagrams.md).
 *
 * @module
 */

import { HandshakeError, TransportError } from "../../errors.ts";
import { acceptWelcome } from "../accept_welcome.ts";
import { ENVELOPE_VERSION } from "../envelope.ts";
import { encodeHello, type Hello, parseHello } from "../hello.ts";
import { judgeHello } from "../judge_hello.ts";
import type { LocalIdentity, Negotiated } from "../negotiate.ts";
import { encodeReject, rejectedBy } from "../reject.ts";
import type { Rejection } from "../rejection.ts";
import { encodeWelcome, parseAnswer } from "../welcome.ts";
import { hmacSha256, type Sha256 } from "./cookie.ts";
import {
  encodeContent,
  encodeHelloPacket,
  equalBytes,
  type HelloPacket,
  readContent,
} from "./packet.ts";
import type { PacketSeal } from "./seal.ts";
import { AUTH_BYTES, PACKET, PREFIX_BYTES, TAG_BYTES } from "./types.ts";

/** What both sides of a handshake know of themselves. */
export interface Greeter {
  /** Who we are. Its auth token is not looked at: that below is. */
  readonly local: LocalIdentity;
  /** The shared secret, of which the wire sees a proof only. */
  readonly authToken: string | undefined;
  /** Signs and verifies, where messages are signed. */
  readonly seal: PacketSeal | undefined;
  /** The hash of the proof. */
  readonly sha256: Sha256;
}

/** What a hello is made from, beside who we are. */
export interface HelloParts {
  /** Our tag: what the listener's packets for us begin with. */
  readonly tag: Uint8Array;
  /** What the listener gave us. */
  readonly cookie: Uint8Array;
  /** Whom we mean to reach. */
  readonly nodeId: string;
  /** Our wall clock, milliseconds since the epoch. */
  readonly wallClockMs: number;
  /** 16 random bytes. */
  readonly nonce: Uint8Array;
  /** How many tables of answers we have begun; see {@linkcode Negotiated.sessionGeneration}. */
  readonly generation: number;
}

/** What became of a hello. */
export type HelloVerdict =
  | { readonly accept: Negotiated; readonly hello: Hello }
  | { readonly reject: Rejection; readonly nodeId: string | undefined };

const AUTH_CONTEXT = new TextEncoder().encode("hawser datagram auth 1\0");
const NO_BYTES: Uint8Array = new Uint8Array(0);

const UNSIGNED_HERE: Rejection = {
  code: "IDENTITY_REQUIRED",
  reason: "the dialer signs its messages, and this node doesn't",
};
const OTHER_SIGNER: Rejection = {
  code: "IDENTITY_REQUIRED",
  reason: "the hello is signed by another node",
};
const NO_TOKEN: Rejection = {
  code: "AUTH_FAILED",
  reason: "the auth token is missing or wrong",
};

/** The first hello of a dialer: it asks for a cookie, and says nothing else. */
export function firstHello(tag: Uint8Array): Uint8Array {
  return encodeHelloPacket(tag, { cookie: NO_BYTES, auth: NO_BYTES, content: NO_BYTES });
}

/**
 * The hello that answers a retry.
 *
 * @throws {HandshakeError} If names are too long for a handshake packet (4096 bytes).
 */
export function secondHello(greeter: Greeter, parts: HelloParts): Uint8Array {
  const { tag, cookie, nodeId, wallClockMs, nonce, generation } = parts;
  const { local, authToken, seal, sha256 } = greeter;
  const bare = { ...local, authToken: undefined };
  const details = { sessionGeneration: generation };
  const json = encodeHello(bare, nodeId, wallClockMs, nonce, details);
  const auth = authToken === undefined ? NO_BYTES : authProof(sha256, authToken, tag, cookie, json);
  const content = seal === undefined
    ? json
    : seal.seal(nodeId, json, 0, wallClockMs, boundHello(tag, cookie));
  return encodeHelloPacket(tag, { cookie, auth, content });
}

/**
 * Judges a hello whose cookie is good. Whether it was seen before is the caller's to ask, once
 * everything else is in order.
 */
export function judgeHelloPacket(
  greeter: Greeter,
  tag: Uint8Array,
  { cookie, auth, content }: HelloPacket,
  wallClockMs: number,
): HelloVerdict {
  const { local, authToken, seal, sha256 } = greeter;
  if (seal === undefined && content[0] === ENVELOPE_VERSION) return refuse(UNSIGNED_HERE);
  let hello: Hello;
  let json = content;
  try {
    const opened = seal?.open(content, undefined, 0, wallClockMs, boundHello(tag, cookie));
    if (opened !== undefined) json = opened.body;
    hello = parseHello(json);
    if (opened !== undefined && opened.sender !== hello.nodeId) return refuse(OTHER_SIGNER);
  } catch (error) {
    return refuse(rejection(error));
  }
  const { nodeId } = hello;
  if (authToken !== undefined) {
    const proof = authProof(sha256, authToken, tag, cookie, json);
    if (!equalBytes(auth, proof)) return refuse(NO_TOKEN, nodeId);
  }
  const context = { wallClockMs, replay: undefined };
  const verdict = judgeHello(hello, { ...local, authToken: undefined }, context);
  if ("accept" in verdict) return { ...verdict, hello };
  return refuse({ code: verdict.reject, reason: verdict.reason }, nodeId);
}

/**
 * The welcome for a hello that was accepted.
 *
 * @param tag The dialer's tag.
 * @param ownTag Ours: what the dialer's packets for us begin with.
 */
export function welcomePacket(
  { local, seal }: Greeter,
  tag: Uint8Array,
  ownTag: Uint8Array,
  negotiated: Negotiated,
  details: { wallClockMs: number; nonce: Uint8Array; generation: number },
): Uint8Array {
  const { wallClockMs, nonce, generation } = details;
  const json = encodeWelcome(negotiated, local, {
    wallClockMs,
    nonce,
    sessionGeneration: generation,
  });
  const body = new Uint8Array(TAG_BYTES + json.length);
  body.set(ownTag);
  body.set(json, TAG_BYTES);
  const content = seal === undefined
    ? body
    : seal.seal(negotiated.nodeId, body, 0, wallClockMs, boundWelcome(tag));
  return encodeContent(PACKET.welcome, tag, content);
}

/** A reject. It is never signed: it is for those, too, who know nothing of our keys. */
export function rejectPacket(tag: Uint8Array, { code, reason }: Rejection): Uint8Array {
  return encodeContent(PACKET.reject, tag, encodeReject(code, reason));
}

/**
 * Reads what answers our hello: the listener's tag, and what was agreed on.
 *
 * @throws {TransportError} `HandshakeFailed` where the listener refuses us or is not acceptable,
 * `IdentityMismatch` where it is somebody else or the signature is wrong, `InvalidFrame`.
 */
export function readWelcome(
  greeter: Greeter,
  nodeId: string,
  packet: Uint8Array,
  wallClockMs: number,
): { readonly tag: Uint8Array; readonly negotiated: Negotiated } {
  const tag = packet.subarray(2, PREFIX_BYTES);
  const content = readContent(packet);
  const body = openBody(greeter, nodeId, content, wallClockMs, boundWelcome(tag));
  const answer = parseAnswer(body.subarray(TAG_BYTES));
  if (answer.type === "reject") throw rejectedBy(answer, nodeId);
  const negotiated = acceptWelcome(answer, greeter.local, nodeId, { wallClockMs });
  return { tag: body.slice(0, TAG_BYTES), negotiated };
}

/**
 * The error for a reject.
 *
 * @throws {HandshakeError} "MALFORMED" if it is none.
 */
export function readRejection(packet: Uint8Array, nodeId: string): HandshakeError {
  const answer = parseAnswer(readContent(packet));
  if (answer.type === "reject") return rejectedBy(answer, nodeId);
  throw new HandshakeError("Cannot read a packet: it is no reject", "MALFORMED", { peer: nodeId });
}

function openBody(
  { seal }: Greeter,
  from: string | undefined,
  content: Uint8Array,
  wallClockMs: number,
  around: Uint8Array,
): Uint8Array {
  if (seal === undefined) return content;
  return seal.open(content, from, 0, wallClockMs, around).body;
}

function refuse(reject: Rejection, nodeId?: string): HelloVerdict {
  return { reject, nodeId };
}

function rejection(error: unknown): Rejection {
  if (!(error instanceof TransportError)) throw error;
  if (error.code === "IdentityMismatch") {
    return { code: "IDENTITY_REQUIRED", reason: "the hello is not signed by a trusted key", error };
  }
  return { code: "MALFORMED", reason: "the hello is malformed", error };
}

/** What a hello's envelope is bound to: our tag, and the listener's cookie. */
function boundHello(tag: Uint8Array, cookie: Uint8Array): Uint8Array {
  return join([Uint8Array.of(PACKET.hello), tag, cookie]);
}

/** What a welcome's envelope is bound to: the dialer's tag. */
function boundWelcome(tag: Uint8Array): Uint8Array {
  return join([Uint8Array.of(PACKET.welcome), tag]);
}

function authProof(
  sha256: Sha256,
  token: string,
  tag: Uint8Array,
  cookie: Uint8Array,
  json: Uint8Array,
): Uint8Array {
  const key = new TextEncoder().encode(token);
  const proof = hmacSha256(sha256, key, join([AUTH_CONTEXT, tag, cookie, json]));
  return proof.subarray(0, AUTH_BYTES);
}

function join(parts: readonly Uint8Array[]): Uint8Array {
  const bytes = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    bytes.set(part, at);
    at += part.length;
  }
  return bytes;
}
