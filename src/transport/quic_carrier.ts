/**
 * One QUIC connection and the links on its streams.
 *
 * @module
 */

import type { TransportError } from "../errors.ts";
import type { QuicConnection, QuicEvents, QuicStream } from "../runtime/quic.ts";
import { quicLinkFailed } from "../runtime/quic_errors.ts";
import { QuicLink, type QuicLinkHost } from "../runtime/quic_link.ts";
import { readVarint } from "../runtime/quic_varint.ts";
import { formatAddress } from "./address.ts";
import type { Link, LinkInfo } from "./transport.ts";

/** The scheme of QUIC addresses. */
export const QUIC_SCHEME = "quic";
/** Links that we open in one connection before another one is dialed. */
const MAX_LINKS = 32;

/** Who looks after a connection. */
export interface CarrierHost {
  /** Milliseconds for which the connection stays when its last link has ended. */
  readonly lingerMs: number;
  /** Whether links say whose certificate the other side showed. */
  readonly showCertificate: boolean;
  /** The other side opened a stream. */
  onStream(carrier: Carrier, stream: QuicStream): void;
  /** The connection is gone. */
  onGone(carrier: Carrier): void;
}

/** Shares a connection among links, and closes it when the last one has ended. */
export class Carrier implements QuicEvents, QuicLinkHost {
  readonly #connection: QuicConnection;
  readonly #host: CarrierHost;
  readonly #links = new Set<QuicLink>();
  readonly #releases = new Map<QuicLink, () => void>();
  #opening = 0;
  #suspect = false;
  #closed = false;
  #used = false;
  #lingering: ReturnType<typeof setTimeout> | undefined;

  /** Takes over an established connection. */
  constructor(connection: QuicConnection, host: CarrierHost) {
    this.#connection = connection;
    this.#host = host;
    this.#linger();
    connection.open(this);
  }

  /** Host of the other side. */
  get remoteHost(): string {
    return this.#connection.remote.host;
  }

  /** How many links it carries. */
  get linkCount(): number {
    return this.#links.size + this.#opening;
  }

  /**
   * Whether another link may be opened here. Not where one was given up since the other side was
   * last heard: the connection may be dead, and QUIC notices that much later.
   */
  get usable(): boolean {
    return !this.#closed && !this.#suspect && this.linkCount < MAX_LINKS;
  }

  /** Opens a stream and makes a link of it. */
  async openLink(): Promise<Link> {
    this.#opening++;
    this.#stay();
    try {
      return this.addLink(await this.#connection.openStream());
    } finally {
      this.#opening--;
      this.#linger();
    }
  }

  /** Makes a link of a stream. `release` is called once, when it is gone. */
  addLink(stream: QuicStream, release?: () => void): Link {
    this.#stay();
    this.#used = true;
    const link = new QuicLink(stream, this.#info(), this);
    this.#links.add(link);
    if (release !== undefined) this.#releases.set(link, release);
    if (this.#closed) link.lose(this.failure(new Error("the connection was closed")));
    return link;
  }

  /** Closes the connection at once, and with it its links. */
  close(): void {
    this.#stay();
    this.#connection.close();
  }

  /** No further link will come: without one, it lingers no longer than its host says by now. */
  shorten(): void {
    if (this.linkCount > 0 || this.#closed) return;
    if (!this.#used) return this.close();
    this.#stay();
    this.#linger();
  }

  /** @ignore */
  onStream(stream: QuicStream): void {
    this.#host.onStream(this, stream);
    this.#linger();
  }

  /** @ignore */
  onDatagram(bytes: Uint8Array): void {
    const read = readVarint(bytes);
    if (read === undefined) return;
    this.#suspect = false;
    // Few links share a connection. A datagram may come when its stream is gone, or not there yet.
    for (const link of this.#links) {
      if (link.streamId === read.value) return link.takeDatagram(read.rest);
    }
  }

  /** @ignore */
  get maxDatagramBytes(): number {
    return this.#closed ? 0 : this.#connection.maxDatagramBytes;
  }

  /** @ignore */
  sendDatagram(bytes: Uint8Array): boolean {
    return !this.#closed && this.#connection.sendDatagram(bytes);
  }

  /** @ignore */
  onClose(reason: unknown): void {
    this.#closed = true;
    this.#stay();
    const error = this.failure(reason ?? new Error("the connection was closed"));
    for (const link of [...this.#links]) link.lose(error);
    this.#host.onGone(this);
  }

  /** @ignore */
  onBytes(): void {
    this.#suspect = false;
  }

  /** @ignore */
  onGone(link: QuicLink, inOrder: boolean): void {
    this.#links.delete(link);
    if (!inOrder) this.#suspect = true;
    this.#linger();
    this.#releases.get(link)?.();
    this.#releases.delete(link);
  }

  /** @ignore */
  failure(cause: unknown): TransportError {
    const { host, port } = this.#connection.remote;
    return quicLinkFailed(formatAddress(QUIC_SCHEME, host, port), cause);
  }

  /** What the last link sent must have time to arrive: closing a connection drops it. */
  #linger(): void {
    if (this.#closed || this.linkCount > 0 || this.#lingering !== undefined) return;
    this.#lingering = setTimeout(() => this.#connection.close(), this.#host.lingerMs);
  }

  #stay(): void {
    clearTimeout(this.#lingering);
    this.#lingering = undefined;
  }

  #info(): LinkInfo {
    const { local, remote, peerCertificate } = this.#connection;
    return {
      protocol: QUIC_SCHEME,
      localAddress: formatAddress(QUIC_SCHEME, local.host, local.port),
      remoteAddress: formatAddress(QUIC_SCHEME, remote.host, remote.port),
      remoteHost: remote.host,
      encrypted: true,
      peerCertificate: this.#host.showCertificate ? peerCertificate : undefined,
      proofNeeded: true,
    };
  }
}
