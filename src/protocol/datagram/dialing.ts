/**
 * The dialer's side of a handshake over datagrams, with its repetitions.
 *
 * @module
 */

import { TransportError } from "../../errors.ts";
import type { Negotiated } from "../negotiate.ts";
import type { KeyExchange, LinkKeys } from "./encryption.ts";
import { firstHello, type Greeter, readRejection, readWelcome, secondHello } from "./greeting.ts";
import { readRetry } from "./packet.ts";
import { PACKET, type PacketKind } from "./types.ts";

/** What a dialing is made with. */
export interface DialingOptions {
  /** Who we are. */
  readonly greeter: Greeter;
  /** Whom we mean to reach. */
  readonly nodeId: string;
  /** Our tag, 16 random bytes. */
  readonly tag: Uint8Array;
  /** 16 random bytes. */
  readonly nonce: Uint8Array;
  /** How many tables of answers we have begun. */
  readonly generation: number;
  /** Milliseconds until the first packet is sent again; twice as long each time. */
  readonly firstDelayMs: number;
  /** Sends a packet to the listener. */
  send(packet: Uint8Array): void;
}

/** What was agreed on. */
export interface Dialed {
  /** The listener's tag. */
  readonly peerTag: Uint8Array;
  /** What was agreed on. */
  readonly negotiated: Negotiated;
  /** What packets are encrypted with; undefined where messages are not signed. */
  readonly keys: LinkKeys | undefined;
}

/** The longest time between two hellos. */
const MAX_DELAY_MS = 500;

/** One attempt. It ends when `handlePacket` returns or throws; until then it repeats itself. */
export class Dialing {
  readonly #options: DialingOptions;
  /** One for all hellos: a welcome may answer an earlier one. */
  readonly #exchange: KeyExchange | undefined;
  #packet: Uint8Array;
  #cookie = "";
  #delayMs: number;
  #nextAt: number;

  /** Sends the first hello. */
  constructor(options: DialingOptions, now: number) {
    this.#options = options;
    this.#exchange = options.greeter.seal?.encryption.newExchange();
    this.#packet = firstHello(options.tag);
    this.#delayMs = options.firstDelayMs;
    this.#nextAt = now + this.#delayMs;
    options.send(this.#packet);
  }

  /** When `handleTimeout` is to be called, milliseconds. */
  get nextTimeout(): number {
    return this.#nextAt;
  }

  /** Sends the last hello again if it is time. */
  handleTimeout(now: number): void {
    if (now < this.#nextAt) return;
    this.#delayMs = Math.min(this.#delayMs * 2, MAX_DELAY_MS);
    this.#nextAt = now + this.#delayMs;
    this.#options.send(this.#packet);
  }

  /**
   * Takes a packet that has our tag, from the address that we dial. Undefined: the handshake goes
   * on.
   *
   * @throws {TransportError} The listener refuses us, or is not acceptable. What is no answer at all
   * is ignored, because anybody may have sent it.
   */
  handlePacket(
    kind: PacketKind,
    packet: Uint8Array,
    wallClockMs: number,
    now: number,
  ): Dialed | undefined {
    const { greeter, nodeId, tag } = this.#options;
    try {
      switch (kind) {
        case PACKET.retry:
          this.#retry(readRetry(packet), wallClockMs, now);
          return undefined;
        case PACKET.welcome: {
          const greeted = { nodeId, tag, exchange: this.#exchange };
          const { tag: peerTag, ...agreed } = readWelcome(greeter, greeted, packet, wallClockMs);
          return { peerTag, ...agreed };
        }
        case PACKET.reject:
          throw readRejection(packet, nodeId);
        default:
          return undefined;
      }
    } catch (error) {
      if (error instanceof TransportError && error.code === "InvalidFrame") return undefined;
      throw error;
    }
  }

  /** A listener answers each hello, and hellos are repeated: the same cookie comes again. */
  #retry(cookie: Uint8Array, wallClockMs: number, now: number): void {
    const text = String.fromCharCode(...cookie);
    if (text === this.#cookie) return;
    this.#cookie = text;
    const { greeter, tag, nodeId, nonce, generation, send } = this.#options;
    this.#packet = secondHello(greeter, {
      tag,
      cookie,
      nodeId,
      wallClockMs,
      nonce,
      generation,
      exchange: this.#exchange,
    });
    this.#delayMs = this.#options.firstDelayMs;
    this.#nextAt = now + this.#delayMs;
    send(this.#packet);
  }
}
