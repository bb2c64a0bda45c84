/**
 * The answer to a hello: welcome or reject (docs/protocol.md, section 2).
 *
 * @module
 */

import { encodeMessage, encodeNonce } from "./encode_message.ts";
import { type Fields, readFields } from "./fields.ts";
import type { LocalIdentity, Negotiated } from "./negotiate.ts";
import { readPublicKey, readSignature, SIGNATURE_MEMBER_BYTES } from "./proof.ts";
import { readReject, type Reject } from "./reject.ts";
import { readOffer, type SessionOffer } from "./session_claim.ts";
import { type PeerTerms, readTerms, type SentTerms, termMembers } from "./terms.ts";

/**
 * A listener lets us in. What belongs to version 3 is not looked at where it chose another; of that,
 * what it didn't send is undefined.
 */
export interface Welcome extends SentTerms {
  /** Tells it from a {@linkcode Reject}. */
  readonly type: "welcome";
  /** The version it chose. */
  readonly protocolVersion: number;
  /** Who it says it is. */
  readonly nodeId: string;
  /** What it says both sides can do. */
  readonly capabilities: readonly string[];
  /** The largest message in bytes; undefined where it didn't say. */
  readonly maxMessageSize: number | undefined;
  /** 16 lower-case hex digits, random per process start. */
  readonly incarnation?: string | undefined;
  /** Must be equal on both sides. */
  readonly clusterName?: string | undefined;
  /** Its wall clock, milliseconds since the epoch. */
  readonly timestamp?: number | undefined;
  /** The session of this connection. */
  readonly session?: SessionOffer | undefined;
  /** Its Ed25519 key in base64; there is a signature with it. */
  readonly publicKey?: string | undefined;
  /** Its proof in base64. */
  readonly signature?: string | undefined;
}

/** What a welcome of version 3 says beside what was agreed on. */
export interface WelcomeDetails {
  /** Our wall clock, milliseconds since the epoch; rounded. */
  readonly wallClockMs: number;
  /** 16 random bytes. */
  readonly nonce: Uint8Array;
  /** How many sessions with this peer we have ended by our own decision. */
  readonly sessionGeneration?: number | undefined;
  /** Our key in base64: the signature of the welcome is to follow. */
  readonly publicKey?: string | undefined;
}

/** An agreement, as far as a welcome says it: what the peer said of itself is not repeated. */
export type Agreement =
  & Pick<Negotiated, "version" | "capabilities" | "maxMessageSize">
  & Partial<Omit<Negotiated, keyof PeerTerms>>;

/**
 * The body of the welcome's frame, for what the hello was judged to allow.
 *
 * @param details Version 3 only.
 * @throws {HandshakeError} If it is too long for a handshake frame (4096 bytes).
 */
export function encodeWelcome(
  agreement: Agreement,
  local: LocalIdentity,
  details?: WelcomeDetails,
): Uint8Array {
  const members = {
    type: "welcome",
    protocol_version: agreement.version,
    node_id: local.nodeId,
    capabilities: [...agreement.capabilities],
    max_message_size: agreement.maxMessageSize,
  };
  if (agreement.version < 3 || details === undefined) return encodeMessage("a welcome", members);
  const { wallClockMs, nonce, sessionGeneration, publicKey } = details;
  return encodeMessage("a welcome", {
    ...members,
    incarnation: local.incarnation,
    cluster_name: local.clusterName,
    timestamp: Math.round(wallClockMs),
    nonce: encodeNonce("a welcome", nonce),
    session: sessionMember(agreement.session),
    ...termMembers(local, sessionGeneration),
    public_key: publicKey,
  }, publicKey === undefined ? 0 : SIGNATURE_MEMBER_BYTES);
}

/**
 * Reads the body of the frame that answers a hello.
 *
 * @throws {HandshakeError} With `rejectCode` "MALFORMED" if it is neither welcome nor reject.
 */
export function parseAnswer(body: Uint8Array): Welcome | Reject {
  const fields = readFields("the listener's answer", body);
  switch (fields.text("type")) {
    case "welcome":
      return readWelcome(fields);
    case "reject":
      return readReject(fields);
    default:
      throw fields.wrong("type", '"welcome" or "reject"');
  }
}

function readWelcome(fields: Fields): Welcome {
  const version = fields.required("protocol_version", fields.integer("protocol_version", 1));
  return {
    type: "welcome",
    protocolVersion: version,
    nodeId: fields.nodeId(),
    capabilities: fields.capabilities(),
    maxMessageSize: fields.integer("max_message_size", 0),
    ...readTerms(version, fields),
    ...(version < 3 ? {} : readVersionThree(fields)),
  };
}

function readVersionThree(fields: Fields): Partial<Welcome> {
  // Makes each welcome another one; what it is says nothing to us.
  fields.nonce();
  const publicKey = readPublicKey(fields);
  const signature = readSignature(fields);
  // One without the other proves nothing.
  if (signature !== undefined) fields.required("public_key", publicKey);
  if (publicKey !== undefined) fields.required("signature", signature);
  return {
    incarnation: fields.incarnation(),
    clusterName: fields.text("cluster_name"),
    timestamp: fields.integer("timestamp", 0),
    session: readOffer(fields),
    publicKey,
    signature,
  };
}

function sessionMember(session: SessionOffer | undefined): Record<string, unknown> | undefined {
  if (session === undefined) return undefined;
  const { id, resumed, received } = session;
  return { id, resumed, received };
}
