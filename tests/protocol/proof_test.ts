import { describe, it } from "node:test";
import assert from "node:assert/strict";
import fc from "fast-check";
import { HandshakeError, type RejectCode, TransportError } from "../../src/errors.ts";
import {
  appendSignature,
  encodeProof,
  encodePublicKey,
  parseProof,
  proofInput,
  withoutSignature,
} from "../../src/protocol/proof.ts";
import { sha256, verifySignature } from "../../src/runtime/ed25519.ts";
import { KEY1, KEY2, KEY3, keys, Pair, provingPair, type Side } from "./handshake_pair.ts";
import { identity, malformed, utf8 } from "./identities.ts";
import { concat, hex } from "./wire_bytes.ts";

// The keys of RFC 8032, section 7.1, tests 1 and 2; the signatures come from another implementation.
const DIALER_BASE64 = "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=";
const LISTENER_BASE64 = "PUAXw+hDiVqStwqnTRt+vJyYLM8uxJaMwM1V8Sr0Zgw=";

const HELLO = '{"type":"hello","protocol_version":3,"node_id":"node1","capabilities":["resume"],' +
  `"nonce":"AAECAwQFBgcICQoLDA0ODw==","public_key":"${DIALER_BASE64}"}`;
const WELCOME =
  '{"type":"welcome","protocol_version":3,"node_id":"node2","capabilities":["resume"],' +
  '"max_message_size":16777216,"nonce":"EBESExQVFhcYGRobHB0eHw==",' +
  '"session":{"id":"000102030405060708090a0b0c0d0e0f","resumed":false,"received":[0,0,0]},' +
  `"public_key":"${LISTENER_BASE64}"}`;
const LISTENER_SIGNATURE =
  "vqUmdA47HTxRhzpTeeDUbD3u0VO6qYpRF4BTKLvOFrktCyVQc/BsLPr2Cn2d/vgK8sB7PlOR6Y2njgC6LIadCw==";
const SIGNED_WELCOME = `${WELCOME.slice(0, -1)},"signature":"${LISTENER_SIGNATURE}"}`;
const DIALER_SIGNATURE =
  "nVY5atnzx1RJQazoz/oySryNtJwsP1d2bw2xaDUFmYFutUBxYn4h5Tnv9Vcn/+cbXP1E0dTbvuWI8LM/Jn3HAQ==";

const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);

describe("the bytes of a proof", () => {
  it("are hashed as label, role, and both bodies behind their lengths", () => {
    assert.deepEqual(
      proofInput("dialer", hex("01 02 03"), hex("04")),
      concat(utf8("hawser/1 proof"), utf8("dialer"), hex("00000003 010203 00000001 04")),
    );
    assert.deepEqual(
      sha256(proofInput("listener", utf8(HELLO), utf8(WELCOME))),
      hex("f57a14b3d0ca5c781116422c12a7958cac0213974beffd1d98f3c28cf12a43ed"),
    );
    assert.deepEqual(
      sha256(proofInput("dialer", utf8(HELLO), utf8(SIGNED_WELCOME))),
      hex("f374338bc6e5d65dd74cdf1fc59edf2c8e13547196509ced532129c60a4448fe"),
    );
  });

  it("are signed as another implementation signs them", () => {
    const ofListener = sha256(proofInput("listener", utf8(HELLO), utf8(WELCOME)));
    assert.equal(base64(KEY2.sign(ofListener)), LISTENER_SIGNATURE);
    const ofDialer = sha256(proofInput("dialer", utf8(HELLO), utf8(SIGNED_WELCOME)));
    assert.equal(base64(KEY1.sign(ofDialer)), DIALER_SIGNATURE);
  });

  it("are other ones for another role, hello or welcome, and for bytes moved between them", () => {
    const [a, b] = [hex("0102"), hex("03")];
    const inputs = [
      proofInput("dialer", a, b),
      proofInput("listener", a, b),
      proofInput("dialer", b, a),
      proofInput("dialer", hex("01"), hex("0203")),
      proofInput("dialer", hex("010203"), hex("")),
    ];
    assert.equal(new Set(inputs.map(String)).size, inputs.length);
  });

  it("put the signature last into the welcome, and take it out again", () => {
    const signature = Uint8Array.from(atob(LISTENER_SIGNATURE), (char) => char.charCodeAt(0));
    const signed = appendSignature(utf8(WELCOME), signature);
    assert.equal(text(signed), SIGNED_WELCOME);
    assert.equal(text(withoutSignature(signed, LISTENER_SIGNATURE)), WELCOME);
  });

  const elsewhere = [
    SIGNED_WELCOME.replace('{"type"', `{"signature":"${LISTENER_SIGNATURE}","type"`).replace(
      `,"signature":"${LISTENER_SIGNATURE}"}`,
      "}",
    ),
    `${SIGNED_WELCOME} `,
    SIGNED_WELCOME.replace(',"signature":', ', "signature":'),
    SIGNED_WELCOME.replace('"signature":"', '"signature": "'),
    SIGNED_WELCOME.replace('"signature"', '"signatur\\u0065"'),
    SIGNED_WELCOME.replace(`${LISTENER_SIGNATURE}"}`, `${LISTENER_SIGNATURE}","x":1}`),
    SIGNED_WELCOME.replace('=="}', '\\u003d="}'),
    `"signature":"${LISTENER_SIGNATURE}"}`,
    "",
  ];
  for (const [index, body] of elsewhere.entries()) {
    it(`refuse a signature that isn't the last member as it must be written, ${index}`, () => {
      assert.throws(
        () => withoutSignature(utf8(body), LISTENER_SIGNATURE),
        malformed("signature must be its last member"),
      );
    });
  }

  it("are the proof's own frame", () => {
    const body = `{"type":"proof","signature":"${DIALER_SIGNATURE}"}`;
    const signature = Uint8Array.from(atob(DIALER_SIGNATURE), (char) => char.charCodeAt(0));
    assert.equal(text(encodeProof(signature)), body);
    assert.equal(parseProof(utf8(body)), DIALER_SIGNATURE);
    assert.equal(parseProof(utf8(body.replace("{", '{"x":null,'))), DIALER_SIGNATURE);
  });

  const broken = [
    ...["", "{}", "[]", '{"type":"proof"}', '{"type":"hello"}', "null"],
    `{"signature":"${DIALER_SIGNATURE}"}`,
    `{"type":"Proof","signature":"${DIALER_SIGNATURE}"}`,
    ...["null", "1", '""', '"AAAA"', `"${DIALER_SIGNATURE}A"`, `"${DIALER_SIGNATURE}\\n"`].map(
      (signature) => `{"type":"proof","signature":${signature}}`,
    ),
    `{"type":"proof","signature":"${DIALER_SIGNATURE.replace("AQ==", "AR==")}"}`,
    `{"type":"proof","signature":"${DIALER_SIGNATURE}","signature":"${DIALER_SIGNATURE}"}`,
  ];
  for (const body of broken) {
    it(`refuses the proof ${body || "nothing"}`, () => {
      assert.throws(() => parseProof(utf8(body)), malformed("Cannot read"));
    });
  }

  it("take keys of 32 and signatures of 64 bytes only", () => {
    assert.equal(encodePublicKey(KEY1.publicKey), DIALER_BASE64);
    for (const length of [0, 31, 33]) {
      assert.throws(() => encodePublicKey(new Uint8Array(length)), RangeError);
    }
    for (const length of [0, 63, 65]) {
      assert.throws(() => encodeProof(new Uint8Array(length)), RangeError);
      assert.throws(() => appendSignature(utf8(WELCOME), new Uint8Array(length)), RangeError);
    }
  });

  it("find any welcome again that was signed", () => {
    fc.assert(
      fc.property(
        fc.dictionary(fc.string(), fc.jsonValue(), { noNullPrototype: true }),
        fc.uint8Array({ minLength: 64, maxLength: 64 }),
        (members, signature) => {
          const body = utf8(JSON.stringify({ type: "welcome", ...members }));
          const signed = appendSignature(body, signature);
          const written = btoa(String.fromCharCode(...signature));
          assert.deepEqual(withoutSignature(signed, written), body);
          assert.equal(JSON.parse(text(signed)).signature, written);
        },
      ),
    );
  });
});

describe("a handshake with proofs", () => {
  it("ends with each side knowing the other's key", () => {
    const pair = provingPair().run();
    assert.equal(pair.sent.length, 3);
    assert.equal(pair.dialer.agreed?.publicKey, LISTENER_BASE64);
    assert.equal(pair.listener.agreed?.publicKey, DIALER_BASE64);
    assert.equal(pair.dialer.agreed?.version, 3);
    assert.deepEqual(pair.listener.agreed, { ...pair.listener.agreed, nodeId: "node1" });
  });

  it("shows keys and signatures that anybody can check who knows the description", () => {
    const [hello = "", welcome = "", proof = ""] = provingPair().run().sent;
    assert.ok(hello.endsWith(`,"public_key":"${DIALER_BASE64}"}`));
    const tail = /,"public_key":"([^"]*)","signature":"([A-Za-z0-9+\/]{86}==)"}$/.exec(welcome);
    assert.equal(tail?.[1], LISTENER_BASE64);
    const unsigned = welcome.replace(/,"signature":"[^"]*"}$/, "}");
    assert.ok(
      verifySignature(KEY2.publicKey, digest("listener", hello, unsigned), bytes(tail![2]!)),
    );
    const signature = /^\{"type":"proof","signature":"([A-Za-z0-9+\/]{86}==)"}$/.exec(proof)?.[1];
    assert.ok(verifySignature(KEY1.publicKey, digest("dialer", hello, welcome), bytes(signature!)));
    assert.ok(welcome.length <= 4096 && hello.length <= 4096);
  });

  it("takes the proof of a dialer written from the description", () => {
    const { listener } = provingPair();
    listener.take(HELLO);
    const welcome = listener.outbox.pop()!;
    const signature = base64(KEY1.sign(digest("dialer", HELLO, welcome)));
    listener.take(`{"type":"proof","signature":"${signature}"}`);
    assert.equal(listener.error, undefined);
    assert.equal(listener.agreed?.publicKey, DIALER_BASE64);
  });

  it("takes the proof of a listener written from the description", () => {
    const { dialer } = provingPair({
      dialer: { local: identity({ nodeId: "node1", maxVersion: 3 }) },
    });
    const hello = dialer.outbox.pop()!;
    const welcome =
      '{"node_id":"node2", "x":{"signature":""},"type":"welcome",\n"capabilities":[],' +
      `"protocol_version":3,"public_key":"${LISTENER_BASE64}"}`;
    const signature = base64(KEY2.sign(digest("listener", hello, welcome)));
    dialer.take(`${welcome.slice(0, -1)},"signature":"${signature}"}`);
    assert.equal(dialer.error, undefined);
    assert.equal(dialer.agreed?.publicKey, LISTENER_BASE64);
  });

  it("completes on the listener only after the proof, and says nothing of the key before", () => {
    const asked: (string | undefined)[] = [];
    const onHello = ({ publicKey }: { publicKey: string | undefined }) =>
      void asked.push(publicKey);
    const pair = provingPair({
      sink: { onHello: (negotiated) => onHello(negotiated) as undefined },
    });
    pair.deliver(pair.dialer, pair.listener);
    assert.ok(pair.listener.waits);
    pair.deliver(pair.listener, pair.dialer);
    assert.equal(pair.dialer.agreed?.publicKey, LISTENER_BASE64);
    assert.ok(pair.listener.waits);
    pair.deliver(pair.dialer, pair.listener);
    assert.equal(pair.listener.agreed?.publicKey, DIALER_BASE64);
    assert.deepEqual(asked, [undefined, DIALER_BASE64]);
  });

  it("needs no proof of a side whose certificate does", () => {
    const certified = { prove: false };
    const trusting = { demandProof: () => false };
    const onlyDialer = provingPair({ dialer: trusting, listener: certified }).run();
    assert.equal(onlyDialer.sent.length, 3);
    assert.equal(onlyDialer.dialer.agreed?.publicKey, undefined);
    assert.equal(onlyDialer.listener.agreed?.publicKey, DIALER_BASE64);
    const onlyListener = provingPair({ dialer: certified, listener: trusting }).run();
    assert.equal(onlyListener.sent.length, 2);
    assert.equal(onlyListener.dialer.agreed?.publicKey, LISTENER_BASE64);
    assert.equal(onlyListener.listener.agreed?.publicKey, undefined);
  });

  it("is possible for a side that has no key of its own to show", () => {
    const listener = { identity: keys(undefined, { node1: [KEY1] }) };
    const pair = provingPair({ dialer: { demandProof: () => false }, listener }).run();
    assert.equal(pair.listener.agreed?.publicKey, DIALER_BASE64);
    assert.doesNotMatch(pair.sent[1]!, /public_key|signature/);
  });

  it("takes any of the keys that are listed for a node", () => {
    const pair = provingPair({
      dialer: { identity: keys(KEY1, { node2: [KEY3, KEY2] }) },
      listener: { identity: keys(KEY2, { node1: [KEY3, KEY1] }) },
    }).run();
    assert.equal(pair.dialer.agreed?.publicKey, LISTENER_BASE64);
    assert.equal(pair.listener.agreed?.publicKey, DIALER_BASE64);
  });

  it("reads proofs that nobody demanded, and vouches for listed keys only", () => {
    const unlisted = { demandProof: () => false };
    const strangers = provingPair({
      dialer: { ...unlisted, identity: keys(KEY1, {}) },
      listener: { ...unlisted, identity: keys(KEY2, {}) },
    }).run();
    const ignorant = new Pair({ dialer: { prove: true, identity: keys(KEY1, {}) } }).run();
    const unknown = new Pair({ listener: { prove: true, identity: keys(KEY2, {}) } }).run();
    for (const { dialer, listener } of [strangers, ignorant, unknown]) {
      assert.equal(dialer.agreed?.version, 3);
      assert.equal(listener.agreed?.version, 3);
      assert.equal(dialer.agreed.publicKey ?? listener.agreed.publicKey, undefined);
    }
    assert.deepEqual([strangers, ignorant, unknown].map(({ sent }) => sent.length), [3, 3, 2]);
  });

  it("shows nothing in version 2", () => {
    const older = { local: identity({ nodeId: "node2" }), demandProof: () => false };
    const pair = provingPair({ dialer: { demandProof: () => false }, listener: older }).run();
    assert.equal(pair.sent.length, 2);
    assert.equal(pair.dialer.agreed?.version, 2);
    assert.equal(pair.listener.agreed?.version, 2);
    assert.doesNotMatch(pair.sent[1]!, /public_key|signature|nonce/);
  });

  it("remembers no hello under the name of a node that has not proved to be it", () => {
    assert.equal(provingPair().run().replay.size, 0);
    assert.equal(new Pair().run().replay.size, 1);
  });
});

describe("a proof that is demanded and not given", () => {
  it("is IDENTITY_REQUIRED of a dialer without key", () => {
    const pair = provingPair({ dialer: { prove: false } }).run();
    refused(pair, "IDENTITY_REQUIRED");
    assert.ok(pair.listener.error instanceof HandshakeError);
    assert.equal(pair.listener.error.rejectCode, "IDENTITY_REQUIRED");
  });

  it("is IDENTITY_REQUIRED of a dialer of version 2", () => {
    const local = identity({ nodeId: "node1" });
    refused(provingPair({ dialer: { local } }).run(), "IDENTITY_REQUIRED");
  });

  it("is IDENTITY_REQUIRED where the listener itself speaks no version that has proofs", () => {
    const listener = { local: identity({ nodeId: "node2" }) };
    const pair = provingPair({ dialer: { demandProof: no }, listener }).run();
    refused(pair, "IDENTITY_REQUIRED");
  });

  it("is AUTH_FAILED of a dialer whose key is not listed for its node id", () => {
    for (
      const trusted of [{}, { node1: [] }, { node1: [KEY3] }, { node3: [KEY1], node2: [KEY1] }]
    ) {
      const pair = provingPair({ listener: { identity: keys(KEY2, trusted) } }).run();
      refused(pair, "AUTH_FAILED");
      assert.equal(pair.listener.error?.code, "IdentityMismatch");
      assert.equal(pair.sent.length, 2);
    }
  });

  it("is AUTH_FAILED of a dialer that shows the key of another", () => {
    const stolen = { ...keys(KEY1, { node2: [KEY2] }), sign: KEY3.sign };
    const pair = provingPair({ dialer: { identity: stolen } }).run();
    refused(pair, "AUTH_FAILED");
    assert.equal(pair.listener.error?.code, "IdentityMismatch");
    assert.equal(pair.sent.length, 4);
  });

  it("fails a listener that shows no key", () => {
    const pair = provingPair({ listener: { prove: false } }).run();
    assert.ok(pair.dialer.error instanceof HandshakeError);
    assert.equal(pair.dialer.error.rejectCode, "IDENTITY_REQUIRED");
    unfinished(pair);
  });

  it("fails a listener that chose version 2", () => {
    const older = { local: identity({ nodeId: "node2" }), demandProof: () => false };
    const { dialer } = provingPair({ listener: older }).run();
    assert.ok(dialer.error instanceof HandshakeError);
    assert.equal(dialer.error.rejectCode, "IDENTITY_REQUIRED");
    assert.equal(dialer.agreed, undefined);
  });

  it("fails a listener whose key is not listed, or that shows the key of another", () => {
    const stolen = { ...keys(KEY2, { node1: [KEY1] }), sign: KEY3.sign };
    const pairs = [
      provingPair({ dialer: { identity: keys(KEY1, { node1: [KEY2], node3: [KEY2] }) } }).run(),
      provingPair({ listener: { identity: stolen } }).run(),
    ];
    for (const pair of pairs) {
      assert.equal(pair.dialer.error?.code, "IdentityMismatch");
      assert.equal(pair.dialer.error.peer, "node2");
      unfinished(pair);
    }
  });

  it("fails everybody where there are no keys to check it with", () => {
    const listener = { identity: undefined, prove: false };
    refused(provingPair({ dialer: { demandProof: () => false }, listener }).run(), "AUTH_FAILED");
    const keyless = provingPair({ dialer: { identity: undefined }, listener: { demandProof: no } });
    assert.equal(keyless.run().dialer.error?.code, "IdentityMismatch");
  });

  it("fails a false proof that nobody demanded, too", () => {
    const stolen = (key: typeof KEY1) => ({ ...keys(key, {}), sign: KEY3.sign });
    const relaxed = { demandProof: no };
    const dialer = { ...relaxed, identity: stolen(KEY1) };
    refused(provingPair({ dialer, listener: relaxed }).run(), "AUTH_FAILED");
    const pair = provingPair({ dialer: relaxed, listener: { ...relaxed, identity: stolen(KEY2) } });
    assert.equal(pair.run().dialer.error?.code, "IdentityMismatch");
  });
});

describe("somebody on the line", () => {
  const both = "both demand";
  const listenerOnly = "only the listener demands";
  const dialerOnly = "only the dialer demands";
  const setups = {
    [both]: {},
    [listenerOnly]: { dialer: { demandProof: no }, listener: { prove: false } },
    [dialerOnly]: { dialer: { prove: false }, listener: { demandProof: no } },
  };
  const changes: [string, (frame: string) => string][] = [
    ["the version of the hello", (frame) => frame.replace('version":3', 'version":2')],
    ["a capability of the hello", (frame) => inHello(frame, ',"resume"]', "]")],
    ["all capabilities of the hello", (frame) => inHello(frame, '["lz4","resume"]', "[]")],
    ["the nonce of the hello", (frame) => inHello(frame, '"AQ', '"AA')],
    [
      "the incarnation of the hello",
      (frame) => inHello(frame, "0123456789abcdef", "f123456789abcdef"),
    ],
    ["the message size of the hello", (frame) => inHello(frame, ":16777216", ":1")],
    ["a field more in the hello", (frame) => inHello(frame, "{", '{"x":1,')],
    ["the version of the welcome", (frame) => inWelcome(frame, 'version":3', 'version":2')],
    ["a capability of the welcome", (frame) => inWelcome(frame, '"lz4"', "")],
    ["the message size of the welcome", (frame) => inWelcome(frame, ":16777216", ":1")],
    ["the nonce of the welcome", (frame) => inWelcome(frame, '"Ag', '"AA')],
    ["white space in the welcome", (frame) => inWelcome(frame, "{", "{ ")],
  ];
  for (const [name, setup] of Object.entries(setups)) {
    for (const [what, tamper] of changes) {
      it(`can't change ${what} unnoticed where ${name}`, () => {
        let changed = false;
        const pair = provingPair({
          ...setup,
          tamper: (frame) => {
            const other = tamper(frame);
            changed ||= other !== frame;
            return other;
          },
        }).run();
        assert.ok(changed);
        const [demanding, other] = name === listenerOnly
          ? [pair.listener, pair.dialer]
          : [pair.dialer, pair.listener];
        assert.equal(demanding.agreed, undefined);
        // A listener of version 3 goes on waiting for the proof of a dialer that believes in 2.
        assert.ok(demanding.error !== undefined || other.agreed?.version === 2);
      });
    }
  }

  it("gets nowhere by taking keys or signatures out", () => {
    for (const member of [/,"public_key":"[^"]*"/, /,"signature":"[^"]*"/]) {
      const pair = provingPair({ tamper: (frame) => frame.replace(member, "") }).run();
      unfinished(pair);
      assert.ok(pair.dialer.error instanceof HandshakeError);
    }
  });

  it("can't complete a hello that was seen before", () => {
    const [hello = "", , proof = ""] = provingPair().run().sent;
    const { listener } = provingPair({ listener: { nonce: new Uint8Array(16).fill(3) } });
    listener.take(hello);
    assert.ok(listener.waits);
    listener.take(proof);
    assert.equal(listener.agreed, undefined);
    assert.equal(listener.error?.code, "IdentityMismatch");
    assert.match(listener.outbox.at(-1)!, /"code":"AUTH_FAILED"/);
  });

  it("can't answer with a welcome that was seen before", () => {
    const [, welcome = ""] = provingPair().run().sent;
    const { dialer } = provingPair({ dialer: { nonce: new Uint8Array(16).fill(3) } });
    dialer.take(welcome);
    assert.equal(dialer.error?.code, "IdentityMismatch");
  });

  it("can't give a listener's signature back as a dialer's proof", () => {
    // The same key on both sides: only the roles differ.
    const { listener } = provingPair({ listener: { identity: keys(KEY1, { node1: [KEY1] }) } });
    listener.take(HELLO);
    const welcome = listener.outbox.pop()!;
    const signature = /"signature":"([^"]*)"/.exec(welcome)![1];
    listener.take(`{"type":"proof","signature":"${signature}"}`);
    assert.equal(listener.agreed, undefined);
    assert.equal(listener.error?.code, "IdentityMismatch");
  });

  it("can't send anything else in place of the proof", () => {
    const frames = ["\u0000\u0000", HELLO, "{}", '{"type":"proof","signature":"AAAA"}'];
    for (const frame of frames) {
      const { listener } = provingPair();
      listener.take(HELLO);
      listener.take(frame);
      assert.equal(listener.agreed, undefined);
      assert.ok(listener.error instanceof HandshakeError);
      assert.equal(listener.error.rejectCode, "MALFORMED");
      assert.match(listener.outbox.at(-1)!, /"code":"MALFORMED"/);
    }
  });

  it("can't change any byte of any frame", () => {
    const lengths = provingPair().run().sent.map((frame) => frame.length);
    const place = fc.nat({ max: 2 }).chain((frame) =>
      fc.tuple(
        fc.constant(frame),
        fc.nat({ max: lengths[frame]! - 1 }),
        fc.integer({ min: 1, max: 127 }),
      )
    );
    fc.assert(
      fc.property(place, ([which, at, flip]) => {
        const tamper = (frame: string, index: number) => {
          if (index !== which) return frame;
          const other = String.fromCharCode(frame.charCodeAt(at) ^ flip);
          return frame.slice(0, at) + other + frame.slice(at + 1);
        };
        const pair = provingPair({ tamper }).run();
        const judge = which === 1 ? pair.dialer : pair.listener;
        assert.equal(judge.agreed, undefined);
        assert.ok(pair.dialer.error ?? pair.listener.error);
      }),
      { numRuns: 500 },
    );
  });
});

function no(): boolean {
  return false;
}

function inHello(frame: string, part: string, other: string): string {
  return frame.startsWith('{"type":"hello"') ? frame.replace(part, other) : frame;
}

function inWelcome(frame: string, part: string, other: string): string {
  return frame.startsWith('{"type":"welcome"') ? frame.replace(part, other) : frame;
}

/** The listener turned the dialer away with this code, and both know. */
function refused(pair: Pair, code: RejectCode): void {
  unfinished(pair);
  assert.ok(pair.listener.error instanceof TransportError);
  assert.equal(pair.listener.error.peer, "node1");
  assert.ok(pair.dialer.error instanceof HandshakeError, String(pair.dialer.error));
  assert.equal(pair.dialer.error.rejectCode, code);
  for (const side of [pair.dialer, pair.listener]) checkWording(side);
}

/** The listener never let the dialer in. */
function unfinished(pair: Pair): void {
  assert.equal(pair.listener.agreed, undefined);
}

function checkWording({ error }: Side): void {
  assert.match(error!.message, /^Cannot [ -~]*[^.]$/);
}

/** What is signed, put together by hand. */
function digest(role: string, hello: string, welcome: string): Uint8Array {
  const parts = [hello, welcome].flatMap((body) => {
    const encoded = utf8(body);
    return [hex(encoded.length.toString(16).padStart(8, "0")), encoded];
  });
  return sha256(concat(utf8("hawser/1 proof"), utf8(role), ...parts));
}

function base64(data: Uint8Array): string {
  return btoa(String.fromCharCode(...data));
}

function bytes(base64: string): Uint8Array {
  return Uint8Array.from(atob(base64), (char) => char.charCodeAt(0));
}
