/**
 * The hello: what a dialer sends first (docs/protocol.md, section 2).
 *
 * @module
 */

import { HandshakeError } from "../errors.ts";
import { Fields } from "./fields.ts";
import { announcedKeepalive, type LocalIdentity, MAX_KEEPALIVE_MS } from "./negotiate.ts";

/** A hello as it was sent; what is optional there and was not sent is undefined. */
export interface Hello {
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
}

/** The largest body of a frame before the handshake is complete. */
const MAX_BODY_BYTES = 4096;
const NONCE_BYTES = 16;
const INCARNATION = /^[0-9a-fA-F]{16}$/;
/** Base64 of 16 bytes, padded, with the unused bits of the last digit 0. */
const NONCE = /^[A-Za-z0-9+/]{21}[AQgw]==$/;

/**
 * The body of the hello's frame.
 *
 * @param expectNodeId Who must answer; undefined takes anybody.
 * @param wallClockMs Milliseconds since the epoch; rounded.
 * @param nonce 16 random bytes.
 * @throws {RangeError} If `nonce` has another length.
 * @throws {HandshakeError} If names and token are too long for a handshake frame (4096 bytes).
 */
export function encodeHello(
  local: LocalIdentity,
  expectNodeId: string | undefined,
  wallClockMs: number,
  nonce: Uint8Array,
): Uint8Array {
  if (nonce.length !== NONCE_BYTES) {
    throw new RangeError(`Cannot write a hello: the nonce must be 16 bytes, got ${nonce.length}`);
  }
  // JSON.stringify leaves out what is undefined.
  const body = new TextEncoder().encode(JSON.stringify({
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
    nonce: btoa(String.fromCharCode(...nonce)),
    auth_token: local.authToken,
    keepalive_ms: announcedKeepalive(local),
  }));
  if (body.length <= MAX_BODY_BYTES) return body;
  throw new HandshakeError(
    `Cannot write a hello: it has ${body.length} bytes and may have ${MAX_BODY_BYTES}; ` +
      "shorten the auth token or the cluster name",
  );
}

/**
 * Reads the body of a hello's frame.
 *
 * @throws {HandshakeError} With `rejectCode` "MALFORMED" if it is anything else. The message quotes
 * nothing of the body.
 */
export function parseHello(body: Uint8Array): Hello {
  const fields = new Fields("the hello", body);
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
    // Digits of another case are the same incarnation, not a restarted node.
    incarnation: fields.match("incarnation", INCARNATION, "16 hex digits")?.toLowerCase(),
    clusterName: fields.text("cluster_name") ?? "",
    expectNodeId: fields.text("expect_node_id"),
    maxMessageSize: fields.integer("max_message_size", 1),
    timestamp: fields.integer("timestamp", 0),
    nonce: fields.match("nonce", NONCE, "base64 of 16 bytes"),
    authToken: fields.text("auth_token"),
    keepaliveMs: fields.integer("keepalive_ms", 1, MAX_KEEPALIVE_MS),
  };
}
