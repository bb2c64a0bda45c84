/**
 * The sending side of the replication: every file to one peer, until the peer has acknowledged each.
 *
 * @module
 */

import { type FileHandle, open } from "node:fs/promises";
import { join } from "node:path";
import type { Endpoint } from "../../mod.ts";
import { type FileEntry, hashFile, shown } from "./files.ts";
import { type Ack, type Again, decodeMessage, encodeMessage } from "./protocol.ts";

/** The largest part of a file in one message. */
const CHUNK_BYTES = 64 * 1024;
/** A folder goes in at least about this many chunks, so that a small one has a middle too. */
const MIN_CHUNKS = 16;
/** A file that arrives with another content is sent again, up to this often. */
const MAX_ATTEMPTS = 10;

/** What is replicated, and to whom. */
export interface Job {
  readonly folder: string;
  readonly files: readonly FileEntry[];
  readonly peer: string;
  /** Stop in the middle and go on when the peer was lost and has come back. */
  readonly pauseHalfway: boolean;
  /** The first half is written to the network. */
  onHalfway(): void;
  /** Some file or part of a file got further, or was set back. */
  onProgress(): void;
}

/** How far a file is. */
interface Progress {
  attempt: number;
  sent: number;
  acknowledged: boolean;
  /** It arrived, but with another content. */
  differed: boolean;
}

/** Replicates to one peer. */
export class Sender {
  readonly #endpoint: Endpoint;
  readonly #job: Job;
  readonly #progress: Progress[];
  /** The files that are still to be sent, by their index. */
  readonly #queue: Set<number>;
  readonly #chunkBytes: number;
  #pauseAt: number;
  /** Counts how often the peer came back; what was begun before that is begun again. */
  #returns = 0;
  #wake: (() => void) | undefined;
  #sentBytes = 0;
  #acknowledgedFiles = 0;
  #filesSentAgain = 0;

  /** Prepares the job; `run` does it. */
  constructor(endpoint: Endpoint, job: Job) {
    this.#endpoint = endpoint;
    this.#job = job;
    this.#progress = job.files.map(() => ({
      attempt: 0,
      sent: 0,
      acknowledged: false,
      differed: false,
    }));
    this.#queue = new Set(job.files.keys());
    const totalBytes = job.files.reduce((sum, { size }) => sum + size, 0);
    const share = Math.ceil(totalBytes / MIN_CHUNKS);
    this.#chunkBytes = Math.min(CHUNK_BYTES, Math.max(1, share));
    // Where all files are empty there is no half of the bytes: then it is before the first file.
    const half = totalBytes === 0 ? -1 : totalBytes / 2;
    this.#pauseAt = job.pauseHalfway ? half : Infinity;
  }

  /** Bytes sent of files that are acknowledged or on their way. */
  get sentBytes(): number {
    return this.#sentBytes;
  }

  /** Files the peer has written with the right content. */
  get acknowledgedFiles(): number {
    return this.#acknowledgedFiles;
  }

  /** Files that had to be sent more than once. */
  get filesSentAgain(): number {
    return this.#filesSentAgain;
  }

  /** Resolves when every file is acknowledged. */
  async run(): Promise<void> {
    while (this.#acknowledgedFiles < this.#job.files.length) {
      const [file] = this.#queue;
      if (file === undefined) {
        await this.#news();
        continue;
      }
      this.#queue.delete(file);
      await this.#sendFile(file);
    }
  }

  /** The peer has a connection again: what it has not acknowledged may be lost. */
  peerReturned(): void {
    this.#returns++;
    for (const [file, { acknowledged }] of this.#progress.entries()) {
      if (!acknowledged) this.#sendAgain(file);
    }
    this.#wake?.();
  }

  /** A message was reported undelivered. */
  undelivered(payload: Uint8Array): void {
    const message = decodeMessage(payload);
    if (message.type === "chunk") this.#again(message);
  }

  /** The peer has answered. */
  answered(message: Ack | Again): void {
    if (message.type === "again") return this.#again(message);
    const progress = this.#progress[message.file];
    if (progress === undefined || progress.acknowledged) return;
    const { sha256, size } = this.#job.files[message.file]!;
    if (hex(message.sha256) !== sha256) {
      progress.differed = true;
      return this.#again(message);
    }
    this.#count(progress, size - progress.sent);
    progress.acknowledged = true;
    this.#acknowledgedFiles++;
    this.#queue.delete(message.file);
    this.#job.onProgress();
    this.#wake?.();
  }

  async #sendFile(file: number): Promise<void> {
    const progress = this.#progress[file]!;
    this.#count(progress, -progress.sent);
    if (++progress.attempt > 1) this.#filesSentAgain++;
    if (progress.differed) await this.#checkSource(file);
    const handle = await open(join(this.#job.folder, this.#job.files[file]!.path), "r");
    try {
      await this.#sendChunks(file, progress, handle);
    } finally {
      await handle.close();
    }
  }

  /** A file that somebody writes to can't be replicated, however often it is sent. */
  async #checkSource(file: number): Promise<void> {
    const { path, sha256 } = this.#job.files[file]!;
    const now = await hashFile(join(this.#job.folder, path));
    if (now.sha256 !== sha256) throw new Error(`${shown(path)} was changed while the demo ran`);
    if (this.#progress[file]!.attempt > MAX_ATTEMPTS) {
      throw new Error(`${shown(path)} did not arrive as it was in ${MAX_ATTEMPTS} attempts`);
    }
  }

  async #sendChunks(file: number, progress: Progress, handle: FileHandle): Promise<void> {
    const { path, size: total } = this.#job.files[file]!;
    const { attempt } = progress;
    const returns = this.#returns;
    const outdated = () => this.#returns !== returns || this.#queue.has(file);
    do {
      const offset = progress.sent;
      const length = Math.min(this.#chunkBytes, total - offset);
      if (this.#sentBytes + length > this.#pauseAt) await this.#pause();
      if (outdated()) return;
      const data = await readExactly(handle, offset, length, path);
      const chunk = { type: "chunk", file, attempt, offset, total, path, data } as const;
      await this.#endpoint.send(this.#job.peer, encodeMessage(chunk));
      if (outdated() || progress.acknowledged) return;
      this.#count(progress, length);
      this.#job.onProgress();
    } while (progress.sent < total);
  }

  /** Waits, once, until the peer was lost and has come back. */
  async #pause(): Promise<void> {
    this.#pauseAt = Infinity;
    const returns = this.#returns;
    await this.#endpoint.flush(this.#job.peer);
    this.#job.onHalfway();
    while (this.#returns === returns) await this.#news();
  }

  #news(): Promise<void> {
    return new Promise((resolve) => {
      this.#wake = resolve;
    });
  }

  #again({ file, attempt }: { file: number; attempt: number }): void {
    const progress = this.#progress[file];
    if (progress === undefined || progress.acknowledged || progress.attempt !== attempt) return;
    this.#sendAgain(file);
    this.#wake?.();
  }

  #sendAgain(file: number): void {
    const progress = this.#progress[file]!;
    this.#count(progress, -progress.sent);
    this.#queue.add(file);
    this.#job.onProgress();
  }

  #count(progress: Progress, bytes: number): void {
    progress.sent += bytes;
    this.#sentBytes += bytes;
  }
}

async function readExactly(
  handle: FileHandle,
  offset: number,
  length: number,
  path: string,
): Promise<Uint8Array> {
  const data = new Uint8Array(length);
  for (let read = 0; read < length;) {
    const { bytesRead } = await handle.read(data, read, length - read, offset + read);
    if (bytesRead === 0) throw new Error(`${shown(path)} became shorter while it was replicated`);
    read += bytesRead;
  }
  return data;
}

function hex(bytes: Uint8Array): string {
  return [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}
