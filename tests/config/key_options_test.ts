import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { ConfigError } from "../../src/errors.ts";
import type { EndpointOptions, ResolvedOptions } from "../../src/options.ts";
import { keyBytesOf } from "../../src/resolve_keys.ts";
import { resolveOptions } from "../../src/resolve_options.ts";

const PEM = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
const ZEROS = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
const ONES = "//////////////////////////////////////////8=";
const NOT_A_KEY = "must be an Ed25519 public key: 32 bytes as base64";

function resolve(options: object): ResolvedOptions {
  return resolveOptions({ nodeId: "node1", ...options } as EndpointOptions);
}

function problem(options: object): string {
  try {
    resolve(options);
  } catch (error) {
    assert.ok(error instanceof ConfigError, String(error));
    assert.ok(error.message.startsWith(`${error.path}: `));
    return error.message;
  }
  return assert.fail("accepted");
}

describe("identity", () => {
  it("takes a private key as text or as a path, and keys of others", () => {
    assert.deepStrictEqual(resolve({ identity: { privateKey: PEM } }).identity, {
      privateKey: PEM,
      trustedKeys: {},
    });
    const identity = { privateKeyPath: "node1.key", trustedKeys: { a: ZEROS, b: [ZEROS, ONES] } };
    assert.deepStrictEqual(resolve({ identity }).identity, {
      privateKeyPath: "node1.key",
      trustedKeys: { a: [ZEROS], b: [ZEROS, ONES] },
    });
  });

  it("is undefined where nothing is given", () => {
    assert.equal(resolve({ identity: {} }).identity, undefined);
    const undefineds = { privateKey: undefined, trustedKeys: undefined };
    assert.equal(resolve({ identity: undefineds }).identity, undefined);
  });

  it("tells a key from a path", () => {
    const advice = "; use identity.privateKeyPath for a path";
    for (const privateKey of ["node1.key", "", "-----BEGIN CERTIFICATE-----"]) {
      assert.equal(
        problem({ identity: { privateKey } }),
        `identity.privateKey: is not a private key in PEM (PKCS #8)${advice}`,
      );
    }
    assert.equal(
      problem({ identity: { privateKeyPath: PEM } }),
      "identity.privateKeyPath: is PEM text, not a path; use identity.privateKey for PEM text",
    );
    assert.equal(
      problem({ identity: { privateKey: PEM, privateKeyPath: "a" } }),
      "identity.privateKeyPath: must not be given together with identity.privateKey",
    );
    assert.match(
      problem({ identity: { privateKeyPath: "a\0b" } }),
      /^identity\.privateKeyPath: must not contain a NUL/,
    );
  });

  it("is never quoted, not even where a private key stands for a public one", () => {
    const secret = "-----BEGIN PRIVATE KEY-----\nhunter2";
    const cases = [
      { privateKey: "hunter2" },
      { privateKey: `${PEM}hunter2`.repeat(5000) },
      { privateKeyPath: secret },
      { trustedKeys: { a: secret } },
      { trustedKeys: { a: ["hunter2"] } },
    ];
    for (const identity of cases) {
      assert.doesNotMatch(problem({ identity }), /hunter2/);
      assert.doesNotMatch(problem({ signing: { trustedKeys: {}, ...identity } }), /hunter2/);
    }
    assert.equal(problem({ identity: { privateKey: 5 } }), "identity.privateKey: must be a text");
  });
});

describe("trusted keys", () => {
  it("are exactly 32 bytes in canonical base64", () => {
    const bad = [
      "",
      ZEROS.slice(1),
      `A${ZEROS}`,
      ZEROS.replace("=", ""),
      ZEROS.replace("A=", "B="),
      ONES.replace("//", "__"),
      `${ZEROS}\n`,
      5,
      null,
      new Uint8Array(32),
    ];
    for (const key of bad) {
      assert.equal(
        problem({ identity: { trustedKeys: { node2: key } } }),
        `identity.trustedKeys["node2"]: ${NOT_A_KEY}`,
      );
    }
    assert.equal(
      problem({ identity: { trustedKeys: { a: [ZEROS, ""] } } }),
      `identity.trustedKeys["a"][1]: ${NOT_A_KEY}`,
    );
  });

  it("are 1 to 16 for a node", () => {
    const keys = (count: number) => ({ trustedKeys: { a: Array(count).fill(ZEROS) } });
    resolve({ identity: keys(16) });
    for (const count of [0, 17]) {
      assert.equal(
        problem({ identity: keys(count) }),
        `identity.trustedKeys["a"]: must have 1 to 16 keys, got ${count}`,
      );
    }
  });

  it("belong to names that a node can have", () => {
    assert.equal(
      problem({ identity: { trustedKeys: { "a b": ZEROS } } }),
      "identity.trustedKeys: each key must be 1 to 255 characters of printable ASCII without " +
        'spaces, got "a b"',
    );
    assert.equal(
      problem({ identity: { trustedKeys: [ZEROS] } }),
      "identity.trustedKeys: must be a plain object, got a list",
    );
    const longest = "x".repeat(255);
    assert.equal(
      problem({ identity: { trustedKeys: { [longest]: "" } } }),
      `identity.trustedKeys["${longest}"]: ${NOT_A_KEY}`,
    );
  });

  it("may be left undefined one by one", () => {
    const identity = { trustedKeys: { a: undefined, b: ZEROS } };
    assert.deepStrictEqual(resolve({ identity }).identity?.trustedKeys, { b: [ZEROS] });
  });

  it("become bytes by node id", () => {
    const trustedKeys: unknown = JSON.parse(`{"__proto__": "${ONES}", "a": "${ZEROS}"}`);
    const { identity } = resolve({ identity: { trustedKeys } });
    const bytes = keyBytesOf(identity?.trustedKeys ?? {});
    assert.deepEqual([...bytes.keys()].toSorted(), ["__proto__", "a"]);
    assert.deepEqual(bytes.get("a"), [new Uint8Array(32)]);
    assert.deepEqual(bytes.get("__proto__"), [new Uint8Array(32).fill(255)]);
  });
});

describe("signing", () => {
  const signing = { privateKeyPath: "node1.key", trustedKeys: { a: ZEROS } };

  it("has the default age, and keeps what is given", () => {
    assert.deepStrictEqual(resolve({ signing }).signing, {
      privateKeyPath: "node1.key",
      trustedKeys: { a: [ZEROS] },
      maxAgeMs: 300000,
    });
    const brief = resolve({ signing: { ...signing, maxAgeMs: 1 }, resumeWindowMs: 1 });
    assert.equal(brief.signing?.maxAgeMs, 1);
    assert.equal(
      problem({ signing: { ...signing, maxAgeMs: 0 } }),
      "signing.maxAgeMs: must be between 1 and 2147483647, got 0",
    );
  });

  it("must last as long as what is sent again may wait", () => {
    const most = resolve({ signing, resumeWindowMs: 300_000 });
    assert.equal(most.signing?.maxAgeMs, most.resumeWindowMs);
    assert.equal(
      problem({ signing, resumeWindowMs: 300_001 }),
      "signing.maxAgeMs: must be at least resumeWindowMs (300001), got 300000",
    );
    const short = { ...signing, maxAgeMs: 59_999 };
    assert.equal(
      problem({ signing: short }),
      "signing.maxAgeMs: must be at least resumeWindowMs (60000), got 59999",
    );
    assert.equal(resolve({ signing: short, resumeWindowMs: 0 }).signing?.maxAgeMs, 59_999);
    assert.equal(resolve({ resumeWindowMs: 300_001 }).signing, undefined);
  });

  it("is never half of it, in silence", () => {
    const noKey = "signing.privateKey: is required, or signing.privateKeyPath";
    assert.equal(problem({ signing: {} }), noKey);
    assert.equal(problem({ signing: { trustedKeys: { a: ZEROS } } }), noKey);
    assert.equal(
      problem({ signing: { privateKey: PEM } }),
      "signing.trustedKeys: is required",
    );
    assert.deepStrictEqual(resolve({ signing: { privateKey: PEM, trustedKeys: {} } }).signing, {
      privateKey: PEM,
      trustedKeys: {},
      maxAgeMs: 300000,
    });
  });
});

describe("routes", () => {
  it("come out with the scheme of their addresses, under any name", () => {
    const { routes, defaultRoute } = resolve({
      routes: { "did:key:z6Mk": { nodeId: "node2", address: "b:1" } },
      defaultRoute: { nodeId: "gateway", address: "g:1" },
    });
    assert.deepStrictEqual(routes, {
      "did:key:z6Mk": { nodeId: "node2", address: "tcp://b:1" },
    });
    assert.deepStrictEqual(defaultRoute, { nodeId: "gateway", address: "tcp://g:1" });
  });

  it("are refused with their full path", () => {
    const good = { nodeId: "node2", address: "b:1" };
    assert.equal(
      problem({ routes: { db: good, "did:x": { ...good, address: "b:0" } } }),
      'routes["did:x"].address: must not have port 0, which asks a listener for a free port',
    );
    assert.equal(
      problem({ routes: { db: { address: "b:1" } } }),
      'routes["db"].nodeId: is required',
    );
    assert.equal(
      problem({ routes: { db: { ...good, nodeid: "x" } } }),
      'routes["db"].nodeid: unknown option, did you mean "nodeId"?',
    );
    assert.match(
      problem({ routes: { "": good } }),
      /^routes: each key must be 1 to 255 .* got ""$/,
    );
    assert.equal(problem({ routes: [good] }), "routes: must be a plain object, got a list");
    assert.equal(
      problem({ defaultRoute: { nodeId: "a b", address: "b:1" } }),
      'defaultRoute.nodeId: must be 1 to 255 characters of printable ASCII without spaces, got "a b"',
    );
    assert.equal(problem({ defaultRoute: { nodeId: "a" } }), "defaultRoute.address: is required");
  });

  it("are 65536 at most", () => {
    const entries = (count: number) =>
      Object.fromEntries(
        Array.from({ length: count }, (_, i) => [`r${i}`, { nodeId: "a", address: "a:1" }]),
      );
    assert.equal(Object.keys(resolve({ routes: entries(65536) }).routes).length, 65536);
    assert.equal(
      problem({ routes: entries(65537) }),
      "routes: must have at most 65536 entries, got 65537",
    );
  });
});
