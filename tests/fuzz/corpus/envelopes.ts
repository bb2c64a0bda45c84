/** Signed envelopes. */

import { signedEnvelope, unsignedEnvelope } from "../../envelope/vectors.ts";
import { hexes } from "./hex.ts";

/** One that is right, one without its signature, and what is none. */
export const ENVELOPES: Uint8Array[] = [
  signedEnvelope(),
  unsignedEnvelope(),
  ...hexes("", "01", "02 01 61", "01 00 00", "01 01 61 01 62 0000000000000001"),
  ...hexes(`01 01 61 01 62 0000000000000001 000001a002b7e000 ffffffff ${"00".repeat(64)}`),
  ...hexes(`01 01 61 01 62 ffffffffffffffff ffffffffffffffff 00000000 ${"00".repeat(64)}`),
];
