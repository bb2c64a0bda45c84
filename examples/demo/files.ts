/**
 * The files of a folder: which there are, what is in them, and where they may be written.
 *
 * @module
 */

import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { readdir, stat } from "node:fs/promises";
import { isAbsolute, join, relative, resolve, sep } from "node:path";

/** A file to replicate. */
export interface FileEntry {
  /** Relative to the folder, parts separated by "/". */
  readonly path: string;
  /** In bytes. */
  readonly size: number;
  /** Of the content, in hex. */
  readonly sha256: string;
}

/** The folder can't be replicated; the message is for people. */
export class FolderError extends Error {}

const SKIPPED = new Set(["node_modules", ".git"]);
/** What the demo replicates where no folder is given. */
const SOURCE_FOLDERS = ["src", "tests", "docs", "examples", "bench", "tools"];
/** A path has to fit the chunk header; no file system takes longer ones. */
const MAX_PATH_BYTES = 4096;

/** Every regular file of a folder, with its hash; symbolic links are left out. */
export async function readFolder(folder: string): Promise<FileEntry[]> {
  const info = await stat(folder).catch((error) => {
    throw new FolderError(`Cannot read ${shown(folder)}: ${reason(error)}`);
  });
  if (!info.isDirectory()) {
    throw new FolderError(`Cannot replicate ${shown(folder)}: it is not a folder`);
  }
  return await describe(folder, await listFiles(folder));
}

/** The project's own sources. */
export async function readSources(root: string): Promise<FileEntry[]> {
  const paths: string[] = [];
  for (const name of (await readdir(root)).sort()) {
    if (SOURCE_FOLDERS.includes(name)) paths.push(...await listFiles(root, name));
    else if (/\.(ts|md)$/.test(name) || name === "deno.json") paths.push(name);
  }
  return await describe(root, paths);
}

/** The regular files below `under`, as paths relative to `folder`, in order. */
export async function listFiles(folder: string, under = ""): Promise<string[]> {
  const entries = await readdir(join(folder, under), { withFileTypes: true }).catch((error) => {
    throw new FolderError(`Cannot read ${shown(join(folder, under))}: ${reason(error)}`);
  });
  const paths: string[] = [];
  for (const entry of entries.sort((a, b) => a.name < b.name ? -1 : 1)) {
    const path = under === "" ? entry.name : `${under}/${entry.name}`;
    if (SKIPPED.has(entry.name)) continue;
    if (entry.isDirectory()) paths.push(...await listFiles(folder, path));
    else if (entry.isFile()) paths.push(path);
  }
  return paths;
}

/** SHA-256 of a file in hex, and how many bytes it has. */
export async function hashFile(path: string): Promise<{ sha256: string; size: number }> {
  const hash = createHash("sha256");
  let size = 0;
  for await (const chunk of createReadStream(path)) {
    hash.update(chunk);
    size += chunk.length;
  }
  return { sha256: hash.digest("hex"), size };
}

/** Where a path from the network belongs below `folder`; throws where it would lead out of it. */
export function pathBelow(folder: string, path: string): string {
  const parts = path.split("/");
  const plain = parts.every((part) => part !== "" && part !== "." && part !== "..") &&
    !path.includes("\0") && (sep === "/" || !/[\\:]/.test(path)) &&
    new TextEncoder().encode(path).length <= MAX_PATH_BYTES;
  const target = resolve(folder, ...parts);
  const below = relative(resolve(folder), target);
  if (!plain || below === "" || isAbsolute(below) || below.split(sep)[0] === "..") {
    throw new Error(`the path ${shown(path)} leads out of the folder`);
  }
  return target;
}

/** A path as it may be printed: no control characters, whatever the file's name is. */
export function shown(path: string): string {
  // deno-lint-ignore no-control-regex -- they are what is to be replaced
  return `"${path.slice(0, 500).replace(/[\u0000-\u001f\u007f-\u009f\u2028-\u202e]/g, "?")}"`;
}

async function describe(folder: string, paths: string[]): Promise<FileEntry[]> {
  if (paths.length === 0) {
    throw new FolderError(`Cannot replicate ${shown(folder)}: there are no files in it`);
  }
  const files: FileEntry[] = [];
  for (const path of paths) {
    const content = await hashFile(join(folder, path)).catch((error) => {
      throw new FolderError(`Cannot read ${shown(join(folder, path))}: ${reason(error)}`);
    });
    files.push({ path, ...content });
  }
  return files;
}

function reason(error: unknown): string {
  switch ((error as { code?: string }).code) {
    case "ENOENT":
      return "there is no such file or folder";
    case "EACCES":
    case "EPERM":
      return "no permission";
    default:
      return error instanceof Error ? shown(error.message) : "it can't be read";
  }
}
