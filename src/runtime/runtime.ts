/**
 * The runtime we are on, and the little that the library asks of it.
 *
 * @module
 */

import { bunRuntime } from "./bun.ts";
import { denoRuntime } from "./deno.ts";
import { nodeRuntime } from "./node.ts";
import type { Runtime } from "./sockets.ts";

export type { Runtime, SocketAddress } from "./sockets.ts";

/** Tells Deno, Bun and Node apart by the globals that only they have. */
export function detectRuntime(): Runtime {
  if ("Deno" in globalThis) return denoRuntime;
  if ("Bun" in globalThis) return bunRuntime;
  return nodeRuntime;
}
