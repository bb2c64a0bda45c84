/**
 * Holds the certificate a link showed against the node id its owner claims.
 *
 * @module
 */

import { TransportError } from "../errors.ts";
import type { NodeIdVerification } from "../options.ts";
import {
  certificateIdentity,
  checkCertificateUse,
  readCertificate,
} from "../protocol/certificate.ts";
import type { LinkInfo } from "../transport/transport.ts";

/** Who a peer is, as its certificate proves. */
export interface PeerIdentity {
  /** The name in the certificate, equal to the peer's node id. */
  readonly nodeId: string;
  /** Which name of the certificate it is. */
  readonly verifiedBy: "CommonName" | "SubjectAltName";
  /** When the certificate expires, milliseconds since the epoch. */
  readonly notAfter: number;
  /** The certificate, DER. */
  readonly certificate: Uint8Array;
}

/** Checks a peer's certificate: its use, its time, its name. Undefined where no name is to be verified. */
export function verifyIdentity(
  info: LinkInfo,
  nodeId: string,
  by: NodeIdVerification,
  role: "client" | "server",
  wallClockMs: number,
): PeerIdentity | undefined {
  if (by === "None") return undefined;
  const certificate = info.peerCertificate;
  if (certificate === undefined) {
    throw new TransportError(
      role === "client" ? "ClientCertificateRequired" : "IdentityMismatch",
      `Cannot verify ${nodeId}: it showed no certificate`,
      { peer: nodeId },
    );
  }
  const facts = readCertificate(certificate);
  checkCertificateUse(facts, role, wallClockMs);
  const verified = certificateIdentity(facts, by, nodeId);
  return { nodeId: verified, verifiedBy: by, notAfter: facts.notAfter, certificate };
}
