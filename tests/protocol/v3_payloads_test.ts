import { describe, it } from "node:test";
import assert from "node:assert/strict";
import fc from "fast-check";
import { TransportError } from "../../src/errors.ts";
import {
  encodeCodeMessage,
  readAcks,
  readCodeMessage,
  readGoaway,
  readId,
  readTopic,
  readU32,
} from "../../src/protocol/v3/frame_codec.ts";
import { TopicCache } from "../../src/protocol/v3/topic_cache.ts";
import { concat, countWork, hex } from "./wire_bytes.ts";

const text = (characters: string): Uint8Array => new TextEncoder().encode(characters);

function assertInvalid(run: () => unknown): void {
  assert.throws(run, (error) => error instanceof TransportError && error.code === "InvalidFrame");
}

describe("readTopic", () => {
  it("takes topic and rest apart", () => {
    assert.deepEqual(readTopic(hex("04 72616674 61686f79")), { topic: "raft", rest: text("ahoy") });
    assert.deepEqual(readTopic(hex("01 61")), { topic: "a", rest: new Uint8Array(0) });
    const longest = "x".repeat(255);
    assert.equal(readTopic(concat(hex("ff"), text(longest))).topic, longest);
  });

  it("keeps a byte order mark and control characters", () => {
    assert.equal(readTopic(hex("04 efbbbf 61")).topic, "\ufeffa");
    assert.equal(readTopic(hex("02 00 1b")).topic, "\0\u001b");
  });

  for (
    const [name, payload] of [
      ["an empty payload", ""],
      ["an empty topic", "00"],
      ["an empty topic before other bytes", "00 61"],
      ["a topic cut short", "05 72616674"],
      ["a topic that is missing", "01"],
      ["a byte that is never UTF-8", "01 ff"],
      ["a character cut short", "02 e282"],
      ["an overlong character", "02 c080"],
      ["half a surrogate pair", "03 eda080"],
    ] as const
  ) {
    it(`refuses ${name}`, () => assertInvalid(() => readTopic(hex(payload))));
  }

  it("returns a view of the payload", () => {
    const payload = hex("01 61 62");
    assert.equal(readTopic(payload).rest.buffer, payload.buffer);
  });
});

describe("TopicCache", () => {
  it("decodes a topic once", () => {
    const cache = new TopicCache();
    const payload = text("metrics");
    cache.read(payload, 0, 7);
    const work = countWork(() => {
      for (let i = 0; i < 100; i++) assert.equal(cache.read(payload, 0, 7), "metrics");
    });
    assert.equal(work.allocated + work.copied, 0);
  });

  it("keeps what it saw, whatever becomes of the bytes", () => {
    const cache = new TopicCache();
    const payload = new Uint8Array(4);
    for (let number = 1000; number < 2000; number++) {
      payload.set(text(`${number}`));
      assert.equal(cache.read(payload, 0, 4), `${number}`);
    }
  });

  it("tells a topic from those that begin with it", () => {
    const cache = new TopicCache();
    const longest = text("a".repeat(255));
    for (let length = 1; length <= 255; length++) {
      assert.equal(cache.read(longest, 0, length)?.length, length);
    }
  });

  it("says the same as a decoder, for any topics in any order", () => {
    const cache = new TopicCache();
    const topics = fc.oneof(
      fc.integer({ min: 0, max: 200 }).map((number) => text(`shard-${number}`)),
      fc.uint8Array({ minLength: 1, maxLength: 6 }),
      fc.string({ minLength: 1, unit: "grapheme" }).map(text),
    );
    fc.assert(fc.property(fc.array(topics), (topics) => {
      for (const topic of topics) {
        let expected: string | undefined;
        try {
          expected = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(topic);
        } catch {
          // Not valid: undefined is expected.
        }
        assert.equal(
          cache.read(concat(hex("00"), topic, hex("00")), 1, 1 + topic.length),
          expected,
        );
      }
    }));
  });
});

describe("readU32 and readId", () => {
  it("are big-endian and unsigned", () => {
    assert.equal(readU32(hex("00 ffeeddcc"), 1), 0xffee_ddcc);
    assert.equal(readId(hex("00 0000000000000102"), 1), 0x102);
    assert.equal(readId(hex("00000001 00000000"), 0), 2 ** 32);
    assert.equal(readId(hex("001fffff ffffffff"), 0), 2 ** 53 - 1);
    assert.equal(readId(hex("00200000 00000000"), 0), Infinity);
    assert.equal(readId(hex("80000000 00000001"), 0), Infinity);
  });

  it("refuse what is cut short", () => {
    assertInvalid(() => readU32(hex("000000"), 0));
    assertInvalid(() => readU32(hex("00000000"), 1));
    assertInvalid(() => readId(hex("00000000000000"), 0));
    assertInvalid(() => readId(hex("0000000000000000"), 1));
  });
});

describe("readAcks", () => {
  it("gives every entry in order", () => {
    const acks: [number, number][] = [];
    const payload = hex("02 0000000000000001 00 0000000100000000 02 ffffffffffffffff");
    readAcks(payload, (lane, id) => acks.push([lane, id]));
    assert.deepEqual(acks, [[2, 1], [0, 2 ** 32], [2, Infinity]]);
  });

  it("refuses an entry cut short", () => {
    assertInvalid(() => readAcks(hex("00 00000000000000"), () => {}));
  });
});

describe("readGoaway", () => {
  it("reads code and reason", () => {
    assert.deepEqual(readGoaway(hex("0001 69646c65")), { code: 1, reason: "idle" });
    assert.deepEqual(readGoaway(hex("ffff")), { code: 0xffff, reason: "" });
  });

  it("replaces what is not UTF-8 and cuts what is long", () => {
    assert.equal(readGoaway(hex("0000 61ff62")).reason, "a\ufffdb");
    assert.equal(readGoaway(concat(hex("0000"), text("x".repeat(100_000)))).reason.length, 200);
    const euros = readGoaway(concat(hex("0000"), text("€".repeat(300)))).reason;
    assert.equal(euros, "€".repeat(200));
    const ships = readGoaway(concat(hex("0000"), text(`x${"🚢".repeat(200)}`))).reason;
    assert.equal(ships, `x${"🚢".repeat(99)}`);
  });

  it("refuses half a code", () => assertInvalid(() => readGoaway(hex("00"))));
});

describe("readCodeMessage", () => {
  const read = (json: string) => ({ ...readCodeMessage(text(json)) });

  it("reads code and message, and ignores other fields", () => {
    assert.deepEqual(read('{"code":"NO_HANDLER","message":"no such topic","more":[1]}'), {
      code: "NO_HANDLER",
      message: "no such topic",
    });
    assert.deepEqual(read('{"code":"a b~","message":""}'), { code: "a b~", message: "" });
  });

  it("shows a code escaped and cut that is not 1 to 64 characters of printable ASCII", () => {
    const codeOf = (code: string): string => read(JSON.stringify({ code, message: "" })).code;
    assert.equal(codeOf("x".repeat(64)), "x".repeat(64));
    assert.equal(codeOf("x".repeat(65)), `"${"x".repeat(64)}…"`);
    assert.equal(codeOf(""), '""');
    assert.equal(codeOf("\u001b[2J\n"), '"\\u001b[2J\\u000a"');
    assert.equal(codeOf("NO_HANDLER\n"), '"NO_HANDLER\\u000a"');
  });

  it("cuts a long message between characters", () => {
    const messageOf = (message: string): string =>
      read(JSON.stringify({ code: "X", message })).message;
    assert.equal(messageOf("x".repeat(1024)), "x".repeat(1024));
    assert.equal(messageOf("x".repeat(5000)), "x".repeat(1024));
    assert.equal(messageOf("x".repeat(1023) + "🚢"), "x".repeat(1023));
  });

  for (
    const [name, json] of [
      ["nothing", ""],
      ["no JSON", "code"],
      ["a list", '["code","message"]'],
      ["null", "null"],
      ["an empty object", "{}"],
      ["no message", '{"code":"X"}'],
      ["a code that is a number", '{"code":1,"message":""}'],
      ["a message that is null", '{"code":"X","message":null}'],
      ["a code that is inherited", '{"__proto__":{"code":"X"},"message":""}'],
      ["a key that stands twice", '{"code":"X","code":"Y","message":""}'],
      ["a byte order mark", '\ufeff{"code":"X","message":""}'],
      ["a nesting of 9", `{"code":"X","message":"","x":${"[".repeat(8)}${"]".repeat(8)}}`],
      ["a nesting of 30,000", "[".repeat(30_000)],
      ["65,537 bytes", `{"code":"X","message":"${"x".repeat(65_537 - 25)}"}`],
    ] as const
  ) {
    it(`refuses ${name}`, () => assertInvalid(() => read(json)));
  }

  it("accepts 65,536 bytes", () => {
    const json = `{"code":"X","message":"${"x".repeat(65_536 - 25)}"}`;
    assert.equal(json.length, 65_536);
    assert.equal(read(json).code, "X");
  });

  it("refuses bytes that are not UTF-8", () => {
    assertInvalid(() => readCodeMessage(concat(text('{"code":"X","message":"'), hex("ff227d"))));
  });

  it("throws nothing but typed errors", () => {
    const values = fc.oneof(fc.json().map(text), fc.uint8Array(), fc.string().map(text));
    fc.assert(fc.property(values, (json) => {
      try {
        readCodeMessage(json);
      } catch (error) {
        assert.ok(error instanceof TransportError && error.code === "InvalidFrame", String(error));
      }
    }));
  });
});

describe("encodeCodeMessage", () => {
  it("writes code and message in this order", () => {
    assert.deepEqual(encodeCodeMessage("X", 'a"b'), text('{"code":"X","message":"a\\"b"}'));
  });

  it("is read back, cut to the bounds", () => {
    const code = fc.string({ minLength: 1, maxLength: 64 });
    const message = fc.oneof(
      fc.string({ unit: "grapheme" }),
      fc.string({ minLength: 900, maxLength: 1100 }),
    );
    fc.assert(fc.property(code, message, (code, message) => {
      const read = readCodeMessage(encodeCodeMessage(code, message));
      assert.equal(read.code, code);
      assert.ok(
        message.startsWith(read.message) && read.message.length >= Math.min(message.length, 1023),
      );
    }));
  });
});
