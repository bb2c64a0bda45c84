/**
 * `hawser certs`: makes and inspects certificates.
 *
 * @module
 */

import { join } from "node:path";
import { FileError, type Files } from "./files.ts";
import { parseNodeNames } from "./node_names.ts";
import { UsageError } from "./usage_error.ts";

/** The world of a command beside its arguments. */
export interface CommandIo {
  /** Prints to the standard output; the text brings its own line ends. */
  stdout(text: string): void;
  /** Prints to the standard error output; the text brings its own line ends. */
  stderr(text: string): void;
  /** The wall clock, milliseconds since the epoch. */
  now(): number;
  /** The file system. */
  readonly files: Files;
}

/** What `hawser certs` was told. */
export interface CertsFlags {
  /** The folder. */
  readonly out: string;
  /** Days as text; undefined for the default of a year. */
  readonly days: string | undefined;
  /** Replace what is there of the named nodes. */
  readonly force: boolean;
}

const DEFAULT_DAYS = "365";
/** A hundred years; far above it the year would not fit a certificate. */
const MAX_DAYS = 36_500;
const MAX_CERTIFICATE_FILE_BYTES = 1 << 20;

/**
 * `hawser certs [--out DIR] [--days N] [--force] NODE…`.
 *
 * @throws {UsageError} Where an argument is wrong.
 * @throws {FileError} Where a file is in the way or can't be used.
 * @throws {RangeError} Where the folder's authority can't be used.
 */
export async function runCerts(args: string[], flags: CertsFlags, io: CommandIo): Promise<number> {
  const days = parseDays(flags.days ?? DEFAULT_DAYS);
  if (args.length === 0) throw new UsageError("certs needs the id of a node, or more");
  const nodes = args.map(parseNodeNames);
  // Loaded here, since only what makes a certificate should wait for the library that does it.
  const { makeCertificates } = await import("./store.ts");
  const folder = flags.out;
  const made = await makeCertificates(io.files, {
    folder,
    nodes,
    days,
    force: flags.force,
    nowMs: io.now(),
  });
  const width = Math.max(...made.files.map(({ path }) => path.length)) + 2;
  const list = made.files.map(({ path, what }) => `  ${path.padEnd(width)}${what}\n`).join("");
  const authority = made.isNewAuthority ? "" : `Signed by ${made.caPath}, which was there.\n`;
  const warning = made.shortened ? "None can outlive the authority: the days were cut.\n" : "";
  io.stdout(`Made:\n${list}${authority}${warning}\n${snippet(folder, nodes[0]!.nodeId)}`);
  const others = nodes.slice(1).map(({ nodeId }) => nodeId);
  if (others.length > 0) {
    io.stdout(`\nFor ${others.join(", ")}: the same, each with its own id and files.\n`);
  }
  return 0;
}

/**
 * `hawser certs inspect FILE`. 1 where strict mode would not accept the certificate at all.
 *
 * @throws {UsageError} Where an argument is wrong.
 * @throws {FileError} Where the file can't be read.
 * @throws {TransportError} "IdentityMismatch" where it is no certificate.
 */
export async function runInspect(args: string[], io: CommandIo): Promise<number> {
  const [path] = args;
  if (path === undefined || args.length > 1) throw new UsageError("certs inspect needs one file");
  const found = await io.files.stat(path);
  if (found === undefined) throw new FileError(`Cannot read ${path}: no such file or folder`);
  if (!found.isFile) throw new FileError(`Cannot read ${path}: it is not a file`);
  if (found.size > MAX_CERTIFICATE_FILE_BYTES) {
    throw new FileError(`Cannot read ${path}: it is too large for a certificate`);
  }
  const { inspectCertificate } = await import("./inspect.ts");
  const { lines, usable } = await inspectCertificate(await io.files.readFile(path), io.now());
  io.stdout(`${path}\n${lines.map((line) => line === "" ? "\n" : `  ${line}\n`).join("")}`);
  return usable ? 0 : 1;
}

function parseDays(text: string): number {
  const days = /^\d{1,6}$/.test(text) ? Number(text) : 0;
  if (days >= 1 && days <= MAX_DAYS) return days;
  throw new UsageError(`--days must be an integer from 1 to ${MAX_DAYS}, got ${text}`);
}

/** Paths in it count from the folder of the configuration file. */
function snippet(folder: string, nodeId: string): string {
  const path = (name: string) => JSON.stringify(join(folder, name));
  return `In the configuration of ${nodeId}:

node_id = ${JSON.stringify(nodeId)}

[tls]
cert_path = ${path(`${nodeId}.crt`)}
key_path = ${path(`${nodeId}.key`)}
ca_cert_path = ${path("ca.crt")}
require_client_auth = true
node_id_verification = "CommonName"
`;
}
