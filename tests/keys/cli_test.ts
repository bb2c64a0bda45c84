import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { main } from "../../cli.ts";
import { loadConfig } from "../../mod.ts";
import { parsePublicKey, readSigningKey, verifySignature } from "../../src/runtime/ed25519.ts";
import { MemoryIo } from "../certs/memory_files.ts";

async function run(io: MemoryIo, ...args: string[]): Promise<number> {
  io.out = "";
  io.err = "";
  return await main(args, io);
}

/** A run that fails: one line on the error output, nothing made. */
async function fails(io: MemoryIo, code: number, why: RegExp, ...args: string[]): Promise<void> {
  const before = new Map(io.files.files);
  assert.equal(await run(io, ...args), code, io.err);
  assert.match(io.err, /^hawser: [^\n]+\n$/);
  assert.match(io.err, why);
  assert.equal(io.out, "");
  assert.deepEqual(io.files.files, before);
}

describe("hawser keys", () => {
  it("makes a key for each node that only its owner reads, and the line that names it", async () => {
    const io = new MemoryIo();
    assert.equal(await run(io, "keys", "node1", "node2"), 0);
    assert.equal(io.err, "");
    const modes = [...io.files.files].map(([path, { mode, replace }]) => [path, mode, replace]);
    assert.deepEqual(modes, [
      ["keys/node1.ed25519.key", 0o600, false],
      ["keys/node1.ed25519.pub", 0o644, false],
      ["keys/node2.ed25519.key", 0o600, false],
      ["keys/node2.ed25519.pub", 0o644, false],
    ]);
    assert.deepEqual(io.files.folders, ["keys"]);
  });

  it("makes keys that sign what their public lines verify, each its own", async () => {
    const io = new MemoryIo();
    await run(io, "keys", "node1", "node2");
    const message = new Uint8Array(32);
    const signatures = ["node1", "node2"].map((node) => {
      const pem = io.files.text(`keys/${node}.ed25519.key`);
      assert.match(pem, /^-----BEGIN PRIVATE KEY-----\n[A-Za-z0-9+/=]{64}\n-----END PRIVATE KEY/);
      return readSigningKey(pem).sign(message);
    });
    const publicKeys = ["node1", "node2"].map((node) => {
      const line = io.files.text(`keys/${node}.ed25519.pub`);
      const match = /^(\w+) = "([A-Za-z0-9+/]{43}=)"\n$/.exec(line);
      assert.equal(match?.[1], node);
      return parsePublicKey(match[2]!)!;
    });
    const verified = publicKeys.map((key) =>
      signatures.map((signature) => verifySignature(key, message, signature))
    );
    assert.deepEqual(verified, [[true, false], [false, true]]);
  });

  it("prints every file it made and a configuration that loads, and no secret", async () => {
    const io = new MemoryIo();
    await run(io, "keys", "--out", 'x"y', "node1", "db:2@eu");
    for (const path of io.files.files.keys()) assert.ok(io.out.includes(path), path);
    assert.match(io.out, /For db:2@eu:/);
    assert.doesNotMatch(io.out, /BEGIN/);
    const toml = /^node_id[^]*?(?=\nFor )/m.exec(io.out)?.[0] ?? "";
    const keyOf = (node: string) =>
      /"([^"]*)"\n$/.exec(io.files.text(`x"y/${node}.ed25519.pub`))![1]!;
    const { nodeId, identity } = loadConfig(toml);
    assert.equal(nodeId, "node1");
    assert.equal(identity?.privateKeyPath, 'x"y/node1.ed25519.key');
    const trusted = Object.entries(identity?.trustedKeys ?? {});
    assert.deepEqual(
      new Map(trusted.map(([node, keys]) => [node, [keys].flat()])),
      new Map([
        ["node1", [keyOf("node1")]],
        ["db:2@eu", [keyOf("db:2@eu")]],
      ]),
    );
  });

  it("replaces nothing, and makes nothing where one file is in the way", async () => {
    for (const path of ["keys/node1.ed25519.key", "keys/node1.ed25519.pub"]) {
      const io = new MemoryIo();
      await io.files.writeFile(path, "old", { mode: 0o600, replace: false });
      await fails(
        io,
        1,
        /Cannot write keys\/node1\.ed25519\.\w+: it exists/,
        "keys",
        "node2",
        "node1",
      );
      assert.deepEqual(io.files.folders, []);
    }
  });

  it("adds nodes to a folder that is there", async () => {
    const io = new MemoryIo();
    await run(io, "keys", "node1");
    const before = io.files.text("keys/node1.ed25519.key");
    assert.equal(await run(io, "keys", "node2"), 0);
    assert.equal(io.files.text("keys/node1.ed25519.key"), before);
    assert.equal(io.files.files.size, 4);
  });

  it("says in one line which file could not be written", async () => {
    const io = new MemoryIo();
    io.files.broken.set("keys/node1.ed25519.key", "permission denied");
    await fails(
      io,
      1,
      /Cannot write keys\/node1\.ed25519\.key: permission denied/,
      "keys",
      "node1",
    );
  });

  it("refuses wrong arguments with exit code 2", async () => {
    const io = new MemoryIo();
    await fails(io, 2, /needs the id of a node/, "keys");
    for (const id of ["../node1", "a/b", "a\\b"]) await fails(io, 2, /path separator/, "keys", id);
    await fails(io, 2, /begin with a dot/, "keys", ".node1");
    for (const id of ["", "a b", "é", "a\n", "n".repeat(256)]) {
      await fails(io, 2, /1 to 255 bytes of printable ASCII/, "keys", "node1", id);
    }
    await fails(io, 2, /"\\u001b\[2J"/, "keys", "\x1b[2J");
    await fails(io, 2, /it is there twice/, "keys", "node1", "node2", "Node1");
    await fails(io, 2, /no flag but --out/, "keys", "--force", "node1");
    await fails(io, 2, /no flag but --out/, "keys", "--days", "1", "node1");
    await fails(io, 2, /Unknown option '--dir'/, "keys", "--dir", "x", "node1");
    await fails(io, 2, /Unknown option '--dir'/, "certs", "--dir", "x", "node1");
    await fails(io, 2, /takes no flags/, "certs", "inspect", "--out", "x", "a");
  });

  it("stands in the help", async () => {
    const io = new MemoryIo();
    await run(io, "help");
    assert.match(io.out, /hawser keys \[--out DIR\] NODE…/);
  });
});
