/**
 * Both sides of the handshake of one connection (docs/protocol.md, section "Handshake"): frames and
 * the time go in, frames and the agreement come out. The deadline is the connection's.
 *
 * @module
 */

import { HandshakeError, TransportError } from "../errors.ts";
import {
  acceptWelcome,
  encodeHello,
  encodeReject,
  encodeWelcome,
  type Hello,
  judgeHello,
  type LocalIdentity,
  type Negotiated,
  parseAnswer,
  parseHello,
  rejectedBy,
  type SessionClaim,
  type SessionOffer,
} from "./handshake.ts";
import { sharedSet } from "./negotiate.ts";
import { parseProof } from "./proof.ts";
import { type ProofConfig, Prover } from "./prover.ts";
import type { Rejection } from "./rejection.ts";
import type { ReplayWindow } from "./replay.ts";

export type { KeyIdentity, ProofConfig } from "./prover.ts";
export type { Rejection } from "./rejection.ts";

/** Who decides on the handshake, listener only. */
export interface HandshakeSink {
  /** Is the other side the node it says it is? Asked before anything else is judged. */
  onIdentity(nodeId: string): Rejection | undefined;
  /**
   * The hello is in order; may this node come in? Where the dialer showed a key, asked again when
   * it has proved it, since others may have come in between: then `session` is what was offered.
   */
  onHello(negotiated: Negotiated): Rejection | undefined;
  /**
   * Which session does a node that may come in get? Only asked where `resume` is agreed on, which
   * needs this method. Nothing is settled by it: the handshake may still fail.
   */
  offerSession?(negotiated: Negotiated): OfferedSession;
}

/** A session for the welcome. */
export interface OfferedSession {
  /** The session. */
  readonly offer: SessionOffer;
  /** How many sessions with this peer we have ended by our own decision since we started. */
  readonly generation: number;
}

/** A session for the hello. */
export interface ClaimedSession {
  /** The session to go on with; undefined for a new one. */
  readonly claim: SessionClaim | undefined;
  /** How many sessions with this peer we have ended by our own decision since we started. */
  readonly generation: number;
}

/** What a handshake needs to know. */
export interface HandshakeConfig extends ProofConfig {
  readonly role: "dialer" | "listener";
  readonly local: LocalIdentity;
  /** Dialer: the node that must answer. */
  readonly expectNodeId: string | undefined;
  /** 16 random bytes. */
  readonly nonce: Uint8Array;
  /** Wall clock minus monotonic clock, milliseconds. */
  readonly wallClockOffset: number;
  readonly replay: ReplayWindow;
  /** Dialer: the session to ask for, at the time when the hello is written. */
  readonly claimSession?: (() => ClaimedSession) | undefined;
}

/** A listener that waits for the dialer's proof. */
interface Awaited {
  readonly hello: Hello;
  /** The bodies of both frames. */
  readonly helloBody: Uint8Array;
  readonly welcomeBody: Uint8Array;
  /** What will hold once the proof is there; with `publicKey`, where the key is listed. */
  readonly proven: Negotiated;
}

const NO_BYTES: Uint8Array = new Uint8Array(0);

/** One handshake. */
export class Handshaker {
  readonly #config: HandshakeConfig;
  readonly #sink: HandshakeSink;
  readonly #send: (frame: Uint8Array) => void;
  readonly #prover: Prover;
  /** Dialer: the body of the hello that was sent. */
  #hello = NO_BYTES;
  #claim: SessionClaim | undefined;
  #awaited: Awaited | undefined;

  /** `send` takes the bodies of frames to be written. */
  constructor(config: HandshakeConfig, sink: HandshakeSink, send: (frame: Uint8Array) => void) {
    this.#config = config;
    this.#sink = sink;
    this.#send = send;
    this.#prover = new Prover(config);
  }

  /** A dialer says hello. `now` is the monotonic clock, as below. */
  start(now: number): void {
    const { role, local, expectNodeId, nonce, wallClockOffset, claimSession } = this.#config;
    if (role === "listener") return;
    const resumes = local.maxVersion >= 3 && local.capabilities.includes("resume");
    const claimed = resumes ? claimSession?.() : undefined;
    this.#claim = claimed?.claim;
    this.#hello = encodeHello(local, expectNodeId, now + wallClockOffset, nonce, {
      claim: claimed?.claim,
      sessionGeneration: claimed?.generation,
      publicKey: this.#prover.shownKey,
    });
    this.#send(this.#hello);
  }

  /**
   * Takes the body of a frame. Returns the agreement once there is one.
   *
   * @throws {TransportError} The handshake has failed; a reject that the other side is to see has
   * been sent.
   */
  handleFrame(body: Uint8Array, now: number): Negotiated | undefined {
    if (this.#config.role === "dialer") return this.#handleAnswer(body, now);
    return this.#awaited === undefined
      ? this.#handleHello(body, now)
      : this.#handleProof(body, this.#awaited);
  }

  #handleAnswer(body: Uint8Array, now: number): Negotiated {
    const { local, expectNodeId, wallClockOffset } = this.#config;
    const answer = parseAnswer(body);
    if (answer.type === "reject") throw rejectedBy(answer, expectNodeId);
    const negotiated = acceptWelcome(answer, local, expectNodeId, {
      wallClockMs: now + wallClockOffset,
      claim: this.#claim,
    });
    const publicKey = this.#prover.checkWelcome(answer, this.#hello, body);
    // The hello announced it: the listener waits for it.
    if (negotiated.version >= 3 && this.#prover.shownKey !== undefined) {
      this.#send(this.#prover.proof(this.#hello, body));
    }
    this.#hello = NO_BYTES;
    return { ...negotiated, publicKey };
  }

  #handleHello(body: Uint8Array, now: number): Negotiated | undefined {
    const hello = this.#parse(() => parseHello(body));
    // First of all: a nonce, once judged, is remembered under the name of the node.
    const impostor = this.#sink.onIdentity(hello.nodeId);
    if (impostor !== undefined) return this.#reject(impostor, hello.nodeId);
    const wallClockMs = now + this.#config.wallClockOffset;
    const accepted = this.#judge(hello, wallClockMs);
    const rejection = this.#sink.onHello(accepted);
    if (rejection !== undefined) return this.#reject(rejection, hello.nodeId);
    const { negotiated, generation } = this.#offer(accepted);
    const welcomeBody = this.#welcome(negotiated, body, wallClockMs, generation);
    this.#send(welcomeBody);
    if (negotiated.version < 3 || hello.publicKey === undefined) return negotiated;
    const publicKey = this.#prover.trusted(hello.nodeId, hello.publicKey);
    const proven = { ...negotiated, publicKey };
    this.#awaited = { hello, helloBody: body.slice(), welcomeBody, proven };
    return undefined;
  }

  #judge(hello: Hello, wallClockMs: number): Negotiated {
    const { local, replay } = this.#config;
    const { demanded } = this.#prover;
    const context = { wallClockMs, replay: demanded ? undefined : replay };
    const verdict = judgeHello(hello, local, context);
    if ("reject" in verdict) {
      return this.#reject({ code: verdict.reject, reason: verdict.reason }, hello.nodeId);
    }
    const problem = demanded ? this.#prover.judgeKey(hello, verdict.accept.version) : undefined;
    return problem === undefined ? verdict.accept : this.#reject(problem, hello.nodeId);
  }

  #offer(accepted: Negotiated): { negotiated: Negotiated; generation?: number } {
    if (!accepted.capabilities.has("resume")) return { negotiated: accepted };
    const offered = this.#sink.offerSession?.(accepted);
    if (offered !== undefined) {
      const { offer, generation } = offered;
      return { negotiated: { ...accepted, session: offer }, generation };
    }
    const rest = [...accepted.capabilities].filter((capability) => capability !== "resume");
    return { negotiated: { ...accepted, capabilities: sharedSet(rest), claim: undefined } };
  }

  #welcome(
    negotiated: Negotiated,
    helloBody: Uint8Array,
    wallClockMs: number,
    sessionGeneration: number | undefined,
  ): Uint8Array {
    const { local, nonce } = this.#config;
    const publicKey = this.#prover.shownKey;
    const details = { wallClockMs, nonce, sessionGeneration, publicKey };
    const welcome = encodeWelcome(negotiated, local, details);
    return negotiated.version < 3 || publicKey === undefined
      ? welcome
      : this.#prover.signWelcome(helloBody, welcome);
  }

  #handleProof(body: Uint8Array, awaited: Awaited): Negotiated {
    const { hello, helloBody, welcomeBody, proven } = awaited;
    const signature = this.#parse(() => parseProof(body));
    const rejection = this.#prover.judgeProof(hello, helloBody, welcomeBody, signature) ??
      this.#sink.onHello(proven);
    return rejection === undefined ? proven : this.#reject(rejection, hello.nodeId);
  }

  /** What a dialer sent, or a reject that says what is wrong with it. */
  #parse<T>(read: () => T): T {
    try {
      return read();
    } catch (error) {
      const reason = error instanceof TransportError ? error.message : "it can't be read";
      this.#send(encodeReject("MALFORMED", reason));
      throw error;
    }
  }

  #reject({ code, reason, error }: Rejection, peer: string): never {
    this.#send(encodeReject(code, reason));
    throw error ??
      new HandshakeError(`Cannot accept the connection: ${code}: ${reason}`, code, { peer });
  }
}
