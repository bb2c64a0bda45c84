import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import { TransportError } from "../../src/errors.ts";
import {
  certificateIdentity,
  checkCertificateUse,
  readCertificate,
} from "../../src/protocol/certificate.ts";
import { type IssueOptions, pemToDer, TestCa } from "../support/certs.ts";

const ca = await TestCa.create();
const issue = async (options?: IssueOptions, commonName = "node1") =>
  pemToDer((await ca.issue(commonName, options)).cert);
const node1 = await issue();

/** One element; lengths in their shortest form. */
function tlv(tag: number, ...contents: (Uint8Array | number[])[]): Uint8Array {
  const body = Uint8Array.from(contents.flatMap((part) => [...part]));
  const { length } = body;
  const prefix = length < 0x80
    ? [length]
    : length < 0x100
    ? [0x81, length]
    : [0x82, length >> 8, length & 0xff];
  return Uint8Array.from([tag, ...prefix, ...body]);
}

const ascii = (text: string) => Uint8Array.from(text, (char) => char.charCodeAt(0));
const oid = (...bytes: number[]) => tlv(0x06, bytes);
const COMMON_NAME = oid(0x55, 0x04, 0x03);
const commonName = (tag: number, value: Uint8Array | number[]) =>
  tlv(0x31, tlv(0x30, COMMON_NAME, tlv(tag, value)));
const extension = (id: Uint8Array, ...rest: Uint8Array[]) => tlv(0x30, id, ...rest);
const alternativeNames = (...names: Uint8Array[]) =>
  extension(oid(0x55, 0x1d, 0x11), tlv(0x04, tlv(0x30, ...names)));
const keyUsages = (...oids: Uint8Array[]) =>
  extension(oid(0x55, 0x1d, 0x25), tlv(0x04, tlv(0x30, ...oids)));
const basicConstraints = (...contents: Uint8Array[]) =>
  extension(oid(0x55, 0x1d, 0x13), tlv(0x04, tlv(0x30, ...contents)));
const utcTime = (text: string) => tlv(0x17, ascii(text));
const generalizedTime = (text: string) => tlv(0x18, ascii(text));
const CLIENT = oid(0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x02);

interface Parts {
  version?: Uint8Array;
  times?: Uint8Array[];
  subject?: Uint8Array[];
  extensions?: Uint8Array[];
  end?: Uint8Array[];
}

/** A certificate of RFC 5280's shape; key and signature are empty, as nobody here verifies them. */
function certificate(parts: Parts = {}): Uint8Array {
  const algorithm = tlv(0x30, oid(0x2a, 0x03));
  const extensions = parts.extensions ?? [];
  return tlv(
    0x30,
    tlv(
      0x30,
      parts.version ?? tlv(0xa0, tlv(0x02, [2])),
      tlv(0x02, [1]),
      algorithm,
      tlv(0x30),
      tlv(0x30, ...parts.times ?? [utcTime("250101000000Z"), utcTime("260101000000Z")]),
      tlv(0x30, ...parts.subject ?? [commonName(0x0c, ascii("node1"))]),
      tlv(0x30),
      ...extensions.length > 0 ? [tlv(0xa3, tlv(0x30, ...extensions))] : [],
      ...parts.end ?? [],
    ),
    algorithm,
    tlv(0x03, [0]),
  );
}

const isMismatch = (error: unknown) =>
  error instanceof TransportError && error.code === "IdentityMismatch" &&
  /^Cannot [^\n]*[^.]$/.test(error.message);
const refusesBytes = (der: Uint8Array, message?: string) =>
  assert.throws(() => readCertificate(der), isMismatch, message);
const refusesName = (der: Uint8Array, by: "CommonName" | "SubjectAltName", nodeId: string) => {
  const facts = readCertificate(der);
  assert.throws(() => certificateIdentity(facts, by, nodeId), isMismatch);
  assert.throws(
    () => certificateIdentity(facts, by, nodeId),
    (error: TransportError) => error.peer === nodeId,
  );
};

describe("reading a certificate", () => {
  it("reads what an issuer wrote", async () => {
    const notBefore = new Date("2026-01-02T03:04:05Z");
    const notAfter = new Date("2060-06-07T08:09:10Z");
    const facts = readCertificate(
      await issue({ notBefore, notAfter, dnsNames: ["node1", "db.example.com"] }),
    );
    assert.deepEqual(facts, {
      commonNames: ["node1"],
      dnsNames: ["node1", "db.example.com"],
      notBefore: notBefore.getTime(),
      notAfter: notAfter.getTime(),
      extendedKeyUsages: ["1.3.6.1.5.5.7.3.2", "1.3.6.1.5.5.7.3.1"],
      isCa: false,
    });
  });

  it("reads an authority and a certificate without extensions for names and usages", async () => {
    assert.equal(readCertificate(pemToDer(ca.ca)).isCa, true);
    const bare = readCertificate(await issue({ noSan: true, usages: [] }));
    assert.deepEqual([bare.dnsNames, bare.extendedKeyUsages], [[], undefined]);
  });

  it("reads a certificate written byte by byte", () => {
    const hex = "30 3a" + // Certificate
      "30 2f" + // TBSCertificate, version 1 by default
      "02 01 05" + // serial number
      "30 04 06 02 2a 03" + // signature algorithm
      "30 00" + // issuer
      "30 1e 17 0d 37 30 30 31 30 31 30 30 30 30 30 31 5a" + // 1970-01-01T00:00:01Z
      "17 0d 34 39 31 32 33 31 32 33 35 39 35 39 5a" + // 2049-12-31T23:59:59Z
      "30 00 30 00" + // no subject, no key
      "30 04 06 02 2a 03 03 01 00"; // algorithm, signature
    const bytes = hex.match(/[0-9a-f]{2}/g)!.map((pair) => Number.parseInt(pair, 16));
    assert.deepEqual(readCertificate(Uint8Array.from(bytes)), {
      commonNames: [],
      dnsNames: [],
      notBefore: 1000,
      notAfter: Date.UTC(2049, 11, 31, 23, 59, 59),
      extendedKeyUsages: undefined,
      isCa: false,
    });
  });

  it("refuses every truncation", () => {
    for (let length = 0; length < node1.length; length++) {
      refusesBytes(node1.subarray(0, length), `${length} bytes`);
    }
  });

  it("refuses a byte after the end", () => {
    refusesBytes(Uint8Array.of(...node1, 0));
    refusesBytes(certificate({ end: [tlv(0x05)] }));
  });

  it("throws nothing but its own error for mutated certificates", () => {
    const handmade = certificate({
      extensions: [
        basicConstraints(tlv(0x01, [0xff])),
        keyUsages(CLIENT),
        alternativeNames(tlv(0x82, ascii("node1"))),
      ],
    });
    for (const original of [node1, handmade]) {
      const change = fc.tuple(fc.nat(original.length - 1), fc.nat(255));
      fc.assert(
        fc.property(fc.array(change, { minLength: 1, maxLength: 4 }), (changes) => {
          const der = original.slice();
          for (const [index, byte] of changes) der[index] = byte;
          try {
            readCertificate(der);
          } catch (error) {
            assert.ok(isMismatch(error), String(error));
          }
        }),
        { numRuns: 2000 },
      );
    }
  });

  it("throws nothing but its own error for random bytes", () => {
    fc.assert(fc.property(fc.uint8Array({ maxLength: 64 }), (der) => refusesBytes(der)));
  });

  it("refuses lengths that lie, are indefinite, padded, or of five bytes", () => {
    const inner = tlv(0x30).subarray(2);
    for (
      const prefix of [
        [0x30, 0x84, 0xff, 0xff, 0xff, 0xff],
        [0x30, 0x80],
        [0x30, 0x81, 0x05],
        [0x30, 0x82, 0x00, 0x05],
        [0x30, 0x85, 0, 0, 0, 0, 1],
        [0x3f, 0x81, 0x00],
      ]
    ) refusesBytes(Uint8Array.of(...prefix, ...inner, 0, 0, 0, 0, 0), prefix.join());
  });

  it("reads a deeply nested issuer without descending into it", () => {
    const prefixes: number[][] = [];
    let length = 0;
    while (length < 60_000) {
      const prefix = length < 0x80
        ? [0x30, length]
        : length < 0x100
        ? [0x30, 0x81, length]
        : [0x30, 0x82, length >> 8, length & 0xff];
      prefixes.push(prefix);
      length += prefix.length;
    }
    const nested = Uint8Array.from(prefixes.reverse().flat());
    const algorithm = tlv(0x30, oid(0x2a, 0x03));
    const times = tlv(0x30, utcTime("250101000000Z"), utcTime("260101000000Z"));
    const body = tlv(0x30, tlv(0x02, [1]), algorithm, nested, times, tlv(0x30), tlv(0x30));
    assert.equal(readCertificate(tlv(0x30, body, algorithm, tlv(0x03, [0]))).isCa, false);
  });

  it("refuses an extension that is there twice", () => {
    const names = (name: string) => alternativeNames(tlv(0x82, ascii(name)));
    refusesBytes(certificate({ extensions: [names("node1"), names("node2")] }));
  });

  it("refuses extensions in a certificate that is not of version 3", () => {
    const extensions = [keyUsages(CLIENT)];
    refusesBytes(certificate({ version: tlv(0xa0, tlv(0x02, [1])), extensions }));
    refusesBytes(certificate({ version: tlv(0xa0, tlv(0x02, [3])) }));
    refusesBytes(certificate({ version: tlv(0xa0, tlv(0x02, [0x00, 0x02])) }));
  });

  it("refuses lists that must not be empty, and bytes behind them", () => {
    const more = tlv(0x30, oid(0x55, 0x1d, 0x25), tlv(0x04, tlv(0x30, CLIENT), [0x05, 0x00]));
    for (const empty of [alternativeNames(), keyUsages(), more]) {
      refusesBytes(certificate({ extensions: [empty] }));
    }
    refusesBytes(certificate({ subject: [tlv(0x31)] }));
  });

  it("refuses an alternative name of no known kind and takes every known one", () => {
    for (const tag of [0x89, 0x02, 0x42, 0xc2]) {
      refusesBytes(certificate({ extensions: [alternativeNames(tlv(tag, ascii("a")))] }));
    }
    const names = [0xa0, 0x81, 0x82, 0xa4, 0x86, 0x87, 0x88].map((tag) => tlv(tag, ascii("a")));
    const facts = readCertificate(certificate({ extensions: [alternativeNames(...names)] }));
    assert.deepEqual(facts.dnsNames, ["a"]);
  });

  it("takes an authority for one only if it says so in a well-formed way", () => {
    const isCa = (...contents: Uint8Array[]) =>
      readCertificate(certificate({ extensions: [basicConstraints(...contents)] })).isCa;
    assert.equal(isCa(), false);
    assert.equal(isCa(tlv(0x01, [0x00])), false);
    assert.equal(isCa(tlv(0x01, [0xff]), tlv(0x02, [0])), true);
    for (const value of [[0x01], [], [0xff, 0xff]]) {
      refusesBytes(certificate({ extensions: [basicConstraints(tlv(0x01, value))] }));
    }
  });

  it("reads object identifiers of any size and refuses malformed ones", () => {
    const usage = (...bytes: number[]) =>
      readCertificate(certificate({ extensions: [keyUsages(oid(...bytes))] })).extendedKeyUsages;
    assert.deepEqual(usage(0x55, 0x1d, 0x25, 0x00), ["2.5.29.37.0"]);
    assert.deepEqual(usage(0x88, 0x37, 0x03), ["2.999.3"]);
    assert.deepEqual(usage(0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d), ["1.2.840.113549"]);
    // 2 ** 64 does not fit a number, and must not be rounded to another identifier.
    assert.deepEqual(usage(0x2a, 0x82, ...Array(8).fill(0x80), 0x00), [
      "1.2.18446744073709551616",
    ]);
    for (const wrong of [[], [0x2a, 0x86], [0x2a, 0x80, 0x01], Array(65).fill(0x01)]) {
      assert.throws(() => usage(...wrong), isMismatch);
    }
  });

  it("reads times of both forms, and refuses those that do not exist or are written otherwise", () => {
    const times = (notBefore: Uint8Array, notAfter = utcTime("490101000000Z")) =>
      readCertificate(certificate({ times: [notBefore, notAfter] }));
    assert.equal(times(utcTime("500101000000Z")).notBefore, Date.UTC(1950, 0, 1));
    assert.equal(times(utcTime("491231235959Z")).notBefore, Date.UTC(2049, 11, 31, 23, 59, 59));
    assert.equal(times(utcTime("240229000000Z")).notBefore, Date.UTC(2024, 1, 29));
    const end = times(utcTime("500101000000Z"), generalizedTime("99991231235959Z")).notAfter;
    assert.equal(end, Date.UTC(9999, 11, 31, 23, 59, 59));
    for (
      const text of [
        ...["230229000000Z", "231301000000Z", "230100000000Z", "230101240000Z", "230101006000Z"],
        ...["230101000060Z", "2301010000Z", "230101000000+0000", "230101000000", "230101000000z"],
        ...["", "23010100000 Z", "230101000000Z\n", "-30101000000Z", "20230101000000Z"],
      ]
    ) assert.throws(() => times(utcTime(text)), isMismatch, text);
    for (
      const text of ["230101000000Z", "20230101000000.5Z", "20230231000000Z", "20230101000000ZZ"]
    ) {
      assert.throws(() => times(generalizedTime(text)), isMismatch, text);
    }
    assert.throws(() => times(tlv(0x13, ascii("230101000000Z"))), isMismatch);
  });
});

describe("the node id in a common name", () => {
  it("is taken where it is the only one and equal byte for byte", () => {
    assert.equal(certificateIdentity(readCertificate(node1), "CommonName", "node1"), "node1");
    for (const other of ["node2", "Node1", "node", "node11", "", "node1\0", "node1 "]) {
      refusesName(node1, "CommonName", other);
    }
  });

  it("is refused where there are several, even equal ones, or none", async () => {
    refusesName(await issue({ commonNames: ["node1", "node2"] }), "CommonName", "node1");
    refusesName(await issue({ commonNames: ["node2", "node1"] }), "CommonName", "node1");
    refusesName(await issue({ commonNames: ["node1", "node1"] }), "CommonName", "node1");
    refusesName(
      await issue({ subject: [{ O: [{ utf8String: "node1" }] }] }),
      "CommonName",
      "node1",
    );
    refusesName(await issue({ subject: [] }), "CommonName", "node1");
  });

  it("is refused where a second one hides in one part of the subject or has an unknown type", () => {
    const pair = tlv(
      0x31,
      tlv(0x30, COMMON_NAME, tlv(0x0c, ascii("node1"))),
      tlv(0x30, COMMON_NAME, tlv(0x0c, ascii("node2"))),
    );
    refusesName(certificate({ subject: [pair] }), "CommonName", "node1");
    const unknown = commonName(0x1c, [0, 0, 0, 0x61]);
    const known = commonName(0x0c, ascii("node1"));
    refusesName(certificate({ subject: [known, unknown] }), "CommonName", "node1");
    refusesName(certificate({ subject: [unknown] }), "CommonName", "a");
  });

  it("is refused where it is empty, or holds NUL, a newline, a space, or anything but ASCII", async () => {
    for (
      const name of ["", "node1\0", "node1\0.evil", "node1\n", "node 1", "nodé", "\ufeffnode1"]
    ) {
      const der = await issue({ commonNames: [name] });
      refusesName(der, "CommonName", name);
      refusesName(der, "CommonName", "node1");
    }
  });

  it("is not taken apart at commas, plus or equals signs, and has no escapes", async () => {
    const name = "node3,CN=node1+CN=node1";
    const der = await issue({ commonNames: [name] });
    refusesName(der, "CommonName", "node1");
    assert.equal(certificateIdentity(readCertificate(der), "CommonName", name), name);
    refusesName(await issue({ commonNames: ["node\\31"] }), "CommonName", "node1");
  });

  it("is read from every string type that authorities use", () => {
    const read = (tag: number, value: Uint8Array | number[]) =>
      readCertificate(certificate({ subject: [commonName(tag, value)] })).commonNames;
    for (const tag of [0x0c, 0x13, 0x14, 0x16]) assert.deepEqual(read(tag, ascii("n1")), ["n1"]);
    assert.deepEqual(read(0x1e, [0, 0x6e, 0, 0x31]), ["n1"]);
    // Never equal to a node id: a wide character, half a character, Latin-1, invalid UTF-8.
    assert.deepEqual(read(0x1e, [0x6e, 0x31]), ["\u6e31"]);
    assert.deepEqual(read(0x1e, [0, 0x6e, 0x31]), ["n\ufffd"]);
    assert.deepEqual(read(0x14, [0xe9]), ["é"]);
    assert.deepEqual(read(0x0c, [0x6e, 0xff]), ["n\ufffd"]);
    assert.deepEqual(read(0x0c, [0xc1, 0xae]), ["\ufffd\ufffd"]);
    assert.deepEqual(read(0x1c, [0, 0, 0, 0x6e]), ["\ufffd"]);
  });

  it("is shown escaped and cut in errors", () => {
    const name = ascii(`\u001b[2J\r\n"${"x".repeat(60_000)}`);
    const facts = readCertificate(certificate({ subject: [commonName(0x0c, name)] }));
    assert.throws(
      () => certificateIdentity(facts, "CommonName", "node1"),
      (error: TransportError) => /^[ -~…]{1,200}$/.test(error.message),
    );
  });

  it("may have 255 bytes and no more", async () => {
    const longest = "n".repeat(255);
    const facts = readCertificate(await issue({ commonNames: [longest] }));
    assert.equal(certificateIdentity(facts, "CommonName", longest), longest);
    refusesName(await issue({ commonNames: [`${longest}n`] }), "CommonName", `${longest}n`);
  });
});

describe("the node id in a subject alternative name", () => {
  it("is taken where one of the DNS names is equal byte for byte", () => {
    const facts = readCertificate(node1);
    assert.equal(certificateIdentity(facts, "SubjectAltName", "node1"), "node1");
    assert.equal(certificateIdentity(facts, "SubjectAltName", "localhost"), "localhost");
    for (const other of ["node2", "NODE1", "127.0.0.1", "node1.", ""]) {
      refusesName(node1, "SubjectAltName", other);
    }
  });

  it("is not found in one name that reads like two", async () => {
    const der = await issue({ dnsNames: ["node3, DNS:node2"] }, "node3");
    for (const nodeId of ["node2", "node3", "node3, DNS:node2"]) {
      refusesName(der, "SubjectAltName", nodeId);
    }
  });

  it("is not matched by wildcards, names with NUL, or names of another kind", async () => {
    refusesName(await issue({ dnsNames: ["*", "*.example"] }), "SubjectAltName", "a.example");
    refusesName(await issue({ dnsNames: ["node1\0.evil", ""] }), "SubjectAltName", "node1");
    const other = [0x81, 0x86].map((tag) => tlv(tag, ascii("node1")));
    const der = certificate({ extensions: [alternativeNames(...other)] });
    refusesName(der, "SubjectAltName", "node1");
  });

  it("is not taken from the common name, nor the common name from it", async () => {
    refusesName(await issue({ noSan: true }), "SubjectAltName", "node1");
    refusesName(await issue({ dnsNames: ["node2"] }), "CommonName", "node2");
  });
});

describe("the use of a certificate", () => {
  const START = Date.UTC(2025, 0, 1);
  const END = Date.UTC(2026, 0, 1);
  const MIDDLE = START + 1;
  const refusesUse = (der: Uint8Array, role: "client" | "server", nowMs: number, why: RegExp) =>
    assert.throws(
      () => checkCertificateUse(readCertificate(der), role, nowMs),
      (error: TransportError) =>
        error instanceof TransportError && error.code === "HandshakeFailed" &&
        why.test(error.message),
    );
  const accepts = (der: Uint8Array, role: "client" | "server", nowMs = MIDDLE) =>
    checkCertificateUse(readCertificate(der), role, nowMs);

  it("is refused before and after its time", () => {
    accepts(certificate(), "client", START);
    accepts(certificate(), "server", END);
    refusesUse(certificate(), "client", START - 1, /valid only from 2025-01-01T00:00:00.000Z/);
    refusesUse(certificate(), "server", END + 1, /expired at 2026-01-01T00:00:00.000Z/);
    refusesUse(certificate(), "server", NaN, /valid only from/);
  });

  it("is refused for a role that its usages leave out", async () => {
    const clientOnly = await issue({ usages: ["client"] });
    const serverOnly = await issue({ usages: ["server"] });
    const now = Date.now();
    accepts(clientOnly, "client", now);
    accepts(serverOnly, "server", now);
    refusesUse(clientOnly, "server", now, /do not include server authentication/);
    refusesUse(serverOnly, "client", now, /do not include client authentication/);
  });

  it("is accepted for both roles without usages, or with the one that stands for any", () => {
    const any = certificate({ extensions: [keyUsages(oid(0x55, 0x1d, 0x25, 0x00))] });
    for (const role of ["client", "server"] as const) {
      accepts(certificate(), role);
      accepts(any, role);
    }
  });

  it("is refused for an authority's certificate", async () => {
    refusesUse(pemToDer(ca.ca), "server", Date.now(), /authority's/);
    refusesUse(await issue({ isCa: true }), "client", Date.now(), /authority's/);
  });
});
