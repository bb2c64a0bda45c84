/**
 * Encrypted packets: keys that both sides of a handshake agree on and nobody else learns, and what
 * packets are sealed with under them (docs/datagrams.md).
 *
 * @module
 */

import { hmacSha256, type Sha256 } from "./cookie.ts";
import { AEAD_TAG_BYTES, HEADER_BYTES, PREFIX_BYTES } from "./types.ts";

/** One side's part of one key agreement; it is used for no other. */
export interface KeyExchange {
  /** What the other side is told: an X25519 public key, 32 bytes. */
  readonly publicKey: Uint8Array;
  /** What both sides know then, 32 bytes; undefined where the other side's key is a useless one. */
  agree(peerKey: Uint8Array): Uint8Array | undefined;
}

/** An AEAD under one key. */
export interface PacketCipher {
  /** The header in clear, the encrypted bytes, the tag. */
  seal(nonce: Uint8Array, header: Uint8Array, bytes: Uint8Array): Uint8Array;
  /** What was sealed behind a header; undefined where nothing was, or either was changed since. */
  open(nonce: Uint8Array, header: Uint8Array, sealed: Uint8Array): Uint8Array | undefined;
}

/** Cryptography from outside, all of it synchronous. */
export interface PacketCrypto {
  /** Makes a part of a key agreement: X25519 (RFC 7748) with a new random key. */
  newExchange(): KeyExchange;
  /** AES-256-GCM with nonces of 12 bytes and tags of 16, under a key of 32 bytes. */
  cipher(key: Uint8Array): PacketCipher;
  /** Packets that one key may seal: none has a higher number. */
  readonly maxPackets: number;
}

/** One side of a handshake, as both know it. */
export interface Party {
  /** Its node id, printable ASCII of at most 255 characters. */
  readonly nodeId: string;
  /** Its tag: what packets for it begin with. */
  readonly tag: Uint8Array;
  /** The public key that it made for this handshake. */
  readonly publicKey: Uint8Array;
}

/** What a pair of keys is derived from. */
export interface Agreement {
  /** Who dialed. */
  readonly dialer: Party;
  /** Who was dialed. */
  readonly listener: Party;
  /** Our part of the key agreement. */
  readonly exchange: KeyExchange;
  /** Whether we dialed. */
  readonly dialed: boolean;
}

/** X25519, HKDF-SHA-256 and AES-256-GCM: the one choice there is. JSON never begins so. */
export const SUITE = 1;
/** The bytes of a public key. */
export const PUBLIC_KEY_BYTES = 32;
/** The suite and the key: what stands before the JSON of a hello or welcome. */
export const OFFER_BYTES: number = 1 + PUBLIC_KEY_BYTES;

const NONCE_BYTES = 12;
/** The bytes of a nonce before the packet's number. */
const NONCE_ZEROS = 4;
const NUMBER_BYTES = 8;
const encoder = new TextEncoder();
const CONTEXT = encoder.encode("hawser datagram keys 1\0");
const FROM_DIALER = encoder.encode("hawser datagram from dialer");
const FROM_LISTENER = encoder.encode("hawser datagram from listener");

/** Suite and key, as they stand before the JSON of a hello or welcome. */
export function encodeOffer(publicKey: Uint8Array): Uint8Array {
  const offer = new Uint8Array(OFFER_BYTES);
  offer[0] = SUITE;
  offer.set(publicKey, 1);
  return offer;
}

/** The key at the begin of a hello's or welcome's body, a copy; undefined where none is offered. */
export function readOffer(body: Uint8Array): Uint8Array | undefined {
  if (body.length < OFFER_BYTES || body[0] !== SUITE) return undefined;
  return body.slice(1, OFFER_BYTES);
}

/** HKDF with SHA-256 (RFC 5869): the first 32 bytes of its output. */
export function hkdfSha256(
  sha256: Sha256,
  secret: Uint8Array,
  salt: Uint8Array,
  info: Uint8Array,
): Uint8Array {
  const extracted = hmacSha256(sha256, salt, secret);
  const block = new Uint8Array(info.length + 1);
  block.set(info);
  block[info.length] = 1;
  return hmacSha256(sha256, extracted, block);
}

/**
 * The keys of a link; undefined where the other side's public key leads to none that is secret.
 * Names, tags and public keys of both go in: who was shown others has other keys.
 */
export function agreeOnKeys(
  encryption: PacketCrypto,
  sha256: Sha256,
  { dialer, listener, exchange, dialed }: Agreement,
): LinkKeys | undefined {
  const secret = exchange.agree(dialed ? listener.publicKey : dialer.publicKey);
  if (secret === undefined || secret.every((byte) => byte === 0)) return undefined;
  const transcript = sha256(transcriptOf(dialer, listener));
  const keyOf = (info: Uint8Array) =>
    encryption.cipher(hkdfSha256(sha256, secret, transcript, info));
  const [fromDialer, fromListener] = [keyOf(FROM_DIALER), keyOf(FROM_LISTENER)];
  const { maxPackets } = encryption;
  return dialed
    ? new LinkKeys(fromDialer, fromListener, maxPackets)
    : new LinkKeys(fromListener, fromDialer, maxPackets);
}

function transcriptOf(dialer: Party, listener: Party): Uint8Array {
  const bytes: number[] = [...CONTEXT, SUITE];
  for (const { nodeId, tag, publicKey } of [dialer, listener]) {
    const name = encoder.encode(nodeId);
    bytes.push(name.length, ...name, ...tag, ...publicKey);
  }
  return Uint8Array.from(bytes);
}

/** The keys of one link, one for each direction. */
export class LinkKeys {
  /** Packets that each of them may seal: none has a higher number. */
  readonly maxPackets: number;
  readonly #own: PacketCipher;
  readonly #peers: PacketCipher;
  readonly #nonce = new Uint8Array(NONCE_BYTES);

  /** Keeps what seals our packets and what opens the peer's. */
  constructor(own: PacketCipher, peers: PacketCipher, maxPackets: number) {
    this.maxPackets = maxPackets;
    this.#own = own;
    this.#peers = peers;
  }

  /** A packet: its header, and the content encrypted. No two of a link may have one number. */
  seal(header: Uint8Array, content: Uint8Array): Uint8Array {
    return this.#own.seal(this.#nonceOf(header), header, content);
  }

  /** The content of a packet of the peer; undefined where it isn't one, or was changed. */
  open(packet: Uint8Array): Uint8Array | undefined {
    if (packet.length < HEADER_BYTES + AEAD_TAG_BYTES) return undefined;
    const header = packet.subarray(0, HEADER_BYTES);
    return this.#peers.open(this.#nonceOf(header), header, packet.subarray(HEADER_BYTES));
  }

  /** Four zeros and the packet's number, as it stands in the header. */
  #nonceOf(header: Uint8Array): Uint8Array {
    this.#nonce.set(header.subarray(PREFIX_BYTES, PREFIX_BYTES + NUMBER_BYTES), NONCE_ZEROS);
    return this.#nonce;
  }
}
