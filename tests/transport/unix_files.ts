/** What becomes of the files of Unix sockets. Needs a disk, so that `deno test --allow-net` leaves it out. */

import { it } from "node:test";
import assert from "node:assert/strict";
import * as fs from "node:fs";
import * as net from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { TransportError } from "../../src/errors.ts";
import { unixTransport } from "../../src/transport/unix.ts";
import { ContractListener, dialOptions } from "./link_contract.ts";
import { LinkRecorder } from "./link_recorder.ts";

const transport = unixTransport();

/** A directory of its own for a test. */
async function inDirectory(test: (dir: string, path: string) => Promise<void>): Promise<void> {
  const dir = fs.mkdtempSync(join(tmpdir(), "hawser-"));
  try {
    await test(dir, join(dir, "a.sock"));
  } finally {
    fs.rmSync(dir, { recursive: true });
  }
}

function listen(path: string, unixMode?: number): Promise<ContractListener> {
  return new ContractListener().start(transport, `unix:${path}`, { unixMode });
}

/** A socket that was listened on by a process that no longer is. */
async function leaveStale(path: string): Promise<fs.Stats> {
  const server = net.createServer();
  await new Promise<void>((resolve) => server.listen({ path }, () => resolve()));
  // The server removes what has its name when it closes.
  fs.renameSync(path, `${path}.aside`);
  await new Promise((resolve) => server.close(resolve));
  fs.renameSync(`${path}.aside`, path);
  return fs.lstatSync(path);
}

/** Others may have connected before, to find out whether anybody listens. */
async function assertAnswers(server: ContractListener): Promise<void> {
  const dialed = new LinkRecorder(await transport.dial(server.address, dialOptions(undefined)));
  dialed.link.write(Uint8Array.of(1));
  let received = 0;
  while (received === 0) {
    const accepted = new LinkRecorder(await server.accepted());
    await accepted.until(() => ["data", "end", "close"].some((event) => accepted.told(event)));
    received = accepted.receivedBytes;
    accepted.link.close();
    await accepted.closed();
  }
  dialed.link.close();
  await dialed.closed();
}

async function assertRefused(path: string, why: RegExp): Promise<void> {
  await assert.rejects(listen(path), (error: unknown) => {
    assert.ok(error instanceof TransportError && error.cause instanceof Error);
    assert.equal(error.code, "ConnectionFailed");
    assert.ok(error.message.startsWith(`Cannot listen on unix:${path}: `), error.message);
    assert.match(error.message, why);
    return true;
  });
}

const modeOf = (path: string) => fs.lstatSync(path).mode & 0o7777;
const idOf = ({ dev, ino }: fs.Stats) => `${dev}:${ino}`;

/** Defines the tests inside a `describe`. */
export function unixFileTests(): void {
  for (const [asked, expected] of [[undefined, 0o600], [0o660, 0o660], [0o666, 0o666]] as const) {
    it(`has the permissions ${expected.toString(8)} from its first moment on`, () =>
      inDirectory(async (dir, path) => {
        const before = process.umask(0);
        const seen = new Set<number>();
        let done = false;
        const look = async () => {
          while (!done) {
            for (let turn = 0; turn < 20; turn++) {
              // Only where the way there is open to others.
              if (fs.existsSync(path)) seen.add(modeOf(path));
              for (const name of fs.readdirSync(dir)) {
                if (name !== "a.sock") assert.equal(modeOf(join(dir, name)), 0o700, name);
              }
              await Promise.resolve();
            }
            await new Promise((resolve) => setTimeout(resolve, 0));
          }
        };
        try {
          const looking = look();
          const server = await listen(path, asked);
          assert.equal(modeOf(path), expected);
          done = true;
          await looking;
          seen.add(modeOf(path));
          assert.deepEqual([...seen], [expected]);
          assert.deepEqual(fs.readdirSync(dir), ["a.sock"]);
          await assertAnswers(server);
          await server.listener.close();
          assert.deepEqual(fs.readdirSync(dir), []);
        } finally {
          done = true;
          process.umask(before);
        }
      }));
  }

  it("gets no name before it has its permissions", () =>
    inDirectory(async (dir, path) => {
      // What is no mode makes exactly that step fail.
      await assert.rejects(listen(path, -1), { code: "ConnectionFailed" });
      assert.deepEqual(fs.readdirSync(dir), []);
    }));

  it("replaces the socket that a dead process left", () =>
    inDirectory(async (dir, path) => {
      const stale = await leaveStale(path);
      const server = await listen(path);
      assert.notEqual(idOf(fs.lstatSync(path)), idOf(stale));
      assert.deepEqual(fs.readdirSync(dir), ["a.sock"]);
      await assertAnswers(server);
      await server.listener.close();
    }));

  it("leaves a socket alone that somebody listens on", () =>
    inDirectory(async (dir, path) => {
      const server = await listen(path);
      const before = idOf(fs.lstatSync(path));
      await assertRefused(path, /in use \(EADDRINUSE\)$/);
      assert.equal(idOf(fs.lstatSync(path)), before);
      assert.deepEqual(fs.readdirSync(dir), ["a.sock"]);
      await assertAnswers(server);
      await server.listener.close();
    }));

  it("never removes what is no socket", () =>
    inDirectory(async (dir, path) => {
      fs.writeFileSync(path, "precious");
      await assertRefused(path, /which is no socket$/);
      assert.equal(fs.readFileSync(path, "utf8"), "precious");

      const folder = join(dir, "folder");
      fs.mkdirSync(folder);
      await assertRefused(folder, /which is no socket$/);
      assert.deepEqual(fs.readdirSync(dir).toSorted(), ["a.sock", "folder"]);
    }));

  it("follows no symbolic link", () =>
    inDirectory(async (dir, path) => {
      const target = join(dir, "stale.sock");
      await leaveStale(target);
      fs.symlinkSync(target, path);
      await assertRefused(path, /symbolic link/);
      fs.rmSync(target);
      await assertRefused(path, /symbolic link/);
      assert.ok(fs.lstatSync(path).isSymbolicLink());
      assert.deepEqual(fs.readdirSync(dir), ["a.sock"]);
    }));

  it("leaves a socket of another user alone, though nobody listens on it", {
    skip: process.getuid?.() !== 0,
  }, () =>
    inDirectory(async (_, path) => {
      const { ino } = await leaveStale(path);
      fs.chownSync(path, 12345, 12345);
      await assertRefused(path, /another user's$/);
      assert.equal(fs.lstatSync(path).ino, ino);
    }));

  it("lets one of many win that start at once over a stale socket", () =>
    inDirectory(async (dir, path) => {
      for (let round = 0; round < 10; round++) {
        await leaveStale(path);
        const started = await Promise.allSettled(Array.from({ length: 5 }, () => listen(path)));
        const [winner, ...others] = started.filter(({ status }) => status === "fulfilled");
        assert.deepEqual(others, []);
        const server = (winner as PromiseFulfilledResult<ContractListener>).value;
        assert.deepEqual(fs.readdirSync(dir), ["a.sock"]);
        await assertAnswers(server);
        await server.listener.close();
      }
    }));

  it("takes over the lock of a dead process, and respects that of a living one", () =>
    inDirectory(async (dir, path) => {
      await leaveStale(path);
      await leaveStale(`${path}.lock`);
      const server = await listen(path);
      await assertAnswers(server);
      await server.listener.close();
      assert.deepEqual(fs.readdirSync(dir), []);

      const { ino } = await leaveStale(path);
      const holder = await listen(`${path}.lock`);
      await assertRefused(path, /in use/);
      assert.equal(fs.lstatSync(path).ino, ino);
      await holder.listener.close();
    }));

  it("removes only its own file when it closes", () =>
    inDirectory(async (dir, path) => {
      const first = await listen(path);
      fs.unlinkSync(path);
      const second = await listen(path);
      await first.listener.close();
      await assertAnswers(second);
      fs.unlinkSync(path);
      fs.writeFileSync(path, "precious");
      await second.listener.close();
      assert.equal(fs.readFileSync(path, "utf8"), "precious");

      fs.unlinkSync(path);
      const third = await listen(path);
      fs.unlinkSync(path);
      await third.listener.close();
      assert.deepEqual(fs.readdirSync(dir), []);
    }));

  it("refuses a directory in which everybody could replace the socket", () =>
    inDirectory(async (dir, path) => {
      fs.chmodSync(dir, 0o777);
      await assertRefused(path, /not sticky$/);
      fs.chmodSync(dir, 0o1777);
      const server = await listen(path);
      await server.listener.close();
    }));

  it("says what is wrong with a path that can't be listened on or dialed", () =>
    inDirectory(async (dir, path) => {
      await assertRefused(join(dir, "missing", "a.sock"), /ENOENT/);
      await assertRefused(join(dir, "x".repeat(80 - dir.length), "a.sock"), /ENOENT/);
      const deep = join(dir, "y".repeat(90 - dir.length));
      fs.mkdirSync(deep);
      await assertRefused(join(deep, "a.sock"), /too long/);
      await assert.rejects(transport.dial(`unix:${path}`, dialOptions(undefined)), {
        code: "ConnectionFailed",
        message: new RegExp(`^Cannot connect to unix:${path}: .*ENOENT`),
      });
      await leaveStale(path);
      await assert.rejects(transport.dial(`unix:${path}`, dialOptions(undefined)), {
        code: "ConnectionFailed",
        message: /ECONNREFUSED/,
      });
    }));
}
