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

/** What becomes of accepted messages when a connection is lost; docs/delivery.md says more. */
export type Delivery = "resume" | "at-most-once";

/** Where frames carry a checksum: where the channel has no integrity of its own, always, never. */
export type ChecksumMode = "auto" | "always" | "never";

/** The algorithms of compression. */
export type CompressionMethod = "lz4" | "zstd";

/** Which of a peer's connections takes what needs no order. */
export type PoolStrategy = "first-available" | "round-robin" | "least-loaded";

/** What `send` does when the peer's queue is full. */
export type WhenFull = "wait" | "reject" | "drop-oldest" | "drop-newest";

/** Whose advertised addresses are dialed. */
export type UseAdvertised = "verified" | "always" | "never";

/** Messages over datagrams: addresses like `udp://`; docs/datagrams.md says more. */
export interface DatagramOptions {
  /**
   * The longest packet in bytes, what the protocol adds included; what doesn't fit is refused.
   * @default {65507}
   */
  maxBytes?: number;
  /**
   * A packet longer than this many bytes makes a `warning`, once per peer: it may be sent in
   * fragments, of which none may get lost. 0: never.
   * @default {1200}
   */
  warnAbove?: number;
}

/**
 * Limits of what is sent, in bytes per second as they go on the wire, retransmissions included. A
 * limit is a token bucket that holds a twentieth of a second, but at least 65,536 bytes. Peers that
 * share one take turns. The control lane is counted, but waits for a limit of its own only.
 */
export interface BandwidthOptions {
  /** To all peers together. */
  total?: number;
  /** To each peer. */
  perPeer?: number;
  /** In the control lane, to all peers together. */
  control?: number;
  /** In the normal lane, to all peers together. */
  normal?: number;
  /** In the bulk lane, to all peers together. */
  bulk?: number;
}

/** Undefined: not limited. */
export type ResolvedBandwidth = {
  readonly [K in keyof Required<BandwidthOptions>]: number | undefined;
};

/** A peer and where it listens. */
export interface PeerAddress {
  /** The peer's node id; its certificate or its handshake must prove it. */
  nodeId: string;
  /**
   * `"tcp://host:port"`, or `"host:port"`, which means tcp; or up to 16 addresses, of which the best
   * that works is used: the one whose transport has the highest priority.
   */
  address: string | readonly string[];
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
   * The algorithm that we send with.
   * @default {"lz4"}
   */
  method?: CompressionMethod;
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

/** The connections of each peer and of the endpoint; `poolSize` is the most that one peer has. */
export interface PoolOptions {
  /**
   * Which connection takes what needs no order.
   * @default {"first-available"}
   */
  strategy?: PoolStrategy;
  /**
   * Connections per peer that are kept though idle, at most `poolSize`.
   * @default {1}
   */
  minConnections?: number;
  /**
   * Milliseconds without messages after which connections beyond `minConnections` end; 0: never.
   * @default {90000}
   */
  idleTimeoutMs?: number;
  /**
   * Milliseconds after which a connection hands over to a new one; 0: never.
   * @default {0}
   */
  maxLifetimeMs?: number;
  /**
   * After so many milliseconds a connection at one of a peer's lesser addresses is tried at a better
   * one, and hands over to it; 0: never.
   * @default {30000}
   */
  upgradeIntervalMs?: number;
  /**
   * Milliseconds between pings that measure the round trip; 0: only on silence.
   * @default {10000}
   */
  healthCheckIntervalMs?: number;
  /**
   * Connections that the endpoint dials at most, to all peers together.
   * @default {1000}
   */
  maxConns?: number;
  /**
   * Peers that only a route led to, kept connected though idle.
   * @default {100}
   */
  maxIdle?: number;
}

/**
 * Ed25519 public keys by node id: 32 bytes as base64, or up to 16 of them while keys are changed.
 */
export type TrustedKeys = Record<string, string | readonly string[]>;

/** An Ed25519 key pair that proves who we are, and the keys that prove who the others are. */
export interface IdentityOptions {
  /** Our private key, PEM (PKCS #8). */
  privateKey?: string;
  /** A file to read `privateKey` from when the endpoint starts. */
  privateKeyPath?: string;
  /** The public keys of other nodes. */
  trustedKeys?: TrustedKeys;
}

/** Signatures of every message, made and demanded; docs/envelopes.md has the binary form. */
export interface SigningOptions {
  /** Our private key, PEM (PKCS #8); this or `privateKeyPath` is required. */
  privateKey?: string;
  /** A file to read `privateKey` from when the endpoint starts. */
  privateKeyPath?: string;
  /** The public keys of the nodes whose messages are taken. */
  trustedKeys: TrustedKeys;
  /**
   * The largest difference in milliseconds between an envelope's timestamp and our clock.
   * @default {300000}
   */
  maxAgeMs?: number;
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
  /** Our Ed25519 key and the keys of others, for where there are no client certificates. */
  identity?: IdentityOptions;
  /** Signs every message, and takes only signed ones from peers that can sign. */
  signing?: SigningOptions;
  /**
   * Connections per peer.
   * @default {2}
   */
  poolSize?: number;
  /** The life of connections, and which of them is taken. */
  pool?: PoolOptions;
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
   * Messages that may wait to be sent, per peer. In version 3 one that was written and that the
   * peer has not acknowledged counts a sixteenth.
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
  /**
   * Permissions of the files of Unix sockets listened on, 0 to 0o777. Left out: 0o600, their owner
   * alone.
   */
  unixMode?: number;
  /**
   * Let other processes or workers listen on the same TCP ports; the system spreads connections
   * over them. docs/unix.md says what they must have in common.
   * @default {false}
   */
  reusePort?: boolean;
  /**
   * The lowest protocol version that is accepted, 1 to 3.
   * @default {1}
   */
  minProtocolVersion?: number;
  /**
   * The highest protocol version that is spoken, 1 to 3; pins a version in a rolling upgrade.
   * @default {3}
   */
  maxProtocolVersion?: number;
  /**
   * What becomes of accepted messages when a connection is lost.
   * @default {"resume"}
   */
  delivery?: Delivery;
  /**
   * What the application offers, for peers to read: up to 64 names of 1 to 64 characters of
   * printable ASCII without spaces, 1024 characters together.
   * @default {[]}
   */
  features?: string[];
  /**
   * Bytes that a peer may send us without an acknowledgement, at least 65536. Left out: 16 MiB, or
   * `maxMessageSize` plus 65536 where that is more.
   */
  receiveWindow?: number;
  /**
   * Milliseconds that a small message may wait for others to share a write with; 0 waits for none.
   * @default {0}
   */
  batchDelayMs?: number;
  /**
   * How many bytes per second may be sent; nothing is limited by default.
   */
  bandwidth?: BandwidthOptions;
  /** Messages over datagrams: addresses like `udp://`. */
  datagrams?: DatagramOptions;
  /**
   * Addresses that peers are told in the handshake, at most 16: where a NAT, a proxy or a load
   * balancer stands before this node. By default those of `listen`, with the address of the
   * connection in the place of 0.0.0.0 and [::]; those that only reach this machine are told on
   * this machine only.
   */
  advertise?: readonly string[];
  /**
   * Whether the addresses that a peer tells in its handshake may be dialed, too, where a better
   * transport leads there: of peers whose identity is proven, of all, or of none.
   * @default {"verified"}
   */
  useAdvertised?: UseAdvertised;
  /**
   * Where frames carry a checksum.
   * @default {"auto"}
   */
  checksum?: ChecksumMode;
  /**
   * Streams that a peer may hold open here at one time.
   * @default {256}
   */
  maxStreams?: number;
  /**
   * Requests of a peer that may be under way here at one time.
   * @default {256}
   */
  maxRequests?: number;
  /**
   * Milliseconds that `request` waits for its answer where it isn't told another time.
   * @default {30000}
   */
  requestTimeoutMs?: number;
  /** Recipients that are no peers of ours, and the peer that takes what is for them. */
  routes?: Record<string, PeerAddress>;
  /** The peer that takes what is for a recipient of which there is no route. */
  defaultRoute?: PeerAddress;
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
  readonly unixMode: number | undefined;
  readonly reusePort: boolean;
  readonly minProtocolVersion: number;
  readonly maxProtocolVersion: number;
  readonly delivery: Delivery;
  readonly features: readonly string[];
  readonly receiveWindow: number;
  readonly batchDelayMs: number;
  readonly bandwidth: ResolvedBandwidth;
  readonly datagrams: Readonly<Required<DatagramOptions>>;
  /** Undefined: what is listened on. */
  readonly advertise: readonly string[] | undefined;
  readonly useAdvertised: UseAdvertised;
  readonly checksum: ChecksumMode;
  readonly maxStreams: number;
  readonly maxRequests: number;
  readonly requestTimeoutMs: number;
  readonly pool: Readonly<Required<PoolOptions>>;
  /** Undefined where neither a key nor trusted keys were given. */
  readonly identity: ResolvedIdentity | undefined;
  readonly signing: ResolvedSigning | undefined;
  /** By recipient; a plain object, so look names up with `Object.hasOwn` or walk its entries. */
  readonly routes: Readonly<Record<string, Readonly<PeerAddress>>>;
  readonly defaultRoute: Readonly<PeerAddress> | undefined;
}

/** {@linkcode TrustedKeys} as lists; `keyBytesOf` turns them into a map of bytes. */
export type ResolvedKeys = Readonly<Record<string, readonly string[]>>;

/** {@linkcode IdentityOptions} after checks. */
export interface ResolvedIdentity {
  readonly privateKey?: string;
  readonly privateKeyPath?: string;
  readonly trustedKeys: ResolvedKeys;
}

/** {@linkcode SigningOptions} after checks; a private key or its path is given. */
export interface ResolvedSigning extends ResolvedIdentity {
  readonly maxAgeMs: number;
}

/** {@linkcode TlsOptions} with the defaults filled in. */
export interface ResolvedTls extends Readonly<TlsOptions> {
  readonly requireClientAuth: boolean;
  readonly nodeIdVerification: NodeIdVerification;
}
