/**
 * Compares what a node wrote with what it was to write.
 *
 * @module
 */

import { join } from "node:path";
import { type FileEntry, hashFile, listFiles, shown } from "./files.ts";

/** What is in a node's folder. */
export interface Verdict {
  readonly files: number;
  readonly bytes: number;
  /** Files whose content is that of the source. */
  readonly matches: number;
  /** What is wrong, a line for each file concerned. */
  readonly problems: readonly string[];
}

/** Reads every file of `folder` again and compares it with its source as it was at the start. */
export async function verify(
  folder: string,
  expected: readonly FileEntry[],
  source: string,
): Promise<Verdict> {
  const missing = new Map(expected.map((entry) => [entry.path, entry]));
  const problems: string[] = [];
  let files = 0;
  let bytes = 0;
  let matches = 0;
  for (const path of await listFiles(folder)) {
    const { sha256, size } = await hashFile(join(folder, path));
    const entry = missing.get(path);
    missing.delete(path);
    files++;
    bytes += size;
    if (entry === undefined) problems.push(`${shown(path)} is not in the source`);
    else if (entry.sha256 === sha256) matches++;
    else problems.push(`${shown(path)} differs${await changed(join(source, path), entry)}`);
  }
  for (const path of missing.keys()) problems.push(`${shown(path)} is missing`);
  return { files, bytes, matches, problems };
}

async function changed(path: string, { sha256 }: FileEntry): Promise<string> {
  const now = await hashFile(path).catch(() => undefined);
  return now?.sha256 === sha256 ? "" : ": the source was changed while the demo ran";
}
