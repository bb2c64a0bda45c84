/**
 * A cluster's certificate authority: makes it, loads it, lets it sign node certificates. Keys are
 * ECDSA P-256.
 *
 * @module
 */

import "reflect-metadata";
import * as x509 from "@peculiar/x509";
import { readCertificate } from "../protocol/certificate.ts";
import type { NodeNames } from "./node_names.ts";
import { decodePem, encodePem } from "../protocol/pem.ts";

/** A certificate with its private key, both PEM (the key is PKCS #8). */
export interface CertificateAndKey {
  readonly cert: string;
  readonly key: string;
  /** When the certificate expires, milliseconds since the epoch. */
  readonly notAfter: number;
}

/** How long a new certificate lives. */
export interface Lifetime {
  /** The wall clock, milliseconds since the epoch. */
  readonly nowMs: number;
  /** Days from now on. */
  readonly days: number;
}

const DAY_MS = 86_400_000;
/** A node whose clock is behind ours shall not take a new certificate for one of the future. */
const CLOCK_SKEW_MS = 5 * 60_000;
const SERIAL_BYTES = 16;
const ALGORITHM = { name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" } as const;

/** An authority and its private key. */
export class Authority {
  /** The authority's certificate, PEM: what nodes are given as `tls.ca`. */
  readonly cert: string;
  /** When the authority's certificate expires, milliseconds since the epoch. */
  readonly notAfter: number;
  readonly #certificate: x509.X509Certificate;
  readonly #privateKey: CryptoKey;

  private constructor(certificate: x509.X509Certificate, privateKey: CryptoKey) {
    this.#certificate = certificate;
    this.#privateKey = privateKey;
    this.cert = encodePem("CERTIFICATE", new Uint8Array(certificate.rawData));
    this.notAfter = certificate.notAfter.getTime();
  }

  /** Makes a new authority; returns it with its private key as PEM. */
  static async create(lifetime: Lifetime): Promise<{ authority: Authority; key: string }> {
    const keys = await generateKeys();
    const certificate = await x509.X509CertificateGenerator.createSelfSigned({
      // The number tells two clusters' authorities apart where an operator meets them.
      name: commonName(`Hawser CA ${randomHex(4)}`),
      serialNumber: serialNumber(),
      ...validity(lifetime, Infinity),
      keys,
      signingAlgorithm: ALGORITHM,
      extensions: [
        new x509.BasicConstraintsExtension(true, 0, true),
        new x509.KeyUsagesExtension(
          x509.KeyUsageFlags.keyCertSign | x509.KeyUsageFlags.cRLSign,
          true,
        ),
        await x509.SubjectKeyIdentifierExtension.create(keys.publicKey),
      ],
    });
    return {
      authority: new Authority(certificate, keys.privateKey),
      key: await exportKey(keys.privateKey),
    };
  }

  /**
   * Takes up an authority that was made before.
   *
   * @param cert Its certificate, PEM.
   * @param key Its private key, PEM (PKCS #8).
   * @throws {RangeError} Where the two can't be read, don't belong together, or can't sign now.
   */
  static async load(cert: string, key: string, nowMs: number): Promise<Authority> {
    const [der] = decodePem("CERTIFICATE", cert);
    const [pkcs8] = decodePem("PRIVATE KEY", key);
    if (der === undefined) throw unusable("its certificate is not PEM");
    if (pkcs8 === undefined) throw unusable("its key is not PEM of PKCS #8");
    const facts = readCertificate(der);
    if (!facts.isCa) throw unusable("its certificate may not sign others");
    if (nowMs > facts.notAfter) throw unusable("its certificate expired");
    const certificate = new x509.X509Certificate(copy(der));
    const privateKey = await importKey(certificate, pkcs8);
    if (!(await belongTogether(certificate, privateKey))) {
      throw unusable("its key is of another certificate");
    }
    return new Authority(certificate, privateKey);
  }

  /**
   * Makes a node's key and certificate, for both sides of a connection. It never outlives the
   * authority's own.
   */
  async issue(names: NodeNames, lifetime: Lifetime): Promise<CertificateAndKey> {
    const keys = await generateKeys();
    const certificate = await x509.X509CertificateGenerator.create({
      subject: commonName(names.nodeId),
      issuer: this.#certificate.subjectName,
      serialNumber: serialNumber(),
      ...validity(lifetime, this.notAfter),
      publicKey: keys.publicKey,
      signingKey: this.#privateKey,
      signingAlgorithm: signingAlgorithm(this.#certificate),
      extensions: [
        new x509.BasicConstraintsExtension(false, undefined, true),
        new x509.KeyUsagesExtension(x509.KeyUsageFlags.digitalSignature, true),
        new x509.ExtendedKeyUsageExtension([
          x509.ExtendedKeyUsage.clientAuth,
          x509.ExtendedKeyUsage.serverAuth,
        ]),
        alternativeNames(names),
        await x509.SubjectKeyIdentifierExtension.create(keys.publicKey),
        await authorityKeyIdentifier(this.#certificate),
      ],
    });
    return {
      cert: encodePem("CERTIFICATE", new Uint8Array(certificate.rawData)),
      key: await exportKey(keys.privateKey),
      notAfter: certificate.notAfter.getTime(),
    };
  }
}

function generateKeys(): Promise<CryptoKeyPair> {
  return crypto.subtle.generateKey(ALGORITHM, true, ["sign", "verify"]);
}

async function exportKey(privateKey: CryptoKey): Promise<string> {
  return encodePem(
    "PRIVATE KEY",
    new Uint8Array(await crypto.subtle.exportKey("pkcs8", privateKey)),
  );
}

async function importKey(
  certificate: x509.X509Certificate,
  pkcs8: Uint8Array,
): Promise<CryptoKey> {
  try {
    const algorithm = signingAlgorithm(certificate);
    return await crypto.subtle.importKey("pkcs8", copy(pkcs8), algorithm, false, ["sign"]);
  } catch (cause) {
    throw unusable("its key can't be read, or is not of its certificate's kind", cause);
  }
}

/** The algorithm of the certificate's own key, which an authority of the user's may have chosen. */
function signingAlgorithm(certificate: x509.X509Certificate): Algorithm & { hash: string } {
  return { ...certificate.publicKey.algorithm, hash: ALGORITHM.hash };
}

async function belongTogether(
  certificate: x509.X509Certificate,
  privateKey: CryptoKey,
): Promise<boolean> {
  const algorithm = signingAlgorithm(certificate);
  const data = crypto.getRandomValues(new Uint8Array(32));
  const publicKey = await certificate.publicKey.export(algorithm, ["verify"]);
  const signature = await crypto.subtle.sign(algorithm, privateKey, data);
  return await crypto.subtle.verify(algorithm, publicKey, signature, data);
}

function commonName(name: string): x509.Name {
  // A typed value: a plain string would be taken apart at commas, quotes and backslashes.
  return new x509.Name([{ CN: [{ utf8String: name }] }]);
}

function alternativeNames(names: NodeNames): x509.SubjectAlternativeNameExtension {
  const dnsNames = [...new Set([names.nodeId, ...names.dnsNames])];
  return new x509.SubjectAlternativeNameExtension([
    ...dnsNames.map((value) => ({ type: "dns" as const, value })),
    ...[...new Set(names.ipAddresses)].map((value) => ({ type: "ip" as const, value })),
  ]);
}

/** The number the authority has given its own key; not every one is the hash of the key. */
async function authorityKeyIdentifier(
  authority: x509.X509Certificate,
): Promise<x509.AuthorityKeyIdentifierExtension> {
  const own = authority.getExtension(x509.SubjectKeyIdentifierExtension);
  return own === null
    ? await x509.AuthorityKeyIdentifierExtension.create(authority)
    : new x509.AuthorityKeyIdentifierExtension(own.keyId);
}

/** Whole seconds, as certificates hold them. */
function validity(lifetime: Lifetime, latestMs: number): { notBefore: Date; notAfter: Date } {
  const notAfter = Math.min(lifetime.nowMs + lifetime.days * DAY_MS, latestMs);
  const wholeSeconds = (ms: number) => new Date(Math.floor(ms / 1000) * 1000);
  return {
    notBefore: wholeSeconds(lifetime.nowMs - CLOCK_SKEW_MS),
    notAfter: wholeSeconds(notAfter),
  };
}

/** Random, positive, and of full length: the first byte is 0x40 to 0x7f. */
function serialNumber(): string {
  const first = 0x40 | (crypto.getRandomValues(new Uint8Array(1))[0]! & 0x3f);
  return first.toString(16) + randomHex(SERIAL_BYTES - 1);
}

function randomHex(bytes: number): string {
  const random = crypto.getRandomValues(new Uint8Array(bytes));
  return Array.from(random, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** WebCrypto's types want bytes in a buffer that is not shared. */
function copy(bytes: Uint8Array): Uint8Array<ArrayBuffer> {
  return new Uint8Array(bytes);
}

function unusable(problem: string, cause?: unknown): RangeError {
  return new RangeError(`Cannot use the authority: ${problem}`, { cause });
}
