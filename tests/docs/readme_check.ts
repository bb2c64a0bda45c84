/**
 * Holds README.md against the code: the options and their defaults, the dependencies, the runtimes.
 *
 * @module
 */

import assert from "node:assert/strict";
import { DEFAULT_OPTIONS, RATE_LIMIT_PRESETS } from "../../src/default_options.ts";
import { TOML_NAMES } from "../../src/toml_names.ts";
import { VERSIONS } from "../../tools/runtimes.ts";

/** Fails where the page and the code disagree. `read` gives the text of a file of the project. */
export async function check(read: (path: string) => Promise<string>): Promise<void> {
  const page = await read("README.md");
  checkOptions(page);
  checkDependencies(page, JSON.parse(await read("deno.json")));
  for (const [name, version] of [["Deno", VERSIONS.deno], ["Bun", VERSIONS.bun]]) {
    assert.ok(page.includes(`${name} ${version}`), `the runtimes table says ${name} ${version}`);
  }
  const major = VERSIONS.node.split(".")[0];
  assert.ok(page.includes(`Node ${major}`), `the runtimes table says Node ${major}`);
  assert.ok(page.includes(`npx -y deno@${VERSIONS.deno} task test`), "the command for the tests");
  assert.ok(page.includes(`npx -y deno@${VERSIONS.deno} task demo`), "the command for the demo");
}

function checkOptions(page: string): void {
  const rows = new Map<string, string>();
  for (const [names = "", standard = ""] of rowsOf(page, "option | default | what it does")) {
    for (const name of names.replaceAll("`", "").split(", ")) rows.set(name, standard);
  }
  const options = TOML_NAMES
    .filter(({ toml, option }) => toml !== "rate_limit.preset" && !option.includes("[]"))
    // Tables whose keys the user chooses, and the default among them, are one row.
    .map(({ option }) => option.replace(/\.\*.*$|(?<=^defaultRoute)\..*$/, ""));
  const known = new Set([...options, "peers", ...leaves(DEFAULT_OPTIONS, "")]);
  // Its options are rows of their own.
  known.delete("identity");
  // All of them are in the reference, which a check of its own holds complete.
  assert.ok(page.includes("(docs/configuration.md#reference)"), "the link to the reference");
  for (const [option, standard] of rows) {
    assert.ok(known.has(option), `${option} is an option`);
    assert.equal(standard, shownDefault(option), `default of ${option}`);
  }
}

/** What the table must say. */
function shownDefault(option: string): string {
  if (option === "nodeId") return "required";
  if (option === "rateLimit") return '`"disabled"`';
  const defaults = { ...DEFAULT_OPTIONS, rateLimit: RATE_LIMIT_PRESETS.default };
  const value = option.split(".").reduce<unknown>(
    (inner, word) =>
      typeof inner === "object" && inner !== null ? Reflect.get(inner, word) : undefined,
    defaults,
  );
  return value === undefined ? "none" : `\`${JSON.stringify(value)}\``;
}

/** The paths of all values that are no tables. */
function leaves(value: object, path: string): string[] {
  return Object.entries(value).flatMap(([key, inner]) => {
    const name = path === "" ? key : `${path}.${key}`;
    const table = typeof inner === "object" && inner !== null && !Array.isArray(inner);
    return table ? leaves(inner, name) : [name];
  });
}

function checkDependencies(page: string, manifest: { imports: Record<string, string> }): void {
  const shown = new Map(
    rowsOf(page, "package | version | what for").flatMap(([names = "", version = ""]) =>
      names.replaceAll("`", "").split(", ").map((name) => [name, version] as const)
    ),
  );
  const pinned = new Map<string, string>();
  for (const target of Object.values(manifest.imports)) {
    const match = /^npm:(@?[^@]+)@(\d+\.\d+\.\d+)/.exec(target);
    if (match !== null) pinned.set(match[1]!, match[2]!);
    else assert.ok(target.startsWith("./"), `${target} is pinned to a version`);
  }
  const sorted = (map: Map<string, string>) => [...map].toSorted(([a], [b]) => a < b ? -1 : 1);
  assert.deepEqual(sorted(shown), sorted(pinned), "the dependencies of the README");
}

/** The cells of the table with this head. */
function rowsOf(page: string, head: string): string[][] {
  const rows: string[][] = [];
  let inside = false;
  for (const line of page.split("\n")) {
    const cells = line.split("|").slice(1, -1).map((cell) => cell.trim());
    if (cells.join(" | ") === head) inside = true;
    else if (cells.length === 0) inside = false;
    else if (inside && !line.startsWith("| ---")) rows.push(cells);
  }
  assert.ok(rows.length > 0, `there is no table "${head}"`);
  return rows;
}
