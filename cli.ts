/**
 * The `hawser` command: makes a cluster's certificates and keys, inspects certificates, and says by
 * what a runtime can reach other nodes.
 *
 * ```sh
 * deno run --allow-read --allow-write cli.ts certs node1 node2=db2.example.com,10.0.0.5
 * deno run --allow-read cli.ts certs inspect certs/node1.crt
 * deno run --allow-read --allow-write cli.ts keys node1 node2
 * deno run cli.ts transports
 * ```
 *
 * @module
 */

import process from "node:process";
import { parseArgs } from "node:util";
import { type CommandIo, runCerts, runInspect } from "./src/certs/command.ts";
import { systemFiles } from "./src/certs/files.ts";
import { UsageError } from "./src/certs/usage_error.ts";
import { runKeys } from "./src/keys/command.ts";
import { runTransports } from "./src/transports/command.ts";
import { quote } from "./src/protocol/text.ts";

export type { CommandIo } from "./src/certs/command.ts";
export type { Files, WriteOptions } from "./src/certs/files.ts";

/** The version of the package. */
const VERSION = "0.1.0";

const HELP = `hawser: certificates, keys and transports of a cluster of Hawser nodes

  hawser certs [--out DIR] [--days N] [--force] NODE…
      Makes an authority (ca.crt, ca.key) and for each node a certificate and a
      key (NODE.crt, NODE.key). An authority that is there is used again.
      NODE is a node id, with its hosts if it has any: node1=db1.example.com,10.0.0.5

      --out DIR    the folder (./certs)
      --days N     how long node certificates are valid (365)
      --force      replace the certificates and keys of the named nodes

  hawser certs inspect FILE
      Says what a certificate holds and whether strict mode would accept it.
      Exit code 1 if it would not, under any name or in any role.

  hawser keys [--out DIR] NODE…
      Makes for each node an Ed25519 key with which it proves who it is where it
      has no client certificate (NODE.ed25519.key), and the line by which the
      others know it (NODE.ed25519.pub). Nothing is replaced.

      --out DIR    the folder (./keys)

  hawser transports [--json]
      Says by what this runtime can reach other nodes, and why not by the rest.

  hawser help       this text
  hawser version    the version

Exit codes: 0 done, 1 failed, 2 wrong arguments.
`;

/**
 * Runs one command.
 *
 * @param args The arguments behind the program's name.
 * @param io Where it prints, and the clock and files it uses.
 * @returns The exit code: 0 done, 1 failed, 2 wrong arguments.
 */
export async function main(args: string[], io: CommandIo = systemIo): Promise<number> {
  try {
    return await dispatch(args, io);
  } catch (error) {
    const isUsage = error instanceof UsageError;
    const hint = isUsage ? " (hawser help says how)" : "";
    io.stderr(`hawser: ${oneLine(error)}${hint}\n`);
    return isUsage ? 2 : 1;
  }
}

const systemIo: CommandIo = {
  stdout: (text) => void process.stdout.write(text),
  stderr: (text) => void process.stderr.write(text),
  now: () => Date.now(),
  files: systemFiles,
};

function dispatch(args: string[], io: CommandIo): number | Promise<number> {
  const { values, positionals } = parse(args);
  const [command, ...rest] = positionals;
  if (values.help === true || command === "help") return print(HELP, io);
  if (values.version === true || command === "version") return print(`hawser ${VERSION}\n`, io);
  if (command === undefined) throw new UsageError("there is no command");
  switch (command) {
    case "certs":
      return certs(rest, values, io);
    case "keys":
      return keys(rest, values, io);
    case "transports":
      return transports(rest, values, io);
    default:
      throw new UsageError(`unknown command ${quote(command)}`);
  }
}

function certs(args: string[], flags: Flags, io: CommandIo): Promise<number> {
  const { out, days, force, json } = flags;
  refuseFlags("certs takes no --json", json);
  if (args[0] === "inspect") {
    refuseFlags("certs inspect takes no flags", out, days, force);
    return runInspect(args.slice(1), io);
  }
  return runCerts(args, { out: out ?? "certs", days, force: force ?? false }, io);
}

function keys(args: string[], flags: Flags, io: CommandIo): Promise<number> {
  const { out, days, force, json } = flags;
  refuseFlags("keys takes no flag but --out", days, force, json);
  return runKeys(args, { out: out ?? "keys" }, io);
}

function transports(args: string[], flags: Flags, io: CommandIo): number {
  const { out, days, force, json } = flags;
  refuseFlags("transports takes no flag but --json", out, days, force);
  if (args.length > 0) throw new UsageError("transports takes no arguments");
  return runTransports({ json: json ?? false }, io);
}

function refuseFlags(problem: string, ...flags: unknown[]): void {
  if (flags.some((flag) => flag !== undefined)) throw new UsageError(problem);
}

type Flags = ReturnType<typeof parse>["values"];

function parse(args: string[]) {
  try {
    return parseArgs({
      args,
      allowPositionals: true,
      options: {
        out: { type: "string" },
        days: { type: "string" },
        force: { type: "boolean" },
        json: { type: "boolean" },
        help: { type: "boolean", short: "h" },
        version: { type: "boolean" },
      },
    });
  } catch (error) {
    // The first sentence; what follows is advice about positionals that begin with a dash.
    throw new UsageError(oneLine(error).split(". ")[0]);
  }
}

function print(text: string, io: CommandIo): number {
  io.stdout(text);
  return 0;
}

function oneLine(error: unknown): string {
  const message = error instanceof Error ? error.message : String(error);
  return message.split("\n")[0] ?? "";
}

if (import.meta.main) process.exitCode = await main(process.argv.slice(2));
