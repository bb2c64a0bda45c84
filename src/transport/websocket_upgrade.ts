/**
 * From a link to a WebSocket link, by the HTTP upgrade, on both sides.
 *
 * @module
 */

import { TransportError } from "../errors.ts";
import {
  acceptKey,
  encodeAccept,
  encodeKey,
  encodeRefusal,
  encodeRequest,
  HeadReader,
  type HttpHead,
  judgeRequest,
  judgeResponse,
  SUBPROTOCOL,
  SUBPROTOCOL_PROOF,
} from "../protocol/websocket_handshake.ts";
import { systemEnvironment } from "../runtime/environment.ts";
import { sha1 } from "../runtime/sha1.ts";
import type { Link, LinkEvents } from "./transport.ts";
import { WebSocketLink } from "./websocket_link.ts";

const KEY_BYTES = 16;
/** How long the answer to a request that is refused may take to leave. */
const LINGER_MS = 500;

/** What a dialer asks for. */
export interface UpgradeTarget {
  /** The URL, for errors. */
  readonly url: string;
  /** As in a Host header. */
  readonly host: string;
  /** From its slash on. */
  readonly path: string;
  /** Whether to offer that we prove our key. */
  readonly offerProof: boolean;
}

/** Tells a link's events to whoever is concerned at the time. */
class Handover implements LinkEvents {
  target: LinkEvents;

  constructor(target: LinkEvents) {
    this.target = target;
  }

  onData(chunk: Uint8Array): boolean | void {
    return this.target.onData(chunk);
  }

  onDrain(): void {
    this.target.onDrain();
  }

  onEnd(): void {
    this.target.onEnd();
  }

  onClose(error?: TransportError): void {
    this.target.onClose(error);
  }
}

/**
 * Asks the other side of a link for a WebSocket. Owns the link.
 *
 * @throws {TransportError} `ConnectionFailed` or `HandshakeFailed`; or `signal.reason`
 */
export function upgradeDialed(
  inner: Link,
  target: UpgradeTarget,
  signal: AbortSignal,
): Promise<WebSocketLink> {
  return new Promise((resolve, reject) => {
    const action = `connect to ${target.url}`;
    const offered = target.offerProof ? [SUBPROTOCOL, SUBPROTOCOL_PROOF] : [SUBPROTOCOL];
    const key = encodeKey(systemEnvironment.randomBytes(KEY_BYTES));
    const reader = new HeadReader();
    const fail = (reason: unknown) => {
      signal.removeEventListener("abort", onAbort);
      handover.target = NOBODY;
      inner.close();
      reject(reason);
    };
    const onAbort = () => fail(signal.reason);
    const onData = (chunk: Uint8Array) => {
      let protocol: string;
      let rest: Uint8Array;
      try {
        const taken = reader.take(chunk);
        if (taken === undefined) return true;
        protocol = judgeResponse(taken.head, acceptKey(key, sha1), offered, action);
        rest = taken.rest;
      } catch (error) {
        fail(withAction(error as TransportError, action));
        return false;
      }
      signal.removeEventListener("abort", onAbort);
      // The listener can't see our certificate.
      const proofNeeded = protocol === SUBPROTOCOL_PROOF;
      resolve(takeOver(inner, handover, rest, true, proofNeeded));
      return false;
    };
    const lost = (cause?: TransportError) => {
      const why = "the connection was closed before the answer to the WebSocket upgrade";
      fail(new TransportError("ConnectionFailed", `Cannot ${action}: ${why}`, { cause }));
    };
    const handover = new Handover({ ...NOBODY, onData, onEnd: lost, onClose: lost });
    if (signal.aborted) return onAbort();
    signal.addEventListener("abort", onAbort);
    inner.open(handover);
    inner.write(encodeRequest(target.host, target.path, key, offered));
  });
}

/** What the listener's side of an upgrade needs. */
export interface AcceptOptions {
  /** The path that is served; others are not found. */
  readonly path: string;
  /** Milliseconds for the whole upgrade. */
  readonly timeoutMs: number;
  onLink(link: WebSocketLink): void;
  onError(error: TransportError): void;
}

/** Serves the upgrade that the other side of an accepted link asks for. Owns the link until then. */
export class UpgradeAccepted {
  readonly #inner: Link;
  readonly #options: AcceptOptions;
  readonly #reader = new HeadReader();
  readonly #handover: Handover;
  readonly #onDone: (upgrade: UpgradeAccepted) => void;
  #cancelTimer: () => void;
  #done = false;

  /** `onDone` is called once, when nothing is left for it to do. */
  constructor(inner: Link, options: AcceptOptions, onDone: (upgrade: UpgradeAccepted) => void) {
    this.#inner = inner;
    this.#options = options;
    this.#onDone = onDone;
    this.#cancelTimer = systemEnvironment.setTimer(options.timeoutMs, () => {
      const why = `the WebSocket upgrade took longer than ${options.timeoutMs} ms`;
      this.#fail(new TransportError("Timeout", this.#text(why)));
    });
    const lost = () => this.#lost();
    this.#handover = new Handover({
      onData: (chunk) => this.#onData(chunk),
      onDrain: () => {},
      onEnd: lost,
      onClose: lost,
    });
    inner.open(this.#handover);
  }

  /** Ends it without a report: it was we who wanted it. */
  close(): void {
    if (this.#finish()) this.#inner.close();
  }

  #onData(chunk: Uint8Array): boolean {
    let taken: { head: HttpHead; rest: Uint8Array } | undefined;
    try {
      taken = this.#reader.take(chunk);
    } catch (error) {
      const { message } = error as TransportError;
      this.#refuse(400, message);
      return true;
    }
    if (taken === undefined) return true;
    const judged = judgeRequest(taken.head, this.#options.path);
    if ("status" in judged) {
      this.#refuse(judged.status, judged.why);
      return true;
    }
    if (!this.#finish()) return true;
    this.#inner.write(encodeAccept(acceptKey(judged.key, sha1), SUBPROTOCOL));
    this.#options.onLink(takeOver(this.#inner, this.#handover, taken.rest, false, false));
    return false;
  }

  /** Answers what can't be served, and ends. */
  #refuse(status: number, why: string): void {
    if (!this.#finish()) return;
    this.#options.onError(new TransportError("HandshakeFailed", this.#text(why)));
    refuseLink(this.#inner, this.#handover, status);
  }

  #lost(): void {
    const why = "the dialer closed the connection before its WebSocket upgrade";
    this.#fail(new TransportError("HandshakeFailed", this.#text(why)));
  }

  #fail(error: TransportError): void {
    if (!this.#finish()) return;
    this.#inner.close();
    this.#options.onError(error);
  }

  /** False where it was finished before. */
  #finish(): boolean {
    if (this.#done) return false;
    this.#done = true;
    this.#cancelTimer();
    this.#handover.target = NOBODY;
    this.#onDone(this);
    return true;
  }

  #text(why: string): string {
    return `Cannot accept a connection from ${this.#inner.info.remoteHost}: ${why}`;
  }
}

const NOBODY: LinkEvents = {
  onData: () => true,
  onDrain() {},
  onEnd() {},
  onClose() {},
};

/** Makes a WebSocket of a link after the upgrade; `rest` is what came behind the head. */
function takeOver(
  inner: Link,
  handover: { target: LinkEvents },
  rest: Uint8Array,
  dialer: boolean,
  proofNeeded: boolean,
): WebSocketLink {
  const info = proofNeeded ? { ...inner.info, proofNeeded } : inner.info;
  const link = new WebSocketLink(inner, info, dialer);
  handover.target = link.innerEvents;
  if (rest.length > 0) link.innerEvents.onData(rest);
  return link;
}

/** Sends the refusal, and closes when it has left or does not leave. */
function refuseLink(inner: Link, handover: { target: LinkEvents }, status: number): void {
  const cancel = systemEnvironment.setTimer(LINGER_MS, () => inner.close());
  handover.target = {
    ...NOBODY,
    onEnd: () => inner.close(),
    onClose: () => cancel(),
  };
  inner.write(encodeRefusal(status));
  inner.end();
}

function withAction(error: TransportError, action: string): TransportError {
  if (error.code !== "InvalidFrame") return error;
  return new TransportError("HandshakeFailed", `Cannot ${action}: ${error.message}`, {
    cause: error,
  });
}
