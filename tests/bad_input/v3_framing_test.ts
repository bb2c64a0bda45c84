/** Rows 1 to 6, 9 and 10 in version 3: what arrives is not a frame, or not all of it. */

import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { ErrorCode } from "../../mod.ts";
import { inScene, residentMiB, type Scene, within } from "./harness.ts";
import { bytes, frame, header, join } from "./wire.ts";
import {
  ackEntry,
  bodyV3,
  failure,
  type FrameV3,
  frameV3,
  helloFieldsV3,
  nextOfKind,
  ref,
  topicOf,
  u32,
} from "./wire_v3.ts";

const MAX_MESSAGE = 16_777_216;
const OVERHEAD = 512;
const TIMEOUT_MS = 300;

/** What an attacker may have negotiated. */
const MODES = {
  "without capabilities": [],
  "with resume": ["resume", "streams"],
  "with checksums": ["resume", "streams", "checksum"],
} as const;
type Mode = keyof typeof MODES;

/** Makes frames that fit the mode. */
type Make = (parts?: FrameV3) => Uint8Array;

interface Case {
  readonly name: string;
  /** What is written after one good message, number 1 of the normal lane. */
  readonly content: (make: Make) => Uint8Array;
  readonly code?: ErrorCode;
}

function refusals(row: number, cases: readonly Case[]): void {
  for (const { name, content, code = "InvalidFrame" } of cases) {
    for (const mode of Object.keys(MODES) as Mode[]) {
      it(
        `${row}. ${name}, ${mode}`,
        inScene({}, (scene) => isRefused(scene, mode, content, code)),
      );
    }
  }
}

async function isRefused(
  scene: Scene,
  mode: Mode,
  content: (make: Make) => Uint8Array,
  code: ErrorCode,
): Promise<void> {
  const checksum = mode === "with checksums";
  const make: Make = (parts) => frameV3({ checksum, ...parts });
  await scene.refuses({ code }, async () => {
    const peer = await scene.insider(helloFieldsV3({ capabilities: MODES[mode] }));
    await peer.write(
      make({ payload: "before" }),
      content(make),
      make({ id: 2, payload: "after" }),
      make({ id: 3, payload: "after" }),
    );
    return peer;
  });
  assert.deepEqual(scene.delivered, [{ from: "mallory", text: "before" }]);
}

describe("1. a length above the limit is refused from the header alone, in version 3", () => {
  const lengths: [string, Record<string, unknown>, number][] = [
    ["0xffffffff", {}, 0xffff_ffff],
    ["0x80000000", {}, 0x8000_0000],
    ["the limit + 1", {}, MAX_MESSAGE + OVERHEAD + 1],
    ["the dialer's own smaller limit + 1", { max_message_size: 100 }, 100 + OVERHEAD + 1],
  ];
  for (const [name, fields, length] of lengths) {
    it(
      `1. ${name}`,
      inScene({}, async (scene) => {
        await scene.refuses({ code: "InvalidFrame" }, async () => {
          const peer = await scene.insider(helloFieldsV3(fields));
          await peer.write(header(length));
          return peer;
        });
        assert.deepEqual(scene.delivered, []);
      }),
    );
  }

  it(
    "1. the largest message with the largest topic is served in one frame",
    inScene({}, async (scene) => {
      const peer = await scene.insider(helloFieldsV3());
      const payload = join(topicOf("t".repeat(255)), new Uint8Array(MAX_MESSAGE));
      await peer.write(frameV3({ topic: true, payload }));
      await scene.when(() => scene.delivered.length === 1, 5_000, () => "nothing delivered");
      assert.equal(scene.delivered[0]!.text.length, MAX_MESSAGE);
    }),
  );

  it(
    "1. a message one byte above the limit in a frame that is not",
    inScene({}, async (scene) => {
      await scene.refuses({ code: "InvalidFrame", withinMs: 5_000 }, async () => {
        const peer = await scene.insider(helloFieldsV3({ max_message_size: 100 }));
        await peer.write(frameV3({ payload: new Uint8Array(101) }));
        return peer;
      });
      assert.deepEqual(scene.delivered, []);
    }),
  );
});

describe("2. a length at the limit, then silence, in version 3", () => {
  it(
    "2. ends at the deadline of a frame that has begun",
    inScene({ victim: { ioTimeoutMs: TIMEOUT_MS } }, async (scene) => {
      await scene.refuses({ code: "Timeout", withinMs: TIMEOUT_MS + 1_000 }, async () => {
        const peer = await scene.insider(helloFieldsV3());
        await peer.write(header(MAX_MESSAGE));
        return peer;
      });
    }),
  );

  it(
    "2. nothing is allocated ahead of the bytes",
    inScene({ victim: { maxConnectionsPerHost: 200 } }, async (scene) => {
      const claims = async (who: string) => {
        for (let i = 0; i < 40; i++) {
          const peer = await scene.insider(helloFieldsV3({ node_id: `${who}${i}` }));
          await peer.write(header(MAX_MESSAGE), bodyV3({}).subarray(0, 5));
        }
        await scene.beats();
      };
      await claims("a");
      const before = residentMiB();
      await claims("b");
      const grown = residentMiB() - before;
      assert.ok(grown < 8, `${grown.toFixed(1)} MiB`);
    }),
  );
});

describe("3. a length of 0, in version 3", () => {
  refusals(3, [{ name: "between two messages", content: () => header(0) }]);
});

describe("4. an unknown version, kind, lane or compression", () => {
  refusals(4, [
    ...[0, 1, 2, 4, 7, 15].map((version) => ({
      name: `version ${version}`,
      content: (make: Make) => make({ id: 2, version }),
    })),
    { name: "kind 14", content: (make) => make({ kind: "routed", id: 2, payload: "x" }) },
    { name: "kind 15", content: (make) => make({ kind: "control", id: 2, payload: "x" }) },
    { name: "lane 3", content: (make) => make({ lane: 3, id: 2 }) },
    ...[3, 4, 5, 6, 7].map((compression) => ({
      name: `compression ${compression}`,
      content: (make: Make) => make({ id: 2, compression, payload: "\x01\0\0\0x" }),
    })),
    ...[1, 2].map((compression) => ({
      name: `compression ${compression}, not negotiated`,
      content: (make: Make) => make({ id: 2, compression, payload: "\x01\0\0\0\x10x" }),
    })),
    ...[0, 1, 9].map((length) => ({
      name: `a body of ${length + 1} bytes`,
      content: () => frame(new Uint8Array(length + 1).fill(3)),
    })),
    {
      name: "a message of version 2",
      content: () => frame(join(Uint8Array.of(0), bytes("version 2"))),
    },
    { name: "a second hello", content: () => frame('{"type":"hello"}') },
  ]);
});

describe("5. a bit where none may be, a number that is none", () => {
  const unsequenced = ["ping", "pong", "ack", "goaway"] as const;
  const payloads = {
    ping: "",
    pong: "",
    ack: ackEntry(1, 0),
    goaway: Uint8Array.of(0, 1),
  };
  const topicless = [
    "response",
    "error",
    "cancel",
    "streamData",
    "end",
    "reset",
    "window",
  ] as const;
  refusals(5, [
    ...unsequenced.flatMap((kind) => [
      {
        name: `${kind} with more to come`,
        content: (make: Make) => make({ kind, more: true, payload: payloads[kind] }),
      },
      {
        name: `${kind} in a lane`,
        content: (make: Make) => make({ kind, lane: 1, payload: payloads[kind] }),
      },
      {
        name: `${kind} with a topic`,
        content: (make: Make) =>
          make({ kind, topic: true, payload: join(topicOf("t"), bytes(payloads[kind])) }),
      },
    ]),
    ...topicless.map((kind) => ({
      name: `${kind} with a topic`,
      content: (make: Make) =>
        make({ kind, id: 2, topic: true, payload: join(topicOf("t"), ref(1)) }),
    })),
    {
      name: "an ack with an id",
      content: (make) => make({ kind: "ack", id: 1, payload: ackEntry(1, 0) }),
    },
    {
      name: "a goaway with an id",
      content: (make) => make({ kind: "goaway", id: 1, payload: [0, 1] }),
    },
    { name: "a ping with a payload", content: (make) => make({ kind: "ping", payload: "x" }) },
    { name: "a pong with a payload", content: (make) => make({ kind: "pong", payload: "x" }) },
    { name: "number 0", content: (make) => make({ id: 0 }) },
    { name: "a gap of one", content: (make) => make({ id: 3 }) },
    { name: "a gap in a lane of its own", content: (make) => make({ lane: 2, id: 2 }) },
    { name: "a number above 2^53", content: (make) => make({ id: 2n ** 53n }) },
    { name: "the largest number", content: (make) => make({ id: 2n ** 64n - 1n }) },
    { name: "an empty ack", content: (make) => make({ kind: "ack" }) },
    {
      name: "an ack of 8 bytes",
      content: (make) => make({ kind: "ack", payload: new Uint8Array(8) }),
    },
    {
      name: "an ack of one entry and a half",
      content: (make) => make({ kind: "ack", payload: new Uint8Array(14) }),
    },
    {
      name: "an ack of lane 3",
      content: (make) => make({ kind: "ack", payload: ackEntry(3, 0) }),
    },
    {
      name: "an ack of a million entries",
      content: (make) => make({ kind: "ack", payload: new Uint8Array(9_000_000) }),
    },
    {
      name: "an ack of what was never sent",
      content: (make) => make({ kind: "ack", payload: ackEntry(0, 1) }),
    },
    {
      name: "an ack of all there can be",
      content: (make) => make({ kind: "ack", payload: ackEntry(1, 2n ** 64n - 1n) }),
    },
    { name: "a goaway without a code", content: (make) => make({ kind: "goaway", payload: [0] }) },
    {
      name: "a goaway with code 3",
      content: (make) => make({ kind: "goaway", payload: "\0\x03because" }),
    },
    {
      name: "a goaway with code 65535 and a reason that would write into a log",
      content: (make) =>
        make({
          kind: "goaway",
          payload: join(Uint8Array.of(255, 255), bytes(`\x1b[2J\r\n${"x".repeat(70_000)}`)),
        }),
    },
  ]);

  it(
    "5. a checksum where none was negotiated",
    inScene({}, (scene) =>
      isRefused(
        scene,
        "with resume",
        () => frameV3({ id: 2, checksum: true }),
        "InvalidFrame",
      )),
  );

  it(
    "5. no checksum where one was negotiated",
    inScene({}, (scene) =>
      isRefused(
        scene,
        "with checksums",
        () => frameV3({ id: 2, checksum: false }),
        "InvalidFrame",
      )),
  );
});

describe("5. a topic or a payload that does not fit its kind", () => {
  refusals(5, [
    { name: "no topic", content: (make) => make({ id: 2, topic: true }) },
    { name: "an empty topic", content: (make) => make({ id: 2, topic: true, payload: [0] }) },
    {
      name: "a topic that is cut off",
      content: (make) => make({ id: 2, topic: true, payload: "\x05raft" }),
    },
    {
      name: "a topic of 255 bytes that is cut off",
      content: (make) => make({ id: 2, topic: true, payload: [255, ...Array(254).fill(97)] }),
    },
    ...[[0xff], [0xc0, 0x80], [0xed, 0xa0, 0x80], [0xf4, 0x90, 0x80, 0x80], [0xc3]].map((
      topic,
    ) => ({
      name: `a topic that is no UTF-8, ${topic.join(" ")}`,
      content: (make: Make) =>
        make({ id: 2, topic: true, payload: join(topicOf(Uint8Array.from(topic)), bytes("x")) }),
    })),
    {
      name: "a request without its milliseconds",
      content: (make) => make({ kind: "request", id: 2, payload: [0, 0, 0] }),
    },
    ...(["response", "error", "cancel", "streamData", "end", "reset", "window"] as const).map((
      kind,
    ) => ({
      name: `${kind} with 7 bytes of its id`,
      content: (make: Make) => make({ kind, id: 2, payload: new Uint8Array(7) }),
    })),
    {
      name: "a cancel with a byte too many",
      content: (make) =>
        join(
          make({ kind: "request", id: 2, payload: u32(0) }),
          make({ kind: "cancel", id: 3, payload: ref(2, "x") }),
        ),
    },
  ]);

  const afterOpen: Case[] = [
    { name: "an end with a byte too many", content: (make) => of(make, "end", "x") },
    {
      name: "a window of 3 bytes",
      content: (make) => of(make, "window", "abc"),
    },
    { name: "a window of 5 bytes", content: (make) => of(make, "window", "abcde") },
    { name: "a reset that says nothing", content: (make) => of(make, "reset", "") },
    { name: "a reset that is no JSON", content: (make) => of(make, "reset", "no") },
    { name: "a reset that is an array", content: (make) => of(make, "reset", "[]") },
    { name: "a reset without a message", content: (make) => of(make, "reset", '{"code":"A"}') },
    { name: "a reset whose code is a number", content: (make) => of(make, "reset", failure(7)) },
    {
      name: "a reset with its fields in __proto__",
      content: (make) => of(make, "reset", '{"__proto__":{"code":"A","message":""}}'),
    },
    {
      name: "a reset with a key twice",
      content: (make) => of(make, "reset", '{"code":"A","code":"B","message":""}'),
    },
    {
      name: "a reset of depth 9",
      content: (make) =>
        of(make, "reset", `{"code":"A","message":"","x":${"[".repeat(8)}${"]".repeat(8)}}`),
    },
    {
      name: "a reset of depth 30,000",
      content: (make) => of(make, "reset", `{"x":${"[".repeat(30_000)}${"]".repeat(30_000)}}`),
    },
    {
      name: "a reset that is no UTF-8",
      content: (make) =>
        of(make, "reset", join(bytes('{"code":"'), Uint8Array.of(0xff), bytes('","message":""}'))),
    },
    {
      name: "a reset of 65,537 bytes",
      content: (make) => of(make, "reset", failure("A", "x".repeat(65_537))),
    },
  ];
  for (const { name, content } of afterOpen) {
    it(
      `5. ${name}`,
      inScene({}, async (scene) => {
        scene.victim.onStream(undefined, () => new Promise<void>(() => {}));
        await scene.refuses({ code: "InvalidFrame" }, async () => {
          const peer = await scene.insider(helloFieldsV3());
          await peer.write(frameV3({ kind: "open" }), content(frameV3), frameV3({ id: 3 }));
          return peer;
        });
        assert.deepEqual(scene.delivered, []);
      }),
    );
  }

  /** A frame of stream 1, number 2 in its lane. */
  function of(make: Make, kind: "end" | "window" | "reset", rest: string | Uint8Array): Uint8Array {
    return make({ kind, id: 2, payload: ref(1, rest) });
  }
});

describe("6. one byte at a time, in version 3", () => {
  it(
    "6. 5,000 frames make the same messages, in linear time",
    inScene({}, async (scene) => {
      const frames = 5_000;
      const content = join(
        ...Array.from({ length: frames }, (_, i) => frameV3({ id: i + 1, payload: `${i}` })),
      );
      const peer = await scene.insider(helloFieldsV3());
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
      assert.ok(second < 3 * first + 500, `${first} ms, then ${second} ms`);
    }),
  );
});

describe("9. a wrong checksum, or a cut: nothing partial is delivered, in version 3", () => {
  const good = bodyV3({ id: 2, checksum: true, payload: "secret" });
  for (let at = 0; at < good.length; at++) {
    it(
      `9. one bit of byte ${at} is wrong`,
      inScene({}, (scene) =>
        isRefused(scene, "with checksums", () => {
          const damaged = good.slice();
          damaged[at]! ^= 1 << at % 8;
          return frame(damaged);
        }, "InvalidFrame")),
    );
  }

  it(
    "9. a checksum of zeros",
    inScene({}, (scene) =>
      isRefused(scene, "with checksums", () => {
        return frame(join(good.subarray(0, -4), new Uint8Array(4)));
      }, "InvalidFrame")),
  );

  it(
    "9. a checksum that is cut off",
    inScene({}, (scene) =>
      isRefused(
        scene,
        "with checksums",
        () => frame(good.subarray(0, -1)),
        "InvalidFrame",
      )),
  );

  for (const cut of [2, 4, 9, 15]) {
    it(
      `9. FIN after ${cut} bytes of a frame`,
      inScene({}, async (scene) => {
        await scene.refuses({ code: "InvalidFrame" }, async () => {
          const peer = await scene.insider(helloFieldsV3());
          const next = frameV3({ id: 2, payload: "partial" });
          await peer.write(frameV3({ payload: "whole" }), next.subarray(0, cut));
          peer.end();
          return peer;
        });
        assert.deepEqual(scene.delivered, [{ from: "mallory", text: "whole" }]);
      }),
    );

    it(
      `9. RST after ${cut} bytes of a frame`,
      inScene({}, async (scene) => {
        await scene.refuses({ code: "ConnectionClosed" }, async () => {
          const peer = await scene.insider(helloFieldsV3());
          await peer.write(frameV3({ payload: "whole" }));
          await scene.when(() => scene.delivered.length === 1, 1_000, () => "nothing delivered");
          await peer.write(frameV3({ id: 2, payload: "partial" }).subarray(0, cut));
          peer.reset();
          return peer;
        });
        assert.equal(scene.delivered.length, 1);
      }),
    );
  }

  it(
    "9. FIN between two fragments of a message",
    inScene({}, async (scene) => {
      const peer = await scene.insider(helloFieldsV3());
      await peer.write(
        frameV3({ payload: "whole" }),
        frameV3({ id: 2, more: true, payload: "partial" }),
      );
      peer.end();
      await within(1_000, peer.gone, "not ended");
      await scene.beats();
      assert.deepEqual(scene.delivered, [{ from: "mallory", text: "whole" }]);
      // Who ends in order says goaway before.
      assert.deepEqual(scene.reported.map(({ code }) => code), ["ConnectionClosed"]);
    }),
  );
});

describe("10. a flood of the smallest legal frames", () => {
  const floods: [string, (i: number) => Uint8Array][] = [
    ["empty messages", (i) => frameV3({ id: i + 1 })],
    ["the same message again and again", () => frameV3()],
    ["pongs that nobody asked for", (i) => frameV3({ kind: "pong", id: i })],
    ["acks of nothing", () => frameV3({ kind: "ack", payload: ackEntry(1, 0) })],
    ["goaways", () => frameV3({ kind: "goaway", payload: [0, 1] })],
  ];
  for (const [name, make] of floods) {
    it(
      `10. ${name}: others are served, and nothing is left of it`,
      inScene({}, async (scene) => {
        const peer = await scene.insider(helloFieldsV3());
        const frames = 100_000;
        const batch = 1_000;
        const before = residentMiB();
        for (let i = 0; i < frames; i += batch) {
          await peer.write(...Array.from({ length: batch }, (_, j) => make(i + j)));
        }
        await peer.write(frameV3({ kind: "ping", id: 7 }));
        const pong = await within(10_000, nextOfKind(peer, "pong"), "not answered");
        if (name !== "goaways") assert.equal(pong?.id, 7n);
        await scene.beats();
        assert.deepEqual(scene.victim.stats().errors, {});
        const grown = residentMiB() - before;
        assert.ok(grown < 200, `${grown.toFixed(1)} MiB`);
      }),
    );
  }
});
