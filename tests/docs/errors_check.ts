/**
 * Holds the tables of docs/errors.md against the codes and their advice in src/errors.ts.
 *
 * @module
 */

import assert from "node:assert/strict";
import { type ErrorCode, TransportError } from "../../src/errors.ts";

const PAGE = "docs/errors.md";

/** Fails where a code is missing, too much, or has other advice than the page says. */
export async function check(read: (path: string) => Promise<string>): Promise<void> {
  const page = await read(PAGE);
  const source = await read("src/errors.ts");
  const codes = union(source, "ErrorCode");
  const rows = rowsOf(page, "code | cause | recovery | retryable");
  assert.deepEqual(rows.map(([code]) => code).toSorted(), codes.toSorted(), "the codes");
  for (const [code, , recovery, retryable] of rows) {
    const error = new TransportError(code as ErrorCode, "");
    assert.equal(recovery, error.recovery, `recovery of ${code}`);
    assert.equal(retryable, error.retryable ? "yes" : "no", `retryable of ${code}`);
  }
  const rejects = rowsOf(page, "reject code | what to do | tried again");
  assert.deepEqual(
    rejects.map(([code]) => code).toSorted(),
    union(source, "RejectCode").toSorted(),
    "the reject codes",
  );
  const retried = rejects.filter(([, , again]) => again === "yes").map(([code]) => code);
  assert.deepEqual(retried.toSorted(), await retriedRejects(read), "what is tried again");
  const classes = rowsOf(page, "class | `code` | what it carries beside").map(([name]) => name);
  const exported = [...source.matchAll(/^export class (\w+)/gm)].map((match) => match[1]);
  assert.deepEqual(classes.toSorted(), exported.toSorted(), "the classes");
}

/** The members of a union of texts. */
function union(source: string, name: string): string[] {
  const body = new RegExp(`export type ${name} =([^;]*);`).exec(source)?.[1] ?? "";
  return [...body.matchAll(/"(\w+)"/g)].map((match) => match[1]!);
}

/** The reject codes that make an error retryable. */
async function retriedRejects(read: (path: string) => Promise<string>): Promise<string[]> {
  const source = await read("src/protocol/reject.ts");
  const body = /retryable: code ===([^}]*)}/.exec(source)?.[1] ?? "";
  return [...body.matchAll(/"([A-Z_]+)"/g)].map((match) => match[1]!).toSorted();
}

/** The cells of all tables with this head, without the backticks of the first cell. */
function rowsOf(page: string, head: string): string[][] {
  const rows: string[][] = [];
  let inside = false;
  for (const line of page.split("\n")) {
    const cells = line.split("|").slice(1, -1).map((cell) => cell.trim());
    if (cells.join(" | ") === head) inside = true;
    else if (cells.length === 0) inside = false;
    else if (inside && !line.startsWith("| ---")) {
      rows.push([cells[0]!.replaceAll("`", ""), ...cells.slice(1)]);
    }
  }
  assert.ok(rows.length > 0, `${PAGE} has no table "${head}"`);
  return rows;
}
