/**
 * Holds the imports of src/ against the table of layers, and the protocol core to being pure.
 *
 * @module
 */

import { ALLOWED, IMPURE, PACKAGES } from "./sources.ts";

/** One import or re-export, types included. */
interface Import {
  readonly specifier: string;
  readonly line: number;
}

const IMPORT =
  /\b(?:import|export)\b[^;"'`]*?\bfrom\s*["']([^"']+)["']|\bimport\s*\(?\s*["']([^"']+)["']/g;
const STRING_OR_COMMENT =
  /"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'|`(?:[^`\\]|\\[^])*`|\/\*[^]*?\*\/|\/\/[^\n]*/g;

/**
 * Every breach of the layers, as `src/file.ts:line: what is wrong`.
 *
 * @param sources The text of every `.ts` file below src/, by its path below src/.
 */
export function findBreaches(sources: ReadonlyMap<string, string>): string[] {
  const breaches: string[] = [];
  const graph = new Map<string, Map<string, number>>();
  for (const [file, text] of sources) {
    const code = withoutComments(text);
    const targets = new Map<string, number>();
    graph.set(file, targets);
    for (const found of importsOf(code)) {
      const target = resolve(file, found.specifier);
      const problem = target === undefined
        ? packageProblem(file, found.specifier)
        : importProblem(file, target, sources);
      if (problem !== undefined) breaches.push(`src/${file}:${found.line}: ${problem}`);
      if (target !== undefined && !targets.has(target)) targets.set(target, found.line);
    }
    if (file.startsWith("protocol/")) breaches.push(...impurities(file, code));
  }
  return [...breaches, ...cycles(graph)];
}

/** Imports of the code, in order; comments must be blank. */
function importsOf(code: string): Import[] {
  return [...code.matchAll(IMPORT)].map((match) => {
    const specifier = match[1] ?? match[2] ?? "";
    return { specifier, line: lineAt(code, match.index + match[0].lastIndexOf(specifier)) };
  });
}

/** The path below src/ that a relative specifier leads to; undefined for a package. */
function resolve(file: string, specifier: string): string | undefined {
  if (!specifier.startsWith(".")) return undefined;
  const parts = file.split("/").slice(0, -1);
  for (const part of specifier.split("/")) {
    if (part === ".") continue;
    if (part === ".." && parts.length > 0 && parts.at(-1) !== "..") parts.pop();
    else parts.push(part);
  }
  return parts.join("/");
}

function importProblem(
  file: string,
  target: string,
  sources: ReadonlyMap<string, string>,
): string | undefined {
  if (!sources.has(target)) return `imports ${target}, which is not in src/`;
  if (allowedTo(file).some((prefix) => target.startsWith(prefix))) return undefined;
  return `may not import src/${target} (the table is in tests/architecture/sources.ts)`;
}

function allowedTo(file: string): readonly string[] {
  const names = Object.keys(ALLOWED).filter((name) => matches(file, name));
  const longest = names.reduce((best, name) => name.length > best.length ? name : best, "");
  return ALLOWED[longest] ?? [];
}

/** "" names the files at the top only; "peer/" a folder; the rest one file. */
function matches(file: string, name: string): boolean {
  if (name === "") return !file.includes("/");
  return name.endsWith("/") ? file.startsWith(name) : file === name;
}

function packageProblem(file: string, specifier: string): string | undefined {
  const known = Object.entries(PACKAGES).find(([prefix]) => specifier.startsWith(prefix));
  if (known === undefined) return `imports the unknown package "${specifier}"`;
  if (known[1].some((prefix) => file.startsWith(prefix))) return undefined;
  return `may not import "${specifier}": only ${known[1].map((name) => `src/${name}`).join(", ")}`;
}

function impurities(file: string, code: string): string[] {
  return withoutStrings(code).split("\n").flatMap((line, index) => {
    const match = IMPURE.exec(line);
    return match === null ? [] : [`src/${file}:${index + 1}: "${match[0]}" in the pure core`];
  });
}

/** One line per cycle of imports, beginning at the file that sorts first. */
function cycles(graph: ReadonlyMap<string, ReadonlyMap<string, number>>): string[] {
  const found = new Map<string, string>();
  const done = new Set<string>();
  const visit = (file: string, path: string[]): void => {
    const at = path.indexOf(file);
    if (at >= 0) {
      const cycle = path.slice(at);
      const key = cycle.toSorted().join(" ");
      const line = graph.get(cycle.at(-1)!)?.get(file) ?? 0;
      const text = `src/${cycle.at(-1)}:${line}: closes a cycle: ${[...cycle, file].join(" -> ")}`;
      if (!found.has(key)) found.set(key, text);
      return;
    }
    if (done.has(file)) return;
    for (const target of graph.get(file)?.keys() ?? []) visit(target, [...path, file]);
    done.add(file);
  };
  for (const file of [...graph.keys()].toSorted()) visit(file, []);
  return [...found.values()];
}

/** The code with comments blanked and every line where it was. */
function withoutComments(text: string): string {
  return text.replace(STRING_OR_COMMENT, (part) => part.startsWith("/") ? blank(part) : part);
}

/** The code with the insides of strings blanked, except what is imported from and what is computed. */
function withoutStrings(code: string): string {
  return code.replace(STRING_OR_COMMENT, (part) => {
    if (part.startsWith('"node:')) return part;
    if (!part.startsWith("`")) return blank(part);
    return part.split(/(\$\{[^}]*\})/).map((piece, i) => i % 2 === 1 ? piece : blank(piece)).join(
      "",
    );
  });
}

function blank(part: string): string {
  return part.replace(/[^\n]/g, " ");
}

function lineAt(text: string, index: number): number {
  return text.slice(0, index).split("\n").length;
}
