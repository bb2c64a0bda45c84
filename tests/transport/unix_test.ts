import { describe, it } from "node:test";
import assert from "node:assert/strict";
import { tmpdir } from "node:os";
import process from "node:process";
import { unixTransport } from "../../src/transport/unix.ts";
import { mayRun } from "../support/may_run.ts";
import { ContractListener, dialOptions } from "./link_contract.ts";
import { LinkRecorder } from "./link_recorder.ts";
import { unixContract } from "./unix_contract.ts";
import { unixFileTests } from "./unix_files.ts";

const transport = unixTransport();
const linux = process.platform === "linux";
const skipFiles = mayRun() ? false : "the files of sockets need --allow-read and --allow-write";

/** A name that no other test uses. */
let lastName = 0;
const run = crypto.randomUUID().slice(0, 8);
const newName = () => `hawser-${run}-${++lastName}`;

if (linux) unixContract("abstract Unix sockets", () => `unix:@${newName()}`);
if (!skipFiles) unixContract("Unix sockets", () => `unix:${tmpdir()}/${newName()}`);

describe("files of Unix sockets", { skip: skipFiles }, unixFileTests);

describe("Unix addresses", () => {
  it("number the dialers, and count them all under one host", { skip: !linux }, async () => {
    const server = await new ContractListener().start(transport, `unix:@${newName()}`);
    const { address } = server;
    const seen = new Set<string>();
    for (let count = 0; count < 3; count++) {
      const dialed = new LinkRecorder(await transport.dial(address, dialOptions(undefined)));
      const accepted = new LinkRecorder(await server.accepted());
      for (const { link: { info } } of [dialed, accepted]) assert.equal(info.remoteHost, "unix");
      assert.equal(dialed.link.info.remoteAddress, address);
      seen.add(dialed.link.info.localAddress).add(accepted.link.info.remoteAddress);
      dialed.link.close();
      accepted.link.close();
      await Promise.all([dialed.closed(), accepted.closed()]);
    }
    assert.equal(seen.size, 6);
    for (const url of seen) assert.match(url, new RegExp(`^${address}#\\d+$`));
    assert.deepEqual(server.hosts, ["unix", "unix", "unix"]);
    await server.listener.close();
  });

  it("refuses what can't be had: a mode without a file, one name for several", async () => {
    const start = (address: string, options: object) =>
      new ContractListener().start(transport, address, options);
    const abstract = `unix:@${newName()}`;
    await assert.rejects(start(abstract, { reusePort: true }), {
      code: "UnsupportedProtocol",
      message: `Cannot share ${abstract}: Unix sockets have one listener each`,
    });
    const code = linux ? "Config" : "UnsupportedProtocol";
    await assert.rejects(start(abstract, { unixMode: 0o600 }), { code });
    await assert.rejects(start("unix:@", {}), { code });
    await assert.rejects(transport.dial("unix:@", dialOptions(undefined)), { code });
    await assert.rejects(transport.dial("tcp", dialOptions(undefined)), { code: "Config" });
  });
});
