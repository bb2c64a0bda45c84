/**
 * The file system as the command-line tool uses it. Tests give one in memory.
 *
 * @module
 */

import { lstat, mkdir, readFile, rename, rm, stat, writeFile } from "node:fs/promises";

/** What the tool asks of a file system. Every method rejects with a {@linkcode FileError}. */
export interface Files {
  /** What is at the path: undefined for nothing. */
  stat(path: string): Promise<{ isFile: boolean; size: number } | undefined>;
  /** The whole file. */
  readFile(path: string): Promise<Uint8Array>;
  /** Makes the folder and those above it; content where they exist. */
  mkdir(path: string): Promise<void>;
  /** Writes a whole file that has this mode from the moment it exists. */
  writeFile(path: string, text: string, options: WriteOptions): Promise<void>;
}

/** How a file is written. */
export interface WriteOptions {
  /** Permission bits, less the process's umask; of no effect on Windows. */
  readonly mode: number;
  /** Whether a file may be there already, which is then replaced in one step. Otherwise it is an error. */
  readonly replace: boolean;
}

/** A file could not be used; the message is one line with path and reason. */
export class FileError extends Error {
  override readonly name = "FileError";
}

/** The real file system. Deno needs `--allow-read`, and `--allow-write` where it writes. */
export const systemFiles: Files = {
  stat: (path) =>
    attempt("look at", path, async () => {
      const found = await stat(path);
      return { isFile: found.isFile(), size: found.size };
    }, undefinedIfMissing(path)),
  readFile: (path) => attempt("read", path, () => readFile(path)),
  mkdir: (path) =>
    attempt("make the folder", path, async () => {
      await mkdir(path, { recursive: true });
    }),
  writeFile: (path, text, { mode, replace }) =>
    attempt("write", path, async () => {
      if (!replace) return await writeFile(path, text, { mode, flag: "wx" });
      // Written over, a file would keep its old mode, and be half a file in between.
      const temporary = `${path}.${crypto.randomUUID().slice(0, 8)}.tmp`;
      try {
        await writeFile(temporary, text, { mode, flag: "wx" });
        await rename(temporary, path);
      } catch (error) {
        await rm(temporary, { force: true });
        throw error;
      }
    }),
};

const REASONS: Readonly<Record<string, string>> = {
  EACCES: "permission denied",
  EEXIST: "it exists already",
  EISDIR: "it is a folder",
  ENAMETOOLONG: "the name is too long",
  ENOENT: "no such file or folder",
  ENOSPC: "no space is left",
  ENOTDIR: "a part of the path is not a folder",
  EPERM: "not permitted",
  EROFS: "the file system is read-only",
};

async function attempt<T>(
  verb: string,
  path: string,
  action: () => Promise<T>,
  rescue?: (error: unknown) => Promise<T> | undefined,
): Promise<T> {
  try {
    return await action();
  } catch (cause) {
    const rescued = rescue?.(cause);
    if (rescued !== undefined) return await rescued;
    throw new FileError(`Cannot ${verb} ${path}: ${reasonOf(cause)}`, { cause });
  }
}

/** Nothing behind a symbolic link is still something that stands in the way. */
function undefinedIfMissing(path: string) {
  return (error: unknown): Promise<{ isFile: boolean; size: number } | undefined> | undefined => {
    if (codeOf(error) !== "ENOENT") return undefined;
    return lstat(path).then(() => ({ isFile: false, size: 0 }), () => undefined);
  };
}

function codeOf(error: unknown): string {
  return error instanceof Error && "code" in error ? String(error.code) : "";
}

function reasonOf(error: unknown): string {
  const code = codeOf(error);
  const message = error instanceof Error ? error.message : String(error);
  return REASONS[code] ?? (message.split("\n")[0] || code);
}
