/** Sub-streams of a connection, and what a peer may not do on them. */

import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { Connection, type ConnectionSink } from "../../src/protocol/connection.ts";
import type { TransportError } from "../../src/errors.ts";
import type { Capability, Negotiated } from "../../src/protocol/handshake.ts";
import { ReplayWindow } from "../../src/protocol/replay.ts";
import { Backlog } from "../../src/protocol/v3/backlog.ts";
import type { OutMessage, SessionPort } from "../../src/protocol/v3/out_message.ts";
import { Session } from "../../src/protocol/v3/session.ts";
import type { StreamCore } from "../../src/protocol/v3/stream_core.ts";
import { StreamTable } from "../../src/protocol/v3/streams.ts";
import type { Substream } from "../../src/protocol/v3/substream.ts";
import { KIND } from "../../src/protocol/v3/types.ts";
import { type FrameV3, frameV3, helloV3, readV3, ref, theirs } from "../bad_input/wire_v3.ts";
import { identity } from "./identities.ts";
import { hex } from "./wire_bytes.ts";

const ALL: readonly Capability[] = ["resume", "streams", "multistream"];
const IO_TIMEOUT_MS = 1_000;
/** What one side opens at most, and what the other takes of it. */
const [MOST, MOST_OF_PEER] = [128, 256];
const NONE = new Uint8Array(0);

/** Our side, which listens. The other side is written by hand. */
class Side implements ConnectionSink, SessionPort {
  readonly connection: Connection;
  readonly backlog = new Backlog();
  readonly streams: StreamTable;
  readonly opened: StreamCore[] = [];
  readonly messages: string[] = [];
  /** What was written to sub-streams, frame by frame: kind and number. */
  readonly written = new Map<Substream, string[]>();
  readonly finished: Substream[] = [];
  error: TransportError | undefined;
  mayWrite = true;
  writable = true;
  offers = true;
  now = 0;
  session: Session | undefined;
  readonly #dirty = new Set<Substream>();

  constructor(
    theirs: readonly string[] = ALL,
    ours: readonly Capability[] = ALL,
    heard: boolean = true,
  ) {
    this.streams = new StreamTable(this, 256, { peer: "node1" }, {
      onStream: (stream) => this.opened.push(stream),
    });
    const local = identity({ nodeId: "node2", maxVersion: 3, capabilities: ours });
    this.connection = new Connection(
      {
        role: "listener",
        local,
        nonce: hex("000102030405060708090a0b0c0d0e0f"),
        expectNodeId: undefined,
        wallClockOffset: 1_700_000_000_000,
        replay: new ReplayWindow({ maxSkewMs: 300_000 }),
        claimSession: () => ({ claim: undefined, generation: 0 }),
        handshakeDeadline: 5_000,
        ioTimeoutMs: IO_TIMEOUT_MS,
        keepaliveMs: undefined,
        healthCheckMs: undefined,
        lz4: undefined,
        zstd: undefined,
        compressMethod: "lz4",
        compressMinSize: 256,
        crc32: () => 0,
      },
      this,
      0,
    );
    this.connection.handleBytes(helloV3({ capabilities: theirs }), 0);
    // The other side has shown that it is there, too.
    if (heard) this.main({ kind: "ping", id: 1 });
  }

  /** What comes on the main stream. */
  main(...frames: FrameV3[]): void {
    for (const frame of frames) this.connection.handleBytes(frameV3(frame), this.now);
  }

  /** What comes on a sub-stream. */
  on(sub: Substream | undefined, ...frames: FrameV3[]): void {
    for (const frame of frames) {
      this.connection.handleSubstreamBytes(sub!, frameV3(frame), this.now);
    }
  }

  accept(): Substream | undefined {
    return this.connection.acceptSubstream(this.now);
  }

  /** Writes what is ready; returns the kinds on the main stream, acks and pings apart. */
  flushAll(): number[] {
    for (const sub of [...this.#dirty]) this.flushSubstream(sub);
    const chunk = this.connection.outbox.take();
    if (chunk === undefined) return [];
    this.connection.channel?.seal(chunk);
    const kinds: number[] = [];
    eachBody(chunk, (body) => kinds.push(body[0] === 0x7b ? -1 : readV3(body).kind));
    return kinds.filter((kind) => kind >= 0 && kind < KIND.ping);
  }

  onEstablished(negotiated: Negotiated): void {
    this.session = new Session(
      {
        resume: true,
        seal: undefined,
        maxMessageSize: negotiated.maxMessageSize,
        peerWindow: negotiated.receiveWindow,
        receiveWindow: 1_048_576,
        strategy: "first-available",
        backlog: this.backlog,
      },
      {
        wantsMessage: () => true,
        onMessage: (_, __, payload) => this.messages.push(new TextDecoder().decode(payload)),
        onOther: ({ kind, lane, id, refHigh, refLow, topic, payload }) => {
          if (kind === KIND.streamOpen) this.streams.handleOpen(lane, id, topic, payload);
          else if (kind === KIND.streamData) {
            this.streams.handleData(lane, refHigh, refLow, payload);
          } else if (kind === KIND.streamEnd) this.streams.handleEnd(lane, refHigh, refLow);
        },
        checkLoad() {},
        onRoom() {},
        onSent() {},
        onPayloadFree() {},
        onBusy() {},
        onTimer() {},
      },
      0,
    );
    this.session.streams = this.streams;
    this.streams.begin(this, 512, Infinity);
    this.session.attach(this.connection.channel!, [0, 0, 0], 0);
  }

  openSubstream(sub: Substream): boolean {
    if (this.offers) this.written.set(sub, []);
    return this.offers;
  }

  flushSubstreamSoon(sub: Substream): void {
    this.#dirty.add(sub);
  }

  flushSubstream(sub: Substream): void {
    this.#dirty.delete(sub);
    const chunk = sub.outbox.take();
    if (chunk !== undefined) {
      sub.seal(chunk);
      const frames = this.written.get(sub) ?? [];
      this.written.set(sub, frames);
      eachBody(chunk, (body) => {
        const { kind, id } = readV3(body);
        frames.push(`${kind} ${id}`);
      });
    }
    if (!sub.finishing) return;
    this.finished.push(sub);
    this.connection.handleSubstreamFinished(sub);
  }

  enqueue(message: OutMessage): void {
    this.backlog.push(message);
    this.wake();
  }

  withdraw(message: OutMessage): boolean {
    const holds = this.backlog.holds(message);
    if (holds) this.backlog.withdraw(message);
    return holds;
  }

  wake(): void {
    this.session?.pump(this.now);
  }

  offerSession() {
    const offer = { id: "00".repeat(16), resumed: false, received: [0, 0, 0] } as const;
    return { offer, generation: 0 };
  }

  onError(error: TransportError): void {
    this.error ??= error;
  }

  wantsMessage(): boolean {
    return true;
  }

  onIdentity(): undefined {}
  onHello(): undefined {}
  onMessage(): void {}
  onSilent(): void {}
  onSuspect(): void {}
  onGoaway(): void {}
  onDrained(): void {}
  flush(): void {}
  flushSoon(): void {}
}

function eachBody(chunk: Uint8Array, onBody: (body: Uint8Array) => void): void {
  const view = new DataView(chunk.buffer, chunk.byteOffset);
  for (let at = 0; at < chunk.length; at += 4 + view.getUint32(at)) {
    onBody(chunk.subarray(at + 4, at + 4 + view.getUint32(at)));
  }
}

describe("a stream of ours", () => {
  it("has a sub-stream to itself, from its open to its end", () => {
    const side = new Side();
    side.flushAll();
    const [a, b] = [1, 2].map(() => side.streams.open(1, undefined, undefined, NONE)) as [
      StreamCore,
      StreamCore,
    ];
    a.write(Uint8Array.of(1));
    b.write(Uint8Array.of(2));
    b.end();
    a.end();
    assert.deepEqual(side.flushAll(), []);
    assert.deepEqual([...side.written.values()], [["5 1", "6 3", "7 6"], ["5 2", "6 4", "7 5"]]);
    assert.deepEqual(side.finished, []);
    const [sub] = side.written.keys();
    side.on(sub, { kind: "end", id: 1, payload: ref(theirs(1)) });
    side.flushAll();
    assert.deepEqual(side.finished, [sub]);
    side.connection.handleSubstreamEnd(sub!);
    assert.equal(side.connection.channel!.substreams.size, 1);
    assert.equal(side.error, undefined);
  });

  it("goes on while the main stream is full, and waits where its own is", () => {
    const side = new Side();
    const [a, b] = [1, 2].map(() => side.streams.open(1, undefined, undefined, NONE)) as [
      StreamCore,
      StreamCore,
    ];
    side.flushAll();
    const [subA, subB] = [...side.written.keys()] as [Substream, Substream];
    side.writable = false;
    subA.writable = false;
    a.write(Uint8Array.of(1));
    b.write(Uint8Array.of(2));
    side.flushAll();
    assert.deepEqual([...side.written.values()], [["5 1"], ["5 2", "6 3"]]);
    subA.writable = true;
    side.flushAll();
    assert.deepEqual(side.written.get(subA), ["5 1", "6 4"]);
    assert.deepEqual(side.written.get(subB), ["5 2", "6 3"]);
  });

  it("begins on the main stream where its open needs fragments, and where there are enough", () => {
    const side = new Side();
    const long = side.streams.open(1, undefined, undefined, new Uint8Array(70_000));
    side.flushAll();
    long.write(Uint8Array.of(1));
    assert.deepEqual(side.flushAll(), [6]);
    assert.equal(side.written.size, 0);
    for (let count = 0; count < MOST; count++) side.streams.open(1, undefined, undefined, NONE);
    assert.deepEqual(side.flushAll(), []);
    side.streams.open(1, undefined, undefined, NONE);
    assert.deepEqual(side.flushAll(), [5]);
    assert.equal(side.written.size, MOST);
  });

  it("moves to a sub-stream once nothing of it is under way elsewhere", () => {
    const side = new Side();
    side.offers = false;
    const stream = side.streams.open(1, undefined, undefined, NONE);
    assert.deepEqual(side.flushAll(), [5]);
    side.offers = true;
    stream.write(Uint8Array.of(1));
    assert.deepEqual(side.flushAll(), [6]);
    side.main({ kind: "ack", payload: [1, 0, 0, 0, 0, 0, 0, 0, 2] });
    stream.write(Uint8Array.of(1));
    assert.deepEqual(side.flushAll(), []);
    assert.deepEqual([...side.written.values()], [["6 3"]]);
  });

  it("goes on elsewhere where its sub-stream ends while it is full", () => {
    const side = new Side();
    const stream = side.streams.open(1, undefined, undefined, NONE);
    side.flushAll();
    const [sub] = side.written.keys();
    sub!.writable = false;
    stream.write(Uint8Array.of(1));
    assert.deepEqual(side.flushAll(), []);
    side.connection.handleSubstreamFinished(sub!);
    assert.deepEqual(side.flushAll(), [6]);
  });

  it("has a place among few before anything has come from the peer", () => {
    const side = new Side(ALL, ALL, false);
    side.flushAll();
    for (let count = 0; count < 9; count++) side.streams.open(1, undefined, undefined, NONE);
    assert.deepEqual(side.flushAll(), [5]);
    assert.equal(side.written.size, 8);
  });

  it("has none where only one side has them, or nothing is resumed", () => {
    for (
      const side of [
        new Side(["resume", "streams"]),
        new Side(ALL, ["resume", "streams"]),
        new Side(["streams", "multistream"]),
      ]
    ) {
      side.flushAll();
      side.streams.open(1, undefined, undefined, NONE);
      assert.deepEqual(side.flushAll(), [5]);
      assert.equal(side.accept(), undefined);
      assert.equal(side.error?.code, "InvalidFrame");
    }
  });
});

describe("a stream of the peer", () => {
  it("is answered on the sub-stream that it came on", () => {
    const side = new Side();
    side.flushAll();
    const sub = side.accept();
    side.on(sub, { kind: "open", id: 1 }, { kind: "streamData", id: 2, payload: ref(1, "hi") });
    side.opened[0]!.write(Uint8Array.of(1));
    assert.deepEqual(side.flushAll(), []);
    assert.deepEqual([...side.written.entries()], [[sub, ["6 1"]]]);
  });

  it("does not hold up what comes behind a gap", () => {
    const side = new Side();
    const [late, early] = [side.accept(), side.accept()];
    side.on(early, { kind: "open", id: 2 }, { kind: "end", id: 4, payload: ref(2) });
    side.main({ id: 3, payload: "m" });
    assert.deepEqual([side.opened.length, side.messages], [1, ["m"]]);
    assert.deepEqual(side.session!.received, [0, 0, 0]);
    side.on(late, { kind: "open", id: 1 });
    assert.deepEqual(side.session!.received, [0, 4, 0]);
  });

  it("may end its sub-stream without ending itself", () => {
    const side = new Side();
    const sub = side.accept();
    side.on(sub, { kind: "open", id: 1 });
    side.connection.handleSubstreamEnd(sub!);
    side.main({ kind: "streamData", id: 2, payload: ref(1, "more") });
    assert.equal(side.error, undefined);
    assert.equal(side.opened[0]!.read().length, 4);
  });

  it("leaves no sub-stream behind where it is closed already", () => {
    const side = new Side();
    side.flushAll();
    side.main({ kind: "open", id: 1 });
    side.opened[0]!.reset("X", "");
    side.flushAll();
    const before = side.finished.length;
    const sub = side.accept();
    side.on(sub, { kind: "streamData", id: 2, payload: ref(1, "late") });
    side.flushAll();
    assert.deepEqual(side.finished.slice(before), [sub]);
    side.connection.handleSubstreamEnd(sub!);
    assert.equal(side.error, undefined);
  });
});

describe("a sub-stream of a hostile peer", () => {
  const open: FrameV3 = { kind: "open", id: 1 };
  const refused: Record<string, FrameV3[]> = {
    "a message": [{ id: 1, payload: "x" }],
    "a request": [{ kind: "request", id: 1, payload: [0, 0, 0, 0] }],
    "a ping": [{ kind: "ping", id: 1 }],
    "an ack": [{ kind: "ack", payload: [1, 0, 0, 0, 0, 0, 0, 0, 0] }],
    "a goaway": [{ kind: "goaway", payload: [0, 0] }],
    "a fragment": [{ ...open, more: true, payload: "x" }],
    "another open": [open, { kind: "open", id: 2 }],
    "a frame of another stream": [open, { kind: "end", id: 2, payload: ref(2) }],
    "a frame of another lane": [open, { kind: "end", id: 2, lane: 2, payload: ref(1) }],
    "a frame of a stream of ours": [open, { kind: "end", id: 2, payload: ref(theirs(1)) }],
    "a stream that never was": [{ kind: "end", id: 1, payload: ref(7) }],
    "a frame without a stream": [open, { kind: "end", id: 2, payload: "1234567" }],
    "a number that is too far ahead": [{ kind: "open", id: 100_000 }],
    "a frame as long as a message": [open, {
      kind: "streamData",
      id: 2,
      payload: ref(1, "x".repeat(70_000)),
    }],
  };
  for (const [what, frames] of Object.entries(refused)) {
    it(`ends the connection: ${what}`, () => {
      const side = new Side();
      side.on(side.accept(), ...frames);
      assert.equal(side.error?.code, "InvalidFrame");
      assert.equal(side.accept(), undefined);
    });
  }

  it("ends it in the middle of a frame", () => {
    const side = new Side();
    const sub = side.accept()!;
    side.connection.handleSubstreamBytes(sub, frameV3(open).subarray(0, 9), 0);
    side.connection.handleSubstreamEnd(sub);
    assert.equal(side.error?.code, "InvalidFrame");
  });

  it("is one too many", () => {
    const side = new Side();
    for (let count = 0; count < MOST_OF_PEER; count++) assert.ok(side.accept());
    assert.equal(side.error, undefined);
    assert.equal(side.accept(), undefined);
    assert.equal(side.error!.code, "InvalidFrame");
  });

  it("says nothing, or not the rest of a frame", () => {
    for (const bytes of [0, 9]) {
      const side = new Side();
      side.now = 500;
      const sub = side.accept()!;
      if (bytes > 0) {
        side.connection.handleSubstreamBytes(sub, frameV3(open).subarray(0, bytes), 500);
      }
      assert.equal(side.connection.nextTimeout(), 500 + IO_TIMEOUT_MS);
      side.connection.handleTimeout(499 + IO_TIMEOUT_MS);
      assert.equal(side.error, undefined);
      side.connection.handleTimeout(500 + IO_TIMEOUT_MS);
      assert.equal(side.error!.code, "Timeout");
    }
  });

  it("owes nothing once a frame is whole", () => {
    const side = new Side();
    side.on(side.accept(), open);
    assert.equal(side.connection.nextTimeout(), undefined);
  });
});
