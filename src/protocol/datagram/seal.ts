/**
 * Packets under signatures: their bodies are envelopes (docs/envelopes.md) that are bound to the
 * packet they stand in. Who signs encrypts, too: what goes over a link is sealed once more.
 *
 * @module
 */

import {
  decodeEnvelope,
  encodeEnvelope,
  type EnvelopeCrypto,
  envelopeOverhead,
  isSignedBy,
  type SignedEnvelope,
} from "../envelope.ts";
import { refusedAs, refusedEnvelope } from "../envelope_seal.ts";
import { quote } from "../text.ts";
import type { PacketCrypto } from "./encryption.ts";
import { AEAD_TAG_BYTES } from "./types.ts";

/** What packets are signed and verified with. */
export interface PacketSealOptions {
  /** Our node id. */
  readonly nodeId: string;
  /** Signs with our private key. */
  readonly sign: EnvelopeCrypto["sign"];
  /** Verifies a signature. */
  readonly verify: EnvelopeCrypto["verify"];
  /** The public keys of the nodes whose packets are taken, 32 bytes each. */
  readonly trustedKeys: ReadonlyMap<string, readonly Uint8Array[]>;
  /** The largest difference in milliseconds between an envelope's timestamp and our clock. */
  readonly maxAgeMs: number;
  /** What the packets of links are encrypted with. */
  readonly encryption: PacketCrypto;
}

/** Goes before what is signed along with a packet's envelope. */
const CONTEXT = new TextEncoder().encode("hawser datagram 1\0");

/** Signs bodies, and opens those of peers. */
export class PacketSeal {
  readonly #options: PacketSealOptions;

  /** Keeps the options. */
  constructor(options: PacketSealOptions) {
    this.#options = options;
  }

  /** What the packets of links are encrypted with. */
  get encryption(): PacketCrypto {
    return this.#options.encryption;
  }

  /** By how many bytes what is signed for a node, and encrypted, is longer. */
  overhead(nodeId: string): number {
    return envelopeOverhead(this.#options.nodeId, nodeId) + AEAD_TAG_BYTES;
  }

  /**
   * The envelope of a body for a node.
   *
   * @param number The number of the packet; 0 in a handshake.
   * @param around What stands before the envelope in the packet.
   */
  seal(
    nodeId: string,
    body: Uint8Array,
    number: number,
    wallClockMs: number,
    around: Uint8Array,
  ): Uint8Array {
    const envelope = {
      sender: this.#options.nodeId,
      recipient: nodeId,
      sequence: number,
      timestamp: Math.floor(wallClockMs),
      payload: body,
    };
    return encodeEnvelope(envelope, this.#options.sign, withContext(around));
  }

  /**
   * The body in an envelope, a view, and who signed it. That it is new must have been asked before:
   * the number that is checked here is the packet's own.
   *
   * @param from Who must have signed it; undefined: any node that is trusted.
   * @throws {TransportError} `IdentityMismatch` for whatever is wrong with it.
   */
  open(
    bytes: Uint8Array,
    from: string | undefined,
    number: number,
    wallClockMs: number,
    around: Uint8Array,
  ): { readonly sender: string; readonly body: Uint8Array } {
    const { nodeId, trustedKeys, verify, maxAgeMs } = this.#options;
    const envelope = read(bytes, from);
    const { sender, recipient, sequence, timestamp, payload } = envelope;
    if (from !== undefined && sender !== from) {
      throw refusedEnvelope(from, `it is signed by ${quote(sender)}`);
    }
    if (recipient !== nodeId) throw refusedEnvelope(sender, `it is for ${quote(recipient)}`);
    if (sequence !== number) throw refusedEnvelope(sender, "it belongs to another packet");
    if (!(timestamp >= wallClockMs - maxAgeMs)) throw refusedAs("too-old", sender);
    if (!(timestamp <= wallClockMs + maxAgeMs)) throw refusedAs("too-new", sender);
    const keys = trustedKeys.get(sender);
    if (keys === undefined) throw refusedEnvelope(sender, "no key is trusted for it", ADD_KEY);
    if (!isSignedBy(bytes, keys, verify, withContext(around))) {
      throw refusedEnvelope(sender, "the signature is wrong", CHECK_KEYS);
    }
    return { sender, body: payload };
  }
}

const ADD_KEY = "add the peer's public key to signing.trustedKeys";
const CHECK_KEYS = "check that signing.trustedKeys has the key that the peer signs with";

function read(bytes: Uint8Array, from: string | undefined): SignedEnvelope {
  try {
    return decodeEnvelope(bytes);
  } catch (cause) {
    throw refusedEnvelope(from ?? "", "the packet is not signed", SIGN, cause);
  }
}

const SIGN = "give the peer a signing key, or set signing on neither side";

function withContext(around: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(CONTEXT.length + around.length);
  bytes.set(CONTEXT);
  bytes.set(around, CONTEXT.length);
  return bytes;
}
