/**
 * How a message goes out as a packet: to a peer that is reached by datagrams.
 *
 * @module
 */

import { BackpressureError, TransportError } from "./errors.ts";
import type { ResolvedOptions } from "./options.ts";
import type { DatagramPeer } from "./peer/datagram_peer.ts";
import type { SendPlan } from "./peer/send_queue.ts";
import { noDatagramFor } from "./recipients.ts";
import { checkKeys, checkWhenFull, type SendOptions, sendPlan } from "./send_plan.ts";

/** Sends a packet, and waits for room as the options say. */
export async function sendPacket(
  peer: DatagramPeer,
  bytes: Uint8Array,
  options: SendOptions = {},
  { delivery, maxPendingMessages }: ResolvedOptions,
): Promise<void> {
  const { signal } = options;
  signal?.throwIfAborted();
  checkKeys("send", options);
  const whenFull = checkWhenFull(options.whenFull);
  const plan = sendPlan(options, delivery);
  if (options.acknowledged === true) throw noDatagramFor(peer.nodeId, "have acknowledged");
  if (peer.failure !== undefined) throw peer.failure;
  if (whenFull === "wait") return await peer.send(bytes, plan, signal);
  if (peer.offer(bytes, plan) !== "full") return;
  if (whenFull === "reject") {
    const text = `Cannot send to ${peer.nodeId}: too many packets wait`;
    throw new BackpressureError(text, maxPendingMessages, { peer: peer.nodeId });
  }
  peer.countDropped();
}

/** Sends a packet if that needs no waiting. */
export function trySendPacket(peer: DatagramPeer, bytes: Uint8Array, plan: SendPlan): boolean {
  if (peer.failure !== undefined) return false;
  try {
    return peer.offer(bytes, plan) === "sent";
  } catch (error) {
    if (error instanceof TransportError && error.code === "RateLimited") return false;
    throw error;
  }
}

/** Whether a message to a peer that has links, too, is sent as a packet. */
export function goesByDatagram(peer: DatagramPeer, bytes: Uint8Array, plan: SendPlan): boolean {
  return plan.atMostOnce && peer.link !== undefined && peer.fits(bytes.length, plan.topic);
}
