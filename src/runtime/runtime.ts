import { readFile } from "node:fs/promises";
export interface Runtime {
  name: "deno" | "bun" | "node";
  version: string;
  readTextFile(path: string): Promise<string>;
  fileDescriptorLimit(): number | undefined;
}
export function detectRuntime(): Runtime {
  return {
    name: "node",
    version: "",
    readTextFile: (p) => readFile(p, "utf8"),
    fileDescriptorLimit: () => undefined,
  };
}
