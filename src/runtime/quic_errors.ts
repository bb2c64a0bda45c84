/**
 * From the errors of QUIC to ours. Neither runtime gives them codes that tell them apart, so it is
 * the texts of their TLS libraries (rustls, BoringSSL) that are looked at.
 *
 * @module
 */

import { TransportError } from "../errors.ts";
import { connectionFailed, handshakeFailed, linkFailed } from "./socket_errors.ts";

const CERTIFICATE_MISSING = /did not (provide|return) a certificate|certificate[ _]required/i;
const TLS_FAILED =
  /certificate|handshake failed|TLS alert|application protocol|not verified|cryptographic/i;

/** A connection could not be opened or accepted; `action` says which. */
export function quicFailed(action: string, cause: unknown): TransportError {
  if (cause instanceof TransportError) return cause;
  return tlsFailure(action, cause) ?? connectionFailed(action, cause);
}

/** The connection of an established link broke. */
export function quicLinkFailed(remoteUrl: string, cause: unknown): TransportError {
  if (cause instanceof TransportError) return cause;
  const action = `keep the connection with ${remoteUrl}`;
  return tlsFailure(action, cause) ?? linkFailed(remoteUrl, cause);
}

/** In TLS 1.3 a dialer is connected before the listener has judged its certificate. */
function tlsFailure(action: string, cause: unknown): TransportError | undefined {
  const text = cause instanceof Error ? cause.message : String(cause);
  if (CERTIFICATE_MISSING.test(text)) {
    return new TransportError(
      "ClientCertificateRequired",
      `Cannot ${action}: the dialer gave no certificate`,
      { cause },
    );
  }
  return TLS_FAILED.test(text) ? handshakeFailed(action, cause) : undefined;
}
