/**
 * One WebTransport session on an HTTP/3 connection of its own: to whoever uses it a connection of
 * QUIC, whose streams are those of the session.
 *
 * @module
 */

import { TransportError } from "../errors.ts";
import {
  CONTROL_STREAM,
  encodeControl,
  encodeSessionDatagram,
  encodeStreamHead,
  FrameReader,
  HEADERS_FRAME,
  type Http3Settings,
  QPACK_STREAMS,
  readNumber,
  readSessionDatagram,
  readSettings,
  readStreamHead,
  sessionDatagramHead,
  SETTINGS_FRAME,
} from "../protocol/http3.ts";
import {
  encodeAnswer,
  encodeConnect,
  judgeAnswer,
  judgeConnect,
} from "../protocol/webtransport_handshake.ts";
import {
  abortable,
  type QuicConnection,
  type QuicEvents,
  type QuicServer,
  type QuicServerEvents,
  type QuicSockets,
  type QuicStream,
} from "../runtime/quic.ts";
import { BegunStream, joined } from "./quic_substream.ts";

/** What a dialer asks for. */
export interface SessionTarget {
  /** The address, for errors. */
  readonly url: string;
  /** Host and port as in a URL. */
  readonly authority: string;
  /** From its slash on. */
  readonly path: string;
}

/** What a listener serves. */
export interface SessionRules {
  /** The path; others are not found. */
  readonly path: string;
  /** The origins whose pages may come in. */
  readonly origins: ReadonlySet<string>;
}

/** The longest head of a stream: two numbers. */
const MAX_HEAD_BYTES = 16;
/** How long a stream may take to say what it is. */
const HEAD_MS = 10_000;
/** How long the answer to a request that is refused may take to leave. */
const LINGER_MS = 500;
/** Requests under way at a time; there is to be one. */
const MAX_REQUESTS = 4;
/** Streams that may overtake the request that they belong to. */
const MAX_EARLY_STREAMS = 16;
/** What may come on a stream that would fill a dynamic table, and fills none. */
const MAX_QPACK_BYTES = 4096;
const NO_BYTES: Uint8Array = new Uint8Array(0);

/** Makes sessions of the connections that others dial and accept. */
export function sessionSockets(
  sockets: QuicSockets,
  target: SessionTarget,
  rules: SessionRules,
): QuicSockets {
  return {
    connect: async (remote, name, tls, times, signal) => {
      const connection = await sockets.connect(remote, name, tls, times, signal);
      return await WebTransportSession.dial(connection, target, signal);
    },
    listen: async (local, tls, times, timeoutMs, events) => {
      const wrap = (events: QuicServerEvents) => acceptingSessions(events, rules, timeoutMs);
      return new SessionServer(
        await sockets.listen(local, tls, times, timeoutMs, wrap(events)),
        wrap,
      );
    },
  };
}

class SessionServer implements QuicServer {
  readonly #server: QuicServer;
  readonly #wrap: (events: QuicServerEvents) => QuicServerEvents;

  constructor(server: QuicServer, wrap: (events: QuicServerEvents) => QuicServerEvents) {
    this.#server = server;
    this.#wrap = wrap;
  }

  get bound(): QuicServer["bound"] {
    return this.#server.bound;
  }

  stop(): void {
    this.#server.stop();
  }

  restart(tls: Parameters<QuicServer["restart"]>[0], events: QuicServerEvents): boolean {
    return this.#server.restart(tls, this.#wrap(events));
  }

  free(): Promise<void> {
    return this.#server.free();
  }
}

function acceptingSessions(
  events: QuicServerEvents,
  rules: SessionRules,
  timeoutMs: number,
): QuicServerEvents {
  return {
    mayBegin: () => events.mayBegin(),
    onConnection: (connection) => {
      WebTransportSession.accept(connection, rules, timeoutMs).then(
        (session) => events.onConnection(session),
        (cause) => events.onError(cause, connection.remote.host),
      );
    },
    onError: (cause, remoteHost) => events.onError(cause, remoteHost),
  };
}

/** A session, and the connection that nobody else uses. */
export class WebTransportSession implements QuicConnection, QuicEvents {
  readonly #connection: QuicConnection;
  /** What the listener serves; undefined: we dialed. */
  readonly #rules: SessionRules | undefined;
  #events: QuicEvents | undefined;
  /** Streams that came before anybody could be told, by their sessions. */
  #early: { readonly session: number; readonly stream: QuicStream }[] = [];
  /** The number of its CONNECT stream, once it stands. */
  #id: number | undefined;
  #settings: Http3Settings | undefined;
  #hasControl = false;
  #requests = 0;
  /** Why a request was refused, which says more than that the connection is gone. */
  #refusal: WrongBytes | undefined;
  #lingering: ReturnType<typeof setTimeout> | undefined;
  #closed: { readonly reason: unknown } | undefined;
  /** Held for as long as the session is: the runtime ends streams that nobody holds. */
  readonly #held: QuicStream[] = [];
  readonly #settled = deferred<Http3Settings>();
  readonly #established = deferred<void>();

  private constructor(connection: QuicConnection, rules: SessionRules | undefined) {
    this.#connection = connection;
    this.#rules = rules;
    connection.open(this);
  }

  /**
   * Asks the listener of a connection for a session. Owns the connection.
   *
   * @throws {TransportError} `HandshakeFailed`; or `signal.reason`, or why the connection broke
   */
  static async dial(
    connection: QuicConnection,
    target: SessionTarget,
    signal: AbortSignal,
  ): Promise<WebTransportSession> {
    const session = new WebTransportSession(connection, undefined);
    try {
      await abortable(session.#connect(target), signal, () => {});
      return session;
    } catch (error) {
      connection.close();
      throw wrongBytes(`connect to ${target.url}`, error);
    }
  }

  /**
   * Waits for the request of the dialer of a connection. Owns the connection.
   *
   * @throws {TransportError} `HandshakeFailed` or `Timeout`; or why the connection broke
   */
  static async accept(
    connection: QuicConnection,
    rules: SessionRules,
    timeoutMs: number,
  ): Promise<WebTransportSession> {
    const action = `accept a connection from ${connection.remote.host}`;
    const session = new WebTransportSession(connection, rules);
    const late = new AbortController();
    const timer = setTimeout(() => {
      const why = `the request for WebTransport took longer than ${timeoutMs} ms`;
      late.abort(new TransportError("Timeout", `Cannot ${action}: ${why}`));
    }, timeoutMs);
    try {
      await abortable(session.#serve(), late.signal, () => {});
      return session;
    } catch (error) {
      connection.close();
      throw wrongBytes(action, error);
    } finally {
      clearTimeout(timer);
    }
  }

  get local(): QuicConnection["local"] {
    return this.#connection.local;
  }

  get remote(): QuicConnection["remote"] {
    return this.#connection.remote;
  }

  get peerCertificate(): Uint8Array | undefined {
    return this.#connection.peerCertificate;
  }

  /** Starts the flow of events; streams from before are kept. */
  open(events: QuicEvents): void {
    this.#events = events;
    const early = this.#early;
    this.#early = [];
    for (const { session, stream } of early) this.#deliver(session, stream);
    const closed = this.#closed;
    if (closed !== undefined) queueMicrotask(() => events.onClose(closed.reason));
  }

  /** Opens a stream of the session. */
  async openStream(): Promise<QuicStream> {
    const stream = await this.#connection.openStream();
    await stream.write(encodeStreamHead(this.#id ?? 0));
    return stream;
  }

  /** The longest datagram that fits at the moment; 0 where the other side has none. */
  get maxDatagramBytes(): number {
    if (this.#id === undefined || this.#settings?.datagrams !== true) return 0;
    return Math.max(0, this.#connection.maxDatagramBytes - sessionDatagramHead(this.#id));
  }

  /** Sends a datagram of the session; false: it was not taken. */
  sendDatagram(bytes: Uint8Array): boolean {
    if (this.#id === undefined || this.#settings?.datagrams !== true) return false;
    return this.#connection.sendDatagram(encodeSessionDatagram(this.#id, bytes));
  }

  /** Closes the session with its connection. */
  close(): void {
    this.#connection.close();
  }

  /** @ignore */
  onStream(stream: QuicStream): void {
    this.#begin(stream).catch(() => stream.reset());
  }

  /** @ignore */
  onUniStream(stream: QuicStream): void {
    this.#readUni(stream).catch((error) => {
      this.#settled.reject(error);
      this.#established.reject(error);
      this.close();
    });
  }

  /** @ignore */
  onDatagram(bytes: Uint8Array): void {
    if (this.#id === undefined) return;
    const own = readSessionDatagram(this.#id, bytes);
    if (own !== undefined) this.#events?.onDatagram(own);
  }

  /** @ignore */
  onClose(reason: unknown): void {
    this.#closed = { reason };
    const error = reason ?? new Error("the connection was closed");
    clearTimeout(this.#lingering);
    this.#settled.reject(error);
    this.#established.reject(this.#refusal ?? error);
    for (const { stream } of this.#early) stream.reset();
    this.#early = [];
    this.#events?.onClose(reason);
  }

  async #connect({ authority, path }: SessionTarget): Promise<void> {
    await this.#sendSettings();
    const { connectProtocol, webTransport } = await this.#settled.promise;
    if (!connectProtocol || !webTransport) {
      throw new WrongBytes("the listener has HTTP/3, but no WebTransport");
    }
    const stream = await this.#connection.openStream();
    await stream.write(encodeConnect(authority, path));
    const status = judgeAnswer(await readHeaders(stream, NO_BYTES));
    if (status !== undefined) throw new WrongBytes(`the listener answered with status ${status}`);
    this.#establish(stream);
  }

  async #serve(): Promise<void> {
    await this.#sendSettings();
    await this.#established.promise;
  }

  async #sendSettings(): Promise<void> {
    const control = await this.#connection.openUniStream?.();
    if (control === undefined) throw new Error("the connection has no unidirectional streams");
    this.#held.push(control);
    await control.write(encodeControl());
  }

  /** The session stands until its CONNECT stream ends. */
  #establish(stream: QuicStream): void {
    this.#id = stream.id;
    this.#held.push(stream);
    this.#established.resolve();
    readToEnd(stream, Infinity).then(() => this.close(), () => this.close());
  }

  /** Finds out whether a stream is one of the session, or a request. */
  async #begin(stream: QuicStream): Promise<void> {
    const late = setTimeout(() => stream.reset(), HEAD_MS);
    try {
      let bytes = NO_BYTES;
      while (true) {
        const chunk = await readChunk(stream);
        if (chunk === undefined) throw new WrongBytes("a stream ended before it was anything");
        bytes = joined([bytes, chunk]);
        const head = readStreamHead(bytes);
        if (head !== undefined) {
          const rest = bytes.subarray(head.end);
          if (head.session === undefined) return await this.#onRequest(stream, rest);
          return this.#deliver(head.session, new BegunStream(stream, rest));
        }
        if (bytes.length >= MAX_HEAD_BYTES) throw new WrongBytes("a stream is none of HTTP/3");
      }
    } finally {
      clearTimeout(late);
    }
  }

  #deliver(session: number, stream: QuicStream): void {
    if (this.#closed !== undefined) return stream.reset();
    if (this.#id !== undefined && session !== this.#id) return stream.reset();
    if (this.#id !== undefined && this.#events !== undefined) return this.#events.onStream(stream);
    if (this.#early.length >= MAX_EARLY_STREAMS) return stream.reset();
    this.#early.push({ session, stream });
  }

  async #onRequest(stream: QuicStream, begun: Uint8Array): Promise<void> {
    const rules = this.#rules;
    if (rules === undefined || this.#requests >= MAX_REQUESTS) return stream.reset();
    this.#requests++;
    try {
      const section = await readHeaders(stream, begun);
      await this.#settled.promise;
      const refusal = judgeConnect(section, rules.path, rules.origins);
      // One session for a connection.
      if (this.#id !== undefined) return stream.reset();
      if (refusal === undefined) {
        // Before the answer: the dialer's streams come right behind it.
        this.#establish(stream);
        await stream.write(encodeAnswer(200));
      } else {
        await stream.write(encodeAnswer(refusal.status));
        stream.end();
        const error = this.#refusal ??= new WrongBytes(refusal.why);
        clearTimeout(this.#lingering);
        this.#lingering = setTimeout(() => this.#established.reject(error), LINGER_MS);
      }
    } catch (error) {
      stream.reset();
      this.#established.reject(error);
    } finally {
      this.#requests--;
    }
  }

  /** Throws where the connection can't go on. */
  async #readUni(stream: QuicStream): Promise<void> {
    let bytes = NO_BYTES;
    let type = readNumber(bytes, 0);
    while (type === undefined) {
      // One that is reset before it is anything is no loss.
      const chunk = await readChunk(stream).catch(() => undefined);
      if (chunk === undefined) return;
      bytes = joined([bytes, chunk]);
      type = readNumber(bytes, 0);
    }
    const rest = bytes.subarray(type.end);
    if (type.value === CONTROL_STREAM) await this.#readControl(stream, rest);
    else if (QPACK_STREAMS.has(type.value)) {
      await readToEnd(stream, MAX_QPACK_BYTES - rest.length);
    } else {
      // What is of a session, pushed, or unknown is of no use.
      stream.reset();
    }
  }

  async #readControl(stream: QuicStream, begun: Uint8Array): Promise<void> {
    if (this.#hasControl) throw new WrongBytes("there are two control streams");
    this.#hasControl = true;
    const frames = new FrameReader(SETTINGS_FRAME);
    let chunk: Uint8Array | undefined = begun;
    while (chunk !== undefined) {
      const payload = frames.take(chunk);
      if (frames.count > (payload === undefined ? 0 : 1)) {
        throw new WrongBytes("the settings do not come first");
      }
      if (payload !== undefined) {
        this.#settings = readSettings(payload);
        this.#settled.resolve(this.#settings);
        await readToEnd(stream, Infinity);
        break;
      }
      chunk = await readChunk(stream);
    }
    throw new WrongBytes("the control stream ended");
  }
}

/** What came is not what may come: told as a failed handshake. */
class WrongBytes extends Error {}

/** Errors of ours from the bytes of the other side become errors of the handshake. */
function wrongBytes(action: string, error: unknown): unknown {
  const wrong = error instanceof WrongBytes ||
    (error instanceof TransportError && error.code === "InvalidFrame");
  if (!wrong) return error;
  return new TransportError("HandshakeFailed", `Cannot ${action}: ${error.message}`, {
    cause: error,
    recovery: "check the address with its path, and what runs there",
  });
}

/** The fields of the next request or answer on a stream. */
async function readHeaders(stream: QuicStream, begun: Uint8Array): Promise<Uint8Array> {
  const frames = new FrameReader(HEADERS_FRAME);
  let chunk: Uint8Array | undefined = begun;
  while (chunk !== undefined) {
    const section = frames.take(chunk);
    if (section !== undefined) return section;
    chunk = await readChunk(stream);
  }
  throw new WrongBytes("a stream ended before its headers");
}

/** Drops what comes until the end; no more than so many bytes. */
async function readToEnd(stream: QuicStream, maxBytes: number): Promise<void> {
  let bytes = 0;
  while (bytes <= maxBytes) {
    const chunk = await readChunk(stream);
    if (chunk === undefined) return;
    bytes += chunk.length;
  }
  throw new WrongBytes("a stream is longer than it may be");
}

async function readChunk(stream: QuicStream): Promise<Uint8Array | undefined> {
  const chunks = await stream.read();
  return chunks === undefined ? undefined : joined(chunks);
}

/** A promise that may reject with nobody there. */
interface Deferred<T> {
  readonly promise: Promise<T>;
  resolve(value: T): void;
  reject(error: unknown): void;
}

function deferred<T>(): Deferred<T> {
  const made = Promise.withResolvers<T>();
  made.promise.catch(() => {});
  return made;
}
