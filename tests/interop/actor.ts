/**
 * An endpoint in a process of its own, on whichever runtime runs this file. Reads one JSON command
 * a line from standard input and answers each with one JSON line.
 */

import { openSync, writeSync } from "node:fs";
import { createInterface } from "node:readline";
import process from "node:process";
import { Endpoint, type EndpointConfig, type TransportError } from "../../mod.ts";
import { type LaneName, laneOf, NEWEST, send } from "../simulation/api.ts";
import { type ServiceCommand, Services } from "./services.ts";
import { addArrival, type Arrivals, NOTE, type Outcomes } from "./stream_ledger.ts";

/** What an actor can be told. */
export type Command =
  | ServiceCommand
  | { do: "start"; options: EndpointConfig; recordTo?: string }
  | { do: "connect"; nodeId: string; address: string }
  | { do: "send"; nodeId: string; count: number; size: number }
  | { do: "received" }
  | { do: "flush"; nodeId: string }
  | { do: "peer"; nodeId: string }
  | { do: "poolStats"; nodeId: string }
  | { do: "stats" }
  | { do: "events" }
  | { do: "stream"; nodeId: string; lanes: LaneName[]; count: number; maxSize: number }
  | { do: "streamed" }
  | { do: "stopStream" }
  | { do: "outcomes" }
  | { do: "arrivals"; nodeId: string }
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

/** Messages that `stream` sends, by lane. */
class Outgoing {
  count = 0;
  stopped = false;
  readonly #notes = new Map<LaneName, Uint8Array>();
  #loops: Promise<unknown> = Promise.resolve();

  start({ nodeId, lanes, count, maxSize }: Command & { do: "stream" }): void {
    this.#loops = Promise.all(lanes.map((lane) => this.#run(nodeId, lane, count, maxSize)));
    this.#loops.catch(() => {});
  }

  async stop(): Promise<void> {
    this.stopped = true;
    await this.#loops;
  }

  report(lane: LaneName, number: number, fate: "unsent" | "unknown"): void {
    this.#note(lane, number, NOTE.undelivered | (fate === "unsent" ? NOTE.unsent : 0));
  }

  outcomes(): Outcomes {
    const outcomes: Outcomes = {};
    for (const [lane, notes] of this.#notes) {
      let text = "";
      for (const note of notes) text += String.fromCharCode(note);
      outcomes[lane] = btoa(text);
    }
    return outcomes;
  }

  async #run(nodeId: string, lane: LaneName, count: number, maxSize: number): Promise<void> {
    for (let number = 0; number < count && !this.stopped; number++) {
      this.#note(lane, number, 0);
      this.count++;
      const acknowledged = NEWEST === 3 && number % 4 === 0;
      const payload = makeMessage(number, sizeOf(number, maxSize));
      const sent = send(NEWEST, endpoint!, nodeId, payload, {
        lane,
        topic: undefined,
        acknowledged,
        delivery: "resume",
        whenFull: "wait",
        signal: undefined,
      }).then(
        () => this.#note(lane, number, NOTE.accepted | (acknowledged ? NOTE.acked : 0)),
        () => this.#note(lane, number, acknowledged ? NOTE.accepted : NOTE.refused),
      );
      if (!acknowledged) await sent;
    }
  }

  #note(lane: LaneName, number: number, bits: number): void {
    let notes = this.#notes.get(lane) ?? new Uint8Array(0);
    if (notes.length <= number) {
      // The length is that of what was sent, the memory behind it grows in large steps.
      if (notes.buffer.byteLength <= number) {
        const larger = new Uint8Array(2 * number + 1024);
        larger.set(notes);
        notes = larger;
      }
      notes = new Uint8Array(notes.buffer, 0, number + 1);
      this.#notes.set(lane, notes);
    }
    notes[number]! |= bits;
  }
}

/** Mostly small; one in 500 as large as allowed. */
function sizeOf(number: number, maxSize: number): number {
  const hash = Math.imul(number + 1, 0x9e3779b1) >>> 0;
  return hash % 500 === 0 ? maxSize : 4 + hash % Math.min(200, maxSize);
}

const outgoing = new Outgoing();
const services = new Services(() => endpoint!, makeMessage);
const arrivals: Record<string, Arrivals> = {};
let recordTo: number | undefined;

/** On file before the library may acknowledge it: the lane, then the number. */
function record(lane: LaneName, number: number): void {
  const bytes = new Uint8Array(5);
  bytes[0] = lane.charCodeAt(0);
  new DataView(bytes.buffer).setUint32(1, number);
  writeSync(recordTo!, bytes);
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
      if (command.recordTo !== undefined) recordTo = openSync(command.recordTo, "a");
      endpoint.addEventListener("undelivered", ({ detail }) => {
        outgoing.report(laneOf(detail), checkMessage(detail.payload), detail.fate);
        services.report(detail);
      });
      endpoint.onMessage((message) => {
        const { from, payload } = message;
        services.note(message);
        const entry = received[from] ??= { count: 0, bytes: 0, inOrder: true };
        const number = checkMessage(payload);
        if (recordTo !== undefined) record(laneOf(message), number);
        addArrival((arrivals[from] ??= {})[laneOf(message)] ??= [], number);
        if (number !== entry.count) entry.inOrder = false;
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
    case "stream":
      outgoing.start(command);
      return null;
    case "streamed":
      return outgoing.count;
    case "stopStream":
      await outgoing.stop();
      return outgoing.count;
    case "outcomes":
      return outgoing.outcomes();
    case "arrivals":
      return arrivals[command.nodeId] ?? {};
    case "close":
      await endpoint?.close({ drainMs: 2000 });
      return null;
    default:
      return await services.execute(command);
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
