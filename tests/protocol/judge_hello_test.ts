import { describe, it } from "node:test";
import assert from "node:assert/strict";
import type { RejectCode } from "../../src/errors.ts";
import { judgeHello, type LocalIdentity, parseHello } from "../../src/protocol/handshake.ts";
import { ReplayWindow } from "../../src/protocol/replay.ts";
import { nothingOfVersion3 } from "./agreements.ts";
import { identity, utf8 } from "./identities.ts";

const NOW = 1_700_000_000_000;
const MINIMAL = '{"type":"hello","protocol_version":2,"node_id":"a","capabilities":["lz4"]}';

const window = () => new ReplayWindow({ maxSkewMs: 300_000 });
const judge = (text: string, local: LocalIdentity, replay = window()) =>
  judgeHello(parseHello(utf8(text)), local, { wallClockMs: NOW, replay });

/** The minimal hello with further or other fields. */
function hello(changes: Record<string, unknown>): string {
  return JSON.stringify({ ...JSON.parse(MINIMAL), ...changes });
}

function rejection(text: string, local: LocalIdentity, replay?: ReplayWindow): RejectCode {
  const verdict = judge(text, local, replay);
  assert.ok("reject" in verdict, `accepted ${text}`);
  assert.match(verdict.reason, /^[ -~]{1,200}$/);
  return verdict.reject;
}

function accepted(text: string, local: LocalIdentity, replay?: ReplayWindow) {
  const verdict = judge(text, local, replay);
  assert.ok("accept" in verdict, `rejected ${JSON.stringify(verdict)}`);
  return verdict.accept;
}

describe("judgeHello", () => {
  it("accepts the minimal hello of docs/protocol.md", () => {
    assert.deepEqual(accepted(MINIMAL, identity()), {
      nodeId: "a",
      version: 2,
      capabilities: new Set(["lz4"]),
      maxMessageSize: 16_777_216,
      incarnation: undefined,
      keepaliveMs: undefined,
      ...nothingOfVersion3(16_842_752),
    });
  });

  it("takes over what the dialer says of itself", () => {
    const text = hello({
      incarnation: "FEDCBA9876543210",
      keepalive_ms: 30_000,
      max_message_size: 1000,
      capabilities: ["zstd", "resume", "constructor"],
    });
    assert.deepEqual(accepted(text, identity()), {
      nodeId: "a",
      version: 2,
      capabilities: new Set(),
      maxMessageSize: 1000,
      incarnation: "fedcba9876543210",
      keepaliveMs: 30_000,
      ...nothingOfVersion3(16_777_216),
    });
    assert.equal(
      accepted(hello({ max_message_size: 2 ** 53 - 1 }), identity()).maxMessageSize,
      2 ** 24,
    );
  });

  // dialer's lowest and highest, listener's lowest and highest, version chosen
  const versions: [number, number, number, number, 1 | 2 | 3 | undefined][] = [
    [1, 1, 1, 2, 1],
    [1, 2, 1, 2, 2],
    [2, 2, 1, 2, 2],
    [1, 3, 1, 2, 2],
    [2, 99, 1, 2, 2],
    [1, 2, 1, 1, 1],
    [1, 2, 2, 2, 2],
    [1, 1, 2, 2, undefined],
    [2, 2, 1, 1, undefined],
    [3, 3, 1, 2, undefined],
    [3, 9, 2, 2, undefined],
    [1, 3, 1, 3, 3],
    [3, 3, 3, 3, 3],
    [1, 99, 1, 3, 3],
    [1, 2, 1, 3, 2],
    [1, 1, 1, 3, 1],
    [1, 2, 3, 3, undefined],
    [4, 4, 1, 3, undefined],
    [4, 4, 1, 4, undefined],
  ];
  for (const [low, high, minVersion, maxVersion, chosen] of versions) {
    const name = `${low}..${high} met by ${minVersion}..${maxVersion}`;
    it(`answers versions ${name} with ${chosen ?? "VERSION_MISMATCH"}`, () => {
      const text = hello({ protocol_version: high, min_protocol_version: low });
      const local = identity({ minVersion, maxVersion });
      if (chosen === undefined) assert.equal(rejection(text, local), "VERSION_MISMATCH");
      else assert.equal(accepted(text, local).version, chosen);
    });
  }

  it("rejects a hello with our own node id as DUPLICATE_NODE_ID", () => {
    assert.equal(rejection(hello({ node_id: "b" }), identity()), "DUPLICATE_NODE_ID");
    assert.equal(accepted(hello({ node_id: "B" }), identity()).nodeId, "B");
  });

  it("rejects a dialer that means to reach another as NODE_ID_MISMATCH", () => {
    assert.equal(rejection(hello({ expect_node_id: "c" }), identity()), "NODE_ID_MISMATCH");
    assert.equal(rejection(hello({ expect_node_id: "" }), identity()), "NODE_ID_MISMATCH");
    accepted(hello({ expect_node_id: "b" }), identity());
  });

  it("rejects another cluster as CLUSTER_MISMATCH, none being a cluster too", () => {
    const blue = identity({ clusterName: "blue" });
    assert.equal(rejection(hello({ cluster_name: "green" }), blue), "CLUSTER_MISMATCH");
    assert.equal(rejection(MINIMAL, blue), "CLUSTER_MISMATCH");
    assert.equal(rejection(hello({ cluster_name: "blue" }), identity()), "CLUSTER_MISMATCH");
    accepted(hello({ cluster_name: "blue" }), blue);
    accepted(hello({ cluster_name: "" }), identity());
  });

  it("rejects a missing and a wrong token as AUTH_FAILED with the same reason", () => {
    const local = identity({ authToken: "s3cret-é" });
    const reasons = new Set<string>();
    const wrong = [
      "",
      "s3cret",
      "s3cret-",
      "s3cret-e",
      "s3cret-éé",
      "x".repeat(3000),
      "S3CRET-é",
      "s3cret-é\u0000",
    ];
    for (const text of [MINIMAL, ...wrong.map((auth_token) => hello({ auth_token }))]) {
      const verdict = judge(text, local);
      assert.ok("reject" in verdict && verdict.reject === "AUTH_FAILED", text.slice(0, 120));
      reasons.add(verdict.reason);
    }
    assert.equal(reasons.size, 1);
    assert.doesNotMatch([...reasons].join(), /s3cret/i);
    accepted(hello({ auth_token: "s3cret-é" }), local);
  });

  it("ignores a token it does not ask for", () => {
    accepted(hello({ auth_token: "anything" }), identity());
  });

  it("rejects a clock more than the skew away, either way, as STALE_TIMESTAMP", () => {
    for (const offset of [-300_000, -1, 0, 300_000]) {
      accepted(hello({ timestamp: NOW + offset }), identity());
    }
    for (const offset of [-300_001, 300_001, -NOW]) {
      assert.equal(rejection(hello({ timestamp: NOW + offset }), identity()), "STALE_TIMESTAMP");
    }
    const strict = identity({ maxClockSkewMs: 0 });
    accepted(hello({ timestamp: NOW }), strict);
    assert.equal(rejection(hello({ timestamp: NOW + 1 }), strict), "STALE_TIMESTAMP");
  });

  it("rejects a hello seen before as REPLAYED", () => {
    const replay = window();
    const text = hello({ timestamp: NOW, nonce: "AAECAwQFBgcICQoLDA0ODw==" });
    accepted(text, identity(), replay);
    assert.equal(rejection(text, identity(), replay), "REPLAYED");
    accepted(hello({ timestamp: NOW, nonce: "AQECAwQFBgcICQoLDA0ODw==" }), identity(), replay);
  });

  it("remembers nothing of a nonce without a timestamp, nor of the reverse", () => {
    const replay = window();
    for (const fields of [{ nonce: "AAECAwQFBgcICQoLDA0ODw==" }, { timestamp: NOW }]) {
      accepted(hello(fields), identity(), replay);
      accepted(hello(fields), identity(), replay);
    }
    assert.equal(replay.size, 0);
  });

  it("judges in order, and remembers the nonce only when all else is right", () => {
    const replay = window();
    const nonce = "AAECAwQFBgcICQoLDA0ODw==";
    const local = identity({ clusterName: "blue", authToken: "t" });
    const wrong: Record<string, unknown> = {
      protocol_version: 9,
      min_protocol_version: 9,
      node_id: "b",
      expect_node_id: "c",
      cluster_name: "green",
      auth_token: "x",
      timestamp: 1,
      nonce,
    };
    const repairs: [RejectCode, Record<string, unknown>][] = [
      ["VERSION_MISMATCH", { min_protocol_version: 1 }],
      ["DUPLICATE_NODE_ID", { node_id: "a" }],
      ["NODE_ID_MISMATCH", { expect_node_id: "b" }],
      ["CLUSTER_MISMATCH", { cluster_name: "blue" }],
      ["AUTH_FAILED", { auth_token: "t" }],
      ["STALE_TIMESTAMP", { timestamp: NOW }],
    ];
    for (const [code, repair] of repairs) {
      assert.equal(rejection(hello(wrong), local, replay), code);
      assert.equal(replay.size, 0);
      Object.assign(wrong, repair);
    }
    accepted(hello(wrong), local, replay);
    assert.equal(rejection(hello(wrong), local, replay), "REPLAYED");
  });

  it("agrees on every capability in version 3, and only on lz4 below", () => {
    const all = ["lz4", "zstd", "checksum", "resume", "streams", "signed"] as const;
    const local = identity({ maxVersion: 3, capabilities: all });
    const offered = [...all, "telepathy"];
    for (const [protocol_version, agreed] of [[1, ["lz4"]], [2, ["lz4"]], [3, all]] as const) {
      const { version, capabilities } = accepted(
        hello({ protocol_version, capabilities: offered }),
        local,
      );
      assert.equal(version, protocol_version);
      assert.deepEqual([...capabilities], agreed);
    }
    const some = accepted(hello({ protocol_version: 3, capabilities: ["signed", "zstd"] }), local);
    assert.deepEqual([...some.capabilities], ["zstd", "signed"]);
  });

  it("takes over what the dialer says of itself in version 3, and fills in the defaults", () => {
    const session = { id: "00112233445566778899aabbccddeeff", received: [1, 2, 3] };
    const said = {
      protocol_version: 3,
      capabilities: ["resume"],
      session,
      session_generation: 4,
      receive_window: 5,
      features: ["query"],
      max_streams: 6,
      addresses: ["tcp://10.0.0.1:9100"],
    };
    const local = identity({ maxVersion: 3, capabilities: ["resume"], maxMessageSize: 20_000_000 });
    assert.deepEqual(accepted(hello(said), local), {
      nodeId: "a",
      version: 3,
      capabilities: new Set(["resume"]),
      maxMessageSize: 20_000_000,
      incarnation: undefined,
      keepaliveMs: undefined,
      sessionGeneration: 4,
      receiveWindow: 5,
      features: ["query"],
      maxStreams: 6,
      addresses: ["tcp://10.0.0.1:9100"],
      claim: session,
      session: undefined,
      publicKey: undefined,
    });
    const silent = accepted(hello({ protocol_version: 3 }), local);
    assert.equal(silent.sessionGeneration, undefined);
    assert.equal(silent.receiveWindow, 20_065_536);
    assert.deepEqual(silent.features, []);
    assert.deepEqual(silent.addresses, []);
    assert.equal(silent.maxStreams, 256);
    assert.equal(silent.claim, undefined);
    const small = accepted(hello({ protocol_version: 3, max_message_size: 1000 }), local);
    assert.equal(small.receiveWindow, 16_777_216);
  });

  it("claims no session for a dialer without resume, nor in a version without sessions", () => {
    const session = { id: "00112233445566778899aabbccddeeff", received: [1, 2, 3] };
    const three = identity({ maxVersion: 3, capabilities: ["resume"] });
    const asks = hello({ protocol_version: 3, capabilities: ["resume"], session });
    assert.deepEqual(accepted(asks, three).claim, session);
    assert.equal(accepted(asks, identity({ capabilities: ["resume"] })).claim, undefined);
    assert.equal(accepted(asks, identity({ maxVersion: 3 })).claim, undefined);
    assert.equal(accepted(hello({ protocol_version: 3, session }), three).claim, undefined);
  });

  it("says nothing of version 3 to a dialer of it, where version 2 is chosen", () => {
    const said = { protocol_version: 3, features: ["query"], max_streams: 6, receive_window: 5 };
    assert.deepEqual(accepted(hello(said), identity()), {
      nodeId: "a",
      version: 2,
      capabilities: new Set(["lz4"]),
      maxMessageSize: 16_777_216,
      incarnation: undefined,
      keepaliveMs: undefined,
      ...nothingOfVersion3(16_842_752),
    });
  });

  it("does without the window of hellos where a proof makes each of them fresh", () => {
    const context = { wallClockMs: NOW, replay: undefined };
    const text = hello({ timestamp: NOW, nonce: "AAECAwQFBgcICQoLDA0ODw==" });
    for (let i = 0; i < 2; i++) {
      assert.ok("accept" in judgeHello(parseHello(utf8(text)), identity(), context));
    }
    const stale = judgeHello(parseHello(utf8(hello({ timestamp: 1 }))), identity(), context);
    assert.ok("reject" in stale && stale.reject === "STALE_TIMESTAMP");
  });
});
