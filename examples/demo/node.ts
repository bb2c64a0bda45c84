/**
 * One node of the demo, in a process of its own: an endpoint that replicates files or takes them.
 * main.ts starts it and says what to do; it runs the same on Deno, Bun and Node.
 *
 * @module
 */

import process from "node:process";
import { createInterface } from "node:readline";
// The package's own name would do on Deno; Bun and Node do not read the names in deno.json.
import { Endpoint, type PeerAddress } from "../../mod.ts";
import type { Command, PeerResult, Report } from "./control.ts";
import { decodeMessage, encodeMessage } from "./protocol.ts";
import { Receiver } from "./receiver.ts";
import { Sender } from "./sender.ts";

/** How often progress is reported at most. */
const PROGRESS_MS = 50;

type Of<D extends Command["do"]> = Extract<Command, { do: D }>;

let endpoint: Endpoint | undefined;

function report(message: Report): void {
  process.stdout.write(`${JSON.stringify(message)}\n`);
}

function fail(error: unknown): void {
  report({ event: "failed", message: error instanceof Error ? error.message : String(error) });
}

async function start({ options }: Of<"start">): Promise<void> {
  const made = new Endpoint(options);
  made.addEventListener("peerup", ({ detail }) => {
    report({ event: "peerup", peer: detail.nodeId });
  });
  made.addEventListener("peerdown", ({ detail }) => {
    report({ event: "peerdown", peer: detail.nodeId });
  });
  made.addEventListener("warning", ({ detail }) => {
    report({ event: "warning", message: detail.message });
  });
  await made.start();
  endpoint = made;
}

async function receive(endpoint: Endpoint, command: Of<"receive">): Promise<void> {
  const receiver = new Receiver(command.folder, command.incoming);
  await receiver.open();
  // The promise holds the sender's next message back until this one is on the disk.
  endpoint.onMessage(async ({ from, payload }) => {
    if (from !== command.from) return;
    try {
      const message = decodeMessage(payload);
      if (message.type !== "chunk") return;
      const answer = await receiver.take(message);
      if (answer !== undefined) await endpoint.send(from, encodeMessage(answer));
    } catch (error) {
      fail(error);
    }
  });
}

function replicate(endpoint: Endpoint, command: Of<"replicate">): void {
  const senders = new Map<string, Sender>();
  const lost = new Map<string, number>();
  const connected = new Set<string>();
  endpoint.onMessage(({ from, payload }) => {
    const message = decodeMessage(payload);
    if (message.type !== "chunk") senders.get(from)?.answered(message);
  });
  endpoint.addEventListener("peerup", ({ detail: { nodeId } }) => {
    if (connected.has(nodeId)) senders.get(nodeId)?.peerReturned();
    connected.add(nodeId);
  });
  endpoint.addEventListener("undelivered", ({ detail: { nodeId, payload } }) => {
    lost.set(nodeId, (lost.get(nodeId) ?? 0) + 1);
    senders.get(nodeId)?.undelivered(payload);
  });
  const all = command.peers.map(async (peer): Promise<PeerResult> => {
    const sender = newSender(endpoint, command, peer);
    senders.set(peer.nodeId, sender);
    return {
      ...await replicateTo(endpoint, peer, sender),
      undelivered: lost.get(peer.nodeId) ?? 0,
    };
  });
  Promise.all(all).then((results) => report({ event: "replicated", results }), fail);
}

function newSender(endpoint: Endpoint, command: Of<"replicate">, { nodeId }: PeerAddress): Sender {
  let reported = 0;
  const { folder, files } = command;
  const sender: Sender = new Sender(endpoint, {
    folder,
    files,
    peer: nodeId,
    pauseHalfway: nodeId === command.pauseFor,
    onHalfway: () => report({ event: "halfway", peer: nodeId }),
    onProgress: () => {
      const now = performance.now();
      const { sentBytes, acknowledgedFiles } = sender;
      if (now - reported < PROGRESS_MS && acknowledgedFiles < files.length) return;
      reported = now;
      report({ event: "progress", peer: nodeId, sentBytes, acknowledgedFiles });
    },
  });
  return sender;
}

async function replicateTo(
  endpoint: Endpoint,
  peer: PeerAddress,
  sender: Sender,
): Promise<Omit<PeerResult, "undelivered">> {
  await endpoint.connect(peer);
  const begun = performance.now();
  await sender.run();
  const seconds = (performance.now() - begun) / 1000;
  const { stats } = endpoint.peer(peer.nodeId)!;
  return {
    peer: peer.nodeId,
    seconds,
    filesSentAgain: sender.filesSentAgain,
    reconnections: stats.reconnections,
    payloadBytes: stats.payloadBytesSent,
    wireBytes: stats.bytesSent,
  };
}

async function execute(command: Command): Promise<void> {
  if (command.do === "start") return await start(command);
  if (endpoint === undefined) throw new Error(`Cannot ${command.do}: start comes first`);
  switch (command.do) {
    case "receive":
      return await receive(endpoint, command);
    case "replicate":
      return replicate(endpoint, command);
    case "close":
      return await endpoint.close();
  }
}

for await (const line of createInterface({ input: process.stdin })) {
  try {
    await execute(JSON.parse(line) as Command);
    report({ event: "ok", addresses: endpoint?.addresses ?? [] });
  } catch (error) {
    fail(error);
  }
}
await endpoint?.close({ drainMs: 0 });
process.exit(0);
