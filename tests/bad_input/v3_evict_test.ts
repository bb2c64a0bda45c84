/** Row 25 in version 3: hellos that do not say which process they are of. */

import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { inScene } from "./harness.ts";
import { hello } from "./wire.ts";
import { helloV3 } from "./wire_v3.ts";

describe("25. a hello without an incarnation, in the name of a node that is connected", () => {
  const unnamed = { node_id: "canary", incarnation: undefined };
  const hellos: [string, Uint8Array][] = [
    ["version 3", helloV3(unnamed)],
    ["version 3, without a generation", helloV3({ ...unnamed, session_generation: undefined })],
    ["version 3, without sessions", helloV3({ ...unnamed, capabilities: [] })],
    ["version 2", hello({ node_id: "canary" })],
    ["version 1", hello({ node_id: "canary", protocol_version: 1 })],
  ];
  for (const [name, content] of hellos) {
    it(
      `25. ${name}: is turned away, and the canary's session goes on`,
      inScene({}, async (scene) => {
        let answer: Record<string, unknown> = {};
        await scene.refuses({ code: "HandshakeFailed" }, async () => {
          const peer = await scene.attacker();
          await peer.write(content);
          answer = await peer.answer();
          return peer;
        });
        assert.deepEqual([answer.type, answer.code], ["reject", "DUPLICATE_NODE_ID"]);
      }),
    );
  }
});
