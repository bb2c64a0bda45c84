/**
 * `hawser keys`: makes the Ed25519 keys with which nodes prove who they are.
 *
 * @module
 */

import type { CommandIo } from "../certs/command.ts";
import { UsageError } from "../certs/usage_error.ts";
import { quote } from "../protocol/text.ts";
import { type MadeKey, makeKeys } from "./store.ts";

/** What `hawser keys` was told. */
export interface KeysFlags {
  /** The folder. */
  readonly out: string;
}

const NODE_ID = /^[!-~]{1,255}$/;
/** Names that TOML takes without quotes. */
const BARE_KEY = /^[A-Za-z0-9_-]+$/;

/**
 * `hawser keys [--out DIR] NODE…`.
 *
 * @throws {UsageError} Where an argument is wrong.
 * @throws {FileError} Where a file is in the way or can't be written.
 */
export async function runKeys(
  args: readonly string[],
  { out }: KeysFlags,
  io: CommandIo,
): Promise<number> {
  if (args.length === 0) throw new UsageError("keys needs the id of a node, or more");
  checkNodeIds(args);
  const made = await makeKeys(io.files, out, args.map((nodeId) => [nodeId, trustLine(nodeId)]));
  const files = made.flatMap(({ nodeId, privatePath, publicPath }) => [
    { path: privatePath, what: `private key of ${nodeId}; for that node only` },
    { path: publicPath, what: `public key of ${nodeId}, as a line of TOML` },
  ]);
  const width = Math.max(...files.map(({ path }) => path.length)) + 2;
  const list = files.map(({ path, what }) => `  ${path.padEnd(width)}${what}\n`).join("");
  io.stdout(`Made:\n${list}\n${snippet(made)}`);
  const others = args.slice(1);
  if (others.length > 0) {
    io.stdout(`\nFor ${others.join(", ")}: the same, each with its own id and key.\n`);
  }
  return 0;
}

function checkNodeIds(nodeIds: readonly string[]): void {
  // File systems that ignore case would make one file of two.
  const ids = new Set<string>();
  for (const nodeId of nodeIds) {
    const id = nodeId.toLowerCase();
    const problem = nodeIdProblem(nodeId) ?? (ids.has(id) ? "it is there twice" : undefined);
    if (problem !== undefined) {
      throw new UsageError(`Cannot make a key for ${quote(nodeId)}: ${problem}`);
    }
    ids.add(id);
  }
}

function nodeIdProblem(nodeId: string): string | undefined {
  if (!NODE_ID.test(nodeId)) {
    return "a node id is 1 to 255 bytes of printable ASCII without spaces";
  }
  if (/[/\\]/.test(nodeId)) return "the id names files, so it can't have a path separator";
  if (nodeId.startsWith(".")) return "the id names files, so it can't begin with a dot";
  return undefined;
}

/** How the table of trusted keys names the node. */
function trustLine(nodeId: string): (publicKey: string) => string {
  const name = BARE_KEY.test(nodeId) ? nodeId : JSON.stringify(nodeId);
  return (publicKey) => `${name} = "${publicKey}"\n`;
}

/** Paths in it count from the folder of the configuration file. */
function snippet(made: readonly MadeKey[]): string {
  const { nodeId, privatePath } = made[0]!;
  return `In the configuration of ${nodeId}:

node_id = ${JSON.stringify(nodeId)}

[identity]
private_key_path = ${JSON.stringify(privatePath)}

[identity.trusted_keys]
${made.map(({ line }) => line).join("")}`;
}
