/** What the handshake tests expect of versions. */

import type { Negotiated } from "../../src/protocol/handshake.ts";

/** What an agreement on version 1 or 2 says of version 3, for this receive window. */
export function nothingOfVersion3(
  receiveWindow: number,
): Omit<
  Negotiated,
  "nodeId" | "version" | "capabilities" | "maxMessageSize" | "incarnation" | "keepaliveMs"
> {
  return {
    sessionGeneration: undefined,
    receiveWindow,
    features: [],
    addresses: [],
    maxStreams: 0,
    claim: undefined,
    session: undefined,
    publicKey: undefined,
  };
}
