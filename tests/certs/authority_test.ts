import assert from "node:assert/strict";
import { describe, it } from "node:test";
import "reflect-metadata";
import * as x509 from "@peculiar/x509";
import { Authority } from "../../src/certs/authority.ts";
import { parseNodeNames } from "../../src/certs/node_names.ts";
import {
  certificateIdentity,
  checkCertificateUse,
  readCertificate,
} from "../../src/protocol/certificate.ts";
import { pemToDer, TestCa } from "../support/certs.ts";

const DAY_MS = 86_400_000;
const NOW = Date.UTC(2026, 2, 1, 12);
const parse = (pem: string) => new x509.X509Certificate(pem);
const node1 = parseNodeNames("node1=db1.example.com,10.0.0.5,::1");

describe("an authority", () => {
  it("is one, for ten years, and may sign node certificates only", async () => {
    const { authority } = await Authority.create({ nowMs: NOW, days: 3650 });
    const certificate = parse(authority.cert);
    assert.equal(readCertificate(pemToDer(authority.cert)).isCa, true);
    assert.equal(certificate.getExtension(x509.BasicConstraintsExtension)?.pathLength, 0);
    assert.equal(authority.notAfter, NOW + 3650 * DAY_MS);
    assert.equal(await certificate.isSelfSigned(), true);
  });

  it("has its own name and key each time", async () => {
    const [a, b] = await Promise.all(
      [1, 2].map(() => Authority.create({ nowMs: NOW, days: 1 })),
    );
    assert.notEqual(parse(a!.authority.cert).subject, parse(b!.authority.cert).subject);
    assert.notEqual(a!.key, b!.key);
  });

  it("issues what strict mode accepts in both roles under both names", async () => {
    const { authority } = await Authority.create({ nowMs: NOW, days: 3650 });
    const facts = readCertificate(pemToDer((await authority.issue(node1, days(365))).cert));
    assert.deepEqual(facts.commonNames, ["node1"]);
    assert.deepEqual(facts.dnsNames, ["node1", "db1.example.com"]);
    assert.equal(certificateIdentity(facts, "CommonName", "node1"), "node1");
    assert.equal(certificateIdentity(facts, "SubjectAltName", "node1"), "node1");
    checkCertificateUse(facts, "client", NOW);
    checkCertificateUse(facts, "server", NOW);
  });

  it("signs with its key, names itself, and gives addresses, key usage and key identifiers", async () => {
    const { authority } = await Authority.create({ nowMs: NOW, days: 3650 });
    const certificate = parse((await authority.issue(node1, days(365))).cert);
    const ca = parse(authority.cert);
    const signed = { publicKey: ca.publicKey, signatureOnly: true };
    assert.equal(await certificate.verify(signed), true);
    assert.equal(certificate.issuer, ca.subject);
    const names = certificate.getExtension(x509.SubjectAlternativeNameExtension)!.names.items;
    const addresses = names.filter(({ type }) => type === "ip").map(({ value }) => value);
    assert.deepEqual(addresses, ["10.0.0.5", "::1"]);
    const keyUsage = certificate.getExtension(x509.KeyUsagesExtension);
    assert.equal(keyUsage?.usages, x509.KeyUsageFlags.digitalSignature);
    assert.equal(
      certificate.getExtension(x509.AuthorityKeyIdentifierExtension)?.keyId,
      ca.getExtension(x509.SubjectKeyIdentifierExtension)?.keyId,
    );
    assert.equal(certificate.getExtension(x509.BasicConstraintsExtension)?.ca, false);
  });

  it("gives each certificate a positive random serial number of 16 bytes", async () => {
    const { authority } = await Authority.create({ nowMs: NOW, days: 3650 });
    const serials = new Set<string>();
    for (let i = 0; i < 20; i++) {
      const { serialNumber } = parse((await authority.issue(node1, days(1))).cert);
      assert.match(serialNumber, /^[4-7][0-9a-f]{31}$/);
      serials.add(serialNumber);
    }
    assert.equal(serials.size, 20);
  });

  it("lets a certificate begin five minutes ago and end after the days, or with its own", async () => {
    const { authority } = await Authority.create({ nowMs: NOW, days: 3650 });
    const short = await authority.issue(node1, days(365));
    const facts = readCertificate(pemToDer(short.cert));
    assert.equal(facts.notBefore, NOW - 5 * 60_000);
    assert.equal(facts.notAfter, NOW + 365 * DAY_MS);
    assert.equal(short.notAfter, facts.notAfter);
    assert.equal((await authority.issue(node1, days(9999))).notAfter, authority.notAfter);
  });

  it("is loaded again with its key, and signs as before", async () => {
    const { authority, key } = await Authority.create({ nowMs: NOW, days: 3650 });
    const loaded = await Authority.load(authority.cert, key, NOW);
    assert.equal(loaded.cert, authority.cert);
    const certificate = parse((await loaded.issue(node1, days(1))).cert);
    const signed = { publicKey: parse(authority.cert).publicKey, signatureOnly: true };
    assert.equal(await certificate.verify(signed), true);
  });

  it("is not loaded with another key, a node's certificate, an expired one, or none", async () => {
    const { authority, key } = await Authority.create({ nowMs: NOW, days: 1 });
    const other = await Authority.create({ nowMs: NOW, days: 1 });
    const node = await authority.issue(node1, days(1));
    const refuses = (cert: string, keyText: string, why: RegExp, nowMs = NOW) =>
      assert.rejects(Authority.load(cert, keyText, nowMs), why);
    await refuses(authority.cert, other.key, /^RangeError: .*another certificate$/);
    await refuses(node.cert, node.key, /may not sign others/);
    await refuses(authority.cert, key, /expired/, NOW + 2 * DAY_MS);
    await refuses("", key, /certificate is not PEM/);
    await refuses(authority.cert, "", /key is not PEM/);
    await refuses(authority.cert, authority.cert, /key is not PEM/);
    await refuses(authority.cert, key.replace(/\n..../, "\nAAAA"), /key can't be read/);
  });

  it("takes the key identifier that its certificate gives, though it is not the key's hash", async () => {
    const keys = await crypto.subtle.generateKey(
      { name: "ECDSA", namedCurve: "P-384" },
      true,
      ["sign", "verify"],
    );
    const certificate = await x509.X509CertificateGenerator.createSelfSigned({
      name: "CN=own",
      keys,
      signingAlgorithm: { name: "ECDSA", hash: "SHA-384" },
      extensions: [
        new x509.BasicConstraintsExtension(true),
        new x509.SubjectKeyIdentifierExtension("01020304"),
      ],
    });
    const pkcs8 = await crypto.subtle.exportKey("pkcs8", keys.privateKey);
    const key = x509.PemConverter.encode(pkcs8, "PRIVATE KEY");
    const authority = await Authority.load(certificate.toString("pem"), key, Date.now());
    const issued = parse((await authority.issue(node1, { nowMs: Date.now(), days: 1 })).cert);
    assert.equal(issued.getExtension(x509.AuthorityKeyIdentifierExtension)?.keyId, "01020304");
    assert.equal(
      await issued.verify({ publicKey: certificate.publicKey, signatureOnly: true }),
      true,
    );
  });
});

describe("the test authority", () => {
  it("issues what strict mode accepts, and leaves out what it is told to", async () => {
    const ca = await TestCa.create();
    const now = Date.now();
    const facts = readCertificate(pemToDer((await ca.issue("node1")).cert));
    assert.equal(certificateIdentity(facts, "CommonName", "node1"), "node1");
    assert.deepEqual(facts.dnsNames, ["node1", "localhost"]);
    checkCertificateUse(facts, "client", now);
    checkCertificateUse(facts, "server", now);
    const bare = await ca.issue("node1", { noSan: true, usages: [] });
    assert.deepEqual(parse(bare.cert).getExtension(x509.SubjectAlternativeNameExtension), null);
  });
});

function days(count: number): { nowMs: number; days: number } {
  return { nowMs: NOW, days: count };
}
