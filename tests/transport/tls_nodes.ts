/** An authority, two nodes of it, and the TLS settings of links between them. */

import type { LinkTls } from "../../src/transport/transport.ts";
import { type Credentials, pemToDer, TestCa } from "../support/certs.ts";

/** One authority for all tests of a process: making keys takes time. */
export interface TestNodes {
  readonly ca: TestCa;
  readonly server: Credentials;
  readonly client: Credentials;
}

let made: Promise<TestNodes> | undefined;

/** The authority and its nodes "server" and "client". */
export function testNodes(): Promise<TestNodes> {
  return made ??= (async () => {
    const ca = await TestCa.create();
    return { ca, server: await ca.issue("server"), client: await ca.issue("client") };
  })();
}

/** A dialer that shows `own` if given, and wants to see the listener's certificate. */
export function dialerTls(
  ca: TestCa,
  own: Credentials | undefined,
  overrides: Partial<LinkTls> = {},
): LinkTls {
  return {
    cert: own?.cert,
    key: own?.key,
    ca: ca.ca,
    requireClientAuth: false,
    verifyHostName: false,
    needPeerCertificate: true,
    ...overrides,
  };
}

/** A listener that asks for client certificates. */
export function listenerTls(
  ca: TestCa,
  own: Credentials,
  overrides: Partial<LinkTls> = {},
): LinkTls {
  return {
    cert: own.cert,
    key: own.key,
    ca: ca.ca,
    requireClientAuth: true,
    verifyHostName: false,
    needPeerCertificate: true,
    ...overrides,
  };
}

/** The DER bytes of a node's certificate. */
export function certificateOf({ cert }: Credentials): Uint8Array {
  return pemToDer(cert);
}
