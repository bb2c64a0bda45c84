/**
 * Whether a dialer is let in, as far as its hello tells.
 *
 * @module
 */

import type { RejectCode } from "../errors.ts";
import type { Hello } from "./hello.ts";
import {
  chooseVersion,
  commonCapabilities,
  type LocalIdentity,
  type Negotiated,
  type ProtocolVersion,
  smallerSize,
} from "./negotiate.ts";
import type { ReplayWindow } from "./replay.ts";
import { equalSecrets } from "./secret.ts";
import { peerTerms } from "./terms.ts";

/** What judging a hello needs beside the hello and ourselves. */
export interface JudgeContext {
  /** Our wall clock, milliseconds since the epoch. */
  readonly wallClockMs: number;
  /**
   * The hellos seen lately; one that is accepted is added. Undefined where the dialer has to prove
   * a key: the fresh nonce of the welcome keeps a hello from being used twice, and nobody may fill
   * the window under the name of a node without being it.
   */
  readonly replay: ReplayWindow | undefined;
}

/** What was agreed on, or why the dialer is turned away: a code, and a reason without secrets. */
export type Verdict =
  | { readonly accept: Negotiated }
  | { readonly reject: RejectCode; readonly reason: string };

/**
 * Judges a well-formed hello. Of several faults the first in this order counts: version, our own
 * node id, expected node id, cluster, token, clock, replay. A nonce is remembered only after
 * everything else was in order; without a timestamp it has no meaning.
 */
export function judgeHello(hello: Hello, local: LocalIdentity, context: JudgeContext): Verdict {
  const version = chooseVersion(
    { min: local.minVersion, max: local.maxVersion },
    { min: hello.minProtocolVersion, max: hello.protocolVersion },
  );
  if (version === undefined) {
    return reject(
      "VERSION_MISMATCH",
      `versions ${hello.minProtocolVersion} to ${hello.protocolVersion} were offered, ` +
        `${local.minVersion} to ${local.maxVersion} are spoken here`,
    );
  }
  const refusal = judgeNames(hello, local) ?? judgeToken(hello, local) ??
    judgeTime(hello, local, context);
  return refusal ?? { accept: agreement(hello, local, version) };
}

function agreement(hello: Hello, local: LocalIdentity, version: ProtocolVersion): Negotiated {
  const capabilities = commonCapabilities(version, local.capabilities, hello.capabilities);
  const maxMessageSize = smallerSize(local.maxMessageSize, hello.maxMessageSize);
  const terms = peerTerms(version, hello, maxMessageSize);
  // Member by member: what is spread into an object has its place outside of it, and there are many.
  return {
    nodeId: hello.nodeId,
    version,
    capabilities,
    maxMessageSize,
    incarnation: hello.incarnation,
    keepaliveMs: hello.keepaliveMs,
    sessionGeneration: terms.sessionGeneration,
    receiveWindow: terms.receiveWindow,
    features: terms.features,
    maxStreams: terms.maxStreams,
    addresses: terms.addresses,
    claim: capabilities.has("resume") ? hello.session : undefined,
    session: undefined,
    publicKey: undefined,
  };
}

function judgeNames(hello: Hello, local: LocalIdentity): Verdict | undefined {
  if (hello.nodeId === local.nodeId) {
    return reject("DUPLICATE_NODE_ID", "the dialer has the node id of this node");
  }
  if (hello.expectNodeId !== undefined && hello.expectNodeId !== local.nodeId) {
    return reject("NODE_ID_MISMATCH", "this is not the node that was expected");
  }
  if (hello.clusterName !== local.clusterName) {
    return reject("CLUSTER_MISMATCH", "the cluster names differ");
  }
  return undefined;
}

function judgeToken(hello: Hello, local: LocalIdentity): Verdict | undefined {
  if (local.authToken === undefined) return undefined;
  const equal = equalSecrets(hello.authToken ?? "", local.authToken);
  if (equal && hello.authToken !== undefined) return undefined;
  // One reason for both: whether a token was demanded at all is not told.
  return reject("AUTH_FAILED", "the auth token is missing or wrong");
}

function judgeTime(
  { nodeId, timestamp, nonce }: Hello,
  { maxClockSkewMs }: LocalIdentity,
  { wallClockMs, replay }: JudgeContext,
): Verdict | undefined {
  if (timestamp === undefined) return undefined;
  if (!(Math.abs(timestamp - wallClockMs) <= maxClockSkewMs)) {
    return reject("STALE_TIMESTAMP", `the clocks differ by more than ${maxClockSkewMs} ms`);
  }
  if (nonce === undefined || replay === undefined) return undefined;
  if (!replay.admit(nodeId, timestamp, nonce, wallClockMs)) {
    return reject("REPLAYED", "this hello, or one as old as it, was seen before");
  }
  return undefined;
}

function reject(code: RejectCode, reason: string): Verdict {
  return { reject: code, reason };
}
