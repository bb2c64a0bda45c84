/**
 * Keys and an envelope to test with. The key pair is that of RFC 8032, section 7.1, test 1; the
 * envelope was written by hand, and signed by OpenSSL.
 *
 * @module
 */

/** The private key as PEM text. */
export const PRIVATE_KEY: string = `-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g
-----END PRIVATE KEY-----
`;
/** Its public key. */
export const PUBLIC_KEY = "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=";
/** A public key of nobody here: RFC 8032, section 7.1, test 2. */
export const OTHER_KEY = "PUAXw+hDiVqStwqnTRt+vJyYLM8uxJaMwM1V8Sr0Zgw=";

/** The timestamp of the envelope: 2026-08-15. */
export const TIMESTAMP = 1786752000000;

const UNSIGNED = `
  01
  05 6e6f646531
  0c 6469643a6b65793a7a364d6b
  0006800adf800001
  000001a002b7e000
  00000004 61686f79
`;
const SIGNATURE = `
  384b94084bc4249c60244bf0c8ccb86a413249b5d499221b7665a04c15543283
  a91120bdd1e10a3cd8e7254f8d8f1965c3557fc661750283b7198fc1e165ea0b
`;

/** "ahoy" from node1 to did:key:z6Mk, number 1829634048000001, without the signature. */
export function unsignedEnvelope(): Uint8Array<ArrayBuffer> {
  return fromHex(UNSIGNED);
}

/** The same with its signature. */
export function signedEnvelope(): Uint8Array<ArrayBuffer> {
  return fromHex(UNSIGNED + SIGNATURE);
}

/** The bytes of hex digits, with any white space. */
export function fromHex(text: string): Uint8Array<ArrayBuffer> {
  const digits = text.replaceAll(/\s/g, "");
  return Uint8Array.from({ length: digits.length / 2 }, (_, at) => {
    return Number.parseInt(digits.slice(2 * at, 2 * at + 2), 16);
  });
}

/** The bytes of an ASCII text. */
export function ascii(text: string): Uint8Array<ArrayBuffer> {
  return Uint8Array.from(text, (char) => char.charCodeAt(0));
}
