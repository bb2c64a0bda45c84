/**
 * What two endpoints agree on, computed the same way on both sides.
 *
 * @module
 */

import type { SessionClaim, SessionOffer } from "./session_claim.ts";
import type { OwnTerms, PeerTerms } from "./terms.ts";

/**
 * A feature that is used where both sides have it. Names we don't know are ignored. Versions 1 and
 * 2 have `lz4` only.
 */
export type Capability =
  | "lz4"
  | "zstd"
  | "checksum"
  | "resume"
  | "streams"
  | "signed"
  | "datagrams"
  | "multistream";

/** A protocol version that is built. */
export type ProtocolVersion = 1 | 2 | 3;

/** What an endpoint says of itself in every handshake. */
export interface LocalIdentity extends OwnTerms {
  /** Our node id. */
  readonly nodeId: string;
  /** Must be equal on both sides; "" where none is configured. */
  readonly clusterName: string;
  /** The shared secret: shown where we dial, demanded where we listen. */
  readonly authToken: string | undefined;
  /** 16 hex digits, random per process start. */
  readonly incarnation: string;
  /** The lowest protocol version we accept. */
  readonly minVersion: number;
  /** The highest protocol version we speak. */
  readonly maxVersion: number;
  /** What we can do. */
  readonly capabilities: readonly Capability[];
  /** The largest message in bytes that we take. */
  readonly maxMessageSize: number;
  /** The largest difference in milliseconds between a dialer's clock and ours. */
  readonly maxClockSkewMs: number;
  /** Milliseconds of silence after which we renew a connection we dialed; undefined: never. */
  readonly keepaliveMs: number | undefined;
}

/** What both sides agreed on, and what the peer said of itself. */
export interface Negotiated extends PeerTerms {
  /** The peer's node id. */
  readonly nodeId: string;
  /** The protocol version spoken from here on. */
  readonly version: ProtocolVersion;
  /** What both sides can do. */
  readonly capabilities: ReadonlySet<Capability>;
  /** The largest message in bytes, both ways. */
  readonly maxMessageSize: number;
  /**
   * The peer's incarnation, lower-case; undefined where it didn't say. A listener of version 1 or 2
   * never does.
   */
  readonly incarnation: string | undefined;
  /** After how many milliseconds of silence the dialer renews the connection; undefined: never. */
  readonly keepaliveMs: number | undefined;
  /** The session that the dialer asked to go on with, where `resume` is agreed on. Listener only. */
  readonly claim: SessionClaim | undefined;
  /** The session of this connection: what the welcome says, where `resume` is agreed on. */
  readonly session: SessionOffer | undefined;
  /**
   * The peer's Ed25519 key in base64, once the peer has proved that it holds it and where it is
   * listed for its node id.
   */
  readonly publicKey: string | undefined;
}

/** A range of protocol versions, both ends included. */
export interface VersionRange {
  /** The lowest version accepted. */
  readonly min: number;
  /** The highest version spoken. */
  readonly max: number;
}

/** The longest keepalive interval in milliseconds, a day: who waits longer isn't watching. */
export const MAX_KEEPALIVE_MS: number = 86_400_000;

/**
 * The lower of the two highest versions; undefined where it is below one side's lowest, or not one
 * that is built.
 */
export function chooseVersion(
  ours: VersionRange,
  theirs: VersionRange,
): ProtocolVersion | undefined {
  const version = Math.min(ours.max, theirs.max);
  if (version < ours.min || version < theirs.min) return undefined;
  return version === 1 || version === 2 || version === 3 ? version : undefined;
}

/** Those of our capabilities that the other side named too, and that the version has. */
export function commonCapabilities(
  version: ProtocolVersion,
  ours: readonly Capability[],
  theirs: readonly string[],
): ReadonlySet<Capability> {
  return sharedSet(
    ours.filter((capability) =>
      theirs.includes(capability) && (version === 3 || capability === "lz4")
    ),
  );
}

/** One set for all connections that agreed on the same: there are few ways to agree. */
const sets = new Map<string, ReadonlySet<Capability>>();

/** A set of these, which nobody must change. */
export function sharedSet(capabilities: readonly Capability[]): ReadonlySet<Capability> {
  const key = capabilities.join();
  let set = sets.get(key);
  if (set === undefined) sets.set(key, set = new Set(capabilities));
  return set;
}

/** The smaller of both sizes; ours where the other side did not say. */
export function smallerSize(ours: number, theirs: number | undefined): number {
  return Math.min(ours, theirs ?? ours);
}

/**
 * The keepalive interval that our hello names: none where it is not a whole number of milliseconds
 * from 1 to a day, as listeners would refuse it.
 */
export function announcedKeepalive({ keepaliveMs }: LocalIdentity): number | undefined {
  if (keepaliveMs === undefined || !Number.isInteger(keepaliveMs)) return undefined;
  return keepaliveMs >= 1 && keepaliveMs <= MAX_KEEPALIVE_MS ? keepaliveMs : undefined;
}
