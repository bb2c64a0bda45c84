/**
 * From the options to what a transport is asked for: certificates read, the security mode's demands
 * held against what the transport can do.
 *
 * @module
 */

import { ConfigError, TransportError } from "./errors.ts";
import type { ResolvedTls, SecurityMode } from "./options.ts";
import { identityProblem, readCertificate } from "./protocol/certificate.ts";
import { decodePem } from "./protocol/pem.ts";
import { quote } from "./protocol/text.ts";
import type { LinkTls, Transport } from "./transport/transport.ts";

/** Certificates as PEM text, with the rules for verifying others. */
export interface TlsMaterial {
  readonly cert: string | undefined;
  readonly key: string | undefined;
  readonly ca: string | undefined;
  readonly rules: ResolvedTls;
}

/** Reads the files that are named instead of given. */
export async function readTls(
  tls: ResolvedTls | undefined,
  readFile: (path: string) => Promise<string>,
): Promise<TlsMaterial | undefined> {
  if (tls === undefined) return undefined;
  const read = async (text: string | undefined, path: string | undefined, name: string) => {
    if (path === undefined) return text;
    const content = await readFile(path).catch((cause) => {
      throw new ConfigError(`tls.${name}`, `cannot be read: ${(cause as Error).message}`, {
        cause,
      });
    });
    if (!content.includes("-----BEGIN")) throw new ConfigError(`tls.${name}`, "is not a PEM file");
    return content;
  };
  return {
    cert: await read(tls.cert, tls.certPath, "certPath"),
    key: await read(tls.key, tls.keyPath, "keyPath"),
    ca: await read(tls.ca, tls.caCertPath, "caCertPath"),
    rules: tls,
  };
}

/**
 * Refuses a certificate of our own that does not prove our node id, where names are verified: every
 * peer would.
 *
 * @throws {TransportError} `IdentityMismatch`
 */
export function checkOwnName({ cert, rules }: TlsMaterial, nodeId: string): void {
  const by = rules.nodeIdVerification;
  if (cert === undefined || by === "None") return;
  // A text without a certificate is the TLS stack's to refuse.
  const [own] = decodePem("CERTIFICATE", cert);
  if (own === undefined) return;
  const problem = identityProblem(readCertificate(own), by, nodeId);
  if (problem === undefined) return;
  throw new TransportError("IdentityMismatch", `Cannot start as ${quote(nodeId)}: ${problem}`, {
    recovery: "give the node a certificate for its own node id, or correct nodeId",
  });
}

/** What a link of this role is to do with the certificates. */
export function linkTls(material: TlsMaterial, role: "dialer" | "listener"): LinkTls {
  const { cert, key, ca, rules } = material;
  const verifiesName = rules.nodeIdVerification !== "None";
  return {
    cert,
    key,
    ca,
    requireClientAuth: rules.requireClientAuth,
    // A name in the certificate that is held against the node id makes the host name irrelevant.
    verifyHostName: !verifiesName,
    needPeerCertificate: role === "dialer" ? verifiesName : rules.requireClientAuth,
  };
}

/**
 * Refuses a transport that can't give what the security mode asks for. Where it can't show
 * certificates, `hasKeys` says whether nodes can prove who they are by their keys.
 */
export function checkTransport(
  transport: Transport,
  mode: SecurityMode,
  address: string,
  hasKeys: boolean,
  hasTls: boolean,
): void {
  const { encrypted, peerAuthenticated } = transport.capabilities;
  const weak = mode === "development" || mode === "legacy";
  // What never leaves the process needs no secrecy where the mode asks for none.
  if (!encrypted && weak && hasTls && transport.scheme !== "memory") {
    throw new TransportError(
      "TlsRequired",
      `Cannot use ${address}: ${transport.scheme} can't encrypt, and tls is given`,
      { recovery: "use another transport, or leave tls out in development mode" },
    );
  }
  if (weak) return;
  if (!encrypted) {
    throw new TransportError(
      "TlsRequired",
      `Cannot use ${address}: ${transport.scheme} can't encrypt, and security is "${mode}"`,
    );
  }
  if (mode === "strict" && !peerAuthenticated && !hasKeys) {
    throw new TransportError(
      "MtlsRequired",
      `Cannot use ${address}: ${transport.scheme} can't verify peers, and security is "strict"`,
      { recovery: "give identity.privateKey and identity.trustedKeys, or use another transport" },
    );
  }
}
