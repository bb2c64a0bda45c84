import assert from "node:assert/strict";
import { describe, it } from "node:test";
import {
  formatPublicKey,
  generateSigningKey,
  parsePublicKey,
  readSigningKey,
  readVerifyingKey,
  sha256,
  verifySignature,
} from "../../src/runtime/ed25519.ts";
import { utf8 } from "../protocol/identities.ts";
import { concat, hex } from "../protocol/wire_bytes.ts";

/** RFC 8032, section 7.1, tests 1 to 3: seed, public key, message, signature. */
const VECTORS = [
  [
    "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
    "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
    "",
    "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46b" +
    "d25bf5f0595bbe24655141438e7a100b",
  ],
  [
    "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
    "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
    "72",
    "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c" +
    "387b2eaeb4302aeeb00d291612bb0c00",
  ],
  [
    "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
    "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
    "af82",
    "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc659" +
    "4a7c15e9716ed28dc027beceea1ec40a",
  ],
] as const;

/** PKCS #8 around a seed (RFC 8410, section 7). */
function pem(seed: string, label = "PRIVATE KEY"): string {
  const der = concat(hex("302e020100300506032b657004220420"), hex(seed));
  const base64 = btoa(String.fromCharCode(...der));
  return `-----BEGIN ${label}-----\n${base64}\n-----END ${label}-----\n`;
}

describe("Ed25519", () => {
  for (const [index, [seed, publicKey, message, signature]] of VECTORS.entries()) {
    it(`signs and verifies as RFC 8032 says, test ${index + 1}`, () => {
      const key = readSigningKey(pem(seed));
      assert.deepEqual(key.publicKey, hex(publicKey));
      assert.deepEqual(key.sign(hex(message)), hex(signature));
      assert.ok(verifySignature(hex(publicKey), hex(message), hex(signature)));
    });
  }

  it("does not verify what was changed", () => {
    const [, publicKey, message, signature] = VECTORS[2];
    const verifies = (key: string, text: string, proof: string) =>
      readVerifyingKey(hex(key)).verify(hex(text), hex(proof));
    assert.ok(verifies(publicKey, message, signature));
    assert.ok(!verifies(publicKey, "af83", signature));
    assert.ok(!verifies(publicKey, "", signature));
    assert.ok(!verifies(publicKey, message, signature.replace("62", "63")));
    assert.ok(!verifies(publicKey, message, signature.slice(2)));
    assert.ok(!verifies(publicKey, message, `${signature}00`));
    assert.ok(!verifies(publicKey, message, ""));
    assert.ok(!verifies(VECTORS[0][1], message, signature));
    // No point of the curve.
    assert.ok(!verifies("ff".repeat(32), message, signature));
  });

  it("does not take a second form of a signature", () => {
    // The group order is added to S: RFC 8032, section 5.1.7, refuses it.
    const order = 2n ** 252n + 27742317777372353535851937790883648493n;
    const [, publicKey, message, signature] = VECTORS[0];
    const s = hex(signature).slice(32).toReversed();
    const sum = (BigInt(`0x${toHex(s)}`) + order).toString(16).padStart(64, "0");
    const other = signature.slice(0, 64) + toHex(hex(sum).toReversed());
    assert.equal(other.length, signature.length);
    assert.ok(!verifySignature(hex(publicKey), hex(message), hex(other)));
  });

  it("makes keys that are read again", () => {
    const made = generateSigningKey();
    const key = readSigningKey(made.privateKeyPem);
    assert.deepEqual(key.publicKey, made.publicKey);
    assert.equal(key.publicKey.length, 32);
    const signature = key.sign(utf8("ahoy"));
    assert.equal(signature.length, 64);
    assert.ok(verifySignature(made.publicKey, utf8("ahoy"), signature));
    assert.notDeepEqual(generateSigningKey().publicKey, made.publicKey);
  });

  it("gives bytes that belong to nobody else", () => {
    const key = readSigningKey(pem(VECTORS[0][0]));
    for (const bytes of [key.publicKey, key.sign(utf8("")), sha256(utf8(""))]) {
      assert.equal(bytes.constructor, Uint8Array);
      assert.equal(bytes.byteLength, bytes.buffer.byteLength);
    }
  });

  it("reads a private key with line ends and spaces around it", () => {
    const text = `\r\n ${pem(VECTORS[0][0]).replaceAll("\n", "\r\n")}\n`;
    assert.deepEqual(readSigningKey(text).publicKey, hex(VECTORS[0][1]));
  });

  it("refuses any other private key in one line that quotes nothing of it", () => {
    const [seed] = VECTORS[0];
    const p256 = "-----BEGIN PRIVATE KEY-----\n" +
      "MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgevZzL1gdAFr88hb2\n" +
      "OF/2NxApJCzGCEDdfSp6VQO30hyhRANCAAQRWz+jn65BtOMvdyHKcvjBeBSDZH2r\n" +
      "1RTwjmYSi9R/zpBnuQ4EiMnCqfMPWiZqB4QdbAd0E7oH50VpuZ1P087G\n-----END PRIVATE KEY-----\n";
    const wrong = [
      ...["", "hello", seed, pem(seed).slice(0, 60), pem(seed) + pem(seed), `x${pem(seed)}`],
      ...["ENCRYPTED PRIVATE KEY", "RSA PRIVATE KEY", "PUBLIC KEY"].map((label) =>
        pem(seed, label)
      ),
      pem(seed.slice(2)),
      pem("").replace("MC4", "AAA"),
      p256,
    ];
    for (const text of wrong) {
      assert.throws(() => readSigningKey(text), (error) => {
        assert.ok(error instanceof RangeError && error.cause === undefined, String(error));
        return /^Cannot read the private key: [ -~]*[^.]$/.test(error.message) &&
          error.message.length < 100;
      });
    }
  });

  it("refuses a public key of another length", () => {
    for (const length of [0, 31, 33, 44]) {
      assert.throws(() => readVerifyingKey(new Uint8Array(length)), RangeError);
    }
  });

  it("writes public keys as base64 and reads nothing else", () => {
    const key = hex(VECTORS[0][1]);
    const text = "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=";
    assert.equal(formatPublicKey(key), text);
    assert.deepEqual(parsePublicKey(text), key);
    const wrong = [
      ...["", text.slice(0, -1), `${text}=`, ` ${text}`, `${text}\n`, text.replace("/", "_")],
      ...[text.replace("o=", "p="), "A".repeat(44), `${"A".repeat(42)}==`],
    ];
    for (const other of wrong) assert.equal(parsePublicKey(other), undefined, other);
  });
});

describe("SHA-256", () => {
  it("is the one of FIPS 180-4", () => {
    const digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    assert.deepEqual(sha256(utf8("abc")), hex(digest));
  });
});

function toHex(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
