/** Encrypted datagrams: keys, packets and the handshake around them, against known answers. */

import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import {
  type Agreement,
  agreeOnKeys,
  hkdfSha256,
  type KeyExchange,
  LinkKeys,
  type PacketCrypto,
} from "../../src/protocol/datagram/encryption.ts";
import {
  type Greeter,
  judgeHelloPacket,
  readWelcome,
  secondHello,
  welcome,
} from "../../src/protocol/datagram/greeting.ts";
import { DatagramLink, type DatagramLinkOptions } from "../../src/protocol/datagram/link.ts";
import { readHello, readNumber } from "../../src/protocol/datagram/packet.ts";
import { PacketSeal } from "../../src/protocol/datagram/seal.ts";
import { PACKET } from "../../src/protocol/datagram/types.ts";
import type { Negotiated } from "../../src/protocol/negotiate.ts";
import { encodeWelcome } from "../../src/protocol/welcome.ts";
import {
  parsePublicKey,
  readSigningKey,
  sha256,
  verifySignature,
} from "../../src/runtime/ed25519.ts";
import { packetCrypto } from "../../src/runtime/packet_crypto.ts";
import { OTHER_KEY, PRIVATE_KEY, PUBLIC_KEY, TIMESTAMP } from "../envelope/vectors.ts";
import {
  cryptoWith,
  fixedExchange,
  FROM_DIALER,
  FROM_LISTENER,
  PRIVATE_KEY2,
  PUBLIC1,
  PUBLIC2,
  SEALED_DATA,
  SEALED_PONG,
  SECRET1,
  SECRET2,
  SHARED,
  TAG1,
  TAG2,
} from "./datagram_vectors.ts";
import { identity } from "./identities.ts";
import { concat, hex } from "./wire_bytes.ts";

const COOKIE = hex("c0ffee");
/** "ahoy" about "gossip" in the normal lane. */
const BODY = hex("05 06 676f73736970 61686f79");
const TOKEN = hex("1122334455667788");
/** A point of small order: whoever agrees with it, what comes out is zero. */
const SMALL_ORDER = new Uint8Array(32);

function sealOf(nodeId: "node1" | "node2", crypto: PacketCrypto): PacketSeal {
  const key = readSigningKey(nodeId === "node1" ? PRIVATE_KEY : PRIVATE_KEY2);
  return new PacketSeal({
    nodeId,
    sign: (bytes) => key.sign(bytes),
    verify: verifySignature,
    trustedKeys: new Map([
      ["node1", [parsePublicKey(PUBLIC_KEY)!]],
      ["node2", [parsePublicKey(OTHER_KEY)!]],
    ]),
    maxAgeMs: 1000,
    encryption: crypto,
  });
}

function agreement(changes: Partial<Agreement> = {}): Agreement {
  return {
    dialer: { nodeId: "node1", tag: TAG1, publicKey: PUBLIC1 },
    listener: { nodeId: "node2", tag: TAG2, publicKey: PUBLIC2 },
    exchange: fixedExchange(SECRET1),
    dialed: true,
    ...changes,
  };
}

/** The keys that AES-GCM is asked for: those of the dialer, then those of the listener. */
function keysOf(changes: Partial<Agreement> = {}): Uint8Array[] {
  const keys: Uint8Array[] = [];
  const crypto: PacketCrypto = {
    ...packetCrypto,
    cipher: (key) => {
      keys.push(key);
      return packetCrypto.cipher(key);
    },
  };
  agreeOnKeys(crypto, sha256, agreement(changes));
  return keys;
}

/** The side of the dialer, without keys. */
const LINK = {
  negotiated: { nodeId: "node2", version: 3 } as Negotiated,
  ownTag: TAG1,
  peerTag: TAG2,
  dialed: true,
  address: "here",
  keepaliveMs: 1000,
  randomBytes: () => TOKEN,
  send: () => true,
};

/** A link of the known handshake, on one side. */
function linkOf(dialed: boolean, maxPackets?: number, sent: Uint8Array[] = []): DatagramLink {
  const crypto = cryptoWith(fixedExchange(dialed ? SECRET1 : SECRET2), maxPackets);
  const exchange = crypto.newExchange();
  const [ownTag, peerTag] = dialed ? [TAG1, TAG2] : [TAG2, TAG1];
  return new DatagramLink({
    ...LINK,
    negotiated: { nodeId: dialed ? "node2" : "node1", version: 3 } as Negotiated,
    ownTag,
    peerTag,
    dialed,
    seal: sealOf(dialed ? "node1" : "node2", crypto),
    keys: agreeOnKeys(crypto, sha256, agreement({ exchange, dialed })),
    send: (packet) => sent.push(packet) > 0,
  }, 0);
}

describe("HKDF-SHA-256", () => {
  // RFC 5869, appendix A, tests 1 to 3: the first 32 bytes.
  const count = (from: number, to: number) =>
    Uint8Array.from({ length: to - from + 1 }, (_, i) => from + i);
  const cases: [Uint8Array, Uint8Array, Uint8Array, string][] = [
    [
      new Uint8Array(22).fill(0x0b),
      count(0, 0x0c),
      count(0xf0, 0xf9),
      "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf",
    ],
    [
      count(0, 0x4f),
      count(0x60, 0xaf),
      count(0xb0, 0xff),
      "b11e398dc80327a1c8e7f78c596a49344f012eda2d4efad8a050cc4c19afa97c",
    ],
    [
      new Uint8Array(22).fill(0x0b),
      hex(""),
      hex(""),
      "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d",
    ],
  ];
  for (const [secret, salt, info, output] of cases) {
    it(`of ${secret.length} bytes with a salt of ${salt.length} is that of the standard`, () => {
      assert.deepEqual(hkdfSha256(sha256, secret, salt, info), hex(output));
    });
  }
});

describe("AES-256-GCM", () => {
  // McGrew and Viega, The Galois/Counter Mode of Operation, appendix B, test case 16.
  const cipher = packetCrypto.cipher(
    hex("feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308"),
  );
  const nonce = hex("cafebabefacedbaddecaf888");
  const header = hex("feedfacedeadbeeffeedfacedeadbeefabaddad2");
  const plain = hex(
    "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72" +
      "1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39",
  );
  const sealed = hex(
    "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa" +
      "8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662" +
      "76fc6ece0f4e1768cddf8853bb2d551b",
  );

  it("is that of the standard, both ways", () => {
    assert.deepEqual(cipher.seal(nonce, header, plain), concat(header, sealed));
    assert.deepEqual(cipher.open(nonce, header, sealed), plain);
  });

  it("of nothing is a tag", () => {
    const packet = cipher.seal(nonce, header, hex(""));
    assert.equal(packet.length, header.length + 16);
    assert.deepEqual(cipher.open(nonce, header, packet.subarray(header.length)), hex(""));
  });

  it("opens nothing else", () => {
    const other = nonce.with(11, 0x89);
    assert.equal(cipher.open(other, header, sealed), undefined);
    assert.equal(cipher.open(nonce, header.with(0, 0), sealed), undefined);
    assert.equal(cipher.open(nonce, header, sealed.with(0, 0)), undefined);
    assert.equal(cipher.open(nonce, header, sealed.with(-1, 0)), undefined);
    assert.equal(cipher.open(nonce, header, sealed.subarray(0, -1)), undefined);
  });
});

describe("X25519", () => {
  it("gives both sides the same, and every exchange its own key", () => {
    const [a, b] = [packetCrypto.newExchange(), packetCrypto.newExchange()];
    assert.deepEqual(a.agree(b.publicKey), b.agree(a.publicKey));
    assert.notDeepEqual(a.publicKey, b.publicKey);
    assert.equal(a.publicKey.length, 32);
    const known = fixedExchange(SECRET2);
    assert.deepEqual(a.agree(PUBLIC2), known.agree(a.publicKey));
    assert.deepEqual(fixedExchange(SECRET1).agree(PUBLIC2), SHARED);
  });

  it("gives nothing with a key of small order", () => {
    const small = [
      SMALL_ORDER,
      SMALL_ORDER.with(0, 1),
      hex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
      hex("5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157"),
      hex("ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
    ];
    for (const key of small) assert.equal(packetCrypto.newExchange().agree(key), undefined);
  });
});

describe("the keys of a link", () => {
  it("are those of docs/datagrams.md, the other way round on the other side", () => {
    assert.deepEqual(keysOf(), [FROM_DIALER, FROM_LISTENER]);
    const exchange = fixedExchange(SECRET2);
    assert.deepEqual(keysOf({ exchange, dialed: false }), [FROM_DIALER, FROM_LISTENER]);
  });

  it("are others where a name, a tag or a public key is another one", () => {
    const { dialer, listener } = agreement();
    const changed: Partial<Agreement>[] = [
      { dialer: { ...dialer, nodeId: "node3" } },
      { listener: { ...listener, nodeId: "node3" } },
      { dialer: { ...dialer, tag: TAG2 } },
      { listener: { ...listener, tag: TAG1 } },
      { dialer: { ...dialer, publicKey: PUBLIC2 } },
      { dialer: listener, listener: { ...dialer, publicKey: PUBLIC2 } },
    ];
    for (const changes of changed) {
      const [own, peers] = keysOf(changes);
      assert.notDeepEqual(own, FROM_DIALER);
      assert.notDeepEqual(peers, FROM_LISTENER);
    }
  });

  it("are none where the secret is zero, or there is no secret", () => {
    const made = (agree: KeyExchange["agree"]) =>
      agreeOnKeys(packetCrypto, sha256, agreement({ exchange: { publicKey: PUBLIC1, agree } }));
    assert.equal(made(() => new Uint8Array(32)), undefined);
    assert.equal(made(() => undefined), undefined);
    assert.ok(made(() => SHARED) instanceof LinkKeys);
  });
});

describe("encrypted packets", () => {
  it("are those of docs/datagrams.md", () => {
    const sent: Uint8Array[] = [];
    linkOf(true, undefined, sent).send(PACKET.data, BODY, TIMESTAMP);
    linkOf(false, undefined, sent).send(PACKET.pong, TOKEN, TIMESTAMP);
    assert.deepEqual(sent, [SEALED_DATA, SEALED_PONG]);
    assert.deepEqual(linkOf(false).open(SEALED_DATA, TIMESTAMP, 0), BODY);
    assert.deepEqual(linkOf(true).open(SEALED_PONG, TIMESTAMP, 0), TOKEN);
    const link = linkOf(true);
    assert.equal(link.encrypted, true);
    assert.equal(SEALED_DATA.length - BODY.length, link.overhead);
    assert.equal(link.overhead, 26 + 16 + 87 + 10);
  });

  it("are refused where a byte is another one, is missing, or is one too many", () => {
    const link = linkOf(false);
    for (let at = 0; at < SEALED_DATA.length; at++) {
      const changed = SEALED_DATA.slice();
      changed[at]! ^= 1;
      // With these the number is 0, or above what a key may seal.
      const none = at >= 18 && at <= 22 || at === 25;
      assert.equal(link.open(changed, TIMESTAMP, 0), none ? "malformed" : "forged", `byte ${at}`);
    }
    for (let length = 26; length < SEALED_DATA.length; length++) {
      assert.equal(link.open(SEALED_DATA.subarray(0, length), TIMESTAMP, 0), "forged");
    }
    assert.equal(link.open(concat(SEALED_DATA, hex("00")), TIMESTAMP, 0), "forged");
    assert.deepEqual(link.open(SEALED_DATA, TIMESTAMP, 0), BODY);
    assert.equal(link.open(SEALED_DATA, TIMESTAMP, 0), "replayed");
  });

  it("are what a link has that signs, and no other", () => {
    const crypto = cryptoWith(fixedExchange(SECRET1));
    const seal = sealOf("node1", crypto);
    const keys = agreeOnKeys(crypto, sha256, agreement());
    const make = (given: Partial<DatagramLinkOptions>) => () =>
      new DatagramLink({ ...LINK, seal: undefined, keys: undefined, ...given }, 0);
    assert.equal(make({})().encrypted, false);
    assert.equal(make({ seal, keys })().encrypted, true);
    assert.throws(make({ seal }), TypeError);
    assert.throws(make({ keys }), TypeError);
  });

  it("are refused where they are our own, or those of another link", () => {
    assert.equal(linkOf(true).open(SEALED_DATA, TIMESTAMP, 0), "forged");
    const other = packetCrypto.newExchange();
    const keys = agreeOnKeys(packetCrypto, sha256, agreement({ exchange: other }))!;
    assert.equal(keys.open(SEALED_PONG), undefined);
  });

  it("say nothing of the body but its length", () => {
    fc.assert(fc.property(fc.uint8Array({ minLength: 8, maxLength: 200 }), (body) => {
      const sent: Uint8Array[] = [];
      const link = linkOf(true, undefined, sent);
      link.send(PACKET.data, body, TIMESTAMP);
      const [packet] = sent;
      assert.equal(packet!.length, body.length + link.overhead);
      assert.ok(!hexOf(packet!).includes(hexOf(body)));
      assert.deepEqual(linkOf(false).open(packet!, TIMESTAMP, 0), body);
    }));
  });

  it("have nonces that never come twice, and end where the numbers do", () => {
    const nonces: string[] = [];
    const crypto: PacketCrypto = {
      ...packetCrypto,
      maxPackets: 8,
      cipher: (key) => {
        const cipher = packetCrypto.cipher(key);
        return {
          open: cipher.open,
          seal: (nonce, header, bytes) => {
            nonces.push(hexOf(nonce));
            return cipher.seal(nonce, header, bytes);
          },
        };
      },
    };
    const sent: Uint8Array[] = [];
    const link = new DatagramLink({
      ...LINK,
      seal: sealOf("node1", crypto),
      keys: agreeOnKeys(crypto, sha256, agreement()),
      send: (packet) => sent.push(packet) > 0,
    }, 0);
    const states: [boolean, boolean][] = [];
    for (let i = 0; i < 12; i++) {
      link.send(PACKET.data, BODY, TIMESTAMP);
      link.ping(TIMESTAMP, 0);
      states.push([link.worn, link.spent]);
    }
    assert.deepEqual(states.slice(0, 4), [[false, false], [true, false], [true, false], [
      true,
      true,
    ]]);
    // The last number is for saying that there are no more.
    assert.equal(sent.length, 7);
    for (let i = 0; i < 2; i++) link.send(PACKET.bye, hex("0004"), TIMESTAMP);
    assert.deepEqual(sent.map((packet) => readNumber(packet)), [1, 2, 3, 4, 5, 6, 7, 8]);
    assert.deepEqual(nonces, sent.map((packet) => "00000000" + hexOf(packet.subarray(18, 26))));
  });

  it("with higher numbers than a key may seal are none", () => {
    const sent: Uint8Array[] = [];
    const sender = linkOf(true, 100, sent);
    const receiver = linkOf(false, 8);
    for (let i = 0; i < 9; i++) sender.send(PACKET.data, BODY, TIMESTAMP);
    const taken = sent.map((packet) => receiver.open(packet, TIMESTAMP, 0));
    assert.deepEqual(taken.slice(7), [BODY, "malformed"]);
    assert.equal(receiver.worn, true);
    assert.equal(receiver.spent, false);
  });
});

describe("the handshake of an encrypted link", () => {
  const local = (nodeId: string) =>
    identity({ nodeId, minVersion: 3, maxVersion: 3, capabilities: ["signed"] });
  const greeterOf = (nodeId: "node1" | "node2", exchange: KeyExchange): Greeter => ({
    local: local(nodeId),
    authToken: undefined,
    seal: sealOf(nodeId, cryptoWith(exchange)),
    sha256,
  });
  const exchange = fixedExchange(SECRET1);
  const dialer = greeterOf("node1", exchange);
  const listener = greeterOf("node2", fixedExchange(SECRET2));
  const greeted = { nodeId: "node2", tag: TAG1, exchange };
  const details = {
    ownTag: TAG2,
    wallClockMs: TIMESTAMP,
    nonce: new Uint8Array(16),
    generation: 1,
  };

  const helloOf = (greeter: Greeter, given: KeyExchange | undefined) =>
    readHello(secondHello(greeter, {
      tag: TAG1,
      cookie: COOKIE,
      nodeId: "node2",
      wallClockMs: TIMESTAMP,
      nonce: new Uint8Array(16),
      generation: 1,
      exchange: given,
    }));

  const judged = (given: KeyExchange | undefined) =>
    judgeHelloPacket(listener, TAG1, helloOf(dialer, given), TIMESTAMP);

  function greeting(publicKey = PUBLIC1) {
    const verdict = judged({ ...exchange, publicKey });
    assert.ok("accept" in verdict);
    return { tag: TAG1, negotiated: verdict.accept, publicKey: verdict.publicKey };
  }

  it("gives both sides the keys that open what the other one sends", () => {
    const welcomed = welcome(listener, greeting(), details);
    assert.ok("packet" in welcomed);
    const { tag, negotiated, keys } = readWelcome(dialer, greeted, welcomed.packet, TIMESTAMP);
    assert.deepEqual([tag, negotiated.nodeId], [TAG2, "node2"]);
    const header = SEALED_DATA.slice(0, 26);
    const content = welcomed.keys!.open(SEALED_DATA)!;
    assert.deepEqual(keys!.seal(header, content), SEALED_DATA);
  });

  it("refuses a dialer that offers no key, and one that no secret comes of", () => {
    const verdict = judged(undefined);
    assert.ok("reject" in verdict);
    assert.deepEqual(verdict, {
      reject: {
        code: "IDENTITY_REQUIRED",
        reason: "the dialer offers no key to encrypt with",
      },
      nodeId: "node1",
    });
    const refusal = welcome(greeterOf("node2", packetCrypto.newExchange()), greeting(SMALL_ORDER), {
      ...details,
    });
    assert.ok("code" in refusal);
    assert.equal(refusal.code, "MALFORMED");
  });

  /** What a listener with the right signing key says. */
  function saying(offer: Uint8Array, boundTo = PUBLIC1): Uint8Array {
    const agreed = { ...greeting().negotiated };
    const json = encodeWelcome(agreed, local("node2"), { ...details, sessionGeneration: 1 });
    const body = concat(TAG2, offer, json);
    const around = concat(hex("02"), TAG1, boundTo);
    const content = listener.seal!.seal("node1", body, 0, TIMESTAMP, around);
    return concat(hex("da12"), TAG1, content);
  }

  const read = (packet: Uint8Array, given: KeyExchange | undefined = exchange) =>
    readWelcome(dialer, { ...greeted, exchange: given }, packet, TIMESTAMP);

  it("refuses a listener that offers no key, and one that no secret comes of", () => {
    assert.ok(read(saying(concat(hex("01"), PUBLIC2))).keys !== undefined);
    const own = packetCrypto.newExchange();
    const bound = (offer: Uint8Array) => saying(offer, own.publicKey);
    const answer = (offer: Uint8Array) => () => read(bound(offer), own);
    assert.throws(answer(hex("")), { code: "HandshakeFailed", rejectCode: "IDENTITY_REQUIRED" });
    assert.throws(answer(concat(hex("02"), PUBLIC2)), { rejectCode: "IDENTITY_REQUIRED" });
    assert.throws(answer(concat(hex("01"), SMALL_ORDER)), { rejectCode: "MALFORMED" });
  });

  it("notices that somebody put another key in the place of ours, or of the listener's", () => {
    const middle = packetCrypto.newExchange().publicKey;
    // The listener has seen another key than the one that we sent.
    const answered = saying(concat(hex("01"), PUBLIC2), middle);
    assert.throws(() => read(answered), { code: "IdentityMismatch" });
    const swapped = saying(concat(hex("01"), PUBLIC2));
    swapped.set(middle, hexOf(swapped).indexOf(hexOf(PUBLIC2)) / 2);
    assert.throws(() => read(swapped), { code: "IdentityMismatch" });
    const hello = helloOf(dialer, exchange);
    const content = hello.content.slice();
    content.set(middle, hexOf(content).indexOf(hexOf(PUBLIC1)) / 2);
    const verdict = judgeHelloPacket(listener, TAG1, { ...hello, content }, TIMESTAMP);
    assert.equal("reject" in verdict && verdict.reject.code, "IDENTITY_REQUIRED");
  });

  it("proves the token of the key, too", () => {
    const greeter = { ...dialer, authToken: "secret" };
    const hello = helloOf(greeter, exchange);
    const judge = (given: typeof hello) =>
      judgeHelloPacket({ ...listener, authToken: "secret" }, TAG1, given, TIMESTAMP);
    assert.ok("accept" in judge(hello));
    // The same with another key, signed as well, and the proof of the former.
    const again = helloOf(greeter, packetCrypto.newExchange());
    const verdict = judge({ ...again, auth: hello.auth });
    assert.equal("reject" in verdict && verdict.reject.code, "AUTH_FAILED");
  });
});

function hexOf(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
