/**
 * The defaults and the named choices of an endpoint's options.
 *
 * @module
 */

import type {
  ChecksumMode,
  CompressionMethod,
  Delivery,
  NodeIdVerification,
  PoolStrategy,
  RateLimitOptions,
  RateLimitPreset,
  ResolvedOptions,
  ResolvedSigning,
  ResolvedTls,
  SecurityMode,
  UseAdvertised,
} from "./options.ts";

/** The values of `security`. */
export const SECURITY_MODES: readonly SecurityMode[] = Object.freeze(
  ["strict", "permissive", "development", "legacy"],
);

/** The values of `tls.nodeIdVerification`. */
export const NODE_ID_VERIFICATIONS: readonly NodeIdVerification[] = Object.freeze(
  ["None", "CommonName", "SubjectAltName"],
);

/** The values of `compression.method`. */
export const COMPRESSION_METHODS: readonly CompressionMethod[] = Object.freeze(["lz4", "zstd"]);

/** The values of `delivery`. */
export const DELIVERIES: readonly Delivery[] = Object.freeze(["resume", "at-most-once"]);

/** The values of `useAdvertised`. */
export const USE_ADVERTISED: readonly UseAdvertised[] = Object.freeze([
  "verified",
  "always",
  "never",
]);

/** The values of `checksum`. */
export const CHECKSUM_MODES: readonly ChecksumMode[] = Object.freeze(["auto", "always", "never"]);

/** The values of `pool.strategy`. */
export const POOL_STRATEGIES: readonly PoolStrategy[] = Object.freeze(
  ["first-available", "round-robin", "least-loaded"],
);

/** The presets of `rateLimit`. */
export const RATE_LIMIT_PRESET_NAMES: readonly RateLimitPreset[] = Object.freeze(
  ["default", "aggressive", "permissive", "disabled"],
);

/** Every default; `nodeId` has none. */
export interface DefaultOptions
  extends Omit<ResolvedOptions, "nodeId" | "tls" | "signing" | "receiveWindow"> {
  /** The defaults of `tls`, which apply once certificates are given. */
  readonly tls: ResolvedTls;
  /** The defaults of `signing`, which apply once keys are given. */
  readonly signing: Pick<ResolvedSigning, "maxAgeMs">;
  /** None: it follows `maxMessageSize`. */
  readonly receiveWindow: undefined;
}

/** What each preset of the rate limit stands for: messages in a burst, messages per second. */
export const RATE_LIMIT_PRESETS: Readonly<
  Record<RateLimitPreset, Readonly<Required<RateLimitOptions>>>
> = Object.freeze({
  default: Object.freeze({ enabled: true, bucketSize: 100, refillRate: 50 }),
  aggressive: Object.freeze({ enabled: true, bucketSize: 50, refillRate: 25 }),
  permissive: Object.freeze({ enabled: true, bucketSize: 200, refillRate: 100 }),
  disabled: Object.freeze({ enabled: false, bucketSize: 100, refillRate: 50 }),
});

/** The defaults of {@linkcode EndpointOptions}, frozen. Sizes are in bytes. */
export const DEFAULT_OPTIONS: DefaultOptions = Object.freeze({
  listen: Object.freeze([]),
  peers: Object.freeze([]),
  security: "strict",
  tls: Object.freeze({ requireClientAuth: false, nodeIdVerification: "None" }),
  poolSize: 2,
  connectTimeoutMs: 5000,
  ioTimeoutMs: 30_000,
  maxMessageSize: 16 * 1024 * 1024,
  keepalive: true,
  keepaliveIntervalSecs: 30,
  maxPendingMessages: 1000,
  maxPendingBytes: 64 * 1024 * 1024,
  recvBufferSize: 1000,
  resumeWindowMs: 60_000,
  maxClockSkewMs: 300_000,
  compression: Object.freeze({ enabled: true, method: "lz4", minSize: 256 }),
  rateLimit: RATE_LIMIT_PRESETS.disabled,
  reconnect: Object.freeze({
    enabled: true,
    initialBackoffMs: 100,
    maxBackoffMs: 30_000,
    multiplier: 2,
    maxAttempts: undefined,
    jitter: 0.1,
  }),
  clusterName: "",
  authToken: undefined,
  maxConnections: 1024,
  maxConnectionsPerHost: 64,
  unixMode: undefined,
  reusePort: false,
  minProtocolVersion: 1,
  maxProtocolVersion: 3,
  delivery: "resume",
  features: Object.freeze([]),
  receiveWindow: undefined,
  batchDelayMs: 0,
  datagrams: Object.freeze({ maxBytes: 65_507, warnAbove: 1200 }),
  bandwidth: Object.freeze({
    total: undefined,
    perPeer: undefined,
    control: undefined,
    normal: undefined,
    bulk: undefined,
  }),
  advertise: undefined,
  useAdvertised: "verified",
  checksum: "auto",
  maxStreams: 256,
  maxRequests: 256,
  requestTimeoutMs: 30_000,
  pool: Object.freeze({
    strategy: "first-available",
    minConnections: 1,
    idleTimeoutMs: 90_000,
    maxLifetimeMs: 0,
    upgradeIntervalMs: 30_000,
    healthCheckIntervalMs: 10_000,
    maxConns: 1000,
    maxIdle: 100,
  }),
  identity: undefined,
  signing: Object.freeze({ maxAgeMs: 300_000 }),
  routes: Object.freeze({}),
  defaultRoute: undefined,
});
