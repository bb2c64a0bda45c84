/**
 * Five endpoints: one broadcasts to the four others, one of which goes down.
 *
 * @module
 */

import { type BroadcastResult, Endpoint, TransportError } from "../mod.ts";

const encode = (text: string) => new TextEncoder().encode(text);
const decode = (bytes: Uint8Array) => new TextDecoder().decode(bytes);

async function startEndpoint(nodeId: string): Promise<Endpoint> {
  const endpoint = new Endpoint({
    nodeId,
    listen: "tcp://127.0.0.1:0",
    security: "development",
    // No more than two messages wait for a peer that is away.
    maxPendingMessages: 2,
  });
  await endpoint.start();
  return endpoint;
}

function print(text: string, { delivered, failed }: BroadcastResult): void {
  console.log(`${text}: delivered to ${delivered.sort().join(", ")}`);
  for (const { nodeId, error } of failed) {
    const code = error instanceof TransportError ? error.code : "unexpected";
    console.log(`  failed for ${nodeId} (${code}): ${(error as Error).message}`);
  }
}

const admiral = await startEndpoint("admiral");
const ships = await Promise.all(["brig", "cutter", "dhow", "frigate"].map(startEndpoint));
const [lost, ...others] = ships;
try {
  for (const { nodeId, addresses } of ships) {
    await admiral.connect({ nodeId, address: addresses[0]! });
  }
  print("all are up", await admiral.broadcast(encode("sail")));
  for (const ship of ships) {
    const { from, payload } = await ship.receive();
    console.log(`  ${ship.nodeId} heard "${decode(payload)}" from ${from}`);
  }

  const down = new Promise<void>((resolve) => {
    admiral.addEventListener("peerdown", () => resolve(), { once: true });
  });
  await lost!.close();
  await down;
  // "Delivered" means that the peer's queue took it: what is sent to a lost peer waits for its
  // return, until the queue is full.
  for (const order of ["turn", "reef", "anchor"]) {
    const result = await admiral.broadcast(encode(order), { whenFull: "reject" });
    print(`${lost!.nodeId} is down, "${order}"`, result);
    await Promise.all(others.map((ship) => ship.receive()));
    // What a peer has acknowledged waits no more.
    await Promise.all(others.map((ship) => admiral.flush(ship.nodeId)));
  }

  // What never got there is reported, message by message.
  admiral.addEventListener("undelivered", ({ detail }) => {
    console.log(`undelivered to ${detail.nodeId}: "${decode(detail.payload)}" (${detail.fate})`);
  });
} finally {
  await admiral.close();
  await Promise.all(ships.map((ship) => ship.close()));
}
