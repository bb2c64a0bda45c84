/**
 * Whether a dialer goes on, as far as the welcome tells.
 *
 * @module
 */

import { HandshakeError, type RejectCode, TransportError } from "../errors.ts";
import {
  announcedKeepalive,
  type Capability,
  chooseVersion,
  commonCapabilities,
  type LocalIdentity,
  type Negotiated,
  type ProtocolVersion,
  smallerSize,
} from "./negotiate.ts";
import { offerProblem, type SessionClaim, type SessionOffer } from "./session_claim.ts";
import { peerTerms } from "./terms.ts";
import { quote } from "./text.ts";
import type { Welcome } from "./welcome.ts";

/** What a dialer holds a welcome of version 3 against. */
export interface AnswerContext {
  /** Our wall clock, milliseconds since the epoch; undefined to take any time. */
  readonly wallClockMs?: number | undefined;
  /** The session that our hello named. */
  readonly claim?: SessionClaim | undefined;
}

/**
 * Holds a welcome against what we offered. What it proves is not judged here.
 *
 * @param expectNodeId Who must answer; undefined takes anybody but ourselves.
 * @throws {TransportError} "IdentityMismatch" if somebody else answered.
 * @throws {HandshakeError} If the listener chose what we did not offer, or is of another cluster, or
 * its clock differs too much.
 */
export function acceptWelcome(
  welcome: Welcome,
  local: LocalIdentity,
  expectNodeId: string | undefined,
  context: AnswerContext = {},
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
  checkCluster(welcome, local);
  checkClock(welcome, local, context);
  const capabilities = agreedCapabilities(welcome, local, version);
  const agreedSize = smallerSize(local.maxMessageSize, maxMessageSize);
  const terms = peerTerms(version, welcome, agreedSize);
  return {
    nodeId: welcome.nodeId,
    version,
    capabilities,
    maxMessageSize: agreedSize,
    incarnation: welcome.incarnation,
    keepaliveMs: announcedKeepalive(local),
    sessionGeneration: terms.sessionGeneration,
    receiveWindow: terms.receiveWindow,
    features: terms.features,
    maxStreams: terms.maxStreams,
    addresses: terms.addresses,
    claim: undefined,
    session: capabilities.has("resume") ? offeredSession(welcome, context) : undefined,
    publicKey: undefined,
  };
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

function checkCluster(welcome: Welcome, local: LocalIdentity): void {
  const { clusterName } = welcome;
  if (clusterName === undefined || clusterName === local.clusterName) return;
  throw refuse(welcome, "the cluster names differ", "CLUSTER_MISMATCH");
}

function checkClock(
  welcome: Welcome,
  { maxClockSkewMs }: LocalIdentity,
  { wallClockMs }: AnswerContext,
): void {
  const { timestamp } = welcome;
  if (timestamp === undefined || wallClockMs === undefined) return;
  if (Math.abs(timestamp - wallClockMs) <= maxClockSkewMs) return;
  const problem = `the clocks differ by more than ${maxClockSkewMs} ms`;
  throw refuse(welcome, problem, "STALE_TIMESTAMP");
}

/** A listener may leave out what it can't do, but not add what we did not offer. */
function agreedCapabilities(
  welcome: Welcome,
  local: LocalIdentity,
  version: ProtocolVersion,
): ReadonlySet<Capability> {
  const offered: readonly string[] = local.capabilities;
  const foreign = welcome.capabilities.find((capability) => !offered.includes(capability));
  if (foreign !== undefined) {
    throw refuse(welcome, `it chose the capability ${quote(foreign)}, which we did not offer`);
  }
  return commonCapabilities(version, local.capabilities, welcome.capabilities);
}

function offeredSession(welcome: Welcome, { claim }: AnswerContext): SessionOffer {
  const { session } = welcome;
  const problem = session === undefined
    ? 'it chose "resume" and named no session'
    : offerProblem(session, claim, welcome.sessionGeneration !== undefined);
  if (session !== undefined && problem === undefined) return session;
  throw refuse(welcome, problem!, "MALFORMED");
}

function refuse({ nodeId }: Welcome, problem: string, code?: RejectCode): HandshakeError {
  return new HandshakeError(`Cannot connect to ${quote(nodeId)}: ${problem}`, code, {
    peer: nodeId,
  });
}
