/**
 * The options of an endpoint: shapes, defaults, checks.
 *
 * @module
 */

import type { Environment } from "./runtime/environment.ts";

/** How strict an endpoint is about TLS and identity; docs/security.md says what each promises. */
export type SecurityMode = "strict" | "permissive" | "development" | "legacy";

/** Which name of a certificate must equal the node id. */
export type NodeIdVerification = "None" | "CommonName" | "SubjectAltName";

/** What `send` does when the peer's queue is full. */
export type WhenFull = "wait" | "reject" | "drop-oldest" | "drop-newest";

/** A peer and where it listens. */
export interface PeerAddress {
  /** The peer's node id; its certificate or its handshake must prove it. */
  nodeId: string;
  /** `"tcp://host:port"`, or `"host:port"`, which means tcp. */
  address: string;
}

/** Certificates, as PEM text or as paths of PEM files (not both for one of them). */
export interface TlsOptions {
  /** Our certificate chain, PEM. */
  cert?: string;
  /** The private key of `cert`, PEM (PKCS #8). */
  key?: string;
  /** The authorities that peers' certificates must come from, PEM. */
  ca?: string;
  /** A file to read `cert` from when the endpoint starts. */
  certPath?: string;
  /** A file to read `key` from when the endpoint starts. */
  keyPath?: string;
  /** A file to read `ca` from when the endpoint starts. */
  caCertPath?: string;
  /**
   * Ask dialers for a certificate and refuse those without a valid one.
   * @default {false}
   */
  requireClientAuth?: boolean;
  /**
   * Which name of the peer's certificate must equal its node id.
   * @default {"None"}
   */
  nodeIdVerification?: NodeIdVerification;
}

/** Compression of messages, used where both sides have it. */
export interface CompressionOptions {
  /**
   * Offer and accept compression.
   * @default {true}
   */
  enabled?: boolean;
  /**
   * The algorithm.
   * @default {"lz4"}
   */
  method?: "lz4";
  /**
   * Messages smaller than this many bytes are sent as they are.
   * @default {256}
   */
  minSize?: number;
}

/** A token bucket per peer and direction. */
export interface RateLimitOptions {
  /**
   * Whether the limit is applied.
   * @default {true}
   */
  enabled?: boolean;
  /**
   * Messages that may be sent in one burst.
   * @default {100}
   */
  bucketSize?: number;
  /**
   * Messages per second in the long run.
   * @default {50}
   */
  refillRate?: number;
}

/** The presets of the rate limit: 100 at 50/s, 50 at 25/s, 200 at 100/s, none. */
export type RateLimitPreset = "default" | "aggressive" | "permissive" | "disabled";

/** Reconnection: `min(initialBackoffMs * multiplier ** attempt, maxBackoffMs)`, plus or minus jitter. */
export interface ReconnectOptions {
  /**
   * Dial a lost peer again.
   * @default {true}
   */
  enabled?: boolean;
  /**
   * Delay before the first attempt, milliseconds.
   * @default {100}
   */
  initialBackoffMs?: number;
  /**
   * The longest delay before jitter, milliseconds.
   * @default {30000}
   */
  maxBackoffMs?: number;
  /**
   * Growth of the delay from one attempt to the next, at least 1.
   * @default {2}
   */
  multiplier?: number;
  /**
   * Attempts before the peer is given up; undefined tries for ever.
   * @default {undefined}
   */
  maxAttempts?: number | undefined;
  /**
   * Share of the delay that is random, 0 to 1.
   * @default {0.1}
   */
  jitter?: number;
}

/** Everything an endpoint can be told. Only `nodeId` is required. */
export interface EndpointOptions {
  /** Who we are: 1 to 255 bytes of printable ASCII without spaces. */
  nodeId: string;
  /** Address or addresses to accept connections on, `"tcp://0.0.0.0:9100"`; port 0 takes a free one. Omit to only dial. */
  listen?: string | string[];
  /** Peers to connect to from the start, and again whenever they are lost. */
  peers?: PeerAddress[];
  /**
   * How strict to be about TLS and identity.
   * @default {"strict"}
   */
  security?: SecurityMode;
  /** Certificates; used in every mode where given. */
  tls?: TlsOptions;
  /**
   * Connections per peer.
   * @default {2}
   */
  poolSize?: number;
  /**
   * Milliseconds for a whole connection attempt: TCP, TLS and handshake together.
   * @default {5000}
   */
  connectTimeoutMs?: number;
  /**
   * Milliseconds without progress after which a frame that has begun, or a write, ends its connection.
   * @default {30000}
   */
  ioTimeoutMs?: number;
  /**
   * The largest message in bytes; the smaller of both sides rules.
   * @default {16777216}
   */
  maxMessageSize?: number;
  /**
   * Watch for connections that died without a word.
   * @default {true}
   */
  keepalive?: boolean;
  /**
   * Seconds of silence before a connection is probed, at least 0.1; it is noticed dead within twice this.
   * @default {30}
   */
  keepaliveIntervalSecs?: number;
  /**
   * Messages that may wait to be sent, per peer.
   * @default {1000}
   */
  maxPendingMessages?: number;
  /**
   * Bytes that may wait to be sent, per peer; also the bytes that may wait to be received, per endpoint.
   * @default {67108864}
   */
  maxPendingBytes?: number;
  /**
   * Received messages that may wait for the application, per endpoint.
   * @default {1000}
   */
  recvBufferSize?: number;
  /**
   * Milliseconds that what waits for a peer we can't dial is kept after its last connection.
   * @default {60000}
   */
  resumeWindowMs?: number;
  /**
   * The largest difference in milliseconds between a dialer's clock and ours.
   * @default {300000}
   */
  maxClockSkewMs?: number;
  /** Compression of messages. */
  compression?: CompressionOptions;
  /**
   * A token bucket per peer and direction.
   * @default {"disabled"}
   */
  rateLimit?: RateLimitPreset | RateLimitOptions;
  /** Reconnection to peers whose address we know. */
  reconnect?: ReconnectOptions;
  /**
   * Must be equal on both sides.
   * @default {""}
   */
  clusterName?: string;
  /** A shared secret that dialers must show; compared in constant time. */
  authToken?: string;
  /**
   * Accepted connections at one time.
   * @default {1024}
   */
  maxConnections?: number;
  /**
   * Accepted connections at one time from one host.
   * @default {64}
   */
  maxConnectionsPerHost?: number;
  /** Time and randomness; tests and simulations give their own. Not part of a configuration file. */
  environment?: Environment;
}

/** {@linkcode EndpointOptions} after checks, with every default filled in; frozen. */
export interface ResolvedOptions {
  readonly nodeId: string;
  readonly listen: readonly string[];
  readonly peers: readonly Readonly<PeerAddress>[];
  readonly security: SecurityMode;
  /** Undefined where no TLS material was given. */
  readonly tls: ResolvedTls | undefined;
  readonly poolSize: number;
  readonly connectTimeoutMs: number;
  readonly ioTimeoutMs: number;
  readonly maxMessageSize: number;
  readonly keepalive: boolean;
  readonly keepaliveIntervalSecs: number;
  readonly maxPendingMessages: number;
  readonly maxPendingBytes: number;
  readonly recvBufferSize: number;
  readonly resumeWindowMs: number;
  readonly maxClockSkewMs: number;
  readonly compression: Readonly<Required<CompressionOptions>>;
  readonly rateLimit: Readonly<Required<RateLimitOptions>>;
  readonly reconnect: Readonly<Required<ReconnectOptions>>;
  readonly clusterName: string;
  readonly authToken: string | undefined;
  readonly maxConnections: number;
  readonly maxConnectionsPerHost: number;
}

/** {@linkcode TlsOptions} with the defaults filled in. */
export interface ResolvedTls extends Readonly<TlsOptions> {
  readonly requireClientAuth: boolean;
  readonly nodeIdVerification: NodeIdVerification;
}
