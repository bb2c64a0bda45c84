/** A WebSocket link over a link that does what the test says. */

import { describe, it } from "node:test";
import assert from "node:assert/strict";
import fc from "fast-check";
import type { Link, LinkEvents, LinkInfo } from "../../mod.ts";
import { WebSocketLink } from "../../src/transport/websocket_link.ts";
import { LinkRecorder, until } from "./link_recorder.ts";
import { hex, unhex } from "./websocket_peer.ts";

const INFO: LinkInfo = {
  protocol: "ws",
  localAddress: "ws://127.0.0.1:1/",
  remoteAddress: "ws://127.0.0.1:2/",
  remoteHost: "127.0.0.1",
  encrypted: false,
  peerCertificate: undefined,
};

/** Keeps what is written until the test lets it go. */
class HeldLink implements Link {
  readonly info = INFO;
  readonly written: Uint8Array[] = [];
  bufferedBytes = 0;
  paused = false;
  ended = false;
  closed = false;

  open(): void {}

  write(chunk: Uint8Array): boolean {
    this.written.push(chunk);
    this.bufferedBytes += chunk.length;
    return this.bufferedBytes <= 262_144;
  }

  pause(): void {
    this.paused = true;
  }

  resume(): void {
    this.paused = false;
  }

  end(): void {
    this.ended = true;
  }

  close(): void {
    this.closed = true;
  }

  /** So many bytes leave. */
  leave(bytes: number, events: LinkEvents): void {
    this.bufferedBytes -= bytes;
    if (this.bufferedBytes === 0) events.onDrain();
  }

  /** What was written since this was asked for last. */
  take(): string {
    return hex(Uint8Array.from(this.written.splice(0).flatMap((chunk) => [...chunk])));
  }
}

/** An open link: as a listener's unless `dialer`. */
async function open(dialer = false): Promise<{
  inner: HeldLink;
  recorder: LinkRecorder;
  events: LinkEvents;
}> {
  const inner = new HeldLink();
  const link = new WebSocketLink(inner, INFO, dialer);
  assert.ok(inner.paused);
  const recorder = new LinkRecorder(link);
  await until(() => !inner.paused, "reading");
  return { inner, recorder, events: link.innerEvents };
}

const ping = (payload: string) => `89${(0x80 + payload.length / 2).toString(16)}00000000${payload}`;

describe("what a WebSocket link has not sent", () => {
  it("is the payload alone, from its first byte to its last", async () => {
    const { inner, recorder, events } = await open();
    recorder.link.write(new Uint8Array(5));
    recorder.link.write(new Uint8Array(200));
    // Frames of 2 + 5 and 4 + 200 bytes.
    assert.equal(inner.bufferedBytes, 211);
    const seen = Array.from({ length: 212 }, () => {
      const { bufferedBytes } = recorder.link;
      if (inner.bufferedBytes > 0) inner.leave(1, events);
      return bufferedBytes;
    });
    const expected = [205, 205, 205, 204, 203, 202, 201, 200, 200, 200, 200];
    for (let left = 200; left >= 0; left--) expected.push(left);
    assert.deepEqual(seen, expected);
    await recorder.until(() => recorder.told("drain"));
  });

  it("never grows but by writing, and is 0 in the end", async () => {
    const steps = fc.array(
      fc.oneof(
        fc.record({ write: fc.integer({ min: 0, max: 300_000 }) }),
        fc.record({ leave: fc.double({ min: 0, max: 1, noNaN: true }) }),
        fc.constant({ ping: true }),
      ),
      { maxLength: 30 },
    );
    await fc.assert(
      fc.asyncProperty(steps, fc.boolean(), async (steps, dialer) => {
        const { inner, recorder, events } = await open(dialer);
        let last = 0;
        for (const step of steps) {
          if ("write" in step) {
            recorder.link.write(new Uint8Array(step.write));
            last += step.write;
            assert.ok(recorder.link.bufferedBytes <= last);
          } else if ("leave" in step) {
            inner.leave(Math.floor(inner.bufferedBytes * step.leave), events);
          } else if (!dialer) {
            events.onData(unhex(ping("61")));
          }
          const { bufferedBytes } = recorder.link;
          assert.ok(bufferedBytes <= last && bufferedBytes <= inner.bufferedBytes);
          last = bufferedBytes;
        }
        inner.leave(inner.bufferedBytes, events);
        assert.equal(recorder.link.bufferedBytes, 0);
      }),
      { numRuns: 40 },
    );
  });

  it("leaves the memory of masked frames to later ones", async () => {
    const { inner, recorder, events } = await open(true);
    const memories = new Set<ArrayBufferLike>();
    for (let i = 0; i < 10; i++) {
      recorder.link.write(new Uint8Array(100_000));
      memories.add(inner.written.at(-1)!.buffer);
      inner.leave(inner.bufferedBytes, events);
    }
    assert.equal(memories.size, 1);
    recorder.link.write(new Uint8Array(100_000));
    recorder.link.write(new Uint8Array(100_000));
    assert.notEqual(inner.written.at(-1)!.buffer, inner.written.at(-2)!.buffer);
  });
});

describe("pings to a WebSocket link", () => {
  it("are answered at once where nothing waits", async () => {
    const { inner, events } = await open();
    events.onData(unhex(ping("61") + ping("")));
    assert.equal(inner.take(), "8a01618a00");
  });

  it("pile nothing up where much waits: the last is answered after it", async () => {
    const { inner, recorder, events } = await open();
    recorder.link.write(new Uint8Array(100_000));
    inner.take();
    const before = inner.bufferedBytes;
    for (let i = 0; i < 1000; i++) events.onData(unhex(ping("61") + ping("6263")));
    assert.equal(inner.bufferedBytes, before);
    inner.leave(before, events);
    assert.equal(inner.take(), "8a026263");
    inner.leave(inner.bufferedBytes, events);
    assert.equal(inner.take(), "");
  });
});

describe("the end of a WebSocket link", () => {
  const END = "828000000000";
  const CLOSE = "88820000000003e8";

  it("is an empty message, and a Close frame when both have ended", async () => {
    const { inner, recorder, events } = await open();
    recorder.link.end();
    assert.equal(inner.take(), "8200");
    events.onData(unhex(END));
    assert.equal(inner.take(), "880203e8");
    assert.ok(!inner.ended);
    events.onData(unhex(CLOSE));
    assert.ok(inner.ended);
    events.onEnd();
    events.onClose();
    assert.equal(await recorder.closed(), undefined);
    assert.deepEqual(recorder.events, ["end", "close"]);
  });

  it("does not wait for a link that is paused", async () => {
    const { inner, recorder, events } = await open();
    events.onData(unhex(END));
    recorder.link.pause();
    assert.ok(inner.paused);
    recorder.link.end();
    assert.equal(inner.take(), "8200880203e8");
    assert.ok(!inner.paused);
    events.onData(unhex(CLOSE));
    events.onClose();
    assert.equal(await recorder.closed(), undefined);
  });

  it("waits for what a paused link has not delivered", async () => {
    const { recorder, events } = await open();
    recorder.link.pause();
    events.onData(unhex(`8281${"00".repeat(4)}07${END}`));
    recorder.link.end();
    events.onData(unhex(CLOSE));
    events.onClose();
    assert.deepEqual(recorder.events, []);
    recorder.link.resume();
    assert.equal(await recorder.closed(), undefined);
    assert.deepEqual(recorder.events, ["data", "end", "close"]);
  });

  it("closes after a breach of the rules when the Close frame has left", async () => {
    const { inner, events } = await open();
    events.onData(unhex("8300"));
    assert.equal(inner.take(), "880203ea");
    assert.ok(inner.ended && !inner.closed);
    inner.leave(inner.bufferedBytes, events);
    assert.ok(inner.closed);
    events.onClose();
  });
});
