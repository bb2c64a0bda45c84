/**
 * From the errors of sockets and TLS libraries to ours.
 *
 * @module
 */

import { TransportError } from "../errors.ts";

/** What an alert or a library calls a missing client certificate; each runtime has its own word. */
const CERTIFICATE_MISSING = /PEER_DID_NOT_RETURN_A_CERTIFICATE|ALERT_CERTIFICATE_REQUIRED/;
/** TLS errors of an established connection that say: the other side refused us. */
const REFUSAL_ALERT = /^ERR_SSL_.*ALERT_(?!CLOSE_NOTIFY|USER_CANCELED|INTERNAL_ERROR)/;
const CERTIFICATE_ADVICE =
  "check the authority, the dates, the names and the key usage of the certificates";
/** A TLS library's text can be long; what identifies the error stands at its start. */
const MAX_REASON_CHARS = 200;

/** A connection could not be opened, or an address not be bound. */
export function connectionFailed(action: string, cause: unknown): TransportError {
  return new TransportError("ConnectionFailed", `Cannot ${action}: ${reasonOf(cause)}`, { cause });
}

/** A TCP connection was there, but TLS did not come about; `action` says which. */
export function handshakeFailed(action: string, cause: unknown): TransportError {
  const code = codeOf(cause);
  if (CERTIFICATE_MISSING.test(code)) {
    return new TransportError(
      "ClientCertificateRequired",
      `Cannot ${action}: the dialer gave no certificate`,
      { cause },
    );
  }
  return new TransportError(
    "HandshakeFailed",
    `Cannot ${action}: TLS failed: ${reasonOf(cause)}`,
    { cause, recovery: CERTIFICATE_ADVICE },
  );
}

/** TLS came about, but what was agreed is not acceptable. */
export function handshakeRefused(action: string, why: string): TransportError {
  return new TransportError("HandshakeFailed", `Cannot ${action}: ${why}`, {
    recovery: CERTIFICATE_ADVICE,
  });
}

/** The connection of an established link broke. */
export function linkFailed(remoteUrl: string, cause: unknown): TransportError {
  const action = `keep the connection with ${remoteUrl}`;
  const code = codeOf(cause);
  // In TLS 1.3 a dialer is connected before the listener has judged its certificate.
  if (CERTIFICATE_MISSING.test(code) || REFUSAL_ALERT.test(code)) {
    return handshakeFailed(action, cause);
  }
  return new TransportError("ConnectionClosed", `Cannot ${action}: ${reasonOf(cause)}`, { cause });
}

/** A link closed, and neither side had asked for it. */
export function linkLost(remoteUrl: string): TransportError {
  return new TransportError(
    "ConnectionClosed",
    `Cannot keep the connection with ${remoteUrl}: it closed before both sides had finished`,
  );
}

/** A certificate, key or authority that the TLS library can't use. */
export function unusableTls(action: string, cause: unknown): TransportError {
  return new TransportError(
    "Config",
    `Cannot ${action}: tls.cert, tls.key or tls.ca is unusable: ${reasonOf(cause)}`,
    { cause, recovery: "give PEM texts, and the key that belongs to the certificate" },
  );
}

/** Whether the operating system or the resolver said this, and not TLS. */
export function isNetworkError(error: unknown): boolean {
  const code = codeOf(error);
  return code !== "EPROTO" && /^E(AI_)?[A-Z0-9]+$/.test(code);
}

function codeOf(error: unknown): string {
  if (typeof error !== "object" || error === null || !("code" in error)) return "";
  return typeof error.code === "string" ? error.code : "";
}

function reasonOf(cause: unknown): string {
  const error = innermost(cause);
  const code = codeOf(error);
  const text = messageOf(error).replace(/\s+/g, " ").trim();
  const reason = text.length > MAX_REASON_CHARS ? `${text.slice(0, MAX_REASON_CHARS)}…` : text;
  if (reason === "") return code === "" ? "unknown reason" : code;
  return code === "" || reason.includes(code) ? reason : `${reason} (${code})`;
}

/** Of several attempts (one per address of a name) the first one's error. */
function innermost(error: unknown): unknown {
  return error instanceof AggregateError && error.errors.length > 0 ? error.errors[0] : error;
}

function messageOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  // OpenSSL's message is a line of internals; its `reason` is what a person can read.
  const reason = "reason" in error ? error.reason : undefined;
  return typeof reason === "string" && reason !== "" ? reason : error.message;
}
