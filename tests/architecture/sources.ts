/** The layers of src/ and what may import what; read by layers_check.ts with the files' texts. */

/** Folder or file of src/ -> what it may import, as prefixes below src/. */
export const ALLOWED: Record<string, readonly string[]> = {
  "protocol/": ["protocol/", "errors.ts"],
  "runtime/": ["runtime/", "errors.ts", "transport/transport.ts", "transport/address.ts", "protocol/message.ts"],
  "transport/": ["transport/", "runtime/", "errors.ts"],
  "peer/": [
    "peer/",
    "protocol/",
    "errors.ts",
    "options.ts",
    "stats.ts",
    "runtime/environment.ts",
    "transport/transport.ts",
  ],
};

/** What the pure core may not name: the outside world comes in as arguments. */
export const IMPURE =
  /\b(?:Date\.now|new Date\(\)|performance\.|Math\.random|setTimeout|setInterval|queueMicrotask|Deno\.|Bun\.|process\.|globalThis|fetch\()|from "node:|import\("/;
