import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { main } from "../../cli.ts";
import manifest from "../../deno.json" with { type: "json" };
import { loadConfig } from "../../mod.ts";
import { certificateIdentity, readCertificate } from "../../src/protocol/certificate.ts";
import { pemToDer, TestCa } from "../support/certs.ts";
import { MemoryIo } from "./memory_files.ts";

const DAY_MS = 86_400_000;

async function run(io: MemoryIo, ...args: string[]): Promise<number> {
  io.out = "";
  io.err = "";
  const code = await main(args, io);
  assert.equal(io.err === "", code === 0 || io.out !== "", io.err);
  return code;
}

/** A run that fails: one line on the error output, nothing made. */
async function fails(io: MemoryIo, code: number, why: RegExp, ...args: string[]): Promise<void> {
  const before = io.files.files.size;
  assert.equal(await run(io, ...args), code, io.err);
  assert.match(io.err, /^hawser: [^\n]+\n$/);
  assert.match(io.err, why);
  assert.equal(io.out, "");
  assert.equal(io.files.files.size, before);
}

describe("hawser certs", () => {
  it("makes an authority and nodes, with keys that only their owner reads", async () => {
    const io = new MemoryIo();
    assert.equal(await run(io, "certs", "node1", "node2=db2.example.com,10.0.0.5"), 0);
    const modes = [...io.files.files].map(([path, { mode, replace }]) => [path, mode, replace]);
    assert.deepEqual(modes, [
      ["certs/ca.key", 0o600, false],
      ["certs/ca.crt", 0o644, false],
      ["certs/node1.key", 0o600, false],
      ["certs/node1.crt", 0o644, false],
      ["certs/node2.key", 0o600, false],
      ["certs/node2.crt", 0o644, false],
    ]);
    assert.deepEqual(io.files.folders, ["certs"]);
    for (const [path, { text }] of io.files.files) {
      const label = path.endsWith(".key") ? "PRIVATE KEY" : "CERTIFICATE";
      assert.ok(text.startsWith(`-----BEGIN ${label}-----\n`), path);
    }
    const facts = readCertificate(pemToDer(io.files.text("certs/node2.crt")));
    assert.equal(certificateIdentity(facts, "CommonName", "node2"), "node2");
    assert.deepEqual(facts.dnsNames, ["node2", "db2.example.com"]);
    assert.equal(facts.notAfter, io.nowMs + 365 * DAY_MS);
  });

  it("prints every file it made and a configuration that loads", async () => {
    const io = new MemoryIo();
    await run(io, "certs", "--out", 'x"y', "node1", "node2");
    for (const path of io.files.files.keys()) assert.ok(io.out.includes(path));
    const toml = /^node_id[^]*?CommonName"$/m.exec(io.out)?.[0] ?? "";
    assert.deepEqual(loadConfig(toml), {
      nodeId: "node1",
      tls: {
        certPath: 'x"y/node1.crt',
        keyPath: 'x"y/node1.key',
        caCertPath: 'x"y/ca.crt',
        requireClientAuth: true,
        nodeIdVerification: "CommonName",
      },
    });
    assert.match(io.out, /For node2:/);
    assert.doesNotMatch(io.out, /BEGIN/);
  });

  it("uses the authority that is there to add nodes", async () => {
    const io = new MemoryIo();
    await run(io, "certs", "node1");
    const [cert, key] = [io.files.text("certs/ca.crt"), io.files.text("certs/ca.key")];
    assert.equal(await run(io, "certs", "node2", "--days", "9999"), 0);
    assert.equal(io.files.text("certs/ca.crt"), cert);
    assert.equal(io.files.text("certs/ca.key"), key);
    assert.match(io.out, /which was there[^]*days were cut/);
    const facts = readCertificate(pemToDer(io.files.text("certs/node2.crt")));
    assert.equal(facts.notAfter, readCertificate(pemToDer(cert)).notAfter);
  });

  it("lets the authority outlive the nodes it is made for", async () => {
    const io = new MemoryIo();
    await run(io, "certs", "node1", "--days", "9999");
    const facts = readCertificate(pemToDer(io.files.text("certs/ca.crt")));
    assert.equal(facts.notAfter, io.nowMs + 9999 * DAY_MS);
  });

  it("replaces no key without --force, and never the authority's", async () => {
    const io = new MemoryIo();
    await run(io, "certs", "node1");
    const before = new Map(io.files.files);
    await fails(io, 1, /certs\/node1\.key: it exists already; --force/, "certs", "node2", "node1");
    assert.deepEqual(io.files.files, before);
    assert.equal(await run(io, "certs", "--force", "node1"), 0);
    assert.notEqual(io.files.text("certs/node1.key"), before.get("certs/node1.key")!.text);
    assert.equal(io.files.files.get("certs/node1.key")!.mode, 0o600);
    assert.deepEqual(io.files.files.get("certs/ca.key"), before.get("certs/ca.key"));
    assert.deepEqual(io.files.files.get("certs/ca.crt"), before.get("certs/ca.crt"));
  });

  it("makes no new authority where half of one is there", async () => {
    for (const missing of ["certs/ca.key", "certs/ca.crt"]) {
      const io = new MemoryIo();
      await run(io, "certs", "node1");
      io.files.files.delete(missing);
      await fails(io, 1, /Cannot use the authority: there is/, "certs", "--force", "node2");
    }
  });

  it("does not give a node the name of one that is there", async () => {
    const io = new MemoryIo();
    await run(io, "certs", "node1");
    await fails(io, 1, /of a node with that id/, "certs", "node2=node1");
  });

  it("says in one line which file could not be written", async () => {
    const io = new MemoryIo();
    io.files.broken.set("certs/ca.key", "permission denied");
    await fails(io, 1, /Cannot write certs\/ca\.key: permission denied/, "certs", "node1");
  });

  it("refuses wrong arguments with exit code 2", async () => {
    const io = new MemoryIo();
    await fails(io, 2, /there is no command/);
    await fails(io, 2, /unknown command "\\u001b\[2J"/, "\x1b[2J");
    await fails(io, 2, /--bogus/, "certs", "--bogus", "node1");
    await fails(io, 2, /needs the id of a node/, "certs");
    await fails(io, 2, /path separator/, "certs", "../node1");
    for (const days of ["0", "-1", "1.5", "1e3", "x", "", "36501", "99999999999"]) {
      await fails(io, 2, /--days/, "certs", `--days=${days}`, "node1");
    }
    await fails(io, 2, /needs one file/, "certs", "inspect");
    await fails(io, 2, /needs one file/, "certs", "inspect", "a", "b");
    await fails(io, 2, /takes no flags/, "certs", "inspect", "--force", "a");
  });
});

describe("hawser certs inspect", () => {
  it("says what strict mode would say to a node's certificate", async () => {
    const io = new MemoryIo();
    await run(io, "certs", "node1=db1.example.com,10.0.0.5");
    assert.equal(await run(io, "certs", "inspect", "certs/node1.crt"), 0);
    for (
      const line of [
        /common name +"node1"$/m,
        /DNS names +"node1", "db1\.example\.com"$/m,
        /IP addresses +10\.0\.0\.5$/m,
        /issuer +"CN=Hawser CA [0-9a-f]{8}"$/m,
        /serial +([0-9a-f]{2}:){15}[0-9a-f]{2}$/m,
        /SHA-256 +([0-9A-F]{2}:){31}[0-9A-F]{2}$/m,
        /valid +2025-12-31T23:55:00Z to 2027-01-01T00:00:00Z \(365 days left\)$/m,
        /usages +client, server$/m,
        /key +ECDSA P-256$/m,
        /strict, CommonName: ok as "node1"$/m,
        /strict, SubjectAltName: ok as "node1", "db1\.example\.com"$/m,
        /strict, as client: ok$/m,
        /strict, as server: ok$/m,
      ]
    ) assert.match(io.out, line);
  });

  it("says why strict mode would not accept one, with exit code 1 where nothing works", async () => {
    const io = new MemoryIo();
    await run(io, "certs", "node1");
    assert.equal(await run(io, "certs", "inspect", "certs/ca.crt"), 1);
    assert.match(io.out, /as client: no, it is an authority's, not a node's$/m);
    io.nowMs += 366 * DAY_MS;
    assert.equal(await run(io, "certs", "inspect", "certs/node1.crt"), 1);
    assert.match(io.out, /\(expired\)[^]*as server: no, it expired at 2027-01-01T00:00:00\.000Z$/m);
  });

  it("is content with one name and one role", async () => {
    const ca = await TestCa.create();
    const io = new MemoryIo();
    io.nowMs = Date.now();
    const options = { commonNames: ["a", "b"], dnsNames: ["a"], usages: ["server" as const] };
    const { cert } = await ca.issue("a", options);
    await io.files.writeFile("a.crt", cert, { mode: 0o644, replace: false });
    assert.equal(await run(io, "certs", "inspect", "a.crt"), 0);
    assert.match(io.out, /strict, CommonName: no, its certificate has 2 common names$/m);
    assert.match(io.out, /strict, SubjectAltName: ok as "a"$/m);
    assert.match(io.out, /strict, as client: no, its extended key usages do not include client/);
  });

  it("escapes what the certificate says", async () => {
    const ca = await TestCa.create("\x1b[2J\r\nstrict, CommonName: ok");
    const io = new MemoryIo();
    io.nowMs = Date.now();
    const name = '\x1b[31m\r\nstrict, CommonName: ok as "node1"';
    const { cert } = await ca.issue(name, { dnsNames: [name] });
    await io.files.writeFile("a.crt", cert, { mode: 0o644, replace: false });
    assert.equal(await run(io, "certs", "inspect", "a.crt"), 1);
    assert.doesNotMatch(io.out, /[^\n -~…]/);
    assert.doesNotMatch(io.out, /^ *strict, \w+: ok/m);
  });

  it("refuses what is no certificate in one line", async () => {
    const io = new MemoryIo();
    await run(io, "certs", "node1");
    io.files.files.set("large", { text: "x".repeat(2 << 20), mode: 0o644, replace: false });
    io.files.files.set("text", { text: "hello", mode: 0o644, replace: false });
    io.files.files.set("empty", { text: "", mode: 0o644, replace: false });
    await fails(io, 1, /no such file/, "certs", "inspect", "missing");
    await fails(io, 1, /not a file/, "certs", "inspect", "certs");
    await fails(io, 1, /too large/, "certs", "inspect", "large");
    await fails(io, 1, /Cannot read the certificate/, "certs", "inspect", "text");
    await fails(io, 1, /holds no certificate/, "certs", "inspect", "empty");
    await fails(io, 1, /holds no certificate/, "certs", "inspect", "certs/node1.key");
  });
});

describe("hawser help and version", () => {
  it("prints the commands, and the version of the manifest", async () => {
    const io = new MemoryIo();
    for (const args of [["help"], ["--help"], ["certs", "-h"]]) {
      assert.equal(await run(io, ...args), 0);
      assert.match(io.out, /hawser certs inspect FILE/);
    }
    for (const args of [["version"], ["--version"]]) {
      assert.equal(await run(io, ...args), 0);
      assert.equal(io.out, `hawser ${manifest.version}\n`);
    }
  });
});
