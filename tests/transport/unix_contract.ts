/** The contract of links over Unix sockets. */

import { unixTransport } from "../../src/transport/unix.ts";
import { linkContract } from "./link_contract.ts";
import { certificateOf, dialerTls, listenerTls, testNodes } from "./tls_nodes.ts";

/** Runs the contract in plain text and with TLS; `newAddress` gives one that was never used. */
export function unixContract(name: string, newAddress: () => string): void {
  const transport = unixTransport();
  const shared = () => ({ transport, listenAddress: newAddress(), anonymousDialers: true });

  linkContract(`plain ${name}`, () =>
    Promise.resolve({
      ...shared(),
      dialerTls: undefined,
      listenerTls: undefined,
      dialerCertificate: undefined,
      listenerCertificate: undefined,
    }));

  linkContract(`TLS over ${name}`, async () => {
    const { ca, server } = await testNodes();
    const needPeerCertificate = false;
    return {
      ...shared(),
      dialerTls: dialerTls(ca, undefined, { verifyHostName: true, needPeerCertificate }),
      listenerTls: listenerTls(ca, server, { requireClientAuth: false, needPeerCertificate }),
      dialerCertificate: undefined,
      listenerCertificate: undefined,
    };
  });

  linkContract(`mutual TLS over ${name}`, async () => {
    const { ca, server, client } = await testNodes();
    return {
      ...shared(),
      dialerTls: dialerTls(ca, client),
      listenerTls: listenerTls(ca, server),
      dialerCertificate: certificateOf(client),
      listenerCertificate: certificateOf(server),
    };
  });
}
