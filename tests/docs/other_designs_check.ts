/**
 * Holds docs/from_other_designs.md against the code: what it says is ours has to be there.
 *
 * @module
 */

import assert from "node:assert/strict";

const PAGE = "docs/from_other_designs.md";
const DESIGNS = ["Neumann", "RustyDB", "The envelope transport", "GridKV", "Kizuna", "Not yet"];
/** Where everything that a program may name is declared. */
const SOURCES = [
  "mod.ts",
  "src/endpoint.ts",
  "src/envelope.ts",
  "src/errors.ts",
  "src/events.ts",
  "src/options.ts",
  "src/peer/requests.ts",
  "src/peer_info.ts",
  "src/protocol/v3/round_trips.ts",
  "src/protocol/v3/types.ts",
  "src/routing.ts",
  "src/send_plan.ts",
  "src/stats.ts",
  "src/transport/transport.ts",
];
/** What is a command or an address, and not declared anywhere. */
const NOT_DECLARED = ["hawser certs", "tcp://", "for await"];

/** Fails where a design is missing, or a name of ours that nothing in the code has. */
export async function check(read: (path: string) => Promise<string>): Promise<void> {
  const page = await read(PAGE);
  const headings = [...page.matchAll(/^## (.*)$/gm)].map((match) => match[1]);
  assert.deepEqual(headings, DESIGNS, "the designs");
  const declared = new Set<string>();
  for (const path of SOURCES) {
    for (const [word] of (await read(path)).matchAll(/[\w-]+/g)) declared.add(word);
  }
  let rows = 0;
  for (const [, ours = ""] of page.matchAll(/^\|[^|\n]*\|([^|\n]*)\|$/gm)) {
    rows++;
    for (const [, code = ""] of ours.matchAll(/`([^`]+)`/g)) checkNames(code, declared);
  }
  assert.ok(rows > 60, `${rows} rows`);
}

/** Every word of a piece of code, as `nodeId` in `poolStats(nodeId)`. */
function checkNames(code: string, declared: ReadonlySet<string>): void {
  if (NOT_DECLARED.includes(code)) return;
  for (const [word] of code.matchAll(/[A-Za-z][\w-]*/g)) {
    assert.ok(declared.has(word), `nothing is called ${word}, in \`${code}\``);
  }
}
