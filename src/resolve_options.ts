/**
 * Checks the options of an endpoint and fills in the defaults.
 *
 * @module
 */

import {
  CHECKSUM_MODES,
  DEFAULT_OPTIONS,
  DELIVERIES,
  SECURITY_MODES,
  USE_ADVERTISED,
} from "./default_options.ts";
import { OBJECT_SOURCE, OptionReader, type OptionSource } from "./option_reader.ts";
import type { EndpointOptions, ResolvedOptions, TlsOptions } from "./options.ts";
import {
  resolveAdvertise,
  resolveListen,
  resolveNodeId,
  resolvePeer,
  resolvePeers,
  resolveRoutes,
} from "./resolve_addresses.ts";
import { resolveIdentity, resolveSigning } from "./resolve_keys.ts";
import {
  MAX_MESSAGE_BYTES,
  MAX_MS,
  MAX_POOL_SIZE,
  resolveBandwidth,
  resolveCompression,
  resolveDatagrams,
  resolvePool,
  resolveRateLimit,
  resolveReconnect,
} from "./resolve_tables.ts";
import { resolveTls } from "./resolve_tls.ts";

const MAX_PROTOCOL_VERSION = 3;
/** A receive window holds at least one fragment. */
const MIN_RECEIVE_WINDOW = 65_536;
/** What a receive window has beyond the largest message, so that other lanes move beside it. */
const WINDOW_MARGIN = 65_536;
const DEFAULT_RECEIVE_WINDOW = 16 * 1024 * 1024;
/** Read, write and execute for everybody; of no use to a socket are the bits above. */
const MAX_UNIX_MODE = 0o777;
const MAX_FEATURES = 64;
/** All features go into one handshake message of 4096 bytes, beside much else. */
const MAX_FEATURES_CHARS = 1024;

const TOP_KEYS = [
  ...["nodeId", "listen", "peers", "security", "tls", "poolSize", "connectTimeoutMs"],
  ...["ioTimeoutMs", "maxMessageSize", "keepalive", "keepaliveIntervalSecs"],
  ...["maxPendingMessages", "maxPendingBytes", "recvBufferSize", "resumeWindowMs"],
  ...["maxClockSkewMs", "compression", "rateLimit", "reconnect", "clusterName", "authToken"],
  ...["maxConnections", "maxConnectionsPerHost", "minProtocolVersion", "maxProtocolVersion"],
  ...["unixMode", "reusePort"],
  ...["delivery", "features", "receiveWindow", "batchDelayMs", "checksum", "maxStreams"],
  ...["maxRequests", "requestTimeoutMs", "pool", "identity", "signing", "routes", "defaultRoute"],
  ...["environment", "bandwidth", "datagrams", "advertise", "useAdvertised"],
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
  const poolSize = top.integer("poolSize", 1, MAX_POOL_SIZE) ?? defaults.poolSize;
  const maxMessageSize = top.integer("maxMessageSize", 1, MAX_MESSAGE_BYTES) ??
    defaults.maxMessageSize;
  const resumeWindowMs = top.integer("resumeWindowMs", 0, MAX_MS) ?? defaults.resumeWindowMs;
  const resolved: ResolvedOptions = {
    nodeId: resolveNodeId(top),
    listen: resolveListen(top),
    peers: resolvePeers(top, source),
    security: top.oneOf("security", SECURITY_MODES) ??
      defaults.security,
    tls: resolveTls(top.raw("tls"), source),
    poolSize,
    connectTimeoutMs: top.integer("connectTimeoutMs", 1, MAX_MS) ?? defaults.connectTimeoutMs,
    ioTimeoutMs: top.integer("ioTimeoutMs", 1, MAX_MS) ?? defaults.ioTimeoutMs,
    maxMessageSize,
    keepalive: top.boolean("keepalive") ?? defaults.keepalive,
    keepaliveIntervalSecs: top.number("keepaliveIntervalSecs", { min: 0.1, max: 86_400 }) ??
      defaults.keepaliveIntervalSecs,
    maxPendingMessages: top.integer("maxPendingMessages", 1, 10_000_000) ??
      defaults.maxPendingMessages,
    maxPendingBytes: top.integer("maxPendingBytes", 1, Number.MAX_SAFE_INTEGER) ??
      defaults.maxPendingBytes,
    recvBufferSize: top.integer("recvBufferSize", 1, 10_000_000) ?? defaults.recvBufferSize,
    resumeWindowMs,
    maxClockSkewMs: top.integer("maxClockSkewMs", 0, MAX_MS) ?? defaults.maxClockSkewMs,
    compression: resolveCompression(top, source),
    rateLimit: resolveRateLimit(top, source),
    reconnect: resolveReconnect(top, source),
    clusterName: top.text("clusterName", 0, 255) ?? defaults.clusterName,
    authToken: top.secret("authToken", 1, 1024),
    maxConnections: top.integer("maxConnections", 1, 1_000_000) ?? defaults.maxConnections,
    maxConnectionsPerHost: top.integer("maxConnectionsPerHost", 1, 1_000_000) ??
      defaults.maxConnectionsPerHost,
    unixMode: top.integer("unixMode", 0, MAX_UNIX_MODE),
    reusePort: top.boolean("reusePort") ?? defaults.reusePort,
    ...resolveVersions(top),
    delivery: top.oneOf("delivery", DELIVERIES) ?? defaults.delivery,
    features: resolveFeatures(top),
    receiveWindow: top.integer("receiveWindow", MIN_RECEIVE_WINDOW, Number.MAX_SAFE_INTEGER) ??
      Math.max(DEFAULT_RECEIVE_WINDOW, maxMessageSize + WINDOW_MARGIN),
    batchDelayMs: top.number("batchDelayMs", { min: 0, max: 1000 }) ?? defaults.batchDelayMs,
    bandwidth: resolveBandwidth(top, source),
    datagrams: resolveDatagrams(top, source),
    advertise: resolveAdvertise(top),
    useAdvertised: top.oneOf("useAdvertised", USE_ADVERTISED) ?? defaults.useAdvertised,
    checksum: top.oneOf("checksum", CHECKSUM_MODES) ?? defaults.checksum,
    maxStreams: top.integer("maxStreams", 0, 65_535) ?? defaults.maxStreams,
    maxRequests: top.integer("maxRequests", 0, 1_000_000) ?? defaults.maxRequests,
    requestTimeoutMs: top.integer("requestTimeoutMs", 1, MAX_MS) ?? defaults.requestTimeoutMs,
    pool: resolvePool(top, source, poolSize),
    identity: resolveIdentity(top.raw("identity"), source),
    signing: resolveSigning(top.raw("signing"), source, resumeWindowMs),
    routes: resolveRoutes(top, source),
    defaultRoute: resolveDefaultRoute(top, source),
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

function resolveVersions(
  top: OptionReader,
): Pick<ResolvedOptions, "minProtocolVersion" | "maxProtocolVersion"> {
  const min = top.integer("minProtocolVersion", 1, MAX_PROTOCOL_VERSION) ??
    DEFAULT_OPTIONS.minProtocolVersion;
  const max = top.integer("maxProtocolVersion", 1, MAX_PROTOCOL_VERSION) ??
    DEFAULT_OPTIONS.maxProtocolVersion;
  if (min > max) {
    const most = `${top.nameOf("maxProtocolVersion")} (${max})`;
    throw top.wrongValue("minProtocolVersion", `must be at most ${most}`, min);
  }
  return { minProtocolVersion: min, maxProtocolVersion: max };
}

function resolveFeatures(top: OptionReader): readonly string[] {
  const value = top.raw("features");
  if (value === undefined) return DEFAULT_OPTIONS.features;
  if (!Array.isArray(value)) throw top.wrongValue("features", "must be a list of texts", value);
  if (value.length > MAX_FEATURES) {
    throw top.error("features", `must have at most ${MAX_FEATURES} entries, got ${value.length}`);
  }
  const features = Array.from(value, (item: unknown, index) => {
    if (typeof item === "string" && /^[!-~]{1,64}$/.test(item)) return item;
    const demand = "must be 1 to 64 characters of printable ASCII without spaces";
    throw top.wrongValue(`features[${index}]`, demand, item);
  });
  const chars = features.reduce((sum, feature) => sum + feature.length, 0);
  if (chars > MAX_FEATURES_CHARS) {
    const demand = `must have at most ${MAX_FEATURES_CHARS} characters together`;
    throw top.error("features", `${demand}, got ${chars}`);
  }
  return Object.freeze(features);
}

function resolveDefaultRoute(
  top: OptionReader,
  source: OptionSource,
): ResolvedOptions["defaultRoute"] {
  const value = top.raw("defaultRoute");
  return value === undefined ? undefined : resolvePeer(value, "defaultRoute", source);
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
