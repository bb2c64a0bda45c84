/**
 * QUIC whose streams show themselves as soon as they are opened, and are answered once they are
 * accepted: a byte in each direction. By itself a stream is seen at the other side only when
 * something was written, which the handshake of endpoints does at once and the tests do not.
 */

import type {
  QuicConnection,
  QuicEvents,
  QuicServer,
  QuicServerEvents,
  QuicSockets,
  QuicStream,
} from "../../src/runtime/quic.ts";

const BYTE = Uint8Array.of(0xa5);

/** Wraps the sockets of a runtime. */
export function announcing(sockets: QuicSockets): QuicSockets {
  return {
    connect: async (...args) => announced(await sockets.connect(...args)),
    listen: async (local, tls, times, handshakeTimeoutMs, events) =>
      new AnnouncedServer(
        await sockets.listen(local, tls, times, handshakeTimeoutMs, announcedEvents(events)),
      ),
  };
}

class AnnouncedServer implements QuicServer {
  readonly #server: QuicServer;

  constructor(server: QuicServer) {
    this.#server = server;
  }

  get bound(): QuicServer["bound"] {
    return this.#server.bound;
  }

  stop(): void {
    this.#server.stop();
  }

  restart(tls: Parameters<QuicServer["restart"]>[0], events: QuicServerEvents): boolean {
    return this.#server.restart(tls, announcedEvents(events));
  }

  free(): Promise<void> {
    return this.#server.free();
  }
}

function announcedEvents(events: QuicServerEvents): QuicServerEvents {
  return {
    mayBegin: () => events.mayBegin(),
    onConnection: (connection) => events.onConnection(announced(connection)),
    onError: (cause, remoteHost) => events.onError(cause, remoteHost),
  };
}

function announced(connection: QuicConnection): QuicConnection {
  return {
    local: connection.local,
    remote: connection.remote,
    peerCertificate: connection.peerCertificate,
    get maxDatagramBytes() {
      return connection.maxDatagramBytes;
    },
    open: (events) => connection.open(announcedConnection(events)),
    openStream: async () => {
      const stream = new RestOfStream(await connection.openStream());
      await stream.write(BYTE);
      await stream.skip();
      return stream;
    },
    sendDatagram: (bytes) => connection.sendDatagram(bytes),
    close: () => connection.close(),
  };
}

function announcedConnection(events: QuicEvents): QuicEvents {
  return {
    onStream: async (inner) => {
      const stream = new RestOfStream(inner);
      try {
        await stream.skip();
        events.onStream(stream);
        // It is read first: what is refused is refused in this turn.
        await new Promise((resolve) => setImmediate(resolve));
        if (!stream.wasReset) await inner.write(BYTE);
      } catch {
        stream.reset();
      }
    },
    onDatagram: (bytes) => events.onDatagram(bytes),
    onClose: (reason) => events.onClose(reason),
  };
}

/** A stream without its first byte. */
class RestOfStream implements QuicStream {
  readonly #stream: QuicStream;
  #rest: readonly Uint8Array[] | undefined;
  wasReset = false;

  constructor(stream: QuicStream) {
    this.#stream = stream;
  }

  get onBroken(): ((cause: unknown) => void) | undefined {
    return this.#stream.onBroken;
  }

  set onBroken(call: ((cause: unknown) => void) | undefined) {
    this.#stream.onBroken = call;
  }

  get id(): number {
    return this.#stream.id;
  }

  async skip(): Promise<void> {
    const chunks = await this.#stream.read();
    if (chunks === undefined) throw new Error("the stream ended before its first byte");
    this.#rest = [chunks[0]!.slice(1), ...chunks.slice(1)];
  }

  read(): Promise<readonly Uint8Array[] | undefined> {
    const rest = this.#rest;
    if (rest === undefined) return this.#stream.read();
    // The first time also where nothing is left: a stream is known by its first read.
    this.#rest = undefined;
    return Promise.resolve(rest);
  }

  write(chunk: Uint8Array): Promise<void> | undefined {
    return this.#stream.write(chunk);
  }

  end(): void {
    this.#stream.end();
  }

  reset(): void {
    this.wasReset = true;
    this.#stream.reset();
  }
}
