/**
 * How a hello asks for a session and a welcome answers (docs/protocol.md, section "Sessions").
 *
 * @module
 */

import type { Fields } from "./fields.ts";

/** The highest number received in order in each lane: control, normal, bulk. */
export type LaneNumbers = readonly [control: number, normal: number, bulk: number];

/** A dialer asks to go on with a session. */
export interface SessionClaim {
  /** 32 lower-case hex digits. */
  readonly id: string;
  /** What the dialer has received of it. */
  readonly received: LaneNumbers;
}

/** The session that a listener offers: `received` is what the listener has received. */
export interface SessionOffer extends SessionClaim {
  /** Whether it is the session that was asked for; otherwise it is new and nothing is received. */
  readonly resumed: boolean;
}

const SESSION_ID = /^[0-9a-fA-F]{32}$/;
const LANES = 3;

/** Reads the `session` of a hello. */
export function readClaim(fields: Fields): SessionClaim | undefined {
  const inner = fields.object("session");
  return inner === undefined ? undefined : readSession(inner);
}

/** Reads the `session` of a welcome. */
export function readOffer(fields: Fields): SessionOffer | undefined {
  const inner = fields.object("session");
  if (inner === undefined) return undefined;
  const resumed = inner.required("resumed", inner.boolean("resumed"));
  return { ...readSession(inner), resumed };
}

/**
 * Why an offer does not answer our claim; undefined where it does. A session that is new has an id
 * of its own, and nothing was received in it. A listener that counts generations may resume one
 * that we did not name: its own dial and ours have crossed each other, and it knows by the
 * generations that the session is ours, too.
 */
export function offerProblem(
  { id, resumed, received }: SessionOffer,
  claim: SessionClaim | undefined,
  countsGenerations: boolean,
): string | undefined {
  if (resumed) {
    const crossed = claim === undefined && countsGenerations;
    return crossed || id === claim?.id ? undefined : "it resumed a session that we did not name";
  }
  if (id === claim?.id) return "its new session has the id of the old one";
  if (received.some((number) => number !== 0)) {
    return "it says it received something in a session that is new";
  }
  return undefined;
}

function readSession(fields: Fields): SessionClaim {
  const id = fields.required("id", fields.match("id", SESSION_ID, "32 hex digits"));
  const received = fields.required("received", fields.integers("received", LANES, 0));
  // Digits of another case are the same session.
  return { id: id.toLowerCase(), received: received as [number, number, number] };
}
