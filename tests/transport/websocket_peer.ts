/** Raw sockets that speak HTTP and WebSocket by hand, for tests of those who speak it right. */

import * as net from "node:net";

/** What every upgrade request of the tests has, without its last lines. */
const REQUEST = "GET /hawser HTTP/1.1\r\nHost: node1\r\nUpgrade: websocket\r\n" +
  "Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n" +
  "Sec-WebSocket-Version: 13\r\n";
/** A request without a subprotocol. */
export const NO_PROTOCOL: string = `${REQUEST}\r\n`;
/** A good request for `/hawser`. */
export const UPGRADE: string = `${REQUEST}Sec-WebSocket-Protocol: hawser.v1\r\n\r\n`;
/** The answer to the key of `UPGRADE`, by RFC 6455, section 1.3. */
export const ACCEPTED: string = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n" +
  "Connection: Upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n" +
  "Sec-WebSocket-Protocol: hawser.v1\r\n\r\n";

/** Bytes from hexadecimal digits, between which there may be spaces. */
export function unhex(text: string): Uint8Array {
  return Uint8Array.from(text.replaceAll(" ", "").match(/../g) ?? [], (two) => parseInt(two, 16));
}

/** Hexadecimal digits of bytes. */
export function hex(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** A socket, and what it has received. */
export class RawPeer {
  readonly socket: net.Socket;
  #received: number[] = [];
  #closed = false;
  #watchers: (() => void)[] = [];

  constructor(socket: net.Socket) {
    this.socket = socket;
    socket.on("error", () => {});
    socket.on("data", (chunk) => {
      this.#received.push(...chunk);
      this.#look();
    });
    socket.on("close", () => {
      this.#closed = true;
      this.#look();
    });
  }

  /** Connects to the port of a URL. */
  static async connect(url: string, sent: string): Promise<RawPeer> {
    const socket = net.connect({ port: Number(new URL(url).port), host: "127.0.0.1" });
    const peer = new RawPeer(socket);
    await new Promise<void>((resolve) => socket.once("connect", () => resolve()));
    await peer.send(sent);
    return peer;
  }

  /** Sends text, or the bytes of hexadecimal digits. */
  send(text: string, as: "text" | "hex" = "text"): Promise<void> {
    const bytes = as === "hex" ? unhex(text) : Uint8Array.from(text, (c) => c.charCodeAt(0));
    return new Promise((resolve) => this.socket.write(bytes, () => resolve()));
  }

  /** What has come and was not taken, as text. */
  get text(): string {
    return String.fromCharCode(...this.#received);
  }

  /** Takes a head of HTTP. */
  async head(): Promise<string> {
    await this.until(() => this.text.includes("\r\n\r\n"));
    const end = this.text.indexOf("\r\n\r\n") + 4;
    return String.fromCharCode(...this.#received.splice(0, end));
  }

  /** Takes `count` bytes, in hexadecimal digits. */
  async take(count: number): Promise<string> {
    await this.until(() => this.#received.length >= count);
    return hex(Uint8Array.from(this.#received.splice(0, count)));
  }

  /** Resolves when the connection is gone. */
  async closed(): Promise<void> {
    await this.until(() => this.#closed);
  }

  /** Resolves when `done` holds. */
  until(done: () => boolean): Promise<void> {
    if (done()) return Promise.resolve();
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => reject(new Error(`got ${JSON.stringify(this.text)}`)), 10_000);
      const watch = () => {
        if (!done()) return void this.#watchers.push(watch);
        clearTimeout(timer);
        resolve();
      };
      this.#watchers.push(watch);
    });
  }

  #look(): void {
    for (const watch of this.#watchers.splice(0)) watch();
  }
}
