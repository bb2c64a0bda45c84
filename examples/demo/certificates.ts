/**
 * A CA of the demo's own and a certificate for each node, made as `hawser certs` makes them.
 *
 * @module
 */

import { join } from "node:path";
import type { TlsOptions } from "../../mod.ts";
import { systemFiles } from "../../src/certs/files.ts";
import { parseNodeNames } from "../../src/certs/node_names.ts";
import { makeCertificates } from "../../src/certs/store.ts";

/** Writes the files into `folder`; returns the `tls` options of each node, which name them. */
export async function nodeCertificates(
  folder: string,
  nodeIds: readonly string[],
): Promise<Map<string, TlsOptions>> {
  const { caPath } = await makeCertificates(systemFiles, {
    folder,
    nodes: nodeIds.map(parseNodeNames),
    days: 1,
    force: false,
    nowMs: Date.now(),
  });
  return new Map(nodeIds.map((nodeId) => [nodeId, {
    certPath: join(folder, `${nodeId}.crt`),
    keyPath: join(folder, `${nodeId}.key`),
    caCertPath: caPath,
    requireClientAuth: true,
    nodeIdVerification: "CommonName",
  }]));
}
