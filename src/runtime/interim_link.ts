import net from "node:net";
import tls from "node:tls";
import { TransportError } from "../errors.ts";
import type {
  DialOptions,
  Link,
  LinkEvents,
  LinkInfo,
  Listener,
  ListenOptions,
} from "../transport/transport.ts";
import { formatAddress, parseAddress } from "../transport/address.ts";

class NodeLink implements Link {
  readonly info: LinkInfo;
  #socket: net.Socket;
  #events: LinkEvents | undefined;
  #closed = false;
  #error: TransportError | undefined;
  #lost = 0;
  #early: Uint8Array[] = [];
  #endedEarly = false;
  constructor(socket: net.Socket, info: LinkInfo) {
    this.info = info;
    this.#socket = socket;
    socket.on("error", (e) => {
      this.#error ??= new TransportError(
        "ConnectionClosed",
        "Cannot go on with the connection: " + e.message,
        { cause: e },
      );
    });
    socket.on("close", () => {
      this.#closed = true;
      const ev = this.#events;
      if (ev) queueMicrotask(() => ev.onClose(this.#error));
    });
    socket.pause();
  }
  get bufferedBytes() {
    return this.#socket.writableLength + this.#lost;
  }
  open(events: LinkEvents) {
    this.#events = events;
    if (this.#closed) {
      queueMicrotask(() => events.onClose(this.#error));
      return;
    }
    this.#socket.on("data", (d: Uint8Array) => events.onData(d));
    this.#socket.on("end", () => events.onEnd());
    this.#socket.resume();
  }
  #onWritten = () => {
    if (this.#socket.writableLength === 0 && !this.#closed) this.#events?.onDrain();
  };
  write(chunk: Uint8Array): boolean {
    if (this.#closed || !this.#socket.writable) {
      this.#lost += chunk.length;
      return false;
    }
    return this.#socket.write(chunk, this.#onWritten);
  }
  pause() {
    this.#socket.pause();
  }
  resume() {
    this.#socket.resume();
  }
  end() {
    this.#socket.end();
  }
  close() {
    this.#socket.destroy();
  }
}
const host = (h: string | undefined) => (h ?? "").replace(/^::ffff:/, "");
function info(s: net.Socket, encrypted: boolean): LinkInfo {
  const raw = encrypted ? (s as tls.TLSSocket).getPeerCertificate()?.raw : undefined;
  return {
    protocol: "tcp",
    localAddress: formatAddress("tcp", host(s.localAddress), s.localPort ?? 0),
    remoteAddress: formatAddress("tcp", host(s.remoteAddress), s.remotePort ?? 0),
    remoteHost: host(s.remoteAddress),
    encrypted,
    peerCertificate: raw && new Uint8Array(raw),
  };
}
export function nodeConnect(address: string, o: DialOptions): Promise<Link> {
  const { host: h, port } = parseAddress(address);
  return new Promise((resolve, reject) => {
    const s = o.tls
      ? tls.connect({
        host: h,
        port,
        ca: o.tls.ca,
        cert: o.tls.cert,
        key: o.tls.key,
        rejectUnauthorized: true,
        minVersion: "TLSv1.3",
        ALPNProtocols: ["hawser/1"],
        allowHalfOpen: true,
        servername: net.isIP(h) ? "" : h,
        ...(o.tls.verifyHostName ? {} : { checkServerIdentity: () => undefined }),
      } as tls.ConnectionOptions)
      : net.connect({ host: h, port, allowHalfOpen: true });
    const abort = () => {
      s.destroy();
      reject(o.signal.reason);
    };
    o.signal.addEventListener("abort", abort, { once: true });
    s.on(
      "error",
      (e) =>
        reject(
          new TransportError(
            o.tls && !/ECONN|ENOT|EAI/.test((e as { code?: string }).code ?? "")
              ? "HandshakeFailed"
              : "ConnectionFailed",
            `Cannot connect to ${address}: ${e.message}`,
            { cause: e },
          ),
        ),
    );
    s.on(
      "close",
      () => reject(new TransportError("ConnectionFailed", `Cannot connect to ${address}: closed`)),
    );
    s.once(o.tls ? "secureConnect" : "connect", () => {
      o.signal.removeEventListener("abort", abort);
      s.setNoDelay(true);
      resolve(new NodeLink(s, info(s, o.tls !== undefined)));
    });
  });
}
export async function nodeListen(address: string, o: ListenOptions): Promise<Listener> {
  const { host: h, port } = parseAddress(address);
  const accept = (s: net.Socket) => {
    s.setNoDelay(true);
    o.onLink(new NodeLink(s, info(s, o.tls !== undefined)));
  };
  const server = o.tls
    ? tls.createServer({
      ca: o.tls.ca,
      cert: o.tls.cert,
      key: o.tls.key,
      requestCert: o.tls.requireClientAuth,
      rejectUnauthorized: o.tls.requireClientAuth,
      minVersion: "TLSv1.3",
      ALPNProtocols: ["hawser/1"],
      allowHalfOpen: true,
      handshakeTimeout: o.handshakeTimeoutMs,
    } as tls.TlsOptions, accept)
    : net.createServer({ allowHalfOpen: true }, accept);
  server.on("connection", (s: net.Socket) => {
    const release = o.admit(host(s.remoteAddress));
    if (!release) return s.destroy();
    s.on("close", release);
  });
  server.on("tlsClientError", (e: Error, s: net.Socket) => {
    o.onError(
      new TransportError(
        /RETURN_A_CERT/.test((e as { code?: string }).code ?? "")
          ? "ClientCertificateRequired"
          : "HandshakeFailed",
        "Cannot accept the connection: " + e.message,
        { cause: e },
      ),
      host(s.remoteAddress),
    );
    s.destroy();
  });
  await new Promise<void>((res, rej) => {
    server.once(
      "error",
      (e) =>
        rej(
          new TransportError("ConnectionFailed", `Cannot listen on ${address}: ${e.message}`, {
            cause: e,
          }),
        ),
    );
    server.listen(port, h, () => res());
  });
  const a = server.address() as net.AddressInfo;
  return {
    address: formatAddress("tcp", a.address, a.port),
    close: () => new Promise((r) => server.close(() => r())),
  };
}
