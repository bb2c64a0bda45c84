import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import { DEFAULT_OPTIONS } from "../../src/default_options.ts";
import { ConfigError } from "../../src/errors.ts";
import type { EndpointOptions, ResolvedOptions } from "../../src/options.ts";
import { resolveOptions } from "../../src/resolve_options.ts";
import { validOptions } from "./arbitrary_options.ts";

const PEM = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
const MAX_MS = 2147483647;

function resolve(options: object): ResolvedOptions {
  return resolveOptions({ nodeId: "node1", ...options } as EndpointOptions);
}

function refusal(options: unknown): ConfigError {
  try {
    resolveOptions(options as EndpointOptions);
  } catch (error) {
    assert.ok(error instanceof ConfigError);
    assert.equal(error.code, "Config");
    return error;
  }
  return assert.fail("accepted");
}

/** The message about options that have a node id. */
function problem(options: object): string {
  return refusal({ nodeId: "node1", ...options }).message;
}

function nested(path: string, value: unknown): object {
  const [head = "", ...rest] = path.split(".");
  return { [head]: rest.length === 0 ? value : nested(rest.join("."), value) };
}

function isDeepFrozen(value: unknown): boolean {
  if (typeof value !== "object" || value === null) return true;
  return Object.isFrozen(value) && Object.values(value).every(isDeepFrozen);
}

describe("defaults", () => {
  /** By hand from the table of the design. */
  const DESIGN = {
    listen: [],
    peers: [],
    security: "strict",
    poolSize: 2,
    connectTimeoutMs: 5000,
    ioTimeoutMs: 30000,
    maxMessageSize: 16777216,
    keepalive: true,
    keepaliveIntervalSecs: 30,
    maxPendingMessages: 1000,
    maxPendingBytes: 67108864,
    recvBufferSize: 1000,
    resumeWindowMs: 60000,
    maxClockSkewMs: 300000,
    compression: { enabled: true, method: "lz4", minSize: 256 },
    rateLimit: { enabled: false, bucketSize: 100, refillRate: 50 },
    reconnect: {
      enabled: true,
      initialBackoffMs: 100,
      maxBackoffMs: 30000,
      multiplier: 2.0,
      maxAttempts: undefined,
      jitter: 0.1,
    },
    clusterName: "",
    authToken: undefined,
    maxConnections: 1024,
    maxConnectionsPerHost: 64,
    unixMode: undefined,
    reusePort: false,
    minProtocolVersion: 1,
    maxProtocolVersion: 3,
    delivery: "resume",
    features: [],
    batchDelayMs: 0,
    bandwidth: {
      total: undefined,
      perPeer: undefined,
      control: undefined,
      normal: undefined,
      bulk: undefined,
    },
    datagrams: { maxBytes: 65_507, warnAbove: 1200 },
    advertise: undefined,
    useAdvertised: "verified",
    checksum: "auto",
    maxStreams: 256,
    maxRequests: 256,
    requestTimeoutMs: 30000,
    pool: {
      strategy: "first-available",
      minConnections: 1,
      idleTimeoutMs: 90000,
      maxLifetimeMs: 0,
      upgradeIntervalMs: 30000,
      healthCheckIntervalMs: 10000,
      maxConns: 1000,
      maxIdle: 100,
    },
    identity: undefined,
    routes: {},
    defaultRoute: undefined,
  };

  it("are those of the design", () => {
    const tls = { requireClientAuth: false, nodeIdVerification: "None" };
    const signing = { maxAgeMs: 300000 };
    const expected = { ...DESIGN, tls, signing, receiveWindow: undefined };
    assert.deepStrictEqual({ ...DEFAULT_OPTIONS }, expected);
    assert.ok(isDeepFrozen(DEFAULT_OPTIONS));
  });

  it("fill in everything but the node id", () => {
    const off = { tls: undefined, signing: undefined };
    // 16 MiB, the default message, and 65,536 beside it.
    const expected = { nodeId: "node1", ...DESIGN, ...off, receiveWindow: 16842752 };
    assert.deepStrictEqual({ ...resolve({}) }, expected);
  });

  it("let the receive window follow the largest message, from 16 MiB up", () => {
    assert.equal(resolve({ maxMessageSize: 1 }).receiveWindow, 16777216);
    assert.equal(resolve({ maxMessageSize: 16711680 }).receiveWindow, 16777216);
    assert.equal(resolve({ maxMessageSize: 16711681 }).receiveWindow, 16777217);
    assert.equal(resolve({ receiveWindow: 65536 }).receiveWindow, 65536);
  });

  it("fill in the rest of an inner object", () => {
    assert.deepStrictEqual(resolve({ reconnect: { jitter: 0 } }).reconnect, {
      ...DESIGN.reconnect,
      jitter: 0,
    });
    assert.deepStrictEqual(resolve({ compression: { enabled: false } }).compression, {
      ...DESIGN.compression,
      enabled: false,
    });
    assert.deepStrictEqual({ ...resolve({ tls: { ca: PEM } }).tls }, {
      ca: PEM,
      requireClientAuth: false,
      nodeIdVerification: "None",
    });
  });

  it("count an undefined value as not given, at every level", () => {
    const undefineds = {
      listen: undefined,
      peers: undefined,
      tls: undefined,
      poolSize: undefined,
      rateLimit: undefined,
      reconnect: { jitter: undefined, maxAttempts: undefined },
      authToken: undefined,
      environment: undefined,
    };
    assert.deepStrictEqual(resolve(undefineds), resolve({}));
  });

  it("keep falsy values that were given", () => {
    const resolved = resolve({
      keepalive: false,
      resumeWindowMs: 0,
      compression: { minSize: 0 },
      reconnect: { enabled: false, initialBackoffMs: 0, jitter: 0 },
    });
    assert.equal(resolved.keepalive, false);
    assert.equal(resolved.resumeWindowMs, 0);
    assert.equal(resolved.compression.minSize, 0);
    assert.equal(resolved.reconnect.enabled, false);
    assert.equal(resolved.reconnect.initialBackoffMs, 0);
    assert.equal(resolved.reconnect.jitter, 0);
  });
});

describe("rateLimit", () => {
  it("has the presets of the design", () => {
    const presets = [["default", 100, 50], ["aggressive", 50, 25], ["permissive", 200, 100]];
    for (const [preset, bucketSize, refillRate] of presets) {
      const expected = { enabled: true, bucketSize, refillRate };
      assert.deepStrictEqual({ ...resolve({ rateLimit: preset }).rateLimit }, expected);
    }
    assert.equal(resolve({ rateLimit: "disabled" }).rateLimit.enabled, false);
  });

  it("starts from the default preset where it is an object", () => {
    assert.deepStrictEqual({ ...resolve({ rateLimit: {} }).rateLimit }, {
      enabled: true,
      bucketSize: 100,
      refillRate: 50,
    });
    assert.deepStrictEqual({ ...resolve({ rateLimit: { refillRate: 0.5 } }).rateLimit }, {
      enabled: true,
      bucketSize: 100,
      refillRate: 0.5,
    });
  });

  it("refuses an unknown preset", () => {
    assert.equal(
      problem({ rateLimit: "fast" }),
      'rateLimit: must be "default", "aggressive", "permissive" or "disabled", got "fast"',
    );
    assert.equal(problem({ rateLimit: 5 }), "rateLimit: must be a plain object, got 5");
  });
});

describe("numbers", () => {
  const INTEGERS: [path: string, min: number, max: number][] = [
    ["poolSize", 1, 64],
    ["connectTimeoutMs", 1, MAX_MS],
    ["ioTimeoutMs", 1, MAX_MS],
    ["maxPendingMessages", 1, 10_000_000],
    ["recvBufferSize", 1, 10_000_000],
    ["resumeWindowMs", 0, MAX_MS],
    ["maxClockSkewMs", 0, MAX_MS],
    ["maxConnections", 1, 1_000_000],
    ["maxConnectionsPerHost", 1, 1_000_000],
    ["unixMode", 0, 0o777],
    ["compression.minSize", 0, 1073741824],
    ["reconnect.maxAttempts", 1, Number.MAX_SAFE_INTEGER],
    ["rateLimit.bucketSize", 1, Number.MAX_SAFE_INTEGER],
    ["minProtocolVersion", 1, 3],
    ["receiveWindow", 65536, Number.MAX_SAFE_INTEGER],
    ["maxStreams", 0, 65535],
    ["maxRequests", 0, 1_000_000],
    ["requestTimeoutMs", 1, MAX_MS],
    ["pool.idleTimeoutMs", 0, MAX_MS],
    ["pool.maxLifetimeMs", 0, MAX_MS],
    ["pool.upgradeIntervalMs", 0, MAX_MS],
    ["bandwidth.total", 4096, Number.MAX_SAFE_INTEGER],
    ["bandwidth.perPeer", 4096, Number.MAX_SAFE_INTEGER],
    ["datagrams.maxBytes", 512, 65_507],
    ["datagrams.warnAbove", 0, 65_507],
    ["bandwidth.bulk", 4096, Number.MAX_SAFE_INTEGER],
    ["pool.healthCheckIntervalMs", 0, MAX_MS],
    ["pool.maxConns", 1, 1_000_000],
    ["pool.maxIdle", 0, 1_000_000],
  ];

  it("are accepted on both ends of their range and refused beyond", () => {
    for (const [path, min, max] of INTEGERS) {
      resolve(nested(path, min));
      resolve(nested(path, max));
      for (const value of [min - 1, max + 1]) {
        const error = refusal({ nodeId: "node1", ...nested(path, value) });
        assert.equal(error.path, path);
        assert.equal(error.message, `${path}: must be between ${min} and ${max}, got ${value}`);
      }
    }
  });

  it("must be integers where integers are meant", () => {
    for (const [path, min, max] of INTEGERS) {
      for (const value of [NaN, Infinity, 1.5, null, true]) {
        assert.equal(
          problem(nested(path, value)),
          `${path}: must be an integer between ${min} and ${max}, got ${value}`,
        );
      }
      assert.match(problem(nested(path, "2")), /: must be an integer between .*, got "2"$/);
      assert.match(problem(nested(path, 2n)), /: must be an integer between .*, got 2$/);
    }
  });

  it("may be fractions where fractions are meant, but never NaN or infinite", () => {
    const cases: [path: string, good: number[], bad: number[]][] = [
      ["keepaliveIntervalSecs", [0.1, 86400], [0, -1, 86400.5]],
      ["reconnect.jitter", [0, 0.5, 1], [-0.01, 1.01, 3]],
      ["reconnect.multiplier", [1, 1.5, 100], [0.99, 0, 100.1]],
      ["rateLimit.refillRate", [0.001, 1e12], [0, -1]],
      ["batchDelayMs", [0, 0.5, 1000], [-0.1, 1000.1]],
    ];
    for (const [path, good, bad] of cases) {
      for (const value of good) resolve(nested(path, value));
      for (const value of [...bad, NaN, Infinity, -Infinity]) {
        const error = refusal({ nodeId: "node1", ...nested(path, value) });
        assert.equal(error.path, path);
        assert.ok(error.message.endsWith(`, got ${value}`), error.message);
      }
    }
  });

  it("say their range as it is", () => {
    const message = "reconnect.jitter: must be between 0 and 1, got 3";
    assert.equal(problem({ reconnect: { jitter: 3 } }), message);
    assert.equal(
      problem({ keepaliveIntervalSecs: 0 }),
      "keepaliveIntervalSecs: must be between 0.1 and 86400, got 0",
    );
    assert.equal(
      problem({ rateLimit: { refillRate: 0 } }),
      "rateLimit.refillRate: must be above 0, got 0",
    );
  });

  it("lose the sign of a negative zero", () => {
    assert.ok(Object.is(resolve({ reconnect: { jitter: -0 } }).reconnect.jitter, 0));
    assert.ok(Object.is(resolve({ resumeWindowMs: -0 }).resumeWindowMs, 0));
  });

  it("let no message be larger than the queue", () => {
    const most = 1073741824;
    resolve({ maxMessageSize: most, maxPendingBytes: most });
    resolve({ maxMessageSize: 1, maxPendingBytes: 1 });
    const huge = Number.MAX_SAFE_INTEGER;
    assert.match(
      problem({ maxMessageSize: most + 1, maxPendingBytes: huge }),
      /^maxMessageSize: must be between 1 and 1073741824, got/,
    );
    assert.match(problem({ maxPendingBytes: huge + 1 }), /^maxPendingBytes: must be between 1 and/);
    assert.equal(
      problem({ maxMessageSize: 1000, maxPendingBytes: 999 }),
      "maxMessageSize: must be at most maxPendingBytes (999), got 1000",
    );
    assert.equal(
      problem({ maxPendingBytes: 999 }),
      "maxPendingBytes: must be at least maxMessageSize (16777216), got 999",
    );
  });

  it("let no lowest protocol version be above the highest", () => {
    resolve({ minProtocolVersion: 2, maxProtocolVersion: 2 });
    assert.equal(
      problem({ maxProtocolVersion: 4 }),
      "maxProtocolVersion: must be between 1 and 3, got 4",
    );
    assert.equal(
      problem({ minProtocolVersion: 3, maxProtocolVersion: 2 }),
      "minProtocolVersion: must be at most maxProtocolVersion (2), got 3",
    );
  });

  it("let no pool keep more connections than it may have", () => {
    resolve({ poolSize: 64, pool: { minConnections: 64 } });
    resolve({ poolSize: 1 });
    assert.equal(
      problem({ poolSize: 64, pool: { minConnections: 65 } }),
      "pool.minConnections: must be between 1 and 64, got 65",
    );
    assert.equal(
      problem({ poolSize: 4, pool: { minConnections: 5 } }),
      "pool.minConnections: must be at most poolSize (4), got 5",
    );
    assert.equal(
      problem({ pool: { minConnections: 3 } }),
      "pool.minConnections: must be at most poolSize (2), got 3",
    );
  });

  it("let no first delay be longer than the longest", () => {
    resolve({ reconnect: { initialBackoffMs: MAX_MS, maxBackoffMs: MAX_MS } });
    assert.match(
      problem({ reconnect: { maxBackoffMs: MAX_MS + 1 } }),
      /^reconnect\.maxBackoffMs: must be between 0 and 2147483647, got 2147483648$/,
    );
    assert.equal(
      problem({ reconnect: { initialBackoffMs: 30001 } }),
      "reconnect.initialBackoffMs: must be at most reconnect.maxBackoffMs (30000), got 30001",
    );
    assert.equal(
      problem({ reconnect: { maxBackoffMs: 99 } }),
      "reconnect.maxBackoffMs: must be at least reconnect.initialBackoffMs (100), got 99",
    );
  });
});

describe("unknown options", () => {
  it("are refused at every level, with the nearest name", () => {
    const cases: [options: object, message: string][] = [
      [
        { reconnect: { jiter: 0.1 } },
        'reconnect.jiter: unknown option, did you mean "jitter"?',
      ],
      [{ pool_size: 2 }, 'pool_size: unknown option, did you mean "poolSize"?'],
      [{ tsl: {} }, 'tsl: unknown option, did you mean "tls"?'],
      [{ xyzzy: 1 }, "xyzzy: unknown option"],
      [{ xyzzy: undefined }, "xyzzy: unknown option"],
      [{ tls: { certpath: "a" } }, 'tls.certpath: unknown option, did you mean "certPath"?'],
      [{ rateLimit: { preset: "default" } }, "rateLimit.preset: unknown option"],
      [{ compression: { level: 9 } }, "compression.level: unknown option"],
      [
        { peers: [{ nodeId: "a", adress: "b:1" }] },
        'peers[0].adress: unknown option, did you mean "address"?',
      ],
    ];
    for (const [options, message] of cases) assert.equal(problem(options), message);
  });

  it("are refused where they would reach a prototype", () => {
    for (const key of ["__proto__", "constructor", "toString", "hasOwnProperty"]) {
      const options: unknown = JSON.parse(`{"nodeId": "a", "${key}": {"poolSize": 1}}`);
      assert.equal(refusal(options).message, `${key}: unknown option`);
      const inner: unknown = JSON.parse(`{"nodeId": "a", "tls": {"${key}": 1}}`);
      assert.equal(refusal(inner).path, `tls.${key}`);
    }
    assert.equal(resolve({}).poolSize, 2);
  });

  it("are escaped and cut in the message", () => {
    assert.equal(problem({ "\u001b[31m": 1 }), '["\\u001b[31m"]: unknown option');
    const message = problem({ tls: { ["x".repeat(1e6)]: 1 } });
    assert.equal(message, `tls["${"x".repeat(64)}…"]: unknown option`);
  });
});

describe("texts", () => {
  it("let a node id be 1 to 255 characters of printable ASCII", () => {
    resolve({ nodeId: "!~".repeat(127) + "x" });
    for (const nodeId of ["", "a b", "é", "a\n", "\u007f", "x".repeat(256), 5, null]) {
      const error = refusal({ nodeId });
      assert.equal(error.path, "nodeId");
      assert.match(error.message, /^nodeId: must be 1 to 255 characters of printable ASCII/);
      assert.match(error.message, /^[ -~…]{1,200}$/);
    }
    assert.equal(refusal({}).message, "nodeId: is required");
  });

  it("count the bytes of UTF-8, not the characters", () => {
    assert.equal(resolve({ clusterName: "é".repeat(127) }).clusterName.length, 127);
    assert.match(
      problem({ clusterName: "é".repeat(128) }),
      /^clusterName: must have at most 255 bytes, got "(\\u00e9){64}…"$/,
    );
    assert.equal(resolve({ authToken: "é".repeat(512) }).authToken?.length, 512);
  });

  it("never quote a token or a key", () => {
    const secret = "hunter2é";
    assert.equal(
      problem({ authToken: secret.repeat(200) }),
      "authToken: must have 1 to 1024 bytes",
    );
    assert.equal(problem({ authToken: "" }), "authToken: must have 1 to 1024 bytes");
    assert.equal(problem({ authToken: 12345 }), "authToken: must be a text");
    assert.equal(problem({ tls: { key: secret } }), "tls.key: is not PEM text");
    assert.equal(problem({ tls: { key: 12345 } }), "tls.key: must be a text");
  });

  it("must be well-formed, as UTF-8 can't carry the rest", () => {
    const message = "clusterName: must be well-formed Unicode text, got";
    assert.equal(problem({ clusterName: "\ud800" }), `${message} "\\ud800"`);
    assert.equal(problem({ authToken: "\udc00" }), "authToken: must be well-formed Unicode text");
  });

  it("must be one of the choices exactly", () => {
    assert.equal(
      problem({ security: "Strict" }),
      'security: must be "strict", "permissive", "development" or "legacy", got "Strict"',
    );
    assert.equal(
      problem({ compression: { method: "gzip" } }),
      'compression.method: must be "lz4" or "zstd", got "gzip"',
    );
    assert.equal(
      problem({ delivery: "exactly-once" }),
      'delivery: must be "resume" or "at-most-once", got "exactly-once"',
    );
    assert.equal(
      problem({ checksum: true }),
      'checksum: must be "auto", "always" or "never", got true',
    );
    assert.equal(
      problem({ pool: { strategy: "random" } }),
      'pool.strategy: must be "first-available", "round-robin" or "least-loaded", got "random"',
    );
    assert.equal(
      problem({ tls: { nodeIdVerification: true } }),
      'tls.nodeIdVerification: must be "None", "CommonName" or "SubjectAltName", got true',
    );
  });

  it("don't stand for true and false", () => {
    assert.equal(problem({ keepalive: "yes" }), 'keepalive: must be true or false, got "yes"');
    assert.equal(problem({ keepalive: 1 }), "keepalive: must be true or false, got 1");
  });
});

describe("addresses", () => {
  it("come out as a list, with their scheme", () => {
    assert.deepStrictEqual([...resolve({ listen: "0.0.0.0:0" }).listen], ["tcp://0.0.0.0:0"]);
    assert.deepStrictEqual(
      [...resolve({ listen: ["[::]:9100", "QUIC://a:1"] }).listen],
      ["tcp://[::]:9100", "quic://a:1"],
    );
    assert.deepStrictEqual(
      [...resolve({ peers: [{ nodeId: "node2", address: "b:1" }] }).peers],
      [{ nodeId: "node2", address: "tcp://b:1" }],
    );
  });

  it("are refused with their full path", () => {
    assert.equal(problem({ listen: "host" }), 'listen: must end in ":port", got "host"');
    assert.match(problem({ listen: ["a:1", "b:1", "c"] }), /^listen\[2\]: must end in ":port"/);
    assert.match(problem({ listen: ["a:1", 5] }), /^listen\[1\]: must be a text such as .*, got 5/);
    assert.match(
      problem({ listen: {} }),
      /^listen: must be an address or a list of addresses, got/,
    );
    const good = { nodeId: "a", address: "a:1" };
    assert.match(
      problem({ peers: [good, good, { nodeId: "c", address: "c:x" }] }),
      /^peers\[2\]\.address: must end in a port between 0 and 65535, got "c:x"$/,
    );
  });

  it("of peers have a port to dial", () => {
    assert.match(
      problem({ peers: [{ nodeId: "b", address: "b:0" }] }),
      /^peers\[0\]\.address: must not have port 0/,
    );
  });

  it("of peers are required, as are their node ids", () => {
    assert.equal(problem({ peers: [{ nodeId: "b" }] }), "peers[0].address: is required");
    assert.equal(problem({ peers: [{ address: "b:1" }] }), "peers[0].nodeId: is required");
    assert.equal(problem({ peers: ["b:1"] }), 'peers[0]: must be a plain object, got "b:1"');
    assert.equal(problem({ peers: "b:1" }), 'peers: must be a list of peers, got "b:1"');
    // deno-lint-ignore no-sparse-arrays
    assert.match(problem({ peers: [, { nodeId: "b", address: "b:1" }] }), /^peers\[0\]: must be/);
  });
});

describe("features", () => {
  it("are up to 64 names of 1 to 64 characters, 1024 together", () => {
    const longest = Array.from({ length: 16 }, () => "~".repeat(64));
    assert.deepStrictEqual(resolve({ features: longest }).features, longest);
    const most = Array.from({ length: 64 }, (_, index) => `feature${index}`);
    assert.equal(resolve({ features: most }).features.length, 64);
    assert.equal(
      problem({ features: [...most, "x"] }),
      "features: must have at most 64 entries, got 65",
    );
    assert.equal(
      problem({ features: [...longest, "x"] }),
      "features: must have at most 1024 characters together, got 1025",
    );
  });

  it("are refused by their place in the list", () => {
    for (const name of ["", "a b", "é", "a\n", "x".repeat(65), 5, null, undefined]) {
      const error = refusal({ nodeId: "node1", features: ["query", name] });
      assert.equal(error.path, "features[1]");
      assert.match(error.message, /must be 1 to 64 characters of printable ASCII without spaces/);
    }
    assert.equal(problem({ features: "query" }), 'features: must be a list of texts, got "query"');
  });
});

describe("tls", () => {
  it("is undefined where nothing to use is given", () => {
    assert.equal(resolve({ tls: {} }).tls, undefined);
    assert.equal(resolve({ tls: { requireClientAuth: true, cert: undefined } }).tls, undefined);
  });

  it("takes each thing as text or as a path, not both", () => {
    resolve({ tls: { cert: PEM, keyPath: "node.key", caCertPath: "ca.crt" } });
    for (const [text, path] of [["cert", "certPath"], ["key", "keyPath"], ["ca", "caCertPath"]]) {
      const tls = { cert: PEM, key: PEM, ca: PEM, [path ?? ""]: "a.pem" };
      assert.equal(
        problem({ tls }),
        `tls.${path}: must not be given together with tls.${text}`,
      );
    }
  });

  it("takes a certificate and its key together only", () => {
    assert.equal(problem({ tls: { cert: PEM } }), "tls.key: is required together with tls.cert");
    assert.equal(
      problem({ tls: { keyPath: "a", ca: PEM } }),
      "tls.cert: is required together with tls.keyPath",
    );
  });

  it("tells a path from PEM text", () => {
    for (const path of ["/etc/node.crt", "node.crt", "C:\\node.pem", "certs/node"]) {
      assert.equal(
        problem({ tls: { cert: path } }),
        "tls.cert: is not PEM text; use tls.certPath for a path",
      );
    }
    assert.equal(problem({ tls: { ca: "" } }), "tls.ca: is not PEM text");
    assert.equal(
      problem({ tls: { keyPath: PEM } }),
      "tls.keyPath: is PEM text, not a path; use tls.key for PEM text",
    );
    assert.match(problem({ tls: { keyPath: "" } }), /^tls\.keyPath: must have 1 to 4096 bytes/);
    assert.match(problem({ tls: { keyPath: "a\0b" } }), /^tls\.keyPath: must not contain a NUL/);
  });

  it("accepts text before the first PEM line", () => {
    resolve({ tls: { ca: `# our CA\n${PEM}` } });
    assert.match(problem({ tls: { ca: `text ${PEM}` } }), /^tls\.ca: is not PEM text/);
  });
});

describe("environment", () => {
  const environment = {
    wallClock: () => 0,
    now: () => 0,
    setTimer: () => () => {},
    random: () => 0,
    randomBytes: (length: number) => new Uint8Array(length),
  };

  it("is checked, and is not part of the result", () => {
    assert.deepStrictEqual(resolve({ environment }), resolve({}));
    assert.equal(problem({ environment: 5 }), "environment: must be an environment, got 5");
    assert.equal(
      problem({ environment: { ...environment, now: 0 } }),
      "environment: must have a function now",
    );
  });

  it("may be an instance of a class", () => {
    class Virtual {
      wallClock = environment.wallClock;
      now(): number {
        return 0;
      }
      setTimer = environment.setTimer;
      random = environment.random;
      randomBytes = environment.randomBytes;
    }
    resolve({ environment: new Virtual() });
  });
});

describe("resolveOptions", () => {
  it("refuses options that are no plain object", () => {
    class Options {
      nodeId = "node1";
    }
    for (const options of [undefined, null, 5, "node1", [], new Options(), new Map()]) {
      const error = refusal(options);
      assert.equal(error.path, "");
      assert.match(
        error.message,
        /^Cannot read the options: the value must be a plain object, got/,
      );
    }
    assert.match(problem({ reconnect: [] }), /^reconnect: must be a plain object, got a list$/);
    assert.match(problem({ tls: null }), /^tls: must be a plain object, got null$/);
  });

  it("takes nothing from a prototype", () => {
    const options = Object.assign(Object.create(null), { nodeId: "node1" });
    assert.deepStrictEqual(resolveOptions(options), resolve({}));
    try {
      Object.defineProperty(Object.prototype, "poolSize", { value: 64, configurable: true });
      assert.equal(resolve({}).poolSize, 2);
    } finally {
      Reflect.deleteProperty(Object.prototype, "poolSize");
    }
  });

  it("returns a frozen copy and leaves valid options as they were", () => {
    fc.assert(
      fc.property(validOptions, (options) => {
        const before = structuredClone(options);
        const resolved = resolveOptions(options);
        assert.deepStrictEqual(structuredClone(options), before);
        assert.ok(isDeepFrozen(resolved));
        assert.ok(!Object.isFrozen(options));
        assert.notEqual(resolved.peers, options.peers);
      }),
      { numRuns: 50 },
    );
  });

  it("accepts its own result", () => {
    fc.assert(
      fc.property(validOptions, (options) => {
        const resolved = resolveOptions(options);
        const again = resolveOptions(resolved as unknown as EndpointOptions);
        assert.deepStrictEqual(again, resolved);
      }),
      { numRuns: 50 },
    );
  });

  it("throws only ConfigError, whatever the options", () => {
    const value = fc.oneof(
      fc.jsonValue({ maxDepth: 2 }),
      fc.double(),
      fc.bigInt(),
      fc.date(),
      fc.constant(undefined),
    );
    const key = fc.oneof(
      fc.constantFrom(...Object.keys(DEFAULT_OPTIONS), "nodeId", "__proto__", "jitter", "address"),
      fc.string({ unit: "binary" }),
    );
    const bag = fc.dictionary(key, fc.oneof(value, fc.dictionary(key, value)), { maxKeys: 4 });
    fc.assert(
      fc.property(fc.oneof(value, bag), fc.boolean(), (options, named) => {
        const isObject = typeof options === "object" && options !== null;
        try {
          resolveOptions((named && isObject ? { nodeId: "node1", ...options } : options) as never);
        } catch (error) {
          assert.ok(error instanceof ConfigError, String(error));
          assert.match(error.message, /^[ -~…]{1,400}$/);
        }
      }),
      { numRuns: 300 },
    );
  });

  it("throws only ConfigError when one value of valid options is replaced", () => {
    const value = fc.oneof(fc.jsonValue({ maxDepth: 2 }), fc.double(), fc.bigInt());
    fc.assert(
      fc.property(validOptions, fc.nat(), value, (options, which, value) => {
        const keys = Object.keys(options);
        try {
          resolveOptions({ ...options, [keys[which % keys.length] ?? ""]: value } as never);
        } catch (error) {
          assert.ok(error instanceof ConfigError, String(error));
        }
      }),
      { numRuns: 200 },
    );
  });
});
