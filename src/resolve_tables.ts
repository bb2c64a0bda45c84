/**
 * Checks the tables of numbers and choices in the options of an endpoint.
 *
 * @module
 */

import type { ConfigError } from "./errors.ts";
import {
  COMPRESSION_METHODS,
  DEFAULT_OPTIONS,
  POOL_STRATEGIES,
  RATE_LIMIT_PRESET_NAMES,
  RATE_LIMIT_PRESETS,
} from "./default_options.ts";
import { OptionReader, type OptionSource } from "./option_reader.ts";
import type {
  CompressionOptions,
  DatagramOptions,
  PoolOptions,
  RateLimitOptions,
  ReconnectOptions,
  ResolvedBandwidth,
} from "./options.ts";

/** The longest time in milliseconds: `setTimeout` fires at once above it. */
export const MAX_MS: number = 2 ** 31 - 1;
/** The receiver of a length prefix must be able to hold what it announces in one buffer. */
export const MAX_MESSAGE_BYTES: number = 2 ** 30;
/** The most connections that one peer can have. */
export const MAX_POOL_SIZE: number = 64;

const COMPRESSION_KEYS = ["enabled", "method", "minSize"];
const RATE_LIMIT_KEYS = ["enabled", "bucketSize", "refillRate"];
const RECONNECT_KEYS = [
  ...["enabled", "initialBackoffMs", "maxBackoffMs", "multiplier", "maxAttempts", "jitter"],
];
const POOL_KEYS = [
  ...["strategy", "minConnections", "idleTimeoutMs", "maxLifetimeMs", "healthCheckIntervalMs"],
  ...["maxConns", "maxIdle", "upgradeIntervalMs"],
];
const DATAGRAM_KEYS = ["maxBytes", "warnAbove"];
/** What every network carries in one piece, less would leave no room for a message. */
const MIN_PACKET_BYTES = 512;
/** An IPv4 packet of 65,535 bytes without the headers of IP and UDP. */
const MAX_PACKET_BYTES = 65_507;
const BANDWIDTH_KEYS = ["total", "perPeer", "control", "normal", "bulk"] as const;
/** Below this a single fragment would hold everything up for longer than a peer waits. */
const MIN_BANDWIDTH = 4_096;

/** Checks `compression` and fills in its defaults. */
export function resolveCompression(
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

/** Checks `rateLimit`, a preset or a table, and fills in its defaults. */
export function resolveRateLimit(
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

/** Checks `reconnect` and fills in its defaults. */
export function resolveReconnect(
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

/** Checks `pool` and fills in its defaults; `poolSize` bounds one of them. */
export function resolvePool(
  top: OptionReader,
  source: OptionSource,
  poolSize: number,
): Readonly<Required<PoolOptions>> {
  const defaults = DEFAULT_OPTIONS.pool;
  const value = top.raw("pool");
  if (value === undefined) return defaults;
  const reader = new OptionReader(value, "pool", POOL_KEYS, source);
  const minConnections = reader.integer("minConnections", 1, MAX_POOL_SIZE) ??
    defaults.minConnections;
  if (minConnections > poolSize) {
    const most = `${top.nameOf("poolSize")} (${poolSize})`;
    throw reader.wrongValue("minConnections", `must be at most ${most}`, minConnections);
  }
  return Object.freeze({
    strategy: reader.oneOf("strategy", POOL_STRATEGIES) ?? defaults.strategy,
    minConnections,
    idleTimeoutMs: reader.integer("idleTimeoutMs", 0, MAX_MS) ?? defaults.idleTimeoutMs,
    maxLifetimeMs: reader.integer("maxLifetimeMs", 0, MAX_MS) ?? defaults.maxLifetimeMs,
    upgradeIntervalMs: reader.integer("upgradeIntervalMs", 0, MAX_MS) ??
      defaults.upgradeIntervalMs,
    healthCheckIntervalMs: reader.integer("healthCheckIntervalMs", 0, MAX_MS) ??
      defaults.healthCheckIntervalMs,
    maxConns: reader.integer("maxConns", 1, 1_000_000) ?? defaults.maxConns,
    maxIdle: reader.integer("maxIdle", 0, 1_000_000) ?? defaults.maxIdle,
  });
}

/** Checks `datagrams` and fills in its defaults. */
export function resolveDatagrams(
  top: OptionReader,
  source: OptionSource,
): Readonly<Required<DatagramOptions>> {
  const defaults = DEFAULT_OPTIONS.datagrams;
  const value = top.raw("datagrams");
  if (value === undefined) return defaults;
  const reader = new OptionReader(value, "datagrams", DATAGRAM_KEYS, source);
  return Object.freeze({
    maxBytes: reader.integer("maxBytes", MIN_PACKET_BYTES, MAX_PACKET_BYTES) ?? defaults.maxBytes,
    warnAbove: reader.integer("warnAbove", 0, MAX_PACKET_BYTES) ?? defaults.warnAbove,
  });
}

/** Checks `bandwidth`; what is not given is not limited. */
export function resolveBandwidth(
  top: OptionReader,
  source: OptionSource,
): ResolvedBandwidth {
  const value = top.raw("bandwidth");
  if (value === undefined) return DEFAULT_OPTIONS.bandwidth;
  const reader = new OptionReader(value, "bandwidth", [...BANDWIDTH_KEYS], source);
  const limit = (key: (typeof BANDWIDTH_KEYS)[number]) =>
    reader.integer(key, MIN_BANDWIDTH, Number.MAX_SAFE_INTEGER);
  return Object.freeze({
    total: limit("total"),
    perPeer: limit("perPeer"),
    control: limit("control"),
    normal: limit("normal"),
    bulk: limit("bulk"),
  });
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
