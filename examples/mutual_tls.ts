/**
 * Mutual TLS in strict mode, configured by two TOML files: each node proves its name with a
 * certificate, and finds out the other's.
 *
 * @module
 */

import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Endpoint, loadConfigFile } from "../mod.ts";
// What `hawser certs --out FOLDER node1 node2` does:
import { systemFiles } from "../src/certs/files.ts";
import { parseNodeNames } from "../src/certs/node_names.ts";
import { makeCertificates } from "../src/certs/store.ts";

/** `security` is not named: strict is the default. Paths count from the file's own folder. */
const toml = (nodeId: string, more = "") => `
node_id = "${nodeId}"
${more}
[tls]
cert_path = "${nodeId}.crt"
key_path = "${nodeId}.key"
ca_cert_path = "ca.crt"
require_client_auth = true
node_id_verification = "CommonName"
`;

async function makeFiles(folder: string): Promise<void> {
  const nodes = ["node1", "node2"].map(parseNodeNames);
  await makeCertificates(systemFiles, { folder, nodes, days: 1, force: false, nowMs: Date.now() });
  await writeFile(join(folder, "node1.toml"), toml("node1", `listen = "tcp://127.0.0.1:0"`));
  await writeFile(join(folder, "node2.toml"), toml("node2"));
}

function printPeer(endpoint: Endpoint, nodeId: string): void {
  const { identity, connections, version } = endpoint.peer(nodeId)!;
  console.log(
    `${endpoint.nodeId} talks to ${identity?.nodeId}, verified by ${identity?.verifiedBy}; ` +
      `encrypted: ${connections.every((connection) => connection.encrypted)}, ` +
      `protocol version ${version}`,
  );
}

const folder = await mkdtemp(join(tmpdir(), "hawser-example-"));
try {
  await makeFiles(folder);
  await using node1 = new Endpoint(await loadConfigFile(join(folder, "node1.toml")));
  await using node2 = new Endpoint(await loadConfigFile(join(folder, "node2.toml")));
  await node1.start();
  await node2.start();
  // The address may be anything that leads there: it is the name in the certificate that counts.
  await node2.connect({ nodeId: "node1", address: node1.addresses[0]! });
  await node2.send("node1", new TextEncoder().encode("ahoy"));
  const { from, payload } = await node1.receive();
  console.log(`node1 heard "${new TextDecoder().decode(payload)}" from ${from}`);
  printPeer(node1, "node2");
  printPeer(node2, "node1");

  const wrongName = node2.connect({ nodeId: "node3", address: node1.addresses[0]! });
  await wrongName.catch((error) => console.log(`as node3: ${error.code}: ${error.message}`));
} finally {
  await rm(folder, { recursive: true, force: true });
}
