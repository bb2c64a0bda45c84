/**
 * The file of a listening Unix socket: how it comes into being with the right permissions, how one
 * that a dead process left is replaced, and how it goes.
 *
 * A socket is bound inside a new directory that only we may enter, gets its permissions there, and
 * is then linked to its real name. So it never has other permissions under that name (the umask
 * would be one for the whole process, and worker threads may not set it), it accepts from the moment
 * that it has the name, and the link fails where the name is taken: no two processes can have it.
 *
 * Of two processes that find the file of a dead one, both could remove it, the second one removing
 * the first one's new socket. That is what the lock is for: a further link to the new socket itself,
 * under the name with ".lock" behind it. A lock that a dead process left is known by its refusing
 * connections, as the socket's file is. No runtime gives us `flock`, nor the credentials of a peer
 * (`SO_PEERCRED`).
 *
 * @module
 */

import { Buffer } from "node:buffer";
import { randomBytes } from "node:crypto";
import * as fs from "node:fs";
import * as net from "node:net";
import { dirname, join } from "node:path";

/** What `sockaddr_un` takes on every system (104 bytes on some), its final zero aside. */
const MAX_PATH_BYTES = 103;
/** How long a connection may take that finds out whether somebody listens. */
const PROBE_MS = 1000;
const WRITABLE_BY_ALL = 0o002;
const STICKY = 0o1000;

/** The file of one listening socket. */
export class SocketFile {
  /** Where the socket is to be bound before {@linkcode SocketFile.publish}. */
  readonly bindPath: string;
  readonly #path: string;
  readonly #privateDir: string;
  readonly #uid: number;
  #own: fs.Stats | undefined;

  /** Makes the private directory beside `path`. */
  constructor(path: string) {
    const parent = dirname(path);
    checkDirectory(parent);
    // When a socket is closed, the runtime removes whatever then has the name it was bound to. The
    // name can't be guessed, so that nobody can make it lead to a file of value.
    const name = randomBytes(4).toString("hex");
    if (Buffer.byteLength(join(parent, ".h123456", name)) > MAX_PATH_BYTES) {
      throw new Error("the path of its directory is too long for a socket");
    }
    this.#path = path;
    this.#privateDir = fs.mkdtempSync(join(parent, ".h"));
    this.#uid = fs.lstatSync(this.#privateDir).uid;
    this.bindPath = join(this.#privateDir, name);
  }

  /**
   * Gives the socket that listens at `bindPath` its permissions and its name. The file of a dead
   * process is replaced; anything else that has the name is an error.
   */
  async publish(mode: number): Promise<void> {
    fs.chmodSync(this.bindPath, mode);
    const own = fs.lstatSync(this.bindPath);
    if (!this.#tryLink(this.#path)) await this.#takeOver();
    this.#own = own;
  }

  /** Removes the private directory; the socket goes on under its name. */
  removePrivate(): void {
    fs.rmSync(this.bindPath, { force: true });
    fs.rmdirSync(this.#privateDir);
  }

  /** Removes the file, if it is still ours. An open socket keeps its inode from being used again. */
  remove(): void {
    try {
      if (this.#own && sameFile(this.#own, fs.lstatSync(this.#path))) fs.unlinkSync(this.#path);
    } catch {
      // It is gone, or the next to listen here finds that nobody answers.
    }
  }

  async #takeOver(): Promise<void> {
    const lock = `${this.#path}.lock`;
    if (!this.#tryLink(lock)) {
      await this.#removeDead(lock);
      if (!this.#tryLink(lock)) throw inUse();
    }
    try {
      await this.#removeDead(this.#path);
      if (!this.#tryLink(this.#path)) throw inUse();
    } finally {
      fs.unlinkSync(lock);
    }
  }

  /** One more name for our socket; false: it is taken. */
  #tryLink(path: string): boolean {
    try {
      fs.linkSync(this.bindPath, path);
      return true;
    } catch (error) {
      if (codeOf(error) === "EEXIST") return false;
      throw error;
    }
  }

  /** Removes a socket of ours that nobody listens on. Anything else is left there, and an error. */
  async #removeDead(path: string): Promise<void> {
    const [held, taken] = [join(this.#privateDir, "held"), join(this.#privateDir, "taken")];
    try {
      this.#checkOurs(fs.lstatSync(path));
      // What is looked at is what is connected to, whatever becomes of the name.
      fs.linkSync(path, held);
      const found = fs.lstatSync(held);
      this.#checkOurs(found);
      if (await answers(held)) throw inUse();
      fs.renameSync(path, taken);
      if (sameFile(found, fs.lstatSync(taken))) return;
      // Somebody was faster, against the lock: that socket gets its name back.
      fs.linkSync(taken, path);
      throw inUse();
    } catch (error) {
      if (codeOf(error) !== "ENOENT") throw error;
    } finally {
      fs.rmSync(held, { force: true });
      fs.rmSync(taken, { force: true });
    }
  }

  #checkOurs(found: fs.Stats): void {
    if (found.isSymbolicLink()) throw new Error("there is a symbolic link of that name");
    if (!found.isSocket()) throw new Error("there is a file of that name, which is no socket");
    if (found.uid !== this.#uid) throw new Error("the socket of that name is another user's");
  }
}

/** Whoever may write to a directory may put another socket in the place of ours. */
function checkDirectory(path: string): void {
  const { mode } = fs.statSync(path);
  if ((mode & WRITABLE_BY_ALL) === 0 || (mode & STICKY) !== 0) return;
  throw new Error("everybody may write to its directory, which is not sticky");
}

/** Whether somebody listens on a socket; no answer counts as one, as of a process that is busy. */
function answers(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = net.connect({ path });
    const done = (answer: boolean) => {
      clearTimeout(timer);
      socket.destroy();
      resolve(answer);
    };
    const timer = setTimeout(() => done(true), PROBE_MS);
    socket.once("connect", () => done(true));
    socket.on("error", (error) => done(codeOf(error) !== "ECONNREFUSED"));
  });
}

function sameFile(a: fs.Stats, b: fs.Stats): boolean {
  return a.ino === b.ino && a.dev === b.dev;
}

function inUse(): Error {
  return Object.assign(new Error("the address is in use"), { code: "EADDRINUSE" });
}

function codeOf(error: unknown): unknown {
  return error instanceof Error && "code" in error ? error.code : undefined;
}
