/**
 * A fast sender and a slow receiver: `send` waits while the queues on the way are full, so the
 * sender goes at the receiver's pace and memory stays flat.
 *
 * @module
 */

import { setTimeout as delay } from "node:timers/promises";
import { Endpoint } from "../mod.ts";

const MESSAGES = 160;
const MESSAGE_BYTES = 256 * 1024;
/** How long the receiver works on a message. */
const WORK_MS = 8;
const PRINT_EVERY = 20;

const receiver = new Endpoint({
  nodeId: "receiver",
  listen: "tcp://127.0.0.1:0",
  security: "development",
  recvBufferSize: 8,
});
const sender = new Endpoint({
  nodeId: "sender",
  security: "development",
  maxPendingMessages: 16,
  // All messages are zeros, which would all but vanish on their way.
  compression: { enabled: false },
});

async function receiveSlowly(): Promise<number> {
  let received = 0;
  for await (const _message of receiver) {
    await delay(WORK_MS);
    if (++received === MESSAGES) break;
  }
  return received;
}

async function sendAll(): Promise<void> {
  let waitedMs = 0;
  for (let sent = 1; sent <= MESSAGES; sent++) {
    const begun = performance.now();
    await sender.send("receiver", new Uint8Array(MESSAGE_BYTES), { whenFull: "wait" });
    waitedMs += performance.now() - begun;
    if (sent % PRINT_EVERY > 0) continue;
    const queued = sender.peer("receiver")!.pendingMessages;
    const waiting = receiver.stats().receiveQueueLength;
    console.log(
      `accepted ${sent}: ${queued} wait to be sent, ${waiting} wait at the receiver, ` +
        `the sender was held back for ${Math.round(waitedMs)} ms`,
    );
  }
}

try {
  await receiver.start();
  await sender.start();
  await sender.connect({ nodeId: "receiver", address: receiver.addresses[0]! });
  const begun = performance.now();
  const [received] = await Promise.all([receiveSlowly(), sendAll()]);
  const { backpressureEvents } = sender.stats();
  console.log(
    `${received} messages in ${Math.round(performance.now() - begun)} ms, ` +
      `${backpressureEvents} of ${MESSAGES} sends found the queue full`,
  );
} finally {
  await sender.close();
  await receiver.close();
}
