import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import { datagramBytes, decodeDatagram, encodeDatagram } from "../../src/protocol/v3/datagram.ts";
import { encodeTopic } from "../../src/protocol/v3/topic.ts";
import type { Lane } from "../../src/protocol/v3/types.ts";

const MAX = 1000;

function hex(text: string): Uint8Array {
  return Uint8Array.from(text.split(" "), (byte) => parseInt(byte, 16));
}

describe("messages in datagrams", () => {
  const known: [string, Lane, string | undefined, string][] = [
    ["20 03 00 00 00 00 00 00 00 00 68 69", 1, undefined, "hi"],
    ["00 03 00 00 00 00 00 00 00 00", 0, undefined, ""],
    ["c0 03 00 00 00 00 00 00 00 00 01 74 62", 2, "t", "b"],
  ];
  for (const [bytes, lane, topic, payload] of known) {
    it(`are data frames without a length and a number: ${bytes}`, () => {
      const encoded = topic === undefined ? undefined : encodeTopic(topic);
      const body = new TextEncoder().encode(payload);
      assert.deepEqual(encodeDatagram(lane, encoded, body), hex(bytes));
      assert.equal(datagramBytes(body.length, encoded), hex(bytes).length);
      const message = decodeDatagram(hex(bytes), MAX);
      assert.deepEqual({ ...message }, { lane, topic, payload: body });
    });
  }

  const invalid: Record<string, string> = {
    "nothing": "20",
    "a header that is cut off": "20 03 00 00 00 00 00 00 00",
    "another version": "20 02 00 00 00 00 00 00 00 00 68",
    "a compressed payload": "20 13 00 00 00 00 00 00 00 00 68",
    "a checksum": "20 83 00 00 00 00 00 00 00 00 68 00 00 00 00",
    "another kind": "21 03 00 00 00 00 00 00 00 00 68",
    "part of a message": "30 03 00 00 00 00 00 00 00 00 68",
    "lane 3": "60 03 00 00 00 00 00 00 00 00 68",
    "a number": "20 03 00 00 00 00 00 00 00 01 68",
    "an empty topic": "a0 03 00 00 00 00 00 00 00 00 00 68",
    "a topic that is cut off": "a0 03 00 00 00 00 00 00 00 00 02 74",
    "a topic that is no UTF-8": "a0 03 00 00 00 00 00 00 00 00 01 ff 68",
  };
  for (const [what, bytes] of Object.entries(invalid)) {
    it(`are nothing with ${what}`, () => assert.equal(decodeDatagram(hex(bytes), MAX), undefined));
  }

  it("are nothing above the largest message", () => {
    const bytes = encodeDatagram(1, encodeTopic("t"), new Uint8Array(MAX + 1));
    assert.equal(decodeDatagram(bytes, MAX), undefined);
    assert.ok(decodeDatagram(bytes, MAX + 1) !== undefined);
  });

  it("come back as they were sent", () => {
    const topics = fc.option(fc.string({ minLength: 1, maxLength: 60 }), { nil: undefined })
      .filter((topic) => topic === undefined || topic.isWellFormed());
    const lanes = fc.constantFrom<Lane>(0, 1, 2);
    fc.assert(fc.property(lanes, topics, fc.uint8Array(), (lane, topic, payload) => {
      const encoded = topic === undefined ? undefined : encodeTopic(topic);
      const message = decodeDatagram(encodeDatagram(lane, encoded, payload), MAX);
      assert.deepEqual({ ...message }, { lane, topic, payload: new Uint8Array(payload) });
    }));
  });

  it("are read without a throw, whatever comes", () => {
    fc.assert(fc.property(fc.uint8Array({ maxLength: 40 }), (bytes) => {
      const message = decodeDatagram(bytes, MAX);
      if (message !== undefined) assert.ok(message.payload.length <= bytes.length - 10);
    }));
  });
});
