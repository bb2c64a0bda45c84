/**
 * Bun. Its `node:net` is as fast as `Bun.listen` and its `node:tls` faster (one-way, 64 KiB writes:
 * 1.7 and 1.7 GB/s plain, 1.9 and 1.5 GB/s with mutual TLS), so that sockets are those of Node.
 *
 * @module
 */

import { readFile } from "node:fs/promises";
import { connectNode } from "./node_connect.ts";
import { listenNode } from "./node_listen.ts";
import { readDescriptorLimit } from "./node.ts";
import type { Runtime } from "./sockets.ts";

/** The part of Bun's global that is used here. */
interface BunGlobal {
  readonly version: string;
}

/** The library's view of Bun. */
export const bunRuntime: Runtime = {
  name: "bun",
  get version(): string {
    return (globalThis as { Bun?: BunGlobal }).Bun?.version ?? "";
  },
  connect: connectNode,
  listen: listenNode,
  readTextFile: (path) => readFile(path, "utf8"),
  fileDescriptorLimit: readDescriptorLimit,
};
