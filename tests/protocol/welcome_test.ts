import { describe, it } from "node:test";
import assert from "node:assert/strict";
import fc from "fast-check";
import { HandshakeError, type RejectCode, TransportError } from "../../src/errors.ts";
import {
  acceptWelcome,
  encodeReject,
  encodeWelcome,
  lateRejection,
  type LocalIdentity,
  type Negotiated,
  parseAnswer,
  type Reject,
  type Welcome,
} from "../../src/protocol/handshake.ts";
import { quote } from "../../src/protocol/text.ts";
import { nothingOfVersion3 } from "./agreements.ts";
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

/** The terms of version 3, where a welcome says nothing of them. */
const UNSAID = {
  sessionGeneration: undefined,
  receiveWindow: undefined,
  features: [],
  addresses: [],
  maxStreams: undefined,
};

const SESSION = "00112233445566778899aabbccddeeff";
const KEY = "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=";
const SIGNATURE = `${"A".repeat(85)}Q==`;
const NOW = 1_700_000_000_000;
const WELCOME3 =
  '{"type":"welcome","protocol_version":3,"node_id":"a","capabilities":[],"max_message_size":1000}';

const parse = (text: string) => parseAnswer(utf8(text));

function welcome(changes: Partial<Welcome> = {}): Welcome {
  const answer = parse(WELCOME);
  assert.ok(answer.type === "welcome");
  return { ...answer, ...changes };
}

/** The text of a welcome of version 3 with further fields, written as JSON. */
const plus3 = (fields: string) => `${WELCOME3.slice(0, -1)},${fields}}`;

function welcome3(changes: Partial<Welcome> = {}): Welcome {
  const answer = parse(WELCOME3);
  assert.ok(answer.type === "welcome");
  return { ...answer, ...changes };
}

const refused = (code: RejectCode | undefined, part: string) => (error: unknown) =>
  error instanceof HandshakeError && error.rejectCode === code && error.peer === "a" &&
  error.message.startsWith('Cannot connect to "a": ') && error.message.includes(part);

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
      ...nothingOfVersion3(16_777_216),
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

describe("encodeWelcome in version 3", () => {
  const negotiated: Negotiated = {
    nodeId: "a",
    version: 3,
    capabilities: new Set(["resume", "streams"]),
    maxMessageSize: 1000,
    incarnation: "fedcba9876543210",
    keepaliveMs: 5,
    sessionGeneration: 99,
    receiveWindow: 98,
    features: ["theirs"],
    maxStreams: 97,
    addresses: ["tcp://theirs:1"],
    claim: undefined,
    session: { id: SESSION, resumed: true, received: [1, 2, 3] },
    publicKey: undefined,
  };
  const nonce = Uint8Array.from({ length: 16 }, (_, index) => index);
  const details = { wallClockMs: NOW + 0.6, nonce, sessionGeneration: 7, publicKey: KEY };

  it("writes every field, with what we say of ourselves", () => {
    const local = identity({
      clusterName: "blue",
      receiveWindow: 65_536,
      features: ["query"],
      maxStreams: 16,
      addresses: ["tcp://10.0.0.1:9100", "wss://b.example.com/x"],
    });
    assert.deepEqual(fieldsOf(encodeWelcome(negotiated, local, details)), {
      type: "welcome",
      protocol_version: 3,
      node_id: "b",
      capabilities: ["resume", "streams"],
      max_message_size: 1000,
      incarnation: "0123456789abcdef",
      cluster_name: "blue",
      timestamp: NOW + 1,
      nonce: "AAECAwQFBgcICQoLDA0ODw==",
      session: { id: SESSION, resumed: true, received: [1, 2, 3] },
      session_generation: 7,
      receive_window: 65_536,
      features: ["query"],
      max_streams: 16,
      addresses: ["tcp://10.0.0.1:9100", "wss://b.example.com/x"],
      public_key: KEY,
    });
  });

  it("leaves out what there is nothing to say of", () => {
    const bare = { ...negotiated, session: undefined };
    const fields = fieldsOf(encodeWelcome(bare, identity(), { wallClockMs: NOW, nonce }));
    assert.deepEqual(Object.keys(fields as object), [
      ...["type", "protocol_version", "node_id", "capabilities", "max_message_size"],
      ...["incarnation", "cluster_name", "timestamp", "nonce"],
    ]);
  });

  it("writes the same bytes as ever where version 2 is chosen, whatever else is there", () => {
    const two: Negotiated = { ...negotiated, version: 2, capabilities: new Set(["lz4"]) };
    assert.equal(
      new TextDecoder().decode(encodeWelcome(two, identity({ features: ["query"] }), details)),
      '{"type":"welcome","protocol_version":2,"node_id":"b","capabilities":["lz4"],"max_message_size":1000}',
    );
  });

  it("keeps room for the signature in a frame of 4096 bytes", () => {
    const unsigned = { ...details, publicKey: undefined };
    const sized = (clusterName: string, extra: typeof unsigned | typeof details) =>
      encodeWelcome(negotiated, identity({ clusterName }), extra).length;
    const spare = 4096 - sized("", unsigned);
    assert.equal(sized("x".repeat(spare), unsigned), 4096);
    assert.throws(() => sized("x".repeat(spare + 1), unsigned), HandshakeError);
    // "signature" and its 88 digits need 103 bytes.
    const left = 4096 - 103 - sized("", details);
    assert.equal(sized("x".repeat(left), details), 4096 - 103);
    assert.throws(() => sized("x".repeat(left + 1), details), HandshakeError);
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
      ...UNSAID,
    });
    const other =
      '{"incarnation":7,"type":"welcome","protocol_version":1,"node_id":"a","capabilities":[],"session":{}}';
    assert.deepEqual(parse(other), {
      type: "welcome",
      protocolVersion: 1,
      nodeId: "a",
      capabilities: [],
      maxMessageSize: undefined,
      ...UNSAID,
    });
  });

  it("reads every field of a welcome of version 3", () => {
    const text = plus3(
      `"incarnation":"00FF00ff00FF00ff","cluster_name":"bl\\u00fce","timestamp":0,
      "nonce":"AAECAwQFBgcICQoLDA0ODw==",
      "session":{"id":"00112233445566778899AABBccddeeff","resumed":false,"received":[0,1,2],"x":1},
      "session_generation":3,"receive_window":1,"features":["query"],"max_streams":65535,"addresses":["x"],
      "public_key":"${KEY}","signature":"${SIGNATURE}"`,
    );
    assert.deepEqual(parse(text), {
      type: "welcome",
      protocolVersion: 3,
      nodeId: "a",
      capabilities: [],
      maxMessageSize: 1000,
      incarnation: "00ff00ff00ff00ff",
      clusterName: "blüe",
      timestamp: 0,
      session: { id: SESSION, resumed: false, received: [0, 1, 2] },
      sessionGeneration: 3,
      receiveWindow: 1,
      features: ["query"],
      maxStreams: 65_535,
      addresses: ["x"],
      publicKey: KEY,
      signature: SIGNATURE,
    });
  });

  const wrong3: Record<string, readonly string[]> = {
    incarnation: ["1", "null", '"00ff"', '"0123456789abcdeg"'],
    cluster_name: ["1", "null"],
    timestamp: ["-1", "0.5", '"0"', "null"],
    nonce: ["1", '""', '"AAECAwQFBgcICQoLDA0ODw"'],
    session: [
      ...["null", "[]", "{}", `{"id":"${SESSION}","received":[0,0,0]}`],
      ...["null", "0", '"true"'].map((resumed) =>
        `{"id":"${SESSION}","received":[0,0,0],"resumed":${resumed}}`
      ),
      `{"id":"${SESSION}","resumed":true}`,
      `{"resumed":true,"received":[0,0,0]}`,
      `{"id":"${SESSION}","received":[0,0],"resumed":true}`,
    ],
    session_generation: ["-1", "null"],
    receive_window: ["0", "null"],
    features: ["null", '[""]'],
    max_streams: ["65536", "null"],
    addresses: ["null", '[""]', '["a b"]'],
    public_key: ["null", '""', `"${KEY}"`],
    signature: [
      "null",
      '""',
      `"${"A".repeat(86)}==\\n"`,
      `"${"A".repeat(85)}B=="`,
      `"${SIGNATURE}"`,
    ],
  };
  for (const [field, values] of Object.entries(wrong3)) {
    for (const value of values) {
      it(`refuses ${field} ${value} in a welcome of version 3`, () => {
        assert.throws(() => parse(plus3(`"${field}":${value}`)), malformed("Cannot read"));
      });
    }
  }

  it("does not look at what belongs to version 3 in a welcome of another", () => {
    const text = `${WELCOME.slice(0, -1)},"incarnation":1,"session":2,"features":3,"signature":4}`;
    assert.deepEqual(parse(text), { ...welcome() });
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
      ...nothingOfVersion3(16_777_216),
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
    const cases = [[3, 1, 2], [99, 1, 2], [1, 2, 2], [2, 1, 1], [4, 1, 4]] as const;
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

describe("acceptWelcome in version 3", () => {
  const three = (changes: Partial<LocalIdentity> = {}) => identity({ maxVersion: 3, ...changes });
  const fresh = { id: SESSION, resumed: false, received: [0, 0, 0] } as const;

  it("agrees on what both sides have, and takes over what the listener says of itself", () => {
    const answer = welcome3({
      capabilities: ["resume", "zstd"],
      maxMessageSize: 20_000_000,
      incarnation: "fedcba9876543210",
      clusterName: "",
      timestamp: NOW,
      session: fresh,
      sessionGeneration: 4,
      receiveWindow: 5,
      features: ["query"],
      maxStreams: 6,
      addresses: ["x"],
      publicKey: KEY,
      signature: SIGNATURE,
    });
    const local = three({ capabilities: ["lz4", "zstd", "resume"], keepaliveMs: 30_000 });
    assert.deepEqual(acceptWelcome(answer, local, "a", { wallClockMs: NOW }), {
      nodeId: "a",
      version: 3,
      capabilities: new Set(["zstd", "resume"]),
      maxMessageSize: 16_777_216,
      incarnation: "fedcba9876543210",
      keepaliveMs: 30_000,
      sessionGeneration: 4,
      receiveWindow: 5,
      features: ["query"],
      maxStreams: 6,
      addresses: ["x"],
      claim: undefined,
      session: fresh,
      // Not proven yet.
      publicKey: undefined,
    });
  });

  it("fills in the defaults where the listener says nothing of itself", () => {
    const agreed = acceptWelcome(welcome3({ maxMessageSize: undefined }), three(), "a");
    assert.equal(agreed.receiveWindow, 16_842_752);
    assert.equal(agreed.maxStreams, 256);
    assert.deepEqual(agreed.features, []);
    assert.equal(agreed.sessionGeneration, undefined);
    assert.equal(agreed.incarnation, undefined);
  });

  it("takes nothing but lz4 from a welcome of version 2 to a hello of version 3", () => {
    const all = ["lz4", "zstd", "checksum", "resume", "streams", "signed"] as const;
    const answer = welcome({ capabilities: all });
    assert.deepEqual(acceptWelcome(answer, three({ capabilities: all }), "a"), {
      nodeId: "a",
      version: 2,
      capabilities: new Set(["lz4"]),
      maxMessageSize: 1000,
      incarnation: undefined,
      keepaliveMs: undefined,
      ...nothingOfVersion3(16_777_216),
    });
  });

  it("refuses another cluster as CLUSTER_MISMATCH, where the listener names one", () => {
    const blue = three({ clusterName: "blue" });
    acceptWelcome(welcome3(), blue, "a");
    acceptWelcome(welcome3({ clusterName: "blue" }), blue, "a");
    for (const clusterName of ["", "Blue", "blue "]) {
      assert.throws(
        () => acceptWelcome(welcome3({ clusterName }), blue, "a"),
        refused("CLUSTER_MISMATCH", "cluster names differ"),
      );
    }
  });

  it("refuses a clock more than the skew away, either way, as STALE_TIMESTAMP", () => {
    const at = (timestamp: number | undefined, wallClockMs: number | undefined = NOW) =>
      acceptWelcome(welcome3({ timestamp }), three(), "a", { wallClockMs });
    for (const offset of [-300_000, 0, 300_000]) at(NOW + offset);
    at(undefined);
    acceptWelcome(welcome3({ timestamp: 0 }), three(), "a");
    for (const offset of [-300_001, 300_001, -NOW]) {
      assert.throws(() => at(NOW + offset), refused("STALE_TIMESTAMP", "more than 300000 ms"));
    }
  });

  it("takes a new session, or the one it asked for, and no other", () => {
    const other = "ffeeddccbbaa99887766554433221100";
    const local = three({ capabilities: ["resume"] });
    const claim = { id: SESSION, received: [7, 8, 9] } as const;
    const offered = (
      session: Welcome["session"],
      context: { claim?: typeof claim } = { claim },
    ) => {
      const answer = welcome3({ capabilities: ["resume"], session });
      return acceptWelcome(answer, local, "a", context).session;
    };
    const resumed = { id: SESSION, resumed: true, received: [1, 2, 3] } as const;
    assert.deepEqual(offered(resumed), resumed);
    assert.deepEqual(offered({ ...fresh, id: other }), { ...fresh, id: other });
    assert.deepEqual(offered(fresh, {}), fresh);
    const malformedWelcome = (part: string) => refused("MALFORMED", part);
    assert.throws(() => offered(undefined), malformedWelcome("named no session"));
    assert.throws(() => offered(undefined, {}), malformedWelcome("named no session"));
    assert.throws(() => offered({ ...resumed, id: other }), malformedWelcome("did not name"));
    assert.throws(() => offered(resumed, {}), malformedWelcome("did not name"));
    assert.throws(() => offered(fresh), malformedWelcome("the id of the old one"));
    for (const received of [[1, 0, 0], [0, 0, 1]] as const) {
      assert.throws(
        () => offered({ id: other, resumed: false, received }),
        malformedWelcome("received something in a session that is new"),
      );
    }
  });

  it("ignores a session where resume is not agreed on", () => {
    const answer = welcome3({ session: { ...fresh, resumed: true } });
    const local = three({ capabilities: ["resume"] });
    assert.equal(acceptWelcome(answer, local, "a").session, undefined);
  });
});

describe("lateRejection", () => {
  for (const code of CODES) {
    it(`reads ${code} from a listener that had let us in`, () => {
      const error = lateRejection(
        utf8(`{"type":"reject","code":"${code}","reason":"\\u001b"}`),
        "a",
      );
      assert.ok(error instanceof HandshakeError && error.rejectCode === code);
      assert.equal(error.peer, "a");
      assert.equal(
        error.message,
        `Cannot connect: the listener refused with ${code}: "\\u001b"`,
      );
    });
  }

  it("takes nothing else for one", () => {
    const bodies = [
      ...["", "{", "{}", WELCOME, '{"type":"reject"}', ' {"type":"reject","code":"REPLAYED"}'],
      `{"type":"reject","code":"REPLAYED","reason":"${"x".repeat(4096)}"}`,
      '{"type":"reject","code":"REPLAYED","reason":1}',
    ];
    for (const text of bodies) assert.equal(lateRejection(utf8(text), "a"), undefined, text);
  });

  it("never takes a frame of version 3 for one, whatever follows its flags", () => {
    fc.assert(
      fc.property(fc.nat({ max: 15 }), fc.uint8Array({ maxLength: 60 }), (high, rest) => {
        // The low four bits of the flags are the version.
        const frame = Uint8Array.of(0x7b, high << 4 | 3, ...rest);
        assert.equal(lateRejection(frame, "a"), undefined);
      }),
    );
  });
});
