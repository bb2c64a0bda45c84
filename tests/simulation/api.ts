/** The public face as the simulation uses it, for each version of the protocol. */

import {
  Endpoint,
  type EndpointConfig,
  type Message,
  type PoolOptions,
  type SendOptions,
  type UndeliveredDetail,
} from "../../mod.ts";

/** The version the simulation is held to unless told otherwise. */
export const NEWEST: ProtocolVersion = 3;

/** With 3 the checks are strict; with 2 the fate of messages on a lost connection may be unknown. */
export type ProtocolVersion = 2 | 3;

export const LANES = ["control", "normal", "bulk"] as const;
export type LaneName = (typeof LANES)[number];

/** How a message is sent. */
export interface SendHow {
  lane: LaneName;
  topic: string | undefined;
  acknowledged: boolean;
  delivery: "resume" | "at-most-once";
  whenFull: "wait" | "reject" | "drop-oldest" | "drop-newest";
  signal: AbortSignal | undefined;
}

/** Options of version 3; where version 2 is asked for they are left away. */
export interface SessionOptions {
  receiveWindow: number;
  batchDelayMs: number;
  pool?: PoolOptions;
}

/** An endpoint that speaks this version at most. */
export function newEndpoint(
  version: ProtocolVersion,
  config: EndpointConfig,
  session: SessionOptions,
): Endpoint {
  const more: Record<string, unknown> = version === 3 ? { ...session } : {};
  if (knowsOption("maxProtocolVersion", 2)) more["maxProtocolVersion"] = version;
  return new Endpoint({ ...config, ...more });
}

/** Sends by promise. */
export function send(
  version: ProtocolVersion,
  endpoint: Endpoint,
  nodeId: string,
  payload: Uint8Array,
  how: SendHow,
): Promise<void> {
  const { lane, topic, acknowledged, delivery, whenFull, signal } = how;
  const base: SendOptions = { whenFull, ...(signal === undefined ? {} : { signal }) };
  if (version === 2) return endpoint.send(nodeId, payload, base);
  const more = { lane, acknowledged, delivery, ...(topic === undefined ? {} : { topic }) };
  const options = { ...base, ...more } as SendOptions;
  return endpoint.send(nodeId, payload, options);
}

/** Sends if that needs no waiting. */
export function trySend(
  version: ProtocolVersion,
  endpoint: Endpoint,
  nodeId: string,
  payload: Uint8Array,
  lane: LaneName,
  topic: string | undefined,
): boolean {
  if (version === 2) return endpoint.trySend(nodeId, payload);
  type TrySend = (nodeId: string, payload: Uint8Array, options: object) => boolean;
  const call = endpoint.trySend.bind(endpoint) as TrySend;
  return call(nodeId, payload, { lane, ...(topic === undefined ? {} : { topic }) });
}

/** The lane of a message; all of version 2 is one lane. */
export function laneOf(message: Message | UndeliveredDetail): LaneName {
  return (message as { lane?: LaneName }).lane ?? "normal";
}

/** The topic of a message. */
export function topicOf(message: Message | UndeliveredDetail): string | undefined {
  return (message as { topic?: string }).topic;
}

const known = new Map<string, boolean>();

function knowsOption(name: string, value: unknown): boolean {
  let answer = known.get(name);
  if (answer === undefined) {
    try {
      new Endpoint({ nodeId: "x", security: "development", [name]: value });
      answer = true;
    } catch {
      answer = false;
    }
    known.set(name, answer);
  }
  return answer;
}
