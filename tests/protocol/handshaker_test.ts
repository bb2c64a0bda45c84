import { describe, it } from "node:test";
import assert from "node:assert/strict";
import { HandshakeError, type RejectCode } from "../../src/errors.ts";
import type { LocalIdentity, Negotiated, SessionClaim } from "../../src/protocol/handshake.ts";
import type { HandshakeSink } from "../../src/protocol/handshaker.ts";
import { NOW, Pair, type PairSetup, provingPair } from "./handshake_pair.ts";
import { identity } from "./identities.ts";

const SESSION = "00112233445566778899aabbccddeeff";
const OTHER = "ffeeddccbbaa99887766554433221100";
const CLAIM: SessionClaim = { id: SESSION, received: [1, 2, 3] };
const RESUMED = { id: SESSION, resumed: true, received: [4, 5, 6] } as const;
const FRESH = { id: OTHER, resumed: false, received: [0, 0, 0] } as const;

const node = (nodeId: string, changes: Partial<LocalIdentity> = {}): LocalIdentity =>
  identity({ nodeId, maxVersion: 3, capabilities: ["lz4", "resume"], ...changes });

/** A pair that asks for a session and gets one. */
function sessionPair(setup: PairSetup = {}): Pair {
  const { dialer, sink, ...rest } = setup;
  return new Pair({
    ...rest,
    dialer: { claimSession: () => ({ claim: CLAIM, generation: 7 }), ...dialer },
    sink: { offerSession: () => ({ offer: RESUMED, generation: 8 }), ...sink },
  });
}

describe("a handshake about sessions", () => {
  it("carries claim, offer and generations both ways", () => {
    const { dialer, listener } = sessionPair().run();
    assert.deepEqual(listener.agreed?.claim, CLAIM);
    assert.deepEqual(listener.agreed.session, RESUMED);
    assert.equal(listener.agreed.sessionGeneration, 7);
    assert.equal(dialer.agreed?.claim, undefined);
    assert.deepEqual(dialer.agreed?.session, RESUMED);
    assert.equal(dialer.agreed?.sessionGeneration, 8);
    assert.equal(dialer.agreed?.incarnation, "0123456789abcdef");
  });

  it("gives a dialer that asks for none a new session", () => {
    const { dialer, listener } = sessionPair({
      dialer: { claimSession: () => ({ claim: undefined, generation: 0 }) },
      sink: { offerSession: () => ({ offer: FRESH, generation: 0 }) },
    }).run();
    assert.equal(listener.agreed?.claim, undefined);
    assert.deepEqual(dialer.agreed?.session, FRESH);
    assert.equal(dialer.agreed?.sessionGeneration, 0);
    assert.equal(listener.agreed?.sessionGeneration, 0);
  });

  it("offers after the node was let in, and nothing to one that wasn't", () => {
    const calls: string[] = [];
    const sink: Partial<HandshakeSink> = {
      onIdentity: (nodeId) => void calls.push(`identity ${nodeId}`) as undefined,
      onHello: ({ claim, session }) => {
        calls.push(`hello ${claim?.id === SESSION} ${session === undefined}`);
        return undefined;
      },
      offerSession: ({ nodeId, claim }) => {
        calls.push(`offer ${nodeId} ${claim?.id === SESSION}`);
        return { offer: RESUMED, generation: 0 };
      },
    };
    sessionPair({ sink }).run();
    assert.deepEqual(calls, ["identity node1", "hello true true", "offer node1 true"]);
    calls.length = 0;
    const onHello = () => ({ code: "SHUTTING_DOWN", reason: "no" }) as const;
    const turnedAway = sessionPair({ sink: { ...sink, onHello } }).run();
    assert.deepEqual(calls, ["identity node1"]);
    assert.equal(turnedAway.listener.agreed, undefined);
  });

  it("asks for nothing where a side lacks resume, or version 3", () => {
    const none = { capabilities: ["lz4"] } as const;
    const never = () => assert.fail("there are no sessions");
    const setups: PairSetup[] = [
      { dialer: { local: node("node1", none), claimSession: never } },
      { dialer: { local: node("node1", { maxVersion: 2 }), claimSession: never } },
      { listener: { local: node("node2", none) } },
      { listener: { local: node("node2", { maxVersion: 2 }) } },
    ];
    for (const setup of setups) {
      const { dialer, listener, sent } = sessionPair({ ...setup, sink: { offerSession: never } })
        .run();
      for (const { agreed } of [dialer, listener]) {
        assert.ok(agreed !== undefined && !agreed.capabilities.has("resume"));
        assert.equal(agreed.claim ?? agreed.session ?? undefined, undefined);
      }
      assert.doesNotMatch(sent[1]!, /"session/);
    }
  });

  it("does without resume where the listener can't offer a session", () => {
    const { dialer, listener } = new Pair({
      dialer: { claimSession: () => ({ claim: CLAIM, generation: 0 }) },
    }).run();
    for (const { agreed } of [dialer, listener]) {
      assert.deepEqual(agreed?.capabilities, new Set(["lz4"]));
      assert.equal(agreed?.claim ?? agreed?.session, undefined);
    }
  });

  it("lets a listener that counts generations resume what was not asked for", () => {
    const claimSession = () => ({ claim: undefined, generation: 0 });
    const { dialer } = sessionPair({ dialer: { claimSession } }).run();
    assert.deepEqual(dialer.agreed?.session, RESUMED);
    assert.equal(dialer.agreed?.sessionGeneration, 8);
  });

  it("fails a listener that resumes what was not asked for and counts none", () => {
    const claimSession = () => ({ claim: undefined, generation: 0 });
    const tamper = (frame: string) => frame.replace(',"session_generation":8', "");
    const { dialer } = sessionPair({ dialer: { claimSession }, tamper }).run();
    assert.ok(dialer.error instanceof HandshakeError);
    assert.equal(dialer.error.rejectCode, "MALFORMED");
  });

  it("fails a listener that resumes another session than was asked for", () => {
    const claimSession = () => ({ claim: { ...CLAIM, id: OTHER }, generation: 0 });
    const { dialer } = sessionPair({ dialer: { claimSession } }).run();
    assert.ok(dialer.error instanceof HandshakeError);
    assert.equal(dialer.error.rejectCode, "MALFORMED");
  });

  it("asks again whether a node may come in, once it has proved its key", () => {
    const asked: Negotiated[] = [];
    const sink: Partial<HandshakeSink> = {
      offerSession: () => ({ offer: FRESH, generation: 0 }),
      onHello: (negotiated) => {
        asked.push(negotiated);
        const late = negotiated.session !== undefined;
        return late ? { code: "DUPLICATE_NODE_ID", reason: "another was faster" } : undefined;
      },
    };
    const { dialer, listener } = provingPair({ sink }).run();
    assert.equal(asked.length, 2);
    assert.deepEqual(asked[1]?.session, FRESH);
    for (const { error } of [dialer, listener]) {
      assert.ok(error instanceof HandshakeError && error.rejectCode === "DUPLICATE_NODE_ID");
    }
    assert.equal(listener.agreed, undefined);
    assert.equal(dialer.error?.retryable, true);
  });
});

describe("a handshake that the listener refuses", () => {
  const local = node("node2", { clusterName: "blue", authToken: "t" });
  const right = { clusterName: "blue", authToken: "t" };
  const refuse = (code: RejectCode): PairSetup => ({
    sink: { onHello: () => ({ code, reason: `because of ${code}` }) },
  });
  const cases: Record<RejectCode, PairSetup> = {
    VERSION_MISMATCH: {
      dialer: { local: node("node1", right) },
      listener: { local: { ...local, minVersion: 4, maxVersion: 4 } },
    },
    CLUSTER_MISMATCH: { dialer: { local: node("node1") }, listener: { local } },
    NODE_ID_MISMATCH: { listener: { local: node("node3") } },
    DUPLICATE_NODE_ID: { dialer: { local: node("node2") } },
    AUTH_FAILED: {
      dialer: { local: node("node1", { ...right, authToken: "x" }) },
      listener: { local },
    },
    STALE_TIMESTAMP: { dialer: { wallClockOffset: NOW - 300_001 } },
    REPLAYED: {
      // The same hello came by another way.
      tamper: (frame) => frame,
    },
    IDENTITY_REQUIRED: { listener: { demandProof: () => true } },
    TOO_MANY_CONNECTIONS: refuse("TOO_MANY_CONNECTIONS"),
    SHUTTING_DOWN: refuse("SHUTTING_DOWN"),
    MALFORMED: { tamper: (frame) => frame.replace('"hello"', '"hullo"') },
  };
  for (const [code, setup] of Object.entries(cases)) {
    it(`ends with ${code} on both sides`, () => {
      const pair = new Pair(setup);
      if (code === "REPLAYED") pair.replay.admit("node1", NOW, "AQEBAQEBAQEBAQEBAQEBAQ==", NOW);
      pair.run();
      for (const { agreed, error } of [pair.dialer, pair.listener]) {
        assert.equal(agreed, undefined);
        assert.ok(error instanceof HandshakeError, String(error));
        assert.equal(error.rejectCode, code);
        assert.match(error.message, /^Cannot [ -~]*[^.]$/);
      }
      assert.equal(pair.dialer.error?.peer, "node2");
    });
  }
});

describe("a handshake that the dialer breaks off", () => {
  it("knows another cluster and another time from the welcome, too", () => {
    const swap = (from: string | RegExp, to: string): PairSetup => ({
      tamper: (frame) => frame.startsWith('{"type":"welcome"') ? frame.replace(from, to) : frame,
    });
    const cases: [PairSetup, RejectCode][] = [
      [swap('"cluster_name":""', '"cluster_name":"green"'), "CLUSTER_MISMATCH"],
      [swap(/"timestamp":\d+/, `"timestamp":${NOW + 300_001}`), "STALE_TIMESTAMP"],
      [swap(/"timestamp":\d+/, `"timestamp":0`), "STALE_TIMESTAMP"],
      [swap(/"nonce":"[^"]*"/, `"nonce":""`), "MALFORMED"],
      [swap('"node2"', '"node1"'), "DUPLICATE_NODE_ID"],
    ];
    for (const [setup, code] of cases) {
      const dialer = { local: node("node1"), expectNodeId: undefined };
      const { error } = new Pair({ ...setup, dialer }).run().dialer;
      assert.ok(error instanceof HandshakeError, String(error));
      assert.equal(error.rejectCode, code);
    }
  });
});
