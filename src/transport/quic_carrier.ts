/**
 * One QUIC connection and the links on its streams.
 *
 * @module
 */

import type { TransportError } from "../errors.ts";
import { systemEnvironment } from "../runtime/environment.ts";
import type { QuicConnection, QuicEvents, QuicStream } from "../runtime/quic.ts";
import { quicLinkFailed } from "../runtime/quic_errors.ts";
import { QuicLink, type QuicLinkHost } from "../runtime/quic_link.ts";
import { readVarint } from "../runtime/quic_varint.ts";
import { type Address, formatAddress } from "./address.ts";
import {
  encodePath,
  PATH_NUMBER,
  PATH_TOKEN_BYTES,
  type PathDatagram,
  PathWatch,
  readPath,
} from "./quic_path.ts";
import { encodeHead, OpeningStream, readHead } from "./quic_substream.ts";
import type { Link, LinkInfo } from "./transport.ts";

/** The scheme of QUIC addresses. */
export const QUIC_SCHEME = "quic";
/** Links that we open in one connection before another one is dialed. */
const MAX_LINKS = 32;
const NO_TOKEN = new Uint8Array(0);

/** Who looks after a connection. */
export interface CarrierHost {
  /** Milliseconds for which the connection stays when its last link has ended. */
  readonly lingerMs: number;
  /** Sub-streams that may be open at a time of those that we open. */
  readonly maxSubstreams: number;
  /** What its addresses look like; undefined: those of QUIC. */
  readonly served?: Pick<Address, "scheme" | "path">;
  /** Whether links say whose certificate the other side showed. */
  readonly showCertificate: boolean;
  /** The other side opened a stream. */
  onStream(carrier: Carrier, stream: QuicStream): void;
  /** The connection is gone. */
  onGone(carrier: Carrier): void;
  /**
   * Links of ours get no sign of life; undefined where that is no matter of ours. What is returned is
   * called as soon as that is over.
   */
  readonly onSilent?: (carrier: Carrier) => () => void;
  /** The dialer of this connection has given up another one, which it names. */
  onAbandoned?(token: Uint8Array): void;
}

/** Shares a connection among links, and closes it when the last one has ended. */
export class Carrier implements QuicEvents, QuicLinkHost {
  readonly #connection: QuicConnection;
  readonly #host: CarrierHost;
  readonly #links = new Set<QuicLink>();
  readonly #substreams = new Set<QuicLink>();
  #opened = 0;
  readonly #releases = new Map<QuicLink, () => void>();
  #opening = 0;
  #suspect = false;
  #closed = false;
  #used = false;
  #lingering: ReturnType<typeof setTimeout> | undefined;
  readonly #watch: PathWatch | undefined;
  /** How the dialer names this connection. */
  #token: Uint8Array | undefined;
  #stopReplacing: (() => void) | undefined;

  /** Takes over an established connection. */
  constructor(connection: QuicConnection, host: CarrierHost) {
    this.#connection = connection;
    this.#host = host;
    const { onSilent } = host;
    if (onSilent !== undefined) this.#token = systemEnvironment.randomBytes(PATH_TOKEN_BYTES);
    this.#watch = onSilent === undefined ? undefined : new PathWatch({
      ask: () => this.#sendPath("ask", this.#token),
      onSilent: () => {
        this.#endSilence();
        if (this.linkCount > 0) this.#stopReplacing = onSilent(this);
      },
    });
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

  /** How many streams of links it carries beside them. */
  get substreamCount(): number {
    return this.#substreams.size;
  }

  /**
   * Whether another link may be opened here. Not where one was given up since the other side was
   * last heard, nor where it does not answer: the connection may be dead, and QUIC notices that much
   * later.
   */
  get usable(): boolean {
    return !this.#closed && !this.#suspect && !this.silent && this.linkCount < MAX_LINKS;
  }

  /** Whether the other side answers no more. */
  get silent(): boolean {
    return this.#watch?.silent ?? false;
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

  /**
   * Gives up a connection on which nothing comes: its links are lost. The other side is told over the
   * new connection, since the old one may not even carry its own end.
   */
  abandon(by: Carrier): void {
    if (this.#closed) return;
    const error = this.failure(new Error("nothing comes any more, but a new connection was made"));
    by.#sendPath("abandoned", this.#token);
    for (const link of [...this.#links]) link.lose(error);
    for (const sub of [...this.#substreams]) sub.lose(error);
    this.close();
  }

  /** Whether the dialer names this connection so. */
  isNamed(token: Uint8Array): boolean {
    return this.#token !== undefined && this.#token.every((byte, index) => byte === token[index]);
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
    readHead(stream).then((begun) => {
      if (begun === undefined) return;
      if (begun.parent === undefined) this.#host.onStream(this, begun.stream);
      else this.#takeSubstream(begun.stream, begun.parent);
      this.#linger();
    });
  }

  /** @ignore */
  openSubstream(link: QuicLink): Link | undefined {
    const { streamId } = link;
    if (this.#closed || streamId < 0 || this.#opened >= this.#host.maxSubstreams) return undefined;
    this.#opened++;
    const opening = new OpeningStream(this.#connection.openStream(), encodeHead(streamId));
    return this.#addSubstream(opening, () => this.#opened--);
  }

  /** It comes after the handshake of its link: where that is not known, it is over. */
  #takeSubstream(stream: QuicStream, parent: number): void {
    for (const link of this.#closed ? [] : this.#links) {
      if (link.streamId !== parent) continue;
      const sub = this.#addSubstream(stream, () => {});
      if (!link.takeSubstream(sub)) sub.close();
      return;
    }
    stream.reset();
  }

  #addSubstream(stream: QuicStream, onGone: () => void): QuicLink {
    const sub: QuicLink = new QuicLink(stream, this.#info(), {
      maxDatagramBytes: 0,
      onBytes: () => this.onBytes(),
      onSent: () => this.onSent(),
      sendDatagram: () => false,
      openSubstream: () => undefined,
      failure: (cause) => this.failure(cause),
      onGone: () => {
        if (this.#substreams.delete(sub)) onGone();
      },
    });
    this.#substreams.add(sub);
    return sub;
  }

  /** @ignore */
  onDatagram(bytes: Uint8Array): void {
    const read = readVarint(bytes);
    if (read === undefined) return;
    this.onBytes();
    if (read.value === PATH_NUMBER) return this.#onPath(readPath(read.rest));
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
    this.#watch?.sent();
    return !this.#closed && this.#connection.sendDatagram(bytes);
  }

  /** @ignore */
  onClose(reason: unknown): void {
    this.#closed = true;
    this.#stay();
    this.#watch?.stop();
    this.#endSilence();
    const error = this.failure(reason ?? new Error("the connection was closed"));
    for (const link of [...this.#links]) link.lose(error);
    for (const sub of [...this.#substreams]) sub.lose(error);
    this.#host.onGone(this);
  }

  /** @ignore */
  onBytes(): void {
    this.#suspect = false;
    this.#watch?.heard();
    if (this.#stopReplacing !== undefined) this.#endSilence();
  }

  /** @ignore */
  onSent(): void {
    this.#watch?.sent();
  }

  /** @ignore */
  onGone(link: QuicLink, inOrder: boolean): void {
    this.#links.delete(link);
    if (!inOrder) this.#suspect = true;
    if (this.linkCount === 0) this.#endSilence();
    this.#linger();
    this.#releases.get(link)?.();
    this.#releases.delete(link);
  }

  /** @ignore */
  failure(cause: unknown): TransportError {
    return quicLinkFailed(this.#url(this.#connection.remote), cause);
  }

  #endSilence(): void {
    const stop = this.#stopReplacing;
    this.#stopReplacing = undefined;
    stop?.();
  }

  #onPath(said: PathDatagram | undefined): void {
    if (said?.kind === "answer") this.#watch?.answered();
    // Who watches has a name for the connection and is asked nothing.
    if (said === undefined || this.#watch !== undefined) return;
    if (said.kind === "abandoned") return this.#host.onAbandoned?.(said.token);
    this.#token = said.token;
    this.#sendPath("answer", NO_TOKEN);
  }

  #sendPath(kind: PathDatagram["kind"], token: Uint8Array = NO_TOKEN): void {
    if (!this.#closed) this.#connection.sendDatagram(encodePath({ kind, token }));
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

  #url({ host, port }: QuicConnection["local"]): string {
    const { scheme, path } = this.#host.served ?? { scheme: QUIC_SCHEME, path: "" };
    return formatAddress(scheme, host, port, path);
  }

  #info(): LinkInfo {
    const { local, remote, peerCertificate } = this.#connection;
    return {
      protocol: this.#host.served?.scheme ?? QUIC_SCHEME,
      localAddress: this.#url(local),
      remoteAddress: this.#url(remote),
      remoteHost: remote.host,
      encrypted: true,
      peerCertificate: this.#host.showCertificate ? peerCertificate : undefined,
      proofNeeded: true,
    };
  }
}
