/**
 * Why a listener turns a dialer away.
 *
 * @module
 */

import type { RejectCode, TransportError } from "../errors.ts";

/** Why a listener turns a dialer away. */
export interface Rejection {
  /** The code that goes on the wire. */
  readonly code: RejectCode;
  /** A reason for people, without secrets. */
  readonly reason: string;
  /** The error to report on this side instead of a plain HandshakeError. */
  readonly error?: TransportError;
}
