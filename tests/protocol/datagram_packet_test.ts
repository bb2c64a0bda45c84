/** Packets of datagrams, byte by byte; the signatures were made by OpenSSL. */

import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import { TransportError } from "../../src/errors.ts";
import { CookieJar, hmacSha256 } from "../../src/protocol/datagram/cookie.ts";
import {
  firstHello,
  judgeHelloPacket,
  rejectPacket,
} from "../../src/protocol/datagram/greeting.ts";
import {
  encodeAnswer,
  encodeData,
  encodeHeader,
  encodeHelloPacket,
  encodeRequest,
  encodeRetry,
  joinPacket,
  readAnswer,
  readData,
  readHello,
  readNumber,
  readPrefix,
  readRequest,
  readRetry,
  readToken,
  setMsLeft,
} from "../../src/protocol/datagram/packet.ts";
import { PacketSeal } from "../../src/protocol/datagram/seal.ts";
import { PACKET } from "../../src/protocol/datagram/types.ts";
import { readSigningKey, sha256, verifySignature } from "../../src/runtime/ed25519.ts";
import { packetCrypto } from "../../src/runtime/packet_crypto.ts";
import { OTHER_KEY, PRIVATE_KEY, PUBLIC_KEY, TIMESTAMP } from "../envelope/vectors.ts";
import { PUBLIC1 } from "./datagram_vectors.ts";
import { identity, utf8 } from "./identities.ts";
import { concat, hex } from "./wire_bytes.ts";

const TAG = hex("00010203 04050607 08090a0b 0c0d0e0f");
const GOSSIP = utf8("gossip");
/** "ahoy" about "gossip" in the normal lane. */
const BODY = hex("05 06 676f73736970 61686f79");
const HEADER = hex("da14 000102030405060708090a0b0c0d0e0f 0000000000000001");
/** The same from node1 to node2, signed. */
const ENVELOPE = hex(
  "01 05 6e6f646531 05 6e6f646532 0000000000000001 000001a002b7e000" +
    "0000000c 05 06 676f73736970 61686f79" +
    "e7f205a78b1040eeffa0ad59ee20c2ef3e85c46acc880c42cb4a97b3c9cea082" +
    "88c59d14ee44d7db2d1d8dd49d6fc37379da755e546fd75a4d6712b91a6d7d09",
);
const COOKIE = hex("c0ffee");
const HELLO_JSON = '{"type":"hello","protocol_version":3,"node_id":"node1",' +
  '"capabilities":["signed"],"expect_node_id":"node2","timestamp":1786752000000,' +
  '"nonce":"AAECAwQFBgcICQoLDA0ODw=="}';
/** What is signed: that there is a key to encrypt with, the key, and the JSON. */
const HELLO_BODY = concat(hex("01"), PUBLIC1, utf8(HELLO_JSON));
const SIGNED_HELLO = concat(
  hex("01 05 6e6f646531 05 6e6f646532 0000000000000000 000001a002b7e000 000000c8"),
  HELLO_BODY,
  hex(
    "378abddbe623f50dd33a047933c9a34230ef969f188f69286390c675a7a21147" +
      "433f32de6bfc81571eca66ffd1e19d9fa543d94cf28263f074b31c17c01a6303",
  ),
);
/** HMAC-SHA-256 with the token "secret" over label, tag, cookie and what is signed. */
const AUTH = hex("bd4881db49495a20ebdfb3fee8b7abcb9511c408f7576cbc8c49aab62a51df83");

const keyBytes = (text: string) => Uint8Array.from(atob(text), (char) => char.charCodeAt(0));

function sealOf(nodeId: string, keys: Record<string, string> = { node1: PUBLIC_KEY }): PacketSeal {
  const key = readSigningKey(PRIVATE_KEY);
  return new PacketSeal({
    nodeId,
    sign: (bytes) => key.sign(bytes),
    verify: verifySignature,
    trustedKeys: new Map(Object.entries(keys).map(([name, text]) => [name, [keyBytes(text)]])),
    maxAgeMs: 1000,
    encryption: packetCrypto,
  });
}

function invalid(call: () => unknown): void {
  assert.throws(call, { code: "InvalidFrame" });
}

describe("packets", () => {
  it("begin with magic, version and kind, and the receiver's tag", () => {
    assert.deepEqual(readPrefix(HEADER), { kind: PACKET.data, tag: TAG });
    assert.deepEqual(encodeHeader(PACKET.data, TAG, 1), HEADER);
    assert.equal(readNumber(HEADER), 1);
    const last = hex("da1b 000102030405060708090a0b0c0d0e0f 001fffffffffffff");
    assert.deepEqual(encodeHeader(PACKET.bye, TAG, Number.MAX_SAFE_INTEGER), last);
    assert.equal(readNumber(last), Number.MAX_SAFE_INTEGER);
  });

  it("are none with another magic, version or kind, without a tag, without a number", () => {
    for (const [at, value] of [[0, 0xdb], [1, 0x04], [1, 0x24], [1, 0x1c], [1, 0x1f]] as const) {
      const packet = HEADER.slice();
      packet[at] = value;
      assert.equal(readPrefix(packet), undefined);
    }
    assert.equal(readPrefix(HEADER.subarray(0, 17)), undefined);
    assert.equal(readNumber(HEADER.subarray(0, 25)), undefined);
    const zero = concat(HEADER.subarray(0, 18), hex("0000000000000000"));
    const large = concat(HEADER.subarray(0, 18), hex("0020000000000000"));
    assert.equal(readNumber(zero), undefined);
    assert.equal(readNumber(large), undefined);
  });

  it("of data have flags, a topic and the payload", () => {
    assert.deepEqual(encodeData(1, GOSSIP, utf8("ahoy")), BODY);
    assert.deepEqual(readData(BODY), { lane: 1, topic: "gossip", payload: utf8("ahoy") });
    assert.deepEqual(encodeData(2, undefined, new Uint8Array(0)), hex("02"));
    assert.deepEqual(readData(hex("00")), { lane: 0, topic: undefined, payload: hex("") });
  });

  it("of data with unknown flags, or a topic that is none, are refused", () => {
    for (const body of ["", "03", "08", "80", "04", "0400", "040261", "0401ff"]) {
      invalid(() => readData(hex(body)));
    }
  });

  it("of requests have a number and the milliseconds that are left", () => {
    const body = encodeRequest(0, GOSSIP, utf8("?"), 258);
    setMsLeft(body, 1000);
    assert.deepEqual(body, hex("04 0000000000000102 000003e8 06 676f73736970 3f"));
    const read = { lane: 0, topic: "gossip", payload: utf8("?"), id: 258, msLeft: 1000 };
    assert.deepEqual(readRequest(body), read);
    invalid(() => readRequest(body.subarray(0, 12)));
    invalid(() => readRequest(hex("00 0000000000000000 00000000")));
  });

  it("of answers have the request's number", () => {
    assert.deepEqual(encodeAnswer(7, utf8("aye")), hex("0000000000000007 617965"));
    assert.deepEqual(readAnswer(hex("0000000000000007")), { id: 7, rest: hex("") });
    invalid(() => readAnswer(hex("00000000000007")));
    invalid(() => readAnswer(hex("0000000000000000")));
  });

  it("of pings have a token of eight bytes", () => {
    assert.deepEqual(readToken(hex("0001020304050607")), hex("0001020304050607"));
    invalid(() => readToken(hex("00010203040506")));
    invalid(() => readToken(hex("000102030405060708")));
  });
});

describe("handshake packets", () => {
  it("of a dialer that has no cookie are 1200 bytes that say nothing", () => {
    const packet = firstHello(TAG);
    assert.deepEqual(packet, concat(hex("da10"), TAG, new Uint8Array(1182)));
    assert.deepEqual(readHello(packet), { cookie: hex(""), auth: hex(""), content: hex("") });
  });

  it("with a cookie have the proof of a token and what is said, and are as long", () => {
    const hello = { cookie: COOKIE, auth: AUTH, content: utf8("{}") };
    const packet = encodeHelloPacket(TAG, hello);
    const begin = concat(hex("da10"), TAG, hex("03 c0ffee 20"), AUTH, hex("0002 7b7d"));
    assert.deepEqual(packet.subarray(0, begin.length), begin);
    assert.ok(packet.subarray(begin.length).every((byte) => byte === 0));
    assert.equal(packet.length, 1200);
    assert.deepEqual(readHello(packet), hello);
    const long = encodeHelloPacket(TAG, { ...hello, content: new Uint8Array(3000) });
    assert.equal(long.length, 18 + 4 + 33 + 2 + 3000);
  });

  it("are refused where they are too short or too long for a hello, or their lengths are wrong", () => {
    const packet = encodeHelloPacket(TAG, { cookie: COOKIE, auth: AUTH, content: utf8("{}") });
    invalid(() => readHello(packet.subarray(0, 1199)));
    invalid(() => readHello(concat(packet, new Uint8Array(2897))));
    for (const [at, value] of [[22, 31], [22, 33], [55, 0x10]] as const) {
      const wrong = packet.slice();
      wrong[at] = value;
      invalid(() => readHello(wrong));
    }
  });

  it("of a retry have the cookie and nothing else", () => {
    const packet = concat(hex("da11"), TAG, hex("03 c0ffee"));
    assert.deepEqual(encodeRetry(TAG, COOKIE), packet);
    assert.deepEqual(readRetry(packet), COOKIE);
    for (const body of ["", "00", "03c0ff", "03c0ffee00"]) {
      invalid(() => readRetry(concat(hex("da11"), TAG, hex(body))));
    }
  });

  it("of a reject are its JSON", () => {
    const packet = rejectPacket(TAG, { code: "REPLAYED", reason: "why" });
    const json = utf8('{"type":"reject","code":"REPLAYED","reason":"why"}');
    assert.deepEqual(packet, concat(hex("da13"), TAG, json));
  });
});

describe("HMAC-SHA-256", () => {
  // RFC 4231, test cases 1, 2 and 6.
  const cases: [Uint8Array, string, string][] = [
    [
      new Uint8Array(20).fill(0x0b),
      "Hi There",
      "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7",
    ],
    [
      utf8("Jefe"),
      "what do ya want for nothing?",
      "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
    ],
    [
      new Uint8Array(131).fill(0xaa),
      "Test Using Larger Than Block-Size Key - Hash Key First",
      "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54",
    ],
  ];
  for (const [key, text, mac] of cases) {
    it(`of ${JSON.stringify(text)} is that of the standard`, () => {
      assert.deepEqual(hmacSha256(sha256, key, utf8(text)), hex(mac));
    });
  }
});

describe("cookies", () => {
  const jar = new CookieJar(sha256, new Uint8Array(32).fill(7));
  const cookie = jar.make("udp://10.0.0.1:9", TAG, 5000);

  it("are good at their address, for their tag, for ten seconds", () => {
    assert.equal(cookie.length, 40);
    assert.equal(jar.check(cookie, "udp://10.0.0.1:9", TAG, 5000), true);
    assert.equal(jar.check(cookie, "udp://10.0.0.1:9", TAG, 15_000), true);
    assert.equal(jar.check(cookie, "udp://10.0.0.1:9", TAG, 15_001), false);
    assert.equal(jar.check(cookie, "udp://10.0.0.1:9", TAG, 4999), false);
    assert.equal(jar.check(cookie, "udp://10.0.0.1:8", TAG, 5000), false);
    assert.equal(jar.check(cookie, "udp://10.0.0.2:9", TAG, 5000), false);
    assert.equal(jar.check(cookie, "udp://10.0.0.1:9", TAG.toReversed(), 5000), false);
  });

  it("are those of one listener only, and not to be changed", () => {
    const other = new CookieJar(sha256, new Uint8Array(32).fill(8));
    assert.equal(other.check(cookie, "udp://10.0.0.1:9", TAG, 5000), false);
    for (let at = 0; at < cookie.length; at++) {
      const changed = cookie.slice();
      changed[at]! ^= 1;
      assert.equal(jar.check(changed, "udp://10.0.0.1:9", TAG, 5000), false);
    }
    assert.equal(jar.check(cookie.subarray(1), "udp://10.0.0.1:9", TAG, 5000), false);
    assert.equal(jar.check(new Uint8Array(0), "udp://10.0.0.1:9", TAG, 5000), false);
  });
});

describe("signed packets", () => {
  const open = (seal: PacketSeal, from: string | undefined, number = 1, now = TIMESTAMP) =>
    seal.open(ENVELOPE, from, number, now, HEADER);

  it("have their body in an envelope that is bound to the header", () => {
    assert.deepEqual(sealOf("node1").seal("node2", BODY, 1, TIMESTAMP, HEADER), ENVELOPE);
    assert.deepEqual(open(sealOf("node2"), "node1"), { sender: "node1", body: BODY });
    assert.equal(sealOf("node1").overhead("node2"), ENVELOPE.length - BODY.length + 16);
    const packet = joinPacket(HEADER, ENVELOPE);
    assert.deepEqual(packet, concat(HEADER, ENVELOPE));
  });

  it("are refused for every reason there is", () => {
    const refusals: [() => unknown, RegExp][] = [
      [() => open(sealOf("node2"), "node3"), /it is signed by "node1"/],
      [() => open(sealOf("node3"), "node1"), /it is for "node2"/],
      [() => open(sealOf("node2"), "node1", 2), /it belongs to another packet/],
      [() => open(sealOf("node2"), "node1", 1, TIMESTAMP + 1001), /it is too old/],
      [() => open(sealOf("node2"), "node1", 1, TIMESTAMP - 1001), /it is from the future/],
      [() => open(sealOf("node2", {}), "node1"), /no key is trusted for it/],
      [() => open(sealOf("node2", { node1: OTHER_KEY }), "node1"), /the signature is wrong/],
      [
        () => sealOf("node2").open(BODY, "node1", 1, TIMESTAMP, HEADER),
        /the packet is not signed/,
      ],
      [
        () => sealOf("node2").open(ENVELOPE, "node1", 1, TIMESTAMP, HEADER.with(1, 0x15)),
        /the signature is wrong/,
      ],
      [
        () => sealOf("node2").open(ENVELOPE, "node1", 1, TIMESTAMP, HEADER.with(5, 0)),
        /the signature is wrong/,
      ],
    ];
    for (const [call, message] of refusals) {
      assert.throws(call, { code: "IdentityMismatch", message });
    }
  });

  it("of a hello are bound to tag and cookie, and its token is proved", () => {
    const greeter = {
      local: identity({ nodeId: "node2", maxVersion: 3, capabilities: ["signed"] }),
      authToken: "secret",
      seal: sealOf("node2"),
      sha256,
    };
    const hello = { cookie: COOKIE, auth: AUTH, content: SIGNED_HELLO };
    const judge = (changed: Partial<typeof hello>, tag = TAG, token = "secret") => {
      const given = { ...greeter, authToken: token };
      const verdict = judgeHelloPacket(given, tag, { ...hello, ...changed }, TIMESTAMP);
      return "reject" in verdict ? verdict.reject.code : verdict.accept.nodeId;
    };
    assert.equal(judge({}), "node1");
    assert.equal(judge({ cookie: hex("c0ffed") }), "IDENTITY_REQUIRED");
    assert.equal(judge({}, TAG.toReversed()), "IDENTITY_REQUIRED");
    assert.equal(judge({ content: utf8(HELLO_JSON) }), "IDENTITY_REQUIRED");
    const name = utf8(HELLO_JSON.replace('"node1"', '"node3"'));
    const other = concat(HELLO_BODY.subarray(0, 33), name);
    const around = concat(hex("00"), TAG, COOKIE);
    const pretended = sealOf("node1").seal("node2", other, 0, TIMESTAMP, around);
    assert.equal(judge({ content: pretended }), "IDENTITY_REQUIRED");
    const own = sealOf("node1").seal("node2", HELLO_BODY, 0, TIMESTAMP, around);
    assert.deepEqual(own, SIGNED_HELLO);
    assert.equal(judge({ auth: hex("") }), "AUTH_FAILED");
    assert.equal(judge({ auth: AUTH.with(0, 0) }), "AUTH_FAILED");
    assert.equal(judge({}, TAG, "guess"), "AUTH_FAILED");
  });
});

describe("reading packets", () => {
  const readers = [readHello, readRetry, readData, readRequest, readAnswer, readToken];

  it("refuses anything at all with an InvalidFrame, or takes it", () => {
    fc.assert(fc.property(fc.uint8Array({ maxLength: 1400 }), (bytes) => {
      readPrefix(bytes);
      readNumber(bytes);
      for (const read of readers) {
        try {
          read(bytes);
        } catch (error) {
          assert.ok(error instanceof TransportError && error.code === "InvalidFrame");
        }
      }
    }));
  });

  it("gives back what was written", () => {
    const lane = fc.constantFrom(0 as const, 1 as const, 2 as const);
    const topic = fc.option(fc.string({ minLength: 1, maxLength: 20, unit: "grapheme" }), {
      nil: undefined,
    });
    const id = fc.integer({ min: 1, max: Number.MAX_SAFE_INTEGER });
    const payload = fc.uint8Array({ maxLength: 300 });
    fc.assert(fc.property(lane, topic, payload, id, (lane, topic, payload, id) => {
      const encoded = topic === undefined ? undefined : utf8(topic);
      const message = { lane, topic, payload };
      assert.deepEqual(readData(encodeData(lane, encoded, payload)), message);
      const request = encodeRequest(lane, encoded, payload, id);
      assert.deepEqual(readRequest(request), { ...message, id, msLeft: 0 });
      assert.deepEqual(readAnswer(encodeAnswer(id, payload)), { id, rest: payload });
    }));
  });
});
