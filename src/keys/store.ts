/**
 * A folder of keys: `<node>.ed25519.key` and `<node>.ed25519.pub` for each node.
 *
 * @module
 */

import { join } from "node:path";
import { FileError, type Files } from "../certs/files.ts";
import { formatPublicKey, generateSigningKey } from "../runtime/ed25519.ts";

/** A node that is to have a key: its id, and how its public key is written down. */
export type KeyPlan = readonly [nodeId: string, line: (publicKey: string) => string];

/** A key that was made and written. */
export interface MadeKey {
  readonly nodeId: string;
  /** PKCS #8, PEM. */
  readonly privatePath: string;
  /** The line below. */
  readonly publicPath: string;
  /** The public key as it was to be written down. */
  readonly line: string;
}

const PUBLIC_MODE = 0o644;
const SECRET_MODE = 0o600;

/**
 * Makes a key for each node. Nothing is ever replaced: a node with a new key is a stranger to those
 * that list the old one. All places are looked at before the first byte is written.
 *
 * @throws {FileError} Where a file is in the way or can't be written.
 */
export async function makeKeys(
  files: Files,
  folder: string,
  plans: readonly KeyPlan[],
): Promise<MadeKey[]> {
  const planned = plans.map(([nodeId, line]) => {
    const { privateKeyPem, publicKey } = generateSigningKey();
    const privatePath = join(folder, `${nodeId}.ed25519.key`);
    const publicPath = join(folder, `${nodeId}.ed25519.pub`);
    const made = { nodeId, privatePath, publicPath, line: line(formatPublicKey(publicKey)) };
    return { made, privateKeyPem };
  });
  for (const { made } of planned) {
    for (const path of [made.privatePath, made.publicPath]) {
      if (await files.stat(path) === undefined) continue;
      throw new FileError(`Cannot write ${path}: it exists already; move it away for a new key`);
    }
  }
  await files.mkdir(folder);
  for (const { made, privateKeyPem } of planned) {
    const { privatePath, publicPath, line } = made;
    await files.writeFile(privatePath, privateKeyPem, { mode: SECRET_MODE, replace: false });
    await files.writeFile(publicPath, line, { mode: PUBLIC_MODE, replace: false });
  }
  return planned.map(({ made }) => made);
}
