import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import { TransportError } from "../../src/errors.ts";
import { Outbox } from "../../src/protocol/outbox.ts";
import { FrameCodec } from "../../src/protocol/v3/frame_codec.ts";
import type { OutMessage } from "../../src/protocol/v3/out_message.ts";
import { Received, ReceiveLane } from "../../src/protocol/v3/receive_lane.ts";
import { type LaneChannel, type Run, SendLane } from "../../src/protocol/v3/send_lane.ts";
import { FRAGMENT_BYTES, KIND } from "../../src/protocol/v3/types.ts";

const LENGTH_BYTES = 4;
const MAX_MESSAGE = 4 * FRAGMENT_BYTES;
/** More than any of these tests writes. */
const MANY_FRAMES = 1_000;

/** A connection whose bytes arrive when the test says so. */
class Wire implements LaneChannel {
  readonly codec = new FrameCodec({
    checksum: false,
    crc32: () => 0,
    lz4: undefined,
    zstd: undefined,
    method: undefined,
    compressMinSize: 0,
    maxMessageSize: MAX_MESSAGE,
  });
  readonly outbox = new Outbox();
  openRun: Run | undefined;
  /** Bodies of frames on their way. */
  readonly frames: Uint8Array[] = [];
  #runs: Run[] = [];

  addRun(run: Run): void {
    this.#runs.push(run);
  }

  /** Takes the batch out, as a connection does when it writes. */
  flush(): void {
    const chunk = this.outbox.take();
    this.openRun = undefined;
    if (chunk === undefined) return;
    for (const run of this.#runs) run.chunk = chunk;
    this.#runs = [];
    const view = new DataView(chunk.buffer, chunk.byteOffset);
    for (let at = 0; at < chunk.length;) {
      const length = view.getUint32(at);
      this.frames.push(chunk.slice(at + LENGTH_BYTES, at + LENGTH_BYTES + length));
      at += LENGTH_BYTES + length;
    }
  }
}

function message(size: number, first: number, atMostOnce = false): OutMessage {
  const payload = new Uint8Array(size);
  if (size > 0) payload[0] = first;
  const tracker = undefined;
  return {
    kind: KIND.data,
    lane: 1,
    topic: undefined,
    prefix: undefined,
    payload,
    atMostOnce,
    tracker,
  };
}

/** A lane, a receiver, and the connection between them. */
class Pair {
  readonly lane = new SendLane(1, { charge: 0, messages: 0, bytes: 0 });
  readonly receiver = new ReceiveLane(1, MAX_MESSAGE);
  wire = new Wire();
  /** First byte and length of what arrived. */
  readonly arrived: [number | undefined, number][] = [];
  readonly #into = new Received();

  constructor() {
    this.attach();
  }

  attach(): void {
    this.lane.attach(this.wire, this.receiver.received);
  }

  send(size: number, first: number, atMostOnce = false): void {
    const sent = message(size, first, atMostOnce);
    if (size > FRAGMENT_BYTES) this.lane.begin(this.wire, sent, FRAGMENT_BYTES, 0);
    else this.lane.writeSmall(this.wire, sent, sent.payload, 0);
  }

  writeNext(): void {
    this.lane.writeNext(this.wire, 0);
  }

  /** The next frame arrives. */
  deliver(): void {
    this.wire.flush();
    const body = this.wire.frames.shift();
    if (body === undefined) return;
    const frame = this.wire.codec.decode(body);
    if (!this.receiver.accept(frame, this.#into) || this.#into.kind !== KIND.data) return;
    this.arrived.push([this.#into.payload[0], this.#into.payload.length]);
  }

  /** The connection breaks; the next one is there. */
  reconnect(): void {
    this.wire.flush();
    this.lane.detach();
    this.wire = new Wire();
    this.attach();
  }

  finish(): void {
    for (let frames = 0; this.lane.resending || this.lane.midMessage; frames++) {
      assert.ok(frames < MANY_FRAMES, "it writes without end");
      this.writeNext();
    }
    this.wire.flush();
    while (this.wire.frames.length > 0) this.deliver();
    this.lane.acknowledge(this.receiver.admitted);
  }
}

describe("a lane that sends", () => {
  it("writes nothing again of a message whose written half was acknowledged meanwhile", () => {
    const pair = new Pair();
    pair.send(FRAGMENT_BYTES + 10, 7);
    pair.deliver();
    // The next connection is taken before the acknowledgement of the first fragment comes.
    pair.wire.flush();
    pair.lane.detach();
    pair.wire = new Wire();
    pair.lane.attach(pair.wire, 0);
    assert.equal(pair.lane.resending, true);
    pair.lane.acknowledge(1);
    assert.equal(pair.lane.resending, false);
    pair.finish();
    assert.deepEqual(pair.arrived, [[7, FRAGMENT_BYTES + 10]]);
    assert.deepEqual([pair.lane.lastId, pair.lane.idle], [2, true]);
  });

  it("reaches a mark when all of a message that was half written is acknowledged", () => {
    const pair = new Pair();
    const reached: boolean[] = [];
    pair.send(2 * FRAGMENT_BYTES + 1, 1);
    pair.lane.mark((acknowledged) => reached.push(acknowledged));
    pair.lane.acknowledge(1);
    pair.writeNext();
    pair.lane.acknowledge(2);
    assert.deepEqual(reached, []);
    pair.writeNext();
    pair.send(1, 2);
    pair.lane.acknowledge(3);
    assert.deepEqual(reached, [true]);
  });

  it("tells a mark that its message has ended otherwise", () => {
    const pair = new Pair();
    const reached: boolean[] = [];
    pair.send(2 * FRAGMENT_BYTES, 1);
    pair.lane.mark((acknowledged) => reached.push(acknowledged));
    assert.deepEqual(pair.lane.end().map(({ payload }) => payload.length), [2 * FRAGMENT_BYTES]);
    assert.deepEqual(reached, [false]);
  });

  it("does not take an acknowledgement of what was never written", () => {
    const pair = new Pair();
    pair.send(1, 1);
    const isInvalid = (error: unknown) =>
      error instanceof TransportError && error.code === "InvalidFrame";
    assert.throws(() => pair.lane.acknowledge(2), isInvalid);
    assert.throws(() => pair.lane.attach(pair.wire, 2), isInvalid);
  });

  it("brings everything over once and in order, whatever breaks and whenever it is acknowledged", () => {
    const size = fc.constantFrom(0, 9, FRAGMENT_BYTES, FRAGMENT_BYTES + 1, 2 * FRAGMENT_BYTES + 1);
    const action = fc.oneof(
      { weight: 2, arbitrary: fc.record({ do: fc.constant("send"), size }) },
      ...["write", "deliver", "deliver", "ack", "reconnect", "late ack"].map((name) =>
        fc.record({ do: fc.constant(name), size: fc.constant(0) })
      ),
    );
    fc.assert(
      fc.property(fc.array(action, { maxLength: 60, size: "max" }), (actions) => {
        const pair = new Pair();
        const sent: [number | undefined, number][] = [];
        let known = 0;
        for (const { do: what, size } of actions) {
          switch (what) {
            case "send": {
              if (pair.lane.resending || pair.lane.midMessage) break;
              const first = sent.length % 256;
              pair.send(size, first);
              sent.push([size === 0 ? undefined : first, size]);
              break;
            }
            case "write":
              if (pair.lane.resending || pair.lane.midMessage) pair.writeNext();
              break;
            case "deliver":
              pair.deliver();
              break;
            case "ack":
              pair.lane.acknowledge(pair.receiver.admitted);
              break;
            case "late ack":
              // What was true some time ago.
              pair.lane.acknowledge(known);
              known = pair.receiver.admitted;
              break;
            case "reconnect":
              pair.wire.flush();
              pair.lane.detach();
              pair.wire = new Wire();
              // What the peer said in the handshake may be old by now.
              pair.lane.attach(pair.wire, known);
              break;
          }
        }
        pair.finish();
        assert.deepEqual(pair.arrived, sent);
        assert.equal(pair.lane.idle, true);
      }),
      { numRuns: 300 },
    );
  });
});
