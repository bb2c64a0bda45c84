/**
 * The code blocks of the documents: TypeScript is type-checked, TOML is loaded.
 *
 * @module
 */

import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { stripVTControlCharacters } from "node:util";
import { loadConfig } from "../../src/toml.ts";
import { run, runtimePath } from "../runtimes.ts";
import type { Fence } from "./markdown.ts";

/** Type-checks the `ts` fences with `deno check`, each as a program of its own. */
export async function typeErrors(fences: readonly Fence[]): Promise<string[]> {
  const ignored = fences.filter(({ info }) => /^(?:ts|typescript) +\S/.test(info));
  const problems = ignored.map(({ file, line, info }) => `${file}:${line}: "${info}" is not "ts"`);
  const blocks = fences.filter(({ info }) => info === "ts" || info === "typescript");
  if (blocks.length === 0) return problems;
  const folder = await mkdtemp(join(tmpdir(), "hawser-docs-"));
  try {
    const files = await Promise.all(blocks.map((fence) => extract(folder, fence)));
    const command = [runtimePath("deno"), "check", "--quiet", "--config", "deno.json", ...files];
    const { code, output } = await run(command, { quiet: true });
    if (code !== 0) problems.push(readable(output, folder));
  } finally {
    await rm(folder, { recursive: true });
  }
  return problems;
}

/** Loads the `toml` fences as configurations. */
export function tomlErrors(fences: readonly Fence[]): string[] {
  return fences.filter(({ info }) => info === "toml").flatMap(({ file, line, text }) => {
    try {
      loadConfig(text);
      return [];
    } catch (error) {
      return [`${file}:${line}: ${(error as Error).message}`];
    }
  });
}

/** Writes a block to a file in which every line has the number it has in the document. */
async function extract(folder: string, { file, line, text }: Fence): Promise<string> {
  const path = join(folder, `${file.replaceAll("/", "__")}.${line}.ts`);
  const code = text.replaceAll("jsr:@hawser/hawser", "@hawser/hawser");
  await writeFile(path, "\n".repeat(line - 1) + code + "\n");
  return path;
}

/** The checker's output with the places as they are in the documents. */
function readable(output: string, folder: string): string {
  const place = new RegExp(`(?:file://)?${folder}/([\\w.-]+?)\\.\\d+\\.ts(:\\d+)`, "g");
  return stripVTControlCharacters(output).trim().replace(
    place,
    (_, name: string, line: string) => name.replaceAll("__", "/") + line,
  );
}
