/** How the corpus is written. */

import { bytes, join } from "../../bad_input/wire.ts";
import { hex } from "../../protocol/wire_bytes.ts";

export { bytes, hex, join };

/** Texts as bytes. */
export function texts(...list: readonly string[]): Uint8Array[] {
  return list.map(bytes);
}

/** Hex digits as bytes. */
export function hexes(...list: readonly string[]): Uint8Array[] {
  return list.map(hex);
}
