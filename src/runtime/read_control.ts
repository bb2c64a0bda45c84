/**
 * How the reading of a `node:net` or `node:tls` socket that has a "data" listener is stopped and
 * started.
 *
 * @module
 */

import type { Socket } from "node:net";

/** The part of a socket's handle on Deno that is used here. It is not documented. */
interface DenoHandle {
  readStop(): void;
  readStart(): void;
}

/**
 * On Deno (2.9.6) `pause` of a TLS socket stops nothing: Deno goes on reading and gathers the
 * plaintext without limit, and an end that arrives meanwhile is lost for good. The TCP handle
 * underneath stops as it should. Nor does `pause` stop a plain Unix socket; its own handle does. Where
 * there is neither, `pause` is what there is, and the link's limit of what it holds is what keeps
 * memory bounded.
 */
const ON_DENO = "Deno" in globalThis;

/** No more is read from the kernel; what is on its way may still arrive as "data". */
export function stopReading(socket: Socket): void {
  const handle = ON_DENO ? denoHandle(socket) : undefined;
  if (handle === undefined) socket.pause();
  else handle.readStop();
}

/** Reading goes on. */
export function startReading(socket: Socket): void {
  const handle = ON_DENO ? denoHandle(socket) : undefined;
  if (handle === undefined) socket.resume();
  else handle.readStart();
}

/** Looked up each time: it is gone once the socket is closed. */
function denoHandle(socket: Socket): DenoHandle | undefined {
  const handle: unknown = Reflect.get(socket, "_handle");
  if (typeof handle !== "object" || handle === null) return undefined;
  const own = "encrypted" in socket ? Reflect.get(handle, "_nativeTcpHandle") : handle;
  return isDenoHandle(own) ? own : undefined;
}

function isDenoHandle(value: unknown): value is DenoHandle {
  return typeof value === "object" && value !== null &&
    "readStop" in value && typeof value.readStop === "function" &&
    "readStart" in value && typeof value.readStart === "function";
}
