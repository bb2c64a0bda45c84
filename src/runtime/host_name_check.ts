/**
 * Whether a certificate is for a host, asked after TLS.
 *
 * @module
 */

import { X509Certificate } from "node:crypto";
import { isIP } from "node:net";

/** Whether one of the names or addresses in a certificate (DER) is that of a host. */
export function certificateFitsHost(certificate: Uint8Array, host: string): boolean {
  const x509 = new X509Certificate(certificate);
  if (isIP(host) !== 0) return x509.checkIP(host) !== undefined;
  return x509.checkHost(host.replace(/\.$/, ""), { subject: "never" }) !== undefined;
}
