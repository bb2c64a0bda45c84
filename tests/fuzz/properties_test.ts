/** What must hold of every conversation, whatever is said and however it is cut. */

import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import { FrameDecoder } from "../../mod.ts";
import { crc32 } from "../../src/runtime/crc32.ts";
import { header, join } from "../bad_input/wire.ts";
import {
  ackEntry,
  failure,
  frameV3,
  helloV3,
  KINDS,
  ref,
  topicOf,
  u32,
} from "../bad_input/wire_v3.ts";
import { countWork, cut } from "../protocol/wire_bytes.ts";
import { converse, type Manner } from "./conversation.ts";

const MANNER: Manner = {
  role: "listener",
  capabilities: ["resume", "streams"],
  maxMessageSize: 65_536,
  holds: false,
};
const HELLO = helloV3();

const sizes = fc.array(fc.integer({ min: 1, max: 400 }), { minLength: 1, maxLength: 8 });
const payloads = fc.oneof(
  fc.uint8Array({ maxLength: 30 }),
  fc.tuple(fc.uint8Array({ minLength: 1, maxLength: 9 }), fc.integer({ min: 1, max: 60 }))
    .map(([part, times]) => join(...Array<Uint8Array>(times).fill(part))),
);

/** A frame that may be right, with a number that mostly is. */
const frames = fc.record({
  kind: fc.constantFrom(...Object.keys(KINDS) as (keyof typeof KINDS)[]),
  lane: fc.integer({ min: 0, max: 2 }),
  skips: fc.constantFrom(0, 0, 0, 0, 0, 0, 0, 0, -1, 1),
  more: fc.constantFrom(false, false, false, true),
  named: fc.integer({ min: 0, max: 5 }),
  payload: payloads,
});
type Spoken = typeof frames extends fc.Arbitrary<infer T> ? T : never;

/** The bytes of frames, numbered in their lanes. */
function written(spoken: readonly Spoken[]): Uint8Array {
  const next = [1, 1, 1];
  return join(...spoken.map(({ kind, lane, skips, more, named, payload }) => {
    const content = payloadOf(kind, named, payload);
    if (KINDS[kind] >= KINDS.ping && KINDS[kind] <= KINDS.goaway) {
      const id = kind === "ping" || kind === "pong" ? named : 0;
      return frameV3({ kind, id, payload: content });
    }
    const id = Math.max(0, next[lane]! + skips);
    next[lane] = id + 1;
    const topic = kind === "open" || kind === "request";
    const whole = topic ? join(topicOf(kind === "open" ? "file" : "get"), content) : content;
    return frameV3({ kind, lane, id, more: more && kind === "data", topic, payload: whole });
  }));
}

function payloadOf(kind: keyof typeof KINDS, named: number, payload: Uint8Array): Uint8Array {
  switch (kind) {
    case "data":
    case "open":
      return payload;
    case "request":
      return join(u32(named), payload);
    case "response":
    case "streamData":
      return ref(named, payload);
    case "error":
    case "reset":
      return ref(named, failure("CODE", "text"));
    case "cancel":
    case "end":
      return ref(named);
    case "window":
      return ref(named, u32(1_000));
    case "ack":
      return ackEntry(named % 3, named);
    case "goaway":
      return Uint8Array.of(0, named);
    default:
      return new Uint8Array(0);
  }
}

describe("a conversation of version 3", () => {
  it("leads to the same in whatever pieces it comes", () => {
    fc.assert(
      fc.property(
        fc.array(frames, { maxLength: 25 }),
        sizes,
        fc.boolean(),
        (spoken, sizes, holds) => {
          const manner = { ...MANNER, holds };
          const bytes = join(HELLO, written(spoken));
          const whole = converse(manner, [bytes]);
          const inPieces = converse(manner, cut(bytes, sizes));
          assert.deepEqual(inPieces.events, whole.events);
          assert.deepEqual(inPieces.written, whole.written);
        },
      ),
      { numRuns: 300 },
    );
  });

  it("delivers messages whole and in the order of their lane, however they are cut and mixed", () => {
    const message = fc.record({
      lane: fc.integer({ min: 0, max: 2 }),
      parts: fc.array(fc.uint8Array({ minLength: 1, maxLength: 200 }), {
        minLength: 1,
        maxLength: 6,
      }),
    });
    const mixes = fc.array(fc.integer({ min: 0, max: 2 }), { minLength: 1, maxLength: 20 });
    fc.assert(
      fc.property(fc.array(message, { maxLength: 12 }), mixes, sizes, (messages, mix, sizes) => {
        const waiting = fragmentsOf(messages);
        const stream: Uint8Array[] = [HELLO];
        for (let i = 0; waiting.some((lane) => lane.length > 0); i++) {
          const lane = waiting[mix[i % mix.length]!]!;
          const frame = lane.shift() ?? waiting.find((lane) => lane.length > 0)!.shift()!;
          stream.push(frame);
        }
        const { events } = converse(MANNER, cut(join(...stream), sizes));
        for (const lane of [0, 1, 2]) {
          assert.deepEqual(
            events.filter((event) => event.startsWith(`${lane} undefined `)),
            messages.filter((message) => message.lane === lane).map(({ parts }) => {
              const whole = join(...parts);
              return `${lane} undefined ${whole.length} ${crc32(whole)}`;
            }),
          );
        }
        assert.equal(events.length, 1 + messages.length);
      }),
      { numRuns: 200 },
    );
  });

  it("drops what was received before, and ends at the first gap", () => {
    const steps = fc.array(fc.integer({ min: -3, max: 1 }), { maxLength: 30 });
    fc.assert(
      fc.property(steps, fc.boolean(), (steps, hasGap) => {
        let received = 0;
        const expected: string[] = [];
        const stream: Uint8Array[] = [HELLO];
        const send = (id: number) => stream.push(frameV3({ id, payload: `${id}` }));
        for (const step of steps) {
          const id = Math.max(1, received + step);
          send(id);
          if (id !== received + 1) continue;
          received = id;
          expected.push(
            `1 undefined ${`${id}`.length} ${crc32(new TextEncoder().encode(`${id}`))}`,
          );
        }
        if (hasGap) {
          send(received + 2);
          send(received + 1);
        }
        const { events } = converse(MANNER, stream);
        const [, ...told] = events;
        assert.deepEqual(told.slice(0, expected.length), expected);
        const rest = told.slice(expected.length);
        assert.equal(rest.length, hasGap ? 1 : 0);
        if (hasGap) assert.match(rest[0]!, /^InvalidFrame: .*number \d+ follows \d+/);
      }),
    );
  });
});

describe("a decoder of frames", () => {
  it("takes memory for at most four times the bytes that came, whatever lengths they claim", () => {
    const claims = fc.integer({ min: 1, max: 16_777_216 });
    const rest = fc.array(fc.uint8Array({ minLength: 1, maxLength: 2_000 }), { maxLength: 20 });
    fc.assert(
      fc.property(claims, rest, sizes, (claim, rest, sizes) => {
        const bytes = join(header(claim), ...rest);
        const chunks = cut(bytes, sizes);
        const decoder = new FrameDecoder({ maxFrameBytes: 16_777_216 });
        const { allocated } = countWork(() => {
          for (const chunk of chunks) {
            decoder.push(chunk);
            try {
              while (decoder.next() !== undefined);
            } catch {
              // A length of 0 in the bytes that follow.
            }
          }
        });
        // The first buffer of each frame has at least 64 bytes; small frames share them.
        assert.ok(allocated <= 4 * bytes.length + 128, `${allocated} for ${bytes.length}`);
        assert.ok(decoder.bufferedBytes <= bytes.length);
      }),
      { numRuns: 300 },
    );
  });
});

/** The frames of each lane, in order. */
function fragmentsOf(
  messages: readonly { readonly lane: number; readonly parts: readonly Uint8Array[] }[],
): Uint8Array[][] {
  const lanes: Uint8Array[][] = [[], [], []];
  for (const { lane, parts } of messages) {
    const frames = lanes[lane]!;
    parts.forEach((payload, i) => {
      const more = i < parts.length - 1;
      frames.push(frameV3({ lane, id: frames.length + 1, more, payload }));
    });
  }
  return lanes;
}
