import { describe, it } from "node:test";
import assert from "node:assert/strict";
import fc from "fast-check";
import { HandshakeError, type RejectCode, TransportError } from "../../src/errors.ts";
import {
  acceptWelcome,
  encodeReject,
  encodeWelcome,
  type Negotiated,
  parseAnswer,
  type Reject,
  type Welcome,
} from "../../src/protocol/handshake.ts";
import { quote } from "../../src/protocol/text.ts";
import { fieldsOf, identity, malformed, utf8 } from "./identities.ts";

const CODES: readonly RejectCode[] = [
  "VERSION_MISMATCH",
  "CLUSTER_MISMATCH",
  "NODE_ID_MISMATCH",
  "DUPLICATE_NODE_ID",
  "AUTH_FAILED",
  "STALE_TIMESTAMP",
  "REPLAYED",
  "IDENTITY_REQUIRED",
  "TOO_MANY_CONNECTIONS",
  "SHUTTING_DOWN",
  "MALFORMED",
];
const WELCOME =
  '{"type":"welcome","protocol_version":2,"node_id":"a","capabilities":["lz4"],"max_message_size":1000}';

const parse = (text: string) => parseAnswer(utf8(text));

function welcome(changes: Partial<Welcome> = {}): Welcome {
  const answer = parse(WELCOME);
  assert.ok(answer.type === "welcome");
  return { ...answer, ...changes };
}

function reject(text: string): Reject {
  const answer = parse(text);
  assert.ok(answer.type === "reject");
  return answer;
}

const reasonOf = (body: Uint8Array) => (fieldsOf(body) as { reason: string }).reason;

describe("encodeWelcome", () => {
  it("writes the five fields of versions 1 and 2 and nothing else", () => {
    const negotiated: Negotiated = {
      nodeId: "a",
      version: 2,
      capabilities: new Set(["lz4"]),
      maxMessageSize: 1000,
      incarnation: "fedcba9876543210",
      keepaliveMs: 5,
    };
    const local = identity({ nodeId: "b", clusterName: "blue", authToken: "t" });
    assert.deepEqual(fieldsOf(encodeWelcome(negotiated, local)), {
      type: "welcome",
      protocol_version: 2,
      node_id: "b",
      capabilities: ["lz4"],
      max_message_size: 1000,
    });
  });
});

describe("encodeReject", () => {
  it("writes type, code and reason", () => {
    assert.deepEqual(fieldsOf(encodeReject("CLUSTER_MISMATCH", 'not "blue"')), {
      type: "reject",
      code: "CLUSTER_MISMATCH",
      reason: 'not "blue"',
    });
  });

  it("escapes what isn't printable ASCII", () => {
    const reason = reasonOf(encodeReject("MALFORMED", "\u001b[2Ja\r\nb\u0000é\u2028😀"));
    assert.equal(reason, "\\u001b[2Ja\\u000d\\u000ab\\u0000\\u00e9\\u2028\\ud83d\\ude00");
  });

  it("cuts to 200 characters, and says so", () => {
    assert.equal(reasonOf(encodeReject("MALFORMED", "x".repeat(200))), "x".repeat(200));
    assert.equal(reasonOf(encodeReject("MALFORMED", "x".repeat(201))), `${"x".repeat(197)}...`);
    assert.equal(reasonOf(encodeReject("MALFORMED", "\u001b".repeat(1_000_000))).length, 200);
  });

  it("fits a handshake frame and reads back, whatever the reason", () => {
    fc.assert(
      fc.property(
        fc.constantFrom(...CODES),
        fc.string({ unit: "binary", maxLength: 400 }),
        (code, reason) => {
          const body = encodeReject(code, reason);
          assert.ok(body.length <= 4096);
          const back = parseAnswer(body);
          assert.ok(back.type === "reject" && back.code === code);
          assert.match(back.reason, /^[ -~]{0,200}$/);
        },
      ),
    );
  });
});

describe("parseAnswer", () => {
  it("reads a welcome, with unknown fields and without a size", () => {
    assert.deepEqual(parse(WELCOME), {
      type: "welcome",
      protocolVersion: 2,
      nodeId: "a",
      capabilities: ["lz4"],
      maxMessageSize: 1000,
    });
    const other =
      '{"incarnation":7,"type":"welcome","protocol_version":1,"node_id":"a","capabilities":[],"session":{}}';
    assert.deepEqual(parse(other), {
      type: "welcome",
      protocolVersion: 1,
      nodeId: "a",
      capabilities: [],
      maxMessageSize: undefined,
    });
  });

  for (const code of CODES) {
    it(`reads a reject ${code}`, () => {
      assert.deepEqual(parse(`{"type":"reject","code":"${code}","reason":"be\\u001bcause"}`), {
        type: "reject",
        code,
        shownCode: code,
        reason: "be\u001bcause",
      });
    });
  }

  it("keeps an unknown code out of the type, quoted for people", () => {
    for (
      const [code, shown] of [
        ["GO_AWAY", '"GO_AWAY"'],
        ["constructor", '"constructor"'],
        ["__proto__", '"__proto__"'],
        ["", '""'],
        ["malformed", '"malformed"'],
        ["\\u001b[31m\\r\\n", '"\\u001b[31m\\u000d\\u000a"'],
        ["x".repeat(1_000_000), `"${"x".repeat(64)}…"`],
      ]
    ) {
      const answer = reject(`{"type":"reject","code":"${code}","reason":"r"}`);
      assert.equal(answer.code, undefined);
      assert.equal(answer.shownCode, shown);
    }
  });

  it("reads a reject that gives no reason", () => {
    assert.equal(reject('{"type":"reject","code":"REPLAYED"}').reason, "");
  });

  const broken = [
    '{"type":"hello","protocol_version":2,"node_id":"a","capabilities":[]}',
    "{}",
    "[]",
  ];
  broken.push('{"type":"reject"}', '{"type":"reject","code":1,"reason":"r"}', '{"type":"WELCOME"}');
  broken.push(
    '{"type":"reject","code":"REPLAYED","reason":1}',
    '{"type":null}',
    "",
    "HTTP/1.1 400",
  );
  for (const part of ['"protocol_version":2,', '"node_id":"a",', '"capabilities":["lz4"],']) {
    broken.push(WELCOME.replace(part, ""));
  }
  broken.push(
    WELCOME.replace(":2", ":0"),
    WELCOME.replace(":2", ':"2"'),
    WELCOME.replace("1000", "-1"),
  );
  broken.push(WELCOME.replace('"a"', '"a b"'), WELCOME.replace('["lz4"]', "[2]"));
  broken.push(
    WELCOME.replace('"type"', '"node_id":"a","type"'),
    WELCOME.replace("1000", "[[[[[[[[]]]]]]]]"),
  );
  for (const text of broken) {
    it(`refuses ${text || "nothing"}`, () => {
      assert.throws(() => parse(text), malformed("Cannot read"));
    });
  }
});

describe("acceptWelcome", () => {
  it("agrees on what both sides have", () => {
    assert.deepEqual(acceptWelcome(welcome(), identity({ keepaliveMs: 30_000 }), "a"), {
      nodeId: "a",
      version: 2,
      capabilities: new Set(["lz4"]),
      maxMessageSize: 1000,
      incarnation: undefined,
      keepaliveMs: 30_000,
    });
  });

  it("takes anybody who answers where nobody is expected, but for ourselves", () => {
    assert.equal(acceptWelcome(welcome(), identity(), undefined).nodeId, "a");
    assert.throws(
      () => acceptWelcome(welcome({ nodeId: "b" }), identity(), undefined),
      (error) => error instanceof HandshakeError && error.rejectCode === "DUPLICATE_NODE_ID",
    );
  });

  it("refuses another node than the expected one as IdentityMismatch", () => {
    assert.throws(
      () => acceptWelcome(welcome({ nodeId: "mallory" }), identity(), "a"),
      (error) =>
        error instanceof TransportError && error.code === "IdentityMismatch" &&
        error.peer === "a" &&
        error.message === 'Cannot connect to "a": "mallory" answered',
    );
  });

  it("refuses a version outside the range we offered", () => {
    assert.equal(acceptWelcome(welcome({ protocolVersion: 1 }), identity(), "a").version, 1);
    const cases = [[3, 1, 2], [99, 1, 2], [1, 2, 2], [2, 1, 1], [3, 1, 3]] as const;
    for (const [protocolVersion, minVersion, maxVersion] of cases) {
      assert.throws(
        () =>
          acceptWelcome(welcome({ protocolVersion }), identity({ minVersion, maxVersion }), "a"),
        (error) =>
          error instanceof HandshakeError && error.message.includes(`version ${protocolVersion}`),
      );
    }
  });

  it("refuses a capability we did not offer, and does without one that was left out", () => {
    const none = identity({ capabilities: [] });
    for (const [name, local] of [["lz4", none], ["zstd", identity()], ["\u001b", none]] as const) {
      assert.throws(
        () => acceptWelcome(welcome({ capabilities: [name] }), local, "a"),
        (error) => error instanceof HandshakeError && error.message.includes(quote(name)),
      );
    }
    assert.equal(
      acceptWelcome(welcome({ capabilities: [] }), identity(), "a").capabilities.size,
      0,
    );
  });

  it("takes the smaller size, ours where the listener names none, and refuses 0", () => {
    const size = (maxMessageSize: number | undefined, ours: number) =>
      acceptWelcome(welcome({ maxMessageSize }), identity({ maxMessageSize: ours }), "a")
        .maxMessageSize;
    assert.equal(size(1000, 999), 999);
    assert.equal(size(1, 999), 1);
    assert.equal(size(undefined, 999), 999);
    assert.throws(() => size(0, 999), HandshakeError);
  });
});
