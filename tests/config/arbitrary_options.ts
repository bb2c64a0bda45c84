/**
 * Valid options of every kind, for properties.
 *
 * @module
 */

import fc from "fast-check";
import type {
  EndpointOptions,
  IdentityOptions,
  PeerAddress,
  RateLimitOptions,
  RateLimitPreset,
  SigningOptions,
  TlsOptions,
  TrustedKeys,
} from "../../src/options.ts";

const MAX_MS = 2 ** 31 - 1;
const PEM = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
const safe = fc.integer({ min: 1, max: Number.MAX_SAFE_INTEGER });
const delay = fc.integer({ min: 1, max: MAX_MS });
const delayOrZero = fc.integer({ min: 0, max: MAX_MS });
const nodeId = fc.string({
  unit: fc.integer({ min: 0x21, max: 0x7e }).map((code) => String.fromCharCode(code)),
  minLength: 1,
  maxLength: 40,
});

function address(minPort: number): fc.Arbitrary<string> {
  const host = fc.oneof(fc.domain(), fc.ipV4(), fc.ipV6().map((text) => `[${text}]`));
  const port = fc.integer({ min: minPort, max: 65535 });
  return fc.tuple(fc.constantFrom("", "tcp://", "quic://"), host, port)
    .map(([scheme, host, port]) => `${scheme}${host}:${port}`);
}

function real(min: number, max: number): fc.Arbitrary<number> {
  return fc.double({ min, max, noNaN: true });
}

/** Well-formed Unicode, control characters and quotes included. */
function text(minBytes: number, maxLength: number): fc.Arbitrary<string> {
  return fc.string({ unit: "binary", minLength: minBytes, maxLength });
}

const peer: fc.Arbitrary<PeerAddress> = fc.record({
  nodeId,
  address: fc.oneof(address(1), fc.array(address(1), { minLength: 1, maxLength: 16 })),
});
const pem = text(0, 10).map((extra) => `${PEM}${extra}`);
const path = text(1, 20).filter((value) => !value.includes("\0"));

const tls: fc.Arbitrary<TlsOptions> = fc.tuple(
  fc.constantFrom({}, { ca: PEM }, { caCertPath: "ca.crt" }),
  fc.oneof(
    fc.constant({}),
    fc.record({ cert: pem, key: pem }),
    fc.record({ certPath: path, keyPath: path }),
    fc.record({ cert: pem, keyPath: path }),
  ),
  fc.record({
    requireClientAuth: fc.boolean(),
    nodeIdVerification: fc.constantFrom("None", "CommonName", "SubjectAltName"),
  }, { requiredKeys: [] }),
  // A wish to verify peers without an authority to do it with is refused in some modes.
).map(([ca, pair, switches]) => ({
  ...ca,
  ...pair,
  ...("ca" in ca || "caCertPath" in ca ? switches : {}),
}));

const rateLimit: fc.Arbitrary<RateLimitPreset | RateLimitOptions> = fc.oneof(
  fc.constantFrom("default", "aggressive", "permissive", "disabled"),
  fc.record(
    { enabled: fc.boolean(), bucketSize: safe, refillRate: real(Number.MIN_VALUE, 1e300) },
    { requiredKeys: [] },
  ),
);

const reconnect = fc.record({
  enabled: fc.boolean(),
  initialBackoffMs: fc.integer({ min: 0, max: 30_000 }),
  maxBackoffMs: fc.integer({ min: 30_000, max: MAX_MS }),
  multiplier: real(1, 100),
  maxAttempts: fc.option(safe, { nil: undefined }),
  jitter: real(0, 1),
}, { requiredKeys: [] });

/** A table by names, with those that could reach a prototype among them. */
function table<T>(value: fc.Arbitrary<T>): fc.Arbitrary<Record<string, T>> {
  const key = fc.oneof(
    nodeId,
    fc.constantFrom("__proto__", "constructor", "nodeId", "did:key:z6Mk"),
  );
  return fc.uniqueArray(fc.tuple(key, value), { maxLength: 3, selector: ([key]) => key })
    .map((entries) => Object.fromEntries(entries));
}

const publicKey = fc.uint8Array({ minLength: 32, maxLength: 32 })
  .map((bytes) => btoa(String.fromCharCode(...bytes)));
const trustedKeys: fc.Arbitrary<TrustedKeys> = table(
  fc.oneof(publicKey, fc.array(publicKey, { minLength: 1, maxLength: 3 })),
);
const privateKey = fc.oneof(fc.constant({ privateKey: PEM }), fc.record({ privateKeyPath: path }));

const identity: fc.Arbitrary<IdentityOptions> = fc.tuple(
  fc.oneof(fc.constant({}), privateKey),
  fc.record({ trustedKeys }, { requiredKeys: [] }),
).map(([key, keys]) => ({ ...key, ...keys }));

const signing: fc.Arbitrary<SigningOptions> = fc.tuple(
  privateKey,
  fc.record({ trustedKeys, maxAgeMs: delay }, { requiredKeys: ["trustedKeys"] }),
).map(([key, rest]) => ({ ...key, ...rest }));

/** As many as may be told in a handshake. */
function fitting(addresses: string[]): string[] {
  let chars = 0;
  return addresses.filter(({ length }) => length <= 190 && (chars += length + 6) <= 1_024);
}

const bandwidth = fc.integer({ min: 4096, max: Number.MAX_SAFE_INTEGER });

const pool = fc.record({
  strategy: fc.constantFrom("first-available", "round-robin", "least-loaded"),
  minConnections: fc.constant(1),
  idleTimeoutMs: delayOrZero,
  maxLifetimeMs: delayOrZero,
  upgradeIntervalMs: delayOrZero,
  healthCheckIntervalMs: delayOrZero,
  maxConns: fc.integer({ min: 1, max: 1_000_000 }),
  maxIdle: fc.integer({ min: 0, max: 1_000_000 }),
}, { requiredKeys: [] });

/** Any options that an endpoint accepts, without an environment. */
export const validOptions: fc.Arbitrary<EndpointOptions> = fc.record({
  nodeId,
  listen: fc.oneof(address(0), fc.array(address(0), { maxLength: 3 })),
  peers: fc.array(peer, { maxLength: 3 }),
  security: fc.constantFrom("strict", "permissive", "development", "legacy"),
  tls,
  poolSize: fc.integer({ min: 1, max: 64 }),
  connectTimeoutMs: delay,
  ioTimeoutMs: delay,
  maxMessageSize: fc.integer({ min: 1, max: 2 ** 26 }),
  keepalive: fc.boolean(),
  keepaliveIntervalSecs: real(0.1, 86_400),
  maxPendingMessages: fc.integer({ min: 1, max: 10_000_000 }),
  maxPendingBytes: fc.integer({ min: 2 ** 26, max: Number.MAX_SAFE_INTEGER }),
  recvBufferSize: fc.integer({ min: 1, max: 10_000_000 }),
  resumeWindowMs: delayOrZero,
  maxClockSkewMs: delayOrZero,
  compression: fc.record({
    enabled: fc.boolean(),
    method: fc.constantFrom("lz4", "zstd"),
    minSize: fc.integer({ min: 0, max: 2 ** 30 }),
  }, { requiredKeys: [] }),
  rateLimit,
  reconnect,
  clusterName: text(0, 60),
  authToken: text(1, 200),
  maxConnections: fc.integer({ min: 1, max: 1_000_000 }),
  maxConnectionsPerHost: fc.integer({ min: 1, max: 1_000_000 }),
  unixMode: fc.integer({ min: 0, max: 0o777 }),
  reusePort: fc.boolean(),
  minProtocolVersion: fc.integer({ min: 1, max: 2 }),
  maxProtocolVersion: fc.integer({ min: 2, max: 3 }),
  delivery: fc.constantFrom("resume", "at-most-once"),
  features: fc.array(nodeId, { maxLength: 10 }),
  receiveWindow: fc.integer({ min: 65_536, max: Number.MAX_SAFE_INTEGER }),
  batchDelayMs: real(0, 1000),
  bandwidth: fc.record({
    total: bandwidth,
    perPeer: bandwidth,
    control: bandwidth,
    normal: bandwidth,
    bulk: bandwidth,
  }, { requiredKeys: [] }),
  datagrams: fc.record({
    maxBytes: fc.integer({ min: 512, max: 65_507 }),
    warnAbove: fc.integer({ min: 0, max: 65_507 }),
  }, { requiredKeys: [] }),
  advertise: fc.array(address(1), { maxLength: 16 }).map(fitting),
  useAdvertised: fc.constantFrom("verified", "always", "never"),
  checksum: fc.constantFrom("auto", "always", "never"),
  maxStreams: fc.integer({ min: 0, max: 65_535 }),
  maxRequests: fc.integer({ min: 0, max: 1_000_000 }),
  requestTimeoutMs: delay,
  pool,
  identity,
  signing,
  routes: table(peer),
  defaultRoute: peer,
}, { requiredKeys: ["nodeId"] }).map(lastingSignatures);

/** What is signed must not get too old while it may be sent again. */
function lastingSignatures(options: EndpointOptions): EndpointOptions {
  const { signing, resumeWindowMs = 60_000 } = options;
  if (signing === undefined || (signing.maxAgeMs ?? 300_000) >= resumeWindowMs) return options;
  return { ...options, signing: { ...signing, maxAgeMs: resumeWindowMs } };
}
