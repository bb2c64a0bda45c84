/** What an actor can be told beside plain messages: lanes and topics, requests, streams, flows. */

import type { Endpoint, LaneName, Message, TransportStream, UndeliveredDetail } from "../../mod.ts";
import { HandlerError } from "../../mod.ts";

/** Commands of this file. */
export type ServiceCommand =
  | { do: "serve" }
  | { do: "served" }
  | ({ do: "sendWith"; nodeId: string; count: number; size: number } & How)
  | { do: "topics" }
  | ({ do: "ask"; nodeId: string; size: number; count?: number } & Asking)
  | { do: "exchange"; nodeId: string; topic: string; lane: LaneName; bytes: number; reset?: true }
  | { do: "exchangeAll"; nodeId: string; topic: string; bytes: number; count: number }
  | { do: "flow"; nodeIds: string[]; from: number }
  | { do: "stopFlow" }
  | { do: "end" };

/** How messages are sent. */
export interface How {
  lane: LaneName;
  topic?: string;
  acknowledged?: boolean;
}

/** How requests are made. */
export interface Asking {
  topic: string;
  lane?: LaneName;
  timeoutMs?: number;
  cancelAfterMs?: number;
}

/** What became of something: the length of what came, or codes. */
export interface Outcome {
  length?: number;
  code?: string;
  remoteCode?: string;
}

/** How an exchange of bytes over a stream went. */
export interface Exchanged {
  /** Bytes that came back. */
  received: number;
  /** Whether they were those that were sent. */
  same: boolean;
  /** Their text, where they are few. */
  text: string;
  /** "closed", or why it failed. */
  end: string;
}

/** What was sent to a node, as first and last number, and what was reported of it. */
export interface Flowed {
  from: number;
  to: number;
  undelivered: [number: number, fate: string][];
}

const CHUNK_BYTES = 60_000;
const FLOW_INTERVAL_MS = 2;
const FLOW_SIZE = 300;

/** The services of one actor. */
export class Services {
  readonly #endpoint: () => Endpoint;
  readonly #makeMessage: (number: number, size: number) => Uint8Array;
  /** What happened to those that were served here. */
  readonly #served: string[] = [];
  /** Messages by sender, lane and topic. */
  readonly #topics: Record<string, number> = {};
  readonly #flows: Record<string, Flowed> = {};
  #flowing = false;
  #loops: Promise<unknown> = Promise.resolve();

  constructor(
    endpoint: () => Endpoint,
    makeMessage: (number: number, size: number) => Uint8Array,
  ) {
    this.#endpoint = endpoint;
    this.#makeMessage = makeMessage;
  }

  /** A message has come. */
  note({ from, lane, topic }: Message): void {
    const key = [from, lane, topic ?? "-"].join(" ");
    this.#topics[key] = (this.#topics[key] ?? 0) + 1;
  }

  /** A message was reported. */
  report({ nodeId, payload, fate }: UndeliveredDetail): void {
    const number = new DataView(payload.buffer, payload.byteOffset).getUint32(0);
    this.#flows[nodeId]?.undelivered.push([number, fate]);
  }

  async execute(command: ServiceCommand): Promise<unknown> {
    switch (command.do) {
      case "serve":
        return this.#serve();
      case "served":
        return this.#served;
      case "topics":
        return this.#topics;
      case "sendWith":
        return await this.#sendWith(command);
      case "ask":
        return await Promise.all(
          Array.from({ length: command.count ?? 1 }, () => this.#ask(command)),
        );
      case "exchange":
        return await this.#exchange(command);
      case "exchangeAll":
        return await this.#exchangeAll(command);
      case "flow":
        this.#flow(command.nodeIds, command.from);
        return null;
      case "stopFlow":
        this.#flowing = false;
        await this.#loops;
        return this.#flows;
      case "end":
        // The process lives on, to be asked what it saw.
        await this.#endpoint().close();
        return null;
    }
  }

  /** So many streams at once; returns how many brought back what was sent. */
  async #exchangeAll(
    { nodeId, topic, bytes, count }: Extract<ServiceCommand, { do: "exchangeAll" }>,
  ): Promise<number> {
    const one = { do: "exchange", nodeId, topic, lane: "normal", bytes } as const;
    const all = Array.from({ length: count }, () => this.#exchange(one));
    const whole = (await Promise.all(all)).filter(({ received, same, end }) =>
      received === bytes && same && end === "closed"
    );
    return whole.length;
  }

  #serve(): null {
    const endpoint = this.#endpoint();
    const hang = ({ signal, deadline }: { signal: AbortSignal; deadline: number | undefined }) =>
      new Promise<Uint8Array>((_, reject) => {
        const left = deadline === undefined ? "for ever" : deadline - Date.now();
        signal.addEventListener("abort", () => {
          this.#served.push(`${signal.reason.code} ${left}`);
          reject(signal.reason);
        });
      });
    endpoint.handle("echo", ({ payload }) => payload);
    endpoint.handle("refuses", () => {
      throw new HandlerError("NO_SUCH_ROW", "there is none");
    });
    endpoint.handle("throws", () => {
      throw new Error("an inner matter");
    });
    endpoint.handle("hangs", hang);
    endpoint.handle("one", hang, { concurrencyPerPeer: 1 });
    endpoint.onStream("echo", (stream) => stream.readable.pipeTo(stream.writable));
    endpoint.onStream("count", async ({ readable, writable }) => {
      let length = 0;
      for await (const chunk of readable) length += chunk.length;
      const writer = writable.getWriter();
      await writer.write(new TextEncoder().encode(`${length}`));
      await writer.close();
    });
    endpoint.onStream("resets", async (stream) => {
      await stream.readable.getReader().read();
      stream.reset("ENOUGH", "that will do");
    });
    endpoint.onStream("watches", async ({ readable }) => {
      try {
        for await (const chunk of readable) void chunk;
      } catch (error) {
        this.#served.push(`stream ${codesOf(error).remoteCode}`);
      }
    });
    return null;
  }

  async #sendWith(
    { nodeId, count, size, lane, topic, acknowledged }: ServiceCommand & { do: "sendWith" },
  ): Promise<null> {
    const options = {
      lane,
      ...(topic === undefined ? {} : { topic }),
      ...(acknowledged === undefined ? {} : { acknowledged }),
    };
    const sends = Array.from({ length: count }, (_, number) => {
      return this.#endpoint().send(nodeId, this.#makeMessage(number, size), options);
    });
    await Promise.all(sends);
    return null;
  }

  async #ask(
    { nodeId, size, topic, lane, timeoutMs, cancelAfterMs }: ServiceCommand & { do: "ask" },
  ): Promise<Outcome> {
    const payload = pattern(size);
    const signal = cancelAfterMs === undefined ? undefined : AbortSignal.timeout(cancelAfterMs);
    try {
      const answer = await this.#endpoint().request(nodeId, payload, {
        topic,
        lane,
        timeoutMs,
        signal,
      });
      const same = answer.length === size && answer.every((byte, i) => byte === payload[i]);
      return same ? { length: size } : { code: "another answer" };
    } catch (error) {
      return codesOf(error);
    }
  }

  async #exchange(
    { nodeId, topic, lane, bytes, reset }: ServiceCommand & { do: "exchange" },
  ): Promise<Exchanged> {
    const stream = await this.#endpoint().openStream(nodeId, { topic, lane });
    const sent = pattern(bytes);
    const reading = readAll(stream);
    const end = stream.closed.then(() => "closed", (error) => {
      const { remoteCode, code } = codesOf(error);
      return remoteCode ?? code ?? String(error);
    });
    const writer = stream.writable.getWriter();
    try {
      for (let at = 0; at < bytes; at += CHUNK_BYTES) {
        await writer.write(sent.subarray(at, at + CHUNK_BYTES));
      }
      if (reset) stream.reset("OVER", "no more of this");
      else await writer.close();
    } catch {
      // `end` says why.
    }
    const received = await reading;
    return {
      received: received.length,
      same: received.length === bytes && received.every((byte, i) => byte === sent[i]),
      text: received.length < 100 ? new TextDecoder().decode(received) : "",
      end: await end,
    };
  }

  /** Sends numbered messages to every node until it is stopped. */
  #flow(nodeIds: string[], from: number): void {
    this.#flowing = true;
    this.#loops = Promise.all(nodeIds.map(async (nodeId) => {
      const flow: Flowed = this.#flows[nodeId] = { from, to: from, undelivered: [] };
      while (this.#flowing) {
        await this.#endpoint().send(nodeId, this.#makeMessage(flow.to++, FLOW_SIZE));
        await new Promise((resolve) => setTimeout(resolve, FLOW_INTERVAL_MS));
      }
    }));
  }
}

function codesOf(error: unknown): Outcome {
  const { code, remoteCode, name } = error as { code?: string; remoteCode?: string; name: string };
  const own = typeof code === "string" ? code : name;
  return remoteCode === undefined ? { code: own } : { code: own, remoteCode };
}

/** Half of it compresses well. */
function pattern(length: number): Uint8Array {
  return Uint8Array.from({ length }, (_, i) => i % 2 === 0 ? 97 : (i * 31 + (i >> 8) * 7) & 0xff);
}

/** What comes until the end or the failure of the stream. */
async function readAll({ readable }: TransportStream): Promise<Uint8Array> {
  const parts: Uint8Array[] = [];
  let length = 0;
  try {
    for await (const part of readable) {
      parts.push(part.slice());
      length += part.length;
    }
  } catch {
    // Said by `closed`.
  }
  const all = new Uint8Array(length);
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}
