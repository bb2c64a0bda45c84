/**
 * The hello: what a dialer sends first (docs/protocol.md, section 2).
 *
 * @module
 */

import { encodeMessage, encodeNonce } from "./encode_message.ts";
import { readFields } from "./fields.ts";
import { announcedKeepalive, type LocalIdentity, MAX_KEEPALIVE_MS } from "./negotiate.ts";
import { readPublicKey } from "./proof.ts";
import { readClaim, type SessionClaim } from "./session_claim.ts";
import { readTerms, type SentTerms, termMembers } from "./terms.ts";

/**
 * A hello as it was sent; what is optional there and was not sent is undefined. What belongs to
 * version 3 is not looked at in the hello of a dialer that doesn't speak it.
 */
export interface Hello extends SentTerms {
  /** The highest version the dialer speaks; it may be higher than any we know. */
  readonly protocolVersion: number;
  /** The lowest version it accepts. */
  readonly minProtocolVersion: number;
  /** Who it says it is. */
  readonly nodeId: string;
  /** What it can do, known to us or not. */
  readonly capabilities: readonly string[];
  /** 16 lower-case hex digits, random per process start. */
  readonly incarnation?: string | undefined;
  /** "" where it named none. */
  readonly clusterName: string;
  /** Who it means to reach. */
  readonly expectNodeId?: string | undefined;
  /** The largest message in bytes that it takes. */
  readonly maxMessageSize?: number | undefined;
  /** Its wall clock, milliseconds since the epoch. */
  readonly timestamp?: number | undefined;
  /** 16 random bytes in base64. */
  readonly nonce?: string | undefined;
  /** A shared secret: never to be shown. */
  readonly authToken?: string | undefined;
  /** After how many milliseconds of silence it renews the connection. */
  readonly keepaliveMs?: number | undefined;
  /** The session it asks to go on with. */
  readonly session?: SessionClaim | undefined;
  /** The Ed25519 key that it will prove, in base64. */
  readonly publicKey?: string | undefined;
}

/** What a hello of version 3 says beside who we are. */
export interface HelloDetails {
  /** The session to go on with. */
  readonly claim?: SessionClaim | undefined;
  /** How many sessions with this peer we have ended by our own decision. */
  readonly sessionGeneration?: number | undefined;
  /** The key that we are going to prove, in base64. */
  readonly publicKey?: string | undefined;
}

/**
 * The body of the hello's frame.
 *
 * @param expectNodeId Who must answer; undefined takes anybody.
 * @param wallClockMs Milliseconds since the epoch; rounded.
 * @param nonce 16 random bytes.
 * @param details Left out where version 3 is not spoken.
 * @throws {RangeError} If `nonce` has another length.
 * @throws {HandshakeError} If names and token are too long for a handshake frame (4096 bytes).
 */
export function encodeHello(
  local: LocalIdentity,
  expectNodeId: string | undefined,
  wallClockMs: number,
  nonce: Uint8Array,
  details: HelloDetails = {},
): Uint8Array {
  return encodeMessage("a hello", {
    type: "hello",
    protocol_version: local.maxVersion,
    node_id: local.nodeId,
    capabilities: local.capabilities,
    min_protocol_version: local.minVersion,
    incarnation: local.incarnation,
    cluster_name: local.clusterName,
    expect_node_id: expectNodeId,
    max_message_size: local.maxMessageSize,
    timestamp: Math.round(wallClockMs),
    nonce: encodeNonce("a hello", nonce),
    auth_token: local.authToken,
    keepalive_ms: announcedKeepalive(local),
    ...versionThree(local, details),
  });
}

/**
 * Reads the body of a hello's frame.
 *
 * @throws {HandshakeError} With `rejectCode` "MALFORMED" if it is anything else. The message quotes
 * nothing of the body.
 */
export function parseHello(body: Uint8Array): Hello {
  const fields = readFields("the hello", body);
  if (fields.text("type") !== "hello") throw fields.wrong("type", '"hello"');
  const protocolVersion = fields.required(
    "protocol_version",
    fields.integer("protocol_version", 1),
  );
  const minProtocolVersion = fields.integer("min_protocol_version", 1) ?? 1;
  if (minProtocolVersion > protocolVersion) {
    throw fields.wrong("min_protocol_version", "at most protocol_version");
  }
  return {
    protocolVersion,
    minProtocolVersion,
    nodeId: fields.nodeId(),
    capabilities: fields.capabilities(),
    incarnation: fields.incarnation(),
    clusterName: fields.text("cluster_name") ?? "",
    expectNodeId: fields.text("expect_node_id"),
    maxMessageSize: fields.integer("max_message_size", 1),
    timestamp: fields.integer("timestamp", 0),
    nonce: fields.nonce(),
    authToken: fields.text("auth_token"),
    keepaliveMs: fields.integer("keepalive_ms", 1, MAX_KEEPALIVE_MS),
    session: protocolVersion < 3 ? undefined : readClaim(fields),
    ...readTerms(protocolVersion, fields),
    publicKey: protocolVersion < 3 ? undefined : readPublicKey(fields),
  };
}

function versionThree(
  local: LocalIdentity,
  { claim, sessionGeneration, publicKey }: HelloDetails,
): Record<string, unknown> {
  if (local.maxVersion < 3) return {};
  return {
    session: claim === undefined ? undefined : { id: claim.id, received: claim.received },
    ...termMembers(local, sessionGeneration),
    public_key: publicKey,
  };
}
