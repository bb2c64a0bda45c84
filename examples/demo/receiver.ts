/**
 * The receiving side of the replication: puts chunks together to files.
 *
 * @module
 */

import { createHash, type Hash } from "node:crypto";
import { type FileHandle, mkdir, open, rename, rm } from "node:fs/promises";
import { dirname, join } from "node:path";
import { pathBelow } from "./files.ts";
import type { Ack, Again, Chunk } from "./protocol.ts";

/** The file that is being written. */
interface Current {
  readonly file: number;
  readonly attempt: number;
  readonly total: number;
  readonly target: string;
  readonly handle: FileHandle;
  readonly hash: Hash;
  received: number;
}

/**
 * Writes files into a folder. A file appears there under its name once it is whole; until then it
 * is in a folder beside it.
 */
export class Receiver {
  readonly #folder: string;
  readonly #incoming: string;
  #current: Current | undefined;
  #refused = "";

  /** `incoming` holds what is not whole yet and must be on the same file system as `folder`. */
  constructor(folder: string, incoming: string) {
    this.#folder = folder;
    this.#incoming = incoming;
  }

  /** Makes the folders; what an earlier process left unfinished is thrown away. */
  async open(): Promise<void> {
    await rm(this.#incoming, { recursive: true, force: true });
    await mkdir(this.#incoming, { recursive: true });
    await mkdir(this.#folder, { recursive: true });
  }

  /** Takes the next chunk; returns what is to be answered. The caller waits between chunks. */
  async take(chunk: Chunk): Promise<Ack | Again | undefined> {
    if (chunk.offset === 0) await this.#begin(chunk);
    const current = this.#current;
    const fits = current !== undefined && current.file === chunk.file &&
      current.attempt === chunk.attempt && current.received === chunk.offset &&
      current.total === chunk.total;
    if (!fits) return this.#refuse(chunk);
    await writeAll(current.handle, chunk.data);
    current.hash.update(chunk.data);
    current.received += chunk.data.length;
    return current.received < current.total ? undefined : await this.#finish(current);
  }

  /** Closes the file that is not whole. */
  async close(): Promise<void> {
    const current = this.#current;
    this.#current = undefined;
    await current?.handle.close();
  }

  async #begin({ file, attempt, total, path }: Chunk): Promise<void> {
    const target = pathBelow(this.#folder, path);
    await this.close();
    const handle = await open(this.#partOf(file), "w");
    this.#current = {
      file,
      attempt,
      total,
      target,
      handle,
      hash: createHash("sha256"),
      received: 0,
    };
  }

  async #finish({ file, attempt, target, hash }: Current): Promise<Ack> {
    await this.close();
    await mkdir(dirname(target), { recursive: true });
    await rename(this.#partOf(file), target);
    return { type: "ack", file, attempt, sha256: new Uint8Array(hash.digest()) };
  }

  /** The rest of an attempt whose start is missing is answered once. */
  #refuse({ file, attempt }: Chunk): Again | undefined {
    const name = `${file}/${attempt}`;
    if (this.#refused === name) return undefined;
    this.#refused = name;
    return { type: "again", file, attempt };
  }

  #partOf(file: number): string {
    return join(this.#incoming, `${file}.part`);
  }
}

async function writeAll(handle: FileHandle, data: Uint8Array): Promise<void> {
  for (let written = 0; written < data.length;) {
    written += (await handle.write(data, written)).bytesWritten;
  }
}
