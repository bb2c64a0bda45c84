/**
 * The transports that every endpoint has.
 *
 * @module
 */

import type { Runtime } from "../runtime/runtime.ts";
import { tcpTransport } from "./tcp.ts";
import type { Transport } from "./transport.ts";

/** Makes them for a runtime, those included that it can't run: they say why. */
export function builtinTransports(runtime: Runtime): Transport[] {
  return [tcpTransport(runtime)];
}
