import assert from "node:assert/strict";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { isAbsolute, join } from "node:path";
import { describe, it } from "node:test";
import { loadConfigFile } from "../../src/config_file.ts";
import { ConfigError } from "../../src/errors.ts";

async function refusal(path: string): Promise<ConfigError> {
  try {
    await loadConfigFile(path);
  } catch (error) {
    assert.ok(error instanceof ConfigError, String(error));
    return error;
  }
  return assert.fail("accepted");
}

/**
 * Runs with a folder that holds the given files. Deno that may not touch files runs without: what
 * is left to see there is the error about the permission.
 */
async function withFiles(
  files: Readonly<Record<string, string | Uint8Array>>,
  run: (folder: string) => Promise<void>,
): Promise<void> {
  let folder: string;
  try {
    folder = await mkdtemp(join(tmpdir(), "hawser-config-"));
  } catch (error) {
    assert.equal((error as Error).name, "NotCapable");
    const { message } = await refusal("hawser.toml");
    assert.match(message, /"hawser\.toml": no permission to read it \(Deno needs --allow-read\)$/);
    return;
  }
  try {
    for (const [name, content] of Object.entries(files)) {
      await writeFile(join(folder, name), content);
    }
    await run(folder);
  } finally {
    await rm(folder, { recursive: true });
  }
}

describe("loadConfigFile", () => {
  it("takes relative paths of private keys from the file's own folder, too", async () => {
    const absolute = join("/", "etc", "node1.key");
    const text = [
      'node_id = "node1"',
      "[identity]",
      'private_key_path = "../keys/node1.key"',
      "[signing]",
      `private_key_path = ${JSON.stringify(absolute)}`,
      "trusted_keys = {}",
    ].join("\n");
    await withFiles({ "hawser.toml": text }, async (folder) => {
      const { identity, signing } = await loadConfigFile(join(folder, "hawser.toml"));
      assert.equal(identity?.privateKeyPath, join(folder, "..", "keys", "node1.key"));
      assert.equal(signing?.privateKeyPath, absolute);
    });
  });

  it("takes relative paths of certificates from the file's own folder", async () => {
    const absolute = join("/", "etc", "ca.crt");
    assert.ok(isAbsolute(absolute));
    const text = [
      'node_id = "node1"',
      "[tls]",
      'cert_path = "node1.crt"',
      'key_path = "../keys/node1.key"',
      `ca_cert_path = ${JSON.stringify(absolute)}`,
    ].join("\n");
    await withFiles({ "hawser.toml": text }, async (folder) => {
      assert.deepEqual(await loadConfigFile(join(folder, "hawser.toml")), {
        nodeId: "node1",
        tls: {
          certPath: join(folder, "node1.crt"),
          keyPath: join(folder, "..", "keys", "node1.key"),
          caCertPath: absolute,
        },
      });
    });
  });

  it("leaves certificates that are given as text alone", async () => {
    const pem = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    const text = `node_id = "node1"\n[tls]\nca = """\n${pem}"""\n`;
    await withFiles({ "hawser.toml": text }, async (folder) => {
      const { tls } = await loadConfigFile(join(folder, "hawser.toml"));
      assert.deepEqual(tls, { ca: pem });
    });
  });

  it("names the file that isn't there", async () => {
    await withFiles({}, async (folder) => {
      const path = join(folder, "missing.toml");
      const error = await refusal(path);
      assert.equal(error.path, "");
      const quoted = JSON.stringify(path);
      assert.equal(
        error.message,
        `Cannot read the configuration file ${quoted}: there is no such file`,
      );
      assert.ok(error.cause instanceof Error);
      assert.match((await refusal(folder)).message, /: it is a folder$/);
    });
  });

  it("refuses a file that isn't UTF-8, rather than to read other characters", async () => {
    const bytes = Uint8Array.from([0x23, 0xff, 0x0a]);
    await withFiles({ "hawser.toml": bytes }, async (folder) => {
      const { message } = await refusal(join(folder, "hawser.toml"));
      assert.match(message, /hawser\.toml": it is not UTF-8 text$/);
    });
  });

  it("names the file and the line of a wrong option", async () => {
    await withFiles({ "hawser.toml": 'node_id = "a"\npool_size = 0\n' }, async (folder) => {
      const error = await refusal(join(folder, "hawser.toml"));
      assert.equal(error.path, "pool_size");
      assert.match(error.message, /got 0 \(line 2 of ".*hawser\.toml"\)$/);
    });
  });
});
