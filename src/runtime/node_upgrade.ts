/**
 * Connections that a `node:http` or `node:https` server has handed out to be upgraded. The same on
 * Deno, Bun and Node.
 *
 * @module
 */

import type { IncomingMessage } from "node:http";
import { Socket } from "node:net";
import type { Duplex } from "node:stream";
import type { Link, LinkInfo } from "../transport/transport.ts";
import { NodeLink } from "./node_link.ts";
import { configureSocket } from "./node_socket.ts";

export type { Duplex, IncomingMessage };

/** The headers of a request, by names in lower case. */
export function nodeHeaders({ headers }: IncomingMessage): { get(name: string): string } {
  return {
    get: (name) => {
      const value = headers[name];
      return Array.isArray(value) ? value.join(", ") : value ?? "";
    },
  };
}

/** Where a connection comes from; undefined where it is gone already, or is no socket. */
export function nodeRemote(stream: Duplex): { host: string; port: number } | undefined {
  if (!(stream instanceof Socket) || stream.remoteAddress === undefined) return undefined;
  return { host: stream.remoteAddress, port: stream.remotePort ?? 0 };
}

/** Makes a link of a connection. `onGone` is called once, when it is gone. */
export function upgradedLink(
  stream: Duplex,
  info: LinkInfo,
  keepaliveSecs: number | undefined,
  onGone: () => void,
): Link {
  const socket = stream as Socket;
  socket.once("close", onGone);
  socket.setTimeout(0);
  socket.allowHalfOpen = true;
  configureSocket(socket, keepaliveSecs);
  return new NodeLink(socket, info);
}

/** Sends an answer, and ends. */
export function refuseUpgrade(stream: Duplex, answer: Uint8Array): void {
  stream.on("error", () => {});
  stream.once("finish", () => stream.destroy());
  stream.end(answer);
}
