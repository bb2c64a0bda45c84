/**
 * Which QUIC this runtime has, or why none.
 *
 * @module
 */

import type { QuicSockets } from "./quic.ts";
import { bunQuic, bunQuicUnavailable } from "./quic_bun.ts";
import { denoQuic, denoQuicUnavailable } from "./quic_deno.ts";
import type { Runtime } from "./sockets.ts";

/** QUIC of a runtime. */
export interface RuntimeQuic {
  /** Why it can't be used; undefined where it can. */
  readonly unavailable: string | undefined;
  /** Whether each side can see a verified certificate of the other. */
  readonly peerAuthenticated: boolean;
  /** Dials and accepts, where it can be used. */
  readonly sockets: QuicSockets;
}

/** Looks at what the runtime has, without loading it. */
export function quicOf({ name }: Pick<Runtime, "name">): RuntimeQuic {
  switch (name) {
    case "deno":
      return { unavailable: denoQuicUnavailable(), peerAuthenticated: false, sockets: denoQuic };
    case "bun":
      return { unavailable: bunQuicUnavailable(), peerAuthenticated: true, sockets: bunQuic };
    case "node":
      return { unavailable: "Node has no QUIC", peerAuthenticated: false, sockets: bunQuic };
  }
}
