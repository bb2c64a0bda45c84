/**
 * What the demo and its three processes tell each other: one JSON line per message, commands on a
 * process's standard input, reports on its standard output.
 *
 * @module
 */

import type { EndpointOptions, PeerAddress } from "../../mod.ts";
import type { FileEntry } from "./files.ts";

/** What a process is told. The end of its standard input ends it. */
export type Command =
  | { readonly do: "start"; readonly options: EndpointOptions }
  | {
    readonly do: "receive";
    /** Whose files are taken. */
    readonly from: string;
    readonly folder: string;
    /** For what is not whole yet. */
    readonly incoming: string;
  }
  | {
    readonly do: "replicate";
    readonly folder: string;
    readonly files: readonly FileEntry[];
    readonly peers: readonly PeerAddress[];
    /** The peer that will be killed in the middle. */
    readonly pauseFor: string;
  }
  | { readonly do: "close" };

/** What a process says. */
export type Report =
  /** The command is done. */
  | { readonly event: "ok"; readonly addresses: readonly string[] }
  | { readonly event: "warning"; readonly message: string }
  | { readonly event: "peerup" | "peerdown"; readonly peer: string }
  /** Half of the bytes for this peer are sent; the rest waits until it was killed and is back. */
  | { readonly event: "halfway"; readonly peer: string }
  | ({ readonly event: "progress" } & PeerProgress)
  /** Everything is acknowledged by everyone. */
  | { readonly event: "replicated"; readonly results: readonly PeerResult[] }
  | { readonly event: "failed"; readonly message: string };

/** How far the replication to one peer is. */
export interface PeerProgress {
  readonly peer: string;
  readonly sentBytes: number;
  readonly acknowledgedFiles: number;
}

/** How the replication to one peer went. */
export interface PeerResult {
  readonly peer: string;
  /** From the first byte to the last acknowledgement. */
  readonly seconds: number;
  readonly filesSentAgain: number;
  readonly undelivered: number;
  readonly reconnections: number;
  /** Bytes of the messages before compression and framing. */
  readonly payloadBytes: number;
  /** Bytes given to the connections, before encryption. */
  readonly wireBytes: number;
}
