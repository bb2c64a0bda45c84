import { nodeConnect, nodeListen } from "../runtime/interim_link.ts";
import type { Runtime } from "../runtime/runtime.ts";
import type { Transport } from "./transport.ts";
export function tcpTransport(_: Runtime): Transport {
  return {
    scheme: "tcp",
    capabilities: { reliable: true, ordered: true, encrypted: true, peerAuthenticated: true },
    dial: nodeConnect,
    listen: nodeListen,
  };
}
