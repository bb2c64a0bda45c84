/**
 * The one table of what options are called in TOML.
 *
 * @module
 */

/**
 * One option under its two names; `[]` stands for any index of a list, `*` for any key of a table
 * whose keys the user chooses.
 */
export interface TomlName {
  /** The name in TOML: `reconnect.max_attempts`, `peers[].node_id`. */
  readonly toml: string;
  /** The name in {@linkcode EndpointOptions}: `reconnect.maxAttempts`, `peers[].nodeId`. */
  readonly option: string;
  /** A second spelling that is read, and never written. */
  readonly alias?: true;
}

/** Every option a configuration file can hold, in the order in which it is written. */
export const TOML_NAMES: readonly TomlName[] = [
  { toml: "node_id", option: "nodeId" },
  { toml: "listen", option: "listen" },
  { toml: "security", option: "security" },
  { toml: "security.mode", option: "security", alias: true },
  { toml: "cluster_name", option: "clusterName" },
  { toml: "auth_token", option: "authToken" },
  { toml: "pool_size", option: "poolSize" },
  { toml: "connect_timeout_ms", option: "connectTimeoutMs" },
  { toml: "io_timeout_ms", option: "ioTimeoutMs" },
  { toml: "max_message_size", option: "maxMessageSize" },
  { toml: "keepalive", option: "keepalive" },
  { toml: "keepalive_interval_secs", option: "keepaliveIntervalSecs" },
  { toml: "max_pending_messages", option: "maxPendingMessages" },
  { toml: "max_pending_bytes", option: "maxPendingBytes" },
  { toml: "recv_buffer_size", option: "recvBufferSize" },
  { toml: "resume_window_ms", option: "resumeWindowMs" },
  { toml: "max_clock_skew_ms", option: "maxClockSkewMs" },
  { toml: "max_connections", option: "maxConnections" },
  { toml: "max_connections_per_host", option: "maxConnectionsPerHost" },
  { toml: "unix_mode", option: "unixMode" },
  { toml: "reuse_port", option: "reusePort" },
  { toml: "min_protocol_version", option: "minProtocolVersion" },
  { toml: "max_protocol_version", option: "maxProtocolVersion" },
  { toml: "delivery", option: "delivery" },
  { toml: "features", option: "features" },
  { toml: "receive_window", option: "receiveWindow" },
  { toml: "batch_delay_ms", option: "batchDelayMs" },
  { toml: "advertise", option: "advertise" },
  { toml: "use_advertised", option: "useAdvertised" },
  { toml: "checksum", option: "checksum" },
  { toml: "max_streams", option: "maxStreams" },
  { toml: "max_requests", option: "maxRequests" },
  { toml: "request_timeout_ms", option: "requestTimeoutMs" },
  { toml: "tls.cert", option: "tls.cert" },
  { toml: "tls.key", option: "tls.key" },
  { toml: "tls.ca", option: "tls.ca" },
  { toml: "tls.cert_path", option: "tls.certPath" },
  { toml: "tls.key_path", option: "tls.keyPath" },
  { toml: "tls.ca_cert_path", option: "tls.caCertPath" },
  { toml: "tls.require_client_auth", option: "tls.requireClientAuth" },
  { toml: "tls.node_id_verification", option: "tls.nodeIdVerification" },
  { toml: "rate_limit", option: "rateLimit", alias: true },
  // Not an option of its own: what the rest of its table starts from.
  { toml: "rate_limit.preset", option: "rateLimit.preset", alias: true },
  { toml: "rate_limit.enabled", option: "rateLimit.enabled" },
  { toml: "rate_limit.bucket_size", option: "rateLimit.bucketSize" },
  { toml: "rate_limit.refill_rate", option: "rateLimit.refillRate" },
  { toml: "compression.enabled", option: "compression.enabled" },
  { toml: "compression.method", option: "compression.method" },
  { toml: "compression.min_size", option: "compression.minSize" },
  { toml: "reconnect.enabled", option: "reconnect.enabled" },
  { toml: "reconnect.initial_backoff_ms", option: "reconnect.initialBackoffMs" },
  { toml: "reconnect.max_backoff_ms", option: "reconnect.maxBackoffMs" },
  { toml: "reconnect.multiplier", option: "reconnect.multiplier" },
  { toml: "reconnect.max_attempts", option: "reconnect.maxAttempts" },
  { toml: "reconnect.jitter", option: "reconnect.jitter" },
  { toml: "pool.strategy", option: "pool.strategy" },
  { toml: "pool.min_connections", option: "pool.minConnections" },
  { toml: "pool.idle_timeout_ms", option: "pool.idleTimeoutMs" },
  { toml: "pool.max_lifetime_ms", option: "pool.maxLifetimeMs" },
  { toml: "pool.upgrade_interval_ms", option: "pool.upgradeIntervalMs" },
  { toml: "pool.health_check_interval_ms", option: "pool.healthCheckIntervalMs" },
  { toml: "pool.max_conns", option: "pool.maxConns" },
  { toml: "pool.max_idle", option: "pool.maxIdle" },
  { toml: "bandwidth.total", option: "bandwidth.total" },
  { toml: "bandwidth.per_peer", option: "bandwidth.perPeer" },
  { toml: "bandwidth.control", option: "bandwidth.control" },
  { toml: "bandwidth.normal", option: "bandwidth.normal" },
  { toml: "bandwidth.bulk", option: "bandwidth.bulk" },
  { toml: "datagrams.max_bytes", option: "datagrams.maxBytes" },
  { toml: "datagrams.warn_above", option: "datagrams.warnAbove" },
  { toml: "identity.private_key", option: "identity.privateKey" },
  { toml: "identity.private_key_path", option: "identity.privateKeyPath" },
  { toml: "identity.trusted_keys.*", option: "identity.trustedKeys.*" },
  { toml: "signing.private_key", option: "signing.privateKey" },
  { toml: "signing.private_key_path", option: "signing.privateKeyPath" },
  { toml: "signing.max_age_ms", option: "signing.maxAgeMs" },
  { toml: "signing.trusted_keys.*", option: "signing.trustedKeys.*" },
  { toml: "default_route.node_id", option: "defaultRoute.nodeId" },
  { toml: "default_route.address", option: "defaultRoute.address" },
  { toml: "routes.*.node_id", option: "routes.*.nodeId" },
  { toml: "routes.*.address", option: "routes.*.address" },
  { toml: "peers[].node_id", option: "peers[].nodeId" },
  { toml: "peers[].address", option: "peers[].address" },
];

/** Stands for any key in the names of {@linkcode TOML_NAMES}. */
export const ANY_KEY: string = "*";

/** Whether the TOML name, with `[]` for an index, holds a value (and not only a table). */
export function isTomlValue(toml: string): boolean {
  return TOML_NAMES.some((name) => name.toml === toml);
}

/**
 * The keys that may stand in the TOML table with this name, {@linkcode ANY_KEY} for any; empty
 * where there is no such table.
 */
export function keysOfTable(table: string): readonly string[] {
  const prefix = table === "" ? "" : `${table}.`;
  const keys = TOML_NAMES
    .filter((name) => name.toml.startsWith(prefix))
    .map((name) => firstWord(name.toml.slice(prefix.length)));
  return [...new Set(keys)];
}

/**
 * The TOML name of an option or of what holds options: `peers[2].nodeId` is `peers[2].node_id`.
 * What is quoted in it was chosen by the user and stays.
 */
export function tomlNameOf(option: string): string {
  return option.replaceAll(QUOTED_OR_WORD, (word) => TOML_WORDS.get(word) ?? word);
}

/** The option's word for a TOML key: `node_id` is `nodeId`. */
export function optionWordOf(key: string): string {
  return OPTION_WORDS.get(key) ?? key;
}

function firstWord(path: string): string {
  return path.split(/[.[]/, 1)[0] ?? "";
}

const QUOTED_OR_WORD = /"(?:[^"\\]|\\.)*"|[A-Za-z]+/g;
const OPTION_WORDS = new Map(TOML_NAMES.flatMap(({ toml, option }) => {
  const keys = toml.split(/[^a-z_]+/);
  const words = option.split(/[^A-Za-z]+/);
  return keys.map((key, index): [string, string] => [key, words[index] ?? key]);
}));
const TOML_WORDS = new Map([...OPTION_WORDS].map(([key, word]) => [word, key]));
