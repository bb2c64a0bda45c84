/**
 * What an endpoint says of itself from version 3 on, in hello and welcome alike
 * (docs/protocol.md, section 2).
 *
 * @module
 */

import type { Fields } from "./fields.ts";

/** Our own terms. What is undefined is not said, and the other side takes its default. */
export interface OwnTerms {
  /** How many payload bytes of a session may be on their way to us without our ack. */
  readonly receiveWindow?: number | undefined;
  /** What the application offers, as in `["query", "replication"]`. */
  readonly features?: readonly string[] | undefined;
  /** How many streams the other side may hold open at one time. */
  readonly maxStreams?: number | undefined;
  /** Where we can be reached. */
  readonly addresses?: readonly string[] | undefined;
}

/** Terms as a peer sent them. */
export interface SentTerms {
  /** How many sessions with this peer the sender has ended by its own decision since it started. */
  readonly sessionGeneration: number | undefined;
  /** How many payload bytes of a session it takes without having acknowledged them. */
  readonly receiveWindow: number | undefined;
  /** What its application offers; empty where it didn't say. */
  readonly features: readonly string[];
  /** How many streams it lets us hold open at one time. */
  readonly maxStreams: number | undefined;
  /** Where it says that it can be reached; not checked but for length and printable ASCII. */
  readonly addresses: readonly string[];
}

/** Terms of a peer with the defaults filled in. */
export interface PeerTerms {
  /**
   * How many sessions with us the peer has ended by its own decision since it started; undefined
   * where it didn't say.
   */
  readonly sessionGeneration: number | undefined;
  /** How many unacknowledged payload bytes of a session the peer takes. */
  readonly receiveWindow: number;
  /** What the peer's application offers. */
  readonly features: readonly string[];
  /** How many streams the peer lets us hold open at one time; 0 in versions 1 and 2. */
  readonly maxStreams: number;
  /** Where the peer says that it can be reached. */
  readonly addresses: readonly string[];
}

/** The least receive window of a peer that didn't name one, in bytes. */
const DEFAULT_RECEIVE_WINDOW = 16 * 1024 * 1024;
/** Such a peer takes at least this many bytes beyond one message of the agreed size. */
const WINDOW_SLACK = 65_536;
const DEFAULT_MAX_STREAMS = 256;
/** The most streams that a peer can allow. */
const MAX_STREAMS = 65_535;
/** The most features that a peer can name. */
const MAX_FEATURES = 64;
const FEATURE = /^[!-~]{1,64}$/;
/** The most addresses that a peer can tell. */
const MAX_ADDRESSES = 16;
const ADDRESS = /^[!-~]{1,200}$/;

const ADDRESS_FORM = "1 to 200 bytes of printable ASCII without spaces";

/** Terms of a peer that said nothing, or speaks a version without terms. */
const NO_TERMS: SentTerms = {
  sessionGeneration: undefined,
  receiveWindow: undefined,
  features: [],
  maxStreams: undefined,
  addresses: [],
};

/**
 * Our terms as members of a hello or welcome of version 3. Those that are undefined are left out
 * of JSON.
 */
export function termMembers(
  { receiveWindow, features, maxStreams, addresses }: OwnTerms,
  sessionGeneration: number | undefined,
): Record<string, unknown> {
  return {
    session_generation: sessionGeneration,
    receive_window: receiveWindow,
    features: features?.length === 0 ? undefined : features,
    max_streams: maxStreams,
    addresses: addresses?.length === 0 ? undefined : addresses,
  };
}

/** Reads the terms of a hello or welcome of this version; below version 3 nothing is looked at. */
export function readTerms(version: number, fields: Fields): SentTerms {
  if (version < 3) return NO_TERMS;
  const form = "1 to 64 bytes of printable ASCII without spaces";
  return {
    sessionGeneration: fields.integer("session_generation", 0),
    receiveWindow: fields.integer("receive_window", 1),
    features: fields.list("features", MAX_FEATURES, FEATURE, form) ?? NO_TERMS.features,
    maxStreams: fields.integer("max_streams", 0, MAX_STREAMS),
    addresses: fields.list("addresses", MAX_ADDRESSES, ADDRESS, ADDRESS_FORM) ??
      NO_TERMS.addresses,
  };
}

/** What holds between us and the peer, once version and message size are agreed on. */
export function peerTerms(version: number, sent: SentTerms, maxMessageSize: number): PeerTerms {
  const said = version < 3 ? NO_TERMS : sent;
  return {
    sessionGeneration: said.sessionGeneration,
    receiveWindow: said.receiveWindow ??
      Math.max(DEFAULT_RECEIVE_WINDOW, maxMessageSize + WINDOW_SLACK),
    features: said.features,
    maxStreams: version < 3 ? 0 : said.maxStreams ?? DEFAULT_MAX_STREAMS,
    addresses: said.addresses,
  };
}
