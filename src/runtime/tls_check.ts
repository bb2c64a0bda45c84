/**
 * Whether certificates and keys can be used at all. Deno takes anything and fails each handshake.
 *
 * @module
 */

import { createPrivateKey, X509Certificate } from "node:crypto";
import type { LinkTls } from "../transport/transport.ts";
import { TlsMemo } from "./tls_memo.ts";

/** Settings that were found usable; a dialer asks again with the same ones. */
const usable = new TlsMemo<true>();

/**
 * Parses the certificates and the key, and holds them against each other.
 *
 * @throws {Error} Where one of them is missing or not PEM, or the key is another certificate's.
 */
export function checkTls(tls: LinkTls): void {
  usable.get(tls, checkAnew);
}

function checkAnew({ cert, key, ca }: LinkTls): true {
  if ((cert === undefined) !== (key === undefined)) {
    throw new Error("a certificate and a key are of use only together");
  }
  if (ca !== undefined) new X509Certificate(ca);
  if (cert !== undefined && key !== undefined) {
    // Of a chain the first one is our own.
    if (!new X509Certificate(cert).checkPrivateKey(createPrivateKey(key))) {
      throw new Error("the key does not belong to the certificate");
    }
  }
  return true;
}
