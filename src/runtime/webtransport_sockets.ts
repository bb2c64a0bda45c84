/**
 * Which connections of HTTP/3 this runtime has for WebTransport, or why none.
 *
 * @module
 */

import { HTTP3_ALPN, HTTP3_NO_ERROR } from "../protocol/http3.ts";
import type { QuicProtocol } from "./quic.ts";
import { denoQuicFor, denoQuicUnavailable } from "./quic_deno.ts";
import { quicOf, type RuntimeQuic } from "./quic_sockets.ts";
import type { Runtime } from "./sockets.ts";

/** Three that HTTP/3 has, and some that it says others may try. */
const MAX_UNI_STREAMS = 8;

const HTTP3: QuicProtocol = {
  alpn: HTTP3_ALPN,
  maxUniStreams: MAX_UNI_STREAMS,
  closeCode: HTTP3_NO_ERROR,
};

/** Looks at what the runtime has, without loading it. */
export function webTransportOf(runtime: Pick<Runtime, "name">): RuntimeQuic {
  switch (runtime.name) {
    case "deno": {
      const missing = denoQuicUnavailable() !== undefined;
      return {
        unavailable: missing ? "Deno needs --unstable-net for WebTransport" : undefined,
        peerAuthenticated: false,
        sockets: denoQuicFor(HTTP3),
      };
    }
    case "bun":
      return { ...quicOf(runtime), unavailable: "Bun's HTTP/3 has no WebTransport" };
    case "node":
      return { ...quicOf(runtime), unavailable: "Node has no HTTP/3" };
  }
}
