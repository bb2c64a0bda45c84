/**
 * A page and an endpoint on one port: `Deno.serve`, `Bun.serve` or `node:http`, whichever is there,
 * answers requests and hands WebSockets for `/hawser` over.
 *
 * Run it with `deno run -A examples/websocket_mount.ts`, `bun examples/websocket_mount.ts` or
 * `node examples/websocket_mount.ts`. In a program of your own the import is `@hawser/hawser`.
 *
 * @module
 */

import { createServer } from "node:http";
import { type AddressInfo, createServer as createSocketServer } from "node:net";
import { type BunServer, type BunWebSocketHandlers, Endpoint, webSocketMount } from "../mod.ts";

/** What is used of Bun here: Deno and Node have no types of it. */
interface BunGlobal {
  serve(options: {
    hostname: string;
    port: number;
    fetch(request: Request, server: BunServer): Response | undefined;
    websocket: BunWebSocketHandlers;
  }): { stop(): void };
}

const hostname = "127.0.0.1";
const port = await freePort();
const page = () => new Response("a page");
const isOurs = (request: Request) => new URL(request.url).pathname === "/hawser";

const mount = webSocketMount(`ws://${hostname}:${port}/hawser`);
const harbour = new Endpoint({
  nodeId: "harbour",
  security: "development",
  transports: [mount],
  listen: mount.address,
});
const ship = new Endpoint({ nodeId: "ship", security: "development" });
const stop = "Deno" in globalThis ? serveDeno() : "Bun" in globalThis ? serveBun() : serveNode();
try {
  await harbour.start();
  await ship.start();
  await ship.connect({ nodeId: "harbour", address: mount.url });
  await ship.send("harbour", new TextEncoder().encode("ahoy"));
  const { from, payload } = await harbour.receive();
  console.log(`harbour heard "${new TextDecoder().decode(payload)}" from ${from}`);

  const response = await fetch(`http://${hostname}:${port}/`);
  console.log(`and the same port serves ${await response.text()}`);
} finally {
  await ship.close();
  await harbour.close();
  stop();
}

function serveDeno(): () => void {
  const abort = new AbortController();
  Deno.serve(
    { hostname, port, signal: abort.signal, onListen() {} },
    (request, info) => isOurs(request) ? mount.handleDeno(request, info) : page(),
  );
  return () => abort.abort();
}

function serveBun(): () => void {
  const { Bun } = globalThis as unknown as { Bun: BunGlobal };
  const server = Bun.serve({
    hostname,
    port,
    fetch: (request, server) => isOurs(request) ? mount.handleBun(request, server) : page(),
    websocket: mount.bunWebSocket,
  });
  return () => server.stop();
}

function serveNode(): () => void {
  const server = createServer((_, response) => response.end("a page"));
  server.on("upgrade", (request, socket, head) => {
    if (request.url === "/hawser") mount.handleUpgrade(request, socket, head);
    else socket.destroy();
  });
  server.listen({ host: hostname, port });
  return () => server.close();
}

/** Programs know their port; this one may not be in the way of others. */
async function freePort(): Promise<number> {
  const server = createSocketServer();
  await new Promise<void>((resolve) => server.listen(0, hostname, () => resolve()));
  const { port } = server.address() as AddressInfo;
  await new Promise<void>((resolve) => server.close(() => resolve()));
  return port;
}
