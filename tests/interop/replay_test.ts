/** The simulated network replays a seed exactly, whatever runtime it runs on. */

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { describe, it } from "node:test";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { runCommand, RUNTIMES } from "../../tools/runtimes.ts";
import { mayRun } from "../support/may_run.ts";

const STORY = fileURLToPath(new URL("../testing/story.ts", import.meta.url));

describe("the simulated network", { skip: !mayRun() }, () => {
  it("has the same digest for the same seed on every runtime", async () => {
    const stories: string[] = [];
    for (const runtime of RUNTIMES) {
      const [command, ...args] = runCommand(runtime, STORY, ["5", "2"]);
      const { stdout } = await promisify(execFile)(command!, args);
      stories.push(stdout.trim());
    }
    const { digest, received } = JSON.parse(stories[0]!);
    assert.match(digest, /^[0-9a-f]{16}$/);
    assert.ok(received > 10_000, `${received} messages`);
    assert.deepEqual(stories, RUNTIMES.map(() => stories[0]));
  });
});
