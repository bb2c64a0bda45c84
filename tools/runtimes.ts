/**
 * The runtimes the project is tested on, at pinned versions, found on this machine or through npm.
 * Runs on Deno, Bun and Node.
 *
 * @module
 */

import { spawn, spawnSync } from "node:child_process";
import process from "node:process";

/** The pinned versions; README.md and .ci/run name the same. */
export const VERSIONS = { deno: "2.9.6", bun: "1.4.5", node: "24.21.0" } as const;

/** A runtime by its name. */
export type RuntimeName = keyof typeof VERSIONS;

/** All of them. */
export const RUNTIMES: readonly RuntimeName[] = ["deno", "bun", "node"];

const found = new Map<RuntimeName, string>();

/** The path of a runtime's executable at the pinned version. */
export function runtimePath(name: RuntimeName): string {
  let path = found.get(name);
  if (path === undefined) {
    path = onPath(name) ?? fromNpm(name);
    found.set(name, path);
  }
  return path;
}

/** The command line that runs a TypeScript file on a runtime. */
export function runCommand(name: RuntimeName, file: string, args: string[] = []): string[] {
  const path = runtimePath(name);
  switch (name) {
    case "deno":
      return [path, "run", "-A", "--quiet", file, ...args];
    case "bun":
      return [path, "run", file, ...args];
    case "node":
      return [path, "--disable-warning=ExperimentalWarning", file, ...args];
  }
}

/** Runs a command with its output shown and returned; never rejects. What is late is killed. */
export function run(
  command: string[],
  options: {
    quiet?: boolean;
    env?: Record<string, string>;
    cwd?: string;
    limitMs?: number;
  } = {},
): Promise<{ code: number; output: string }> {
  return new Promise((resolve) => {
    const child = spawn(command[0]!, command.slice(1), {
      stdio: ["ignore", "pipe", "pipe"],
      env: { ...process.env, NO_COLOR: "1", ...options.env },
      ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
    });
    let output = "";
    const take = (chunk: unknown) => {
      output += String(chunk);
      if (!options.quiet) process.stdout.write(String(chunk));
    };
    child.stdout.on("data", take);
    child.stderr.on("data", take);
    const { limitMs } = options;
    const timer = limitMs === undefined ? undefined : setTimeout(() => {
      take(`\nkilled: not done within ${limitMs} ms\n`);
      child.kill("SIGKILL");
    }, limitMs);
    child.on("error", (error) => resolve({ code: 127, output: `${output}${error.message}` }));
    child.on("close", (code) => {
      clearTimeout(timer);
      resolve({ code: code ?? 1, output });
    });
  });
}

function onPath(name: RuntimeName): string | undefined {
  for (const candidate of name === "node" ? ["node", "node24"] : [name]) {
    const result = spawnSync(candidate, ["--version"], { encoding: "utf8" });
    const words = (result.stdout ?? "").split(/\s/).map((word) => word.replace(/^v/, ""));
    if (!words.includes(VERSIONS[name])) continue;
    return spawnSync("sh", ["-c", `command -v ${candidate}`], { encoding: "utf8" }).stdout.trim();
  }
  return undefined;
}

function fromNpm(name: RuntimeName): string {
  const spec = `${name}@${VERSIONS[name]}`;
  const result = spawnSync("npx", ["-y", "-p", spec, "-c", `command -v ${name}`], {
    encoding: "utf8",
  });
  const path = result.stdout.trim().split("\n").at(-1) ?? "";
  if (result.status !== 0 || path === "") {
    throw new Error(`Cannot get ${spec} from npm: ${result.stderr}`);
  }
  return path;
}
