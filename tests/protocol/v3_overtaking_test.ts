/** Numbers of a lane that overtake each other: what is received, kept, and written again. */

import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import { TransportError } from "../../src/errors.ts";
import { Outbox } from "../../src/protocol/outbox.ts";
import { FrameCodec } from "../../src/protocol/v3/frame_codec.ts";
import { NumbersAhead } from "../../src/protocol/v3/numbers_ahead.ts";
import { Received, ReceiveLane, WAY, type Way } from "../../src/protocol/v3/receive_lane.ts";
import { type LaneChannel, type Run, sealRuns, SendLane } from "../../src/protocol/v3/send_lane.ts";
import { KIND } from "../../src/protocol/v3/types.ts";
import { bodyV3, type FrameV3, ref } from "../bad_input/wire_v3.ts";

const MAX_MESSAGE = 1_000;
const RECEIVE_WINDOW = 1_048_576;
/** Frames of at least 256 bytes that fit in the window, and 64. */
const MAX_AHEAD = 4_096 + 64;

function newCodec(): FrameCodec {
  return new FrameCodec({
    checksum: false,
    crc32: () => 0,
    lz4: undefined,
    zstd: undefined,
    method: undefined,
    compressMinSize: 0,
    maxMessageSize: MAX_MESSAGE,
  });
}

describe("NumbersAhead", () => {
  it("knows what a set of numbers knows", () => {
    const step = fc.tuple(fc.integer({ min: 1, max: 5_000 }), fc.boolean());
    fc.assert(fc.property(fc.array(step, { maxLength: 300 }), (steps) => {
      const ahead = new NumbersAhead();
      const model = new Set<number>();
      let received = 2 ** 40;
      for (const [offset, next] of steps) {
        const id = next ? received + 1 : received + offset;
        assert.equal(ahead.has(id, received), model.has(id));
        if (model.has(id)) continue;
        if (id === received + 1) {
          received = ahead.goOn(id);
          let last = id;
          while (model.delete(last + 1)) last++;
          assert.equal(received, last);
        } else {
          ahead.add(id, received);
          model.add(id);
        }
        assert.equal(ahead.empty, model.size === 0);
      }
    }));
  });
});

/** A lane whose frames are written by hand. */
class Inwards {
  readonly lane = new ReceiveLane(1, MAX_MESSAGE, RECEIVE_WINDOW);
  readonly into = new Received();
  readonly #codec = newCodec();

  accept(frame: FrameV3, way: Way): boolean {
    return this.lane.accept(this.#codec.decode(bodyV3(frame)), this.into, way);
  }
}

/** What a sender has to send: a message, in fragments or whole, or a frame of a stream. */
type Item = { readonly fragments: number } | { readonly stream: number };

interface Numbered {
  readonly frame: FrameV3;
  /** 0 is the main stream. */
  readonly path: number;
  /** What is told when it is whole: which message, or which frame of which stream. */
  readonly tells: string | undefined;
}

function numbered(items: readonly Item[]): Numbered[] {
  const frames: Numbered[] = [];
  const counts = new Map<number, number>();
  for (const [index, item] of items.entries()) {
    if ("stream" in item) {
      const { stream } = item;
      const count = (counts.get(stream) ?? 0) + 1;
      counts.set(stream, count);
      const id = frames.length + 1;
      const frame: FrameV3 = count === 1
        ? { kind: "open", id, payload: `${stream}.1` }
        : { kind: "streamData", id, payload: ref(stream, `${stream}.${count}`) };
      frames.push({ frame, path: stream, tells: `${stream}.${count}` });
      continue;
    }
    for (let left = item.fragments; left > 0; left--) {
      const frame = { id: frames.length + 1, more: left > 1, payload: `[${index}]` };
      const tells = left > 1 ? undefined : `[${index}]`.repeat(item.fragments);
      frames.push({ frame, path: 0, tells });
    }
  }
  return frames;
}

describe("a lane whose frames overtake each other", () => {
  const item: fc.Arbitrary<Item> = fc.oneof(
    fc.record({ fragments: fc.integer({ min: 1, max: 4 }) }),
    fc.record({ stream: fc.integer({ min: 1, max: 5 }) }),
  );
  const story = fc.record({
    items: fc.array(item, { minLength: 1, maxLength: 60 }),
    order: fc.infiniteStream(fc.nat(1_000)),
    cutAfter: fc.nat(80),
    told: fc.nat(1_000),
    again: fc.constantFrom(WAY.inOrder, WAY.main),
  });

  it("tells each message and each stream in order, once, and knows no more than it has", () => {
    fc.assert(fc.property(story, ({ items, order, cutAfter, told, again }) => {
      const frames = numbered(items);
      const side = new Inwards();
      const seen: string[] = [];
      const known = new Set<number>();
      const take = ({ frame }: Numbered, way: Way) => {
        const whole = side.accept(frame, way);
        if (whole) seen.push(new TextDecoder().decode(side.into.payload));
        known.add(frame.id as number);
        let received = 0;
        while (known.has(received + 1)) received++;
        assert.equal(side.lane.received, received);
        assert.ok(side.lane.admitted <= received);
        assert.equal(side.lane.hasGap, known.size > received);
      };
      const paths = [0, 1, 2, 3, 4, 5].map((path) => frames.filter((one) => one.path === path));
      for (let left = cutAfter; left > 0; left--) {
        const ready = paths.filter((path) => path.length > 0);
        if (ready.length === 0) break;
        const next = ready[order.next().value! % ready.length]!.shift()!;
        take(next, next.path === 0 ? WAY.main : WAY.substream);
      }
      // The connection is lost. What the sender was told may be older than what is received.
      const from = Math.min(told, side.lane.received);
      for (const one of frames.slice(from)) take(one, again);
      assert.equal(side.lane.received, frames.length);
      const all = frames.flatMap(({ tells }) => tells ?? []);
      assert.deepEqual([...seen].sort(), [...all].sort());
      for (const start of ["[", "1.", "2.", "3.", "4.", "5."]) {
        const of = (texts: string[]) => texts.filter((text) => text.startsWith(start));
        assert.deepEqual(of(seen), of(all));
      }
    }));
  });

  it("acknowledges no message that waits for the application", () => {
    const side = new Inwards();
    assert.ok(side.accept({ id: 2, payload: "x" }, WAY.main));
    side.lane.hold(side.into);
    assert.ok(side.accept({ kind: "open", id: 1 }, WAY.substream));
    assert.equal(side.lane.received, 2);
    assert.equal(side.lane.admitted, 1);
    side.lane.admit();
    assert.equal(side.lane.admitted, 2);
  });

  it("counts what it knows beyond a gap as duplicates", () => {
    const side = new Inwards();
    const late: FrameV3 = { kind: "open", id: 3 };
    assert.ok(side.accept(late, WAY.substream));
    assert.ok(!side.accept(late, WAY.main));
    assert.ok(!side.accept(late, WAY.inOrder));
    assert.equal(side.lane.duplicates, 2);
  });

  it("refuses a gap where nothing overtakes, and one that no window has room for", () => {
    const open = (id: number): FrameV3 => ({ kind: "open", id });
    const side = new Inwards();
    assert.throws(() => side.accept(open(2), WAY.inOrder), invalid);
    assert.throws(() => side.accept(open(MAX_AHEAD + 1), WAY.substream), invalid);
    assert.throws(() => side.accept(open(2 ** 53 - 1), WAY.main), invalid);
    assert.throws(() => side.accept({ kind: "open", id: 2n ** 64n - 1n }, WAY.main), invalid);
    assert.ok(side.accept(open(MAX_AHEAD), WAY.substream));
  });

  it("refuses messages and fragments on sub-streams, and messages that are late", () => {
    const side = new Inwards();
    assert.throws(() => side.accept({ id: 1, payload: "x" }, WAY.substream), invalid);
    const begun: FrameV3 = { kind: "open", id: 1, more: true, payload: "x" };
    assert.throws(() => side.accept(begun, WAY.substream), invalid);
    assert.ok(side.accept({ id: 3, payload: "x" }, WAY.main));
    assert.throws(() => side.accept({ id: 2, payload: "x" }, WAY.main), invalid);
    assert.throws(() => side.accept({ ...begun, id: 2 }, WAY.main), invalid);
    assert.ok(side.accept({ kind: "open", id: 2 }, WAY.main));
  });

  it("refuses a gap inside a message in fragments", () => {
    const side = new Inwards();
    assert.ok(!side.accept({ id: 1, more: true, payload: "x" }, WAY.main));
    assert.throws(() => side.accept({ id: 3, payload: "x" }, WAY.main), invalid);
    // Nor does a sub-stream take a number out of it.
    const other = new Inwards();
    other.accept({ id: 1, more: true, payload: "x" }, WAY.main);
    other.accept({ kind: "open", id: 2 }, WAY.substream);
    assert.throws(() => other.accept({ id: 3, payload: "x" }, WAY.main), invalid);
  });
});

function invalid(error: unknown): boolean {
  return error instanceof TransportError && error.code === "InvalidFrame";
}

/** One way to the other side: the main stream of a connection, or a sub-stream. */
class Wire implements LaneChannel {
  readonly codec = newCodec();
  readonly outbox = new Outbox();
  openRun: Run | undefined;
  #runs: Run[] = [];

  addRun(run: Run): void {
    this.#runs.push(run);
  }

  /** Takes the batch out; returns the numbers in it. */
  flush(): number[] {
    const chunk = this.outbox.take();
    this.openRun = undefined;
    if (chunk === undefined) return [];
    sealRuns(this.#runs, chunk, undefined);
    this.#runs = [];
    const view = new DataView(chunk.buffer, chunk.byteOffset);
    const ids: number[] = [];
    for (let at = 0; at < chunk.length; at += 4 + view.getUint32(at)) {
      ids.push(Number(view.getBigUint64(at + 6)));
    }
    return ids;
  }
}

describe("a lane that is written to several streams of a connection", () => {
  const step = fc.record({ wire: fc.nat(3), flush: fc.boolean() });

  it("writes again what was not acknowledged, in order, whichever streams it was on", () => {
    fc.assert(
      fc.property(fc.array(step, { maxLength: 80 }), fc.nat(80), fc.nat(80), (steps, x, y) => {
        const unacked = { charge: 0, messages: 0, bytes: 0 };
        const lane = new SendLane(1, unacked);
        const wires = [new Wire(), new Wire(), new Wire(), new Wire()];
        lane.attach(wires[0]!, 0);
        const frame = { kind: KIND.streamEnd, topic: undefined, prefix: undefined };
        for (const { wire, flush } of steps) {
          const message = { ...frame, atMostOnce: false, tracker: undefined };
          lane.writeSmall(wires[wire]!, message, new Uint8Array(8), 0);
          if (flush) wires[wire]!.flush();
        }
        for (const wire of wires) wire.flush();
        const [acked, received] = [Math.min(x, y), Math.max(x, y)]
          .map((id) => Math.min(id, steps.length)) as [number, number];
        lane.acknowledge(acked);
        assert.equal(unacked.messages, steps.length - acked);
        lane.detach();
        const next = new Wire();
        lane.attach(next, received);
        while (lane.resending) lane.writeNext(next, 0);
        const expected = Array.from(
          { length: steps.length - received },
          (_, index) => received + index + 1,
        );
        assert.deepEqual(next.flush(), expected);
        lane.acknowledge(steps.length);
        assert.deepEqual([unacked.messages, unacked.bytes, unacked.charge], [0, 0, 0]);
        assert.ok(lane.idle);
      }),
    );
  });
});
