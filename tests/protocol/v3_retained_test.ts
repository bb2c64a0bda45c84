/** How much memory a connection of version 3 keeps for what a peer has sent. */

import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import { Connection, type ConnectionSink } from "../../src/protocol/connection.ts";
import { detectRuntime } from "../../src/runtime/runtime.ts";
import type { Negotiated } from "../../src/protocol/handshake.ts";
import { ReplayWindow } from "../../src/protocol/replay.ts";
import { Backlog } from "../../src/protocol/v3/backlog.ts";
import { Session } from "../../src/protocol/v3/session.ts";
import type { Compressor } from "../../src/protocol/v3/compression.ts";
import { crc32 } from "../../src/runtime/crc32.ts";
import { loadLz4 } from "../../src/runtime/lz4.ts";
import { loadZstd } from "../../src/runtime/zstd.ts";
import { seededRandom } from "../support/memory_network.ts";
import { frameV3, helloV3 } from "../bad_input/wire_v3.ts";
import { Buffers } from "./collected_memory.ts";
import { identity } from "./identities.ts";
import { concat, hex } from "./wire_bytes.ts";

/** What is kept at most for each byte that came; one of a compressed payload counts unpacked. */
const BYTES_PER_BYTE = 4;
/** What is kept whatever came: the last read, an outbox, a buffer to put frames together in. */
const MORE_BYTES = 393_216;
/** Bun's collector takes what looks like an address for one: a message may seem to be in use. */
const MISTAKEN_BYTES = detectRuntime().name === "bun" ? 4_194_304 : 0;
/** The runtimes read into buffers of this size, however little comes. */
const READ_BYTES = 65_536;
const MAX_MESSAGE_BYTES = 4_194_304;
const HELLO = helloV3({
  capabilities: ["lz4", "zstd", "resume", "streams"],
  max_message_size: MAX_MESSAGE_BYTES,
});
/** Each is slow, and does not get clearer by being made smaller. */
const RUNS = { numRuns: 15, endOnFailure: true };
const FRAGMENTS = [8_000, 65_536, 1_500_000, MAX_MESSAGE_BYTES];
const METHODS = [undefined, "lz4", "zstd"] as const;

const lz4 = await loadLz4();
const zstd = loadZstd();

/** A connection, its session, and an application that takes messages or does not. */
class Side implements ConnectionSink {
  readonly connection: Connection;
  readonly writable = true;
  takes = false;
  messages = 0;
  session: Session | undefined;

  constructor(buffers: Buffers) {
    const noting = ({ compress, decompress }: Compressor): Compressor => ({
      compress,
      decompress: (packed) => buffers.note(decompress(packed)),
    });
    const maxMessageSize = MAX_MESSAGE_BYTES;
    const capabilities = ["lz4", "zstd", "resume", "streams"] as const;
    this.connection = new Connection(
      {
        role: "listener",
        local: identity({ nodeId: "node2", maxVersion: 3, capabilities, maxMessageSize }),
        nonce: hex("000102030405060708090a0b0c0d0e0f"),
        expectNodeId: undefined,
        wallClockOffset: 1_700_000_000_000,
        replay: new ReplayWindow({ maxSkewMs: 300_000 }),
        claimSession: () => ({ claim: undefined, generation: 0 }),
        handshakeDeadline: 5_000,
        ioTimeoutMs: 30_000,
        keepaliveMs: 30_000,
        healthCheckMs: undefined,
        lz4: noting(lz4),
        zstd: zstd && noting(zstd),
        compressMethod: "lz4",
        compressMinSize: 256,
        crc32,
      },
      this,
      0,
    );
  }

  onIdentity(): undefined {}

  onHello(): undefined {}

  offerSession() {
    const offer = { id: "00".repeat(16), resumed: false, received: [0, 0, 0] } as const;
    return { offer, generation: 0 };
  }

  onEstablished({ maxMessageSize, receiveWindow }: Negotiated): void {
    this.session = new Session(
      {
        resume: true,
        seal: undefined,
        maxMessageSize,
        peerWindow: receiveWindow,
        // Reading goes on, so that much is kept.
        receiveWindow: 1_073_741_824,
        strategy: "first-available",
        backlog: new Backlog(),
      },
      {
        wantsMessage: () => this.takes,
        onMessage: () => this.messages++,
        onOther: () => assert.fail("there are only messages"),
        checkLoad() {},
        onRoom() {},
        onSent() {},
        onPayloadFree() {},
        onBusy() {},
        onTimer() {},
      },
      0,
    );
    this.session.attach(this.connection.channel!, [0, 0, 0], 0);
  }

  wantsMessage(): boolean {
    return this.takes;
  }

  onMessage(): void {}
  onSilent(): void {}
  onSuspect(): void {}
  onGoaway(): void {}
  onDrained(): void {}
  flushSoon(): void {}

  flush(): void {
    this.connection.outbox.take();
  }

  onError(error: Error): void {
    throw error;
  }
}

/** One message, and how it is sent. */
interface Sent {
  readonly lane: number;
  readonly bytes: number;
  readonly fragmentBytes: number;
  readonly method: "lz4" | "zstd" | undefined;
  /** How well it compresses: one of so many bytes is new. */
  readonly fresh: number;
}

const common = {
  lane: fc.integer({ min: 0, max: 2 }),
  method: fc.constantFrom(...METHODS),
  fresh: fc.constantFrom(1, 4, 1_000),
};
/** Small ones come in numbers; long ones whole, or in fragments. */
const sent: fc.Arbitrary<Sent[]> = fc.oneof(
  fc.tuple(
    fc.record({ ...common, bytes: fc.integer({ min: 1, max: 300 }) }),
    fc.integer({ min: 1, max: 40 }),
  ).map(([message, times]) => Array<Sent>(times).fill({ ...message, fragmentBytes: 300 })),
  fc.record({
    ...common,
    bytes: fc.oneof(fc.integer({ min: 1, max: 40_000 }), fc.integer({ min: 1, max: 600_000 })),
    fragmentBytes: fc.constantFrom(8_000, 33_000, 65_536, MAX_MESSAGE_BYTES),
  }).map((message) => [message]),
);

function contentOf({ bytes, fresh }: Sent, random: () => number): Uint8Array {
  const content = new Uint8Array(bytes).fill(7);
  for (let i = 0; i < bytes; i += fresh) content[i] = random() * 256;
  return content;
}

/** The frames of messages, lane by lane and mixed; what is unpacked is added to what comes. */
function framesOf(messages: readonly Sent[], seed: number): { stream: Uint8Array; extra: number } {
  const random = seededRandom(seed);
  const lanes: Uint8Array[][] = [[], [], []];
  let extra = 0;
  for (const message of messages) {
    const content = contentOf(message, random);
    const frames = lanes[message.lane]!;
    for (let at = 0; at < content.length; at += message.fragmentBytes) {
      const part = content.slice(at, at + message.fragmentBytes);
      const compressor = message.method === "lz4" ? lz4 : message.method && zstd;
      const packed = compressor?.compress(part);
      extra += packed === undefined ? 0 : Math.max(0, part.length - packed.length);
      const compression = packed === undefined ? 0 : message.method === "lz4" ? 1 : 2;
      frames.push(frameV3({
        lane: message.lane,
        id: frames.length + 1,
        more: at + part.length < content.length,
        compression,
        payload: packed ?? part,
      }));
    }
  }
  const mixed: Uint8Array[] = [];
  while (lanes.some((frames) => frames.length > 0)) {
    const ready = lanes.filter((frames) => frames.length > 0);
    mixed.push(ready[Math.floor(random() * ready.length)]!.shift()!);
  }
  return { stream: concat(...mixed), extra };
}

/** Feeds a part of the stream, each read in a buffer that is larger than need be. */
function feed(side: Side, buffers: Buffers, stream: Uint8Array, sizes: readonly number[]): void {
  for (let at = 0, i = 0; at < stream.length; i++) {
    const part = stream.subarray(at, at + sizes[i % sizes.length]!);
    const read = new Uint8Array(READ_BYTES).subarray(0, part.length);
    read.set(part);
    buffers.note(read);
    side.connection.handleBytes(read, 0);
    side.flush();
    at += part.length;
  }
}

function assertBounded(retained: number, came: number): void {
  const bound = BYTES_PER_BYTE * came + MORE_BYTES;
  assert.ok(retained <= bound, `${retained} bytes are kept, ${came} came`);
}

/** Takes what waits: so many messages in all. */
async function assertGone(side: Side, buffers: Buffers, messages: number): Promise<void> {
  side.takes = true;
  buffers.watch(() => side.session!.release(0));
  assert.equal(side.messages, messages);
  const retained = await buffers.retained();
  assert.ok(retained <= MORE_BYTES + MISTAKEN_BYTES, `${retained} bytes are kept`);
}

describe("what a connection of version 3 keeps of what came", () => {
  const messages = fc.array(sent, { minLength: 1, maxLength: 6 }).map((parts) => parts.flat());
  const sizes = fc.array(fc.constantFrom(800, 1_461, 20_000, READ_BYTES), {
    minLength: 1,
    maxLength: 5,
  });

  it("is at most four times its bytes, however it is cut, and while nobody takes it", async () => {
    await fc.assert(
      fc.asyncProperty(
        messages,
        sizes,
        fc.double({ min: 0, max: 1, noNaN: true }),
        fc.integer(),
        async (messages, sizes, share, seed) => {
          const buffers = new Buffers();
          const { stream, extra } = framesOf(messages, seed);
          const length = Math.ceil(share * stream.length);
          const side = new Side(buffers);
          buffers.watch(() => {
            feed(side, buffers, HELLO, [READ_BYTES]);
            feed(side, buffers, stream.subarray(0, length), sizes);
          });
          const retained = await buffers.retained();
          assertBounded(retained, length + extra);
          // All of it is still there.
          side.takes = true;
          buffers.watch(() => feed(side, buffers, stream.subarray(length), sizes));
          side.session!.release(0);
          assert.equal(side.messages, messages.length);
        },
      ),
      RUNS,
    );
  });

  for (const fragmentBytes of FRAGMENTS) {
    const name = fragmentBytes === MAX_MESSAGE_BYTES
      ? "one frame"
      : `fragments of ${fragmentBytes}`;

    it(`is so at every point of long messages in ${name}, and nothing when they were taken`, async () => {
      const bytes = fragmentBytes < 100_000 ? 1_000_000 : MAX_MESSAGE_BYTES;
      const long = { bytes, fragmentBytes, method: undefined, fresh: 1 } as const;
      const { stream } = framesOf([0, 1, 2].map((lane) => ({ ...long, lane })), 1);
      const buffers = new Buffers();
      const side = new Side(buffers);
      buffers.watch(() => feed(side, buffers, HELLO, [READ_BYTES]));
      for (let came = 0; came < stream.length;) {
        // Often at first, where a claim weighs most.
        const next = Math.min(stream.length, came + 1_000 + (came >>> 1));
        buffers.watch(() => feed(side, buffers, stream.subarray(came, next), [READ_BYTES]));
        came = next;
        assertBounded(await buffers.retained(), came);
      }
      assert.equal(side.session!.heldMessages, 3);
      await assertGone(side, buffers, 3);
      // And once more for one that nobody held.
      const again = frameV3({ id: side.session!.received[1] + 1, payload: stream.slice(0, bytes) });
      buffers.watch(() => feed(side, buffers, again, [READ_BYTES]));
      await assertGone(side, buffers, 4);
    });
  }

  it("is so where every small message comes in a large read of its own", async () => {
    const buffers = new Buffers();
    const side = new Side(buffers);
    let came = 0;
    buffers.watch(() => {
      feed(side, buffers, HELLO, [READ_BYTES]);
      for (let id = 1; id <= 100; id++) {
        const frame = frameV3({ id, payload: "small" });
        feed(side, buffers, frame, [READ_BYTES]);
        came += frame.length;
      }
    });
    assertBounded(await buffers.retained(), came);
    await assertGone(side, buffers, 100);
  });

  it("is gone when it was taken", async () => {
    await fc.assert(
      fc.asyncProperty(messages, sizes, fc.integer(), async (messages, sizes, seed) => {
        const buffers = new Buffers();
        const side = new Side(buffers);
        const { stream } = framesOf(messages, seed);
        buffers.watch(() => {
          feed(side, buffers, HELLO, [READ_BYTES]);
          feed(side, buffers, stream, sizes);
        });
        await assertGone(side, buffers, messages.length);
      }),
      RUNS,
    );
  });
});
