import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { envelopeSeals } from "../../src/envelope.ts";
import { TransportError } from "../../src/errors.ts";
import { decodeEnvelope } from "../../src/protocol/envelope.ts";
import { EnvelopeSigner, EnvelopeVerifier } from "../../src/protocol/envelope_seal.ts";
import { BULK, CONTROL, type Lane, NORMAL } from "../../src/protocol/v3/types.ts";
import { generateSigningKey, readSigningKey, verifySignature } from "../../src/runtime/ed25519.ts";
import { ascii, OTHER_KEY, PRIVATE_KEY, PUBLIC_KEY, TIMESTAMP } from "./vectors.ts";

const NOW = TIMESTAMP;
const keyOfB = generateSigningKey();

/** Node "a", at some time. */
function signer(wallClockMs: number = NOW): EnvelopeSigner {
  const key = readSigningKey(PRIVATE_KEY);
  return new EnvelopeSigner({ nodeId: "a", sign: (bytes) => key.sign(bytes), wallClockMs });
}

/** A node that trusts the key of "a", and that of "b". */
function verifier(maxAgeMs: number = 300_000): EnvelopeVerifier {
  const keyOfA = readSigningKey(PRIVATE_KEY).publicKey;
  const trustedKeys = new Map([["a", [keyOfB.publicKey, keyOfA]], ["b", [keyOfB.publicKey]]]);
  return new EnvelopeVerifier({ trustedKeys, verify: verifySignature, maxAgeMs });
}

/** Why an envelope is refused. */
function refusal(open: () => Uint8Array, peer: string = "a"): string {
  try {
    open();
  } catch (error) {
    assert.ok(error instanceof TransportError, String(error));
    assert.equal(error.code, "IdentityMismatch");
    assert.equal(error.peer, peer);
    return error.message.replace(`Cannot accept an envelope from "${peer}": `, "");
  }
  return assert.fail("accepted");
}

describe("a sealed message", () => {
  it("is opened by the node it is for", () => {
    const bytes = signer().seal("me", ascii("ahoy"), NOW);
    assert.deepEqual(verifier().open(bytes, "a", "me", NOW), ascii("ahoy"));
    const empty = signer(NOW + 1).seal("me", new Uint8Array(), NOW);
    assert.equal(verifier().open(empty, "a", "me", NOW).length, 0);
  });

  it("is opened beside those of every other trusted node", () => {
    const open = verifier();
    const keyB = readSigningKey(keyOfB.privateKeyPem);
    const b = new EnvelopeSigner({ nodeId: "b", sign: (x) => keyB.sign(x), wallClockMs: NOW });
    open.open(signer().seal("me", ascii("ahoy"), NOW), "a", "me", NOW);
    assert.deepEqual(open.open(b.seal("me", ascii("b"), NOW), "b", "me", NOW), ascii("b"));
  });

  it("is refused from another peer, for another node, and without a trusted key", () => {
    const bytes = signer().seal("me", ascii("ahoy"), NOW);
    const open = verifier();
    assert.equal(refusal(() => open.open(bytes, "b", "me", NOW), "b"), 'it is signed by "a"');
    assert.equal(refusal(() => open.open(bytes, "a", "you", NOW)), 'it is for "me"');
    const nobody = new EnvelopeVerifier({
      trustedKeys: new Map(),
      verify: verifySignature,
      maxAgeMs: 1000,
    });
    assert.equal(refusal(() => nobody.open(bytes, "a", "me", NOW)), "no key is trusted for it");
    // All those refusals have not used it up.
    assert.deepEqual(open.open(bytes, "a", "me", NOW), ascii("ahoy"));
  });

  it("is refused with any bit changed", () => {
    const bytes = signer().seal("me", ascii("ahoy"), NOW);
    const open = verifier();
    for (let at = 0; at < bytes.length; at++) {
      const changed = bytes.slice();
      changed[at]! ^= 1 << (at % 8);
      refusal(() => open.open(changed, "a", "me", NOW));
    }
    assert.deepEqual(open.open(bytes, "a", "me", NOW), ascii("ahoy"));
  });

  it("is refused with the key of another node", () => {
    const key = readSigningKey(generateSigningKey().privateKeyPem);
    const forger = new EnvelopeSigner({
      nodeId: "a",
      sign: (bytes) => key.sign(bytes),
      wallClockMs: NOW,
    });
    const bytes = forger.seal("me", ascii("ahoy"), NOW);
    assert.equal(refusal(() => verifier().open(bytes, "a", "me", NOW)), "the signature is wrong");
  });

  it("is refused a second time", () => {
    const bytes = signer().seal("me", ascii("ahoy"), NOW);
    const open = verifier();
    open.open(bytes, "a", "me", NOW);
    assert.equal(refusal(() => open.open(bytes, "a", "me", NOW)), "it was taken before");
    assert.equal(refusal(() => open.open(bytes.slice(), "a", "me", NOW)), "it was taken before");
  });

  it("is refused when it is too old or from the future", () => {
    const bytes = signer().seal("me", ascii("ahoy"), NOW);
    const open = verifier(1000);
    assert.equal(refusal(() => open.open(bytes, "a", "me", NOW + 1001)), "it is too old");
    assert.equal(refusal(() => open.open(bytes, "a", "me", NOW - 1001)), "it is from the future");
    open.open(bytes, "a", "me", NOW + 1000);
  });

  it("is not a message without an envelope", () => {
    for (const bytes of [new Uint8Array(), ascii("ahoy"), new Uint8Array(300)]) {
      const error = refusal(() => verifier().open(bytes, "a", "me", NOW));
      assert.equal(error, "the message is no signed envelope");
    }
  });

  it("costs no signature check where it is refused without one", () => {
    let checks = 0;
    const trustedKeys = new Map([["a", [readSigningKey(PRIVATE_KEY).publicKey]]]);
    const open = new EnvelopeVerifier({
      trustedKeys,
      verify: (...args) => {
        checks++;
        return verifySignature(...args);
      },
      maxAgeMs: 1000,
    });
    const bytes = signer().seal("me", ascii("ahoy"), NOW);
    open.open(bytes, "a", "me", NOW);
    assert.equal(checks, 1);
    refusal(() => open.open(bytes, "a", "me", NOW));
    refusal(() => open.open(bytes, "a", "you", NOW));
    refusal(() => open.open(bytes, "a", "me", NOW + 2000));
    assert.equal(checks, 1);
  });
});

describe("the numbers of sealed messages", () => {
  function sequences(from: EnvelopeSigner, ...lanes: Lane[]): number[] {
    return lanes.map((lane) => {
      return decodeEnvelope(from.seal("me", new Uint8Array(), NOW, lane)).sequence;
    });
  }

  it("start at 1024 times the clock, count each lane, and end in it", () => {
    const start = 1829634048000000;
    assert.deepEqual(
      sequences(signer(), CONTROL, CONTROL, NORMAL, BULK, NORMAL),
      [start, start + 4, start + 1, start + 2, start + 5],
    );
    assert.equal(decodeEnvelope(signer().seal("me", new Uint8Array(), NOW)).sequence, start + 1);
  });

  it("are above all earlier ones after a restart a millisecond later", () => {
    const before = signer(NOW);
    // Faster than any signature is made.
    let last = 0;
    for (let i = 0; i < 256; i++) last = sequences(before, NORMAL)[0]!;
    assert.ok(sequences(signer(NOW + 1), NORMAL)[0]! > last);
  });

  it("let a restarted sender in, and its earlier messages not again", () => {
    const open = verifier();
    const old = signer(NOW).seal("me", ascii("old"), NOW);
    open.open(old, "a", "me", NOW);
    const restarted = signer(NOW + 5);
    for (let i = 0; i < 3; i++) {
      open.open(restarted.seal("me", ascii("new"), NOW + 5), "a", "me", NOW + 5);
    }
    const again = refusal(() => open.open(old, "a", "me", NOW + 5));
    assert.equal(again, "its number is too far behind");
  });

  it("keep a message of one lane good while thousands of another overtake it", () => {
    const from = signer();
    const open = verifier();
    const slow = [1, 2, 3].map(() => from.seal("me", ascii("slow"), NOW, BULK));
    for (let i = 0; i < 1100; i++) {
      open.open(from.seal("me", ascii("quick"), NOW, CONTROL), "a", "me", NOW);
    }
    for (const bytes of slow) open.open(bytes, "a", "me", NOW);
    for (const bytes of slow) {
      assert.equal(refusal(() => open.open(bytes, "a", "me", NOW)), "it was taken before");
    }
  });

  it("come from a clock between 1970 and 2248", () => {
    signer(0);
    signer(Date.UTC(2248, 0));
    for (const ms of [-1, NaN, Infinity, Date.UTC(2249, 0)]) {
      assert.throws(() => signer(ms), RangeError);
    }
  });

  it("take a clock of fractions", () => {
    const bytes = signer(NOW + 0.5).seal("me", ascii("ahoy"), NOW + 0.5);
    assert.equal(decodeEnvelope(bytes).timestamp, NOW);
  });
});

describe("envelopeSeals", () => {
  const signing = {
    privateKey: PRIVATE_KEY,
    trustedKeys: { a: [OTHER_KEY, PUBLIC_KEY] },
    maxAgeMs: 1000,
  };

  it("makes a signer and a verifier of the option", () => {
    const { signer, verifier } = envelopeSeals({
      nodeId: "a",
      privateKeyPem: PRIVATE_KEY,
      signing,
      wallClockMs: NOW,
    });
    for (let i = 0; i < 3; i++) {
      const bytes = signer.seal("me", ascii("ahoy"), NOW);
      assert.deepEqual(verifier.open(bytes, "a", "me", NOW), ascii("ahoy"));
    }
    const old = signer.seal("me", ascii("ahoy"), NOW);
    assert.equal(refusal(() => verifier.open(old, "a", "me", NOW + 1001)), "it is too old");
  });

  it("names the option of a key that is none, and quotes nothing of it", () => {
    const make = (privateKeyPem: string, given: object) =>
      envelopeSeals({
        nodeId: "a",
        privateKeyPem,
        signing: { trustedKeys: {}, maxAgeMs: 1, ...given },
        wallClockMs: NOW,
      });
    assert.throws(() => make("hunter2", { privateKey: "hunter2" }), {
      name: "ConfigError",
      message: "signing.privateKey: is not an Ed25519 private key in PEM (PKCS #8)",
    });
    assert.throws(() => make("hunter2", { privateKeyPath: "a.key" }), {
      path: "signing.privateKeyPath",
    });
  });
});
