import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { signEnvelope, verifyEnvelope, type VerifyEnvelopeOptions } from "../../src/envelope.ts";
import { type ErrorCode, TransportError } from "../../src/errors.ts";
import { EnvelopeWindow } from "../../src/protocol/envelope_window.ts";
import { generateSigningKey, readSigningKey } from "../../src/runtime/ed25519.ts";
import { ascii, OTHER_KEY, PRIVATE_KEY, PUBLIC_KEY, signedEnvelope, TIMESTAMP } from "./vectors.ts";

const ENVELOPE = {
  sender: "node1",
  recipient: "did:key:z6Mk",
  sequence: 1829634048000001,
  timestamp: TIMESTAMP,
  payload: ascii("ahoy"),
};
const OPTIONS: VerifyEnvelopeOptions = { trustedKeys: { node1: PUBLIC_KEY }, now: TIMESTAMP };

function refusal(bytes: Uint8Array, options: object, code: ErrorCode = "IdentityMismatch"): string {
  try {
    verifyEnvelope(bytes, { ...OPTIONS, ...options });
  } catch (error) {
    assert.ok(error instanceof TransportError, String(error));
    assert.equal(error.code, code);
    return error.message.replace('Cannot accept an envelope from "node1": ', "");
  }
  return assert.fail("accepted");
}

describe("signEnvelope", () => {
  it("makes the bytes that another implementation of Ed25519 makes", () => {
    assert.deepEqual(signEnvelope(ENVELOPE, PRIVATE_KEY), signedEnvelope());
  });

  it("takes a key that was read before", () => {
    assert.deepEqual(signEnvelope(ENVELOPE, readSigningKey(PRIVATE_KEY)), signedEnvelope());
  });

  it("takes the time from the clock where none is given", () => {
    const { timestamp: _, ...timeless } = ENVELOPE;
    const bytes = signEnvelope(timeless, PRIVATE_KEY);
    const { trustedKeys } = OPTIONS;
    const { timestamp } = verifyEnvelope(bytes, { trustedKeys });
    assert.ok(Math.abs(timestamp - Date.now()) < 60_000);
  });

  it("refuses what is no key, and quotes nothing of it", () => {
    assert.throws(() => signEnvelope(ENVELOPE, "hunter2"), (error: Error) => {
      return error instanceof RangeError && !error.message.includes("hunter2");
    });
  });
});

describe("verifyEnvelope", () => {
  it("returns all of an envelope that is right", () => {
    const { signature, ...envelope } = verifyEnvelope(signedEnvelope(), OPTIONS);
    assert.deepEqual(envelope, ENVELOPE);
    assert.equal(signature.length, 64);
  });

  it("tries each key of the sender", () => {
    const trustedKeys = { node1: [OTHER_KEY, PUBLIC_KEY] };
    verifyEnvelope(signedEnvelope(), { ...OPTIONS, trustedKeys });
  });

  it("refuses what no trusted key has signed", () => {
    const bytes = signedEnvelope();
    const other = { trustedKeys: { node1: OTHER_KEY, node2: PUBLIC_KEY } };
    assert.equal(refusal(bytes, other), "the signature is wrong");
    assert.equal(refusal(bytes, { trustedKeys: {} }), "no key is trusted for it");
    const forged = signEnvelope(ENVELOPE, generateSigningKey().privateKeyPem);
    assert.equal(refusal(forged, {}), "the signature is wrong");
  });

  it("trusts nothing that a prototype has", () => {
    for (const sender of ["constructor", "__proto__", "toString"]) {
      const bytes = signEnvelope({ ...ENVELOPE, sender }, PRIVATE_KEY);
      assert.match(refusal(bytes, {}), /: no key is trusted for it$/);
    }
  });

  it("refuses every envelope with one bit changed", () => {
    for (let bit = 0; bit < 8 * 108; bit++) {
      const bytes = signedEnvelope();
      bytes[bit >> 3]! ^= 1 << (bit & 7);
      assert.throws(
        () => verifyEnvelope(bytes, { ...OPTIONS, maxAgeMs: Infinity }),
        (error) => {
          return error instanceof TransportError &&
            (error.code === "IdentityMismatch" || error.code === "InvalidFrame");
        },
      );
    }
  });

  it("refuses another recipient, where one is asked for", () => {
    verifyEnvelope(signedEnvelope(), { ...OPTIONS, recipient: "did:key:z6Mk" });
    assert.equal(
      refusal(signedEnvelope(), { recipient: "node2" }),
      'it is for "did:key:z6Mk"',
    );
  });

  it("refuses what is too old or from the future", () => {
    const bytes = signedEnvelope();
    assert.equal(refusal(bytes, { now: TIMESTAMP + 300_001 }), "it is too old");
    assert.equal(refusal(bytes, { now: TIMESTAMP - 300_001 }), "it is from the future");
    assert.equal(refusal(bytes, { now: TIMESTAMP + 2, maxAgeMs: 1 }), "it is too old");
    verifyEnvelope(bytes, { ...OPTIONS, now: 0, maxAgeMs: Infinity });
  });

  it("refuses what was taken before, where it has a window", () => {
    const window = new EnvelopeWindow({ maxAgeMs: 1000 });
    // What is refused is not used up by it.
    const options = { window, trustedKeys: { node1: OTHER_KEY } };
    assert.equal(refusal(signedEnvelope(), options), "the signature is wrong");
    verifyEnvelope(signedEnvelope(), { ...OPTIONS, window });
    assert.equal(refusal(signedEnvelope(), { window }), "it was taken before");
    assert.equal(refusal(signedEnvelope(), { window, now: TIMESTAMP + 1001 }), "it is too old");
  });

  it("tells bytes that are no envelope from one that is not to be believed", () => {
    refusal(ascii("ahoy"), {}, "InvalidFrame");
    refusal(signedEnvelope().subarray(1), {}, "InvalidFrame");
  });

  it("refuses trusted keys that are no keys", () => {
    for (const key of ["", "AAAA", 5, [PUBLIC_KEY, "x"]]) {
      const trustedKeys = { node1: key } as never;
      assert.throws(() => verifyEnvelope(signedEnvelope(), { ...OPTIONS, trustedKeys }), TypeError);
    }
  });
});
