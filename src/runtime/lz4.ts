/**
 * LZ4 from WebAssembly: the same code in two packages, one per way of loading it.
 *
 * @module
 */

import { TransportError } from "../errors.ts";
import type { Lz4 } from "../protocol/message.ts";

let loading: Promise<Lz4> | undefined;

/**
 * Loads LZ4, once per process. All share one WebAssembly memory, which grows with the largest
 * message and never shrinks.
 *
 * @throws {TransportError} `Compression` if the package cannot be loaded; a later call tries again.
 */
export function loadLz4(): Promise<Lz4> {
  loading ??= importLz4().catch((cause: unknown) => {
    loading = undefined;
    throw new TransportError("Compression", "Cannot load LZ4: its package failed to load", {
      cause,
      recovery: "install the library's dependencies, or set compression.enabled to false",
    });
  });
  return loading;
}

async function importLz4(): Promise<Lz4> {
  // Deno imports WebAssembly as a module, without --allow-read. The others read the file themselves.
  const { compress, decompress } = "Deno" in globalThis
    ? await import("lz4-wasm/lz4_wasm.js")
    : await import("lz4-wasm-nodejs");
  return { compress, decompress };
}
