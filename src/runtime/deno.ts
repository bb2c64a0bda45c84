/**
 * Deno. Plain TCP is `Deno.connect` and `Deno.listen`, which move half as much again as `node:net`
 * there. TLS is `node:tls`: `Deno.listenTls` accepts TLS 1.2 and can't ask for a client certificate,
 * `Deno.connectTls` trusts the public authorities beside the given one, and neither shows the peer's
 * certificate.
 *
 * @module
 */

import { connectDeno } from "./deno_connect.ts";
import { listenDeno } from "./deno_listen.ts";
import { LIMITS_FILE, parseDescriptorLimit } from "./descriptor_limit.ts";
import { connectNode } from "./node_connect.ts";
import { listenNode } from "./node_listen.ts";
import type { Runtime } from "./sockets.ts";

/** The library's view of Deno. */
export const denoRuntime: Runtime = {
  name: "deno",
  get version(): string {
    return Deno.version.deno;
  },
  connect: (address, options) => (options.tls ? connectNode : connectDeno)(address, options),
  listen: (address, options) =>
    // `Deno.listen` ends the process where it is to share a port without `--unstable-net`.
    (options.tls || options.reusePort ? listenNode : listenDeno)(address, options),
  readTextFile: (path) => Deno.readTextFile(path),
  fileDescriptorLimit: readDescriptorLimit,
};

function readDescriptorLimit(): number | undefined {
  // Asking first: a read without the permission would stop at a prompt on a terminal.
  const permission = Deno.permissions.querySync({ name: "read", path: LIMITS_FILE });
  if (permission.state !== "granted") return undefined;
  try {
    return parseDescriptorLimit(Deno.readTextFileSync(LIMITS_FILE));
  } catch {
    return undefined;
  }
}
