/**
 * Holds docs/configuration.md against the code: names, defaults, ranges, presets, the example.
 *
 * @module
 */

import assert from "node:assert/strict";
import { DEFAULT_OPTIONS, RATE_LIMIT_PRESETS } from "../../src/default_options.ts";
import { ConfigError } from "../../src/errors.ts";
import type { EndpointOptions } from "../../src/options.ts";
import { resolveOptions } from "../../src/resolve_options.ts";
import { loadConfig } from "../../src/toml.ts";
import { TOML_NAMES } from "../../src/toml_names.ts";

const HEADER = "TOML | option | type | unit | default | range | what it does";
/** Optional, and without a default. */
const NO_DEFAULT = [
  ...["authToken", "reconnect.maxAttempts", "receiveWindow", "unixMode", "advertise"],
  ...["total", "perPeer", "control", "normal", "bulk"].map((limit) => `bandwidth.${limit}`),
  ...["identity", "signing"].flatMap((table) => {
    return ["privateKey", "privateKeyPath", "trustedKeys.*"].map((key) => `${table}.${key}`);
  }),
];
/** Not optional where what holds them is given. */
const REQUIRED = [
  "nodeId",
  ...["peers[]", "routes.*", "defaultRoute"].flatMap((place) => {
    return [`${place}.nodeId`, `${place}.address`];
  }),
];

interface Row {
  readonly toml: string;
  readonly option: string;
  readonly type: string;
  readonly standard: string;
  readonly range: string;
}

/** Fails where the page and the code disagree. `read` gives the text of a file of the project. */
export async function check(read: (path: string) => Promise<string>): Promise<void> {
  const page = await read("docs/configuration.md");
  const rows = readRows(page);
  checkNames(rows);
  for (const row of rows) {
    checkDefault(row);
    if (row.type === "integer" || row.type === "number") checkRange(row);
  }
  checkPresets(page);
  checkExamples(page);
}

function readRows(page: string): Row[] {
  let inReference = false;
  const rows: Row[] = [];
  for (const line of page.split("\n")) {
    const cells = line.split("|").slice(1, -1).map((cell) => cell.trim());
    if (cells.join(" | ") === HEADER) inReference = true;
    else if (cells.length !== 7) inReference = false;
    else if (inReference && !line.startsWith("| ---")) {
      const [toml = "", option = "", type = "", , standard = "", range = ""] = cells;
      rows.push({ toml: code(toml), option: code(option), type, standard, range });
    }
  }
  return rows;
}

function checkNames(rows: readonly Row[]): void {
  const listed = rows.map(({ toml, option }) => `${toml} ${option}`).toSorted();
  const known = TOML_NAMES
    .filter(({ toml }) => toml !== "security.mode")
    .map(({ toml, option }) => `${toml} ${toml === "rate_limit.preset" ? "only in TOML" : option}`);
  assert.deepEqual(listed, [...known, "peers peers"].toSorted());
}

function checkDefault({ toml, option, standard }: Row): void {
  if (toml === "rate_limit.preset") return assert.equal(standard, '`"default"`', toml);
  if (toml === "rate_limit") return assert.equal(standard, '`"disabled"`', toml);
  if (standard === "required") {
    return assert.ok(REQUIRED.includes(option), toml);
  }
  // What a table without a preset starts from.
  const defaults = { ...DEFAULT_OPTIONS, rateLimit: RATE_LIMIT_PRESETS.default };
  const value = at(defaults, option);
  if (value === undefined) {
    assert.ok(NO_DEFAULT.includes(option) || option.startsWith("tls."), toml);
    return assert.equal(standard, "none", toml);
  }
  assert.equal(standard, `\`${JSON.stringify(value)}\``, toml);
}

/** Tries both ends of the range, and a step beyond each. */
function checkRange({ option, type, range }: Row): void {
  const [, above, minText = "", maxText] = /^(above )?`([\d.]+)`(?: to `([\d.]+)`)?$/.exec(range) ??
    assert.fail(`${option}: ${range}`);
  const min = Number(minText);
  const max = maxText === undefined ? Number.MAX_VALUE : Number(maxText);
  const step = type === "integer" ? 1 : 0.001;
  const accepted = [above === undefined ? min : Number.MIN_VALUE, max];
  const refused = above === undefined ? [min - step] : [min];
  if (maxText !== undefined) refused.push(max + step);
  if (type === "integer") refused.push(min + 0.5);
  for (const value of accepted) resolveOptions(withOption(option, value));
  for (const value of refused) {
    assert.throws(() => resolveOptions(withOption(option, value)), ConfigError, option);
  }
}

function checkPresets(page: string): void {
  for (const [name, { enabled, bucketSize, refillRate }] of Object.entries(RATE_LIMIT_PRESETS)) {
    const row = `| \`"${name}"\` | \`${enabled}\` | \`${bucketSize}\` | \`${refillRate}\` |`;
    assert.ok(page.replace(/ +/g, " ").includes(row), row);
  }
}

function checkExamples(page: string): void {
  const [toml, ...others] = [...page.matchAll(/^```toml\n([\s\S]*?)^```$/gm)].map((match) =>
    match[1] ?? ""
  );
  assert.ok(toml !== undefined && others.length === 0, "there is one TOML example");
  const options = loadConfig(toml);
  const left = ["tls.cert", "tls.key", "tls.ca"];
  for (const { option, alias } of TOML_NAMES) {
    if (alias || left.includes(option)) continue;
    if (option.endsWith(".privateKey")) continue;
    assert.notEqual(at(options, option.replace("[]", ".0")), undefined, `no ${option} in example`);
  }
  const code = /^```ts\n([\s\S]*?)^```$/m.exec(page)?.[1] ?? "";
  assert.match(code, /import \{[^}]*loadConfigFile[^}]*\} from "@hawser\/hawser"/);
}

/** Options with one value given, and those beside it that bound it moved out of its way. */
function withOption(option: string, value: number): EndpointOptions {
  const [head = "", inner] = option.split(".");
  const given: Record<string, unknown> = { nodeId: "node1", [head]: value };
  if (inner !== undefined) given[head] = { [inner]: value };
  if (option === "maxMessageSize") given["maxPendingBytes"] = Number.MAX_SAFE_INTEGER;
  if (option === "maxPendingBytes") given["maxMessageSize"] = 1;
  if (option === "minProtocolVersion") given["maxProtocolVersion"] = 3;
  if (option === "pool.minConnections") given["poolSize"] = 64;
  if (option.startsWith("signing.")) {
    given[head] = { privateKeyPath: "key", trustedKeys: {}, ...given[head] as object };
  }
  if (option === "signing.maxAgeMs") given["resumeWindowMs"] = 0;
  if (option === "reconnect.initialBackoffMs") {
    given[head] = { initialBackoffMs: value, maxBackoffMs: 2 ** 31 - 1 };
  }
  if (option === "reconnect.maxBackoffMs") {
    given[head] = { initialBackoffMs: 0, maxBackoffMs: value };
  }
  return given as unknown as EndpointOptions;
}

/** The value at a path; `*` takes the first entry. */
function at(value: unknown, path: string): unknown {
  return path.split(".").reduce<unknown>((inner, word) => {
    if (typeof inner !== "object" || inner === null) return undefined;
    return word === "*" ? Object.values(inner)[0] : Reflect.get(inner, word);
  }, value);
}

function code(cell: string): string {
  return cell.replaceAll("`", "");
}
