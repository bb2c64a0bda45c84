import { describe, it } from "node:test";
import assert from "node:assert/strict";
import fc from "fast-check";
import { TransportError } from "../../mod.ts";
import {
  applyMask,
  encodeClose,
  encodeFrame,
  headerBytes,
  maskBytes,
  OPCODE,
  WebSocketDecoder,
  writeHeader,
} from "../../src/protocol/websocket.ts";

/** What a decoder tells, as text; data in one piece between other events. */
class Sink {
  readonly events: string[] = [];
  #data: number[] = [];

  onData(chunk: Uint8Array): boolean {
    assert.ok(chunk.length > 0);
    this.#data.push(...chunk);
    return true;
  }

  onEnd(): void {
    this.#note("end");
  }

  onPing(payload: Uint8Array): void {
    this.#note(`ping ${hex(payload)}`);
  }

  onClose(code: number): void {
    this.#note(`close ${code}`);
  }

  /** Everything told so far. */
  take(): string[] {
    this.#note("");
    return this.events;
  }

  #note(event: string): void {
    if (this.#data.length > 0) this.events.push(`data ${hex(Uint8Array.from(this.#data))}`);
    this.#data = [];
    if (event !== "") this.events.push(event);
  }
}

function hex(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

function unhex(text: string): Uint8Array {
  return Uint8Array.from(text.replaceAll(" ", "").match(/../g) ?? [], (two) => parseInt(two, 16));
}

/** Decodes frames in hex, cut into chunks of `size`. */
function decode(masked: boolean, text: string, size = Infinity): string[] {
  const sink = new Sink();
  const decoder = new WebSocketDecoder(masked, sink);
  const bytes = unhex(text);
  for (let at = 0; at < bytes.length; at += size) decoder.decode(bytes.slice(at, at + size));
  return sink.take();
}

function refusal(masked: boolean, text: string): { message: string; closeCode: number } {
  const decoder = new WebSocketDecoder(masked, new Sink());
  let message = "";
  assert.throws(() => decoder.decode(unhex(text)), (error) => {
    assert.ok(error instanceof TransportError);
    assert.equal(error.code, "InvalidFrame");
    message = error.message;
    return true;
  });
  return { message, closeCode: decoder.closeCode };
}

describe("WebSocket frames, as in RFC 6455, section 5.7", () => {
  const hello = "48656c6c6f";
  const mask = unhex("37fa213d");

  it("reads a masked and an unmasked message", () => {
    // The examples are text messages; ours are binary.
    assert.deepEqual(decode(false, `8205 ${hello}`), [`data ${hello}`]);
    assert.deepEqual(decode(true, "8285 37fa213d 7f9f4d5158"), [`data ${hello}`]);
  });

  it("reads fragments, with a ping between them", () => {
    assert.deepEqual(decode(false, "0203 48656c 8905 48656c6c6f 8002 6c6f"), [
      "data 48656c",
      `ping ${hello}`,
      "data 6c6f",
    ]);
  });

  it("reads a masked pong, which says nothing", () => {
    assert.deepEqual(decode(true, "8a85 37fa213d 7f9f4d5158 8285 37fa213d 7f9f4d5158"), [
      `data ${hello}`,
    ]);
  });

  for (const [length, head] of [[256, "827e0100"], [65_536, "827f0000000000010000"]] as const) {
    it(`reads and writes the length of ${length} bytes`, () => {
      const payload = "ab".repeat(length);
      assert.deepEqual(decode(false, head + payload, 1000), [`data ${payload}`]);
      const header = new Uint8Array(headerBytes(length, false));
      assert.equal(writeHeader(header, 0, OPCODE.binary, length, undefined), header.length);
      assert.equal(hex(header), head);
    });
  }

  it("writes a message, masked and not, a ping's answer and a Close frame", () => {
    assert.equal(hex(encodeFrame(OPCODE.binary, unhex(hello), undefined)), `8205${hello}`);
    assert.equal(hex(encodeFrame(OPCODE.binary, unhex(hello), mask)), "828537fa213d7f9f4d5158");
    assert.equal(hex(encodeFrame(OPCODE.pong, unhex(hello), mask)), "8a8537fa213d7f9f4d5158");
    assert.equal(hex(encodeClose(1000, undefined)), "880203e8");
    assert.equal(
      hex(encodeClose(1002, Uint8Array.of(1, 2, 3, 4))),
      "8882 01020304 02e8".replaceAll(" ", ""),
    );
  });
});

describe("WebSocketDecoder", () => {
  it("takes an empty message for the end, and a Close frame for the last", () => {
    assert.deepEqual(decode(false, "820161 8200 890162 880203e8 ffff"), [
      "data 61",
      "end",
      "ping 62",
      "close 1000",
    ]);
    assert.deepEqual(decode(false, "8800"), ["close 1005"]);
    assert.deepEqual(decode(true, "8280 00000000 8880 00000000"), ["end", "close 1005"]);
    assert.deepEqual(decode(false, "8805 0fa0 627965"), ["close 4000"]);
  });

  it("ends a message with an empty last fragment", () => {
    assert.deepEqual(decode(false, "020161 8000 820162"), ["data 6162"]);
  });

  const refused: [what: string, masked: boolean, frames: string, text: RegExp, code: number][] = [
    ["a reserved bit", false, "c200", /reserved bit/, 1002],
    ["another reserved bit", false, "9200", /reserved bit/, 1002],
    ["an unknown opcode", false, "8300", /unknown opcode 3/, 1002],
    ["an unknown control opcode", false, "8b00", /unknown opcode 11/, 1002],
    ["a text message", false, "810161", /text message/, 1003],
    ["an unmasked frame of a dialer", true, "820161", /not masked/, 1002],
    ["a masked frame of a listener", false, "8281", /masked/, 1002],
    ["a ping in fragments", false, "0900", /in fragments/, 1002],
    ["a ping of 126 bytes", false, "897e", /too long/, 1002],
    ["a continuation of nothing", false, "8001", /mixed up/, 1002],
    ["a message inside another", false, "020161 8201", /mixed up/, 1002],
    ["a length of two bytes that needs none", false, "827e007d", /longer than it must/, 1002],
    ["a length of eight bytes that needs two", false, "827f000000000000ffff", /longer/, 1002],
    ["a length of 2^53", false, "827f0020000000000000", /beyond/, 1002],
    ["the largest length", false, "827fffffffffffffffff", /beyond/, 1002],
    ["an empty fragment", false, "0200", /empty frame/, 1002],
    ["data after the end", false, "8200 8201", /after the end/, 1002],
    ["a second end", false, "8200 8200", /after the end/, 1002],
    ["half a code", false, "880103", /half a code/, 1002],
    ["a code that may not be sent", false, "880203ed", /code 1005/, 1002],
    ["a code below all", false, "88020000", /code 0/, 1002],
  ];
  for (const [what, masked, frames, text, code] of refused) {
    it(`refuses ${what}`, () => {
      const { message, closeCode } = refusal(masked, frames);
      assert.match(message, /^Cannot read a WebSocket frame: /);
      assert.match(message, text);
      assert.equal(closeCode, code);
    });
  }

  it("refuses from the first two bytes what these show", () => {
    for (const start of ["c2", "81", "83"]) refusal(false, `${start}7f`);
  });

  it("allocates nothing for a length, and delivers bytes before the frame is whole", () => {
    const sink = new Sink();
    const decoder = new WebSocketDecoder(false, sink);
    decoder.decode(unhex("827f001fffffffffffff"));
    decoder.decode(unhex("aabb"));
    assert.deepEqual(sink.take(), ["data aabb"]);
  });

  it("tells nothing more once it is stopped from inside an event", () => {
    const events: string[] = [];
    const decoder = new WebSocketDecoder(false, {
      onData: () => {
        events.push("data");
        decoder.stop();
        return true;
      },
      onEnd: () => events.push("end"),
      onPing: () => events.push("ping"),
      onClose: () => events.push("close"),
    });
    decoder.decode(unhex("820161 820162 8900 8200 8800"));
    decoder.decode(unhex("820161"));
    assert.deepEqual(events, ["data"]);
  });

  it("says whether anybody still looks at a chunk", () => {
    const decoderThat = (...answers: boolean[]) =>
      new WebSocketDecoder(false, {
        onData: () => answers.shift()!,
        onEnd() {},
        onPing() {},
        onClose() {},
      });
    assert.equal(decoderThat(true, true).decode(unhex("820161 820162")), true);
    assert.equal(decoderThat(true, false).decode(unhex("820161 820162")), false);
    assert.equal(decoderThat(false, true).decode(unhex("820161 820162")), false);
  });

  const payload = fc.oneof(
    fc.uint8Array({ maxLength: 200 }),
    fc.integer({ min: 60_000, max: 70_000 }).map((length) => new Uint8Array(length).fill(length)),
  );
  const frame = fc.record({
    opcode: fc.constantFrom(OPCODE.binary, OPCODE.ping, OPCODE.pong),
    payload,
    mask: fc.uint8Array({ minLength: 4, maxLength: 4 }),
  });

  it("tells the same however the bytes are cut", () => {
    fc.assert(
      fc.property(
        fc.array(frame, { maxLength: 6 }),
        fc.boolean(),
        fc.array(fc.integer({ min: 1, max: 5000 }), { minLength: 1 }),
        (frames, masked, cuts) => {
          const expected: Uint8Array[] = [];
          const parts = frames.map(({ opcode, payload, mask }) => {
            const short = opcode === OPCODE.binary ? payload : payload.subarray(0, 125);
            const sent = short.length === 0 ? Uint8Array.of(7) : short;
            if (opcode === OPCODE.binary) expected.push(sent);
            return encodeFrame(opcode, sent, masked ? mask : undefined);
          });
          const bytes = concat(parts);
          const sink = new Sink();
          const got: Uint8Array[] = [];
          sink.onData = (chunk) => got.push(chunk.slice()) > 0;
          const decoder = new WebSocketDecoder(masked, sink);
          for (let at = 0, i = 0; at < bytes.length; i++) {
            const cut = cuts[i % cuts.length]!;
            decoder.decode(bytes.slice(at, at += cut));
          }
          assert.deepEqual(concat(got), concat(expected));
        },
      ),
      { numRuns: 60 },
    );
  });

  it("throws only TransportError, whatever comes", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 300 }), fc.boolean(), (bytes, masked) => {
        const decoder = new WebSocketDecoder(masked, new Sink());
        try {
          decoder.decode(bytes);
        } catch (error) {
          assert.ok(error instanceof TransportError && error.code === "InvalidFrame");
        }
      }),
      { numRuns: 500 },
    );
  });
});

describe("masks of WebSocket frames", () => {
  it("do the same word by word as byte by byte, wherever the bytes lie", () => {
    const bounds = fc.tuple(fc.nat(9), fc.nat(100), fc.nat(9), fc.nat(3));
    fc.assert(
      fc.property(
        bounds,
        fc.uint8Array({ minLength: 4, maxLength: 4 }),
        ([from, length, to, phase], mask) => {
          const memory = Uint8Array.from({ length: 120 }, (_, i) => i * 7);
          const source = memory.subarray(from, from + length);
          const expected = source.map((byte, i) => byte ^ mask[(phase + i) % 4]!);
          const target = new Uint8Array(120).subarray(to, to + length);
          assert.equal(maskBytes(source, target, mask, phase), (phase + length) % 4);
          assert.deepEqual(target, expected);
          applyMask(memory, from, from + length, mask, phase);
          assert.deepEqual(source, expected);
          assert.equal(memory[from + length], ((from + length) * 7) & 255);
        },
      ),
    );
  });
});

function concat(parts: Uint8Array[]): Uint8Array {
  const all = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}
