/**
 * Both sides of the handshake of one connection (docs/protocol.md, section "Handshake"): frames and
 * the time go in, frames and the agreement come out. The deadline is the connection's.
 *
 * @module
 */

import { HandshakeError, type RejectCode, TransportError } from "../errors.ts";
import {
  acceptWelcome,
  encodeHello,
  encodeReject,
  encodeWelcome,
  judgeHello,
  type LocalIdentity,
  type Negotiated,
  parseAnswer,
  parseHello,
} from "./handshake.ts";
import type { ReplayWindow } from "./replay.ts";
import { quote } from "./text.ts";

/** Why a listener turns a dialer away. */
export interface Rejection {
  /** The code that goes on the wire. */
  readonly code: RejectCode;
  /** A reason for people, without secrets. */
  readonly reason: string;
  /** The error to report on this side instead of a plain HandshakeError. */
  readonly error?: TransportError;
}

/** Who decides on the handshake, listener only. */
export interface HandshakeSink {
  /** Is the other side the node it says it is? Asked before anything else is judged. */
  onIdentity(nodeId: string): Rejection | undefined;
  /** The hello is in order; may this node come in? */
  onHello(negotiated: Negotiated): Rejection | undefined;
}

/** What a handshake needs to know. */
export interface HandshakeConfig {
  readonly role: "dialer" | "listener";
  readonly local: LocalIdentity;
  /** Dialer: the node that must answer. */
  readonly expectNodeId: string | undefined;
  /** 16 random bytes. */
  readonly nonce: Uint8Array;
  /** Wall clock minus monotonic clock, milliseconds. */
  readonly wallClockOffset: number;
  readonly replay: ReplayWindow;
}

/** One handshake. */
export class Handshaker {
  readonly #config: HandshakeConfig;
  readonly #sink: HandshakeSink;
  readonly #send: (frame: Uint8Array) => void;

  /** `send` takes the bodies of frames to be written. */
  constructor(config: HandshakeConfig, sink: HandshakeSink, send: (frame: Uint8Array) => void) {
    this.#config = config;
    this.#sink = sink;
    this.#send = send;
  }

  /** A dialer says hello. `now` is the monotonic clock, as below. */
  start(now: number): void {
    const { role, local, expectNodeId, nonce, wallClockOffset } = this.#config;
    if (role === "listener") return;
    this.#send(encodeHello(local, expectNodeId, Math.round(now + wallClockOffset), nonce));
  }

  /**
   * Takes the body of a frame. Returns the agreement once there is one.
   *
   * @throws {TransportError} The handshake has failed; a reject that the other side is to see has
   * been sent.
   */
  handleFrame(body: Uint8Array, now: number): Negotiated | undefined {
    return this.#config.role === "listener"
      ? this.#handleHello(body, now)
      : this.#handleAnswer(body);
  }

  #handleAnswer(body: Uint8Array): Negotiated {
    const { local, expectNodeId } = this.#config;
    const answer = parseAnswer(body);
    if (answer.type === "welcome") return acceptWelcome(answer, local, expectNodeId);
    throw new HandshakeError(
      `Cannot connect: the listener refused with ${answer.shownCode}: ` +
        quote(answer.reason, 200),
      answer.code,
      {
        peer: expectNodeId,
        retryable: answer.code === "TOO_MANY_CONNECTIONS" || answer.code === "SHUTTING_DOWN" ||
          answer.code === "DUPLICATE_NODE_ID",
      },
    );
  }

  #handleHello(body: Uint8Array, now: number): Negotiated {
    const { local, replay, wallClockOffset } = this.#config;
    let hello;
    try {
      hello = parseHello(body);
    } catch (error) {
      const reason = error instanceof TransportError ? error.message : "it can't be read";
      this.#send(encodeReject("MALFORMED", reason));
      throw error;
    }
    // First of all: a nonce, once judged, is remembered under the name of the node.
    const impostor = this.#sink.onIdentity(hello.nodeId);
    if (impostor !== undefined) return this.#reject(impostor, hello.nodeId);
    const verdict = judgeHello(hello, local, { wallClockMs: now + wallClockOffset, replay });
    if ("reject" in verdict) {
      return this.#reject({ code: verdict.reject, reason: verdict.reason }, hello.nodeId);
    }
    const rejection = this.#sink.onHello(verdict.accept);
    if (rejection !== undefined) return this.#reject(rejection, verdict.accept.nodeId);
    this.#send(encodeWelcome(verdict.accept, local));
    return verdict.accept;
  }

  #reject({ code, reason, error }: Rejection, peer: string): never {
    this.#send(encodeReject(code, reason));
    throw error ??
      new HandshakeError(`Cannot accept the connection: ${code}: ${reason}`, code, { peer });
  }
}
