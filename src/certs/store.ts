/**
 * A folder of certificates: `ca.crt`, `ca.key`, and `<node>.crt`, `<node>.key` for each node.
 *
 * @module
 */

import { join } from "node:path";
import { Authority } from "./authority.ts";
import { FileError, type Files } from "./files.ts";
import { checkTogether, type NodeNames } from "./node_names.ts";

/** What is to be made. */
export interface MakeOptions {
  /** The folder; made where it is missing. */
  readonly folder: string;
  /** At least one node. */
  readonly nodes: readonly NodeNames[];
  /** Days that node certificates are valid. */
  readonly days: number;
  /** Replace certificates and keys of the named nodes; never those of the authority. */
  readonly force: boolean;
  /** The wall clock, milliseconds since the epoch. */
  readonly nowMs: number;
}

/** A file that was written. */
export interface MadeFile {
  readonly path: string;
  /** What it is, for people. */
  readonly what: string;
}

/** What was made. */
export interface Made {
  /** In the order of writing. */
  readonly files: readonly MadeFile[];
  /** The authority's certificate, written or found. */
  readonly caPath: string;
  /** Whether the authority is new. */
  readonly isNewAuthority: boolean;
  /** Nodes that get less than the days asked for, since the authority ends before. */
  readonly shortened: boolean;
}

/** The least an authority lives, days. */
const AUTHORITY_DAYS = 3650;
const PUBLIC_MODE = 0o644;
const SECRET_MODE = 0o600;
const DAY_MS = 86_400_000;

interface PlannedFile extends MadeFile {
  readonly text: string;
  readonly mode: number;
  readonly replace: boolean;
}

/**
 * Makes node certificates, and the authority where the folder has none. Everything is checked and
 * made in memory before the first byte is written.
 *
 * @throws {FileError} Where a file is in the way or can't be used.
 * @throws {UsageError} Where the names of the nodes are in each other's way.
 * @throws {RangeError} Where the folder's authority can't be used.
 */
export async function makeCertificates(files: Files, options: MakeOptions): Promise<Made> {
  const { folder, nodes, days, force, nowMs } = options;
  checkTogether(nodes);
  await checkPlaces(files, options);
  const { authority, key } = await findAuthority(files, options);

  const planned: PlannedFile[] = [];
  const plan = (name: string, what: string, text: string, mode: number, replace: boolean) =>
    planned.push({ path: join(folder, name), what, text, mode, replace });
  if (key !== undefined) {
    plan("ca.key", "the authority's key; keep it off the nodes", key, SECRET_MODE, false);
    const what = `the authority, for every node; valid until ${day(authority.notAfter)}`;
    plan("ca.crt", what, authority.cert, PUBLIC_MODE, false);
  }
  for (const node of nodes) {
    const { cert, key, notAfter } = await authority.issue(node, { nowMs, days });
    plan(`${node.nodeId}.key`, `private key of ${node.nodeId}`, key, SECRET_MODE, force);
    const what = `certificate of ${node.nodeId}, valid until ${day(notAfter)}`;
    plan(`${node.nodeId}.crt`, what, cert, PUBLIC_MODE, force);
  }

  await files.mkdir(folder);
  for (const { path, text, mode, replace } of planned) {
    await files.writeFile(path, text, { mode, replace });
  }
  return {
    files: planned.map(({ path, what }) => ({ path, what })),
    caPath: join(folder, "ca.crt"),
    isNewAuthority: key !== undefined,
    shortened: authority.notAfter < nowMs + days * DAY_MS,
  };
}

/** The authority of the folder, or a new one with the key that is to be written. */
async function findAuthority(
  files: Files,
  { folder, days, nowMs }: MakeOptions,
): Promise<{ authority: Authority; key: string | undefined }> {
  const certPath = join(folder, "ca.crt");
  const keyPath = join(folder, "ca.key");
  const hasCert = await files.stat(certPath) !== undefined;
  const hasKey = await files.stat(keyPath) !== undefined;
  if (!hasCert && !hasKey) {
    return await Authority.create({ nowMs, days: Math.max(days, AUTHORITY_DAYS) });
  }
  // Replaced, an authority would shut out every node that has a certificate of it.
  if (hasCert !== hasKey) {
    const [there, missing] = hasCert ? [certPath, keyPath] : [keyPath, certPath];
    throw new FileError(
      `Cannot use the authority: there is ${there} but no ${missing}; bring it back, or move ` +
        `the other away for a new authority`,
    );
  }
  const text = async (path: string) => new TextDecoder().decode(await files.readFile(path));
  const authority = await Authority.load(await text(certPath), await text(keyPath), nowMs);
  return { authority, key: undefined };
}

/** Refuses what would overwrite a file, or give a node a name that another one has. */
async function checkPlaces(files: Files, { folder, nodes, force }: MakeOptions): Promise<void> {
  for (const { nodeId, dnsNames } of nodes) {
    for (const name of [`${nodeId}.key`, `${nodeId}.crt`]) {
      const path = join(folder, name);
      const found = await files.stat(path);
      if (found === undefined || (force && found.isFile)) continue;
      const hint = found.isFile ? "; --force replaces it" : " and is not a file";
      throw new FileError(`Cannot write ${path}: it exists already${hint}`);
    }
    for (const host of dnsNames) {
      const path = join(folder, `${host}.crt`);
      if (host === nodeId || await files.stat(path) === undefined) continue;
      throw new FileError(
        `Cannot give ${nodeId} the host ${host}: ${path} is of a node with that id`,
      );
    }
  }
}

function day(ms: number): string {
  return new Date(ms).toISOString().slice(0, 10);
}
