/** Certificates for tests, made in memory: nothing is read from or written to a disk. */

import "reflect-metadata";
import * as x509 from "@peculiar/x509";

/** A certificate and its private key, both PEM. */
export interface Credentials {
  cert: string;
  key: string;
}

/** A value of a subject with its ASN.1 string type, or "#" and the hexadecimal DER of any value. */
export type SubjectValue =
  | { utf8String: string }
  | { printableString: string }
  | { ia5String: string }
  | { bmpString: string }
  | { universalString: string }
  | `#${string}`;

/** What a certificate is to say beside its common name. */
export interface IssueOptions {
  /** Several common names instead of the one. */
  commonNames?: string[];
  /** The whole subject instead: one entry for each relative name, `[{ CN: [{ utf8String: "a" }] }]`. */
  subject?: Record<string, SubjectValue[]>[];
  /** By default the common name and "localhost". */
  dnsNames?: string[];
  /** By default 127.0.0.1 and ::1. */
  ipAddresses?: string[];
  /** No subjectAltName extension at all. */
  noSan?: boolean;
  /** By default an hour ago. */
  notBefore?: Date;
  /** By default in a day. */
  notAfter?: Date;
  /** By default both; an empty list leaves the extension out. */
  usages?: ("client" | "server")[];
  /** A certificate that may itself sign others. */
  isCa?: boolean;
}

const HOUR_MS = 3_600_000;
const ALGORITHM = { name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" };

/** A certificate authority that lives as long as the test. */
export class TestCa {
  /** The authority's certificate, PEM. */
  readonly ca: string;
  readonly #certificate: x509.X509Certificate;
  readonly #privateKey: CryptoKey;

  private constructor(certificate: x509.X509Certificate, privateKey: CryptoKey) {
    this.ca = pem("CERTIFICATE", certificate.rawData);
    this.#certificate = certificate;
    this.#privateKey = privateKey;
  }

  /** A new authority; two of the same name have different keys, so neither trusts the other's. */
  static async create(name = "Test CA"): Promise<TestCa> {
    const keys = await generateKeys();
    const certificate = await x509.X509CertificateGenerator.createSelfSigned({
      name: new x509.Name([{ CN: [{ utf8String: name }] }]),
      keys,
      signingAlgorithm: ALGORITHM,
      notBefore: new Date(Date.now() - 24 * HOUR_MS),
      notAfter: new Date(Date.now() + 365 * 24 * HOUR_MS),
      extensions: [
        new x509.BasicConstraintsExtension(true, undefined, true),
        new x509.KeyUsagesExtension(
          x509.KeyUsageFlags.keyCertSign | x509.KeyUsageFlags.cRLSign,
          true,
        ),
        await x509.SubjectKeyIdentifierExtension.create(keys.publicKey),
      ],
    });
    return new TestCa(certificate, keys.privateKey);
  }

  /** A new certificate with a new key, signed by this authority. */
  async issue(commonName: string, options: IssueOptions = {}): Promise<Credentials> {
    const keys = await generateKeys();
    const certificate = await x509.X509CertificateGenerator.create({
      subject: subjectOf(commonName, options),
      issuer: this.#certificate.subjectName,
      publicKey: keys.publicKey,
      signingKey: this.#privateKey,
      signingAlgorithm: ALGORITHM,
      notBefore: options.notBefore ?? new Date(Date.now() - HOUR_MS),
      notAfter: options.notAfter ?? new Date(Date.now() + 24 * HOUR_MS),
      extensions: [
        ...extensionsOf(commonName, options),
        await x509.SubjectKeyIdentifierExtension.create(keys.publicKey),
        await x509.AuthorityKeyIdentifierExtension.create(this.#certificate),
      ],
    });
    return {
      cert: pem("CERTIFICATE", certificate.rawData),
      key: pem("PRIVATE KEY", await crypto.subtle.exportKey("pkcs8", keys.privateKey)),
    };
  }
}

/** The bytes inside the first block of a PEM text. */
export function pemToDer(text: string): Uint8Array {
  const match = /-----BEGIN [^-]+-----([^-]+)-----END/.exec(text);
  if (match === null) throw new TypeError("Cannot read the PEM text: no block in it");
  return Uint8Array.from(atob(match[1]!.replace(/\s/g, "")), (char) => char.charCodeAt(0));
}

function generateKeys(): Promise<CryptoKeyPair> {
  return crypto.subtle.generateKey(ALGORITHM, true, ["sign", "verify"]) as Promise<CryptoKeyPair>;
}

function subjectOf(commonName: string, options: IssueOptions): x509.Name {
  const names = options.commonNames ?? [commonName];
  // Typed values: a plain string would be taken apart at commas, quotes and backslashes.
  const subject = options.subject ?? names.map((name) => ({ CN: [{ utf8String: name }] }));
  return new x509.Name(subject as ConstructorParameters<typeof x509.Name>[0]);
}

function extensionsOf(commonName: string, options: IssueOptions): x509.Extension[] {
  const extensions: x509.Extension[] = [
    new x509.BasicConstraintsExtension(options.isCa ?? false, undefined, true),
    new x509.KeyUsagesExtension(x509.KeyUsageFlags.digitalSignature, true),
  ];
  const usages = options.usages ?? ["client", "server"];
  if (usages.length > 0) {
    extensions.push(
      new x509.ExtendedKeyUsageExtension(
        usages.map((usage) =>
          usage === "client" ? x509.ExtendedKeyUsage.clientAuth : x509.ExtendedKeyUsage.serverAuth
        ),
      ),
    );
  }
  if (options.noSan !== true) {
    const dnsNames = options.dnsNames ?? [commonName, "localhost"];
    const ipAddresses = options.ipAddresses ?? ["127.0.0.1", "::1"];
    extensions.push(
      new x509.SubjectAlternativeNameExtension([
        ...dnsNames.map((value) => ({ type: "dns" as const, value })),
        ...ipAddresses.map((value) => ({ type: "ip" as const, value })),
      ]),
    );
  }
  return extensions;
}

function pem(label: string, der: ArrayBuffer): string {
  const base64 = btoa(
    Array.from(new Uint8Array(der), (byte) => String.fromCharCode(byte)).join(""),
  );
  return `-----BEGIN ${label}-----\n${
    base64.replace(/.{64}(?=.)/g, "$&\n")
  }\n-----END ${label}-----\n`;
}
