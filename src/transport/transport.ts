/**
 * The types between a transport and what runs over it. A {@linkcode Link} is the narrow waist of
 * the library: whatever carries bytes reliably and in order becomes a link, and framing, sessions
 * and security exist once above it.
 *
 * @module
 */

import type { TransportError } from "../errors.ts";

/** What is known of a link once it is established. */
export interface LinkInfo {
  /** The scheme of the transport: "tcp", "memory", … */
  readonly protocol: string;
  /** Our own address as a URL, "tcp://127.0.0.1:9100". */
  readonly localAddress: string;
  /** The other side's address as a URL. */
  readonly remoteAddress: string;
  /** Host part of the remote address; what connections per host are counted by. */
  readonly remoteHost: string;
  /** Whether the bytes are encrypted on their way. */
  readonly encrypted: boolean;
  /** DER bytes of the certificate the other side proved to own, verified against the CA; undefined where it showed none. */
  readonly peerCertificate: Uint8Array | undefined;
  /**
   * Whether one of the two sides may not see the other's certificate, so that a node that has a key
   * proves it. Where `peerCertificate` is undefined too, the other side's proof takes its place
   * (docs/protocol.md, section 6).
   */
  readonly proofNeeded?: boolean;
  /**
   * Whether other links to the same address share its connection, and none waits for what another
   * has lost: then each lane gets a link to itself.
   */
  readonly multiplexed?: boolean;
}

/** What a link tells its owner. Never called before {@linkcode Link.open}, nor after `onClose`. */
export interface LinkEvents {
  /**
   * Bytes arrived, at least one. The chunk belongs to the receiver, and the link never writes to it
   * again, unless the answer is `true`: then nobody looks at it any more, and its memory may be
   * used again or freed.
   */
  onData(chunk: Uint8Array): boolean | void;
  /** `bufferedBytes` has fallen to 0 after it was above: all that was written has left. */
  onDrain(): void;
  /**
   * A datagram of the link arrived, at least one byte: unordered, beside its bytes. The memory
   * belongs to the receiver.
   */
  onDatagram?(bytes: Uint8Array): void;
  /**
   * The other side has opened a sub-stream of this link and written to it. It is open until both
   * sides have ended it; as a link of its own it has no datagrams and no sub-streams.
   */
  onSubstream?(substream: Link): void;
  /** The other side finished sending (FIN). Writing still works. */
  onEnd(): void;
  /** The link is gone, exactly once, after everything else. With an error if it did not end in order. */
  onClose(error?: TransportError): void;
}

/** A reliable duplex of byte chunks. */
export interface Link {
  /** Addresses, protocol, the peer's certificate. */
  readonly info: LinkInfo;
  /**
   * Bytes given to `write` that have not left this process yet. Keeps its value when the link
   * closes, and counts what is written after that: such bytes never leave.
   */
  readonly bufferedBytes: number;
  /**
   * The longest datagram that fits at the moment, in bytes; it may change, and 0 is none. Undefined:
   * the transport has no datagrams.
   */
  readonly maxDatagramBytes?: number;
  /**
   * Sends a datagram beside the bytes, which arrives once or not at all, in any order. False: it
   * was not taken. The bytes must not be changed afterwards.
   */
  sendDatagram?(bytes: Uint8Array): boolean;
  /**
   * Opens a sub-stream: a link to the other side of this one whose bytes don't wait for those of
   * any other, nor they for them. It closes with this link at the latest. The other side hears of
   * it with its first bytes. Undefined: as many are open as there may be. A transport without
   * sub-streams has no such method; both sides must have it.
   */
  openSubstream?(): Link | undefined;
  /** Starts the flow of events. Called once; data that arrived before is kept and delivered. */
  open(events: LinkEvents): void;
  /**
   * Sends bytes. The chunk must not be changed until it has left. All of it is taken in any case;
   * false asks the caller to wait for `onDrain` before the next write.
   */
  write(chunk: Uint8Array): boolean;
  /** Stops `onData` at once (at most one chunk that is already being read follows later, on resume). */
  pause(): void;
  /** Takes `onData` up again. */
  resume(): void;
  /** Sends what is buffered, then FIN. Reading goes on. */
  end(): void;
  /** Closes both directions at once; what is buffered may be lost. `onClose` follows, never from inside this call. */
  close(): void;
}

/** PEM texts and switches for one dial or one listener. */
export interface LinkTls {
  /** This side's certificate chain, PEM. */
  readonly cert: string | undefined;
  /** The private key of `cert`, PEM. */
  readonly key: string | undefined;
  /** The authorities that the other side's certificate must come from, PEM. */
  readonly ca: string | undefined;
  /** Listener: ask for a client certificate and refuse dialers without a valid one. */
  readonly requireClientAuth: boolean;
  /** Dialer: also hold the certificate against the dialed host name. */
  readonly verifyHostName: boolean;
  /** Whether `LinkInfo.peerCertificate` is needed. */
  readonly needPeerCertificate: boolean;
}

/** What a dial needs beside the address. */
export interface DialOptions {
  /** TLS settings; undefined dials in plain text. */
  readonly tls: LinkTls | undefined;
  /** Seconds between TCP keepalive probes; undefined switches them off. */
  readonly keepaliveSecs: number | undefined;
  /** Ends the attempt; the dial rejects with `signal.reason`. */
  readonly signal: AbortSignal;
}

/** What a listener needs beside the address. */
export interface ListenOptions {
  /** Permissions of a Unix socket's file; undefined: its owner alone. */
  readonly unixMode?: number | undefined;
  /**
   * Whether others may listen on the same port, and the system spreads connections over all who do.
   * A transport that can't do so rejects with `UnsupportedProtocol`.
   */
  readonly reusePort?: boolean;
  /** TLS settings; undefined accepts plain text. */
  readonly tls: LinkTls | undefined;
  /** Seconds between TCP keepalive probes; undefined switches them off. */
  readonly keepaliveSecs: number | undefined;
  /** Milliseconds an accepted connection has for the TLS handshake, absolute. */
  readonly handshakeTimeoutMs: number;
  /**
   * Asked for each accepted connection before any work is spent on it (before TLS), with the remote
   * host. Undefined: it is closed at once. Otherwise a function that must be called exactly once
   * when the connection is gone.
   */
  admit(remoteHost: string): (() => void) | undefined;
  /** An established link. The function `admit` gave is called by the transport when it closes. */
  onLink(link: Link): void;
  /** An accepted connection failed before it became a link (TLS refused, timed out). */
  onError(error: TransportError, remoteHost: string): void;
}

/** Something that accepts links. */
export interface Listener {
  /** The bound address with its real port, "tcp://127.0.0.1:41234". */
  readonly address: string;
  /** Stops accepting; links that were accepted live on. Resolves when the address is free again. */
  close(): Promise<void>;
}

/** What a socket for datagrams needs beside the address. */
export interface BindOptions {
  /** Packets that may wait to be sent; one always may. */
  readonly maxQueued: number;
  /** Their bytes. */
  readonly maxQueuedBytes: number;
  /** A packet came, from this address as a URL. It belongs to the receiver. */
  onPacket(packet: Uint8Array, from: string): void;
  /** There is room again after `send` has refused a packet. */
  onDrain(): void;
  /** A packet could not be sent, or the socket has a problem; it goes on. */
  onError(error: TransportError): void;
}

/** A socket that sends packets to any address and takes them from any. */
export interface DatagramSocket {
  /** The bound address with its real port, "udp://127.0.0.1:41234". */
  readonly address: string;
  /**
   * Sends a packet, which must not be changed any more. False: too many wait, and it was dropped.
   *
   * @param to An address as `onPacket` or `resolve` gives it.
   */
  send(packet: Uint8Array, to: string): boolean;
  /** Closes it. Resolves when the address is free again. */
  close(): Promise<void>;
}

/** How to reach an address by datagrams. */
export interface DatagramRoute {
  /** The address as packets name it: numeric, "udp://127.0.0.1:9100". */
  readonly remote: string;
  /** What a socket that is to reach it is bound to: "udp://0.0.0.0:0". */
  readonly local: string;
}

/** What a transport can do on this runtime. */
export interface TransportCapabilities {
  /** What is written arrives, or the link closes. */
  readonly reliable: boolean;
  /** What arrives, arrives in the order of writing. */
  readonly ordered: boolean;
  /** Links to one address share a connection, and none of them waits for what another has lost. */
  readonly multiplexed: boolean;
  /** Can encrypt. */
  readonly encrypted: boolean;
  /** Can show each side a verified certificate of the other. */
  readonly peerAuthenticated: boolean;
  /** The longest message it carries, in bytes; undefined where `maxMessageSize` alone decides. */
  readonly maxMessageSize: number | undefined;
}

/** The priority of a transport that names none. */
export const DEFAULT_PRIORITY = 50;

/**
 * A way to reach other nodes: one per address scheme. Made for `new Endpoint({ transports: [ … ] })`
 * or {@linkcode Endpoint.registerTransport}.
 */
export interface Transport {
  /** The address scheme without "://". */
  readonly scheme: string;
  /** What it can do on this runtime. */
  readonly capabilities: TransportCapabilities;
  /**
   * Which of a peer's addresses is tried first: the one with the highest. Usually 0 to 100.
   * @default {50}
   */
  readonly priority?: number;
  /** Why it can't be used on this runtime; undefined: it can. */
  readonly unavailable?: string | undefined;
  /** Opens a link. Rejects with a {@linkcode TransportError}, or with `signal.reason`. */
  dial(address: string, options: DialOptions): Promise<Link>;
  /** Starts to accept. Rejects with a {@linkcode TransportError} where the address cannot be bound. */
  listen(address: string, options: ListenOptions): Promise<Listener>;
  /**
   * Transports of datagrams have this instead of links: binds a socket. Rejects with a
   * {@linkcode TransportError}.
   */
  bind?(address: string, options: BindOptions): Promise<DatagramSocket>;
  /** Beside `bind`: where packets for an address go, and from where. */
  resolve?(address: string): Promise<DatagramRoute>;
}
