/** Sockets that write whatever they are told. */

import net from "node:net";
import tls from "node:tls";
import { join } from "./wire.ts";

/** Certificates a raw peer shows and trusts; the other side's certificate is never verified. */
export interface RawTls {
  cert?: string;
  key?: string;
  ca?: string;
}

/** Where to connect, and how. */
export interface RawTarget {
  port: number;
  /** Our own address: all of 127.0.0.0/8 is loopback. */
  localAddress?: string;
  tls?: RawTls;
  /** Do not finish because the other side did. */
  stubborn?: boolean;
}

/** One connection of an attacker. */
export class RawPeer {
  /** Whether it was ever connected (with TLS: whether the runtime believed so). */
  connected = false;
  /** Resolves when the other side has finished sending or has cut the connection. */
  readonly gone: Promise<void>;
  readonly #socket: net.Socket;
  readonly #frames: Uint8Array[] = [];
  #unread: Uint8Array = new Uint8Array(0);
  #waiting: (() => void) | undefined;
  #over = false;

  constructor(socket: net.Socket) {
    this.#socket = socket;
    this.gone = new Promise((resolve) => {
      const over = () => {
        this.#over = true;
        resolve();
        this.#waiting?.();
      };
      socket.on("end", over);
      socket.on("close", over);
    });
    socket.on("error", () => {});
    socket.on("data", (chunk: Uint8Array) => this.#read(chunk));
    socket.setNoDelay(true);
  }

  /** Connects; also resolves where that fails, with `connected` false. */
  static connect(target: RawTarget): Promise<RawPeer> {
    return new Promise((resolve) => {
      const peer: RawPeer = new RawPeer(open(target, () => {
        peer.connected = true;
        resolve(peer);
      }));
      peer.gone.then(() => resolve(peer));
    });
  }

  /** Sends bytes; resolves when they have left the process. */
  write(...parts: readonly Uint8Array[]): Promise<void> {
    return new Promise((resolve) => this.#socket.write(join(...parts), () => resolve()));
  }

  /** Finishes sending (FIN); still reads. */
  end(): void {
    this.#socket.end();
  }

  /** Cuts the connection (RST). */
  reset(): void {
    this.#socket.resetAndDestroy();
  }

  /** Closes for good; what was not read is lost. */
  close(): void {
    this.#socket.destroy();
  }

  /** Reads nothing more. */
  stopReading(): void {
    this.#socket.pause();
  }

  /** The body of the next frame; undefined when the other side has gone without one. */
  async nextFrame(): Promise<Uint8Array | undefined> {
    while (this.#frames.length === 0 && !this.#over) {
      await new Promise<void>((resolve) => this.#waiting = resolve);
    }
    return this.#frames.shift();
  }

  /** The next frame as JSON, `{}` where none came. */
  async answer(): Promise<Record<string, unknown>> {
    const body = await this.nextFrame();
    return body === undefined ? {} : JSON.parse(new TextDecoder().decode(body));
  }

  #read(chunk: Uint8Array): void {
    const unread = join(this.#unread, chunk);
    const view = new DataView(unread.buffer);
    let at = 0;
    while (at + 4 <= unread.length) {
      const end = at + 4 + view.getUint32(at);
      if (unread.length < end) break;
      this.#frames.push(unread.slice(at + 4, end));
      at = end;
    }
    this.#unread = unread.subarray(at);
    this.#waiting?.();
  }
}

/** Accepts connections and leaves each to a script. */
export class RawListener {
  readonly port: number;
  readonly peers: RawPeer[] = [];
  readonly #server: net.Server;

  private constructor(server: net.Server) {
    this.#server = server;
    this.port = (server.address() as net.AddressInfo).port;
  }

  /** Listens on a free port of 127.0.0.1. */
  static listen(script: (peer: RawPeer) => unknown, material?: RawTls): Promise<RawListener> {
    return new Promise((resolve) => {
      const accept = (socket: net.Socket) => {
        const peer = new RawPeer(socket);
        peer.connected = true;
        listener.peers.push(peer);
        script(peer);
      };
      const server = material === undefined
        ? net.createServer({ allowHalfOpen: true }, accept)
        : tls.createServer(serverTls(material), accept);
      server.on("tlsClientError", () => {});
      let listener: RawListener;
      server.listen(0, "127.0.0.1", () => {
        listener = new RawListener(server);
        resolve(listener);
      });
    });
  }

  /** Where an endpoint would dial it. */
  get address(): string {
    return `tcp://127.0.0.1:${this.port}`;
  }

  /** Stops listening and cuts what it accepted. */
  close(): void {
    this.#server.close();
    for (const peer of this.peers) peer.close();
  }
}

function open(target: RawTarget, onConnected: () => void): net.Socket {
  const { port, localAddress, tls: material, stubborn = false } = target;
  const to = { host: "127.0.0.1", port, allowHalfOpen: stubborn };
  if (material === undefined) {
    const from = localAddress === undefined ? {} : { localAddress };
    return net.connect({ ...to, ...from }, onConnected);
  }
  return tls.connect({
    ...to,
    ...material,
    ALPNProtocols: ["hawser/1"],
    minVersion: "TLSv1.3",
    rejectUnauthorized: false,
    checkServerIdentity: () => undefined,
  }, onConnected);
}

function serverTls(material: RawTls): tls.TlsOptions & { allowHalfOpen: boolean } {
  return {
    ...material,
    allowHalfOpen: true,
    ALPNProtocols: ["hawser/1"],
    minVersion: "TLSv1.3",
    requestCert: true,
    rejectUnauthorized: false,
  };
}
