/**
 * An established link over datagrams: numbers, signatures, encryption, signs of life, the peer's
 * address.
 *
 * @module
 */

import { TransportError } from "../../errors.ts";
import type { Negotiated } from "../negotiate.ts";
import { RoundTrips } from "../v3/round_trips.ts";
import type { LinkKeys } from "./encryption.ts";
import { NumberWindow } from "./number_window.ts";
import { encodeHeader, equalBytes, joinPacket, readNumber, readToken } from "./packet.ts";
import type { PacketSeal } from "./seal.ts";
import { HEADER_BYTES, PACKET, type PacketKind, TOKEN_BYTES } from "./types.ts";

/** What a link is made with. */
export interface DatagramLinkOptions {
  /** What was agreed on with the peer. */
  readonly negotiated: Negotiated;
  /** What the peer's packets begin with. */
  readonly ownTag: Uint8Array;
  /** What ours begin with. */
  readonly peerTag: Uint8Array;
  /** Whether we dialed. */
  readonly dialed: boolean;
  /** Where the peer is. */
  readonly address: string;
  /** Signs and verifies; undefined where messages are not signed. */
  readonly seal: PacketSeal | undefined;
  /** Encrypts and decrypts; undefined where messages are not signed. */
  readonly keys: LinkKeys | undefined;
  /** Milliseconds of silence after which the peer is asked for a sign of life; undefined: never. */
  readonly keepaliveMs: number | undefined;
  /** Random bytes for the tokens of pings. */
  randomBytes(length: number): Uint8Array;
  /** Sends a packet; false: there is no room, and it was dropped. */
  send(packet: Uint8Array, address: string): boolean;
}

/** Why a packet is not taken. */
export type PacketRefusal = "replayed" | "malformed" | "forged";

/** Packet numbers that are remembered. */
const WINDOW = 1024;
/** Of the packets that it may have, so many are behind it when another link is wanted. */
const RENEW_SHARE = 0.5;
/** Pings while the peer is silent, for each keepalive interval. */
const PINGS_PER_INTERVAL = 4;
/** Milliseconds between two pings that ask whether the peer is at a new address. */
const CANDIDATE_MS = 200;
/** Milliseconds between two pings of a link that is to be confirmed or suspected. */
const PROBE_MS = 200;

/** One link. */
export class DatagramLink {
  /** What was agreed on. */
  readonly negotiated: Negotiated;
  /** What the peer's packets begin with. */
  readonly ownTag: Uint8Array;
  /** Whether we dialed. */
  readonly dialed: boolean;
  /** When it was established, monotonic. */
  readonly establishedAt: number;
  /** When something other than pings last went over it. */
  usedAt: number;
  /** When the last packet came. */
  receivedAt: number;
  /** Packets that were taken. */
  packetsReceived = 0;
  /** Bytes of the packets sent. */
  bytesSent = 0;
  /** Bytes of the packets taken. */
  bytesReceived = 0;
  /** The round trips of its pings. */
  readonly roundTrips: RoundTrips = new RoundTrips();
  readonly #options: DatagramLinkOptions;
  readonly #window = new NumberWindow(WINDOW);
  readonly #keepaliveMs: number;
  /** The highest number of a packet, in either direction. */
  readonly #maxNumber: number;
  /** The number from which on another link is wanted. */
  readonly #renewFrom: number;
  #address: string;
  #number = 0;
  #pingAt: number;
  #deadAt: number;
  #pingEveryMs: number;
  /** Pings since the last packet came. */
  #unanswered = 0;
  #ping: { readonly token: Uint8Array; readonly at: number } | undefined;
  #candidate:
    | { readonly address: string; readonly token: Uint8Array; readonly at: number }
    | undefined;

  /**
   * A link whose handshake is complete.
   *
   * @throws {TypeError} Where there is only one of `seal` and `keys`.
   */
  constructor(options: DatagramLinkOptions, now: number) {
    if ((options.seal === undefined) !== (options.keys === undefined)) {
      throw new TypeError("Cannot make a link: what is signed is encrypted, and nothing else");
    }
    this.#options = options;
    this.negotiated = options.negotiated;
    this.ownTag = options.ownTag;
    this.dialed = options.dialed;
    this.establishedAt = this.usedAt = this.receivedAt = now;
    this.#address = options.address;
    this.#maxNumber = options.keys?.maxPackets ?? Number.MAX_SAFE_INTEGER;
    this.#renewFrom = Math.ceil(this.#maxNumber * RENEW_SHARE);
    this.#keepaliveMs = options.keepaliveMs ?? Infinity;
    this.#pingEveryMs = this.#keepaliveMs / PINGS_PER_INTERVAL;
    this.#pingAt = now + this.#keepaliveMs;
    this.#deadAt = now + 2 * this.#keepaliveMs;
  }

  /** The peer's node id. */
  get nodeId(): string {
    return this.negotiated.nodeId;
  }

  /** Where the peer is, as far as that is validated. */
  get address(): string {
    return this.#address;
  }

  /** When `handleTimeout` is to be called. */
  get nextTimeout(): number {
    return this.#asked ? Math.min(this.#pingAt, this.#deadAt) : this.#pingAt;
  }

  /** Whether the peer is late with a sign of life. */
  get suspect(): boolean {
    return this.#asked;
  }

  /**
   * Whether the peer was asked more than once in vain. Where this process stood still for a while,
   * it was not, and what has come meanwhile has not been looked at yet.
   */
  get #asked(): boolean {
    return this.#unanswered > 1;
  }

  /** Whether its packets are encrypted. */
  get encrypted(): boolean {
    return this.#options.keys !== undefined;
  }

  /** Whether so many packets went over it that another one should take its place. */
  get worn(): boolean {
    return this.#number >= this.#renewFrom || this.#window.highest >= this.#renewFrom;
  }

  /** Whether the numbers are used up: only a bye can be sent. */
  get spent(): boolean {
    return this.#number >= this.#maxNumber - 1;
  }

  /** By how many bytes a packet is longer than its body. */
  get overhead(): number {
    return HEADER_BYTES + (this.#options.seal?.overhead(this.nodeId) ?? 0);
  }

  /**
   * Sends a body as a packet of this kind; false: there was no room, or no number, and it was
   * dropped.
   */
  send(
    kind: PacketKind,
    body: Uint8Array,
    wallClockMs: number,
    address: string = this.#address,
  ): boolean {
    // A number that came twice would give the encryption away.
    if (this.#number >= this.#maxNumber || this.spent && kind !== PACKET.bye) return false;
    const { peerTag, seal, keys } = this.#options;
    const number = ++this.#number;
    const header = encodeHeader(kind, peerTag, number);
    const content = seal?.seal(this.nodeId, body, number, wallClockMs, header) ?? body;
    const packet = keys?.seal(header, content) ?? joinPacket(header, content);
    const sent = this.#options.send(packet, address);
    if (sent) this.bytesSent += packet.length;
    return sent;
  }

  /**
   * The body of a packet that has our tag; a view. The packet's number is taken, and the peer is
   * alive.
   */
  open(packet: Uint8Array, wallClockMs: number, now: number): Uint8Array | PacketRefusal {
    const number = readNumber(packet);
    if (number === undefined || number > this.#maxNumber) return "malformed";
    if (this.#window.check(number) !== "new") return "replayed";
    const { seal, keys } = this.#options;
    let body = keys === undefined ? packet.subarray(HEADER_BYTES) : keys.open(packet);
    if (body === undefined) return "forged";
    if (seal !== undefined) {
      const header = packet.subarray(0, HEADER_BYTES);
      try {
        body = seal.open(body, this.nodeId, number, wallClockMs, header).body;
      } catch (error) {
        if (error instanceof TransportError) return "forged";
        throw error;
      }
    }
    this.#window.take(number);
    this.packetsReceived++;
    this.bytesReceived += packet.length;
    this.receivedAt = now;
    this.#unanswered = 0;
    this.#pingEveryMs = this.#keepaliveMs / PINGS_PER_INTERVAL;
    this.#pingAt = now + this.#keepaliveMs;
    this.#deadAt = now + 2 * this.#keepaliveMs;
    return body;
  }

  /**
   * A packet was taken that came from this address. Where that is a new one, the peer is asked to
   * show that it is there; the question is never longer than what came.
   */
  cameFrom(address: string, bytes: number, wallClockMs: number, now: number): void {
    if (address === this.#address) return;
    if (bytes < this.overhead + TOKEN_BYTES) return;
    const candidate = this.#candidate;
    if (candidate?.address === address && now - candidate.at < CANDIDATE_MS) return;
    const token = this.#options.randomBytes(TOKEN_BYTES);
    this.#candidate = { address, token, at: now };
    this.send(PACKET.ping, token, wallClockMs, address);
  }

  /** Answers a ping, there where it came from; the answer has the same length. */
  handlePing(body: Uint8Array, from: string, wallClockMs: number): void {
    this.send(PACKET.pong, readToken(body), wallClockMs, from);
  }

  /** Takes the answer to a ping. Whether the peer's address has changed by it. */
  handlePong(body: Uint8Array, from: string, now: number): boolean {
    const token = readToken(body);
    if (this.#ping !== undefined && equalBytes(token, this.#ping.token)) {
      this.roundTrips.add(now - this.#ping.at);
      this.#ping = undefined;
    }
    const candidate = this.#candidate;
    if (candidate === undefined || !equalBytes(token, candidate.token)) return false;
    if (candidate.address !== from) return false;
    this.#candidate = undefined;
    this.#address = from;
    return true;
  }

  /** Asks for a sign of life now, and often; where none comes within so long, it is dead. */
  probe(withinMs: number, now: number): void {
    this.#pingEveryMs = PROBE_MS;
    this.#pingAt = now;
    this.#deadAt = Math.min(this.#deadAt, now + withinMs);
  }

  /** Sends a ping where one is due. "dead": the peer has been silent for too long. */
  handleTimeout(wallClockMs: number, now: number): "dead" | undefined {
    if (now >= this.#deadAt && this.#asked) return "dead";
    if (now < this.#pingAt) return undefined;
    this.#pingAt = now + this.#pingEveryMs;
    this.ping(wallClockMs, now);
    return undefined;
  }

  /** Sends a ping. */
  ping(wallClockMs: number, now: number): void {
    const token = this.#options.randomBytes(TOKEN_BYTES);
    this.#ping = { token, at: now };
    this.#unanswered++;
    this.send(PACKET.ping, token, wallClockMs);
  }
}
