/**
 * Checks the options of an endpoint and fills in the defaults.
 *
 * @module
 */

import type { ConfigError } from "./errors.ts";
import {
  COMPRESSION_METHODS,
  DEFAULT_OPTIONS,
  RATE_LIMIT_PRESET_NAMES,
  RATE_LIMIT_PRESETS,
  SECURITY_MODES,
} from "./default_options.ts";
import { OBJECT_SOURCE, OptionReader, type OptionSource } from "./option_reader.ts";
import type {
  CompressionOptions,
  EndpointOptions,
  PeerAddress,
  RateLimitOptions,
  ReconnectOptions,
  ResolvedOptions,
  TlsOptions,
} from "./options.ts";
import { resolveTls } from "./resolve_tls.ts";
import { formatAddress, PORT_ZERO_PROBLEM, readAddress } from "./transport/address.ts";

/** `setTimeout` fires at once above this delay. */
const MAX_MS = 2 ** 31 - 1;
/** The receiver of a length prefix must be able to hold what it announces in one buffer. */
const MAX_MESSAGE_BYTES = 2 ** 30;

const TOP_KEYS = [
  ...["nodeId", "listen", "peers", "security", "tls", "poolSize", "connectTimeoutMs"],
  ...["ioTimeoutMs", "maxMessageSize", "keepalive", "keepaliveIntervalSecs"],
  ...["maxPendingMessages", "maxPendingBytes", "recvBufferSize", "resumeWindowMs"],
  ...["maxClockSkewMs", "compression", "rateLimit", "reconnect", "clusterName", "authToken"],
  ...["maxConnections", "maxConnectionsPerHost", "environment"],
];
const PEER_KEYS = ["nodeId", "address"];
const COMPRESSION_KEYS = ["enabled", "method", "minSize"];
const RATE_LIMIT_KEYS = ["enabled", "bucketSize", "refillRate"];
const RECONNECT_KEYS = [
  ...["enabled", "initialBackoffMs", "maxBackoffMs", "multiplier", "maxAttempts", "jitter"],
];
const ENVIRONMENT_FUNCTIONS = ["wallClock", "now", "setTimer", "random", "randomBytes"];

/**
 * Checks options and fills in the defaults. The result is a frozen copy; the options themselves
 * stay as they are. An undefined value counts as not given. Addresses come out with their scheme.
 *
 * Whether certificates are enough for the security mode is asked by `validateSecurity`.
 *
 * @throws {ConfigError} Names the first option that is unknown, has a wrong type or is out of range.
 *
 * @example
 * ```ts ignore
 * const options = resolveOptions({ nodeId: "node1", listen: "0.0.0.0:9100" });
 * options.listen; // ["tcp://0.0.0.0:9100"]
 * options.poolSize; // 2
 * ```
 */
export function resolveOptions(options: EndpointOptions): ResolvedOptions {
  return resolveOptionsFrom(options, OBJECT_SOURCE);
}

/**
 * Does what {@linkcode resolveOptions} does, with errors worded for the place the options come from.
 *
 * @throws {ConfigError} As `source` makes it.
 */
export function resolveOptionsFrom(options: unknown, source: OptionSource): ResolvedOptions {
  const top = new OptionReader(options, "", TOP_KEYS, source);
  const defaults = DEFAULT_OPTIONS;
  checkEnvironment(top);
  const resolved: ResolvedOptions = {
    nodeId: resolveNodeId(top),
    listen: resolveListen(top),
    peers: resolvePeers(top, source),
    security: top.oneOf("security", SECURITY_MODES) ??
      defaults.security,
    tls: resolveTls(top.raw("tls"), source),
    poolSize: top.integer("poolSize", 1, 64) ?? defaults.poolSize,
    connectTimeoutMs: top.integer("connectTimeoutMs", 1, MAX_MS) ?? defaults.connectTimeoutMs,
    ioTimeoutMs: top.integer("ioTimeoutMs", 1, MAX_MS) ?? defaults.ioTimeoutMs,
    maxMessageSize: top.integer("maxMessageSize", 1, MAX_MESSAGE_BYTES) ?? defaults.maxMessageSize,
    keepalive: top.boolean("keepalive") ?? defaults.keepalive,
    keepaliveIntervalSecs: top.number("keepaliveIntervalSecs", { min: 0.1, max: 86_400 }) ??
      defaults.keepaliveIntervalSecs,
    maxPendingMessages: top.integer("maxPendingMessages", 1, 10_000_000) ??
      defaults.maxPendingMessages,
    maxPendingBytes: top.integer("maxPendingBytes", 1, Number.MAX_SAFE_INTEGER) ??
      defaults.maxPendingBytes,
    recvBufferSize: top.integer("recvBufferSize", 1, 10_000_000) ?? defaults.recvBufferSize,
    resumeWindowMs: top.integer("resumeWindowMs", 0, MAX_MS) ?? defaults.resumeWindowMs,
    maxClockSkewMs: top.integer("maxClockSkewMs", 0, MAX_MS) ?? defaults.maxClockSkewMs,
    compression: resolveCompression(top, source),
    rateLimit: resolveRateLimit(top, source),
    reconnect: resolveReconnect(top, source),
    clusterName: top.text("clusterName", 0, 255) ?? defaults.clusterName,
    authToken: top.secret("authToken", 1, 1024),
    maxConnections: top.integer("maxConnections", 1, 1_000_000) ?? defaults.maxConnections,
    maxConnectionsPerHost: top.integer("maxConnectionsPerHost", 1, 1_000_000) ??
      defaults.maxConnectionsPerHost,
  };
  checkMessageFitsQueue(resolved, top);
  checkTlsWishes(resolved, top);
  return Object.freeze(resolved);
}

/**
 * A wish to verify peers that lacks the certificates for it must not be dropped in silence. Strict
 * and permissive mode say so themselves, with a code of their own.
 */
function checkTlsWishes({ security, tls }: ResolvedOptions, top: OptionReader): void {
  if (security === "strict" || security === "permissive") return;
  const given = top.raw("tls") as TlsOptions | undefined;
  if (given === undefined) return;
  const verifies = (given.nodeIdVerification ?? "None") !== "None";
  if (given.requireClientAuth !== true && !verifies) return;
  if (tls?.ca !== undefined || tls?.caCertPath !== undefined) return;
  const wish = given.requireClientAuth === true ? "requireClientAuth" : "nodeIdVerification";
  throw top.error("tls", `asks for ${wish} but gives no authority to verify peers with`);
}

function resolveNodeId(reader: OptionReader): string {
  const value = reader.raw("nodeId");
  if (value === undefined) throw reader.error("nodeId", "is required");
  if (typeof value !== "string" || !/^[!-~]{1,255}$/.test(value)) {
    const demand = "must be 1 to 255 characters of printable ASCII without spaces";
    throw reader.wrongValue("nodeId", demand, value);
  }
  return value;
}

function resolveListen(top: OptionReader): readonly string[] {
  const value = top.raw("listen");
  if (value === undefined) return DEFAULT_OPTIONS.listen;
  if (typeof value === "string") return Object.freeze([resolveAddress(top, "listen", value, true)]);
  if (!Array.isArray(value)) {
    throw top.wrongValue("listen", "must be an address or a list of addresses", value);
  }
  return Object.freeze(
    Array.from(value, (item, index) => resolveAddress(top, `listen[${index}]`, item, true)),
  );
}

function resolvePeers(top: OptionReader, source: OptionSource): readonly Readonly<PeerAddress>[] {
  const value = top.raw("peers");
  if (value === undefined) return DEFAULT_OPTIONS.peers;
  if (!Array.isArray(value)) throw top.wrongValue("peers", "must be a list of peers", value);
  return Object.freeze(Array.from(value, (item, index) => {
    const reader = new OptionReader(item, `peers[${index}]`, PEER_KEYS, source);
    const nodeId = resolveNodeId(reader);
    const address = resolveAddress(reader, "address", reader.raw("address"), false);
    return Object.freeze({ nodeId, address });
  }));
}

function resolveAddress(reader: OptionReader, key: string, value: unknown, listens: boolean) {
  if (value === undefined) throw reader.error(key, "is required");
  const address = readAddress(value);
  if (typeof address === "string") throw reader.error(key, address);
  if (!listens && address.port === 0) throw reader.error(key, PORT_ZERO_PROBLEM);
  return formatAddress(address.scheme, address.host, address.port);
}

function resolveCompression(
  top: OptionReader,
  source: OptionSource,
): Readonly<Required<CompressionOptions>> {
  const defaults = DEFAULT_OPTIONS.compression;
  const value = top.raw("compression");
  if (value === undefined) return defaults;
  const reader = new OptionReader(value, "compression", COMPRESSION_KEYS, source);
  return Object.freeze({
    enabled: reader.boolean("enabled") ?? defaults.enabled,
    method: reader.oneOf("method", COMPRESSION_METHODS) ?? defaults.method,
    minSize: reader.integer("minSize", 0, MAX_MESSAGE_BYTES) ?? defaults.minSize,
  });
}

function resolveRateLimit(
  top: OptionReader,
  source: OptionSource,
): Readonly<Required<RateLimitOptions>> {
  const value = top.raw("rateLimit");
  if (value === undefined) return DEFAULT_OPTIONS.rateLimit;
  if (typeof value === "string") {
    return RATE_LIMIT_PRESETS[top.oneOf("rateLimit", RATE_LIMIT_PRESET_NAMES) ?? "disabled"];
  }
  const defaults = RATE_LIMIT_PRESETS.default;
  const reader = new OptionReader(value, "rateLimit", RATE_LIMIT_KEYS, source);
  return Object.freeze({
    enabled: reader.boolean("enabled") ?? defaults.enabled,
    bucketSize: reader.integer("bucketSize", 1, Number.MAX_SAFE_INTEGER) ?? defaults.bucketSize,
    refillRate: reader.number("refillRate", { min: 0, max: Infinity, above: true }) ??
      defaults.refillRate,
  });
}

function resolveReconnect(
  top: OptionReader,
  source: OptionSource,
): Readonly<Required<ReconnectOptions>> {
  const defaults = DEFAULT_OPTIONS.reconnect;
  const value = top.raw("reconnect");
  if (value === undefined) return defaults;
  const reader = new OptionReader(value, "reconnect", RECONNECT_KEYS, source);
  const initialBackoffMs = reader.integer("initialBackoffMs", 0, MAX_MS);
  const maxBackoffMs = reader.integer("maxBackoffMs", 0, MAX_MS);
  const resolved = {
    enabled: reader.boolean("enabled") ?? defaults.enabled,
    initialBackoffMs: initialBackoffMs ?? defaults.initialBackoffMs,
    maxBackoffMs: maxBackoffMs ?? defaults.maxBackoffMs,
    multiplier: reader.number("multiplier", { min: 1, max: 100 }) ?? defaults.multiplier,
    maxAttempts: reader.integer("maxAttempts", 1, Number.MAX_SAFE_INTEGER),
    jitter: reader.number("jitter", { min: 0, max: 1 }) ?? defaults.jitter,
  };
  if (resolved.initialBackoffMs > resolved.maxBackoffMs) throw backoffError(reader, resolved);
  return Object.freeze(resolved);
}

/** Blames the value that was given; where both were, the initial one. */
function backoffError(
  reader: OptionReader,
  { initialBackoffMs, maxBackoffMs }: { initialBackoffMs: number; maxBackoffMs: number },
): ConfigError {
  if (reader.raw("initialBackoffMs") === undefined) {
    const least = `${reader.nameOf("initialBackoffMs")} (${initialBackoffMs})`;
    return reader.wrongValue("maxBackoffMs", `must be at least ${least}`, maxBackoffMs);
  }
  const most = `${reader.nameOf("maxBackoffMs")} (${maxBackoffMs})`;
  return reader.wrongValue("initialBackoffMs", `must be at most ${most}`, initialBackoffMs);
}

/** A message that is larger than the queue could never be sent. */
function checkMessageFitsQueue(resolved: ResolvedOptions, top: OptionReader): void {
  const { maxMessageSize, maxPendingBytes } = resolved;
  if (maxMessageSize <= maxPendingBytes) return;
  if (top.raw("maxMessageSize") === undefined) {
    const least = `${top.nameOf("maxMessageSize")} (${maxMessageSize})`;
    throw top.wrongValue("maxPendingBytes", `must be at least ${least}`, maxPendingBytes);
  }
  const most = `${top.nameOf("maxPendingBytes")} (${maxPendingBytes})`;
  throw top.wrongValue("maxMessageSize", `must be at most ${most}`, maxMessageSize);
}

function checkEnvironment(top: OptionReader): void {
  const value = top.raw("environment");
  if (value === undefined) return;
  // Not held to be a plain object: tests give instances of a class.
  if (typeof value !== "object" || value === null) {
    throw top.wrongValue("environment", "must be an environment", value);
  }
  for (const name of ENVIRONMENT_FUNCTIONS) {
    const member: unknown = Reflect.get(value, name);
    if (typeof member === "function") continue;
    throw top.error("environment", `must have a function ${name}`);
  }
}
