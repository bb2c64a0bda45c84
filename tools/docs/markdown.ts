/**
 * What the checks of the documents read from Markdown: fences, links, headings.
 *
 * @module
 */

/** A fenced block. */
export interface Fence {
  /** The document, as a path from the project's root. */
  readonly file: string;
  /** Line of the first line inside, counted from 1. */
  readonly line: number;
  /** The whole text behind the backticks: "ts", "toml", "ts ignore". */
  readonly info: string;
  readonly text: string;
}

/** A link to another place of the project. */
export interface Reference {
  readonly file: string;
  readonly line: number;
  /** What stands in the parentheses. */
  readonly target: string;
}

/** Every fence of a document. An unclosed one ends with the document. */
export function fencesOf(file: string, text: string): Fence[] {
  const fences: Fence[] = [];
  let open: { info: string; line: number; lines: string[] } | undefined;
  text.split("\n").forEach((line, index) => {
    const mark = /^\s*```(.*)$/.exec(line);
    if (mark === null) return void open?.lines.push(line);
    if (open === undefined) open = { info: mark[1]!.trim(), line: index + 2, lines: [] };
    else {
      fences.push({ file, line: open.line, info: open.info, text: open.lines.join("\n") });
      open = undefined;
    }
  });
  if (open !== undefined) throw new Error(`${file}:${open.line - 1}: a fence that does not end`);
  return fences;
}

/** Links that stay within the project, outside of fences and code. */
export function linksOf(file: string, text: string): Reference[] {
  return prose(text).flatMap((line, index) => {
    const bare = line.replace(/`[^`]*`/g, (code) => " ".repeat(code.length));
    return [...bare.matchAll(/\]\(([^()\s]+)\)/g)]
      .map((match) => ({ file, line: index + 1, target: match[1]! }))
      .filter(({ target }) => !/^[a-z]+:/.test(target));
  });
}

/** Paths of the project that are named in code, as in `src/peer/pool.ts`. */
export function pathsOf(file: string, text: string): Reference[] {
  const path = /`((?:\.ci|src|tests|tools|docs|bench|examples)\/[\w./-]*|[\w]+\.(?:ts|md|json))`/g;
  return prose(text).flatMap((line, index) =>
    [...line.matchAll(path)].map((match) => ({ file, line: index + 1, target: match[1]! }))
  );
}

/** The anchors that the headings of a document make. */
export function anchorsOf(text: string): Set<string> {
  const anchors = new Set<string>();
  for (const line of prose(text)) {
    const heading = /^#{1,6} +(.*?)\s*$/.exec(line)?.[1];
    if (heading === undefined) continue;
    const plain = heading.toLowerCase().replace(/[^\p{L}\p{N} _-]/gu, "").replaceAll(" ", "-");
    let anchor = plain;
    for (let n = 1; anchors.has(anchor); n++) anchor = `${plain}-${n}`;
    anchors.add(anchor);
  }
  return anchors;
}

/** The lines, with those of fences empty. */
function prose(text: string): string[] {
  let inside = false;
  return text.split("\n").map((line) => {
    if (!/^\s*```/.test(line)) return inside ? "" : line;
    inside = !inside;
    return "";
  });
}
