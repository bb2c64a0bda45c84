/**
 * A CA of the demo's own, and a certificate for each node: what `hawser certs` does.
 *
 * @module
 */

import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { TlsOptions } from "../../mod.ts";
import { Authority } from "../../src/certs/authority.ts";
import { parseNodeNames } from "../../src/certs/node_names.ts";

const DAYS = 1;

/** Writes the files into `folder`; returns the `tls` options of each node, which name them. */
export async function makeCertificates(
  folder: string,
  nodeIds: readonly string[],
): Promise<Map<string, TlsOptions>> {
  const lifetime = { nowMs: Date.now(), days: DAYS };
  const { authority } = await Authority.create(lifetime);
  await mkdir(folder, { recursive: true, mode: 0o700 });
  const caCertPath = join(folder, "ca.pem");
  await writeFile(caCertPath, authority.cert);
  const options = new Map<string, TlsOptions>();
  for (const nodeId of nodeIds) {
    const { cert, key } = await authority.issue(parseNodeNames(nodeId), lifetime);
    const certPath = join(folder, `${nodeId}.pem`);
    const keyPath = join(folder, `${nodeId}.key`);
    await writeFile(certPath, cert);
    await writeFile(keyPath, key, { mode: 0o600 });
    options.set(nodeId, {
      certPath,
      keyPath,
      caCertPath,
      requireClientAuth: true,
      nodeIdVerification: "CommonName",
    });
  }
  return options;
}
