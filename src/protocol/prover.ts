/**
 * Who must prove an Ed25519 key in a handshake, and whether the proof holds
 * (docs/protocol.md, section "Proof of identity").
 *
 * @module
 */

import { HandshakeError, TransportError } from "../errors.ts";
import { decodeBase64 } from "./base64.ts";
import type { Hello } from "./hello.ts";
import {
  appendSignature,
  encodeProof,
  encodePublicKey,
  proofInput,
  type ProofRole,
  withoutSignature,
} from "./proof.ts";
import type { Rejection } from "./rejection.ts";
import { quote } from "./text.ts";
import type { Welcome } from "./welcome.ts";

/** Keys and the functions that use them. */
export interface KeyIdentity {
  /** Our own key, 32 bytes; undefined where we have none to show. */
  readonly publicKey: Uint8Array | undefined;
  /** Node id -> the keys of which its node may prove one. */
  readonly trustedKeys: ReadonlyMap<string, readonly Uint8Array[]>;
  /** The Ed25519 signature, 64 bytes, of our own key over a digest of 32 bytes. */
  sign(digest: Uint8Array): Uint8Array;
  /** Whether the signature over the digest is of that key. */
  verify(publicKey: Uint8Array, digest: Uint8Array, signature: Uint8Array): boolean;
  /** The SHA-256 of the bytes. */
  sha256(bytes: Uint8Array): Uint8Array;
}

/** What proofs of identity need to know. Without any of it, none is shown and none demanded. */
export interface ProofConfig {
  /** Keys; without them no demand can be met. */
  readonly identity?: KeyIdentity | undefined;
  /** Whether we show our key and prove it: where the other side has no certificate of ours. */
  readonly prove?: boolean | undefined;
  /**
   * Whether the other side must prove a key that is listed for its node id. A listener asks after
   * `onIdentity`, a dialer when the welcome is there.
   */
  readonly demandProof?: (() => boolean) | undefined;
}

const ADVICE = "check the keys of both nodes and the list of trusted keys";

/** The proofs of one handshake. */
export class Prover {
  readonly #identity: KeyIdentity | undefined;
  readonly #config: ProofConfig;
  /** Our own key in base64, where we show it. */
  readonly shownKey: string | undefined;

  /**
   * Makes the proofs of a handshake.
   *
   * @throws {RangeError} If our own key is not 32 bytes.
   */
  constructor(config: ProofConfig) {
    this.#config = config;
    this.#identity = config.identity;
    const key = config.prove === true ? config.identity?.publicKey : undefined;
    this.shownKey = key === undefined ? undefined : encodePublicKey(key);
  }

  /** Whether the other side must prove a key. */
  get demanded(): boolean {
    return this.#config.demandProof?.() ?? false;
  }

  // --- the listener ---

  /** Why a hello can't lead to the proof that is demanded. */
  judgeKey({ nodeId, publicKey }: Hello, version: number): Rejection | undefined {
    if (version < 3 || publicKey === undefined) {
      return {
        code: "IDENTITY_REQUIRED",
        reason: "a proof of identity is required: version 3 and a public key",
      };
    }
    return this.#lists(nodeId, publicKey) ? undefined : notListed(nodeId);
  }

  /** The welcome with our signature. */
  signWelcome(hello: Uint8Array, welcome: Uint8Array): Uint8Array {
    return appendSignature(welcome, this.#sign("listener", hello, welcome));
  }

  /** Why a dialer's proof doesn't hold. Without keys of our own nothing can be said of it. */
  judgeProof(
    { nodeId, publicKey }: Hello,
    hello: Uint8Array,
    welcome: Uint8Array,
    signature: string,
  ): Rejection | undefined {
    if (publicKey === undefined || this.#identity === undefined) return undefined;
    if (this.#holds("dialer", publicKey, hello, welcome, signature)) return undefined;
    const problem = `Cannot accept ${quote(nodeId)}: its proof of identity does not hold`;
    return {
      code: "AUTH_FAILED",
      reason: "the proof of identity does not hold",
      error: identityMismatch(problem, nodeId),
    };
  }

  // --- the dialer ---

  /**
   * Checks what a welcome proves. Returns the listener's key, where it is proven and listed.
   *
   * @throws {HandshakeError} If there is no proof and one is demanded, or it is malformed.
   * @throws {TransportError} "IdentityMismatch" if the proof does not hold, or the key is not listed
   * and a proof is demanded.
   */
  checkWelcome(
    { nodeId, publicKey, signature }: Welcome,
    hello: Uint8Array,
    body: Uint8Array,
  ): string | undefined {
    const { demanded } = this;
    if (publicKey === undefined || signature === undefined) {
      if (demanded) throw unproven(nodeId);
      return undefined;
    }
    const unsigned = withoutSignature(body, signature);
    if (this.#identity === undefined && !demanded) return undefined;
    const trusted = this.trusted(nodeId, publicKey);
    if (demanded && trusted === undefined) throw notListed(nodeId).error;
    if (!this.#holds("listener", publicKey, hello, unsigned, signature)) {
      const problem = `Cannot connect to ${quote(nodeId)}: its proof of identity does not hold`;
      throw identityMismatch(problem, nodeId);
    }
    return trusted;
  }

  /** The body of the frame that proves our key to the listener. */
  proof(hello: Uint8Array, welcome: Uint8Array): Uint8Array {
    return encodeProof(this.#sign("dialer", hello, welcome));
  }

  // --- both ---

  /** The key, where it is listed for the node. */
  trusted(nodeId: string, publicKey: string): string | undefined {
    return this.#lists(nodeId, publicKey) ? publicKey : undefined;
  }

  #lists(nodeId: string, publicKey: string): boolean {
    const keys = this.#identity?.trustedKeys.get(nodeId) ?? [];
    return keys.some((key) => encodePublicKey(key) === publicKey);
  }

  #sign(role: ProofRole, hello: Uint8Array, welcome: Uint8Array): Uint8Array {
    const identity = this.#identity!;
    return identity.sign(identity.sha256(proofInput(role, hello, welcome)));
  }

  #holds(
    role: ProofRole,
    publicKey: string,
    hello: Uint8Array,
    welcome: Uint8Array,
    signature: string,
  ): boolean {
    const identity = this.#identity!;
    const digest = identity.sha256(proofInput(role, hello, welcome));
    return identity.verify(decodeBase64(publicKey), digest, decodeBase64(signature));
  }
}

function notListed(nodeId: string): Required<Rejection> {
  return {
    code: "AUTH_FAILED",
    reason: "the public key is not listed for this node id",
    error: identityMismatch(
      `Cannot trust ${quote(nodeId)}: the key it shows is not listed for that node id`,
      nodeId,
    ),
  };
}

function unproven(nodeId: string): HandshakeError {
  return new HandshakeError(
    `Cannot connect to ${quote(nodeId)}: it gave no proof of its identity`,
    "IDENTITY_REQUIRED",
    { peer: nodeId, recovery: ADVICE },
  );
}

function identityMismatch(message: string, peer: string): TransportError {
  return new TransportError("IdentityMismatch", message, { peer, recovery: ADVICE });
}
