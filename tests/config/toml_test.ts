import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import { DEFAULT_OPTIONS } from "../../src/default_options.ts";
import { ConfigError } from "../../src/errors.ts";
import type { EndpointOptions } from "../../src/options.ts";
import { resolveOptions } from "../../src/resolve_options.ts";
import { dumpConfig, loadConfig, loadConfigFrom } from "../../src/toml.ts";
import { TOML_NAMES, tomlNameOf } from "../../src/toml_names.ts";
import { validOptions } from "./arbitrary_options.ts";

const PEM = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";

const KEY_A = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
const KEY_B = "//////////////////////////////////////////8=";

/** Loads TOML that has a node id in its first line. */
function load(text: string): EndpointOptions {
  return loadConfig(`node_id = "node1"\n${text}`);
}

function refusal(text: string): ConfigError {
  try {
    loadConfig(text);
  } catch (error) {
    assert.ok(error instanceof ConfigError, String(error));
    return error;
  }
  return assert.fail("accepted");
}

/** The message about TOML that has a node id in its first line. */
function problem(text: string): string {
  return refusal(`node_id = "node1"\n${text}`).message;
}

function leaves(value: object, path = ""): string[] {
  return Object.entries(value).flatMap(([key, inner]) => {
    const isObject = typeof inner === "object" && inner !== null && !Array.isArray(inner);
    return isObject ? leaves(inner, `${path}${key}.`) : [`${path}${key}`];
  });
}

describe("the table of names", () => {
  it("has every option that has a default, and those without one", () => {
    const without = ["nodeId", "tls.cert", "tls.key", "tls.ca"];
    const paths = ["tls.certPath", "tls.keyPath", "tls.caCertPath"];
    const peers = ["peers[]", "routes.*", "defaultRoute"].flatMap((place) => {
      return [`${place}.nodeId`, `${place}.address`];
    });
    const keys = ["identity", "signing"].flatMap((table) => {
      return ["privateKey", "privateKeyPath", "trustedKeys.*"].map((key) => `${table}.${key}`);
    });
    const tables = ["peers", "identity", "defaultRoute"];
    const expected = leaves(DEFAULT_OPTIONS).filter((path) => !tables.includes(path));
    const options = TOML_NAMES.filter((name) => !name.alias).map((name) => name.option);
    const all = [...expected, ...without, ...paths, ...peers, ...keys];
    assert.deepEqual(options.toSorted(), all.toSorted());
  });

  it("has the same words in snake_case", () => {
    for (const { toml, option, alias } of TOML_NAMES) {
      if (alias) continue;
      assert.equal(toml, option.replaceAll(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`));
    }
  });

  it("names options that stand in lists", () => {
    assert.equal(tomlNameOf("peers[12].nodeId"), "peers[12].node_id");
    assert.equal(tomlNameOf("listen[1]"), "listen[1]");
    assert.equal(tomlNameOf("rateLimit"), "rate_limit");
    assert.equal(
      tomlNameOf('routes["poolSize\\"].nodeId"].nodeId'),
      'routes["poolSize\\"].nodeId"].node_id',
    );
  });
});

describe("loadConfig", () => {
  it("reads the tables of the seed", () => {
    const options = load(`
      listen = "0.0.0.0:9100"
      pool_size = 2
      connect_timeout_ms = 5000
      io_timeout_ms = 30000
      max_message_size = 16777216
      keepalive = true
      keepalive_interval_secs = 30
      max_pending_messages = 1000
      recv_buffer_size = 1000

      [tls]
      cert_path = "/etc/neumann/node.crt"
      key_path = "/etc/neumann/node.key"
      ca_cert_path = "/etc/neumann/ca.crt"
      require_client_auth = true
      node_id_verification = "CommonName"

      [rate_limit]
      enabled = true
      bucket_size = 100
      refill_rate = 50.0

      [compression]
      enabled = true
      method = "Lz4"
      min_size = 256

      [reconnect]
      enabled = true
      initial_backoff_ms = 100
      max_backoff_ms = 30000
      multiplier = 2.0
      jitter = 0.1
    `);
    assert.deepEqual(options, {
      nodeId: "node1",
      listen: "0.0.0.0:9100",
      poolSize: 2,
      connectTimeoutMs: 5000,
      ioTimeoutMs: 30000,
      maxMessageSize: 16777216,
      keepalive: true,
      keepaliveIntervalSecs: 30,
      maxPendingMessages: 1000,
      recvBufferSize: 1000,
      tls: {
        certPath: "/etc/neumann/node.crt",
        keyPath: "/etc/neumann/node.key",
        caCertPath: "/etc/neumann/ca.crt",
        requireClientAuth: true,
        nodeIdVerification: "CommonName",
      },
      rateLimit: { enabled: true, bucketSize: 100, refillRate: 50 },
      compression: { enabled: true, method: "lz4", minSize: 256 },
      reconnect: {
        enabled: true,
        initialBackoffMs: 100,
        maxBackoffMs: 30000,
        multiplier: 2,
        jitter: 0.1,
      },
    });
  });

  it("reads peers, in either notation", () => {
    const peers = [{ nodeId: "a", address: "a:1" }, { nodeId: "b", address: "b:2" }];
    const tables = `
      [[peers]]
      node_id = "a"
      address = "a:1"
      [[peers]]
      node_id = "b"
      address = "b:2"
    `;
    assert.deepEqual(load(tables).peers, peers);
    const inline =
      `peers = [{ node_id = "a", address = "a:1" }, { node_id = "b", address = "b:2" }]`;
    assert.deepEqual(load(inline).peers, peers);
  });

  it("gives only what the text gives", () => {
    assert.deepEqual(load(""), { nodeId: "node1" });
    assert.deepEqual(load("listen = ['a:1', 'b:2']").listen, ["a:1", "b:2"]);
    assert.deepEqual(load("reconnect.jitter = 0"), { nodeId: "node1", reconnect: { jitter: 0 } });
  });

  it("reads security as a word or as a table, in any case", () => {
    assert.equal(load('security = "permissive"').security, "permissive");
    assert.equal(load('security = "Strict"').security, "strict");
    assert.equal(load('[security]\nmode = "DEVELOPMENT"').security, "development");
    assert.deepEqual(load("[security]"), { nodeId: "node1" });
  });

  it("reads the rate limit as a word, as a table, and as a table on top of a preset", () => {
    assert.equal(load('rate_limit = "Aggressive"').rateLimit, "aggressive");
    assert.equal(load('[rate_limit]\npreset = "permissive"').rateLimit, "permissive");
    assert.deepEqual(load("[rate_limit]\nrefill_rate = 7").rateLimit, { refillRate: 7 });
    assert.deepEqual(resolveOptions(load("[rate_limit]")).rateLimit, {
      enabled: true,
      bucketSize: 100,
      refillRate: 50,
    });
    assert.deepEqual(load('[rate_limit]\npreset = "aggressive"\nbucket_size = 7').rateLimit, {
      enabled: true,
      bucketSize: 7,
      refillRate: 25,
    });
  });

  it("reads the spellings of the seeds", () => {
    for (const spelling of ["CommonName", "common_name", "COMMON_NAME"]) {
      const text = `[tls]\nca_cert_path = "ca.crt"\nnode_id_verification = "${spelling}"`;
      assert.equal(load(text).tls?.nodeIdVerification, "CommonName");
    }
    assert.equal(load('[compression]\nmethod = "lz4"').compression?.method, "lz4");
    assert.equal(load('[compression]\nmethod = "Zstd"').compression?.method, "zstd");
    assert.equal(load('delivery = "AtMostOnce"').delivery, "at-most-once");
    assert.equal(load('checksum = "Auto"').checksum, "auto");
    assert.equal(load('[pool]\nstrategy = "LeastLoaded"').pool?.strategy, "least-loaded");
    assert.equal(
      problem('[compression]\nmethod = "None"'),
      'compression.method: must be "lz4" or "zstd", got "None" (line 3)',
    );
  });

  it("reads certificates as text", () => {
    const text = `[tls]\nca = """\n${PEM}"""`;
    assert.deepEqual(load(text).tls, { ca: PEM });
  });

  it("reads tables whose keys are names of nodes and recipients", () => {
    const options = load(`
      [identity.trusted_keys]
      node2 = "${KEY_A}"
      "did:key:z6Mk" = ["${KEY_A}", "${KEY_B}"]
      pool_size = "${KEY_B}"

      [routes."did:key:z6Mk"]
      node_id = "node2"
      address = "10.0.1.2:9100"
      [routes.node_id]
      node_id = "node3"
      address = "c:1"

      [default_route]
      node_id = "gateway"
      address = "g:1"
    `);
    assert.deepEqual(options, {
      nodeId: "node1",
      identity: {
        trustedKeys: { node2: KEY_A, "did:key:z6Mk": [KEY_A, KEY_B], pool_size: KEY_B },
      },
      routes: {
        "did:key:z6Mk": { nodeId: "node2", address: "10.0.1.2:9100" },
        node_id: { nodeId: "node3", address: "c:1" },
      },
      defaultRoute: { nodeId: "gateway", address: "g:1" },
    });
  });

  it("takes any name for a key of those, also one of a prototype", () => {
    const { routes } = load('[routes.__proto__]\nnode_id = "a"\naddress = "a:1"');
    assert.deepEqual(Object.entries(routes ?? {}), [["__proto__", {
      nodeId: "a",
      address: "a:1",
    }]]);
    assert.equal(Reflect.get({}, "nodeId"), undefined);
  });

  it("refuses what is not a text with a TypeError", () => {
    assert.throws(() => loadConfig(5 as unknown as string), TypeError);
  });
});

describe("errors of loadConfig", () => {
  it("name the option as TOML calls it, and its line", () => {
    const error = refusal('node_id = "a"\n\n# first\n[reconnect]\njitter = 3\n');
    assert.equal(error.path, "reconnect.jitter");
    assert.equal(error.message, "reconnect.jitter: must be between 0 and 1, got 3 (line 5)");
    assert.equal(
      problem("[rate_limit]\nbucket_size = 0"),
      "rate_limit.bucket_size: must be between 1 and 9007199254740991, got 0 (line 3)",
    );
  });

  it("know the line in files with CRLF, after long statements, and of the right peer", () => {
    assert.match(problem("# x\r\npool_size = 65\r\n"), /got 65 \(line 3\)$/);
    const long = 'cluster_name = """\npool_size = 1\n"""\nlisten = [\n "a:1",\n]\npool_size = 65';
    assert.match(problem(long), /got 65 \(line 8\)$/);
    assert.match(problem('listen = [\n  "a:1",\n  "b",\n]'), /^listen\[1\]: .* \(line 2\)$/);
    const peers = '[[peers]]\nnode_id = "a"\naddress = "a:1"\n[[peers]]\nnode_id = "b"\n';
    assert.match(problem(`${peers}address = "b"`), /^peers\[1\]\.address: .*\(line 7\)$/);
    assert.equal(problem(peers), "peers[1].address: is required");
  });

  it("call other options by their TOML names too", () => {
    assert.equal(
      problem("max_pending_bytes = 5"),
      "max_pending_bytes: must be at least max_message_size (16777216), got 5 (line 2)",
    );
    assert.equal(
      problem('[tls]\ncert = "/etc/node.crt"'),
      "tls.cert: is not PEM text; use tls.cert_path for a path (line 3)",
    );
    assert.equal(refusal("").message, "node_id: is required");
  });

  it("name the place of a security mode as it was written", () => {
    assert.match(problem('security = "none"'), /^security: must be .*\(line 2\)$/);
    assert.match(problem('[security]\nmode = "none"'), /^security\.mode: must be .*\(line 3\)$/);
    assert.match(problem("[security]\nmode = 5"), /^security\.mode: must be .*, got 5 \(line 3\)$/);
    assert.match(problem('[rate_limit]\npreset = "x"'), /^rate_limit\.preset: must be .*line 3\)$/);
    assert.match(problem('rate_limit = "x"'), /^rate_limit: must be "default", .*line 2\)$/);
  });

  it("name the entry of a table whose keys the user chose, and its line", () => {
    assert.equal(
      problem('[routes."did:key:poolSize"]\nnode_id = "a"\naddress = "a"'),
      'routes["did:key:poolSize"].address: must end in ":port", got "a" (line 4)',
    );
    assert.equal(
      problem("[routes.db]\nnodeid = 1"),
      'routes["db"].nodeid: unknown option, did you mean "node_id"? (line 3)',
    );
    assert.equal(problem("[routes]\ndb = 5"), 'routes["db"]: must be a table, got 5 (line 3)');
    assert.equal(problem("routes = 5"), "routes: must be a table, got 5 (line 2)");
    const key = "must be an Ed25519 public key: 32 bytes as base64";
    assert.equal(
      problem(`[signing]\nprivate_key_path = "k"\n[signing.trusted_keys]\n"a\\"b" = "x"`),
      `signing.trusted_keys["a\\"b"]: ${key} (line 5)`,
    );
    assert.equal(
      problem(`[identity.trusted_keys]\na = ["${KEY_A}", 5]`),
      `identity.trusted_keys["a"][1]: ${key} (line 3)`,
    );
    assert.equal(
      problem("[pool]\nmin_connections = 3"),
      "pool.min_connections: must be at most pool_size (2), got 3 (line 3)",
    );
  });

  it("refuse unknown keys, with the nearest", () => {
    const cases: [text: string, message: string][] = [
      ["poolSize = 2", 'poolSize: unknown option, did you mean "pool_size"? (line 2)'],
      [
        "[reconnect]\njiter = 1",
        'reconnect.jiter: unknown option, did you mean "jitter"? (line 3)',
      ],
      ["[recconnect]", 'recconnect: unknown option, did you mean "reconnect"? (line 2)'],
      ["[environment]", "environment: unknown option (line 2)"],
      [
        "[[peers]]\nnodeid = 1",
        'peers[0].nodeid: unknown option, did you mean "node_id"? (line 3)',
      ],
      ["[security]\nlevel = 1", "security.level: unknown option (line 3)"],
      ['"\\u001b[31m" = 1', '["\\u001b[31m"]: unknown option (line 2)'],
    ];
    for (const [text, message] of cases) assert.equal(problem(text), message);
  });

  it("refuse keys that would reach a prototype, and pollute nothing", () => {
    for (const key of ["__proto__", "constructor", "prototype", "toString"]) {
      assert.match(problem(`[${key}]\npool_size = 9`), new RegExp(`^${key}: unknown option`));
      assert.match(problem(`[tls]\n${key} = 9`), new RegExp(`^tls\\.${key}: unknown option`));
      assert.match(problem(`[tls.${key}]\nca = 9`), new RegExp(`^tls\\.${key}: unknown option`));
      assert.match(problem(`tls = { ${key}.ca = 9 }`), new RegExp(`^tls\\.${key}: unknown option`));
    }
    assert.equal(Reflect.get({}, "pool_size"), undefined);
    assert.equal(Reflect.get({}, "ca"), undefined);
  });

  it("refuse dates, nan, inf, huge integers, and the wrong kind of table", () => {
    const cases: [text: string, message: string][] = [
      ["pool_size = 2020-01-01", "pool_size: must be an integer between 1 and 64, got a date"],
      ["cluster_name = 12:00:00", "cluster_name: must be a text, got a date"],
      ["tls = 2020-01-01", "tls: must be a table, got a date"],
      ["pool_size = nan", "pool_size: must be an integer between 1 and 64, got NaN"],
      ["pool_size = inf", "pool_size: must be an integer between 1 and 64, got Infinity"],
      ["pool_size = -inf", "pool_size: must be an integer between 1 and 64, got -Infinity"],
      [
        "pool_size = 9223372036854775807",
        "pool_size: must be an integer between 1 and 64, got 9223372036854775807",
      ],
      ["pool_size = 2.5", "pool_size: must be an integer between 1 and 64, got 2.5"],
      ["pool_size = true", "pool_size: must be an integer between 1 and 64, got true"],
      ["pool_size = [2]", "pool_size: must be an integer between 1 and 64, got a list"],
      ["reconnect = 5", "reconnect: must be a table, got 5"],
      ["security = 5", "security: must be a text or a table, got 5"],
      ["rate_limit = 5", "rate_limit: must be a text or a table, got 5"],
      ["[[security]]", "security: must be a text or a table, got a list"],
      ["[peers]", "peers: must be a list of tables, got an object"],
      ['peers = ["a"]', 'peers[0]: must be a table, got "a"'],
      ["[listen]", "listen: must be an address or a list of addresses, got an object"],
    ];
    for (const [text, message] of cases) assert.equal(problem(text), `${message} (line 2)`);
  });

  it("give line and column of a text that isn't TOML, and quote nothing of it", () => {
    const error = refusal('node_id = "a"\nauth_token = "hunter2\npool_size = 2');
    assert.equal(error.path, "");
    assert.match(error.message, /^Cannot read the configuration: .*\(line 2, column \d+\)$/);
    assert.doesNotMatch(error.message, /hunter2/);
    assert.equal(error.cause, undefined);
    assert.match(problem("pool_size = 1\npool_size = 2"), /\(line 3, column 1\)$/);
  });

  it("never quote a token", () => {
    const message = "auth_token: must have 1 to 1024 bytes (line 2)";
    assert.equal(problem(`auth_token = "${"s".repeat(1025)}"`), message);
    const signing = problem('[signing]\nprivate_key = "hunter2"\ntrusted_keys = {}');
    assert.match(
      signing,
      /^signing\.private_key: is not .*; use signing\.private_key_path for a path/,
    );
    assert.doesNotMatch(signing, /hunter2/);
  });

  it("name the file where the text is of one", () => {
    assert.throws(() => loadConfigFrom("pool_size = 65\nnode_id = 'a'", "/etc/hawser.toml"), {
      message: 'pool_size: must be between 1 and 64, got 65 (line 1 of "/etc/hawser.toml")',
    });
    assert.throws(() => loadConfigFrom("", "hawser.toml"), {
      message: 'node_id: is required (in "hawser.toml")',
    });
    assert.throws(() => loadConfigFrom("a", "hawser.toml"), /column \d+ of "hawser.toml"\)$/);
  });

  it("stay quick and typed for texts that nest deep or are long", () => {
    assert.match(problem(`pool_size = ${"[".repeat(1e5)}`), /^Cannot read the configuration: /);
    assert.match(problem(`${"a.".repeat(1e4)}a = 1`), /^a: unknown option/);
    assert.equal(
      problem(`${"\n".repeat(1000)}pool_size = 65`),
      "pool_size: must be between 1 and 64, got 65",
    );
  });

  it("are ConfigErrors, whatever the text", () => {
    const names = TOML_NAMES.map((name) => name.toml.replace("[]", ""));
    const value = fc.oneof(
      fc.constantFrom("1", "-1.5", "nan", "true", '""', "'a:1'", "[]", "[[]]", "{}", "07:32:00"),
      fc.string(),
    );
    const line = fc.oneof(
      fc.tuple(fc.constantFrom(...names), value).map(([name, value]) => `${name} = ${value}`),
      fc.constantFrom(...names).map((name) => `[${name}]`),
      fc.constantFrom(...names).map((name) => `[[${name}]]`),
      fc.string(),
    );
    fc.assert(
      fc.property(fc.array(line, { maxLength: 5 }), (lines) => {
        try {
          load(lines.join("\n"));
        } catch (error) {
          assert.ok(error instanceof ConfigError, String(error));
        }
      }),
      { numRuns: 300 },
    );
  });
});

describe("dumpConfig", () => {
  it("writes every default under its TOML name", () => {
    const text = dumpConfig({ nodeId: "node1" });
    assert.equal(
      text,
      `node_id = "node1"
listen = []
security = "strict"
cluster_name = ""
pool_size = 2
connect_timeout_ms = 5000
io_timeout_ms = 30000
max_message_size = 16777216
keepalive = true
keepalive_interval_secs = 30
max_pending_messages = 1000
max_pending_bytes = 67108864
recv_buffer_size = 1000
resume_window_ms = 60000
max_clock_skew_ms = 300000
max_connections = 1024
max_connections_per_host = 64
reuse_port = false
min_protocol_version = 1
max_protocol_version = 3
delivery = "resume"
features = []
receive_window = 16842752
batch_delay_ms = 0
use_advertised = "verified"
checksum = "auto"
max_streams = 256
max_requests = 256
request_timeout_ms = 30000
peers = []

[rate_limit]
enabled = false
bucket_size = 100
refill_rate = 50

[compression]
enabled = true
method = "lz4"
min_size = 256

[reconnect]
enabled = true
initial_backoff_ms = 100
max_backoff_ms = 30000
multiplier = 2
jitter = 0.1

[pool]
strategy = "first-available"
min_connections = 1
idle_timeout_ms = 90000
max_lifetime_ms = 0
upgrade_interval_ms = 30000
health_check_interval_ms = 10000
max_conns = 1000
max_idle = 100

[bandwidth]
[datagrams]
max_bytes = 65507
warn_above = 1200

[routes]
`,
    );
    assert.deepStrictEqual(resolveOptions(loadConfig(text)), resolveOptions({ nodeId: "node1" }));
  });

  it("writes peers and certificates as tables", () => {
    const text = dumpConfig({
      nodeId: "node1",
      tls: { ca: PEM },
      peers: [{ nodeId: "node2", address: "b:1" }],
    });
    assert.match(text, /\n\[\[peers\]\]\nnode_id = "node2"\naddress = "tcp:\/\/b:1"\n/);
    assert.match(text, /\n\[tls\]\nca = "-----BEGIN CERTIFICATE-----\\nAAAA/);
  });

  it("writes tables whose keys the user chose", () => {
    const text = dumpConfig({
      nodeId: "node1",
      signing: { privateKeyPath: "node1.key", trustedKeys: { "did:key:z6Mk": KEY_A } },
      routes: { "did:key:z6Mk": { nodeId: "node2", address: "b:1" } },
    });
    assert.match(text, /\n\[signing\.trusted_keys\]\n"did:key:z6Mk" = \[ "A{43}=" \]\n/);
    assert.match(
      text,
      /\n\[routes\."did:key:z6Mk"\]\nnode_id = "node2"\naddress = "tcp:\/\/b:1"\n/,
    );
  });

  it("refuses options that are wrong, and leaves the environment out", () => {
    assert.throws(() => dumpConfig({ nodeId: "" }), { name: "ConfigError", path: "nodeId" });
    const environment = {
      wallClock: () => 0,
      now: () => 0,
      setTimer: () => () => {},
      random: () => 0,
      randomBytes: (length: number) => new Uint8Array(length),
    };
    assert.equal(dumpConfig({ nodeId: "a", environment }), dumpConfig({ nodeId: "a" }));
  });

  it("is undone by loadConfig, for any options", () => {
    fc.assert(
      fc.property(validOptions, (options) => {
        const loaded = loadConfig(dumpConfig(options));
        assert.deepStrictEqual(resolveOptions(loaded), resolveOptions(options));
      }),
      { numRuns: 200 },
    );
  });
});
