/**
 * Seals messages for peers into envelopes, and opens theirs.
 *
 * @module
 */

import { TransportError } from "../errors.ts";
import {
  decodeEnvelope,
  encodeEnvelope,
  type EnvelopeCrypto,
  isSignedBy,
  type SignedEnvelope,
} from "./envelope.ts";
import { type EnvelopeRefusal, EnvelopeWindow } from "./envelope_window.ts";
import { quote } from "./text.ts";
import { type Lane, NORMAL } from "./v3/types.ts";

/** What an {@linkcode EnvelopeSigner} is made with. */
export interface EnvelopeSignerOptions {
  /** Our node id, the sender of every envelope. */
  readonly nodeId: string;
  /** Signs with our private key. */
  readonly sign: EnvelopeCrypto["sign"];
  /** Our wall clock now, milliseconds since the epoch: numbers start from it. */
  readonly wallClockMs: number;
}

/** What an {@linkcode EnvelopeVerifier} is made with. */
export interface EnvelopeVerifierOptions {
  /** The public keys of the nodes whose messages are taken, 32 bytes each. */
  readonly trustedKeys: ReadonlyMap<string, readonly Uint8Array[]>;
  /** Verifies a signature. */
  readonly verify: EnvelopeCrypto["verify"];
  /** The largest difference in milliseconds between an envelope's timestamp and our clock. */
  readonly maxAgeMs: number;
}

/** The low two bits of a number are the lane, so that each lane has numbers in order of its own. */
const LANES = 4;
/**
 * Numbers of a lane per millisecond of the clock. Ed25519 signs some tens in that time, so who
 * starts again starts above all that was used before. The clock fits until the year 2248.
 */
const NUMBERS_PER_MS = 256;
const MAX_START_MS = Math.floor(2 ** 53 / (LANES * NUMBERS_PER_MS)) - 1;

/**
 * Seals what we send. Numbers are taken at sealing, so what is sent again must be the same bytes.
 *
 * A process that starts again must go on above the numbers it used before, or its peers would take
 * its messages for replays. It remembers nothing, so it starts from the clock: at 1024 times the
 * milliseconds since the epoch.
 */
export class EnvelopeSigner {
  readonly #nodeId: string;
  readonly #sign: EnvelopeCrypto["sign"];
  /** The next number of each lane, without the bits of the lane. */
  readonly #next: [number, number, number];

  /**
   * Takes the first numbers from the clock.
   *
   * @throws {RangeError} Where the clock stands before 1970 or after 2248.
   */
  constructor({ nodeId, sign, wallClockMs }: EnvelopeSignerOptions) {
    const startMs = Math.floor(wallClockMs);
    if (!(startMs >= 0 && startMs <= MAX_START_MS)) {
      throw new RangeError(`Cannot number envelopes: the clock says ${wallClockMs}`);
    }
    this.#nodeId = nodeId;
    this.#sign = sign;
    const first = startMs * NUMBERS_PER_MS;
    this.#next = [first, first, first];
  }

  /**
   * A signed envelope for a node.
   *
   * @param lane The lane it goes out on: in another, its number would come out of order.
   * @param around What is signed along and not sent.
   */
  seal(
    recipientNodeId: string,
    payload: Uint8Array,
    wallClockMs: number,
    lane: Lane = NORMAL,
    around?: Uint8Array,
  ): Uint8Array {
    const sequence = this.#next[lane]++ * LANES + lane;
    const envelope = {
      sender: this.#nodeId,
      recipient: recipientNodeId,
      sequence,
      timestamp: Math.floor(wallClockMs),
      payload,
    };
    return encodeEnvelope(envelope, this.#sign, around);
  }
}

/** Opens what peers sealed: from whom it says, for us, signed with a trusted key, young, and once. */
export class EnvelopeVerifier {
  readonly #trustedKeys: ReadonlyMap<string, readonly Uint8Array[]>;
  readonly #verify: EnvelopeCrypto["verify"];
  /** By the low two bits of the number, in which an endpoint puts the lane. */
  readonly #windows: readonly EnvelopeWindow[];

  /** Remembers as many senders as are trusted, so that none of them can push out another. */
  constructor({ trustedKeys, verify, maxAgeMs }: EnvelopeVerifierOptions) {
    this.#trustedKeys = trustedKeys;
    this.#verify = verify;
    const maxSenders = Math.max(1, trustedKeys.size);
    this.#windows = Array.from({ length: LANES }, () => {
      return new EnvelopeWindow({ maxAgeMs, maxSenders });
    });
  }

  /**
   * The payload of an envelope, a view into `bytes`. What is cheap is checked before the signature.
   *
   * @param fromNodeId The peer whose connection it came on.
   * @param around What must be signed along.
   * @throws {TransportError} `IdentityMismatch` for whatever is wrong with it.
   */
  open(
    bytes: Uint8Array,
    fromNodeId: string,
    ownNodeId: string,
    wallClockMs: number,
    around?: Uint8Array,
  ): Uint8Array {
    const envelope = read(bytes, fromNodeId);
    const { sender, recipient, sequence, timestamp, payload } = envelope;
    if (sender !== fromNodeId) {
      throw refusedEnvelope(fromNodeId, `it is signed by ${quote(sender)}`);
    }
    if (recipient !== ownNodeId) throw refusedEnvelope(fromNodeId, `it is for ${quote(recipient)}`);
    const keys = this.#trustedKeys.get(sender);
    if (keys === undefined) throw refusedEnvelope(fromNodeId, "no key is trusted for it", ADD_KEY);
    const window = this.#windows[sequence % LANES]!;
    const refusal = window.check(sender, sequence, timestamp, wallClockMs);
    if (refusal !== undefined) throw refusedAs(refusal, fromNodeId);
    if (!isSignedBy(bytes, keys, this.#verify, around)) {
      throw refusedEnvelope(fromNodeId, "the signature is wrong", CHECK_KEYS);
    }
    const late = window.admit(sender, sequence, timestamp, wallClockMs);
    if (late !== undefined) throw refusedAs(late, fromNodeId);
    return payload;
  }
}

const ADD_KEY = "add the peer's public key to signing.trustedKeys";
const CHECK_KEYS = "check that signing.trustedKeys has the key that the peer signs with";

/** What each refusal of a window means, and one line of advice. */
const REFUSALS: { readonly [R in EnvelopeRefusal]: readonly [reason: string, advice: string] } = {
  "too-old": ["it is too old", "check the clocks of both nodes, or raise maxAgeMs"],
  "too-new": ["it is from the future", "check the clocks of both nodes"],
  "replayed": ["it was taken before", "nothing, where an attacker sends messages again"],
  "too-far-behind": [
    "its number is too far behind",
    "check that the peer's clock was not set back before it started",
  ],
  "too-many-senders": ["there are too many senders", "remember more senders"],
};

/** The error for an envelope that a window refuses. */
export function refusedAs(refusal: EnvelopeRefusal, sender: string): TransportError {
  const [reason, advice] = REFUSALS[refusal];
  return refusedEnvelope(sender, reason, advice);
}

/** The error for an envelope that isn't what it should be. */
export function refusedEnvelope(
  sender: string,
  reason: string,
  recovery?: string,
  cause?: unknown,
): TransportError {
  const message = `Cannot accept an envelope from ${quote(sender)}: ${reason}`;
  return new TransportError("IdentityMismatch", message, { peer: sender, recovery, cause });
}

function read(bytes: Uint8Array, fromNodeId: string): SignedEnvelope {
  try {
    return decodeEnvelope(bytes);
  } catch (cause) {
    throw refusedEnvelope(fromNodeId, "the message is no signed envelope", SIGN, cause);
  }
}

const SIGN = "give the peer a signing key, or set signing on neither side";
