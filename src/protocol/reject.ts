/**
 * How a listener turns a dialer away (docs/protocol.md, section 2).
 *
 * @module
 */

import { HandshakeError, type RejectCode } from "../errors.ts";
import { encodeMessage } from "./encode_message.ts";
import { type Fields, readFields } from "./fields.ts";
import { quote } from "./text.ts";

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
/** A frame longer than a handshake message may be is no reject. */
const MAX_REJECT_BYTES = 4096;
const OPEN_OBJECT = 0x7b;

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

/**
 * The body of the reject's frame. Everything but printable ASCII in the reason is escaped, and the
 * result cut to 200 characters. The caller keeps secrets out of it.
 */
export function encodeReject(code: RejectCode, reason: string): Uint8Array {
  return encodeMessage("a reject", { type: "reject", code, reason: printable(reason) });
}

/** Reads a reject of which the type has been looked at. */
export function readReject(fields: Fields): Reject {
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

/**
 * The error for a listener that turned us away.
 *
 * @param peer Whom we meant to reach.
 */
export function rejectedBy(
  { code, shownCode, reason }: Reject,
  peer: string | undefined,
): HandshakeError {
  return new HandshakeError(
    `Cannot connect: the listener refused with ${shownCode}: ${quote(reason, 200)}`,
    code,
    {
      peer,
      retryable: code === "TOO_MANY_CONNECTIONS" || code === "SHUTTING_DOWN" ||
        code === "DUPLICATE_NODE_ID",
    },
  );
}

/**
 * A reject that comes behind a welcome: a listener refuses the proof that followed it. Undefined
 * where the body is something else. No frame of version 3 begins like one: its lane would be 3.
 *
 * @param peer Whom we are connected to.
 */
export function lateRejection(
  body: Uint8Array,
  peer: string | undefined,
): HandshakeError | undefined {
  if (body[0] !== OPEN_OBJECT || body.length > MAX_REJECT_BYTES) return undefined;
  try {
    const fields = readFields("the listener's answer", body);
    return fields.text("type") === "reject" ? rejectedBy(readReject(fields), peer) : undefined;
  } catch {
    return undefined;
  }
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
