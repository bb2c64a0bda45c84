/** Over TCP, a payload is the sender's again after send, and the receiver's for ever. */

import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { Endpoint, type EndpointConfig, type LaneName, type Message } from "../../mod.ts";
import { seededRandom } from "../support/memory_network.ts";

const LANES: readonly LaneName[] = ["control", "normal", "bulk"];
/** Small ones that share frames and reads, those around a fragment, and many fragments. */
const SIZES = [
  ...[8, 8, 20, 300, 300, 5_000, 60_000, 65_536, 65_537],
  ...[140_000, 262_144, 300_000, 1_000_000],
];
const MESSAGES = 150;
const EVERY_REQUEST = 25;
const REQUEST_BYTES = 200_000;

/** Bytes that follow from the number at their start; those of every third compress well. */
function numbered(number: number, size: number): Uint8Array {
  const words = new Uint32Array(Math.ceil(size / 4));
  let word = number * 2_654_435_761 >>> 0;
  for (let i = 0; i < words.length; i++) {
    word = Math.imul(word ^ word >>> 15, 0x2c1b_3c6d) + 0x9e37_79b9 >>> 0;
    words[i] = number % 3 === 0 && i > 16 ? number : word;
  }
  words[0] = number;
  return new Uint8Array(words.buffer, 0, size);
}

function numberOf(payload: Uint8Array): number {
  return new Uint32Array(payload.slice(0, 4).buffer)[0]!;
}

function isIntact(payload: Uint8Array): boolean {
  const expected = numbered(numberOf(payload), payload.length);
  return payload.every((byte, i) => byte === expected[i]);
}

/** Runs a test with two endpoints that are connected over TCP. */
async function withPair(test: (a: Endpoint, b: Endpoint) => Promise<void>): Promise<void> {
  const common: Partial<EndpointConfig> = { security: "legacy", poolSize: 2 };
  const b = new Endpoint({ ...common, nodeId: "b", listen: "127.0.0.1:0", recvBufferSize: 20 });
  const a = new Endpoint({ ...common, nodeId: "a", maxPendingMessages: 20 });
  try {
    await b.start();
    await a.start();
    await a.connect({ nodeId: "b", address: b.addresses[0]! });
    await test(a, b);
  } finally {
    await Promise.all([a, b].map((endpoint) => endpoint.close({ drainMs: 0 })));
  }
}

/** What a receiver has got. */
interface Kept {
  readonly messages: Message[];
  /** How many were wrong already when they came. */
  wrong: number;
  /** Resolves when all messages are there. */
  readonly all: Promise<void>;
}

/** Keeps what "b" gets, as it is. */
function keepAll(b: Endpoint): Kept {
  let complete = () => {};
  const all = new Promise<void>((resolve) => complete = resolve);
  const kept: Kept = { messages: [], wrong: 0, all };
  b.onMessage((message) => {
    const count = kept.messages.push(message);
    if (!isIntact(message.payload)) kept.wrong++;
    if (count === MESSAGES) complete();
    // So that others wait in the inbox meanwhile.
    if (count % 10 === 0) return new Promise((resolve) => setImmediate(resolve));
  });
  return kept;
}

/** A request with a payload that is changed at once; whether its echo is as it was. */
async function echoes(a: Endpoint, number: number): Promise<boolean> {
  const payload = numbered(number, REQUEST_BYTES);
  const answer = a.request("b", payload, { topic: "echo" });
  payload.fill(1);
  const got = await answer;
  return numberOf(got) === number && isIntact(got);
}

describe("payloads of every lane and size", () => {
  it("arrive as they were when they were sent, and stay as they arrived", () =>
    withPair(async (a, b) => {
      const random = seededRandom(7);
      const anyOf = <T>(list: readonly T[]) => list[Math.floor(random() * list.length)]!;
      const kept = keepAll(b);
      b.handle("echo", ({ payload }) => payload);
      const sent = new Map<LaneName, number[]>(LANES.map((lane) => [lane, []]));
      const answers: Promise<boolean>[] = [];
      for (let number = 1; number <= MESSAGES; number++) {
        const lane = anyOf(LANES);
        const payload = numbered(number, anyOf(SIZES));
        sent.get(lane)!.push(number);
        await a.send("b", payload, { lane });
        payload.fill(0xee);
        if (number % EVERY_REQUEST === 0) answers.push(echoes(a, number));
      }
      assert.deepEqual(new Set(await Promise.all(answers)), new Set([true]));
      await kept.all;
      assert.equal(kept.wrong, 0, "when they came");
      for (const [lane, numbers] of sent) {
        const got = kept.messages.filter((message) => message.lane === lane);
        assert.deepEqual(got.map(({ payload }) => numberOf(payload)), numbers);
      }
      const changed = kept.messages.filter(({ payload }) => !isIntact(payload));
      assert.deepEqual(changed.map(({ payload }) => payload.length), [], "since they came");
    }));
});
