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
  lateRejection,
  type LocalIdentity,
  type Negotiated,
  parseAnswer,
  parseHello,
} from "../../src/protocol/handshake.ts";
import { parseProof, withoutSignature } from "../../src/protocol/proof.ts";
import { ReplayWindow } from "../../src/protocol/replay.ts";
import { identity, utf8 } from "./identities.ts";
import { concat } from "./wire_bytes.ts";

const NOW = 1_700_000_000_000;
const SESSION = "00112233445566778899aabbccddeeff";
const KEY = "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=";
const LANES = [4, 5, 6] as const;

const window = () => new ReplayWindow({ maxSkewMs: 300_000 });

/** Two endpoints that differ in all that is negotiated. */
const endpoint = (nodeId: string): fc.Arbitrary<LocalIdentity> =>
  fc.record({
    range: fc.constantFrom([1, 1], [1, 2], [2, 2], [1, 3], [2, 3], [3, 3]),
    capabilities: fc.subarray<Capability>(
      ["lz4", "zstd", "checksum", "resume", "streams", "signed"],
    ),
    receiveWindow: fc.constantFrom(undefined, 65_536, 2 ** 53 - 1),
    features: fc.constantFrom(undefined, [], ["query", "a/b:c~!"]),
    maxStreams: fc.constantFrom(undefined, 0, 65_535),
    maxMessageSize: fc.integer({ min: 1, max: 2 ** 32 }),
    keepaliveMs: fc.constantFrom(undefined, 1, 30_000, 86_400_000, 86_400_001, 0.5),
    incarnation: fc.stringMatching(/^[0-9a-f]{16}$/),
    authToken: fc.constantFrom(undefined, "t", 'é"\\\u0000'),
  }).map(({ range: [minVersion, maxVersion], ...rest }) =>
    identity({ nodeId, minVersion: minVersion!, maxVersion: maxVersion!, ...rest })
  );

/** What one side knows of the other. */
function checkTerms(known: Negotiated, other: LocalIdentity, generation: number): void {
  const three = known.version === 3;
  assert.equal(known.sessionGeneration, three ? generation : undefined);
  assert.deepEqual(known.features, three ? other.features ?? [] : []);
  assert.equal(known.maxStreams, three ? other.maxStreams ?? 256 : 0);
  const window = Math.max(2 ** 24, known.maxMessageSize + 65_536);
  assert.equal(known.receiveWindow, three ? other.receiveWindow ?? window : window);
  const older = [...known.capabilities].every((capability) => capability === "lz4");
  assert.ok(three || older);
}

describe("a handshake from end to end", () => {
  it("leaves both sides with the same agreement, or with a typed refusal", () => {
    fc.assert(
      fc.property(
        endpoint("a"),
        endpoint("b"),
        fc.uint8Array({ minLength: 16, maxLength: 16 }),
        (dialer, listener, nonce) => {
          const claim = { id: SESSION, received: [1, 2, 3] } as const;
          const said = { claim, sessionGeneration: 4, publicKey: undefined };
          const heard = parseHello(encodeHello(dialer, "b", NOW + 0.4, nonce, said));
          const verdict = judgeHello(heard, listener, { wallClockMs: NOW, replay: window() });
          if ("reject" in verdict) {
            const answer = parseAnswer(encodeReject(verdict.reject, verdict.reason));
            assert.ok(answer.type === "reject" && answer.code === verdict.reject);
            const apart = Math.min(dialer.maxVersion, listener.maxVersion) <
              Math.max(dialer.minVersion, listener.minVersion);
            assert.equal(answer.code, apart ? "VERSION_MISMATCH" : "AUTH_FAILED");
            return;
          }
          const resumes = verdict.accept.capabilities.has("resume");
          const session = resumes ? { id: SESSION, resumed: true, received: LANES } : undefined;
          const answer = parseAnswer(
            encodeWelcome({ ...verdict.accept, session }, listener, {
              wallClockMs: NOW,
              nonce,
              sessionGeneration: 5,
            }),
          );
          assert.ok(answer.type === "welcome");
          const agreed = acceptWelcome(answer, dialer, "b", { wallClockMs: NOW, claim });
          checkTerms(verdict.accept, dialer, 4);
          checkTerms(agreed, listener, 5);
          assert.deepEqual(verdict.accept.claim, resumes ? claim : undefined);
          assert.deepEqual(agreed.session, session);
          assert.equal(agreed.incarnation, agreed.version < 3 ? undefined : listener.incarnation);
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
    const local = identity({
      authToken: "t",
      maxVersion: 3,
      capabilities: ["lz4", "resume"],
    });
    fc.assert(
      fc.property(body, (body) => {
        const replay = window();
        typed(
          HandshakeError,
          () => judgeHello(parseHello(body), local, { wallClockMs: NOW, replay }),
        );
        typed(HandshakeError, () => parseAnswer(body));
        typed(HandshakeError, () => parseProof(body));
        assert.ok(lateRejection(body, "a") === undefined || parseAnswer(body).type === "reject");
        typed(TransportError, () => {
          const answer = parseAnswer(body);
          if (answer.type === "welcome") {
            acceptWelcome(answer, local, "a", { wallClockMs: NOW });
            if (answer.signature !== undefined) withoutSignature(body, answer.signature);
          }
        });
      }),
      { numRuns: 2000 },
    );
  });
});

/** Messages in which each field is right, wrong in its value or type, or absent. */
const almostAMessage = fc.record({
  type: fc.constantFrom<unknown>("hello", "hello", "welcome", "reject", "proof", 1),
  protocol_version: fc.oneof(sometimes(2), sometimes(3)),
  min_protocol_version: sometimes(1),
  node_id: sometimes("a"),
  capabilities: sometimes(["lz4", "resume"]),
  incarnation: sometimes("0123456789abcdef"),
  cluster_name: sometimes(""),
  expect_node_id: sometimes("b"),
  max_message_size: sometimes(1024),
  timestamp: sometimes(NOW),
  nonce: sometimes("AAECAwQFBgcICQoLDA0ODw=="),
  auth_token: sometimes("t"),
  keepalive_ms: sometimes(1000),
  session: sometimes({ id: SESSION, received: [1, 2, 3], resumed: true }),
  session_generation: sometimes(1),
  receive_window: sometimes(65_536),
  features: sometimes(["query"]),
  max_streams: sometimes(1),
  public_key: sometimes(KEY),
  signature: sometimes(`${"A".repeat(86)}==`),
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
