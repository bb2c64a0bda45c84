import { describe, it } from "node:test";
import assert from "node:assert/strict";
import fc from "fast-check";
import { HandshakeError, TransportError } from "../../src/errors.ts";
import {
  acceptWelcome,
  type Capability,
  encodeHello,
  encodeReject,
  encodeWelcome,
  type Hello,
  judgeHello,
  type LocalIdentity,
  parseAnswer,
  parseHello,
} from "../../src/protocol/handshake.ts";
import { ReplayWindow } from "../../src/protocol/replay.ts";
import { identity, utf8 } from "./identities.ts";
import { concat } from "./wire_bytes.ts";

const NOW = 1_700_000_000_000;

const window = () => new ReplayWindow({ maxSkewMs: 300_000 });

/** Two endpoints that differ in all that is negotiated. */
const endpoint = (nodeId: string): fc.Arbitrary<LocalIdentity> =>
  fc.record({
    range: fc.constantFrom([1, 1], [1, 2], [2, 2]),
    capabilities: fc.subarray<Capability>(["lz4"]),
    maxMessageSize: fc.integer({ min: 1, max: 2 ** 32 }),
    keepaliveMs: fc.constantFrom(undefined, 1, 30_000, 86_400_000, 86_400_001, 0.5),
    incarnation: fc.stringMatching(/^[0-9a-f]{16}$/),
    authToken: fc.constantFrom(undefined, "t", 'é"\\\u0000'),
  }).map(({ range: [minVersion, maxVersion], ...rest }) =>
    identity({ nodeId, minVersion: minVersion!, maxVersion: maxVersion!, ...rest })
  );

describe("a handshake from end to end", () => {
  it("leaves both sides with the same agreement, or with a typed refusal", () => {
    fc.assert(
      fc.property(
        endpoint("a"),
        endpoint("b"),
        fc.uint8Array({ minLength: 16, maxLength: 16 }),
        (dialer, listener, nonce) => {
          const heard = parseHello(encodeHello(dialer, "b", NOW + 0.4, nonce));
          const verdict = judgeHello(heard, listener, { wallClockMs: NOW, replay: window() });
          if ("reject" in verdict) {
            const answer = parseAnswer(encodeReject(verdict.reject, verdict.reason));
            assert.ok(answer.type === "reject" && answer.code === verdict.reject);
            const apart = Math.min(dialer.maxVersion, listener.maxVersion) <
              Math.max(dialer.minVersion, listener.minVersion);
            assert.equal(answer.code, apart ? "VERSION_MISMATCH" : "AUTH_FAILED");
            return;
          }
          const answer = parseAnswer(encodeWelcome(verdict.accept, listener));
          assert.ok(answer.type === "welcome");
          const agreed = acceptWelcome(answer, dialer, "b");
          assert.equal(agreed.nodeId, "b");
          assert.equal(verdict.accept.nodeId, "a");
          assert.equal(verdict.accept.incarnation, dialer.incarnation);
          for (const key of ["version", "capabilities", "maxMessageSize", "keepaliveMs"] as const) {
            assert.deepEqual(agreed[key], verdict.accept[key], key);
          }
        },
      ),
      { numRuns: 300 },
    );
  });

  it("reads back every hello it writes", () => {
    fc.assert(
      fc.property(
        endpoint("node-1"),
        fc.option(fc.constantFrom("b", "c"), { nil: undefined }),
        (local, expectNodeId) => {
          const back: Hello = parseHello(encodeHello(local, expectNodeId, NOW, new Uint8Array(16)));
          assert.equal(back.nodeId, local.nodeId);
          assert.equal(back.protocolVersion, local.maxVersion);
          assert.equal(back.minProtocolVersion, local.minVersion);
          assert.deepEqual(back.capabilities, local.capabilities);
          assert.equal(back.incarnation, local.incarnation);
          assert.equal(back.clusterName, local.clusterName);
          assert.equal(back.expectNodeId, expectNodeId);
          assert.equal(back.maxMessageSize, local.maxMessageSize);
          assert.equal(back.timestamp, NOW);
          assert.equal(back.nonce, "AAAAAAAAAAAAAAAAAAAAAA==");
          assert.equal(back.authToken, local.authToken);
        },
      ),
    );
  });

  it("throws nothing but TransportError on whatever a peer sends", () => {
    const text = fc.oneof(fc.json(), almostAMessage.map((message) => JSON.stringify(message)));
    const body = fc.oneof(
      fc.uint8Array({ maxLength: 100 }),
      text.map(utf8),
      text.map((json) => concat(utf8(json), utf8("}"))),
    );
    const local = identity({ authToken: "t" });
    fc.assert(
      fc.property(body, (body) => {
        const replay = window();
        typed(
          HandshakeError,
          () => judgeHello(parseHello(body), local, { wallClockMs: NOW, replay }),
        );
        typed(HandshakeError, () => parseAnswer(body));
        typed(TransportError, () => {
          const answer = parseAnswer(body);
          if (answer.type === "welcome") acceptWelcome(answer, local, "a");
        });
      }),
      { numRuns: 2000 },
    );
  });
});

/** Messages in which each field is right, wrong in its value or type, or absent. */
const almostAMessage = fc.record({
  type: fc.constantFrom<unknown>("hello", "hello", "welcome", "reject", "proof", 1),
  protocol_version: sometimes(2),
  min_protocol_version: sometimes(1),
  node_id: sometimes("a"),
  capabilities: sometimes(["lz4"]),
  incarnation: sometimes("0123456789abcdef"),
  cluster_name: sometimes(""),
  expect_node_id: sometimes("b"),
  max_message_size: sometimes(1024),
  timestamp: sometimes(NOW),
  nonce: sometimes("AAECAwQFBgcICQoLDA0ODw=="),
  auth_token: sometimes("t"),
  keepalive_ms: sometimes(1000),
  code: sometimes("REPLAYED"),
  reason: sometimes("because"),
}, { requiredKeys: ["type"] });

function sometimes(value: unknown): fc.Arbitrary<unknown> {
  return fc.oneof({ weight: 9, arbitrary: fc.constant(value) }, {
    weight: 1,
    arbitrary: fc.jsonValue(),
  });
}

function typed(kind: typeof HandshakeError | typeof TransportError, run: () => unknown): void {
  try {
    run();
  } catch (error) {
    assert.ok(error instanceof kind, String(error));
    assert.match(error.message, /^Cannot [ -~…]*[^.]$/);
  }
}
