/** Rows 1 to 6 and 9: what arrives is not a frame, or not all of it. */

import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { inScene, residentMiB, type Scene, within } from "./harness.ts";
import type { RawPeer } from "./raw_peer.ts";
import { bytes, frame, header, hello, helloText, join, messageV2 } from "./wire.ts";

const MAX_MESSAGE = 16_777_216;
const TIMEOUT_MS = 300;
const V1 = { protocol_version: 1 };
const V2 = { protocol_version: 2 };

/** Lets the attacker in, or not, and has it write. */
function write(scene: Scene, who: Record<string, unknown> | undefined, content: Uint8Array) {
  return async (): Promise<RawPeer> => {
    const peer = who === undefined ? await scene.attacker() : await scene.insider(who);
    await peer.write(content);
    return peer;
  };
}

describe("1. a length above the limit is refused from the header alone", () => {
  const cases: [string, Record<string, unknown> | undefined, number][] = [
    ["0xffffffff before the handshake", undefined, 0xffff_ffff],
    ["0x80000000 before the handshake", undefined, 0x8000_0000],
    ["4097 before the handshake", undefined, 4097],
    ["0xffffffff in version 1", V1, 0xffff_ffff],
    ["0xffffffff in version 2", V2, 0xffff_ffff],
    ["limit + 1 in version 1", V1, MAX_MESSAGE + 1],
    ["limit + 2 in version 2, whose flags are one byte", V2, MAX_MESSAGE + 2],
    ["the dialer's own smaller limit + 1", { ...V1, max_message_size: 100 }, 101],
  ];
  for (const [name, who, length] of cases) {
    it(
      `1. ${name}`,
      inScene({}, async (scene) => {
        await scene.refuses({ code: "InvalidFrame" }, write(scene, who, header(length)));
        assert.deepEqual(scene.delivered, []);
      }),
    );
  }

  it(
    "1. the limits themselves are served",
    inScene({}, async (scene) => {
      const padding = "x".repeat(4096 - helloText({ padding: "" }).length);
      const peer = await scene.insider({ ...V2, padding });
      await peer.write(messageV2(new Uint8Array(MAX_MESSAGE)));
      await scene.when(() => scene.delivered.length === 1, 5_000, () => "nothing delivered");
      assert.equal(scene.delivered[0]!.text.length, MAX_MESSAGE);
    }),
  );
});

describe("2. a length at the limit, then silence", () => {
  const victim = { connectTimeoutMs: TIMEOUT_MS, ioTimeoutMs: TIMEOUT_MS };

  for (const [name, who] of [["version 1", V1], ["version 2", V2]] as const) {
    it(
      `2. ${name}: ends at the deadline of a frame that has begun`,
      inScene({ victim }, async (scene) => {
        await scene.refuses(
          { code: "Timeout", withinMs: TIMEOUT_MS + 1_000 },
          write(scene, who, header(MAX_MESSAGE)),
        );
      }),
    );
  }

  it(
    "2. before the handshake: ends at the handshake's deadline",
    inScene({ victim }, async (scene) => {
      await scene.refuses(
        { code: "Timeout", withinMs: TIMEOUT_MS + 1_000 },
        write(scene, undefined, header(4096)),
      );
    }),
  );

  it(
    "2. a connection that is silent between frames is not ended",
    inScene({ victim }, async (scene) => {
      const peer = await scene.insider(V2);
      await scene.refuses(
        { code: "Timeout", withinMs: TIMEOUT_MS + 1_000 },
        write(scene, { node_id: "m2" }, header(MAX_MESSAGE)),
      );
      await peer.write(messageV2("still here"));
      await scene.when(() => scene.delivered.length === 1, 1_000, () => "nothing delivered");
    }),
  );

  it(
    "2. forty claims of 16 MiB take no memory ahead of the bytes",
    inScene({}, async (scene) => {
      const claims = async (id: string) => {
        for (let i = 0; i < 20; i++) {
          await write(scene, { node_id: `${id}${i}` }, header(MAX_MESSAGE))();
        }
        await scene.beats();
      };
      await claims("warm");
      const before = residentMiB();
      await claims("m");
      const grown = residentMiB() - before;
      assert.ok(grown < 8, `${grown.toFixed(1)} MiB`);
    }),
  );
});

describe("3. a length of 0", () => {
  for (const [name, who] of [["the handshake", undefined], ["1", V1], ["2", V2]] as const) {
    it(
      `3. in ${who === undefined ? name : `version ${name}`}`,
      inScene({}, async (scene) => {
        await scene.refuses({ code: "InvalidFrame" }, write(scene, who, header(0)));
      }),
    );
  }

  it(
    "3. between two messages: the first arrives, the second does not",
    inScene({}, async (scene) => {
      const content = join(messageV2("before"), header(0), messageV2("after"));
      await scene.refuses({ code: "InvalidFrame" }, write(scene, V2, content));
      assert.deepEqual(scene.delivered, [{ from: "mallory", text: "before" }]);
    }),
  );
});

describe("4. an unknown version", () => {
  it(
    "4. above ours is served with ours",
    inScene({}, async (scene) => {
      const peer = await scene.attacker();
      await peer.write(hello({ protocol_version: 99 }));
      assert.equal((await peer.answer()).protocol_version, 3);
    }),
  );

  it(
    "4. above ours is served with ours, where that is version 2",
    inScene({ everybody: { maxProtocolVersion: 2 } }, async (scene) => {
      const peer = await scene.attacker();
      await peer.write(hello({ protocol_version: 99 }));
      assert.equal((await peer.answer()).protocol_version, 2);
    }),
  );

  it(
    "4. that excludes ours is answered VERSION_MISMATCH",
    inScene({}, async (scene) => {
      const fields = { protocol_version: 99, min_protocol_version: 4 };
      let answer: Record<string, unknown> = {};
      await scene.refuses({ code: "HandshakeFailed" }, async () => {
        const peer = await scene.attacker();
        await peer.write(hello(fields));
        answer = await peer.answer();
        return peer;
      });
      assert.equal(answer.code, "VERSION_MISMATCH");
    }),
  );
});

describe("5. a reserved bit", () => {
  const flags = [...[1, 2, 3, 4, 5, 6, 7].map((bit) => 1 << bit), 0x03, 0x81, 0xfe, 0xff];
  for (const flag of flags) {
    it(
      `5. flags 0x${flag.toString(16).padStart(2, "0")} in version 2`,
      inScene({}, async (scene) => {
        const content = join(messageV2("before"), messageV2("secret", flag), messageV2("after"));
        await scene.refuses({ code: "InvalidFrame" }, write(scene, V2, content));
        assert.deepEqual(scene.delivered, [{ from: "mallory", text: "before" }]);
      }),
    );
  }
});

describe("6. one byte at a time", () => {
  it(
    "6. 10,000 frames make the same messages, in linear time",
    inScene({}, async (scene) => {
      const frames = 10_000;
      const content = join(...Array.from({ length: frames }, (_, i) => frame(bytes(`${i}`))));
      const peer = await scene.insider(V1);
      const halves: number[] = [];
      let started = performance.now();
      for (let at = 0; at < content.length; at++) {
        await peer.write(content.subarray(at, at + 1));
        if (at !== content.length >> 1 && at !== content.length - 1) continue;
        halves.push(performance.now() - started);
        started = performance.now();
      }
      await scene.when(() => scene.delivered.length === frames, 5_000, () => "frames are missing");
      assert.ok(scene.delivered.every(({ text }, i) => text === `${i}`));
      const [first, second] = halves as [number, number];
      assert.ok(second < 3 * first + 200, `${first} ms, then ${second} ms`);
    }),
  );

  it(
    "6. one frame of 30,000 bytes",
    inScene({}, async (scene) => {
      const content = frame(Uint8Array.from({ length: 30_000 }, (_, i) => 0x61 + i % 26));
      const peer = await scene.insider(V1);
      for (let at = 0; at < content.length; at++) await peer.write(content.subarray(at, at + 1));
      await scene.when(() => scene.delivered.length === 1, 1_000, () => "nothing delivered");
      assert.equal(scene.delivered[0]!.text, new TextDecoder().decode(content.subarray(4)));
    }),
  );
});

describe("9. a cut inside a frame: nothing partial is delivered", () => {
  const cuts: [string, Uint8Array, Uint8Array][] = [
    ["inside a header", messageV2("whole"), header(100).subarray(0, 2)],
    ["after a header", messageV2("whole"), header(100)],
    ["inside a body", messageV2("whole"), messageV2("partial").subarray(0, 8)],
  ];
  for (const [name, whole, part] of cuts) {
    it(
      `9. FIN ${name}`,
      inScene({}, async (scene) => {
        await scene.refuses({ code: "InvalidFrame" }, async () => {
          const peer = await scene.insider(V2);
          await peer.write(whole, part);
          peer.end();
          return peer;
        });
        assert.deepEqual(scene.delivered, [{ from: "mallory", text: "whole" }]);
      }),
    );

    it(
      `9. RST ${name}`,
      inScene({}, async (scene) => {
        const error = await scene.refuses({ code: "ConnectionClosed" }, async () => {
          const peer = await scene.insider(V2);
          await peer.write(whole);
          await scene.when(() => scene.delivered.length === 1, 1_000, () => "nothing delivered");
          await peer.write(part);
          peer.reset();
          return peer;
        });
        assert.equal(error?.peer ?? "mallory", "mallory");
        assert.equal(scene.delivered.length, 1);
      }),
    );
  }

  const half = hello().subarray(0, 30);
  for (
    const [name, content] of [["before a hello", bytes("")], ["inside a hello", half]] as const
  ) {
    it(
      `9. FIN ${name}`,
      inScene({}, async (scene) => {
        await scene.refuses({ code: "HandshakeFailed" }, async () => {
          const peer = await scene.attacker();
          if (content.length > 0) await peer.write(content);
          peer.end();
          return peer;
        });
      }),
    );
  }

  it(
    "9. TCP FIN without a TLS close_notify inside a frame",
    inScene({ strict: true }, async (scene) => {
      const material = { ...await scene.credentials("mallory"), ca: scene.ca.ca };
      await scene.refuses({ code: "InvalidFrame" }, async () => {
        const peer = await scene.insider(V2, { tls: material });
        await peer.write(messageV2("whole"), messageV2("partial").subarray(0, 8));
        await scene.when(() => scene.delivered.length === 1, 1_000, () => "nothing delivered");
        peer.close();
        return peer;
      });
      assert.equal(scene.delivered.length, 1);
    }),
  );

  it(
    "9. FIN between frames is the end in order",
    inScene({}, async (scene) => {
      const peer = await scene.insider(V2);
      await peer.write(messageV2("one"), messageV2("two"));
      peer.end();
      await within(1_000, peer.gone, "not ended");
      await scene.beats();
      assert.deepEqual(scene.delivered.map(({ text }) => text), ["one", "two"]);
      assert.deepEqual(scene.reported, []);
    }),
  );
});
