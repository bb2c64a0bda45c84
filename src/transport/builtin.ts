/**
 * The transports that every endpoint has.
 *
 * @module
 */

import type { Runtime } from "../runtime/runtime.ts";
import { memoryTransport } from "./memory.ts";
import { quicTransport } from "./quic.ts";
import { tcpTransport } from "./tcp.ts";
import type { Transport } from "./transport.ts";
import { udpTransport } from "./udp.ts";
import { unixTransport } from "./unix.ts";
import { webSocketTransports } from "./websocket.ts";
import { webTransportOn } from "./webtransport.ts";

/** Makes them for a runtime, those included that it can't run: they say why. */
export function builtinTransports(runtime: Runtime): Transport[] {
  return [
    tcpTransport(runtime),
    quicTransport(runtime),
    unixTransport(),
    ...webSocketTransports(runtime),
    webTransportOn(runtime),
    memoryTransport(),
    udpTransport(),
  ];
}
