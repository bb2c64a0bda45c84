/**
 * The table of transports in README.md, made of what `hawser transports` says on each runtime:
 * `deno task transports` writes it, `deno run -A tools/transports_table.ts --check` fails where it
 * is another.
 *
 * @module
 */

import { readFileSync, writeFileSync } from "node:fs";
import process from "node:process";
import { fileURLToPath } from "node:url";
import type { TransportRow } from "../src/transports/command.ts";
import { run, type RuntimeName, runtimePath } from "./runtimes.ts";

const README = fileURLToPath(new URL("../README.md", import.meta.url));
const CLI = fileURLToPath(new URL("../cli.ts", import.meta.url));
const BEGIN = "<!-- transports: made by `deno task transports` -->";
const END = "<!-- /transports -->";

/** A runtime as it is started for its column. */
const COLUMNS: readonly { name: string; runtime: RuntimeName; args: readonly string[] }[] = [
  { name: "Deno", runtime: "deno", args: ["run", "--unstable-net", "-A", "--quiet"] },
  { name: "Bun", runtime: "bun", args: ["run"] },
  { name: "Node", runtime: "node", args: ["--disable-warning=ExperimentalWarning"] },
];

const columns: Map<string, TransportRow>[] = [];
for (const { runtime, args } of COLUMNS) {
  const command = [runtimePath(runtime), ...args, CLI, "transports", "--json"];
  const { code, output } = await run(command, { quiet: true });
  if (code !== 0) throw new Error(`${command.join(" ")} ended with ${code}: ${output}`);
  const { transports } = JSON.parse(output) as { transports: TransportRow[] };
  columns.push(new Map(transports.map((row) => [row.scheme, row])));
}

const text = readFileSync(README, "utf8");
const [begin, end] = [text.indexOf(BEGIN), text.indexOf(END)];
if (begin < 0 || end < begin) throw new Error(`README.md has no ${BEGIN} … ${END}`);
const made = `${BEGIN}\n\n${table()}\n${END}`;
const present = text.slice(begin, end + END.length);
if (process.argv.includes("--check")) {
  if (squeezed(present) !== squeezed(made)) {
    console.error("README.md: the table of transports is another: run `deno task transports`");
    process.exit(1);
  }
  console.log("README.md has the table of transports as the runtimes tell it");
} else {
  writeFileSync(README, text.slice(0, begin) + made + text.slice(end + END.length));
}

function table(): string {
  const schemes = [...new Set(columns.flatMap((column) => [...column.keys()]))];
  const best = (scheme: string) => Math.max(...columns.map((c) => c.get(scheme)?.priority ?? 0));
  schemes.sort((a, b) => best(b) - best(a));
  const head = ["transport", ...COLUMNS.map(({ name }) => name), "encrypted", "certificates"];
  const rows = schemes.map((scheme) => {
    const rows = columns.map((column) => column.get(scheme));
    const any = rows.find((row) => row?.available) ?? rows.find((row) => row !== undefined)!;
    return [
      `\`${scheme}\``,
      ...rows.map((row) => row?.available ? "yes" : `no: ${row?.reason ?? "not built in"}`),
      any.encrypted ? "yes" : "no",
      rows.map((row) => row?.available && row.peerAuthenticated ? "yes" : "no").every((word) =>
          word === "yes"
        )
        ? "yes"
        : COLUMNS.filter((_, i) => rows[i]?.available && rows[i]?.peerAuthenticated)
          .map(({ name }) => name).join(", ") || "no",
      delivery(any),
      any.maxMessageSize === null ? "`maxMessageSize`" : `${any.maxMessageSize} bytes`,
      String(any.priority),
    ];
  });
  const all = [[...head, "delivery", "largest message", "priority"], ...rows];
  const lines = all.map((row) => `| ${row.join(" | ")} |`);
  lines.splice(1, 0, `| ${all[0]!.map(() => "---").join(" | ")} |`);
  return `${lines.join("\n")}\n`;
}

function delivery({ reliable, ordered, multiplexed }: TransportRow): string {
  if (!reliable) return "best effort";
  return `reliable${ordered ? ", ordered" : ""}${multiplexed ? ", multiplexed" : ""}`;
}

/** Without what the formatter adds. */
function squeezed(text: string): string {
  return text.replace(/ +/g, " ").replace(/-{3,}/g, "---").replace(/\n{2,}/g, "\n");
}
