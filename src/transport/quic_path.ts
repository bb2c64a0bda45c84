/**
 * Whether a QUIC connection still reaches the other side. QUIC itself notices that late, and a
 * listener may lose the way to a dialer whose address has changed although it goes on hearing it.
 *
 * @module
 */

import { type Environment, systemEnvironment } from "../runtime/environment.ts";

/** After so long without a sign of life behind what was sent, one is asked for. */
const SILENCE_MS = 500;
/** How long an answer may take before it is asked again; datagrams get lost. */
const ANSWER_MS = 200;
/** So many questions stay without an answer before the other side counts as silent. */
const MAX_ASKS = 3;
/** So often it is asked quickly, and the silence told again after as many slow questions. */
const QUICK_ASKS = 12;
/** How often it is asked then. */
const SLOW_MS = 1_000;

/** The number before datagrams that are about the path: no stream of ours ever has it. */
export const PATH_NUMBER = 3;
/** Bytes that tell a connection apart from all others of its two sides. */
export const PATH_TOKEN_BYTES = 8;

const KINDS = ["ask", "answer", "abandoned"] as const;

/** What a datagram about the path says. */
export interface PathDatagram {
  /** A question, the answer to it, or that a connection is given up. */
  readonly kind: typeof KINDS[number];
  /** The connection that is meant, as its dialer names it; empty in an answer. */
  readonly token: Uint8Array;
}

/** The bytes of a datagram about the path. */
export function encodePath({ kind, token }: PathDatagram): Uint8Array {
  return Uint8Array.of(PATH_NUMBER, KINDS.indexOf(kind), ...token);
}

/** Reads what follows the number; undefined where it is nothing that we know. */
export function readPath(rest: Uint8Array): PathDatagram | undefined {
  const kind = KINDS[rest[0] ?? KINDS.length];
  if (kind === undefined) return undefined;
  const token = rest.slice(1);
  return token.length === (kind === "answer" ? 0 : PATH_TOKEN_BYTES) ? { kind, token } : undefined;
}

/** Who watches a path. */
export interface PathWatchHost {
  /** Asks for a sign of life. */
  ask(): void;
  /** The other side answers no more. */
  onSilent(): void;
}

/** Watches the path of one connection: by what comes, and by asking where nothing does. */
export class PathWatch {
  readonly #host: PathWatchHost;
  readonly #environment: Pick<Environment, "setTimer">;
  #cancel: (() => void) | undefined;
  #stopped = false;
  /** Something was sent since something came last. */
  #sent = false;
  #heard = false;
  /** The other side has shown that it answers: older ones do not. */
  #answers = false;
  /** Questions that were asked to learn whether it does. */
  #tries = 0;
  /** Questions in a row without a sign of life. */
  #asks = 0;

  /** Nothing is watched before something was sent. */
  constructor(
    host: PathWatchHost,
    environment: Pick<Environment, "setTimer"> = systemEnvironment,
  ) {
    this.#host = host;
    this.#environment = environment;
  }

  /** Whether questions stay without an answer at the moment. */
  get silent(): boolean {
    return this.#asks > MAX_ASKS;
  }

  /** Bytes were sent. */
  sent(): void {
    this.#sent = true;
    if (this.#cancel === undefined && !this.#stopped) this.#arm(SILENCE_MS);
  }

  /** Something came. */
  heard(): void {
    this.#heard = true;
    this.#sent = false;
    this.#asks = 0;
    if (this.#tries === 0) this.#try();
  }

  /** An answer came; that something came is told beside it. */
  answered(): void {
    this.#answers = true;
  }

  /** The connection is of no use any more. */
  stop(): void {
    this.#stopped = true;
    this.#cancel?.();
    this.#cancel = undefined;
  }

  #try(): void {
    if (this.#answers || this.#stopped || this.#tries >= MAX_ASKS) return;
    this.#tries++;
    this.#host.ask();
  }

  #arm(delayMs: number): void {
    this.#heard = false;
    this.#cancel = this.#environment.setTimer(delayMs, () => {
      this.#cancel = undefined;
      this.#onTimeout();
    });
  }

  #onTimeout(): void {
    if (this.#heard) {
      this.#try();
      if (this.#sent) this.#arm(SILENCE_MS);
      return;
    }
    if (!this.#answers) return;
    this.#asks++;
    this.#arm(this.#asks < QUICK_ASKS ? ANSWER_MS : SLOW_MS);
    this.#host.ask();
    if ((this.#asks - MAX_ASKS) % QUICK_ASKS === 1) this.#host.onSilent();
  }
}
