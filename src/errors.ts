/**
 * The one error class of the library and its few subclasses.
 *
 * @module
 */

/** Every code a {@linkcode TransportError} can carry. docs/errors.md gives cause and recovery of each. */
export type ErrorCode =
  | "Timeout"
  | "PeerNotFound"
  | "HandshakeFailed"
  | "TlsRequired"
  | "MtlsRequired"
  | "NodeIdVerificationRequired"
  | "RateLimited"
  | "Compression"
  | "ConnectionFailed"
  | "ConnectionClosed"
  | "MessageTooLarge"
  | "InvalidFrame"
  | "Backpressure"
  | "IdentityMismatch"
  | "ClientCertificateRequired"
  | "PoolExhausted"
  | "UnsupportedProtocol"
  | "NegotiationTimeout"
  | "NatTraversalFailed"
  | "RelayFailed"
  | "RouteNotFound"
  | "RemoteError"
  | "Config"
  | "Shutdown";

/** What a listener says when it turns a dialer away (docs/protocol.md, section "reject"). */
export type RejectCode =
  | "VERSION_MISMATCH"
  | "CLUSTER_MISMATCH"
  | "NODE_ID_MISMATCH"
  | "DUPLICATE_NODE_ID"
  | "AUTH_FAILED"
  | "STALE_TIMESTAMP"
  | "REPLAYED"
  | "IDENTITY_REQUIRED"
  | "TOO_MANY_CONNECTIONS"
  | "SHUTTING_DOWN"
  | "MALFORMED";

/** What a {@linkcode TransportError} may be given beside its code and message. */
export interface TransportErrorOptions {
  /** The node id of the peer concerned, where one is known. */
  peer?: string | undefined;
  /** The error underneath. */
  cause?: unknown;
  /** Overrides the code's usual answer to "may the same call succeed later?". */
  retryable?: boolean | undefined;
  /** Overrides the code's usual line of advice. */
  recovery?: string | undefined;
}

/** code -> may the same call succeed later; one line of advice. */
const CODES: { readonly [C in ErrorCode]: readonly [retryable: boolean, recovery: string] } = {
  Timeout: [true, "retry with backoff, or raise the timeout"],
  PeerNotFound: [false, "connect to the peer first, or add a route to it"],
  HandshakeFailed: [false, "check versions, cluster name, tokens and certificates of both sides"],
  TlsRequired: [false, "give tls.cert, tls.key and tls.ca, or choose another security mode"],
  MtlsRequired: [false, "set tls.requireClientAuth to true, or choose another security mode"],
  NodeIdVerificationRequired: [
    false,
    'set tls.nodeIdVerification to "CommonName" or "SubjectAltName"',
  ],
  RateLimited: [true, "wait retryAfterMs and send again"],
  Compression: [false, "check for data corruption or a faulty sender"],
  ConnectionFailed: [true, "check the address and that the peer is up; retry with backoff"],
  ConnectionClosed: [true, "wait for the reconnection, then send again"],
  MessageTooLarge: [false, "split the message, or raise maxMessageSize on both sides"],
  InvalidFrame: [false, "the other side does not speak this protocol; check what runs there"],
  Backpressure: [true, "slow down, or wait for flush()"],
  IdentityMismatch: [false, "check which certificate the peer was given"],
  ClientCertificateRequired: [false, "give the dialing node a certificate of the cluster's CA"],
  PoolExhausted: [true, "disconnect from other peers, or raise pool.maxConns"],
  UnsupportedProtocol: [false, "use an address scheme that this runtime has"],
  NegotiationTimeout: [true, "retry, or name one transport in the address"],
  NatTraversalFailed: [true, "connect through a relay"],
  RelayFailed: [true, "try another relay or a direct address"],
  RouteNotFound: [true, "add a route, or wait until one is learnt"],
  RemoteError: [false, "see the peer's own message"],
  Config: [false, "correct the named option"],
  Shutdown: [false, "the endpoint is closed; make a new one"],
};

/**
 * The error of every failure that is not a programming mistake
 * (those are `TypeError` and `RangeError`; an abort rethrows `signal.reason`).
 *
 * @example
 * ```ts
 * import { TransportError } from "@hawser/hawser";
 *
 * const error = new TransportError("PeerNotFound", 'Cannot send to "node9": no such peer');
 * console.log(error.code, error.retryable, error.recovery);
 * ```
 */
export class TransportError extends Error {
  /** The class, for logs. */
  override readonly name: string = "TransportError";
  /** Which failure this is; tell errors apart by this, never by the text. */
  readonly code: ErrorCode;
  /** Whether the same call may succeed later without anybody changing anything. */
  readonly retryable: boolean;
  /** The node id of the peer concerned, where one is known. */
  readonly peer: string | undefined;
  /** One line of advice. */
  readonly recovery: string;

  /** Makes an error of the given code; `message` reads "Cannot …: …". */
  constructor(code: ErrorCode, message: string, options: TransportErrorOptions = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    const [retryable, recovery] = CODES[code];
    this.code = code;
    this.retryable = options.retryable ?? retryable;
    this.peer = options.peer;
    this.recovery = options.recovery ?? recovery;
  }
}

/** The token bucket of a peer is empty. */
export class RateLimitedError extends TransportError {
  /** The class, for logs. */
  override readonly name: string = "RateLimitedError";
  /** Milliseconds until the bucket holds a token again. */
  readonly retryAfterMs: number;

  /** Makes the error; `retryAfterMs` is in milliseconds. */
  constructor(message: string, retryAfterMs: number, options?: TransportErrorOptions) {
    super("RateLimited", message, options);
    this.retryAfterMs = retryAfterMs;
  }
}

/** A message is larger than both sides agreed on. */
export class MessageTooLargeError extends TransportError {
  /** The class, for logs. */
  override readonly name: string = "MessageTooLargeError";
  /** The size of the refused message in bytes. */
  readonly size: number;
  /** The largest size in bytes that would have been accepted. */
  readonly maxSize: number;

  /** Makes the error; both sizes are in bytes. */
  constructor(message: string, size: number, maxSize: number, options?: TransportErrorOptions) {
    super("MessageTooLarge", message, options);
    this.size = size;
    this.maxSize = maxSize;
  }
}

/** The send queue of a peer is full. */
export class BackpressureError extends TransportError {
  /** The class, for logs. */
  override readonly name: string = "BackpressureError";
  /** How many messages were queued when this one was refused. */
  readonly queued: number;

  /** Makes the error; `queued` counts messages. */
  constructor(message: string, queued: number, options?: TransportErrorOptions) {
    super("Backpressure", message, options);
    this.queued = queued;
  }
}

/** The handshake was refused by one side. */
export class HandshakeError extends TransportError {
  /** The class, for logs. */
  override readonly name: string = "HandshakeError";
  /** The peer's or our own reason as a code of the protocol; undefined where none was exchanged. */
  readonly rejectCode: RejectCode | undefined;

  /** Makes the error; `rejectCode` is what the listener said, if it said anything. */
  constructor(message: string, rejectCode?: RejectCode, options?: TransportErrorOptions) {
    super("HandshakeFailed", message, options);
    this.rejectCode = rejectCode;
  }
}

/** An option has an unknown name, a wrong type or a value out of range. */
export class ConfigError extends TransportError {
  /** The class, for logs. */
  override readonly name: string = "ConfigError";
  /** The full path of the option, as in `reconnect.jitter`; empty where the whole text is at fault. */
  readonly path: string;

  /** Makes the error; the message reads `<path>: <problem>`. */
  constructor(path: string, problem: string, options?: TransportErrorOptions) {
    super("Config", path === "" ? problem : `${path}: ${problem}`, options);
    this.path = path;
  }
}

/** Remote codes of what was refused before it ran, and advice: the same call may succeed later. */
const REFUSALS: ReadonlyMap<string, string> = new Map([
  [
    "TOO_MANY_REQUESTS",
    "it did not run: retry with backoff, or raise maxRequests or the handler's concurrency there",
  ],
  [
    "TOO_MANY_STREAMS",
    "nobody has seen it: retry when other streams have closed, or raise maxStreams there",
  ],
]);

/** The peer answered a request with an error, or reset a stream. */
export class RemoteError extends TransportError {
  /** The class, for logs. */
  override readonly name: string = "RemoteError";
  /** What the peer named the failure, such as "NO_HANDLER" or a code of its application. */
  readonly remoteCode: string;
  /** The peer's words, as they came: escape them before they reach a log or a page. */
  readonly remoteMessage: string;

  /** Makes the error; `message` is ours, `remoteCode` and `remoteMessage` are the peer's. */
  constructor(
    message: string,
    remoteCode: string,
    remoteMessage: string,
    options: TransportErrorOptions = {},
  ) {
    const refused = REFUSALS.get(remoteCode);
    super("RemoteError", message, {
      ...options,
      retryable: options.retryable ?? refused !== undefined,
      recovery: options.recovery ?? refused,
    });
    this.remoteCode = remoteCode;
    this.remoteMessage = remoteMessage;
  }
}

/** What is known of a request that was lost: it did not run, or it may have. */
export type RequestOutcome = "not-run" | "may-have-run";

/** A request was not answered: its time was up, or the session with the peer ended before. */
export class RequestLostError extends TransportError {
  /** The class, for logs. */
  override readonly name: string = "RequestLostError";
  /** Whether the peer may have run the request; only "not-run" is safe to repeat blindly. */
  readonly outcome: RequestOutcome;

  /**
   * Makes the error; it is retryable where the request did not run, unless told otherwise. `code` is
   * "Timeout" where its time was up.
   */
  constructor(
    message: string,
    outcome: RequestOutcome,
    options: TransportErrorOptions = {},
    code: "ConnectionClosed" | "Timeout" = "ConnectionClosed",
  ) {
    const notRun = outcome === "not-run";
    super(code, message, {
      ...options,
      retryable: options.retryable ?? notRun,
      recovery: options.recovery ?? (notRun ? undefined : "repeat it only if it may run twice"),
    });
    this.outcome = outcome;
  }
}
