/**
 * The answer to a hello: welcome or reject (docs/protocol.md, section 2).
 *
 * @module
 */

import { HandshakeError, type RejectCode, TransportError } from "../errors.ts";
import { Fields } from "./fields.ts";
import {
  announcedKeepalive,
  type Capability,
  chooseVersion,
  commonCapabilities,
  type LocalIdentity,
  type Negotiated,
  smallerSize,
} from "./negotiate.ts";
import { quote } from "./text.ts";

/** A listener lets us in. */
export interface Welcome {
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
}

/** A listener turns us away. */
export interface Reject {
  /** Tells it from a {@linkcode Welcome}. */
  readonly type: "reject";
  /** Its code; undefined where it is none that we know. */
  readonly code: RejectCode | undefined;
  /** Its code for people: as it is where we know it, else quoted, escaped and cut. */
  readonly shownCode: string;
  /** Its reason, exactly as sent: quote it before it is shown. "" where it gave none. */
  readonly reason: string;
}

/** The longest reason we send, in characters. */
const MAX_REASON_CHARS = 200;

const REJECT_CODES: { readonly [C in RejectCode]: true } = {
  VERSION_MISMATCH: true,
  CLUSTER_MISMATCH: true,
  NODE_ID_MISMATCH: true,
  DUPLICATE_NODE_ID: true,
  AUTH_FAILED: true,
  STALE_TIMESTAMP: true,
  REPLAYED: true,
  IDENTITY_REQUIRED: true,
  TOO_MANY_CONNECTIONS: true,
  SHUTTING_DOWN: true,
  MALFORMED: true,
};

/** The body of the welcome's frame, for what the hello was judged to allow. */
export function encodeWelcome(negotiated: Negotiated, local: LocalIdentity): Uint8Array {
  return encode({
    type: "welcome",
    protocol_version: negotiated.version,
    node_id: local.nodeId,
    capabilities: [...negotiated.capabilities],
    max_message_size: negotiated.maxMessageSize,
  });
}

/**
 * The body of the reject's frame. Everything but printable ASCII in the reason is escaped, and the
 * result cut to 200 characters. The caller keeps secrets out of it.
 */
export function encodeReject(code: RejectCode, reason: string): Uint8Array {
  return encode({ type: "reject", code, reason: printable(reason) });
}

/**
 * Reads the body of the frame that answers a hello.
 *
 * @throws {HandshakeError} With `rejectCode` "MALFORMED" if it is neither welcome nor reject.
 */
export function parseAnswer(body: Uint8Array): Welcome | Reject {
  const fields = new Fields("the listener's answer", body);
  switch (fields.text("type")) {
    case "welcome":
      return readWelcome(fields);
    case "reject":
      return readReject(fields);
    default:
      throw fields.wrong("type", '"welcome" or "reject"');
  }
}

/**
 * Holds a welcome against what we offered.
 *
 * @param expectNodeId Who must answer; undefined takes anybody but ourselves.
 * @throws {TransportError} "IdentityMismatch" if somebody else answered.
 * @throws {HandshakeError} If the listener chose what we did not offer.
 */
export function acceptWelcome(
  welcome: Welcome,
  local: LocalIdentity,
  expectNodeId: string | undefined,
): Negotiated {
  checkNodeId(welcome.nodeId, local, expectNodeId);
  const { protocolVersion: chosen, maxMessageSize } = welcome;
  const ours = { min: local.minVersion, max: local.maxVersion };
  const version = chooseVersion(ours, { min: chosen, max: chosen });
  if (version === undefined) {
    throw refuse(welcome, `it chose version ${chosen}, we speak ${ours.min} to ${ours.max}`);
  }
  if (maxMessageSize !== undefined && maxMessageSize < 1) {
    throw refuse(welcome, `it allows messages of ${maxMessageSize} bytes`);
  }
  return {
    nodeId: welcome.nodeId,
    version,
    capabilities: agreedCapabilities(welcome, local),
    maxMessageSize: smallerSize(local.maxMessageSize, maxMessageSize),
    incarnation: undefined,
    keepaliveMs: announcedKeepalive(local),
  };
}

function readWelcome(fields: Fields): Welcome {
  return {
    type: "welcome",
    protocolVersion: fields.required("protocol_version", fields.integer("protocol_version", 1)),
    nodeId: fields.nodeId(),
    capabilities: fields.capabilities(),
    maxMessageSize: fields.integer("max_message_size", 0),
  };
}

function readReject(fields: Fields): Reject {
  const code = fields.required("code", fields.text("code"));
  const known = isRejectCode(code);
  return {
    type: "reject",
    code: known ? code : undefined,
    shownCode: known ? code : quote(code),
    reason: fields.text("reason") ?? "",
  };
}

function isRejectCode(code: string): code is RejectCode {
  return Object.hasOwn(REJECT_CODES, code);
}

function checkNodeId(
  nodeId: string,
  local: LocalIdentity,
  expectNodeId: string | undefined,
): void {
  if (expectNodeId !== undefined && nodeId !== expectNodeId) {
    throw new TransportError(
      "IdentityMismatch",
      `Cannot connect to ${quote(expectNodeId)}: ${quote(nodeId)} answered`,
      { peer: expectNodeId },
    );
  }
  if (nodeId === local.nodeId) {
    throw new HandshakeError(
      `Cannot connect to ${quote(nodeId)}: that is our own node id`,
      "DUPLICATE_NODE_ID",
      { peer: nodeId },
    );
  }
}

/** A listener may leave out what it can't do, but not add what we did not offer. */
function agreedCapabilities(welcome: Welcome, local: LocalIdentity): ReadonlySet<Capability> {
  const offered: readonly string[] = local.capabilities;
  const foreign = welcome.capabilities.find((capability) => !offered.includes(capability));
  if (foreign !== undefined) {
    throw refuse(welcome, `it chose the capability ${quote(foreign)}, which we did not offer`);
  }
  return commonCapabilities(local.capabilities, welcome.capabilities);
}

function refuse({ nodeId }: Welcome, problem: string): HandshakeError {
  return new HandshakeError(`Cannot connect to ${quote(nodeId)}: ${problem}`, undefined, {
    peer: nodeId,
  });
}

function printable(reason: string): string {
  // Cut before, too: a reason may come from anywhere and have any length.
  const escaped = reason.slice(0, MAX_REASON_CHARS + 1).replace(
    /[^ -~]/g,
    (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, "0")}`,
  );
  if (escaped.length <= MAX_REASON_CHARS) return escaped;
  return `${escaped.slice(0, MAX_REASON_CHARS - 3)}...`;
}

function encode(message: Record<string, unknown>): Uint8Array {
  return new TextEncoder().encode(JSON.stringify(message));
}
