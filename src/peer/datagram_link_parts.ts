/**
 * What a handshake over datagrams leaves, of which a link is made.
 *
 * @module
 */

import type { LinkKeys } from "../protocol/datagram/encryption.ts";
import type { Negotiated } from "../protocol/negotiate.ts";
import type { DatagramSocket } from "../transport/transport.ts";

/** The parts of a link. */
export interface DatagramLinkParts {
  /** What its packets leave from. */
  readonly socket: DatagramSocket;
  /** What was agreed on. */
  readonly negotiated: Negotiated;
  /** What its packets are encrypted with; undefined where messages are not signed. */
  readonly keys: LinkKeys | undefined;
  /** What the peer's packets begin with. */
  readonly ownTag: Uint8Array;
  /** What ours begin with. */
  readonly peerTag: Uint8Array;
  /** Whether we dialed. */
  readonly dialed: boolean;
  /** Where the peer is. */
  readonly address: string;
}
