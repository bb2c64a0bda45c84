/**
 * An endpoint on a server that serves pages, too, in a process of its own: reads its options from
 * standard input as one JSON line, answers with the server's URL, and sends every message back.
 */

import { createInterface } from "node:readline";
import process from "node:process";
import { Endpoint, type EndpointConfig } from "../../mod.ts";
import { webSocketMount } from "../../src/transport/websocket_mount.ts";
import type { Credentials } from "../support/certs.ts";
import { SERVERS } from "../transport/mounted_servers.ts";

/** What it is told. */
export interface MountedEcho {
  readonly server: string;
  readonly credentials: Credentials;
  readonly options: EndpointConfig;
}

if (import.meta.main) {
  const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
  const told: MountedEcho = JSON.parse((await lines.next()).value ?? "");
  const { server: name, credentials, options } = told;
  const server = await SERVERS[name]!(credentials);
  const mount = webSocketMount(server.url);
  server.mount = mount;
  const endpoint = new Endpoint({ ...options, listen: mount.address, transports: [mount] });
  endpoint.onMessage(({ from, payload }) => endpoint.send(from, payload));
  await endpoint.start();
  console.log(JSON.stringify(server.url));
  await lines.next();
  await endpoint.close();
  process.exit(0);
}
