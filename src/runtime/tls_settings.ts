/**
 * What TLS is asked for, and what is checked once it stands.
 *
 * @module
 */

import { constants } from "node:crypto";
import { isIP } from "node:net";
import {
  type ConnectionOptions,
  createSecureContext,
  type SecureContext,
  type SecureContextOptions,
  type TlsOptions,
  type TLSSocket,
} from "node:tls";
import type { TransportError } from "../errors.ts";
import type { LinkTls } from "../transport/transport.ts";
import { handshakeRefused } from "./socket_errors.ts";
import { TlsMemo } from "./tls_memo.ts";

/** The application protocol of docs/protocol.md, section 6. */
export const ALPN_PROTOCOL = "hawser/1";

const TLS_VERSION = "TLSv1.3";
/** OpenSSL's SSL_OP_NO_TICKET (ssl.h), for a runtime whose `constants` lack it. */
const NO_TICKET: number = constants.SSL_OP_NO_TICKET ?? 1 << 14;

/** What all dials with the same settings share: to make one takes a third of a millisecond. */
const contexts = new TlsMemo<SecureContext>();

/**
 * The dialer's side. Every switch is given, so that no environment variable decides it.
 *
 * @throws {Error} Where the certificates or the key can't be used.
 */
export function dialerTls(
  tls: LinkTls,
  host: string,
  alpn: string = ALPN_PROTOCOL,
): ConnectionOptions {
  return {
    secureContext: contexts.get(tls, newContext),
    ...handshakeTls(alpn),
    // RFC 6066, section 3: no IP literals, no trailing dot. Without it the address itself is what
    // the certificate is held against.
    ...(isIP(host) === 0 ? { servername: host.replace(/\.$/, "") } : {}),
    // The chain is verified all the same; the node id in the certificate is verified further up.
    ...(tls.verifyHostName ? {} : { checkServerIdentity: () => undefined }),
  };
}

/** The listener's side. */
export function listenerTls(tls: LinkTls, alpn: string = ALPN_PROTOCOL): TlsOptions {
  return {
    ...credentialsOf(tls),
    ...handshakeTls(alpn),
    requestCert: tls.requireClientAuth,
    // A resumed session would skip the client's certificate.
    secureOptions: NO_TICKET,
  };
}

/**
 * The certificate that the other side proved to own, from a socket whose handshake is complete.
 * Looks at what was agreed and not only at the flags: one runtime called a dialer without a
 * certificate authorized.
 *
 * @param verified Whether the other side had to prove a certificate.
 * @returns A copy of the certificate's DER bytes, undefined where none had to be proven, or why the connection must not be used.
 */
export function verifiedCertificate(
  socket: TLSSocket,
  verified: boolean,
  action: string,
  alpn: string = ALPN_PROTOCOL,
): Uint8Array | undefined | TransportError {
  const version = socket.getProtocol();
  if (version !== TLS_VERSION) return handshakeRefused(action, `TLS version ${version}`);
  const protocol = socket.alpnProtocol;
  if (protocol && protocol !== alpn) {
    return handshakeRefused(action, "TLS agreed on another application protocol");
  }
  if (!verified) return undefined;
  if (socket.isSessionReused()) return handshakeRefused(action, "TLS resumed an earlier session");
  if (socket.authorized !== true) {
    return handshakeRefused(action, "the certificate is not verified");
  }
  const raw = socket.getPeerCertificate()?.raw;
  if (raw === undefined || raw.length === 0) {
    return handshakeRefused(action, "the other side showed no certificate");
  }
  return new Uint8Array(raw);
}

const VERSIONS = { minVersion: TLS_VERSION, maxVersion: TLS_VERSION } as const;

/** Only what is the same in every dial: nothing of a host, an address or an earlier connection. */
function newContext(tls: LinkTls): SecureContext {
  return createSecureContext({ ...credentialsOf(tls), ...VERSIONS });
}

function credentialsOf({ cert, key, ca }: LinkTls): SecureContextOptions {
  return {
    ...(cert === undefined ? {} : { cert }),
    ...(key === undefined ? {} : { key }),
    ...(ca === undefined ? {} : { ca }),
  };
}

type HandshakeTls =
  & Pick<SecureContextOptions, "minVersion" | "maxVersion">
  & Pick<TlsOptions, "rejectUnauthorized" | "ALPNProtocols">;

function handshakeTls(alpn: string): HandshakeTls {
  return { ...VERSIONS, rejectUnauthorized: true, ALPNProtocols: [alpn] };
}
