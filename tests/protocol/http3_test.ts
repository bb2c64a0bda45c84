import { describe, it } from "node:test";
import assert from "node:assert/strict";
import fc from "fast-check";
import { TransportError } from "../../src/errors.ts";
import {
  encodeControl,
  encodeHeaders,
  encodeSessionDatagram,
  encodeStreamHead,
  FrameReader,
  HEADERS_FRAME,
  MAX_FRAME_BYTES,
  readNumber,
  readSessionDatagram,
  readSettings,
  readStreamHead,
  sessionDatagramHead,
} from "../../src/protocol/http3.ts";
import { decodeFields, encodeFields } from "../../src/protocol/qpack.ts";
import { decodeHuffman } from "../../src/protocol/qpack_huffman.ts";
import {
  encodeAnswer,
  encodeConnect,
  judgeAnswer,
  judgeConnect,
} from "../../src/protocol/webtransport_handshake.ts";
import { hex } from "./wire_bytes.ts";

const ascii = (text: string) => Array.from(text, (char) => char.charCodeAt(0));
const invalid = (error: unknown) =>
  error instanceof TransportError && error.code === "InvalidFrame";

/** All bytes, one after the other, as another implementation codes them. */
const ALL_BYTES =
  "ffc7fffd8fffffe2fffffe3fffffe4fffffe5fffffe6fffffe7fffffe8ffffeafffffff3fffffa7fffffabffff" +
  "ffdfffffebfffffecfffffedfffffeefffffefffffff0ffffff1ffffff2fffffffbfffffcffffffd3fffffd7ff" +
  "fffdbfffffdffffffe3fffffe7fffffebfffffed4fe3f9ffaffcabf1febfafefe7fdfd2cbb00089969b71d79fb" +
  "9f7fff20ffbff3ff50ddbd7f061c58f265cd9f469d5af66dddbf871e5f9cff7ff7fffc3ff9ffe45fff4719242c" +
  "b34e6e9d68a6a3d7dac426defe3cfaf7fffbfe7ffbffdffffffcfffe6ffff4bfff9ffffa3fffd3ffff53fffd5f" +
  "fffb3fffeb7fffdaffffb7ffff73fffeeffffdeffffebffffbfffffd9ffffdbfffebffffe0ffffeeffffc3ffff" +
  "8bffff1ffffe4fffee7fffb1ffff97fffd9ffffcdffff9fffffbffffdafffeeffff4ffffb7fffee7fffe8ffffd" +
  "3fffdeffffd5fffeeffffbdffffe1fffdfffff7fffff5ffffecffff07fff87fffe0ffff17fffedffff87ffff77" +
  "fffeffffeaffff8bfffe3ffff93ffff87fffcbffff37ffff1fffff83ffffe1fffebfffe3ffff3fffff2ffffa3f" +
  "fffd9fffff17ffffc7fffff27ffffdefffffbffffff2fffff8fffffb7fff97fff8fffffe6fffffc1fffff87fff" +
  "fe7fffffc5ffffe5fffe4ffff2fffffd1fffff4ffffffefffffe3fffffc9fffff97fffb3ffffcffffb7fffcdff" +
  "ff4ffff9ffffd1ffffcffffeaffffafffffddffffeffffff4fffff5fffffabffffa7ffffd7fffff9bffffecfff" +
  "ffb7fffff3fffffe8fffffd3fffffabfffff5fffffff7ffffecfffffdbfffffbbfffff7ffffff0fffffbbf";

describe("Huffman-coded texts of header fields", () => {
  // RFC 7541, appendix C.
  const known: Record<string, string> = {
    "www.example.com": "f1e3 c2e5 f23a 6ba0 ab90 f4ff",
    "no-cache": "a8eb 1064 9cbf",
    "custom-key": "25a8 49e9 5ba9 7d7f",
    "custom-value": "25a8 49e9 5bb8 e8b4 bf",
    "302": "6402",
    "private": "aec3 771a 4b",
    "Mon, 21 Oct 2013 20:13:21 GMT": "d07a be94 1054 d444 a820 0595 040b 8166 e082 a62d 1bff",
    "https://www.example.com": "9d29 ad17 1863 c78f 0b97 c8e9 ae82 ae43 d3",
    "foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1":
      "94e7 821d d7f2 e6c7 b335 dfdf cd5b 3960 d5af 2708 7f36 72c1 ab27 0fb5 291f 9587 3160 65c0" +
      "03ed 4ee5 b106 3d50 07",
  };
  for (const [text, coded] of Object.entries(known)) {
    it(`has ${text}, as in RFC 7541`, () => assert.equal(decodeHuffman(hex(coded)), text));
  }

  it("has a code for every byte", () => {
    const all = String.fromCharCode(...Array.from({ length: 256 }, (_, byte) => byte));
    assert.equal(decodeHuffman(hex(ALL_BYTES)), all);
  });

  it("ends in ones, less than a byte of them", () => {
    assert.equal(decodeHuffman(hex("")), "");
    // "0" is 00000, and then ones or not.
    assert.equal(decodeHuffman(hex("07")), "0");
    for (const wrong of ["00", "06", "07ff", "ff", "ffffffff"]) {
      assert.throws(() => decodeHuffman(hex(wrong)), invalid, wrong);
    }
  });
});

describe("header fields of HTTP/3", () => {
  it("are read as in RFC 9204, appendix B.1", () => {
    const fields = decodeFields(hex("0000 510b 2f69 6e64 6578 2e68 746d 6c"));
    assert.deepEqual([...fields], [[":path", "/index.html"]]);
  });

  it("are read from the static table, as literals, and Huffman-coded", () => {
    const section = Uint8Array.from([
      ...hex("0000"),
      // :method CONNECT, :scheme https, :status 404, and accept, which is of no use.
      ...hex("cf d7 db dd"),
      // :authority, a name of the table with a Huffman-coded value.
      ...hex("50 8c f1e3 c2e5 f23a 6ba0 ab90 f4ff"),
      // origin, entry 90, does not fit the prefix of four bits.
      ...hex("5f 4b 03"),
      ...ascii("abc"),
      // Literals: "custom-key", Huffman-coded, and a name of nine letters, which needs a second byte.
      ...hex("2f 01 25a8 49e9 5ba9 7d7f 01 78"),
      ...hex("27 02"),
      ...ascii("Nine-Chrs"),
      ...hex("00"),
      // Never to be indexed, which makes no difference.
      ...hex("31 61 01 62"),
    ]);
    assert.deepEqual([...decodeFields(section)], [
      [":method", "CONNECT"],
      [":scheme", "https"],
      [":status", "404"],
      [":authority", "www.example.com"],
      ["origin", "abc"],
      ["custom-key", "x"],
      ["nine-chrs", ""],
      ["a", "b"],
    ]);
  });

  it("are written as literals", () => {
    const long = "a".repeat(300);
    const written = encodeFields([[":path", "/p"], ["a-name-of-16-chrs", long]]);
    assert.deepEqual(
      written,
      Uint8Array.from([
        ...hex("0000 25"),
        ...ascii(":path"),
        2,
        ...ascii("/p"),
        ...hex("27 0a"),
        ...ascii("a-name-of-16-chrs"),
        // 127, 300 - 127 = 173 = 45 + 128.
        ...hex("7f ad 01"),
        ...ascii(long),
      ]),
    );
    assert.deepEqual([...decodeFields(written)], [[":path", "/p"], ["a-name-of-16-chrs", long]]);
  });

  const wrong: Record<string, string> = {
    "nothing at all": "",
    "half a prefix": "00",
    "a dynamic table by its count": "0200",
    "an entry of the dynamic table": "0000 80",
    "a name of the dynamic table": "0000 40 00",
    "an entry after the base": "0000 10",
    "a name after the base": "0000 00 00",
    "an entry that the static table has not": "0000 ff 24",
    "a name that goes on": "0000 25 3a70",
    "a value that goes on": "0000 51 05 61",
    "a number without an end": "0000 27 ffff ffff ffff ffff",
    "a pseudo-header twice": "0000 cf d1",
  };
  for (const [what, section] of Object.entries(wrong)) {
    it(`are refused: ${what}`, () => assert.throws(() => decodeFields(hex(section)), invalid));
  }

  it("are refused where they are too many", () => {
    const section = (count: number) => Uint8Array.from([0, 0, ...Array(count).fill(0xdd)]);
    assert.equal(decodeFields(section(100)).size, 0);
    assert.throws(() => decodeFields(section(101)), invalid);
  });

  it("are read or refused, whatever comes", () => {
    fc.assert(fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
      try {
        decodeFields(Uint8Array.from([0, 0, ...bytes]));
      } catch (error) {
        assert.ok(invalid(error), String(error));
      }
    }));
  });
});

describe("the first bytes of HTTP/3 streams", () => {
  it("are settings", () => {
    assert.deepEqual(
      encodeControl(),
      hex("00 04 17 08 01 33 01 80ffd277 01 ab603742 01 c0000000c671706a 01"),
    );
  });

  it("say what the other side can do", () => {
    const all = { connectProtocol: true, webTransport: true, datagrams: true };
    assert.deepEqual(readSettings(encodeControl().subarray(3)), all);
    const none = { connectProtocol: false, webTransport: false, datagrams: false };
    assert.deepEqual(readSettings(hex("")), none);
    // Of those that are 0, unknown or kept free for tests of others nothing is taken.
    assert.deepEqual(readSettings(hex("08 00 21 05 ffffffffffffffff 07 06 4040")), none);
    assert.deepEqual(readSettings(hex("ab603742 01")), { ...none, webTransport: true });
    assert.deepEqual(readSettings(hex("c0000000c671706a 4001")), { ...none, webTransport: true });
    assert.deepEqual(readSettings(hex("80ffd277 01")), { ...none, datagrams: true });
    for (const cut of ["08", "40", "08 40", "08 01 c0"]) {
      assert.throws(() => readSettings(hex(cut)), invalid, cut);
    }
  });

  it("name the session of a stream", () => {
    assert.deepEqual(encodeStreamHead(0), hex("4041 00"));
    assert.deepEqual(encodeStreamHead(300), hex("4041 412c"));
    assert.deepEqual(readStreamHead(hex("4041 412c 09")), { session: 300, end: 4 });
    assert.deepEqual(readStreamHead(hex("01 04")), { session: undefined, end: 0 });
    for (const cut of ["", "40", "4041", "4041 41"]) {
      assert.equal(readStreamHead(hex(cut)), undefined);
    }
  });

  it("stand before datagrams", () => {
    const bytes = Uint8Array.of(7, 8);
    assert.deepEqual(encodeSessionDatagram(0, bytes), hex("00 0708"));
    assert.deepEqual(encodeSessionDatagram(400, bytes), hex("4064 0708"));
    assert.deepEqual([sessionDatagramHead(0), sessionDatagramHead(400)], [1, 2]);
    assert.deepEqual(readSessionDatagram(400, hex("4064 0708")), bytes);
    assert.equal(readSessionDatagram(400, hex("4065 0708")), undefined);
    assert.equal(readSessionDatagram(0, hex("")), undefined);
  });

  it("have numbers of up to eight bytes, as in RFC 9000", () => {
    const known: [number, string][] = [
      [37, "25"],
      [37, "4025"],
      [15_293, "7bbd"],
      [494_878_333, "9d7f3e7d"],
      [151_288_809_941_952_652, "c2197c5eff14e88c"],
    ];
    for (const [value, bytes] of known) {
      assert.deepEqual(readNumber(hex(`aa${bytes}`), 1), { value, end: 1 + bytes.length / 2 });
      assert.equal(readNumber(hex(bytes.slice(2)), bytes.length), undefined);
    }
  });
});

describe("frames of HTTP/3", () => {
  const payload = ascii("fields");
  // DATA, a frame kept free for tests of others, an unknown one without bytes.
  const stream = Uint8Array.from([
    ...hex("00 03 010203 21 00 c0000000ff000000 02 0405"),
    ...hex("01 06"),
    ...payload,
  ]);

  it("are found behind others, however the bytes come", () => {
    fc.assert(fc.property(fc.array(fc.integer({ min: 1, max: 9 }), { minLength: 40 }), (sizes) => {
      const reader = new FrameReader(HEADERS_FRAME);
      let at = 0;
      for (const size of sizes) {
        const chunk = stream.subarray(at, at + size);
        at += chunk.length;
        const found = reader.take(chunk);
        assert.equal(found !== undefined, at === stream.length);
        if (found === undefined) continue;
        assert.deepEqual([...found], payload);
        assert.equal(reader.count, 4);
        return;
      }
    }));
  });

  it("are refused where they are longer than any may be, from their first bytes", () => {
    const longest = encodeHeaders(new Uint8Array(MAX_FRAME_BYTES));
    assert.equal(new FrameReader(HEADERS_FRAME).take(longest)?.length, MAX_FRAME_BYTES);
    assert.throws(() => new FrameReader(HEADERS_FRAME).take(hex("01 80004001")), invalid);
    // Those of no interest are passed over, and nothing is kept of them.
    assert.equal(new FrameReader(HEADERS_FRAME).take(hex("00 ffffffffffffffff")), undefined);
  });
});

describe("the request for a WebTransport session", () => {
  const path = "/hawser";
  const none = new Set<string>();
  const base: [string, string][] = [
    [":method", "CONNECT"],
    [":protocol", "webtransport"],
    [":scheme", "https"],
    [":authority", "node1:9100"],
    [":path", path],
  ];
  const judged = (changes: Record<string, string>, origins = none) => {
    const fields = Object.entries({ ...Object.fromEntries(base), ...changes });
    return judgeConnect(encodeFields(fields), path, origins)?.status;
  };

  it("is written with what browsers send, but an origin", () => {
    const frame = encodeConnect("node1:9100", path);
    assert.deepEqual([...frame.subarray(0, 2)], [0x01, 0x40]);
    assert.deepEqual([...decodeFields(frame.subarray(3))], [
      ...base,
      ["sec-webtransport-http3-draft02", "1"],
    ]);
    assert.equal(judgeConnect(frame.subarray(3), path, none), undefined);
  });

  it("is served for its path and by its protocol only", () => {
    assert.equal(judged({}), undefined);
    assert.equal(judged({ ":path": "/" }), 404);
    assert.equal(judged({ ":path": "/hawser/" }), 404);
    assert.equal(judged({ ":path": "/hawser?x" }), 404);
    assert.equal(judged({ ":method": "GET" }), 400);
    assert.equal(judged({ ":protocol": "websocket" }), 400);
    assert.throws(() => judgeConnect(encodeFields([[":path", path]]), path, none), invalid);
  });

  it("is served for listed origins only, where it has one", () => {
    const listed = new Set(["https://app.example.org"]);
    assert.equal(judged({ origin: "https://app.example.org" }, listed), undefined);
    assert.equal(judged({}, listed), undefined);
    for (const origin of ["https://app.example.org:8443", "http://app.example.org", "null", ""]) {
      assert.equal(judged({ origin }, listed), 403, origin);
      assert.equal(judged({ origin }), 403, origin);
    }
  });

  it("is answered with a status", () => {
    assert.deepEqual(
      encodeAnswer(403),
      Uint8Array.from([...hex("01 0f 0000 27 00"), ...ascii(":status"), 3, ...ascii("403")]),
    );
    const fields = decodeFields(encodeAnswer(200).subarray(2));
    assert.deepEqual([...fields], [[":status", "200"], [
      "sec-webtransport-http3-draft",
      "draft02",
    ]]);
    assert.equal(judgeAnswer(hex("0000 d9")), undefined);
    assert.equal(judgeAnswer(hex("0000 db")), 404);
    for (const none of ["0000", "0000 cf"]) assert.throws(() => judgeAnswer(hex(none)), invalid);
    for (const status of ["20", "2000", "abc", ""]) {
      assert.throws(() => judgeAnswer(encodeFields([[":status", status]])), invalid);
    }
  });
});
