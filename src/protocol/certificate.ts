/**
 * Whom a certificate names and what it may be used for, read from its own bytes (RFC 5280). The
 * runtimes' texts of subjects and alternative names are not used: one DNS name `a, DNS:b` reads as
 * two on one of them. The chain and the signature are the TLS stack's to verify, and are not here.
 *
 * @module
 */

import { HandshakeError, TransportError } from "../errors.ts";
import {
  type DerElement,
  DerReader,
  malformed,
  readBoolean,
  readOid,
  readTime,
  TAG,
} from "./der.ts";
import { quote } from "./text.ts";

/** What a certificate says, as far as identity and use go. Nothing here is judged yet. */
export interface CertificateFacts {
  /** Every common name of the subject, in order. What can't be decoded holds U+FFFD. */
  commonNames: string[];
  /** Every dNSName of the subjectAltName extension, in order; one character for each byte. */
  dnsNames: string[];
  /** Not valid before this time, milliseconds since the epoch. */
  notBefore: number;
  /** Not valid after this time, milliseconds since the epoch. */
  notAfter: number;
  /** The purposes of the extendedKeyUsage extension, dotted; undefined where there is none. */
  extendedKeyUsages: string[] | undefined;
  /** Whether it may sign other certificates. */
  isCa: boolean;
}

const OID_COMMON_NAME = "2.5.4.3";
const OID_SUBJECT_ALT_NAME = "2.5.29.17";
const OID_BASIC_CONSTRAINTS = "2.5.29.19";
const OID_EXTENDED_KEY_USAGE = "2.5.29.37";
const ANY_EXTENDED_KEY_USAGE = "2.5.29.37.0";
const USAGE_OF_ROLE = { client: "1.3.6.1.5.5.7.3.2", server: "1.3.6.1.5.5.7.3.1" } as const;

/** The context-specific tags used: [0] and [3] hold an element, [1], [2] and dNSName are bytes. */
const TAG_VERSION = 0xa0;
const TAG_ISSUER_UNIQUE_ID = 0x81;
const TAG_SUBJECT_UNIQUE_ID = 0x82;
const TAG_EXTENSIONS = 0xa3;
const TAG_DNS_NAME = 0x82;

const VERSION_3 = 2;
/** A GeneralName is one of [0] to [8]. */
const MAX_GENERAL_NAME = 8;

const NODE_ID = /^[!-~]{1,255}$/;

/**
 * Reads a certificate.
 *
 * @param der The whole certificate; what lies after it is an error.
 * @throws {TransportError} "IdentityMismatch" where the bytes are not strict DER, not of the shape
 * of RFC 5280, or hold an extension twice.
 */
export function readCertificate(der: Uint8Array): CertificateFacts {
  const file = new DerReader(der);
  const certificate = file.enter(TAG.sequence, "the certificate");
  file.finish("the certificate");
  const body = certificate.enter(TAG.sequence, "the signed part");
  certificate.expect(TAG.sequence, "the signature algorithm");
  certificate.expect(TAG.bitString, "the signature");
  certificate.finish("the signature");

  const version = readVersion(body);
  body.expect(TAG.integer, "the serial number");
  body.expect(TAG.sequence, "the signature algorithm");
  body.expect(TAG.sequence, "the issuer");
  const validity = body.enter(TAG.sequence, "the validity");
  const notBefore = readTime(validity.next());
  const notAfter = readTime(validity.next());
  validity.finish("the validity");
  const commonNames = readCommonNames(body.enter(TAG.sequence, "the subject"));
  body.expect(TAG.sequence, "the public key");
  body.optional(TAG_ISSUER_UNIQUE_ID);
  body.optional(TAG_SUBJECT_UNIQUE_ID);
  const extensions = readExtensions(body, version);
  body.finish("the extensions");

  return {
    commonNames,
    dnsNames: readDnsNames(extensions.get(OID_SUBJECT_ALT_NAME)),
    notBefore,
    notAfter,
    extendedKeyUsages: readUsages(extensions.get(OID_EXTENDED_KEY_USAGE)),
    isCa: readIsCa(extensions.get(OID_BASIC_CONSTRAINTS)),
  };
}

/**
 * Holds a certificate's name against the node id its owner claims, byte for byte: no case folding,
 * no wildcard, no escape.
 *
 * @param by "CommonName": there must be exactly one, and it must be the node id. "SubjectAltName":
 * one of the DNS names must be.
 * @returns The node id, now verified.
 * @throws {TransportError} "IdentityMismatch" with `peer` set to `nodeId`.
 */
export function certificateIdentity(
  facts: CertificateFacts,
  by: "CommonName" | "SubjectAltName",
  nodeId: string,
): string {
  const problem = identityProblem(facts, by, nodeId);
  if (problem === undefined) return nodeId;
  const message = `Cannot take the peer for ${quote(nodeId)}: ${problem}`;
  throw new TransportError("IdentityMismatch", message, { peer: nodeId });
}

/** Why {@linkcode certificateIdentity} would refuse, in words that are safe to print; undefined where it would not. */
export function identityProblem(
  facts: CertificateFacts,
  by: "CommonName" | "SubjectAltName",
  nodeId: string,
): string | undefined {
  if (!NODE_ID.test(nodeId)) return `${quote(nodeId)} is not a node id`;
  if (by === "SubjectAltName") {
    if (facts.dnsNames.includes(nodeId)) return undefined;
    return facts.dnsNames.length === 0
      ? "its certificate has no DNS name"
      : `its certificate has no such DNS name among its ${facts.dnsNames.length}`;
  }
  const [name] = facts.commonNames;
  if (name === undefined) return "its certificate has no common name";
  if (facts.commonNames.length > 1) {
    return `its certificate has ${facts.commonNames.length} common names`;
  }
  if (!NODE_ID.test(name)) return `its common name ${quote(name)} is not a node id`;
  return name === nodeId ? undefined : `its certificate is for ${quote(name)}`;
}

/**
 * Checks that a peer's certificate may be used now, for that side of a connection, by a node.
 *
 * @param role The peer's side: "client" for a dialer's certificate, "server" for a listener's.
 * @param nowMs The wall clock, milliseconds since the epoch.
 * @throws {TransportError} "HandshakeFailed" where the certificate is expired or not yet valid, is
 * an authority's, or names its purposes and the role is not among them.
 */
export function checkCertificateUse(
  facts: CertificateFacts,
  role: "client" | "server",
  nowMs: number,
): void {
  const problem = useProblem(facts, role, nowMs);
  if (problem === undefined) return;
  throw new HandshakeError(`Cannot accept the peer's certificate: ${problem}`, undefined, {
    recovery: "check the clocks of both sides, and issue the certificate again",
  });
}

/** Why {@linkcode checkCertificateUse} would refuse; undefined where it would not. */
export function useProblem(
  facts: CertificateFacts,
  role: "client" | "server",
  nowMs: number,
): string | undefined {
  // Written so that a clock that is NaN refuses instead of accepting.
  if (!(nowMs >= facts.notBefore)) return `it is valid only from ${isoTime(facts.notBefore)}`;
  if (!(nowMs <= facts.notAfter)) return `it expired at ${isoTime(facts.notAfter)}`;
  if (facts.isCa) return "it is an authority's, not a node's";
  const usages = facts.extendedKeyUsages;
  const allowed = usages === undefined || usages.includes(USAGE_OF_ROLE[role]) ||
    usages.includes(ANY_EXTENDED_KEY_USAGE);
  return allowed ? undefined : `its extended key usages do not include ${role} authentication`;
}

function isoTime(ms: number): string {
  return new Date(ms).toISOString();
}

function readVersion(body: DerReader): number {
  const wrapper = body.optional(TAG_VERSION);
  if (wrapper === undefined) return 0;
  const reader = new DerReader(wrapper);
  const contents = reader.expect(TAG.integer, "the version");
  reader.finish("the version");
  const version = contents[0];
  if (contents.length !== 1 || version === undefined || version > VERSION_3) {
    throw malformed("its version is unknown");
  }
  return version;
}

function readCommonNames(subject: DerReader): string[] {
  const names: string[] = [];
  while (!subject.done) {
    const relativeName = subject.enter(TAG.set, "a part of the subject");
    do {
      const attribute = relativeName.enter(TAG.sequence, "a part of the subject");
      const type = readOid(attribute.expect(TAG.oid, "the type of a part of the subject"));
      const value = attribute.next();
      attribute.finish("a part of the subject");
      if (type === OID_COMMON_NAME) names.push(readText(value));
    } while (!relativeName.done);
  }
  return names;
}

/** A name that can't be read is kept as U+FFFD: left out, it would not count as a second name. */
function readText({ tag, contents }: DerElement): string {
  switch (tag) {
    case TAG.utf8String:
      // A byte order mark is part of the name; dropped, another name would equal the node id.
      return new TextDecoder("utf-8", { ignoreBOM: true }).decode(contents);
    case TAG.printableString:
    case TAG.ia5String:
    case TAG.teletexString:
      return oneCharEachByte(contents);
    case TAG.bmpString:
      return oneCharEachTwoBytes(contents);
    default:
      return "\ufffd";
  }
}

function oneCharEachByte(bytes: Uint8Array): string {
  let text = "";
  for (const byte of bytes) text += String.fromCharCode(byte);
  return text;
}

function oneCharEachTwoBytes(bytes: Uint8Array): string {
  let text = "";
  for (let i = 0; i + 1 < bytes.length; i += 2) {
    text += String.fromCharCode(bytes[i]! << 8 | bytes[i + 1]!);
  }
  return bytes.length % 2 === 0 ? text : `${text}\ufffd`;
}

/** The value of each extension by its OID. */
function readExtensions(body: DerReader, version: number): Map<string, Uint8Array> {
  const values = new Map<string, Uint8Array>();
  const wrapper = body.optional(TAG_EXTENSIONS);
  if (wrapper === undefined) return values;
  if (version !== VERSION_3) throw malformed("it has extensions but is not of version 3");
  const outer = new DerReader(wrapper);
  const list = outer.enter(TAG.sequence, "the extensions");
  outer.finish("the extensions");
  do {
    const extension = list.enter(TAG.sequence, "an extension");
    const oid = readOid(extension.expect(TAG.oid, "the type of an extension"));
    const critical = extension.optional(TAG.boolean);
    if (critical !== undefined) readBoolean(critical);
    const value = extension.expect(TAG.octetString, "the value of an extension");
    extension.finish("an extension");
    // Which of two would count differs from reader to reader.
    if (values.has(oid)) throw malformed("an extension is there twice");
    values.set(oid, value);
  } while (!list.done);
  return values;
}

function readDnsNames(value: Uint8Array | undefined): string[] {
  const names: string[] = [];
  if (value === undefined) return names;
  const list = enterOnly(value, "the alternative names");
  do {
    const { tag, contents } = list.next();
    // Class "context-specific"; the bit 0x20 says only whether other elements are inside.
    if ((tag & 0xc0) !== 0x80 || (tag & 0x1f) > MAX_GENERAL_NAME) {
      throw malformed("an alternative name is of no known kind");
    }
    if (tag === TAG_DNS_NAME) names.push(oneCharEachByte(contents));
  } while (!list.done);
  return names;
}

function readUsages(value: Uint8Array | undefined): string[] | undefined {
  if (value === undefined) return undefined;
  const usages: string[] = [];
  const list = enterOnly(value, "the extended key usages");
  do {
    usages.push(readOid(list.expect(TAG.oid, "an extended key usage")));
  } while (!list.done);
  return usages;
}

function readIsCa(value: Uint8Array | undefined): boolean {
  if (value === undefined) return false;
  const constraints = enterOnly(value, "the basic constraints");
  const isCa = constraints.optional(TAG.boolean);
  constraints.optional(TAG.integer);
  constraints.finish("the basic constraints");
  return isCa !== undefined && readBoolean(isCa);
}

/** A reader of the one sequence that `value` must be. */
function enterOnly(value: Uint8Array, what: string): DerReader {
  const outer = new DerReader(value);
  const inner = outer.enter(TAG.sequence, what);
  outer.finish(what);
  return inner;
}
