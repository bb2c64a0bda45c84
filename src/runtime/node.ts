/**
 * Node: `node:net` and `node:tls`.
 *
 * @module
 */

import { readFileSync } from "node:fs";
import { readFile } from "node:fs/promises";
import process from "node:process";
import { LIMITS_FILE, parseDescriptorLimit } from "./descriptor_limit.ts";
import { connectNode } from "./node_connect.ts";
import { listenNode } from "./node_listen.ts";
import type { Runtime } from "./sockets.ts";

/** The library's view of Node. */
export const nodeRuntime: Runtime = {
  name: "node",
  version: process.versions.node,
  connect: connectNode,
  listen: listenNode,
  readTextFile: (path) => readFile(path, "utf8"),
  fileDescriptorLimit: readDescriptorLimit,
};

/** The soft limit of this process; undefined where the system has no such file. */
export function readDescriptorLimit(): number | undefined {
  try {
    return parseDescriptorLimit(readFileSync(LIMITS_FILE, "utf8"));
  } catch {
    return undefined;
  }
}
