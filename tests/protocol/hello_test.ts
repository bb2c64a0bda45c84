import { describe, it } from "node:test";
import assert from "node:assert/strict";
import { HandshakeError } from "../../src/errors.ts";
import { encodeHello, parseHello } from "../../src/protocol/handshake.ts";
import { fieldsOf, identity, malformed, utf8 } from "./identities.ts";
import { hex } from "./wire_bytes.ts";

const NOW = 1_700_000_000_000;
const NONCE = hex("000102030405060708090a0b0c0d0e0f");
const NONCE_TEXT = "AAECAwQFBgcICQoLDA0ODw==";
const MINIMAL = '{"type":"hello","protocol_version":2,"node_id":"a","capabilities":["lz4"]}';

/** What belongs to version 3, where a hello says nothing of it. */
const UNSAID = {
  session: undefined,
  sessionGeneration: undefined,
  receiveWindow: undefined,
  features: [],
  addresses: [],
  maxStreams: undefined,
  publicKey: undefined,
};

const HELLO3 = '{"type":"hello","protocol_version":3,"node_id":"a","capabilities":["resume"]}';
const SESSION = "00112233445566778899aabbccddeeff";
const KEY = "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=";

const parse = (text: string) => parseHello(utf8(text));
/** The minimal hello with one more field, written as JSON. */
const plus = (field: string) => `${MINIMAL.slice(0, -1)},${field}}`;
/** The same of a dialer that speaks version 3. */
const plus3 = (field: string) => `${HELLO3.slice(0, -1)},${field}}`;

describe("encodeHello", () => {
  it("writes every field of docs/protocol.md that is configured", () => {
    const local = identity({
      nodeId: "node1",
      clusterName: "blue",
      authToken: 'tö"ken',
      maxMessageSize: 65_536,
      keepaliveMs: 30_000,
    });
    assert.deepEqual(fieldsOf(encodeHello(local, "node2", NOW, NONCE)), {
      type: "hello",
      protocol_version: 2,
      node_id: "node1",
      capabilities: ["lz4"],
      min_protocol_version: 1,
      incarnation: "0123456789abcdef",
      cluster_name: "blue",
      expect_node_id: "node2",
      max_message_size: 65_536,
      timestamp: 1_700_000_000_000,
      nonce: NONCE_TEXT,
      auth_token: 'tö"ken',
      keepalive_ms: 30_000,
    });
  });

  it("leaves out what there is nothing to say of", () => {
    assert.deepEqual(fieldsOf(encodeHello(identity({ capabilities: [] }), undefined, NOW, NONCE)), {
      type: "hello",
      protocol_version: 2,
      node_id: "b",
      capabilities: [],
      min_protocol_version: 1,
      incarnation: "0123456789abcdef",
      cluster_name: "",
      max_message_size: 16_777_216,
      timestamp: 1_700_000_000_000,
      nonce: NONCE_TEXT,
    });
  });

  it("writes what belongs to version 3, in a hello that offers it", () => {
    const local = identity({
      maxVersion: 3,
      capabilities: ["lz4", "zstd", "checksum", "resume", "streams", "signed"],
      receiveWindow: 33_554_432,
      features: ["query", "replication"],
      maxStreams: 16,
      addresses: ["tcp://10.0.0.1:9100"],
    });
    const details = {
      claim: { id: SESSION, received: [1, 2, 9_007_199_254_740_991] },
      sessionGeneration: 7,
      publicKey: KEY,
    } as const;
    assert.deepEqual(fieldsOf(encodeHello(local, "node2", NOW, NONCE, details)), {
      type: "hello",
      protocol_version: 3,
      node_id: "b",
      capabilities: ["lz4", "zstd", "checksum", "resume", "streams", "signed"],
      min_protocol_version: 1,
      incarnation: "0123456789abcdef",
      cluster_name: "",
      expect_node_id: "node2",
      max_message_size: 16_777_216,
      timestamp: 1_700_000_000_000,
      nonce: NONCE_TEXT,
      session: { id: SESSION, received: [1, 2, 9_007_199_254_740_991] },
      session_generation: 7,
      receive_window: 33_554_432,
      features: ["query", "replication"],
      max_streams: 16,
      addresses: ["tcp://10.0.0.1:9100"],
      public_key: KEY,
    });
  });

  it("leaves out of version 3 what there is nothing to say of, and all of it below", () => {
    const bare = fieldsOf(encodeHello(identity({ maxVersion: 3, features: [] }), "a", NOW, NONCE));
    const two = identity({ receiveWindow: 1, features: ["query"], maxStreams: 1 });
    const details = { claim: undefined, sessionGeneration: 1, publicKey: KEY };
    for (const fields of [bare, fieldsOf(encodeHello(two, "a", NOW, NONCE, details))]) {
      assert.deepEqual(Object.keys(fields as object), [
        ...["type", "protocol_version", "node_id", "capabilities", "min_protocol_version"],
        ...["incarnation", "cluster_name", "expect_node_id", "max_message_size", "timestamp"],
        "nonce",
      ]);
    }
  });

  it("says nothing of a keepalive interval that listeners would refuse", () => {
    for (const keepaliveMs of [0, -1, 0.5, 86_400_001, NaN, Infinity]) {
      const body = encodeHello(identity({ keepaliveMs }), undefined, NOW, NONCE);
      assert.equal(parseHello(body).keepaliveMs, undefined);
    }
    const day = encodeHello(identity({ keepaliveMs: 86_400_000 }), undefined, NOW, NONCE);
    assert.equal(parseHello(day).keepaliveMs, 86_400_000);
  });

  it("writes a whole number of milliseconds, whatever the clock gives", () => {
    assert.equal(parseHello(encodeHello(identity(), "a", NOW + 0.7, NONCE)).timestamp, NOW + 1);
  });

  it("refuses a nonce that isn't 16 bytes", () => {
    for (const length of [0, 15, 17]) {
      assert.throws(
        () => encodeHello(identity(), "a", NOW, new Uint8Array(length)),
        {
          name: "RangeError",
          message: `Cannot write a hello: the nonce must be 16 bytes, got ${length}`,
        },
      );
    }
  });

  it("refuses features that don't fit a handshake frame", () => {
    const features = Array.from({ length: 64 }, () => "f".repeat(64));
    assert.throws(
      () => encodeHello(identity({ maxVersion: 3, features }), "a", NOW, NONCE),
      /^HandshakeError: Cannot write a hello: .*features/,
    );
  });

  it("fills a handshake frame of 4096 bytes and refuses more, without showing the token", () => {
    const spare = 4096 - encodeHello(identity({ authToken: "" }), "a", NOW, NONCE).length;
    const full = encodeHello(identity({ authToken: "x".repeat(spare) }), "a", NOW, NONCE);
    assert.equal(full.length, 4096);
    for (const authToken of ["x".repeat(spare + 1), "é".repeat(spare)]) {
      assert.throws(() => encodeHello(identity({ authToken }), "a", NOW, NONCE), (error) => {
        assert.ok(error instanceof HandshakeError);
        return error.message.startsWith("Cannot write a hello: it has") &&
          !/xx|é/.test(error.message);
      });
    }
  });
});

describe("parseHello", () => {
  it("reads the minimal hello", () => {
    assert.deepEqual({ ...parse(MINIMAL) }, {
      protocolVersion: 2,
      minProtocolVersion: 1,
      nodeId: "a",
      capabilities: ["lz4"],
      incarnation: undefined,
      clusterName: "",
      expectNodeId: undefined,
      maxMessageSize: undefined,
      timestamp: undefined,
      nonce: undefined,
      authToken: undefined,
      keepaliveMs: undefined,
      ...UNSAID,
    });
  });

  it("reads every field", () => {
    const text = `{"type":"hello","protocol_version":3,"node_id":"node-1.example:9/x~!",
      "capabilities":["lz4","zstd","checksum"],"min_protocol_version":2,
      "incarnation":"00ff00FF00ff00FF","cluster_name":"bl\\u00fce","expect_node_id":"node2",
      "max_message_size":1,"timestamp":0,"nonce":"${NONCE_TEXT}","auth_token":"","keepalive_ms":1}`;
    assert.deepEqual(parse(text), {
      protocolVersion: 3,
      minProtocolVersion: 2,
      nodeId: "node-1.example:9/x~!",
      capabilities: ["lz4", "zstd", "checksum"],
      incarnation: "00ff00ff00ff00ff",
      clusterName: "blüe",
      expectNodeId: "node2",
      maxMessageSize: 1,
      timestamp: 0,
      nonce: NONCE_TEXT,
      authToken: "",
      keepaliveMs: 1,
      ...UNSAID,
    });
  });

  it("ignores unknown fields, down to depth 8", () => {
    parse(plus('"session":{"id":"00","received":[1,2,3]},"receive_window":-1,"x":null'));
    parse(plus('"x":[[[[[[[]]]]]]]'));
    assert.throws(() => parse(plus('"x":[[[[[[[[]]]]]]]]')), malformed("nested deeper than 8"));
  });

  it("takes the widest legal values", () => {
    const capabilities = JSON.stringify(Array.from({ length: 64 }, (_, i) => `c${i}`));
    assert.equal(parse(MINIMAL.replace('["lz4"]', capabilities)).capabilities.length, 64);
    assert.deepEqual(parse(MINIMAL.replace('["lz4"]', "[]")).capabilities, []);
    assert.equal(parse(MINIMAL.replace('"a"', `"${"z".repeat(255)}"`)).nodeId.length, 255);
    assert.equal(parse(MINIMAL.replace(":2", ":9007199254740991")).protocolVersion, 2 ** 53 - 1);
    assert.equal(parse(plus('"keepalive_ms":86400000')).keepaliveMs, 86_400_000);
  });

  it("reads what belongs to version 3", () => {
    const text = plus3(
      `"session":{"id":"00112233445566778899AABBccddeeff","received":[0,1,9007199254740991],"x":1},
      "session_generation":3,"receive_window":1048576,"features":["query","a/b:c~!"],
      "max_streams":0,"addresses":["tcp://10.0.0.1:9100","x"],"public_key":"${KEY}"`,
    );
    const { protocolVersion: _, ...hello } = parse(text);
    assert.deepEqual(hello, {
      minProtocolVersion: 1,
      nodeId: "a",
      capabilities: ["resume"],
      incarnation: undefined,
      clusterName: "",
      expectNodeId: undefined,
      maxMessageSize: undefined,
      timestamp: undefined,
      nonce: undefined,
      authToken: undefined,
      keepaliveMs: undefined,
      session: { id: SESSION, received: [0, 1, 9_007_199_254_740_991] },
      sessionGeneration: 3,
      receiveWindow: 1_048_576,
      features: ["query", "a/b:c~!"],
      maxStreams: 0,
      addresses: ["tcp://10.0.0.1:9100", "x"],
      publicKey: KEY,
    });
  });

  it("does not look at it where the dialer doesn't speak version 3", () => {
    const hello = parse(
      plus('"session":1,"features":1,"max_streams":-1,"addresses":7,"public_key":null'),
    );
    for (const [field, value] of Object.entries(UNSAID)) {
      assert.deepEqual(Reflect.get(hello, field), value, field);
    }
  });

  it("takes the widest legal values of version 3", () => {
    const features = JSON.stringify(Array.from({ length: 64 }, () => "f".repeat(64)));
    assert.equal(parse(plus3(`"features":${features}`)).features.length, 64);
    assert.deepEqual(parse(plus3('"features":[]')).features, []);
    assert.equal(parse(plus3('"max_streams":65535')).maxStreams, 65_535);
    assert.equal(parse(plus3('"receive_window":1')).receiveWindow, 1);
    const widest = `"receive_window":${2 ** 53 - 1},"session_generation":${2 ** 53 - 1}`;
    assert.equal(parse(plus3(widest)).receiveWindow, 2 ** 53 - 1);
    assert.equal(parse(plus3(widest)).sessionGeneration, 2 ** 53 - 1);
    assert.equal(parse(plus3('"session_generation":0')).sessionGeneration, 0);
  });

  for (const field of ["type", "protocol_version", "node_id", "capabilities"]) {
    it(`refuses a hello without ${field}`, () => {
      const fields = JSON.parse(MINIMAL);
      delete fields[field];
      assert.throws(
        () => parse(JSON.stringify(fields)),
        malformed(`Cannot read the hello: ${field}`),
      );
    });
  }

  const wrong: Record<string, readonly string[]> = {
    type: ['"welcome"', '"HELLO"', "null", "1"],
    protocol_version: ["0", "-1", "1.5", '"2"', "null", "[2]", "9007199254740992", "1e999"],
    node_id: ['""', '"a b"', '"a\\u0000"', '"a\\n"', '"é"', '"\\u001b[31m"', "7", "null"],
    capabilities: ['"lz4"', "null", "{}", "[1]", '["lz4",null]', '[["lz4"]]', '{"0":"lz4"}'],
    min_protocol_version: ["0", "3", '"1"', "null", "1.5"],
    incarnation: ['"0123456789abcde"', '"0123456789abcdef0"', '"0123456789abcdeg"', '""', "1"],
    cluster_name: ["1", "null", "[]"],
    expect_node_id: ["1", "null", "{}"],
    max_message_size: ["0", "-1", "1.5", '"1"', "null", "9007199254740992"],
    timestamp: ["-1", "0.5", '"0"', "null", "1e300"],
    nonce: ['""', "null", '"AAECAwQFBgcICQoLDA0ODw"', '"AAECAwQFBgcICQoLDA0OD_=="'],
    auth_token: ["1", "null", '["t"]'],
    keepalive_ms: ["0", "-1", "1.5", "86400001", '"1"', "null"],
  };
  for (const [field, values] of Object.entries(wrong)) {
    for (const value of values) {
      it(`refuses ${field} ${value}`, () => {
        const fields = { ...JSON.parse(MINIMAL), [field]: "@" };
        const text = JSON.stringify(fields).replace('"@"', value);
        assert.throws(() => parse(text), malformed(`Cannot read the hello: ${field} must be`));
      });
    }
  }

  const wrong3: Record<string, readonly string[]> = {
    session: ["null", "1", '""', "[]", `["${SESSION}"]`, "true"],
    session_generation: ["-1", "0.5", '"0"', "null", "9007199254740992"],
    receive_window: ["0", "-1", "1.5", '"1"', "null", "9007199254740992", "1e999"],
    features: [
      ...["null", '"query"', "{}", "[1]", "[null]", '[""]', '["a b"]', '["é"]', '["\\u001b[2J"]'],
      `["${"f".repeat(65)}"]`,
      JSON.stringify(Array.from({ length: 65 }, (_, i) => `f${i}`)),
    ],
    max_streams: ["-1", "0.5", "65536", '"1"', "null"],
    addresses: [
      ...["null", '"tcp://a:1"', "{}", "[1]", '[""]', '["a b"]', '["\\u001b[2J"]'],
      `["${"a".repeat(201)}"]`,
      JSON.stringify(Array.from({ length: 17 }, (_, i) => `tcp://a:${i}`)),
    ],
    public_key: [
      ...['""', "null", "1", `"${KEY.slice(0, -1)}"`, `"${KEY}="`, `"A${KEY}"`, `" ${KEY}"`],
      // A digit of another alphabet; bits that mean nothing; 33 bytes, 31 bytes.
      `"${KEY.replace("/", "_")}"`,
      `"${KEY.replace("o=", "p=")}"`,
      `"${"A".repeat(44)}"`,
      `"${"A".repeat(42)}=="`,
    ],
  };
  for (const [field, values] of Object.entries(wrong3)) {
    for (const value of values) {
      it(`refuses ${field} ${value.slice(0, 60)} in version 3`, () => {
        const problem = malformed(`Cannot read the hello: ${field} must be`);
        assert.throws(() => parse(plus3(`"${field}":${value}`)), problem);
      });
    }
  }

  const ID = `"id":"${SESSION}"`;
  const sessions: readonly [string, string][] = [
    ['"received":[0,0,0]', "session.id is missing"],
    [ID, "session.received is missing"],
    [`"id":1,"received":[0,0,0]`, "session.id must be"],
    [`"id":"${SESSION}0","received":[0,0,0]`, "session.id must be"],
    [`"id":"${SESSION.slice(1)}","received":[0,0,0]`, "session.id must be"],
    [`"id":"${SESSION.slice(1)}g","received":[0,0,0]`, "session.id must be"],
    [`"id":"${SESSION}\\n","received":[0,0,0]`, "session.id must be"],
    [`"__proto__":{${ID}},"received":[0,0,0]`, "session.id is missing"],
    [`${ID},${ID},"received":[0,0,0]`, "twice"],
    ...["null", "0", '"000"', "{}", "[]", "[0,0]", "[0,0,0,0]", "[0,0,-1]", "[0,0.5,0]"].map((
      received,
    ): [string, string] => [`${ID},"received":${received}`, "session.received must be"]),
    ...['[0,0,"0"]', "[null,0,0]", "[0,9007199254740992,0]", "[[0],0,0]", "[1e999,0,0]"].map((
      received,
    ): [string, string] => [`${ID},"received":${received}`, "session.received must be"]),
  ];
  for (const [inner, problem] of sessions) {
    it(`refuses a session {${inner}}`, () => {
      assert.throws(() => parse(plus3(`"session":{${inner}}`)), malformed(problem));
    });
  }

  it("refuses a nonce of another length, or with bits that mean nothing", () => {
    const nonces = ["AAECAwQFBgcICQoLDA0O", "AAECAwQFBgcICQoLDA0ODxA=", "AAECAwQFBgcICQoLDA0ODx=="];
    for (const nonce of nonces) {
      assert.throws(() => parse(plus(`"nonce":"${nonce}"`)), malformed("base64 of 16 bytes"));
    }
  });

  it("refuses 65 capabilities and a node id of 256 bytes or of a megabyte", () => {
    const capabilities = JSON.stringify(Array.from({ length: 65 }, () => "lz4"));
    assert.throws(() => parse(MINIMAL.replace('["lz4"]', capabilities)), malformed("at most 64"));
    for (const length of [256, 1_000_000]) {
      const text = MINIMAL.replace('"a"', `"${"z".repeat(length)}"`);
      assert.throws(
        () => parse(text),
        (error) => malformed("node_id")(error) && String(error).length < 200,
      );
    }
  });

  it("takes no field from a prototype, sent or inherited", () => {
    const polluted = plus(
      '"__proto__":{"auth_token":"t","keepalive_ms":1},"constructor":{"nonce":1}',
    );
    assert.equal(parse(polluted).authToken, undefined);
    assert.equal(parse(polluted).keepaliveMs, undefined);
    assert.throws(() => parse(`{"__proto__":${MINIMAL}}`), malformed("type"));
    assert.throws(() => parse(plus('"__proto__":1,"__proto__":1')), malformed("twice"));
  });

  it("takes no field from a prototype that other code of the process has spoilt", () => {
    Object.defineProperty(Object.prototype, "auth_token", { value: "t", configurable: true });
    try {
      assert.equal(parse(MINIMAL).authToken, undefined);
    } finally {
      Reflect.deleteProperty(Object.prototype, "auth_token");
    }
  });

  it("refuses a field that stands twice, as one side would read the one and one the other", () => {
    assert.throws(() => parse(plus('"node_\\u0069d":"b"')), malformed("twice"));
  });

  it("never quotes the token, however wrong the hello is", () => {
    for (const rest of ['"timestamp":-1', '"a":', '"auth_token":"hunter2"', '"x":[[[[[[[[']) {
      assert.throws(() => parse(plus(`"auth_token":"hunter2",${rest}`)), (error) => {
        assert.ok(error instanceof HandshakeError && error.cause === undefined);
        return !error.message.includes("hunter2");
      });
    }
    assert.throws(
      () => parse(plus('"auth_token":["hunter2"]')),
      (error) => !/hunter2/.test(`${error}`),
    );
  });
});
