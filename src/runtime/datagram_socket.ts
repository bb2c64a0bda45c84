/**
 * UDP sockets with `node:dgram`, which all three runtimes have (`Deno.listenDatagram` needs a flag).
 *
 * @module
 */

import * as dgram from "node:dgram";
import { lookup } from "node:dns/promises";
import { isIP } from "node:net";
import type { BindOptions, DatagramSocket } from "../transport/transport.ts";
import { normalizeHost } from "./link_info.ts";
import { connectionFailed } from "./socket_errors.ts";
import type { SocketAddress } from "./sockets.ts";

/** What the kernel is asked to keep while this process does something else. */
const RECEIVE_BUFFER_BYTES = 1_048_576;
/** A packet whose buffer is this many times as long is copied, so as not to keep that alive. */
const MAX_SLACK = 2;

/** The address of a host name, numeric; what is numeric stays. */
export async function resolveHost(host: string): Promise<string> {
  if (isIP(host) !== 0) return host;
  try {
    return (await lookup(host)).address;
  } catch (cause) {
    throw connectionFailed(`find the address of ${host}`, cause);
  }
}

/** Binds a socket; `address.host` is numeric. Rejects with `ConnectionFailed`. */
export async function bindDatagrams(
  address: SocketAddress,
  options: BindOptions,
): Promise<DatagramSocket> {
  const { host, port } = address;
  const action = `listen on ${address.formatUrl(host, port)}`;
  const type = isIP(host) === 6 ? "udp6" : "udp4";
  const socket = dgram.createSocket({ type, ipv6Only: type === "udp6", lookup: noLookup });
  await new Promise<void>((resolve, reject) => {
    const onError = (cause: unknown) => {
      closeQuietly(socket);
      reject(connectionFailed(action, cause));
    };
    socket.once("error", onError);
    socket.bind({ address: host, port }, () => {
      socket.off("error", onError);
      resolve();
    });
  });
  enlargeBuffer(socket);
  return new NodeDatagramSocket(socket, address, options);
}

/**
 * Not on Deno: from then on it allocates a buffer of that size for each packet (a round trip over
 * loopback took 1.2 ms with it, and 0.05 ms without).
 */
function enlargeBuffer(socket: dgram.Socket): void {
  if ("Deno" in globalThis) return;
  try {
    socket.setRecvBufferSize(RECEIVE_BUFFER_BYTES);
  } catch {
    // It works with the buffer that there is.
  }
}

/** Hosts are numeric by now; asking for them costs a turn of the event loop for each packet. */
function noLookup(
  host: string,
  _: unknown,
  found: (error: null, address: string, family: number) => void,
): void {
  found(null, host, isIP(host));
}

class NodeDatagramSocket implements DatagramSocket {
  readonly address: string;
  readonly #socket: dgram.Socket;
  readonly #options: BindOptions;
  #queued = 0;
  #queuedBytes = 0;
  #wasFull = false;
  #closed: Promise<void> | undefined;
  #close: (() => void) | undefined;

  constructor(socket: dgram.Socket, address: SocketAddress, options: BindOptions) {
    this.#socket = socket;
    this.#options = options;
    const bound = socket.address();
    this.address = address.formatUrl(normalizeHost(bound.address), bound.port);
    socket.on("message", (message, from) => {
      if (this.#closed !== undefined) return;
      const url = address.formatUrl(normalizeHost(from.address), from.port);
      options.onPacket(bytesOf(message), url);
    });
    socket.on("error", (cause) => this.#failed(cause));
  }

  send(packet: Uint8Array, to: string): boolean {
    const { maxQueued, maxQueuedBytes } = this.#options;
    if (this.#closed !== undefined) return false;
    const tooMany = this.#queued >= maxQueued || this.#queuedBytes + packet.length > maxQueuedBytes;
    if (tooMany && this.#queued > 0) {
      this.#wasFull = true;
      return false;
    }
    const { host, port } = splitUrl(to);
    this.#queued++;
    this.#queuedBytes += packet.length;
    try {
      this.#socket.send(packet, port, host, (error) => this.#sent(packet.length, error));
    } catch (error) {
      this.#sent(packet.length, error);
    }
    return true;
  }

  close(): Promise<void> {
    this.#closed ??= new Promise((resolve) => {
      this.#close = () => {
        try {
          this.#socket.close(() => resolve());
        } catch {
          resolve();
        }
      };
      // What was sent before may not have left yet.
      if (this.#queued === 0) this.#close();
    });
    return this.#closed;
  }

  #sent(bytes: number, error: unknown): void {
    this.#queued--;
    this.#queuedBytes -= bytes;
    if (error !== null && error !== undefined) this.#failed(error);
    if (this.#queued === 0) this.#close?.();
    if (!this.#wasFull || this.#queued * 2 > this.#options.maxQueued) return;
    this.#wasFull = false;
    if (this.#closed === undefined) this.#options.onDrain();
  }

  #failed(cause: unknown): void {
    if (this.#closed === undefined) {
      this.#options.onError(connectionFailed(`send from ${this.address}`, cause));
    }
  }
}

/** The packet as plain bytes. Deno gives each of them a buffer of 64 KiB. */
function bytesOf(message: Uint8Array): Uint8Array {
  const { buffer, byteOffset, length } = message;
  if (buffer.byteLength > length * MAX_SLACK) return new Uint8Array(message);
  return new Uint8Array(buffer, byteOffset, length);
}

/** Host and port of a URL that a socket or `resolveHost` gave. */
function splitUrl(url: string): { host: string; port: number } {
  const portStart = url.lastIndexOf(":");
  const host = url.slice(url.indexOf("://") + 3, portStart);
  return {
    host: host.startsWith("[") ? host.slice(1, -1) : host,
    port: Number(url.slice(portStart + 1)),
  };
}

function closeQuietly(socket: dgram.Socket): void {
  try {
    socket.close();
  } catch {
    // It was never open.
  }
}
