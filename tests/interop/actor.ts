/**
 * An endpoint in a process of its own, on whichever runtime runs this file. Reads one JSON command
 * a line from standard input and answers each with one JSON line.
 */

import { createInterface } from "node:readline";
import process from "node:process";
import { Endpoint, type EndpointConfig, type TransportError } from "../../mod.ts";

/** What an actor can be told. */
export type Command =
  | { do: "start"; options: EndpointConfig }
  | { do: "connect"; nodeId: string; address: string }
  | { do: "send"; nodeId: string; count: number; size: number }
  | { do: "received" }
  | { do: "flush"; nodeId: string }
  | { do: "peer"; nodeId: string }
  | { do: "poolStats"; nodeId: string }
  | { do: "stats" }
  | { do: "events" }
  | { do: "close" };

let endpoint: Endpoint | undefined;
const events: unknown[] = [];
/** Per sender: how many messages, how many bytes, whether each was the one after the one before. */
const received: Record<string, { count: number; bytes: number; inOrder: boolean }> = {};

/** A message of `size` bytes that says its number and can be checked; half of it compresses well. */
export function makeMessage(number: number, size: number): Uint8Array {
  const message = new Uint8Array(size);
  new DataView(message.buffer).setUint32(0, number);
  for (let i = 4; i < size; i++) message[i] = i % 7 === 0 ? (number * 31 + i * 17) & 0xff : 0x61;
  return message;
}

function checkMessage(payload: Uint8Array): number {
  const view = new DataView(payload.buffer, payload.byteOffset);
  const number = view.getUint32(0);
  const expected = makeMessage(number, payload.length);
  for (let i = 4; i < payload.length; i++) {
    if (payload[i] !== expected[i]) throw new Error(`byte ${i} of message ${number} is wrong`);
  }
  return number;
}

async function execute(command: Command): Promise<unknown> {
  switch (command.do) {
    case "start": {
      endpoint = new Endpoint(command.options);
      for (const type of ["peerup", "peerdown", "warning"] as const) {
        endpoint.addEventListener(type, ({ detail }) => {
          const error = "error" in detail ? detail.error : undefined;
          const identity = "identity" in detail ? detail.identity : undefined;
          events.push({
            type,
            nodeId: detail.nodeId,
            code: error?.code,
            message: error?.message,
            identity: identity?.nodeId,
          });
        });
      }
      endpoint.onMessage(({ from, payload }) => {
        const entry = received[from] ??= { count: 0, bytes: 0, inOrder: true };
        if (checkMessage(payload) !== entry.count) entry.inOrder = false;
        entry.count++;
        entry.bytes += payload.length;
      });
      await endpoint.start();
      return endpoint.addresses;
    }
    case "connect":
      return await endpoint!.connect(command);
    case "send": {
      const { nodeId, count, size } = command;
      for (let i = 0; i < count; i++) await endpoint!.send(nodeId, makeMessage(i, size));
      return null;
    }
    case "received":
      return received;
    case "flush":
      return await endpoint!.flush(command.nodeId);
    case "peer": {
      const peer = endpoint!.peer(command.nodeId);
      if (peer === undefined) return null;
      const { state, version, capabilities, identity, connections } = peer;
      return {
        state,
        version,
        capabilities,
        identity: identity?.nodeId,
        verifiedBy: identity?.verifiedBy,
        encrypted: connections.every((connection) => connection.encrypted),
        connections: connections.length,
      };
    }
    case "poolStats":
      return endpoint!.poolStats(command.nodeId);
    case "stats":
      return endpoint!.stats();
    case "events":
      return events;
    case "close":
      await endpoint?.close({ drainMs: 2000 });
      return null;
  }
}

if (import.meta.main) {
  for await (const line of createInterface({ input: process.stdin })) {
    const command = JSON.parse(line) as Command;
    let answer: unknown;
    try {
      answer = { ok: (await execute(command)) ?? null };
    } catch (error) {
      const { code, message } = error as TransportError;
      const rejectCode = (error as { rejectCode?: string }).rejectCode;
      answer = { error: { code, message, rejectCode } };
    }
    process.stdout.write(`${JSON.stringify(answer)}\n`);
    if (command.do === "close") break;
  }
  process.exit(0);
}
