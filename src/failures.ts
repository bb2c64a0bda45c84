/**
 * What went wrong in an endpoint: counted, and told where somebody should look at it.
 *
 * @module
 */

import { type ErrorCode, TransportError } from "./errors.ts";
import type { WarningDetail } from "./events.ts";
import { quote } from "./protocol/text.ts";

/** Counts failures and decides which of them are warnings. */
export class Failures {
  /** Failures of connections by error code. */
  readonly byCode: Partial<Record<ErrorCode, number>> = {};
  /** Application callbacks that threw or rejected. */
  handlerErrors = 0;
  readonly #emit: (detail: WarningDetail) => void;
  #telling = false;

  /** `emit` tells the application. */
  constructor(emit: (detail: WarningDetail) => void) {
    this.#emit = emit;
  }

  /** Counts a failed connection; warns of what is somebody's fault rather than the network's. */
  add(error: TransportError, nodeId: string | undefined, address: string | undefined): void {
    this.byCode[error.code] = (this.byCode[error.code] ?? 0) + 1;
    const ordinary = error.code === "ConnectionClosed" || error.code === "ConnectionFailed" ||
      error.code === "Shutdown" || error.retryable && nodeId !== undefined;
    if (!ordinary) this.warn(error.message, { error, nodeId, address });
  }

  /** Counts an application callback that failed; `what` names it, as in "the message handler". */
  addHandlerError(nodeId: string | undefined, cause: unknown, what: string): void {
    this.handlerErrors++;
    // What a listener of "warning" throws is only counted: it would be told of itself for ever.
    if (this.#telling) return;
    const error = cause instanceof TransportError ? cause : undefined;
    this.warn(`An application callback failed: ${what}: ${textOf(cause)}`, { error, nodeId });
  }

  /** Tells the application; `log` writes the message to the console, too, once per process. */
  warn(message: string, more: Partial<WarningDetail> & { log?: boolean } = {}): void {
    if (more.log === true && !logged.has(message)) {
      logged.add(message);
      console.warn(`hawser: ${message}`);
    }
    const { error, nodeId, address } = more;
    this.#telling = true;
    try {
      this.#emit({ message, error, nodeId, address });
    } finally {
      this.#telling = false;
    }
  }
}

/** What this process has logged: a hundred endpoints say the same thing once. */
const logged = new Set<string>();

/** What was thrown may quote a peer, and may be anything. */
function textOf(cause: unknown): string {
  try {
    return quote(cause instanceof Error ? cause.message : String(cause), 200);
  } catch {
    return "what was thrown has no text";
  }
}
