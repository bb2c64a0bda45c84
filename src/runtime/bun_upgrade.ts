/**
 * WebSockets that `Bun.serve` has accepted. The types are the parts of Bun's own that are used here.
 *
 * @module
 */

import type { Link, LinkInfo } from "../transport/transport.ts";
import type { UpgradeEvents } from "./deno_upgrade.ts";
import type { NativeSocket } from "./native_websocket.ts";
import { NativeWebSocketLink } from "./native_websocket_link.ts";

/** The longest message that is taken: Bun gathers it before it shows any of it. */
const MAX_MESSAGE_BYTES = 1_048_576;

/** What is used of `ServerWebSocket`. */
export interface BunSocket {
  /** What `upgrade` was given. */
  readonly data: unknown;
  /** Sends a message. 0: it was dropped; below: it waits. */
  send(message: Uint8Array): number;
  /** How much of it has not left. */
  getBufferedAmount(): number;
  /** Sends a Close frame. */
  close(code?: number, reason?: string): void;
  /** Ends the connection. */
  terminate(): void;
  /** Stops reading. */
  pause?(): void;
  /** Reads on. */
  resume?(): void;
}

/** What is used of the server that `fetch` is given. */
export interface BunServer {
  /** Makes a WebSocket of a request. */
  upgrade(
    request: Request,
    // deno-lint-ignore no-explicit-any -- a program chooses the type of its own data
    options: { data: any; headers: Record<string, string> },
  ): boolean;
  /** Who sent it. */
  requestIP(request: Request): { readonly address: string; readonly port: number } | null;
}

/** The `websocket` option of `Bun.serve`. */
export interface BunWebSocketHandlers {
  /** A WebSocket is open. */
  open(socket: BunSocket): void;
  /** A message came. */
  message(socket: BunSocket, message: string | Uint8Array): void;
  /** Something was sent. */
  drain(socket: BunSocket): void;
  /** A WebSocket is gone. */
  close(socket: BunSocket, code: number): void;
  /** The longest message in bytes. */
  readonly maxPayloadLength: number;
  /** Compression gains nothing here. */
  readonly perMessageDeflate: boolean;
}

/** What stands in a WebSocket's `data`. */
class BunUpgrade {
  readonly info: LinkInfo;
  readonly events: UpgradeEvents;
  link: NativeWebSocketLink | undefined;

  constructor(info: LinkInfo, events: UpgradeEvents) {
    this.info = info;
    this.events = events;
  }
}

/** Answers a request with an upgrade; false where Bun refuses it. */
export function upgradeBun(
  request: Request,
  server: BunServer,
  protocol: string,
  info: LinkInfo,
  events: UpgradeEvents,
): boolean {
  return server.upgrade(request, {
    data: new BunUpgrade(info, events),
    headers: { "sec-websocket-protocol": protocol },
  });
}

/** The handlers, which leave WebSockets of others alone. */
export function bunWebSocketHandlers(): BunWebSocketHandlers {
  return {
    open(socket) {
      const upgrade = upgradeOf(socket);
      if (upgrade === undefined) return;
      upgrade.link = new NativeWebSocketLink(bunSocket(socket), upgrade.info);
      upgrade.events.onLink(upgrade.link as Link);
    },
    message(socket, message) {
      const link = upgradeOf(socket)?.link;
      if (typeof message === "string") link?.onText();
      else link?.onMessage(plainView(message));
    },
    drain: (socket) => upgradeOf(socket)?.link?.onDrain(),
    close(socket, code) {
      const upgrade = upgradeOf(socket);
      upgrade?.link?.onSocketClose(code);
      upgrade?.events.onGone();
    },
    maxPayloadLength: MAX_MESSAGE_BYTES,
    perMessageDeflate: false,
  };
}

function upgradeOf(socket: BunSocket): BunUpgrade | undefined {
  return socket.data instanceof BunUpgrade ? socket.data : undefined;
}

/** A Buffer's `slice` would not copy, which would surprise whoever gets the chunk. */
function plainView({ buffer, byteOffset, length }: Uint8Array): Uint8Array {
  return new Uint8Array(buffer, byteOffset, length);
}

function bunSocket(socket: BunSocket): NativeSocket {
  return {
    get bufferedBytes() {
      return socket.getBufferedAmount();
    },
    tellsDrain: true,
    // An empty message that was sent is 0 bytes, too; and what comes too late is told by `close`.
    send: (message) => socket.send(message) !== 0 || socket.getBufferedAmount() === 0,
    close: (code) => socket.close(code),
    terminate: () => socket.terminate(),
    pause: () => socket.pause?.(),
    resume: () => socket.resume?.(),
  };
}
