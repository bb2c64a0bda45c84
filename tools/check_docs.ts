/**
 * Holds the documents and the layers against the code: `deno run -A tools/check_docs.ts`, from the
 * project's root. Lists what is wrong and exits with 1, or says what was checked.
 *
 * @module
 */

import { readdir, readFile, stat } from "node:fs/promises";
import { dirname, join, normalize } from "node:path";
import process from "node:process";
import { findBreaches } from "../tests/architecture/layers_check.ts";
import { tomlErrors, typeErrors } from "./docs/code.ts";
import { anchorsOf, fencesOf, linksOf, pathsOf, type Reference } from "./docs/markdown.ts";

const DOCUMENTS = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "examples/README.md"];
const CHECKS = "tests/docs";
const read = (path: string): Promise<string> => readFile(path, "utf8");

process.chdir(new URL("..", import.meta.url).pathname);
const documents = new Map<string, string>();
const problems: string[] = [];
for (const path of [...DOCUMENTS, ...await filesIn("docs", ".md")]) {
  if (await exists(path)) documents.set(path, await read(path));
  else problems.push(`${path}: is missing`);
}
const fences = [...documents].flatMap(([file, text]) => fencesOf(file, text));
problems.push(...await typeErrors(fences));
problems.push(...tomlErrors(fences));
problems.push(...await brokenReferences());
const checks = await runChecks();
const sources = await readSources();
problems.push(...findBreaches(sources));

for (const problem of problems) console.error(problem);
if (problems.length > 0) console.error(`\n${problems.length} problems`);
else {
  const count = (info: string) => fences.filter((fence) => fence.info === info).length;
  console.log(
    `${documents.size} documents, ${count("ts")} programs, ${count("toml")} configurations, ` +
      `${checks} checks, ${sources.size} files in their layers: all in order`,
  );
}
process.exit(problems.length > 0 ? 1 : 0);

/** Runs what tests/docs/ checks; returns how many there are. */
async function runChecks(): Promise<number> {
  const files = await filesIn(CHECKS, "_check.ts");
  for (const file of files) {
    try {
      const { check } = await import(`../${file}`);
      if (typeof check !== "function") throw new Error("does not export check()");
      await check(read);
    } catch (error) {
      problems.push(`${file}: ${(error as Error).message}`);
    }
  }
  return files.length;
}

/** Links and named files that do not exist, and anchors that no heading makes. */
async function brokenReferences(): Promise<string[]> {
  const broken: string[] = [];
  for (const [file, text] of documents) {
    for (const link of linksOf(file, text)) {
      const [path = "", anchor] = link.target.split("#");
      const target = path === "" ? file : normalize(join(dirname(file), path));
      if (!await exists(target)) broken.push(broken404(link));
      else if (anchor !== undefined && !anchorsOf(await read(target)).has(anchor)) {
        broken.push(`${file}:${link.line}: ${target} has no heading #${anchor}`);
      }
    }
    for (const path of pathsOf(file, text)) {
      const near = join(dirname(file), path.target);
      if (!await exists(path.target) && !await exists(near)) broken.push(broken404(path));
    }
  }
  return broken;
}

function broken404({ file, line, target }: Reference): string {
  return `${file}:${line}: ${target} does not exist`;
}

/** The text of every file of src/, by its path below it. */
async function readSources(): Promise<Map<string, string>> {
  const sources = new Map<string, string>();
  for (const path of (await readdir("src", { recursive: true })).toSorted()) {
    if (path.endsWith(".ts")) sources.set(path, await read(join("src", path)));
  }
  return sources;
}

async function filesIn(folder: string, ending: string): Promise<string[]> {
  const names = await readdir(folder).catch(() => []);
  return names.filter((name) => name.endsWith(ending)).toSorted().map((name) =>
    `${folder}/${name}`
  );
}

async function exists(path: string): Promise<boolean> {
  return await stat(path).then(() => true, () => false);
}
