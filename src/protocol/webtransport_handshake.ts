/**
 * The request that opens a WebTransport session (draft-ietf-webtrans-http3, as browsers speak it),
 * and its answer, without sockets.
 *
 * @module
 */

import { TransportError } from "../errors.ts";
import { encodeHeaders } from "./http3.ts";
import { decodeFields, encodeFields } from "./qpack.ts";
import { quote } from "./text.ts";

const PROTOCOL = "webtransport";
/** How drafts name the one that they speak; browsers ask for it to be repeated. */
const DRAFT_REQUEST = ["sec-webtransport-http3-draft02", "1"] as const;
const DRAFT_ANSWER = ["sec-webtransport-http3-draft", "draft02"] as const;
const OK = 200;

/** Why a request is not served. */
export interface ConnectRefusal {
  /** The status to answer with. */
  readonly status: number;
  /** What was wrong, for our own side. */
  readonly why: string;
}

/** The dialer's request as a frame; `authority` as in a URL. */
export function encodeConnect(authority: string, path: string): Uint8Array {
  return encodeHeaders(encodeFields([
    [":method", "CONNECT"],
    [":protocol", PROTOCOL],
    [":scheme", "https"],
    [":authority", authority],
    [":path", path],
    DRAFT_REQUEST,
  ]));
}

/** The listener's answer as a frame. */
export function encodeAnswer(status: number): Uint8Array {
  const fields: (readonly [string, string])[] = [[":status", String(status)]];
  if (status === OK) fields.push(DRAFT_ANSWER);
  return encodeHeaders(encodeFields(fields));
}

/**
 * Looks at a request; undefined: it is served. Browsers name the origin of the page that asks, and
 * nobody else does: only those that are listed may.
 *
 * @throws {TransportError} `InvalidFrame`: it is no request at all
 */
export function judgeConnect(
  section: Uint8Array,
  path: string,
  origins: ReadonlySet<string>,
): ConnectRefusal | undefined {
  const fields = decodeFields(section);
  const method = fields.get(":method");
  if (method === undefined) throw new TransportError("InvalidFrame", "a request has no method");
  const asked = fields.get(":path") ?? "";
  if (asked !== path) return { status: 404, why: `the path ${quote(asked)} is not served` };
  if (method !== "CONNECT" || fields.get(":protocol") !== PROTOCOL) {
    return { status: 400, why: "it is a request for something else than WebTransport" };
  }
  const origin = fields.get("origin");
  if (origin !== undefined && !origins.has(origin)) {
    return { status: 403, why: `the origin ${quote(origin)} may not come in` };
  }
  return undefined;
}

/**
 * Looks at an answer; returns the status that it refuses with, and undefined where it does not.
 *
 * @throws {TransportError} `InvalidFrame`: it is no answer at all
 */
export function judgeAnswer(section: Uint8Array): number | undefined {
  const status = decodeFields(section).get(":status") ?? "";
  if (!/^[1-9][0-9]{2}$/.test(status)) {
    throw new TransportError("InvalidFrame", "the answer has no status");
  }
  return Number(status) === OK ? undefined : Number(status);
}
