/** A file system and the rest of a command's world in memory. */

import type { CommandIo } from "../../cli.ts";
import { FileError, type Files, type WriteOptions } from "../../src/certs/files.ts";

/** One file, with the options it was last written with. */
export interface MemoryFile extends WriteOptions {
  text: string;
}

/** Files by path. */
export class MemoryFiles implements Files {
  readonly files = new Map<string, MemoryFile>();
  readonly folders: string[] = [];
  /** Paths whose writing fails with this reason. */
  readonly broken = new Map<string, string>();

  stat(path: string): Promise<{ isFile: boolean; size: number } | undefined> {
    const file = this.files.get(path);
    if (file !== undefined) return Promise.resolve({ isFile: true, size: file.text.length });
    const isFolder = this.folders.includes(path);
    return Promise.resolve(isFolder ? { isFile: false, size: 0 } : undefined);
  }

  readFile(path: string): Promise<Uint8Array> {
    return Promise.resolve(new TextEncoder().encode(this.text(path)));
  }

  mkdir(path: string): Promise<void> {
    this.folders.push(path);
    return Promise.resolve();
  }

  async writeFile(path: string, text: string, options: WriteOptions): Promise<void> {
    await Promise.resolve();
    const reason = this.broken.get(path) ??
      (this.files.has(path) && !options.replace ? "it exists already" : undefined);
    if (reason !== undefined) throw new FileError(`Cannot write ${path}: ${reason}`);
    this.files.set(path, { text, ...options });
  }

  text(path: string): string {
    const file = this.files.get(path);
    if (file === undefined) throw new FileError(`Cannot read ${path}: no such file or folder`);
    return file.text;
  }
}

/** What a command printed, and where it looked. */
export class MemoryIo implements CommandIo {
  readonly files: MemoryFiles = new MemoryFiles();
  out = "";
  err = "";
  nowMs: number = Date.UTC(2026, 0, 1);

  stdout(text: string): void {
    this.out += text;
  }

  stderr(text: string): void {
    this.err += text;
  }

  now(): number {
    return this.nowMs;
  }
}
