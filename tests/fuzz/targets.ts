/** Every fuzz target. */

import { CONNECTIONS } from "./connections.ts";
import { DECODERS } from "./decoders.ts";
import { HTTP3 } from "./http3.ts";
import type { Target } from "./target.ts";
import { WEBSOCKETS } from "./websockets.ts";

export type { Target } from "./target.ts";

/** Decoders of single pieces first, then connections. */
export const TARGETS: readonly Target[] = [...DECODERS, ...WEBSOCKETS, ...HTTP3, ...CONNECTIONS];
