/**
 * What TLS is asked for, and what is checked once it stands.
 *
 * @module
 */

import { constants } from "node:crypto";
import { isIP } from "node:net";
import type { ConnectionOptions, SecureContextOptions, TlsOptions, TLSSocket } from "node:tls";
import type { TransportError } from "../errors.ts";
import type { LinkTls } from "../transport/transport.ts";
import { handshakeRefused } from "./socket_errors.ts";

/** The application protocol of docs/protocol.md, section 6. */
export const ALPN_PROTOCOL = "hawser/1";

const TLS_VERSION = "TLSv1.3";
/** OpenSSL's SSL_OP_NO_TICKET (ssl.h), for a runtime whose `constants` lack it. */
const NO_TICKET: number = constants.SSL_OP_NO_TICKET ?? 1 << 14;

/** The dialer's side. Every switch is given, so that no environment variable decides it. */
export function dialerTls(
  tls: LinkTls,
  host: string,
  alpn: string = ALPN_PROTOCOL,
): ConnectionOptions {
  return {
    ...commonTls(tls, alpn),
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
    ...commonTls(tls, alpn),
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

type CommonTls = SecureContextOptions & Pick<TlsOptions, "rejectUnauthorized" | "ALPNProtocols">;

function commonTls(tls: LinkTls, alpn: string): CommonTls {
  return {
    ...(tls.cert === undefined ? {} : { cert: tls.cert }),
    ...(tls.key === undefined ? {} : { key: tls.key }),
    ...(tls.ca === undefined ? {} : { ca: tls.ca }),
    rejectUnauthorized: true,
    minVersion: TLS_VERSION,
    maxVersion: TLS_VERSION,
    ALPNProtocols: [alpn],
  };
}
