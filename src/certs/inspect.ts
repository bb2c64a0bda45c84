/**
 * What a certificate says, and what strict mode says to it, for people to read.
 *
 * @module
 */

import "reflect-metadata";
import * as x509 from "@peculiar/x509";
import {
  type CertificateFacts,
  identityProblem,
  readCertificate,
  useProblem,
} from "../protocol/certificate.ts";
import { quote } from "../protocol/text.ts";
import { decodePem } from "../protocol/pem.ts";

/** The outcome of {@linkcode inspectCertificate}. */
export interface Inspection {
  /** Lines to print; text of the certificate is escaped in them. */
  readonly lines: readonly string[];
  /** Whether strict mode accepts it under one of its names, in one of the two roles. */
  readonly usable: boolean;
}

const DAY_MS = 86_400_000;
/** A certificate may hold any number of names; more than these are counted only. */
const MAX_SHOWN_NAMES = 16;
const USAGE_NAMES: Readonly<Record<string, string>> = {
  "1.3.6.1.5.5.7.3.1": "server",
  "1.3.6.1.5.5.7.3.2": "client",
  "2.5.29.37.0": "any",
};

/**
 * Describes a certificate.
 *
 * @param file A PEM text, of which the first certificate counts, or the DER bytes of one.
 * @param nowMs The wall clock, milliseconds since the epoch.
 * @throws {TransportError} "IdentityMismatch" where the library could not read it either.
 * @throws {RangeError} Where there is no certificate in the file.
 */
export async function inspectCertificate(file: Uint8Array, nowMs: number): Promise<Inspection> {
  const blocks = findCertificates(file);
  const der = blocks[0];
  if (der === undefined) throw new RangeError("Cannot inspect the file: it holds no certificate");
  const facts = readCertificate(der);
  const lines = [
    ...blocks.length > 1 ? [row("shown", `the first of ${blocks.length} certificates`)] : [],
    row("common name", quoteAll(facts.commonNames)),
    row("DNS names", quoteAll(facts.dnsNames)),
    ...details(der),
    row("SHA-256", await fingerprint(der)),
    row("valid", validity(facts, nowMs)),
    row("usages", usages(facts)),
    row("authority", facts.isCa ? "yes" : "no"),
  ];
  const commonName = judgeNames(facts, "CommonName", facts.commonNames.slice(0, 1));
  const altName = judgeNames(facts, "SubjectAltName", facts.dnsNames);
  const client = useProblem(facts, "client", nowMs);
  const server = useProblem(facts, "server", nowMs);
  lines.push(
    "",
    `strict, CommonName: ${commonName.verdict}`,
    `strict, SubjectAltName: ${altName.verdict}`,
    `strict, as client: ${client === undefined ? "ok" : `no, ${client}`}`,
    `strict, as server: ${server === undefined ? "ok" : `no, ${server}`}`,
    "Who signed it was not checked.",
  );
  const usable = (commonName.ok || altName.ok) && (client === undefined || server === undefined);
  return { lines, usable };
}

function findCertificates(file: Uint8Array): Uint8Array[] {
  const text = new TextDecoder("latin1").decode(file);
  if (text.includes("-----BEGIN ")) return decodePem("CERTIFICATE", text);
  return file.length > 0 ? [file] : [];
}

/** The node ids under which strict mode would accept it. */
function judgeNames(
  facts: CertificateFacts,
  by: "CommonName" | "SubjectAltName",
  names: string[],
): { ok: boolean; verdict: string } {
  const accepted = names.filter((name) => identityProblem(facts, by, name) === undefined);
  if (accepted.length > 0) return { ok: true, verdict: `ok as ${quoteAll(accepted)}` };
  // Some name must be asked for; any will do where there is none.
  const problem = identityProblem(facts, by, names[0] ?? "node");
  return { ok: false, verdict: `no, ${problem}` };
}

/** What only people want to know, read by a library and not by the reader of every connection. */
function details(der: Uint8Array): string[] {
  const certificate = new x509.X509Certificate(new Uint8Array(der));
  const names = certificate.getExtension(x509.SubjectAlternativeNameExtension)?.names.items ?? [];
  const addresses = names.filter(({ type }) => type === "ip").map(({ value }) => value);
  const serial = certificate.serialNumber.replace(/..(?=.)/g, "$&:");
  return [
    row("IP addresses", shown(addresses, (address) => address)),
    row("issuer", quote(certificate.issuer, 200)),
    row("serial", serial),
    row("key", keyType(certificate.publicKey.algorithm)),
  ];
}

function keyType(algorithm: Algorithm): string {
  const details = algorithm as Algorithm & { namedCurve?: string; modulusLength?: number };
  const size = details.namedCurve ?? details.modulusLength;
  return size === undefined ? details.name : `${details.name} ${size}`;
}

async function fingerprint(der: Uint8Array): Promise<string> {
  const digest = await crypto.subtle.digest("SHA-256", new Uint8Array(der));
  return Array.from(new Uint8Array(digest), (byte) => byte.toString(16).padStart(2, "0"))
    .join(":").toUpperCase();
}

function validity(facts: CertificateFacts, nowMs: number): string {
  const days = Math.floor((facts.notAfter - nowMs) / DAY_MS);
  const left = nowMs > facts.notAfter ? "expired" : `${days} days left`;
  return `${time(facts.notBefore)} to ${time(facts.notAfter)} (${left})`;
}

function time(ms: number): string {
  return new Date(ms).toISOString().replace(".000Z", "Z");
}

function usages(facts: CertificateFacts): string {
  if (facts.extendedKeyUsages === undefined) return "not limited";
  return shown(facts.extendedKeyUsages, (oid) => USAGE_NAMES[oid] ?? oid);
}

function quoteAll(names: readonly string[]): string {
  return shown(names, (name) => quote(name));
}

function shown(values: readonly string[], show: (value: string) => string): string {
  if (values.length === 0) return "none";
  const rest = values.length - MAX_SHOWN_NAMES;
  const first = values.slice(0, MAX_SHOWN_NAMES).map(show).join(", ");
  return rest > 0 ? `${first} and ${rest} more` : first;
}

function row(title: string, value: string): string {
  return `${title.padEnd(14)}${value}`;
}
