/** Servers with a mount each, as transports that dial by WebSocket and listen by the mount. */

import * as http from "node:http";
import * as https from "node:https";
import type { AddressInfo } from "node:net";
import { webSocketMount } from "../../src/transport/websocket_mount.ts";
import type {
  BunServer,
  BunWebSocketHandlers,
  WebSocketMount,
} from "../../src/transport/websocket_mount.ts";
import { detectRuntime } from "../../src/runtime/runtime.ts";
import { webSocketTransports } from "../../src/transport/websocket.ts";
import type { Transport } from "../../src/transport/transport.ts";
import type { Credentials } from "../support/certs.ts";

/** What is used of Bun here: Deno and Node have no types of it. */
export interface BunGlobal {
  serve(options: {
    hostname: string;
    port: number;
    tls?: Credentials;
    fetch(request: Request, server: BunServer): Response | undefined;
    websocket: BunWebSocketHandlers & { backpressureLimit?: number };
  }): { readonly port: number; stop(): Promise<void> };
}

/** A server that serves one mount at a time on `/hawser`. */
export interface MountedServer {
  readonly url: string;
  mount: WebSocketMount | undefined;
  close(): Promise<void>;
}

/** Starts a server on a free port of 127.0.0.1; with TLS where it has a certificate. */
export type StartServer = (credentials?: Credentials) => Promise<MountedServer>;

const PATH = "/hawser";

/** By the name of the server; those that this runtime has. */
export const SERVERS: Readonly<Record<string, StartServer>> = {
  "node:http": startNode,
  ..."Deno" in globalThis ? { "Deno.serve": startDeno } : {},
  ..."Bun" in globalThis ? { "Bun.serve": startBun } : {},
};

async function startNode(credentials?: Credentials): Promise<MountedServer> {
  const server = credentials === undefined ? http.createServer() : https.createServer(credentials);
  server.on("upgrade", (request, socket, head) => {
    if (started.mount === undefined || request.url !== PATH) return void socket.destroy();
    started.mount.handleUpgrade(request, socket, head);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", () => resolve()));
  const { port } = server.address() as AddressInfo;
  const started: MountedServer = {
    url: urlOf(port, credentials),
    mount: undefined,
    close: () => new Promise((resolve) => server.close(() => resolve())),
  };
  return started;
}

// deno-lint-ignore require-await -- the others are asynchronous
async function startDeno(credentials?: Credentials): Promise<MountedServer> {
  const abort = new AbortController();
  const server = Deno.serve(
    { hostname: "127.0.0.1", port: 0, signal: abort.signal, onListen() {}, ...credentials },
    (request, info) =>
      started.mount?.handleDeno(request, info) ?? new Response(null, { status: 503 }),
  );
  const { port } = server.addr;
  const started: MountedServer = {
    url: urlOf(port, credentials),
    mount: undefined,
    // `shutdown` and `finished` wait for upgrades that never come about: see deno_upgrade.ts.
    close: () => Promise.resolve(abort.abort()),
  };
  return started;
}

// deno-lint-ignore require-await -- the others are asynchronous
async function startBun(credentials?: Credentials): Promise<MountedServer> {
  const anyMount = webSocketMount("ws://127.0.0.1:1/");
  const { Bun } = globalThis as unknown as { Bun: BunGlobal };
  const server = Bun.serve({
    hostname: "127.0.0.1",
    port: 0,
    ...(credentials === undefined ? {} : { tls: credentials }),
    fetch: (request, server) =>
      started.mount === undefined
        ? new Response(null, { status: 503 })
        : started.mount.handleBun(request, server),
    websocket: anyMount.bunWebSocket,
  });
  const started: MountedServer = {
    url: urlOf(server.port, credentials),
    mount: undefined,
    close: () => server.stop(),
  };
  return started;
}

function urlOf(port: number, credentials: Credentials | undefined): string {
  return `${credentials === undefined ? "ws" : "wss"}://127.0.0.1:${port}${PATH}`;
}

/**
 * A transport for the contract: it dials by WebSocket, and listens by a mount on the server, which
 * goes on answering that there is nobody when the mount is closed.
 */
export function mountedTransport(server: MountedServer): Transport {
  const [ws, wss] = webSocketTransports(detectRuntime());
  const dialing = server.url.startsWith("wss") ? wss! : ws!;
  return {
    ...dialing,
    listen: async (_, options) => {
      const mount = server.mount ?? webSocketMount(server.url);
      const listener = await mount.listen(mount.address, options);
      server.mount = mount;
      return listener;
    },
  };
}
