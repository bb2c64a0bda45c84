import { describe, it } from "node:test";
import assert from "node:assert/strict";
import { Outbox } from "../../src/protocol/outbox.ts";
import { concat, hex } from "./wire_bytes.ts";

describe("Outbox, version 3", () => {
  it("writes length, flags and id, and says where the rest goes", () => {
    const outbox = new Outbox();
    outbox.addV2(0, hex("07"));
    const at = outbox.beginV3(0x8123, 0x0102_0304, 0xfffe_fdfc, 2);
    outbox.buffer.set(hex("aabb"), at);
    assert.equal(at, 6 + 14);
    assert.equal(outbox.bytes, at + 2);
    assert.deepEqual(outbox.take(), hex("00000002 00 07 0000000c 8123 01020304 fffefdfc aabb"));
  });

  it("makes the last frame shorter", () => {
    const outbox = new Outbox();
    const at = outbox.beginV3(0x2003, 0, 1, 1000);
    outbox.buffer.set(hex("aabb"), at);
    outbox.shorten(at - 10, 12);
    assert.equal(outbox.bytes, 16);
    outbox.addFrame(hex("07"));
    assert.deepEqual(
      outbox.take(),
      hex("0000000c 2003 0000000000000001 aabb 00000001 07"),
    );
  });

  it("takes encoded frames as they are", () => {
    const outbox = new Outbox();
    const raw = hex("0000000a 2003 0000000000000001");
    outbox.addRaw(raw);
    outbox.addRaw(hex(""));
    outbox.addRaw(raw);
    raw.fill(0);
    const frame = hex("0000000a 2003 0000000000000001");
    assert.deepEqual(outbox.take(), concat(frame, frame));
    assert.equal(outbox.take(), undefined);
  });

  it("keeps what it has where the buffer grows", () => {
    const outbox = new Outbox();
    const expected: Uint8Array[] = [];
    for (let size = 1; size < 300_000; size *= 3) {
      const raw = new Uint8Array(size).fill(size);
      outbox.addRaw(raw);
      const at = outbox.beginV3(0x2003, 0, size, size);
      outbox.buffer.fill(size + 1, at, at + size);
      const head = new DataView(new ArrayBuffer(14));
      head.setUint32(0, 10 + size);
      head.setUint16(4, 0x2003);
      head.setUint32(10, size);
      expected.push(raw, new Uint8Array(head.buffer), new Uint8Array(size).fill(size + 1));
    }
    assert.deepEqual(outbox.take(), concat(...expected));
  });

  it("counts no messages for version 3, and has an empty buffer when it is empty", () => {
    const outbox = new Outbox();
    assert.equal(outbox.buffer.length, 0);
    outbox.beginV3(0x2003, 0, 1, 0);
    outbox.addRaw(hex("00000001 07"));
    assert.equal(outbox.messages, 0);
    outbox.take();
    assert.equal(outbox.buffer.length, 0);
  });
});
