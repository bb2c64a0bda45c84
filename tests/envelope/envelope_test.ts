import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import { TransportError } from "../../src/errors.ts";
import {
  decodeEnvelope,
  encodeEnvelope,
  type Envelope,
  envelopeOverhead,
  isSignedBy,
  MAX_ENVELOPE_OVERHEAD,
  signedBytesOf,
} from "../../src/protocol/envelope.ts";
import { ascii, fromHex, signedEnvelope, TIMESTAMP, unsignedEnvelope } from "./vectors.ts";

const ENVELOPE: Envelope = {
  sender: "node1",
  recipient: "did:key:z6Mk",
  sequence: 1829634048000001,
  timestamp: TIMESTAMP,
  payload: ascii("ahoy"),
};
const CONTEXT = "hawser envelope 1\0";

/** No signature at all: 64 bytes of 7. */
function sign(): Uint8Array {
  return new Uint8Array(64).fill(7);
}

function encode(envelope: object): Uint8Array {
  return encodeEnvelope({ ...ENVELOPE, ...envelope }, sign);
}

function invalid(bytes: Uint8Array): string {
  try {
    decodeEnvelope(bytes);
  } catch (error) {
    assert.ok(error instanceof TransportError, String(error));
    assert.equal(error.code, "InvalidFrame");
    assert.match(error.message, /^Cannot read an envelope: [ -~]+[^.]$/);
    return error.message.replace("Cannot read an envelope: ", "");
  }
  return assert.fail("accepted");
}

/** An envelope of these fields, in hex, with a signature of zeros. */
function ofHex(fields: string): Uint8Array {
  return Uint8Array.of(...fromHex(fields), ...new Uint8Array(64));
}

describe("encodeEnvelope", () => {
  it("writes the fields in their order, the signature last", () => {
    assert.deepEqual(encode({}), Uint8Array.of(...unsignedEnvelope(), ...sign()));
  });

  it("signs the context and everything before the signature", () => {
    let signed: Uint8Array | undefined;
    const bytes = encodeEnvelope(ENVELOPE, (bytes) => {
      signed = bytes.slice();
      return sign();
    });
    const expected = Uint8Array.of(...ascii(CONTEXT), ...unsignedEnvelope());
    assert.deepEqual(signed, expected);
    assert.deepEqual(signedBytesOf(bytes), expected);
  });

  it("leaves the payload as it was, and keeps no hold of it", () => {
    const payload = ascii("ahoy");
    const bytes = encode({ payload });
    payload.fill(0);
    assert.deepEqual(decodeEnvelope(bytes).payload, ascii("ahoy"));
  });

  it("is longer than the payload by what envelopeOverhead says", () => {
    const name = "x".repeat(255);
    assert.equal(
      encode({ payload: new Uint8Array() }).length,
      envelopeOverhead("node1", "did:key:z6Mk"),
    );
    assert.equal(encode({ sender: name, recipient: name }).length, 4 + MAX_ENVELOPE_OVERHEAD);
    assert.equal(MAX_ENVELOPE_OVERHEAD, 597);
  });

  it("refuses names that are no names", () => {
    for (const name of ["", "a b", "é", "a\n", "\u007f", "x".repeat(256), 5, undefined]) {
      for (const field of ["sender", "recipient"]) {
        assert.throws(() => encode({ [field]: name }), {
          name: "TypeError",
          message: `Cannot sign an envelope: ${field} must be 1 to 255 characters of printable ` +
            "ASCII without spaces",
        });
      }
    }
  });

  it("refuses numbers that are out of range", () => {
    for (const field of ["sequence", "timestamp"]) {
      for (const value of [0, 1, 2 ** 32, Number.MAX_SAFE_INTEGER]) encode({ [field]: value });
      for (const value of [-1, 0.5, NaN, Infinity, 2 ** 53, "1", 1n, undefined]) {
        assert.throws(() => encode({ [field]: value }), {
          name: "RangeError",
          message: `Cannot sign an envelope: ${field} must be an integer from 0 to 2^53-1, ` +
            `got ${value}`,
        });
      }
    }
  });

  it("refuses a payload that is no Uint8Array, and a signature of another length", () => {
    assert.throws(() => encode({ payload: "ahoy" }), TypeError);
    assert.throws(() => encodeEnvelope(ENVELOPE, () => new Uint8Array(63)), TypeError);
  });
});

describe("decodeEnvelope", () => {
  it("reads what is written by hand", () => {
    const { signature, ...envelope } = decodeEnvelope(signedEnvelope());
    assert.deepEqual(envelope, ENVELOPE);
    assert.deepEqual(signature, signedEnvelope().subarray(-64));
  });

  it("reads from the middle of a buffer", () => {
    const bytes = signedEnvelope();
    const buffer = new Uint8Array(bytes.length + 9);
    buffer.set(bytes, 5);
    const { payload } = decodeEnvelope(buffer.subarray(5, 5 + bytes.length));
    assert.deepEqual(payload, ascii("ahoy"));
    assert.equal(payload.buffer, buffer.buffer);
  });

  it("refuses what is cut short, at any place, and what is too long", () => {
    const bytes = signedEnvelope();
    for (let length = 0; length < bytes.length; length++) invalid(bytes.subarray(0, length));
    assert.equal(
      invalid(Uint8Array.of(...bytes, 0)),
      "the payload should have 4 bytes, and there are 5",
    );
  });

  it("refuses another version", () => {
    const bytes = signedEnvelope();
    for (const version of [0, 2, 0x7b]) {
      bytes[0] = version;
      assert.equal(invalid(bytes), `version ${version} is unknown`);
    }
  });

  it("refuses names that are no names, and quotes them escaped", () => {
    const rest = "0000000000000001 0000000000000001 00000000";
    const demand = "is not 1 to 255 bytes of printable ASCII without spaces";
    assert.equal(invalid(ofHex(`01 00 0161 ${rest}`)), `sender "" ${demand}`);
    assert.equal(invalid(ofHex(`01 0161 00 ${rest}`)), `recipient "" ${demand}`);
    assert.equal(invalid(ofHex(`01 02611b 0161 ${rest}`)), `sender "a\\u001b" ${demand}`);
    assert.equal(invalid(ofHex(`01 0161 0120 ${rest}`)), `recipient " " ${demand}`);
    assert.equal(invalid(ofHex(`01 0161 01e9 ${rest}`)), `recipient "\\u00e9" ${demand}`);
  });

  it("refuses numbers above 2^53-1", () => {
    const most = "001fffffffffffff";
    const more = "0020000000000000";
    const names = "01 0161 0162";
    assert.equal(
      decodeEnvelope(ofHex(`${names} ${most} ${most} 00000000`)).sequence,
      Number.MAX_SAFE_INTEGER,
    );
    for (const odd of [more, "ffffffffffffffff"]) {
      assert.equal(invalid(ofHex(`${names} ${odd} ${most} 00000000`)), "sequence is above 2^53-1");
      assert.equal(invalid(ofHex(`${names} ${most} ${odd} 00000000`)), "timestamp is above 2^53-1");
    }
  });

  it("believes no length of a payload", () => {
    const names = "01 0161 0162 0000000000000001 0000000000000001";
    for (const length of ["ffffffff", "80000000", "00000005", "00000003"]) {
      assert.match(
        invalid(ofHex(`${names} ${length} 61686f79`)),
        /^the payload should have \d+ bytes, and there are 4$/,
      );
    }
    // The bytes of the signature are none of a payload.
    assert.match(invalid(ofHex(`${names} 00000040`)), /^the payload should have 64 bytes, .* 0$/);
    const noSignature = fromHex(`${names} 00000000`);
    assert.match(invalid(noSignature), /^the payload should have 0 bytes, and there are 0$/);
  });

  it("throws only InvalidFrame, whatever the bytes", () => {
    const mutated = fc.tuple(fc.nat(107), fc.nat(255)).map(([at, value]) => {
      const bytes = signedEnvelope();
      bytes[at] = value;
      return bytes;
    });
    fc.assert(
      fc.property(fc.oneof(fc.uint8Array({ maxLength: 200 }), mutated), (bytes) => {
        try {
          decodeEnvelope(bytes);
        } catch (error) {
          assert.ok(error instanceof TransportError && error.code === "InvalidFrame");
        }
      }),
      { numRuns: 1000 },
    );
  });

  it("reads whatever encodeEnvelope writes", () => {
    const name = fc.string({
      unit: fc.integer({ min: 0x21, max: 0x7e }).map((code) => String.fromCharCode(code)),
      minLength: 1,
      maxLength: 255,
    });
    const envelope = fc.record({
      sender: name,
      recipient: name,
      sequence: fc.maxSafeNat(),
      timestamp: fc.maxSafeNat(),
      payload: fc.uint8Array({ maxLength: 1000 }),
    });
    fc.assert(fc.property(envelope, (envelope) => {
      const { signature, ...decoded } = decodeEnvelope(encode(envelope));
      assert.deepEqual(decoded, { ...envelope });
      assert.deepEqual(signature, sign());
    }));
  });
});

describe("isSignedBy", () => {
  it("asks for each key until one fits", () => {
    const keys = [Uint8Array.of(1), Uint8Array.of(2), Uint8Array.of(3)];
    const asked: number[] = [];
    const bytes = signedEnvelope();
    const signed = isSignedBy(bytes, keys, (key, over, signature) => {
      assert.deepEqual(over, signedBytesOf(bytes));
      assert.deepEqual(signature, bytes.subarray(-64));
      asked.push(key[0]!);
      return key[0] === 2;
    });
    assert.ok(signed);
    assert.deepEqual(asked, [1, 2]);
    assert.ok(!isSignedBy(bytes, [], () => true));
  });
});
