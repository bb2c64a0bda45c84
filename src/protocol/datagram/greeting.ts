/**
 * The handshake over datagrams: the hello and welcome of section 2 of docs/protocol.md, in packets,
 * with a cookie before and, where messages are signed, under signatures and with the public keys
 * from which those of the link come (docs/datagrams.md).
 *
 * @module
 */

import { HandshakeError, type RejectCode, TransportError } from "../../errors.ts";
import { acceptWelcome } from "../accept_welcome.ts";
import { ENVELOPE_VERSION } from "../envelope.ts";
import { encodeHello, type Hello, parseHello } from "../hello.ts";
import { judgeHello } from "../judge_hello.ts";
import type { LocalIdentity, Negotiated } from "../negotiate.ts";
import { encodeReject, rejectedBy } from "../reject.ts";
import type { Rejection } from "../rejection.ts";
import { quote } from "../text.ts";
import { encodeWelcome, parseAnswer } from "../welcome.ts";
import { hmacSha256, type Sha256 } from "./cookie.ts";
import {
  agreeOnKeys,
  encodeOffer,
  type KeyExchange,
  type LinkKeys,
  OFFER_BYTES,
  readOffer,
} from "./encryption.ts";
import {
  encodeContent,
  encodeHelloPacket,
  equalBytes,
  type HelloPacket,
  readContent,
} from "./packet.ts";
import type { PacketSeal } from "./seal.ts";
import { AUTH_BYTES, PACKET, TAG_BYTES } from "./types.ts";

/** What both sides of a handshake know of themselves. */
export interface Greeter {
  /** Who we are. Its auth token is not looked at: that below is. */
  readonly local: LocalIdentity;
  /** The shared secret, of which the wire sees a proof only. */
  readonly authToken: string | undefined;
  /** Signs, verifies and encrypts, where messages are signed. */
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
  /** Our part of the link's keys, the same in all hellos of an attempt; with signatures only. */
  readonly exchange: KeyExchange | undefined;
}

/** A hello that was accepted. */
export interface Greeting {
  /** The dialer's tag. */
  readonly tag: Uint8Array;
  /** What was agreed on. */
  readonly negotiated: Negotiated;
  /** The dialer's part of the link's keys; undefined where it is not signed. */
  readonly publicKey: Uint8Array | undefined;
}

/** What a welcome is made from, beside the hello and who we are. */
export interface WelcomeParts {
  /** Our tag: what the dialer's packets for us begin with. */
  readonly ownTag: Uint8Array;
  /** Our wall clock, milliseconds since the epoch. */
  readonly wallClockMs: number;
  /** 16 random bytes. */
  readonly nonce: Uint8Array;
  /** How many tables of answers we have begun. */
  readonly generation: number;
}

/** What a dialer has said, as far as reading the answer needs it. */
export interface Greeted {
  /** Whom we mean to reach. */
  readonly nodeId: string;
  /** Our tag. */
  readonly tag: Uint8Array;
  /** Our part of the link's keys; undefined without signatures. */
  readonly exchange: KeyExchange | undefined;
}

/** What a welcome says. */
export interface Welcomed {
  /** The listener's tag. */
  readonly tag: Uint8Array;
  /** What was agreed on. */
  readonly negotiated: Negotiated;
  /** The keys of the link; undefined where messages are not signed. */
  readonly keys: LinkKeys | undefined;
}

/** What became of a hello. */
export type HelloVerdict =
  | {
    readonly accept: Negotiated;
    readonly hello: Hello;
    /** The dialer's part of the link's keys; undefined where messages are not signed. */
    readonly publicKey: Uint8Array | undefined;
  }
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
const NO_KEY: Rejection = {
  code: "IDENTITY_REQUIRED",
  reason: "the dialer offers no key to encrypt with",
};
/** A key with which anybody would know the secret. */
const USELESS_KEY: Rejection = {
  code: "MALFORMED",
  reason: "the key to encrypt with is of no use",
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
  const { tag, cookie, nodeId, wallClockMs, nonce, generation, exchange } = parts;
  const { local, authToken, seal, sha256 } = greeter;
  const bare = { ...local, authToken: undefined };
  const details = { sessionGeneration: generation };
  const json = encodeHello(bare, nodeId, wallClockMs, nonce, details);
  const body = exchange === undefined ? json : join([encodeOffer(exchange.publicKey), json]);
  const auth = authToken === undefined ? NO_BYTES : authProof(sha256, authToken, tag, cookie, body);
  const content = seal === undefined
    ? body
    : seal.seal(nodeId, body, 0, wallClockMs, boundHello(tag, cookie));
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
  let body = content;
  let publicKey: Uint8Array | undefined;
  try {
    const opened = seal?.open(content, undefined, 0, wallClockMs, boundHello(tag, cookie));
    if (opened !== undefined) {
      body = opened.body;
      publicKey = readOffer(body);
      if (publicKey === undefined) return refuse(NO_KEY, opened.sender);
    }
    hello = parseHello(publicKey === undefined ? body : body.subarray(OFFER_BYTES));
    if (opened !== undefined && opened.sender !== hello.nodeId) return refuse(OTHER_SIGNER);
  } catch (error) {
    return refuse(rejection(error));
  }
  const { nodeId } = hello;
  if (authToken !== undefined) {
    const proof = authProof(sha256, authToken, tag, cookie, body);
    if (!equalBytes(auth, proof)) return refuse(NO_TOKEN, nodeId);
  }
  const context = { wallClockMs, replay: undefined };
  const verdict = judgeHello(hello, { ...local, authToken: undefined }, context);
  if ("accept" in verdict) return { ...verdict, hello, publicKey };
  return refuse({ code: verdict.reject, reason: verdict.reason }, nodeId);
}

/**
 * The welcome for a hello that was accepted, and the keys of the link; or why there are none.
 * Where messages are signed, this makes a key that is used for this link only.
 */
export function welcome(
  { local, seal, sha256 }: Greeter,
  { tag, negotiated, publicKey }: Greeting,
  { ownTag, wallClockMs, nonce, generation }: WelcomeParts,
): { readonly packet: Uint8Array; readonly keys: LinkKeys | undefined } | Rejection {
  const details = { wallClockMs, nonce, sessionGeneration: generation };
  const json = encodeWelcome(negotiated, local, details);
  if (seal === undefined) {
    return { packet: encodeContent(PACKET.welcome, tag, join([ownTag, json])), keys: undefined };
  }
  if (publicKey === undefined) return NO_KEY;
  const exchange = seal.encryption.newExchange();
  const keys = agreeOnKeys(seal.encryption, sha256, {
    dialer: { nodeId: negotiated.nodeId, tag, publicKey },
    listener: { nodeId: local.nodeId, tag: ownTag, publicKey: exchange.publicKey },
    exchange,
    dialed: false,
  });
  if (keys === undefined) return USELESS_KEY;
  const body = join([ownTag, encodeOffer(exchange.publicKey), json]);
  const around = boundWelcome(tag, publicKey);
  const content = seal.seal(negotiated.nodeId, body, 0, wallClockMs, around);
  return { packet: encodeContent(PACKET.welcome, tag, content), keys };
}

/** A reject. It is never signed: it is for those, too, who know nothing of our keys. */
export function rejectPacket(tag: Uint8Array, { code, reason }: Rejection): Uint8Array {
  return encodeContent(PACKET.reject, tag, encodeReject(code, reason));
}

/**
 * Reads what answers our hello.
 *
 * @throws {TransportError} `HandshakeFailed` where the listener refuses us or is not acceptable,
 * `IdentityMismatch` where it is somebody else or the signature is wrong, `InvalidFrame`.
 */
export function readWelcome(
  { local, seal, sha256 }: Greeter,
  { nodeId, tag, exchange }: Greeted,
  packet: Uint8Array,
  wallClockMs: number,
): Welcomed {
  const content = readContent(packet);
  if (seal === undefined) {
    return { ...readAgreement(local, nodeId, content, TAG_BYTES, wallClockMs), keys: undefined };
  }
  if (exchange === undefined) throw refused(nodeId, "no key to encrypt with was offered");
  const around = boundWelcome(tag, exchange.publicKey);
  const { body } = seal.open(content, nodeId, 0, wallClockMs, around);
  const publicKey = readOffer(body.subarray(TAG_BYTES));
  if (publicKey === undefined) throw refused(nodeId, "it offers no key to encrypt with");
  const agreed = readAgreement(local, nodeId, body, TAG_BYTES + OFFER_BYTES, wallClockMs);
  const keys = agreeOnKeys(seal.encryption, sha256, {
    dialer: { nodeId: local.nodeId, tag, publicKey: exchange.publicKey },
    listener: { nodeId, tag: agreed.tag, publicKey },
    exchange,
    dialed: true,
  });
  if (keys === undefined) {
    throw refused(nodeId, "its key to encrypt with is of no use", "MALFORMED");
  }
  return { ...agreed, keys };
}

/** The listener's tag at the begin of a body, and the welcome's JSON at its place. */
function readAgreement(
  local: LocalIdentity,
  nodeId: string,
  body: Uint8Array,
  jsonAt: number,
  wallClockMs: number,
): Omit<Welcomed, "keys"> {
  const answer = parseAnswer(body.subarray(jsonAt));
  if (answer.type === "reject") throw rejectedBy(answer, nodeId);
  const negotiated = acceptWelcome(answer, local, nodeId, { wallClockMs });
  return { tag: body.slice(0, TAG_BYTES), negotiated };
}

function refused(
  peer: string,
  problem: string,
  code: RejectCode = "IDENTITY_REQUIRED",
): HandshakeError {
  return new HandshakeError(`Cannot connect to ${quote(peer)}: ${problem}`, code, { peer });
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

/** What a welcome's envelope is bound to: the dialer's tag and key. */
function boundWelcome(tag: Uint8Array, publicKey: Uint8Array): Uint8Array {
  return join([Uint8Array.of(PACKET.welcome), tag, publicKey]);
}

function authProof(
  sha256: Sha256,
  token: string,
  tag: Uint8Array,
  cookie: Uint8Array,
  body: Uint8Array,
): Uint8Array {
  const key = new TextEncoder().encode(token);
  const proof = hmacSha256(sha256, key, join([AUTH_CONTEXT, tag, cookie, body]));
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
